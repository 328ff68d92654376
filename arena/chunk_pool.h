/* chunk_pool.h - Fixed-size chunks of mapped memory, kept for the next user instead of unmapped.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Arenas take chunks while they grow and give all of them back at their end, so a steady cycle of
 * fill and flush neither maps memory nor takes a page fault.
 *
 * Ordering guarantees
 *   What the giver did to a chunk happens before what the next taker does.
 * Progress guarantees
 *   take and give are lock-free apart from the mapping call that a take from an empty pool makes.
 */
#ifndef LOAM_ARENA_CHUNK_POOL_H_
#define LOAM_ARENA_CHUNK_POOL_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/atomic.h"

#define CHUNK_BYTES_MIN 4096u
#define CHUNK_BYTES_MAX ((size_t)1 << 30)

struct chunk_pool {
    struct alloc *alloc;
    size_t chunk_bytes;     /* power of two */
    size_t keep_max;        /* idle chunks held at most */
    _Atomic(void *) *idle;  /* keep_max places, NULL = free place */
    _Alignas(CACHE_LINE) _Atomic uint64_t idle_count; /* of places taken, or about to be */
    _Atomic uint64_t out_count;                       /* chunks in use by takers */
    _Atomic uint64_t map_calls;                       /* takes that had to map */
};

/* chunk_bytes: a power of two, 4 KiB to 1 GiB; chunks are aligned to it and ask for huge pages when
 * they are 2 MiB or more. keep_max: a larger one holds more idle memory. LOAM_OK or E_INVAL, E_NOMEM. */
int chunk_pool_init(struct chunk_pool *p, struct alloc *a, size_t chunk_bytes, size_t keep_max);
/* REQUIRES: every chunk was given back. */
void chunk_pool_destroy(struct chunk_pool *p);

/* A chunk with unspecified contents, or NULL when memory is out. Any thread. */
void *chunk_pool_take(struct chunk_pool *p);
/* Any thread. Keeps the chunk, or unmaps it when keep_max are idle already. */
void chunk_pool_give(struct chunk_pool *p, void *chunk);

/* Maps and touches chunks until n are idle (at most keep_max): then n takes cost neither a system
 * call nor a page fault. LOAM_OK or E_NOMEM. */
int chunk_pool_prefill(struct chunk_pool *p, size_t n);
/* Unmaps idle chunks until at most `keep` are left. */
void chunk_pool_trim(struct chunk_pool *p, size_t keep);

struct chunk_pool_stats {
    uint64_t idle;      /* chunks */
    uint64_t out;       /* chunks */
    uint64_t map_calls; /* since init */
};
/* Each number is exact for some moment; they need not be of the same one. */
struct chunk_pool_stats chunk_pool_stats(const struct chunk_pool *p);

#endif
