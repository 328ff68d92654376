/* bench_compare.h - Runs a suite on several engines, interleaved, each in a process of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For each round, for each group of the suite, for each engine in turn: a child process opens an
 * empty database, runs the rows of the group in order and sends each through a pipe. So memory and
 * processor time are one engine's alone, no engine finds the heap another left, and what slows the
 * machine for a while slows all of them down. After a row that wrote, the child waits for the
 * background work it left behind, whose bytes, processor time and memory count as that row's.
 */
#ifndef LOAM_TOOLS_BENCH_COMPARE_H_
#define LOAM_TOOLS_BENCH_COMPARE_H_

#include "tools/bench_run.h"
#include "tools/bench_suite.h"

/* One run of one row on one engine. */
struct bench_sample {
    uint32_t group, line; /* of the suite */
    uint32_t engine;      /* index into the engines */
    uint32_t round, repeat;
    struct bench_row row;
};

struct bench_samples {
    struct bench_sample *all;
    size_t count, cap;
    unsigned rounds; /* completed */
    unsigned failed; /* children that did not end well */
};

/* Runs the suite on n stores, which are closed before and after. Prints a line a row as it goes.
 * keep: databases are left where they are; otherwise removed.
 * Returns: 0, or -1 after a line on stderr when processes or memory could not be had. */
int bench_compare(struct bench_context *c, struct bench_store **stores, size_t n,
                  const struct bench_suite *suite, bool keep, struct bench_samples *out);
void bench_samples_free(struct bench_samples *s);

#endif
