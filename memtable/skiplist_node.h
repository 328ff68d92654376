/* skiplist_node.h - Nodes and versions in memory: layout, accessors, the order of keys.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Private to skiplist*.c. The picture and the reasons are in skiplist.h.
 */
#ifndef LOAM_MEMTABLE_SKIPLIST_NODE_H_
#define LOAM_MEMTABLE_SKIPLIST_NODE_H_

#include <string.h>

#include "memtable/skiplist.h"

#define KS_WIDE      0xffffu /* in a node's ks field: the wide form */
#define KEY_INLINE   1023u   /* bytes; longer keys are wide */
#define KEY_AREA_MIN 8u      /* bytes, so that the first 8 can always be loaded */

#if defined(LOAM_MC)
#define GUIDE_SLOTS 2u /* full after a few operations */
#else
#define GUIDE_SLOTS 10u /* entries of a guide; skiplist_guide.h */
#endif

#define VALUE_SIZE_MASK 0x3fffffffu /* and 1 GiB itself as VALUE_IS_MAX */
#define VALUE_IS_MAX    0x40000000u
#define VERSION_JUMPS   0x80000000u /* two words before the version: jump, depth */

struct skiplist_node {
    _Atomic uint32_t next; /* level 0; the link of level i lies i words before it */
    _Atomic uint32_t versions;
    uint32_t meta; /* ks:16 | size:10 | height:6 */
    unsigned char key[];
};

/* The key area of a wide node. */
struct wide_key {
    unsigned char prefix[8];
    uint32_t ks;
    uint32_t size;
    uint32_t key; /* reference, in the arena of values */
};

struct skiplist_version {
    _Atomic uint32_t next;
    uint32_t size; /* of the value, and flags */
    uint32_t tag[2];
    unsigned char value[];
};

static inline struct skiplist_node *node_at(const struct skiplist *s, uint32_t ref)
{
    return arena_at(s->nodes, ref);
}

static inline struct skiplist_version *version_at(const struct skiplist *s, uint32_t ref)
{
    return arena_at(s->values, ref);
}

/* The head seen as a node, of which only the links exist. */
static inline struct skiplist_node *head_node(const struct skiplist *s)
{
    return (struct skiplist_node *)(uintptr_t)&s->head[SKIPLIST_MAX_HEIGHT - 1];
}

static inline _Atomic uint32_t *node_link(const struct skiplist_node *n, uint32_t level)
{
    return (_Atomic uint32_t *)(uintptr_t)&n->next - level;
}

static inline uint32_t node_next(const struct skiplist_node *n, uint32_t level)
{
    /* acquire: pairs with the release in link_level(); the node's bytes are visible. */
    return atom_load(node_link(n, level), acquire);
}

/* Guides a tower of that height has. */
static inline uint32_t guides_of(uint32_t height)
{
    return (height - 1) / 2;
}

static inline uint32_t node_height(const struct skiplist_node *n)
{
    return n->meta & 0x3f;
}

static inline const struct wide_key *node_wide(const struct skiplist_node *n)
{
    return n->meta >> 16 == KS_WIDE ? (const void *)n->key : NULL;
}

static inline uint32_t node_ks(const struct skiplist_node *n)
{
    uint32_t ks = n->meta >> 16;
    return ks != KS_WIDE ? ks : node_wide(n)->ks;
}

static inline loam_slice node_key(const struct skiplist *s, const struct skiplist_node *n)
{
    const struct wide_key *w = node_wide(n);
    if (w != NULL) {
        return loam_bytes(arena_at(s->values, w->key), w->size);
    }
    return loam_bytes(n->key, n->meta >> 6 & 0x3ff);
}

static inline const struct skiplist_version *node_newest(const struct skiplist *s,
                                                         const struct skiplist_node *n)
{
    /* acquire: pairs with the release in chain_insert(). */
    return version_at(s, atom_load(&n->versions, acquire));
}

static inline uint64_t version_tag(const struct skiplist_version *v)
{
    uint64_t tag;
    memcpy(&tag, v->tag, sizeof tag);
    return tag;
}

static inline uint32_t version_next(const struct skiplist_version *v)
{
    /* acquire: pairs with the release in chain_insert(). */
    return atom_load(&v->next, acquire);
}

static inline size_t version_size(const struct skiplist_version *v)
{
    return v->size & (VALUE_SIZE_MASK | VALUE_IS_MAX);
}

/* A reference to an older version of the chain, or 0. */
static inline uint32_t version_jump(const struct skiplist_version *v)
{
    return (v->size & VERSION_JUMPS) != 0 ? ((const uint32_t *)(const void *)v)[-2] : 0;
}

static inline uint32_t version_depth(const struct skiplist_version *v)
{
    return (v->size & VERSION_JUMPS) != 0 ? ((const uint32_t *)(const void *)v)[-1] : 0;
}

/* Byte order of two keys whose zero-padded first 8 bytes are equal. */
static inline int compare_rest(const unsigned char *a, size_t an, const unsigned char *b, size_t bn)
{
    size_t n = an < bn ? an : bn;
    size_t at = 8;
    for (; at + 8 <= n; at += 8) {
        uint64_t x = get_big64(a + at), y = get_big64(b + at);
        if (x != y) {
            return x < y ? -1 : 1;
        }
    }
    if (at < n) {
        /* The last 8 bytes again with what is known to be equal: no loop over the tail. */
        uint64_t x = get_big64(a + n - 8), y = get_big64(b + n - 8);
        if (x != y) {
            return x < y ? -1 : 1;
        }
    }
    return (an > bn) - (an < bn);
}

static __attribute__((noinline)) int compare_wide(const struct skiplist *s,
                                                  const struct skiplist_node *n,
                                                  const struct skiplist_target *t)
{
    uint32_t ks = node_ks(n);
    if (ks != t->ks) {
        return ks < t->ks ? -1 : 1;
    }
    loam_slice key = node_key(s, n);
    if (t->cmp != NULL) {
        return t->cmp->compare(t->cmp->ctx, key, loam_bytes(t->data, t->size));
    }
    uint64_t prefix = get_big64(n->key);
    if (prefix != t->prefix) {
        return prefix < t->prefix ? -1 : 1;
    }
    return compare_rest(key.data, key.size, t->data, t->size);
}

/* The node's key against the target. */
static inline int compare(const struct skiplist *s, const struct skiplist_node *n,
                          const struct skiplist_target *t)
{
    uint32_t ks = n->meta >> 16;
    if (__builtin_expect(ks == KS_WIDE || t->cmp != NULL, 0)) {
        return compare_wide(s, n, t);
    }
    if (ks != t->ks) {
        return ks < t->ks ? -1 : 1;
    }
    uint64_t prefix = get_big64(n->key);
    if (prefix != t->prefix) {
        return prefix < t->prefix ? -1 : 1;
    }
    return compare_rest(n->key, n->meta >> 6 & 0x3ff, t->data, t->size);
}

/* ---- versions of a node ---- */

/* The newest version with a tag <= max, or NULL. */
static inline const struct skiplist_version *chain_find(const struct skiplist *s,
                                                        const struct skiplist_node *n, uint64_t max)
{
    const struct skiplist_version *v = node_newest(s, n);
    while (version_tag(v) > max) {
        uint32_t jump = version_jump(v);
        const struct skiplist_version *j = jump != 0 ? version_at(s, jump) : NULL;
        if (j != NULL && version_tag(j) > max) {
            v = j;
            continue;
        }
        uint32_t next = version_next(v);
        if (next == 0) {
            return NULL;
        }
        v = version_at(s, next);
    }
    return v;
}

static inline void entry_fill(const struct skiplist *s, const struct skiplist_node *n,
                              const struct skiplist_version *v, struct entry *e)
{
    e->key = node_key(s, n);
    e->tag = version_tag(v);
    e->value = loam_bytes(v->value, version_size(v));
}

/* ---- heights ---- */

/* 1 with probability 3/4, 2 with 3/16, ... */
static inline uint32_t height_draw(uint64_t *random)
{
    uint64_t r = *random;
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    *random = r;
    uint64_t mixed = (r * 0x2545f4914f6cdd1du) >> 32;
    return 1 + (uint32_t)__builtin_ctzll(mixed | (uint64_t)1 << (2 * SKIPLIST_MAX_HEIGHT - 2)) / 2;
}

/* ---- shared by the list's own files ---- */

/* Comparators under which every key of the keyspace lies behind, or before, the target. */
extern const loam_comparator skiplist_all_behind_;
extern const loam_comparator skiplist_all_before_;
/* The node of the target, else NULL. Then prev holds, for each level in use, a node before the target
 * that has the level, at even levels the last, at odd ones below `height` one that is close; and *at is
 * the link behind prev[0]. */
struct skiplist_node *skiplist_search_(const struct skiplist *s, const struct skiplist_target *t,
                                       struct skiplist_node **prev, uint32_t height, uint32_t *at);
/* The search ahead at the head of the list, and down to level `end`, which is even, or the one below; at 0 all is
 * as after skiplist_search_(). */
void skiplist_ahead_init_(const struct skiplist *s, struct skiplist_ahead *a);
void skiplist_ahead_down_(const struct skiplist *s, struct skiplist_ahead *a, uint32_t end);
/* The first node >= target, or NULL. */
struct skiplist_node *skiplist_find_ge_(const struct skiplist *s, const struct skiplist_target *t);
/* The last node < target, or NULL. */
struct skiplist_node *skiplist_find_lt_(const struct skiplist *s, const struct skiplist_target *t);

#endif
