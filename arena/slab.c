/* slab.c - Objects taken and given back; the slab's memory, numbers and lifetime.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states are in slab.h, the steps between them and the segments in slab_segment.h. A take or a
 * give finds its segment through the thread's hint, the one used last, and only then by the table.
 */
#include "arena/slab.h"

#include <assert.h>
#include <string.h>

#include "arena/slab_segment.h"
#include "arena/status.h"

#include "arena/poison.h"

#define SEGMENT_BYTES_MIN     ((size_t)16 << 10)
#define SEGMENT_BYTES_DEFAULT ((size_t)64 << 10)
#define SEGMENT_BYTES_MAX     ((size_t)2 << 20)
#define SEGMENT_SLOTS_MIN     8
#define CACHE_BYTES           ((size_t)32 << 10) /* per magazine */
#define RED_ZONE              16                 /* bytes after each object, under ASan */
#define POISON_BYTE           0xdd

/* ---- the bytes of objects ------------------------------------------------------------------- */

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

void slab_object_close_(const struct slab *s, void *p)
{
    if (s->options.poison) {
        memset(p, POISON_BYTE, s->options.object_size);
    }
    ASAN_POISON_MEMORY_REGION(p, s->options.object_size);
}

/* ---- take and give --------------------------------------------------------------------------- */

static void quarantine(struct slab *s, struct slab_segment *g, size_t slot, void *p)
{
    lock(s);
    slot_step(g, slot, SLOT_QUARANTINE);
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
        slab_send_home_(s, g, slot);
        return NULL;
    }
    if (!object_open(s, p)) {
        quarantine(s, g, slot, p);
        return NULL;
    }
    return p;
}

static __attribute__((noinline)) void *take_slow(struct slab *s)
{
    struct magazine_cache *c = magazine_cache_self(&s->magazines);
    uint64_t item;
    while (magazine_take(&s->magazines, c, &item)) {
        void *p = (void *)(uintptr_t)item;
        struct slab_segment *g = find_segment(s, c, (uintptr_t)p);
        assert(g != NULL);
        /* relaxed: constant while the slot is cached. */
        size_t slot = slot_number(s, (uintptr_t)p - atom_load(&g->base, relaxed));
        if (__builtin_expect(LOAM_ASAN || s->special ||
                                 atom_load(&g->leaving, relaxed), /* relaxed: as above */
                             0) &&
            take_special(s, g, slot, p) == NULL) {
            continue;
        }
        slot_step(g, slot, SLOT_LIVE);
        magazine_count(&s->magazines, c, MAGAZINE_COUNT_IN);
        return p;
    }
    return NULL;
}

/* The common case: an object on top of the thread's magazine, of the segment used last. */
void *slab_take(struct slab *s)
{
    struct magazine_cache *c = magazine_cache_near(&s->magazines);
    if (__builtin_expect(c != NULL && c->hint != NULL, 1)) {
        struct magazine *m = &c->magazine[c->loaded];
        struct slab_segment *g = c->hint;
        uint32_t n = m->count;
        if (__builtin_expect(n != 0 && !LOAM_ASAN && !s->special, 1)) {
            uintptr_t p = (uintptr_t)m->item[n - 1];
            /* relaxed, both: constant while the slot is cached; detach looks again under the lock. */
            size_t offset = p - atom_load(&g->base, relaxed);
            if (__builtin_expect(segment_holds(g, p) && !atom_load(&g->leaving, relaxed), 1)) {
                m->count = n - 1;
                slot_step(g, slot_number(s, offset), SLOT_LIVE);
                magazine_count(&s->magazines, c, MAGAZINE_COUNT_IN);
                return (void *)p;
            }
        }
    }
    return take_slow(s);
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
        slot_step(g, slot, SLOT_CACHED);
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

static __attribute__((noinline)) int give_slow(struct slab *s, void *p)
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
    if (__builtin_expect(slot * s->stride != offset || slot >= g->count, 0)) {
        return give_refuse(s, "a pointer into an object");
    }
    if (__builtin_expect(!slot_close(s, g, slot), 0)) {
        return give_refuse(s, "an object that is not live");
    }
    if (LOAM_ASAN || s->special) {
        slab_object_close_(s, p);
    }
    magazine_count(&s->magazines, c, MAGAZINE_COUNT_OUT);
    if (__builtin_expect(atom_load(&g->leaving, relaxed), 0)) { /* relaxed: as in take */
        slab_send_home_(s, g, slot);
    } else {
        magazine_give(&s->magazines, c, (uint64_t)(uintptr_t)p);
    }
    return LOAM_OK;
}

/* The common case: an object of the segment used last, into the thread's magazine. What is not in order
 * changes nothing here. */
int slab_give(struct slab *s, void *object)
{
    struct magazine_cache *c = magazine_cache_near(&s->magazines);
    if (__builtin_expect(c != NULL && c->hint != NULL, 1)) {
        struct magazine *m = &c->magazine[c->loaded];
        struct slab_segment *g = c->hint;
        uint32_t n = m->count;
        uintptr_t p = (uintptr_t)object;
        if (__builtin_expect(n < s->magazines.options.limit && segment_holds(g, p) && !LOAM_ASAN &&
                                 !s->special,
                             1)) {
            /* relaxed, both: as in slab_take(). */
            size_t offset = p - atom_load(&g->base, relaxed);
            size_t slot = slot_number(s, offset);
            if (__builtin_expect(!atom_load(&g->leaving, relaxed) && slot * s->stride == offset &&
                                     slot_close(s, g, slot),
                                 1)) {
                m->count = n + 1;
                m->item[n] = p;
                magazine_count(&s->magazines, c, MAGAZINE_COUNT_OUT);
                return LOAM_OK;
            }
        }
    }
    return give_slow(s, object);
}

void slab_box_close_(struct slab_box *b)
{
    slab_give(b->slab, b->object);
}

/* ---- memory of the caller, and memory given back --------------------------------------------- */

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
    } else if (!slab_segment_add_locked_(s, memory, size, true)) {
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
        slab_segment_unlist_locked_(s, g);
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
        SLAB_ROOT_REMOVE(g->memory, g->bytes);
        slab_segment_forget_locked_(s, g);
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
            slab_segment_release_locked_(s, g);
        }
    }
    size_t released = before - s->bytes;
    unlock(s);
    return released;
}

/* ---- looking --------------------------------------------------------------------------------- */

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

/* ---- lifetime -------------------------------------------------------------------------------- */

static bool power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

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
    size_t red_zone = LOAM_ASAN ? RED_ZONE : 0;
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
                                 .refill = slab_refill_,
                                 .spill = slab_spill_,
                                 .arg = s};
    rc = magazine_set_init(&s->magazines, &m);
    if (rc == LOAM_OK) {
        mutex_init(&s->mutex, RANK_MAGAZINE_SOURCE);
    }
    return rc;
}

void slab_destroy(struct slab *s)
{
    magazine_set_destroy(&s->magazines);
    slab_segments_destroy_(s);
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

void slab_fork_prepare(struct slab *s)
{
    magazine_fork_prepare(&s->magazines);
    mutex_lock_unranked(&s->mutex);
}

void slab_fork_done(struct slab *s)
{
    mutex_unlock(&s->mutex);
    magazine_fork_done(&s->magazines);
}
