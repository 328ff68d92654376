/* vfs_record.c - Remembers every change of a disk in memory, in order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The disk tells its recording of each change under its mutex, and before each brings what was
 * stored through maps: those stores are changes of their own. A change is kept by value, with node
 * ids for pointers, so that it can be made again on a copy of the disk as it was at the start.
 */
#include "arena/vfs_record.h"

#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/status.h"

#include "arena/poison.h"

int disk_record_stores_locked(struct disk *d)
{
    int rc = 0;
    if (d->recorder != NULL) {
        for (struct disk_node *n = d->nodes; n != NULL && rc == 0; n = n->next) {
            rc = n->maps != NULL ? disk_settle_locked(d, n) : 0;
        }
    }
    return rc;
}

static bool grow(struct loam_recording *r)
{
    if (r->count < r->capacity) {
        return true;
    }
    size_t capacity = r->capacity != 0 ? r->capacity * 2 : 64;
    struct disk_change *at = alloc_resize(alloc_global(), MEM_VFS, r->changes,
                                          r->capacity * sizeof *at, capacity * sizeof *at);
    if (at == NULL) {
        return false;
    }
    r->changes = at;
    r->capacity = capacity;
    return true;
}

void disk_record_locked(struct disk *d, const struct disk_change *c)
{
    struct loam_recording *r = d->recorder;
    if (r == NULL || r->incomplete) {
        return;
    }
    void *data = NULL;
    if (c->data != NULL && c->len != 0) {
        data = alloc_get(alloc_global(), MEM_VFS, (size_t)c->len);
    }
    if (!grow(r) || (c->data != NULL && c->len != 0 && data == NULL)) {
        alloc_put(alloc_global(), MEM_VFS, data, (size_t)c->len);
        r->incomplete = true; /* the disk itself goes on; crashes are refused */
        return;
    }
    struct disk_change *kept = &r->changes[r->count++];
    *kept = *c;
    kept->data = data;
    if (data != NULL) {
        memcpy(data, c->data, (size_t)c->len);
    }
}

void disk_record_end_locked(struct disk *d)
{
    if (d->recorder != NULL) {
        d->recorder->disk = NULL;
        d->recorder = NULL;
    }
}

LOAM_API int loam_vfs_record(loam_vfs *disk, loam_recording **rec)
{
    struct disk *d = disk_of_vfs(disk);
    if (d == NULL || rec == NULL) {
        return FAIL(LOAM_E_INVAL, "a recording wants a memory disk and an out pointer");
    }
    struct loam_recording *r = alloc_zero(alloc_global(), MEM_VFS, sizeof *r);
    if (r == NULL || disk_create(&r->base) != 0) {
        alloc_put(alloc_global(), MEM_VFS, r, sizeof *r);
        return FAIL(LOAM_E_NOMEM, "no memory for a recording");
    }
    /* The copy and the record begin at one moment: a change between them would be in neither. */
    mutex_lock(&d->mutex);
    bool taken = d->recorder != NULL;
    int rc = taken ? 0 : disk_clone_locked(d, r->base);
    if (!taken && rc == 0) {
        d->recorder = r;
        r->disk = d;
    }
    mutex_unlock(&d->mutex);
    if (taken || rc != 0) {
        loam_recording_free(r);
        return taken ? FAIL(LOAM_E_INVAL, "the disk has a recording already")
                     : FAIL_IO(rc, 0, 0, "cannot copy a disk for its recording");
    }
    *rec = r;
    return LOAM_OK;
}

LOAM_API void loam_recording_free(loam_recording *rec)
{
    if (rec == NULL) {
        return;
    }
    struct disk *d = rec->disk;
    if (d != NULL) {
        mutex_lock(&d->mutex);
        d->recorder = NULL;
        mutex_unlock(&d->mutex);
    }
    replay_end(&rec->replay);
    for (size_t i = 0; i < rec->count; i++) {
        if (rec->changes[i].data != NULL) {
            alloc_put(alloc_global(), MEM_VFS, (void *)rec->changes[i].data,
                      (size_t)rec->changes[i].len);
        }
    }
    alloc_put(alloc_global(), MEM_VFS, rec->changes, rec->capacity * sizeof *rec->changes);
    disk_free(rec->base);
    alloc_put(alloc_global(), MEM_VFS, rec, sizeof *rec);
}

LOAM_API uint64_t loam_recording_mark(loam_recording *rec)
{
    struct disk *d = rec != NULL ? rec->disk : NULL;
    if (d == NULL) {
        return loam_recording_length(rec);
    }
    mutex_lock(&d->mutex);
    if (disk_record_stores_locked(d) != 0) {
        rec->incomplete = true;
    }
    uint64_t n = rec->count;
    mutex_unlock(&d->mutex);
    return n;
}

LOAM_API uint64_t loam_recording_length(const loam_recording *rec)
{
    if (rec == NULL) {
        return 0;
    }
    struct disk *d = rec->disk;
    if (d != NULL) {
        mutex_lock(&d->mutex);
    }
    uint64_t n = rec->count;
    if (d != NULL) {
        mutex_unlock(&d->mutex);
    }
    return n;
}
