/* bench_ycsb.c - The six core workloads of YCSB.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   a  50 % read, 50 % update, Zipf          d  95 % read, 5 % insert, latest
 *   b  95 % read,  5 % update, Zipf          e  95 % scan of 1 to 100, 5 % insert, Zipf
 *   c 100 % read, Zipf                       f  50 % read, 50 % read-modify-write, Zipf
 *
 * Record i < num has key number i, so any fill loads them. Inserted records (i >= num) get keys
 * that are scattered over the space, and "latest" scatters the loaded ones by a permutation: as
 * with YCSB's hashed keys, records of one age are not neighbours.
 */
#include "tools/bench_workloads.h"

enum { SCAN_MAX = 100, SEED_LATEST = 0xd1 };

struct mix {
    unsigned read, update, insert, scan, modify; /* percent */
    enum keygen_kind keys;
};

struct chooser {
    struct bench_thread *t;
    struct keygen keys;
    struct permutation order; /* of the loaded records, for "latest" */
    uint64_t space;           /* key numbers that fit the format */
};

static uint64_t inserted_key(const struct chooser *c, uint64_t record)
{
    /* Above the loaded keys, which are dense. */
    uint64_t num = c->t->job->num;
    return num + zipf_scramble(record) % (c->space - num);
}

static loam_slice choose_key(struct chooser *c)
{
    struct bench_thread *t = c->t;
    uint64_t num = t->job->num;
    if (c->keys.kind == KEYGEN_ZIPF) {
        return bench_key(t, keygen_next(&c->keys, &t->rng, num));
    }
    uint64_t inserted = atomic_load_explicit(&t->store->inserted, memory_order_relaxed);
    uint64_t record = keygen_next(&c->keys, &t->rng, num + inserted);
    return bench_key(t, record < num ? permutation_at(&c->order, record) : inserted_key(c, record));
}

static void insert(struct chooser *c)
{
    struct bench_thread *t = c->t;
    uint64_t ticket = atomic_fetch_add_explicit(&t->store->inserted, 1, memory_order_relaxed);
    bench_put(t, bench_key(t, inserted_key(c, t->job->num + ticket)), OP_INSERT);
}

static void scan(struct chooser *c)
{
    struct bench_thread *t = c->t;
    const struct bench_engine *e = t->engine;
    uint64_t length = 1 + bench_rng_below(&t->rng, SCAN_MAX);
    void *it;
    bench_ok(t, e->iter_open(t->session, &it), "iterator");
    bool on = bench_ok(t, e->iter_seek(it, choose_key(c)), "scan");
    t->stats.tried++;
    t->stats.found += on;
    for (uint64_t i = 0; on && i < length; i++) {
        loam_slice key, value;
        e->iter_entry(it, &key, &value);
        bench_stats_entry(&t->stats, key, value);
        on = i + 1 < length && bench_ok(t, e->iter_next(it), "scan");
    }
    e->iter_close(it);
    bench_stats_done(&t->stats, OP_SCAN, 1);
}

static void modify(struct chooser *c)
{
    struct bench_thread *t = c->t;
    loam_slice key = choose_key(c), value;
    t->stats.tried++;
    if (bench_ok(t, t->engine->get(t->session, key, &value), "get")) {
        t->stats.found++;
        bench_stats_entry(&t->stats, key, value);
    }
    bench_put(t, key, OP_MODIFY);
}

static void run_mix(struct bench_thread *t, const struct mix *m)
{
    double theta = t->job->context->flags->zipf_theta;
    struct chooser c = {.t = t, .space = key_format_limit(&t->job->context->keys)};
    uint64_t records =
        t->job->num + atomic_load_explicit(&t->store->inserted, memory_order_relaxed);
    keygen_init(&c.keys, m->keys, records, theta);
    permutation_init(&c.order, t->job->num, SEED_LATEST);
    if (m->insert > 0 && c.space <= t->job->num) {
        bench_engine_fail("--key_size leaves no room for inserted keys");
        bench_die(t->store, "insert");
    }
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        uint64_t dice = bench_rng_below(&t->rng, 100);
        if (dice < m->read) {
            bench_get(t, choose_key(&c), OP_READ);
        } else if ((dice -= m->read) < m->update) {
            bench_put(t, choose_key(&c), OP_UPDATE);
        } else if ((dice -= m->update) < m->insert) {
            insert(&c);
        } else if ((dice -= m->insert) < m->scan) {
            scan(&c);
        } else {
            modify(&c);
        }
    }
}

void bench_ycsb_a(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.read = 50, .update = 50, .keys = KEYGEN_ZIPF});
}

void bench_ycsb_b(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.read = 95, .update = 5, .keys = KEYGEN_ZIPF});
}

void bench_ycsb_c(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.read = 100, .keys = KEYGEN_ZIPF});
}

void bench_ycsb_d(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.read = 95, .insert = 5, .keys = KEYGEN_LATEST});
}

void bench_ycsb_e(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.scan = 95, .insert = 5, .keys = KEYGEN_ZIPF});
}

void bench_ycsb_f(struct bench_thread *t)
{
    run_mix(t, &(struct mix){.read = 50, .modify = 50, .keys = KEYGEN_ZIPF});
}
