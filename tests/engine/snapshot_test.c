/* snapshot_test.c - The list of held sequence numbers: sorted, counted, without doubles.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "engine/snapshot.h"
#include "tests/support/check.h"

static struct snapshot_list list;
static struct commit *commits;

static void set_up(void)
{
    commits = aligned_alloc(CACHE_LINE, sizeof *commits);
    CHECK(commits != NULL);
    commit_init(commits, 8);
    snapshot_list_init(&list);
}

static void tear_down(void)
{
    snapshot_list_destroy(&list);
    free(commits);
}

TestSuite(snapshot, .init = set_up, .fini = tear_down);

static void advance(uint64_t bytes)
{
    uint64_t at = commit_visible(commits);
    commit_publish(commits, at, at + bytes);
}

static void expect_numbers(const uint64_t *expected, size_t n)
{
    size_t count, cap;
    uint64_t *seqs = snapshot_numbers(&list, commits, alloc_global(), &count, &cap);
    CHECK(seqs != NULL);
    CHECK_EQ(count, n);
    for (size_t i = 0; i < n; i++) {
        CHECK_EQ(seqs[i], expected[i]);
    }
    alloc_put(alloc_global(), MEM_BUILD, seqs, cap * sizeof *seqs);
}

Test(snapshot, with_none_held_the_newest_state_is_the_only_number)
{
    CHECK_EQ(snapshot_count(&list), 0);
    CHECK_EQ(snapshot_oldest(&list, commits), 7);
    expect_numbers((uint64_t[]){7}, 1);
    advance(16);
    CHECK_EQ(snapshot_oldest(&list, commits), 23);
    expect_numbers((uint64_t[]){23}, 1);
}

Test(snapshot, numbers_are_distinct_and_ascending_with_the_newest_last)
{
    struct held_seq a, b, c, again;
    snapshot_hold_latest(&list, commits, &a);
    snapshot_hold_latest(&list, commits, &b);
    expect_numbers((uint64_t[]){7}, 1);
    advance(8);
    snapshot_hold_latest(&list, commits, &c);
    advance(8);
    CHECK(snapshot_hold_same(&list, &a, &again)); /* an old number once more, behind newer ones */
    CHECK_EQ(again.seq, 7);
    CHECK_EQ(snapshot_count(&list), 4);
    expect_numbers((uint64_t[]){7, 15, 23}, 3);
    snapshot_drop(&list, &a);
    snapshot_drop(&list, &b);
    CHECK_EQ(snapshot_oldest(&list, commits), 7); /* `again` keeps it */
    CHECK(!snapshot_hold_same(&list, &a, &b));    /* but not through who has let go of it */
    CHECK_EQ(snapshot_count(&list), 2);
    snapshot_drop(&list, &again);
    CHECK_EQ(snapshot_oldest(&list, commits), 15);
    snapshot_drop(&list, &c);
    CHECK_EQ(snapshot_count(&list), 0);
    expect_numbers((uint64_t[]){23}, 1);
}

Test(snapshot, any_order_of_taking_and_dropping_keeps_the_list_right)
{
    enum { N = 64 };
    struct held_seq held[N];
    bool out[N] = {false};
    struct random r;
    random_init(&r, 7);
    for (int step = 0; step < 5000; step++) {
        size_t i = random_below(&r, N);
        if (out[i]) {
            snapshot_drop(&list, &held[i]);
        } else if (random_below(&r, 3) == 0 && out[(i + 1) % N]) {
            CHECK(snapshot_hold_same(&list, &held[(i + 1) % N], &held[i]));
        } else {
            snapshot_hold_latest(&list, commits, &held[i]);
        }
        out[i] = !out[i];
        if (random_below(&r, 3) == 0) {
            advance(8);
        }
        uint64_t oldest = commit_visible(commits) - 1, n = 0;
        for (size_t k = 0; k < N; k++) {
            n += out[k];
            oldest = out[k] && held[k].seq < oldest ? held[k].seq : oldest;
        }
        CHECK_EQ(snapshot_count(&list), n);
        CHECK_EQ(snapshot_oldest(&list, commits), oldest);
    }
}
