/* meter.h - An allocator for tests that counts what a database has taken by it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_METER_H_
#define LOAM_TESTS_SUPPORT_METER_H_

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/loam.h"

struct meter {
    _Atomic uint64_t now, peak; /* bytes */
};

static inline void *meter_alloc_(void *ctx, size_t align, size_t size)
{
    struct meter *m = ctx;
    uint64_t now = atomic_fetch_add_explicit(&m->now, size, memory_order_relaxed) + size;
    uint64_t peak = atomic_load_explicit(&m->peak, memory_order_relaxed);
    while (now > peak && !atomic_compare_exchange_weak_explicit(
                             &m->peak, &peak, now, memory_order_relaxed, memory_order_relaxed)) {
    }
    return aligned_alloc(align, (size + align - 1) & ~(align - 1));
}

static inline void meter_free_(void *ctx, void *p, size_t align, size_t size)
{
    struct meter *m = ctx;
    (void)align;
    atomic_fetch_sub_explicit(&m->now, size, memory_order_relaxed);
    free(p);
}

/* Counts in m, which is zero and outlives what is given this. */
static inline loam_allocator meter_allocator(struct meter *m)
{
    return (loam_allocator){sizeof(loam_allocator), meter_alloc_, meter_free_, m};
}

#endif
