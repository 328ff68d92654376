/* block.h - Search and walk inside one uncompressed data block; its layout is in sst_format.h.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A block from disk goes through block_check() once; everything else here trusts it. A point lookup
 * compares the key's fingerprint with 16 entries at a time and, as a rule, one key.
 */
#ifndef LOAM_SSTABLE_BLOCK_H_
#define LOAM_SSTABLE_BLOCK_H_

#include <stdbool.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "arena/atomic.h"
#include "arena/coding.h"
#include "arena/entry.h"

#define BLOCK_HEADER_SIZE 32u
#define BLOCK_TAIL_SIZE   8u /* zeros behind the last entry */
#define BLOCK_KIND_BITS   3u
/* The shortest block: one entry of an empty key. */
#define BLOCK_SIZE_MIN (BLOCK_HEADER_SIZE + 16u + 4u + 1u + BLOCK_TAIL_SIZE)
/* block_get(): the key's versions here are all too new and the block ends inside them. */
#define BLOCK_GET_MORE 100

/* A block, opened: the header's fields and where the parts begin. */
struct block {
    const uint8_t *data;
    const uint8_t *offsets;
    const uint8_t *prefix;
    uint64_t seq_base;
    uint64_t tag_mask; /* of the bytes a tag takes */
    uint32_t count;
    uint16_t prefix_size;
    uint8_t offset_width;
    uint8_t tag_width;
};

/* An entry's parts in the block. */
struct block_item {
    const uint8_t *rest; /* of the key, behind the shared prefix */
    uint32_t rest_size;
    uint32_t value_size; /* the value follows the rest */
    uint64_t tag;
};

/* ---- fingerprints ---- */

static inline uint8_t fingerprint_of(uint64_t key_hash)
{
    return (uint8_t)(key_hash >> 24);
}

/* Bit i of the result: byte i of the 16 at p equals fp. Two words at a time where there is no
 * vector unit. */
static inline uint32_t fingerprint_match16_portable(const uint8_t *p, uint8_t fp)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fu;
    uint32_t result = 0;
    for (uint32_t half = 0; half < 2; half++) {
        uint64_t x = get_fixed64(p + 8 * half) ^ (0x0101010101010101u * fp);
        /* 0x80 in exactly the bytes of x that are zero. */
        uint64_t zero = ~(((x & low7) + low7) | x | low7);
        /* Gathers the eight top bits into the top byte: no two products meet in one bit. */
        uint64_t bits = ((zero >> 7) * 0x0102040810204080u) >> 56;
        result |= (uint32_t)bits << (8 * half);
    }
    return result;
}

static inline uint32_t fingerprint_match16(const uint8_t *p, uint8_t fp)
{
#if defined(__SSE2__)
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    return (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8((char)fp)));
#else
    return fingerprint_match16_portable(p, fp);
#endif
}

/* ---- layout ---- */

static inline size_t block_fingerprints_size(uint32_t count)
{
    return ((size_t)count + 15) & ~(size_t)15;
}

static inline void block_init(struct block *b, const void *data)
{
    const uint8_t *p = (const uint8_t *)data;
    b->data = p;
    b->count = get_fixed32(p + 12);
    b->seq_base = get_fixed64(p + 16);
    b->prefix_size = get_fixed16(p + 24);
    b->offset_width = p[26];
    b->tag_width = p[27];
    b->tag_mask = b->tag_width == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * b->tag_width)) - 1;
    b->offsets = p + BLOCK_HEADER_SIZE + block_fingerprints_size(b->count);
    b->prefix = b->offsets + ((size_t)b->count + 1) * b->offset_width;
}

static inline uint32_t block_offset(const struct block *b, uint32_t i)
{
    return b->offset_width == 2 ? get_fixed16(b->offsets + 2 * (size_t)i)
                                : get_fixed32(b->offsets + 4 * (size_t)i);
}

static inline void block_item(const struct block *b, uint32_t i, struct block_item *item)
{
    const uint8_t *p = b->data + block_offset(b, i);
    const uint8_t *end = b->data + block_offset(b, i + 1);
    uint32_t n = *p++;
    if (__builtin_expect(n >= 0x80, 0)) {
        n = (n & 0x7f) | (uint32_t)(*p & 0x7f) << 7;
        if (*p++ >= 0x80) {
            n |= (uint32_t)*p++ << 14;
        }
    }
    uint64_t word = get_fixed64(p) & b->tag_mask;
    p += b->tag_width;
    item->rest = p;
    item->rest_size = n;
    item->value_size = (uint32_t)(end - p) - n;
    item->tag = (b->seq_base + (word >> BLOCK_KIND_BITS)) << 8 |
                (word & (((uint64_t)1 << BLOCK_KIND_BITS) - 1));
}

/* ---- whole block ---- */

/* Everything the functions below rely on: sizes, offsets, kinds, that no key is longer than key_max
 * bytes, and that entries ascend. What is wrong goes to *what as static text. Returns LOAM_OK,
 * E_CORRUPT or E_FORMAT (an unknown kind); records no error. */
int block_check(const void *data, size_t size, const loam_comparator *cmp, uint32_t key_max,
                const char **what);
/* The block's own checksum, over a block in memory; number is its rank in key order. */
uint64_t block_sum(const void *data, size_t size, uint64_t file_seed, uint32_t number);
bool block_sum_matches(const void *data, size_t size, uint64_t file_seed, uint32_t number);

/* The newest version with seq <= snapshot. e->key is `key`, e->value is lent from the block.
 * key_hash is not used under a comparator. LOAM_OK, LOAM_NOTFOUND or BLOCK_GET_MORE. */
int block_get(const void *data, const loam_comparator *cmp, loam_slice key, uint64_t key_hash,
              uint64_t snapshot, struct entry *e);
/* Index of the first entry >= (key, tag); the count when there is none. */
uint32_t block_seek(const struct block *b, const loam_comparator *cmp, loam_slice key,
                    uint64_t tag);
/* In byte order: index of the first entry from `from` on that is not before any version of key; the count
 * when there is none. Quick when it is not far. REQUIRES: from <= count. */
uint32_t block_seek_near(const struct block *b, uint32_t from, loam_slice key);

/* ---- cursor ---- */

/* Valid while index < count. The entry is lent from block and key buffer until the next move. */
struct block_cursor {
    struct block block;
    uint32_t index;
    uint8_t *key; /* the prefix, then room for the longest rest and 16 bytes */
    uintptr_t ahead; /* from the block to the one behind it, where that is in memory; else 0 */
    struct entry entry;
};

/* The block must have 16 readable bytes behind it. key must hold the longest key and 16 bytes. The
 * cursor starts out not valid. */
void block_cursor_init(struct block_cursor *c, const void *data, uint8_t *key);

static inline bool block_cursor_valid(const struct block_cursor *c)
{
    return c->index < c->block.count;
}

static inline void block_cursor_load_(struct block_cursor *c)
{
    struct block_item item;
    block_item(&c->block, c->index, &item);
    uint32_t prefix = c->block.prefix_size;
    if (prefix == 0) {
        c->entry.key.data = item.rest;
    } else {
        /* In steps of 16 bytes, past the end of both: short keys cost one load and one store. */
        uint8_t *to = c->key + prefix;
        for (uint32_t n = 0; n < item.rest_size; n += 16) {
            memcpy(to + n, item.rest + n, 16);
        }
        c->entry.key.data = c->key;
    }
    c->entry.key.size = (size_t)prefix + item.rest_size;
    c->entry.tag = item.tag;
    c->entry.value.data = item.rest + item.rest_size;
    c->entry.value.size = item.value_size;
}

/* Moves to entry i; i = count leaves the cursor not valid. Returns whether it is valid. */
static inline bool block_cursor_move(struct block_cursor *c, uint32_t i)
{
    c->index = i;
    if (i >= c->block.count) {
        return false;
    }
    block_cursor_load_(c);
    return true;
}
/* REQUIRES: valid. */
static inline bool block_cursor_next(struct block_cursor *c)
{
    return block_cursor_move(c, c->index + 1);
}
/* Begins to bring nearer what has the present entry's place in the block behind: a walk that does so at each
 * entry finds that block there when it comes to it. REQUIRES: valid. */
static inline void block_cursor_fetch_ahead(const struct block_cursor *c)
{
    const uint8_t *p = (const uint8_t *)((uintptr_t)c->entry.value.data + c->ahead);
    __builtin_prefetch(p);
    __builtin_prefetch(p + CACHE_LINE);
}
/* Moves to the next entry; whether it has the key of the present one. REQUIRES: there is one; keys are
 * in byte order. */
static inline bool block_cursor_next_same(struct block_cursor *c)
{
    size_t n = c->entry.key.size - c->block.prefix_size;
    const uint8_t *rest = (const uint8_t *)c->entry.value.data - n;
    c->index++;
    block_cursor_load_(c);
    if (c->entry.key.size - c->block.prefix_size != n) {
        return false;
    }
    /* The first 8 bytes, which the block's tail makes safe to load, tell most keys apart. */
    const uint8_t *now = (const uint8_t *)c->entry.value.data - n;
    uint64_t differ = get_fixed64(now) ^ get_fixed64(rest);
    if (n < 8) {
        return (differ & (((uint64_t)1 << (8 * n)) - 1)) == 0;
    }
    return differ == 0 && memcmp(now, rest, n) == 0;
}
/* REQUIRES: valid. */
static inline bool block_cursor_prev(struct block_cursor *c)
{
    return block_cursor_move(c, c->index == 0 ? UINT32_MAX : c->index - 1);
}

#endif
