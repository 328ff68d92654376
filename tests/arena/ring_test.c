/* ring_test.c - The ring's states, room, order, pins and second chance.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Random operations are in ring_model_test.c, defects of earlier buffers in ring_defects_test.c.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "tests/arena/ring_support.h"
#include "tests/support/seed.h"

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
    CHECK(p != NULL && !ring_has_passed(&r, a));
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
    CHECK(ring_has_passed(&r, a) && !ring_has_passed(&r, b));
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

#define ENTRIES 512u

/* Owner side of second chance: where each cookie is. */
struct index {
    uint64_t addr[ENTRIES];
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

/* Of entries told by `wanted` some are read, those that are not there are filled in, until `n` were evicted.
 * Returns how many were copied for a thousand evicted. */
static uint64_t copies_per_thousand(struct ring *r, struct index *x, unsigned n,
                                    unsigned (*wanted)(struct random *), struct random *random)
{
    /* relaxed, all of them: one thread. */
    uint64_t evicted = atom_load(&r->evicted_units, relaxed), copied = atom_load(&r->relocated_units, relaxed);
    while (atom_load(&r->evicted_units, relaxed) - evicted < n) {
        unsigned i = wanted(random);
        size_t size = 0;
        epoch_enter();
        bool hit = ring_read(r, x->addr[i], true, &size) != NULL;
        epoch_exit();
        if (!hit) {
            x->addr[i] = fill(r, 64, 1, i, false);
        }
    }
    return (atom_load(&r->relocated_units, relaxed) - copied) * 1000 / n;
}

static unsigned any_of_them(struct random *r)
{
    return (unsigned)random_below(r, ENTRIES);
}

/* Nine of ten are of an eighth of them. */
static unsigned favourites(struct random *r)
{
    return (unsigned)random_below(r, random_below(r, 10) == 0 ? ENTRIES : ENTRIES / 8);
}

/* Copies are made where they are read more than others, hardly any where all are read alike, and again when
 * that changes; whatever came through that nobody read, as when tables are written. */
Test(ring, entries_get_a_second_chance_only_while_that_gains_something)
{
    static struct index x;
    struct random random;
    struct ring r;
    struct ring_options o = {.alloc = alloc_global(),
                             .unit = 64,
                             .bytes = 64 * ENTRIES / 2,
                             .second_chance_percent = 50,
                             .relocate = index_relocate,
                             .relocate_arg = &x};
    random_init(&random, seed_of_run());
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    for (unsigned i = 0; i < 1000000; i++) {
        (void)fill(&r, 64, 1, 0, false);
    }
    for (unsigned i = 0; i < 2; i++) {
        (void)copies_per_thousand(&r, &x, 100000, any_of_them, &random);
        CHECK(copies_per_thousand(&r, &x, 100000, any_of_them, &random) < 150);
        (void)copies_per_thousand(&r, &x, 400000, favourites, &random);
        CHECK(copies_per_thousand(&r, &x, 50000, favourites, &random) > 400);
    }
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
