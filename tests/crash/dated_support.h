/* dated_support.h - What was promised when, by the changes of a recorded disk, and every crash of a stretch of them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One run of a workload serves the crashes at all its moments. The writer must be the only one of its oracle.
 */
#ifndef LOAM_TESTS_CRASH_DATED_SUPPORT_H_
#define LOAM_TESTS_CRASH_DATED_SUPPORT_H_

#include <stddef.h>

#include "tests/crash/oracle_support.h"

/* From `at` changes of the disk on. */
struct dated_event {
    uint64_t at;
    struct oracle_promise killed, cut; /* when the process dies, when the power goes */
};

struct dated {
    loam_recording *rec; /* Owns */
    const struct oracle *oracle;
    struct dated_event *events; /* Owns */
    size_t count, cap;
};

struct dated_totals {
    uint64_t moments, states; /* states: different from the one before of their kind */
};
extern struct dated_totals dated_totals;

/* Records the disk, and dates from now on what the writer does. */
void dated_begin(struct dated *d, loam_vfs *disk, struct oracle_writer *w);
/* Before the disk is freed. */
void dated_end(struct dated *d);
struct oracle_promise dated_promise(const struct dated *d, uint64_t at, bool killed);
/* Crashes at every change from `from` to `to`: with nothing but what was synced, and in `tries` ways that the
 * seed chooses; its last bit is the model of names (LOAM_NAMES_*). Aborts where a state breaks its promise. Nothing may use
 * the disk meanwhile. what: for the context. */
void dated_crash(struct dated *d, uint64_t from, uint64_t to, unsigned tries, uint64_t seed,
                 const char *what);

#endif
