/* wal_sync_test.c - Who asks for durability again and again shares its syncs with all others who do.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "arena/sync.h"
#include "tests/support/memory_disk.h"
#include "tests/wal/wal_support.h"

TestSuite(wal_sync, .timeout = 120);

enum { WRITERS = 4, RECORDS = 10, ROUNDS = 100, SHARED = WRITERS * RECORDS * 3 / 8 };

static struct wal w;
static _Atomic uint64_t numbers;

/* A memory disk whose syncs take a while, and are counted. */
static struct {
    const loam_vfs *disk;
    _Atomic unsigned syncs;
} slow;

static int slow_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    atom_add(&slow.syncs, 1, relaxed);
    thread_sleep_micros(2000);
    return slow.disk->sync(ctx, f, data_only);
}

static void *write_durably(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < RECORDS; i++) {
        struct wal_slot s;
        CHECK_EQ(log_append(&w, 100, atom_add(&numbers, 1, relaxed), &s), LOAM_OK);
        CHECK_EQ(wal_sync(&w, s.end), LOAM_OK);
        CHECK(wal_durable(&w) >= s.end);
    }
    return NULL;
}

static unsigned syncs_of_all(void)
{
    pthread_t writer[WRITERS];
    unsigned before = atom_load(&slow.syncs, relaxed);
    for (unsigned i = 0; i < WRITERS; i++) {
        CHECK_EQ(thread_start(&writer[i], write_durably, NULL), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        thread_join(writer[i]);
    }
    return atom_load(&slow.syncs, relaxed) - before;
}

/* A leader that syncs at once has with it those who came during the sync before: one party of one and one of
 * three take turns, two records a sync. Where it gathers who has just been served there are up to four. A busy
 * machine may keep some away, so not every time. */
Test(wal_sync, a_leader_gathers_those_who_come_back)
{
    loam_vfs *disk = memory_disk(), vfs = *disk;
    slow.disk = disk;
    vfs.sync = slow_sync;
    struct wal_options o = log_options(&vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    bool shared = false;
    for (unsigned round = 0; round < ROUNDS && !shared; round++) {
        shared = syncs_of_all() <= SHARED;
    }
    CHECK(shared);
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}
