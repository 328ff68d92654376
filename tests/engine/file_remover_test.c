/* file_remover_test.c - While the disk is slow to remove files, the keeper and flushes go on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(file_remover, .timeout = 60);

/* A memory disk that removes tables when it is allowed to, can be full, and counts what other threads than the test's
 * map. */
static struct {
    const loam_vfs *disk;
    pthread_t test;
    _Atomic bool hold, refuse, full;
    _Atomic unsigned waiting, refused, mapped;
} slow;

static int slow_remove(void *ctx, const char *path)
{
    if (strstr(path, ".sst") != NULL) {
        if (atom_load(&slow.refuse, relaxed)) {
            atom_add(&slow.refused, 1, relaxed);
            return -EACCES;
        }
        atom_add(&slow.waiting, 1, relaxed);
        while (atom_load(&slow.hold, relaxed)) {
            thread_sleep_micros(1000);
        }
        atom_sub(&slow.waiting, 1, relaxed);
    }
    return slow.disk->remove(ctx, path);
}

static int full_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    return atom_load(&slow.full, relaxed) ? -ENOSPC : slow.disk->sync(ctx, f, data_only);
}

static int counted_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    atom_add(&slow.mapped, !pthread_equal(pthread_self(), slow.test), relaxed);
    return slow.disk->map(ctx, f, off, len, p);
}

static loam_db *open_slow(loam_vfs *vfs)
{
    loam_options o = small_options(vfs);
    o.memory_budget = (uint64_t)64 << 20; /* a memtable of 7 MiB, windows of 512 KiB */
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    return db;
}

static loam_vfs that_is_slow(loam_vfs *disk)
{
    loam_vfs vfs = *disk;
    slow.disk = disk;
    slow.test = pthread_self();
    vfs.remove = slow_remove;
    vfs.sync = full_sync;
    vfs.map = counted_map;
    return vfs;
}

static void wait_until_at_least(_Atomic unsigned *what, unsigned n)
{
    while (atom_load(what, relaxed) < n) {
        thread_sleep_micros(1000);
    }
}

/* Two tables that no version names once the iterator is closed. */
static loam_iter *hold_two_tables(loam_db *db)
{
    loam_iter *it;
    GOES(loam_pause(db, 1)); /* a merge in between would leave one table, and nothing to merge it with */
    for (int i = 0; i < 2; i++) {
        put_text(db, NULL, "key", i == 0 ? "old" : "value");
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_iter_open(db, NULL, NULL, &it));
    GOES(loam_iter_first(it));
    put_text(db, NULL, "other", "value");
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    return it;
}

Test(file_remover, neither_the_keeper_nor_a_flush_waits_for_the_disk)
{
    loam_vfs *disk = memory_disk(), vfs = that_is_slow(disk);
    static uint8_t value[1024];
    loam_db *db = open_slow(&vfs);
    loam_iter *it = hold_two_tables(db);
    atom_store(&slow.hold, true, relaxed);
    loam_iter_close(it);
    wait_until_at_least(&slow.waiting, 1);
    unsigned before = atom_load(&slow.mapped, relaxed);
    for (unsigned i = 0; i < 3072; i++) {
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), NULL));
    }
    wait_until_at_least(&slow.mapped, before + 2); /* windows ahead of the tail */
    GOES(loam_flush(db, NULL));
    CHECK_EQ(atom_load(&slow.waiting, relaxed), 1); /* one thread removes */
    atom_store(&slow.hold, false, relaxed);
    expect_text(db, NULL, "key", "value");
    GOES(loam_close(db));
    CHECK_EQ(atom_load(&slow.waiting, relaxed), 0);
    loam_vfs_free(disk);
}

enum { LOOK_US = 1000000, TRIES_MAX = 30 }; /* two files, a try every 100 ms, and some by chance */

/* Writes are refused, so the keeper comes by every few milliseconds to see whether there is space. */
Test(file_remover, rests_between_two_tries)
{
    loam_vfs *disk = memory_disk(), vfs = that_is_slow(disk);
    loam_db *db = open_slow(&vfs);
    loam_iter *it = hold_two_tables(db);
    atom_store(&slow.refuse, true, relaxed);
    loam_iter_close(it);
    put_text(db, NULL, "key", "value");
    atom_store(&slow.full, true, relaxed);
    CHECK(loam_sync(db) < 0);
    CHECK_EQ(loam_health(db, NULL), LOAM_REFUSING_WRITES);
    wait_until_at_least(&slow.refused, 2);
    unsigned before = atom_load(&slow.refused, relaxed);
    thread_sleep_micros(LOOK_US);
    CHECK(atom_load(&slow.refused, relaxed) - before <= TRIES_MAX);
    atom_store(&slow.refuse, false, relaxed);
    atom_store(&slow.full, false, relaxed);
    (void)!loam_close(db);
    loam_vfs_free(disk);
}
