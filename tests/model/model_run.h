/* model_run.h - Runs random streams of public calls against a database and the oracle side by side.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_MODEL_MODEL_RUN_H_
#define LOAM_TESTS_MODEL_MODEL_RUN_H_

#include <stdbool.h>
#include <stdint.h>

enum model_disk { MODEL_DISK_ANY, MODEL_DISK_MAPPED, MODEL_DISK_UNMAPPED, MODEL_DISK_OS };

struct model_run_options {
    uint64_t seed;
    uint64_t ops;
    enum model_disk disk;
    uint32_t durability; /* LOAM_DUR_*; 0: drawn */
    bool no_crash;       /* only clean closes */
    bool byte_order;     /* no keyspaces with a comparator */
    bool verbose;
};

struct model_run_counts {
    uint64_t ops, writes, reads, moves, reopens, crashes, flushes, compactions, episodes, sicknesses;
};

/* One database from its making to its removal. Aborts with seed, operation and difference when the
 * engine and the oracle disagree. Adds to *counts. */
void model_run_episode(const struct model_run_options *o, struct model_run_counts *counts);
/* Episodes with seeds derived from `seed` until `ops` operations are done or, when it is not 0, until
 * `seconds` have passed. */
void model_run_many(const struct model_run_options *o, uint64_t seconds,
                    struct model_run_counts *counts);
/* LOAM_SEED, or one from the clock; printed. */
uint64_t model_run_seed(void);

#endif
