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
