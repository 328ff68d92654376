/* wal_renew.c - Copies a segment file, syncs the copy and renames it over the original.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal/wal_renew.h"

#include <errno.h>

#include "arena/status.h"
#include "arena/vfs_full.h"

#include "arena/poison.h"

#define STEP_BYTES (64u << 10)

static int copy_bytes(const struct wal_place *place, loam_file *from, loam_file *to, uint64_t used)
{
    uint8_t *buffer = alloc_get(place->alloc, MEM_LOG, STEP_BYTES);
    if (buffer == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    for (uint64_t off = 0; off < used && rc == 0;) {
        size_t n = used - off < STEP_BYTES ? (size_t)(used - off) : STEP_BYTES;
        int64_t got = vfs_read_full(place->vfs, from, buffer, n, off);
        if (got <= 0) {
            rc = got < 0 ? (int)got : -EIO; /* it was longer when it was replayed */
            break;
        }
        rc = vfs_write_full(place->vfs, to, buffer, (size_t)got, off);
        off += (uint64_t)got;
    }
    alloc_put(place->alloc, MEM_LOG, buffer, STEP_BYTES);
    return rc;
}

static int open_old(const struct wal_place *place, const char *name, loam_file **f, uint64_t *bytes)
{
    size_t size;
    char *path = wal_place_path(place, name, &size);
    if (path == NULL) {
        return -ENOMEM;
    }
    int rc = place->vfs->open(place->vfs->ctx, path, LOAM_VFS_READ, f);
    alloc_put(place->alloc, MEM_LOG, path, size);
    if (rc < 0) {
        *f = NULL;
        return rc;
    }
    return place->vfs->size(place->vfs->ctx, *f, bytes);
}

static int make_copy(const struct wal_place *place, const char *name, const char *copy_name,
                     uint64_t used)
{
    const loam_vfs *vfs = place->vfs;
    loam_file *old = NULL, *copy = NULL;
    uint64_t bytes = 0;
    bool full;
    int rc = open_old(place, name, &old, &bytes);
    if (rc >= 0) {
        rc = wal_place_create(place, copy_name, &copy);
    }
    if (rc >= 0) {
        rc = wal_place_set_aside(place, copy, bytes, true, &full);
    }
    if (rc >= 0) {
        rc = copy_bytes(place, old, copy, used < bytes ? used : bytes);
    }
    if (rc >= 0) {
        rc = vfs->sync(vfs->ctx, copy, 0);
    }
    if (copy != NULL) {
        int closed = vfs->close(vfs->ctx, copy);
        rc = rc < 0 ? rc : closed;
    }
    if (old != NULL) {
        (void)vfs->close(vfs->ctx, old); /* only read */
    }
    return rc;
}

int wal_renew(const struct wal_place *place, uint64_t number, uint64_t used)
{
    char name[WAL_FILE_NAME_MAX], copy_name[WAL_FILE_NAME_MAX];
    wal_file_name(name, number);
    wal_temporary_name(copy_name, number);
    int rc = make_copy(place, name, copy_name, used);
    if (rc >= 0) {
        rc = wal_place_rename(place, copy_name, name);
    }
    if (rc < 0) {
        wal_place_remove(place, copy_name);
    } else {
        rc = wal_place_sync(place);
    }
    return rc < 0 ? FAIL_IO(rc, number, 0, "cannot write log segment %llu again",
                            (unsigned long long)number)
                  : LOAM_OK;
}
