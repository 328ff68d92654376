/* ring_test.c - The ring's states, room, order and codes; random operations against a model.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle of the random test: a table of what is alive with its byte pattern; after each step every
 * readable entry shows its pattern, no two live entries share bytes, no address was seen before,
 * and dirty entries are claimed by rising address. LOAM_SEED repeats a run.
 *
 * Defects of the buffer this one replaces that are no behaviour of their own here:
 *   C1 (one mutex for everything): the ring has no lock; throughput is the benchmark's business.
 *   C5 (a weak CAS without retry loses a block): arena/atomic.h has only the strong form.
 *   C8 (eviction searches a free list): holes are hints checked by one CAS; nothing is searched.
 *   C9 (the tail is read as a plain word): all shared words are atomic; ring_stress reads the
 *      metrics while everything moves, under TSan.
 *   C12 (drain asserts that nobody allocates): ring_stress, drain_beside_producers_c12.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <time.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "arena/ring.h"
#include "arena/status.h"
#include "arena/sync.h"
#include "tests/support/check.h"

static void start(struct ring *r, size_t unit, size_t units)
{
    struct ring_options o = {.alloc = alloc_global(), .unit = unit, .bytes = unit * units};
    CHECK_EQ(ring_init(r, &o), LOAM_OK);
}

static uint64_t stage(struct ring *r, size_t size, uint64_t owner, uint64_t cookie)
{
    uint64_t addr = 0;
    CHECK_EQ(ring_reserve(r, RING_DIRTY, size, owner, cookie, &addr), LOAM_OK);
    memset(ring_data(r, addr), (int)(cookie & 255), size);
    ring_publish(r, addr);
    return addr;
}

static uint64_t fill(struct ring *r, size_t size, uint64_t owner, uint64_t cookie, bool hot)
{
    uint64_t addr = 0;
    CHECK_EQ(ring_reserve(r, RING_FILL, size, owner, cookie, &addr), LOAM_OK);
    memset(ring_data(r, addr), (int)(cookie & 255), size);
    ring_publish_clean(r, addr, hot);
    return addr;
}

static bool readable(struct ring *r, uint64_t addr)
{
    size_t size = 0;
    epoch_enter();
    bool yes = ring_read(r, addr, false, &size) != NULL;
    epoch_exit();
    return yes;
}

/* A disk that fails on demand. */
struct disk {
    int fail;                  /* code of the next writes, 0: good */
    enum ring_outcome outcome; /* of good writes, and of failed ones */
    uint64_t calls, cookie_sum, last_addr;
    bool rising;
};

static int disk_write(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    struct disk *d = arg;
    const unsigned char *p = c->data;
    for (size_t i = 0; i < c->size; i++) {
        CHECK_EQ(p[i], c->cookie & 255);
    }
    d->calls++;
    *outcome = d->outcome;
    if (d->fail != 0) {
        return FAIL(d->fail, "made to fail");
    }
    d->cookie_sum += c->cookie;
    d->rising = d->last_addr < c->addr;
    d->last_addr = c->addr;
    return LOAM_OK;
}

Test(ring, an_entry_goes_through_its_states_and_stays_readable_after_it_is_written)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    size_t size = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 100, 7, 9, &a), LOAM_OK);
    CHECK(a != 0 && !readable(&r, a) && ring_live(&r, a));
    CHECK_EQ((uintptr_t)ring_data(&r, a) % 64, 0);
    memset(ring_data(&r, a), 9, 100);
    ring_publish(&r, a);
    CHECK_EQ(ring_dirty_bytes(&r), 128);
    struct ring_claim c;
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_OK);
    CHECK(c.addr == a && c.size == 100 && c.owner == 7 && c.cookie == 9);
    CHECK(readable(&r, a));
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_NOTFOUND);
    ring_complete(&r, a, RING_KEEP);
    CHECK_EQ(ring_dirty_bytes(&r), 0);
    epoch_enter();
    const unsigned char *p = ring_read(&r, a, true, &size);
    CHECK(p != NULL && size == 100 && p[99] == 9);
    epoch_exit();
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_NOTFOUND);
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK_EQ(m.entries[RING_CLEAN], 1);
    CHECK_EQ(m.bytes[RING_CLEAN], 128);
    CHECK_EQ(m.free_bytes, 62 * 64);
    ring_destroy(&r);
}

Test(ring, gone_and_discarded_entries_are_not_readable)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = stage(&r, 64, 1, 1);
    struct ring_claim c;
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_OK);
    ring_complete(&r, a, RING_GONE);
    CHECK(!readable(&r, a) && !ring_live(&r, a));
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 2, &a), LOAM_OK);
    ring_discard(&r, a);
    CHECK(!readable(&r, a) && !ring_live(&r, a));
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_NOTFOUND);
    ring_destroy(&r);
}

Test(ring, reading_an_address_of_an_earlier_lap_fails)
{
    struct ring r;
    start(&r, 64, 16);
    uint64_t first = fill(&r, 64, 1, 1, false);
    for (unsigned i = 0; i < 64; i++) {
        uint64_t a = fill(&r, 64, 1, i, false);
        CHECK(a > first && readable(&r, a));
    }
    CHECK(!readable(&r, first));
    ring_destroy(&r);
}

Test(ring, a_shrunk_last_entry_gives_its_units_back_to_the_tail)
{
    struct ring r;
    start(&r, 64, 32);
    uint64_t a = 0, b = 0, c = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 512, 1, 1, &a), LOAM_OK);
    ring_shrink(&r, a, 65);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 512, 1, 2, &b), LOAM_OK);
    CHECK_EQ(b - a, 2);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 3, &c), LOAM_OK);
    CHECK_EQ(c - b, 8);
    ring_shrink(&r, b, 1); /* not the last one: a pad */
    memset(ring_data(&r, a), 1, 65);
    memset(ring_data(&r, b), 2, 1);
    memset(ring_data(&r, c), 3, 64);
    ring_publish(&r, c);
    ring_publish(&r, b);
    ring_publish(&r, a);
    struct disk d = {0};
    struct ring_evicted e;
    CHECK_EQ(ring_drain(&r, disk_write, &d, 1000, &e), LOAM_OK);
    CHECK(d.calls == 3 && d.cookie_sum == 6 && e.bytes == 65 + 1 + 64);
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK_EQ(m.pad_bytes, 7 * 64);
    ring_destroy(&r);
}

Test(ring, claims_come_in_ring_order_and_fills_are_skipped)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t cookies = 0;
    for (unsigned i = 0; i < 10; i++) {
        stage(&r, 64, 1, i);
        fill(&r, 128, 2, 100 + i, false);
        cookies += i;
    }
    uint64_t slow = 0;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 2, 0, &slow), LOAM_OK);
    stage(&r, 64, 1, 10);
    struct disk d = {0};
    for (unsigned i = 0; i < 11; i++) {
        CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_OK);
        CHECK(d.rising);
    }
    CHECK_EQ(d.cookie_sum, cookies + 10);
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_NOTFOUND);
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
    ring_discard(&r, slow);
    ring_destroy(&r);
}

Test(ring, in_order_claims_stop_at_a_reservation_and_others_pass_it)
{
    for (int in_order = 0; in_order < 2; in_order++) {
        struct ring r;
        struct ring_options o = {
            .alloc = alloc_global(), .unit = 64, .bytes = 64 * 16, .in_order = in_order != 0};
        CHECK_EQ(ring_init(&r, &o), LOAM_OK);
        uint64_t a = 0;
        struct ring_claim c;
        CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_OK);
        uint64_t b = stage(&r, 64, 1, 2);
        if (in_order != 0) {
            CHECK_EQ(ring_claim_next(&r, &c), LOAM_STOPPED);
            memset(ring_data(&r, a), 1, 64);
            ring_publish(&r, a);
            CHECK_EQ(ring_claim_next(&r, &c), LOAM_OK);
            CHECK_EQ(c.addr, a);
            ring_complete(&r, a, RING_KEEP);
        } else {
            CHECK_EQ(ring_claim_next(&r, &c), LOAM_OK);
            CHECK_EQ(c.addr, b);
            ring_complete(&r, b, RING_KEEP);
            memset(ring_data(&r, a), 1, 64);
            ring_publish(&r, a);
        }
        struct disk d = {0};
        CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
        CHECK_EQ(d.calls, 1);
        ring_destroy(&r);
    }
}

Test(ring, memory_of_an_evicted_entry_is_not_reused_while_a_section_is_open)
{
    struct ring r;
    start(&r, 64, 32);
    uint64_t a = fill(&r, 64, 1, 77, false);
    epoch_enter();
    size_t size = 0;
    const unsigned char *p = ring_read(&r, a, false, &size);
    CHECK(p != NULL);
    unsigned filled = 0;
    uint64_t b = 0;
    while (ring_reserve(&r, RING_FILL, 64, 1, 1, &b) ==
           LOAM_OK) { /* a reader that goes on missing */
        memset(ring_data(&r, b), 1, 64);
        ring_publish_clean(&r, b, false);
        filled++;
    }
    CHECK_EQ(filled, 31); /* refused, not waited for */
    CHECK(!ring_reclaim(&r, 64));
    CHECK(p[0] == 77 && p[63] == 77);
    CHECK(ring_read(&r, a, false, &size) == NULL); /* already stale to those who come now */
    epoch_exit();
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &b), LOAM_OK);
    ring_discard(&r, b);
    ring_destroy(&r);
}

Test(ring, a_reserve_is_kept_free_so_that_a_miss_inside_a_section_succeeds)
{
    struct ring r;
    start(&r, 1024, 4096);
    for (unsigned i = 0; i < 3000; i++) {
        fill(&r, 4096, 1, i, false);
    }
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK(m.free_bytes >= (128 << 10));
    epoch_enter();
    for (unsigned i = 0; i < 24; i++) {
        fill(&r, 4096, 1, i, false);
    }
    epoch_exit();
    ring_metrics(&r, &m);
    CHECK_EQ(m.reserve_full, 0);
    ring_destroy(&r);
}

Test(ring, a_pinned_entry_stays_and_stops_the_head)
{
    struct ring r;
    start(&r, 64, 16);
    uint64_t a = fill(&r, 64, 1, 5, false);
    size_t size = 0;
    const unsigned char *p = ring_pin(&r, a, &size);
    CHECK(p != NULL && size == 64 && ring_pin(&r, a, &size) == p);
    uint64_t b = 0;
    unsigned n = 0;
    while (ring_reserve(&r, RING_FILL, 64, 1, 1, &b) == LOAM_OK) {
        memset(ring_data(&r, b), 1, 64);
        ring_publish_clean(&r, b, false);
        n++;
    }
    CHECK(n == 15 && p[63] == 5);
    ring_unpin(&r, a);
    CHECK_EQ(ring_wait_space(&r, 64, 100), LOAM_STOPPED);
    ring_unpin(&r, a);
    CHECK_EQ(ring_wait_space(&r, 64, 0), LOAM_OK);
    CHECK(ring_pin(&r, a, &size) == NULL);
    ring_destroy(&r);
}

Test(ring, a_pin_outlives_dropping_the_dirty_entry)
{
    struct ring r;
    start(&r, 64, 16);
    uint64_t a = stage(&r, 64, 3, 5);
    stage(&r, 64, 4, 6);
    size_t size = 0;
    const unsigned char *p = ring_pin(&r, a, &size);
    CHECK_EQ(ring_drop_owner(&r, 3), 1);
    CHECK(!readable(&r, a) && p[0] == 5);
    struct disk d = {0};
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
    CHECK_EQ(d.cookie_sum, 6);
    for (unsigned i = 0; i < 14; i++) {
        fill(&r, 64, 1, 1, false);
    }
    uint64_t b = 0;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &b), LOAM_STOPPED);
    CHECK_EQ(p[63], 5);
    ring_unpin(&r, a);
    fill(&r, 64, 1, 1, false);
    ring_destroy(&r);
}

Test(ring, no_more_pins_than_the_word_counts)
{
    struct ring r;
    start(&r, 64, 4);
    uint64_t a = fill(&r, 64, 1, 5, false);
    size_t size = 0;
    for (uint64_t i = 0; i < RING_PINS; i++) {
        CHECK(ring_pin(&r, a, &size) != NULL);
    }
    CHECK(ring_pin(&r, a, &size) == NULL);
    for (uint64_t i = 0; i < RING_PINS; i++) {
        ring_unpin(&r, a);
    }
    CHECK(readable(&r, a));
    ring_destroy(&r);
}

/* Owner side of second chance: where each cookie is. */
struct index {
    uint64_t addr[64];
    unsigned moves, questions;
    bool forget;
};

static bool index_relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t from, uint64_t to)
{
    struct index *x = arg;
    CHECK_EQ(owner, 1);
    if (x->forget || x->addr[cookie] != from) {
        return false;
    }
    if (to == 0) {
        x->questions++;
        return true;
    }
    x->addr[cookie] = to;
    x->moves++;
    return true;
}

Test(ring, a_touched_entry_moves_to_the_tail_and_the_share_of_copies_is_bounded)
{
    struct index x = {.moves = 0};
    struct ring r;
    struct ring_options o = {.alloc = alloc_global(),
                             .unit = 64,
                             .bytes = 64 * 256,
                             .second_chance_percent = 25,
                             .relocate = index_relocate,
                             .relocate_arg = &x};
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    for (unsigned i = 0; i < 8; i++) {
        fill(&r, 64, 1, 4, false); /* the first copy needs credit */
    }
    x.addr[3] = fill(&r, 64, 1, 3, false);
    for (unsigned i = 0; i < 2000; i++) {
        size_t size = 0;
        epoch_enter();
        const unsigned char *p = ring_read(&r, x.addr[3], true, &size);
        CHECK(p != NULL && p[0] == 3 && p[63] == 3); /* always hot, never lost */
        epoch_exit();
        uint64_t cold = fill(&r, 64, 1, 4, false);
        x.addr[4] = cold;
    }
    CHECK(x.moves >= 5);
    /* Everything hot: no more than a quarter of what the head passed is copied. */
    unsigned moves = x.moves;
    struct ring_metrics before, m;
    ring_metrics(&r, &before);
    for (unsigned i = 0; i < 4000; i++) {
        x.addr[i % 64] = fill(&r, 64, 1, i % 64, true);
    }
    for (unsigned i = 0; i < 64; i++) {
        x.addr[i] = 0;
    }
    ring_metrics(&r, &m);
    uint64_t copied = m.relocated_bytes, passed = m.evicted_bytes;
    CHECK(copied * 4 <= passed);
    CHECK(x.moves >= moves);
    x.forget = true;
    for (unsigned i = 0; i < 2000; i++) {
        fill(&r, 64, 1, 5, true);
    }
    ring_metrics(&r, &m);
    CHECK_EQ(m.relocated_bytes, copied); /* nobody asks for them: nothing is copied */
    ring_destroy(&r);
}

Test(ring, a_discarded_fill_leaves_a_hole_that_the_next_fill_uses)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0, b = 0;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 256, 1, 1, &a), LOAM_OK);
    fill(&r, 64, 1, 2, false);
    ring_discard(&r, a);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 256, 1, 3, &b), LOAM_OK); /* order matters: not there */
    CHECK(b > a);
    ring_discard(&r, b);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 3, &b), LOAM_OK); /* far too small for it */
    CHECK(b > a);
    ring_publish_clean(&r, b, false);
    uint64_t c = fill(&r, 250, 1, 9, false), d = fill(&r, 256, 1, 8, false);
    CHECK(c == a || d == a);
    CHECK(readable(&r, c) && readable(&r, d));
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK_EQ(m.holes_reused, 2);
    ring_destroy(&r);
}

Test(ring, a_hole_filled_again_and_shrunk_at_the_tail_loses_no_dirty_entry)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    struct ring_claim c;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 256, 1, 1, &a), LOAM_OK);
    ring_discard(&r, a);
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_NOTFOUND); /* the claim cursor passes the hole */
    CHECK_EQ(ring_reserve(&r, RING_FILL, 256, 1, 1, &a), LOAM_OK);
    ring_shrink(&r, a, 64);
    ring_publish_clean(&r, a, false);
    uint64_t b = stage(&r, 256, 1, 2);
    CHECK_EQ(ring_claim_next(&r, &c), LOAM_OK);
    CHECK_EQ(c.addr, b);
    ring_complete(&r, b, RING_KEEP);
    ring_destroy(&r);
}

Test(ring, addresses_end_with_an_error_and_are_never_given_out_twice)
{
    struct ring r;
    struct ring_options o = {
        .alloc = alloc_global(), .unit = 64, .bytes = 64 * 7, .first_lap = RING_LAP_MAX - 2};
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    uint64_t last = 0;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t a = fill(&r, 64, 1, i, false);
        CHECK(a > last && readable(&r, a));
        last = a;
    }
    uint64_t a = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_E_INTERNAL);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &a), LOAM_E_INTERNAL);
    CHECK(readable(&r, last));
    o.first_lap = RING_LAP_MAX + 1;
    struct ring bad;
    CHECK_EQ(ring_init(&bad, &o), LOAM_E_INVAL);
    ring_destroy(&r);
}

/* ---- the defects of the old buffer ----------------------------------------------------------- */

Test(ring, C2_a_thread_is_told_that_it_waits_for_its_own_reservation)
{
    struct ring r;
    start(&r, 64, 4);
    uint64_t own = 0;
    struct disk d = {0};
    struct ring_claim c;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &own), LOAM_OK);
    for (unsigned i = 0; i < 3; i++) {
        stage(&r, 64, 1, 2);
    }
    CHECK_EQ(ring_evict_n(&r, SIZE_MAX, disk_write, &d, NULL),
             LOAM_NOTFOUND); /* and does not hang */
    CHECK_EQ(d.calls, 3);
    uint64_t a = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_STOPPED);
    CHECK_EQ(ring_wait_space(&r, 64, UINT64_MAX), LOAM_E_MISUSE);
    CHECK_EQ(ring_drain(&r, disk_write, &d, UINT64_MAX, NULL), LOAM_E_MISUSE);
    r.in_order = true;
    CHECK_EQ(ring_claim_wait(&r, &c, UINT64_MAX), LOAM_E_MISUSE);
    ring_discard(&r, own);
    CHECK_EQ(ring_wait_space(&r, 64, 0), LOAM_OK);
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
    ring_destroy(&r);
}

Test(ring, C3_C14_a_failed_write_is_reported_and_the_entry_stays_dirty_or_is_dropped)
{
    struct ring r;
    start(&r, 64, 32);
    uint64_t a = stage(&r, 64, 1, 1), b = stage(&r, 64, 1, 2);
    struct disk d = {.fail = LOAM_E_NOSPACE};
    struct ring_evicted e;
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK(d.calls == 1 && e.entries == 0 && e.bytes == 0);
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK_EQ(d.calls, 2);
    CHECK_EQ(ring_drain(&r, disk_write, &d, UINT64_MAX, &e), LOAM_E_NOSPACE);
    CHECK_EQ(d.calls, 3);
    CHECK_EQ(ring_dirty_bytes(&r), 128); /* C14: nothing failed was taken for written */
    CHECK(readable(&r, a) && readable(&r, b));
    d.outcome = RING_GONE; /* the callback gives the first one up */
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK(!readable(&r, a) && e.entries == 1);
    d = (struct disk){0};
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, &e), LOAM_OK);
    CHECK(d.calls == 1 && d.cookie_sum == 2 && ring_dirty_bytes(&r) == 0);
    ring_destroy(&r);
}

Test(ring, C3_a_retry_without_an_error_does_not_spin)
{
    struct ring r;
    start(&r, 64, 32);
    stage(&r, 64, 1, 1);
    struct disk d = {.outcome = RING_RETRY};
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, NULL), LOAM_OK);
    CHECK_EQ(d.calls, 1);
    CHECK_EQ(ring_drain(&r, disk_write, &d, 1000, NULL), LOAM_STOPPED);
    ring_destroy(&r);
}

Test(ring, C4_eviction_reports_written_bytes_and_head_movement_apart)
{
    struct ring r;
    start(&r, 64, 8);
    uint64_t own = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &own), LOAM_OK);
    for (unsigned i = 0; i < 7; i++) {
        stage(&r, 50, 1, i);
    }
    struct disk d = {0};
    struct ring_evicted e;
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, &e), LOAM_NOTFOUND);
    CHECK(e.entries == 7 && e.bytes == 350 && e.head_bytes == 0);
    uint64_t before = r.head;
    ring_discard(&r, own);
    CHECK(ring_reclaim(&r, 64));
    CHECK(r.head > before);
    ring_destroy(&r);
}

Test(ring, C6_memory_of_the_caller_is_checked_used_and_never_freed)
{
    static _Alignas(4096) unsigned char mine[64 * 32 + 64];
    struct ring r;
    struct ring_options o = {
        .alloc = alloc_global(), .unit = 64, .bytes = 64 * 32, .memory = mine + 1};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    ring_destroy(&r);
    o.memory = mine + 64;
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    uint64_t a = fill(&r, 64, 1, 42, false);
    CHECK(ring_data(&r, a) == mine + 64 && mine[64] == 42);
    ring_destroy(&r);
    memset(mine, 1, sizeof mine);
    ring_destroy(&r);
}

Test(ring, C6_C13_bad_options_and_no_memory_are_codes)
{
    struct ring r;
    struct ring_options o = {.alloc = alloc_global(), .unit = 63, .bytes = 63 * 4};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.unit = 4;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o = (struct ring_options){.alloc = alloc_global(), .unit = 64, .bytes = 0};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 100;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 64 * (RING_UNITS_MAX + 1);
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 6400;
    o.second_chance_percent = 76;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    static struct alloc small;
    alloc_init(&small, NULL, 8192);
    o = (struct ring_options){.alloc = &small, .unit = 64, .bytes = 1 << 20};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_NOMEM);
    CHECK_EQ(alloc_used(&small), 0);
    ring_destroy(&r);
}

Test(ring, C7_sizes_out_of_range_are_codes_and_all_in_range_work)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    CHECK_EQ(ring_entry_max(&r), 1024);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 0, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 1025, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_reserve(&r, RING_FILL, SIZE_MAX, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_wait_space(&r, 1025, 0), LOAM_E_TOOBIG);
    struct disk d = {0};
    for (size_t size = 1; size <= 1024; size++) {
        stage(&r, size, 1, size);
        struct ring_evicted e;
        CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_OK);
        CHECK_EQ(e.bytes, size);
    }
    ring_destroy(&r);
}

Test(ring, C10_a_hole_near_the_head_is_not_used_again)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 128, 1, 1, &a), LOAM_OK);
    ring_discard(&r, a);
    for (unsigned i = 0; i < 40; i++) {
        fill(&r, 64, 1, 2, false); /* half the size: not for the hole */
    }
    CHECK(fill(&r, 128, 1, 3, false) > a);
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK(m.holes_reused == 0 && r.hole_count == 0);
    ring_destroy(&r);
}

Test(ring, C10_the_best_fitting_of_several_sizes_is_never_too_small)
{
    struct ring r;
    start(&r, 64, 256);
    uint64_t a[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(ring_reserve(&r, RING_FILL, 64u << i, 1, 1, &a[i]), LOAM_OK);
    }
    for (unsigned i = 0; i < 4; i++) {
        ring_discard(&r, a[i]);
    }
    CHECK_EQ(fill(&r, 512, 1, 1, false), a[3]);
    CHECK_EQ(fill(&r, 65, 1, 1, false), a[1]);
    CHECK(fill(&r, 513, 1, 1, false) > a[3]);
    ring_destroy(&r);
}

Test(ring, C11_waiting_for_room_ends_by_time)
{
    struct ring r;
    start(&r, 64, 4);
    for (unsigned i = 0; i < 4; i++) {
        stage(&r, 64, 1, 1);
    }
    struct ring_claim c;
    CHECK_EQ(ring_wait_space(&r, 64, 2000), LOAM_STOPPED);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(ring_claim_wait(&r, &c, 0), LOAM_OK);
        CHECK_EQ(ring_wait_space(&r, 64, 0), LOAM_STOPPED);
        if (i != 0) {
            ring_complete(&r, c.addr, RING_KEEP);
        }
    }
    CHECK_EQ(ring_claim_wait(&r, &c, 1000), LOAM_NOTFOUND);
    CHECK_EQ(ring_drain(&r, disk_write, NULL, 1000, NULL), LOAM_STOPPED); /* one in flight */
    ring_destroy(&r);
}

Test(ring, C11_fills_are_refused_while_somebody_waits_for_a_run_of_units)
{
    struct ring r;
    start(&r, 64, 16);
    uint64_t a = 0;
    ring_hold_fills(&r);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &a), LOAM_STOPPED);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_OK);
    ring_release_fills(&r);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &a), LOAM_OK);
    ring_destroy(&r);
}

Test(ring, C13_any_number_of_units_works)
{
    for (size_t units = 1; units <= 40; units++) {
        struct ring r;
        start(&r, 64, units);
        struct disk d = {0};
        size_t max = ring_entry_max(&r);
        for (uint64_t i = 0; i < 200; i++) {
            size_t size = 1 + (size_t)(i * 37) % max;
            uint64_t a = 0;
            int rc;
            while ((rc = ring_reserve(&r, RING_DIRTY, size, 1, i, &a)) == LOAM_STOPPED) {
                CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_OK);
            }
            CHECK_EQ(rc, LOAM_OK);
            memset(ring_data(&r, a), (int)(i & 255), size);
            ring_publish(&r, a);
        }
        CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
        CHECK(d.calls == 200 && d.cookie_sum == 199 * 200 / 2);
        ring_destroy(&r);
    }
}

/* ---- random operations against a model ------------------------------------------------------- */

enum { LIVE_MAX = 512 };

struct live {
    uint64_t addr;
    size_t size;
    uint64_t pattern;
    enum { RESERVED, FILLING, READY, WRITING, CLEAN } state;
    unsigned pins;
};

struct model {
    struct ring r;
    struct random random;
    struct live live[LIVE_MAX];
    unsigned count;
    uint64_t next_pattern, last_tail_addr, last_claim;
    unsigned pins;
};

static void pattern_write(void *p, size_t size, uint64_t pattern)
{
    unsigned char *b = p;
    for (size_t i = 0; i < size; i++) {
        b[i] = (unsigned char)(pattern * 31 + i);
    }
}

static void pattern_check(const void *p, size_t size, uint64_t pattern)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < size; i++) {
        CHECK_EQ(b[i], (unsigned char)(pattern * 31 + i));
    }
}

static bool model_relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t from, uint64_t to)
{
    struct model *m = arg;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->live[i].addr == from) {
            CHECK(m->live[i].state == CLEAN && m->live[i].pattern == cookie && owner == 5);
            m->live[i].addr = to == 0 ? from : to;
            return cookie % 8 != 0;
        }
    }
    return false;
}

static void model_forget(struct model *m, unsigned i)
{
    m->live[i] = m->live[--m->count];
}

/* Every entry shows its bytes; a clean, unpinned one may be gone instead. */
static void model_verify(struct model *m)
{
    epoch_enter();
    for (unsigned i = 0; i < m->count; i++) {
        struct live *e = &m->live[i];
        size_t size = 0;
        const void *p = ring_read(&m->r, e->addr, random_below(&m->random, 4) == 0, &size);
        if (e->state == RESERVED || e->state == FILLING) {
            CHECK(p == NULL && ring_live(&m->r, e->addr));
            pattern_check(ring_data(&m->r, e->addr), e->size, e->pattern);
        } else if (p == NULL) {
            CHECK(e->state == CLEAN && e->pins == 0);
            model_forget(m, i--);
        } else {
            CHECK_EQ(size, e->size);
            pattern_check(p, size, e->pattern);
        }
    }
    epoch_exit();
    struct ring *r = &m->r;
    CHECK(r->head <= r->evict && r->evict <= r->tail);
    CHECK(ring_distance_(r, r->tail, r->head) <= r->units);
}

static void model_reserve(struct model *m)
{
    struct live e = {.state = random_below(&m->random, 2) == 0 ? RESERVED : FILLING,
                     .pattern = m->next_pattern++};
    e.size = 1 + (size_t)random_below(&m->random, ring_entry_max(&m->r));
    int rc = ring_reserve(&m->r, e.state == RESERVED ? RING_DIRTY : RING_FILL, e.size, 5, e.pattern,
                          &e.addr);
    CHECK(rc == LOAM_OK || rc == LOAM_STOPPED);
    if (rc == LOAM_OK) {
        for (unsigned i = 0; i < m->count; i++) {
            CHECK(m->live[i].addr != e.addr);
        }
        pattern_write(ring_data(&m->r, e.addr), e.size, e.pattern);
        m->live[m->count++] = e;
    }
}

static void model_claim(struct model *m)
{
    struct ring_claim c;
    uint64_t oldest = UINT64_MAX;
    unsigned at = 0;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->live[i].state == READY && m->live[i].addr < oldest) {
            oldest = m->live[i].addr;
            at = i;
        }
    }
    int rc = ring_claim_next(&m->r, &c);
    CHECK_EQ(rc, oldest == UINT64_MAX ? LOAM_NOTFOUND : LOAM_OK);
    if (rc == LOAM_OK) {
        CHECK(c.addr == oldest && c.size == m->live[at].size && c.cookie == m->live[at].pattern);
        m->live[at].state = WRITING;
    }
}

static void model_change(struct model *m, unsigned i)
{
    struct live *e = &m->live[i];
    unsigned dice = (unsigned)random_below(&m->random, 8);
    size_t size = 0;
    if (e->state == RESERVED || e->state == FILLING) {
        if (dice < 2) {
            e->size = 1 + (size_t)random_below(&m->random, e->size);
            ring_shrink(&m->r, e->addr, e->size);
        } else if (dice == 2) {
            ring_discard(&m->r, e->addr);
            model_forget(m, i);
        } else if (e->state == RESERVED && dice < 7) {
            ring_publish(&m->r, e->addr);
            e->state = READY;
        } else {
            ring_publish_clean(&m->r, e->addr, dice % 2 == 0);
            e->state = CLEAN;
        }
    } else if (e->state == WRITING && dice < 6) {
        enum ring_outcome o = dice < 4 ? RING_KEEP : dice == 4 ? RING_RETRY : RING_GONE;
        o = o == RING_GONE && e->pins != 0 ? RING_KEEP : o;
        ring_complete(&m->r, e->addr, o);
        e->state = o == RING_KEEP ? CLEAN : READY;
        if (o == RING_GONE) {
            model_forget(m, i);
        }
    } else if (e->pins != 0) {
        ring_unpin(&m->r, e->addr);
        e->pins--;
        m->pins--;
    } else if (dice == 7 && m->pins < 2) {
        const void *p = ring_pin(&m->r, e->addr, &size);
        CHECK(p != NULL || e->state == CLEAN);
        if (p != NULL) {
            e->pins++;
            m->pins++;
        }
    }
}

static uint64_t seed_of_run(void)
{
    const char *s = getenv("LOAM_SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : (uint64_t)time(NULL) * 1000003u;
    fprintf(stderr, "LOAM_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

Test(ring, random_operations_agree_with_the_model)
{
    uint64_t seed = seed_of_run();
    static struct model m;
    for (unsigned round = 0; round < 60; round++) {
        memset(&m, 0, sizeof m);
        random_init(&m.random, splitmix64(&seed));
        size_t units = 1 + (size_t)random_below(&m.random, round % 3 == 0 ? 8 : 200);
        struct ring_options o = {.alloc = alloc_global(),
                                 .unit = 8u << random_below(&m.random, 4),
                                 .second_chance_percent = (uint32_t)random_below(&m.random, 76),
                                 .relocate = model_relocate,
                                 .relocate_arg = &m};
        o.bytes = units * o.unit;
        CHECK_EQ(ring_init(&m.r, &o), LOAM_OK);
        for (unsigned step = 0; step < 3000; step++) {
            uint64_t dice = random_below(&m.random, 10);
            if (dice < 3 && m.count < LIVE_MAX) {
                model_reserve(&m);
            } else if (dice < 5) {
                model_claim(&m);
            } else if (m.count != 0) {
                model_change(&m, (unsigned)random_below(&m.random, m.count));
            }
            if (step % 8 == 0) {
                model_verify(&m);
            }
        }
        ring_destroy(&m.r);
    }
}
