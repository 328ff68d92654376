/* commit_test.c - The visible watermark moves over finished records, and only over them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdlib.h>

#include "arena/sync.h"
#include "engine/commit.h"
#include "tests/support/check.h"

static struct commit *make(uint64_t start)
{
    struct commit *c = aligned_alloc(CACHE_LINE, sizeof *c);
    CHECK(c != NULL);
    commit_init(c, start);
    return c;
}

Test(commit, starts_visible_where_it_is_told)
{
    struct commit *c = make(4096);
    CHECK_EQ(commit_visible(c), 4096);
    commit_wait(c, 4096);
    commit_wait(c, 8);
    free(c);
}

Test(commit, a_record_is_visible_when_publish_returns)
{
    struct commit *c = make(8);
    uint64_t at = 8;
    for (unsigned i = 0; i < 50000; i++) { /* several laps of the ring */
        uint64_t end = at + 8 * (1 + i % 40);
        commit_publish(c, at, end);
        CHECK_EQ(commit_visible(c), end);
        at = end;
    }
    free(c);
}

Test(commit, a_record_larger_than_the_ring_is_one_step)
{
    struct commit *c = make(8);
    uint64_t end = 8 + (uint64_t)COMMIT_RING_WORDS * 8 * 5;
    commit_publish(c, 8, end);
    CHECK_EQ(commit_visible(c), end);
    commit_publish(c, end, end + 8);
    CHECK_EQ(commit_visible(c), end + 8);
    free(c);
}

struct late {
    struct commit *c;
    uint64_t begin, end;
};

static void *publish(void *arg)
{
    struct late *l = arg;
    commit_publish(l->c, l->begin, l->end);
    return NULL;
}

Test(commit, a_record_waits_for_the_one_before_it)
{
    struct commit *c = make(8);
    struct late later[3] = {{c, 16, 32}, {c, 32, 40}, {c, 40, 64}};
    pthread_t t[3];
    for (int i = 2; i >= 0; i--) {
        CHECK_EQ(pthread_create(&t[i], NULL, publish, &later[i]), 0);
    }
    thread_sleep_micros(20000);
    CHECK_EQ(commit_visible(c), 8); /* the first is missing */
    commit_publish(c, 8, 16);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    }
    CHECK_EQ(commit_visible(c), 64);
    free(c);
}
