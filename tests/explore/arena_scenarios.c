/* arena_scenarios.c - Leases, growth, chunks, and an arena made again at the address of another.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each thread writes all of what it was given; two pieces that overlap are a race.
 */
#include "arena/arena.h"

#include <string.h>

#include "arena/status.h"
#include "tests/explore/explore.h"

enum { CHUNK = 4096, PIECES = 4, PIECE = 400, ROOM = 8 };

static struct {
    struct chunk_pool pool;
    struct arena arena;
    unsigned char *piece[EXPLORE_THREADS][ROOM];
    uint32_t ref[EXPLORE_THREADS][ROOM];
    _Atomic uint32_t phase;
    _Atomic uint32_t away; /* threads that have let go of the old arena */
} w;

static void setup(void)
{
    EXPECT_EQ(chunk_pool_init(&w.pool, alloc_global(), CHUNK, 2), LOAM_OK);
    EXPECT_EQ(arena_init(&w.arena, &w.pool, arena_new_ids(1), 1024, ARENA_NO_LIMIT), LOAM_OK);
}

static void take(unsigned thread, unsigned i, size_t size)
{
    unsigned char *p = arena_alloc_ref(&w.arena, size, 8, &w.ref[thread][i]);
    EXPECT(p != NULL);
    memset(p, (int)(16 * thread + i), size);
    EXPECT(arena_at(&w.arena, w.ref[thread][i]) == p);
    w.piece[thread][i] = p;
}

static void grow_body(unsigned thread)
{
    for (unsigned i = 0; i < PIECES; i++) {
        take(thread, i, PIECE);
    }
}

static void expect_pieces(unsigned threads, unsigned pieces, size_t size)
{
    for (unsigned t = 0; t < threads; t++) {
        for (unsigned i = 0; i < pieces; i++) {
            EXPECT(arena_at(&w.arena, w.ref[t][i]) == w.piece[t][i]);
            for (size_t k = 0; k < size; k++) {
                EXPECT_EQ(w.piece[t][i][k], 16 * t + i);
            }
        }
    }
}

static void grow_check(void)
{
    expect_pieces(3, PIECES, PIECE);
    struct arena_stats s = arena_stats(&w.arena);
    EXPECT_EQ(s.chunks, 2);
    EXPECT_EQ(s.reserved, 2 * CHUNK);
}

SCENARIO(arena_grow, .says = "three threads take pieces and fill the first chunk", .threads = 3,
         .setup = setup, .body = grow_body, .check = grow_check, .bound = 2)

static void small_body(unsigned thread)
{
    for (unsigned i = 0; i < PIECES; i++) {
        take(thread, i, 40);
    }
}

static void small_check(void)
{
    expect_pieces(3, PIECES, 40);
}

SCENARIO(arena_leases, .says = "small pieces from leases", .threads = 3, .setup = setup,
         .body = small_body, .check = small_check, .bound = 2)

/* A memtable switch: the arena ends while threads still remember their leases in it, which have room
 * left, and another begins at the same address in the same chunks. One thread has no lease to
 * remember: it gets what the others must not take for theirs. */
static void reuse_body(unsigned thread)
{
    for (unsigned i = 0; thread != 2 && i < 3; i++) {
        take(thread, i, 40);
    }
    if (thread == 0) {
        while (atom_load(&w.away, acquire) != 2) {
            spin_pause();
        }
        arena_destroy(&w.arena);
        /* The same place in the threads' caches of leases. */
        (void)arena_new_ids(ARENA_CACHE_ENTRIES - 1);
        EXPECT_EQ(arena_init(&w.arena, &w.pool, arena_new_ids(1), 1024, ARENA_NO_LIMIT), LOAM_OK);
        atom_store(&w.phase, 1, release);
    } else {
        atom_add(&w.away, 1, release);
        while (atom_load(&w.phase, acquire) == 0) {
            spin_pause();
        }
    }
    for (unsigned i = 0; i < (thread == 2 ? ROOM : 2); i++) {
        take(thread, i, 40);
    }
}

static void reuse_check(void)
{
    expect_pieces(3, 2, 40);
}

SCENARIO(arena_reuse, .says = "leases of an arena that was replaced at its address (F1)",
         .threads = 3, .setup = setup, .body = reuse_body, .check = reuse_check, .bound = 2)

/* ---- chunks ------------------------------------------------------------------------------ */

static void chunk_body(unsigned thread)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned char *p = chunk_pool_take(&w.pool);
        EXPECT(p != NULL);
        p[0] = (unsigned char)thread;
        p[CHUNK - 1] = (unsigned char)thread;
        EXPECT_EQ(p[0], thread);
        chunk_pool_give(&w.pool, p);
    }
}

static void chunk_setup(void)
{
    EXPECT_EQ(chunk_pool_init(&w.pool, alloc_global(), CHUNK, 2), LOAM_OK);
    EXPECT_EQ(chunk_pool_prefill(&w.pool, 1), LOAM_OK);
}

static void chunk_check(void)
{
    struct chunk_pool_stats s = chunk_pool_stats(&w.pool);
    EXPECT_EQ(s.out, 0);
    EXPECT(s.idle <= 2);
    unsigned found = 0;
    for (unsigned i = 0; i < 2; i++) {
        found += w.pool.idle[i] != NULL;
    }
    EXPECT_EQ(s.idle, found);
}

SCENARIO(chunk_pool, .says = "chunks taken and given by three, two are kept", .threads = 3,
         .flags = LOCK_FREE, .setup = chunk_setup, .body = chunk_body, .check = chunk_check,
         .bound = 2)
