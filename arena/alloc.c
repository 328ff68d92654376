/* alloc.c - Allocator hooks and page mappings, counted by owner.
 * SPDX-License-Identifier: Apache-2.0
 *
 * This file is the door: it alone calls malloc and mmap.
 */
#include "arena/alloc.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static _Thread_local uint64_t calls;

static void *default_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    if (align <= _Alignof(max_align_t)) {
        return malloc(size);
    }
    void *p = NULL;
    return posix_memalign(&p, align, size) == 0 ? p : NULL;
}

static void default_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    free(p);
}

static struct alloc global = {
    .hooks = {sizeof(loam_allocator), default_alloc, default_free, NULL},
    .limit = UINT64_MAX,
};

struct alloc *alloc_global(void)
{
    return &global;
}

void alloc_init(struct alloc *a, const loam_allocator *hooks, uint64_t limit)
{
    memset(a, 0, sizeof *a);
    a->hooks = hooks != NULL ? *hooks : global.hooks;
    a->limit = limit;
}

/* Counters are relaxed: they are statistics and a limit that may be overshot by one request a
 * thread, never a hand-over of data. */
static bool charge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    uint64_t total = atom_add(&a->total, bytes, relaxed) + bytes;
    if (total > a->limit) {
        atom_sub(&a->total, bytes, relaxed);
        return false;
    }
    atom_add(&a->owner[o].bytes, bytes, relaxed);
    uint64_t peak = atom_load(&a->peak, relaxed);
    while (total > peak && !atom_cas(&a->peak, &peak, total, relaxed, relaxed)) {
    }
    return true;
}

static void uncharge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    atom_sub(&a->owner[o].bytes, bytes, relaxed);
    atom_sub(&a->total, bytes, relaxed);
}

void alloc_charge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    uint64_t total = atom_add(&a->total, bytes, relaxed) + bytes;
    atom_add(&a->owner[o].bytes, bytes, relaxed);
    uint64_t peak = atom_load(&a->peak, relaxed);
    while (total > peak && !atom_cas(&a->peak, &peak, total, relaxed, relaxed)) {
    }
}

void alloc_uncharge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    uncharge(a, o, bytes);
}

static size_t whole_pages(size_t size)
{
    return (size + 4095) & ~(size_t)4095;
}

static char *map_pages(size_t size)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p != MAP_FAILED ? p : NULL;
}

/* A mapping of `size` bytes and what fills the last page, at a multiple of `align`, a power of two; NULL
 * without memory. */
static char *map_memory(size_t size, size_t align)
{
    if (size > SIZE_MAX / 2 || align > SIZE_MAX / 4) {
        return NULL;
    }
    const uintptr_t rest = align - 1;
    size = whole_pages(size);
    char *p = map_pages(size); /* below another one of its kind it is aligned as that is */
    if (p == NULL || ((uintptr_t)p & rest) == 0) {
        return p;
    }
    munmap(p, size);
    p = map_pages(size + align);
    if (p == NULL) {
        return NULL;
    }
    /* What lies outside the aligned part goes. */
    char *start = (char *)(((uintptr_t)p + rest) & ~rest);
    size_t before = (size_t)(start - p), after = align - before;
    if (before != 0) {
        munmap(p, before);
    }
    if (after != 0) {
        munmap(start + size, after);
    }
    return start;
}

/* The larger parts of an open table are mappings of their own where nobody gave hooks. They come and go with
 * every merge, in one thread or another, and what malloc is given back it keeps for seconds, by each
 * thread: 60 MiB beside a budget of 384, counted nowhere (jemalloc, idle merges of 2 GB). Values are not
 * mapped, whose pages it would cost more to find than to copy. A sanitizer sees into its own malloc alone. */
#define MAPPED_FROM (LOAM_ASAN || LOAM_TSAN ? SIZE_MAX : (size_t)128 << 10)

static bool is_mapped(const struct alloc *a, enum mem_owner o, size_t size)
{
    return o == MEM_TABLE && size >= MAPPED_FROM && a->hooks.alloc == default_alloc;
}

void *alloc_get_aligned(struct alloc *a, enum mem_owner o, size_t size, size_t align)
{
    size = size != 0 ? size : 1;
    align = align != 0 ? align : _Alignof(max_align_t);
    if (!charge(a, o, size)) {
        return NULL;
    }
    calls++;
    void *p = is_mapped(a, o, size) ? map_memory(size, align)
                                    : a->hooks.alloc(a->hooks.ctx, align, size);
    if (p == NULL) {
        uncharge(a, o, size);
    }
    return p;
}

void *alloc_get(struct alloc *a, enum mem_owner o, size_t size)
{
    return alloc_get_aligned(a, o, size, 0);
}

void *alloc_zero(struct alloc *a, enum mem_owner o, size_t size)
{
    void *p = alloc_get(a, o, size);
    if (p != NULL) {
        memset(p, 0, size);
    }
    return p;
}

void *alloc_resize(struct alloc *a, enum mem_owner o, void *p, size_t old_size, size_t new_size)
{
    void *q = alloc_get(a, o, new_size);
    if (q == NULL) {
        return NULL;
    }
    if (p != NULL) {
        memcpy(q, p, old_size < new_size ? old_size : new_size);
        alloc_put(a, o, p, old_size);
    }
    return q;
}

void alloc_put_aligned(struct alloc *a, enum mem_owner o, void *p, size_t size, size_t align)
{
    if (p == NULL) {
        return;
    }
    size = size != 0 ? size : 1;
    if (is_mapped(a, o, size)) {
        munmap(p, whole_pages(size));
    } else {
        a->hooks.free(a->hooks.ctx, p, align != 0 ? align : _Alignof(max_align_t), size);
    }
    uncharge(a, o, size);
}

void alloc_put(struct alloc *a, enum mem_owner o, void *p, size_t size)
{
    alloc_put_aligned(a, o, p, size, 0);
}

#define HUGE_PAGE ((size_t)2 << 20)

void *alloc_map(struct alloc *a, enum mem_owner o, size_t size, size_t align, bool huge,
                bool reserve_only)
{
    if (size > SIZE_MAX / 2) {
        return NULL;
    }
    size = whole_pages(size);
    if (!reserve_only && !charge(a, o, size)) {
        return NULL;
    }
    char *p = map_memory(size, align);
    if (p == NULL) {
        if (!reserve_only) {
            uncharge(a, o, size);
        }
        return NULL;
    }
    if (huge && size >= HUGE_PAGE) {
        madvise(p, size, MADV_HUGEPAGE); /* a wish: without it the memory is only slower */
    }
    return p;
}

void alloc_unmap(struct alloc *a, enum mem_owner o, void *p, size_t size, bool reserve_only)
{
    if (p == NULL) {
        return;
    }
    size = whole_pages(size);
    munmap(p, size);
    if (!reserve_only) {
        uncharge(a, o, size);
    }
}

void alloc_discard(void *p, size_t size)
{
    uintptr_t first = ((uintptr_t)p + 4095) & ~(uintptr_t)4095;
    uintptr_t end = ((uintptr_t)p + size) & ~(uintptr_t)4095;
    if (first < end) {
        madvise((void *)first, end - first, MADV_DONTNEED);
    }
}

uint64_t alloc_used(const struct alloc *a)
{
    return atom_load(&a->total, relaxed);
}

uint64_t alloc_peak(const struct alloc *a)
{
    return atom_load(&a->peak, relaxed);
}

uint64_t alloc_calls(void)
{
    return calls;
}
