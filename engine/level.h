/* level.h - The tables of one level of a keyspace, in order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The array of tables is shared by reference count between the versions that agree on it.
 *
 * Invariants
 *  1. Level 0 is ordered newest first: by max_seq, then by number, both falling. The tables of
 *     levels 1 and deeper are ordered by their smallest key and disjoint: no key is in two of them.
 *  2. While the order of the keyspace is not known, its levels stand in byte order, unchecked.
 */
#ifndef LOAM_ENGINE_LEVEL_H_
#define LOAM_ENGINE_LEVEL_H_

#include "engine/table.h"

struct level {
    struct table **tables;
    uint64_t *prefixes; /* of each largest key: the 8 bytes after the shared ones, big-endian */
    uint32_t count;
    uint32_t shared;                  /* bytes that all smallest and largest keys begin with */
    uint64_t bytes, entries, deletes; /* sums over the tables */
};

/* ---- reading: any thread to which the level's version is visible ---- */

/* Level 1 and deeper: index of the first table whose largest key is >= key; count when none. */
uint32_t level_find(const struct level *l, const loam_comparator *cmp, loam_slice key);

/* Level 1 and deeper: the tables that overlap [lo, hi], both inclusive, are [*first, *end). A slice
 * with data NULL leaves that side open. True when there are any. REQUIRES: lo <= hi. */
bool level_overlaps(const struct level *l, const loam_comparator *cmp, loam_slice lo, loam_slice hi,
                    uint32_t *first, uint32_t *end);

/* ---- building: the caller holds the version set's mutex ---- */

struct level_build {
    struct alloc *alloc;
    uint64_t file_id; /* the manifest's number, for errors */
    unsigned level;
    bool known; /* false: the order of the keyspace is not known, and nothing is checked */
    const loam_comparator *cmp;
};

/* Whether a stands before b in their level of one keyspace. */
bool level_stands_before(unsigned level, const loam_comparator *cmp, const struct table *a,
                         const struct table *b);

/* Fills l with the tables, which are in order; takes a reference to each. LOAM_E_CORRUPT when they
 * overlap or one ends before it begins, LOAM_E_NOMEM; then l is empty. */
int level_make(const struct level_build *b, struct table *const *tables, uint32_t count,
               struct level *l);
void level_share(const struct level *l); /* one more reference */
/* Gives a reference back. Tables that no array names any more are put before *dead. */
void level_release(struct alloc *a, struct level *l, struct table **dead);

#endif
