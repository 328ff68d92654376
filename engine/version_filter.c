/* version_filter.c - Stripes of versions between held sequence numbers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_filter.h"

#include "arena/poison.h"

void version_filter_init(struct version_filter *f, struct alloc *a, const uint64_t *held,
                         size_t count, const loam_comparator *cmp, bool bottom)
{
    *f = (struct version_filter){
        .held = held, .held_count = count, .cmp = cmp, .bottom = bottom};
    buf_init(&f->copy, a, MEM_BUILD);
}

void version_filter_free(struct version_filter *f)
{
    buf_free(&f->copy);
}

/* Remembers the key. False: no memory. */
static bool note_key(struct version_filter *f, loam_slice key)
{
    if (!f->lent) {
        buf_set(&f->copy, key.data, key.size);
        key = buf_slice(&f->copy);
    }
    f->key = key;
    f->has_key = true;
    return !f->copy.oom;
}

/* Index of the first held number >= seq: the oldest reader that can see it. held_count when it is
 * newer than all of them; such versions are kept apart as a stripe of their own. */
static size_t stripe_of(const struct version_filter *f, uint64_t seq)
{
    size_t lo = 0, hi = f->held_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (f->held[mid] < seq) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

enum version_verdict version_filter_next(struct version_filter *f, const struct entry *e,
                                         bool *same_key)
{
    uint64_t seq = tag_seq(e->tag);
    size_t stripe = stripe_of(f, seq);
    *same_key = f->has_key && key_compare(f->cmp, f->key, e->key) == 0;
    if (!*same_key) {
        if (!note_key(f, e->key)) {
            return VERSION_OOM;
        }
    } else if (stripe == f->stripe && stripe < f->held_count) {
        f->dropped++; /* a newer version is what every reader of this stripe sees */
        return VERSION_DROP;
    }
    f->stripe = stripe;
    if (tag_kind(e->tag) == ENTRY_DELETE && f->bottom && stripe == 0) {
        /* Older versions in this stripe, if any, are dropped above: nothing is left to hide. */
        f->dropped++;
        f->tombstones_dropped++;
        return VERSION_DROP;
    }
    return VERSION_KEEP;
}
