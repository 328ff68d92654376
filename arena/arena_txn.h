/* arena_txn.h - What one thread allocates from an arena as one: kept by commit, taken back by rollback.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     begin(t) -- alloc, alloc, at_drop -- commit          all stays; drops run when the arena ends
 *        `-- begin(u, parent t, budget) -- alloc -- rollback    u's part is free again, drops run now
 *
 * Transactions nest: an inner one is over before its outer one, and what it allocates counts against the
 * budgets of both. Each belongs to the thread that began it; other threads may use the same arena.
 */
#ifndef LOAM_ARENA_ARENA_TXN_H_
#define LOAM_ARENA_ARENA_TXN_H_

#include "arena/arena.h"

struct arena_txn {
    struct arena *arena; /* NULL: over */
    struct arena_txn *parent;
    struct arena_mark mark;
    uint64_t budget;          /* bytes, ARENA_NO_LIMIT = none */
    uint64_t used;            /* bytes, inner ones included */
    struct arena_drop *drops; /* newest first */
};

/* parent: NULL, or a transaction of this thread in the same arena that has no other one inside now. */
void arena_txn_begin(struct arena_txn *t, struct arena *a, struct arena_txn *parent,
                     uint64_t budget);
/* As arena_alloc(). NULL: also E_BUDGET when t or an outer one has used up its bytes. */
void *arena_txn_alloc(struct arena_txn *t, size_t size, size_t align);
/* fn(ptr) runs once: at the rollback of t or of an outer one, else when the arena is reset or
 * destroyed; later ones first. LOAM_OK, or the error of the allocation it needs. */
int arena_txn_at_drop(struct arena_txn *t, void (*fn)(void *ptr), void *ptr);
void arena_txn_commit(struct arena_txn *t);
/* Does nothing when t is over. */
void arena_txn_rollback(struct arena_txn *t);

/* ARENA_TXN_AUTO(t, &arena): rolled back at the end of the scope unless it was committed. */
#define ARENA_TXN_AUTO(name, arena_)                                                               \
    __attribute__((cleanup(arena_txn_rollback))) struct arena_txn name;                            \
    arena_txn_begin(&name, (arena_), NULL, ARENA_NO_LIMIT)

#endif
