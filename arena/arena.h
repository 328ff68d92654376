/* arena.h - Bump allocation by any number of threads, freed as a whole.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   pool --chunk--> | head |=lease T1=|=lease T2=|=lease T1=|== big ==|   free        |  current
 *                   | head |=================== full chunk ==========================|  older
 *   system -------> | head |============= extent of one very large request ==========|
 *
 * A thread owns a lease: a private piece of a chunk, cut off with one fetch_add. Inside it an
 * allocation is an add and a compare. The thread finds its lease in a small thread-local cache under
 * the arena's id, a number that is never used twice in a process: whatever a cache still holds of a
 * dead arena can never match a live one. A lease starts as small as the first request and doubles up
 * to lease_bytes while its thread stays, so a thread that exits, or whose cache entry another arena
 * takes over, leaves behind no more than about what it had used. A lease that ends where its chunk is
 * cut next grows in place, whatever the request: a thread that is alone loses nothing to the size of
 * its requests. Where others cut in between, what is left of a lease stays beside the next one.
 *
 * Every byte also has a 32-bit name, its reference: the number of its 4-byte unit in the arena, from
 * which arena_at() finds the address with one table load. Half-size links are what keeps list nodes
 * short. A reference is never 0.
 *
 * Invariants
 *   1. A unit below a block's mark belongs to exactly one lease or request; leases have one thread.
 *   2. The table's entry of a block is written before anything in the block is handed out and never
 *      changes until reset; a table that becomes too small is copied, and kept for late readers.
 *   3. Bytes reserved <= budget at all times: they are counted before they are taken.
 * Ordering guarantees
 *   Memory handed out carries no contents; whoever publishes a reference with release makes the table
 *   entry it needs visible too (the allocating thread has acquired it).
 * Progress guarantees
 *   Inside a lease: wait-free, no atomics. Taking a lease: lock-free while the current chunk has room.
 *   Only a full chunk's replacement, about once per chunk_bytes, takes the growth lock.
 */
#ifndef LOAM_ARENA_ARENA_H_
#define LOAM_ARENA_ARENA_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/atomic.h"
#include "arena/chunk_pool.h"
#include "arena/sync.h"

#define ARENA_UNIT 4u          /* bytes a reference counts in; the smallest alignment */
#define ARENA_CACHE_ENTRIES 16 /* leases a thread can hold at a time, by id modulo this */
#define ARENA_NO_LIMIT UINT64_MAX
#define ARENA_FIRST_TABLE 16 /* blocks before the table needs memory of its own */
#define ARENA_MAX_BYTES ((uint64_t)UINT32_MAX * ARENA_UNIT) /* what references can name: 16 GiB */

struct arena_block;
struct arena_table;

/* A function to run when what it belongs to ends; lives in the arena. */
struct arena_drop {
    struct arena_drop *next; /* registered before it */
    void (*fn)(void *ptr);
    void *ptr;
};

struct arena {
    uint64_t id;
    _Atomic(char **) table;     /* start of each block, by reference / units in a block */
    uint32_t block_shift;       /* log2 of units in a block */
    size_t lease_bytes;         /* the largest lease */
    struct chunk_pool *pool;    /* NULL: lives in the caller's memory only */
    uint64_t budget;            /* bytes */
    _Atomic uint64_t *reserved; /* own_reserved, or that of the arena it shares its budget with */
    _Alignas(CACHE_LINE) _Atomic(struct arena_block *) current; /* where leases are cut from */
    _Alignas(CACHE_LINE) _Atomic uint64_t used;                 /* bytes cut off, all leases */
    _Atomic uint64_t own_reserved;                              /* bytes counted for the budget */
    _Atomic uint64_t leases;                                    /* cut off so far */
    _Atomic uint32_t chunks;
    _Atomic uint32_t extents;
    _Atomic(struct arena_drop *) drops; /* newest first; push only */
    _Alignas(CACHE_LINE) struct mutex grow; /* protects the rest; only pool and alloc are called
                                               while it is held */
    uint32_t table_size;                    /* places */
    uint32_t table_used;
    struct arena_table *tables; /* all but the first, newest first */
    struct arena_block *blocks; /* all, newest first */
    char *first_table[ARENA_FIRST_TABLE];
};

/* A number for arena_init that this process has not used before. Takes n numbers in a row and
 * returns the first; arenas a thread fills side by side should have neighbouring ids. Never 0. */
uint64_t arena_new_ids(uint64_t n);

/* id: not used before by any arena of this process. lease_bytes: 1 KiB or more; a larger one wastes
 * more per thread. budget_bytes: hard, in chunks; ARENA_NO_LIMIT = none. Takes no memory.
 * The struct must not be moved. LOAM_OK, or E_INVAL for id 0. */
int arena_init(struct arena *a, struct chunk_pool *p, uint64_t id, size_t lease_bytes,
               uint64_t budget_bytes);
/* Lives in the `size` bytes at `memory` (at most 8 GiB), which stay the caller's, and never grows.
 * LOAM_OK, or E_INVAL when they cannot hold the arena's own head. */
int arena_init_memory(struct arena *a, void *memory, size_t size, uint64_t id, size_t lease_bytes);
/* From here on both count against the budget of `other`, which must outlive a. Before first use. */
void arena_share_budget(struct arena *a, struct arena *other);
/* REQUIRES: no thread uses the arena; nothing in it is used afterwards. Chunks go to the pool. */
void arena_destroy(struct arena *a);
/* Back to empty under a new id, as after init; same requirements as destroy. */
void arena_reset(struct arena *a, uint64_t new_id);

/* ---- one thread's view of one arena; private to the functions below ---- */

/* Memory cut off for one thread. */
struct arena_range {
    char *at;
    char *end;
    char *start;   /* names the range: no other of the arena has it */
    uint32_t bias; /* reference of a byte at p: (uint32_t)((uintptr_t)p / 4) + bias */
};
struct arena_lease {
    uint64_t id; /* of the arena; 0 = none */
    struct arena_range now;
    struct arena_range side; /* what was left when a request was too large for it */
    size_t grow_bytes;       /* size of the next lease */
};
extern _Thread_local struct arena_lease arena_leases_[ARENA_CACHE_ENTRIES];

void *arena_alloc_slow_(struct arena *a, size_t size, size_t align, uint32_t *ref);

static inline uint32_t arena_ref_of_(const void *p, uint32_t bias)
{
    return (uint32_t)((uintptr_t)p / ARENA_UNIT) + bias;
}

/* size >= 1 bytes aligned to align (a power of two, 4 to 4096), uninitialised, and their reference. NULL:
 * the thread's error says E_BUDGET, E_NOMEM or E_TOOBIG. Any thread. */
static inline void *arena_alloc_ref(struct arena *a, size_t size, size_t align, uint32_t *ref)
{
    struct arena_lease *l = &arena_leases_[a->id % ARENA_CACHE_ENTRIES];
    if (__builtin_expect(l->id == a->id, 1)) {
        uintptr_t at = ((uintptr_t)l->now.at + align - 1) & ~(uintptr_t)(align - 1);
        uintptr_t end = (uintptr_t)l->now.end;
        if (__builtin_expect(at <= end && size <= end - at, 1)) {
            char *p = l->now.at + (at - (uintptr_t)l->now.at);
            l->now.at = p + size;
            *ref = arena_ref_of_(p, l->now.bias);
            return p;
        }
    }
    return arena_alloc_slow_(a, size, align, ref);
}

static inline void *arena_alloc(struct arena *a, size_t size, size_t align)
{
    uint32_t ref;
    return arena_alloc_ref(a, size, align, &ref);
}

/* Zeroed. */
void *arena_alloc_zero(struct arena *a, size_t size, size_t align);

/* A copy of the bytes; of no bytes, an address with none. */
void *arena_copy(struct arena *a, loam_slice bytes);
/* fn(ptr) runs when the arena is reset or destroyed; later ones first. Any thread. LOAM_OK, E_BUDGET or
 * E_NOMEM. A rewind over the call is an error: use arena_txn.h there. */
int arena_at_drop(struct arena *a, void (*fn)(void *ptr), void *ptr);
void arena_adopt_drops_(struct arena *a, struct arena_drop *newest); /* a list of several */

/* Takes back this thread's latest allocation from the arena, size bytes at p. */
void arena_undo(struct arena *a, void *p, size_t size);

/* After LOAM_OK this thread's next n allocations, of `bytes` in all and aligned to at most 8, cannot
 * fail. LOAM_E_BUDGET or E_NOMEM otherwise, and nothing changed that matters. */
int arena_ensure(struct arena *a, size_t bytes, size_t n);

/* The address of a reference got by any thread that published it. */
static inline void *arena_at(const struct arena *a, uint32_t ref)
{
    uint32_t unit = ref & (((uint32_t)1 << a->block_shift) - 1);
    /* acquire: pairs with the release in table_grow(); a copied table is complete. */
    char *const *table = atom_load(&a->table, acquire);
    return table[ref >> a->block_shift] + (size_t)unit * ARENA_UNIT;
}

/* ---- savepoints: what this thread allocated since can be taken back ---- */

/* Marks nest: rewinding to an outer one ends the inner ones. To keep the allocations, forget the
 * mark. Valid for the thread that made it, until the arena is reset. */
struct arena_mark {
    struct arena_range now;
    struct arena_range side;
};
struct arena_mark arena_checkpoint(struct arena *a);
/* Everything this thread allocated since the mark is free again. Bytes return to the thread's lease;
 * when it moved on to another lease since, the larger of the two remainders is kept. */
void arena_rewind(struct arena *a, struct arena_mark m);

/* ---- numbers; any thread, at any time ---- */

uint64_t arena_used(const struct arena *a);     /* bytes handed out, leases counted in full */
uint64_t arena_reserved(const struct arena *a); /* bytes taken from pool and system; shared budgets: of
                                                   all sharers */
struct arena_stats {
    uint64_t used;     /* bytes */
    uint64_t idle;     /* bytes reserved and not used, when the budget is not shared */
    uint64_t reserved; /* bytes */
    uint64_t budget;   /* bytes */
    uint64_t leases;   /* cut off so far */
    uint32_t chunks;
    uint32_t extents;
};
struct arena_stats arena_stats(struct arena *a);

#endif
