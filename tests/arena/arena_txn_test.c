/* arena_txn_test.c - Transactions of an arena: kept or taken back as a whole, within their budgets.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: addresses (memory taken back is handed out again), counts of functions run and their order.
 */
#include <criterion/criterion.h>

#include "arena/arena_txn.h"
#include "arena/status.h"
#include "tests/support/check.h"

static struct alloc memory;
static struct chunk_pool pool;
static struct arena arena;
static unsigned ran[16], ran_count;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&pool, &memory, 64 << 10, 4), LOAM_OK);
    CHECK_EQ(arena_init(&arena, &pool, arena_new_ids(1), 4096, ARENA_NO_LIMIT), LOAM_OK);
    ran_count = 0;
}

static void teardown(void)
{
    chunk_pool_destroy(&pool);
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(arena_txn, .init = setup, .fini = teardown);

static void note(void *ptr)
{
    ran[ran_count++] = *(unsigned *)ptr;
}

static unsigned numbers[] = {0, 1, 2, 3, 4};

Test(arena_txn, commit_keeps_and_rollback_takes_back)
{
    struct arena_txn t;
    arena_txn_begin(&t, &arena, NULL, ARENA_NO_LIMIT);
    char *kept = arena_txn_alloc(&t, 100, 4);
    memset(kept, 'k', 100);
    arena_txn_commit(&t);
    arena_txn_begin(&t, &arena, NULL, ARENA_NO_LIMIT);
    char *first = arena_txn_alloc(&t, 100, 4);
    CHECK(first != NULL && first != kept);
    arena_txn_rollback(&t);
    arena_txn_rollback(&t); /* over: nothing */
    CHECK(arena_alloc(&arena, 100, 4) == first);
    CHECK_EQ(kept[99], 'k');
    arena_destroy(&arena);
}

Test(arena_txn, an_inner_one_counts_against_both_budgets)
{
    struct arena_txn outer, inner;
    arena_txn_begin(&outer, &arena, NULL, 1000);
    CHECK(arena_txn_alloc(&outer, 300, 4) != NULL);
    arena_txn_begin(&inner, &arena, &outer, 500);
    CHECK(arena_txn_alloc(&inner, 501, 4) == NULL);
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    CHECK(arena_txn_alloc(&inner, 500, 4) != NULL);
    CHECK(arena_txn_alloc(&inner, 1, 4) == NULL);
    CHECK(arena_txn_alloc(&outer, 201, 4) == NULL);
    arena_txn_rollback(&inner);
    CHECK_EQ(outer.used, 300);
    arena_txn_begin(&inner, &arena, &outer, ARENA_NO_LIMIT);
    CHECK(arena_txn_alloc(&inner, 701, 4) == NULL);
    CHECK(arena_txn_alloc(&inner, 700, 4) != NULL);
    arena_txn_commit(&inner);
    CHECK(arena_txn_alloc(&outer, 1, 4) == NULL);
    arena_txn_commit(&outer);
    arena_destroy(&arena);
}

Test(arena_txn, drops_run_newest_first_at_the_end_of_what_they_belong_to)
{
    struct arena_txn outer, inner;
    CHECK_EQ(arena_at_drop(&arena, note, &numbers[0]), LOAM_OK);
    arena_txn_begin(&outer, &arena, NULL, ARENA_NO_LIMIT);
    CHECK_EQ(arena_txn_at_drop(&outer, note, &numbers[1]), LOAM_OK);
    arena_txn_begin(&inner, &arena, &outer, ARENA_NO_LIMIT);
    CHECK_EQ(arena_txn_at_drop(&inner, note, &numbers[2]), LOAM_OK);
    CHECK_EQ(arena_txn_at_drop(&inner, note, &numbers[3]), LOAM_OK);
    arena_txn_rollback(&inner);
    CHECK_EQ(ran_count, 2);
    CHECK(ran[0] == 3 && ran[1] == 2);
    arena_txn_begin(&inner, &arena, &outer, ARENA_NO_LIMIT);
    CHECK_EQ(arena_txn_at_drop(&inner, note, &numbers[4]), LOAM_OK);
    arena_txn_commit(&inner);
    CHECK_EQ(ran_count, 2);
    arena_txn_commit(&outer);
    CHECK_EQ(ran_count, 2);
    arena_reset(&arena, arena_new_ids(1));
    CHECK_EQ(ran_count, 5);
    CHECK(ran[2] == 4 && ran[3] == 1 && ran[4] == 0);
    arena_destroy(&arena);
    CHECK_EQ(ran_count, 5); /* each once */
}

Test(arena_txn, a_scope_rolls_back_what_it_does_not_commit)
{
    char *first;
    {
        ARENA_TXN_AUTO(t, &arena);
        first = arena_txn_alloc(&t, 64, 4);
        CHECK_EQ(arena_txn_at_drop(&t, note, &numbers[1]), LOAM_OK);
    }
    CHECK_EQ(ran_count, 1);
    CHECK(arena_alloc(&arena, 64, 4) == first);
    {
        ARENA_TXN_AUTO(t, &arena);
        CHECK(arena_txn_alloc(&t, 64, 4) != first);
        CHECK_EQ(arena_txn_at_drop(&t, note, &numbers[2]), LOAM_OK);
        arena_txn_commit(&t);
    }
    CHECK_EQ(ran_count, 1);
    arena_destroy(&arena);
    CHECK_EQ(ran_count, 2);
}

Test(arena_txn, copies_are_the_callers_bytes)
{
    char *p = arena_copy(&arena, LOAM_LIT("bytes"));
    CHECK_BYTES(p, 5, "bytes", 5);
    CHECK(arena_copy(&arena, loam_bytes(NULL, 0)) != NULL);
    struct arena_stats s = arena_stats(&arena);
    CHECK_EQ(s.idle, s.reserved - s.used);
    arena_destroy(&arena);
}
