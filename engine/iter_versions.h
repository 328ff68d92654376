/* iter_versions.h - How an iterator's merge comes past the versions of one key, to the one that is seen.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A few are passed one by one, as most keys have few; past more of them it searches, so that a move costs the
 * same whether a key has 20 versions or a million.
 *
 *   versions of a key     newer than the iterator's number | the newest seen | older
 *   forward               iter_versions_newer() -->                            iter_versions_rest() -->
 *   backward                                                   <-- iter_versions_gather()
 *
 * A search moves every source, so nothing lent by one outlives it: the key in question is the iterator's copy. And
 * it may fail in one source while others stand on entries: then the merge is not valid, and none of them may be looked
 * at. It is left to the caller to build the sources anew.
 */
#ifndef LOAM_ENGINE_ITER_VERSIONS_H_
#define LOAM_ENGINE_ITER_VERSIONS_H_

#include "engine/db_iter.h"

#define SKIPS_BEFORE_SEEK 16u /* versions passed one by one before a search */

/* Whether the merge stands on a version of it->key. */
static inline bool iter_versions_on(const struct db_iter *it)
{
    return merge_valid(&it->merge) &&
           key_compare(it->cmp, merge_entry(&it->merge)->key, buf_slice(&it->key)) == 0;
}

/* Forward: moves the merge over what is left of the versions of it->key. */
static inline void iter_versions_rest(struct db_iter *it)
{
    for (uint32_t n = 0; iter_versions_on(it); n++) {
        if (n == SKIPS_BEFORE_SEEK) {
            merge_seek(&it->merge, buf_slice(&it->key), 0);
            return;
        }
        merge_next(&it->merge);
    }
}

/* Forward: moves the merge on from an entry that is too new, the n-th of one move (from 1). it->key changes: REQUIRES:
 * what it was is not needed any more. LOAM_OK, with the merge's own error left to be found there; E_NOMEM. */
int iter_versions_newer_(struct db_iter *it, uint32_t n);
static inline int iter_versions_newer(struct db_iter *it, uint32_t n)
{
    if (__builtin_expect(n % SKIPS_BEFORE_SEEK != 0, 1)) {
        merge_next(&it->merge);
        return LOAM_OK;
    }
    return iter_versions_newer_(it, n);
}

/* Backward: lends the newest version that is seen of the key the merge stands on, leaving the merge before the key.
 * LOAM_OK. LOAM_NOTFOUND: the key is deleted, since *seq, or not visible; then *seq is 0, and *newer tells
 * whether it has versions that are not visible. Or an error; the sources are then to be built anew. */
int iter_versions_gather(struct db_iter *it, uint64_t *seq, bool *newer);

#endif
