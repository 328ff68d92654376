/* bench_read.c - Benchmarks that only read: gets, scans, seeks.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "tools/bench_workloads.h"

void bench_read_random(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        bench_get(t, bench_random_key(t), OP_READ);
    }
}

void bench_read_missing(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        /* Without its last byte no key is one that was written, and all lie inside the range. */
        loam_slice key = bench_random_key(t);
        key.size--;
        bench_get(t, key, OP_READ);
    }
}

void bench_read_hot(struct bench_thread *t)
{
    uint64_t hot = (t->job->num + 99) / 100;
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        bench_get(t, bench_key(t, bench_rng_below(&t->rng, hot)), OP_READ);
    }
}

/* ---- many keys at once ----------------------------------------------------------------------- */

static void get_batch(struct bench_thread *t, loam_slice *keys, char *bytes)
{
    uint64_t n = t->job->batch, got = 0;
    size_t found = 0, key_bytes = t->job->context->key_bytes;
    for (uint64_t i = 0; i < n; i++) {
        loam_slice key = bench_random_key(t);
        memcpy(bytes + i * key_bytes, key.data, key.size);
        keys[i] = loam_bytes(bytes + i * key_bytes, key.size);
    }
    if (t->engine->get_many != NULL) {
        bench_ok(t, t->engine->get_many(t->session, keys, n, &found, &got), "get");
    } else {
        for (uint64_t i = 0; i < n; i++) {
            loam_slice value;
            if (bench_ok(t, t->engine->get(t->session, keys[i], &value), "get")) {
                found++;
                bench_stats_entry(&t->stats, loam_bytes(NULL, 0), value);
            }
        }
    }
    t->stats.tried += n;
    t->stats.found += found;
    t->stats.bytes += got + found * key_bytes;
    bench_stats_done(&t->stats, OP_READ, n);
}

void bench_read_many(struct bench_thread *t)
{
    uint64_t n = t->job->batch;
    loam_slice *keys = calloc(n, sizeof(*keys));
    char *bytes = calloc(n, t->job->context->key_bytes);
    if (keys == NULL || bytes == NULL) {
        bench_engine_fail("out of memory");
        bench_die(t->store, "get");
    }
    bench_thread_limit(t, (t->job->reads + n - 1) / n);
    while (bench_more(t)) {
        get_batch(t, keys, bytes);
    }
    free(keys);
    free(bytes);
}

/* ---- scans ----------------------------------------------------------------------------------- */

static void *open_iter(struct bench_thread *t)
{
    void *it = NULL;
    bench_ok(t, t->engine->iter_open(t->session, &it), "iterator");
    return it;
}

static void count_entry(struct bench_thread *t, void *it)
{
    loam_slice key, value;
    t->engine->iter_entry(it, &key, &value);
    bench_stats_entry(&t->stats, key, value);
}

void bench_read_forward(struct bench_thread *t)
{
    const struct bench_engine *e = t->engine;
    bench_thread_limit(t, t->job->reads);
    void *it = open_iter(t);
    bool on = bench_ok(t, e->iter_first(it), "iterator");
    while (on && bench_more(t)) {
        count_entry(t, it);
        on = bench_ok(t, e->iter_next(it), "iterator");
        bench_stats_done(&t->stats, OP_READ, 1);
    }
    e->iter_close(it);
}

void bench_read_reverse(struct bench_thread *t)
{
    const struct bench_engine *e = t->engine;
    bench_thread_limit(t, t->job->reads);
    void *it = open_iter(t);
    bool on = bench_ok(t, e->iter_last(it), "iterator");
    while (on && bench_more(t)) {
        count_entry(t, it);
        on = bench_ok(t, e->iter_prev(it), "iterator");
        bench_stats_done(&t->stats, OP_READ, 1);
    }
    e->iter_close(it);
}

/* ---- seeks ----------------------------------------------------------------------------------- */

static void seek_and_walk(struct bench_thread *t, void *it, loam_slice target)
{
    const struct bench_flags *f = t->job->context->flags;
    loam_slice key, value;
    t->stats.tried++;
    bool on = bench_ok(t, t->engine->iter_seek(it, target), "seek");
    if (on) {
        t->engine->iter_entry(it, &key, &value);
        bench_stats_entry(&t->stats, key, value);
        t->stats.found += key.size == target.size && memcmp(key.data, target.data, key.size) == 0;
    }
    for (int64_t i = 0; on && i < f->seek_nexts; i++) {
        int rc = f->reverse_iterator ? t->engine->iter_prev(it) : t->engine->iter_next(it);
        on = bench_ok(t, rc, "seek");
        if (on) {
            count_entry(t, it);
        }
    }
    bench_stats_done(&t->stats, OP_SEEK, 1);
}

void bench_seek_random(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        /* A new iterator each time, as in db_bench: what a request to a server costs. */
        void *it = open_iter(t);
        seek_and_walk(t, it, bench_random_key(t));
        t->engine->iter_close(it);
    }
}

/* To keys that deleteseq has deleted. */
void bench_seek_deleted(struct bench_thread *t)
{
    uint64_t dead = t->job->deletes < t->job->num ? t->job->deletes : t->job->num;
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        void *it = open_iter(t);
        seek_and_walk(t, it, bench_key(t, bench_rng_below(&t->rng, dead)));
        t->engine->iter_close(it);
    }
}

void bench_seek_ordered(struct bench_thread *t)
{
    uint64_t k = 0;
    bench_thread_limit(t, t->job->reads);
    void *it = open_iter(t);
    while (bench_more(t)) {
        k = (k + bench_rng_below(&t->rng, 100)) % t->job->num;
        seek_and_walk(t, it, bench_key(t, k));
    }
    t->engine->iter_close(it);
}

void bench_iter_new(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        t->engine->iter_close(open_iter(t));
        bench_stats_done(&t->stats, OP_OTHER, 1);
    }
}
