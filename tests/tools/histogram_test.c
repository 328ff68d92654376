/* histogram_test.c - The histogram's buckets are exact where promised and its quantiles within 1 %.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the sorted array of the same values, and the bucket rule's own inverse.
 */
#include "tools/bench_histogram.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/check.h"
#include "tests/support/seed.h"
#include "tools/bench_keygen.h"

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void check_quantiles(const struct histogram *h, uint64_t *values, size_t n)
{
    static const double qs[] = {0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    qsort(values, n, sizeof(*values), compare_u64);
    for (size_t i = 0; i < sizeof(qs) / sizeof(qs[0]); i++) {
        size_t rank = (size_t)ceil(qs[i] * (double)n);
        double exact = (double)values[rank == 0 ? 0 : rank - 1];
        double got = histogram_quantile(h, qs[i]);
        cr_assert(fabs(got - exact) <= exact * 0.01 + 1, "q %f: %f, sorted array says %f", qs[i],
                  got, exact);
    }
}

Test(histogram, every_value_lies_in_the_bucket_it_is_put_into)
{
    uint64_t seed = seed_or(42);
    struct bench_rng r;
    bench_rng_init(&r, seed);
    for (int i = 0; i < 200000; i++) {
        uint64_t v = bench_rng_next(&r) >> (21 + bench_rng_below(&r, 43));
        uint32_t b = histogram_bucket_of(v);
        CHECK(b < HISTOGRAM_BUCKETS);
        CHECK(histogram_bucket_floor(b) <= v);
        if (b + 1 < HISTOGRAM_BUCKETS) {
            CHECK(v < histogram_bucket_floor(b + 1));
        }
    }
}

Test(histogram, buckets_ascend_and_are_never_wider_than_a_128th)
{
    for (uint32_t b = 0; b + 1 < HISTOGRAM_BUCKETS; b++) {
        uint64_t lo = histogram_bucket_floor(b), hi = histogram_bucket_floor(b + 1);
        CHECK(lo < hi);
        CHECK_EQ(histogram_bucket_of(lo), b);
        CHECK_EQ(histogram_bucket_of(hi - 1), b);
        CHECK(hi - lo == 1 || (hi - lo) * 128 <= lo);
    }
}

Test(histogram, values_beyond_the_range_share_the_last_bucket)
{
    CHECK_EQ(histogram_bucket_of(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
    CHECK_EQ(histogram_bucket_of(UINT64_C(1) << 43), HISTOGRAM_BUCKETS - 1);
    struct histogram *h = malloc(sizeof(*h));
    histogram_reset(h);
    histogram_add(h, UINT64_MAX);
    CHECK(histogram_quantile(h, 0.5) > 9e18);
    free(h);
}

Test(histogram, an_empty_one_answers_zero)
{
    struct histogram *h = malloc(sizeof(*h));
    histogram_reset(h);
    CHECK(histogram_quantile(h, 0.5) <= 0);
    CHECK(histogram_mean(h) <= 0);
    CHECK(histogram_stddev(h) <= 0);
    free(h);
}

Test(histogram, quantiles_of_1_to_n_are_known)
{
    struct histogram *h = malloc(sizeof(*h));
    histogram_reset(h);
    for (uint64_t i = 1; i <= 1000000; i++) {
        histogram_add(h, i);
    }
    for (int p = 1; p <= 99; p++) {
        double exact = 10000.0 * p, got = histogram_quantile(h, p / 100.0);
        cr_assert(fabs(got - exact) <= 0.01 * exact, "P%d is %f", p, got);
    }
    CHECK_EQ(h->min, 1);
    CHECK_EQ(h->max, 1000000);
    cr_assert(fabs(histogram_mean(h) - 500000.5) < 1e-3);
    cr_assert(fabs(histogram_stddev(h) - 288675.13) < 1);
    free(h);
}

Test(histogram, quantiles_match_a_sorted_array_and_merging_changes_nothing)
{
    uint64_t seed = seed_or(7);
    enum { N = 200000 };
    struct bench_rng r;
    bench_rng_init(&r, seed);
    struct histogram *whole = malloc(3 * sizeof(*whole)), *part = whole + 1;
    uint64_t *values = malloc(N * sizeof(*values));
    for (int i = 0; i < 3; i++) {
        histogram_reset(&whole[i]);
    }
    for (size_t i = 0; i < N; i++) {
        /* A long tail over six orders of magnitude, as latencies have. */
        values[i] = (uint64_t)(200 * exp(-2.5 * log(1 - bench_rng_unit(&r))));
        values[i] = values[i] > 100000000 ? 100000000 : values[i];
        histogram_add(whole, values[i]);
        histogram_add(&part[i % 2], values[i]);
    }
    check_quantiles(whole, values, N);
    histogram_merge(&part[0], &part[1]);
    CHECK_EQ(part[0].count, whole->count);
    CHECK_EQ(part[0].min, whole->min);
    CHECK_EQ(part[0].max, whole->max);
    CHECK(memcmp(part[0].bucket, whole->bucket, sizeof(whole->bucket)) == 0);
    free(values);
    free(whole);
}

Test(histogram, prints_what_scripts_parse)
{
    struct histogram *h = malloc(sizeof(*h));
    histogram_reset(h);
    for (int i = 0; i < 10; i++) {
        histogram_add(h, 2500);
    }
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof(text), "w");
    histogram_print_micros(h, out);
    fclose(out);
    CHECK(strstr(text, "Count: 10 Average: 2.5000  StdDev: 0.00\n") == text);
    CHECK(strstr(text, "Min: 2  Median: 2.5000  Max: 2\n") != NULL);
    CHECK(strstr(text, "Percentiles: P50: 2.50 P75: 2.50 P99: 2.50 P99.9: 2.50 P99.99: 2.50\n"));
    CHECK(strstr(text, "(       2,       3 ]       10 100.000% 100.000% ####################\n"));
    free(h);
}
