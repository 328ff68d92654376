/* stats.c - Sums of stripes and quantiles of histograms.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Histogram buckets: values below 8 have one each, above that 8 buckets to a power of two, so a
 * quantile is right to 1/8. Everything is relaxed: figures for people, not hand-overs.
 */
#include "engine/stats.h"

#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

int stats_init(struct stats *s, struct alloc *a)
{
    s->alloc = a;
    s->stripe = alloc_get_aligned(a, MEM_MISC, STATS_STRIPES * sizeof *s->stripe, CACHE_LINE);
    s->hist = alloc_zero(a, MEM_MISC, LOAM_HIST_COUNT * sizeof *s->hist);
    if (s->stripe == NULL || s->hist == NULL) {
        stats_destroy(s);
        return FAIL(LOAM_E_NOMEM, "no memory for statistics");
    }
    memset(s->stripe, 0, STATS_STRIPES * sizeof *s->stripe);
    for (int i = 0; i < LOAM_HIST_COUNT; i++) {
        atomic_init(&s->hist[i].min_ns, UINT64_MAX);
    }
    return LOAM_OK;
}

void stats_destroy(struct stats *s)
{
    if (s->alloc != NULL) {
        alloc_put_aligned(s->alloc, MEM_MISC, s->stripe, STATS_STRIPES * sizeof *s->stripe,
                          CACHE_LINE);
        alloc_put(s->alloc, MEM_MISC, s->hist, LOAM_HIST_COUNT * sizeof *s->hist);
    }
    s->stripe = NULL;
    s->hist = NULL;
}

uint64_t stats_sum(const struct stats *s, enum stat which)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < STATS_STRIPES; i++) {
        sum += atom_load(&s->stripe[i].n[which], relaxed);
    }
    return sum;
}

static uint32_t bucket_of(uint64_t v)
{
    if (v < 8) {
        return (uint32_t)v;
    }
    uint32_t octave = 63 - (uint32_t)__builtin_clzll(v); /* >= 3 */
    return (octave - 2) * 8 + (uint32_t)(v >> (octave - 3) & 7);
}

static uint64_t bucket_top(uint32_t b)
{
    if (b < 8) {
        return b;
    }
    uint32_t octave = b / 8 + 2;
    return ((uint64_t)(b % 8 + 9) << (octave - 3)) - 1;
}

void stats_time(struct stats *s, int which, uint64_t nanos)
{
    struct stats_hist *h = &s->hist[which];
    atom_add(&h->bucket[bucket_of(nanos)], 1, relaxed);
    atom_add(&h->sum_ns, nanos, relaxed);
    uint64_t old = atom_load(&h->min_ns, relaxed);
    while (nanos < old && !atom_cas(&h->min_ns, &old, nanos, relaxed, relaxed)) {
    }
    old = atom_load(&h->max_ns, relaxed);
    while (nanos > old && !atom_cas(&h->max_ns, &old, nanos, relaxed, relaxed)) {
    }
}

static uint64_t quantile(const uint64_t *bucket, uint64_t count, double q, uint64_t max)
{
    uint64_t want = (uint64_t)((double)count * q), seen = 0;
    for (uint32_t b = 0; b < STATS_BUCKETS; b++) {
        seen += bucket[b];
        if (seen > want) {
            return bucket_top(b) < max ? bucket_top(b) : max;
        }
    }
    return max;
}

void stats_hist_get(const struct stats *s, int which, loam_hist *out)
{
    const struct stats_hist *h = &s->hist[which];
    uint64_t bucket[STATS_BUCKETS];
    memset(out, 0, sizeof *out);
    for (uint32_t b = 0; b < STATS_BUCKETS; b++) {
        bucket[b] = atom_load(&h->bucket[b], relaxed);
        out->count += bucket[b];
    }
    if (out->count == 0) {
        return;
    }
    out->sum_ns = atom_load(&h->sum_ns, relaxed);
    out->min_ns = atom_load(&h->min_ns, relaxed);
    out->max_ns = atom_load(&h->max_ns, relaxed);
    out->p50_ns = quantile(bucket, out->count, 0.5, out->max_ns);
    out->p90_ns = quantile(bucket, out->count, 0.9, out->max_ns);
    out->p99_ns = quantile(bucket, out->count, 0.99, out->max_ns);
    out->p999_ns = quantile(bucket, out->count, 0.999, out->max_ns);
    out->p9999_ns = quantile(bucket, out->count, 0.9999, out->max_ns);
}
