/* vfs_full.h - Reads and writes that are whole, over calls that do a part; opens that take two.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One that gave -EAGAIN is made again; a hundred of these without a byte moved have failed. Not so what
 * makes something durable: there any error may stand for data that is lost, and is final. An interrupted
 * call has been made again already, below: by engine/db_vfs.c, and by loam_vfs_os() itself.
 */
#ifndef LOAM_ARENA_VFS_FULL_H_
#define LOAM_ARENA_VFS_FULL_H_

#include <stdbool.h>

#include "arena/vfs.h"

/* All n bytes, at `off`: 0 or -errno. After an error any part of them may have been written. */
int vfs_write_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n, uint64_t off);
/* The same by write_durable(). REQUIRES: vfs_writes_durably(). */
int vfs_write_durable_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n,
                           uint64_t off);
/* Whether the vfs has the call, which came later than others. */
bool vfs_writes_durably(const loam_vfs *vfs);
bool vfs_knows_names(const loam_vfs *vfs); /* likewise is_named() */
/* Bytes read, fewer than n only at the end of the file; or -errno. */
int64_t vfs_read_full(const loam_vfs *vfs, loam_file *f, void *data, size_t n, uint64_t off);
/* open() with CREATE, for writing; a file with other names is left to those, and this name is a new file's. */
int vfs_open_own(const loam_vfs *vfs, const char *path, uint32_t flags, loam_file **f);

#endif
