/* dead_scout.h - Walks over fresh deletes in the background, so that no reader is the first to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Now and then a writer leaves the key of a delete as a hint. A worker walks from each hint both ways as
 * long as it meets nothing live, and so adds the stretch to the ranges that readers jump over
 * (dead_ranges.h). Scattered deletes cost two seeks a hint, a long stretch costs one walk, whose
 * steps are spread: at most DEAD_SCOUT_KEYS of them in DEAD_SCOUT_US. Blocks read on the way stay out of
 * the cache. Nothing depends on it: a hint that is lost, or comes too late, leaves the walk to a reader.
 *
 * The worker also surveys what nobody knows of after an open, a share in each round (dead_survey.h).
 */
#ifndef LOAM_ENGINE_DEAD_SCOUT_H_
#define LOAM_ENGINE_DEAD_SCOUT_H_

#include "arena/atomic.h"
#include "arena/buf.h"
#include "arena/entry.h"
#include "arena/sync.h"
#include "engine/dead_survey.h"

struct db;

#define DEAD_SCOUT_HINTS   4u
#define DEAD_SCOUT_EVERY   1024u   /* deletes of a thread between two hints */
#define DEAD_SCOUT_KEYS    65536u  /* dead keys passed in one round, or bytes in their stead */
#define DEAD_SCOUT_US      100000u /* between two rounds */
#define DEAD_SCOUT_READ    128u    /* bytes read on a walk that count as a key */

struct dead_hint {
    uint32_t ks;
    struct buf key;
};

struct dead_scout {
    struct mutex mu; /* RANK_STRUCT */
    /* guarded by mu: the first hint since the last round stays in place 0, the others take turns */
    struct dead_hint hint[DEAD_SCOUT_HINTS];
    uint32_t hints, turn;
    _Atomic bool waiting; /* there are hints, or tables to survey */
    bool running;         /* guarded by the database's mu: a round */
    uint64_t again_at;    /* likewise: micros */
    struct dead_survey survey;
};

void dead_scout_init(struct dead_scout *s, struct alloc *a);
void dead_scout_destroy(struct dead_scout *s);

/* The next round begins the survey. */
void dead_scout_survey(struct dead_scout *s);

/* Walks both ways from the key as long as it meets nothing live, and so makes the stretch known. False: `left`
 * units were not enough; what was passed is known so far. An error, or a keyspace without an order, counts as an
 * end. REQUIRES: outside of sections. */
bool dead_scout_walk(struct db *db, struct db_iter *it, uint32_t ks, loam_slice key,
                     uint64_t *left);

/* Writers: the deletes of this thread have come to `count`. Never waits. */
void dead_scout_leave_(struct dead_scout *s, uint32_t ks, loam_slice key);
static inline void dead_scout_delete(struct dead_scout *s, uint64_t count, uint32_t ks,
                                     loam_slice key)
{
    if (__builtin_expect(count % DEAD_SCOUT_EVERY == 0, 0)) {
        dead_scout_leave_(s, ks, key);
    }
}

/* Whether a round is due. REQUIRES: db->mu held. */
bool dead_scout_due_locked(struct db *db);
/* Whether there are hints, or a round runs. REQUIRES: db->mu held. */
bool dead_scout_busy_locked(struct db *db);
/* Runs one, giving db->mu up meanwhile. REQUIRES: db->mu held, a round is due. */
void dead_scout_run_locked(struct db *db);

#endif
