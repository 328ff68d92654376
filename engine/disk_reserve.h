/* disk_reserve.h - Disk space set aside while there is some, for what frees space when there is none.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   STANDING -> SPENT      [disk_reserve_spend]    a flush, a merge or a delete met a full disk
 *   SPENT    -> STANDING   [disk_reserve_restore]  there is space for all of it again
 *
 * The reserve is the file RESERVE, which holds nothing but its space: removing it gives the space to
 * the flush, the merge or the log segment that needs it. While it is spent, puts are refused and only
 * deletes are let in, so that what it gave goes into freeing more. It stays behind at close, for an
 * open on a full disk.
 */
#ifndef LOAM_ENGINE_DISK_RESERVE_H_
#define LOAM_ENGINE_DISK_RESERVE_H_

#include "arena/atomic.h"
#include "arena/sync.h"
#include "arena/vfs.h"

struct disk_reserve {
    const loam_vfs *vfs; /* constant, like dir */
    const char *dir;
    struct mutex mu;     /* guards the file; held over its calls */
    uint64_t bytes;      /* constant after open; 0: none could be set aside, whatever the space */
    _Atomic bool spent;
};

void disk_reserve_init(struct disk_reserve *r, const loam_vfs *vfs, const char *dir);
void disk_reserve_destroy(struct disk_reserve *r);
/* Before the log is opened: gives an old reserve up when the disk has less than `needed` bytes. */
void disk_reserve_yield(struct disk_reserve *r, uint64_t needed);
/* Sets aside `bytes`; unless exactly so many are wanted, less on a small disk. A disk without the space
 * leaves it spent; whatever else keeps it from being made leaves none. */
void disk_reserve_open(struct disk_reserve *r, uint64_t bytes, bool exact);
/* True: there is more space than before. Any thread. */
bool disk_reserve_spend(struct disk_reserve *r);
/* True: it stands, again or still. Any thread. */
bool disk_reserve_restore(struct disk_reserve *r);

/* The error of what waits until it stands again: E_NOSPACE, to be tried again. */
int disk_reserve_missing(const struct disk_reserve *r);
/* Bytes that the disk has left; UINT64_MAX when the system does not say. Any thread. */
uint64_t disk_reserve_free(const struct disk_reserve *r);
/* Bytes set aside now. Any thread. */
uint64_t disk_reserve_bytes(struct disk_reserve *r);

static inline bool disk_reserve_spent(const struct disk_reserve *r)
{
    return atom_load(&r->spent, relaxed); /* relaxed: who acts on it looks again before long */
}

#endif
