/* bench_lru.h - A cache of equal blocks that drops the least recently used: what others are held to.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_LRU_H_
#define LOAM_TOOLS_BENCH_LRU_H_

#include <stdbool.h>
#include <stdint.h>

/* Blocks 0 .. blocks-1, of which at most `capacity` are cached. */
struct bench_lru {
    uint32_t blocks, capacity, cached;
    uint32_t *next, *prev; /* rings of block numbers; element `blocks` is the head: next of it is
                            * the youngest. next[b] == b: not cached */
    uint64_t hits, misses;
};

/* Returns: 0, or -1 without memory. capacity >= 1. */
int bench_lru_init(struct bench_lru *l, uint32_t blocks, uint32_t capacity);
void bench_lru_destroy(struct bench_lru *l);

/* One use of a block; true when it was cached. It is afterwards. */
bool bench_lru_use(struct bench_lru *l, uint32_t block);

#endif
