/* memory_share.h - Who has which part of the memory budget at the moment.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Shares are fixed at open (options.c); here they are lent for a while:
 *   - indexes beyond their share take room from memtables, which are then sealed earlier;
 *   - what neither memtables nor indexes use goes to the block cache while writers rest, and comes back
 *     when they begin to take memory, part by part, or all when somebody asks for it: the cache keeps its hands
 *     off what lasts them until then.
 *     While it is lent, indexes that do not fit beside it are not resident. What the log, merges and
 *     iterators take beyond their share is not lent.
 *
 *   memtables'  | in use | kept for writers | lent |       indexes'  | in use | lent |
 *
 * Threads: the keeper's, but for memory_share_want() and memory_share_make_room().
 */
#ifndef LOAM_ENGINE_MEMORY_SHARE_H_
#define LOAM_ENGINE_MEMORY_SHARE_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/atomic.h"

struct call;
struct db;

struct memory_share {
    /* the keeper's */
    bool taking;        /* some of what was lent is on its way back */
    bool all_wanted;    /* and so is all of it, soon */
    bool reaching;      /* the cache is on its way to what was lent last */
    uint64_t memtables; /* bytes that they had when last looked at */
    uint64_t since;     /* micros; when that last changed, or memory came back */
    uint64_t chunks;    /* may be kept for the next memtables */
    /* atomic */
    _Atomic uint64_t lent; /* bytes */
    _Atomic bool wanted;   /* by a writer who is about to need much at once */
};

/* Bytes that memtables have: chunks, and what large values take beside them. Any thread. */
uint64_t memory_share_memtables(struct db *db);
/* Looks at what is in use, lends, takes back; called now and then. Returns micros until it wants to be
 * called again at the latest. */
uint64_t memory_share_keep(struct db *db);
/* Before a write of so many bytes: when that is more than is kept for writers, waits until what was lent is
 * back, a second at most, and not beyond the deadline (clock_micros(); 0: only asks for it). REQUIRES:
 * inside the call's section. Returns LOAM_OK or E_CLOSED. */
int memory_share_want(struct call *c, uint64_t bytes, uint64_t deadline);
/* Before a background thread opens a table that is to be resident: when indexes have little room left beside
 * what is lent, waits until there is more, a second at most. REQUIRES: no lock held, no section open. */
void memory_share_make_room(struct db *db);

#endif
