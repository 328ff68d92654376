/* rest_test.c - When writers rest, the memtable they left becomes a table if that is worth while.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "arena/atomic.h"
#include "arena/epoch.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "engine/rest.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"

/* The runner ends a test that waits for ever. */
TestSuite(rest, .timeout = 60);

enum { VALUE = 200, BUDGET = 64 << 20, FEW = 5000 };

/* *limit: bytes at which the active memtable is sealed. */
static loam_db *open_with(const loam_vfs *disk, uint64_t *limit, uint32_t threads)
{
    loam_options o = small_options(disk);
    o.memory_budget = BUDGET;
    o.threads = threads;
    struct options full;
    GOES(options_resolve(&o, &full));
    *limit = full.limits.memtable_bytes;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    return db;
}

static loam_stats stats_of(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    return s;
}

static uint64_t held(loam_db *db)
{
    return stats_of(db).memtable_bytes;
}

static void put_one(loam_db *db, int key)
{
    uint8_t value[VALUE];
    memset(value, key, sizeof value);
    GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, sizeof value), NULL));
}

static void put_some(loam_db *db, int keys)
{
    for (int key = 0; key < keys; key++) {
        put_one(db, key);
    }
}

static void put_few(loam_db *db)
{
    put_some(db, FEW);
}

static void put_until(loam_db *db, uint64_t bytes)
{
    for (int key = 0; held(db) < bytes; key++) {
        put_one(db, key);
    }
}

static uint64_t flushes(loam_db *db)
{
    return stats_of(db).flushes;
}

static void seek_often(loam_db *db, int times)
{
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    for (int i = 0; i < times; i++) {
        int key = i % FEW;
        GOES(loam_iter_seek(it, loam_bytes(&key, sizeof key)));
    }
    loam_iter_close(it);
}

Test(rest, flushes_what_is_a_quarter_full)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    put_until(db, limit / 8);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 0);
    put_until(db, limit / REST_PART);
    GOES(loam_pause(db, 1)); /* nothing for readers alone, then */
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 0);
    GOES(loam_pause(db, 0));
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 1);
    CHECK(held(db) < limit / 8);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 1);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Nobody waits: it comes by itself. */
Test(rest, flushes_after_a_while_without_a_write)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    put_until(db, limit / REST_PART);
    while (flushes(db) == 0) {
        thread_sleep_micros(10000);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(rest, flushes_less_when_seeks_have_paid_for_it)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    put_few(db);
    CHECK(held(db) >= REST_BYTES);
    CHECK(held(db) < limit / REST_PART);
    seek_often(db, FEW / 2);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 0);
    seek_often(db, 2 * FEW);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 1);
    /* They are no credit for the next one. */
    put_few(db);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 1);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* A log that cannot go on in another segment keeps its memtable, and nobody waits for it. */
Test(rest, is_not_waited_for_when_it_cannot_be)
{
    loam_vfs *disk = memory_disk(), *faulty;
    loam_fault_plan none = {.struct_size = sizeof none};
    GOES(loam_vfs_fault(disk, &none, &faulty));
    uint64_t limit;
    loam_db *db = open_with(faulty, &limit, 1);
    loam_fault_plan full = {.struct_size = sizeof full,
                            .fail_at = 1,
                            .fail_repeat = UINT32_MAX,
                            .fail_errno = EMFILE,
                            .fail_calls = LOAM_CALL_OPEN};
    GOES(loam_vfs_set_plan(faulty, &full));
    put_until(db, limit / REST_PART);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 0);
    GOES(loam_vfs_set_plan(faulty, &none));
    put_one(db, 1); /* from now on it is tried again */
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(flushes(db), 1);
    GOES(loam_close(db));
    loam_vfs_free(faulty);
    loam_vfs_free(disk);
}

/* ---- log files kept for writers ----------------------------------------------------------------- */

/* Values that do not compress. */
static void put_noise(loam_db *db, int from, int to)
{
    uint64_t value[VALUE / 8];
    for (int key = from; key < to; key++) {
        uint64_t state = (uint64_t)key;
        for (size_t i = 0; i < VALUE / 8; i++) {
            value[i] = splitmix64(&state);
        }
        GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, sizeof value), NULL));
    }
}

/* Several segments' worth, all of it flushed: one has become the log again, and one or two wait. What is
 * asked for of the same keys leaves little data. */
static loam_db *open_with_idle_logs(const loam_vfs *disk, int keys)
{
    loam_db *db = open_small(disk, "/db");
    for (int left = 30000; left > 0; left -= keys) {
        put_noise(db, 0, keys);
    }
    GOES(loam_flush(db, NULL));
    CHECK(disk_files(disk, "/db", FILE_LOG) > 1);
    return db;
}

Test(rest, gives_up_log_files_that_are_much_beside_the_data)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_with_idle_logs(disk, 100);
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(disk_files(disk, "/db", FILE_LOG), 1);
    put_some(db, 10000); /* it goes on with new ones */
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Nobody waits: it comes by itself. */
Test(rest, gives_up_log_files_after_a_while_without_a_write)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_with_idle_logs(disk, 100);
    while (disk_files(disk, "/db", FILE_LOG) != 1) {
        thread_sleep_micros(10000);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

static uint64_t log_bytes(loam_db *db)
{
    return stats_of(db).wal_bytes;
}

/* It comes by itself; and who writes on gets whole segments again. */
Test(rest, leaves_a_small_log)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    uint64_t small = log_bytes(db);
    CHECK(small < limit);
    put_some(db, 40000);
    GOES(loam_flush(db, NULL));
    CHECK(log_bytes(db) > limit);
    uint64_t flushed = flushes(db);
    while (log_bytes(db) != small || disk_files(disk, "/db", FILE_LOG) != 1) {
        thread_sleep_micros(10000);
    }
    CHECK_EQ(flushes(db), flushed); /* nothing was written meanwhile */
    put_some(db, 40000);
    CHECK(log_bytes(db) > limit);
    GOES(loam_close(db));
    db = open_with(disk, &limit, 1);
    for (int key = 0; key < 40000; key += 1 + key / 8) {
        GOES(loam_get(db, NULL, loam_bytes(&key, sizeof key), NULL, 0, NULL, NULL));
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(rest, leaves_a_large_log_beside_many_tables)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    put_noise(db, 0, 400000);
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, 0));
    thread_sleep_micros(2000000); /* a rest, and some of the keeper's rounds */
    CHECK(log_bytes(db) > limit);
    GOES(loam_close(db));
    db = open_with(disk, &limit, 1);
    CHECK(log_bytes(db) > limit);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(rest, keeps_log_files_that_are_little_beside_the_data)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_with_idle_logs(disk, 30000);
    put_noise(db, 30000, 200000);
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, 0));
    CHECK(disk_files(disk, "/db", FILE_LOG) > 1);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- beside merges ------------------------------------------------------------------------------ */

/* A disk that makes no log segment while it is held. */
static struct {
    const loam_vfs *inner;
    _Atomic bool held;
} gate;

static void pass_gate(const char *path)
{
    while (strstr(path, ".sst") == NULL && atom_load(&gate.held, relaxed)) {
        thread_sleep_micros(1000);
    }
}

static int gate_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    if ((flags & (LOAM_VFS_CREATE | LOAM_VFS_NEW)) != 0) {
        pass_gate(path);
    }
    return gate.inner->open(ctx, path, flags, f);
}

static int gate_rename(void *ctx, const char *from, const char *to)
{
    pass_gate(to); /* an old segment that is used again */
    return gate.inner->rename(ctx, from, to);
}

static void *wait_for_rest(void *db)
{
    GOES(loam_wait_idle(db, 0));
    return NULL;
}

static uint64_t level_0(loam_db *db)
{
    uint64_t files;
    GOES(loam_property(db, NULL, "level.0.files", &files));
    return files;
}

/* The seal has to wait for a log segment; meanwhile the other thread has nothing to do for readers, since
 * what the seal brings is to be merged with the rest. */
Test(rest, begins_no_merge_for_readers_in_the_midst_of_a_seal)
{
    enum { TABLES = 6, LOOK_US = 500000 };
    loam_vfs *disk = memory_disk(), gated = *disk;
    uint64_t limit;
    gate.inner = disk;
    gated.open = gate_open;
    gated.rename = gate_rename;
    loam_db *db = open_with(&gated, &limit, 2);
    GOES(loam_pause(db, 1));
    for (int i = 0; i < TABLES; i++) {
        put_few(db);
        GOES(loam_flush(db, NULL));
    }
    CHECK_EQ(level_0(db), TABLES);
    atom_store(&gate.held, true, relaxed);
    put_until(db, limit / REST_PART);
    GOES(loam_pause(db, 0));
    pthread_t waiter;
    CHECK_EQ(pthread_create(&waiter, NULL, wait_for_rest, db), 0);
    thread_sleep_micros(LOOK_US);
    uint64_t then = level_0(db), flushed = flushes(db);
    atom_store(&gate.held, false, relaxed);
    CHECK_EQ(pthread_join(waiter, NULL), 0);
    CHECK_EQ(flushed, TABLES); /* it did wait */
    CHECK_EQ(then, TABLES);
    CHECK_EQ(flushes(db), TABLES + 1);
    CHECK(level_0(db) < 4);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- merges for readers alone ------------------------------------------------------------------- */

static uint64_t merges(loam_db *db)
{
    return stats_of(db).compactions;
}

/* Flushes seem to take a byte a second: any writer is a fast one then. */
static void let_writers_be_fast(loam_db *db)
{
    epoch_enter();
    struct db *in = slotmap_get(&registry_get()->dbs, HANDLE_OF(db));
    mutex_lock(&in->mu);
    while (in->flushing) { /* it says at its end how long it took */
        cond_wait(&in->idle_cv, &in->mu);
    }
    in->drain_bytes_per_s = 1;
    mutex_unlock(&in->mu);
    epoch_exit();
}

/* Returns the longest pause, in micros. */
static uint64_t write_for(loam_db *db, uint64_t micros)
{
    uint64_t start = clock_micros(), last = start, longest = 0;
    for (int key = 0; last - start < micros; key++) {
        put_one(db, key);
        thread_sleep_micros(1000);
        uint64_t now = clock_micros();
        longest = now - last > longest ? now - last : longest;
        last = now;
    }
    return longest;
}

/* Level 0 holds enough tables for a database at rest. It is none while writers come: what is merged now would be
 * merged again with what they bring. */
Test(rest, merges_for_readers_wait_until_writers_pause)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    GOES(loam_pause(db, 1));
    for (int i = 0; i < 5; i++) {
        put_few(db);
        GOES(loam_flush(db, NULL));
    }
    let_writers_be_fast(db);
    put_few(db);
    GOES(loam_pause(db, 0));
    if (write_for(db, 600000) < 100000) { /* or a slow machine made the pause */
        CHECK_EQ(merges(db), 0);
    }
    while (merges(db) == 0) {
        thread_sleep_micros(10000);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Nothing has been flushed since the database was opened, so nobody knows how fast that goes. A slow writer is none
 * of those for whom merges wait. */
Test(rest, merges_for_readers_go_on_beside_a_slow_writer_after_an_open)
{
    loam_vfs *disk = memory_disk();
    uint64_t limit;
    loam_db *db = open_with(disk, &limit, 1);
    GOES(loam_pause(db, 1));
    for (int i = 0; i < 5; i++) {
        put_few(db);
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_close(db));
    db = open_with(disk, &limit, 1);
    while (merges(db) == 0) { /* for ever, if any writer is a fast one */
        (void)write_for(db, 100000);
    }
    CHECK_EQ(flushes(db), 0);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* A merge that waits until level 0 is full would find no space for what it writes. */
Test(rest, merges_do_not_wait_for_writers_where_the_disk_has_little_room)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.memory_budget = BUDGET;
    o.disk_budget = 16 << 20;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    put_noise(db, 0, 4 * FEW); /* the tables take what was put */
    GOES(loam_wait_idle(db, 0));
    GOES(loam_pause(db, 1));
    for (int i = 0; i < 5; i++) {
        put_noise(db, 0, FEW / 10);
        GOES(loam_flush(db, NULL));
    }
    let_writers_be_fast(db);
    put_one(db, 1);
    uint64_t merged = merges(db), flushed = flushes(db);
    GOES(loam_pause(db, 0));
    while (merges(db) == merged) {
        put_one(db, 1);
        thread_sleep_micros(20000);
        CHECK_EQ(flushes(db), flushed);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
