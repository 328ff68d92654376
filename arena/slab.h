/* slab.h - Objects of one size from segments, with a state byte per slot kept apart from them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A segment is a run of slots: mapped by the slab (its size is a power of two), obtained from a
 * hook, or memory of the caller of any alignment. Free slots hold no links: which slots are free is
 * known from magazines, from a bitmap in the segment's descriptor and from the state bytes, all
 * outside of the slots, so a stale write into a freed object cannot lose or invent a slot.
 *
 *     state byte   UNCARVED --refill--> CACHED --take--> LIVE --give--> CACHED --spill--> HOME
 *                  HOME --refill--> CACHED      CACHED --take, poison damaged--> QUARANTINE
 *
 * A give moves LIVE to CACHED by compare-and-swap: a second give, a pointer into the middle of a
 * slot, of another slab or to a slot that was never handed out finds something else and is refused.
 *
 * Ordering: what a thread does with an object before it gives it happens before what the next owner
 * does: the object passes through a magazine of one thread, the depot (release, acquire) or a lock.
 * Progress: take and give are wait-free inside the thread's magazine; once in up to 32 calls they
 * exchange a magazine with the depot (lock-free) or with the segments (under a lock). Growth calls
 * the system. Nothing else takes more than constant time.
 */
#ifndef LOAM_ARENA_SLAB_H_
#define LOAM_ARENA_SLAB_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/magazine.h"
#include "arena/sync.h"

struct slab_segment;
struct slab_table;

struct slab_options {
    size_t object_size;   /* bytes, >= 1 */
    size_t object_align;  /* power of two; 0 = the largest that divides the size, at most 16 */
    size_t segment_bytes; /* power of two, 16 KiB to 2 MiB; 0 = 64 KiB. Raised for big objects so
                             that a segment holds 8. Larger: fewer mappings, memory kept longer */
    bool zero;            /* take returns zeroed objects */
    bool poison;          /* freed objects are filled with a pattern, checked at the next take: a
                             damaged slot is put in quarantine for ever and counted */
    bool single_thread;   /* one thread uses it: no locks, no read-modify-writes */
    bool fixed;           /* only attached memory: never grows */
    uint32_t cache_items; /* free objects in one of a thread's two magazines, at most 32; 0 = as
                             many as fit 32 KiB. Other threads cannot reach them */
    enum mem_owner owner; /* whom segments are charged to */
    /* Where segments come from and go to; NULL: alloc_map. Called with the slab's lock held: they
     * must not call the slab. grow: LOAM_OK and *memory, or an error, which take then reports.
     * shrink: anything but LOAM_OK keeps the segment; destroy ignores its answer. */
    int (*grow)(void *hook_arg, size_t bytes, size_t align, void **memory);
    int (*shrink)(void *hook_arg, void *memory, size_t bytes);
    void *hook_arg;
};

struct slab {
    struct magazine_set magazines;
    struct slab_table *_Atomic table; /* finds the segment of an address; grows by replacement */
    struct slab_options options;      /* constant after init, with defaults filled in */
    struct alloc *alloc;              /* constant after init */
    size_t stride;                    /* constant after init: bytes from slot to slot */
    uint64_t stride_inverse;          /* constant after init: 2^64 / stride, rounded up */
    bool special;                     /* constant after init: zero or poison */
    unsigned granule_shift;           /* constant after init: log2(segment_bytes) */
    _Atomic uint32_t users;
    struct mutex mutex; /* protects all below; held while alloc and the hooks are called */
    struct slab_segment *partial_first; /* segments with slots at home or uncarved */
    struct slab_segment *partial_last;
    struct slab_segment *all;   /* every segment in use */
    struct slab_segment *spare; /* descriptors of released segments */
    size_t segment_count;
    size_t empty_count; /* mapped segments all of whose slots are at home or uncarved */
    size_t bytes;       /* segment memory, attached included */
    size_t slot_count;
    size_t carved_count;
    _Atomic uint64_t quarantined;
    _Atomic uint64_t rejected; /* gives refused */
    uint64_t grown;
    uint64_t shrunk;
};

/* Copies *o. REQUIRES: no lock held. Returns: LOAM_OK, LOAM_E_INVAL or LOAM_E_NOMEM. */
int slab_init(struct slab *s, struct alloc *a, const struct slab_options *o);
/* Frees all segments, live objects included; attached memory stays its owner's. Quiescent. */
void slab_destroy(struct slab *s);
/* Several users of one slab: init counts as the first; the last release destroys it (true). */
void slab_retain(struct slab *s);
bool slab_release(struct slab *s);
/* Before a fork, and after it in parent and child: no other thread is in the midst of a change
 * meanwhile, so the child may use the slab. REQUIRES: no lock of the slab held. */
void slab_fork_prepare(struct slab *s);
void slab_fork_done(struct slab *s);

/* An object, uninitialised unless `zero`. Any thread. NULL: no memory, or the slab is fixed and
 * full; the thread's error says which. */
void *slab_take(struct slab *s);
/* Gives an object back, on any thread. Never allocates in steady state.
 * Returns: LOAM_OK, or LOAM_E_INVAL for a double, foreign, inner or never taken pointer; the slab
 * is unchanged then. NULL is LOAM_OK. */
int slab_give(struct slab *s, void *p);

/* Adds the caller's memory, of any alignment and size; it is carved as it is needed.
 * Owns: the caller keeps it, and keeps it alive until detach or destroy.
 * Returns: LOAM_OK; LOAM_E_INVAL when no slot fits or it overlaps a segment; LOAM_E_NOMEM. */
int slab_attach(struct slab *s, void *memory, size_t size);
/* Takes attached memory out again. From the first call on no object is taken from it.
 * Returns: LOAM_OK; LOAM_E_BUSY while an object in it is live or a free slot of it is still in the
 * magazines of another thread (a thread gives those back with its next calls, slab_trim() or its
 * exit): call again; LOAM_E_NOENT when it was not attached. */
int slab_detach(struct slab *s, void *memory);
/* Slots that `size` bytes at `memory` would give this slab. */
size_t slab_slots_in(const struct slab *s, const void *memory, size_t size);
/* Gives free slots back to their segments (own magazines and depot) and every empty mapped segment
 * to the system. Without it one empty segment is kept. Returns: bytes given to the system. */
size_t slab_trim(struct slab *s);

enum slab_state { SLAB_FREE, SLAB_PARTIAL, SLAB_FULL }; /* no object live; some; every slot */

struct slab_stats {
    size_t segments, bytes;            /* in use; segment memory */
    size_t slots, carved, live, free;  /* slots = live + free + quarantined */
    uint64_t taken, given, rejected;   /* calls since init */
    uint64_t quarantined;              /* slots lost to writes after give */
    uint64_t grown, shrunk;            /* segments */
    enum slab_state state;
};
/* Exact when nobody else is inside the slab. Any thread. */
void slab_stats(struct slab *s, struct slab_stats *out);
enum slab_state slab_state(struct slab *s);
bool slab_has_free(struct slab *s); /* a take needs no growth */

/* SLAB_AUTO(struct node, n, &slab): `n` points to an object (or is NULL) that is given back at the
 * end of the scope unless slab_box_keep(&n_box) was called. */
struct slab_box {
    struct slab *slab;
    void *object;
};
void slab_box_close_(struct slab_box *b);
static inline void *slab_box_keep(struct slab_box *b)
{
    void *p = b->object;
    b->object = NULL;
    return p;
}
#define SLAB_AUTO(type, name, slab_)                                                               \
    __attribute__((cleanup(slab_box_close_))) struct slab_box name##_box = {(slab_),               \
                                                                           slab_take(slab_)};      \
    type *name = name##_box.object

#endif
