/* defects_test.c - Defects of earlier structures of these kinds: what has no better place to be tested.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The defects are numbered S (slot maps), F (skip list and arena), C (circular buffer), A (slab) and D
 * (deferred insertion). One that is a behaviour has a test with its number in the name, here or beside
 * the module; tools/check_style.py counts them. The others, and why they cannot occur:
 *
 *     S14  the tests were single-threaded    each concurrent structure has stress tests, under a
 *                                            thread sanitizer as well, and explored schedules
 *     F22  models that never touch the code  the explorer runs the library's own sources
 *     C5   a weak compare-and-swap that is   atomic.h has only the strong one
 *          not repeated
 *     A7   unsafe calls that look safe       each header says what it requires of the caller
 *     D5   assigning onto an occupied slot   there is no assignment: a payload is set once, by commit
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/slotmap.h"
#include "arena/sync.h"
#include "tests/support/check.h"

static struct alloc memory;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
}

static void teardown(void)
{
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(defects, .init = setup, .fini = teardown);

/* ---- slot maps --------------------------------------------------------------------------------- */

/* An aborted step of an insert must not overwrite what an erase freed meanwhile: every slot is there. */
Test(defects, S3_reservations_given_up_beside_erases_lose_no_slot)
{
    static struct slotmap map;
    static int thing;
    CHECK_EQ(slotmap_init(&map, &memory, 1), LOAM_OK);
    for (int round = 0; round < 3000; round++) {
        uint64_t live = slotmap_insert(&map, &thing);
        uint64_t given_up = slotmap_reserve(&map);
        CHECK(live != 0 && given_up != 0);
        CHECK_EQ(slotmap_erase(&map, live), LOAM_OK);
        CHECK_EQ(slotmap_abort(&map, given_up), LOAM_OK);
    }
    struct slotmap_census c;
    slotmap_census(&map, &c);
    CHECK_EQ(c.free + c.closing, c.carved);
    CHECK_EQ(c.reserved + c.live + c.retired, 0);
    CHECK(c.carved <= 1024); /* what waits for an epoch, and magazines */
    slotmap_destroy(&map);
}

struct locked_map {
    struct slotmap *map;
    int *thing;
};

static void *use_map(void *arg)
{
    struct locked_map *l = arg;
    for (int i = 0; i < 1000; i++) {
        uint64_t h = slotmap_insert(l->map, l->thing);
        void *p;
        CHECK(h != 0);
        epoch_enter();
        CHECK(slotmap_get(l->map, h) == l->thing);
        epoch_exit();
        CHECK_EQ(slotmap_pin(l->map, h, &p), LOAM_OK);
        slotmap_unpin(l->map, h);
        CHECK_EQ(slotmap_erase(l->map, h), LOAM_OK);
    }
    return NULL;
}

Test(defects, S4_no_call_waits_for_a_lock_of_the_map, .timeout = 60)
{
    static struct slotmap map;
    static int thing;
    CHECK_EQ(slotmap_init(&map, &memory, 1), LOAM_OK);
    struct locked_map l = {&map, &thing};
    pthread_t t;
    mutex_lock(&map.spill_mutex); /* the only one there is; it is for free slots beyond the depot */
    CHECK_EQ(pthread_create(&t, NULL, use_map, &l), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    mutex_unlock(&map.spill_mutex);
    slotmap_destroy(&map);
}

Test(defects, S12_a_slot_is_a_word_and_its_payload_side_by_side)
{
    static struct slotmap map, padded;
    static int thing;
    CHECK_EQ(sizeof(struct slotmap_slot), 16);
    CHECK_EQ(slotmap_init(&map, &memory, 1), LOAM_OK);
    CHECK_EQ(slotmap_init_padded(&padded, &memory, 2), LOAM_OK);
    uint64_t h = slotmap_insert(&map, &thing), q = slotmap_insert(&padded, &thing);
    CHECK(slotmap_slot_(&map, h)->payload == &thing);
    CHECK_EQ((uintptr_t)slotmap_slot_(&map, h) % 16, 0);
    CHECK_EQ((uintptr_t)slotmap_slot_(&padded, q) % CACHE_LINE,
             0); /* no line shared with a neighbour */
    slotmap_destroy(&map);
    slotmap_destroy(&padded);
}

/* ---- circular buffer --------------------------------------------------------------------------- */

#define UNITS 4096u

static struct ring ring;

static void ring_start(void)
{
    const struct ring_options o = {.alloc = &memory, .unit = 64, .bytes = (size_t)UNITS * 64};
    CHECK_EQ(ring_init(&ring, &o), LOAM_OK);
}

static int keep(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)arg;
    (void)c;
    (void)outcome;
    return LOAM_OK;
}

Test(defects, C1_no_call_waits_for_the_one_that_reclaims, .timeout = 60)
{
    ring_start();
    atomic_store(&ring.reclaiming, 1); /* a reclaimer that lost its processor */
    uint64_t addr;
    unsigned built = 0;
    while (ring_reserve(&ring, RING_DIRTY, 256, 1, 0, &addr) == LOAM_OK) {
        size_t size;
        ring_publish(&ring, addr);
        CHECK_EQ(ring_evict_one(&ring, keep, NULL, NULL), LOAM_OK);
        CHECK(ring_pin(&ring, addr, &size) != NULL);
        CHECK_EQ(ring_entry_state(&ring, addr), RING_CLEAN);
        ring_unpin(&ring, addr);
        built++;
    }
    CHECK_EQ(built, UNITS * 64 / 256); /* then it is full: an answer, not a wait */
    atomic_store(&ring.reclaiming, 0);
    CHECK_EQ(ring_reserve(&ring, RING_DIRTY, 256, 1, 0, &addr), LOAM_OK);
    ring_discard(&ring, addr);
    CHECK_EQ(ring_entry_state(&ring, addr), RING_DISCARDED);
    ring_destroy(&ring);
}

/* Entries given up are passed by the head like any other: what is known of them as holes is a handful of
 * hints that nobody has to search or repair. */
Test(defects, C8_discarded_entries_are_evicted_like_any_other)
{
    ring_start();
    for (unsigned lap = 0; lap < 4; lap++) {
        for (unsigned i = 0; i < UNITS / 4; i++) {
            uint64_t addr;
            CHECK_EQ(ring_reserve(&ring, RING_DIRTY, 256, 1, 0, &addr), LOAM_OK);
            ring_discard(&ring, addr);
            CHECK(atomic_load(&ring.hole_count) <= RING_HOLES);
        }
    }
    struct ring_metrics m;
    ring_metrics(&ring, &m);
    CHECK(m.evicted_bytes >= (uint64_t)2 * UNITS * 64);
    CHECK_EQ(m.dirty_bytes, 0);
    CHECK_EQ(m.reserve_full, 0);
    ring_destroy(&ring);
}
