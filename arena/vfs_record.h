/* vfs_record.h - A recording of a disk in memory: where it began, every change, and a replay of them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shared by vfs_record.c, which writes it, and vfs_replay.c, which reads it.
 */
#ifndef LOAM_ARENA_VFS_RECORD_H_
#define LOAM_ARENA_VFS_RECORD_H_

#include "arena/vfs_disk.h"

/* The disk after the first `at` changes, with what of it is durable under one model of names. */
struct replay {
    struct disk *disk; /* NULL: none yet */
    uint64_t at;
    uint32_t names;
    struct disk_node **nodes; /* by id; a reference each */
    size_t capacity;
};

struct loam_recording {
    struct disk *disk; /* NULL: it is gone */
    struct disk *base; /* what it held at the start */
    /* under the disk's mutex */
    struct disk_change *changes; /* Owns: their data */
    size_t count, capacity;
    bool incomplete; /* memory was short for a change */

    struct replay replay;
};

void replay_end(struct replay *p);

#endif
