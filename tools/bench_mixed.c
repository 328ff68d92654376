/* bench_mixed.c - Benchmarks that read and write at once.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>

#include "tools/bench_workloads.h"

/* ---- readers, and some that are not counted ----------------------------------------------- */

static void write_meanwhile(struct bench_thread *t)
{
    const struct bench_flags *f = t->job->context->flags;
    bench_thread_limit(t, f->finish_after_writes ? t->job->writes : UINT64_MAX);
    while (bench_more(t)) {
        bench_put(t, bench_random_key(t), OP_WRITE);
    }
    if (f->finish_after_writes) {
        atomic_store_explicit(&t->job->stop, true, memory_order_relaxed);
    }
}

static void scan_meanwhile(struct bench_thread *t)
{
    const struct bench_engine *e = t->engine;
    void *it;
    bench_thread_limit(t, UINT64_MAX);
    bench_ok(t, e->iter_open(t->session, &it), "iterator");
    bool on = false;
    while (bench_more(t)) {
        loam_slice key, value;
        on = bench_ok(t, on ? e->iter_next(it) : e->iter_first(it), "iterator");
        if (on) {
            e->iter_entry(it, &key, &value);
            bench_stats_entry(&t->stats, key, value);
            bench_stats_done(&t->stats, OP_READ, 1);
        }
    }
    e->iter_close(it);
}

void bench_read_while_writing(struct bench_thread *t)
{
    if (bench_thread_is_extra(t)) {
        write_meanwhile(t);
    } else {
        bench_read_random(t);
    }
}

void bench_read_while_scanning(struct bench_thread *t)
{
    if (bench_thread_is_extra(t)) {
        scan_meanwhile(t);
    } else {
        bench_read_random(t);
    }
}

void bench_seek_while_writing(struct bench_thread *t)
{
    if (bench_thread_is_extra(t)) {
        write_meanwhile(t);
    } else {
        bench_seek_random(t);
    }
}

/* ---- each thread does both ------------------------------------------------------------------- */

void bench_read_write(struct bench_thread *t)
{
    uint64_t percent = (uint64_t)t->job->context->flags->readwritepercent, turn = 0;
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        loam_slice key = bench_random_key(t);
        if (turn++ % 100 < percent) {
            bench_get(t, key, OP_READ);
        } else {
            bench_put(t, key, OP_WRITE);
        }
    }
}

void bench_read_write_message(const struct bench_stats *s, char *out, size_t cap)
{
    snprintf(out, cap,
             "( reads:%" PRIu64 " writes:%" PRIu64 " total:%" PRIu64 " found:%" PRIu64 ")",
             s->count[OP_READ], s->count[OP_WRITE], s->done, s->found);
}

void bench_update(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        loam_slice key = bench_random_key(t), value;
        t->stats.tried++;
        if (bench_ok(t, t->engine->get(t->session, key, &value), "get")) {
            t->stats.found++;
            bench_stats_entry(&t->stats, key, value);
        }
        bench_put(t, key, OP_UPDATE);
    }
}

void bench_update_message(const struct bench_stats *s, char *out, size_t cap)
{
    snprintf(out, cap, "( updates:%" PRIu64 " found:%" PRIu64 ")", s->count[OP_UPDATE], s->found);
}
