/* disk_reserve_test.c - What is told of the reserve is what the file RESERVE holds.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "engine/disk_reserve.h"
#include "tests/engine/db_support.h"

enum { UNIT = 4096 };

TestSuite(disk_reserve);

/* A memory disk on which the first calls that set space aside fail. */
static struct {
    const loam_vfs *inner;
    int error;
    unsigned times;
} sick;

static int sick_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    if (sick.times != 0) {
        sick.times--;
        return sick.error;
    }
    return sick.inner->reserve(ctx, f, off, len);
}

static loam_vfs sick_disk(loam_vfs *disk, int error)
{
    loam_vfs vfs = *disk;
    vfs.reserve = sick_reserve;
    sick.inner = disk;
    sick.error = error;
    sick.times = 1;
    CHECK_EQ(disk->mkdir(disk->ctx, "/db"), 0);
    return vfs;
}

static uint64_t file_bytes(const loam_vfs *v)
{
    loam_file *f;
    uint64_t size = 0;
    if (v->open(v->ctx, "/db/RESERVE", LOAM_VFS_READ, &f) >= 0) {
        CHECK(v->size(v->ctx, f, &size) >= 0);
        CHECK(v->close(v->ctx, f) >= 0);
    }
    return size;
}

/* Not for lack of space: nothing to refuse writes for, and nothing that could be given up later. */
Test(disk_reserve, one_that_could_not_be_made_is_told_of_as_none)
{
    loam_vfs *disk = memory_disk(), vfs = sick_disk(disk, -EIO);
    struct disk_reserve r;
    disk_reserve_init(&r, &vfs, "/db");
    disk_reserve_open(&r, 16 * UNIT, true);
    CHECK(!disk_reserve_spent(&r));
    CHECK_EQ(file_bytes(disk), 0);
    CHECK_EQ(disk_reserve_bytes(&r), 0);
    CHECK(!disk_reserve_spend(&r));
    disk_reserve_destroy(&r);
    loam_vfs_free(disk);
}

Test(disk_reserve, one_that_a_full_disk_refused_is_made_when_there_is_space)
{
    loam_vfs *disk = memory_disk(), vfs = sick_disk(disk, -ENOSPC);
    struct disk_reserve r;
    disk_reserve_init(&r, &vfs, "/db");
    disk_reserve_open(&r, 16 * UNIT, true);
    CHECK(disk_reserve_spent(&r));
    CHECK_EQ(disk_reserve_bytes(&r), 0);
    CHECK(disk_reserve_restore(&r));
    CHECK_EQ(disk_reserve_bytes(&r), 16 * UNIT);
    CHECK_EQ(file_bytes(disk), 16 * UNIT);
    CHECK(disk_reserve_spend(&r));
    CHECK_EQ(file_bytes(disk), 0);
    disk_reserve_destroy(&r);
    loam_vfs_free(disk);
}
