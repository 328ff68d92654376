/* bench_values.h - Values to write: slices of one pool that compresses by a chosen ratio.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_VALUES_H_
#define LOAM_TOOLS_BENCH_VALUES_H_

#include <stddef.h>
#include <stdint.h>

#include "engine/loam.h"
#include "tools/bench_keygen.h"

/* At least 1 MiB of 100-byte pieces, each a random run repeated to fill the piece, as in db_bench.
 * Read-only once made; shared by all threads. */
struct bench_pool {
    char *data;
    size_t size; /* bytes */
};

/* ratio: compressed size over size, 0 to 1. max_value: the largest value that will be asked for.
 * Returns: 0, or -1 without memory. */
int bench_pool_init(struct bench_pool *p, double ratio, size_t max_value, uint64_t seed);
void bench_pool_destroy(struct bench_pool *p);

/* A thread's walk through the pool. */
struct bench_values {
    const struct bench_pool *pool;
    size_t at;
    size_t size_min, size_max; /* bytes; uniform between them */
};

/* The next value; lent while the pool lives. */
static inline loam_slice bench_values_next(struct bench_values *v, struct bench_rng *r)
{
    size_t size = v->size_min;
    if (v->size_max > size) {
        size += (size_t)bench_rng_below(r, v->size_max - size + 1);
    }
    if (size > v->pool->size - v->at) {
        v->at = 0;
    }
    const char *data = v->pool->data + v->at;
    v->at += size;
    return loam_bytes(data, size);
}

#endif
