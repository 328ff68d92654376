/* merge_iter.h - Many sorted sources as one, both ways.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A binary heap of the valid sources, the present one on top. Moving on costs one comparison as long
 * as the top source stays ahead of the runner-up, which is the common case.
 */
#ifndef LOAM_ENGINE_MERGE_ITER_H_
#define LOAM_ENGINE_MERGE_ITER_H_

#include "engine/source.h"

struct merge_iter {
    const loam_comparator *cmp;
    struct source **all; /* every source; owned by the caller */
    struct source **heap;
    uint32_t count;      /* of all */
    uint32_t heap_count; /* of those that are valid */
    uint32_t second;     /* place of the runner-up in the heap; 0: there is none */
    bool forward;
    int rc; /* the first source's error, or LOAM_OK */
};

/* `all` and `heap` hold room for count pointers each and live as long as the iterator. */
void merge_init(struct merge_iter *m, const loam_comparator *cmp, struct source **all,
                struct source **heap, uint32_t count);
void merge_first(struct merge_iter *m);
void merge_last(struct merge_iter *m);
void merge_seek(struct merge_iter *m, loam_slice key, uint64_t tag);
void merge_seek_before(struct merge_iter *m, loam_slice key, uint64_t tag);
/* REQUIRES: valid, and placed in that direction: a walk that turns round seeks anew. */
void merge_next(struct merge_iter *m);
void merge_prev(struct merge_iter *m);

static inline bool merge_valid(const struct merge_iter *m)
{
    return m->heap_count != 0 && m->rc == LOAM_OK;
}
static inline const struct entry *merge_entry(const struct merge_iter *m)
{
    return &m->heap[0]->entry;
}
static inline bool merge_in_memtable(const struct merge_iter *m)
{
    return m->heap[0]->is_memtable;
}

#endif
