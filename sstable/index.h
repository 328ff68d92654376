/* index.h - The resident index of a table: which block may hold a key, and where it is stored.
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

#include "arena/buf.h"
#include "arena/entry.h"
#include "sstable/sst_format.h"

#define INDEX_LEVELS 12 /* 8^11 > 2^32 blocks */

struct index {
    struct alloc *alloc;
    const loam_comparator *cmp;
    uint32_t count; /* blocks, >= 1 */
    uint32_t prefix_size;
    uint32_t level_count;
    const uint64_t *levels[INDEX_LEVELS];
    uint32_t level_nodes[INDEX_LEVELS];
    uint64_t *offsets;    /* in the file, per block */
    uint32_t *sizes;      /* stored bytes, per block */
    uint32_t *rest_begin; /* count + 1: where each separator's rest begins in `rests` */
    uint8_t *rests;       /* the shared prefix, then the rests */
    void *memory;         /* all of the above */
    size_t memory_size;
};

/* Decodes the payload of an index block into MEM_TABLE memory. Data blocks must tile the file from
 * the header to data_end, by the sum of their sizes. Returns LOAM_OK, E_CORRUPT or E_NOMEM. */
int index_open(struct index *x, struct alloc *a, const loam_comparator *cmp, loam_slice payload,
               struct sst_place at, uint64_t data_end);
void index_close(struct index *x);

/* The first block whose separator is >= key; count when there is none. */
uint32_t index_find(const struct index *x, loam_slice key);
/* Separator i without the prefix that all share. */
static inline loam_slice index_rest(const struct index *x, uint32_t i)
{
    return loam_bytes(x->rests + x->rest_begin[i], x->rest_begin[i + 1] - x->rest_begin[i]);
}
static inline loam_slice index_prefix(const struct index *x)
{
    return loam_bytes(x->rests, x->prefix_size);
}

/* ---- building ---- */

/* Separators come in order, one per block; handles in any order, by block number. */
struct index_builder {
    struct buf separators; /* encoded */
    struct buf last;       /* the last separator */
    uint32_t count;        /* separators */
};

void index_builder_init(struct index_builder *b, struct alloc *a);
void index_builder_free(struct index_builder *b);
/* Failure sticks and is told by index_builder_emit(). */
void index_builder_add(struct index_builder *b, loam_slice separator);
/* Appends the payload to out. offsets and sizes are per block. LOAM_OK or E_NOMEM. */
int index_builder_emit(struct index_builder *b, const uint64_t *offsets, const uint32_t *sizes,
                       struct buf *out);
/* Bytes of the payload so far, about. */
static inline uint64_t index_builder_size(const struct index_builder *b)
{
    return 8 + b->separators.size + (uint64_t)b->count * 4;
}

/* Writes to `out` a short key s with a <= s < b; a itself when there is none, or when a and b are
 * equal. */
void index_separator(const loam_comparator *cmp, loam_slice a, loam_slice b, struct buf *out);

#endif
