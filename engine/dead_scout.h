/* dead_scout.h - Walks over fresh deletes in the background, so that no reader is the first to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Now and then a writer leaves the key of a delete as a hint. A worker walks from each hint both ways as
 * long as it meets nothing live, and so adds the stretch to the ranges that readers jump over
 * (dead_ranges.h). Scattered deletes cost two seeks a hint, a long stretch costs one walk, whose
 * steps are spread: at most DEAD_SCOUT_KEYS of them in DEAD_SCOUT_US. Blocks read on the way stay out of
 * the cache. Nothing depends on it: a hint that is lost, or comes too late, leaves the walk to a reader.
 *
 * What was known is gone with a crash (dead_known.h has it from a clean close). Replaying the log leaves
 * hints as writers do; and after an open the worker surveys the tables of which most entries are
 * deletes, by number: it walks from keys spread over each as it does from hints. A table whose walks do
 * not end - there is no room for what they find - is given up after as many rounds as its deletes fill,
 * twice. Keyspaces whose comparator is not known yet are passed over; when one is given the survey begins
 * again, and costs a few steps a table where all is known.
 */
#ifndef LOAM_ENGINE_DEAD_SCOUT_H_
#define LOAM_ENGINE_DEAD_SCOUT_H_

#include "arena/atomic.h"
#include "arena/buf.h"
#include "arena/entry.h"
#include "arena/sync.h"

struct db;

#define DEAD_SCOUT_HINTS   4u
#define DEAD_SCOUT_EVERY   1024u   /* deletes of a thread between two hints */
#define DEAD_SCOUT_KEYS    65536u  /* dead keys passed in one round */
#define DEAD_SCOUT_US      100000u /* between two rounds */
#define DEAD_SCOUT_TABLE   256u    /* deletes of a table that is worth a look after an open */
#define DEAD_SCOUT_PLACES  16u     /* of a table from which a survey walks, at most */

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
    _Atomic bool again;   /* the survey is to begin again */
    /* of whoever runs a round */
    bool running;      /* guarded by the database's mu */
    uint64_t again_at; /* likewise: micros */
    bool survey;       /* there are tables to look at */
    uint32_t tries;    /* rounds spent on the next one */
    uint64_t surveyed; /* tables up to this number have been looked at */
};

void dead_scout_init(struct dead_scout *s, struct alloc *a);
void dead_scout_destroy(struct dead_scout *s);

/* Begins the survey, if there is something for it: at an open, and when a keyspace got its order. */
void dead_scout_survey(struct db *db);

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
