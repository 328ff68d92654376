/* index.h - A resident index: which block, or which partition, may hold a key, and where it is stored.
 * SPDX-License-Identifier: Apache-2.0
 *
 * In byte order a lookup first compares 8 bytes: those behind the prefix that all separators share,
 * as one number. They stand in a static tree of nodes of 8 numbers, one cache line each: every node
 * is counted through without a branch, and a table of 32,768 blocks takes 5 of them, the upper ones
 * shared by all lookups. Only separators with the same 8 bytes are compared in full. Under a
 * comparator it is a binary search over full separators.
 *
 *   levels[0]  d0 d1 .. d7 | d8 .. d15 | ...   the 8 bytes of each block's separator, padded by ~0
 *   levels[1]  d7 d15 .. d63 | ...             the last of each node below
 */
#ifndef LOAM_SSTABLE_INDEX_H_
#define LOAM_SSTABLE_INDEX_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/entry.h"
#include "sstable/sst_format.h"

#define INDEX_LEVELS 12          /* 8^11 > 2^32 blocks */
#define INDEX_DEAD   0x80000000u /* in sizes[] */

struct index {
    struct alloc *alloc;
    const loam_comparator *cmp;
    uint32_t count; /* blocks, >= 1 */
    uint32_t prefix_size;
    uint32_t level_count;
    const uint64_t *levels[INDEX_LEVELS];
    uint32_t level_nodes[INDEX_LEVELS];
    uint64_t *offsets;    /* in the file, per block */
    uint32_t *sizes;      /* stored bytes, per block, and INDEX_DEAD */
    uint32_t *rest_begin; /* count + 1: where each separator's rest begins in `rests` */
    uint8_t *rests;       /* the shared prefix, then the rests */
    void *memory;         /* all of the above */
    size_t memory_size;
};

struct index_item {
    loam_slice separator; /* lent until the next call */
    uint64_t offset;      /* of the block, in the file */
    uint32_t size;        /* stored bytes, at most SST_PIECE_MAX */
    bool dead;            /* every entry in it is a delete */
};
/* What an index is built from. */
struct index_source {
    /* Called for 0, 1, .. count - 1, more than once around. */
    void (*next)(void *arg, uint32_t i, struct index_item *item);
    void *arg;
    uint32_t count;    /* of items, >= 1 */
    uint32_t shared;   /* bytes that the first and the last separator share */
    size_t memory_max; /* bytes it may take */
};

/* Builds it up in MEM_TABLE memory. Returns LOAM_OK, LOAM_STOPPED (it takes more than it may), E_CORRUPT
 * (separators out of order) or E_NOMEM. `at` is for the message. */
int index_open(struct index *x, struct alloc *a, const loam_comparator *cmp,
               const struct index_source *from, struct sst_place at);
void index_close(struct index *x);

/* The first block whose separator is >= key; count when there is none. */
uint32_t index_find(const struct index *x, loam_slice key);
/* Brings what index_find() will wait for on its way. Returns the first of 8 blocks one of which it will be; 0
 * when that is not known. */
uint32_t index_prefetch(const struct index *x, loam_slice key);
/* Separator i without the prefix that all share. */
static inline loam_slice index_rest(const struct index *x, uint32_t i)
{
    return loam_bytes(x->rests + x->rest_begin[i], x->rest_begin[i + 1] - x->rest_begin[i]);
}
static inline loam_slice index_prefix(const struct index *x)
{
    return loam_bytes(x->rests, x->prefix_size);
}
static inline uint32_t index_size(const struct index *x, uint32_t i)
{
    return x->sizes[i] & ~INDEX_DEAD;
}
/* Every entry of the block is a delete. */
static inline bool index_dead(const struct index *x, uint32_t i)
{
    return (x->sizes[i] & INDEX_DEAD) != 0;
}

#endif
