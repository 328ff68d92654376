/* bench_interval.c - The few statistics of repeated runs: median, spread, ratio with its interval.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_interval.h"

#include <math.h>
#include <stdlib.h>

static int compare_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, size_t n)
{
    if (n == 0) {
        return 0;
    }
    qsort(values, n, sizeof(*values), compare_double);
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double bench_spread(double *values, size_t n)
{
    double median = bench_median(values, n);
    return median > 0 ? (values[n - 1] - values[0]) / median : 0;
}

double bench_student_95(size_t freedom)
{
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                               2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                               2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                               2.060,  2.056, 2.052, 2.048, 2.045, 2.042};
    size_t known = sizeof(t) / sizeof(t[0]);
    freedom = freedom == 0 ? 1 : freedom;
    /* Beyond the table the next smaller entry would do; this is nearer and still above the truth. */
    return freedom <= known ? t[freedom - 1] : 1.960 + 2.5 / (double)freedom;
}

struct bench_ratio bench_ratio_of(const double *a, const double *b, size_t n)
{
    struct bench_ratio r = {0, 0, 0, false};
    double sum = 0, squares = 0;
    size_t pairs = 0;
    for (size_t i = 0; i < n; i++) {
        if (a[i] > 0 && b[i] > 0) {
            sum += log(a[i] / b[i]);
            pairs++;
        }
    }
    if (pairs == 0) {
        return r;
    }
    double mean = sum / (double)pairs;
    r.mid = r.lo = r.hi = exp(mean);
    for (size_t i = 0; i < n; i++) {
        if (a[i] > 0 && b[i] > 0) {
            double off = log(a[i] / b[i]) - mean;
            squares += off * off;
        }
    }
    if (pairs > 2) {
        double error = sqrt(squares / (double)(pairs - 1) / (double)pairs);
        double margin = bench_student_95(pairs - 1) * error;
        r.lo = exp(mean - margin);
        r.hi = exp(mean + margin);
        r.bounded = true;
    }
    return r;
}
