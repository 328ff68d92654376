/* oom_read_test.c - Memory that runs out while a database is read gives right data or an error, whatever the call.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "arena/hash.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/memory_disk.h"

/* ---- reading ----------------------------------------------------------------------------------- */

/* The values of all keys of "default", told apart by their hashes. */
struct reading {
    uint64_t value[ORACLE_KEYS];
};

static uint64_t value_hash(int rc, loam_slice v)
{
    return rc == LOAM_NOTFOUND ? 0 : checksum64(v.data, v.size, 1) | 1;
}

static bool read_by_get(loam_db *db, const loam_read_opts *o, struct reading *r)
{
    static uint8_t buf[32768];
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        size_t n = 0;
        int rc = loam_get(db, NULL, oracle_key(k), buf, sizeof buf, &n, o);
        if (oom_short(rc, "get")) {
            return false;
        }
        r->value[k] = value_hash(rc, loam_bytes(buf, n));
    }
    return true;
}

static bool read_by_pin(loam_db *db, const loam_read_opts *o, struct reading *r)
{
    bool all = true;
    for (unsigned k = 0; k < ORACLE_KEYS && all; k++) {
        loam_pin pin = LOAM_PIN_INIT;
        int rc = loam_get_pin(db, NULL, oracle_key(k), &pin, o);
        all = !oom_short(rc, "get_pin");
        r->value[k] = all ? value_hash(rc, pin.value) : 0;
        loam_unpin(&pin);
    }
    return all;
}

static bool read_many(loam_db *db, const loam_read_opts *o, struct reading *r)
{
    loam_slice keys[ORACLE_KEYS];
    loam_pin pins[ORACLE_KEYS];
    int rcs[ORACLE_KEYS];
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        keys[k] = oracle_key(k);
        pins[k] = (loam_pin)LOAM_PIN_INIT;
    }
    int rc = loam_get_many(db, NULL, keys, ORACLE_KEYS, pins, rcs, o);
    bool all = !oom_short(rc, "get_many");
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        if (all) {
            r->value[k] = value_hash(rcs[k], pins[k].value);
        }
        loam_unpin(&pins[k]);
    }
    return all;
}

static unsigned index_of(loam_slice key)
{
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        loam_slice want = oracle_key(k);
        if (want.size == key.size &&
            (key.size == 0 || memcmp(want.data, key.data, key.size) == 0)) {
            return k;
        }
    }
    oracle_fail("a key of %zu bytes that was never written", key.size);
}

static int take_entry(void *ctx, loam_slice key, loam_slice value)
{
    struct reading *r = ctx;
    r->value[index_of(key)] = value_hash(LOAM_OK, value);
    return 0;
}

static bool read_by_scan(loam_db *db, const loam_snap *snap, struct reading *r)
{
    const loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    memset(r, 0, sizeof *r);
    return !oom_short(loam_scan(db, NULL, &o, 0, take_entry, r), "scan");
}

/* Forward and back from every key. */
static bool walk(loam_iter *it, struct reading *r)
{
    memset(r, 0, sizeof *r);
    int rc = loam_iter_last(it);
    for (; rc == LOAM_OK; rc = loam_iter_prev(it)) {
        take_entry(r, loam_iter_key(it), loam_iter_value(it));
    }
    bool all = !oom_short(rc, "walking back");
    for (unsigned k = 0; k < ORACLE_KEYS && all; k++) {
        rc = k % 2 != 0 ? loam_iter_seek(it, oracle_key(k)) : loam_iter_seek_le(it, oracle_key(k));
        if (rc == LOAM_OK && index_of(loam_iter_key(it)) == k) {
            CHECK_EQ(r->value[k], value_hash(rc, loam_iter_value(it)));
        } else if (rc >= 0) {
            CHECK_EQ(r->value[k], 0);
        }
        rc = rc == LOAM_OK ? loam_iter_next(it) : rc;
        all = !oom_short(rc, "seeking");
    }
    return all;
}

static bool read_by_iter(loam_db *db, const loam_snap *snap, struct reading *r)
{
    const loam_iter_opts o = {.struct_size = sizeof o, .snap = snap, .upper = LOAM_LIT("zzzz")};
    loam_iter *it;
    if (oom_short(loam_iter_open(db, NULL, &o, &it), "opening an iterator")) {
        return false;
    }
    bool all = walk(it, r);
    all = all && !oom_short(loam_iter_refresh(it, snap), "refresh") && walk(it, r);
    loam_iter_close(it);
    return all;
}

static void expect_same(const char *what, const struct reading *a, const struct reading *b)
{
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        if (a->value[k] != b->value[k]) {
            oracle_fail("%s gives another value for key %u", what, k);
        }
    }
}

/* Every way to read must give the same, or an error. */
static void read_every_way(loam_db *db, const loam_snap *snap, struct reading *first, bool *have)
{
    const loam_read_opts o = {.struct_size = sizeof o, .snap = snap, .flags = LOAM_R_VERIFY};
    struct reading r;
    if (!*have) {
        *have = read_by_get(db, &o, first);
    } else if (read_by_get(db, &o, &r)) {
        expect_same("get", first, &r);
    }
    if (*have && read_by_pin(db, &o, &r)) {
        expect_same("get_pin", first, &r);
    }
    if (*have && read_many(db, &o, &r)) {
        expect_same("get_many", first, &r);
    }
    if (*have && read_by_scan(db, snap, &r)) {
        expect_same("scan", first, &r);
    }
    if (*have && read_by_iter(db, snap, &r)) {
        expect_same("an iterator", first, &r);
    }
}

static void ask_for_numbers(loam_db *db)
{
    loam_stats stats = {.struct_size = sizeof stats};
    loam_hist hist;
    char text[8192];
    size_t need;
    uint64_t value;
    oom_short(loam_get_stats(db, NULL, &stats), "stats");
    oom_short(loam_get_hist(db, LOAM_HIST_GET, &hist), "histogram");
    oom_short(loam_format_stats(db, LOAM_TEXT, text, sizeof text, &need), "text");
    oom_short(loam_format_stats(db, LOAM_JSON, text, sizeof text, &need), "json");
    oom_short(loam_property(db, NULL, "level.1.files", &value), "property");
    CHECK(loam_health(db, NULL) >= 0);
    CHECK(loam_path(db)[0] == '/');
}

/* A batch that grows, is cut back and grows again; it is never written. */
static void fill_batch(loam_db *db)
{
    loam_ks *ks = NULL;
    oom_short(loam_ks_open(db, "one", NULL, &ks), "opening a keyspace");
    loam_batch *b = loam_batch_new(100);
    for (int round = 0; b != NULL && round < 2; round++) {
        size_t mark = loam_batch_mark(b);
        for (uint32_t i = 1; i < 40; i++) {
            loam_batch_put(b, ks, oracle_key(i % ORACLE_KEYS), oracle_value(i));
            void *p = loam_batch_reserve(b, NULL, oracle_key(3), i);
            if (p != NULL) {
                memset(p, 1, i);
            }
            loam_batch_delete(b, ks, oracle_key(1));
        }
        CHECK_EQ(loam_batch_rewind(b, mark), LOAM_OK);
        CHECK_EQ(loam_batch_count(b), 0);
    }
    if (b != NULL) {
        CHECK_EQ(loam_write(db, b, NULL), LOAM_OK); /* empty, and free of its error */
    }
    loam_batch_clear(b);
    loam_batch_free(b);
    loam_ks_release(ks);
}

static void reading(struct oom_scene *s)
{
    struct oracle_writer *w = &s->w;
    struct reading before;
    bool have = false;
    loam_snap *snap = NULL;
    if (!oom_short(loam_snap_take(w->db, &snap), "snapshot")) {
        read_every_way(w->db, snap, &before, &have);
    }
    oracle_write(w, 5, false);
    if (snap != NULL) {
        read_every_way(w->db, snap, &before, &have);
    }
    ask_for_numbers(w->db);
    fill_batch(w->db);
    oom_judge_live(w);
    loam_snap_release(snap);
}

Test(oom, costs_reads_an_error_at_most)
{
    oom_sweep(&(struct oom_scenario){
        .name = "reading", .act = reading, .open = true, .past = oom_make_past()});
}

/* ---- keyspaces with an order of their own ---------------------------------------------------- */

static int backwards(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(b.data, a.data, n) : 0;
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

static const loam_comparator back_order = {
    .struct_size = sizeof back_order, .name = "backwards", .compare = backwards};
#define BACK_KEYS 30u

static int open_backwards(loam_db *db, loam_ks **ks)
{
    const loam_ks_options o = {.struct_size = sizeof o, .comparator = &back_order};
    return loam_ks_open(db, "backwards", &o, ks);
}

static void put_backwards(loam_db *db, uint32_t first)
{
    loam_ks *ks;
    crash_must(open_backwards(db, &ks), "creating a keyspace with a comparator");
    for (uint32_t i = first; i < BACK_KEYS; i += 2) {
        uint8_t key[2] = {(uint8_t)(i / 7), (uint8_t)i};
        crash_must(loam_put(db, ks, loam_bytes(key, 2), oracle_value(i + 1), NULL), "put");
    }
    loam_ks_release(ks);
}

/* Complete and in order, or an error. */
static int read_backwards(loam_db *db)
{
    loam_ks *ks;
    int rc = open_backwards(db, &ks);
    if (rc < 0) {
        return rc;
    }
    loam_iter *it;
    rc = loam_iter_open(db, ks, NULL, &it);
    uint32_t i = BACK_KEYS;
    if (rc == LOAM_OK) {
        for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
            uint8_t key[2] = {(uint8_t)((i - 1) / 7), (uint8_t)(i - 1)};
            CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, key, 2);
            loam_slice want = oracle_value(i), got = loam_iter_value(it);
            CHECK_BYTES(got.data, got.size, want.data, want.size);
            i--;
        }
        loam_iter_close(it);
    }
    loam_ks_release(ks);
    CHECK(rc < 0 || i == 0);
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

/* A database that only one call at a time works on; no oracle, the keys are always the same. */
static void try_backwards(loam_vfs *image, bool cut, uint64_t at, bool persist, uint64_t *calls)
{
    oracle_context("a comparator, allocation %llu %s", (unsigned long long)at,
                   persist ? "and all after it" : "alone");
    struct oom_live before = oom_balance();
    loam_vfs *disk;
    CHECK_EQ(loam_vfs_power_cut(image, cut ? 1 : 0, &disk), LOAM_OK);
    loam_options options = crash_options(disk);
    options.allocator = oom_allocator();
    loam_db *db;
    oom_arm(OOM_ALL, at, persist);
    int rc = loam_open(OOM_DIR, &options, &db);
    if (!oom_short(rc, "open")) {
        oom_short(read_backwards(db), "reading");
        oom_short(loam_flush(db, NULL), "flush");
        oom_short(read_backwards(db), "reading");
        loam_close(db);
    }
    oom_disarm();
    *calls = oom_calls();
    loam_options ro = options;
    ro.flags = LOAM_OPEN_MUST_EXIST;
    crash_must(loam_open(OOM_DIR, &ro, &db), "open with memory again");
    crash_must(read_backwards(db), "reading with memory again");
    crash_must(loam_close(db), "close");
    CHECK_EQ(crash_open_files(disk), 0);
    loam_vfs_free(disk);
    if (at != 0) {
        oom_check_balance("after close", before);
    }
}

Test(oom, costs_keyspaces_with_comparators_an_error_at_most)
{
    loam_vfs *disk, *fault;
    loam_db *db;
    oom_install();
    oracle_on_fail = oom_print_place;
    disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(disk, NULL, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    crash_must(loam_open(OOM_DIR, &options, &db), "open");
    put_backwards(db, 0);
    crash_must(loam_flush(db, NULL), "flush");
    put_backwards(db, 1);
    crash_must(loam_sync(db), "sync");
    loam_vfs *killed, *image;
    CHECK_EQ(loam_vfs_power_cut(fault, 0, &killed), LOAM_OK);
    CHECK_EQ(loam_vfs_fault(killed, NULL, &image), LOAM_OK);
    crash_must(loam_close(db), "close");
    oom_warm_up();
    uint64_t calls, same;
    try_backwards(image, true, 0, false, &calls);
    for (uint64_t n = 1; n <= calls; n++) {
        crash_alarm(OOM_RUN_SECONDS);
        try_backwards(image, n % 2 == 0, n, false, &same);
        try_backwards(image, n % 2 == 1, n, true, &same);
    }
    crash_alarm(0);
    fprintf(stderr, "oom, comparators: %llu allocations\n", (unsigned long long)calls);
    loam_vfs_free(image);
    loam_vfs_free(killed);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}
