/* slotmap_test.c - One thread's view of the slotmap: each promise of the header, and old defects.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: handles name one payload for ever and every call says what it found. Oracle: a table of
 * what was inserted (the property test), the census of states, and a count of finaliser calls.
 *
 * S and D numbers are the defects of two designs this one replaces. Those that are a behaviour have
 * a test of that name here, in slotmap_reserve_test.c, slotmap_erase_test.c or slotmap_stress.c. The others, and why they cannot occur:
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
#include <stdlib.h>

#include "arena/random.h"
#include "tests/arena/slotmap_support.h"
#include "tests/support/seed.h"

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

Test(slotmap, null_payload_is_refused)
{
    CHECK_EQ(slotmap_insert(&map, NULL), 0);
    uint64_t h = slotmap_reserve(&map);
    CHECK_EQ(slotmap_commit(&map, h, NULL), LOAM_E_INVAL);
    CHECK_EQ(slotmap_commit(&map, h, &things[0]), LOAM_OK);
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

Test(slotmap, D8_generation_zero_is_refused)
{
    slotmap_insert(&map, &things[0]);
    CHECK(get((uint64_t)KIND << 60) == NULL);
    CHECK_EQ(get_or_stale((uint64_t)KIND << 60), LOAM_E_INVAL);
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
    struct random r;
    random_init(&r, seed_of_run());
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
