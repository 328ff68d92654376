/* bench_interval.h - The few statistics of repeated runs: median, spread, ratio with its interval.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_INTERVAL_H_
#define LOAM_TOOLS_BENCH_INTERVAL_H_

#include <stdbool.h>
#include <stddef.h>

/* Sorts the values; 0 when there is none. */
double bench_median(double *values, size_t n);
/* (largest - smallest) / median; 0 when the median is. */
double bench_spread(double *values, size_t n);

struct bench_ratio {
    double mid;    /* geometric mean of a[i] / b[i]; 0 when there is no pair */
    double lo, hi; /* its 95 % interval by Student's t on the logarithms */
    bool bounded;  /* lo and hi say something: there are three pairs at least */
};

/* Pairs are runs of one round: what slows the machine down in a round slows both down. Pairs with
 * a value that is not above zero do not count. */
struct bench_ratio bench_ratio_of(const double *a, const double *b, size_t n);

/* Student's t: two-sided 95 %, for degrees of freedom >= 1. */
double bench_student_95(size_t freedom);

#endif
