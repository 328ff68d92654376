/* wal_segment.h - One segment file of the log: prepared, mapped by windows, recycled.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   EMPTY -> READY   [wal_segment_make, then wal_segment_install]   file complete, synced, its name
 *                                            durable
 *   READY -> READY   [wal_segment_start]     base known; the tail may enter it
 *   READY -> EMPTY   [wal_segment_take_file, wal_segment_discard]
 *
 * Preparing: a new file gets its space and header under a temporary name; a recycled one gets the
 * new header under its old name. Then it is synced, renamed to its number, and the directory
 * synced. So a segment's name never stands for a file without a complete header, and the header is
 * never written again.
 */
#ifndef LOAM_WAL_WAL_SEGMENT_H_
#define LOAM_WAL_WAL_SEGMENT_H_

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/vfs.h"
#include "wal/wal_format.h"

#define WAL_WINDOWS        320         /* of one segment */
#define WAL_PREFETCH_BYTES (4u << 20) /* of a recycled file, at its begin and ahead of the windows */

/* Where segments live and whose they are. */
struct wal_place {
    const loam_vfs *vfs;
    struct alloc *alloc;
    char *dir; /* owned */
    size_t dir_size;
    uint64_t db_id;
};

struct wal_segment {
    /* Read by writers before they own anything: atomic, and stable while the tail carries the
     * segment's generation. A writer that reads them from a slot in reuse loses its CAS. */
    _Atomic uint64_t base;  /* position at file offset WAL_HEADER_PAGE */
    _Atomic uint64_t limit; /* positions end here; 0: no more records */
    _Atomic uint32_t shift; /* log2 of the window size */
    _Atomic(uint8_t *) window[WAL_WINDOWS]; /* NULL: not mapped */

    /* constant from prepare to discard */
    loam_file *file; /* NULL without files */
    uint64_t number;
    uint64_t capacity; /* bytes for records */
    uint64_t salt;
    _Atomic uint32_t generation; /* 0: EMPTY */

    bool full_size; /* the file has all its space; else it grows and is not recycled */
    bool reused;    /* the file was one before, and its pages may have left the page cache */
    bool sync_failed; /* never synced or recycled again; owned by the sync leader */
    _Atomic bool write_failed; /* no more records, no reuse; its good part is synced */

    /* guarded by the log's tail_mu */
    bool mappable;    /* windows may be shown: from install until the segment is dropped */
    uint32_t mappers; /* calls of the vfs that are mapping a window of the file just now */

    /* changed under the log's mu and tail_mu */
    uint32_t behind; /* windows below are unmapped for good */
};

/* A file that is ready to be a segment. */
struct wal_segment_file {
    loam_file *file; /* NULL: without files */
    uint64_t salt;
    bool full_size;
    bool reused;
};

/* What to prepare. */
struct wal_segment_plan {
    uint64_t number;
    uint64_t capacity;     /* bytes; a multiple of the window size */
    uint32_t shift;        /* log2 of the window size; capacity >> shift <= WAL_WINDOWS */
    uint32_t generation;
    bool preallocate_hard; /* the file will be mapped: write zeros when space cannot be reserved */
    loam_file *reuse;      /* a file of the same capacity, or NULL; consumed in any case */
    uint64_t reuse_number; /* its present name */
    bool reuse_settled;    /* its size and its space survive a power cut */
};

/* Makes the file; touches no segment, so it needs no lock. On an error nothing of it is left behind,
 * as far as the disk allows. */
int wal_segment_make(struct wal_segment_file *made, const struct wal_place *place,
                     const struct wal_segment_plan *plan);
/* Owns: the file passes to the segment. REQUIRES: EMPTY. */
void wal_segment_install(struct wal_segment *seg, const struct wal_segment_plan *plan,
                         const struct wal_segment_file *made);
/* Fixes where the segment begins; before the tail enters it, perhaps more than once. */
void wal_segment_start(struct wal_segment *seg, uint64_t base);
/* EMPTY, and the file is the caller's. REQUIRES: no window is mapped. */
loam_file *wal_segment_take_file(struct wal_segment *seg);
/* EMPTY; closes the file and, when `remove` is set, takes its name away. */
void wal_segment_discard(struct wal_segment *seg, const struct wal_place *place, bool remove);

/* Maps window k, which the caller then shows or gives back. *p is NULL where there is no such window.
 * 0 or -errno. REQUIRES: the segment stays READY during the call. */
int wal_window_map(const struct wal_segment *seg, const struct wal_place *place, uint32_t k,
                   uint8_t **p);
void wal_window_unmap(const struct wal_place *place, uint8_t *p, size_t bytes);
/* Has the pages of window k read in the background, WAL_PREFETCH_BYTES before they are mapped: a
 * recycled file may have left the page cache, and mapping then would read it page by page. */
void wal_window_prefetch(const struct wal_segment *seg, const struct wal_place *place, uint64_t k);
/* -errno of a map call that says there will never be one. */
bool wal_map_unsupported(int rc);

/* dir/name with a NUL, from the allocator; NULL: no memory. */
char *wal_place_path(const struct wal_place *place, const char *name, size_t *size);
void wal_place_remove(const struct wal_place *place, const char *name);
/* 0, or -errno; these too go on after interruptions. create: an empty file, what was there is gone. */
int wal_place_create(const struct wal_place *place, const char *name, loam_file **f);
int wal_place_rename(const struct wal_place *place, const char *from, const char *to);
int wal_place_sync(const struct wal_place *place);
/* Gives a new file its space; hard: writes zeros where space cannot be reserved. *full: its size is
 * final. */
int wal_place_set_aside(const struct wal_place *place, loam_file *f, uint64_t size, bool hard,
                        bool *full);

#endif
