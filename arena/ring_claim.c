/* ring_claim.c - Writing a ring's dirty entries out: claims in ring order, completion, drain, drop.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A claim walks from the claim cursor to the first READY entry and wins it by one CAS; several
 * evictors walk at once. States and guarantees are in ring.h, the invariants of walkers in ring.c.
 */
#include <assert.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/status.h"
#include "arena/sync.h"

#include "arena/poison.h"

/* Where nothing older can be dirty. */
static uint64_t claim_start(struct ring *r)
{
    /* acquire: pairs with the release in the reclaimer and in scan(); entries below are settled. */
    uint64_t c = atom_load(&r->claim, acquire);
    uint64_t e = atom_load(&r->evict, acquire);
    return c > e ? c : e;
}

/* One walk from the claim cursor to the first READY entry. *stop: the word of what ended the walk
 * without one, 0 when that is not entered yet. Caller is inside a section. */
static int scan(struct ring *r, struct ring_claim *c, uint64_t *stop)
{
    uint64_t from = claim_start(r);
    uint64_t p = from;
    uint64_t settled = from;
    bool all_settled = true;
    int rc = LOAM_NOTFOUND;
    *stop = 0;
    while (p < atom_load(&r->tail, acquire)) { /* acquire: no older than the entries found */
        struct ring_desc *d = ring_desc_(r, p);
        /* acquire: pairs with the publishing stores; size and owner are valid. */
        uint64_t w = atom_load(&d->word, acquire);
        if (ring_tag_(w) != ring_tag_(p)) {
            rc = LOAM_STOPPED;
            break;
        }
        enum ring_state s = ring_state_(w);
        if (s == RING_READY) {
            uint64_t claimed = w ^ ring_word_(0, RING_READY) ^ ring_word_(0, RING_WRITING);
            /* acquire: pairs with ring_publish(); the bytes are complete. */
            if (!atom_cas(&d->word, &w, claimed, acq_rel, relaxed)) {
                continue; /* another evictor, or a reader's mark: look again */
            }
            *c = (struct ring_claim){p, ring_data(r, p), d->size, d->owner, d->cookie};
            rc = LOAM_OK;
            break;
        }
        if (s == RING_RESERVED && r->in_order) {
            *stop = w;
            rc = LOAM_STOPPED;
            break;
        }
        all_settled = all_settled && s != RING_RESERVED && s != RING_WRITING;
        /* acquire: pairs with the release of a shrink. */
        p = ring_step_(r, p, atom_load(&d->units, acquire));
        settled = all_settled ? p : settled;
    }
    if (settled != from) {
        /* release: pairs with the acquire in claim_start(). Not a CAS: a thread that was away may
         * set the cursor back, which costs the next claim a longer walk and nothing else. */
        atom_store(&r->claim, settled, release);
    }
    return rc;
}

int ring_claim_next(struct ring *r, struct ring_claim *c)
{
    uint64_t stop;
    epoch_enter();
    int rc = scan(r, c, &stop);
    epoch_exit();
    return rc;
}

static uint64_t deadline_of(uint64_t micros)
{
    uint64_t now = clock_micros();
    return micros > UINT64_MAX - now ? UINT64_MAX : now + micros;
}

static uint64_t time_left(uint64_t deadline)
{
    uint64_t now = clock_micros();
    return now < deadline ? deadline - now : 0;
}

int ring_claim_wait(struct ring *r, struct ring_claim *c, uint64_t micros)
{
    assert(!epoch_inside());
    int rc = ring_claim_next(r, c);
    if (rc == LOAM_OK || micros == 0) {
        return rc;
    }
    for (uint64_t deadline = deadline_of(micros);;) {
        uint32_t event = ring_wait_enter_(r);
        uint64_t stop;
        epoch_enter();
        rc = scan(r, c, &stop);
        epoch_exit();
        bool mine = rc == LOAM_STOPPED && ring_mine_(stop);
        bool entering = rc == LOAM_STOPPED && stop == 0; /* over in a few instructions, untold */
        uint64_t left = rc == LOAM_OK || mine ? 0 : time_left(deadline);
        ring_wait_leave_(r, event, entering ? 0 : left);
        if (mine) {
            return FAIL(LOAM_E_MISUSE, "a thread waits for its own ring reservation");
        }
        if (entering) {
            thread_yield();
        }
        if (left == 0) {
            return rc;
        }
    }
}

void ring_complete(struct ring *r, uint64_t addr, enum ring_outcome outcome)
{
    struct ring_desc *d = ring_desc_(r, addr);
    enum ring_state s = outcome == RING_KEEP   ? RING_CLEAN
                        : outcome == RING_GONE ? RING_EVICTED
                                               : RING_READY;
    uint64_t w = atom_load(&d->word, relaxed); /* relaxed: the CAS decides */
    do {
        assert(ring_tag_(w) == ring_tag_(addr) && ring_state_(w) == RING_WRITING);
        assert(ring_may_step_(RING_WRITING, s));
        /* seq_cst: the writer's reads are over; precedes the load in notify. */
    } while (!atom_cas(&d->word, &w, ring_word_(addr, s) | (w & (RING_REF | RING_PINS)), seq_cst,
                       relaxed));
    ring_notify_(r);
}

static uint64_t head_of(struct ring *r)
{
    return atom_load(&r->head, relaxed); /* relaxed: for reports */
}

static void report(struct ring *r, uint64_t head_before, struct ring_evicted *out)
{
    if (out != NULL) {
        out->head_bytes = ring_distance_(r, head_of(r), head_before) << r->unit_shift;
    }
}

/* Claims and writes one entry, adding to *sum. */
static int evict_next(struct ring *r, ring_write_fn *fn, void *arg, struct ring_evicted *sum)
{
    struct ring_claim c;
    int rc = ring_claim_next(r, &c);
    if (rc != LOAM_OK) {
        return rc;
    }
    enum ring_outcome outcome = RING_KEEP;
    rc = fn(arg, &c, &outcome);
    if (rc < 0 && outcome == RING_KEEP) {
        outcome = RING_RETRY;
    }
    ring_complete(r, c.addr, outcome);
    if (outcome != RING_RETRY) {
        sum->entries++;
        sum->bytes += c.size;
    }
    return rc < 0 ? rc : LOAM_OK;
}

int ring_evict_one(struct ring *r, ring_write_fn *fn, void *arg, struct ring_evicted *out)
{
    struct ring_evicted sum = {0, 0, 0};
    uint64_t head = head_of(r);
    int rc = evict_next(r, fn, arg, &sum);
    report(r, head, &sum);
    if (out != NULL) {
        *out = sum;
    }
    return rc;
}

int ring_evict_n(struct ring *r, size_t bytes, ring_write_fn *fn, void *arg,
                 struct ring_evicted *out)
{
    struct ring_evicted sum = {0, 0, 0};
    uint64_t head = head_of(r);
    int rc = LOAM_OK;
    while (rc == LOAM_OK && sum.bytes < bytes) {
        uint64_t before = sum.entries;
        rc = evict_next(r, fn, arg, &sum);
        if (rc == LOAM_OK && sum.entries == before) {
            break; /* fn asked for a retry without an error: not in this call */
        }
    }
    report(r, head, &sum);
    if (out != NULL) {
        *out = sum;
    }
    return rc;
}

/* The word of the entry that keeps the claim cursor, 0 when there is none or it is not entered. */
static uint64_t claim_blocker(struct ring *r)
{
    uint64_t p = claim_start(r);
    /* acquire: with the waiters' seq_cst increment before it, see ring_notify_(). */
    uint64_t w = atom_load(&ring_desc_(r, p)->word, acquire);
    return ring_tag_(w) == ring_tag_(p) ? w : 0;
}

int ring_drain(struct ring *r, ring_write_fn *fn, void *arg, uint64_t micros,
               struct ring_evicted *out)
{
    assert(!epoch_inside());
    struct ring_evicted sum = {0, 0, 0};
    uint64_t head = head_of(r);
    uint64_t target = atom_load(&r->tail, acquire); /* acquire: as in scan() */
    uint64_t deadline = deadline_of(micros);
    int rc = LOAM_OK;
    while (rc == LOAM_OK && claim_start(r) < target) {
        uint64_t before = sum.entries;
        rc = evict_next(r, fn, arg, &sum);
        if (rc <= 0) {
            bool retry = rc == LOAM_OK && sum.entries == before;
            rc = retry && time_left(deadline) == 0 ? LOAM_STOPPED : rc;
            continue;
        }
        uint32_t event = ring_wait_enter_(r);
        uint64_t w = claim_blocker(r);
        bool stuck = claim_start(r) < target && ring_state_(w) != RING_READY;
        uint64_t left = time_left(deadline);
        ring_wait_leave_(r, event, stuck && w != 0 && !ring_mine_(w) ? left : 0);
        rc = LOAM_OK;
        if (stuck && ring_mine_(w)) {
            rc = FAIL(LOAM_E_MISUSE, "a thread waits for its own ring reservation");
        } else if (left == 0 && stuck) {
            rc = LOAM_STOPPED;
        } else if (w == 0) {
            thread_yield(); /* an entry is being entered: a few instructions, untold */
        }
    }
    report(r, head, &sum);
    if (out != NULL) {
        *out = sum;
    }
    return rc;
}

/* True when the walk came to the end that the tail had before it. */
static bool drop_walk(struct ring *r, uint64_t owner, uint64_t *dropped)
{
    uint64_t end = atom_load(&r->tail, acquire); /* acquire: as in scan() */
    uint64_t p = claim_start(r);
    while (p < end) {
        struct ring_desc *d = ring_desc_(r, p);
        /* acquire: pairs with the publishing swap; the owner is valid. */
        uint64_t w = atom_load(&d->word, acquire);
        if (ring_tag_(w) != ring_tag_(p)) {
            return false;
        }
        uint64_t units = atom_load(&d->units, acquire); /* acquire: as in scan() */
        if (ring_state_(w) == RING_READY && d->owner == owner) {
            /* seq_cst: precedes the load in notify. */
            if (!atom_cas(&d->word, &w, ring_word_(p, RING_EVICTED) | (w & RING_PINS), seq_cst,
                          relaxed)) {
                continue;
            }
            ++*dropped;
        }
        p = ring_step_(r, p, units);
    }
    return true;
}

uint64_t ring_drop_owner(struct ring *r, uint64_t owner)
{
    assert(!epoch_inside());
    uint64_t dropped = 0;
    for (bool done = false; !done;) {
        epoch_enter();
        done = drop_walk(r, owner, &dropped);
        epoch_exit();
        if (!done) {
            thread_yield();
        }
    }
    ring_notify_(r);
    return dropped;
}
