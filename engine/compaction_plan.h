/* compaction_plan.h - One merge of tables into a deeper level, as it was picked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two jobs of one keyspace run at the same time only if their key ranges are disjoint or their levels
 * are. That makes `bottommost` stay true while a job runs, and keeps outputs disjoint.
 */
#ifndef LOAM_ENGINE_COMPACTION_PLAN_H_
#define LOAM_ENGINE_COMPACTION_PLAN_H_

#include "engine/version.h"

struct key_range {
    loam_slice lo, hi; /* data NULL: open */
};

/* One job. The tables are flagged `compacting` and their version is referenced until it is freed. */
struct compaction {
    uint32_t ks;
    int level;
    int output_level;         /* equal to level: tables are rewritten in place */
    struct table **inputs[2]; /* of level and output_level; newest first for level 0 */
    uint32_t input_count[2];
    uint64_t input_bytes;        /* of both */
    bool is_move;                /* inputs[0] goes to output_level as it is */
    uint64_t trim; /* not 0: inputs[0], of all levels above, whose newest entry this is, is only read, within
                      `range` */
    bool bottommost;             /* nothing deeper than output_level overlaps: deletes at or below
                                    the oldest snapshot may go */
    uint64_t target_file_bytes;  /* UINT64_MAX: one output table */
    uint64_t grandparent_bytes;  /* limit for compaction_split_before() */
    struct table **grandparents; /* of output_level + 1, overlapping the range */
    uint32_t grandparent_count;
    struct key_range range; /* smallest and largest key of all inputs, both inclusive */
    const loam_comparator *cmp;
    struct version *version;
    /* the picker's */
    struct compaction *next, **link;
    struct alloc *alloc;
    size_t bytes; /* of this allocation */
};

/* The functions below take no lock: they read what does not change while the job runs. */

struct compaction_split_state {
    uint32_t grandparent; /* first that has not been passed */
    uint64_t overlap;     /* bytes of those passed since the output table was begun */
    bool any;             /* a key was seen */
};

/* Whether to begin a new output table before `key`, given the bytes in the present one (0: none yet).
 * REQUIRES: called once for each distinct user key, ascending, before it is added; the state is
 * zeroed at the start. So versions of a key never straddle tables. */
bool compaction_split_before(const struct compaction *c, struct compaction_split_state *s,
                             loam_slice key, uint64_t output_bytes);

/* Divides the job into at most n parts of about equal size for parallel workers: part i is the keys
 * k with ranges[i].lo <= k < ranges[i].hi (open at the outer ends). Cuts fall on table boundaries and
 * on `hints` (keys inside tables, e.g. from sst_split_key(), in any order). The slices are lent by the
 * tables and hints. Returns the number of parts, at least 1; 1 when memory is out. */
uint32_t compaction_split(const struct compaction *c, uint32_t n, const loam_slice *hints,
                          uint32_t hint_count, struct key_range *ranges);

/* The edit of a job that is a move. LOAM_OK or LOAM_E_NOMEM. */
int compaction_move_edit(const struct compaction *c, struct version_edit *e);
/* Adds the removal of every input to the edit. LOAM_OK or LOAM_E_NOMEM. */
int compaction_remove_inputs(const struct compaction *c, struct version_edit *e);

#endif
