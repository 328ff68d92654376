/* bench_flags.h - The command line of loam-bench: struct, defaults, parser, help from one table.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Flags are spelt as LevelDB's and RocksDB's db_bench spell them, in every form gflags takes:
 * --f=v, --f v, -f, --nof. Sizes and counts may end in K, M or G (powers of 1024 and of 1000).
 */
#ifndef LOAM_TOOLS_BENCH_FLAGS_H_
#define LOAM_TOOLS_BENCH_FLAGS_H_

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define BENCH_DEFAULT_BENCHMARKS                                                                   \
    "fillseq,fillrandom,overwrite,readrandom,readmissing,readhot,readseq,readreverse,seekrandom,"  \
    "readwhilewriting"

/* X(type, name, default, help). G starts a group of the help text.
 * Types: BOOL, COUNT (K = 1000), SIZE (K = 1024), REAL, TEXT. */
#define BENCH_FLAGS_MAP(G, X)                                                                      \
    G("What to run")                                                                               \
    X(TEXT, benchmarks, BENCH_DEFAULT_BENCHMARKS,                                                  \
      "comma list; name[X5-W1] runs 5 times after 1 "                                              \
      "warm-up")                                                                                   \
    X(COUNT, num, 1000000, "keys in the database, and operations of each thread")                  \
    X(COUNT, reads, -1, "reads of each thread (-1: num)")                                          \
    X(COUNT, writes, -1, "writes of each thread (-1: num)")                                        \
    X(COUNT, deletes, -1, "deletes of each thread (-1: num)")                                      \
    X(COUNT, threads, 1, "threads; each does num (or reads) operations")                           \
    X(REAL, duration, 0, "seconds a random benchmark runs, instead of its count (0: by count)")    \
    X(COUNT, ops_between_duration_checks, 1000, "operations between looks at the clock")           \
    X(COUNT, seed, 0, "of all random choices (0: 301, so runs repeat)")                            \
    X(COUNT, batch_size, 1, "operations of one write or multiread batch")                          \
    X(COUNT, seek_nexts, 0, "entries read after each seek")                                        \
    X(BOOL, reverse_iterator, false, "seekrandom walks backwards")                                 \
    X(COUNT, readwritepercent, 90, "share of reads in readrandomwriterandom")                      \
    X(SIZE, benchmark_write_rate_limit, 0, "bytes per second of all writers together (0: none)")   \
    X(COUNT, benchmark_read_rate_limit, 0, "reads per second of all readers together (0: none)")   \
    X(COUNT, target, 0,                                                                            \
      "operations per second of all threads together; latency then counts from "                   \
      "the intended start")                                                                        \
    X(BOOL, finish_after_writes, false, "readwhilewriting: the writer does `writes` and ends all") \
    X(COUNT, writers, 1, "writers beside the readers of readwhilewriting")                         \
    G("Comparing (several engines, several rounds, or a suite)")                                   \
    X(TEXT, suite, "", "a set of benchmarks with their sizes, listed above")                       \
    X(TEXT, engine, "loam", "comma list of loam, leveldb, rocksdb, lmdb; a suite names its own")   \
    X(COUNT, rounds, 1, "times over, engines taking turns; a suite names its own")                 \
    X(REAL, time_limit, 0, "minutes; no round is begun that would end later (0: none)")            \
    X(TEXT, baseline, "", "guard: the JSON of an earlier run to compare with")                     \
    X(REAL, scale, 1, "the sizes of a suite times this")                                           \
    G("Keys and values")                                                                           \
    X(COUNT, key_size, 16, "bytes of a key")                                                       \
    X(COUNT, key_prefix, 0, "bytes put before a key (leveldb format)")                             \
    X(TEXT, key_format, "leveldb",                                                                 \
      "leveldb: zero-padded decimal; rocksdb: 8 bytes big-endian, "                                \
      "padded")                                                                                    \
    X(COUNT, value_size, 100, "bytes of a value")                                                  \
    X(TEXT, value_size_distribution_type, "fixed", "fixed, or uniform between the next two")       \
    X(COUNT, value_size_min, 100, "smallest value of uniform")                                     \
    X(COUNT, value_size_max, 102400, "largest value of uniform")                                   \
    X(REAL, compression_ratio, 0.5, "values compress to this share of their size")                 \
    X(REAL, zipf_theta, 0.99, "skew of ycsba to ycsbf")                                            \
    G("Database")                                                                                  \
    X(TEXT, db, "", "directory (default: loam-bench under $TMPDIR or /tmp)")                       \
    X(BOOL, use_existing_db, false,                                                                \
      "keep the database, which must be there; benchmarks that need a fresh one are "              \
      "skipped")                                                                                   \
    X(BOOL, readonly, false, "open read-only")                                                     \
    X(SIZE, memory_budget, 0, "bytes for everything (default: two write buffers plus the cache)")  \
    X(SIZE, write_buffer_size, 64 << 20, "bytes of a memtable; loam itself splits its budget")     \
    X(SIZE, cache_size, 256 << 20, "bytes of block cache")                                         \
    X(SIZE, block_size, 4096, "bytes of a block before compression")                               \
    X(COUNT, bloom_bits, -1, "filter bits per key (-1: 10, 0: no filters)")                        \
    X(COUNT, open_files, 0, "most files kept open (0: the engine's default)")                      \
    X(BOOL, mmap_read, false,                                                                      \
      "read tables through a mapping (loam, RocksDB; LevelDB and LMDB always do)")                 \
    X(SIZE, disk_budget, 0, "bytes of all files (0: what the disk has; loam only)")                \
    X(SIZE, disk_reserve, 0, "bytes kept free for deletes (0: the engine's default; loam only)")    \
    X(TEXT, compression_type, "lz4", "none or lz4 (peers: their fast codec)")                      \
    X(BOOL, compression, true, "LevelDB's spelling: --compression=0 is --compression_type=none")   \
    X(BOOL, sync, false, "every write survives loss of power")                                     \
    X(BOOL, disable_wal, false, "no log: writes survive nothing until flushed (loam only)")        \
    X(COUNT, max_background_jobs, 0, "background threads (0: the engine's default)")               \
    G("Reports")                                                                                   \
    X(BOOL, histogram, false, "print a latency histogram after each benchmark")                    \
    X(TEXT, json, "",                                                                              \
      "write all rows, with percentiles, to this file (a suite: "                                  \
      "loam-bench-SUITE.json here)")                                                               \
    X(TEXT, csv, "", "the same as CSV, with as good a name")                                       \
    X(BOOL, wait_idle, false,                                                                      \
      "after a benchmark that writes, a row name.settle times the "                                \
      "background work left")                                                                      \
    X(COUNT, stats_interval, 0, "every this many operations of a thread print its speed")          \
    X(COUNT, stats_interval_seconds, 0, "the same by time")                                        \
    X(COUNT, report_interval_seconds, 0, "write operations per second to report_file this often")  \
    X(TEXT, report_file, "report.csv", "CSV of secs_elapsed,interval_qps")                         \
    X(TEXT, seconds_csv, "", "operations and longest operation of each second to this CSV file")   \
    X(TEXT, progress, "", "none, line, bar or json, on stderr (default: bar on a terminal)")       \
    X(BOOL, progress_reports, true, "--noprogress_reports is --progress=none")                     \
    X(BOOL, confidence_interval_only, false, "print only the 95 % interval of repeated runs")      \
    X(BOOL, ycsb_report, false, "after ycsba to ycsbf, YCSB's own lines: [OVERALL], [READ], ...")  \
    G("This program")                                                                              \
    X(TEXT, compat, "rocksdb",                                                                     \
      "rocksdb: flags of RocksDB without a meaning here are ignored "                              \
      "with a warning")                                                                            \
    X(BOOL, strict, false, "such flags are errors")                                                \
    X(BOOL, version, false, "print the version")                                                   \
    X(BOOL, help, false, "this text")

#define BENCH_FLAG_TYPE_BOOL  bool
#define BENCH_FLAG_TYPE_COUNT int64_t
#define BENCH_FLAG_TYPE_SIZE  int64_t
#define BENCH_FLAG_TYPE_REAL  double
#define BENCH_FLAG_TYPE_TEXT  const char *

struct bench_flags {
#define BENCH_FLAG_NO_GROUP_(title)
#define BENCH_FLAG_FIELD_(type, name, def, help) BENCH_FLAG_TYPE_##type name;
    BENCH_FLAGS_MAP(BENCH_FLAG_NO_GROUP_, BENCH_FLAG_FIELD_)
#undef BENCH_FLAG_FIELD_
    bool write_buffer_given, cache_given; /* on the command line */
};

/* Fills f from the command line. Texts are lent from argv.
 * Returns: 0, or the exit status 2 after one line on stderr. */
int bench_flags_parse(struct bench_flags *f, int argc, char **argv);
void bench_flags_help(FILE *out);

/* All flags RocksDB's db_bench knows and this program gives no meaning to; NULL at the end. The
 * first list takes values, the second are booleans. */
extern const char *const bench_flags_ignored_valued[];
extern const char *const bench_flags_ignored_bool[];

#endif
