/* dead_ranges.h - Ranges of keys that readers found to hold nothing live, for the next reader to jump.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A reader that lands among n deleted keys must look at every one of them, and at the puts they hide,
 * before it knows that none is live. What it has learned is kept here, so that the walk over a stretch
 * of deletes is paid for once, by the deletes that made it, and every later seek into the stretch
 * costs a search here and a seek behind it (or before it, backward): O(log n).
 *
 *   keys      a   b   x   x   x   x   x   x   x   c   d   x   e      x = deleted
 *                    [--- a range ---------------)
 *
 * A range lies between two places; a place is before or behind all versions of a key. It is good for
 * every reader whose sequence number is `from` or more: `from` is the newest of its deletes, so an older
 * snapshot, which may still see keys under them, does not use it. Deletes in a range leave it as it is;
 * a put cuts it in two before the put becomes visible.
 *
 *   (walked) -> announced [announce] -> proven [settle] -> two smaller ones [put], wider [settle],
 *                        \-> gone [settle, put]             gone [put, eviction]
 *
 * Invariants
 *  1. Proven ranges are sorted by keyspace and place, and do not overlap.
 *  2. A set, its blocks and their ranges never change once published, but for `used`.
 *  3. For a proven range and any s >= from such that all of s is visible: the newest version up to s of
 *     each key in the range is a delete, or there is none.
 *
 * Why 3 holds. The walker, at number t, met every entry of the range in its view. (a) For s in [from, t]
 * it holds by what was seen: no version up to t is newer than `from`, but deletes that hide nothing and so
 * are merged away, and those can only go when no number below them is held. (b) After announcing, the
 * walker reads the log's end T by wal_fence(). Puts with t < seq < T are looked for when all below T is
 * visible: those in tables of its view ended the walk, the others are in the memtables of its view, as
 * long as that is still the present one. (c) A put with seq >= T took its place in the log after the
 * fence, so its writer sees the announced range, or what became of it, and cuts it before the put is
 * published; whoever sees the put sees the cut. (d) Parts of a proven range, and two that meet, joined
 * with the larger `from`, are proven.
 *
 * Ordering:  dead_ranges_find() sees every cut by a put that is visible at the reader's number.
 * Progress:  find is wait-free; so is put outside of ranges. Everything else takes the mutex. Nothing
 *            fails: without memory ranges are forgotten.
 * Bounds:    DEAD_RANGES_MAX ranges and DEAD_RANGES_BYTES, which is room for several with the longest keys;
 *            of one block after the other, what was not used the longest goes first.
 * Cost:      a change copies a block or two and the list of blocks, however many ranges there are: at most
 *            some KiB, which wait for the readers of that moment.
 */
#ifndef LOAM_ENGINE_DEAD_RANGES_H_
#define LOAM_ENGINE_DEAD_RANGES_H_

#include "arena/alloc.h"
#include "arena/entry.h"
#include "arena/epoch.h"
#include "arena/sync.h"

#define DEAD_RANGES_MAX       4096u
#define DEAD_RANGES_ANNOUNCED 4u /* walkers that prove something at once */
#define DEAD_RANGES_BYTES     (1u << 20)

struct dead_place {
    loam_slice key;
    bool behind; /* all versions of key; false: before them */
};

struct dead_stretch {
    uint32_t ks;
    const loam_comparator *cmp; /* NULL: byte order */
    uint64_t from;              /* the newest delete in it */
    struct dead_place lo, hi;   /* lo < hi */
};

struct dead_range {
    struct dead_stretch s; /* the keys are in the range's own memory */
    _Atomic uint64_t used; /* tick of the last find */
    size_t bytes;          /* of this allocation */
    struct epoch_node retire;
};

/* Some of the proven ranges, in order; never none. Shared by the sets that hold it. */
struct dead_block {
    uint32_t count;
    struct epoch_node retire;
    struct dead_range *range[];
};

struct dead_set {
    uint32_t count; /* proven, in all blocks */
    uint32_t blocks, announced;
    struct epoch_node retire;
    struct dead_range *early[DEAD_RANGES_ANNOUNCED]; /* those announced */
    struct dead_block *block[];
};

struct dead_ranges {
    struct alloc *alloc;
    struct mutex mu;                /* RANK_STRUCT; guards changes */
    _Atomic(struct dead_set *) set; /* NULL: empty, the usual state */
    _Atomic uint64_t tick;          /* sets published; written under mu */
    uint64_t bytes;                 /* guarded by mu: of the ranges in the set */
    uint32_t hand;                  /* likewise: where room is made next */
    _Atomic uint64_t proven, cut;   /* ranges so far; for tests */
};

void dead_ranges_init(struct dead_ranges *d, struct alloc *a);
/* REQUIRES: no thread uses it, and what it retired is freed. */
void dead_ranges_destroy(struct dead_ranges *d);

/* ---- readers: inside an epoch section, which ends the loan ------------------------------------ */

/* The proven range that holds the key and is good for `seq`; NULL: none. */
const struct dead_range *dead_ranges_find(struct dead_ranges *d, uint32_t ks, loam_slice key,
                                          uint64_t seq);

/* Keys a walk must have passed for its stretch to be worth a place. */
uint32_t dead_ranges_worth(const struct dead_ranges *d);

/* A walk has found the stretch dead. NULL: it cannot be kept. Otherwise the same section must settle it. */
struct dead_range *dead_ranges_announce(struct dead_ranges *d, const struct dead_stretch *s);
/* proven: no put above the walker's number and below the log's end read since is in it. */
void dead_ranges_settle(struct dead_ranges *d, struct dead_range *r, bool proven);

/* ---- across a close: see dead_known.h ---------------------------------------------------------- */

/* Calls fn for each proven range, until it says false; the keys are lent for the call. */
void dead_ranges_each(struct dead_ranges *d, bool (*fn)(void *arg, const struct dead_stretch *s),
                      void *arg);
/* Takes up a range that is proven; one that ends before it begins is passed over. REQUIRES: inside an
 * epoch section; nobody writes to its keyspace meanwhile. */
void dead_ranges_restore(struct dead_ranges *d, const struct dead_stretch *s);

/* ---- writers: inside an epoch section --------------------------------------------------------- */

void dead_ranges_cut_(struct dead_ranges *d, uint32_t ks, loam_slice key);

/* Told of each put, between taking its place in the log and publishing it. */
static inline void dead_ranges_put(struct dead_ranges *d, uint32_t ks, loam_slice key)
{
    /* acquire: pairs with the release in publish(); see (c) above. */
    if (__builtin_expect(atom_load(&d->set, acquire) != NULL, 0)) {
        dead_ranges_cut_(d, ks, key);
    }
}

#endif
