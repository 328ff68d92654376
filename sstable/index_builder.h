/* index_builder.h - Gathers the separators of a table and cuts them into partitions under a top.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Where a block is stored is known only when it was written, which is later and in any order: the
 * separators wait, a few bytes each, until the last block is on its way.
 */
#ifndef LOAM_SSTABLE_INDEX_BUILDER_H_
#define LOAM_SSTABLE_INDEX_BUILDER_H_

#include <stdbool.h>

#include "arena/buf.h"
#include "arena/entry.h"
#include "sstable/sst_format.h"

struct index_builder {
    struct buf separators; /* in order: a byte (1: dead), varint bytes shared with the one before,
                              varint length of the rest, the rest */
    struct buf last;       /* the last separator */
    uint32_t count;        /* separators */
};

void index_builder_init(struct index_builder *b, struct alloc *a);
void index_builder_free(struct index_builder *b);
/* The next block's separator; dead: every entry of the block is a delete. Failure sticks and is told
 * by index_builder_emit(). */
void index_builder_add(struct index_builder *b, loam_slice separator, bool dead);

/* How and where to. */
struct index_emit {
    /* Appends a part to the file; LOAM_OK or an error. */
    int (*put)(void *arg, enum sst_type type, const void *data, size_t size, struct sst_handle *h);
    void *arg;
    const uint64_t *offsets; /* per block */
    const uint32_t *sizes;   /* per block */
    uint64_t file_seed;
    uint32_t first_number; /* of the first partition */
    bool strip;            /* keys are in byte order */
};

/* Writes the partitions, then the top. REQUIRES: a separator for each block, one at least.
 * Returns LOAM_OK, E_NOMEM, or what put met. */
int index_builder_emit(struct index_builder *b, const struct index_emit *how,
                       struct sst_handle *index, struct sst_handle *top);
/* Bytes of the partitions so far, about. */
static inline uint64_t index_builder_size(const struct index_builder *b)
{
    return b->separators.size + (uint64_t)b->count * 10;
}

/* Writes to `out` a short key s with a <= s < b; a itself when there is none, or when a and b are
 * equal. */
void index_separator(const loam_comparator *cmp, loam_slice a, loam_slice b, struct buf *out);

#endif
