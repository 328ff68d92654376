/* slotmap_erase_test.c - How handles end: erased, finalised, waited for by pins, their slots used again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: as in slotmap_test.c, which says what the S and D numbers are.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "tests/arena/slotmap_support.h"

TestSuite(slotmap_erase, .init = setup, .fini = teardown);

Test(slotmap_erase, erased_handle_is_stale_for_ever)
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

Test(slotmap_erase, pin_outlives_erase_and_the_last_unpin_finalises)
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

Test(slotmap_erase, finaliser_waits_for_the_sections_open_at_the_erase)
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

Test(slotmap_erase, many_erases_are_each_finalised_once)
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

Test(slotmap_erase, finaliser_may_erase_in_the_same_map)
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

Test(slotmap_erase, erase_wait_hands_the_payload_out_without_finaliser)
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

Test(slotmap_erase, S6_erase_wait_is_bounded_and_holds_nothing)
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

Test(slotmap_erase, S5_insert_and_erase_while_holding_a_pin_do_not_wait)
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

Test(slotmap_erase, S7_hot_slot_is_retired_never_aliased)
{
    /* Two million pairs with nothing live: no slot dies and the map does not grow. */
    for (int i = 0; i < 2000000; i++) {
        CHECK_EQ(slotmap_erase(&map, slotmap_insert(&map, &things[0])), LOAM_OK);
    }
    CHECK_EQ(slotmap_retired(&map), 0);
    CHECK(slotmap_capacity(&map) <= 3072);
}

Test(slotmap_erase, D6_last_generation_retires_the_slot)
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

Test(slotmap_erase, D1_clear_ends_every_generation)
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

Test(slotmap_erase, a_scope_holds_a_pin_and_take_waits_for_its_end)
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
