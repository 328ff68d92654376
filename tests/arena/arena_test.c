/* arena_test.c - Leases, references, budget, savepoints and the chunk pool, one thread at a time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: every allocation is filled with its number and must still hold it at the end, so two
 * allocations that overlap are seen. Threads here run one after the other or join before checks;
 * arena_stress.c has the concurrent part. Tests named after a defect (F..) of an earlier arena
 * state the behaviour that excludes it. Not here, as they cannot be expressed: F18 (shared counters
 * per allocation: there are none to update, `used` moves once a lease, see F18 below).
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "arena/arena.h"
#include "arena/random.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

static struct alloc memory;
static struct chunk_pool pool;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&pool, &memory, 64 << 10, 8), LOAM_OK);
}

static void teardown(void)
{
    chunk_pool_destroy(&pool);
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(arena, .init = setup, .fini = teardown);
TestSuite(chunk_pool, .init = setup, .fini = teardown);

static void make(struct arena *a, size_t lease, uint64_t budget)
{
    CHECK_EQ(arena_init(a, &pool, arena_new_ids(1), lease, budget), LOAM_OK);
}

struct piece {
    unsigned char *at;
    uint32_t ref;
    size_t size;
};

static void fill(struct arena *a, struct piece *p, size_t n, struct random *r, size_t largest)
{
    for (size_t i = 0; i < n; i++) {
        size_t align = (size_t)4 << random_below(r, 7);
        p[i].size = 1 + random_below(r, random_below(r, 20) == 0 ? largest : 200);
        p[i].at = arena_alloc_ref(a, p[i].size, align, &p[i].ref);
        CHECK(p[i].at != NULL);
        CHECK_EQ((uintptr_t)p[i].at % align, 0);
        memset(p[i].at, (int)(i & 0xff), p[i].size);
    }
}

static void verify(const struct arena *a, const struct piece *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        CHECK(p[i].ref != 0);
        CHECK(arena_at(a, p[i].ref) == p[i].at);
        for (size_t k = 0; k < p[i].size; k++) {
            CHECK_EQ(p[i].at[k], i & 0xff);
        }
    }
}

Test(arena, allocations_are_aligned_disjoint_and_named)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    static struct piece p[5000];
    fill(&a, p, 5000, &r, 200 << 10);
    verify(&a, p, 5000);
    struct arena_stats s = arena_stats(&a);
    CHECK(s.chunks > 1 && s.extents > 1 && s.used <= s.reserved);
    arena_destroy(&a);
}

Test(arena, costs_nothing_until_used_and_gives_all_back)
{
    uint64_t before = alloc_used(&memory);
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    CHECK_EQ(alloc_used(&memory), before);
    CHECK(arena_alloc(&a, 10, 8) != NULL);
    CHECK_EQ(arena_reserved(&a), 64 << 10);
    arena_destroy(&a);
    CHECK_EQ(chunk_pool_stats(&pool).out, 0);
}

Test(arena, zeroed_memory_is_zero_in_recycled_chunks)
{
    for (int round = 0; round < 3; round++) {
        struct arena a;
        make(&a, 4 << 10, ARENA_NO_LIMIT);
        for (int i = 0; i < 500; i++) {
            unsigned char *p = arena_alloc_zero(&a, 100, 4);
            for (int k = 0; k < 100; k++) {
                CHECK_EQ(p[k], 0);
            }
            memset(p, 0xff, 100);
        }
        arena_destroy(&a);
    }
}

Test(arena, huge_requests_get_an_extent_of_their_own)
{
    struct arena a;
    make(&a, 64 << 10, ARENA_NO_LIMIT);
    uint32_t ref;
    char *p = arena_alloc_ref(&a, (size_t)40 << 20, 8, &ref);
    CHECK(p != NULL);
    p[0] = p[(40 << 20) - 1] = 7;
    CHECK(arena_at(&a, ref) == p);
    CHECK_EQ(arena_stats(&a).extents, 1);
    /* A reference into its middle is good as well. */
    CHECK((char *)arena_at(&a, ref + (30 << 20) / ARENA_UNIT) == p + (30 << 20));
    arena_destroy(&a);
}

Test(arena, the_budget_is_hard)
{
    struct arena a;
    make(&a, 4 << 10, 256 << 10);
    size_t n = 0;
    while (arena_alloc(&a, 100, 4) != NULL) {
        n += 100;
        CHECK(n < 1 << 20);
    }
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    CHECK(n > 200 << 10);
    CHECK_EQ(arena_reserved(&a), 256 << 10);
    CHECK(arena_alloc(&a, 300 << 10, 4) == NULL);
    arena_destroy(&a);
}

Test(arena, a_shared_budget_counts_both)
{
    struct arena a, b;
    make(&a, 4 << 10, 128 << 10);
    make(&b, 4 << 10, 1);
    arena_share_budget(&b, &a);
    CHECK(arena_alloc(&a, 100, 4) != NULL);
    CHECK(arena_alloc(&b, 100, 4) != NULL);
    CHECK_EQ(arena_reserved(&a), 128 << 10);
    CHECK(arena_alloc(&b, 100 << 10, 4) == NULL);
    arena_destroy(&b);
    CHECK_EQ(arena_reserved(&a), 64 << 10);
    arena_destroy(&a);
}

Test(arena, failing_memory_is_an_error_and_not_the_end)
{
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    memory.limit = alloc_used(&memory);
    CHECK(arena_alloc(&a, 100, 4) == NULL);
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOMEM);
    CHECK_EQ(arena_ensure(&a, 100, 1), LOAM_E_NOMEM);
    CHECK_EQ(arena_reserved(&a), 0);
    memory.limit = UINT64_MAX;
    CHECK(arena_alloc(&a, 100, 4) != NULL);
    arena_destroy(&a);
}

Test(arena, ensured_allocations_cannot_fail)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct arena a;
    make(&a, 4 << 10, 1 << 20);
    unsigned ensured = 0;
    for (;;) {
        size_t sizes[20], n = 1 + random_below(&r, 20), bytes = 0;
        size_t largest = random_below(&r, 4) == 0 ? 6000 : 60;
        for (size_t i = 0; i < n; i++) {
            sizes[i] = 1 + random_below(&r, largest);
            bytes += sizes[i];
        }
        int rc = arena_ensure(&a, bytes, n);
        if (rc != LOAM_OK) {
            CHECK_EQ(rc, LOAM_E_BUDGET);
            break;
        }
        ensured++;
        for (size_t i = 0; i < n; i++) {
            CHECK(arena_alloc(&a, sizes[i], random_below(&r, 2) == 0 ? 4 : 8) != NULL);
        }
    }
    CHECK(ensured > 10);
    CHECK_EQ(arena_ensure(&a, SIZE_MAX, 1), LOAM_E_BUDGET);
    CHECK_EQ(arena_ensure(&a, 1, SIZE_MAX), LOAM_E_BUDGET);
    arena_destroy(&a);
}

Test(arena, asking_for_more_than_is_taken_costs_nothing)
{
    /* As for a batch of writes, whose nodes and padding are guessed from above. */
    static const size_t asked[] = {200, 3000, 30 << 10};
    for (size_t k = 0; k < 3; k++) {
        struct arena a;
        CHECK_EQ(arena_init(&a, &pool, arena_new_ids(1), 8 << 10, ARENA_NO_LIMIT), LOAM_OK);
        size_t taken = 0;
        while (taken < 4 << 20) {
            CHECK_EQ(arena_ensure(&a, asked[k], 4), LOAM_OK);
            for (int i = 0; i < 4; i++) {
                size_t size = asked[k] / 8 & ~(size_t)7;
                CHECK(arena_alloc(&a, size, 8) != NULL);
                taken += size;
            }
        }
        /* At the end of each chunk less than one request is left over; a lease is counted in full. */
        uint64_t most = taken + (taken / (64 << 10) + 1) * (asked[k] + 200) + (8 << 10);
        CHECK(arena_used(&a) <= most);
        CHECK(arena_reserved(&a) <= most + (64 << 10));
        arena_destroy(&a);
    }
}

Test(arena, rewinding_frees_what_came_after_and_nothing_else)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    static struct piece kept[4000], inner[300];
    size_t n = 0;
    for (int round = 0; round < 200; round++) {
        fill(&a, kept + n, 3, &r, 300);
        for (size_t i = n; i < n + 3; i++) {
            memset(kept[i].at, (int)(i & 0xff), kept[i].size);
        }
        n += 3;
        struct arena_mark outer = arena_checkpoint(&a);
        fill(&a, inner, random_below(&r, 100), &r, 300);
        struct arena_mark nested = arena_checkpoint(&a);
        fill(&a, inner, random_below(&r, 100), &r, 300);
        arena_rewind(&a, nested);
        fill(&a, inner, random_below(&r, 20), &r, 300);
        arena_rewind(&a, outer);
    }
    verify(&a, kept, n);
    /* A loop that always takes back needs no memory. */
    uint64_t before = arena_reserved(&a);
    for (int i = 0; i < 20000; i++) {
        struct arena_mark m = arena_checkpoint(&a);
        CHECK(arena_alloc(&a, 500, 8) != NULL);
        arena_rewind(&a, m);
    }
    CHECK(arena_reserved(&a) <= before + (64 << 10));
    arena_destroy(&a);
}

Test(arena, the_latest_allocation_can_be_undone)
{
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    CHECK(arena_alloc(&a, 8, 8) != NULL);
    CHECK_EQ(arena_ensure(&a, 200, 2), LOAM_OK);
    char *p = arena_alloc(&a, 100, 4);
    arena_undo(&a, p, 100);
    CHECK(arena_alloc(&a, 40, 4) == p);
    arena_destroy(&a);
}

Test(arena, lives_in_lent_memory_and_leaves_it_to_its_owner)
{
    static _Alignas(16) char lent[20000];
    struct arena a;
    CHECK_EQ(arena_init_memory(&a, lent, 64, arena_new_ids(1), 4096), LOAM_E_INVAL);
    CHECK_EQ(arena_init_memory(&a, lent + 4, sizeof lent - 4, arena_new_ids(1), 4096), LOAM_OK);
    for (int round = 0; round < 3; round++) {
        struct random r;
        random_init(&r, 5);
        static struct piece p[60];
        fill(&a, p, 60, &r, 200);
        for (int i = 0; i < 60; i++) {
            CHECK((char *)p[i].at >= lent && (char *)p[i].at + p[i].size <= lent + sizeof lent);
        }
        verify(&a, p, 60);
        size_t n = 0;
        while (arena_alloc(&a, 64, 4) != NULL) {
            CHECK(++n < 1000);
        }
        CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
        arena_reset(&a, arena_new_ids(1));
    }
    arena_destroy(&a);
    memset(lent, 1, sizeof lent);
}

Test(arena, F1_a_new_arena_at_an_old_address_shares_nothing_with_it)
{
    /* The same address, another id: the thread's cached lease of the first must not serve. */
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    char *first = arena_alloc(&a, 64, 8);
    struct arena_lease *l = &arena_leases_[a.id % ARENA_CACHE_ENTRIES];
    CHECK(l->id == a.id);
    arena_destroy(&a);
    CHECK_EQ(arena_init(&a, &pool, arena_new_ids(ARENA_CACHE_ENTRIES) + ARENA_CACHE_ENTRIES - 1,
                        4 << 10, ARENA_NO_LIMIT),
             LOAM_OK);
    CHECK_EQ(arena_stats(&a).leases, 0);
    CHECK(arena_alloc(&a, 64, 8) != NULL);
    CHECK_EQ(arena_stats(&a).leases, 1);
    (void)first;
    arena_destroy(&a);
}

static void *allocate_some(void *arg)
{
    struct arena *a = arg;
    for (int i = 0; i < 10; i++) {
        CHECK(arena_alloc(a, 50, 8) != NULL);
    }
    return NULL;
}

Test(arena, F2_any_number_of_threads_and_what_each_leaves_is_small)
{
    struct arena a;
    make(&a, 64 << 10, 2 << 20);
    for (int i = 0; i < 300; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, allocate_some, &a), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
    CHECK(arena_used(&a) < 300 * 10 * 50 * 4);
    arena_destroy(&a);
}

Test(arena, what_a_large_request_did_not_fit_serves_small_ones)
{
    struct arena a;
    make(&a, 8 << 10, ARENA_NO_LIMIT);
    size_t taken = 0;
    for (int i = 0; i < 100; i++) {
        size_t size = i % 2 == 0 ? 100 : 9000;
        CHECK_EQ(arena_ensure(&a, size, 1), LOAM_OK);
        CHECK(arena_alloc(&a, size, 4) != NULL);
        /* Others cut in between: no lease can grow in place. */
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, allocate_some, &a), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
        taken += size + 10 * 50;
    }
    CHECK(arena_used(&a) <= taken + taken / 2);
    arena_destroy(&a);
}

Test(arena, F3_the_cache_goes_by_id_so_an_arena_may_lie_anywhere)
{
    /* Two arenas created at one place one after the other, then one of them elsewhere. */
    struct arena *on_heap = malloc(sizeof *on_heap);
    for (int i = 0; i < 50; i++) {
        struct arena here;
        make(&here, 4 << 10, 256 << 10);
        CHECK_EQ(arena_init(on_heap, &pool, arena_new_ids(1), 4 << 10, 256 << 10), LOAM_OK);
        for (int k = 0; k < 100; k++) {
            CHECK(arena_alloc(&here, 50, 8) != NULL && arena_alloc(on_heap, 50, 8) != NULL);
        }
        arena_destroy(&here);
        arena_destroy(on_heap);
    }
    free(on_heap);
}

Test(arena, F4_more_arenas_than_cache_entries_cost_little)
{
    enum { ARENAS = 50, ROUNDS = 200 };
    static struct arena a[ARENAS];
    for (int i = 0; i < ARENAS; i++) {
        CHECK_EQ(arena_init(&a[i], &pool, arena_new_ids(1), 16 << 10, ARENA_NO_LIMIT), LOAM_OK);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < ARENAS; i++) {
            CHECK(arena_alloc(&a[i], 100, 4) != NULL);
        }
    }
    for (int i = 0; i < ARENAS; i++) {
        CHECK(arena_used(&a[i]) < ROUNDS * 100 * 2);
        arena_destroy(&a[i]);
    }
}

Test(arena, F5_dead_arenas_leave_no_holes_that_matter)
{
    struct arena keep;
    make(&keep, 4 << 10, ARENA_NO_LIMIT);
    CHECK(arena_alloc(&keep, 16, 8) != NULL);
    for (int i = 0; i < 100; i++) {
        struct arena a;
        make(&a, 4 << 10, ARENA_NO_LIMIT);
        CHECK(arena_alloc(&a, 16, 8) != NULL);
        arena_destroy(&a);
        CHECK(arena_alloc(&keep, 16, 8) != NULL);
    }
    CHECK(arena_used(&keep) < 101 * 16 * 5);
    arena_destroy(&keep);
}

Test(arena, F6_reset_works_any_number_of_times)
{
    struct arena a;
    make(&a, 4 << 10, 1 << 20);
    for (int i = 0; i < 100; i++) {
        struct random r;
        random_init(&r, 7);
        static struct piece p[2000];
        fill(&a, p, 2000, &r, 300);
        verify(&a, p, 2000);
        arena_reset(&a, arena_new_ids(1));
        CHECK_EQ(arena_used(&a), 0);
        CHECK_EQ(arena_reserved(&a), 0);
    }
    arena_destroy(&a);
}

Test(arena, F7_cycles_of_fill_and_drop_stay_flat)
{
    uint64_t maps = 0, held = 0;
    for (int cycle = 0; cycle < 20; cycle++) {
        struct arena a;
        make(&a, 16 << 10, ARENA_NO_LIMIT);
        for (int i = 0; i < 3000; i++) {
            CHECK(arena_alloc(&a, 100, 4) != NULL);
        }
        CHECK(arena_alloc(&a, 1 << 20, 4) != NULL);
        CHECK(arena_reserved(&a) < 2 << 20);
        arena_destroy(&a);
        if (cycle == 0) {
            maps = chunk_pool_stats(&pool).map_calls;
            held = alloc_used(&memory);
        }
    }
    CHECK_EQ(chunk_pool_stats(&pool).map_calls, maps);
    CHECK_EQ(alloc_used(&memory), held);
}

Test(arena, F18_shared_counters_move_once_a_lease)
{
    struct arena a;
    make(&a, 16 << 10, ARENA_NO_LIMIT);
    for (int i = 0; i < 10000; i++) {
        CHECK(arena_alloc(&a, 24, 8) != NULL);
    }
    CHECK(arena_stats(&a).leases < 40);
    CHECK(arena_used(&a) >= 240000 && arena_used(&a) < 240000 + (32 << 10));
    arena_destroy(&a);
}

Test(arena, F19_sizes_that_do_not_fit_are_refused_and_not_cut)
{
    struct arena a;
    make(&a, 4 << 10, ARENA_NO_LIMIT);
    CHECK(arena_alloc(&a, (size_t)1 << 33, 8) == NULL);
    CHECK_EQ(loam_last_error()->code, LOAM_E_TOOBIG);
    CHECK(arena_alloc(&a, SIZE_MAX - 3, 8) == NULL);
    CHECK(arena_alloc(&a, 8, 8) != NULL);
    CHECK(arena_alloc(&a, SIZE_MAX - 3, 8) == NULL);
    arena_destroy(&a);
}

Test(chunk_pool, refuses_bad_sizes)
{
    struct chunk_pool p;
    CHECK_EQ(chunk_pool_init(&p, &memory, 2048, 1), LOAM_E_INVAL);
    CHECK_EQ(chunk_pool_init(&p, &memory, 5000, 1), LOAM_E_INVAL);
    CHECK_EQ(chunk_pool_init(&p, &memory, 4096, SIZE_MAX), LOAM_E_INVAL);
}

Test(chunk_pool, keeps_at_most_keep_max_and_serves_them_first)
{
    void *c[12];
    for (int i = 0; i < 12; i++) {
        c[i] = chunk_pool_take(&pool);
        CHECK(c[i] != NULL);
        CHECK_EQ((uintptr_t)c[i] % (64 << 10), 0);
    }
    for (int i = 0; i < 12; i++) {
        chunk_pool_give(&pool, c[i]);
    }
    CHECK_EQ(chunk_pool_stats(&pool).idle, 8);
    uint64_t maps = chunk_pool_stats(&pool).map_calls;
    for (int i = 0; i < 8; i++) {
        c[i] = chunk_pool_take(&pool);
    }
    CHECK_EQ(chunk_pool_stats(&pool).map_calls, maps);
    for (int i = 0; i < 8; i++) {
        chunk_pool_give(&pool, c[i]);
    }
    chunk_pool_trim(&pool, 3);
    CHECK_EQ(chunk_pool_stats(&pool).idle, 3);
}

Test(chunk_pool, prefill_makes_takes_free)
{
    CHECK_EQ(chunk_pool_prefill(&pool, 100), LOAM_OK);
    CHECK_EQ(chunk_pool_stats(&pool).idle, 8);
    void *p = chunk_pool_take(&pool);
    CHECK_EQ(chunk_pool_stats(&pool).map_calls, 0);
    chunk_pool_give(&pool, p);
}

Test(chunk_pool, works_without_keeping_anything)
{
    struct chunk_pool p;
    CHECK_EQ(chunk_pool_init(&p, &memory, 4096, 0), LOAM_OK);
    void *c = chunk_pool_take(&p);
    CHECK(c != NULL);
    chunk_pool_give(&p, c);
    CHECK_EQ(chunk_pool_prefill(&p, 3), LOAM_OK);
    chunk_pool_destroy(&p);
}
