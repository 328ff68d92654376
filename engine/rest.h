/* rest.h - Since when writers rest, and what then becomes of the memtable they left.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A walk pays for each memtable it passes through as for a run of tables, and a memtable of megabytes is
 * the dearest of them: its nodes lie all over memory. While writers are busy it is about to go anyway. When
 * they rest it would stay for good, so then it is flushed
 *   - once a quarter full: no more tables of level 0 come of it than four times as many, or
 *   - before, when as many seeks have passed through it as it has entries: they have cost what the flush
 *     will, so whatever comes next, no more than twice the least is paid.
 * Its memory goes to the block cache, and a crash finds less of a log to read.
 */
#ifndef LOAM_ENGINE_REST_H_
#define LOAM_ENGINE_REST_H_

#include "arena/atomic.h"

struct db;

#define REST_PART  4u               /* of a memtable's limit: from there on it is worth a table */
#define REST_BYTES ((uint64_t)1 << 20) /* less is in the processor's caches while it is sought in */

/* Of a database; guarded by its mu but for `seeks`. */
struct rest {
    uint64_t seq;   /* the last number seen */
    uint64_t since; /* and when it was new, in micros */
    uint64_t sealed_at; /* micros; when the active memtable began to be filled */
    uint32_t generation;    /* of the memtable that `seeks` is about */
    bool sealing;           /* a flush is about to be due */
    uint64_t refused_seq;   /* a seal failed when this was the last number; 0: none did */
    _Atomic uint64_t seeks; /* that had to pass through the active memtable */
};

/* Micros since a write was last seen. REQUIRES: mu held. */
uint64_t rest_micros_locked(struct db *db);
/* Whether writers keep coming, and with so much that what is merged now would soon be merged again: then
 * merges wait until they are due. drain: bytes that flushes take a second. REQUIRES: mu held. */
bool rest_is_far_locked(struct db *db, uint64_t drain);
/* Whether the active memtable is worth a table although nobody needs its memory, when files may grow by so
 * many bytes. REQUIRES: mu held, and no seal runs. */
bool rest_flush_due_locked(struct db *db, uint64_t room);
/* Seals it: the flush is due then. Lets go of mu meanwhile. What fails is not tried again before the next
 * write. REQUIRES: mu held. */
void rest_flush_locked(struct db *db);

static inline void rest_charge(struct rest *r, uint64_t seeks)
{
    atom_add(&r->seeks, seeks, relaxed); /* relaxed: only the sum matters */
}

#endif
