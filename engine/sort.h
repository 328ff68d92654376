/* sort.h - Heap sort of small elements, in place: no recursion, no allocation, no bad case.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_SORT_H_
#define LOAM_ENGINE_SORT_H_

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SORT_ELEMENT_MAX 64 /* bytes */

typedef bool sort_less_fn(const void *ctx, const void *a, const void *b);

static inline void sort_swap_(uint8_t *a, uint8_t *b, size_t size)
{
    uint8_t t[SORT_ELEMENT_MAX];
    memcpy(t, a, size);
    memcpy(a, b, size);
    memcpy(b, t, size);
}

/* Moves element i down to its place among the first n, of which all below it form a heap. */
static inline void sort_sift_(uint8_t *p, size_t i, size_t n, size_t size, sort_less_fn *less,
                              const void *ctx)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) {
            return;
        }
        if (child + 1 < n && less(ctx, p + child * size, p + (child + 1) * size)) {
            child++;
        }
        if (!less(ctx, p + i * size, p + child * size)) {
            return;
        }
        sort_swap_(p + i * size, p + child * size, size);
        i = child;
    }
}

/* Ascending by less(ctx, a, b). Not stable. */
static inline void sort_elements(void *base, size_t n, size_t size, sort_less_fn *less,
                                 const void *ctx)
{
    assert(size <= SORT_ELEMENT_MAX);
    uint8_t *p = base;
    for (size_t i = n / 2; i > 0; i--) {
        sort_sift_(p, i - 1, n, size, less, ctx);
    }
    for (size_t last = n; last > 1; last--) {
        sort_swap_(p, p + (last - 1) * size, size);
        sort_sift_(p, 0, last - 1, size, less, ctx);
    }
}

static inline bool sort_number_less_(const void *ctx, const void *a, const void *b)
{
    (void)ctx;
    return *(const uint64_t *)a < *(const uint64_t *)b;
}

/* n uint64_t at base, aligned as such; ascending. */
static inline void sort_numbers(void *base, size_t n)
{
    sort_elements(base, n, sizeof(uint64_t), sort_number_less_, NULL);
}

#endif
