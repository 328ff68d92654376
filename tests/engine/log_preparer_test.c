/* log_preparer_test.c - A log segment that cannot be made is told of, and not tried for all the time.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(log_preparer);

/* A disk that becomes full, and counts how often a log segment is tried for then. */
static struct {
    const loam_vfs *inner;
    _Atomic bool full, sick;
    _Atomic unsigned tries;
} disk_now;

static int full_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    bool makes = (flags & (LOAM_VFS_CREATE | LOAM_VFS_NEW)) != 0 && strstr(path, ".sst") == NULL;
    if (!makes || !atom_load(&disk_now.full, relaxed)) {
        return disk_now.inner->open(ctx, path, flags, f);
    }
    atom_add(&disk_now.tries, strstr(path, "RESERVE") == NULL, relaxed);
    return -ENOSPC;
}

static int full_rename(void *ctx, const char *from, const char *to)
{
    return atom_load(&disk_now.full, relaxed) ? -ENOSPC : disk_now.inner->rename(ctx, from, to);
}

static int sick_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    return atom_load(&disk_now.sick, relaxed) ? -ENOSPC : disk_now.inner->sync(ctx, f, data_only);
}

static loam_vfs that_may_fill(loam_vfs *disk)
{
    loam_vfs full = *disk;
    disk_now.inner = disk;
    full.open = full_open;
    full.rename = full_rename;
    full.sync = sick_sync;
    return full;
}

enum { LOOK_US = 1000000, TRIES_MAX = 60 };

/* Writes are refused, so the keeper comes by every few milliseconds to see whether there is space. */
Test(log_preparer, rests_between_two_tries_on_a_full_disk)
{
    loam_vfs *disk = memory_disk(), full = that_may_fill(disk);
    loam_db *db = open_small(&full, "/db");
    put_text(db, NULL, "key", "value");
    atom_store(&disk_now.full, true, relaxed);
    static char value[3000];
    int rc = LOAM_OK;
    while (rc == LOAM_OK) {
        rc = loam_put(db, NULL, text("key"), loam_bytes(value, sizeof value), NULL);
    }
    CHECK_EQ(rc, LOAM_E_NOSPACE);
    atom_store(&disk_now.sick, true, relaxed);
    CHECK(loam_sync(db) < 0);
    CHECK_EQ(loam_health(db, NULL), LOAM_REFUSING_WRITES);
    unsigned before = atom_load(&disk_now.tries, relaxed);
    thread_sleep_micros(LOOK_US);
    unsigned n = atom_load(&disk_now.tries, relaxed) - before;
    CHECK(n <= TRIES_MAX);
    atom_store(&disk_now.full, false, relaxed);
    atom_store(&disk_now.sick, false, relaxed);
    (void)!loam_close(db);
    loam_vfs_free(disk);
}

static void wait_for_health(loam_db *db, int state, loam_error *why)
{
    for (unsigned i = 0; loam_health(db, why) != state; i++) {
        CHECK(i < 5000);
        thread_sleep_micros(1000);
    }
}

/* The disk is full, or the directory gone, and the segment that is there still takes writes. */
Test(log_preparer, tells_of_a_segment_that_cannot_be_made_while_writes_go_on)
{
    loam_vfs *disk = memory_disk(), full = that_may_fill(disk);
    loam_db *db = open_small(&full, "/db");
    loam_error why;
    CHECK_EQ(loam_health(db, &why), LOAM_HEALTHY);
    CHECK_EQ(why.code, LOAM_OK);
    atom_store(&disk_now.full, true, relaxed);
    put_text(db, NULL, "key", "value"); /* from now on the next one is due */
    wait_for_health(db, LOAM_DEGRADED, &why);
    CHECK_EQ(why.code, LOAM_E_NOSPACE);
    CHECK(why.message[0] != '\0');
    put_text(db, NULL, "key", "other");
    expect_text(db, NULL, "key", "other");
    CHECK_EQ(loam_health(db, NULL), LOAM_DEGRADED);
    atom_store(&disk_now.full, false, relaxed);
    wait_for_health(db, LOAM_HEALTHY, &why);
    CHECK_EQ(why.code, LOAM_OK);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
