/* slotmap_test.c - One thread's view of the slotmap: each promise of the header, and old defects.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: handles name one payload for ever and every call says what it found. Oracle: a table of
 * what was inserted (the property test), the census of states, and a count of finaliser calls.
 *
 * S and D numbers are the defects of two designs this one replaces. Those that are a behaviour have
 * a test of that name here or in slotmap_stress.c. The others, and why they cannot occur:
 *   S3   a blind store to a list of free slots: limbo is pushed by CAS and taken whole, the spill
 *        list is changed under a lock, magazines have one owner.
 *   S4   a lock on every get: get is two loads (S4 and S12 show in the benchmark).
 *   S12  everything sequentially consistent, two arrays: word and payload share 16 bytes.
 *   S14  one concurrent test: see slotmap_stress.c and tests/models/slotmap_model.py.
 *   D5   cloning over an occupied slot: there is no clone; payloads are pointers of the caller.
 *   D8   32-bit length, generation 0 from outside: len is size_t, the index has 28 bits, and a
 *        handle with generation 0 is refused (D8_generation_zero_is_refused).
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "arena/random.h"
#include "arena/slotmap.h"
#include "arena/status.h"
#include "tests/support/check.h"

#define KIND 5

static struct alloc memory;
static struct slotmap map;
static int things[64];
static unsigned finalised;

static void count_finalised(void *arg, void *payload)
{
    (void)payload;
    ++*(unsigned *)arg;
}

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&map, &memory, KIND), LOAM_OK);
    finalised = 0;
}

static void check_census(void)
{
    struct slotmap_census c;
    slotmap_census(&map, &c);
    CHECK_EQ(c.free + c.reserved + c.live + c.closing + c.retired, c.carved);
    CHECK_EQ(c.live, slotmap_len(&map));
    CHECK_EQ(c.retired, slotmap_retired(&map));
    CHECK_EQ(c.occupancy_errors, 0);
}

static void teardown(void)
{
    check_census();
    slotmap_destroy(&map);
    CHECK_EQ(alloc_used(&memory), 0);
}

static void *get(uint64_t h)
{
    epoch_enter();
    void *p = slotmap_get(&map, h);
    epoch_exit();
    return p;
}

static int get_or_stale(uint64_t h)
{
    void *p;
    epoch_enter();
    int rc = slotmap_get_or_stale(&map, h, &p);
    epoch_exit();
    return rc;
}

TestSuite(slotmap, .init = setup, .fini = teardown);

Test(slotmap, insert_then_get_finds_the_payload)
{
    uint64_t a = slotmap_insert(&map, &things[0]);
    uint64_t b = slotmap_insert(&map, &things[1]);
    CHECK(a != 0 && b != 0 && a != b);
    CHECK(get(a) == &things[0] && get(b) == &things[1]);
    CHECK_EQ(a >> 60, KIND);
    CHECK(slotmap_contains(&map, a));
    CHECK_EQ(slotmap_len(&map), 2);
}

Test(slotmap, erased_handle_is_stale_for_ever)
{
    uint64_t h = slotmap_insert(&map, &things[0]);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_E_CLOSED);
    void *p;
    CHECK_EQ(slotmap_pin(&map, h, &p), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(h), LOAM_E_CLOSED);
    CHECK(get(h) == NULL && !slotmap_contains(&map, h));
    for (int i = 0; i < 5000; i++) { /* the slot comes round again */
        uint64_t other = slotmap_insert(&map, &things[1]);
        CHECK(other != h);
        CHECK(get(h) == NULL);
        CHECK_EQ(slotmap_erase(&map, other), LOAM_OK);
    }
}

Test(slotmap, reserved_handle_is_not_ready_rather_than_stale)
{
    uint64_t h = slotmap_reserve(&map);
    void *p;
    CHECK(h != 0 && get(h) == NULL && !slotmap_contains(&map, h));
    CHECK_EQ(get_or_stale(h), LOAM_E_BUSY);
    CHECK_EQ(slotmap_pin(&map, h, &p), LOAM_E_BUSY);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_E_BUSY);
    CHECK_EQ(slotmap_len(&map), 0);
    CHECK_EQ(slotmap_commit(&map, h, &things[3]), LOAM_OK);
    CHECK(get(h) == &things[3]);
    CHECK_EQ(slotmap_commit(&map, h, &things[4]), LOAM_E_EXISTS);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_E_EXISTS);
    CHECK(get(h) == &things[3]);
}

Test(slotmap, aborted_reservation_is_stale)
{
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_E_CLOSED);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(h), LOAM_E_CLOSED);
}

Test(slotmap, null_payload_is_refused)
{
    CHECK_EQ(slotmap_insert(&map, NULL), 0);
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_commit(&map, h, NULL), LOAM_E_INVAL);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_OK);
}

Test(slotmap, pin_outlives_erase_and_the_last_unpin_finalises)
{
    slotmap_set_finaliser(&map, count_finalised, &finalised);
    uint64_t h = slotmap_insert(&map, &things[7]);
    void *a, *b;
    CHECK_EQ(slotmap_pin(&map, h, &a), LOAM_OK);
    CHECK_EQ(slotmap_pin(&map, h, &b), LOAM_OK);
    CHECK(a == &things[7] && b == a);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_pin(&map, h, &a), LOAM_E_CLOSED);
    epoch_synchronize();
    CHECK_EQ(finalised, 0);
    slotmap_unpin(&map, h);
    epoch_synchronize();
    CHECK_EQ(finalised, 0);
    slotmap_unpin(&map, h);
    epoch_synchronize();
    CHECK_EQ(finalised, 1);
}

Test(slotmap, finaliser_waits_for_the_sections_open_at_the_erase)
{
    slotmap_set_finaliser(&map, count_finalised, &finalised);
    uint64_t h = slotmap_insert(&map, &things[7]);
    pthread_t t;
    epoch_enter();
    void *p = slotmap_get(&map, h);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    for (int i = 0; i < 10; i++) {
        epoch_try_advance();
    }
    CHECK_EQ(pthread_create(&t, NULL, (void *(*)(void *))(void (*)(void))epoch_poll, NULL), 0);
    pthread_join(t, NULL);
    CHECK_EQ(finalised, 0);
    CHECK(p == &things[7]);
    epoch_exit();
    epoch_synchronize();
    CHECK_EQ(finalised, 1);
}

Test(slotmap, many_erases_are_each_finalised_once)
{
    slotmap_set_finaliser(&map, count_finalised, &finalised);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t h[100];
        for (unsigned i = 0; i < 100; i++) {
            h[i] = slotmap_insert(&map, &things[0]);
        }
        for (unsigned i = 0; i < 100; i++) {
            CHECK_EQ(slotmap_erase(&map, h[i]), LOAM_OK);
        }
        epoch_poll();
    }
    epoch_synchronize();
    epoch_synchronize(); /* a batch sent off by the first one's drain */
    CHECK_EQ(finalised, 2000);
    CHECK(slotmap_capacity(&map) <= 3072);
}

static void erase_other(void *arg, void *payload)
{
    uint64_t *other = payload;
    ++*(unsigned *)arg;
    if (*other != 0) {
        CHECK_EQ(slotmap_erase(&map, *other), LOAM_OK);
    }
}

Test(slotmap, finaliser_may_erase_in_the_same_map)
{
    static uint64_t chain[50];
    slotmap_set_finaliser(&map, erase_other, &finalised);
    for (int i = 0; i < 50; i++) {
        chain[i] = i == 0 ? 0 : chain[i];
        uint64_t h = slotmap_insert(&map, &chain[i]);
        if (i + 1 < 50) {
            chain[i + 1] = h;
        } else {
            CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
        }
    }
    for (int i = 0; i < 60; i++) {
        epoch_synchronize();
    }
    CHECK_EQ(finalised, 50);
    CHECK_EQ(slotmap_len(&map), 0);
}

Test(slotmap, erase_wait_hands_the_payload_out_without_finaliser)
{
    slotmap_set_finaliser(&map, count_finalised, &finalised);
    uint64_t h = slotmap_insert(&map, &things[2]);
    void *p = NULL;
    CHECK_EQ(slotmap_erase_wait(&map, h, UINT64_MAX, &p), LOAM_OK);
    CHECK(p == &things[2]);
    CHECK_EQ(slotmap_erase_wait(&map, h, 0, &p), LOAM_E_CLOSED);
    h = slotmap_insert(&map, &things[2]);
    CHECK_EQ(slotmap_erase_wait(&map, h, UINT64_MAX, NULL), LOAM_OK);
    epoch_synchronize();
    CHECK_EQ(finalised, 1);
}

Test(slotmap, S6_erase_wait_is_bounded_and_holds_nothing)
{
    slotmap_set_finaliser(&map, count_finalised, &finalised);
    uint64_t h = slotmap_insert(&map, &things[2]);
    void *p;
    CHECK_EQ(slotmap_pin(&map, h, &p), LOAM_OK);
    void *out = NULL;
    CHECK_EQ(slotmap_erase_wait(&map, h, 1000, &out), LOAM_STOPPED);
    CHECK(out == NULL);
    CHECK(slotmap_insert(&map, &things[3]) != 0); /* others go on */
    CHECK_EQ(finalised, 0);
    slotmap_unpin(&map, h);
    epoch_synchronize();
    CHECK_EQ(finalised, 1);
}

Test(slotmap, S5_insert_and_erase_while_holding_a_pin_do_not_wait)
{
    uint64_t h = slotmap_insert(&map, &things[0]);
    void *p;
    CHECK_EQ(slotmap_pin(&map, h, &p), LOAM_OK);
    for (int i = 0; i < 3000; i++) { /* grows while the pin is held */
        CHECK(slotmap_insert(&map, &things[1]) != 0);
    }
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK); /* of one's own pinned element */
    slotmap_unpin(&map, h);
}

Test(slotmap, S7_hot_slot_is_retired_never_aliased)
{
    /* Two million pairs with nothing live: no slot dies and the map does not grow. */
    for (int i = 0; i < 2000000; i++) {
        CHECK_EQ(slotmap_erase(&map, slotmap_insert(&map, &things[0])), LOAM_OK);
    }
    CHECK_EQ(slotmap_retired(&map), 0);
    CHECK(slotmap_capacity(&map) <= 3072);
}

Test(slotmap, D6_last_generation_retires_the_slot)
{
    enum { N = 4000 };
    static uint64_t seen[N];
    slotmap_set_first_generation(&map, UINT32_MAX - 1);
    for (int i = 0; i < N; i++) {
        uint64_t h = slotmap_insert(&map, &things[0]);
        for (int k = 0; k < i; k += 37) {
            CHECK(seen[k] != h);
        }
        seen[i] = h;
        CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    }
    CHECK(slotmap_retired(&map) > 1000);
    for (int i = 0; i < N; i++) {
        CHECK(get(seen[i]) == NULL && !slotmap_contains(&map, seen[i]));
        CHECK_EQ(slotmap_erase(&map, seen[i]), LOAM_E_CLOSED);
    }
    uint64_t h = slotmap_reserve(&map); /* abort uses generations up as well */
    CHECK_EQ(slotmap_abort(&map, h), LOAM_OK);
}

Test(slotmap, S8_first_slot_leads_to_more)
{
    CHECK_EQ(slotmap_ensure(&map, 1), LOAM_OK);
    for (int i = 0; i < 70000; i++) {
        CHECK(slotmap_insert(&map, &things[0]) != 0);
    }
    CHECK_EQ(slotmap_len(&map), 70000);
}

Test(slotmap, S9_foreign_and_forged_handles_are_refused)
{
    struct slotmap other;
    CHECK_EQ(slotmap_init(&other, &memory, KIND + 1), LOAM_OK);
    uint64_t theirs = slotmap_insert(&other, &things[1]);
    uint64_t ours = slotmap_insert(&map, &things[0]);
    uint64_t bad[] = {0,
                      theirs,
                      (uint64_t)KIND << 60 | 5,                          /* never issued */
                      (uint64_t)KIND << 60 | (uint64_t)999999 << 32 | 1, /* no such page */
                      (uint64_t)KIND << 60 | (uint64_t)0x0fffffff << 32 | 1,
                      ours + 1,                     /* a generation to come */
                      ours & ~(uint64_t)UINT32_MAX, /* generation 0 */
                      ours ^ (uint64_t)1 << 63,
                      UINT64_MAX,
                      1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        void *p;
        CHECK(get(bad[i]) == NULL && !slotmap_contains(&map, bad[i]));
        CHECK_EQ(get_or_stale(bad[i]), LOAM_E_INVAL);
        CHECK_EQ(slotmap_pin(&map, bad[i], &p), LOAM_E_INVAL);
        CHECK_EQ(slotmap_erase(&map, bad[i]), LOAM_E_INVAL);
        CHECK_EQ(slotmap_erase_wait(&map, bad[i], 0, &p), LOAM_E_INVAL);
        CHECK_EQ(slotmap_commit(&map, bad[i], &things[0]), LOAM_E_INVAL);
        CHECK_EQ(slotmap_abort(&map, bad[i]), LOAM_E_INVAL);
        CHECK_EQ(slotmap_wait_ready(&map, bad[i], 0), LOAM_E_INVAL);
    }
    CHECK(get(ours) == &things[0]);
    slotmap_destroy(&other);
}

Test(slotmap, every_kind_refuses_every_other)
{
    static struct slotmap maps[16];
    uint64_t h[16];
    for (unsigned k = 1; k < 16; k++) {
        CHECK_EQ(slotmap_init(&maps[k], &memory, k), LOAM_OK);
        h[k] = slotmap_insert(&maps[k], &things[k]);
    }
    for (unsigned k = 1; k < 16; k++) {
        for (unsigned j = 1; j < 16; j++) {
            uint64_t last = (uint64_t)j << 60 | (uint64_t)0x0fffffff << 32 | 1;
            epoch_enter();
            CHECK(slotmap_get(&maps[k], h[j]) == (k == j ? &things[k] : NULL));
            CHECK(slotmap_get(&maps[k], last) == NULL);
            epoch_exit();
        }
        slotmap_destroy(&maps[k]);
    }
    CHECK_EQ(slotmap_init(&maps[0], &memory, 0), LOAM_E_INVAL);
    CHECK_EQ(slotmap_init(&maps[0], &memory, 16), LOAM_E_INVAL);
}

Test(slotmap, S10_no_memory_is_an_answer)
{
    struct alloc small;
    struct slotmap m;
    alloc_init(&small, NULL, 60000);
    CHECK_EQ(slotmap_init(&m, &small, 1), LOAM_OK);
    unsigned n = 0;
    uint64_t last = 0, h;
    while ((h = slotmap_insert(&m, &things[0])) != 0) {
        last = h;
        n++;
    }
    CHECK_EQ(n, 1024);
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOMEM);
    CHECK_EQ(slotmap_ensure(&m, 5000), LOAM_E_NOMEM);
    CHECK_EQ(slotmap_ensure(&m, UINT32_MAX), LOAM_E_TOOBIG);
    CHECK_EQ(slotmap_erase(&m, last), LOAM_OK);
    CHECK(slotmap_insert(&m, &things[0]) != 0); /* comes back through limbo, without memory */
    slotmap_destroy(&m);
    CHECK_EQ(alloc_used(&small), 0);
    alloc_init(&small, NULL, 100);
    CHECK_EQ(slotmap_init(&m, &small, 1), LOAM_E_NOMEM);
}

Test(slotmap, S13_D9_foreach_visits_each_live_handle_once)
{
    enum { N = 5000 };
    static uint64_t h[N];
    for (int i = 0; i < N; i++) {
        h[i] = slotmap_insert(&map, &things[i % 64]);
    }
    for (int i = 0; i < N; i++) {
        if (i % 100 != 0) {
            CHECK_EQ(slotmap_erase(&map, h[i]), LOAM_OK);
        }
    }
    slotmap_reserve(&map);
    struct slotmap_census c;
    slotmap_census(&map, &c);
    CHECK_EQ(c.live, N / 100);
    CHECK_EQ(slotmap_len(&map), N / 100);
}

static bool sum_handles(void *arg, uint64_t h, void *payload)
{
    CHECK(payload == &things[h % 64]);
    *(uint64_t *)arg += h;
    return true;
}

static bool stop_at_once(void *arg, uint64_t h, void *payload)
{
    (void)arg, (void)h, (void)payload;
    return false;
}

static bool keep_even_slots(void *arg, uint64_t h, void *payload)
{
    (void)arg, (void)payload;
    return (h >> 32) % 2 == 0;
}

Test(slotmap, foreach_retain_and_clear)
{
    uint64_t want = 0, got = 0;
    for (int i = 0; i < 3000; i++) {
        uint64_t h = slotmap_reserve(&map);
        CHECK_EQ(slotmap_commit(&map, h, &things[h % 64]), LOAM_OK);
        want += h;
    }
    CHECK_EQ(slotmap_foreach(&map, sum_handles, &got), 3000);
    CHECK(want == got);
    CHECK_EQ(slotmap_foreach(&map, stop_at_once, NULL), 1);
    CHECK_EQ(slotmap_retain(&map, keep_even_slots, NULL), 1500);
    CHECK_EQ(slotmap_len(&map), 1500);
    CHECK_EQ(slotmap_clear(&map), 1500);
    CHECK_EQ(slotmap_len(&map), 0);
    CHECK_EQ(slotmap_foreach(&map, stop_at_once, NULL), 0);
}

Test(slotmap, D1_clear_ends_every_generation)
{
    uint64_t old[200];
    for (int i = 0; i < 200; i++) {
        old[i] = slotmap_insert(&map, &things[0]);
    }
    uint64_t reserved = slotmap_reserve(&map);
    CHECK_EQ(slotmap_clear(&map), 200);
    for (int i = 0; i < 5000; i++) {
        slotmap_insert(&map, &things[1]);
    }
    for (int i = 0; i < 200; i++) {
        CHECK(get(old[i]) == NULL);
    }
    CHECK_EQ(slotmap_commit(&map, reserved, &things[2]), LOAM_OK); /* reservations stay */
}

Test(slotmap, D2_commit_checks_in_every_build)
{
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_OK);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_commit(&map, h, &things[1]), LOAM_E_CLOSED);
    CHECK_EQ(
        slotmap_commit(&map, (uint64_t)KIND << 60 | (uint64_t)0x0ffffff0 << 32 | 1, &things[1]),
        LOAM_E_INVAL);
    CHECK(get(h) == NULL);
}

Test(slotmap, D3_commit_to_another_map_changes_nothing)
{
    struct slotmap other;
    CHECK_EQ(slotmap_init(&other, &memory, KIND + 1), LOAM_OK);
    uint64_t live = slotmap_insert(&other, &things[0]);
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_commit(&other, h, &things[9]), LOAM_E_INVAL);
    epoch_enter();
    CHECK(slotmap_get(&other, live) == &things[0]);
    epoch_exit();
    CHECK_EQ(slotmap_len(&other), 1);
    slotmap_destroy(&other);
}

Test(slotmap, D4_forgotten_reservation_is_reported_at_destroy)
{
    struct slotmap m;
    void *p;
    CHECK_EQ(slotmap_init(&m, &memory, 1), LOAM_OK);
    slotmap_set_finaliser(&m, count_finalised, &finalised);
    for (int i = 0; i < 3; i++) {
        slotmap_reserve(&m);
    }
    uint64_t h = slotmap_insert(&m, &things[0]);
    slotmap_insert(&m, &things[1]);
    CHECK_EQ(slotmap_pin(&m, h, &p), LOAM_OK);
    slotmap_destroy(&m);
    CHECK_EQ(slotmap_leaks(&m).reserved, 3);
    CHECK_EQ(slotmap_leaks(&m).pinned, 1);
    CHECK_EQ(finalised, 2); /* the live ones, pinned or not */
}

Test(slotmap, D4_scope_aborts_an_uncommitted_reservation)
{
    uint64_t forgotten, kept;
    {
        SLOTMAP_RESERVE_AUTO(a, &map);
        SLOTMAP_RESERVE_AUTO(b, &map);
        forgotten = a.handle;
        kept = b.handle;
        CHECK_EQ(get_or_stale(forgotten), LOAM_E_BUSY);
        CHECK_EQ(slotmap_commit_auto(&b, &things[1]), LOAM_OK);
    }
    CHECK_EQ(get_or_stale(forgotten), LOAM_E_CLOSED);
    CHECK(get(kept) == &things[1]);
}

static void *reserve_and_exit(void *arg)
{
    uint64_t *h = arg;
    h[0] = slotmap_reserve_auto(&map);
    h[1] = slotmap_reserve(&map);
    h[2] = slotmap_reserve_auto(&map);
    CHECK_EQ(slotmap_commit(&map, h[2], &things[2]), LOAM_OK);
    return NULL;
}

Test(slotmap, D4_thread_exit_aborts_its_automatic_reservations)
{
    uint64_t h[3];
    uint64_t mine = slotmap_reserve_auto(&map);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, reserve_and_exit, h), 0);
    pthread_join(t, NULL);
    CHECK_EQ(get_or_stale(h[0]), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(h[1]), LOAM_E_BUSY);
    CHECK(get(h[2]) == &things[2]);
    CHECK_EQ(get_or_stale(mine), LOAM_E_BUSY);
    CHECK_EQ(slotmap_abort(&map, mine), LOAM_OK);
}

Test(slotmap, D8_generation_zero_is_refused)
{
    slotmap_insert(&map, &things[0]);
    CHECK(get((uint64_t)KIND << 60) == NULL);
    CHECK_EQ(get_or_stale((uint64_t)KIND << 60), LOAM_E_INVAL);
}

Test(slotmap, a_scope_holds_a_pin_and_take_waits_for_its_end)
{
    uint64_t h = slotmap_insert(&map, &things[1]);
    void *payload = NULL;
    {
        SLOTMAP_PIN_AUTO(p, &map, h);
        CHECK(p.payload == &things[1]);
        SLOTMAP_PIN_AUTO(none, &map, h + 1);
        CHECK(none.payload == NULL);
        struct slotmap_census c;
        slotmap_census(&map, &c);
        CHECK_EQ(c.pinned, 1);
    }
    CHECK_EQ(slotmap_take(&map, h, 0, &payload), LOAM_OK);
    CHECK(payload == &things[1]);
    CHECK_EQ(slotmap_take(&map, h, 0, &payload), LOAM_E_CLOSED);
}

Test(slotmap, wait_ready_times_out_or_reports_the_end)
{
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_wait_ready(&map, h, 1000), LOAM_STOPPED);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_OK);
    CHECK_EQ(slotmap_wait_ready(&map, h, 0), LOAM_OK);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_wait_ready(&map, h, UINT64_MAX), LOAM_E_CLOSED);
    h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_wait_ready(&map, h, UINT64_MAX), LOAM_E_CLOSED);
}

Test(slotmap, padded_map_works_alike)
{
    struct slotmap m;
    CHECK_EQ(slotmap_init_padded(&m, &memory, 2), LOAM_OK);
    uint64_t h[3000];
    for (size_t i = 0; i < 3000; i++) {
        h[i] = slotmap_insert(&m, &things[i % 64]);
    }
    epoch_enter();
    for (size_t i = 0; i < 3000; i++) {
        CHECK(slotmap_get(&m, h[i]) == &things[i % 64]);
    }
    epoch_exit();
    CHECK_EQ(slotmap_clear(&m), 3000);
    slotmap_destroy(&m);
}

Test(slotmap, room_beside_the_payload_is_seen_while_the_handle_lives)
{
    struct slotmap m;
    char zeros[SLOTMAP_ROOM] = {0};
    CHECK_EQ(slotmap_init_padded(&m, &memory, 2), LOAM_OK);
    uint64_t other = slotmap_insert(&m, &things[1]);
    uint64_t h = slotmap_reserve(&m);
    char *room = slotmap_room(&m, h);
    CHECK(memcmp(room, zeros, sizeof zeros) == 0);
    memset(room, 'r', SLOTMAP_ROOM);
    CHECK(slotmap_room_live(&m, h) == NULL);
    CHECK_EQ(slotmap_commit(&m, h, &things[0]), LOAM_OK);
    CHECK(slotmap_room_live(&m, h) == room && room[SLOTMAP_ROOM - 1] == 'r');
    CHECK(memcmp(slotmap_room(&m, other), zeros, sizeof zeros) == 0);
    epoch_enter();
    CHECK(slotmap_get(&m, h) == &things[0]);
    epoch_exit();
    CHECK_EQ(slotmap_erase(&m, h), LOAM_OK);
    CHECK(slotmap_room_live(&m, h) == NULL);
    CHECK(slotmap_room_live(&m, 0) == NULL);
    CHECK(slotmap_room_live(&m, h ^ (uint64_t)3 << 60) == NULL);
    CHECK_EQ(slotmap_erase(&m, other), LOAM_OK);
    slotmap_destroy(&m);
}

Test(slotmap, churn_makes_no_allocation)
{
    for (int i = 0; i < 2000; i++) {
        slotmap_erase(&map, slotmap_insert(&map, &things[0]));
    }
    uint64_t calls = alloc_calls();
    size_t bytes = alloc_used(&memory);
    for (int i = 0; i < 20000; i++) {
        slotmap_erase(&map, slotmap_insert(&map, &things[0]));
    }
    CHECK_EQ(alloc_calls(), calls);
    CHECK_EQ(alloc_used(&memory), bytes);
}

Test(slotmap, random_operations_match_a_table)
{
    enum { MODEL = 300 };
    struct {
        uint64_t h;
        void *payload; /* NULL: reserved */
        unsigned pins;
    } model[MODEL];
    size_t n = 0, live = 0;
    const char *text = getenv("LOAM_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    fprintf(stderr, "slotmap random_operations LOAM_SEED=%" PRIu64 "\n", seed);
    struct random r;
    random_init(&r, seed);
    for (int step = 0; step < 100000; step++) {
        size_t i = n != 0 ? random_below(&r, n) : 0;
        void *payload = &things[random_below(&r, 64)], *p;
        unsigned op = (unsigned)random_below(&r, 8);
        if (op == 0 && n < MODEL) {
            model[n].h = slotmap_reserve(&map);
            model[n].payload = NULL;
            model[n++].pins = 0;
        } else if (op == 1 && n < MODEL) {
            model[n].h = slotmap_insert(&map, payload);
            model[n].payload = payload;
            model[n++].pins = 0;
            live++;
        } else if (n == 0) {
            continue;
        } else if (op == 2) {
            int want = model[i].payload == NULL ? LOAM_OK : LOAM_E_EXISTS;
            CHECK_EQ(slotmap_commit(&map, model[i].h, payload), want);
            if (want == LOAM_OK) {
                model[i].payload = payload;
                live++;
            }
        } else if (op == 3) {
            CHECK(get(model[i].h) == model[i].payload);
        } else if (op == 4) {
            int want = model[i].payload == NULL ? LOAM_E_BUSY : LOAM_OK;
            CHECK_EQ(slotmap_pin(&map, model[i].h, &p), want);
            if (want == LOAM_OK) {
                CHECK(p == model[i].payload);
                model[i].pins++;
            }
        } else if (op == 5 && model[i].pins != 0) {
            slotmap_unpin(&map, model[i].h);
            model[i].pins--;
        } else if (op >= 6) {
            bool reserved = model[i].payload == NULL;
            CHECK_EQ(reserved ? slotmap_abort(&map, model[i].h) : slotmap_erase(&map, model[i].h),
                     LOAM_OK);
            live -= !reserved;
            CHECK_EQ(get_or_stale(model[i].h), LOAM_E_CLOSED);
            for (; model[i].pins != 0; model[i].pins--) {
                slotmap_unpin(&map, model[i].h);
            }
            model[i] = model[--n];
        }
        CHECK_EQ(slotmap_len(&map), live);
        if (step % 1000 == 0) {
            check_census();
        }
    }
}
