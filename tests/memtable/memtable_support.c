/* memtable_support.c - Memtables from one pool of memory, which must have it all back when a test ends.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/memtable/memtable_support.h"

struct memtable_fix memtable_fix;

static void start(size_t chunk)
{
    alloc_init(&memtable_fix.memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&memtable_fix.pool, &memtable_fix.memory, chunk, 16), LOAM_OK);
}

void memtable_fix_start(void)
{
    start(256 << 10);
}

void memtable_fix_start_small(void)
{
    start(64 << 10);
}

void memtable_fix_stop(void)
{
    chunk_pool_destroy(&memtable_fix.pool);
    CHECK_EQ(alloc_used(&memtable_fix.memory), 0);
}

static int compare_backwards(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(b, a);
}

static const loam_comparator backwards = {
    .struct_size = sizeof backwards, .name = "backwards", .compare = compare_backwards};

const loam_comparator *memtable_fix_order(void *ctx, uint32_t ks)
{
    (void)ctx;
    return ks % 2 == 1 ? &backwards : NULL;
}
