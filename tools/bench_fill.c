/* bench_fill.c - Benchmarks that write: in order, at random, each key once, and deletes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <signal.h>
#include <unistd.h>

#include "tools/bench_workloads.h"

enum key_order { ORDER_SEQUENTIAL, ORDER_RANDOM, ORDER_UNIQUE };

static uint64_t next_number(struct bench_thread *t, enum key_order order,
                            const struct permutation *p, uint64_t i)
{
    switch (order) {
    case ORDER_SEQUENTIAL:
        return i % t->job->num;
    case ORDER_RANDOM:
        return bench_rng_below(&t->rng, t->job->num);
    case ORDER_UNIQUE:
        break;
    }
    return permutation_at(p, i % t->job->num);
}

/* One write of `n` entries starting with the i-th of the order. */
static void write_batch(struct bench_thread *t, enum key_order order, const struct permutation *p,
                        uint64_t i, uint64_t n)
{
    uint64_t bytes = 0;
    for (uint64_t j = 0; j < n; j++) {
        loam_slice key = bench_key(t, next_number(t, order, p, i + j));
        loam_slice value = bench_values_next(&t->values, &t->rng);
        bench_ok(t, t->engine->batch_put(t->session, key, value), "put");
        bytes += key.size + value.size;
    }
    bench_ok(t, t->engine->batch_commit(t->session), "write");
    t->stats.bytes += bytes;
    t->stats.put_bytes += bytes;
    bench_stats_done(&t->stats, OP_WRITE, n);
}

static void fill(struct bench_thread *t, enum key_order order)
{
    struct permutation p;
    uint64_t batch = t->job->batch, writes = t->job->writes, i = 0;
    permutation_init(&p, t->job->num, bench_fill_seed(t->job->context));
    bench_thread_limit(t, (writes + batch - 1) / batch);
    while (bench_more(t)) {
        if (batch > 1) {
            write_batch(t, order, &p, i, writes - i % writes < batch ? writes - i % writes : batch);
        } else {
            bench_put(t, bench_key(t, next_number(t, order, &p, i)), OP_WRITE);
        }
        i += batch;
    }
}

uint64_t bench_fill_seed(const struct bench_context *c)
{
    return (uint64_t)c->flags->seed ^ 0x10a3;
}

void bench_fill_sequential(struct bench_thread *t)
{
    fill(t, ORDER_SEQUENTIAL);
}

void bench_fill_random(struct bench_thread *t)
{
    fill(t, ORDER_RANDOM);
}

void bench_fill_unique(struct bench_thread *t)
{
    fill(t, ORDER_UNIQUE);
}

void bench_crash_write(struct bench_thread *t)
{
    fill(t, ORDER_UNIQUE);
    kill(getpid(), SIGKILL);
}

static void erase(struct bench_thread *t, enum key_order order)
{
    uint64_t batch = t->job->batch, deletes = t->job->deletes, i = 0;
    bench_thread_limit(t, (deletes + batch - 1) / batch);
    while (bench_more(t)) {
        uint64_t n = deletes - i % deletes < batch ? deletes - i % deletes : batch, bytes = 0;
        for (uint64_t j = 0; j < n; j++) {
            loam_slice key = bench_key(t, next_number(t, order, NULL, i + j));
            int rc = batch > 1 ? t->engine->batch_erase(t->session, key)
                               : t->engine->erase(t->session, key);
            bench_ok(t, rc, "del");
            bytes += key.size;
        }
        if (batch > 1) {
            bench_ok(t, t->engine->batch_commit(t->session), "del");
        }
        t->stats.put_bytes += bytes;
        bench_stats_done(&t->stats, OP_DELETE, n);
        i += batch;
    }
}

void bench_delete_sequential(struct bench_thread *t)
{
    erase(t, ORDER_SEQUENTIAL);
}

void bench_delete_random(struct bench_thread *t)
{
    erase(t, ORDER_RANDOM);
}
