/* bench_workloads.c - The table of benchmark names.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_workloads.h"

#include <string.h>

static bool has_flush(const struct bench_engine *e)
{
    return e->flush != NULL;
}

static bool has_compact(const struct bench_engine *e)
{
    return e->compact != NULL;
}

static bool has_checksums(const struct bench_engine *e)
{
    return e->has_checksums;
}

static bool counts_hits(const struct bench_engine *e)
{
    return e->cache_counters != NULL;
}

static bool is_loam(const struct bench_engine *e)
{
    return e == &bench_engine_loam;
}

/* clang-format off */
#define FILL .role = ROLE_WRITE, .fresh = true
#define WRITE .role = ROLE_WRITE
#define READ .role = ROLE_READ, .timed_stop = true
#define MIXED .role = ROLE_MIXED, .timed_stop = true
#define HOUSE .role = ROLE_MIXED, .alone = true, .no_session = true
#define CACHE .role = ROLE_READ, .alone = true, .no_session = true, .offered = counts_hits, \
    .message = bench_cache_message
#define MICRO .role = ROLE_MIXED, .no_session = true

static const struct bench_workload workloads[] = {
    {"fillseq", .run = bench_fill_sequential, FILL},
    {"fillbatch", .run = bench_fill_sequential, FILL, .batch = 1000},
    {"fillrandom", .run = bench_fill_random, FILL, .timed_stop = true},
    {"filluniquerandom", .run = bench_fill_unique, FILL},
    {"ycsbload", .run = bench_fill_unique, FILL},
    {"fillsync", .run = bench_fill_random, FILL, .timed_stop = true, .divide = 1000, .sync = true},
    {"fill100K", .run = bench_fill_random, FILL, .timed_stop = true, .divide = 1000,
     .value_size = 100 * 1000},
    {"overwrite", .run = bench_fill_random, WRITE, .timed_stop = true},
    {"deleteseq", .run = bench_delete_sequential, WRITE},
    {"deleterandom", .run = bench_delete_random, WRITE, .timed_stop = true},
    {"crashwrite_", .run = bench_crash_write, FILL, .alone = true},

    {"readrandom", .run = bench_read_random, READ},
    {"readmissing", .run = bench_read_missing, READ},
    {"readhot", .run = bench_read_hot, READ},
    {"readrandomsmall", .run = bench_read_random, READ, .divide = 1000},
    {"multireadrandom", .run = bench_read_many, READ},
    {"readseq", .run = bench_read_forward, .role = ROLE_READ, .reads_all = true},
    {"readreverse", .run = bench_read_reverse, .role = ROLE_READ, .reads_all = true},
    {"seekrandom", .run = bench_seek_random, READ},
    {"seekordered", .run = bench_seek_ordered, READ},
    {"seekdeleted", .run = bench_seek_deleted, READ},
    {"newiterator", .run = bench_iter_new, READ},

    {"readwhilewriting", .run = bench_read_while_writing, READ, .extra = EXTRA_WRITER},
    {"readwhilescanning", .run = bench_read_while_scanning, READ, .extra = EXTRA_SCANNER},
    {"seekrandomwhilewriting", .run = bench_seek_while_writing, READ, .extra = EXTRA_WRITER},
    {"readrandomwriterandom", .run = bench_read_write, MIXED, .message = bench_read_write_message},
    {"updaterandom", .run = bench_update, MIXED, .message = bench_update_message},

    {"ycsba", .run = bench_ycsb_a, MIXED},
    {"ycsbb", .run = bench_ycsb_b, MIXED},
    {"ycsbc", .run = bench_ycsb_c, MIXED},
    {"ycsbd", .run = bench_ycsb_d, MIXED},
    {"ycsbe", .run = bench_ycsb_e, MIXED},
    {"ycsbf", .run = bench_ycsb_f, MIXED},

    {"cachezipf", .run = bench_cache_zipf, CACHE},
    {"cacheuniform", .run = bench_cache_uniform, CACHE},
    {"cachescan", .run = bench_cache_scan, CACHE},
    {"cacheshift", .run = bench_cache_shift, CACHE},

    {"open", .run = bench_open_close, HOUSE, .divide = 10000},
    {"opennew", .run = bench_open_new, HOUSE, .divide = 10000, .message = bench_open_message,
     .noted = true},
    {"flush", .run = bench_flush, HOUSE, .offered = has_flush},
    {"compact", .run = bench_compact, HOUSE, .offered = has_compact},
    {"compactall", .run = bench_compact, HOUSE, .offered = has_compact},
    {"waitforcompaction", .run = bench_wait_idle, HOUSE},
    {"verifychecksum", .run = bench_verify, HOUSE, .offered = has_checksums},
    {"recover", .admin = bench_recover},
    {"memtable", .admin = bench_memtable, .offered = is_loam},
    {"stats", .admin = bench_print_stats},
    {"levelstats", .admin = bench_print_levels},
    {"sstables", .admin = bench_print_levels},
    {"memstats", .admin = bench_print_memory},
    /* Engines count since open, and opening again would empty their caches. */
    {"resetstats", .alone = true},

    {"xxh3", .run = bench_micro_xxh3, MICRO},
    {"pauses", .run = bench_micro_pauses, MICRO, .timed_stop = true},
    {"lz4comp", .run = bench_micro_lz4_pack, MICRO, .message = bench_micro_lz4_message},
    {"lz4uncomp", .run = bench_micro_lz4_unpack, MICRO, .message = bench_micro_lz4_message},

    /* Without a body: other stores' parts, which scripts for LevelDB name. */
    {"snappycomp", .alone = true},
    {"snappyuncomp", .alone = true},
    {"zstdcomp", .alone = true},
    {"zstduncomp", .alone = true},
    {"crc32c", .alone = true},
};
/* clang-format on */

const struct bench_workload *bench_workload_find(const char *name)
{
    for (size_t i = 0; i < sizeof(workloads) / sizeof(workloads[0]); i++) {
        if (strcmp(workloads[i].name, name) == 0) {
            return &workloads[i];
        }
    }
    return NULL;
}
