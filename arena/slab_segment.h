/* slab_segment.h - The segments of a slab: runs of slots, a state byte for each, found by address.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Private to slab*.c; the picture is in slab.h.
 *
 *     from      to          by                                              who wins
 *     UNCARVED  CACHED      refill (the lowest slot that was never used)    the slab's mutex
 *     HOME      CACHED      refill                                          the slab's mutex
 *     CACHED    LIVE        slab_take                                       the slot came from a magazine
 *     CACHED    QUARANTINE  slab_take that finds the poison damaged         as above
 *     LIVE      CACHED      slab_give                                       compare-and-swap
 *     CACHED    HOME        spill; take and give while the segment leaves   the slab's mutex
 *
 * slot_may_step() is this table; each step asserts it. When a segment has left, its descriptor may
 * serve another one of as many slots: then all its slots begin as UNCARVED.
 */
#ifndef LOAM_ARENA_SLAB_SEGMENT_H_
#define LOAM_ARENA_SLAB_SEGMENT_H_

#include <assert.h>

#include "arena/slab.h"

#if LOAM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
/* Objects own memory of others: a leak checker has to look into them. */
#define SLAB_ROOT_ADD(start, size)    __lsan_register_root_region(start, size)
#define SLAB_ROOT_REMOVE(start, size) __lsan_unregister_root_region(start, size)
#else
#define ASAN_POISON_MEMORY_REGION(start, size)   ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define SLAB_ROOT_ADD(start, size)               ((void)(start), (void)(size))
#define SLAB_ROOT_REMOVE(start, size)            ((void)(start), (void)(size))
#endif

__extension__ typedef unsigned __int128 uint128;

enum slot_state {
    SLOT_UNCARVED = 0,
    SLOT_HOME = 1,   /* free, in the segment */
    SLOT_CACHED = 2, /* free, in a magazine or the depot */
    SLOT_LIVE = 3,
    SLOT_QUARANTINE = 4
};

struct slab_segment {
    _Atomic uintptr_t base;    /* the first slot */
    _Atomic size_t span;       /* bytes of all slots, the same each time it serves; 0: released */
    _Atomic bool leaving;      /* detach was called */
    bool attached;             /* all that follows: guarded by the slab's mutex */
    bool listed;               /* on the partial list */
    size_t count;              /* slots */
    size_t carved;             /* slots that have left UNCARVED: the first ones */
    size_t home_count;         /* slots in HOME */
    size_t quarantined;        /* slots in QUARANTINE */
    size_t hint;               /* words of `home` below this one are 0 */
    void *memory;              /* as obtained */
    size_t bytes;              /* as obtained */
    struct slab_segment *next; /* partial list */
    struct slab_segment *prev;
    struct slab_segment *all_next; /* or the next spare descriptor */
    _Atomic uint8_t *state;        /* one per slot */
    uint64_t *home;                /* bitmap: slots in HOME */
};

struct slab_table {
    size_t size; /* cells, a power of two */
    size_t used; /* guarded by the slab's mutex */
    struct slab_table *old;
    struct slab_segment *_Atomic cell[];
};

/* ---- small things --------------------------------------------------------------------------- */

static inline bool slot_may_step(enum slot_state from, enum slot_state to)
{
    static const unsigned char next[] = {
        [SLOT_UNCARVED] = 1 << SLOT_CACHED,
        [SLOT_HOME] = 1 << SLOT_CACHED,
        [SLOT_CACHED] = 1 << SLOT_LIVE | 1 << SLOT_QUARANTINE | 1 << SLOT_HOME,
        [SLOT_LIVE] = 1 << SLOT_CACHED,
        [SLOT_QUARANTINE] = 0,
    };
    return (next[from] >> to & 1) != 0;
}

/* A step of a slot that nobody else may change at the moment. */
static inline void slot_step(struct slab_segment *g, size_t slot, enum slot_state to)
{
    /* relaxed, both: what travels with the slot orders it: the magazines, the object, the mutex. */
    assert(slot_may_step((enum slot_state)atom_load(&g->state[slot], relaxed), to));
    atom_store(&g->state[slot], (uint8_t)to, relaxed);
}

static inline void lock(struct slab *s)
{
    if (!s->options.single_thread) {
        mutex_lock(&s->mutex);
    }
}

static inline void unlock(struct slab *s)
{
    if (!s->options.single_thread) {
        mutex_unlock(&s->mutex);
    }
}

static inline size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static inline size_t slot_align(const struct slab *s)
{
    return LOAM_ASAN && s->options.object_align < 8 ? 8 : s->options.object_align;
}

/* p: an object of the slab, or what may be none. A thread's hint may have been released, and serve another
 * segment at this moment, while p lies in a third one, where this one was before. */
static inline bool segment_holds(const struct slab_segment *g, uintptr_t p)
{
    /* acquire: pairs with the release in slab_segment_add_locked_(): the base is of this span or of a later
     * one, and none of those covers what is another segment's. An earlier span is not found: the 0 after it
     * came before p was handed out. */
    size_t span = atom_load(&g->span, acquire);
    return p - atom_load(&g->base, relaxed) < span; /* relaxed: as above */
}

static inline bool segment_is_empty(const struct slab_segment *g)
{
    return g->home_count + (g->count - g->carved) + g->quarantined == g->count;
}

/* The number of the slot at an offset into a segment; offset < 2^64 / stride. */
static inline size_t slot_number(const struct slab *s, size_t offset)
{
    if (s->stride_inverse == 0) { /* stride 1 */
        return offset;
    }
    return (size_t)((uint128)offset * s->stride_inverse >> 64);
}

static inline void *slot_address(const struct slab *s, const struct slab_segment *g, size_t slot)
{
    return (void *)(atom_load(&g->base, relaxed) + slot * s->stride); /* relaxed: constant here */
}

/* ---- shared by the slab's own files --------------------------------------------------------- */

/* The segment that holds the address; NULL: not one of the slab's. */
struct slab_segment *slab_find_(struct slab *s, uintptr_t p);

static inline struct slab_segment *find_segment(struct slab *s, struct magazine_cache *c,
                                                uintptr_t p)
{
    struct slab_segment *g = c != NULL ? c->hint : NULL;
    if (g == NULL || !segment_holds(g, p)) {
        g = slab_find_(s, p);
        if (c != NULL && g != NULL) {
            c->hint = g;
        }
    }
    return g;
}

/* How many slots `size` bytes at `memory` hold. */
static inline size_t slots_in(const struct slab *s, uintptr_t memory, size_t size)
{
    size_t skip = round_up(memory, slot_align(s)) - memory;
    return size < skip ? 0 : (size - skip) / s->stride;
}

/* Takes a run of memory into service. False: no memory for its descriptor or the table. */
bool slab_segment_add_locked_(struct slab *s, void *memory, size_t bytes, bool attached);
/* No slot of it comes from refill any more. */
void slab_segment_unlist_locked_(struct slab *s, struct slab_segment *g);
/* Takes it out of service; its memory is no business of this call. */
void slab_segment_forget_locked_(struct slab *s, struct slab_segment *g);
/* Gives an empty mapped segment back. False: the hook keeps it. */
bool slab_segment_release_locked_(struct slab *s, struct slab_segment *g);
/* Frees all segments but attached memory, the descriptors and the tables. Quiescent. */
void slab_segments_destroy_(struct slab *s);

/* Between the magazines and the segments: see struct magazine_options. */
uint32_t slab_refill_(void *arg, uint64_t *items, uint32_t n);
void slab_spill_(void *arg, const uint64_t *items, uint32_t n);
/* A cached slot to its segment, for one that leaves. */
void slab_send_home_(struct slab *s, struct slab_segment *g, size_t slot);

/* Ends the use of a slot's bytes: poison, for the checks and for ASan. */
void slab_object_close_(const struct slab *s, void *p);

#endif
