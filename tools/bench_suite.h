/* bench_suite.h - What --suite names: groups of benchmarks with their sizes, run round by round.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_SUITE_H_
#define LOAM_TOOLS_BENCH_SUITE_H_

#include "tools/bench_flags.h"
#include "tools/bench_item.h"

/* One line of the table. Zero: as the flags say. */
struct bench_suite_row {
    const char *benchmark;
    const char *label; /* NULL: the name of the benchmark */
    unsigned threads;
    uint64_t ops;     /* of all threads together */
    unsigned percent; /* the same, as a share of the group's keys */
    double seconds;   /* by time instead */
    unsigned writers, batch;
    unsigned warm_ups, repeats;
    bool untimed; /* an operation is so short that looking at the clock would be most of it */
};

/* One database, filled and then used by the rows in order, in a process of its own. */
struct bench_suite_group {
    const char *name;
    int64_t num, value_size, write_buffer_size, cache_size; /* 0: as the flags say */
    const struct bench_suite_row *rows;
    size_t count;
};

struct bench_suite {
    const char *name;
    const char *help;
    const char *engines; /* unless --engine says */
    int64_t rounds;
    double minutes; /* of --time_limit */
    const struct bench_suite_group *groups;
    size_t count;
    const char *seconds_csv; /* default of that flag */
    bool calibrate;          /* times also in units of bench_calibrate.h */
    bool across_groups;      /* groups differ in size alone: their rows are held side by side */
};

/* All there are, in bench_suite_tables.c. */
extern const struct bench_suite bench_suites[];
extern const size_t bench_suites_count;

/* NULL: no such suite. */
const struct bench_suite *bench_suite_find(const char *name);
/* The defaults of flags that a suite changes; what the command line says then wins. */
void bench_suite_defaults(const struct bench_suite *s, struct bench_flags *f);
void bench_suites_help(FILE *out);

/* A suite of one group from --benchmarks. Owns memory in `items`, to be freed.
 * Returns: 0; 1 after a line for a name that nobody knows; -1 without memory. */
struct bench_suite_list {
    struct bench_suite suite;
    struct bench_suite_group group;
    struct bench_suite_row *rows;
    struct bench_item *items;
};
int bench_suite_from_list(struct bench_suite_list *l, const char *benchmarks);
void bench_suite_list_free(struct bench_suite_list *l);

/* Flags for one row: a copy of `base` with the sizes of group and row, scaled by --scale. */
void bench_suite_row_flags(const struct bench_suite_group *g, const struct bench_suite_row *r,
                           const struct bench_flags *base, struct bench_flags *out);

#endif
