/* key_index.h - Leads from a key's hash straight to its list node, for as many keys as it has room.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An array of buckets of one cache line; a bucket has 16 slots, filled from the first on and never
 * changed again: 8 bits of the hash and the low 24 bits of a node's reference. Nothing depends on a
 * key being here: one that finds its bucket full, or whose reference is too large, is only found
 * the longer way, through the list. But as long as the last slot of its bucket is free, a key that
 * is not here is nowhere.
 *
 * Ordering:  a query that happens after an addition finds the node (or a full bucket). A slot is
 *            written with release and read with acquire: the node's bytes are visible, and so are the
 *            slots before it.
 * Progress:  queries are wait-free; an addition tries 16 slots at most.
 */
#ifndef LOAM_MEMTABLE_KEY_INDEX_H_
#define LOAM_MEMTABLE_KEY_INDEX_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/atomic.h"

#define KEY_INDEX_SLOTS   16
#define KEY_INDEX_REF_MAX 0xffffffu
#define KEY_INDEX_PARTIAL 1u /* in the last slot: a key is missing here; no node has reference 1 */

struct key_index_bucket {
    _Alignas(CACHE_LINE) _Atomic uint32_t slot[KEY_INDEX_SLOTS];
};

struct key_index {
    struct key_index_bucket *buckets;
    uint32_t count; /* of buckets, at least 1 */
};

/* `buckets`: zeroed, lent while the index lives. */
static inline void key_index_init(struct key_index *x, struct key_index_bucket *buckets,
                                  uint32_t count)
{
    x->buckets = buckets;
    x->count = count;
}

static inline struct key_index_bucket *key_index_bucket(const struct key_index *x, uint64_t hash)
{
    return &x->buckets[(hash >> 32) * x->count >> 32];
}

static inline void key_index_prefetch(const struct key_index *x, uint64_t hash)
{
    __builtin_prefetch(key_index_bucket(x, hash));
}

/* The next reference from *at on that may belong to the hash; *at moves behind it. 0: none is left. */
static inline uint32_t key_index_next(const struct key_index_bucket *b, uint64_t hash, uint32_t *at)
{
    uint32_t tag = (uint32_t)hash & ~KEY_INDEX_REF_MAX;
    while (*at < KEY_INDEX_SLOTS) {
        /* acquire: pairs with the release in key_index_add(). */
        uint32_t slot = atom_load(&b->slot[(*at)++], acquire);
        if ((slot & ~KEY_INDEX_REF_MAX) == tag && (slot & KEY_INDEX_REF_MAX) > KEY_INDEX_PARTIAL) {
            return slot & KEY_INDEX_REF_MAX;
        }
        if (slot == 0) {
            break;
        }
    }
    return 0;
}

/* True: a key of this bucket that was not found in it does not exist. */
static inline bool key_index_complete(const struct key_index_bucket *b)
{
    /* relaxed: an addition this call happens after is seen by coherence. */
    return atom_load(&b->slot[KEY_INDEX_SLOTS - 1], relaxed) == 0;
}

/* Whether the reference fits; if not, its bucket is not complete from now on. */
static inline bool key_index_takes_(struct key_index_bucket *b, uint32_t ref)
{
    uint32_t none = 0;
    if (ref > KEY_INDEX_REF_MAX) {
        /* relaxed: leads to no node. */
        atom_cas(&b->slot[KEY_INDEX_SLOTS - 1], &none, KEY_INDEX_PARTIAL, relaxed, relaxed);
        return false;
    }
    return true;
}

static inline uint32_t key_index_entry_(uint64_t hash, uint32_t ref)
{
    return ((uint32_t)hash & ~KEY_INDEX_REF_MAX) | ref;
}

/* The first free slot, by halving: no steps over the others. The last one, when no other is free. */
static inline uint32_t key_index_free_(const struct key_index_bucket *b)
{
    uint32_t at = 0;
    for (uint32_t half = KEY_INDEX_SLOTS / 2; half != 0; half /= 2) {
        /* acquire: pairs with the releases of additions. Who took this slot knew all before it to be
         * taken; so does this thread from here on, and who looks for what it adds. */
        at += atom_load(&b->slot[at + half - 1], acquire) != 0 ? half : 0;
    }
    return at;
}

/* add for the thread that has just linked the node: another one may only have been quicker, and then the
 * node has two slots. */
static inline void key_index_add_new(struct key_index *x, uint64_t hash, uint32_t ref)
{
    struct key_index_bucket *b = key_index_bucket(x, hash);
    if (!key_index_takes_(b, ref)) {
        return;
    }
    for (uint32_t i = key_index_free_(b); i < KEY_INDEX_SLOTS; i++) {
        uint32_t seen = 0;
        /* release: pairs with the acquire in key_index_next(). acquire: as in key_index_free_(). */
        if (atom_cas(&b->slot[i], &seen, key_index_entry_(hash, ref), acq_rel, acquire)) {
            return;
        }
    }
}

/* Makes the node known, unless it is, or the bucket is full. REQUIRES: the node is in the list, and
 * its addition has not been acknowledged to anyone. */
static inline void key_index_add(struct key_index *x, uint64_t hash, uint32_t ref)
{
    struct key_index_bucket *b = key_index_bucket(x, hash);
    if (!key_index_takes_(b, ref)) {
        return;
    }
    uint32_t entry = key_index_entry_(hash, ref);
    for (uint32_t i = 0; i < KEY_INDEX_SLOTS; i++) {
        uint32_t seen = atom_load(&b->slot[i], relaxed); /* relaxed: only compared */
        /* release: pairs with the acquires in key_index_next() and key_index_free_(). */
        if (seen == 0 && atom_cas(&b->slot[i], &seen, entry, release, relaxed)) {
            return;
        }
        if (seen == entry) {
            return;
        }
    }
}

#endif
