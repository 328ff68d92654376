/* alloc_test.c - What an open table takes goes back to the system with it; no size overflows.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#include "arena/alloc.h"
#include "tests/support/check.h"

#define KIB ((size_t)1 << 10)

TestSuite(alloc);

#if !LOAM_ASAN && !LOAM_TSAN
static bool is_there(void *p)
{
    unsigned char in_core;
    return mincore((void *)((uintptr_t)p & ~(uintptr_t)4095), 1, &in_core) == 0;
}

/* More than once: malloc may map what is large at first, and keeps what is asked for again. */
Test(alloc, what_a_table_takes_goes_back_at_once)
{
    struct alloc a;
    alloc_init(&a, NULL, UINT64_MAX);
    for (int round = 0; round < 4; round++) {
        for (size_t size = 128 * KIB; size <= 1024 * KIB; size += 300 * KIB + 1) {
            char *p = alloc_get_aligned(&a, MEM_TABLE, size, CACHE_LINE);
            char *above = alloc_get(&a, MEM_MISC, size); /* the heap cannot shrink under it */
            CHECK(p != NULL && above != NULL);
            CHECK_EQ((uintptr_t)p % CACHE_LINE, 0);
            memset(p, 1, size);
            CHECK(is_there(p));
            CHECK_EQ(alloc_used_by(&a, MEM_TABLE), size);
            alloc_put_aligned(&a, MEM_TABLE, p, size, CACHE_LINE);
            CHECK(!is_there(p));
            CHECK_EQ(alloc_used_by(&a, MEM_TABLE), 0);
            alloc_put(&a, MEM_MISC, above, size);
        }
    }
}
#endif

static void *lent[2]; /* by the hooks below: that it was they */
static char pages[2][256 << 10];

static void *lend(void *ctx, size_t align, size_t size)
{
    size_t i = (*(size_t *)ctx)++;
    CHECK(i < 2 && align <= 16 && size <= sizeof pages[i]);
    return lent[i] = pages[i];
}

static void take_back(void *ctx, void *p, size_t align, size_t size)
{
    size_t i = --*(size_t *)ctx;
    (void)align;
    CHECK(p == lent[i] && size <= sizeof pages[i]);
}

Test(alloc, hooks_are_asked_for_everything)
{
    size_t out = 0;
    loam_allocator hooks = {sizeof hooks, lend, take_back, &out};
    struct alloc a;
    alloc_init(&a, &hooks, UINT64_MAX);
    void *p = alloc_get(&a, MEM_TABLE, 256 * KIB), *q = alloc_get(&a, MEM_BUILD, 256 * KIB);
    CHECK(p == pages[0] && q == pages[1]);
    alloc_put(&a, MEM_BUILD, q, 256 * KIB);
    alloc_put(&a, MEM_TABLE, p, 256 * KIB);
    CHECK_EQ(out, 0);
    CHECK_EQ(alloc_used(&a), 0);
}

Test(alloc, sizes_that_overflow_are_refused)
{
    struct alloc a;
    alloc_init(&a, NULL, UINT64_MAX);
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 4094, SIZE_MAX - 4095, SIZE_MAX / 2 + 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (!LOAM_ASAN) { /* whose malloc ends the program */
            CHECK(alloc_get(&a, MEM_TABLE, sizes[i]) == NULL);
        }
        CHECK(alloc_map(&a, MEM_RING, sizes[i], 4096, false, false) == NULL);
        CHECK(alloc_map(&a, MEM_RING, 4096, sizes[i], false, false) == NULL);
    }
    CHECK_EQ(alloc_used(&a), 0);
}
