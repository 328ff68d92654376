/* large_test.c - The largest values, and sequence numbers beyond 32 bits and at their end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * LOAM_SCALE=2 adds a value of 1 GiB, which takes some 5 GiB of memory.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/obsolete_files.h"
#include "engine/version_set.h"
#include "tests/engine/db_support.h"
#include "tests/support/skip.h"
#include "wal/wal_format.h"

#define GIB ((uint64_t)1 << 30)

TestSuite(large);

/* ---- values ------------------------------------------------------------------------------------ */

/* Every MiB begins with its number: what is moved or missing is noticed. */
static void number_pages(uint8_t *p, uint64_t n)
{
    for (uint64_t at = 0; at + sizeof at <= n; at += (uint64_t)1 << 20) {
        memcpy(p + at, &at, sizeof at);
    }
}

static void expect_value(loam_db *db, const char *key, const uint8_t *want, size_t n)
{
    loam_pin pin = LOAM_PIN_INIT;
    GOES(loam_get_pin(db, NULL, text(key), &pin, NULL));
    CHECK_EQ(pin.value.size, n);
    CHECK(memcmp(pin.value.data, want, n) == 0);
    loam_unpin(&pin);
}

static void expect_in_scan(loam_db *db, const uint8_t *want, size_t n)
{
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    GOES(loam_iter_last(it));
    CHECK_EQ(loam_iter_value(it).size, n);
    CHECK(memcmp(loam_iter_value(it).data, want, n) == 0);
    loam_iter_close(it);
}

static void keep_largest(const loam_options *o, const char *dir, uint64_t n)
{
    loam_db *db;
    uint8_t *value = mmap(NULL, n + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(value != MAP_FAILED);
    number_pages(value, n);
    GOES(loam_open(dir, o, &db));
    put_text(db, NULL, "a", "small");
    FAILS(loam_put(db, NULL, text("big"), loam_bytes(value, n + 1), NULL), LOAM_E_TOOBIG);
    GOES(loam_put(db, NULL, text("big"), loam_bytes(value, n), NULL));
    expect_value(db, "big", value, n);
    expect_in_scan(db, value, n);
    GOES(loam_flush(db, NULL));
    expect_value(db, "big", value, n);
    expect_in_scan(db, value, n);
    GOES(loam_put(db, NULL, text("big"), loam_bytes(value, n), NULL)); /* for the log */
    GOES(loam_close(db));
    GOES(loam_open(dir, o, &db));
    expect_value(db, "big", value, n);
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    expect_value(db, "big", value, n);
    expect_in_scan(db, value, n);
    expect_text(db, NULL, "a", "small");
    GOES(loam_close(db));
    munmap(value, n + 1);
}

Test(large, a_value_of_a_quarter_of_the_budget_is_kept_and_no_larger_one)
{
    loam_vfs *disk = memory_disk();
    for (uint64_t budget = 1 << 20; budget <= 16 << 20; budget *= 4) {
        loam_options o = small_options(disk);
        o.memory_budget = budget;
        keep_largest(&o, "/db", budget / 4);
        GOES(loam_destroy("/db", &o));
    }
    loam_vfs_free(disk);
}

/* No budget allows more; sizes are looked at before bytes are. */
Test(large, a_value_of_more_than_1_gib_is_refused)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.memory_budget = 8 * GIB;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    const uint64_t sizes[] = {GIB + 1, UINT32_MAX, (uint64_t)UINT32_MAX + 1, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        FAILS(loam_put(db, NULL, text("k"), loam_bytes("", sizes[i]), NULL), LOAM_E_TOOBIG);
        loam_batch *b = loam_batch_new(0);
        CHECK_EQ(loam_batch_put(b, NULL, text("k"), loam_bytes("", sizes[i])), LOAM_E_TOOBIG);
        CHECK(loam_batch_reserve(b, NULL, text("k"), sizes[i]) == NULL);
        FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
        loam_batch_free(b);
    }
    expect_none(db, NULL, "k");
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(large, a_value_of_1_gib_is_kept)
{
    const char *scale = getenv("LOAM_SCALE");
    if (scale == NULL || atoi(scale) < 2) {
        SKIP_TEST("large: a value of 1 GiB takes 5 GiB of memory and LOAM_SCALE=2");
    }
    char dir[] = "/tmp/loam-large-XXXXXX", db_dir[sizeof dir + 8];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(db_dir, sizeof db_dir, "%s/db", dir);
    loam_options o = small_options(NULL);
    o.memory_budget = 4 * GIB;
    keep_largest(&o, db_dir, GIB);
    GOES(loam_destroy(db_dir, &o));
    CHECK_EQ(rmdir(dir), 0);
}

/* ---- positions --------------------------------------------------------------------------------- */

/* A closed database's log goes on behind `seq`, where records can begin: at a multiple of 8. */
static void begin_behind(const loam_vfs *disk, const char *dir, uint64_t seq)
{
    struct alloc a;
    struct version_set vs;
    struct version_edit e;
    alloc_init(&a, NULL, UINT64_MAX);
    const struct version_set_options o = {.vfs = disk, .dir = dir, .alloc = &a};
    GOES(loam_close(open_small(disk, dir)));
    CHECK_EQ(version_set_create(&vs, &o), LOAM_OK);
    CHECK_EQ(version_set_recover(&vs), LOAM_OK);
    version_edit_init(&e, &a);
    version_edit_set_last_seq(&e, seq | 7);
    CHECK_EQ(version_set_apply(&vs, &e), LOAM_OK);
    version_edit_free(&e);
    CHECK_EQ(version_set_close_clean(&vs, 0, 0), LOAM_OK);
    version_set_destroy(&vs);
    CHECK_EQ(alloc_used(&a), 0);
}

#define CROSSING_KEYS 3000u

static void put_crossing(loam_db *db, unsigned from, unsigned to, const char *value)
{
    for (unsigned i = from; i < to; i++) {
        char key[16];
        snprintf(key, sizeof key, "%06u", i);
        put_text(db, NULL, key, value);
    }
}

static void expect_crossing(loam_db *db, const loam_snap *snap, const char *value)
{
    loam_iter *it;
    const loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    unsigned n = 0;
    GOES(loam_iter_open(db, NULL, &o, &it));
    for (int rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it), n++) {
        loam_slice v = loam_iter_value(it);
        CHECK_BYTES(v.data, v.size, value, strlen(value));
    }
    CHECK_EQ(n, CROSSING_KEYS);
    loam_iter_close(it);
}

static void cross(uint64_t border)
{
    loam_vfs *disk = memory_disk(), *fault, *killed;
    begin_behind(disk, "/db", border - 50000);
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    GOES(loam_vfs_fault(disk, &healthy, &fault));
    loam_db *db = open_small(fault, "/db");
    put_crossing(db, 0, CROSSING_KEYS / 2, "first");
    put_crossing(db, CROSSING_KEYS / 2, CROSSING_KEYS, "first");
    loam_snap *snap;
    GOES(loam_snap_take(db, &snap));
    CHECK(loam_snap_seq(snap) > border);
    put_crossing(db, 0, CROSSING_KEYS, "later");
    expect_crossing(db, snap, "first");
    expect_crossing(db, NULL, "later");
    GOES(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &killed));
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    expect_crossing(db, snap, "first");
    expect_crossing(db, NULL, "later");
    loam_snap_release(snap);
    GOES(loam_close(db));
    db = open_small(disk, "/db");
    expect_crossing(db, NULL, "later");
    GOES(loam_close(db));
    db = open_small(killed, "/db"); /* whose log is read again */
    expect_crossing(db, NULL, "later");
    GOES(loam_close(db));
    loam_vfs_free(killed);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(large, the_log_crosses_powers_of_two)
{
    cross((uint64_t)1 << 31);
    cross((uint64_t)1 << 32);
    cross((uint64_t)1 << 48);
}

/* A log begins in the lower half of the numbers, so that it cannot run out of them; beyond, what is there
 * can still be read. */
Test(large, sequence_numbers_come_to_an_end)
{
    loam_vfs *disk = memory_disk();
    begin_behind(disk, "/db", WAL_POSITION_MAX / 2 - 50000);
    loam_db *db = open_small(disk, "/db");
    put_crossing(db, 0, CROSSING_KEYS, "last");
    expect_crossing(db, NULL, "last");
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    loam_options o = small_options(disk);
    FAILS(loam_open("/db", &o, &db), LOAM_E_TOOBIG);
    o.flags = LOAM_OPEN_READONLY;
    GOES(loam_open("/db", &o, &db));
    expect_crossing(db, NULL, "last");
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
