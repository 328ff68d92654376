/* bench_growth.h - The same row in groups that differ in size, side by side: how its cost grows.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_GROWTH_H_
#define LOAM_TOOLS_BENCH_GROWTH_H_

#include <stdio.h>

#include "tools/bench_table.h"

/* Nothing for a suite whose groups are not sizes of one thing. */
void bench_growth_print(const struct bench_table *t, const struct bench_suite *suite, FILE *out);

#endif
