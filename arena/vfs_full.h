/* vfs_full.h - Reads, writes and syncs that are whole, over calls that do a part or are interrupted.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An interrupted call is made again; one that was interrupted a hundred times without a byte moved has
 * failed. For reads and writes -EAGAIN counts as well. Not for what makes something durable: there any
 * error but -EINTR may stand for data that is lost, and is final.
 */
#ifndef LOAM_ARENA_VFS_FULL_H_
#define LOAM_ARENA_VFS_FULL_H_

#include <stdbool.h>

#include "arena/vfs.h"

#define VFS_TRIES 100u

/* rc_ = the result of call_, made again while it is -EINTR. */
#define VFS_RETRY(rc_, call_)                                                                      \
    do {                                                                                           \
        unsigned tries_ = 0;                                                                       \
        do {                                                                                       \
            (rc_) = (call_);                                                                       \
        } while ((rc_) == -EINTR && ++tries_ < VFS_TRIES);                                         \
    } while (0)

/* All n bytes, at `off`: 0 or -errno. After an error any part of them may have been written. */
int vfs_write_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n, uint64_t off);
/* The same by write_durable(). REQUIRES: vfs_writes_durably(). */
int vfs_write_durable_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n,
                           uint64_t off);
/* Whether the vfs has the call, which came later than others. */
bool vfs_writes_durably(const loam_vfs *vfs);
/* Bytes read, fewer than n only at the end of the file; or -errno. */
int64_t vfs_read_full(const loam_vfs *vfs, loam_file *f, void *data, size_t n, uint64_t off);
/* 0 or -errno. data_only: as by fdatasync. */
int vfs_sync_full(const loam_vfs *vfs, loam_file *f, bool data_only);

#endif
