/* memtable_support.h - Memtables from one pool of memory, which must have it all back when a test ends.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_MEMTABLE_MEMTABLE_SUPPORT_H_
#define LOAM_TESTS_MEMTABLE_MEMTABLE_SUPPORT_H_

#include "arena/hash.h"
#include "memtable/memtable.h"
#include "tests/support/check.h"

struct memtable_fix {
    struct alloc memory;
    struct chunk_pool pool;
};
extern struct memtable_fix memtable_fix;

void memtable_fix_start(void);
/* With chunks of 64 KiB: a memtable of two of them is soon full. */
void memtable_fix_start_small(void);
void memtable_fix_stop(void);
/* Odd keyspaces run backwards. */
const loam_comparator *memtable_fix_order(void *ctx, uint32_t ks);

static inline struct memtable *make(size_t bytes, size_t limit)
{
    struct memtable_options o = {.alloc = &memtable_fix.memory,
                                 .pool = &memtable_fix.pool,
                                 .bytes = bytes,
                                 .hard_limit = limit,
                                 .comparator = memtable_fix_order,
                                 .id = 77};
    struct memtable *m = NULL;
    CHECK_EQ(memtable_create(&o, &m), LOAM_OK);
    return m;
}

/* The n-th addition of keys in no order, with its key in memory of the caller's. */
static inline struct memtable_op numbered(uint64_t n, char key[24])
{
    snprintf(key, 24, "%016llu", (unsigned long long)(n * 2654435761u % 1000000007u));
    return (struct memtable_op){.key = loam_bytes(key, 16),
                                .key_hash = hash_key(key, 16),
                                .tag = entry_tag(n + 1, ENTRY_PUT),
                                .value = LOAM_LIT("12345678")};
}

static inline int add(struct memtable *m, uint32_t ks, loam_slice key, uint64_t tag, loam_slice value)
{
    return memtable_add(m, ks, key, hash_key(key.data, key.size), tag, value);
}

static inline int get(struct memtable *m, uint32_t ks, loam_slice key, uint64_t snapshot, struct entry *e)
{
    return memtable_get(m, ks, key, hash_key(key.data, key.size), snapshot, e);
}

/* Room for one entry. */
static inline int reserve_one(struct memtable *m, uint32_t ks, size_t key_size, size_t value_size)
{
    struct memtable_need need = {0};
    memtable_need_add(&need, ks, key_size, value_size);
    return memtable_reserve(m, &need);
}

#endif
