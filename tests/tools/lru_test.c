/* lru_test.c - The simulated cache hits exactly where a list kept in order of use says so.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an array of the cached blocks, youngest first, moved element by element.
 */
#include "tools/bench_lru.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/seed.h"
#include "tools/bench_keygen.h"

struct list {
    uint32_t at[64];
    uint32_t count, capacity;
};

static bool list_use(struct list *l, uint32_t block)
{
    uint32_t i = 0;
    while (i < l->count && l->at[i] != block) {
        i++;
    }
    bool hit = i < l->count;
    if (!hit) {
        l->count += l->count < l->capacity;
        i = l->count - 1;
    }
    memmove(&l->at[1], &l->at[0], i * sizeof(l->at[0]));
    l->at[0] = block;
    return hit;
}

Test(lru, hits_where_an_ordered_list_hits)
{
    uint64_t seed = seed_or(7);
    struct bench_rng r;
    bench_rng_init(&r, seed);
    for (uint32_t capacity = 1; capacity <= 64; capacity += 9) {
        struct bench_lru l;
        struct list oracle = {.capacity = capacity};
        uint64_t hits = 0;
        cr_assert_eq(bench_lru_init(&l, 100, capacity), 0);
        for (int i = 0; i < 20000; i++) {
            uint32_t limit = bench_rng_below(&r, 2) ? 100 : 10; /* some are used more often */
            uint32_t block = (uint32_t)bench_rng_below(&r, limit);
            bool expected = list_use(&oracle, block);
            hits += expected;
            cr_assert_eq(bench_lru_use(&l, block), expected, "capacity %u, use %d", capacity, i);
        }
        cr_assert_eq(l.hits, hits);
        cr_assert_eq(l.hits + l.misses, 20000);
        bench_lru_destroy(&l);
    }
}

Test(lru, everything_hits_once_all_blocks_fit)
{
    struct bench_lru l;
    cr_assert_eq(bench_lru_init(&l, 10, 10), 0);
    for (uint32_t i = 0; i < 100; i++) {
        cr_assert_eq(bench_lru_use(&l, i % 10), i >= 10);
    }
    bench_lru_destroy(&l);
}

Test(lru, a_loop_one_longer_than_the_cache_never_hits)
{
    struct bench_lru l;
    cr_assert_eq(bench_lru_init(&l, 11, 10), 0);
    for (uint32_t i = 0; i < 110; i++) {
        cr_assert(!bench_lru_use(&l, i % 11));
    }
    bench_lru_destroy(&l);
}
