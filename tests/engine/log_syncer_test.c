/* log_syncer_test.c - While the disk is slow to sync the log, the keeper goes on with its work.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(log_syncer, .timeout = 60);

/* A memory disk whose syncs of data wait, and which counts what other threads than the test's map. */
static struct slow {
    const loam_vfs *disk;
    pthread_t test;
    _Atomic bool hold;
    _Atomic unsigned waiting, mapped;
} slow;

static int slow_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    if (data_only != 0 && !pthread_equal(pthread_self(), slow.test)) {
        slow.waiting++;
        while (slow.hold) {
            thread_sleep_micros(1000);
        }
        slow.waiting--;
    }
    return slow.disk->sync(ctx, f, data_only);
}

static int counted_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    slow.mapped += !pthread_equal(pthread_self(), slow.test);
    return slow.disk->map(ctx, f, off, len, p);
}

static void put_mib(loam_db *db, unsigned mib)
{
    static uint8_t value[1024];
    for (unsigned i = 0; i < mib * 1024; i++) {
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), NULL));
    }
}

Test(log_syncer, the_keeper_does_not_wait_for_the_disk)
{
    loam_vfs *disk = memory_disk();
    loam_vfs vfs = *disk;
    slow.disk = disk;
    slow.test = pthread_self();
    slow.hold = true;
    vfs.sync = slow_sync;
    vfs.map = counted_map;
    loam_options o = small_options(&vfs);
    o.memory_budget = (uint64_t)64 << 20; /* a memtable of 7 MiB, windows of 512 KiB */
    o.sync_interval_ms = 1;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    put_mib(db, 1);
    while (slow.waiting == 0) {
        thread_sleep_micros(1000);
    }
    unsigned before = slow.mapped;
    put_mib(db, 3);
    while (slow.mapped < before + 2) { /* windows ahead of the tail */
        thread_sleep_micros(1000);
    }
    CHECK_EQ(slow.waiting, 1); /* no second sync begins beside the first */
    slow.hold = false;
    GOES(loam_close(db));
    CHECK_EQ(slow.waiting, 0);
    loam_vfs_free(disk);
}

/* A disk that takes as long as it likes for the syncs of one thread. */
static struct held {
    const loam_vfs *disk;
    _Atomic bool waiting, go_on;
    _Atomic unsigned flushes;
} held;

static _Thread_local bool holds;

static int held_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    held.waiting = held.waiting || holds;
    while (holds && !held.go_on) {
        thread_sleep_micros(1000);
    }
    return held.disk->sync(ctx, f, data_only);
}

static void *sync_main(void *db)
{
    holds = true;
    GOES(loam_sync(db));
    return NULL;
}

/* The disk goes on once the flushes have come to a stand, for they wait for it. */
static void *go_on_main(void *arg)
{
    unsigned seen = 0, still = 0;
    while (still < 50) {
        thread_sleep_micros(1000);
        still = seen != 0 && held.flushes == seen ? still + 1 : 0;
        seen = held.flushes;
    }
    held.go_on = true;
    return arg;
}

Test(log_syncer, flushes_wait_for_a_sync_that_keeps_their_segments)
{
    pthread_t sync, go_on;
    loam_vfs *disk = memory_disk();
    loam_vfs vfs = *disk;
    held.disk = disk;
    vfs.sync = held_sync;
    loam_db *db = open_small(&vfs, "/db");
    put_text(db, NULL, "key", "value");
    CHECK_EQ(pthread_create(&sync, NULL, sync_main, db), 0);
    while (!held.waiting) {
        thread_sleep_micros(1000);
    }
    CHECK_EQ(pthread_create(&go_on, NULL, go_on_main, NULL), 0);
    for (unsigned i = 0; i < 40; i++) { /* more than there are generations */
        put_text(db, NULL, "key", "value");
        GOES(loam_flush(db, NULL));
        held.flushes++;
    }
    CHECK_EQ(pthread_join(go_on, NULL), 0);
    CHECK_EQ(pthread_join(sync, NULL), 0);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(log_syncer, syncs_what_was_written)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_syncing(disk, "/db");
    uint64_t last = 0, durable = 0;
    for (int i = 0; i < 20; i++) {
        put_text(db, NULL, "k", "v");
        GOES(loam_property(db, NULL, "last_seq", &last));
        do {
            thread_sleep_micros(100);
            GOES(loam_property(db, NULL, "durable_seq", &durable));
        } while (durable < last);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
