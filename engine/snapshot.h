/* snapshot.h - The sequence numbers that readers hold, in order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A held number s means: every version that is the newest with a sequence number <= s of its key
 * stays. Numbers are taken in rising order, so the list is sorted by construction.
 */
#ifndef LOAM_ENGINE_SNAPSHOT_H_
#define LOAM_ENGINE_SNAPSHOT_H_

#include "arena/alloc.h"
#include "arena/sync.h"
#include "engine/commit.h"

struct held_seq {
    struct held_seq *prev, *next; /* guarded by the list's mutex; next NULL: let go */
    uint64_t seq;                 /* constant while held */
};

struct snapshot_list {
    struct mutex mutex;
    struct held_seq head; /* circular; oldest first */
    uint64_t count;       /* guarded by mutex */
};

void snapshot_list_init(struct snapshot_list *l);
void snapshot_list_destroy(struct snapshot_list *l);
/* Holds the newest visible state: h->seq = visible - 1. Any thread; O(1). */
void snapshot_hold_latest(struct snapshot_list *l, const struct commit *c, struct held_seq *h);
/* Holds the number of another holder, whose memory lasts as long as the call. False: that one has let go of
 * it, and what it saw may be gone. O(holders). */
bool snapshot_hold_same(struct snapshot_list *l, const struct held_seq *other, struct held_seq *h);
/* `to`, which holds nothing, takes the place of `from`, which then holds nothing. O(1). */
void snapshot_move(struct snapshot_list *l, struct held_seq *from, struct held_seq *to);
void snapshot_drop(struct snapshot_list *l, struct held_seq *h);

/* The distinct held numbers, ascending, then the newest visible one. Owned by the caller; free with
 * alloc_put(a, MEM_BUILD, seqs, cap * 8). NULL: no memory. */
uint64_t *snapshot_numbers(struct snapshot_list *l, const struct commit *c, struct alloc *a,
                           size_t *count, size_t *cap);
/* The smallest held number, or the newest visible one. */
uint64_t snapshot_oldest(struct snapshot_list *l, const struct commit *c);
uint64_t snapshot_count(struct snapshot_list *l);

#endif
