/* chunk_pool.c - Keeps idle chunks in an array of places, taken and filled by single swaps.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A place holds a chunk or NULL and is changed as a whole, so there is no list to be caught in the
 * middle of and no ABA. idle_count goes up before a chunk is put into its place and down after one
 * was taken out, so it is never below the number of chunks there, and never over keep_max.
 */
#include "arena/chunk_pool.h"

#include "arena/status.h"

#include "arena/poison.h"

#define HUGE_PAGE  ((size_t)2 << 20)
#define SMALL_PAGE ((size_t)4096)

int chunk_pool_init(struct chunk_pool *p, struct alloc *a, size_t chunk_bytes, size_t keep_max)
{
    if (chunk_bytes < CHUNK_BYTES_MIN || chunk_bytes > CHUNK_BYTES_MAX ||
        (chunk_bytes & (chunk_bytes - 1)) != 0 || keep_max > SIZE_MAX / sizeof *p->idle) {
        return FAIL(LOAM_E_INVAL, "chunks of %zu bytes, %zu kept", chunk_bytes, keep_max);
    }
    *p = (struct chunk_pool){.alloc = a, .chunk_bytes = chunk_bytes, .keep_max = keep_max};
    if (keep_max != 0) {
        p->idle = alloc_zero(a, MEM_MEMTABLE, keep_max * sizeof *p->idle);
        if (p->idle == NULL) {
            return FAIL(LOAM_E_NOMEM, "no memory for a pool of %zu chunks", keep_max);
        }
    }
    return LOAM_OK;
}

void chunk_pool_destroy(struct chunk_pool *p)
{
    chunk_pool_trim(p, 0);
    if (p->keep_max != 0) {
        alloc_put(p->alloc, MEM_MEMTABLE, p->idle, p->keep_max * sizeof *p->idle);
    }
    p->idle = NULL;
}

static void *chunk_map(struct chunk_pool *p)
{
    return alloc_map(p->alloc, MEM_MEMTABLE, p->chunk_bytes, p->chunk_bytes,
                     p->chunk_bytes >= HUGE_PAGE, false);
}

static void chunk_unmap(struct chunk_pool *p, void *chunk)
{
    alloc_unmap(p->alloc, MEM_MEMTABLE, chunk, p->chunk_bytes, false);
}

/* An idle chunk, or NULL when every place was seen empty. */
static void *take_idle(struct chunk_pool *p)
{
    /* relaxed: a stale count only costs a scan or a mapping. */
    if (atom_load(&p->idle_count, relaxed) == 0) {
        return NULL;
    }
    for (size_t i = 0; i < p->keep_max; i++) {
        /* relaxed: only a look; the swap decides. */
        if (atom_load(&p->idle[i], relaxed) == NULL) {
            continue;
        }
        /* acquire: pairs with the release in keep(); the giver is done with the chunk. */
        void *chunk = atom_swap(&p->idle[i], NULL, acquire);
        if (chunk != NULL) {
            atom_sub(&p->idle_count, 1, relaxed); /* relaxed: a bound, not a lock */
            return chunk;
        }
    }
    return NULL;
}

/* False when the pool is full. */
static bool keep(struct chunk_pool *p, void *chunk)
{
    uint64_t n = atom_load(&p->idle_count, relaxed); /* relaxed: the CAS decides */
    do {
        if (n >= p->keep_max) {
            return false;
        }
    } while (!atom_cas(&p->idle_count, &n, n + 1, relaxed, relaxed));
    /* The count promises a free place. Others may fill one or free one meanwhile, so a pass can
     * miss it only when another call got it: somebody advances. */
    for (size_t i = 0;; i = (i + 1) % p->keep_max) {
        void *free_place = NULL;
        /* release: pairs with the acquire in take_idle(). */
        if (atom_load(&p->idle[i], relaxed) == NULL &&
            atom_cas(&p->idle[i], &free_place, chunk, release, relaxed)) {
            return true;
        }
    }
}

void *chunk_pool_take(struct chunk_pool *p)
{
    void *chunk = take_idle(p);
    if (chunk == NULL) {
        chunk = chunk_map(p);
        if (chunk == NULL) {
            return NULL;
        }
        atom_add(&p->map_calls, 1, relaxed); /* relaxed: a statistic */
    }
    atom_add(&p->out_count, 1, relaxed); /* relaxed: a statistic */
    return chunk;
}

void chunk_pool_give(struct chunk_pool *p, void *chunk)
{
    atom_sub(&p->out_count, 1, relaxed); /* relaxed: a statistic */
    if (!keep(p, chunk)) {
        chunk_unmap(p, chunk);
    }
}

int chunk_pool_prefill(struct chunk_pool *p, size_t n)
{
    n = n < p->keep_max ? n : p->keep_max;
    while (atom_load(&p->idle_count, relaxed) < n) { /* relaxed: others may add too many */
        char *chunk = chunk_map(p);
        if (chunk == NULL) {
            return FAIL(LOAM_E_NOMEM, "no memory for a chunk of %zu bytes", p->chunk_bytes);
        }
        for (size_t at = 0; at < p->chunk_bytes; at += SMALL_PAGE) {
            chunk[at] = 0;
        }
        if (!keep(p, chunk)) {
            chunk_unmap(p, chunk);
            return LOAM_OK;
        }
    }
    return LOAM_OK;
}

void chunk_pool_trim(struct chunk_pool *p, size_t keep_count)
{
    while (atom_load(&p->idle_count, relaxed) > keep_count) { /* relaxed: a bound, not a lock */
        void *chunk = take_idle(p);
        if (chunk == NULL) {
            return;
        }
        chunk_unmap(p, chunk);
    }
}

struct chunk_pool_stats chunk_pool_stats(const struct chunk_pool *p)
{
    /* relaxed: statistics. */
    return (struct chunk_pool_stats){.idle = atom_load(&p->idle_count, relaxed),
                                     .out = atom_load(&p->out_count, relaxed),
                                     .map_calls = atom_load(&p->map_calls, relaxed)};
}
