/* slotmap_limbo.c - Slots out of use: erased ones that wait for their epoch, then free ones.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     erase, last unpin --push--> limbo --exchange--> batch --epoch--> magazines --> spill list
 *                                                               carve --^   (32 at a time)
 *
 * Limbo is a stack linked through the pages' link arrays; one word holds its top, so a push is one
 * compare-and-swap and everything in it is taken by one exchange (there is no pop, hence no ABA).
 * What was taken is the batch. It waits for one epoch as a whole: with a finaliser as the map's only
 * epoch node (`armed` in the word says that the node is on its way), without one by a stamp that a
 * later erase looks at. A free slot that no magazine and no depot cell has room for is put at the
 * end of the spill list, so that reuse stays first in, first out.
 */
#include <assert.h>

#include "arena/slotmap_slot.h"

#include "arena/poison.h"

#define LIMBO_NEWEST ((uint64_t)UINT32_MAX) /* slot + 1 */
#define LIMBO_ARMED  ((uint64_t)1 << 32)
#define LIMBO_ONE    ((uint64_t)1 << 33)
#if defined(LOAM_MC)
#define LIMBO_STEP 1
#else
#define LIMBO_STEP 256 /* erases between two looks at the epoch; a power of two */
#endif

/* ---- free slots ----------------------------------------------------------------------------- */

void slotmap_spill_(void *arg, const uint64_t *items, uint32_t n)
{
    struct slotmap *m = arg;
    mutex_lock(&m->spill_mutex);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index = (uint32_t)items[i];
        *link_at(m, index) = 0;
        if (m->spill_last != 0) {
            *link_at(m, m->spill_last - 1) = index + 1;
        } else {
            m->spill_first = index + 1;
        }
        m->spill_last = index + 1;
    }
    /* relaxed, here and in unspill: a hint to those who do not hold the lock. */
    atom_store(&m->spill_count, atom_load(&m->spill_count, relaxed) + n, relaxed);
    mutex_unlock(&m->spill_mutex);
}

static uint32_t unspill(struct slotmap *m, uint64_t *items, uint32_t n)
{
    uint32_t got = 0;
    mutex_lock(&m->spill_mutex);
    for (; got < n && m->spill_first != 0; got++) {
        uint32_t index = m->spill_first - 1;
        items[got] = index;
        m->spill_first = *link_at(m, index);
    }
    if (m->spill_first == 0) {
        m->spill_last = 0;
    }
    atom_store(&m->spill_count, atom_load(&m->spill_count, relaxed) - got, relaxed);
    mutex_unlock(&m->spill_mutex);
    return got;
}

/* Slots that were never used, lowest on top. */
static uint32_t carve(struct slotmap *m, uint64_t *items)
{
    uint32_t first = atom_load(&m->carved, relaxed); /* relaxed: the exchange below decides */
    do {
        if (first >= SLOTMAP_SLOT_LIMIT || !slotmap_page_ensure_(m, page_of(first))) {
            return 0;
        }
        /* release: pairs with the acquire in carved_slots(); the page exists. */
    } while (!atom_cas(&m->carved, &first, first + MAGAZINE_ITEMS, release, relaxed));
    for (uint32_t i = 0; i < MAGAZINE_ITEMS; i++) {
        items[i] = first + MAGAZINE_ITEMS - 1 - i;
    }
    return MAGAZINE_ITEMS;
}

uint32_t slotmap_refill_(void *arg, uint64_t *items, uint32_t n)
{
    struct slotmap *m = arg;
    assert(n == MAGAZINE_ITEMS); /* a power of two: runs never cross a page */
    if (atom_load(&m->spill_count, relaxed) != 0) {
        uint32_t got = unspill(m, items, n);
        if (got != 0) {
            return got;
        }
    }
    return carve(m, items);
}

void slotmap_recycle_(struct slotmap *m, struct slotmap_slot *s, uint32_t index,
                      uint32_t generation, enum slotmap_slot_state from)
{
    bool last = generation == UINT32_MAX;
    assert(slot_may_step(from, last ? SLOTMAP_RETIRED : SLOTMAP_FREE));
    (void)from;
    /* relaxed: whoever gets the slot next gets it through the magazines. */
    atom_store(&s->payload, NULL, relaxed);
    if (last) {
        atom_store(&s->word, word_of(generation, SLOTMAP_RETIRED, 0), relaxed);
        atom_add(&m->retired, 1, relaxed); /* relaxed: a statistic */
        return;
    }
    atom_store(&s->word, word_of(generation + 1, SLOTMAP_FREE, 0), relaxed);
    magazine_give(&m->magazines, magazine_cache_self(&m->magazines), index);
}

/* ---- limbo ---------------------------------------------------------------------------------- */

void slotmap_finalise_(struct slotmap *m, uint32_t index, bool finalise)
{
    struct slotmap_slot *s = slot_at(m, index);
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the slot is this thread's alone */
    assert(word_pins(w) == 0);
    if (finalise && m->finaliser != NULL) {
        m->finaliser(m->finaliser_arg, atom_load(&s->payload, relaxed)); /* relaxed: as above */
    }
    /* relaxed: the bit changes hands with the slot. */
    atom_and(occupancy_at(m, index), ~((uint64_t)1 << index % 64), relaxed);
    slotmap_recycle_(m, s, index, word_generation(w), word_state(w));
}

static void batch_finalise(struct slotmap *m, uint32_t newest)
{
    while (newest != 0) {
        uint32_t index = newest - 1;
        newest = *link_at(m, index);
        slotmap_finalise_(m, index, true);
    }
}

static void limbo_drain(void *arg, void *ptr);

/* Sends everything in limbo off as a batch. Threads: the one that set `armed`. */
static void limbo_arm(struct slotmap *m)
{
    /* acq_rel: acquire pairs with the release of every push (links); release hands `batch` on. */
    m->batch = (uint32_t)atom_swap(&m->limbo, LIMBO_ARMED, acq_rel);
    epoch_retire_node(&m->node, limbo_drain, m, NULL);
}

/* The epoch node's function: the sections that could see the batch have ended. */
static void limbo_drain(void *arg, void *ptr)
{
    (void)ptr;
    struct slotmap *m = arg;
    batch_finalise(m, m->batch);
    uint64_t expected = LIMBO_ARMED;
    /* release: the next to arm, and destroy, see this thread's use of node and batch ended. */
    if (!atom_cas(&m->limbo, &expected, 0, release, relaxed)) {
        limbo_arm(m);
    }
}

void slotmap_limbo_step_(struct slotmap *m)
{
    /* acquire: pairs with the release below; the batch is this thread's until then. */
    if (atom_load(&m->draining, relaxed) != 0 || atom_swap(&m->draining, 1, acquire) != 0) {
        return;
    }
    if (m->batch == 0 || epoch_passed(m->batch_stamp)) {
        batch_finalise(m, m->batch);
        m->batch = (uint32_t)atom_swap(&m->limbo, 0, acquire); /* acquire: the pushes' links */
        m->batch_stamp = epoch_stamp();
    }
    atom_store(&m->draining, 0, release);
}

void slotmap_limbo_push_(struct slotmap *m, uint32_t index)
{
    uint64_t armed = m->finaliser != NULL ? LIMBO_ARMED : 0;
    uint64_t head = atom_load(&m->limbo, relaxed); /* relaxed: the exchange below decides */
    uint64_t next;
    do {
        *link_at(m, index) = (uint32_t)head;
        next = ((head & ~LIMBO_NEWEST) | armed | (index + 1)) + LIMBO_ONE;
        /* release: pairs with whoever takes the list; the link and all done with the payload.
         * acquire: pairs with the release in limbo_drain(), for the one that arms. */
    } while (!atom_cas(&m->limbo, &head, next, acq_rel, relaxed));
    if (armed != 0) {
        if ((head & LIMBO_ARMED) == 0) {
            limbo_arm(m);
        }
    } else if ((next / LIMBO_ONE) % LIMBO_STEP == 0) {
        slotmap_limbo_step_(m);
    }
}
