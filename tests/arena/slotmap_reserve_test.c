/* slotmap_reserve_test.c - Handles before their payload: reserved, committed, aborted, waited for, forgotten.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: as in slotmap_test.c, which says what the D numbers are.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "tests/arena/slotmap_support.h"

TestSuite(slotmap_reserve, .init = setup, .fini = teardown);

Test(slotmap_reserve, reserved_handle_is_not_ready_rather_than_stale)
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

Test(slotmap_reserve, aborted_reservation_is_stale)
{
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_OK);
    CHECK_EQ(slotmap_abort(&map, h), LOAM_E_CLOSED);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(h), LOAM_E_CLOSED);
}

Test(slotmap_reserve, D2_commit_checks_in_every_build)
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

Test(slotmap_reserve, D3_commit_to_another_map_changes_nothing)
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

Test(slotmap_reserve, D4_forgotten_reservation_is_reported_at_destroy)
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

Test(slotmap_reserve, D4_scope_aborts_an_uncommitted_reservation)
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

Test(slotmap_reserve, D4_thread_exit_aborts_its_automatic_reservations)
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

Test(slotmap_reserve, wait_ready_times_out_or_reports_the_end)
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

/* ---- renewed handles --------------------------------------------------------------------------- */

Test(slotmap_reserve, renewed_handle_is_the_slots_next_reservation)
{
    uint64_t h = slotmap_insert(&map, &things[0]);
    uint64_t next = slotmap_renew(&map, h);
    CHECK_EQ(next, h + 1);
    CHECK_EQ(get_or_stale(h), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(next), LOAM_E_BUSY);
    CHECK_EQ(slotmap_erase(&map, h), LOAM_E_CLOSED);
    CHECK_EQ(slotmap_len(&map), 0);
    check_census();
    CHECK_EQ(slotmap_commit(&map, next, &things[0]), LOAM_OK);
    CHECK(get(next) == &things[0] && get(h) == NULL);
    CHECK_EQ(slotmap_len(&map), 1);
    CHECK_EQ(slotmap_erase(&map, next), LOAM_OK);
}

Test(slotmap_reserve, only_live_and_unpinned_handles_are_renewed)
{
    void *p;
    uint64_t h = slotmap_insert(&map, &things[0]), foreign = h ^ (uint64_t)3 << 60;
    CHECK_EQ(slotmap_pin(&map, h, &p), LOAM_OK);
    CHECK_EQ(slotmap_renew(&map, h), 0);
    CHECK(get(h) == &things[0]);
    slotmap_unpin(&map, h);
    uint64_t next = slotmap_renew(&map, h);
    CHECK(next != 0);
    const uint64_t others[] = {0, h, next, foreign, h + 7, (uint64_t)KIND << 60 | (uint64_t)0x0ffffff0 << 32 | 1};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        CHECK_EQ(slotmap_renew(&map, others[i]), 0);
    }
    CHECK_EQ(slotmap_commit(&map, next, &things[0]), LOAM_OK);
    CHECK_EQ(slotmap_erase(&map, next), LOAM_OK);
    CHECK_EQ(slotmap_renew(&map, next), 0);
}

Test(slotmap_reserve, renewed_handles_walk_past_a_foreach)
{
    uint64_t h[5];
    for (int i = 0; i < 5; i++) {
        h[i] = slotmap_insert(&map, &things[i]);
    }
    uint64_t next = slotmap_renew(&map, h[2]);
    CHECK(next != 0);
    CHECK_EQ(slotmap_clear(&map), 4); /* what is reserved stays */
    CHECK_EQ(slotmap_commit(&map, next, &things[2]), LOAM_OK);
    CHECK_EQ(slotmap_clear(&map), 1);
}

/* A section that found the generation before may still read the payload: the slot waits for its end. */
Test(slotmap_reserve, aborted_renewal_waits_for_an_epoch)
{
    uint64_t h = slotmap_insert(&map, &things[0]);
    struct slotmap_census c;
    epoch_enter();
    uint64_t next = slotmap_renew(&map, h);
    CHECK_EQ(slotmap_abort(&map, next), LOAM_OK);
    CHECK_EQ(slotmap_abort(&map, next), LOAM_E_CLOSED);
    CHECK_EQ(get_or_stale(next), LOAM_E_CLOSED);
    slotmap_census(&map, &c);
    CHECK_EQ(c.closing, 1);
    for (int i = 0; i < 2000; i++) { /* more erases than there are between two looks at the epoch */
        uint64_t other = slotmap_insert(&map, &things[1]);
        CHECK((other ^ h) >> 32 != 0);
        CHECK_EQ(slotmap_erase(&map, other), LOAM_OK);
    }
    epoch_exit();
}

Test(slotmap_reserve, D6_last_generation_is_not_renewed)
{
    slotmap_set_first_generation(&map, UINT32_MAX - 1);
    uint64_t h = slotmap_insert(&map, &things[0]);
    uint64_t last = slotmap_renew(&map, h);
    CHECK_EQ((uint32_t)last, UINT32_MAX);
    CHECK_EQ(slotmap_commit(&map, last, &things[0]), LOAM_OK);
    CHECK_EQ(slotmap_renew(&map, last), 0);
    CHECK(get(last) == &things[0]);
    CHECK_EQ(slotmap_erase_wait(&map, last, UINT64_MAX, NULL), LOAM_OK);
    CHECK_EQ(slotmap_retired(&map), 1);
}

Test(slotmap_reserve, aborted_renewal_of_the_last_generation_retires_the_slot)
{
    slotmap_set_first_generation(&map, UINT32_MAX - 1);
    uint64_t last = slotmap_renew(&map, slotmap_insert(&map, &things[0]));
    CHECK_EQ(slotmap_abort(&map, last), LOAM_OK);
    for (int i = 0; i < 2000; i++) {
        CHECK_EQ(slotmap_erase(&map, slotmap_insert(&map, &things[1])), LOAM_OK);
    }
    CHECK(slotmap_retired(&map) > 0);
    CHECK_EQ(get_or_stale(last), LOAM_E_CLOSED);
}
