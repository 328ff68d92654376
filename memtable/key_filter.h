/* key_filter.h - Says from one word of memory that a key was never added.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A Bloom filter blocked by 64-bit words: a key's four bits lie in one word that its hash names, so
 * a query is one load and an addition one atomic or. At 16 bits a key about 1 query in 190 for an
 * absent key says "maybe", at 7 bits 1 in 22, at 4 bits 1 in 6: with more keys than planned it
 * filters less but is never wrong.
 *
 * Ordering:  a query that happens after an addition (by whatever chain of synchronisation made the
 *            key known) says "maybe". Bits are only ever set, so relaxed operations are enough.
 * Progress:  both are wait-free.
 */
#ifndef LOAM_MEMTABLE_KEY_FILTER_H_
#define LOAM_MEMTABLE_KEY_FILTER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/atomic.h"

struct key_filter {
    _Atomic uint64_t *words;
    uint32_t count; /* of words; 0 = no memory was given, every query says "maybe" */
};

/* `words`: zeroed, lent while the filter lives. */
static inline void key_filter_init(struct key_filter *f, _Atomic uint64_t *words, uint32_t count)
{
    f->words = words;
    f->count = count;
}

static inline _Atomic uint64_t *key_filter_word_(const struct key_filter *f, uint64_t hash)
{
    return &f->words[(hash >> 32) * f->count >> 32];
}

static inline uint64_t key_filter_bits_(uint64_t hash)
{
    return (uint64_t)1 << (hash & 63) | (uint64_t)1 << (hash >> 6 & 63) |
           (uint64_t)1 << (hash >> 12 & 63) | (uint64_t)1 << (hash >> 18 & 63);
}

/* Fetches the word of a key that is added or asked for soon. */
static inline void key_filter_prefetch(const struct key_filter *f, uint64_t hash)
{
    __builtin_prefetch(f->count != 0 ? (const void *)key_filter_word_(f, hash) : NULL, 1);
}

/* REQUIRES: called before the key becomes reachable, so that whoever may see the key sees its bits. */
static inline void key_filter_add(struct key_filter *f, uint64_t hash)
{
    if (f->count == 0) {
        return;
    }
    _Atomic uint64_t *w = key_filter_word_(f, hash);
    uint64_t bits = key_filter_bits_(hash);
    /* relaxed: see Ordering above. When the bits are there already this load is ordered, as an or
     * would be, before what publishes the key. */
    if ((atom_load(w, relaxed) & bits) != bits) {
        atom_or(w, bits, relaxed);
    }
}

/* False: the key was not added before anything this call happens after. */
static inline bool key_filter_may_contain(const struct key_filter *f, uint64_t hash)
{
    if (f->count == 0) {
        return true;
    }
    uint64_t bits = key_filter_bits_(hash);
    /* relaxed: see Ordering above. */
    return (atom_load(key_filter_word_(f, hash), relaxed) & bits) == bits;
}

#endif
