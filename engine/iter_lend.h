/* iter_lend.h - What an iterator lends of its present entry: from a source, or a copy of its own.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A large value is in memory once: in the cursor that read it, while the merge stands on it, or in the
 * iterator's seat, where its source has gone on or is a memtable. Either way it counts as held
 * (arena/large.h) from the move that shows it to the next one.
 */
#ifndef LOAM_ENGINE_ITER_LEND_H_
#define LOAM_ENGINE_ITER_LEND_H_

#include "engine/db_iter.h"

/* Lends a copy of the key. LOAM_OK or E_NOMEM. */
int iter_lend_key(struct db_iter *it, loam_slice key);
/* Lends tag and value of a source's entry. stays: the source stays there until the next move, so its bytes can
 * be lent; else a copy. LOAM_OK, E_NOMEM, E_BUDGET, or an error of reading. */
int iter_lend_value_(struct db_iter *it, struct source *s, bool stays);
static inline int iter_lend_value(struct db_iter *it, struct source *s, bool stays)
{
    it->face->tag = s->entry.tag;
    if (__builtin_expect(stays && !s->is_memtable && !s->cursor.single && !it->keys_only, 1)) {
        it->face->value = s->entry.value;
        return LOAM_OK;
    }
    return iter_lend_value_(it, s, stays);
}
/* Makes what is lent the iterator's own, so that its sources may go. False: no memory; it is lent as before. */
bool iter_lend_own(struct db_iter *it);

/* What was lent is not any more. */
static inline void iter_lend_end(struct db_iter *it)
{
    it->face->on_entry = false;
    it->run = NULL;
    if (__builtin_expect(it->seat.copy.data != NULL, 0)) {
        large_give(&it->seat.copy);
    }
}
/* At the end of a move: a large block that was read for its key only does not stay. lender: of the present
 * value; NULL: it is a copy. */
static inline void iter_lend_settle(struct db_iter *it, const struct source *lender)
{
    if (it->seat.holder != NULL && (lender == NULL || it->seat.holder != &lender->cursor)) {
        sst_seat_drop(&it->seat);
    }
}

#endif
