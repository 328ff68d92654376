/* ring_lent.c - Memory that a ring has for a while, how entries come to it and leave it again.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   0            own                limit              units
 *   +-------------+------------------+------------------+
 *   | always      | lent             | padded each lap  |     addresses and descriptors are there for all
 *   +-------------+------------------+------------------+
 *
 * Lending raises the limit: the tail goes on where it would have padded. Until then new entries take the place
 * of old ones as before, unless the ring is turned that far (ring_reach_lent). Taking back takes steps:
 *
 *   limit lowered -> [fence] -> no entry begins beyond it any more
 *                 -> [vacate] -> none that began there before can be found
 *                 -> [epoch passed] -> none is read: the pages go back to the system
 *
 * Fence: an entry of one unit, reserved behind the store of the limit and discarded. A reservation
 * loads the tail (acquire), then the limit, and wins its place by a CAS from that tail. When its place is
 * behind the fence, so is the tail it loaded, since the tail never comes back to where it was before a
 * whole entry: then the load synchronises with the fence's CAS (acq_rel), and the limit it loaded
 * is the lowered one. So whatever is beyond the limit is older than the fence, and one lap old at most.
 *
 * Vacate: a walk from the evict cursor to the fence, in the reclaimer's role: the cursor does not move
 * meanwhile, and nobody is copying an entry for its second chance whose bytes are about to go. The epoch
 * is stamped after each entry there became EVICTED, as in ring_reclaim.c.
 */
#include <assert.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/status.h"

#include "arena/poison.h"

void ring_lend(struct ring *r, size_t bytes)
{
    uint64_t limit = atom_load(&r->limit, relaxed); /* relaxed: this thread's own */
    uint64_t more = bytes >> r->unit_shift;
    assert(r->fence == 0 && limit == r->own + r->lent);
    more = more < r->units ? more : r->units;
    if (more <= limit) {
        return;
    }
    alloc_charge(r->alloc, MEM_RING, (more - limit) << r->unit_shift);
    r->lent = more - r->own;
    uint64_t t = atom_load(&r->tail, relaxed); /* relaxed: an older one is turned past a little longer */
    r->untouched = ring_index_(t) < limit ? ring_tag_(t) + limit : 0;
    /* release: pairs with the acquire in ring_try_reserve_(); the memory is at rest. */
    atom_store(&r->limit, more, release);
}

/* The tail is there, and the cursor has passed what was left there a lap before: once and for all, since neither
 * ever comes back. */
static bool is_reached(struct ring *r)
{
    /* relaxed, both: older ones cost a call. */
    return atom_load(&r->tail, relaxed) >= r->untouched && atom_load(&r->evict, relaxed) >= ring_tag_(r->untouched);
}

bool ring_reach_lent(struct ring *r, size_t bytes)
{
    if (!is_reached(r)) {
        ring_rotate_(r, bytes >> r->unit_shift);
    }
    return is_reached(r);
}

/* From where on the limit holds. False: no room for the entry that shows it. */
static bool fence(struct ring *r)
{
    uint64_t addr;
    size_t unit = (size_t)1 << r->unit_shift;
    if (!ring_reclaim(r, unit) ||
        ring_try_reserve_(r, 1, RING_FILLING, unit, 0, 0, &addr) != LOAM_OK) {
        return false;
    }
    r->fence = addr;
    ring_discard(r, addr);
    return true;
}

/* Makes unreadable all that lies beyond the limit. False: something there is in use. */
static bool vacate(struct ring *r)
{
    uint64_t limit = atom_load(&r->limit, relaxed); /* relaxed: this thread's own */
    if (!ring_reclaimer_enter_(r)) {
        return false;
    }
    bool empty = true;
    for (uint64_t p = atom_load(&r->evict, relaxed); p < r->fence;) { /* relaxed: the reclaimer's own */
        struct ring_desc *d = ring_desc_(r, p);
        /* acquire: pairs with the publishing stores; the size is valid. */
        uint64_t w = atom_load(&d->word, acquire);
        if (ring_tag_(w) != ring_tag_(p)) {
            empty = false; /* not entered yet, or it has shrunk: not known what follows */
            break;
        }
        uint64_t units = atom_load(&d->units, acquire); /* acquire: pairs with a shrink */
        if (ring_index_(p) + units > limit && !ring_evict_entry_(r, p, d, RING_NO_CHANCE)) {
            empty = false;
        }
        p = ring_step_(r, p, units);
    }
    if (empty) {
        r->left_stamp = epoch_stamp();
    }
    ring_reclaimer_leave_(r);
    return empty;
}

bool ring_take_back(struct ring *r, size_t bytes)
{
    uint64_t all = r->own + r->lent, keep = bytes >> r->unit_shift;
    if (r->fence == 0) {
        keep = keep > r->own ? keep : r->own;
        if (keep >= all) {
            keep = all; /* the limit may have been lowered in vain */
        }
        /* relaxed: the fence releases it. */
        atom_store(&r->limit, keep, relaxed);
        r->untouched = 0;
        if (keep == all) {
            return true;
        }
        atom_store(&r->low_mark, 0, relaxed); /* relaxed: a hint; it may stand beyond the limit */
        if (!fence(r)) {
            return false;
        }
    }
    if ((r->left_stamp == 0 && !vacate(r)) || !epoch_passed(r->left_stamp)) {
        return false;
    }
    keep = atom_load(&r->limit, relaxed); /* relaxed: this thread's own */
    size_t back = (size_t)((all - keep) << r->unit_shift);
    alloc_discard(r->data + (keep << r->unit_shift), back);
    alloc_uncharge(r->alloc, MEM_RING, back);
    r->lent = keep - r->own;
    r->fence = r->left_stamp = 0;
    return true;
}
