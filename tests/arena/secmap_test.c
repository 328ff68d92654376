/* secmap_test.c - Values beside a slotmap: the newest generation wins, older handles are told so.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: what was set last under each handle.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "arena/secmap.h"
#include "arena/status.h"
#include "tests/support/check.h"

#define KIND 3

static struct alloc memory;
static struct slotmap map;
static struct secmap second;
static int thing;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&map, &memory, KIND), LOAM_OK);
    CHECK_EQ(secmap_init(&second, &memory, KIND), LOAM_OK);
}

static void teardown(void)
{
    secmap_destroy(&second);
    slotmap_destroy(&map);
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(secmap, .init = setup, .fini = teardown);

/* The handle of the same slot, one generation on. */
static uint64_t successor(uint64_t h)
{
    return h + 1;
}

Test(secmap, set_get_del)
{
    uint64_t h = slotmap_insert(&map, &thing), v = 0;
    CHECK_EQ(secmap_get(&second, h, &v), LOAM_NOTFOUND);
    CHECK_EQ(secmap_del(&second, h, &v), LOAM_NOTFOUND);
    CHECK_EQ(secmap_set(&second, h, 7), LOAM_OK);
    CHECK_EQ(secmap_set(&second, h, 8), LOAM_OK);
    CHECK_EQ(secmap_len(&second), 1);
    CHECK_EQ(secmap_get(&second, h, &v), LOAM_OK);
    CHECK_EQ(v, 8);
    CHECK(secmap_contains(&second, h));
    v = 0;
    CHECK_EQ(secmap_del(&second, h, &v), LOAM_OK);
    CHECK_EQ(v, 8);
    CHECK_EQ(secmap_get(&second, h, &v), LOAM_NOTFOUND);
    CHECK_EQ(secmap_len(&second), 0);
}

Test(secmap, D7_older_handle_is_told_it_is_stale)
{
    uint64_t old = slotmap_insert(&map, &thing), new = successor(old), v;
    CHECK_EQ(secmap_set(&second, old, 1), LOAM_OK);
    CHECK_EQ(secmap_set(&second, new, 2), LOAM_OK);
    CHECK_EQ(secmap_len(&second), 1);
    CHECK_EQ(secmap_set(&second, old, 3), LOAM_E_CLOSED);
    CHECK_EQ(secmap_get(&second, old, &v), LOAM_E_CLOSED);
    CHECK_EQ(secmap_del(&second, old, &v), LOAM_E_CLOSED);
    CHECK_EQ(secmap_get(&second, new, &v), LOAM_OK);
    CHECK_EQ(v, 2);
    CHECK_EQ(secmap_del(&second, new, NULL), LOAM_OK);
    CHECK_EQ(secmap_set(&second, old, 3), LOAM_E_CLOSED); /* an emptied entry remembers */
}

Test(secmap, D6_generations_near_the_last_are_still_ordered)
{
    uint64_t last = (uint64_t)KIND << 60 | UINT32_MAX, v;
    CHECK_EQ(secmap_set(&second, last - 1, 1), LOAM_OK);
    CHECK_EQ(secmap_set(&second, last, 2), LOAM_OK);
    CHECK_EQ(secmap_get(&second, last - 1, &v), LOAM_E_CLOSED);
    CHECK_EQ(secmap_get(&second, last, &v), LOAM_OK);
}

Test(secmap, foreign_handles_are_refused)
{
    uint64_t bad[] = {0, (uint64_t)(KIND + 1) << 60 | 1, (uint64_t)KIND << 60,
                      (uint64_t)KIND << 60 | (uint64_t)0x0fffffff << 32 | 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint64_t v;
        CHECK_EQ(secmap_set(&second, bad[i], 1), LOAM_E_INVAL);
        CHECK_EQ(secmap_get(&second, bad[i], &v), LOAM_E_INVAL);
        CHECK_EQ(secmap_del(&second, bad[i], &v), LOAM_E_INVAL);
    }
    struct secmap other;
    CHECK_EQ(secmap_init(&other, &memory, 0), LOAM_E_INVAL);
    CHECK_EQ(secmap_init(&other, &memory, 16), LOAM_E_INVAL);
}

static bool add_up(void *arg, uint64_t h, uint64_t value)
{
    CHECK(value == (h >> 32));
    *(uint64_t *)arg += value;
    return true;
}

static bool keep_odd(void *arg, uint64_t h, uint64_t value)
{
    (void)arg, (void)h;
    return value % 2 == 1;
}

Test(secmap, foreach_retain_and_clear)
{
    uint64_t want = 0, got = 0;
    for (int i = 0; i < 4000; i++) {
        uint64_t h = slotmap_insert(&map, &thing);
        CHECK_EQ(secmap_set(&second, h, h >> 32), LOAM_OK);
        want += h >> 32;
    }
    CHECK_EQ(secmap_foreach(&second, add_up, &got), 4000);
    CHECK(want == got);
    CHECK_EQ(secmap_retain(&second, keep_odd, NULL), 2000);
    CHECK_EQ(secmap_len(&second), 2000);
    CHECK_EQ(secmap_clear(&second), 2000);
    CHECK_EQ(secmap_foreach(&second, add_up, &got), 0);
}

Test(secmap, D7_sweep_removes_values_of_dead_handles)
{
    uint64_t h[100];
    for (int i = 0; i < 100; i++) {
        h[i] = slotmap_insert(&map, &thing);
        CHECK_EQ(secmap_set(&second, h[i], 1), LOAM_OK);
    }
    for (int i = 0; i < 60; i++) {
        CHECK_EQ(slotmap_erase(&map, h[i]), LOAM_OK);
    }
    CHECK_EQ(secmap_sweep(&second, &map), 60);
    CHECK_EQ(secmap_len(&second), 40);
}

Test(secmap, no_memory_is_an_answer)
{
    struct alloc small;
    struct secmap s;
    alloc_init(&small, NULL, 100);
    CHECK_EQ(secmap_init(&s, &small, KIND), LOAM_OK);
    CHECK_EQ(secmap_set(&s, (uint64_t)KIND << 60 | 1, 1), LOAM_E_NOMEM);
    secmap_destroy(&s);
}

#define ROUNDS 40000

/* Writers store generation-tagged values under rising generations of one slot. */
static void *write_rising(void *arg)
{
    (void)arg;
    for (uint32_t g = 1; g <= ROUNDS; g++) {
        uint64_t h = (uint64_t)KIND << 60 | g;
        int rc = secmap_set(&second, h, (uint64_t)g * 1000003);
        CHECK(rc == LOAM_OK || rc == LOAM_E_CLOSED);
    }
    return NULL;
}

Test(secmap, concurrent_sets_never_tear_or_step_back)
{
    pthread_t t[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&t[i], NULL, write_rising, NULL), 0);
    }
    uint32_t newest = 1;
    for (uint64_t v; newest < ROUNDS;) {
        int rc = secmap_get(&second, (uint64_t)KIND << 60 | newest, &v);
        if (rc == LOAM_OK) {
            CHECK_EQ(v, (uint64_t)newest * 1000003);
        } else if (rc == LOAM_E_CLOSED) {
            newest++;
        }
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(t[i], NULL);
    }
    CHECK_EQ(secmap_len(&second), 1);
}
