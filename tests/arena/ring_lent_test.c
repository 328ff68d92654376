/* ring_lent_test.c - A ring grows by what is lent to it, and gives all of it back.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the bytes of each entry; memory beyond the ring's own is scribbled over once it is back.
 */
#include <criterion/criterion.h>

#include "tests/arena/ring_support.h"

enum { UNIT = 4096, OWN = 32, ALL = 96, FILLS = 400 };

static struct alloc counted;
static struct ring r;

static void open_ring(void)
{
    alloc_init(&counted, NULL, UINT64_MAX);
    struct ring_options o = {.alloc = &counted, .unit = UNIT, .bytes = ALL * UNIT, .bytes_own = OWN * UNIT};
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
}

static void close_ring(void)
{
    ring_destroy(&r);
    CHECK_EQ(alloc_used(&counted), 0);
}

/* False: it is held up. */
static bool take_back(void)
{
    for (unsigned i = 0; i < 20; i++) {
        if (ring_take_back(&r, 0)) {
            memset(r.data + OWN * UNIT, 0xdd, (ALL - OWN) * UNIT);
            return true;
        }
        epoch_poll();
    }
    return false;
}

static uint64_t charged(void)
{
    return alloc_used(&counted) - ALL * sizeof(struct ring_desc);
}

/* Fills one entry of a unit; ring_wait_space() stands for readers who come again. */
static uint64_t enter(uint64_t cookie)
{
    CHECK_EQ(ring_wait_space(&r, UNIT, 1000000), LOAM_OK);
    return fill(&r, UNIT, 1, cookie, false);
}

static unsigned readable_of(const uint64_t *addr, unsigned n, bool beyond)
{
    unsigned found = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t size;
        epoch_enter();
        const unsigned char *p = ring_read(&r, addr[i], false, &size);
        if (p != NULL) {
            CHECK_EQ(size, UNIT);
            for (unsigned k = 0; k < UNIT; k++) {
                CHECK_EQ(p[k], i & 255);
            }
            found += !beyond || ring_index_(addr[i]) >= OWN;
        }
        epoch_exit();
    }
    return found;
}

Test(ring_lent, holds_as_much_as_it_is_lent_and_then_its_own_again)
{
    static uint64_t addr[FILLS];
    open_ring();
    CHECK(charged() < (OWN + 1) * UNIT);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < FILLS; i++) {
            addr[i] = enter(i);
            CHECK(ring_index_(addr[i]) < OWN);
        }
        unsigned own = readable_of(addr, FILLS, false);
        CHECK(own > OWN * 3 / 4 && own <= OWN);
        CHECK(ring_spare_bytes(&r) <= (OWN - own) * UNIT);

        ring_lend(&r, ALL * UNIT);
        CHECK(ring_capacity(&r) == ALL * UNIT && charged() > (ALL - 1) * UNIT);
        for (unsigned i = 0; i < FILLS; i++) {
            addr[i] = enter(i);
        }
        unsigned all = readable_of(addr, FILLS, false);
        CHECK(all > ALL * 3 / 4 && all <= ALL);
        CHECK(readable_of(addr, FILLS, true) > 0);

        CHECK(take_back());
        CHECK(ring_capacity(&r) == OWN * UNIT && charged() < (OWN + 1) * UNIT);
        CHECK_EQ(readable_of(addr, FILLS, true), 0);
    }
    close_ring();
}

Test(ring_lent, comes_back_in_parts)
{
    static uint64_t addr[FILLS];
    open_ring();
    ring_lend(&r, ALL * UNIT);
    for (size_t left = ALL; left > OWN; left--) {
        for (unsigned i = 0; i < FILLS; i++) {
            addr[i] = enter(i);
            CHECK(ring_index_(addr[i]) < left);
        }
        CHECK(readable_of(addr, FILLS, false) > left * 3 / 4);
        for (unsigned i = 0; !ring_take_back(&r, (left - 1) * UNIT); i++) {
            CHECK(i < 20);
            epoch_poll();
        }
        memset(r.data + (left - 1) * UNIT, 0xdd, (ALL - left + 1) * UNIT);
        CHECK(ring_capacity(&r) == (left - 1) * UNIT && charged() < left * UNIT);
        CHECK(readable_of(addr, FILLS, false) > left / 2); /* of the others most are there */
    }
    CHECK(ring_take_back(&r, 0));
    close_ring();
}

static uint64_t known[FILLS]; /* addresses by cookie; 0: forgotten */

static bool follow(void *arg, uint64_t owner, uint64_t cookie, uint64_t old_addr, uint64_t new_addr)
{
    (void)arg, (void)owner;
    CHECK(cookie < FILLS);
    if (known[cookie] != old_addr) {
        return false;
    }
    known[cookie] = new_addr != 0 ? new_addr : old_addr;
    return true;
}

static unsigned known_count(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < FILLS; i++) {
        n += known[i] != 0 && readable(&r, known[i]);
    }
    return n;
}

static void fill_some(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        (void)enter(FILLS - 1);
    }
    epoch_poll();
}

static void reach(void)
{
    for (unsigned i = 0; !ring_reach_lent(&r, 2 * UNIT); i++) {
        CHECK(i < 8 * OWN);
        epoch_poll();
    }
}

/* Nobody has read any of it. Wherever the tail stands, and whether something was lent a lap before or not. */
Test(ring_lent, is_reached_by_entries_that_move_and_not_by_losing_them)
{
    open_ring();
    r.relocate = follow;
    r.second_chance_percent = 50;
    for (unsigned n = 0; n < 2 * OWN; n++) {
        unsigned forgotten = 0;
        memset(known, 0, sizeof known);
        for (unsigned i = 0; i < OWN + n; i++) {
            known[i] = enter(i);
        }
        for (unsigned i = n; i < OWN + n; i += 3) {
            forgotten += readable(&r, known[i]);
            known[i] = 0;
        }
        unsigned before = known_count();
        CHECK(before + forgotten > OWN * 3 / 4 && before > OWN / 2);
        ring_lend(&r, ALL * UNIT);
        reach();
        CHECK(known_count() + 1 >= before); /* one to make room, when there was none */
        CHECK(ring_spare_bytes(&r) > (ALL - OWN - 8) * UNIT);
        unsigned there = known_count();
        for (unsigned i = 0; i < ALL - OWN - 8; i++) {
            (void)fill(&r, UNIT, 1, FILLS - 1, false);
        }
        CHECK_EQ(known_count(), there);
        (void)readable_of(known, FILLS, false);
        CHECK(take_back());
        CHECK(ring_reach_lent(&r, UNIT));
        fill_some(OWN / 2); /* what was lent a lap before is still to be passed */
        ring_lend(&r, ALL * UNIT);
        do {
            fill_some(n % 8); /* by readers, who bring the tail there first */
        } while (!ring_reach_lent(&r, UNIT));
        CHECK(ring_spare_bytes(&r) > (ALL - OWN - 8) * UNIT);
        CHECK(take_back());
    }
    close_ring();
}

static _Atomic uint64_t *word_of(uint64_t addr)
{
    return &ring_desc_(&r, addr)->word;
}

Test(ring_lent, entries_that_move_keep_their_marks)
{
    const uint64_t marks[] = {0, RING_REF, RING_COPIED, RING_REF | RING_COPIED};
    uint64_t from[FILLS];
    unsigned moved = 0;
    open_ring();
    for (unsigned i = 0; i < OWN + OWN / 2; i++) {
        known[i] = enter(i);
        atom_or(word_of(known[i]), marks[i % 4], relaxed); /* relaxed: one thread */
    }
    memcpy(from, known, sizeof from);
    r.relocate = follow;
    ring_lend(&r, ALL * UNIT);
    reach();
    for (unsigned i = 0; i < OWN + OWN / 2; i++) {
        if (readable(&r, known[i])) {
            moved += known[i] != from[i];
            /* relaxed: as above */
            CHECK_EQ(atom_load(word_of(known[i]), relaxed) & (RING_REF | RING_COPIED), marks[i % 4]);
        }
    }
    CHECK(moved > OWN / 4);
    CHECK(take_back());
    close_ring();
}

/* Wherever the tail stands when it is lent and taken back. */
Test(ring_lent, comes_back_at_any_place_of_the_tail)
{
    static uint64_t addr[2 * ALL];
    open_ring();
    for (unsigned n = 0; n < 2 * ALL; n++) {
        ring_lend(&r, (OWN + 1 + n % (ALL - OWN)) * UNIT);
        for (unsigned i = 0; i < n; i++) {
            addr[i] = enter(i);
            CHECK(ring_index_(addr[i]) <= OWN + n % (ALL - OWN));
        }
        CHECK(take_back());
        CHECK_EQ(readable_of(addr, n, true), 0);
        for (unsigned i = 0; i < OWN / 2; i++) {
            addr[i] = enter(i);
        }
        CHECK_EQ(readable_of(addr, OWN / 2, false), OWN / 2);
    }
    close_ring();
}

static void fill_beyond(uint64_t *addr)
{
    ring_lend(&r, ALL * UNIT);
    do {
        *addr = enter(7);
    } while (ring_index_(*addr) < OWN);
}

Test(ring_lent, a_pin_and_a_dirty_entry_keep_it)
{
    open_ring();
    uint64_t addr;
    size_t size;
    fill_beyond(&addr);
    const void *p = ring_pin(&r, addr, &size);
    CHECK(p != NULL && !take_back());
    struct disk d = {.outcome = RING_KEEP};
    uint64_t dirty = stage(&r, UNIT, 1, 9);
    CHECK(ring_index_(dirty) < OWN); /* the limit holds at once */
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_OK);
    for (unsigned k = 0; k < UNIT; k++) {
        CHECK_EQ(((const unsigned char *)p)[k], 7);
    }
    ring_unpin(&r, addr);
    CHECK(take_back());

    fill_beyond(&addr);
    dirty = stage(&r, UNIT, 1, 9);
    CHECK(ring_index_(dirty) >= OWN && !take_back());
    CHECK(readable(&r, dirty));
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_OK);
    CHECK_EQ(d.cookie_sum, 18);
    CHECK(take_back());
    close_ring();
}

Test(ring_lent, a_section_keeps_what_it_reads)
{
    open_ring();
    uint64_t addr;
    size_t size;
    fill_beyond(&addr);
    epoch_enter();
    const unsigned char *p = ring_read(&r, addr, false, &size);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(!ring_take_back(&r, 0));
    }
    CHECK_EQ(p[UNIT - 1], 7);
    epoch_exit();
    CHECK(take_back());
    close_ring();
}
