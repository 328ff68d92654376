/* snapshot.c - The sequence numbers that readers hold.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/snapshot.h"

#include <assert.h>

#include "arena/thread_slot.h"
#include "engine/sort.h"

#include "arena/poison.h"

void snapshots_init(struct snapshots *all)
{
    for (uint32_t i = 0; i < SNAPSHOT_LISTS; i++) {
        struct snapshot_list *l = &all->list[i];
        mutex_init(&l->mutex, RANK_SNAPSHOT);
        l->head.prev = l->head.next = &l->head;
        l->head.seq = 0;
        l->count = 0;
    }
}

void snapshots_destroy(struct snapshots *all)
{
    for (uint32_t i = 0; i < SNAPSHOT_LISTS; i++) {
        mutex_destroy(&all->list[i].mutex);
    }
}

/* ---- holding and letting go -------------------------------------------------------------------- */

static void link_after_locked(struct snapshot_list *l, struct held_seq *at, struct held_seq *h)
{
    mutex_assert_held(&l->mutex);
    h->list = l;
    h->prev = at;
    h->next = at->next;
    at->next->prev = h;
    at->next = h;
    l->count++;
}

void snapshot_hold_latest(struct snapshots *all, const struct commit *c, struct held_seq *h)
{
    struct snapshot_list *l = &all->list[thread_slot_self() % SNAPSHOT_LISTS];
    mutex_lock(&l->mutex);
    /* Read under the mutex: who passes the list later sees the number, who has passed it before has read
     * this number or an older one as the newest. */
    h->seq = commit_visible(c) - 1;
    link_after_locked(l, l->head.prev, h);
    mutex_unlock(&l->mutex);
}

bool snapshot_hold_same(const struct held_seq *other, struct held_seq *h)
{
    struct snapshot_list *l = other->list; /* the same one: whoever passes it meets the one or the other */
    mutex_lock(&l->mutex);
    bool held = other->next != NULL;
    if (held) {
        struct held_seq *at = l->head.prev;
        while (at->seq > other->seq) {
            at = at->prev; /* it ends at `other` */
        }
        h->seq = other->seq;
        link_after_locked(l, at, h);
    }
    mutex_unlock(&l->mutex);
    return held;
}

void snapshot_move(struct held_seq *from, struct held_seq *to)
{
    struct snapshot_list *l = from->list;
    mutex_lock(&l->mutex);
    *to = *from;
    to->prev->next = to->next->prev = to;
    from->prev = from->next = NULL;
    mutex_unlock(&l->mutex);
}

void snapshot_drop(struct held_seq *h)
{
    struct snapshot_list *l = h->list;
    mutex_lock(&l->mutex);
    h->prev->next = h->next;
    h->next->prev = h->prev;
    h->prev = h->next = NULL;
    l->count--;
    mutex_unlock(&l->mutex);
}

/* ---- what is held ------------------------------------------------------------------------------ */

/* The distinct numbers below `now` of one list, as far as there is room; *n of them were there before. False:
 * there is not enough. */
static bool copy_below(struct snapshot_list *l, uint64_t now, uint64_t *seqs, size_t *n, size_t room)
{
    uint64_t last = UINT64_MAX;
    mutex_lock(&l->mutex);
    const struct held_seq *h = l->head.next;
    for (; h != &l->head && h->seq < now && *n < room; h = h->next) {
        assert(last == UINT64_MAX || last <= h->seq);
        if (h->seq != last) {
            seqs[(*n)++] = last = h->seq;
        }
    }
    bool all = h == &l->head || h->seq >= now;
    mutex_unlock(&l->mutex);
    return all;
}

/* In order, without doubles. Returns how many are left. */
static size_t put_in_order(uint64_t *seqs, size_t n)
{
    size_t kept = 0;
    sort_numbers(seqs, n);
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || seqs[kept - 1] != seqs[i]) {
            seqs[kept++] = seqs[i];
        }
    }
    return kept;
}

uint64_t *snapshot_numbers(struct snapshots *all, const struct commit *c, struct alloc *a,
                           size_t *count, size_t *cap)
{
    for (;;) {
        size_t room = snapshot_count(all);
        room += room / 8 + 8; /* others may be added before the lists are passed */
        uint64_t *seqs = alloc_get(a, MEM_BUILD, room * sizeof *seqs);
        if (seqs == NULL) {
            return NULL;
        }
        uint64_t now = commit_visible(c) - 1; /* before the lists: see the head of snapshot.h */
        size_t n = 0;
        bool whole = true;
        for (uint32_t i = 0; i < SNAPSHOT_LISTS && whole; i++) {
            whole = copy_below(&all->list[i], now, seqs, &n, room - 1);
        }
        if (whole) {
            n = put_in_order(seqs, n);
            seqs[n++] = now;
            *count = n;
            *cap = room;
            return seqs;
        }
        alloc_put(a, MEM_BUILD, seqs, room * sizeof *seqs);
    }
}

uint64_t snapshot_oldest(struct snapshots *all, const struct commit *c)
{
    uint64_t oldest = commit_visible(c) - 1; /* before the lists: see the head of snapshot.h */
    for (uint32_t i = 0; i < SNAPSHOT_LISTS; i++) {
        struct snapshot_list *l = &all->list[i];
        mutex_lock(&l->mutex);
        if (l->count != 0 && l->head.next->seq < oldest) {
            oldest = l->head.next->seq;
        }
        mutex_unlock(&l->mutex);
    }
    return oldest;
}

uint64_t snapshot_count(struct snapshots *all)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < SNAPSHOT_LISTS; i++) {
        struct snapshot_list *l = &all->list[i];
        mutex_lock(&l->mutex);
        n += l->count;
        mutex_unlock(&l->mutex);
    }
    return n;
}
