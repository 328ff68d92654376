/* slab.c - Segments, the table that finds them by address, and what their slots go through.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The table is read without a lock and changed under the slab's. A reader may miss a segment while
 * the table is rebuilt in place, never find a wrong one, since the address is checked against the
 * segment's range; so a miss is repeated under the lock before it counts. For the same reason old
 * tables and descriptors of released segments stay readable: they are kept for reuse and freed at
 * destroy. Old tables add up to less than the present one.
 */
#include "arena/slab.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define SLAB_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SLAB_ASAN 1
#endif
#endif
#if defined(SLAB_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define SLAB_ASAN                                0
#define ASAN_POISON_MEMORY_REGION(start, size)   ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#include "arena/poison.h"

#define SEGMENT_BYTES_MIN     ((size_t)16 << 10)
#define SEGMENT_BYTES_DEFAULT ((size_t)64 << 10)
#define SEGMENT_BYTES_MAX     ((size_t)2 << 20)
#define SEGMENT_SLOTS_MIN     8
#define CACHE_BYTES           ((size_t)32 << 10) /* per magazine */
#define RED_ZONE              16                 /* bytes after each object, under ASan */
#define POISON_BYTE           0xdd

__extension__ typedef unsigned __int128 uint128;

enum slot_state {
    SLOT_UNCARVED = 0,
    SLOT_HOME = 1,   /* free, in the segment */
    SLOT_CACHED = 2, /* free, in a magazine or the depot */
    SLOT_LIVE = 3,
    SLOT_QUARANTINE = 4
};

struct slab_segment {
    _Atomic uintptr_t base;    /* the first slot */
    _Atomic size_t span;       /* bytes of all slots; 0: released */
    _Atomic bool leaving;      /* detach was called */
    bool attached;             /* all that follows: guarded by the slab's mutex */
    bool listed;               /* on the partial list */
    size_t count;              /* slots */
    size_t carved;             /* slots that have left UNCARVED: the first ones */
    size_t home_count;         /* slots in HOME */
    size_t quarantined;        /* slots in QUARANTINE */
    size_t hint;               /* words of `home` below this one are 0 */
    size_t capacity;           /* slots that `state` and `home` have room for */
    void *memory;              /* as obtained */
    size_t bytes;              /* as obtained */
    struct slab_segment *next; /* partial list */
    struct slab_segment *prev;
    struct slab_segment *all_next; /* or the next spare descriptor */
    _Atomic uint8_t *state;        /* one per slot */
    uint64_t *home;                /* bitmap: slots in HOME */
};

struct slab_table {
    size_t size; /* cells, a power of two */
    size_t used; /* guarded by the slab's mutex */
    struct slab_table *old;
    struct slab_segment *_Atomic cell[];
};

/* ---- small things --------------------------------------------------------------------------- */

static void lock(struct slab *s)
{
    if (!s->options.single_thread) {
        mutex_lock(&s->mutex);
    }
}

static void unlock(struct slab *s)
{
    if (!s->options.single_thread) {
        mutex_unlock(&s->mutex);
    }
}

static bool power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) & ~(to - 1);
}

static size_t slot_align(const struct slab *s)
{
    return SLAB_ASAN && s->options.object_align < 8 ? 8 : s->options.object_align;
}

static bool segment_holds(const struct slab_segment *g, uintptr_t p)
{
    /* relaxed: constant while an object of the segment is live; else the answer is checked by the
     * state byte. */
    return p - atom_load(&g->base, relaxed) < atom_load(&g->span, relaxed);
}

static bool segment_is_empty(const struct slab_segment *g)
{
    return g->home_count + (g->count - g->carved) + g->quarantined == g->count;
}

/* The number of the slot at an offset into a segment; offset < 2^64 / stride. */
static size_t slot_number(const struct slab *s, size_t offset)
{
    if (s->stride_inverse == 0) { /* stride 1 */
        return offset;
    }
    return (size_t)((uint128)offset * s->stride_inverse >> 64);
}

static void *slot_address(const struct slab *s, const struct slab_segment *g, size_t slot)
{
    return (void *)(atom_load(&g->base, relaxed) + slot * s->stride); /* relaxed: constant here */
}

/* ---- finding the segment of an address ------------------------------------------------------- */

static size_t table_hash(uintptr_t granule)
{
    return (size_t)(granule * 0x9e3779b97f4a7c15u >> 24);
}

static struct slab_segment *table_find(const struct slab *s, uintptr_t p)
{
    /* acquire: pairs with the release in table_grow_locked(). */
    const struct slab_table *t = atom_load(&s->table, acquire);
    if (t == NULL) {
        return NULL;
    }
    size_t at = table_hash(p >> s->granule_shift);
    for (size_t i = 0; i < t->size; i++) {
        /* acquire: pairs with the release in table_add(); the descriptor is set. */
        struct slab_segment *g = atom_load(&t->cell[(at + i) & (t->size - 1)], acquire);
        if (g == NULL || segment_holds(g, p)) {
            return g;
        }
    }
    return NULL;
}

static size_t segment_granules(const struct slab *s, const struct slab_segment *g)
{
    uintptr_t base = atom_load(&g->base, relaxed); /* relaxed: guarded by the mutex */
    uintptr_t last = base + atom_load(&g->span, relaxed) - 1;
    return (size_t)((last >> s->granule_shift) - (base >> s->granule_shift)) + 1;
}

static void table_add(const struct slab *s, struct slab_table *t, struct slab_segment *g)
{
    /* relaxed: guarded by the mutex. */
    uintptr_t granule = atom_load(&g->base, relaxed) >> s->granule_shift;
    for (size_t n = segment_granules(s, g); n != 0; n--, granule++) {
        size_t at = table_hash(granule);
        while (atom_load(&t->cell[at & (t->size - 1)], relaxed) != NULL) { /* relaxed: as above */
            at++;
        }
        /* release: pairs with the acquire in table_find(). */
        atom_store(&t->cell[at & (t->size - 1)], g, release);
        t->used++;
    }
}

static size_t table_bytes(size_t cells)
{
    return sizeof(struct slab_table) + cells * sizeof(struct slab_segment *);
}

/* Makes room for `more` cells. False: no memory. */
static bool table_grow_locked(struct slab *s, size_t more)
{
    struct slab_table *t = atom_load(&s->table, relaxed); /* relaxed: guarded by the mutex */
    size_t used = t == NULL ? 0 : t->used;
    if (t != NULL && (used + more) * 2 <= t->size) {
        return true;
    }
    size_t cells = t == NULL ? 16 : t->size * 2;
    while (cells < (used + more) * 2) {
        cells *= 2;
    }
    struct slab_table *fresh = alloc_zero(s->alloc, s->options.owner, table_bytes(cells));
    if (fresh == NULL) {
        return false;
    }
    fresh->size = cells;
    fresh->old = t;
    for (struct slab_segment *g = s->all; g != NULL; g = g->all_next) {
        table_add(s, fresh, g);
    }
    atom_store(&s->table, fresh, release); /* release: pairs with the acquire in table_find() */
    return true;
}

/* After a segment has left: the others, again, in place. Readers may miss one meanwhile. */
static void table_rebuild_locked(struct slab *s)
{
    struct slab_table *t = atom_load(&s->table, relaxed); /* relaxed: guarded by the mutex */
    for (size_t i = 0; i < t->size; i++) {
        atom_store(&t->cell[i], NULL, relaxed); /* relaxed: a miss is repeated under the lock */
    }
    t->used = 0;
    for (struct slab_segment *g = s->all; g != NULL; g = g->all_next) {
        table_add(s, t, g);
    }
}

static struct slab_segment *find_slow(struct slab *s, uintptr_t p)
{
    struct slab_segment *g = table_find(s, p);
    if (g == NULL && !s->options.single_thread) {
        lock(s);
        g = table_find(s, p);
        unlock(s);
    }
    return g;
}

static inline struct slab_segment *find_segment(struct slab *s, struct magazine_cache *c,
                                                uintptr_t p)
{
    struct slab_segment *g = c != NULL ? c->hint : NULL;
    if (g == NULL || !segment_holds(g, p)) {
        g = find_slow(s, p);
        if (c != NULL && g != NULL) {
            c->hint = g;
        }
    }
    return g;
}

/* ---- segments -------------------------------------------------------------------------------- */

static void list_remove(struct slab *s, struct slab_segment *g)
{
    if (!g->listed) {
        return;
    }
    *(g->prev != NULL ? &g->prev->next : &s->partial_first) = g->next;
    *(g->next != NULL ? &g->next->prev : &s->partial_last) = g->prev;
    g->listed = false;
}

/* Used segments in front, so that empty ones stay empty. */
static void list_add(struct slab *s, struct slab_segment *g, bool front)
{
    list_remove(s, g);
    g->prev = front ? NULL : s->partial_last;
    g->next = front ? s->partial_first : NULL;
    *(g->prev != NULL ? &g->prev->next : &s->partial_first) = g;
    *(g->next != NULL ? &g->next->prev : &s->partial_last) = g;
    g->listed = true;
}

static size_t descriptor_bytes(size_t capacity)
{
    return sizeof(struct slab_segment) + (capacity + 63) / 64 * sizeof(uint64_t) + capacity;
}

/* A descriptor with room for `count` slots, all UNCARVED. NULL: no memory. */
static struct slab_segment *descriptor_get(struct slab *s, size_t count)
{
    for (struct slab_segment **at = &s->spare; *at != NULL; at = &(*at)->all_next) {
        struct slab_segment *g = *at;
        if (g->capacity >= count) {
            *at = g->all_next;
            g->carved = g->home_count = g->quarantined = g->hint = 0;
            memset(g->home, 0, (g->capacity + 63) / 64 * sizeof(uint64_t));
            for (size_t i = 0; i < g->capacity; i++) {
                atom_store(&g->state[i], SLOT_UNCARVED, relaxed); /* relaxed: not linked yet */
            }
            return g;
        }
    }
    struct slab_segment *g = alloc_zero(s->alloc, s->options.owner, descriptor_bytes(count));
    if (g != NULL) {
        g->capacity = count;
        g->home = (uint64_t *)(void *)(g + 1);
        g->state = (_Atomic uint8_t *)(void *)(g->home + (count + 63) / 64);
    }
    return g;
}

static size_t slots_in(const struct slab *s, uintptr_t memory, size_t size)
{
    size_t skip = round_up(memory, slot_align(s)) - memory;
    return size < skip ? 0 : (size - skip) / s->stride;
}

/* Takes a run of memory into service. False: no memory for its descriptor or the table. */
static bool segment_add_locked(struct slab *s, void *memory, size_t bytes, bool attached)
{
    size_t count = slots_in(s, (uintptr_t)memory, bytes);
    assert(count != 0);
    size_t granules = count * s->stride / ((size_t)1 << s->granule_shift) + 2;
    struct slab_segment *g = NULL;
    if (!table_grow_locked(s, granules) || (g = descriptor_get(s, count)) == NULL) {
        return false;
    }
    g->count = count;
    g->memory = memory;
    g->bytes = bytes;
    g->attached = attached;
    /* relaxed, here and below: published by the table's release. */
    atom_store(&g->leaving, false, relaxed);
    atom_store(&g->base, round_up((uintptr_t)memory, slot_align(s)), relaxed);
    atom_store(&g->span, count * s->stride, relaxed);
    g->all_next = s->all;
    s->all = g;
    table_add(s, atom_load(&s->table, relaxed), g);
    list_add(s, g, attached);
    ASAN_POISON_MEMORY_REGION(slot_address(s, g, 0), count * s->stride);
    s->segment_count++;
    s->bytes += bytes;
    s->slot_count += count;
    s->empty_count += !attached;
    return true;
}

static void segment_forget_locked(struct slab *s, struct slab_segment *g)
{
    list_remove(s, g);
    struct slab_segment **at = &s->all;
    while (*at != g) {
        at = &(*at)->all_next;
    }
    *at = g->all_next;
    s->segment_count--;
    s->bytes -= g->bytes;
    s->slot_count -= g->count;
    s->carved_count -= g->carved;
    s->empty_count -= !g->attached;
    atom_sub(&s->quarantined, g->quarantined, relaxed); /* relaxed: a statistic */
    atom_store(&g->span, 0, relaxed);                   /* relaxed: see segment_holds() */
    g->all_next = s->spare;
    s->spare = g;
    table_rebuild_locked(s);
}

/* Gives an empty mapped segment back. False: the hook keeps it. */
static bool segment_release_locked(struct slab *s, struct slab_segment *g)
{
    void *memory = g->memory;
    ASAN_UNPOISON_MEMORY_REGION(memory, g->bytes);
    if (s->options.grow == NULL) {
        alloc_unmap(s->alloc, s->options.owner, memory, g->bytes, false);
    } else if (s->options.shrink == NULL ||
               s->options.shrink(s->options.hook_arg, memory, g->bytes) != LOAM_OK) {
        ASAN_POISON_MEMORY_REGION(slot_address(s, g, 0), g->count * s->stride);
        return false;
    }
    segment_forget_locked(s, g);
    s->shrunk++;
    return true;
}

/* One more mapped segment. False: the thread's error says why. */
static bool grow_locked(struct slab *s)
{
    if (s->options.fixed) {
        FAIL(LOAM_E_BUDGET, "a slab of fixed memory is full: %zu slots", s->slot_count);
        return false;
    }
    size_t bytes = s->options.segment_bytes;
    void *memory = NULL;
    if (s->options.grow != NULL) {
        int rc = s->options.grow(s->options.hook_arg, bytes, bytes, &memory);
        if (rc != LOAM_OK || memory == NULL) {
            FAIL(rc < 0 ? rc : LOAM_E_NOMEM, "the slab's hook gave no segment of %zu bytes", bytes);
            return false;
        }
    } else {
        memory = alloc_map(s->alloc, s->options.owner, bytes, bytes, false, false);
    }
    if (memory != NULL && segment_add_locked(s, memory, bytes, false)) {
        s->grown++;
        return true;
    }
    if (memory != NULL && s->options.grow == NULL) {
        alloc_unmap(s->alloc, s->options.owner, memory, bytes, false);
    } else if (memory != NULL && s->options.shrink != NULL) {
        s->options.shrink(s->options.hook_arg, memory, bytes);
    }
    FAIL(LOAM_E_NOMEM, "no memory for a slab segment of %zu bytes", bytes);
    return false;
}

/* ---- the bytes of objects ----------------------------------------------------------------------
 */

/* Makes a cached slot an object; false: it was written to while it was free. */
static bool object_open(const struct slab *s, void *p)
{
    ASAN_UNPOISON_MEMORY_REGION(p, s->options.object_size);
    if (s->options.poison) {
        const unsigned char *bytes = p;
        for (size_t i = 0; i < s->options.object_size; i++) {
            if (bytes[i] != POISON_BYTE) {
                return false;
            }
        }
    }
    if (s->options.zero) {
        memset(p, 0, s->options.object_size);
    }
    return true;
}

static void object_close(const struct slab *s, void *p)
{
    if (s->options.poison) {
        memset(p, POISON_BYTE, s->options.object_size);
    }
    ASAN_POISON_MEMORY_REGION(p, s->options.object_size);
}

/* ---- slots between segment and magazines ----------------------------------------------------- */

/* Takes a slot at home or carves one. REQUIRES: there is one. */
static size_t slot_leave_locked(struct slab *s, struct slab_segment *g)
{
    s->empty_count -= !g->attached && segment_is_empty(g);
    size_t slot;
    if (g->home_count != 0) {
        while (g->home[g->hint] == 0) {
            g->hint++;
        }
        slot = g->hint * 64 + (size_t)__builtin_ctzll(g->home[g->hint]);
        g->home[g->hint] &= g->home[g->hint] - 1;
        g->home_count--;
    } else {
        slot = g->carved++;
        s->carved_count++;
        if (s->options.poison) {
            ASAN_UNPOISON_MEMORY_REGION(slot_address(s, g, slot), s->options.object_size);
            object_close(s, slot_address(s, g, slot));
        }
    }
    /* relaxed: the next to look has the slot from the magazines. */
    atom_store(&g->state[slot], SLOT_CACHED, relaxed);
    if (g->home_count == 0 && g->carved == g->count) {
        list_remove(s, g);
    }
    return slot;
}

static void slot_come_home_locked(struct slab *s, struct slab_segment *g, size_t slot)
{
    assert(atom_load(&g->state[slot], relaxed) == SLOT_CACHED); /* relaxed: ours */
    atom_store(&g->state[slot], SLOT_HOME, relaxed);            /* relaxed: as above */
    g->home[slot / 64] |= (uint64_t)1 << slot % 64;
    g->home_count++;
    if (slot / 64 < g->hint) {
        g->hint = slot / 64;
    }
    if (atom_load(&g->leaving, relaxed)) { /* relaxed: written under the mutex */
        return;
    }
    bool empty = segment_is_empty(g);
    if (empty || !g->listed) {
        list_add(s, g, !empty);
    }
    if (empty && !g->attached) {
        s->empty_count++;
        if (s->empty_count > 1) { /* one is kept, for the next growth */
            segment_release_locked(s, g);
        }
    }
}

static uint32_t refill(void *arg, uint64_t *items, uint32_t n)
{
    struct slab *s = arg;
    uint32_t got = 0;
    lock(s);
    while (got < n) {
        struct slab_segment *g = s->partial_first;
        if (g == NULL) {
            if (got != 0 || !grow_locked(s)) {
                break;
            }
            continue;
        }
        items[got++] = (uint64_t)(uintptr_t)slot_address(s, g, slot_leave_locked(s, g));
    }
    unlock(s);
    /* Ascending addresses come out first. */
    for (uint32_t i = 0; i < got / 2; i++) {
        uint64_t item = items[i];
        items[i] = items[got - 1 - i];
        items[got - 1 - i] = item;
    }
    return got;
}

static void spill(void *arg, const uint64_t *items, uint32_t n)
{
    struct slab *s = arg;
    lock(s);
    for (uint32_t i = 0; i < n; i++) {
        uintptr_t p = (uintptr_t)items[i];
        struct slab_segment *g = table_find(s, p);
        assert(g != NULL);
        /* relaxed: constant while the slot is cached. */
        slot_come_home_locked(s, g, slot_number(s, p - atom_load(&g->base, relaxed)));
    }
    unlock(s);
}

static void slot_send_home(struct slab *s, struct slab_segment *g, size_t slot)
{
    lock(s);
    slot_come_home_locked(s, g, slot);
    unlock(s);
}

/* ---- take and give --------------------------------------------------------------------------- */

static void quarantine(struct slab *s, struct slab_segment *g, size_t slot, void *p)
{
    lock(s);
    atom_store(&g->state[slot], SLOT_QUARANTINE, relaxed); /* relaxed: ours */
    g->quarantined++;
    atom_add(&s->quarantined, 1, relaxed);                 /* relaxed: a statistic */
    s->empty_count += !g->attached && segment_is_empty(g); /* it was the last one out */
    ASAN_POISON_MEMORY_REGION(p, s->options.object_size);
    unlock(s);
}

/* What a cached slot needs beyond the common case; NULL: it is no good, take another. */
static void *take_special(struct slab *s, struct slab_segment *g, size_t slot, void *p)
{
    if (atom_load(&g->leaving, relaxed)) { /* relaxed: detach looks again under the lock */
        slot_send_home(s, g, slot);
        return NULL;
    }
    if (!object_open(s, p)) {
        quarantine(s, g, slot, p);
        return NULL;
    }
    return p;
}

void *slab_take(struct slab *s)
{
    struct magazine_cache *c = magazine_cache_self(&s->magazines);
    uint64_t item;
    while (magazine_take(&s->magazines, c, &item)) {
        void *p = (void *)(uintptr_t)item;
        struct slab_segment *g = find_segment(s, c, (uintptr_t)p);
        assert(g != NULL);
        /* relaxed: constant while the slot is cached. */
        size_t slot = slot_number(s, (uintptr_t)p - atom_load(&g->base, relaxed));
        assert(atom_load(&g->state[slot], relaxed) == SLOT_CACHED); /* relaxed: ours */
        if (__builtin_expect(SLAB_ASAN || s->special ||
                                 atom_load(&g->leaving, relaxed), /* relaxed: as above */
                             0) &&
            take_special(s, g, slot, p) == NULL) {
            continue;
        }
        /* relaxed: the object and the duty to give it travel together. */
        atom_store(&g->state[slot], SLOT_LIVE, relaxed);
        magazine_count(&s->magazines, c, MAGAZINE_COUNT_IN);
        return p;
    }
    return NULL;
}

/* LIVE to CACHED, for one caller only. */
static inline bool slot_close(const struct slab *s, struct slab_segment *g, size_t slot)
{
    uint8_t live = SLOT_LIVE;
    /* relaxed, all: the slot's bytes are handed on by the magazines. */
    if (s->options.single_thread) {
        if (atom_load(&g->state[slot], relaxed) != SLOT_LIVE) {
            return false;
        }
        atom_store(&g->state[slot], SLOT_CACHED, relaxed);
        return true;
    }
    return atom_cas(&g->state[slot], &live, SLOT_CACHED, relaxed, relaxed);
}

static int give_refuse(struct slab *s, const char *why)
{
    atom_add(&s->rejected, 1, relaxed); /* relaxed: a statistic */
    return FAIL(LOAM_E_INVAL, "a slab of %zu-byte objects was given %s", s->options.object_size,
                why);
}

int slab_give(struct slab *s, void *p)
{
    if (p == NULL) {
        return LOAM_OK;
    }
    struct magazine_cache *c = magazine_cache_self(&s->magazines);
    struct slab_segment *g = find_segment(s, c, (uintptr_t)p);
    if (__builtin_expect(g == NULL, 0)) {
        return give_refuse(s, "a pointer that is not its own");
    }
    /* relaxed: constant while an object of the segment is live. */
    size_t offset = (uintptr_t)p - atom_load(&g->base, relaxed);
    size_t slot = slot_number(s, offset);
    if (__builtin_expect(slot * s->stride != offset || slot >= g->capacity, 0)) {
        return give_refuse(s, "a pointer into an object");
    }
    if (__builtin_expect(!slot_close(s, g, slot), 0)) {
        return give_refuse(s, "an object that is not live");
    }
    if (SLAB_ASAN || s->special) {
        object_close(s, p);
    }
    magazine_count(&s->magazines, c, MAGAZINE_COUNT_OUT);
    if (__builtin_expect(atom_load(&g->leaving, relaxed), 0)) { /* relaxed: as in take */
        slot_send_home(s, g, slot);
    } else {
        magazine_give(&s->magazines, c, (uint64_t)(uintptr_t)p);
    }
    return LOAM_OK;
}

void slab_box_close_(struct slab_box *b)
{
    slab_give(b->slab, b->object);
}

/* ---- memory of the caller, and memory given back ----------------------------------------------
 */

size_t slab_slots_in(const struct slab *s, const void *memory, size_t size)
{
    return slots_in(s, (uintptr_t)memory, size);
}

static bool overlaps_locked(const struct slab *s, uintptr_t memory, size_t size)
{
    for (const struct slab_segment *g = s->all; g != NULL; g = g->all_next) {
        uintptr_t start = (uintptr_t)g->memory;
        if (memory < start + g->bytes && start < memory + size) {
            return true;
        }
    }
    return false;
}

int slab_attach(struct slab *s, void *memory, size_t size)
{
    if (memory == NULL || size > UINTPTR_MAX - (uintptr_t)memory ||
        slots_in(s, (uintptr_t)memory, size) == 0 || size > UINT64_MAX / s->stride) {
        return FAIL(LOAM_E_INVAL, "%zu bytes hold no slot of %zu bytes", size, s->stride);
    }
    int rc = LOAM_OK;
    lock(s);
    if (overlaps_locked(s, (uintptr_t)memory, size)) {
        rc = FAIL(LOAM_E_INVAL, "the memory belongs to the slab already");
    } else if (!segment_add_locked(s, memory, size, true)) {
        rc = FAIL(LOAM_E_NOMEM, "no memory to describe %zu bytes", size);
    }
    unlock(s);
    return rc;
}

static struct slab_segment *attached_locked(const struct slab *s, const void *memory)
{
    struct slab_segment *g = s->all;
    while (g != NULL && (g->memory != memory || !g->attached)) {
        g = g->all_next;
    }
    return g;
}

int slab_detach(struct slab *s, void *memory)
{
    lock(s);
    struct slab_segment *g = attached_locked(s, memory);
    if (g != NULL) {
        atom_store(&g->leaving, true, relaxed); /* relaxed: a request; the lock decides below */
        list_remove(s, g);
    }
    unlock(s);
    if (g == NULL) {
        return FAIL(LOAM_E_NOENT, "the memory is not attached to the slab");
    }
    magazine_drain(&s->magazines);
    int rc = LOAM_OK;
    lock(s);
    g = attached_locked(s, memory);
    if (g == NULL) {
        rc = FAIL(LOAM_E_NOENT, "the memory was detached by another thread");
    } else if (!segment_is_empty(g)) {
        rc = FAIL(LOAM_E_BUSY, "%zu slots of the memory are in use",
                  g->carved - g->home_count - g->quarantined);
    } else {
        ASAN_UNPOISON_MEMORY_REGION(g->memory, g->bytes);
        segment_forget_locked(s, g);
    }
    unlock(s);
    return rc;
}

size_t slab_trim(struct slab *s)
{
    magazine_drain(&s->magazines);
    lock(s);
    size_t before = s->bytes;
    struct slab_segment *next = NULL;
    for (struct slab_segment *g = s->all; g != NULL; g = next) {
        next = g->all_next;
        if (!g->attached && segment_is_empty(g)) {
            segment_release_locked(s, g);
        }
    }
    size_t released = before - s->bytes;
    unlock(s);
    return released;
}

/* ---- looking ----------------------------------------------------------------------------------
 */

static size_t live_count(const struct slab *s)
{
    uint64_t out = magazine_counted(&s->magazines, MAGAZINE_COUNT_OUT);
    uint64_t in = magazine_counted(&s->magazines, MAGAZINE_COUNT_IN);
    return in > out ? (size_t)(in - out) : 0;
}

void slab_stats(struct slab *s, struct slab_stats *out)
{
    memset(out, 0, sizeof *out);
    out->given = magazine_counted(&s->magazines, MAGAZINE_COUNT_OUT);
    out->taken = magazine_counted(&s->magazines, MAGAZINE_COUNT_IN);
    out->live = live_count(s);
    /* relaxed: statistics */
    out->rejected = atom_load(&s->rejected, relaxed);
    out->quarantined = atom_load(&s->quarantined, relaxed);
    lock(s);
    out->segments = s->segment_count;
    out->bytes = s->bytes;
    out->slots = s->slot_count;
    out->carved = s->carved_count;
    out->grown = s->grown;
    out->shrunk = s->shrunk;
    unlock(s);
    size_t away = out->live + (size_t)out->quarantined;
    out->free = out->slots > away ? out->slots - away : 0;
    if (out->live == 0) {
        out->state = SLAB_FREE;
    } else {
        out->state = out->free == 0 ? SLAB_FULL : SLAB_PARTIAL;
    }
}

enum slab_state slab_state(struct slab *s)
{
    struct slab_stats t;
    slab_stats(s, &t);
    return t.state;
}

bool slab_has_free(struct slab *s)
{
    struct slab_stats t;
    slab_stats(s, &t);
    return t.free != 0;
}

/* ---- lifetime ---------------------------------------------------------------------------------
 */

/* Checks the options and fills in the defaults. */
static int options_settle(struct slab_options *o)
{
    if (o->object_size == 0 || o->object_size > SIZE_MAX / 32) {
        return FAIL(LOAM_E_INVAL, "a slab's object size is %zu", o->object_size);
    }
    if (o->object_align == 0) {
        size_t natural = o->object_size & (~o->object_size + 1);
        o->object_align = natural < 16 ? natural : 16;
    }
    if (!power_of_two(o->object_align) || o->object_align > SEGMENT_BYTES_MAX) {
        return FAIL(LOAM_E_INVAL, "a slab's alignment is %zu, no power of two up to 2 MiB",
                    o->object_align);
    }
    if (o->segment_bytes == 0) {
        o->segment_bytes = SEGMENT_BYTES_DEFAULT;
    }
    if (!power_of_two(o->segment_bytes) || o->segment_bytes < SEGMENT_BYTES_MIN ||
        o->segment_bytes > SEGMENT_BYTES_MAX) {
        return FAIL(LOAM_E_INVAL,
                    "a slab's segment size is %zu, no power of two of 16 KiB to 2 MiB",
                    o->segment_bytes);
    }
    if (o->cache_items > MAGAZINE_ITEMS) {
        return FAIL(LOAM_E_INVAL, "a slab's cache_items is %u, at most %d", o->cache_items,
                    MAGAZINE_ITEMS);
    }
    return LOAM_OK;
}

static uint32_t cache_items(const struct slab *s)
{
    if (s->options.cache_items != 0) {
        return s->options.cache_items;
    }
    size_t n = CACHE_BYTES / s->stride;
    return n < 1 ? 1 : n > MAGAZINE_ITEMS ? MAGAZINE_ITEMS : (uint32_t)n;
}

int slab_init(struct slab *s, struct alloc *a, const struct slab_options *o)
{
    memset(s, 0, sizeof *s);
    s->options = *o;
    s->alloc = a;
    int rc = options_settle(&s->options);
    if (rc != LOAM_OK) {
        return rc;
    }
    size_t red_zone = SLAB_ASAN ? RED_ZONE : 0;
    s->stride = round_up(s->options.object_size + red_zone, slot_align(s));
    s->stride_inverse = UINT64_MAX / s->stride + 1;
    while (s->options.segment_bytes / s->stride < SEGMENT_SLOTS_MIN) {
        s->options.segment_bytes *= 2;
    }
    s->granule_shift = (unsigned)__builtin_ctzll(s->options.segment_bytes);
    s->special = s->options.zero || s->options.poison;
    atom_store(&s->users, 1, relaxed); /* relaxed: not shared yet */
    struct magazine_options m = {.alloc = a,
                                 .owner = s->options.owner,
                                 .limit = cache_items(s),
                                 .single_thread = s->options.single_thread,
                                 .refill = refill,
                                 .spill = spill,
                                 .arg = s};
    rc = magazine_set_init(&s->magazines, &m);
    if (rc == LOAM_OK) {
        mutex_init(&s->mutex, RANK_MAGAZINE_SOURCE);
    }
    return rc;
}

static void descriptors_free(struct slab *s, struct slab_segment *g)
{
    while (g != NULL) {
        struct slab_segment *next = g->all_next;
        alloc_put(s->alloc, s->options.owner, g, descriptor_bytes(g->capacity));
        g = next;
    }
}

void slab_destroy(struct slab *s)
{
    magazine_set_destroy(&s->magazines);
    for (struct slab_segment *g = s->all; g != NULL; g = g->all_next) {
        ASAN_UNPOISON_MEMORY_REGION(g->memory, g->bytes);
        if (g->attached) {
            continue;
        }
        if (s->options.grow == NULL) {
            alloc_unmap(s->alloc, s->options.owner, g->memory, g->bytes, false);
        } else if (s->options.shrink != NULL) {
            s->options.shrink(s->options.hook_arg, g->memory, g->bytes);
        }
    }
    descriptors_free(s, s->all);
    descriptors_free(s, s->spare);
    struct slab_table *t = atom_load(&s->table, relaxed); /* relaxed: nobody else is left */
    while (t != NULL) {
        struct slab_table *old = t->old;
        alloc_put(s->alloc, s->options.owner, t, table_bytes(t->size));
        t = old;
    }
    mutex_destroy(&s->mutex);
}

void slab_retain(struct slab *s)
{
    atom_add(&s->users, 1, relaxed); /* relaxed: the caller holds a use */
}

bool slab_release(struct slab *s)
{
    /* acq_rel: the last one sees what the others did. */
    if (atom_sub(&s->users, 1, acq_rel) != 1) {
        return false;
    }
    slab_destroy(s);
    return true;
}
