/* wal_reader_open.c - Opens a segment for reading: its name, its buffer, its header.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/status.h"
#include "arena/vfs_full.h"
#include "wal/wal_reader.h"
#include "wal/wal_segment.h"

#include "arena/poison.h"

#define BUFFER_FIRST (8u << 10)   /* bytes: the header, and room to see whether records follow */
#define BUFFER_MAX   (256u << 10) /* longer records are checked in pieces of this size */

static int open_file(struct wal_reader *r, const char *dir)
{
    struct wal_place place = {.alloc = r->alloc, .dir = NULL, .dir_size = strlen(dir)};
    char name[WAL_FILE_NAME_MAX];
    wal_file_name(name, r->number);
    size_t n = strlen(name), size = place.dir_size + 1 + n + 1;
    char *path = alloc_get(r->alloc, MEM_LOG, size);
    if (path == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to read the log");
    }
    memcpy(path, dir, place.dir_size);
    path[place.dir_size] = '/';
    memcpy(path + place.dir_size + 1, name, n + 1);
    int rc = r->vfs->open(r->vfs->ctx, path, LOAM_VFS_READ, &r->file);
    alloc_put(r->alloc, MEM_LOG, path, size);
    if (rc < 0) {
        r->file = NULL;
        return FAIL_IO(rc, r->number, 0, "cannot open log segment %llu",
                       (unsigned long long)r->number);
    }
    rc = r->vfs->size(r->vfs->ctx, r->file, &r->size);
    return rc < 0 ? wal_reader_io_error_(r, rc, 0) : LOAM_OK;
}

static int take_buffer(struct wal_reader *r)
{
    r->buffer_most = r->size < BUFFER_MAX ? (size_t)r->size : BUFFER_MAX;
    if (r->buffer_most < WAL_HEADER_PAGE) {
        r->buffer_most = WAL_HEADER_PAGE;
    }
    r->buffer_cap = r->buffer_most < BUFFER_FIRST ? r->buffer_most : BUFFER_FIRST;
    r->buffer = alloc_get_aligned(r->alloc, MEM_LOG, r->buffer_cap, WAL_HEADER_PAGE);
    return r->buffer != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory to read the log");
}

static int read_header(struct wal_reader *r, uint64_t db_id)
{
    int64_t n = vfs_read_full(r->vfs, r->file, r->buffer, WAL_HEADER_PAGE, 0);
    if (n < 0) {
        return wal_reader_io_error_(r, n, 0);
    }
    if (n < WAL_HEADER_PAGE) {
        return FAIL_CORRUPT(r->number, (uint64_t)n, "log segment %llu is cut inside its header",
                            (unsigned long long)r->number);
    }
    int rc = wal_file_header_decode(r->buffer, r->number, &r->header);
    if (rc < 0) {
        return rc;
    }
    if (r->header.number != r->number || r->header.db_id != db_id) {
        return FAIL_CORRUPT(
            r->number, 16, "log segment %llu holds %s", (unsigned long long)r->number,
            r->header.db_id != db_id ? "another database's log" : "another segment");
    }
    if ((r->header.flags & WAL_FLAG_FULL_SIZE) != 0 &&
        r->size - WAL_HEADER_PAGE < r->header.capacity) {
        return FAIL_CORRUPT(r->number, r->size, "log segment %llu is cut short",
                            (unsigned long long)r->number);
    }
    /* What was put behind the capacity is no part of the log. */
    if (r->size - WAL_HEADER_PAGE > r->header.capacity) {
        r->size = WAL_HEADER_PAGE + r->header.capacity;
    }
    return LOAM_OK;
}

/* A header that does not decode is believed as far as it is needed: the salt proves the records. */
static int guess_header(struct wal_reader *r, uint64_t db_id)
{
    int64_t n = vfs_read_full(r->vfs, r->file, r->buffer, WAL_HEADER_PAGE, 0);
    if (n < WAL_HEADER_PAGE) {
        return FAIL_CORRUPT(r->number, n > 0 ? (uint64_t)n : 0,
                            "log segment %llu is cut inside its header",
                            (unsigned long long)r->number);
    }
    if (wal_file_header_decode(r->buffer, r->number, &r->header) != LOAM_OK) {
        r->header = (struct wal_file_header){.db_id = db_id,
                                             .number = r->number,
                                             .salt = get_fixed64(r->buffer + 32),
                                             .capacity = r->size - WAL_HEADER_PAGE};
    }
    return r->header.db_id == db_id
               ? LOAM_OK
               : FAIL_CORRUPT(r->number, 16, "log segment %llu holds another database's log",
                              (unsigned long long)r->number);
}

static int open_by(struct wal_reader *r, const loam_vfs *vfs, const char *dir, struct alloc *alloc,
                   uint64_t number, uint64_t db_id,
                   int (*header)(struct wal_reader *r, uint64_t db_id))
{
    memset(r, 0, sizeof *r);
    r->vfs = vfs;
    r->alloc = alloc;
    r->number = number;
    r->limit = UINT64_MAX;
    r->next = WAL_HEADER_PAGE;
    int rc = open_file(r, dir);
    if (rc == LOAM_OK) {
        rc = take_buffer(r);
    }
    if (rc == LOAM_OK) {
        rc = header(r, db_id);
    }
    if (rc < 0) {
        wal_reader_close(r);
    } else {
        (void)vfs->advise(vfs->ctx, r->file, 0, r->size, LOAM_ADVISE_SEQUENTIAL);
    }
    return rc;
}

int wal_reader_open(struct wal_reader *r, const loam_vfs *vfs, const char *dir, struct alloc *alloc,
                    uint64_t number, uint64_t db_id)
{
    return open_by(r, vfs, dir, alloc, number, db_id, read_header);
}

int wal_reader_open_damaged(struct wal_reader *r, const loam_vfs *vfs, const char *dir,
                            struct alloc *alloc, uint64_t number, uint64_t db_id)
{
    return open_by(r, vfs, dir, alloc, number, db_id, guess_header);
}

void wal_reader_close(struct wal_reader *r)
{
    wal_reader_drop_big_(r);
    alloc_put_aligned(r->alloc, MEM_LOG, r->buffer, r->buffer_cap, WAL_HEADER_PAGE);
    r->buffer = NULL;
    if (r->file != NULL) {
        (void)r->vfs->close(r->vfs->ctx, r->file);
        r->file = NULL;
    }
}
