/* skiplist_guide.h - Guides: what lies behind a tall node, to be compared without touching it.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   level 4   x ------------------------------------------------------------> y
 *             guide 2 of x: some of the nodes p, q, .. that level 2 has in between
 *   level 2   x ------------> p ------------> q --------> ...                 y
 *                             guide 1 of p: some of the nodes that level 0 has between p and q
 *   level 0   x -> . -> . ->  p -> a -> b ->  q -> . -> . ...
 *
 * A node that is linked at level 2j has guide j: GUIDE_SLOTS words of { code:31 | higher:1 | reference:32 },
 * 0 = free. A search that has found x to be the last node before its target on level 2j reads the guide,
 * some two cache lines side by side, and goes on behind the last entry before the target, on level
 * 2j - 2: in place of some eight nodes of levels 2j - 1 and 2j - 2 it touches one.
 *
 * The code is an offset-value code relative to the key of x: (255 - d):8 | 23 bits from byte d on,
 * where d is the number of bytes the key has in common with that of x. For keys a and b behind x:
 *
 *     code(a) < code(b)  implies  a < b
 *
 * Proof. Let d(a) > d(b). x cannot end at d(b), as it shares more with a; so x and b differ there, and
 * b > x says that b has the larger byte. a has that of x: a < b. Let d(a) = d(b): a and b are equal up
 * to d, and of the bits behind it, padded with zeros, the first that differs is set in b; there b has
 * a byte, and a has a smaller one, or has ended: a < b.
 * Equal codes say nothing. From d = 255 on the code is 0: such keys are before all others, and two
 * of them are equal. Neighbours in a large list share long prefixes; their codes leave these out.
 *
 * Guides are hints. Any node behind x, in the list at the levels below 2j, is a right entry whatever
 * came between since, and a missing one costs steps on level 2j - 2. So entries are put and moved
 * with plain stores, and one that gets lost in a race is not missed.
 *
 * Guides serve keyspaces in byte order; x, entries and target are of one keyspace.
 *
 * Ordering:  an entry is stored with release and loaded with acquire: the node's bytes and links are
 *            visible to who finds it there. A node enters a guide when all of its levels are linked.
 * Progress:  wait-free.
 */
#ifndef LOAM_MEMTABLE_SKIPLIST_GUIDE_H_
#define LOAM_MEMTABLE_SKIPLIST_GUIDE_H_

#include "memtable/skiplist_node.h"

#define GUIDE_DEEP       255u /* bytes in common from which a code says no more */
#define GUIDE_CODE_SHIFT 33u
#define GUIDE_HIGHER     ((uint64_t)1 << 32) /* the node has the level 2j - 1 */

/* Guide j of a node of that height, which is more than 2j; j >= 1. */
static inline _Atomic uint64_t *guide_of(const struct skiplist_node *n, uint32_t height, uint32_t j)
{
    return (_Atomic uint64_t *)(void *)node_link(n, height - 1) - (size_t)j * GUIDE_SLOTS;
}

static inline _Atomic uint64_t *node_guide(const struct skiplist_node *n, uint32_t j)
{
    return guide_of(n, node_height(n), j);
}

static inline uint32_t guide_common(loam_slice a, loam_slice b)
{
    const unsigned char *p = a.data, *q = b.data;
    size_t n = a.size < b.size ? a.size : b.size;
    uint32_t at = 0;
    n = n < GUIDE_DEEP ? n : GUIDE_DEEP;
    for (; at + 8 <= n; at += 8) {
        uint64_t differ = get_big64(p + at) ^ get_big64(q + at);
        if (differ != 0) {
            return at + (uint32_t)__builtin_clzll(differ) / 8;
        }
    }
    while (at < n && p[at] == q[at]) {
        at++;
    }
    return at;
}

/* The bytes from `at` on, 8 at most, as the first of a number; zeros behind. */
static inline uint64_t guide_bytes(loam_slice key, uint32_t at)
{
    const unsigned char *p = key.data;
    size_t left = key.size - at;
    if (left < 8 && left != 0 && key.size >= 8) {
        return get_big64(p + key.size - 8) << (64 - 8 * left); /* one load: those before are shifted out */
    }
    return key_prefix64(p + at, left);
}

/* The code of a key that has its first `common` bytes with x. */
static inline uint32_t guide_code_at(loam_slice key, uint32_t common)
{
    if (common >= GUIDE_DEEP) {
        return 0;
    }
    return (GUIDE_DEEP - common) << 23 | (uint32_t)(guide_bytes(key, common) >> 41);
}

static inline uint32_t guide_code(loam_slice x, loam_slice key)
{
    return guide_code_at(key, guide_common(x, key));
}

static inline void guide_prefetch(const _Atomic uint64_t *guide)
{
    __builtin_prefetch((const void *)guide);
    __builtin_prefetch((const void *)(guide + GUIDE_SLOTS - 1));
}

/* References of entries; 0: none. */
struct guide_answer {
    uint32_t last;        /* the last one before every key of the code */
    bool higher;          /* that one has the level 2j - 1 */
    uint32_t last_higher; /* of those that have the level 2j - 1; only if asked for */
    uint32_t first;       /* the first one behind every key of the code */
};

static inline __attribute__((always_inline)) void
guide_search(const _Atomic uint64_t *guide, uint32_t code, bool last_higher, struct guide_answer *a)
{
    uint64_t from = (uint64_t)code << GUIDE_CODE_SHIFT;
    uint64_t to = from | (((uint64_t)1 << GUIDE_CODE_SHIFT) - 1);
    /* The least distances to either side: from an entry of the other side the difference wraps around and
     * is larger than all, and 0 is as far as it can be. Two steps an entry in place of a choice. */
    uint64_t low = from - 1, low_higher = from - 1, high = UINT64_MAX - to;
    for (uint32_t i = 0; i < GUIDE_SLOTS; i++) {
        /* acquire: pairs with the release in guide_set(). */
        uint64_t entry = atom_load(&guide[i], acquire);
        uint64_t before = from - 1 - entry, behind = entry - to - 1;
        low = before < low ? before : low;
        high = behind < high ? behind : high;
        if (last_higher) {
            before = (entry & GUIDE_HIGHER) != 0 ? before : UINT64_MAX;
            low_higher = before < low_higher ? before : low_higher;
        }
    }
    uint64_t last = from - 1 - low;
    a->last = (uint32_t)last;
    a->higher = (last & GUIDE_HIGHER) != 0;
    a->last_higher = (uint32_t)(from - 1 - low_higher);
    a->first = (uint32_t)(high + to + 1);
}

/* last_higher: whether that is wanted; as a rule it is not. REQUIRES: code != 0. */
static inline void guide_find(const _Atomic uint64_t *guide, uint32_t code, bool last_higher,
                              struct guide_answer *a)
{
    if (__builtin_expect(last_higher, 0)) {
        guide_search(guide, code, true, a);
    } else {
        guide_search(guide, code, false, a);
    }
}

static inline void guide_set(_Atomic uint64_t *slot, uint64_t entry)
{
    /* release: pairs with the acquire in guide_search() and guide_move(). */
    atom_store(slot, entry, release);
}

static inline uint64_t guide_entry(uint32_t code, bool higher, uint32_t ref)
{
    return (uint64_t)code << GUIDE_CODE_SHIFT | (higher ? GUIDE_HIGHER : 0) | ref;
}

/* Enters a node that is linked at all of its levels into the guide of a node with the key x, if there
 * is room. The higher ones, one in four, take the place of another, so that a long stretch is not
 * covered at its start only. *from: the slots before are known to be taken. */
static inline void guide_put(_Atomic uint64_t *guide, loam_slice x, loam_slice key, bool higher,
                             uint32_t ref, uint32_t *from)
{
    uint32_t i = *from;
    while (i < GUIDE_SLOTS && atom_load(&guide[i], relaxed) != 0) { /* relaxed: only compared */
        i++;
    }
    *from = i;
    if (i == GUIDE_SLOTS) {
        if (!higher) {
            return;
        }
        i = ref % GUIDE_SLOTS;
    }
    uint32_t code = guide_code(x, key);
    if (code != 0) {
        guide_set(&guide[i], guide_entry(code, higher, ref));
    }
}

static inline void guide_clear(_Atomic uint64_t *guide)
{
    for (uint32_t i = 0; i < GUIDE_SLOTS; i++) {
        atom_store(&guide[i], 0, relaxed); /* relaxed: published with the node */
    }
}

/* Moves what lies behind z, a node behind x that is not reachable yet, from x's guide to z's, which
 * is clear. */
static inline void guide_move(const struct skiplist *s, _Atomic uint64_t *from, loam_slice x,
                              _Atomic uint64_t *to, loam_slice z)
{
    uint32_t code = guide_code(x, z);
    for (uint32_t i = 0, n = 0; i < GUIDE_SLOTS; i++) {
        /* acquire: pairs with the release in guide_set(). */
        uint64_t entry = atom_load(&from[i], acquire);
        uint32_t its = (uint32_t)(entry >> GUIDE_CODE_SHIFT);
        if (its <= code) {
            continue;
        }
        /* Where it parts from x before z does, or at the same byte, it parts from z as well. */
        if (its >> 23 == code >> 23 && its >> 15 == code >> 15) {
            its = guide_code(z, node_key(s, node_at(s, (uint32_t)entry)));
        }
        if (its != 0) {
            guide_set(&to[n++], guide_entry(its, (entry & GUIDE_HIGHER) != 0, (uint32_t)entry));
        }
        atom_store(&from[i], 0, relaxed); /* relaxed: says nothing */
    }
}

#endif
