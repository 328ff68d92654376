/* bench_cache.c - The block cache's share of hits beside that of an LRU cache of as many bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One thread gets keys from a database that was filled with every key and compacted, so each get
 * looks into one block of one table. The engine counts its hits; afterwards the same accesses, made
 * anew from the same seed, go through the simulated cache. That one gets the most bytes the engine's
 * cache was seen to hold, and pays for each block what it takes in the file.
 *
 *   cachezipf     Zipf 0.99 over scattered keys, so that hot and cold ones share blocks
 *   cacheuniform  every key alike
 *   cachescan     cachezipf, and four times in between a scan of everything
 *   cacheshift    nine of ten gets in a twentieth of the keys, which is another one each num gets
 *
 * Half of the gets warm the caches up, the other half is counted. Gets are counted, not the scans.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_lru.h"
#include "tools/bench_workloads.h"

enum { SCANS = 4, LOOKS = 64, CALIBRATE_SHARE = 32 };

enum pattern { PATTERN_ZIPF, PATTERN_UNIFORM, PATTERN_SCAN, PATTERN_SHIFT };

/* The accesses, one after the other; a pure function of its seed. */
struct accesses {
    enum pattern pattern;
    uint64_t num, total, done;
    struct bench_rng rng;
    struct zipf zipf;
    struct permutation order; /* rank to key */
    uint64_t hot;             /* first key of the hot twentieth */
};

static void accesses_init(struct accesses *a, enum pattern pattern, const struct bench_thread *t)
{
    const struct bench_flags *f = t->job->context->flags;
    a->pattern = pattern;
    a->num = t->job->num;
    a->total = t->job->reads;
    a->done = 0;
    a->hot = 0;
    bench_rng_init(&a->rng, (uint64_t)f->seed ^ 0xcac4e);
    zipf_init(&a->zipf, a->num, f->zipf_theta);
    permutation_init(&a->order, a->num, (uint64_t)f->seed);
}

static bool scan_due(const struct accesses *a)
{
    uint64_t each = a->total / (2 * SCANS);
    return a->pattern == PATTERN_SCAN && each > 0 && a->done % each == each / 2;
}

static uint64_t next_key(struct accesses *a)
{
    uint64_t window = a->num / 20 + 1;
    if (a->pattern == PATTERN_SHIFT && a->done % a->num == 0) {
        a->hot = bench_rng_below(&a->rng, a->num - window + 1);
    }
    a->done++;
    switch (a->pattern) {
    case PATTERN_ZIPF:
    case PATTERN_SCAN:
        return permutation_at(&a->order, zipf_next(&a->zipf, &a->rng));
    case PATTERN_SHIFT:
        if (bench_rng_below(&a->rng, 10) < 9) {
            return a->hot + bench_rng_below(&a->rng, window);
        }
        break;
    case PATTERN_UNIFORM:
        break;
    }
    return bench_rng_below(&a->rng, a->num);
}

/* ---- the engine's cache ---------------------------------------------------------------------- */

/* What the simulation has to know of the database and the cache. */
struct shape {
    double keys_per_block, block_bytes;
    uint64_t most_bytes; /* held by the cache */
};

static struct bench_cache_counters counters(struct bench_thread *t)
{
    struct bench_cache_counters c;
    bench_ok(t, t->engine->cache_counters(t->store->db, &c), "stats");
    return c;
}

static void get_existing(struct bench_thread *t, uint64_t k)
{
    loam_slice value;
    if (!bench_ok(t, t->engine->get(t->session, bench_key(t, k), &value), "get")) {
        bench_engine_fail("key %llu is missing: fill with filluniquerandom and compact first",
                          (unsigned long long)k);
        bench_die(t->store, "get");
    }
}

/* Gets in key order miss once a block while the cache has free room, so only a few keys are read. */
static void calibrate(struct bench_thread *t, struct shape *s)
{
    uint64_t n = t->job->num / CALIBRATE_SHARE + 1;
    struct bench_cache_counters before = counters(t);
    for (uint64_t k = 0; k < n; k++) {
        get_existing(t, k);
    }
    struct bench_cache_counters after = counters(t);
    uint64_t blocks = after.misses - before.misses;
    if (after.hits + after.misses - before.hits - before.misses != n || blocks == 0) {
        bench_engine_fail("a get does not look into one block: compact first");
        bench_die(t->store, "get");
    }
    s->keys_per_block = (double)n / (double)blocks;
    s->block_bytes = (double)after.table_bytes * s->keys_per_block / (double)t->job->num;
}

static void scan_all(struct bench_thread *t)
{
    const struct bench_engine *e = t->engine;
    void *it;
    bench_ok(t, e->iter_open(t->session, &it), "iterator");
    bool on = bench_ok(t, e->iter_first(it), "iterator");
    while (on) {
        on = bench_ok(t, e->iter_next(it), "iterator");
    }
    e->iter_close(it);
}

/* What a walk looks up is no access: its lookups go to *walked. */
static void scan_apart(struct bench_thread *t, struct bench_cache_counters *walked)
{
    struct bench_cache_counters before = counters(t);
    scan_all(t);
    struct bench_cache_counters after = counters(t);
    walked->hits += after.hits - before.hits;
    walked->misses += after.misses - before.misses;
}

/* Half of the accesses; returns the share of hits. */
static double run_half(struct bench_thread *t, struct accesses *a, struct shape *s)
{
    uint64_t end = a->done + a->total / 2, look = a->total / LOOKS + 1;
    struct bench_cache_counters before = counters(t), walked = {0}, after;
    while (a->done < end) {
        if (scan_due(a)) {
            scan_apart(t, &walked);
            t->stats.last_ns = bench_now_ns(); /* nor is its time that of a get */
        }
        get_existing(t, next_key(a));
        bench_stats_done(&t->stats, OP_READ, 1);
        if (a->done % look == 0) {
            after = counters(t);
            s->most_bytes = after.bytes > s->most_bytes ? after.bytes : s->most_bytes;
        }
    }
    after = counters(t);
    double hits = (double)(after.hits - before.hits - walked.hits);
    return hits / (hits + (double)(after.misses - before.misses - walked.misses));
}

/* ---- the simulated cache --------------------------------------------------------------------- */

static uint32_t block_of(const struct shape *s, uint64_t key)
{
    return (uint32_t)((double)key / s->keys_per_block);
}

static double simulate(struct bench_thread *t, enum pattern pattern, const struct shape *s)
{
    struct bench_lru l;
    struct accesses a;
    uint64_t hits = 0, counted = 0;
    uint32_t blocks = block_of(s, t->job->num - 1) + 1;
    double capacity = (double)s->most_bytes / s->block_bytes;
    if (bench_lru_init(&l, blocks, capacity < 1 ? 1 : (uint32_t)capacity) != 0) {
        bench_engine_fail("out of memory");
        bench_die(t->store, "cache");
    }
    accesses_init(&a, pattern, t);
    while (a.done < a.total / 2 * 2) {
        for (uint32_t b = 0; scan_due(&a) && b < blocks; b++) {
            bench_lru_use(&l, b);
        }
        bool count = a.done >= a.total / 2;
        bool hit = bench_lru_use(&l, block_of(s, next_key(&a)));
        counted += count;
        hits += count && hit;
    }
    bench_lru_destroy(&l);
    return (double)hits / (double)counted;
}

/* ---- the benchmarks -------------------------------------------------------------------------- */

static void run_pattern(struct bench_thread *t, enum pattern pattern)
{
    struct shape s = {0, 0, 0};
    struct accesses a;
    /* An empty cache: the one before has left its blocks. */
    bench_ok(t, bench_store_close(t->store), "close");
    bench_ok(t, bench_store_open(t->store), "open");
    bench_ok(t, t->engine->session_open(t->store->db, &t->session), "session");
    calibrate(t, &s);
    accesses_init(&a, pattern, t);
    bench_stats_restart(&t->stats);
    run_half(t, &a, &s);
    t->stats.hit_ratio = run_half(t, &a, &s);
    t->engine->session_close(t->session);
    t->session = NULL;
    bench_stats_stop(&t->stats);
    t->stats.lru_ratio = simulate(t, pattern, &s);
    t->stats.cached_share =
        (double)s.most_bytes / s.block_bytes / ((double)t->job->num / s.keys_per_block);
}

void bench_cache_zipf(struct bench_thread *t)
{
    run_pattern(t, PATTERN_ZIPF);
}

void bench_cache_uniform(struct bench_thread *t)
{
    run_pattern(t, PATTERN_UNIFORM);
}

void bench_cache_scan(struct bench_thread *t)
{
    run_pattern(t, PATTERN_SCAN);
}

void bench_cache_shift(struct bench_thread *t)
{
    run_pattern(t, PATTERN_SHIFT);
}

void bench_cache_message(const struct bench_stats *s, char *out, size_t cap)
{
    snprintf(out, cap, "(hits %.4f, LRU of as many bytes %.4f; %.1f%% of the data cached)",
             s->hit_ratio, s->lru_ratio, 100 * s->cached_share);
}
