/* stats_test.c - Counters add up over stripes; quantiles are within a bucket of the truth.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "engine/stats.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

static struct stats s;

static void set_up(void)
{
    CHECK_EQ(stats_init(&s, alloc_global()), LOAM_OK);
}

static void tear_down(void)
{
    stats_destroy(&s);
    stats_destroy(&s); /* safe twice */
}

TestSuite(stats, .init = set_up, .fini = tear_down);

static void count_up(struct crew_member *m)
{
    (void)m;
    for (int i = 0; i < 10000; i++) {
        stats_add(&s, STAT_PUTS, 1);
        stats_add(&s, STAT_BYTES_PUT, 7);
    }
}

Test(stats, counts_of_all_threads_add_up)
{
    crew_run(8, count_up, NULL, 1); /* fewer than stripes: nothing may be lost */
    CHECK_EQ(stats_sum(&s, STAT_PUTS), 80000);
    CHECK_EQ(stats_sum(&s, STAT_BYTES_PUT), 560000);
    CHECK_EQ(stats_sum(&s, STAT_GETS), 0);
}

Test(stats, one_call_in_64_is_sampled)
{
    struct stats_stripe *t = stats_stripe_self(&s);
    int n = 0;
    for (int i = 0; i < 6400; i++) {
        n += stats_sample(t);
    }
    CHECK_EQ(n, 100);
}

Test(stats, an_empty_histogram_is_all_zero)
{
    loam_hist h;
    memset(&h, 0xff, sizeof h);
    stats_hist_get(&s, LOAM_HIST_GET, &h);
    CHECK(h.count == 0 && h.min_ns == 0 && h.max_ns == 0 && h.p50_ns == 0 && h.sum_ns == 0);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void expect_near(uint64_t have, uint64_t truth)
{
    CHECK(have >= truth && have <= truth + truth / 8 + 1); /* 8 buckets to an octave */
}

Test(stats, quantiles_are_right_to_an_eighth)
{
    enum { N = 20000 };
    uint64_t *v = malloc(N * sizeof *v), sum = 0;
    struct random r;
    random_init(&r, 5);
    for (int i = 0; i < N; i++) {
        v[i] = random_next(&r) >> (20 + random_below(&r, 44));
        sum += v[i];
        stats_time(&s, LOAM_HIST_SYNC, v[i]);
    }
    qsort(v, N, sizeof *v, by_value);
    loam_hist h;
    stats_hist_get(&s, LOAM_HIST_SYNC, &h);
    CHECK_EQ(h.count, N);
    CHECK_EQ(h.sum_ns, sum);
    CHECK_EQ(h.min_ns, v[0]);
    CHECK_EQ(h.max_ns, v[N - 1]);
    expect_near(h.p50_ns, v[N / 2]);
    expect_near(h.p90_ns, v[N / 10 * 9]);
    expect_near(h.p99_ns, v[N / 100 * 99]);
    expect_near(h.p999_ns, v[N / 1000 * 999]);
    free(v);
}

Test(stats, the_extremes_have_buckets_too)
{
    stats_time(&s, LOAM_HIST_PUT, 0);
    stats_time(&s, LOAM_HIST_PUT, UINT64_MAX);
    loam_hist h;
    stats_hist_get(&s, LOAM_HIST_PUT, &h);
    CHECK_EQ(h.count, 2);
    CHECK_EQ(h.min_ns, 0);
    CHECK(h.max_ns == UINT64_MAX && h.p9999_ns == UINT64_MAX);
}
