/* snapshot.c - The sequence numbers that readers hold.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/snapshot.h"

#include <assert.h>

#include "arena/poison.h"

void snapshot_list_init(struct snapshot_list *l)
{
    mutex_init(&l->mutex, RANK_SNAPSHOT);
    l->head.prev = l->head.next = &l->head;
    l->head.seq = 0;
    l->count = 0;
}

void snapshot_list_destroy(struct snapshot_list *l)
{
    mutex_destroy(&l->mutex);
}

static void link_after_locked(struct snapshot_list *l, struct held_seq *at, struct held_seq *h)
{
    mutex_assert_held(&l->mutex);
    h->prev = at;
    h->next = at->next;
    at->next->prev = h;
    at->next = h;
    l->count++;
}

void snapshot_hold_latest(struct snapshot_list *l, const struct commit *c, struct held_seq *h)
{
    mutex_lock(&l->mutex);
    /* Read under the mutex: a merge that copies the list later sees the number or a newer state. */
    h->seq = commit_visible(c) - 1;
    link_after_locked(l, l->head.prev, h);
    mutex_unlock(&l->mutex);
}

bool snapshot_hold_same(struct snapshot_list *l, const struct held_seq *other, struct held_seq *h)
{
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

void snapshot_move(struct snapshot_list *l, struct held_seq *from, struct held_seq *to)
{
    mutex_lock(&l->mutex);
    *to = *from;
    to->prev->next = to->next->prev = to;
    from->prev = from->next = NULL;
    mutex_unlock(&l->mutex);
}

void snapshot_drop(struct snapshot_list *l, struct held_seq *h)
{
    mutex_lock(&l->mutex);
    h->prev->next = h->next;
    h->next->prev = h->prev;
    h->prev = h->next = NULL;
    l->count--;
    mutex_unlock(&l->mutex);
}

uint64_t *snapshot_numbers(struct snapshot_list *l, const struct commit *c, struct alloc *a,
                           size_t *count, size_t *cap)
{
    for (;;) {
        mutex_lock(&l->mutex);
        size_t need = (size_t)l->count + 1;
        mutex_unlock(&l->mutex);
        need += need / 8 + 8; /* others may be added before the mutex is taken again */
        uint64_t *seqs = alloc_get(a, MEM_BUILD, need * sizeof *seqs);
        if (seqs == NULL) {
            return NULL;
        }
        mutex_lock(&l->mutex);
        if (l->count + 1 > need) {
            mutex_unlock(&l->mutex);
            alloc_put(a, MEM_BUILD, seqs, need * sizeof *seqs);
            continue;
        }
        size_t n = 0;
        for (struct held_seq *h = l->head.next; h != &l->head; h = h->next) {
            assert(n == 0 || seqs[n - 1] <= h->seq);
            if (n == 0 || seqs[n - 1] != h->seq) {
                seqs[n++] = h->seq;
            }
        }
        uint64_t now = commit_visible(c) - 1;
        if (n == 0 || seqs[n - 1] != now) {
            seqs[n++] = now;
        }
        mutex_unlock(&l->mutex);
        *count = n;
        *cap = need;
        return seqs;
    }
}

uint64_t snapshot_oldest(struct snapshot_list *l, const struct commit *c)
{
    mutex_lock(&l->mutex);
    uint64_t seq = l->count != 0 ? l->head.next->seq : commit_visible(c) - 1;
    mutex_unlock(&l->mutex);
    return seq;
}

uint64_t snapshot_count(struct snapshot_list *l)
{
    mutex_lock(&l->mutex);
    uint64_t n = l->count;
    mutex_unlock(&l->mutex);
    return n;
}
