/* micro_arena.c - Rows of loam-micro for bump allocation: leases against what they replace.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "arena/arena.h"
#include "tools/micro.h"

enum { PIECE = 32 };

static struct chunk_pool pool;
static struct arena arena;
static _Atomic uint64_t shared_mark;

static void start(void)
{
    if (chunk_pool_init(&pool, alloc_global(), (size_t)2 << 20, 1024) < 0 ||
        arena_init(&arena, &pool, arena_new_ids(1), (size_t)64 << 10, ARENA_NO_LIMIT) < 0 ||
        chunk_pool_prefill(&pool, 1024) < 0) {
        micro_die("no memory for an arena");
    }
}

static void stop(void)
{
    arena_destroy(&arena);
    chunk_pool_destroy(&pool);
}

static void bump(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        micro_use(arena_alloc(&arena, PIECE, 8));
    }
}

static void run_bump(struct micro_run *r)
{
    start();
    micro_threads(r, bump);
    stop();
}

static void fetch_add(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        uint64_t at = atom_add(&shared_mark, PIECE, relaxed); /* relaxed: what is compared with */
        micro_use((void *)(uintptr_t)at);
    }
}

static void run_fetch_add(struct micro_run *r)
{
    micro_threads(r, fetch_add);
}

static void use_malloc(struct micro_run *r, unsigned index)
{
    uint64_t share = micro_share(r, index);
    void **all = malloc(share * sizeof *all);
    if (all == NULL) {
        micro_die("no memory for %llu pointers", (unsigned long long)share);
    }
    micro_start();
    for (uint64_t n = 0; n < share; n++) {
        all[n] = malloc(PIECE);
    }
    micro_stop();
    for (uint64_t n = 0; n < share; n++) {
        free(all[n]);
    }
    free(all);
}

static void run_malloc(struct micro_run *r)
{
    micro_threads(r, use_malloc);
}

static void savepoint(struct micro_run *r, unsigned index)
{
    for (uint64_t n = micro_share(r, index); n != 0; n--) {
        struct arena_mark m = arena_checkpoint(&arena);
        micro_use(arena_alloc(&arena, PIECE, 8));
        arena_rewind(&arena, m);
    }
}

static void run_savepoint(struct micro_run *r)
{
    start();
    micro_threads(r, savepoint);
    stop();
}

const struct micro_row micro_arena_rows[] = {
    {"arena_bump", "32 bytes from a lease", 1.0, 40000000, 1, run_bump, NULL, 0},
    {"arena_bump_mt", "the same, several threads in one arena", 0, 40000000, 4, run_bump, NULL, 0},
    {"arena_fetch_add_mt", "for comparison: one shared counter", 0, 40000000, 4, run_fetch_add,
     NULL, 0},
    {"arena_malloc", "for comparison: malloc of 32 bytes", 0, 4000000, 1, run_malloc, NULL, 0},
    {"arena_savepoint", "checkpoint, 32 bytes, rewind", 0, 20000000, 1, run_savepoint, NULL, 0},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
