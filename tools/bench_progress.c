/* bench_progress.c - Shows how far a running benchmark is, from a thread that only reads counters.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_run.h"

enum { TICK_MS = 200, BAR_WIDTH = 20 };

static enum progress_kind kind_of(const struct bench_flags *f)
{
    static const char *const names[] = {"none", "line", "bar", "json"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(f->progress, names[i]) == 0) {
            return (enum progress_kind)i;
        }
    }
    return f->progress_reports && isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_NONE;
}

/* Share done, 0 to 1; by time when the count is open. */
static double share_done(const struct bench_progress *p, uint64_t ops, uint64_t now)
{
    double share = 0;
    if (p->job->expected != 0) {
        share = (double)ops / (double)p->job->expected;
    } else if (p->job->duration_ns != 0) {
        share = (double)(now - p->start_ns) / (double)p->job->duration_ns;
    }
    return share > 1 ? 1 : share;
}

static void show(struct bench_progress *p, uint64_t ops, uint64_t now)
{
    double share = share_done(p, ops, now), elapsed = (double)(now - p->start_ns) * 1e-9;
    double speed = (double)(ops - p->last_ops) / ((double)(now - p->last_ns) * 1e-9 + 1e-9);
    unsigned left = share > 0 ? (unsigned)(elapsed / share - elapsed) : 0;
    if (p->kind == PROGRESS_BAR) {
        char bar[BAR_WIDTH + 1];
        for (int i = 0; i < BAR_WIDTH; i++) {
            bar[i] = i < (int)(share * BAR_WIDTH) ? '#' : '.';
        }
        bar[BAR_WIDTH] = '\0';
        fprintf(stderr, "\r%-16s [%s] %3.0f%%  %6.0fk ops/s  ETA %02u:%02u ", p->name, bar,
                share * 100, speed * 1e-3, left / 60, left % 60);
        p->last_ops = ops;
        p->last_ns = now;
    } else if (p->kind == PROGRESS_LINE && (unsigned)(share * 10) > p->tenths) {
        p->tenths = (unsigned)(share * 10);
        fprintf(stderr, "%s %3.0f%%  %.0fk ops/s  ETA %02u:%02u\n", p->name, share * 100,
                (double)ops / elapsed * 1e-3, left / 60, left % 60);
    } else if (p->kind == PROGRESS_JSON && now - p->last_ns >= 1000000000u) {
        fprintf(stderr,
                "{\"name\":\"%s\",\"seconds\":%.3f,\"ops\":%" PRIu64
                ",\"ops_per_sec\":%.0f,\"done\":%.4f}\n",
                p->name, elapsed, ops, speed, share);
        p->last_ops = ops;
        p->last_ns = now;
    }
    fflush(stderr);
}

/* RocksDB's report file: a line for each interval. */
static void report(struct bench_progress *p, uint64_t ops, uint64_t now)
{
    const struct bench_flags *f = p->job->context->flags;
    if (p->report_ns == 0 || now < p->next_report_ns) {
        return;
    }
    double interval = (double)(now - p->next_report_ns + p->report_ns) * 1e-9;
    FILE *out = fopen(f->report_file, "a");
    if (out != NULL) {
        fprintf(out, "%.0f,%.0f\n", (double)(now - p->start_ns) * 1e-9,
                (double)(ops - p->report_ops) / interval);
        fclose(out);
    }
    p->report_ops = ops;
    p->next_report_ns = now + p->report_ns;
}

static void *watch(void *arg)
{
    struct bench_progress *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stop) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += TICK_MS * 1000000L;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&p->wake, &p->lock, &until);
        if (!p->stop) {
            uint64_t ops = bench_job_live_ops(p->job), now = bench_now_ns();
            show(p, ops, now);
            report(p, ops, now);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

void bench_progress_start(struct bench_progress *p, const struct bench_job *job, const char *name)
{
    const struct bench_flags *f = job->context->flags;
    memset(p, 0, sizeof(*p));
    p->job = job;
    p->name = name;
    p->kind = kind_of(f);
    p->report_ns = (uint64_t)f->report_interval_seconds * 1000000000u;
    p->start_ns = p->last_ns = bench_now_ns();
    p->next_report_ns = p->start_ns + p->report_ns;
    if (p->kind == PROGRESS_NONE && p->report_ns == 0) {
        return;
    }
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->running = pthread_create(&p->thread, NULL, watch, p) == 0;
}

void bench_progress_stop(struct bench_progress *p)
{
    if (!p->running) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
    pthread_join(p->thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    if (p->kind == PROGRESS_BAR) {
        fprintf(stderr, "\r%79s\r", "");
    }
}
