/* vfs_full.c - Reads and writes that are whole, and opens that take two calls.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/vfs_full.h"

#include <errno.h>
#include <stddef.h>

#include "arena/poison.h"

#define TRIES 100u

typedef int64_t write_fn(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off);

static int write_full(const loam_vfs *vfs, write_fn *write_some, bool durable, loam_file *f,
                      const void *data, size_t n, uint64_t off)
{
    const uint8_t *p = data;
    for (unsigned idle = 0; n != 0;) {
        int64_t rc = write_some(vfs->ctx, f, p, n, off);
        if (rc < 0 && (rc != -EAGAIN || durable)) {
            return (int)rc;
        }
        if ((uint64_t)rc > n && rc > 0) {
            return -EIO; /* a vfs that says so wrote something else */
        }
        if (rc <= 0) {
            if (++idle == TRIES) {
                return rc < 0 ? (int)rc : -EIO;
            }
            continue;
        }
        idle = 0;
        p += rc;
        n -= (size_t)rc;
        off += (uint64_t)rc;
    }
    return 0;
}

int vfs_write_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n, uint64_t off)
{
    return write_full(vfs, vfs->write, false, f, data, n, off);
}

bool vfs_writes_durably(const loam_vfs *vfs)
{
    return vfs->struct_size >= offsetof(loam_vfs, is_named) && vfs->write_durable != NULL;
}

bool vfs_knows_names(const loam_vfs *vfs)
{
    return vfs->struct_size >= sizeof *vfs && vfs->is_named != NULL;
}

int vfs_write_durable_full(const loam_vfs *vfs, loam_file *f, const void *data, size_t n,
                           uint64_t off)
{
    return write_full(vfs, vfs->write_durable, true, f, data, n, off);
}

int64_t vfs_read_full(const loam_vfs *vfs, loam_file *f, void *data, size_t n, uint64_t off)
{
    uint8_t *p = data;
    size_t done = 0;
    for (unsigned idle = 0; done < n;) {
        int64_t rc = vfs->read(vfs->ctx, f, p + done, n - done, off + done);
        if (rc == 0) {
            break;
        }
        if (rc < 0) {
            if (rc != -EAGAIN || ++idle == TRIES) {
                return rc;
            }
            continue;
        }
        if ((uint64_t)rc > n - done) {
            return -EIO;
        }
        idle = 0;
        done += (size_t)rc;
    }
    return (int64_t)done;
}

int vfs_open_own(const loam_vfs *vfs, const char *path, uint32_t flags, loam_file **f)
{
    int rc = vfs->open(vfs->ctx, path, flags, f);
    if (rc == -EMLINK && vfs->remove(vfs->ctx, path) >= 0) {
        rc = vfs->open(vfs->ctx, path, flags, f);
    }
    return rc;
}
