/* ring_reclaim.c - How the head of a ring moves: eviction, second chance, reuse after the epoch.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   head            stamped         evict                                 tail
 *    | epoch stamps  | not stamped   | oldest entry that can be read       |
 *    +---------------+---------------+-------------------------------------+
 *      stamp[0..n)     EVICTED         CLEAN, WRITING, READY, ...
 *
 * The head moves in two steps. First entries become EVICTED: readers who come from now on find them
 * stale. Then, for a batch of them, an epoch stamp is taken; when that epoch has passed, every
 * section that may hold the bytes has ended, and the head moves over the batch. Both steps are the
 * reclaimer's: the thread that set `reclaiming`. Nobody waits for it: whoever finds it set does
 * without.
 *
 * Invariants
 *   1. head, evict, stamped, the stamps, the credit and what it depends on are written by the reclaimer
 *      only; head <= stamped <= evict.
 *   2. A stamp is taken after each entry below its end became EVICTED and pinless.
 *   3. Bytes copied are at most second_chance_percent of bytes evicted, so a walk of n units gains
 *      at least a quarter of n. Not so ring_rotate_(), which is not there to gain any.
 *
 * Ordering guarantees
 *   EVICTED (CAS) -> epoch_stamp (seq_cst) -> epoch_passed (acquire of the sections' ends) -> head
 *   (release) -> ring_reserve (acquire): the reads of all sections happen before the next writes.
 *   tests/explore takes each arrow away in turn (ring_all, ring_drop_reuse, epoch_late_unlink): then
 *   the next write races with a reader. Its README lists them.
 * Progress guarantees
 *   ring_reclaim is one bounded walk. ring_wait_space blocks on what stops the head: see ring.h.
 */
#include <assert.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/status.h"
#include "arena/sync.h"

#include "arena/poison.h"

bool ring_reclaimer_enter_(struct ring *r)
{
    uint32_t nobody = 0;
    /* relaxed look first: the line stays shared while somebody else reclaims.
     * acquire: pairs with the release in ring_reclaimer_leave_(). */
    return atom_load(&r->reclaiming, relaxed) == 0 &&
           atom_cas(&r->reclaiming, &nobody, 1, acquire, relaxed);
}

void ring_reclaimer_leave_(struct ring *r)
{
    /* release: hands the reclaimer's fields to the next one. */
    atom_store(&r->reclaiming, 0, release);
}

/* A counter that only the reclaimer writes. */
static void count(_Atomic uint64_t *counter, uint64_t n)
{
    /* relaxed: a statistic with one writer. */
    atom_store(counter, atom_load(counter, relaxed) + n, relaxed);
}

/* Frees the batches whose epoch has passed; may call membarrier. */
static void release_passed(struct ring *r)
{
    bool moved = false;
    while (r->stamp_count != 0) {
        const struct ring_stamp *s = &r->stamp[r->stamp_first];
        if (!epoch_passed(s->stamp)) {
            break;
        }
        /* seq_cst: releases the units to ring_try_reserve_(), and precedes the load in notify. */
        atom_swap(&r->head, s->end, seq_cst);
        r->stamp_first = (r->stamp_first + 1) % RING_STAMPS;
        r->stamp_count--;
        moved = true;
    }
    if (moved) {
        ring_notify_(r);
    }
}

static void stamp_evicted(struct ring *r)
{
    uint64_t e = atom_load(&r->evict, relaxed); /* relaxed: the reclaimer's own */
    if (e == r->stamped) {
        return;
    }
    if (r->stamp_count == RING_STAMPS) {
        r->stamp_count--; /* the youngest batch grows and gets a younger stamp */
    }
    r->stamp[(r->stamp_first + r->stamp_count) % RING_STAMPS] =
        (struct ring_stamp){e, epoch_stamp()};
    r->stamp_count++;
    r->stamped = e;
}

/* ---- second chance --------------------------------------------------------------------------- */

#define SAMPLE        8192u /* entries of a kind that say how many of it are read */
#define GAIN_PART     64u   /* a second chance gains when one in so many more of the copied entries is read */
#define PROBE_PERCENT 6u    /* of reclaimed units that are copied although it does not, to go on seeing */

/* An entry that was read is kept because it will be read again: so it is when some are wanted more than others.
 * When all are wanted alike, those kept are read again no more than new ones are, and copying them is work for
 * nothing. So both are counted, as they come to the head; each count forgets by itself, for of copied ones few
 * may come for long. */
static void weigh(struct ring *r, uint64_t word)
{
    struct ring_passed *p = (word & RING_COPIED) != 0 ? &r->copied : &r->fresh;
    p->entries++;
    p->read += (word & RING_REF) != 0;
    if (p->entries < 2 * SAMPLE) {
        return;
    }
    *p = (struct ring_passed){p->entries / 2, p->read / 2};
    if (r->fresh.entries >= SAMPLE && r->copied.entries >= SAMPLE) {
        r->even = r->copied.read * r->fresh.entries * GAIN_PART <
                  (r->fresh.read * GAIN_PART + r->fresh.entries) * r->copied.entries;
    }
}

static uint64_t copied_percent(const struct ring *r)
{
    uint64_t most = r->second_chance_percent;
    return r->even && most > PROBE_PERCENT ? PROBE_PERCENT : most;
}

/* Copies a clean entry to the tail, with those `marks`, and has its owner swap the address. False:
 * nobody knows it, or no room: it is lost. */
static bool second_chance(struct ring *r, uint64_t addr, struct ring_desc *d, uint64_t units, uint64_t marks)
{
    uint64_t copy;
    if (!r->relocate(r->relocate_arg, d->owner, d->cookie, addr, 0) ||
        ring_try_reserve_(r, ring_units_(r, d->size), RING_FILLING, d->size, d->owner, d->cookie,
                          &copy) != LOAM_OK) {
        return false;
    }
    memcpy(ring_data(r, copy), ring_data(r, addr), d->size);
    struct ring_desc *to = ring_desc_(r, copy);
    /* release: pairs with the acquire in ring_read(); the address becomes known after it. */
    atom_store(&to->word, ring_word_(copy, RING_CLEAN) | marks, release);
    if (r->relocate(r->relocate_arg, d->owner, d->cookie, addr, copy)) {
        count(&r->relocated_units, units);
        count(&r->relocated_entries, 1);
    } else {
        /* relaxed: nobody knows the address; the evicting walk passes it. */
        atom_store(&to->word, ring_word_(copy, RING_EVICTED), relaxed);
    }
    return true;
}

bool ring_evict_entry_(struct ring *r, uint64_t addr, struct ring_desc *d, enum ring_chance chance)
{
    /* acquire: pairs with the publishing stores; size, owner and bytes are valid. */
    uint64_t w = atom_load(&d->word, acquire);
    for (;;) {
        enum ring_state s = ring_state_(w);
        if (ring_tag_(w) != ring_tag_(addr)) {
            return false; /* not entered yet */
        }
        if (s == RING_PAD) {
            return true;
        }
        if ((s != RING_EVICTED && s != RING_DISCARDED && s != RING_CLEAN) || (w & RING_PINS) != 0) {
            return false;
        }
        if (s == RING_EVICTED) {
            return true;
        }
        uint64_t units = atom_load(&d->units, relaxed); /* relaxed: final */
        if (s == RING_CLEAN && chance == RING_IF_KNOWN) {
            chance = RING_NO_CHANCE;
            (void)second_chance(r, addr, d, units, w & (RING_REF | RING_COPIED));
        } else if (s == RING_CLEAN && chance == RING_IF_READ) {
            chance = RING_NO_CHANCE;
            weigh(r, w);
            if ((w & RING_REF) != 0 && r->credit >= units * 100) {
                r->credit -= second_chance(r, addr, d, units, RING_COPIED) ? units * 100 : 0;
            }
        }
        assert(ring_may_step_(s, RING_EVICTED));
        /* acq_rel: the last unpin and discard happen before; fails on a mark, a pin or a refill. */
        if (atom_cas(&d->word, &w, ring_word_(addr, RING_EVICTED), acq_rel, acquire)) {
            return true;
        }
    }
}

/* Moves the evict cursor by `want` units, or to what stops it. */
static void evict_ahead(struct ring *r, uint64_t want, enum ring_chance chance)
{
    uint64_t first = atom_load(&r->evict, relaxed); /* relaxed: the reclaimer's own */
    uint64_t e = first;
    uint64_t gained = 0;
    uint64_t credit_max = (r->units / 4 + r->batch) * 100;
    /* acquire: not older than the entries found. */
    while (gained < want && e < atom_load(&r->tail, acquire)) {
        struct ring_desc *d = ring_desc_(r, e);
        if (!ring_evict_entry_(r, e, d, chance)) {
            break;
        }
        uint64_t units = atom_load(&d->units, relaxed); /* relaxed: final */
        e = ring_step_(r, e, units);
        if (ring_state_(atom_load(&d->word, relaxed)) == RING_PAD) { /* relaxed: final */
            continue; /* the tail will pad as many again */
        }
        gained += units;
        r->credit += chance == RING_IF_READ ? units * copied_percent(r) : 0;
        r->credit = r->credit < credit_max ? r->credit : credit_max;
    }
    if (e != first) {
        count(&r->evicted_units, gained);
        /* release: pairs with the acquire in claim_start(). */
        atom_store(&r->evict, e, release);
    }
}

/* What must be free for `units` at the tail; what is, without and with evicted units. */
struct room {
    uint64_t units, needed, free, ahead;
};

/* Units from the tail to where `end` stands one lap before that entries can take: not those beyond the
 * limit, which a pad will cover. REQUIRES: end <= t, and they are no more than a lap apart. */
static uint64_t usable(const struct ring *r, uint64_t limit, uint64_t t, uint64_t end)
{
    uint64_t pad_from = ring_index_(t) > limit ? ring_index_(t) : limit;
    uint64_t pad_to = ring_tag_(end) == ring_tag_(t) ? r->units : ring_index_(end);
    uint64_t pad = pad_to > pad_from ? pad_to - pad_from : 0;
    if (ring_tag_(end) == ring_tag_(t) && ring_index_(end) > limit) {
        pad += ring_index_(end) - limit; /* a limit just lowered: the next lap pads, too */
    }
    return r->units - ring_distance_(r, t, end) - pad;
}

static struct room room_for(struct ring *r, uint64_t units)
{
    /* acquire on head: as in ring_try_reserve_(); relaxed on tail: the reservation decides. */
    uint64_t h = atom_load(&r->head, acquire);
    uint64_t e = atom_load(&r->evict, relaxed);
    uint64_t t = atom_load(&r->tail, relaxed);
    if (t < e || t < h || ring_distance_(r, t, h) > r->units) {
        return (struct room){units, units, 0, 0}; /* the three are of different moments */
    }
    uint64_t limit = atom_load(&r->limit, relaxed); /* relaxed: the reservation decides */
    uint64_t left = limit > ring_index_(t) ? limit - ring_index_(t) : 0;
    return (struct room){units, units + (units <= left ? 0 : left), usable(r, limit, t, h),
                         usable(r, limit, t, e)};
}

static bool fits(struct ring *r, uint64_t units)
{
    struct room m = room_for(r, units);
    return m.needed <= m.free;
}

/* Evicts what is needed and a batch more, so that the next ones in need find some of it passed. More than
 * one walk only where the tail stands beyond a limit that was lowered: what a pad will cover is no gain. */
static void evict_for(struct ring *r, struct room m)
{
    uint64_t before = 0;
    uint64_t e = atom_load(&r->evict, relaxed); /* relaxed: the reclaimer's own */
    while (m.ahead < m.needed + r->batch && e != before) {
        before = e;
        evict_ahead(r, m.needed + r->batch - m.ahead, RING_IF_READ);
        e = atom_load(&r->evict, relaxed); /* relaxed: as above */
        m = room_for(r, m.units);
    }
}

static bool reclaim_units(struct ring *r, uint64_t units)
{
    if (fits(r, units)) {
        return true;
    }
    if (!ring_reclaimer_enter_(r)) {
        return false;
    }
    release_passed(r);
    struct room m = room_for(r, units);
    if (m.needed > m.free) {
        evict_for(r, m);
        stamp_evicted(r);
        release_passed(r);
    }
    ring_reclaimer_leave_(r);
    return fits(r, units);
}

bool ring_reclaim(struct ring *r, size_t size)
{
    return reclaim_units(r, ring_units_(r, size));
}

void ring_reclaim_ahead_(struct ring *r)
{
    if (!ring_reclaimer_enter_(r)) {
        return;
    }
    struct room m = room_for(r, 1);
    /* relaxed: approximate. The marks may be addresses in the gap between two laps, which is fine:
     * they are only compared. */
    uint64_t t = atom_load(&r->tail, relaxed);
    atom_store(&r->low_mark, t + r->batch, relaxed);
    if (m.ahead < r->ahead) {
        uint64_t lack = r->ahead - m.ahead;
        evict_ahead(r, lack < 2 * r->batch ? lack : 2 * r->batch, RING_IF_READ);
    }
    /* relaxed: the reclaimer's own. */
    if (ring_distance_(r, atom_load(&r->evict, relaxed), r->stamped) >= r->stamp_size) {
        stamp_evicted(r);
    }
    if (m.free < r->ahead - r->ahead / 4 && t >= r->next_poll) {
        r->next_poll = t + r->stamp_size; /* a look costs a membarrier */
        release_passed(r);
    }
    ring_reclaimer_leave_(r);
}

#define ROTATE_BATCHES 1024u /* most of a call, where nothing is left to be copied */

void ring_rotate_(struct ring *r, uint64_t units)
{
    if (r->relocate == NULL || !ring_reclaimer_enter_(r)) {
        return;
    }
    release_passed(r);
    struct room m = room_for(r, 1);
    if (m.ahead == 0) {
        evict_for(r, m); /* full to the last unit: without some that are lost nothing can move */
    }
    uint64_t most = (m.free + 1) / 2; /* the rest is for those who fill meanwhile */
    most = units < most ? units : most;
    /* relaxed, all of them: the reclaimer's own. */
    uint64_t first = atom_load(&r->relocated_units, relaxed), copied = 0;
    uint64_t before = 0, e = atom_load(&r->evict, relaxed);
    for (unsigned i = 0; i < ROTATE_BATCHES && copied < most && e != before; i++) {
        before = e;
        evict_ahead(r, most - copied < r->batch ? most - copied : r->batch, RING_IF_KNOWN);
        e = atom_load(&r->evict, relaxed);
        copied = atom_load(&r->relocated_units, relaxed) - first;
    }
    stamp_evicted(r);
    ring_reclaimer_leave_(r);
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* The word of the entry that stops the evict cursor; 0: none, or it is not entered yet. */
static uint64_t head_blocker(struct ring *r)
{
    /* acquire: pairs with the release in evict_ahead(). */
    uint64_t e = atom_load(&r->evict, acquire);
    uint64_t w = atom_load(&ring_desc_(r, e)->word, acquire); /* acquire: see ring_notify_() */
    return ring_tag_(w) == ring_tag_(e) ? w : 0;
}

static bool word_stops(uint64_t w)
{
    enum ring_state s = ring_state_(w);
    return s == RING_RESERVED || s == RING_FILLING || s == RING_READY || s == RING_WRITING ||
           (s != RING_PAD && (w & RING_PINS) != 0);
}

void ring_hold_fills(struct ring *r)
{
    atom_add(&r->held, 1, relaxed); /* relaxed: a matter of fairness */
}

void ring_release_fills(struct ring *r)
{
    atom_sub(&r->held, 1, relaxed); /* relaxed: as above */
}

static int wait_units(struct ring *r, uint64_t units, uint64_t micros)
{
    uint64_t start = clock_micros();
    for (uint32_t round = 0;; round++) {
        if (reclaim_units(r, units)) {
            return LOAM_OK;
        }
        uint32_t event = ring_wait_enter_(r);
        uint64_t w = head_blocker(r);
        bool stopped = word_stops(w);
        bool mine = stopped && ring_mine_(w);
        uint64_t passed = clock_micros() - start;
        uint64_t left = passed < micros ? micros - passed : 0;
        /* Nothing in the way: sections must end, or another thread reclaims; both take
         * microseconds unless a thread is off its processor. */
        bool nap = !stopped && round >= 8;
        ring_wait_leave_(r, event, mine ? 0 : stopped ? left : nap && left > 50 ? 50 : 0);
        if (mine) {
            return FAIL(LOAM_E_MISUSE, "a thread waits for its own ring reservation");
        }
        if (left == 0) {
            return LOAM_STOPPED;
        }
        if (!stopped && !nap) {
            thread_yield();
        }
    }
}

int ring_wait_space(struct ring *r, size_t size, uint64_t micros)
{
    assert(!epoch_inside());
    if (size == 0 || size > ring_entry_max(r)) {
        return FAIL(LOAM_E_TOOBIG, "a ring entry has 1 to %zu bytes, not %zu", ring_entry_max(r),
                    size);
    }
    ring_hold_fills(r);
    int rc = wait_units(r, ring_units_(r, size), micros);
    ring_release_fills(r);
    return rc;
}

/* ---- looking --------------------------------------------------------------------------------- */

uint64_t ring_unsettled_bytes(struct ring *r)
{
    /* relaxed: a figure for pacing; tail last, so that it is not below the others. */
    uint64_t c = atom_load(&r->claim, relaxed);
    uint64_t e = atom_load(&r->evict, relaxed);
    uint64_t t = atom_load(&r->tail, relaxed);
    c = c > e ? c : e;
    return t > c ? ring_distance_(r, t, c) << r->unit_shift : 0;
}

uint64_t ring_spare_bytes(struct ring *r)
{
    return room_for(r, 1).ahead << r->unit_shift;
}

/* Counts entries by state from the evict cursor or `from`, whichever is later, to m->tail. */
static void census(struct ring *r, struct ring_metrics *m, uint64_t from)
{
    epoch_enter();                              /* what is walked over stays */
    uint64_t p = atom_load(&r->evict, acquire); /* acquire: it is the address of an entry */
    p = p > from ? p : from;
    while (p < m->tail) {
        struct ring_desc *d = ring_desc_(r, p);
        uint64_t w = atom_load(&d->word, acquire); /* acquire: the size is valid */
        if (ring_tag_(w) != ring_tag_(p)) {
            break;
        }
        uint64_t units = atom_load(&d->units, acquire); /* acquire: pairs with a shrink */
        m->entries[ring_state_(w)]++;
        m->bytes[ring_state_(w)] += units << r->unit_shift;
        p = ring_step_(r, p, units);
    }
    epoch_exit();
}

uint64_t ring_dirty_bytes(struct ring *r)
{
    struct ring_metrics m = {0};
    m.tail = atom_load(&r->tail, acquire);        /* acquire: not older than the entries found */
    census(r, &m, atom_load(&r->claim, acquire)); /* acquire: pairs with the release in a claim */
    return m.bytes[RING_READY] + m.bytes[RING_WRITING];
}

void ring_metrics(struct ring *r, struct ring_metrics *m)
{
    memset(m, 0, sizeof *m);
    /* relaxed: figures of about the same moment; tail last, so that the order holds. */
    m->head = atom_load(&r->head, relaxed);
    m->claim = atom_load(&r->claim, relaxed);
    m->evict = atom_load(&r->evict, acquire); /* acquire: the walk starts at an entered entry */
    m->tail = atom_load(&r->tail, acquire);
    m->capacity_bytes = ring_capacity(r);
    m->free_bytes = room_for(r, 1).free << r->unit_shift;
    m->evicted_bytes = atom_load(&r->evicted_units, relaxed) << r->unit_shift;
    m->relocated_bytes = atom_load(&r->relocated_units, relaxed) << r->unit_shift;
    m->relocated_entries = atom_load(&r->relocated_entries, relaxed);
    m->pad_bytes = atom_load(&r->pad_units, relaxed) << r->unit_shift;
    m->holes_reused = atom_load(&r->holes_reused, relaxed);
    m->reserve_full = atom_load(&r->reserve_full, relaxed);
    census(r, m, m->evict);
    m->dirty_bytes = m->bytes[RING_READY] + m->bytes[RING_WRITING];
}
