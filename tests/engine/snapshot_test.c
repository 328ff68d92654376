/* snapshot_test.c - The list of held sequence numbers: sorted, counted, without doubles.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "engine/snapshot.h"
#include "tests/support/check.h"

static struct snapshots list;
static struct commit *commits;

static void set_up(void)
{
    commits = aligned_alloc(CACHE_LINE, sizeof *commits);
    CHECK(commits != NULL);
    commit_init(commits, 8);
    snapshots_init(&list);
}

static void tear_down(void)
{
    snapshots_destroy(&list);
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
    CHECK(snapshot_hold_same(&a, &again)); /* an old number once more, behind newer ones */
    CHECK_EQ(again.seq, 7);
    CHECK_EQ(snapshot_count(&list), 4);
    expect_numbers((uint64_t[]){7, 15, 23}, 3);
    snapshot_drop(&a);
    snapshot_drop(&b);
    CHECK_EQ(snapshot_oldest(&list, commits), 7); /* `again` keeps it */
    CHECK(!snapshot_hold_same(&a, &b));    /* but not through who has let go of it */
    CHECK_EQ(snapshot_count(&list), 2);
    snapshot_drop(&again);
    CHECK_EQ(snapshot_oldest(&list, commits), 15);
    snapshot_drop(&c);
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
            snapshot_drop(&held[i]);
        } else if (random_below(&r, 3) == 0 && out[(i + 1) % N]) {
            CHECK(snapshot_hold_same(&held[(i + 1) % N], &held[i]));
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

/* ---- holds that come while the numbers are gathered ---- */

enum { LATE = 50 };

static struct held_seq late[LATE];
static unsigned late_held;

/* Between the count and the copy, which is when memory is asked for. */
static void *hold_late(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    for (; late_held < LATE; late_held++) {
        snapshot_hold_latest(&list, commits, &late[late_held]);
        advance(8);
    }
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void free_plain(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    free(p);
}

Test(snapshot, more_holds_than_there_was_room_for_are_told_all_the_same)
{
    const loam_allocator hooks = {.struct_size = sizeof hooks, .alloc = hold_late, .free = free_plain};
    struct alloc a;
    alloc_init(&a, &hooks, UINT64_MAX);
    size_t count, cap;
    uint64_t *seqs = snapshot_numbers(&list, commits, &a, &count, &cap);
    CHECK(seqs != NULL);
    CHECK_EQ(late_held, LATE);
    CHECK_EQ(count, LATE + 1);
    for (unsigned i = 0; i < LATE; i++) {
        CHECK_EQ(seqs[i], late[i].seq);
        snapshot_drop(&late[i]);
    }
    CHECK_EQ(seqs[LATE], commit_visible(commits) - 1);
    alloc_put(&a, MEM_BUILD, seqs, cap * sizeof *seqs);
    CHECK_EQ(alloc_used(&a), 0);
}
