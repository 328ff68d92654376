/* vfs_map.h - Maps of files: to store into, with every page there; and to copy small reads out of.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A read of one block of a file in the page cache is mostly the price of a system call. Copied out of a map it
 * has none; but what the disk cannot read, or somebody has cut off, is then a SIGBUS and no error code.
 */
#ifndef LOAM_ARENA_VFS_MAP_H_
#define LOAM_ARENA_VFS_MAP_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Maps [off, off + len), which is inside the file, shared and writable, every page present. 0 or -errno. */
int vfs_map_to_write(int fd, uint64_t off, size_t len, void **p);

#define VFS_VIEW_READ_MAX 8192u /* bytes; of more the call is a small part, and it reads ahead */

/* A file as it was when it was opened. size 0: none. */
struct vfs_view {
    const char *at;
    size_t size;
};
/* Maps the first `size` bytes; none when that is not possible, or not worth it. */
void vfs_view_begin(struct vfs_view *v, int fd, uint64_t size);
void vfs_view_end(struct vfs_view *v);

/* False: it is not to be had here, and must be read. */
static inline bool vfs_view_copy(const struct vfs_view *v, void *buf, size_t n, uint64_t off)
{
    if (n > VFS_VIEW_READ_MAX || n > v->size || off > v->size - n) {
        return false;
    }
    if (n != 0) {
        memcpy(buf, v->at + off, n);
    }
    return true;
}

#endif
