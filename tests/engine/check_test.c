/* check_test.c - loam_check and loam_verify: what they find, how they tell it, how they end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * That they find every damage is shown by tests/crash/damage_test.c, case by case; here are the
 * contents of findings and what goes on beside a database in use.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "arena/status.h"
#include "arena/sync.h"
#include "engine/filename.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/meter.h"

#define DIR    "/db"
#define KEYS   400u
#define LISTED 64u

struct listed {
    loam_damage d[LISTED];
    char file[LISTED][FILENAME_BASE_CAP];
    char ks[LISTED][32], first[LISTED][32], last[LISTED][32];
    loam_error error[LISTED];
    unsigned count, stop_at; /* 0: never */
};

static void copy(char to[32], loam_slice s)
{
    size_t n = s.size < 31 ? s.size : 31;
    memset(to, 0, 32);
    if (n != 0) {
        memcpy(to, s.data, n);
    }
}

static int list(void *ctx, const loam_damage *d)
{
    struct listed *l = ctx;
    CHECK(l->count < LISTED);
    l->d[l->count] = *d;
    l->error[l->count] = *loam_last_error();
    strcpy(l->file[l->count], d->file);
    copy(l->ks[l->count], d->ks_name);
    copy(l->first[l->count], d->first_key);
    copy(l->last[l->count], d->last_key);
    l->count++;
    return l->count == l->stop_at;
}

/* All of `fill` fits one memtable. */
static loam_options roomy(const loam_vfs *disk)
{
    loam_options o = small_options(disk);
    o.memory_budget = 16 << 20;
    return o;
}

static loam_slice key_of(unsigned i)
{
    static char key[16];
    snprintf(key, sizeof key, "key%05u", i);
    return text(key);
}

/* Two keyspaces, a table of many blocks each, and a log behind them. */
static loam_db *fill(const loam_vfs *disk)
{
    static char value[300];
    loam_options o = roomy(disk);
    loam_db *db;
    loam_ks *ks;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_ks_open(db, "other", NULL, &ks));
    for (unsigned i = 0; i < KEYS; i++) {
        memset(value, 'a' + (int)(i % 26), sizeof value);
        for (size_t k = 0; k < sizeof value; k += 3) {
            value[k] = (char)(i * 7 + k * 31); /* does not compress away */
        }
        GOES(loam_put(db, NULL, key_of(i), loam_bytes(value, sizeof value), NULL));
        GOES(loam_put(db, ks, key_of(i), loam_bytes(value, sizeof value), NULL));
    }
    GOES(loam_flush(db, NULL));
    put_text(db, NULL, "in the log", "a value");
    GOES(loam_sync(db));
    loam_ks_release(ks);
    return db;
}

static void flip(const loam_vfs *v, const char *path, uint64_t at)
{
    disk_file_flip(v, path, at, 0x40);
}

Test(check, finds_nothing_in_a_sound_database_open_closed_or_killed)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    loam_db *db = fill(disk);
    GOES(loam_verify(db, NULL, NULL));
    GOES(loam_check(DIR, &o, NULL, NULL)); /* beside the writer */
    GOES(loam_close(db));
    GOES(loam_check(DIR, &o, NULL, NULL));
    o.flags = LOAM_OPEN_READONLY;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_verify(db, NULL, NULL));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(check, of_no_database_is_noent)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    FAILS(loam_check(DIR, &o, NULL, NULL), LOAM_E_NOENT);
    CHECK_EQ(disk->mkdir(disk->ctx, DIR), 0);
    FAILS(loam_check(DIR, &o, NULL, NULL), LOAM_E_NOENT);
    FAILS(loam_check("", &o, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_verify(NULL, NULL, NULL), LOAM_E_INVAL);
    loam_vfs_free(disk);
}

/* A byte of a block in the middle: file, offset, keyspace, and a range that is not the whole table. */
static void expect_block(const struct listed *l, const char *path, uint64_t at, const char *ks)
{
    CHECK_EQ(l->count, 1);
    CHECK(strcmp(l->file[0], path + strlen(DIR "/")) == 0);
    CHECK_EQ(l->d[0].code, LOAM_E_CORRUPT);
    CHECK_EQ(l->error[0].code, LOAM_E_CORRUPT);
    CHECK(l->error[0].file_id != 0 && l->error[0].offset == l->d[0].offset);
    CHECK(l->d[0].offset <= at && at < l->d[0].offset + l->d[0].bytes);
    CHECK(strcmp(l->ks[0], ks) == 0);
    CHECK(l->first[0][0] != '\0' && strcmp(l->first[0], l->last[0]) < 0);
    CHECK(strcmp(l->first[0], "key00000") > 0 && strcmp(l->last[0], "key00399") < 0);
    CHECK(l->d[0].keys_lost_max < KEYS && l->d[0].keys_lost_max > 1);
}

Test(check, names_file_offset_keyspace_and_keys_of_a_damaged_block_online_and_offline)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    for (unsigned table = 0; table < 2; table++) {
        loam_db *db = fill(disk);
        struct file_on_disk f = disk_file_of(disk, DIR, FILE_TABLE, table);
        const uint64_t at = 50000;
        flip(disk, f.path, at);
        struct listed online = {.count = 0}, offline = {.count = 0};
        FAILS(loam_verify(db, list, &online), LOAM_E_CORRUPT);
        FAILS(loam_check(DIR, &o, list, &offline), LOAM_E_CORRUPT);
        expect_block(&online, f.path, at, online.ks[0][0] == 'o' ? "other" : "default");
        expect_block(&offline, f.path, at, online.ks[0]);
        /* Every key that cannot be read lies in the range told. */
        loam_ks *ks;
        GOES(loam_ks_open(db, online.ks[0], NULL, &ks));
        for (unsigned i = 0; i < KEYS; i++) {
            loam_read_opts r = {.struct_size = sizeof r, .flags = LOAM_R_VERIFY};
            char buf[300];
            int rc = loam_get(db, ks, key_of(i), buf, sizeof buf, NULL, &r);
            const char *key = key_of(i).data;
            CHECK(rc == LOAM_OK || (rc == LOAM_E_CORRUPT && strcmp(key, online.first[0]) >= 0 &&
                                    strcmp(key, online.last[0]) <= 0));
        }
        loam_ks_release(ks);
        (void)loam_close(db);
        flip(disk, f.path, at);
        GOES(loam_destroy(DIR, &o));
    }
    loam_vfs_free(disk);
}

/* The segment that holds the record `fill` wrote last. */
static struct file_on_disk live_log(const loam_vfs *v)
{
    for (unsigned i = 0;; i++) {
        struct file_on_disk f = disk_file_of(v, DIR, FILE_LOG, i);
        loam_file *file;
        char bytes[64] = "";
        CHECK_EQ(v->open(v->ctx, f.path, LOAM_VFS_READ, &file), 0);
        CHECK(v->read(v->ctx, file, bytes, sizeof bytes, 4096) >= 0);
        v->close(v->ctx, file);
        if (memmem(bytes, sizeof bytes, "in the log", 10) != NULL) {
            return f;
        }
    }
}

Test(check, finds_a_damaged_manifest_current_and_log_of_an_open_database)
{
    static const enum file_kind kinds[] = {FILE_MANIFEST, FILE_CURRENT, FILE_LOG};
    static const uint64_t at[] = {50, 20, 4096 + 30};
    loam_vfs *disk = memory_disk();
    loam_db *db = fill(disk);
    for (unsigned i = 0; i < 3; i++) {
        struct file_on_disk f = kinds[i] == FILE_LOG ? live_log(disk) : disk_file_of(disk, DIR, kinds[i], 0);
        flip(disk, f.path, at[i]);
        struct listed l = {.count = 0};
        FAILS(loam_verify(db, list, &l), LOAM_E_CORRUPT);
        CHECK_EQ(l.count, 1);
        if (strcmp(l.file[0], f.path + strlen(DIR "/")) != 0) {
            CHECK_FAIL_("%s was damaged, %s is told", f.path, l.file[0]);
        }
        flip(disk, f.path, at[i]);
        GOES(loam_verify(db, NULL, NULL));
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(check, tells_of_a_missing_table_with_its_whole_range)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    GOES(loam_close(fill(disk)));
    struct file_on_disk f = disk_file_of(disk, DIR, FILE_TABLE, 0);
    CHECK_EQ(disk->remove(disk->ctx, f.path), 0);
    struct listed l = {.count = 0};
    FAILS(loam_check(DIR, &o, list, &l), LOAM_E_CORRUPT);
    CHECK_EQ(l.count, 1);
    CHECK_EQ(l.d[0].code, LOAM_E_NOENT);
    CHECK_EQ(l.d[0].keys_lost_max, KEYS);
    CHECK(strcmp(l.ks[0], "default") == 0 || strcmp(l.ks[0], "other") == 0);
    CHECK(strcmp(l.first[0], "key00000") == 0 && strcmp(l.last[0], "key00399") == 0);
    loam_vfs_free(disk);
}

Test(check, without_a_manifest_looks_at_each_table_by_itself)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    GOES(loam_close(fill(disk)));
    flip(disk, disk_file_of(disk, DIR, FILE_CURRENT, 0).path, 30);
    flip(disk, disk_file_of(disk, DIR, FILE_TABLE, 1).path, 50000);
    struct listed l = {.count = 0};
    FAILS(loam_check(DIR, &o, list, &l), LOAM_E_CORRUPT);
    CHECK_EQ(l.count, 2);
    CHECK(strcmp(l.file[0], "CURRENT") == 0);
    CHECK(l.d[1].ks_name.data == NULL && l.first[1][0] != '\0');
    loam_vfs_free(disk);
}

Test(check, ends_when_the_callback_says_so)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    loam_db *db = fill(disk);
    flip(disk, disk_file_of(disk, DIR, FILE_TABLE, 0).path, 20000);
    flip(disk, disk_file_of(disk, DIR, FILE_TABLE, 1).path, 50000);
    flip(disk, disk_file_of(disk, DIR, FILE_TABLE, 1).path, 60000);
    struct listed l = {.stop_at = 2};
    CHECK_EQ(loam_verify(db, list, &l), LOAM_STOPPED);
    CHECK_EQ(l.count, 2);
    l = (struct listed){.stop_at = 1};
    CHECK_EQ(loam_check(DIR, &o, list, &l), LOAM_STOPPED);
    CHECK_EQ(l.count, 1);
    l = (struct listed){.count = 0};
    FAILS(loam_check(DIR, &o, list, &l), LOAM_E_CORRUPT);
    CHECK_EQ(l.count, 3);
    (void)loam_close(db);
    loam_vfs_free(disk);
}

/* Refuses one allocation after the first finding. */
static struct {
    struct meter meter;
    loam_allocator inner;
    unsigned countdown; /* 0: nothing is refused */
    bool refused;
} tight;

static void *tight_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    if (tight.countdown != 0 && --tight.countdown == 0) {
        tight.refused = true;
        return NULL;
    }
    return tight.inner.alloc(tight.inner.ctx, align, size);
}

static void tight_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    tight.inner.free(tight.inner.ctx, p, align, size);
}

static int tighten(void *ctx, const loam_damage *d)
{
    unsigned *at = ctx;
    (void)d;
    tight.countdown = *at;
    *at = 0;
    return 0;
}

/* The check of a damaged database that is short of memory for its n-th allocation after the finding.
 * False: it makes fewer. */
static bool check_tightly(loam_options *o, unsigned n)
{
    tight.refused = false;
    int rc = loam_check(DIR, o, tighten, &n);
    tight.countdown = 0;
    CHECK_EQ(rc, tight.refused ? LOAM_E_NOMEM : LOAM_E_CORRUPT);
    CHECK_EQ(tight.meter.now, 0);
    return tight.refused;
}

Test(check, says_that_memory_ended_it_whatever_it_found_before)
{
    loam_vfs *disk = memory_disk();
    loam_options o = roomy(disk);
    const loam_allocator a = {sizeof a, tight_alloc, tight_free, NULL};
    GOES(loam_close(fill(disk)));
    struct file_on_disk f = disk_file_of(disk, DIR, FILE_TABLE, 0);
    uint64_t size = disk_file_size(disk, f.path);
    tight.inner = meter_allocator(&tight.meter);
    o.allocator = &a;
    /* A block, pages of the filter, a partition, the top. */
    for (uint64_t at = size - 4096; at < size; at += 128) {
        flip(disk, f.path, at);
        unsigned n = 1;
        while (check_tightly(&o, n)) {
            n++;
        }
        flip(disk, f.path, at);
    }
    loam_vfs_free(disk);
}

Test(check, a_log_that_writes_to_a_keyspace_the_manifest_does_not_know_is_damage)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    loam_fault_plan plan = {.struct_size = sizeof plan};
    GOES(loam_vfs_fault(disk, &plan, &fault));
    loam_options o = roomy(fault);
    const loam_write_opts w = {.struct_size = sizeof w, .flags = LOAM_W_DURABLE};
    loam_db *db;
    loam_ks *ks;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_ks_open(db, "new", NULL, &ks));
    GOES(loam_put(db, ks, LOAM_LIT("key"), LOAM_LIT("value"), &w));
    GOES(loam_vfs_power_cut(fault, 0, &after));
    /* The edit that creates the keyspace is the last: damaged, it looks like one that was torn. */
    struct file_on_disk f = disk_file_of(after, DIR, FILE_MANIFEST, 0);
    flip(after, f.path, disk_file_size(after, f.path) - 1);
    o.vfs = after;
    struct listed l = {.count = 0};
    FAILS(loam_check(DIR, &o, list, &l), LOAM_E_CORRUPT);
    CHECK_EQ(l.count, 2); /* either may be what is wrong */
    CHECK(strstr(l.file[0], ".log") != NULL && strstr(f.path, l.file[1]) != NULL);
    loam_db *again;
    FAILS(loam_open(DIR, &o, &again), LOAM_E_CORRUPT);
    GOES(loam_repair(DIR, &o, NULL, NULL));
    GOES(loam_open(DIR, &o, &again));
    loam_ks *found;
    GOES(loam_ks_open(again, "recovered-1", NULL, &found));
    expect_text(again, found, "key", "value");
    loam_ks_release(found);
    GOES(loam_close(again));
    loam_vfs_free(after);
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

static void *close_soon(void *db)
{
    thread_sleep_micros(3000);
    (void)loam_close(db);
    return NULL;
}

Test(check, ends_when_the_database_is_closed_meanwhile)
{
    loam_vfs *disk = memory_disk();
    for (int i = 0; i < 20; i++) {
        loam_db *db = i == 0 ? fill(disk) : open_small(disk, DIR);
        pthread_t t;
        CHECK_EQ(thread_start(&t, close_soon, db), 0);
        int rc;
        do {
            rc = loam_verify(db, NULL, NULL);
        } while (rc == LOAM_OK);
        CHECK_EQ(rc, LOAM_E_CLOSED);
        thread_join(t);
    }
    loam_vfs_free(disk);
}

/* A disk on which, at the next opening of a table, the database is being closed. */
static struct {
    const loam_vfs *inner;
    loam_db *db; /* NULL: not any more */
    pthread_t closer;
} closing;

static void *close_now(void *db)
{
    GOES(loam_close(db));
    return NULL;
}

static int closing_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    loam_db *db = closing.db;
    if (db != NULL && strstr(path, ".sst") != NULL) {
        closing.db = NULL;
        CHECK_EQ(thread_start(&closing.closer, close_now, db), 0);
        thread_sleep_micros(100000);
    }
    return closing.inner->open(ctx, path, flags, f);
}

Test(check, ends_when_the_database_was_opened_read_only_too)
{
    loam_vfs *disk = memory_disk(), hooked = *disk;
    GOES(loam_close(fill(disk)));
    loam_options o = roomy(&hooked);
    o.flags = LOAM_OPEN_READONLY;
    hooked.open = closing_open;
    closing.inner = disk;
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    closing.db = db;
    FAILS(loam_verify(db, NULL, NULL), LOAM_E_CLOSED);
    CHECK(closing.db == NULL);
    thread_join(closing.closer);
    loam_vfs_free(disk);
}

static int reverse(void *ctx, loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(b.data, a.data, n) : 0;
    (void)ctx;
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

Test(check, knows_orders_that_are_not_by_bytes_or_passes_them_over)
{
    static const loam_comparator backwards = {
        .struct_size = sizeof backwards, .name = "backwards", .compare = reverse};
    loam_vfs *disk = memory_disk();
    loam_ks_options k = {.struct_size = sizeof k, .comparator = &backwards};
    loam_options o = roomy(disk);
    o.default_ks = &k;
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    loam_ks *ks;
    GOES(loam_ks_open(db, "too", &k, &ks));
    for (unsigned i = 0; i < KEYS; i++) {
        GOES(loam_put(db, NULL, key_of(i), key_of(i), NULL));
        GOES(loam_put(db, ks, key_of(i), key_of(i), NULL));
    }
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_compact(db, ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_verify(db, NULL, NULL));
    loam_ks_release(ks);
    GOES(loam_close(db));
    GOES(loam_check(DIR, &o, NULL, NULL));
    o.default_ks = NULL;
    GOES(loam_check(DIR, &o, NULL, NULL));
    loam_vfs_free(disk);
}

/* A disk on which, at the next opening of a table, a keyspace is dropped. */
static struct {
    const loam_vfs *inner;
    loam_db *db; /* NULL: not any more */
} dropping;

static int dropping_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    const char *name = strrchr(path, '/') + 1;
    enum file_kind kind;
    uint64_t number;
    loam_db *db = dropping.db;
    if (db != NULL && filename_parse(text(name), &kind, &number) && kind == FILE_TABLE) {
        dropping.db = NULL;
        GOES(loam_ks_drop(db, "too"));
    }
    return dropping.inner->open(ctx, path, flags, f);
}

Test(check, takes_no_keyspace_that_is_dropped_meanwhile_for_damaged)
{
    static const loam_comparator backwards = {
        .struct_size = sizeof backwards, .name = "backwards", .compare = reverse};
    loam_vfs *disk = memory_disk(), hooked = *disk;
    hooked.open = dropping_open;
    dropping.inner = disk;
    loam_ks_options k = {.struct_size = sizeof k, .comparator = &backwards};
    loam_options o = roomy(&hooked);
    loam_db *db;
    loam_ks *ks;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_ks_open(db, "too", &k, &ks));
    for (unsigned i = 0; i < KEYS; i++) {
        GOES(loam_put(db, NULL, key_of(i), key_of(i), NULL));
        GOES(loam_put(db, ks, key_of(i), key_of(i), NULL));
    }
    GOES(loam_flush(db, NULL));
    dropping.db = db;
    struct listed l = {.count = 0};
    GOES(loam_verify(db, list, &l));
    CHECK(dropping.db == NULL);
    CHECK_EQ(l.count, 0);
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
