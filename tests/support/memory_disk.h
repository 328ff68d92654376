/* memory_disk.h - A disk in memory, new and empty.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_MEMORY_DISK_H_
#define LOAM_TESTS_SUPPORT_MEMORY_DISK_H_

#include "arena/status.h"
#include "arena/vfs.h"
#include "tests/support/check.h"

/* loam_vfs_free() frees it. */
static inline loam_vfs *memory_disk(void)
{
    loam_vfs *disk;
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    return disk;
}

/* And a directory on it. */
static inline loam_vfs *memory_disk_with(const char *dir)
{
    loam_vfs *disk = memory_disk();
    CHECK_EQ(disk->mkdir(disk->ctx, dir), 0);
    CHECK_EQ(disk->sync_dir(disk->ctx, "/"), 0);
    return disk;
}

#endif
