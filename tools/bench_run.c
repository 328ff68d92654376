/* bench_run.c - Runs one benchmark on one store: threads that start together, merged into one row.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_run.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_progress.h"
#include "tools/bench_seconds.h"
#include "tools/bench_usage.h"

_Noreturn void bench_die(const struct bench_store *s, const char *what)
{
    fflush(stdout);
    fprintf(stderr, "%s error: %s: %s\n", what, s->engine->name, bench_engine_error());
    /* Other threads are inside the engine: no handlers, no destructors. */
    _exit(1);
}

bool bench_thread_is_extra(const struct bench_thread *t)
{
    return t->index < t->job->extras;
}

uint64_t bench_job_live_ops(const struct bench_job *job)
{
    uint64_t sum = 0;
    for (unsigned i = job->extras; i < job->all_count; i++) {
        /* relaxed: a number for the eye */
        sum += atomic_load_explicit(&job->all[i].stats.live, memory_order_relaxed);
    }
    return sum;
}

uint64_t bench_job_take_longest(const struct bench_job *job)
{
    uint64_t longest = 0;
    for (unsigned i = job->extras; i < job->all_count; i++) {
        /* relaxed: likewise; one that is lost to a race with its thread is a short one */
        uint64_t ns =
            atomic_exchange_explicit(&job->all[i].stats.live_longest, 0, memory_order_relaxed);
        longest = ns > longest ? ns : longest;
    }
    return longest;
}

/* ---- the bodies' helpers --------------------------------------------------------------------- */

void bench_thread_limit(struct bench_thread *t, uint64_t turns)
{
    t->turn = 0;
    t->turns = turns;
    t->deadline_ns = t->job->duration_ns != 0 ? t->stats.start_ns + t->job->duration_ns : 0;
}

static void wait_for_turn(struct bench_thread *t)
{
    uint64_t now = bench_now_ns();
    t->next_ns = t->next_ns == 0 ? now : t->next_ns + t->pace_ns;
    if (t->next_ns > now) {
        const struct timespec until = {(time_t)(t->next_ns / 1000000000u),
                                       (long)(t->next_ns % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    /* With a target rate, an operation that begins late has been waiting since its time. */
    t->stats.last_ns = t->catch_up ? t->next_ns : bench_now_ns();
}

bool bench_thread_more_slow(struct bench_thread *t)
{
    const struct bench_job *job = t->job;
    if (atomic_load_explicit(&job->stop, memory_order_relaxed)) {
        return false;
    }
    bool extra = bench_thread_is_extra(t);
    if (extra && atomic_load_explicit(&job->active, memory_order_relaxed) == 0) {
        return false;
    }
    uint64_t turn = t->turn++;
    if (t->deadline_ns == 0 || extra) {
        if (turn >= t->turns) {
            return false;
        }
    } else if (turn % (uint64_t)job->context->flags->ops_between_duration_checks == 0 &&
               bench_now_ns() >= t->deadline_ns) {
        return false;
    }
    if (t->pace_ns != 0) {
        wait_for_turn(t);
    }
    return true;
}

void bench_put(struct bench_thread *t, loam_slice key, enum bench_op op)
{
    loam_slice value = bench_values_next(&t->values, &t->rng);
    bench_ok(t, t->engine->put(t->session, key, value), "put");
    t->stats.bytes += key.size + value.size;
    t->stats.put_bytes += key.size + value.size;
    bench_stats_done(&t->stats, op, 1);
}

bool bench_get(struct bench_thread *t, loam_slice key, enum bench_op op)
{
    loam_slice value;
    t->stats.tried++;
    bool found = bench_ok(t, t->engine->get(t->session, key, &value), "get");
    if (found) {
        t->stats.found++;
        bench_stats_entry(&t->stats, key, value);
    }
    bench_stats_done(&t->stats, op, 1);
    return found;
}

/* ---- one job --------------------------------------------------------------------------------- */

/* Threads wait here, so that none starts its clock before all are ready. */
struct start_line {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned ready;
    bool go;
};

struct runner {
    struct bench_thread *thread;
    struct start_line *line;
};

static void wait_for_start(struct start_line *line)
{
    pthread_mutex_lock(&line->lock);
    line->ready++;
    pthread_cond_broadcast(&line->changed);
    while (!line->go) {
        pthread_cond_wait(&line->changed, &line->lock);
    }
    pthread_mutex_unlock(&line->lock);
}

static void start_all(struct start_line *line, unsigned count)
{
    pthread_mutex_lock(&line->lock);
    while (line->ready < count) {
        pthread_cond_wait(&line->changed, &line->lock);
    }
    line->go = true;
    pthread_cond_broadcast(&line->changed);
    pthread_mutex_unlock(&line->lock);
}

static void *run_thread(void *arg)
{
    struct runner *r = arg;
    struct bench_thread *t = r->thread;
    const struct bench_flags *f = t->job->context->flags;
    const struct bench_workload *w = t->job->workload;
    if (!w->no_session) {
        bench_ok(t, t->engine->session_open(t->store->db, &t->session), "session");
        t->session->sync = w->sync;
    }
    wait_for_start(r->line);
    bench_stats_start(&t->stats, (uint64_t)f->stats_interval, (uint64_t)f->stats_interval_seconds);
    w->run(t);
    bench_stats_stop(&t->stats);
    if (!bench_thread_is_extra(t)) {
        atomic_fetch_sub_explicit(&t->job->active, 1, memory_order_relaxed);
    }
    if (t->session != NULL) {
        t->engine->session_close(t->session);
    }
    return NULL;
}

static uint64_t share_ns(double per_second, unsigned threads)
{
    return per_second > 0 ? (uint64_t)(1e9 * threads / per_second) : 0;
}

/* Time between writes of `entries` by one of `threads` writers under --benchmark_write_rate_limit. */
static uint64_t write_pace_ns(const struct bench_job *job, unsigned threads, uint64_t entries)
{
    double bytes = (double)job->context->key_bytes + (double)(job->value_min + job->value_max) / 2;
    double limit = (double)job->context->flags->benchmark_write_rate_limit;
    return share_ns(limit / (bytes * (double)entries), threads);
}

static void set_pace(struct bench_thread *t, enum bench_role role, unsigned threads)
{
    const struct bench_flags *f = t->job->context->flags;
    t->catch_up = f->target > 0;
    if (f->target > 0) {
        t->pace_ns = share_ns((double)f->target, threads);
    } else if (role == ROLE_WRITE) {
        t->pace_ns = write_pace_ns(t->job, threads, t->job->batch);
    } else if (role == ROLE_READ) {
        t->pace_ns = share_ns((double)f->benchmark_read_rate_limit, threads);
    }
}

static void thread_init(struct bench_thread *t, struct bench_job *job, unsigned index)
{
    struct bench_context *c = job->context;
    const struct bench_workload *w = job->workload;
    memset(t, 0, sizeof(*t));
    t->job = job;
    t->store = job->store;
    t->engine = job->store->engine;
    t->index = index;
    bench_rng_init(&t->rng, (uint64_t)c->flags->seed + 1000003 * c->round + index);
    t->values = (struct bench_values){&c->pool, 0, job->value_min, job->value_max};
    t->key = calloc(1, c->key_bytes + 1);
    if (t->key == NULL) {
        bench_engine_fail("out of memory");
        bench_die(job->store, "start");
    }
    const struct bench_flags *f = c->flags;
    bool extra = bench_thread_is_extra(t);
    if (!extra) {
        set_pace(t, w->role, job->threads);
    } else if (w->extra == EXTRA_WRITER) {
        t->pace_ns = write_pace_ns(job, job->extras, 1); /* they write no batches */
    }
    bench_stats_init(&t->stats, index, c->timed && !extra);
    t->stats.warn = f->histogram && !w->no_session;
}

static void job_init(struct bench_job *job, struct bench_context *c, struct bench_store *s,
                     const struct bench_workload *w)
{
    const struct bench_flags *f = c->flags;
    uint64_t divide = w->divide == 0 ? 1 : w->divide;
    memset(job, 0, sizeof(*job));
    job->context = c;
    job->store = s;
    job->workload = w;
    job->num = (uint64_t)f->num;
    job->reads = (uint64_t)(f->reads < 0 ? f->num : f->reads) / divide;
    job->writes = (uint64_t)(f->writes < 0 ? f->num : f->writes) / divide;
    job->deletes = (uint64_t)(f->deletes < 0 ? f->num : f->deletes) / divide;
    job->reads = job->reads == 0 ? 1 : job->reads;
    job->writes = job->writes == 0 ? 1 : job->writes;
    job->deletes = job->deletes == 0 ? 1 : job->deletes;
    job->batch = f->batch_size > 1 || w->batch == 0 ? (uint64_t)f->batch_size : w->batch;
    job->value_min = job->value_max = w->value_size != 0 ? w->value_size : (size_t)f->value_size;
    if (w->value_size == 0 && strcmp(f->value_size_distribution_type, "uniform") == 0) {
        job->value_min = (size_t)f->value_size_min;
        job->value_max = (size_t)f->value_size_max;
    }
    job->threads = w->alone ? 1 : (unsigned)f->threads;
    job->duration_ns = w->timed_stop ? (uint64_t)(f->duration * 1e9) : 0;
    uint64_t each = w->role == ROLE_WRITE ? job->writes : job->reads;
    job->expected = job->duration_ns != 0 || w->no_session ? 0 : each * job->threads;
    atomic_init(&job->active, job->threads);
    atomic_init(&job->stop, false);
    job->extras = w->extra == EXTRA_WRITER ? (unsigned)f->writers : w->extra != EXTRA_NONE;
    job->all_count = job->threads + job->extras;
}

static void run_threads(struct bench_job *job, const char *name, struct bench_seconds *seconds)
{
    struct start_line line = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false};
    struct runner *runners = calloc(job->all_count, sizeof(*runners));
    pthread_t *ids = calloc(job->all_count, sizeof(*ids));
    /* The stats are aligned to cache lines, which calloc does not promise. */
    job->all = aligned_alloc(64, job->all_count * sizeof(*job->all));
    if (runners == NULL || ids == NULL || job->all == NULL) {
        bench_engine_fail("out of memory");
        bench_die(job->store, "start");
    }
    for (unsigned i = 0; i < job->all_count; i++) {
        thread_init(&job->all[i], job, i);
        runners[i] = (struct runner){&job->all[i], &line};
        if (pthread_create(&ids[i], NULL, run_thread, &runners[i]) != 0) {
            bench_engine_fail("no more threads");
            bench_die(job->store, "start");
        }
    }
    struct bench_progress progress;
    bench_progress_start(&progress, job, name);
    start_all(&line, job->all_count);
    bench_seconds_start(seconds, job, job->context->by_second);
    for (unsigned i = 0; i < job->all_count; i++) {
        pthread_join(ids[i], NULL);
    }
    bench_seconds_stop(seconds);
    bench_progress_stop(&progress);
    pthread_mutex_destroy(&line.lock);
    pthread_cond_destroy(&line.changed);
    free(ids);
    free(runners);
}

static void merge_threads(struct bench_job *job, struct bench_row *row, struct bench_stats *merged)
{
    bench_stats_init(merged, 0, false);
    merged->timed = job->all[job->all_count - 1].stats.timed;
    row->background_ops = -1;
    for (unsigned i = 0; i < job->all_count; i++) {
        struct bench_thread *t = &job->all[i];
        row->own_cpu_seconds += t->stats.cpu_seconds;
        if (bench_thread_is_extra(t)) {
            double seconds = t->stats.seconds;
            double speed = seconds > 0 ? (double)t->stats.done / seconds : 0;
            row->background_ops = speed + (row->background_ops > 0 ? row->background_ops : 0);
        } else {
            bench_stats_merge(merged, &t->stats);
        }
        bench_stats_destroy(&t->stats);
        free(t->key);
    }
    free(job->all);
    job->all = NULL;
}

/* Bytes the engine wrote during the job for each byte the user wrote; -1 when either is unknown. */
static double write_amp(bool known, const struct bench_counters *before,
                        const struct bench_counters *after, uint64_t put_bytes)
{
    if (!known || put_bytes == 0 || after->bytes_written < before->bytes_written) {
        return -1;
    }
    return bench_written_per_byte(before, after, put_bytes);
}

static void fill_message(const struct bench_workload *w, struct bench_row *row,
                         const struct bench_stats *s)
{
    size_t n = 0;
    row->message[0] = '\0';
    if (w->message != NULL) {
        w->message(s, row->message, sizeof(row->message));
        snprintf(row->note, sizeof(row->note), "%.*s", w->noted ? 95 : 0, row->message);
    } else if (s->tried > 0) {
        snprintf(row->message, sizeof(row->message), "(%" PRIu64 " of %" PRIu64 " found)", s->found,
                 s->tried);
    }
    n = strlen(row->message);
    if (row->background_ops >= 0) {
        snprintf(row->message + n, sizeof(row->message) - n, "%sbackground: %.0f ops/sec",
                 n > 0 ? " " : "", row->background_ops);
    }
}

static void take_seconds(const struct bench_job *job, struct bench_row *row,
                         struct bench_seconds *seconds)
{
    const struct bench_context *c = job->context;
    const char *path = c->flags->seconds_csv;
    row->seconds_seen = bench_seconds_sum_up(seconds->all, seconds->count);
    if (path[0] != '\0' &&
        bench_seconds_append(seconds, path, row->engine, row->name, c->round) != 0) {
        fprintf(stderr, "loam-bench: %s: %s\n", path, strerror(errno));
    }
    bench_seconds_free(seconds);
}

void bench_run(struct bench_context *c, struct bench_store *s, const struct bench_workload *w,
               const char *name, struct bench_row *row, struct bench_stats *merged)
{
    struct bench_job job;
    struct bench_counters before = {0, true}, after = {0, true};
    struct bench_seconds seconds;
    job_init(&job, c, s, w);
    memset(row, 0, sizeof(*row));
    snprintf(row->name, sizeof(row->name), "%s", name);
    row->engine = s->engine->name;
    row->threads = job.threads;
    row->settle_seconds = -1;
    bool counted = !w->no_session && bench_store_counters(s, &before);
    bench_rss_reset();
    bench_usage_now(&row->before);
    run_threads(&job, name, &seconds);
    row->peak_rss = bench_rss_peak();
    counted = counted && bench_store_counters(s, &after);
    merge_threads(&job, row, merged);
    bench_row_from_stats(row, merged);
    /* With --reads below --num the walk may have been cut short. */
    bool whole = w->reads_all && row->threads == 1 && job.reads >= job.num;
    row->live_bytes = whole ? row->bytes : 0;
    row->write_amp = write_amp(counted, &before, &after, row->put_bytes);
    if (row->background_ops >= 0) {
        row->write_amp = -1; /* the writer's bytes are not in the row */
    }
    bench_row_add_usage(row);
    take_seconds(&job, row, &seconds);
    fill_message(w, row, merged);
}
