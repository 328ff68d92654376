/* snapshot.h - The sequence numbers that readers hold.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A held number s means: every version that is the newest with a sequence number <= s of its key
 * stays. Versions newer than the newest visible state stay anyway.
 *
 * Iterators are opened and closed all the time, by many threads, while the numbers are asked for once a flush
 * or a merge. So there are several lists: a thread holds in its own, and whoever asks goes through all of
 * them, one after the other, having read the newest visible number before. Who takes a hold in a list that was
 * passed already reads the visible number later, under that list's mutex, and gets that number or a newer
 * one: nothing of it is missing, for what is newer stays. Each list is in order, for its numbers are taken
 * in rising order.
 */
#ifndef LOAM_ENGINE_SNAPSHOT_H_
#define LOAM_ENGINE_SNAPSHOT_H_

#include "arena/alloc.h"
#include "arena/sync.h"
#include "engine/commit.h"

struct held_seq {
    struct held_seq *prev, *next; /* guarded by its list's mutex; next NULL: let go */
    struct snapshot_list *list;   /* constant from the first hold on until the next one */
    uint64_t seq;                 /* constant while held */
};

struct snapshot_list {
    _Alignas(CACHE_LINE) struct mutex mutex;
    struct held_seq head; /* circular; oldest first */
    uint64_t count;       /* guarded by mutex */
};

#define SNAPSHOT_LISTS 8u

struct snapshots {
    struct snapshot_list list[SNAPSHOT_LISTS];
};

void snapshots_init(struct snapshots *all);
void snapshots_destroy(struct snapshots *all);
/* Holds the newest visible state: h->seq = visible - 1. Any thread; O(1). */
void snapshot_hold_latest(struct snapshots *all, const struct commit *c, struct held_seq *h);
/* Holds the number of another holder, whose memory lasts as long as the call. False: that one has let go of
 * it, and what it saw may be gone. O(holders). */
bool snapshot_hold_same(const struct held_seq *other, struct held_seq *h);
/* `to`, which holds nothing, takes the place of `from`, which then holds nothing. O(1). */
void snapshot_move(struct held_seq *from, struct held_seq *to);
void snapshot_drop(struct held_seq *h);

/* The distinct held numbers below the newest visible one, ascending, then that one. Owned by the caller; free
 * with alloc_put(a, MEM_BUILD, seqs, cap * 8). NULL: no memory. */
uint64_t *snapshot_numbers(struct snapshots *all, const struct commit *c, struct alloc *a,
                           size_t *count, size_t *cap);
/* The smallest held number, or the newest visible one. */
uint64_t snapshot_oldest(struct snapshots *all, const struct commit *c);
uint64_t snapshot_count(struct snapshots *all);

#endif
