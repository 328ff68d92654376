/* vfs_map.c - Shared maps, and what each is advised.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One of the doors, beside vfs_posix.c: poison.h is not included.
 */
#include "arena/vfs_map.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; absent from older headers */
#endif

/* Every page present and writable, or -errno; nothing here can raise SIGBUS. */
static int populate(void *p, size_t len)
{
    /* Without this a fault on a large folio dirties and walks all of its blocks. */
    (void)madvise(p, len, MADV_RANDOM);
    int rc;
    do {
        rc = madvise(p, len, MADV_POPULATE_WRITE);
    } while (rc < 0 && (errno == EINTR || errno == EAGAIN));
    if (rc == 0) {
        return 0;
    }
    switch (errno) {
    case EINVAL: /* a kernel without it: the caller goes on without maps */
        return -EOPNOTSUPP;
    case EFAULT: /* how the kernel says that a store would have raised SIGBUS */
        return -EIO;
    default:
        return -errno;
    }
}

int vfs_map_to_write(int fd, uint64_t off, size_t len, void **p)
{
    void *memory = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    int rc = populate(memory, len);
    if (rc != 0) {
        munmap(memory, len);
        return rc;
    }
    *p = memory;
    return 0;
}

void vfs_view_begin(struct vfs_view *v, int fd, uint64_t size)
{
    *v = (struct vfs_view){0};
    if (size == 0 || size > SIZE_MAX / 2 || sizeof(void *) < sizeof(uint64_t)) {
        return; /* where addresses are few they are not for files */
    }
    void *at = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        return;
    }
    /* A page that is not in memory comes alone, as with a read of one block. */
    (void)madvise(at, (size_t)size, MADV_RANDOM);
    *v = (struct vfs_view){at, (size_t)size};
}

void vfs_view_end(struct vfs_view *v)
{
    if (v->size != 0) {
        munmap((void *)(uintptr_t)v->at, v->size);
        v->size = 0;
    }
}
