/* oom_run_support.h - Runs a scenario once for each allocation it makes, with that one refused.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each run ends with memory again: the same database serves writes without a reopen, everything
 * acknowledged is in it and in copies of the disk as a killed process and a power cut leave it, and
 * after close nothing is still allocated, mapped or open. LOAM_SEED repeats a run, LOAM_AT begins at
 * that allocation.
 */
#ifndef LOAM_TESTS_CRASH_OOM_RUN_SUPPORT_H_
#define LOAM_TESTS_CRASH_OOM_RUN_SUPPORT_H_

#include "tests/crash/crash_support.h"
#include "tests/crash/oom_support.h"
#include "tests/crash/oracle_support.h"
#include "tests/support/check.h"

#define OOM_DIR         "/db"
#define OOM_RUN_SECONDS 60

struct oom_plan {
    uint64_t at; /* 0: count only */
    bool persist;
};

/* What a scenario works with. */
struct oom_scene {
    loam_vfs *disk, *fault;
    struct oracle_writer w;
    struct oom_plan plan;
    uint32_t durability; /* LOAM_DUR_* of its opens */
};

/* Tables on two levels, keyspaces "one" and "two", and a log that nobody closed. */
struct oom_past {
    struct oracle oracle;
    loam_vfs *disk, *fault;
};

struct oom_scenario {
    const char *name;
    void (*act)(struct oom_scene *s);
    uint32_t durability;         /* LOAM_DUR_* */
    bool open;                   /* the database is opened before memory is short */
    const struct oom_past *past; /* what it begins with; NULL: an empty disk */
};

/* Makes the one instance, and installs the counters. */
const struct oom_past *oom_make_past(void);
void oom_sweep(const struct oom_scenario *c);

/* ---- for scenarios ----------------------------------------------------------------------------- */

bool oom_open(struct oom_scene *s);
/* An answer (false), or memory was short: nothing else may go wrong. */
bool oom_short(int rc, const char *what);
/* What is read is right, or memory was short. */
void oom_judge_live(struct oracle_writer *w);

/* ---- for sweeps of their own ------------------------------------------------------------------- */

/* Makes what the process keeps for good, for as many threads as are ever alive together. */
void oom_warm_up(void);
/* What is live, with nothing waiting to be freed. */
struct oom_live oom_balance(void);
/* Nothing more is allocated than before. */
void oom_check_balance(const char *when, struct oom_live before);

#endif
