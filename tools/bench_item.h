/* bench_item.h - One item of --benchmarks: a name, how often, and its run on one store.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_ITEM_H_
#define LOAM_TOOLS_BENCH_ITEM_H_

#include "tools/bench_run.h"

/* name[X5-W1] runs 5 times after 1 warm-up. */
struct bench_item {
    char name[64];
    unsigned repeats, warm_ups;
};

void bench_item_parse(const char *text, struct bench_item *item);

/* Opens the store, empty if the benchmark wants it so, and runs the benchmark once. keep: the row
 * is printed and kept; otherwise it is a warm-up.
 * Returns: BENCH_OK when it was run, with *row filled (row->ops is 0 for those that print for
 * themselves); BENCH_UNSUPPORTED when it was skipped, which is printed. Errors end the process. */
int bench_item_run(struct bench_context *c, struct bench_store *s, const struct bench_workload *w,
                   const char *name, bool keep, struct bench_row *row);

#endif
