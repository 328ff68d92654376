/* bench_stats.h - What one thread counts while it runs a benchmark.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Times are those of CLOCK_MONOTONIC in nanoseconds. Latency is the time from the end of the last
 * operation to the end of this one, as in db_bench: one look at the clock for each.
 */
#ifndef LOAM_TOOLS_BENCH_STATS_H_
#define LOAM_TOOLS_BENCH_STATS_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "engine/loam.h"
#include "tools/bench_histogram.h"

enum bench_op {
    OP_READ,
    OP_WRITE,
    OP_DELETE,
    OP_SEEK,
    OP_UPDATE,
    OP_INSERT,
    OP_SCAN,
    OP_MODIFY, /* read, change, write */
    OP_HASH,
    OP_COMPRESS,
    OP_UNCOMPRESS,
    OP_OTHER,
    OP_COUNT
};
extern const char *const bench_op_names[OP_COUNT];

struct bench_stats {
    /* Alone on its line: the progress display reads it while the thread runs. */
    _Alignas(64) _Atomic uint64_t live;
    _Atomic uint64_t live_longest; /* ns, since somebody took it last */
    _Alignas(64) uint64_t done;    /* operations */
    uint64_t next_look;            /* value of done at which bench_stats_look() is due */
    uint64_t last_ns;              /* end of the last operation */
    bool timed;                    /* keep histograms */
    bool warn;                     /* tell of operations beyond 20 ms */
    uint64_t bytes;                /* of keys and values moved */
    uint64_t put_bytes;            /* of keys and values written by the user */
    uint64_t seen;                 /* sum of bytes of the values read: what makes a row read them */
    uint64_t tried, found;         /* lookups */
    uint64_t count[OP_COUNT];      /* operations by kind */
    /* Of the benchmarks of the cache, 0 to 1: gets that hit, those an LRU cache would have had,
     * data that was cached. */
    double hit_ratio, lru_ratio, cached_share;
    /* Of the benchmark that opens empty databases: what the last one added to this process. */
    uint64_t open_rss;
    unsigned open_threads, idle_threads;
    uint64_t start_ns, finish_ns;
    double seconds;     /* of all threads merged here */
    double cpu_seconds; /* of their processor time */
    double start_cpu_seconds;
    struct histogram *hist[OP_COUNT]; /* NULL until the first operation of the kind; owned */

    unsigned thread; /* for the lines of --stats_interval */
    uint64_t interval_ops, interval_ns;
    uint64_t last_report_ops, last_report_ns;
};

static inline uint64_t bench_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void bench_stats_init(struct bench_stats *s, unsigned thread, bool timed);
void bench_stats_destroy(struct bench_stats *s);
/* What was done since then (bench_now_ns()) is no part of the benchmark. */
void bench_stats_leave_out(struct bench_stats *s, uint64_t since_ns);
/* interval_ops, interval_seconds: how often to print this thread's speed; 0 = never. */
void bench_stats_start(struct bench_stats *s, uint64_t interval_ops, uint64_t interval_seconds);
/* Again, when what came so far was preparation. */
void bench_stats_restart(struct bench_stats *s);
/* The first stop since the start counts: a body stops when it still has to look at what it has done. */
void bench_stats_stop(struct bench_stats *s);
/* Adds what a finished thread counted. The span is from the first start to the last finish. */
void bench_stats_merge(struct bench_stats *into, const struct bench_stats *from);

/* The parts of bench_stats_done() that are off the common path. */
void bench_stats_time(struct bench_stats *s, enum bench_op op);
void bench_stats_look(struct bench_stats *s);

/* An entry was found: who asks for a value reads it, and what is only pointed at - in a mapping - comes
 * near then. A byte of each cache line. */
static inline void bench_stats_entry(struct bench_stats *s, loam_slice key, loam_slice value)
{
    const uint8_t *p = value.data;
    for (size_t i = 0; i < value.size; i += 64) {
        s->seen += p[i];
    }
    s->bytes += key.size + value.size;
}

/* n operations of one kind have ended. */
static inline void bench_stats_done(struct bench_stats *s, enum bench_op op, uint64_t n)
{
    s->done += n;
    s->count[op] += n;
    /* relaxed: a number for the eye */
    atomic_store_explicit(&s->live, s->done, memory_order_relaxed);
    if (s->timed) {
        bench_stats_time(s, op);
    }
    if (s->done >= s->next_look) {
        bench_stats_look(s);
    }
}

#endif
