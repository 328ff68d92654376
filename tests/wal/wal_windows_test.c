/* wal_windows_test.c - Windows that are left behind stay so, whoever was mapping them just then.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "arena/sync.h"
#include "tests/support/memory_disk.h"
#include "tests/wal/wal_support.h"

TestSuite(wal_windows, .timeout = 60);

static struct wal w;

/* A memory disk on which one thread is slow to map. */
static struct {
    const loam_vfs *disk;
    pthread_t thread;
    _Atomic bool is_slow, hold, inside;
} slow;

static int slow_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    int rc = slow.disk->map(ctx, f, off, len, p);
    if (slow.is_slow && pthread_equal(pthread_self(), slow.thread)) {
        slow.inside = true;
        while (slow.hold) {
            thread_sleep_micros(100);
        }
    }
    return rc;
}

static void *prepare(void *arg)
{
    (void)arg;
    slow.thread = pthread_self();
    slow.is_slow = true;
    CHECK_EQ(wal_prepare(&w), LOAM_OK);
    return NULL;
}

static void append(uint64_t size)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, size, 1, &s), LOAM_OK);
}

static void keep(void)
{
    bool more;
    CHECK_EQ(wal_keep(&w, wal_position(&w), &more), LOAM_OK);
}

/* Who made a segment ready maps its first window, while writers, who did not wait for that, are through with it. */
Test(wal_windows, one_that_is_behind_is_not_shown_again)
{
    loam_vfs *disk = memory_disk(), vfs = *disk;
    slow.disk = disk;
    vfs.map = slow_map;
    slow.hold = true;
    struct wal_options o = log_options(&vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append(100);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, prepare, NULL), 0);
    while (!slow.inside) {
        thread_sleep_micros(100);
    }
    uint64_t boundary, number, end;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    struct wal_segment *seg = wal_slot_of(&w, generation);
    while (wal_position(&w) < boundary + ((uint64_t)2 << seg->shift)) {
        append(1000);
    }
    keep();
    slow.hold = false;
    pthread_join(thread, NULL);
    CHECK(seg->window[0] == NULL);
    keep();
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}
