/* disk_reserve.c - Makes, gives up and makes again the file that holds space for bad times.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/disk_reserve.h"

#include <errno.h>

#include "arena/status.h"
#include "arena/vfs_full.h"
#include "engine/filename.h"

#include "arena/poison.h"

#define SMALL_DISK 6u    /* a reserve is at most this part of what is free */
#define UNIT       4096u /* sizes are multiples of it */

void disk_reserve_init(struct disk_reserve *r, const loam_vfs *vfs, const char *dir)
{
    *r = (struct disk_reserve){.vfs = vfs, .dir = dir};
    mutex_init(&r->mu, RANK_DISK_RESERVE);
}

void disk_reserve_destroy(struct disk_reserve *r)
{
    mutex_destroy(&r->mu);
}

uint64_t disk_reserve_free(const struct disk_reserve *r)
{
    uint64_t left = 0, total = 0;
    int rc = r->vfs->space(r->vfs->ctx, r->dir, &left, &total);
    return rc < 0 ? UINT64_MAX : left;
}

/* Bytes that an earlier open left standing. */
static uint64_t standing(const struct disk_reserve *r)
{
    char path[FILENAME_CAP];
    loam_file *f;
    uint64_t size = 0;
    if (filename_make(r->dir, FILE_RESERVE, 0, path) < 0 ||
        r->vfs->open(r->vfs->ctx, path, LOAM_VFS_READ, &f) < 0) {
        return 0;
    }
    int rc = r->vfs->size(r->vfs->ctx, f, &size);
    (void)r->vfs->close(r->vfs->ctx, f); /* only read */
    return rc < 0 ? 0 : size;
}

static int remove_locked(struct disk_reserve *r)
{
    char path[FILENAME_CAP];
    int rc = filename_make(r->dir, FILE_RESERVE, 0, path);
    return rc < 0 ? -EINVAL : r->vfs->remove(r->vfs->ctx, path);
}

/* Brings the file to its size. What the disk does not have is not asked for: a file system may fill
 * itself to the last block before it says so, while others write. */
static int fill(struct disk_reserve *r, loam_file *f)
{
    uint64_t size;
    int rc = r->vfs->size(r->vfs->ctx, f, &size);
    if (rc >= 0 && size > r->bytes) {
        return r->vfs->truncate(r->vfs->ctx, f, r->bytes);
    }
    if (rc >= 0 && r->bytes - size > disk_reserve_free(r)) {
        return -ENOSPC;
    }
    return rc < 0 ? rc : r->vfs->reserve(r->vfs->ctx, f, 0, r->bytes);
}

/* 0 or -errno; on an error the file is gone, as far as that can be done. */
static int make_locked(struct disk_reserve *r)
{
    char path[FILENAME_CAP];
    if (filename_make(r->dir, FILE_RESERVE, 0, path) < 0) {
        return -EINVAL;
    }
    loam_file *f;
    int rc = vfs_open_own(r->vfs, path, LOAM_VFS_READ | LOAM_VFS_WRITE | LOAM_VFS_CREATE, &f);
    if (rc < 0) {
        return rc;
    }
    rc = fill(r, f);
    int closed = r->vfs->close(r->vfs->ctx, f);
    rc = rc < 0 ? rc : closed;
    if (rc < 0) {
        (void)remove_locked(r); /* what stays is a part of the reserve, or empty */
    }
    return rc < 0 ? rc : 0;
}

void disk_reserve_yield(struct disk_reserve *r, uint64_t needed)
{
    mutex_lock(&r->mu);
    if (disk_reserve_free(r) < needed) {
        (void)remove_locked(r);
    }
    mutex_unlock(&r->mu);
}

void disk_reserve_open(struct disk_reserve *r, uint64_t bytes, bool exact)
{
    mutex_lock(&r->mu);
    uint64_t left = disk_reserve_free(r), old = exact ? 0 : standing(r);
    left = left < UINT64_MAX - old ? left + old : UINT64_MAX;
    uint64_t most = exact ? bytes : left / SMALL_DISK;
    r->bytes = (most < bytes ? most : bytes) / UNIT * UNIT;
    int rc = r->bytes != 0 ? make_locked(r) : 0;
    bool full = rc < 0 && status_from_errno(rc) == LOAM_E_NOSPACE;
    if (rc < 0 && !full) {
        r->bytes = 0; /* there is none to tell of, nor to give up later */
    }
    atom_store(&r->spent, full, relaxed); /* relaxed: nobody else is there yet. */
    mutex_unlock(&r->mu);
}

bool disk_reserve_spend(struct disk_reserve *r)
{
    mutex_lock(&r->mu);
    /* relaxed, here and below: changed under mu. */
    bool gave = !disk_reserve_spent(r) && r->bytes != 0 && remove_locked(r) >= 0;
    if (gave) {
        atom_store(&r->spent, true, relaxed);
    }
    mutex_unlock(&r->mu);
    return gave;
}

bool disk_reserve_restore(struct disk_reserve *r)
{
    mutex_lock(&r->mu);
    if (disk_reserve_spent(r) && make_locked(r) == 0) {
        atom_store(&r->spent, false, relaxed);
    }
    bool stands = !disk_reserve_spent(r);
    mutex_unlock(&r->mu);
    return stands;
}

int disk_reserve_missing(const struct disk_reserve *r)
{
    int rc = FAIL(LOAM_E_NOSPACE, "the disk has no space for the reserve of %llu bytes",
                  (unsigned long long)r->bytes);
    return status_add_flags(rc, LOAM_ERR_RETRY);
}

uint64_t disk_reserve_bytes(struct disk_reserve *r)
{
    mutex_lock(&r->mu);
    uint64_t bytes = disk_reserve_spent(r) ? 0 : r->bytes;
    mutex_unlock(&r->mu);
    return bytes;
}
