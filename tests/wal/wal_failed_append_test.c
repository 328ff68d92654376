/* wal_failed_append_test.c - A buffered append fails, and its segment is released before it can be synced.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What landed of a failed append is made unreadable and synced, which needs the leadership of syncs. While
 * the append waits for that, others may move the log on and flush: its segment goes, file and all. Here the
 * test leads, so that the append must wait, and hands the leadership to the release first.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "arena/sync.h"
#include "tests/support/memory_disk.h"
#include "tests/wal/wal_support.h"

TestSuite(wal_failed_append, .timeout = 60);

static struct wal w;

static struct {
    const loam_vfs *disk;
    _Atomic bool fail; /* the next write */
    _Atomic unsigned since; /* writes after the one that failed */
} broken;

static int64_t broken_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    if (broken.fail) {
        broken.fail = false;
        broken.since = 0;
        return -EIO;
    }
    int64_t rc = broken.disk->write(ctx, f, buf, n, off);
    broken.since++;
    return rc;
}

static void append(uint64_t i)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, 100, i, &s), LOAM_OK);
}

static void *fail_to_append(void *arg)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, 100, 2, &s), LOAM_E_IO);
    CHECK_EQ(loam_last_error()->flags & LOAM_ERR_UNKNOWN, 0); /* no crash will find it */
    CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
    return arg;
}

/* As leader, from the leader before, without waking whoever waits. */
static void release_first(void)
{
    mutex_lock(&w.sync_mu);
    CHECK(w.leading);
    w.leading = false;
    mutex_unlock(&w.sync_mu);
    wal_release_rest(&w);
}

Test(wal_failed_append, outlives_the_release_of_its_segment)
{
    loam_vfs *disk = memory_disk();
    broken.disk = disk;
    loam_vfs v = *disk;
    v.map = NULL;
    v.write = broken_write;
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append(1);
    wal_sync_lock(&w);
    broken.fail = true;
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fail_to_append, NULL), 0);
    while (broken.fail || broken.since == 0) { /* it fails, and is made unreadable */
        thread_sleep_micros(100);
    }
    uint64_t boundary, number, end;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK); /* waits until the append lets go */
    wal_release(&w, generation); /* all of it is in tables */
    CHECK(wal_release_due(&w));  /* but for the leader */
    release_first();
    CHECK(!wal_release_due(&w));
    CHECK_EQ(pthread_join(thread, NULL), 0);
    append(3);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
    loam_vfs_free(disk);
}
