/* bench_table.h - The table of a comparison: each row on each engine, and the ratio to the peers.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_TABLE_H_
#define LOAM_TOOLS_BENCH_TABLE_H_

#include "tools/bench_compare.h"
#include "tools/bench_interval.h"

/* One row on one engine over all rounds: medians, but for the longest operation and the memory,
 * which are the worst of all rounds. */
struct bench_entry {
    const struct bench_suite_group *group;
    const char *label;
    const struct bench_engine *engine;
    size_t runs;
    double speed, spread; /* operations a second; (largest - smallest) / median */
    bool timed;
    double p50_ns, p99_ns, p999_ns, longest_ns;
    double amp; /* bytes written per user byte; < 0 = unknown */
    double disk_bytes, peak_rss;
    double cpu_micros;    /* for one operation */
    double background_ns; /* of that, by threads of the engine, per user byte; < 0 = wrote none */
    double
        settle_seconds; /* after the last operation, until the work left over was done; < 0 = none */
    double space;      /* disk_bytes per byte of live data; < 0 = the row does not read all of it */
    double background; /* operations a second of the writers beside; < 0 = none */
    double hit_ratio, lru_ratio, cached_share; /* as in struct bench_row */
    /* Of the round in which it fell lowest: the slowest second as a share of the middle one; < 0 =
     * too short to say. */
    double worst_second;
    double units;    /* of bench_calibrate.h for one operation; 0 = not calibrated */
    double baseline; /* the same in an earlier run; 0 = none */
    /* How many times faster the first engine is; for the first itself: than the best peer. */
    struct bench_ratio ratio;
    const struct bench_engine *than; /* NULL: nothing to compare with */
    const char *note; /* of the last run, what its benchmark has to say; lent from the samples */
    double bar, background_bar; /* what ratio should be, and that of `background`; 0 = no bar */
};

struct bench_table {
    struct bench_entry *entries;
    size_t count;
};

/* Entries in the order of the suite, engines in the order of `stores`; engines without samples have
 * none. Returns: 0, or -1 without memory. */
int bench_table_init(struct bench_table *t, const struct bench_suite *suite,
                     const struct bench_samples *samples, struct bench_store *const *stores,
                     size_t n);
void bench_table_destroy(struct bench_table *t);

void bench_table_print(const struct bench_table *t, const struct bench_flags *base,
                       const struct bench_samples *samples, FILE *out);
/* 0, or -1 after a line on stderr. The JSON has every single run as well. */
int bench_table_write_csv(const struct bench_table *t, const char *path);
int bench_table_write_json(const struct bench_table *t, const struct bench_suite *suite,
                           const struct bench_samples *samples, const struct bench_flags *base,
                           struct bench_store *const *stores, size_t n, const char *path);

#endif
