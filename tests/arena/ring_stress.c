/* ring_stress.c - Producers, evictors, readers and fillers on one small ring at once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: every entry carries a pattern made from its cookie; whoever claims, reads in a section or
 * holds a pin sees the whole pattern, or a stale address, never other bytes. Every dirty entry that
 * was published is written exactly once (the sums of what went in and out agree). A watchdog is not
 * needed: whatever hangs, hangs the test.
 */
#include <stdlib.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "arena/ring.h"
#include "arena/sync.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

enum { COOKIES = 64 };

struct shared {
    struct ring ring;
    _Atomic uint64_t in_count, in_sum, out_count, out_sum, hits, lost;
    _Atomic uint64_t where[COOKIES]; /* address of the cookie's newest entry */
    _Atomic uint32_t producing;      /* producers still at work */
    unsigned producers, evictors;
    uint64_t per_thread;
    bool fail_some;
    bool lends; /* the first reader lends and takes back */
};

static void pattern_write(void *p, size_t size, uint64_t cookie)
{
    memset(p, (int)(cookie * 7 & 255), size);
}

static void pattern_check(const void *p, size_t size, uint64_t cookie)
{
    static _Thread_local unsigned char want[1 << 16];
    CHECK(size <= sizeof want);
    memset(want, (int)(cookie * 7 & 255), size);
    CHECK_BYTES(p, size, want, size); /* by memcmp: cheap under TSan too */
}

static bool relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t from, uint64_t to)
{
    struct shared *s = arg;
    (void)owner;
    if (to == 0) {
        return atom_load(&s->where[cookie % COOKIES], relaxed) == from;
    }
    return atom_cas(&s->where[cookie % COOKIES], &from, to, acq_rel, relaxed);
}

static int write_entry(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    struct shared *s = arg;
    pattern_check(c->data, c->size, c->cookie);
    if (s->fail_some && c->cookie % 5 == 0 && (atom_add(&s->lost, 1, relaxed) & 3) != 0) {
        return LOAM_E_NOSPACE; /* most tries at some entries fail: they come again */
    }
    *outcome = c->cookie % 3 == 0 ? RING_GONE : RING_KEEP;
    atom_add(&s->out_count, 1, relaxed);
    atom_add(&s->out_sum, c->cookie, relaxed);
    return LOAM_OK;
}

static void produce(struct shared *s, struct random *r)
{
    for (uint64_t i = 0; i < s->per_thread; i++) {
        size_t size = 1 + (size_t)random_below(r, ring_entry_max(&s->ring));
        uint64_t cookie = random_next(r) >> 20, addr = 0;
        int rc;
        while ((rc = ring_reserve(&s->ring, RING_DIRTY, size, 1, cookie, &addr)) == LOAM_STOPPED) {
            CHECK(ring_wait_space(&s->ring, size, 1000) >= 0);
        }
        CHECK_EQ(rc, LOAM_OK);
        if (random_below(r, 8) == 0) {
            ring_discard(&s->ring, addr);
            continue;
        }
        size_t used = 1 + (size_t)random_below(r, size);
        pattern_write(ring_data(&s->ring, addr), size, cookie + 1); /* beyond `used` too */
        ring_shrink(&s->ring, addr, used);
        pattern_write(ring_data(&s->ring, addr), used, cookie);
        atom_add(&s->in_count, 1, relaxed);
        atom_add(&s->in_sum, cookie, relaxed);
        ring_publish(&s->ring, addr);
        atom_store(&s->where[cookie % COOKIES], addr, release); /* pairs with the readers' */
    }
    atom_sub(&s->producing, 1, release); /* pairs with the acquire of the others */
}

static bool busy(struct shared *s)
{
    return atom_load(&s->producing, acquire) != 0;
}

static void evict(struct shared *s)
{
    struct ring_claim c;
    while (busy(s)) {
        int rc = ring_evict_one(&s->ring, write_entry, s, NULL);
        if (rc == LOAM_NOTFOUND || rc == LOAM_STOPPED) {
            rc = ring_claim_wait(&s->ring, &c, 500);
            CHECK(rc >= 0);
            if (rc == LOAM_OK) {
                ring_complete(&s->ring, c.addr, RING_RETRY);
            }
        }
    }
}

static void read_some(struct shared *s, struct random *r)
{
    uint64_t private[128];
    epoch_enter();
    for (unsigned k = 0; k < 4; k++) {
        uint64_t at = random_below(r, COOKIES);
        uint64_t addr = atom_load(&s->where[at], acquire); /* pairs with the release */
        size_t size = 0;
        const void *p = addr == 0 ? NULL : ring_read(&s->ring, addr, true, &size);
        if (p != NULL) {
            unsigned char first = *(const unsigned char *)p;
            for (unsigned i = 0; i < 50; i++) {
                spin_pause();
            }
            for (size_t i = 0; i < size; i++) {
                CHECK_EQ(((const unsigned char *)p)[i], first);
            }
            atom_add(&s->hits, 1, relaxed);
            continue;
        }
        size_t want = 1 + (size_t)random_below(r, ring_entry_max(&s->ring));
        uint64_t cookie = (random_next(r) >> 20) / COOKIES * COOKIES + at, mine = 0;
        want = want < sizeof private ? want : sizeof private;
        pattern_write(private, want, cookie);
        if (ring_reserve(&s->ring, RING_FILL, want, 2, cookie, &mine) != LOAM_OK) {
            continue;
        }
        memcpy(ring_data(&s->ring, mine), private, want);
        if (random_below(r, 3) == 0) {
            ring_discard(&s->ring, mine);
        } else {
            ring_publish_clean(&s->ring, mine, random_below(r, 2) == 0);
            atom_store(&s->where[at], mine, release); /* pairs with the acquire above */
        }
    }
    epoch_exit();
}

static void pin_some(struct shared *s, struct random *r)
{
    uint64_t addr = atom_load(&s->where[random_below(r, COOKIES)], acquire); /* as above */
    size_t size = 0;
    const unsigned char *p = addr == 0 ? NULL : ring_pin(&s->ring, addr, &size);
    if (p != NULL) {
        unsigned char first = *p;
        thread_yield();
        for (size_t i = 0; i < size; i++) {
            CHECK_EQ(p[i], first);
        }
        ring_unpin(&s->ring, addr);
    }
}

/* What is back is scribbled over: whoever still used it would see that, and TSan him. */
static void lend_some(struct shared *s, struct random *r)
{
    struct ring *ring = &s->ring;
    ring_lend(ring, (size_t)random_below(r, ring->bytes + 1));
    for (uint64_t i = random_below(r, 50); i > 0; i--) {
        (void)ring_reach_lent(ring, (size_t)random_below(r, ring->bytes / 8));
        read_some(s, r);
    }
    size_t keep = random_below(r, 2) != 0 ? (size_t)random_below(r, ring->bytes + 1) : 0;
    bool back = false;
    while (busy(s) && !(back = ring_take_back(ring, keep))) {
        epoch_poll();
    }
    if (back) {
        size_t left = ring_capacity(ring);
        memset(ring->data + left, 0xdd, ring->bytes - left);
    }
}

static void member(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index < s->producers) {
        produce(s, &r);
        return;
    }
    if (m->index < s->producers + s->evictors) {
        evict(s);
        return;
    }
    while (busy(s)) {
        struct ring_metrics metrics;
        if (s->lends && m->index == s->producers + s->evictors) {
            lend_some(s, &r);
        }
        read_some(s, &r);
        pin_some(s, &r);
        ring_metrics(&s->ring, &metrics); /* C9 */
        CHECK(metrics.head <= metrics.tail && metrics.free_bytes <= s->ring.bytes);
    }
}

static void run_lent(uint64_t seed, size_t units, size_t own, unsigned producers, unsigned evictors,
                     unsigned readers, bool fail_some)
{
    struct shared *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    struct ring_options o = {.alloc = alloc_global(),
                             .unit = 64,
                             .bytes = 64 * units,
                             .bytes_own = 64 * own,
                             .second_chance_percent = 25,
                             .relocate = relocate,
                             .relocate_arg = s};
    CHECK_EQ(ring_init(&s->ring, &o), LOAM_OK);
    s->producers = producers;
    s->evictors = evictors;
    s->producing = producers;
    s->per_thread = 3000 * stress_scale;
    s->fail_some = fail_some;
    s->lends = own != 0;
    crew_run(producers + evictors + readers, member, s, seed);
    int rc;
    while ((rc = ring_drain(&s->ring, write_entry, s, 1000000, NULL)) == LOAM_E_NOSPACE) {
    }
    CHECK_EQ(rc, LOAM_OK);
    CHECK_EQ(s->in_count, s->out_count);
    CHECK_EQ(s->in_sum, s->out_sum);
    CHECK_EQ(ring_dirty_bytes(&s->ring), 0);
    CHECK_EQ(ring_wait_space(&s->ring, ring_entry_max(&s->ring), 1000000), LOAM_OK);
    ring_destroy(&s->ring);
    free(s);
}

static void run(uint64_t seed, size_t units, unsigned producers, unsigned evictors,
                unsigned readers, bool fail_some)
{
    run_lent(seed, units, 0, producers, evictors, readers, fail_some);
}

STRESS(ring, one_unit_two_producers_two_evictors)
{
    run(seed, 1, 2, 2, 0, false);
}

STRESS(ring, two_units_two_producers_two_evictors_a_reader)
{
    run(seed, 2, 2, 2, 1, false);
}

STRESS(ring, small_ring_everybody_at_once)
{
    run(seed, 37, 2, 1, 2, false);
}

STRESS(ring, larger_ring_everybody_at_once_with_failing_writes)
{
    run(seed, 1000, 2, 2, 2, true);
}

STRESS(ring, memory_is_lent_and_taken_back_beside_everybody)
{
    run_lent(seed, 300, 100, 2, 2, 2, true);
}

/* ---- C12 ------------------------------------------------------------------------------------- */

static void drainer(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index < s->producers) {
        produce(s, &r);
        return;
    }
    while (busy(s)) {
        CHECK(ring_drain(&s->ring, write_entry, s, 100000, NULL) >= 0);
    }
}

STRESS(ring, C12_drain_beside_producers)
{
    struct shared *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    struct ring_options o = {.alloc = alloc_global(), .unit = 64, .bytes = 64 * 50};
    CHECK_EQ(ring_init(&s->ring, &o), LOAM_OK);
    s->producers = 2;
    s->producing = 2;
    s->per_thread = 4000 * stress_scale;
    crew_run(4, drainer, s, seed);
    CHECK_EQ(ring_drain(&s->ring, write_entry, s, 0, NULL), LOAM_OK);
    CHECK_EQ(s->in_count, s->out_count);
    CHECK_EQ(s->in_sum, s->out_sum);
    ring_destroy(&s->ring);
    free(s);
}

/* ---- owners dropped while evictors run ------------------------------------------------------- */

struct drop_shared {
    struct ring ring;
    _Atomic uint64_t in[2], out[2], dropped[2]; /* entries by owner */
    _Atomic uint32_t producing;
    uint64_t rounds;
};

static int drop_write(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    struct drop_shared *s = arg;
    (void)outcome;
    pattern_check(c->data, c->size, c->cookie);
    atom_add(&s->out[c->owner], 1, relaxed);
    return LOAM_OK;
}

static void drop_member(struct crew_member *m)
{
    struct drop_shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index >= 2) {
        while (atom_load(&s->producing, acquire) != 0) { /* pairs with the release below */
            if (ring_evict_one(&s->ring, drop_write, s, NULL) != LOAM_OK) {
                thread_yield();
            }
        }
        return;
    }
    for (uint64_t i = 0; i < s->rounds; i++) {
        for (unsigned k = 0; k < 8; k++) {
            size_t size = 1 + (size_t)random_below(&r, 500);
            uint64_t cookie = random_next(&r), a = 0;
            while (ring_reserve(&s->ring, RING_DIRTY, size, m->index, cookie, &a) != LOAM_OK) {
                CHECK(ring_wait_space(&s->ring, size, 1000) >= 0);
            }
            pattern_write(ring_data(&s->ring, a), size, cookie);
            ring_shrink(&s->ring, a, 1 + (size_t)random_below(&r, size));
            atom_add(&s->in[m->index], 1, relaxed);
            ring_publish(&s->ring, a);
        }
        atom_add(&s->dropped[m->index], ring_drop_owner(&s->ring, m->index), relaxed);
    }
    atom_sub(&s->producing, 1, release); /* pairs with the acquire above */
}

STRESS(ring, owners_are_dropped_beside_evictors)
{
    struct drop_shared *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    struct ring_options o = {.alloc = alloc_global(), .unit = 64, .bytes = 64 * 100};
    CHECK_EQ(ring_init(&s->ring, &o), LOAM_OK);
    s->producing = 2;
    s->rounds = 500 * stress_scale;
    crew_run(4, drop_member, s, seed);
    CHECK_EQ(ring_drain(&s->ring, drop_write, s, 0, NULL), LOAM_OK);
    for (unsigned i = 0; i < 2; i++) {
        CHECK_EQ(s->in[i], s->out[i] + s->dropped[i]);
    }
    ring_destroy(&s->ring);
    free(s);
}
