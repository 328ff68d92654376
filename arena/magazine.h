/* magazine.h - Per-thread stores of free items in front of a bounded first-in first-out depot.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the slab (items: object addresses) and the slotmap (items: slot numbers) have in common.
 *
 *     thread 0   [magazine][magazine]  <-\
 *     thread 1   [magazine][magazine]  <--+--  depot: 16 whole magazines,  <--  source: the owner's
 *     no slot    [magazine][magazine]  <-/     first in, first out              refill and spill
 *                (shared, locked)
 *
 * A take or give touches only the calling thread's two magazines, except once in up to 32 calls,
 * when a whole magazine is exchanged with the depot; when that is empty or full, with the source.
 *
 * Invariants
 *   1. An item is in exactly one place: with a user, in one magazine, in one depot cell, or in the
 *      source. It moves by copying whole runs between two owners.
 *   2. A cache is touched by the thread that holds its slot number only (the shared one: under
 *      `mutex`). Slot numbers change hands through thread_slot's lock, which orders the accesses.
 * Ordering guarantees
 *   What a thread did before giving an item is visible to the thread that takes it.
 * Progress guarantees
 *   take and give are wait-free inside a magazine. An exchange with the depot is lock-free: a retry
 *   means that another exchange was completed; a cell whose writer was interrupted reads as empty
 *   or full and the source is used. Threads without a slot number share a cache under a lock.
 */
#ifndef LOAM_ARENA_MAGAZINE_H_
#define LOAM_ARENA_MAGAZINE_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/sync.h"
#include "arena/thread_slot.h"

#if defined(LOAM_MC) /* so that a few operations reach the depot and the source */
#define MAGAZINE_ITEMS 2
#define MAGAZINE_DEPOT 2
#else
#define MAGAZINE_ITEMS 32
#define MAGAZINE_DEPOT 16 /* magazines; a power of two */
#endif
#define MAGAZINE_NEAR  64 /* threads reached by one load */
#define MAGAZINE_FAR   26 /* doublings of the directory beyond those */

/* The source's mutex, if it has one: taken while the shared cache is locked. */
#define RANK_MAGAZINE_SOURCE ((enum lock_rank)(RANK_STRUCT + 1))

struct magazine {
    uint32_t count;
    uint64_t item[MAGAZINE_ITEMS];
};

enum magazine_counter { MAGAZINE_COUNT_IN = 0, MAGAZINE_COUNT_OUT = 1 };

/* One thread's share of one structure. */
struct magazine_cache {
    _Alignas(CACHE_LINE) uint32_t loaded; /* index of the magazine that is taken from */
    uint32_t note;                        /* owner's; counts something of this thread */
    void *hint;                           /* owner's; what this thread used last */
    _Atomic uint64_t counter[2];          /* owner's; written by this thread, read by all */
    struct magazine magazine[2];
};

struct magazine_options {
    struct alloc *alloc;
    enum mem_owner owner;
    uint32_t limit;     /* items a magazine may hold, 1 to MAGAZINE_ITEMS */
    bool single_thread; /* no locks, no atomics: one cache, one calling thread */
    /* Reuse the oldest item (spreads reuse evenly) rather than the newest (warm in the cache). */
    bool fifo;
    /* Puts up to n items into `items`; returns how many, 0 when there are none. */
    uint32_t (*refill)(void *arg, uint64_t *items, uint32_t n);
    /* Takes n items back; cannot fail. */
    void (*spill)(void *arg, const uint64_t *items, uint32_t n);
    void *arg;
};

struct magazine_cell {
    _Alignas(CACHE_LINE) _Atomic uint64_t sequence;
    struct magazine magazine;
};

struct magazine_set {
    struct magazine_options options;                             /* constant after init */
    struct magazine_cell *cells;                                 /* constant after init */
    struct magazine_cache *_Atomic near[MAGAZINE_NEAR];          /* by thread slot */
    struct magazine_cache *_Atomic *_Atomic far[MAGAZINE_FAR];   /* by thread slot, doubling */
    _Alignas(CACHE_LINE) _Atomic uint64_t head;                  /* next cell to read */
    _Alignas(CACHE_LINE) _Atomic uint64_t tail;                  /* next cell to write */
    _Alignas(CACHE_LINE) struct mutex mutex;                     /* protects `shared` */
    struct magazine_cache shared; /* threads without a slot, or the only one in single_thread */
};

/* Copies *o. REQUIRES: no lock held (it registers a thread exit hook).
 * Returns: LOAM_OK or LOAM_E_NOMEM. */
int magazine_set_init(struct magazine_set *s, const struct magazine_options *o);
/* Frees the caches without returning their items. Quiescent; REQUIRES: no lock held. */
void magazine_set_destroy(struct magazine_set *s);
/* Around a fork: holds the shared cache still. Items in a depot cell that another thread was just
 * reading or writing are lost to the child. */
void magazine_fork_prepare(struct magazine_set *s);
void magazine_fork_done(struct magazine_set *s);

bool magazine_take_slow_(struct magazine_set *s, uint64_t *item);
void magazine_give_slow_(struct magazine_set *s, uint64_t item);
struct magazine_cache *magazine_cache_far_(const struct magazine_set *s, uint32_t slot);

/* The calling thread's cache, or NULL when it has none yet or has no slot number. */
static inline struct magazine_cache *magazine_cache_self(struct magazine_set *s)
{
    if (s->options.single_thread) {
        return &s->shared;
    }
    uint32_t slot = thread_slot_self();
    /* acquire: pairs with the release that linked the cache, perhaps for an earlier owner. */
    return slot < MAGAZINE_NEAR ? atom_load(&s->near[slot], acquire) : magazine_cache_far_(s, slot);
}

/* The same without a call: NULL also for a thread that has no number yet or a large one. */
static inline struct magazine_cache *magazine_cache_near(struct magazine_set *s)
{
    if (s->options.single_thread) {
        return &s->shared;
    }
    uint32_t slot = thread_slot_cached_ - 1; /* none yet: too large */
    /* acquire: as in magazine_cache_self(). */
    return slot < MAGAZINE_NEAR ? atom_load(&s->near[slot], acquire) : NULL;
}

/* Takes an item. False: the source has none. Any thread. */
static inline bool magazine_take(struct magazine_set *s, struct magazine_cache *c, uint64_t *item)
{
    if (__builtin_expect(c != NULL, 1)) {
        struct magazine *m = &c->magazine[c->loaded];
        if (__builtin_expect(m->count != 0, 1)) {
            *item = m->item[--m->count];
            return true;
        }
    }
    return magazine_take_slow_(s, item);
}

/* Gives an item back. Any thread. Never allocates once the thread has its cache. */
static inline void magazine_give(struct magazine_set *s, struct magazine_cache *c, uint64_t item)
{
    if (__builtin_expect(c != NULL, 1)) {
        struct magazine *m = &c->magazine[c->loaded ^ (uint32_t)s->options.fifo];
        if (__builtin_expect(m->count < s->options.limit, 1)) {
            m->item[m->count++] = item;
            return;
        }
    }
    magazine_give_slow_(s, item);
}

/* Adds one to the calling thread's counter; c as from magazine_cache_self(). */
static inline void magazine_count(struct magazine_set *s, struct magazine_cache *c,
                                  enum magazine_counter which)
{
    if (__builtin_expect(c != NULL, 1)) {
        /* relaxed: one writer; readers add up a moment that was never exact. */
        atom_store(&c->counter[which], atom_load(&c->counter[which], relaxed) + 1, relaxed);
    } else {
        atom_add(&s->shared.counter[which], 1, relaxed); /* relaxed: as above */
    }
}
/* Sum over all threads, those that have exited included; exact when nobody counts meanwhile. */
uint64_t magazine_counted(const struct magazine_set *s, enum magazine_counter which);

/* Returns the calling thread's magazines to the depot or the source. */
void magazine_flush_self(struct magazine_set *s);
/* Returns the calling thread's and the shared magazines and the depot to the source. */
void magazine_drain(struct magazine_set *s);

#endif
