/* wal_segment.c - Makes segment files that are whole before anyone relies on them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal/wal_segment.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/hash.h"
#include "arena/status.h"
#include "arena/vfs_full.h"

#include "arena/poison.h"

char *wal_place_path(const struct wal_place *place, const char *name, size_t *size)
{
    size_t dir = place->dir_size, n = strlen(name);
    *size = dir + 1 + n + 1;
    char *path = alloc_get(place->alloc, MEM_LOG, *size);
    if (path != NULL) {
        memcpy(path, place->dir, dir);
        path[dir] = '/';
        memcpy(path + dir + 1, name, n + 1);
    }
    return path;
}

/* Applies one call of the vfs to a name in the log's directory. */
static int with_path(const struct wal_place *place, const char *name,
                     int (*fn)(const struct wal_place *place, const char *path, void *arg),
                     void *arg)
{
    size_t size;
    char *path = wal_place_path(place, name, &size);
    if (path == NULL) {
        return -ENOMEM;
    }
    int rc = fn(place, path, arg);
    alloc_put(place->alloc, MEM_LOG, path, size);
    return rc;
}

static int remove_path(const struct wal_place *place, const char *path, void *arg)
{
    (void)arg;
    return place->vfs->remove(place->vfs->ctx, path);
}

/* A name that stays is an obsolete or empty segment, which the next open passes over. */
void wal_place_remove(const struct wal_place *place, const char *name)
{
    (void)with_path(place, name, remove_path, NULL);
}

static int create_path(const struct wal_place *place, const char *path, void *arg)
{
    loam_file **f = arg;
    return vfs_open_own(place->vfs, path,
                        LOAM_VFS_READ | LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, f);
}

int wal_place_create(const struct wal_place *place, const char *name, loam_file **f)
{
    *f = NULL;
    int rc = with_path(place, name, create_path, f);
    if (rc < 0) {
        *f = NULL;
    }
    return rc < 0 ? rc : 0;
}

static int rename_path(const struct wal_place *place, const char *path, void *arg)
{
    const char *to = arg;
    return place->vfs->rename(place->vfs->ctx, path, to);
}

int wal_place_rename(const struct wal_place *place, const char *from, const char *to)
{
    size_t size;
    char *path = wal_place_path(place, to, &size);
    if (path == NULL) {
        return -ENOMEM;
    }
    int rc = with_path(place, from, rename_path, path);
    alloc_put(place->alloc, MEM_LOG, path, size);
    return rc;
}

int wal_place_sync(const struct wal_place *place)
{
    return place->vfs->sync_dir(place->vfs->ctx, place->dir);
}

static int write_zeros(const struct wal_place *place, loam_file *f, uint64_t size)
{
    const size_t step = 256u << 10;
    uint8_t *zeros = alloc_zero(place->alloc, MEM_LOG, step);
    if (zeros == NULL) {
        return -ENOMEM;
    }
    int rc = 0;
    for (uint64_t off = 0; off < size && rc == 0; off += step) {
        size_t n = size - off < step ? (size_t)(size - off) : step;
        rc = vfs_write_full(place->vfs, f, zeros, n, off);
    }
    alloc_put(place->alloc, MEM_LOG, zeros, step);
    return rc;
}

int wal_place_set_aside(const struct wal_place *place, loam_file *f, uint64_t size, bool hard,
                        bool *full)
{
    int rc = place->vfs->reserve(place->vfs->ctx, f, 0, size);
    *full = rc >= 0 || hard;
    if (rc == -EOPNOTSUPP) {
        rc = hard ? write_zeros(place, f, size) : 0;
    }
    return rc < 0 ? rc : 0;
}

/* What random() gives is mixed with the segment's number, which is never used again in a database: where it
 * gives the same once more - on a disk of a test, in a machine set back to a snapshot - what a file held
 * under its old number is still no record under the new one. */
static int pick_salt(const struct wal_place *place, uint64_t number, uint64_t *salt)
{
    uint64_t seed = 0;
    int rc = place->vfs->random(place->vfs->ctx, &seed, sizeof seed);
    uint8_t named[8];
    put_fixed64(named, number);
    *salt = checksum64(named, sizeof named, seed);
    *salt += *salt == 0;
    return rc < 0 ? rc : 0;
}

/* settled: the size and space of the file are durable. Then only the header need be made so: what else the
 * file holds is no record under the new salt, and whether that or something older is found after a
 * crash is all the same. A sync of the whole would wait for the disk to write a segment nobody needs
 * any more. */
static int write_durably(const loam_vfs *vfs, loam_file *f, const uint8_t *page, bool settled)
{
    if (settled && vfs_writes_durably(vfs)) {
        return vfs_write_durable_full(vfs, f, page, WAL_HEADER_PAGE, 0);
    }
    int rc = vfs_write_full(vfs, f, page, WAL_HEADER_PAGE, 0);
    return rc == 0 ? vfs->sync(vfs->ctx, f, 0) : rc;
}

/* Writes the header, makes it durable and reads it back: a file that lost or misplaced the write is
 * not trusted with records. */
static int write_header(const struct wal_place *place, loam_file *f,
                        const struct wal_file_header *h, bool settled)
{
    uint8_t *pages = alloc_get_aligned(place->alloc, MEM_LOG, 2 * WAL_HEADER_PAGE, WAL_HEADER_PAGE);
    if (pages == NULL) {
        return -ENOMEM;
    }
    uint8_t *back = pages + WAL_HEADER_PAGE;
    wal_file_header_encode(pages, h);
    int rc = write_durably(place->vfs, f, pages, settled);
    if (rc >= 0) {
        int64_t n = vfs_read_full(place->vfs, f, back, WAL_HEADER_PAGE, 0);
        rc = n < 0 ? (int)n : 0;
        if (rc == 0 && (n != WAL_HEADER_PAGE || memcmp(pages, back, WAL_HEADER_PAGE) != 0)) {
            rc = -EIO;
        }
    }
    alloc_put_aligned(place->alloc, MEM_LOG, pages, 2 * WAL_HEADER_PAGE, WAL_HEADER_PAGE);
    return rc < 0 ? rc : 0;
}

/* The file of the plan under a name that is not a live segment's, with space. */
static int obtain_file(const struct wal_place *place, const struct wal_segment_plan *plan,
                       char name[WAL_FILE_NAME_MAX], loam_file **f, bool *full)
{
    if (plan->reuse != NULL) {
        wal_file_name(name, plan->reuse_number);
        *f = plan->reuse;
        *full = true;
        return 0;
    }
    wal_temporary_name(name, plan->number);
    int rc = wal_place_create(place, name, f);
    if (rc < 0) {
        return rc;
    }
    return wal_place_set_aside(place, *f, WAL_HEADER_PAGE + plan->capacity, plan->preallocate_hard,
                               full);
}

int wal_segment_make(struct wal_segment_file *made, const struct wal_place *place,
                     const struct wal_segment_plan *plan)
{
    char name[WAL_FILE_NAME_MAX], final_name[WAL_FILE_NAME_MAX];
    wal_file_name(final_name, plan->number);
    loam_file *f = NULL;
    bool full = false, renamed = false;
    struct wal_file_header h = {
        .db_id = place->db_id, .number = plan->number, .capacity = plan->capacity};
    int rc = obtain_file(place, plan, name, &f, &full);
    if (rc == 0) {
        rc = pick_salt(place, plan->number, &h.salt);
    }
    if (rc == 0) {
        h.flags = full ? WAL_FLAG_FULL_SIZE : 0;
        rc = write_header(place, f, &h, plan->reuse != NULL && plan->reuse_settled);
    }
    if (rc == 0) {
        rc = wal_place_rename(place, name, final_name);
        renamed = rc >= 0;
    }
    if (rc >= 0) {
        rc = wal_place_sync(place);
    }
    if (rc < 0) {
        if (f != NULL) {
            (void)place->vfs->close(place->vfs->ctx, f);
            wal_place_remove(place, renamed ? final_name : name);
        }
        return FAIL_IO(rc, plan->number, 0, "cannot prepare log segment %llu",
                       (unsigned long long)plan->number);
    }
    if (plan->reuse != NULL) {
        (void)place->vfs->advise(place->vfs->ctx, f, WAL_HEADER_PAGE, WAL_PREFETCH_BYTES,
                                 LOAM_ADVISE_WILLNEED);
    }
    *made = (struct wal_segment_file){
        .file = f, .salt = h.salt, .full_size = full, .reused = plan->reuse != NULL};
    return LOAM_OK;
}

void wal_segment_install(struct wal_segment *seg, const struct wal_segment_plan *plan,
                         const struct wal_segment_file *made)
{
    assert(plan->capacity >> plan->shift <= WAL_WINDOWS);
    seg->file = made->file;
    seg->full_size = made->full_size;
    seg->reused = made->reused;
    seg->salt = made->salt;
    seg->number = plan->number;
    seg->capacity = plan->capacity;
    seg->sync_failed = false;
    seg->behind = 0;
    /* release: as in wal_segment_take_file(). */
    atom_store(&seg->limit, 0, release);
    /* relaxed, the others: the tail that leads writers here is published later, with release. */
    atom_store(&seg->write_failed, false, relaxed);
    atom_store(&seg->base, 0, relaxed);
    atom_store(&seg->shift, plan->shift, relaxed);
    atom_store(&seg->generation, plan->generation, relaxed);
}

void wal_segment_start(struct wal_segment *seg, uint64_t base)
{
    /* release: pairs with the acquires in begin_fast(); a writer that still looks at an older
     * generation of the slot finds the tail moved. */
    atom_store(&seg->base, base, release);
    atom_store(&seg->limit, base + seg->capacity, release);
}

loam_file *wal_segment_take_file(struct wal_segment *seg)
{
    loam_file *f = seg->file;
    seg->file = NULL;
    /* release: pairs with the acquire in begin_fast(); who still looks finds the tail moved. */
    atom_store(&seg->limit, 0, release);
    atom_store(&seg->generation, 0, relaxed); /* relaxed: nobody is led to an empty slot */
    return f;
}

void wal_segment_discard(struct wal_segment *seg, const struct wal_place *place, bool remove)
{
    loam_file *f = wal_segment_take_file(seg);
    if (f == NULL) {
        return;
    }
    (void)place->vfs->close(place->vfs->ctx, f);
    if (remove) {
        char name[WAL_FILE_NAME_MAX];
        wal_file_name(name, seg->number);
        wal_place_remove(place, name);
    }
}

bool wal_map_unsupported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENODEV || rc == -ENOSYS;
}

int wal_window_map(const struct wal_segment *seg, const struct wal_place *place, uint32_t k,
                   uint8_t **p)
{
    /* relaxed: constant while the segment is READY. */
    uint32_t shift = atom_load(&seg->shift, relaxed);
    *p = NULL;
    if ((uint64_t)k << shift >= seg->capacity) {
        return 0;
    }
    size_t bytes = (size_t)1 << shift;
    void *memory = NULL;
    int rc = place->vfs->map(place->vfs->ctx, seg->file, WAL_HEADER_PAGE + ((uint64_t)k << shift),
                             bytes, &memory);
    if (rc < 0) {
        return rc;
    }
    alloc_charge(place->alloc, MEM_LOG, bytes);
    *p = memory;
    return 0;
}

void wal_window_unmap(const struct wal_place *place, uint8_t *p, size_t bytes)
{
    /* What cannot be unmapped stays in memory and is charged for it; nobody writes there any more. */
    if (place->vfs->unmap(place->vfs->ctx, p, bytes) >= 0) {
        alloc_uncharge(place->alloc, MEM_LOG, bytes);
    }
}

void wal_window_prefetch(const struct wal_segment *seg, const struct wal_place *place, uint64_t k)
{
    /* relaxed: constant while the segment is READY. */
    uint64_t bytes = (uint64_t)1 << atom_load(&seg->shift, relaxed);
    if (k * bytes < seg->capacity) {
        (void)place->vfs->advise(place->vfs->ctx, seg->file, WAL_HEADER_PAGE + k * bytes, bytes,
                                 LOAM_ADVISE_WILLNEED);
    }
}
