/* table.h - One table file that some version names.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_TABLE_H_
#define LOAM_ENGINE_TABLE_H_

#include "arena/atomic.h"
#include "arena/entry.h"
#include "engine/version_edit.h"

struct sst_info;
struct sst_reader;

struct table {
    /* constant */
    struct table_meta meta; /* meta.level is where the table was first added; where it stands in a
                               version is the array it is in */
    struct alloc *alloc;
    size_t bytes; /* of this allocation, the keys included */
    /* atomic; table_cache.h */
    _Atomic(struct sst_reader *) reader; /* NULL: not open */
    _Atomic uint32_t pins;               /* holders of the open reader */
    _Atomic uint64_t trimmed;            /* what newer tables up to this number hide is gone, but for */
    _Atomic uint64_t trimmed_for;        /* what readers from this number on could read then */
    _Atomic uint8_t used;                /* since the clock's hand last came by */
    /* atomic */
    _Atomic uint64_t seeks; /* of iterators that had to look into it while it stood in level 0 */
    /* guarded by the table cache's mutex */
    uint32_t cache_index; /* place in the clock + 1; 0 = not in it */
    uint64_t cache_bytes; /* memory of the open reader */
    uint64_t cache_want;  /* what it would take more to be resident; sst_want() */
    /* guarded by the version set's mutex */
    uint32_t refs;
    struct table *next; /* in a list of unreferenced tables */
    /* guarded by the database's mutex (RANK_DB) */
    bool compacting;
};

/* What an edit says of a table that was just built; the keys are lent by its builder. */
struct table_meta table_meta_of(const struct sst_info *info, uint64_t number, uint32_t ks,
                                uint8_t level);

/* refs is 0. NULL: no memory. */
struct table *table_create(struct alloc *a, const struct table_meta *m);
void table_free(struct table *t); /* REQUIRES: no reader, no reference. NULL is allowed */

/* What nobody needs at the bottom once no reader is left that is older than the table: a bound. */
static inline uint64_t table_garbage(const struct table *t)
{
    return t->meta.deletes + t->meta.older;
}

static inline bool table_dense_deletes(const struct table *t)
{
    return t->meta.deletes > t->meta.entries / 2;
}

/* Whether the table overlaps [lo, hi], both inclusive. A slice with data NULL leaves that side open. */
bool table_overlaps(const struct table *t, const loam_comparator *cmp, loam_slice lo,
                    loam_slice hi);

static inline bool table_covers(const struct table *t, const loam_comparator *cmp, loam_slice key)
{
    return key_compare(cmp, key, t->meta.smallest) >= 0 &&
           key_compare(cmp, key, t->meta.largest) <= 0;
}

#endif
