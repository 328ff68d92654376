/* compaction_picker.h - Chooses which tables to merge next, by bytes of debt.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Level 0 waits until l0_trigger_files tables or base_level_bytes have come together, then all of it
 * is merged at once: the share of the base level that is rewritten is paid once for all of them. When
 * level 0 is small against what it overlaps (many small flushes into a large database), its newest
 * tables are merged among themselves first, choosing the run that costs least a table. In a database at
 * rest seeks can ask for the merge, too: each table of level 0 is one more place for them to look.
 *
 * The level with the largest score of at least 1 wins (compaction_shape.h). Within a level the table
 * with the least overlap a byte is chosen; dense deletes go first.
 */
#ifndef LOAM_ENGINE_COMPACTION_PICKER_H_
#define LOAM_ENGINE_COMPACTION_PICKER_H_

#include "engine/compaction_plan.h"
#include "engine/compaction_shape.h"

/* Guarded by the database's mutex (RANK_DB), and so is every call that takes it. */
struct compaction_picker {
    struct alloc *alloc;
    struct compaction_tunables tunables;
    struct version_order order;
    struct compaction *running;
    uint64_t room; /* bytes that the files may grow by: no job that may need more is picked, but by hand */
    bool cramped;  /* since it was last cleared, one was left out for that */
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
/* For a database that nobody writes to: merges level 0 down when it holds a multiplier's part of what the
 * merge will write, as any other level when it is due; and, however little it holds, once the seeks that
 * went through its tables have read as much there as the merge will write. Who pays for either first pays
 * at most twice what the cheaper one would have cost. */
int compaction_rest_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         struct compaction **c);
/* The job begins: a merge that fails must be paid for anew. */
void compaction_spend_seeks(const struct compaction *c);
/* What is merged by hand. */
struct compaction_range {
    uint32_t ks;
    struct key_range keys;
    uint64_t upto; /* tables of level 0 with higher sequence numbers stay: while somebody writes, there is
                      always one more */
};

/* A job that moves tables of `level` overlapping the range down. A caller that wants
 * everything at the bottom goes through levels 0 to LEVEL_COUNT - 1, repeating each until
 * LOAM_NOTFOUND; the last one rewrites tables that hold deletes or older versions of their keys, all at
 * or below `oldest`. LOAM_CONFLICT: overlaps a running job; try again when that has ended. */
int compaction_pick_range(struct compaction_picker *p, struct version *v,
                          const struct compaction_range *range, int level, uint64_t oldest,
                          struct compaction **c);
/* For a disk without the space that other merges need: a job that rewrites one table without what newer
 * ones have hidden in it, and removes nothing else. As compaction_pick. surely: only one that the space is
 * enough for whatever it finds. */
int compaction_pick_trim(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         bool surely, struct compaction **c);
/* Ends the job: clears the flags, gives the version back. NULL is allowed. */
void compaction_free(struct compaction_picker *p, struct compaction *c);

#endif
