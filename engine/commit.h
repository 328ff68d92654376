/* commit.h - Makes writes visible in the order of their log positions.
 * SPDX-License-Identifier: Apache-2.0
 *
 *      done ring, one word for each 8 bytes of log space, indexed by position / 8
 *      +---+---+---+---+---+---+---+---+
 *      |   | e |   | e |   |   | e |   |      e = end of the record that begins here
 *      +---+---+---+---+---+---+---+---+
 *            ^visible: everything below is applied; readers see exactly that
 *
 * A writer that has copied its record into the log and its entries into the memtable stores its end
 * at its beginning and moves `visible` over every record that is marked, its own or others'. It then
 * waits until `visible` has passed its own end, so only for predecessors that are unfinished.
 *
 * Invariants
 *   1. visible is the end of a record, and every record below it is applied.
 *   2. done[p] > visible only if p holds a finished record of the present lap: a word left by an
 *      earlier lap is the end of a record below visible.
 *
 * Ordering guarantees
 *   A reader that loads visible = v sees every memtable entry with a sequence number below v.
 *   No marked record is overlooked: marking is "store done; load visible", advancing is "move
 *   visible; load done", all sequentially consistent, so of two writers that miss each other at
 *   least one sees the other.
 * Progress guarantees
 *   commit_publish blocks on unfinished predecessors, and on nothing else.
 */
#ifndef LOAM_ENGINE_COMMIT_H_
#define LOAM_ENGINE_COMMIT_H_

#include "arena/alloc.h"
#include "arena/atomic.h"

#if defined(LOAM_MC)
#define COMMIT_RING_WORDS 2u
#else
#define COMMIT_RING_WORDS 8192u /* in-flight records within 64 KiB of log space never wait for room */
#endif

struct commit {
    _Alignas(CACHE_LINE) _Atomic uint64_t visible;
    _Alignas(CACHE_LINE) _Atomic uint32_t sleepers; /* threads in or near a sleep */
    _Atomic uint32_t tick;                          /* changes when sleepers should look again */
    _Alignas(CACHE_LINE) _Atomic uint64_t done[COMMIT_RING_WORDS];
};

/* Everything below `start` counts as applied. */
void commit_init(struct commit *c, uint64_t start);
/* The record [begin, end) is applied (or void). Returns when it is visible. begin is a multiple of
 * 8 and the end of another record. Any thread, once a record. */
void commit_publish(struct commit *c, uint64_t begin, uint64_t end);
/* Waits until everything below `position` is visible. */
void commit_wait(struct commit *c, uint64_t position);

static inline uint64_t commit_visible(const struct commit *c)
{
    /* acquire: pairs with the advance; entries below it are in their memtables. */
    return atom_load(&c->visible, acquire);
}

#endif
