/* bench_histogram.h - A log-linear histogram: constant-time add, relative error below 1 %.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Values below 2^HISTOGRAM_BITS have a bucket each; above, every power of two is cut into
 * 2^HISTOGRAM_BITS equal buckets. So a bucket is never wider than 1/128 of the values in it.
 * One thread adds to one histogram; merge after the threads were joined.
 */
#ifndef LOAM_TOOLS_BENCH_HISTOGRAM_H_
#define LOAM_TOOLS_BENCH_HISTOGRAM_H_

#include <stdint.h>
#include <stdio.h>

enum { HISTOGRAM_BITS = 7, HISTOGRAM_SUB = 1 << HISTOGRAM_BITS, HISTOGRAM_MAX_SHIFT = 35 };
enum { HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_SHIFT + 2) * HISTOGRAM_SUB };

struct histogram {
    uint64_t count;
    uint64_t min, max; /* exact */
    double sum, sum_squares;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_reset(struct histogram *h);
/* Values beyond 2^43 (2.4 hours in nanoseconds) share the last bucket. */
void histogram_add(struct histogram *h, uint64_t value);
void histogram_merge(struct histogram *h, const struct histogram *other);
/* The value that a share q (0 to 1) of all values does not exceed; 0 when empty. Interpolated
 * inside its bucket, and never outside [min, max]. */
double histogram_quantile(const struct histogram *h, double q);
double histogram_mean(const struct histogram *h);
double histogram_stddev(const struct histogram *h);
/* Prints nanosecond values as microseconds, in the form of RocksDB's HistogramImpl::ToString. */
void histogram_print_micros(const struct histogram *h, FILE *out);

/* The bucket of a value, and the first value of a bucket: the rule itself, for tests. */
uint32_t histogram_bucket_of(uint64_t value);
uint64_t histogram_bucket_floor(uint32_t bucket);

#endif
