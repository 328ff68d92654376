/* bench_bars.h - What loam is to reach on the rows of --suite=peers, and which of it was reached.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Machines differ, so a bar is a ratio: all engines were measured on one machine, a speed for loam
 * was set for that machine, and its quotient by a peer's speed there is what the ratio to the same
 * peer has to be in one run anywhere else. Peers are LevelDB and LMDB, whose packaged builds run
 * about as fast as those that were measured. What does not depend much on the machine (bytes
 * written, memory, the tail of the latencies) is held against numbers as they stand.
 */
#ifndef LOAM_TOOLS_BENCH_BARS_H_
#define LOAM_TOOLS_BENCH_BARS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct bench_entry;
struct bench_flags;
struct bench_table;

/* Sets entry->bar and entry->background_bar: how many times this peer's speed loam has to reach;
 * 0 where there is no bar. */
void bench_bars_set(struct bench_entry *e);

/* Rows that have one. */
size_t bench_bars_count(void);

/* Whether the bar of a peer's entry was met: its ratio, and that of the writers beside it. mine is
 * loam's entry of the same row. */
bool bench_bar_met(const struct bench_entry *peer, const struct bench_entry *mine);

/* A line for each bar with what was reached; nothing when the table has no row with a bar. */
void bench_bars_print(const struct bench_table *t, const struct bench_flags *base, FILE *out);

#endif
