/* bench_values.c - Values to write: slices of one pool that compresses by a chosen ratio.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_values.h"

#include <stdlib.h>
#include <string.h>

enum { POOL_MIN = 1 << 20, PIECE = 100 };

static void fill_piece(char *out, size_t size, double ratio, struct bench_rng *r)
{
    size_t raw = (size_t)((double)PIECE * ratio);
    raw = raw < 1 ? 1 : raw > PIECE ? PIECE : raw;
    for (size_t i = 0; i < size; i++) {
        /* Printable, like db_bench's: dumps stay readable. */
        out[i] = i < raw ? (char)(' ' + bench_rng_below(r, 95)) : out[i - raw];
    }
}

int bench_pool_init(struct bench_pool *p, double ratio, size_t max_value, uint64_t seed)
{
    struct bench_rng r;
    bench_rng_init(&r, seed);
    /* A value is never the whole pool, or every one would be alike. */
    p->size = max_value > POOL_MIN / 2 ? 2 * max_value : POOL_MIN;
    p->data = malloc(p->size);
    if (p->data == NULL) {
        return -1;
    }
    for (size_t at = 0; at < p->size; at += PIECE) {
        size_t n = p->size - at < PIECE ? p->size - at : PIECE;
        fill_piece(p->data + at, n, ratio, &r);
    }
    return 0;
}

void bench_pool_destroy(struct bench_pool *p)
{
    free(p->data);
    p->data = NULL;
}
