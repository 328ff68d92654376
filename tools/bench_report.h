/* bench_report.h - The lines a benchmark prints, kept as rows for what is written at the end.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_REPORT_H_
#define LOAM_TOOLS_BENCH_REPORT_H_

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tools/bench_engine.h"
#include "tools/bench_flags.h"
#include "tools/bench_seconds.h"
#include "tools/bench_stats.h"
#include "tools/bench_usage.h"

/* Nanoseconds. */
struct bench_latency {
    uint64_t count;
    double mean, p50, p90, p99, p999, p9999, max;
};

/* One finished benchmark on one engine. */
struct bench_row {
    char name[64];
    const char *engine;
    uint64_t threads;
    uint64_t ops;
    double thread_seconds; /* of all threads together */
    double seconds;        /* on the wall */
    uint64_t bytes;        /* of keys and values */
    uint64_t put_bytes;    /* of those, written */
    uint64_t tried, found;
    double hit_ratio, lru_ratio, cached_share; /* as in the stats; all 0: not of the cache */
    double background_ops;     /* per second, of the extra thread; < 0 = there was none */
    double write_amp;          /* bytes written per byte of user; < 0 = unknown */
    uint64_t peak_rss;         /* bytes */
    struct bench_usage before; /* when it began */
    double cpu_seconds;        /* of the process, since then */
    double own_cpu_seconds;    /* of that, by the threads that called the engine */
    double settle_seconds;     /* from the end until its work was done; < 0 = it left none */
    uint64_t live_bytes;       /* all data there is, which was read; 0 = unknown */
    double kernel_amp;         /* bytes of files made dirty per byte of user; < 0 = unknown */
    uint64_t disk_bytes;       /* of the database; 0 = not looked at */
    double calibration_ns;     /* of a unit of bench_calibrate.h, around the time; 0 = not taken */
    struct bench_seconds_summary seconds_seen; /* count 0: nobody looked */
    bool timed;                                /* the latencies are known */
    struct bench_latency all, by_op[OP_COUNT];
    char message[160];
    char note[96]; /* the part of the message that is more than counts */
};

struct bench_report {
    const struct bench_flags *flags;
    bool show_engine; /* more than one engine: lines begin with its name */
    struct bench_row *rows;
    size_t count, cap;
};

/* Machine and versions to stderr, sizes and warnings to stdout, as db_bench does. */
void bench_report_header(const struct bench_flags *f, size_t key_bytes);

void bench_report_init(struct bench_report *r, const struct bench_flags *f, bool show_engine);
void bench_report_destroy(struct bench_report *r);

/* Fills numbers and latencies of a row from merged stats. */
void bench_row_from_stats(struct bench_row *row, const struct bench_stats *s);
/* What the process used since row->before, as cpu_seconds and kernel_amp; may be called again
 * later, to count in more. */
void bench_row_add_usage(struct bench_row *row);
double bench_row_cpu_micros(const struct bench_row *row); /* of processor time for one operation */
/* Processor time (ns) of the engine's own threads for one byte of user written; < 0: unknown. */
double bench_row_background_ns(const struct bench_row *row);
double bench_row_units(
    const struct bench_row *row); /* of processor time, see bench_calibrate.h; 0: unknown */
double bench_row_micros(const struct bench_row *row); /* of thread time for one operation */
double bench_row_speed(const struct bench_row *row);  /* operations a second on the wall */
double bench_row_mbytes(const struct bench_row *row); /* MiB a second on the wall */

/* Prints a row, its histograms if asked for, and keeps it. s may be NULL. */
void bench_report_row(struct bench_report *r, const struct bench_row *row,
                      const struct bench_stats *s);
/* `name : skipped (why)` */
void bench_report_skip(struct bench_report *r, const char *engine, const char *name,
                       const char *why);
/* AVG and MEDIAN of the last `runs` rows of one engine and name. */
void bench_report_repeats(struct bench_report *r, const char *engine, const char *name,
                          size_t runs);
/* YCSB's lines for a row. */
void bench_report_ycsb(const struct bench_row *row);
/* A row, and the flags of a run, as objects of JSON. */
json_t *bench_row_json(const struct bench_row *row);
json_t *bench_flags_json(const struct bench_flags *f);
void bench_utc_date(char *out, size_t cap);

/* All rows to a file; 0, or -1 after a line on stderr. */
int bench_report_write_json(const struct bench_report *r, const char *path);
int bench_report_write_csv(const struct bench_report *r, const char *path);

#endif
