/* stats.h - Counters kept per thread stripe, and latency histograms.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_STATS_H_
#define LOAM_ENGINE_STATS_H_

#include "arena/alloc.h"
#include "arena/thread_slot.h"
#include "engine/loam.h"

enum stat {
    STAT_PUTS,
    STAT_DELETES,
    STAT_GETS,
    STAT_SEEKS,
    STAT_NEXTS,
    STAT_BYTES_PUT,
    STAT_BYTES_GOT,
    STAT_CACHE_HITS,
    STAT_CACHE_MISSES,
    STAT_FILTER_USEFUL,
    STAT_FILTER_FALSE,
    STAT_TOMBSTONES_SKIPPED,
    STAT_FLUSHES,
    STAT_COMPACTIONS,
    STAT_TABLE_MOVES,
    STAT_BYTES_LOGGED,
    STAT_BYTES_FLUSHED,
    STAT_BYTES_COMPACTED_IN,
    STAT_BYTES_COMPACTED_OUT,
    STAT_SYNCS,
    STAT_GROUP_COMMITS,
    STAT_THROTTLED_WRITES,
    STAT_THROTTLED_US,
    STAT_BUSY_WRITES,
    STAT_ERRORS,
    STAT_RESUMES,
    STAT_COUNT
};

#define STATS_STRIPES 32u
#define STATS_BUCKETS 512u /* log-linear: 8 to an octave of nanoseconds */

struct stats_stripe {
    _Alignas(CACHE_LINE) _Atomic uint64_t n[STAT_COUNT];
    _Atomic uint64_t ticks; /* for sampling */
};

struct stats_hist {
    _Atomic uint64_t bucket[STATS_BUCKETS];
    _Atomic uint64_t sum_ns, min_ns, max_ns;
};

struct stats {
    struct stats_stripe *stripe; /* STATS_STRIPES of them */
    struct stats_hist *hist;     /* LOAM_HIST_COUNT of them */
    struct alloc *alloc;
};

int stats_init(struct stats *s, struct alloc *a); /* LOAM_OK or E_NOMEM */
void stats_destroy(struct stats *s);

static inline struct stats_stripe *stats_stripe_self(struct stats *s)
{
    return &s->stripe[thread_slot_self() % STATS_STRIPES];
}
/* A stripe has one thread as long as there are no more threads than stripes, so a plain load and
 * store is enough for a statistic; beyond that a count may be lost now and then. */
static inline void stats_bump(struct stats_stripe *t, enum stat which, uint64_t n)
{
    atom_store(&t->n[which], atom_load(&t->n[which], relaxed) + n, relaxed);
}
static inline void stats_add(struct stats *s, enum stat which, uint64_t n)
{
    stats_bump(stats_stripe_self(s), which, n);
}
uint64_t stats_sum(const struct stats *s, enum stat which);

/* True for one call in 64 of a thread: worth two clock reads. */
static inline bool stats_sample(struct stats_stripe *t)
{
    uint64_t n = atom_load(&t->ticks, relaxed) + 1;
    atom_store(&t->ticks, n, relaxed);
    return n % 64 == 0;
}
void stats_time(struct stats *s, int which, uint64_t nanos);
void stats_hist_get(const struct stats *s, int which, loam_hist *out);

#endif
