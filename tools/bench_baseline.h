/* bench_baseline.h - Processor times of an earlier run, read from its JSON, beside those of this one.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_BASELINE_H_
#define LOAM_TOOLS_BENCH_BASELINE_H_

#include "tools/bench_table.h"

/* Sets `baseline` of each entry whose group, row and engine the file has in units.
 * Returns: 0, or -1 after a line on stderr. */
int bench_baseline_read(struct bench_table *t, const char *path);
/* A line for the rows that take a tenth longer than they did, or one that there are none. */
void bench_baseline_print(const struct bench_table *t, FILE *out);

#endif
