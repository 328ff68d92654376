/* arena_stress.c - Many threads in few arenas: no two allocations overlap, budgets and pools hold.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: each thread stamps every word it gets with a number of its own and re-reads all of them
 * at the end; memory given out twice shows as a foreign stamp (and as a race under TSan).
 */
#include <pthread.h>

#include "arena/arena.h"
#include "arena/random.h"
#include "arena/thread_slot.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

#define THREADS 8
#define PIECES  3000

struct shared {
    struct alloc memory;
    struct chunk_pool pool;
    struct arena arena[3];
    _Atomic uint64_t failed;
};

static void shared_init(struct shared *s, uint64_t budget)
{
    alloc_init(&s->memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&s->pool, &s->memory, 64 << 10, 16), LOAM_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(arena_init(&s->arena[i], &s->pool, arena_new_ids(1), 8 << 10, budget), LOAM_OK);
    }
    atom_store(&s->failed, 0, relaxed);
}

static void shared_destroy(struct shared *s)
{
    for (int i = 0; i < 3; i++) {
        arena_destroy(&s->arena[i]);
    }
    CHECK_EQ(chunk_pool_stats(&s->pool).out, 0);
    chunk_pool_destroy(&s->pool);
    CHECK_EQ(alloc_used(&s->memory), 0);
}

struct stamped {
    uint64_t *at;
    size_t words;
    uint32_t ref;
    uint32_t arena;
};

static void allocate_and_stamp(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    uint64_t stamp = m->seed | 1;
    size_t n = 0;
    struct stamped *all = malloc(PIECES * sizeof *all);
    CHECK(all != NULL);
    for (size_t i = 0; i < PIECES; i++) {
        struct stamped *p = &all[n];
        p->arena = (uint32_t)random_below(&r, 3);
        p->words = 1 + random_below(&r, random_below(&r, 100) == 0 ? 3000 : 20);
        p->at = arena_alloc_ref(&s->arena[p->arena], p->words * 8, 8, &p->ref);
        if (p->at == NULL) {
            atom_add(&s->failed, 1, relaxed);
            continue;
        }
        for (size_t k = 0; k < p->words; k++) {
            p->at[k] = stamp + i;
        }
        if (random_below(&r, 10) == 0) {
            struct arena_mark mark = arena_checkpoint(&s->arena[0]);
            uint64_t *q = arena_alloc(&s->arena[0], 64, 8);
            if (q != NULL) {
                q[0] = stamp;
            }
            arena_rewind(&s->arena[0], mark);
        }
        p->words = p->words << 32 | i;
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        CHECK(arena_at(&s->arena[all[i].arena], all[i].ref) == all[i].at);
        for (size_t k = 0; k < all[i].words >> 32; k++) {
            CHECK_EQ(all[i].at[k], stamp + (all[i].words & UINT32_MAX));
        }
    }
    free(all);
}

STRESS(arena, threads_never_share_memory)
{
    struct shared s;
    for (uint64_t round = 0; round < 3 * stress_scale; round++) {
        shared_init(&s, ARENA_NO_LIMIT);
        crew_run(THREADS, allocate_and_stamp, &s, seed + round);
        CHECK_EQ(atom_load(&s.failed, relaxed), 0);
        shared_destroy(&s);
    }
}

STRESS(arena, F20_a_budget_holds_against_all_threads)
{
    struct shared s;
    shared_init(&s, 1 << 20);
    crew_run(THREADS, allocate_and_stamp, &s, seed);
    CHECK(atom_load(&s.failed, relaxed) > 0);
    for (int i = 0; i < 3; i++) {
        struct arena_stats n = arena_stats(&s.arena[i]);
        CHECK(n.reserved <= 1 << 20 && n.used <= n.reserved);
    }
    shared_destroy(&s);
}

static void *short_life(void *arg)
{
    struct shared *s = arg;
    for (int i = 0; i < 3; i++) {
        uint64_t *p = arena_alloc_zero(&s->arena[i], 40, 8);
        CHECK(p != NULL);
        *p = (uint64_t)(uintptr_t)p;
    }
    return NULL;
}

static void churn_threads(struct crew_member *m)
{
    for (int i = 0; i < 40; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, short_life, m->shared), 0);
        CHECK(short_life(m->shared) == NULL);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
}

STRESS(arena, F2_threads_may_come_and_go)
{
    struct shared s;
    shared_init(&s, 1 << 20);
    crew_run(4, churn_threads, &s, seed);
    CHECK(arena_used(&s.arena[0]) < 4 * 40 * 2 * 64 * 2);
    shared_destroy(&s);
}

static void fill_and_drop(struct crew_member *m)
{
    struct shared *s = m->shared;
    for (int cycle = 0; cycle < 30; cycle++) {
        struct arena a;
        CHECK_EQ(arena_init(&a, &s->pool, arena_new_ids(1), 4 << 10, ARENA_NO_LIMIT), LOAM_OK);
        uint64_t *all[300];
        for (uint64_t i = 0; i < 300; i++) {
            all[i] = arena_alloc(&a, 1000, 8);
            CHECK(all[i] != NULL);
            all[i][0] = all[i][124] = m->seed + i;
        }
        for (uint64_t i = 0; i < 300; i++) {
            CHECK_EQ(all[i][0], m->seed + i);
            CHECK_EQ(all[i][124], m->seed + i);
        }
        arena_destroy(&a);
    }
}

STRESS(arena, chunks_pass_between_threads_through_the_pool)
{
    struct shared s;
    shared_init(&s, ARENA_NO_LIMIT);
    crew_run(THREADS, fill_and_drop, &s, seed);
    CHECK(chunk_pool_stats(&s.pool).idle <= 16);
    shared_destroy(&s);
}
