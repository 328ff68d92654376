/* crash_run.h - One round: a recorded workload, and every crash of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_CRASH_RUN_H_
#define LOAM_TOOLS_CRASH_RUN_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/crash_model.h"

#define CRASH_DEPTH_MAX      3u  /* a crash, one in its recovery, one in the recovery from that */
#define CRASH_EXHAUSTIVE_MAX 10u /* pending items of which every subset is tried */
#define CRASH_MANY_ITEMS 6u      /* with more of them at some of the moments only: they change slowly */

struct crash_plan {
    uint64_t seed;
    uint64_t states;       /* stop at so many distinct ones; 0 = do not */
    uint64_t failures;     /* stop at so many */
    uint32_t tries;        /* seeds of each random variant at each moment */
    uint32_t nested_every; /* one state in so many has its recovery crashed too; 0 = none */
    bool exhaustive;       /* every subset at every moment with few pending items */
    uint32_t lie;          /* LOAM_CALL_* that the disk only pretends to do */
    const char *save;      /* where failed cases go */
};

/* Where a worker is; read by others when it died there. */
struct crash_position {
    _Atomic uint64_t round, at, seed;
    _Atomic uint32_t depth, variant, names;
};

/* In memory that the worker processes share. */
struct crash_totals {
    _Atomic uint64_t rounds;   /* taken */
    _Atomic uint64_t finished; /* rounds with every crash tried */
    _Atomic uint64_t changes;  /* of the disk, in all workloads */
    _Atomic uint64_t tried, distinct, nested;
    _Atomic uint64_t rolls, rolling; /* of a manifest grown long; states with both manifests */
    _Atomic uint64_t exhaustive, sampled; /* moments of which every subset was tried, or not */
    _Atomic uint64_t lost, wrong, unopenable, other; /* failures */
    _Atomic bool stop;
};

static inline uint64_t crash_failures(struct crash_totals *t)
{
    return atomic_load(&t->lost) + atomic_load(&t->wrong) + atomic_load(&t->unopenable) +
           atomic_load(&t->other);
}

struct crash_run;

/* NULL: no memory. */
struct crash_run *crash_run_new(const struct crash_plan *plan, struct crash_totals *totals,
                                struct crash_position *position);
void crash_run_free(struct crash_run *r);
/* Failures are printed, saved and counted; returns when the round is over or totals->stop is set. */
void crash_run_round(struct crash_run *r, uint64_t round);

/* Checks one saved case: 0 it is right, 3 it is not, 4 it cannot be read. */
int crash_replay(const char *dir);

#endif
