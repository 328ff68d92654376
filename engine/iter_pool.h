/* iter_pool.h - The iterators of a database: kept for reuse, and held to their share of the memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A closed iterator is kept for the next open, with its slot in the table of handles: its memory stays an
 * iterator as long as the database is open, so whoever still holds a stale handle finds another handle in it,
 * not freed memory. A thread opens those that it has closed: those of another lie in the cache of another
 * processor, as do the slots of their handles.
 *
 * An iterator needs a block a source only while a call runs. Between calls it keeps its buffers as
 * long as all iterators together stay below `limit`. Beyond it, an iterator that holds more than its
 * share of the limit gives up its sources at the end of a call, keeping a copy of the present entry,
 * and seeks again in the next call. So between calls iterators hold at most twice the limit (those
 * that moved while memory was plenty, those that hold their share) beside what they lend. Of that, large
 * values are counted and limited for all iterators and pins together: arena/large.h.
 */
#ifndef LOAM_ENGINE_ITER_POOL_H_
#define LOAM_ENGINE_ITER_POOL_H_

#include "arena/alloc.h"
#include "arena/sync.h"

struct db;
struct db_iter;

#define ITER_SHELVES 8u

/* Of the threads whose number gives it. */
struct iter_shelf {
    _Alignas(CACHE_LINE) struct mutex mu;
    struct db_iter *idle; /* guarded by mu: closed iterators kept for reuse, the last one on top */
    uint32_t idle_count;  /* guarded by mu */
    _Atomic uint32_t open; /* opened here, less closed here: only the sum means something */
};

struct iter_pool {
    struct alloc *alloc;
    uint64_t limit; /* bytes; constant after init */
    struct iter_shelf shelf[ITER_SHELVES];
};

void iter_pool_init(struct iter_pool *p, struct alloc *a, uint64_t limit);
/* Frees the iterators kept. REQUIRES: none is open, no section can hold one. */
void iter_pool_destroy(struct iter_pool *p);

/* An iterator of no caller's, on its own; NULL: no memory. It holds a reference to db. */
struct db_iter *iter_pool_make(struct db *db);
void iter_pool_unmake(struct db_iter *it); /* NULL is allowed */

/* An iterator without position, its bounds and buffers empty; NULL: no memory. It holds a reference
 * to db; one that was closed before also has its slot (next_handle) and refers to a keyspace (space). */
struct db_iter *iter_pool_take(struct iter_pool *p, struct db *db);
/* Takes the closed iterator back. p: its open database's; NULL: the database was closed. */
void iter_pool_give(struct iter_pool *p, struct db_iter *it);

/* How many are open. */
uint32_t iter_pool_open(const struct iter_pool *p);

/* Whether iterators hold more than the limit. */
static inline bool iter_pool_short(const struct iter_pool *p)
{
    return alloc_used_by(p->alloc, MEM_ITER) > p->limit;
}

/* Makes the iterator's share fit; see above. Its own thread, at the end of a call. */
void iter_pool_trim(struct iter_pool *p, struct db_iter *it);

#endif
