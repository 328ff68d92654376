/* large_test.c - What may be held is limited, what passes through takes turns, and all of it comes back.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "arena/large.h"
#include "arena/types.h"
#include "tests/support/check.h"

#define MIB ((uint64_t)1 << 20)

TestSuite(large_pool);

Test(large_pool, lets_in_what_fits_and_no_more)
{
    struct large_pool p;
    large_pool_init(&p, 8 * MIB, MIB);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 8; i++) {
            CHECK(large_hold(&p, MIB));
        }
        CHECK(!large_hold(&p, 1));
        CHECK_EQ(large_held(&p), 8 * MIB);
        large_let_go(&p, MIB);
        CHECK(large_hold(&p, MIB)); /* what one gives back another has at once */
        for (int i = 0; i < 8; i++) {
            large_let_go(&p, MIB);
        }
        CHECK_EQ(large_held(&p), 0);
    }
    large_pool_destroy(&p);
}

Test(large_pool, has_room_for_one_giant_beside_the_others)
{
    struct large_pool p;
    large_pool_init(&p, 8 * MIB, MIB);
    CHECK(large_hold(&p, 100 * MIB));
    CHECK(!large_hold(&p, 5 * MIB));
    CHECK(large_hold(&p, 4 * MIB));
    CHECK(large_hold(&p, 4 * MIB));
    CHECK(!large_hold(&p, MIB));
    large_let_go(&p, 100 * MIB);
    CHECK(!large_hold(&p, MIB));
    CHECK(large_hold(&p, 5 * MIB));
    large_let_go(&p, 5 * MIB);
    large_let_go(&p, 4 * MIB);
    large_let_go(&p, 4 * MIB);
    CHECK_EQ(large_held(&p), 0);
    large_pool_destroy(&p);
}

Test(large_pool, tells_a_refusal_that_may_be_retried)
{
    CHECK_EQ(large_refused(MIB), LOAM_E_BUDGET);
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    CHECK_EQ(loam_last_error()->flags, LOAM_ERR_RETRY);
}

Test(large_pool, counts_pieces_while_they_are_there)
{
    struct large_pool p;
    struct alloc a;
    struct large one = {0}, two = {0}, three = {0};
    alloc_init(&a, NULL, 12 * MIB);
    large_pool_init(&p, 8 * MIB, 2 * MIB);
    CHECK_EQ(large_take(&p, &a, &one, LARGE_HELD, MEM_ITER, 4 * MIB), LOAM_OK);
    CHECK_EQ(large_take(&p, &a, &two, LARGE_HELD, MEM_ITER, 4 * MIB), LOAM_OK);
    CHECK_EQ(large_take(&p, &a, &three, LARGE_HELD, MEM_ITER, MIB), LOAM_E_BUDGET);
    CHECK(three.data == NULL);
    large_give(&two);
    CHECK_EQ(large_held(&p), 4 * MIB);
    CHECK_EQ(large_take(&p, &a, &two, LARGE_WORK, MEM_BUILD, 7 * MIB), LOAM_OK);
    /* Without memory nothing stays counted. */
    CHECK_EQ(large_take(&p, &a, &three, LARGE_HELD, MEM_ITER, 3 * MIB), LOAM_E_NOMEM);
    CHECK_EQ(large_take(&p, &a, &three, LARGE_PASSING, MEM_ITER, 3 * MIB), LOAM_E_NOMEM);
    CHECK_EQ(large_held(&p), 4 * MIB);
    CHECK_EQ(p.passing, 0);
    large_give(&one);
    large_give(&one);
    large_give(&two);
    CHECK_EQ(large_take(NULL, &a, &one, LARGE_HELD, MEM_ITER, 9 * MIB), LOAM_OK); /* no limits */
    large_give(&one);
    CHECK_EQ(large_held(&p), 0);
    CHECK_EQ(alloc_used(&a), 0);
    large_pool_destroy(&p);
}

struct passage {
    struct large_pool p;
    _Atomic uint64_t inside, most; /* bytes */
};

static void *pass(void *arg)
{
    struct passage *x = arg;
    for (unsigned i = 0; i < 300; i++) {
        uint64_t bytes = i % 7 == 6 ? 5 * MIB : MIB; /* more than may pass: alone */
        large_pass_begin(&x->p, bytes);
        uint64_t now = atomic_fetch_add(&x->inside, bytes) + bytes;
        uint64_t most = atomic_load(&x->most);
        while (now > most && !atomic_compare_exchange_weak(&x->most, &most, now)) {
        }
        CHECK(now <= 2 * MIB || now == bytes);
        thread_yield();
        atomic_fetch_sub(&x->inside, bytes);
        large_pass_end(&x->p, bytes);
    }
    return NULL;
}

Test(large_pool, lets_pass_by_turns)
{
    static struct passage x;
    pthread_t t[6];
    large_pool_init(&x.p, MIB, 2 * MIB);
    for (unsigned i = 0; i < 6; i++) {
        CHECK_EQ(pthread_create(&t[i], NULL, pass, &x), 0);
    }
    for (unsigned i = 0; i < 6; i++) {
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    }
    CHECK_EQ(x.most, 5 * MIB);
    CHECK_EQ(x.p.passing, 0);
    large_pool_destroy(&x.p);
}
