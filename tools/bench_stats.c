/* bench_stats.c - What one thread counts while it runs a benchmark.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_stats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONG_OP_NS = 20000000, LOOK_OPS = 1000 };

const char *const bench_op_names[OP_COUNT] = {
    [OP_READ] = "read",         [OP_WRITE] = "write",           [OP_DELETE] = "delete",
    [OP_SEEK] = "seek",         [OP_UPDATE] = "update",         [OP_INSERT] = "insert",
    [OP_SCAN] = "scan",         [OP_MODIFY] = "modify",         [OP_HASH] = "hash",
    [OP_COMPRESS] = "compress", [OP_UNCOMPRESS] = "uncompress", [OP_OTHER] = "op",
};

void bench_stats_init(struct bench_stats *s, unsigned thread, bool timed)
{
    memset(s, 0, sizeof(*s));
    s->thread = thread;
    s->timed = timed;
    s->next_look = UINT64_MAX;
    s->start_ns = UINT64_MAX;
}

void bench_stats_destroy(struct bench_stats *s)
{
    for (int op = 0; op < OP_COUNT; op++) {
        free(s->hist[op]);
        s->hist[op] = NULL;
    }
}

static double thread_cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void plan_look(struct bench_stats *s)
{
    if (s->interval_ops != 0) {
        s->next_look = s->last_report_ops + s->interval_ops;
    } else if (s->interval_ns != 0) {
        s->next_look = s->done + LOOK_OPS;
    }
}

void bench_stats_start(struct bench_stats *s, uint64_t interval_ops, uint64_t interval_seconds)
{
    s->interval_ops = interval_ops;
    s->interval_ns = interval_seconds * 1000000000u;
    s->finish_ns = 0;
    s->start_cpu_seconds = thread_cpu_seconds();
    s->start_ns = s->last_ns = s->last_report_ns = bench_now_ns();
    plan_look(s);
}

void bench_stats_restart(struct bench_stats *s)
{
    bench_stats_start(s, s->interval_ops, s->interval_ns / 1000000000u);
}

void bench_stats_leave_out(struct bench_stats *s, uint64_t since_ns)
{
    s->last_ns = bench_now_ns();
    s->start_ns += s->last_ns - since_ns;
}

void bench_stats_stop(struct bench_stats *s)
{
    if (s->finish_ns != 0) {
        return;
    }
    s->finish_ns = bench_now_ns();
    s->cpu_seconds = thread_cpu_seconds() - s->start_cpu_seconds;
    s->seconds = (double)(s->finish_ns - s->start_ns) * 1e-9;
}

static struct histogram *histogram_of(struct bench_stats *s, int op)
{
    if (s->hist[op] == NULL) {
        s->hist[op] = malloc(sizeof(*s->hist[op]));
        if (s->hist[op] == NULL) {
            fprintf(stderr, "loam-bench: out of memory\n");
            _Exit(1);
        }
        histogram_reset(s->hist[op]);
    }
    return s->hist[op];
}

void bench_stats_merge(struct bench_stats *into, const struct bench_stats *from)
{
    into->done += from->done;
    into->bytes += from->bytes;
    into->seen += from->seen;
    into->put_bytes += from->put_bytes;
    into->tried += from->tried;
    into->found += from->found;
    into->hit_ratio = from->hit_ratio; /* those run on one thread */
    into->lru_ratio = from->lru_ratio;
    into->cached_share = from->cached_share;
    into->open_rss = from->open_rss; /* likewise */
    into->open_threads = from->open_threads;
    into->idle_threads = from->idle_threads;
    into->seconds += from->seconds;
    into->cpu_seconds += from->cpu_seconds;
    into->start_ns = from->start_ns < into->start_ns ? from->start_ns : into->start_ns;
    into->finish_ns = from->finish_ns > into->finish_ns ? from->finish_ns : into->finish_ns;
    for (int op = 0; op < OP_COUNT; op++) {
        into->count[op] += from->count[op];
        if (from->hist[op] != NULL) {
            histogram_merge(histogram_of(into, op), from->hist[op]);
        }
    }
}

void bench_stats_time(struct bench_stats *s, enum bench_op op)
{
    uint64_t now = bench_now_ns(), took = now - s->last_ns;
    histogram_add(histogram_of(s, (int)op), took);
    /* relaxed: a number for the eye, and few operations are the longest yet */
    if (took > atomic_load_explicit(&s->live_longest, memory_order_relaxed)) {
        atomic_store_explicit(&s->live_longest, took, memory_order_relaxed);
    }
    if (s->warn && took > LONG_OP_NS) {
        fprintf(stderr, "long op: %.1f micros%30s\r", (double)took * 1e-3, "");
    }
    s->last_ns = now;
}

void bench_stats_look(struct bench_stats *s)
{
    uint64_t now = bench_now_ns();
    if (s->interval_ns == 0 || now - s->last_report_ns >= s->interval_ns) {
        double span = (double)(now - s->last_report_ns) * 1e-9;
        double total = (double)(now - s->start_ns) * 1e-9;
        uint64_t ops = s->done - s->last_report_ops;
        fprintf(stderr,
                "... thread %u: (%" PRIu64 ",%" PRIu64 ") ops and (%.1f,%.1f) ops/second in "
                "(%.6f,%.6f) seconds\n",
                s->thread, ops, s->done, (double)ops / span, (double)s->done / total, span, total);
        s->last_report_ops = s->done;
        s->last_report_ns = now;
    }
    plan_look(s);
}
