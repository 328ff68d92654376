/* alloc.h - The one door to memory: allocator hooks and page mappings, counted by owner.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Nothing else in the library calls malloc, free, mmap or munmap (poison.h makes that an error).
 */
#ifndef LOAM_ARENA_ALLOC_H_
#define LOAM_ARENA_ALLOC_H_

#include <stdbool.h>

#include "arena/atomic.h"
#include "arena/types.h"

/* LOAM_ASAN: whether the address sanitizer is in. */
#if defined(__SANITIZE_ADDRESS__)
#define LOAM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LOAM_ASAN 1
#endif
#endif
#ifndef LOAM_ASAN
#define LOAM_ASAN 0
#endif

enum mem_owner {
    MEM_MISC = 0, /* the database object, threads, options */
    MEM_MEMTABLE, /* arena chunks */
    MEM_RING,     /* blocks: cache and flush staging */
    MEM_LOG,      /* mapped or staged log windows */
    MEM_TABLE,    /* open tables: index, filter, names */
    MEM_VERSION,  /* versions, edits, manifest buffers */
    MEM_ITER,     /* iterators, merge cursors, pins */
    MEM_BATCH,    /* write batches */
    MEM_BUILD,    /* table building: scratch and output buffers */
    MEM_HANDLE,   /* slotmap pages, slab segments */
    MEM_VFS,      /* memory disks */
    MEM_OWNER_COUNT
};

struct alloc {
    loam_allocator hooks;
    struct {
        _Alignas(CACHE_LINE) _Atomic uint64_t bytes;
    } owner[MEM_OWNER_COUNT];
    _Atomic uint64_t total; /* sum over owners */
    _Atomic uint64_t peak;
    uint64_t limit; /* constant after init; UINT64_MAX = none. alloc_get beyond it returns NULL */
};

/* hooks NULL: malloc. Copies the hooks. */
void alloc_init(struct alloc *a, const loam_allocator *hooks, uint64_t limit);
/* The process-wide instance with malloc and no limit, for what belongs to no database. */
struct alloc *alloc_global(void);

/* NULL when the hook fails or the limit is reached. Lock-free beside the hook itself. `size` 0 is
 * treated as 1. align is a power of two; 0 = 16. */
void *alloc_get_aligned(struct alloc *a, enum mem_owner o, size_t size, size_t align);
void *alloc_get(struct alloc *a, enum mem_owner o, size_t size);
void *alloc_zero(struct alloc *a, enum mem_owner o, size_t size);
/* Like realloc; on NULL the old memory stays. p NULL: a fresh one. */
void *alloc_resize(struct alloc *a, enum mem_owner o, void *p, size_t old_size, size_t new_size);
/* size and align as given to alloc_get; p NULL is allowed. */
void alloc_put_aligned(struct alloc *a, enum mem_owner o, void *p, size_t size, size_t align);
void alloc_put(struct alloc *a, enum mem_owner o, void *p, size_t size);

/* Zeroed pages straight from the system, charged to the owner; size is rounded up to 4 KiB and the
 * start aligned to `align` (a power of two >= 4096). huge: ask for 2 MiB pages where they fit.
 * reserve_only: charges nothing; alloc_charge does when pages come into use. */
void *alloc_map(struct alloc *a, enum mem_owner o, size_t size, size_t align, bool huge,
                bool reserve_only);
void alloc_unmap(struct alloc *a, enum mem_owner o, void *p, size_t size, bool reserve_only);
/* Gives the memory of the whole pages in it back to the system, keeping the addresses; their contents
 * become zero. */
void alloc_discard(void *p, size_t size);
/* Accounts for memory obtained elsewhere. */
void alloc_charge(struct alloc *a, enum mem_owner o, uint64_t bytes);
void alloc_uncharge(struct alloc *a, enum mem_owner o, uint64_t bytes);

uint64_t alloc_used(const struct alloc *a); /* bytes, all owners */
static inline uint64_t alloc_used_by(const struct alloc *a, enum mem_owner o) /* bytes */
{
    return atom_load(&a->owner[o].bytes, relaxed);
}
uint64_t alloc_peak(const struct alloc *a); /* bytes, approximate */
uint64_t alloc_calls(void); /* hook allocations by this thread so far, all instances */

#endif
