/* interval_test.c - Median, spread and ratio interval against figures worked out by hand.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_interval.h"

#include <criterion/criterion.h>
#include <math.h>

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * (fabs(b) + 1e-9);
}

Test(interval, the_median_of_an_even_count_lies_between_the_middle_two)
{
    double odd[] = {5, 1, 9}, even[] = {4, 1, 9, 2};
    cr_assert(near(bench_median(odd, 3), 5));
    cr_assert(near(bench_median(even, 4), 3));
    cr_assert_eq(bench_median(odd, 0), 0);
}

Test(interval, the_spread_is_the_range_over_the_median)
{
    double v[] = {110, 90, 100};
    cr_assert(near(bench_spread(v, 3), 0.2));
    double none[] = {0, 0};
    cr_assert_eq(bench_spread(none, 2), 0);
}

Test(interval, equal_ratios_have_an_interval_of_no_width)
{
    const double a[] = {2, 4, 8}, b[] = {1, 2, 4};
    struct bench_ratio r = bench_ratio_of(a, b, 3);
    cr_assert(r.bounded);
    cr_assert(near(r.mid, 2));
    cr_assert(near(r.lo, 2));
    cr_assert(near(r.hi, 2));
}

Test(interval, the_interval_is_students_on_the_logarithms)
{
    /* Logarithms -0.1, 0, 0.1: deviation 0.1, error 0.1 / sqrt(3), t of two degrees 4.303. */
    const double a[] = {exp(-0.1), 1, exp(0.1)}, b[] = {1, 1, 1};
    struct bench_ratio r = bench_ratio_of(a, b, 3);
    double margin = 4.303 * 0.1 / sqrt(3);
    cr_assert(near(r.mid, 1));
    cr_assert(near(r.lo, exp(-margin)));
    cr_assert(near(r.hi, exp(margin)));
}

Test(interval, two_pairs_bound_nothing_and_runs_that_failed_are_no_pairs)
{
    const double a[] = {3, 0, 3, 5}, b[] = {1, 1, 1, 0};
    struct bench_ratio r = bench_ratio_of(a, b, 4);
    cr_assert(!r.bounded);
    cr_assert(near(r.mid, 3));
    cr_assert_eq(bench_ratio_of(a, b, 0).mid, 0);
}

Test(interval, students_t_falls_towards_the_normal_distributions)
{
    cr_assert(near(bench_student_95(1), 12.706));
    cr_assert(near(bench_student_95(30), 2.042));
    for (size_t f = 1; f < 1000; f++) {
        cr_assert_gt(bench_student_95(f), bench_student_95(f + 1), "at %zu", f);
    }
    cr_assert(near(bench_student_95(120), 1.980));
}
