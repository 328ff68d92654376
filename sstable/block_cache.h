/* block_cache.h - Blocks in ring memory: staged by builders, cached for readers.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   sst_builder -- block_stage_begin/end --> READY --(any evictor, the stage's write fn)--> CLEAN
 *   sst_reader  -- block_cache_fill_* -----------------------------------------------------> CLEAN
 *                                       cached_blocks.addr[block] = ring address -- peek --> bytes
 *
 * A table has a handle in `tables` (reserved by block_stage_init, or by sst_open for a table that
 * was not just built; committed by sst_open with the table's struct cached_blocks). The ring entry
 * of a block carries {handle, block number}, so that the reclaimer, when it moves a hot block,
 * finds the array element to change. A handle that was erased or aborted makes all the table's
 * blocks stale at once: nobody asks for them, and they leave the ring when the head comes by.
 *
 * A table whose index is resident has an address per block, in an array. One whose index is not has
 * none (addr is NULL), so that what is kept of it does not grow with it: its addresses stand in the
 * cache's own directory, which is as large as the ring asks for. That is a table of buckets of one
 * cache line, found by a hash of handle and block number; an address there is a guess, and the ring
 * entry says whose it is. A full bucket gives up any of its addresses; that block is then not found.
 * Of two that enter a block at the same time both may be kept; one is found.
 *
 * Life of cached_blocks: it and its array stay in place until an epoch has passed after
 * slotmap_erase(&c->tables, handle), since a reclaimer may just be changing an element: free them
 * by epoch_retire_node() or after epoch_synchronize().
 *
 * Deadlock freedom: a stage holds at most one block between begin and end (begin refuses a second
 * one), and its builder waits for no other builder meanwhile. begin and drain wait only for (1)
 * write functions running in other threads, which do not touch the ring, (2) blocks between another
 * builder's begin and end, (3) fills, which are one memcpy, (4) epoch sections, which are one
 * public call; none of these waits for room. So builders and readers always go on, in any ring that
 * holds four blocks.
 */
#ifndef LOAM_SSTABLE_BLOCK_CACHE_H_
#define LOAM_SSTABLE_BLOCK_CACHE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/ring.h"
#include "arena/slotmap.h"
#include "arena/sync.h"
#include "arena/types.h"

#define BLOCK_CACHE_TABLE_KIND 2u /* of handles in `tables` */

struct block_stage;

struct block_cache {
    struct ring ring;
    struct alloc *alloc;
    /* Marks of blocks that were missed and not entered: each in the one place that it hashes to, of as
     * many as such blocks fit into the cache, until another takes it. Behind the directory, in one
     * mapping with it. */
    _Atomic uint16_t *missed;
    size_t missed_count;
    uint64_t first; /* where the ring began: it has evicted nothing while it still begins there */
    struct slotmap tables;       /* payload: struct cached_blocks * */
    _Atomic uint64_t *directory; /* 12 bits of hash, 52 bits of ring address; 0 = none */
    size_t directory_slots;      /* whole buckets */
    uint64_t dirty_limit;        /* bytes; builders write out beyond it */
    struct mutex stage_mutex;    /* protects the list and the counts in the stages; held for a few
                                  * instructions, nothing is called under it */
    struct cond stage_done;      /* some stage's counts fell */
    struct block_stage *stages;  /* those with blocks in the ring, or about to */
    _Atomic uint64_t fills, fills_refused, fills_lost;
};

/* What an open table knows of its cached blocks. */
struct cached_blocks {
    uint64_t handle;        /* in block_cache.tables */
    uint32_t count;         /* blocks */
    _Atomic uint64_t *addr; /* per block: ring address, 0 = never cached; may be stale. NULL: they
                               are in the directory */
};

/* bytes: all memory it takes beside the handle table, at least 16 KiB, descriptors included. lent_most:
 * bytes for blocks that block_cache_lend() may add; their descriptors are there from the start, so no
 * more than four times `bytes`.
 * Returns: LOAM_OK, E_INVAL, E_NOMEM. */
int block_cache_init(struct block_cache *c, struct alloc *a, size_t bytes, size_t lent_most);
/* REQUIRES: no other thread uses it; every table and stage is closed. */
void block_cache_destroy(struct block_cache *c);

/* ---- lent memory: one thread at a time, outside of sections ---------------------------------- */

/* Memory nobody else needs at present: so many more bytes for blocks than its own, as far as that is more
 * than now. REQUIRES: nothing is being taken back. */
void block_cache_lend(struct block_cache *c, size_t bytes);
/* One step of making that room the next to be filled, blocks being moved, not lost, see ring_reach_lent(). True: it
 * is, or nothing is lent. */
bool block_cache_reach_lent(struct block_cache *c);
/* One step of taking back what is lent beyond `bytes`, see ring_take_back(). True: it is back. */
bool block_cache_take_back(struct block_cache *c, size_t bytes);
size_t block_cache_lent(const struct block_cache *c); /* bytes; the lending thread's */
/* Whether there is room that blocks read by chance may take: more than is kept free at any time. */
bool block_cache_roomy(struct block_cache *c);

/* ---- read side: inside an epoch section ------------------------------------------------------ */

/* The block's bytes, lent until the section ends, or NULL: not cached. touch: it counts as used, so
 * it may get a second chance (scans pass false). Wait-free, a few ns. */
const void *block_cache_peek(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                             bool touch, size_t *size);
/* Begins to bring the places nearer where the addresses of this block and the next seven stand. */
static inline void block_cache_prefetch_addresses(const struct cached_blocks *t, uint32_t block)
{
    if (t->addr != NULL) {
        __builtin_prefetch((const void *)&t->addr[block]);
    }
}
/* Begins to bring the block nearer if it is cached; needs no section. Where it is, to be fetched but not read;
 * NULL: it is not. */
static inline const void *block_cache_prefetch(const struct block_cache *c, const struct cached_blocks *t,
                                               uint32_t block)
{
    /* relaxed: nothing is read through it. In the directory it would have to be looked for. */
    uint64_t addr = t->addr != NULL ? atom_load(&t->addr[block], relaxed) : 0;
    return addr != 0 && !ring_has_passed(&c->ring, addr) ? ring_prefetch(&c->ring, addr) : NULL;
}
/* Whether a block just read is worth entering. While there is free room every one is; then one that
 * was missed before, not longer ago than about as many misses as the cache has blocks: it would have
 * been a hit. What is asked for once, by a walk or a load wider than the cache, is neither copied nor
 * pushes anything out. */
bool block_cache_admits(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                        size_t size);
/* Room for a block that was read from its file into private memory, to be copied there and given to
 * block_cache_fill_end at once. NULL: no room now; never waits. */
void *block_cache_fill_begin(struct block_cache *c, size_t size, uint64_t *addr);
/* keep: enter it as the cached copy of block `block` (a copy that came first wins and this one is
 * discarded); else give the room back. hot: as if touched.
 * The bytes stay readable until the section ends only if keep won: peek again for them. */
void block_cache_fill_end(struct block_cache *c, struct cached_blocks *t, uint32_t block,
                          uint64_t addr, bool keep, bool hot);
/* For a table without an array: enters the address of a block that its builder left in the ring. */
void block_cache_adopt(struct block_cache *c, const struct cached_blocks *t, uint32_t block,
                       uint64_t addr);

/* ---- build side: background threads, outside of sections ------------------------------------- */

/* Writes one block out; runs in any thread that evicts, for several blocks of one table at once and
 * in any order. Must not touch the ring, nor wait for anybody who does. A negative code latches the
 * stage's first error; its other blocks are then dropped unwritten. */
typedef int block_write_fn(void *arg, uint32_t block, const void *data, size_t size);

/* The blocks of one table under construction; embedded in its builder, used by one thread. */
struct block_stage {
    uint64_t handle; /* of the table, reserved; goes to sst_open together with the addresses */
    block_write_fn *write;
    void *arg;
    struct block_cache *cache;
    uint64_t open;            /* address between begin and end; 0 = none */
    struct block_stage *next; /* this and the rest: guarded by cache->stage_mutex */
    bool listed;
    uint32_t pending; /* blocks given to the ring and not yet written or dropped; a write function
                       * runs only for a pending block */
    int rc;           /* first error; negative: no write function starts any more */
    loam_error error;
};

/* Returns: LOAM_OK, E_NOMEM. After it, exactly one of: the handle is committed (sst_open), or
 * block_stage_abandon. */
int block_stage_init(struct block_stage *s, struct block_cache *c, block_write_fn *write,
                     void *arg);
/* Room for a block of up to size_max bytes, to be filled and given to block_stage_end. Writes out
 * waiting blocks (its own and others') and reclaims clean ones until there is room; sleeps when all
 * room is held by other threads.
 * Returns: NULL with the thread's error set: E_TOOBIG (more than block_stage_max), E_MISUSE (the
 * last block was not ended), or the stage's first error. */
void *block_stage_begin(struct block_stage *s, size_t size_max, uint64_t *addr);
/* Largest size_max: a quarter of the ring. */
size_t block_stage_max(const struct block_cache *c);
/* The block is complete: used (>= 1) of its bytes count. It stays readable under `addr` after it is
 * written, until evicted.
 * Returns: LOAM_OK, or the stage's first error (the block is dropped). */
int block_stage_end(struct block_stage *s, uint64_t addr, uint32_t block, size_t used);
/* Writes out blocks while more than the cache's dirty limit waits. Called after each end.
 * Returns: LOAM_OK, or the stage's first error. */
int block_stage_evict_some(struct block_stage *s);
/* Returns when each of its blocks was written, or the first error when one failed; none of its
 * write functions is running then. More blocks may be staged afterwards. */
int block_stage_drain(struct block_stage *s);
/* Drops what is not written yet, waits for its write functions running in other threads, aborts the
 * handle. Also for a drained stage whose table is not to be opened. */
void block_stage_abandon(struct block_stage *s);

struct cache_metrics {
    uint64_t capacity_bytes;
    uint64_t bytes_used;    /* neither free nor evicted */
    uint64_t dirty_bytes;   /* staged, waiting for a writer */
    uint64_t evicted;       /* bytes, since init */
    uint64_t relocated;     /* bytes that got a second chance */
    uint64_t fills;         /* blocks entered after a miss */
    uint64_t fills_refused; /* for want of room */
    uint64_t fills_lost;    /* another reader entered the same block first */
};
/* Any thread; a walk over what is staged. Hits and misses are counted by the readers. */
void block_cache_metrics(struct block_cache *c, struct cache_metrics *m);

#endif
