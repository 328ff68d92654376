/* bench_seconds.c - Operations of each second of a running benchmark, and its longest operation.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_seconds.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_interval.h"
#include "tools/bench_run.h"

#define SECOND_NS UINT64_C(1000000000)

static void add_second(struct bench_seconds *s, uint64_t now)
{
    if (s->count == s->cap) {
        size_t cap = s->cap == 0 ? 64 : 2 * s->cap;
        struct bench_second *all = realloc(s->all, cap * sizeof(*all));
        if (all == NULL) {
            return; /* one second less is known */
        }
        s->all = all;
        s->cap = cap;
    }
    uint64_t ops = bench_job_live_ops(s->job);
    s->all[s->count++] = (struct bench_second){(double)(ops - s->last_ops) * (double)SECOND_NS /
                                                   (double)(now - s->last_ns),
                                               bench_job_take_longest(s->job)};
    s->last_ops = ops;
    s->last_ns = now;
}

static void *watch(void *arg)
{
    struct bench_seconds *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        /* By the clock, not by the last wake-up: delays must not add up. */
        uint64_t next = s->start_ns + ((s->last_ns - s->start_ns) / SECOND_NS + 1) * SECOND_NS;
        const struct timespec until = {(time_t)(next / SECOND_NS), (long)(next % SECOND_NS)};
        pthread_cond_timedwait(&s->wake, &s->lock, &until);
        uint64_t now = bench_now_ns();
        if (!s->stop && now >= next) {
            add_second(s, now);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void bench_seconds_start(struct bench_seconds *s, const struct bench_job *job, bool wanted)
{
    memset(s, 0, sizeof(*s));
    s->job = job;
    if (!wanted) {
        return;
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    s->start_ns = s->last_ns = bench_now_ns();
    s->running = pthread_create(&s->thread, NULL, watch, s) == 0;
}

void bench_seconds_stop(struct bench_seconds *s)
{
    if (!s->running) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->wake);
    s->running = false;
}

void bench_seconds_free(struct bench_seconds *s)
{
    free(s->all);
    s->all = NULL;
    s->count = s->cap = 0;
}

struct bench_seconds_summary bench_seconds_sum_up(const struct bench_second *all, size_t n)
{
    struct bench_seconds_summary sum = {n, 0, 0};
    double *ops = n > 0 ? calloc(n, sizeof(*ops)) : NULL;
    if (ops == NULL) {
        sum.count = 0;
        return sum;
    }
    for (size_t i = 0; i < n; i++) {
        ops[i] = all[i].ops;
    }
    sum.median = bench_median(ops, n);
    sum.worst = ops[0]; /* sorted by now */
    free(ops);
    return sum;
}

/* ---- the file -------------------------------------------------------------------------------- */

int bench_seconds_create(const char *path)
{
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        return -1;
    }
    fputs("engine,benchmark,run,second,ops_per_sec,longest_us\n", out);
    return fclose(out);
}

int bench_seconds_append(const struct bench_seconds *s, const char *path, const char *engine,
                         const char *name, uint64_t run)
{
    FILE *out = fopen(path, "a");
    if (out == NULL) {
        return -1;
    }
    for (size_t i = 0; i < s->count; i++) {
        fprintf(out, "%s,%s,%" PRIu64 ",%zu,%.0f,%.1f\n", engine, name, run, i + 1, s->all[i].ops,
                (double)s->all[i].longest_ns * 1e-3);
    }
    return fclose(out);
}
