/* bench_histogram.c - A log-linear histogram: constant-time add, relative error below 1 %.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_histogram.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

uint32_t histogram_bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUB) {
        return (uint32_t)value;
    }
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HISTOGRAM_BITS;
    if (shift > HISTOGRAM_MAX_SHIFT) {
        return HISTOGRAM_BUCKETS - 1;
    }
    /* The leading one of value >> shift is HISTOGRAM_SUB itself: it counts the first octave. */
    return shift * HISTOGRAM_SUB + (uint32_t)(value >> shift);
}

uint64_t histogram_bucket_floor(uint32_t bucket)
{
    if (bucket < 2 * HISTOGRAM_SUB) {
        return bucket;
    }
    uint32_t shift = bucket / HISTOGRAM_SUB - 1;
    return (uint64_t)(bucket % HISTOGRAM_SUB + HISTOGRAM_SUB) << shift;
}

void histogram_reset(struct histogram *h)
{
    memset(h, 0, sizeof(*h));
    h->min = UINT64_MAX;
}

void histogram_add(struct histogram *h, uint64_t value)
{
    h->count++;
    h->min = value < h->min ? value : h->min;
    h->max = value > h->max ? value : h->max;
    h->sum += (double)value;
    h->sum_squares += (double)value * (double)value;
    h->bucket[histogram_bucket_of(value)]++;
}

void histogram_merge(struct histogram *h, const struct histogram *other)
{
    h->count += other->count;
    h->min = other->min < h->min ? other->min : h->min;
    h->max = other->max > h->max ? other->max : h->max;
    h->sum += other->sum;
    h->sum_squares += other->sum_squares;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        h->bucket[i] += other->bucket[i];
    }
}

static double clamp(double value, double lo, double hi)
{
    return value < lo ? lo : value > hi ? hi : value;
}

double histogram_quantile(const struct histogram *h, double q)
{
    if (h->count == 0) {
        return 0;
    }
    double rank = q * (double)h->count;
    uint64_t below = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t n = h->bucket[i];
        if (n == 0 || (double)(below + n) < rank) {
            below += n;
            continue;
        }
        double left = (double)histogram_bucket_floor(i);
        double right =
            i + 1 < HISTOGRAM_BUCKETS ? (double)histogram_bucket_floor(i + 1) : (double)h->max;
        double part = clamp((rank - (double)below) / (double)n, 0, 1);
        return clamp(left + (right - left) * part, (double)h->min, (double)h->max);
    }
    return (double)h->max;
}

double histogram_mean(const struct histogram *h)
{
    return h->count == 0 ? 0 : h->sum / (double)h->count;
}

double histogram_stddev(const struct histogram *h)
{
    if (h->count == 0) {
        return 0;
    }
    double mean = histogram_mean(h);
    double variance = h->sum_squares / (double)h->count - mean * mean;
    return variance > 0 ? sqrt(variance) : 0;
}

/* RocksDB's bucket limits: 1, 2, then each 1.5 times the one before, cut to two digits. */
static uint64_t next_limit(uint64_t limit)
{
    if (limit < 2) {
        return limit + 1;
    }
    uint64_t next = limit + limit / 2, power = 1;
    while (next / power > 99) {
        power *= 10;
    }
    return next / power * power;
}

static void print_bar(FILE *out, uint64_t left, uint64_t right, uint64_t n, double mult,
                      uint64_t cumulative)
{
    fprintf(out, "%c %7" PRIu64 ", %7" PRIu64 " ] %8" PRIu64 " %7.3f%% %7.3f%% ",
            left == 0 ? '[' : '(', left, right, n, mult * (double)n, mult * (double)cumulative);
    int marks = (int)(mult * (double)n / 5 + 0.5); /* 20 marks are all values */
    for (int i = 0; i < marks; i++) {
        fputc('#', out);
    }
    fputc('\n', out);
}

void histogram_print_micros(const struct histogram *h, FILE *out)
{
    const double us = 1e-3;
    uint64_t min = h->count == 0 ? 0 : h->min / 1000;
    fprintf(out, "Count: %" PRIu64 " Average: %.4f  StdDev: %.2f\n", h->count,
            histogram_mean(h) * us, histogram_stddev(h) * us);
    fprintf(out, "Min: %" PRIu64 "  Median: %.4f  Max: %" PRIu64 "\n", min,
            histogram_quantile(h, 0.5) * us, h->max / 1000);
    fprintf(out, "Percentiles: P50: %.2f P75: %.2f P99: %.2f P99.9: %.2f P99.99: %.2f\n",
            histogram_quantile(h, 0.5) * us, histogram_quantile(h, 0.75) * us,
            histogram_quantile(h, 0.99) * us, histogram_quantile(h, 0.999) * us,
            histogram_quantile(h, 0.9999) * us);
    fprintf(out, "------------------------------------------------------\n");
    double mult = h->count == 0 ? 0 : 100.0 / (double)h->count;
    uint64_t cumulative = 0, left = 0, right = 1, n = 0;
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        while (histogram_bucket_floor(i) >= right * 1000) {
            if (n > 0) {
                cumulative += n;
                print_bar(out, left, right, n, mult, cumulative);
                n = 0;
            }
            left = right;
            right = next_limit(right);
        }
        n += h->bucket[i];
    }
    if (n > 0) {
        print_bar(out, left, right, n, mult, cumulative + n);
    }
}
