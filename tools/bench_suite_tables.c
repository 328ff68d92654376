/* bench_suite_tables.c - What the suites run: their groups, rows and sizes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_suite.h"

#define MIB       INT64_C(1048576)
#define ALL       "loam,leveldb,rocksdb,lmdb"
#define ROWS(r)   .rows = r, .count = sizeof(r) / sizeof(r[0])
#define GROUPS(g) .groups = g, .count = sizeof(g) / sizeof(g[0])

/* clang-format off */

/* ---- quick: everything once, small enough to be rerun while working -------------------------- */

static const struct bench_suite_row quick_rows[] = {
    {"fillseq", .percent = 100},
    {"fillrandom", .percent = 100},
    {"overwrite", .percent = 100},
    {"readrandom", .percent = 50},
    {"readmissing", .percent = 50},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 4},
    {"readwhilewriting", .seconds = 1.5},
    {"ycsba", .percent = 20},
};
/* Memtables and cache are as small beside the data as in a database of gigabytes. */
static const struct bench_suite_group quick_groups[] = {
    {"Q", .num = 500000, .write_buffer_size = 16 * MIB, .cache_size = 32 * MIB, ROWS(quick_rows)},
};

/* ---- peers: more data than cache, all cached, larger values ---------------------------------- */

static const struct bench_suite_row more_rows[] = {
    {"fillseq", .percent = 100},
    {"fillrandom", "fillrandom b100", .percent = 100, .batch = 100},
    {"fillrandom", "fillrandom t2", .threads = 2, .percent = 100},
    {"fillrandom", .percent = 100},
    {"overwrite", .percent = 100},
    {"readrandom", .percent = 20},
    {"readrandom", "readrandom t2", .threads = 2, .percent = 30},
    {"readmissing", .percent = 20},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 2},
    {"readwhilewriting", .seconds = 6},
    {"ycsba", .percent = 10},
    {"ycsbb", .percent = 10},
    {"ycsbc", .percent = 10},
    {"ycsbd", .percent = 10},
    {"ycsbe", .percent = 1},
    {"ycsbf", .percent = 10},
};
static const struct bench_suite_row small_rows[] = {
    {"fillsync", .ops = 3000},
    {"fillsync", "fillsync t4", .threads = 4, .ops = 8000},
    {"filluniquerandom", .percent = 100},
    {"readrandom", .percent = 100, .warm_ups = 1},
    {"readhot", .percent = 100},
    {"readmissing", .percent = 100},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 10},
};
static const struct bench_suite_row kib_rows[] = {
    {"fillrandom", .percent = 100},
    {"readrandom", .percent = 30},
    {"seekrandom", .percent = 3},
};
static const struct bench_suite_group peers_groups[] = {
    {"M", .num = 5000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(more_rows)},
    {"S", .num = 1000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(small_rows)},
    {"1K", .num = 1000000, .value_size = 1024, .write_buffer_size = 64 * MIB,
     .cache_size = 256 * MIB, ROWS(kib_rows)},
};

/* ---- stability: ten minutes of overwrite, readers beside two writers ------------------------- */

static const struct bench_suite_row stability_rows[] = {
    {"fillrandom", .percent = 100},
    {"overwrite", .seconds = 600},
    {"readwhilewriting", "read beside 2 writers", .seconds = 60, .writers = 2},
};
static const struct bench_suite_group stability_groups[] = {
    {"M", .num = 5000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB,
     ROWS(stability_rows)},
};

/* ---- guard: loam alone, in units of a calibrated loop ---------------------------------------- */

static const struct bench_suite_row guard_rows[] = {
    {"fillseq", .percent = 100, .untimed = true},
    {"fillbatch", .percent = 100, .batch = 100, .untimed = true},
    {"fillrandom", .percent = 100, .untimed = true},
    {"overwrite", .percent = 100, .untimed = true},
    {"readrandom", .percent = 100, .warm_ups = 1, .untimed = true},
    {"readhot", .percent = 100, .untimed = true},
    {"readmissing", .percent = 100, .untimed = true},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 10, .untimed = true},
    {"ycsba", .percent = 50, .untimed = true},
    {"ycsbe", .percent = 5, .untimed = true},
    {"deleterandom", .percent = 50, .untimed = true},
};
static const struct bench_suite_group guard_groups[] = {
    {"G", .num = 400000, .write_buffer_size = 16 * MIB, .cache_size = 128 * MIB, ROWS(guard_rows)},
};

/* ---- cache: shares of hits ------------------------------------------------------------------- */

static const struct bench_suite_row cache_rows[] = {
    {"filluniquerandom", .percent = 100, .untimed = true},
    {"compact", .untimed = true},
    {"cachezipf", .percent = 400, .untimed = true},
    {"cacheuniform", .percent = 400, .untimed = true},
    {"cachescan", .percent = 400, .untimed = true},
    {"cacheshift", .percent = 400, .untimed = true},
};
/* Values large enough for the indexes and filters of all tables to fit their share of so small a
 * budget: a table that is closed to make room loses its cached blocks. */
static const struct bench_suite_group cache_groups[] = {
    {"15 %", .num = 200000, .value_size = 400, .write_buffer_size = 4 * MIB,
     .cache_size = 17 * MIB, ROWS(cache_rows)},
    {"30 %", .num = 200000, .value_size = 400, .write_buffer_size = 8 * MIB,
     .cache_size = 36 * MIB, ROWS(cache_rows)},
};

/* ---- growth: the same rows on ten and on forty times as much -------------------------------- */

static const struct bench_suite_row growth_rows[] = {
    {"filluniquerandom", .percent = 100},
    {"overwrite", .percent = 100},
    {"readrandom", .ops = 400000},
    {"readmissing", .ops = 400000},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .ops = 40000},
    {"ycsba", .ops = 400000},
    {"open", .ops = 5},
};
#define GROWTH(n, keys) \
    {n, .num = keys, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(growth_rows)}
static const struct bench_suite_group growth_groups[] = {
    GROWTH("0.5 M", 500000),
    GROWTH("5 M", 5000000),
    GROWTH("20 M", 20000000),
};

/* ---- threads: the same work by more threads than there are processors ------------------------ */

/* Shares are those of all threads together. */
#define BY_THREADS(name, share) \
    {name, name " t1", .threads = 1, .percent = share}, \
    {name, name " t2", .threads = 2, .percent = share}, \
    {name, name " t4", .threads = 4, .percent = share}, \
    {name, name " t8", .threads = 8, .percent = share}
static const struct bench_suite_row threads_rows[] = {
    BY_THREADS("fillrandom", 100),
    BY_THREADS("overwrite", 100),
    BY_THREADS("readrandom", 50),
    BY_THREADS("seekrandom", 4),
    BY_THREADS("ycsba", 25),
};
static const struct bench_suite_group threads_groups[] = {
    {"T", .num = 2000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB,
     ROWS(threads_rows)},
};

/* ---- empty: what a database costs that holds nothing ----------------------------------------- */

static const struct bench_suite_row empty_rows[] = {
    {"opennew", .ops = 50},
    {"open", .ops = 50},
};
static const struct bench_suite_group empty_groups[] = {
    {"E", .num = 1000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(empty_rows)},
};

/* ---- all of them ------------------------------------------------------------------------------ */

const struct bench_suite bench_suites[] = {
    {"quick", "reads and writes of 500 k keys through small memtables, in three minutes", ALL,
     .rounds = 3, .minutes = 2.6, GROUPS(quick_groups)},
    {"peers", "M: 5 M keys, cache of half of them; S: 1 M keys, all cached; 1K: values of 1 KiB; "
     "in half an hour", ALL,
     .rounds = 5, .minutes = 28, GROUPS(peers_groups)},
    {"stability", "ten minutes of overwrite at full speed, then reads beside two writers; each "
     "second to a CSV", ALL,
     .rounds = 1, GROUPS(stability_groups),
     .seconds_csv = "loam-bench-stability-seconds.csv"},
    {"cache", "loam's share of cache hits beside an LRU cache of as many bytes", "loam",
     .rounds = 1, GROUPS(cache_groups)},
    {"guard", "loam in units of a calibrated loop, to hold against an earlier run: --baseline",
     "loam", .rounds = 5, GROUPS(guard_groups), .calibrate = true},
    {"growth", "the same rows on 0.5 M, 5 M and 20 M keys: what an operation costs by size",
     "loam,leveldb,lmdb", .rounds = 3, .minutes = 45, GROUPS(growth_groups), .across_groups = true},
    {"threads", "the same work by 1, 2, 4 and 8 threads", "loam,leveldb,lmdb",
     .rounds = 3, .minutes = 15, GROUPS(threads_groups)},
    {"empty", "a database that holds nothing: time to make and to open it, memory, threads", ALL,
     .rounds = 3, GROUPS(empty_groups)},
};
/* clang-format on */

const size_t bench_suites_count = sizeof(bench_suites) / sizeof(bench_suites[0]);
