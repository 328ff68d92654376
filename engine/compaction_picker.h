/* compaction_picker.h - Chooses which tables to merge next, by bytes of debt.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shape. The last level (6) holds most of the data; level i's target is the target of level i+1
 * divided by `multiplier`, and a level exists only while its target is at least base_level_bytes. The
 * uppermost of them is the base level: level 0 is merged straight into it. So a database of up to
 * multiplier * base_level_bytes has level 0 and the last level only, and each byte is rewritten about
 * once on its way down. Levels between 0 and the base level are empty; if they are not - the database
 * has shrunk - they are drained.
 *
 * Level 0 waits until l0_trigger_files tables or base_level_bytes have come together, then all of it
 * is merged at once: the share of the base level that is rewritten is paid once for all of them. When
 * level 0 is small against what it overlaps (many small flushes into a large database), its newest
 * tables are merged among themselves first, choosing the run that costs least a table.
 *
 * Score of a level = bytes / target, tables whose entries are more than half deletes counted twice.
 * The largest score of at least 1 wins. Within a level the table with the least overlap a byte is
 * chosen; dense deletes go first.
 *
 * Two jobs of one keyspace run at the same time only if their key ranges are disjoint or their levels
 * are. That makes `bottommost` stay true while a job runs, and keeps outputs disjoint.
 */
#ifndef LOAM_ENGINE_COMPACTION_PICKER_H_
#define LOAM_ENGINE_COMPACTION_PICKER_H_

#include "engine/version.h"

struct compaction_tunables {
    uint32_t l0_trigger_files;  /* more: less rewriting, slower reads while writing */
    uint32_t l0_idle_files;     /* an idle database merges level 0 from this many tables on */
    uint32_t multiplier;        /* between levels. More: less space, more rewriting */
    uint64_t base_level_bytes;  /* smallest target of a level; about what level 0 gathers */
    uint64_t target_file_bytes; /* of output tables */
    uint64_t max_input_bytes;   /* of one job from level 1 or deeper */
    uint64_t grandparent_bytes; /* one output table overlaps at most this much of the next level */
    uint32_t space_percent;     /* idle databases shrink until garbage is at most this share */
};

/* Defaults for a memtable of this many bytes. */
void compaction_tunables_init(struct compaction_tunables *t, uint64_t memtable_bytes);

struct key_range {
    loam_slice lo, hi; /* data NULL: open */
};

/* One job. The tables are flagged `compacting` and their version is referenced until it is freed. */
struct compaction {
    uint32_t ks;
    int level;
    int output_level;            /* equal to level: tables are rewritten in place */
    struct table **inputs[2];    /* of level and output_level; newest first for level 0 */
    uint32_t input_count[2];
    uint64_t input_bytes;        /* of both */
    bool is_move;                /* inputs[0] goes to output_level as it is */
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

/* Guarded by the database's mutex (RANK_DB), and so is every call that takes it. */
struct compaction_picker {
    struct alloc *alloc;
    struct compaction_tunables tunables;
    struct version_order order;
    struct compaction *running;
};

void compaction_picker_init(struct compaction_picker *p, struct alloc *a,
                            const struct compaction_tunables *t, struct version_order order);
void compaction_picker_destroy(struct compaction_picker *p); /* REQUIRES: no job is out */

/* The most urgent job, flagged and referenced, or LOAM_NOTFOUND: nothing is due, or what is due
 * overlaps a running job. LOAM_E_NOMEM. `oldest` is the oldest sequence number that a snapshot or
 * reader may need: deletes at or below it can be dropped at the bottom. The caller holds a reference
 * to v, which must be the current version. */
int compaction_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                    struct compaction **c);
/* As compaction_pick, for a database with nothing else to do: work that brings garbage under
 * space_percent, drops deletes, and leaves few tables in level 0. */
int compaction_idle_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         struct compaction **c);
/* A job that moves tables of `level` overlapping [lo, hi] of keyspace ks down. A caller that wants
 * everything at the bottom goes through levels 0 to LEVEL_COUNT - 1, repeating each until
 * LOAM_NOTFOUND; the last one rewrites tables that hold deletes at or below `oldest`. LOAM_CONFLICT:
 * overlaps a running job; try again when that has ended. */
int compaction_pick_range(struct compaction_picker *p, struct version *v, uint32_t ks,
                          struct key_range range, int level, uint64_t oldest,
                          struct compaction **c);
/* Ends the job: clears the flags, gives the version back. NULL is allowed. */
void compaction_free(struct compaction_picker *p, struct compaction *c);

/* Bytes that must still be rewritten until every level is in shape; grows from 0 without jumps. */
uint64_t compaction_debt_bytes(const struct version *v, const struct compaction_tunables *t);
uint64_t compaction_debt_bytes_ks(const struct ks_version *k, const struct compaction_tunables *t);

/* ---- while a job runs: no lock --------------------------------------------------------------- */

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
