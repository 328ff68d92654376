/* slab_segment.c - Segments come and go: the table that finds them, the slots they hold at home.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The table is read without a lock and changed under the slab's. A reader may miss a segment while
 * the table is rebuilt in place, never find a wrong one, since the address is checked against the
 * segment's range; so a miss is repeated under the lock before it counts. For the same reason old
 * tables and descriptors of released segments stay readable: they are kept for reuse and freed at
 * destroy. Old tables add up to less than the present one.
 */
#include "arena/slab_segment.h"

#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

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

struct slab_segment *slab_find_(struct slab *s, uintptr_t p)
{
    struct slab_segment *g = table_find(s, p);
    if (g == NULL && !s->options.single_thread) {
        lock(s);
        g = table_find(s, p);
        unlock(s);
    }
    return g;
}

/* ---- segments -------------------------------------------------------------------------------- */

void slab_segment_unlist_locked_(struct slab *s, struct slab_segment *g)
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
    slab_segment_unlist_locked_(s, g);
    g->prev = front ? NULL : s->partial_last;
    g->next = front ? s->partial_first : NULL;
    *(g->prev != NULL ? &g->prev->next : &s->partial_first) = g;
    *(g->next != NULL ? &g->next->prev : &s->partial_last) = g;
    g->listed = true;
}

static size_t descriptor_bytes(size_t count)
{
    return sizeof(struct slab_segment) + (count + 63) / 64 * sizeof(uint64_t) + count;
}

/* A descriptor of `count` slots, all UNCARVED. NULL: no memory. */
static struct slab_segment *descriptor_get(struct slab *s, size_t count)
{
    for (struct slab_segment **at = &s->spare; *at != NULL; at = &(*at)->all_next) {
        struct slab_segment *g = *at;
        if (g->count == count) { /* its span never changes, see segment_holds() */
            *at = g->all_next;
            g->carved = g->home_count = g->quarantined = g->hint = 0;
            memset(g->home, 0, (count + 63) / 64 * sizeof(uint64_t));
            for (size_t i = 0; i < count; i++) {
                atom_store(&g->state[i], SLOT_UNCARVED, relaxed); /* relaxed: not linked yet */
            }
            return g;
        }
    }
    struct slab_segment *g = alloc_zero(s->alloc, s->options.owner, descriptor_bytes(count));
    if (g != NULL) {
        g->count = count;
        g->home = (uint64_t *)(void *)(g + 1);
        g->state = (_Atomic uint8_t *)(void *)(g->home + (count + 63) / 64);
    }
    return g;
}

/* Takes a run of memory into service. False: no memory for its descriptor or the table. */
bool slab_segment_add_locked_(struct slab *s, void *memory, size_t bytes, bool attached)
{
    size_t count = slots_in(s, (uintptr_t)memory, bytes);
    assert(count != 0);
    size_t granules = count * s->stride / ((size_t)1 << s->granule_shift) + 2;
    struct slab_segment *g = NULL;
    if (!table_grow_locked(s, granules) || (g = descriptor_get(s, count)) == NULL) {
        return false;
    }
    g->memory = memory;
    g->bytes = bytes;
    g->attached = attached;
    /* relaxed, here and below: published by the table's release. */
    atom_store(&g->leaving, false, relaxed);
    atom_store(&g->base, round_up((uintptr_t)memory, slot_align(s)), relaxed);
    atom_store(&g->span, count * s->stride, release); /* release: pairs with the acquire in segment_holds() */
    g->all_next = s->all;
    s->all = g;
    table_add(s, atom_load(&s->table, relaxed), g);
    list_add(s, g, attached);
    ASAN_POISON_MEMORY_REGION(slot_address(s, g, 0), count * s->stride);
    SLAB_ROOT_ADD(memory, bytes);
    s->segment_count++;
    s->bytes += bytes;
    s->slot_count += count;
    s->empty_count += !attached;
    return true;
}

void slab_segment_forget_locked_(struct slab *s, struct slab_segment *g)
{
    slab_segment_unlist_locked_(s, g);
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
bool slab_segment_release_locked_(struct slab *s, struct slab_segment *g)
{
    void *memory = g->memory;
    ASAN_UNPOISON_MEMORY_REGION(memory, g->bytes);
    SLAB_ROOT_REMOVE(memory, g->bytes);
    if (s->options.grow == NULL) {
        alloc_unmap(s->alloc, s->options.owner, memory, g->bytes, false);
    } else if (s->options.shrink == NULL ||
               s->options.shrink(s->options.hook_arg, memory, g->bytes) != LOAM_OK) {
        ASAN_POISON_MEMORY_REGION(slot_address(s, g, 0), g->count * s->stride);
        SLAB_ROOT_ADD(memory, g->bytes);
        return false;
    }
    slab_segment_forget_locked_(s, g);
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
    if (memory != NULL && slab_segment_add_locked_(s, memory, bytes, false)) {
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
            slab_object_close_(s, slot_address(s, g, slot));
        }
    }
    slot_step(g, slot, SLOT_CACHED);
    if (g->home_count == 0 && g->carved == g->count) {
        slab_segment_unlist_locked_(s, g);
    }
    return slot;
}

static void slot_come_home_locked(struct slab *s, struct slab_segment *g, size_t slot)
{
    slot_step(g, slot, SLOT_HOME);
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
            slab_segment_release_locked_(s, g);
        }
    }
}

uint32_t slab_refill_(void *arg, uint64_t *items, uint32_t n)
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

void slab_spill_(void *arg, const uint64_t *items, uint32_t n)
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

void slab_send_home_(struct slab *s, struct slab_segment *g, size_t slot)
{
    lock(s);
    slot_come_home_locked(s, g, slot);
    unlock(s);
}

/* ---- the end -------------------------------------------------------------------------------- */

static void descriptors_free(struct slab *s, struct slab_segment *g)
{
    while (g != NULL) {
        struct slab_segment *next = g->all_next;
        alloc_put(s->alloc, s->options.owner, g, descriptor_bytes(g->count));
        g = next;
    }
}

void slab_segments_destroy_(struct slab *s)
{
    for (struct slab_segment *g = s->all; g != NULL; g = g->all_next) {
        ASAN_UNPOISON_MEMORY_REGION(g->memory, g->bytes);
        SLAB_ROOT_REMOVE(g->memory, g->bytes);
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
}
