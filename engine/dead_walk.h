/* dead_walk.h - What an iterator does among deleted keys: jumps over known ranges, remembers new ones.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A walk belongs to one move of an iterator, in one direction, inside one section. The iterator tells
 * it of each key it finds dead, of what is newer than its number, and of the end; the walk moves the
 * merge over ranges that others have learned (dead_ranges.h), and adds a stretch that was long enough.
 * Several ranges met in one stretch become one. So a move passes a few keys before it jumps and, as long
 * as there is room, at most dead_ranges_worth() of what is not known.
 */
#ifndef LOAM_ENGINE_DEAD_WALK_H_
#define LOAM_ENGINE_DEAD_WALK_H_

#include "engine/db_iter.h"

/* Dead keys passed before a range is looked for: at the start (most stretches are short) and behind a
 * range, and later on. */
#define DEAD_WALK_FIRST 4u
#define DEAD_WALK_LOOK  16u

/* Zeroed at the start. */
struct dead_walk {
    uint32_t passed; /* keys of the stretch; those in ranges jumped over are not counted */
    uint32_t jumps;  /* ranges of the stretch */
    uint32_t looked; /* keys passed at the last look for a range */
    bool more;       /* there was none */
    bool newer;      /* a version the iterator does not see has been met since the last key */
    uint64_t newest; /* delete of the stretch */
};

/* it->key is dead since the delete `seq`, and the merge has passed it. May move the merge on. */
void dead_walk_pass(struct db *db, struct db_iter *it, struct dead_walk *w, uint64_t seq);
/* The walk is over: the merge stands on the entry that ended it, or off its end behind (backward:
 * before) it->key, the last that was passed. */
void dead_walk_end(struct db *db, struct db_iter *it, struct dead_walk *w);
/* The stretch ends right behind it->key, because of something newer than the iterator's number or,
 * backward, because that key is live. */
void dead_walk_break_(struct db *db, struct db_iter *it, struct dead_walk *w);
static inline void dead_walk_newer(struct db *db, struct db_iter *it, struct dead_walk *w)
{
    w->newer = true;
    if (w->passed != 0) {
        dead_walk_break_(db, it, w);
    }
}

#endif
