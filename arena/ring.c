/* ring.c - Reserving, publishing and reading the entries of a ring.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Picture, states and guarantees are in ring.h; claims are ring_claim.c, the moving head is
 * ring_reclaim.c, memory that comes and goes is ring_lent.c.
 *
 * Invariants
 *   1. head <= evict <= tail, and tail - head <= capacity. claim is only a hint: nothing below it
 *      can be or become dirty, but it may lag behind evict and even go back.
 *   2. An address at which an entry of this lap began is never inside another entry of the lap: the
 *      tail only goes back (ring_shrink) within the last entry, when that is RESERVED and says its new
 *      size already. So a walker that stepped by the size before lands on a unit whose descriptor does
 *      not carry the lap, and stops, or on an entry that was reserved after it had read that size.
 *   3. claim passes no entry that is or can become READY (RESERVED, READY, WRITING). What it passed
 *      keeps its end: a fill that shrinks leaves a pad, even at the tail.
 *   4. Between the move of the tail and the store of the descriptor (a few instructions) the entry
 *      is not yet entered: its descriptor carries an older lap, and walkers stop there.
 *   5. Each way out of a state that can stop a waiter is one read-modify-write of the descriptor,
 *      followed by ring_notify_().
 *   6. Walkers are inside an epoch section, or the reclaimer, so what they walk over is not reused under
 *      them.
 */
#include "arena/ring.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "arena/sync.h"
#include "arena/thread_slot.h"

#include "arena/poison.h"

#define SLEEP_MAX_MICROS 1000u /* epochs pass without telling anybody, so no sleep is long */
#define BATCH_BYTES      ((uint64_t)64 << 10)
#define AHEAD_BYTES      ((uint64_t)4 << 20)

static uint64_t at_least(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int options_check(const struct ring_options *o)
{
    if (o->unit < 8 || o->unit > (1u << 20) || (o->unit & (o->unit - 1)) != 0) {
        return FAIL(LOAM_E_INVAL, "a ring's unit is a power of two from 8 to 2^20, not %zu",
                    o->unit);
    }
    if (o->bytes == 0 || o->bytes % o->unit != 0 || o->bytes / o->unit > RING_UNITS_MAX) {
        return FAIL(LOAM_E_INVAL, "a ring of %zu bytes is not 1 to 2^24 units of %zu", o->bytes,
                    o->unit);
    }
    if (o->bytes_own % o->unit != 0 || o->bytes_own > o->bytes ||
        (o->memory != NULL && o->bytes_own != 0)) {
        return FAIL(LOAM_E_INVAL, "a ring of %zu bytes cannot have %zu of its own", o->bytes,
                    o->bytes_own);
    }
    if ((uintptr_t)o->memory % at_most(o->unit, 4096) != 0) {
        return FAIL(LOAM_E_INVAL, "the ring's memory is not aligned to its unit");
    }
    if (o->second_chance_percent > 75 || o->first_lap > RING_LAP_MAX) {
        return FAIL(LOAM_E_INVAL, "second_chance_percent %u or first_lap out of range",
                    o->second_chance_percent);
    }
    return LOAM_OK;
}

/* Memory for entries; what may be lent is charged when it is. */
static void *map_data(struct ring *r)
{
    bool charged = r->own == r->units;
    void *p = alloc_map(r->alloc, MEM_RING, r->bytes, at_least((uint64_t)1 << r->unit_shift, 4096),
                        true, !charged);
    if (p != NULL && !charged) {
        alloc_charge(r->alloc, MEM_RING, r->own << r->unit_shift);
    }
    return p;
}

static void unmap_data(struct ring *r)
{
    bool charged = r->own == r->units;
    alloc_unmap(r->alloc, MEM_RING, r->data, r->bytes, !charged);
    if (!charged) {
        alloc_uncharge(r->alloc, MEM_RING, (r->own + r->lent) << r->unit_shift);
    }
}

int ring_init(struct ring *r, const struct ring_options *o)
{
    memset(r, 0, sizeof *r);
    int rc = options_check(o);
    if (rc != LOAM_OK) {
        return rc;
    }
    r->alloc = o->alloc;
    r->unit_shift = (unsigned)__builtin_ctzll((unsigned long long)o->unit);
    r->bytes = o->bytes;
    r->units = o->bytes >> r->unit_shift;
    r->own = o->bytes_own != 0 ? o->bytes_own >> r->unit_shift : r->units;
    r->in_order = o->in_order;
    r->relocate = o->relocate;
    r->relocate_arg = o->relocate_arg;
    r->second_chance_percent = o->relocate == NULL ? 0 : o->second_chance_percent;
    /* A sixteenth is kept ahead, up to some milliseconds of the fastest fills: it holds nothing. Topped up in
     * batches small enough for a reader that missed. */
    r->ahead = at_most(r->own / 16, AHEAD_BYTES >> r->unit_shift);
    r->batch = at_least(at_most(BATCH_BYTES >> r->unit_shift, r->ahead / 4), 1);
    r->stamp_size = at_least(r->batch, r->ahead / 8);

    r->desc_bytes = (size_t)r->units * sizeof *r->desc;
    r->desc = alloc_map(o->alloc, MEM_RING, r->desc_bytes, 4096, true, false);
    if (r->desc == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for %zu bytes of ring descriptors", r->desc_bytes);
    }
    r->own_memory = o->memory == NULL;
    r->data = r->own_memory ? map_data(r) : o->memory;
    if (r->data == NULL) {
        alloc_unmap(o->alloc, MEM_RING, r->desc, r->desc_bytes, false);
        r->desc = NULL;
        return FAIL(LOAM_E_NOMEM, "no memory for a ring of %zu bytes", o->bytes);
    }
    uint64_t start = (o->first_lap == 0 ? 1 : o->first_lap) << RING_INDEX_BITS;
    r->stamped = start;
    /* relaxed: no other thread knows the ring yet. */
    atom_store(&r->limit, r->own, relaxed);
    atom_store(&r->tail, start, relaxed);
    atom_store(&r->head, start, relaxed);
    atom_store(&r->evict, start, relaxed);
    atom_store(&r->claim, start, relaxed);
    atom_store(&r->low_mark, start + r->own - r->ahead, relaxed);
    return LOAM_OK;
}

void ring_destroy(struct ring *r)
{
    if (r->desc == NULL) {
        return;
    }
    alloc_unmap(r->alloc, MEM_RING, r->desc, r->desc_bytes, false);
    if (r->own_memory) {
        unmap_data(r);
    }
    r->desc = NULL;
    r->data = NULL;
}

size_t ring_entry_max(const struct ring *r)
{
    return (size_t)(at_least(r->own / 4, 1) << r->unit_shift);
}

/* ---- sleeping -------------------------------------------------------------------------------- */

void ring_notify_(struct ring *r)
{
    /* seq_cst, as is the change of state before: either this load sees the waiter, or the waiter's
     * check, which follows its seq_cst increment and a fence, sees the change. */
    if (__builtin_expect(atom_load(&r->waiters, seq_cst) != 0, 0)) {
        /* release: pairs with the acquire in ring_wait_enter_(). */
        atom_add(&r->event, 1, release);
        word_wake_all(&r->event);
    }
}

uint32_t ring_wait_enter_(struct ring *r)
{
    /* seq_cst: see ring_notify_(). */
    atom_add(&r->waiters, 1, seq_cst);
    atom_fence(); /* the caller's check, whose loads are not seq_cst, comes after the increment */
    /* acquire: pairs with the release in ring_notify_(). */
    return atom_load(&r->event, acquire);
}

void ring_wait_leave_(struct ring *r, uint32_t event, uint64_t micros)
{
    if (micros != 0) {
        word_wait(&r->event, event, at_most(micros, SLEEP_MAX_MICROS));
    }
    /* relaxed: a notifier that still sees this waiter only wakes nobody. */
    atom_sub(&r->waiters, 1, relaxed);
}

/* This thread's number + 1 as kept in the word of a reservation; 0: has none that fits. */
static uint64_t self_bits(void)
{
    uint32_t self = thread_slot_self() + 1; /* THREAD_SLOT_NONE becomes 0 */
    return self <= RING_PINS ? self : 0;
}

bool ring_mine_(uint64_t word)
{
    enum ring_state s = ring_state_(word);
    return (s == RING_RESERVED || s == RING_FILLING) && (word & RING_PINS) != 0 &&
           (word & RING_PINS) == self_bits();
}

/* ---- reserving ------------------------------------------------------------------------------- */

static void enter_pad(struct ring *r, uint64_t addr, uint64_t units)
{
    struct ring_desc *d = ring_desc_(r, addr);
    /* relaxed: ordered by the release that follows. */
    atom_store(&d->units, (uint32_t)units, relaxed);
    /* release: pairs with the acquire of the walkers; the size is valid. */
    atom_store(&d->word, ring_word_(addr, RING_PAD), release);
    /* relaxed: a statistic. */
    atom_add(&r->pad_units, units, relaxed);
}

int ring_try_reserve_(struct ring *r, uint64_t units, enum ring_state state, size_t size,
                      uint64_t owner, uint64_t cookie, uint64_t *addr)
{
    /* acquire, here and below: pairs with the fence of ring_take_back(); from a tail behind it the limit
     * is the one it set. */
    uint64_t t = atom_load(&r->tail, acquire);
    uint64_t at, end, pad;
    do {
        /* acquire: pairs with the reclaimer's store; the last readers of freed units are done. */
        uint64_t h = atom_load(&r->head, acquire);
        while (t < h) { /* an old tail */
            t = atom_load(&r->tail, acquire);
        }
        /* acquire: pairs with the release in ring_lend(); the memory is the ring's. */
        uint64_t limit = atom_load(&r->limit, acquire);
        pad = ring_index_(t) + units <= limit ? 0 : r->units - ring_index_(t);
        at = pad == 0 ? t : ring_tag_(t) + RING_UNITS_MAX;
        end = ring_step_(r, at, units);
        if (ring_distance_(r, t, h) + pad + units > r->units) {
            return LOAM_STOPPED;
        }
        if (end < t) {
            return FAIL(LOAM_E_INTERNAL, "the ring has used up its 2^40 laps");
        }
        /* acquire: pairs with the release of a shrink, which gave back units it may have written.
         */
    } while (!atom_cas(&r->tail, &t, end, acq_rel, acquire));

    if (pad != 0) {
        enter_pad(r, t, pad);
    }
    struct ring_desc *d = ring_desc_(r, at);
    d->size = (uint32_t)size;
    d->owner = owner;
    d->cookie = cookie;
    /* relaxed: ordered by the release that follows. */
    atom_store(&d->units, (uint32_t)units, relaxed);
    /* release: pairs with the acquire of the walkers; the size is valid. */
    atom_store(&d->word, ring_word_(at, state) | self_bits(), release);
    *addr = at;
    return LOAM_OK;
}

static void hole_forget(struct ring *r, unsigned i, uint64_t addr)
{
    /* relaxed: hints; the descriptor decides. */
    if (atom_cas(&r->hole[i], &addr, 0, relaxed, relaxed)) {
        atom_sub(&r->hole_count, 1, relaxed);
    }
}

static void hole_offer(struct ring *r, uint64_t addr)
{
    unsigned first = (unsigned)(addr % RING_HOLES);
    for (unsigned k = 0; k < RING_HOLES; k++) {
        uint64_t none = 0;
        /* relaxed: hints; the descriptor decides. */
        if (atom_cas(&r->hole[(first + k) % RING_HOLES], &none, addr, relaxed, relaxed)) {
            atom_add(&r->hole_count, 1, relaxed);
            return;
        }
    }
    atom_store(&r->hole[first], addr, relaxed); /* drops an older hint; its units come back later */
}

/* A discarded reservation of about the right size, not about to be evicted. Nobody ever knew its
 * address, so it needs no epoch to pass. */
static bool reserve_hole(struct ring *r, uint64_t units, size_t size, uint64_t owner,
                         uint64_t cookie, uint64_t *addr)
{
    for (unsigned i = 0; i < RING_HOLES; i++) {
        uint64_t a = atom_load(&r->hole[i], relaxed); /* relaxed: a hint */
        if (a == 0) {
            continue;
        }
        struct ring_desc *d = ring_desc_(r, a);
        uint64_t has = atom_load(&d->units, relaxed); /* relaxed: checked by the CAS below */
        /* relaxed: a little more or less does not matter. */
        uint64_t t = atom_load(&r->tail, relaxed);
        if (t < a || ring_distance_(r, t, a) > r->units / 2) {
            hole_forget(r, i, a); /* what is filled here would be the next to go */
            continue;
        }
        if (has < units || has > units + units / 4) {
            continue;
        }
        hole_forget(r, i, a);
        uint64_t w = ring_word_(a, RING_DISCARDED);
        /* acquire: pairs with the discard; its owner's writes to the bytes are over. */
        if (atom_cas(&d->word, &w, ring_word_(a, RING_FILLING) | self_bits(), acq_rel, relaxed)) {
            d->size = (uint32_t)size;
            d->owner = owner;
            d->cookie = cookie;
            atom_add(&r->holes_reused, 1, relaxed); /* relaxed: a statistic */
            *addr = a;
            return true;
        }
    }
    return false;
}

int ring_reserve(struct ring *r, enum ring_kind kind, size_t size, uint64_t owner, uint64_t cookie,
                 uint64_t *addr)
{
    if (size == 0 || size > ring_entry_max(r) || size > UINT32_MAX) {
        return FAIL(LOAM_E_TOOBIG, "a ring entry has 1 to %zu bytes, not %zu", ring_entry_max(r),
                    size);
    }
    uint64_t units = ring_units_(r, size);
    /* relaxed: a matter of fairness. */
    if (kind == RING_FILL && atom_load(&r->held, relaxed) != 0) {
        return LOAM_STOPPED;
    }
    /* relaxed: a hint. */
    if (kind == RING_FILL && atom_load(&r->hole_count, relaxed) != 0 &&
        reserve_hole(r, units, size, owner, cookie, addr)) {
        return LOAM_OK;
    }
    enum ring_state s = kind == RING_FILL ? RING_FILLING : RING_RESERVED;
    int rc = ring_try_reserve_(r, units, s, size, owner, cookie, addr);
    if (rc == LOAM_STOPPED && ring_reclaim(r, size)) {
        rc = ring_try_reserve_(r, units, s, size, owner, cookie, addr);
    }
    if (rc == LOAM_OK && *addr >= atom_load(&r->low_mark, relaxed)) { /* relaxed: a hint */
        ring_reclaim_ahead_(r);
    } else if (rc == LOAM_STOPPED) {
        atom_add(&r->reserve_full, 1, relaxed); /* relaxed: a statistic */
    }
    return rc;
}

/* The state of a reservation of the calling thread; nobody else changes it. */
static enum ring_state reserved_state(const struct ring_desc *d, uint64_t addr)
{
    uint64_t w = atom_load(&d->word, relaxed); /* relaxed: this thread stored it */
    assert(ring_tag_(w) == ring_tag_(addr));
    (void)addr;
    return ring_state_(w);
}

void ring_set_owner(struct ring *r, uint64_t addr, uint64_t owner, uint64_t cookie)
{
    struct ring_desc *d = ring_desc_(r, addr);
    assert(reserved_state(d, addr) == RING_RESERVED || reserved_state(d, addr) == RING_FILLING);
    d->owner = owner;
    d->cookie = cookie;
}

void ring_shrink(struct ring *r, uint64_t addr, size_t used)
{
    struct ring_desc *d = ring_desc_(r, addr);
    assert(reserved_state(d, addr) == RING_RESERVED || reserved_state(d, addr) == RING_FILLING);
    assert(used >= 1 && used <= d->size);
    uint64_t has = atom_load(&d->units, relaxed); /* relaxed: this thread stored it */
    uint64_t keep = ring_units_(r, used);
    d->size = (uint32_t)used;
    if (keep == has) {
        return;
    }
    uint64_t end = ring_step_(r, addr, has), cut = ring_step_(r, addr, keep);
    bool fill = reserved_state(d, addr) == RING_FILLING;
    if (fill) {
        enter_pad(r, cut, has - keep);
    }
    /* Before the tail goes back: who walks by the old size must not come to what is entered where the entry
     * ended, past what is entered in between. Until that is, or a pad, walkers stop at the cut.
     * release: pairs with the acquire of walkers, who find a fill's pad there. */
    atom_store(&d->units, (uint32_t)keep, release);
    /* release: pairs with the acquire in ring_try_reserve_(); this thread's writes to the units
     * given back are over. */
    if (!fill && !atom_cas(&r->tail, &end, cut, acq_rel, relaxed)) {
        enter_pad(r, cut, has - keep);
    }
}

void ring_publish(struct ring *r, uint64_t addr)
{
    struct ring_desc *d = ring_desc_(r, addr);
    assert(ring_may_step_(reserved_state(d, addr), RING_READY));
    /* seq_cst: releases the bytes to claimers and readers, and precedes the load in notify. */
    atom_swap(&d->word, ring_word_(addr, RING_READY), seq_cst);
    ring_notify_(r);
}

void ring_publish_clean(struct ring *r, uint64_t addr, bool hot)
{
    struct ring_desc *d = ring_desc_(r, addr);
    assert(ring_may_step_(reserved_state(d, addr), RING_CLEAN));
    /* seq_cst: as in ring_publish(). */
    atom_swap(&d->word, ring_word_(addr, RING_CLEAN) | (hot ? RING_REF : 0), seq_cst);
    ring_notify_(r);
}

void ring_discard(struct ring *r, uint64_t addr)
{
    struct ring_desc *d = ring_desc_(r, addr);
    assert(ring_may_step_(reserved_state(d, addr), RING_DISCARDED));
    /* seq_cst: releases the units to the next filler, and precedes the load in notify. */
    atom_swap(&d->word, ring_word_(addr, RING_DISCARDED), seq_cst);
    hole_offer(r, addr);
    ring_notify_(r);
}

/* ---- reading --------------------------------------------------------------------------------- */

bool ring_live(struct ring *r, uint64_t addr)
{
    if (ring_has_passed(r, addr)) {
        return false;
    }
    /* relaxed: whoever wants the bytes reads again, with acquire. */
    uint64_t w = atom_load(&ring_desc_(r, addr)->word, relaxed);
    return ring_word_readable(w, addr) ||
           (ring_tag_(w) == ring_tag_(addr) &&
            (ring_state_(w) == RING_RESERVED || ring_state_(w) == RING_FILLING));
}

enum ring_state ring_entry_state(struct ring *r, uint64_t addr)
{
    uint64_t w = atom_load(&ring_desc_(r, addr)->word, relaxed); /* relaxed: a moment's answer */
    return ring_tag_(w) == ring_tag_(addr) ? ring_state_(w) : RING_FREE;
}

const void *ring_pin(struct ring *r, uint64_t addr, size_t *size)
{
    struct ring_desc *d = ring_desc_(r, addr);
    uint64_t w = atom_load(&d->word, relaxed); /* relaxed: the CAS acquires */
    do {
        if (!ring_word_readable(w, addr) || (w & RING_PINS) == RING_PINS) {
            return NULL;
        }
        /* acquire: pairs with the publishing swap; makes size and bytes visible. */
    } while (!atom_cas(&d->word, &w, (w | RING_REF) + 1, acq_rel, relaxed));
    *size = d->size;
    return ring_data(r, addr);
}

void ring_unpin(struct ring *r, uint64_t addr)
{
    /* seq_cst: this thread's reads are over before the reclaimer's CAS; precedes notify's load. */
    uint64_t w = atom_sub(&ring_desc_(r, addr)->word, 1, seq_cst);
    assert((w & RING_PINS) != 0 && ring_tag_(w) == ring_tag_(addr));
    if ((w & RING_PINS) == 1) {
        ring_notify_(r);
    }
}
