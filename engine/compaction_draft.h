/* compaction_draft.h - What a compaction job is made of before it is allocated.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The picker's own, like the job list: guarded by the database's mutex (RANK_DB).
 */
#ifndef LOAM_ENGINE_COMPACTION_DRAFT_H_
#define LOAM_ENGINE_COMPACTION_DRAFT_H_

#include "engine/compaction_picker.h"

/* One keyspace of the version being picked from. */
struct site {
    struct compaction_picker *p;
    struct version *v;
    const struct ks_version *k;
    const loam_comparator *cmp;
    struct compaction_shape shape;
    uint64_t oldest;
};

/* Tables of one level for inputs[0], as a run of its array. */
struct run {
    struct table *const *tables;
    uint32_t count;
};

/* False: the order of the keyspace is not known, and nothing of it can be merged. */
bool site_init(struct site *s, struct compaction_picker *p, struct version *v,
               const struct ks_version *k, uint64_t oldest);
/* The tables of level 1 or deeper that overlap the range. */
struct run site_overlap(const struct site *s, int level, struct key_range r);

struct key_range run_range(const struct site *s, struct run in); /* of all keys in it */
uint64_t run_bytes(struct run in);
bool run_is_busy(struct run in); /* a job has one of the tables */

/* A choice of tables; the caller fills in level, output_level and in[0]. */
struct draft {
    int level, output_level;
    struct run in[2], grandparents;
    struct key_range range;
};

/* Fills in the rest. False: it overlaps a running job. */
bool draft_complete(const struct site *s, struct draft *d);
/* Whether a running job of the keyspace overlaps both the range and the levels. */
bool draft_conflicts(const struct site *s, struct key_range r, int level, int output_level);
/* Whether there is space for all that the merge may write before its inputs go. */
bool draft_fits(const struct site *s, const struct draft *d);
/* Whether it would rewrite much more of the output level than it brings there. */
bool draft_is_dear(const struct site *s, const struct draft *d);
/* A job may be a move when nothing is merged, no delete can go, and no moved table will be dear to
 * merge further down. */
bool draft_can_move(const struct site *s, const struct draft *d, bool bottommost);
/* Makes the job, flags its tables and lists it as running. LOAM_OK or LOAM_E_NOMEM. */
int draft_commit(const struct site *s, const struct draft *d, struct compaction **out);
/* Completes and commits; LOAM_CONFLICT: it overlaps a running job. */
int draft_try(const struct site *s, struct draft *d, struct compaction **out);

#define L0_RUN_MIN 4u /* tables worth merging inside level 0 */
/* Level 0 when there is no space to merge all of it into level `out`: as compaction_pick(). */
int compaction_pick_part_of_l0(const struct site *s, int out, struct compaction **c);

#endif
