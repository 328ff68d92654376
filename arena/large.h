/* large.h - Memory for large values: what readers keep is limited, what passes through waits for its turn.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A value larger than a block is not copied once a source or a thread. Whoever needs one in memory of its
 * own takes it here, in one of three ways:
 *
 *   HELD     what outlives the call: the value an iterator stands on, a pin. Refused beyond `held_most`.
 *            Beside that one value of more than half of it is let in at a time, whatever its size: so one
 *            reader gets any value there can be, and does not shut out those of small ones.
 *   PASSING  gone before the call is: a get's buffer, a block read for its key, a block being packed. Waits
 *            until the others leave room below `passing_most`, or until there are none.
 *   WORK     one at a time for each part of a merge: neither refused nor delayed.
 *
 * Deadlock freedom: who holds PASSING memory takes no more of it before giving it back and waits for
 * nothing but the disk, so whoever waits for it goes on; nobody ever waits for HELD memory.
 *
 * Threads: any. Giving HELD memory back takes no lock: a pin may go in a child process.
 */
#ifndef LOAM_ARENA_LARGE_H_
#define LOAM_ARENA_LARGE_H_

#include "arena/alloc.h"
#include "arena/sync.h"

#define LARGE_FROM ((size_t)16 << 10) /* bytes: what is smaller is not worth the care */

enum large_way { LARGE_WORK, LARGE_HELD, LARGE_PASSING };

struct large_pool {
    uint64_t held_most, passing_most; /* bytes; constant after init */
    _Atomic uint64_t held;            /* bytes, without the giant */
    _Atomic uint32_t giant;           /* 1: a value of more than half of held_most is held */
    struct mutex mu;
    struct cond less;
    /* guarded by mu */
    uint64_t passing;       /* bytes */
    uint64_t turns, served; /* given out, and let in: who came first goes first, whatever its size */
};

/* One piece of memory; zeroed: none. */
struct large {
    uint8_t *data;
    size_t size;
    struct large_pool *pool;
    struct alloc *alloc;
    enum large_way way;
    enum mem_owner owner;
};

void large_pool_init(struct large_pool *p, uint64_t held_most, uint64_t passing_most);
/* REQUIRES: all is given back but what was HELD: that may come later, as long as p is there. */
void large_pool_destroy(struct large_pool *p);

/* Counts a value of so many bytes as held. False: beyond the limit. */
bool large_hold(struct large_pool *p, uint64_t bytes);
void large_let_go(struct large_pool *p, uint64_t bytes);
static inline uint64_t large_held(const struct large_pool *p) /* bytes, without a giant */
{
    return atom_load(&p->held, relaxed); /* relaxed: a count */
}
/* Records the error for what was refused, E_BUDGET with LOAM_ERR_RETRY, and returns it. */
int large_refused(uint64_t bytes);

/* Memory of so many bytes. p NULL: there are no limits. REQUIRES: l holds none. Returns LOAM_OK, E_NOMEM,
 * or, for HELD only, E_BUDGET, which is not recorded: the caller may have another way. */
int large_take(struct large_pool *p, struct alloc *a, struct large *l, enum large_way way,
               enum mem_owner owner, size_t size);
void large_give(struct large *l); /* fine when it holds none */
/* Waits for the right to so many PASSING bytes, which are the caller's own affair, and gives it back.
 * p NULL: at once. */
void large_pass_begin(struct large_pool *p, uint64_t bytes);
void large_pass_end(struct large_pool *p, uint64_t bytes);

#endif
