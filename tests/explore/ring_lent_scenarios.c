/* ring_lent_scenarios.c - Fills and reads on a ring while memory is lent to it and taken back.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What each pair of orders is for (take it away, and the scenario named turns red; see
 * mutations.py)
 *   fence and tail / limit, epoch / memory given back  a fill or a read where it was: ring_lent
 */
#include "arena/ring.h"

#include "arena/epoch.h"
#include "arena/status.h"
#include "tests/explore/explore.h"
#include "tests/explore/ring_world.h"

enum { OWN = 4, BEYOND = 99 };

/* As much again as it has may be lent to it. */
static void setup_own(unsigned second_chance)
{
    const struct ring_options o = {.alloc = alloc_global(),
                                   .unit = UNIT,
                                   .bytes = 2 * (size_t)OWN * UNIT,
                                   .bytes_own = (size_t)OWN * UNIT,
                                   .second_chance_percent = second_chance,
                                   .relocate = relocate};
    EXPECT_EQ(ring_init(&w.ring, &o), LOAM_OK);
}

/* The next entry lies beyond what the ring has all the time, as one does that can be read; it was read
 * before, so eviction would rather copy it. */
static void setup_lent(void)
{
    setup_own(75);
    ring_lend(&w.ring, 2 * (size_t)OWN * UNIT);
    for (uint64_t c = 0; c <= OWN; c++) {
        fill_once(c, true);
    }
    EXPECT_EQ(ring_index_(w.addr[OWN]), OWN);
}

/* Down to so many units; uses the memory that came back for something else. */
static bool take_back_to(unsigned steps, unsigned units)
{
    for (unsigned i = 0; i < steps; i++) {
        if (ring_take_back(&w.ring, (size_t)units * UNIT)) {
            size_t left = ring_capacity(&w.ring);
            fill(w.ring.data + left, 2 * (size_t)OWN * UNIT - left, BEYOND);
            return true;
        }
    }
    return false;
}

static bool take_back(unsigned steps)
{
    return take_back_to(steps, OWN);
}

/* What threads 1 and 2 do beside the one that lends. */
static void fill_or_read(unsigned thread)
{
    if (thread == 1) {
        fill_once(5, true);
        fill_once(6, true);
        read_entry(6);
    } else {
        read_entry(OWN);
        read_entry(5);
    }
}

static void lent_body(unsigned thread)
{
    if (thread != 0) {
        fill_or_read(thread);
    } else if (take_back(5)) {
        ring_lend(&w.ring, (OWN + 1) * (size_t)UNIT);
    }
}

/* All is as it should be, and all that is lent still comes back. */
static void nothing_lost(void)
{
    for (uint64_t c = 0; c < ENTRIES; c++) {
        read_entry(c);
    }
    ring_check();
    EXPECT(take_back(20));
    ring_check();
}

static void lent_check(void)
{
    EXPECT(w.ring.fence == 0 || take_back(20));
    nothing_lost();
}

SCENARIO(ring_lent, .says = "lent memory goes back while it is filled and read", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_lent, .body = lent_body, .check = lent_check, .bound = 2)

/* A part stays: the entries that lie in it stay readable, those behind it do not. */
static void part_body(unsigned thread)
{
    if (thread != 0) {
        fill_or_read(thread);
    } else {
        (void)take_back_to(5, OWN + 1);
    }
}

static void part_check(void)
{
    EXPECT(take_back_to(20, OWN + 1));
    EXPECT_EQ(ring_capacity(&w.ring), (OWN + 1) * (size_t)UNIT);
    nothing_lost();
}

SCENARIO(ring_lent_part, .says = "a part of lent memory goes back while it is filled and read", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_lent, .body = part_body, .check = part_check, .bound = 2)

/* Nothing lies beyond yet. */
static void setup_reach(void)
{
    setup_own(50);
    for (uint64_t c = 0; c < OWN - 1; c++) {
        fill_once(c, true);
    }
    ring_lend(&w.ring, 2 * (size_t)OWN * UNIT);
}

static void reach_body(unsigned thread)
{
    if (thread == 0) {
        (void)ring_reach_lent(&w.ring, OWN * (size_t)UNIT);
        (void)ring_reach_lent(&w.ring, OWN * (size_t)UNIT);
    } else if (thread == 1) {
        fill_once(OWN, true);
        read_entry(0);
    } else {
        read_entry(0);
        read_entry(1);
    }
}

/* None is lost: there was room for all. */
static void reach_check(void)
{
    size_t size;
    for (uint64_t c = 0; c < OWN - 1; c++) {
        epoch_enter();
        EXPECT(ring_read(&w.ring, atom_load(&w.addr[c], relaxed), false, &size) != NULL);
        epoch_exit();
    }
    nothing_lost();
}

SCENARIO(ring_reach, .says = "entries move on to lent memory while it is filled and read", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_reach, .body = reach_body, .check = reach_check, .bound = 2)
