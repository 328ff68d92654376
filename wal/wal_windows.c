/* wal_windows.c - Maps the log around its tail and places the records that windows cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Windows are shown under tail_mu, and only while their segment is mappable. A segment found through a
 * tail word that was loaded under tail_mu cannot be dropped before the mutex is free:
 * wal_windows_drop() takes it, and comes after the tail has left the segment. A writer that lacks a
 * window maps it under the mutex; what is mapped ahead is mapped without it (`mappers` keeps the file
 * open), so that no writer waits for a window that it does not need. Both may map the same window:
 * the second to come finds it shown and gives its own back, and both are the same bytes.
 * Windows go, under mu, when no record will come to them any more.
 */
#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

static int map_error(uint64_t number, uint64_t k, size_t bytes, int rc)
{
    return FAIL_IO(rc, number, k * bytes, "cannot map window %llu of log segment %llu",
                   (unsigned long long)k, (unsigned long long)number);
}

static size_t window_bytes(const struct wal_segment *seg)
{
    /* relaxed: constant while the segment is READY. */
    return (size_t)1 << atom_load(&seg->shift, relaxed);
}

static bool missing_locked(const struct wal *w, const struct wal_segment *seg, uint64_t k)
{
    mutex_assert_held(&w->tail_mu);
    /* relaxed: windows are shown under tail_mu. */
    return seg->mappable && k >= seg->behind && k < WAL_WINDOWS &&
           k * window_bytes(seg) < seg->capacity &&
           atom_load(&seg->window[k], relaxed) == NULL;
}

static void show_locked(struct wal *w, struct wal_segment *seg, uint64_t k, uint8_t *p)
{
    mutex_assert_held(&w->tail_mu);
    /* release: pairs with the acquire in wal_begin; who sees the address may store there. */
    atom_store(&seg->window[k], p, release);
}

static int map_range_locked(struct wal *w, struct wal_segment *seg, uint64_t first, uint64_t last)
{
    for (uint64_t k = first; k <= last; k++) {
        if (!missing_locked(w, seg, k)) {
            continue;
        }
        uint8_t *p;
        int rc = wal_window_map(seg, &w->place, (uint32_t)k, &p);
        if (rc < 0) {
            return map_error(seg->number, k, window_bytes(seg), rc);
        }
        show_locked(w, seg, k, p);
    }
    return LOAM_OK;
}

/* Reads of each page, so that it is not a writer who comes to it first: under a hypervisor that keeps page tables
 * of its own that costs 5 us, with a record open and all that follow it waiting. Another map of the same bytes may be
 * stored through meanwhile. */
OUTSIDE_TSAN static void touch_pages(const uint8_t *p, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += WAL_PAGE) {
        /* relaxed: what it reads is not used. */
        (void)atomic_load_explicit((const _Atomic uint8_t *)(const void *)(p + at), memory_order_relaxed);
    }
}

/* Maps a missing window; 0 or -errno. ahead: of the writers, so there is time to touch its pages. REQUIRES: tail_mu,
 * which is free on return. */
static int map_aside(struct wal *w, struct wal_segment *seg, uint32_t k, bool ahead)
{
    uint8_t *p = NULL;
    size_t bytes = window_bytes(seg);
    assert(missing_locked(w, seg, k));
    seg->mappers++;
    mutex_unlock(&w->tail_mu);
    int rc = wal_window_map(seg, &w->place, k, &p);
    if (seg->reused) {
        wal_window_prefetch(seg, &w->place, k + WAL_PREFETCH_BYTES / bytes);
    }
    if (p != NULL && ahead) {
        touch_pages(p, bytes); /* while the disk reads */
    }
    mutex_lock(&w->tail_mu);
    if (p != NULL && missing_locked(w, seg, k)) {
        show_locked(w, seg, k, p);
        p = NULL;
    }
    if (--seg->mappers == 0) {
        cond_broadcast(&w->mapped_cv);
    }
    mutex_unlock(&w->tail_mu);
    if (p != NULL) {
        wal_window_unmap(&w->place, p, bytes);
    }
    return rc;
}

uint8_t *wal_stage_take(struct wal *w, uint64_t size)
{
    if (size <= WAL_STAGE_BYTES) {
        /* acquire: pairs with the release in wal_stage_give; the last user is done with it. */
        uint8_t *kept = atom_swap(&w->stage, NULL, acquire);
        if (kept != NULL) {
            return kept;
        }
        size = WAL_STAGE_ROOM;
    }
    uint8_t *p = alloc_get(w->place.alloc, MEM_LOG, (size_t)size);
    if (p == NULL) {
        (void)FAIL(LOAM_E_NOMEM, "no memory for a log record of %llu bytes",
                   (unsigned long long)size);
    }
    return p;
}

void wal_stage_give(struct wal *w, uint8_t *stage, uint64_t size)
{
    if (size > WAL_STAGE_BYTES) {
        alloc_put(w->place.alloc, MEM_LOG, stage, (size_t)size);
        return;
    }
    uint8_t *none = NULL;
    /* release: pairs with the acquire in wal_stage_take. */
    if (!atom_cas(&w->stage, &none, stage, release, relaxed)) {
        alloc_put(w->place.alloc, MEM_LOG, stage, WAL_STAGE_ROOM);
    }
}

/* The place of a record, as one look at the tail has it. */
struct spot {
    uint64_t tail;
    struct wal_segment *seg;
    uint64_t position;
    uint64_t first, last; /* windows */
    uint64_t offset;      /* from the segment's base */
    uint64_t in_first;    /* offset in the first window */
    bool fits;            /* in the segment */
};

static struct spot look_locked(struct wal *w, uint64_t size)
{
    struct spot at;
    /* acquire: pairs with the release of wal_switch; the slot's words are the tail's. */
    at.tail = atom_load(&w->tail, acquire);
    at.seg = wal_slot_of_tail(w, at.tail);
    at.position = wal_tail_position(at.tail);
    /* relaxed, here and in the callers: stable while tail_mu keeps the segment from being dropped.
     */
    uint64_t limit = atom_load(&at.seg->limit, relaxed);
    uint64_t d = at.position - atom_load(&at.seg->base, relaxed);
    uint32_t shift = atom_load(&at.seg->shift, relaxed);
    at.offset = d;
    at.first = d >> shift;
    at.last = (d + size - 1) >> shift;
    at.in_first = d & (((uint64_t)1 << shift) - 1);
    at.fits = limit >= at.position && limit - at.position >= size;
    return at;
}

/* Takes the spot if the tail is still there. */
static bool claim_locked(struct wal *w, const struct spot *at, uint64_t size, uint8_t *stage,
                         struct wal_slot *s)
{
    uint64_t seen = at->tail;
    /* release: wal_sync reads the tail; acquire: pairs with wal_switch. */
    if (!atom_cas(&w->tail, &seen, at->tail + (size << 8), acq_rel, relaxed)) {
        return false;
    }
    s->position = at->position;
    s->end = at->position + size;
    s->salt = at->seg->salt;
    s->generation = atom_load(&at->seg->generation, relaxed);
    bool crosses = at->first != at->last;
    s->staged = crosses;
    s->written = false;
    s->given = true;
    s->at_edge = true;
    uint8_t *record =
        crosses ? stage : atom_load(&at->seg->window[at->first], relaxed) + at->in_first;
    s->payload = record + WAL_RECORD_HEADER;
    return true;
}

/* Bounded only by others' success: each lost claim is a record or switch of another thread, and
 * after one of those a record that crossed a boundary does so no more. */
static int reserve_locked(struct wal *w, uint64_t size, uint8_t **stage, struct wal_slot *s)
{
    for (;;) {
        struct spot at = look_locked(w, size);
        if (!at.fits) {
            return WAL_FULL;
        }
        int rc = map_range_locked(w, at.seg, at.first, at.last);
        if (rc < 0) {
            return rc;
        }
        if (at.first != at.last && *stage == NULL) {
            *stage = wal_stage_take(w, size);
            if (*stage == NULL) {
                return LOAM_E_NOMEM;
            }
        }
        if (claim_locked(w, &at, size, *stage, s)) {
            return LOAM_OK;
        }
    }
}

/* Whether the windows that are mapped ahead of a record just reserved run short. */
static bool short_locked(const struct wal *w, const struct wal_slot *s)
{
    const struct wal_segment *seg = &w->slots[s->generation % WAL_SLOTS];
    /* relaxed: the record is not applied, so the segment stays; the mark is a wish. */
    uint64_t offset = s->end - atom_load(&seg->base, relaxed);
    return missing_locked(w, seg, (offset + atom_load(&w->low_mark, relaxed)) / window_bytes(seg) + 1);
}

int wal_windows_reserve(struct wal *w, uint64_t size, struct wal_slot *s)
{
    uint8_t *stage = NULL;
    mutex_lock(&w->tail_mu);
    int rc = reserve_locked(w, size, &stage, s);
    bool wake = rc == LOAM_OK && short_locked(w, s);
    mutex_unlock(&w->tail_mu);
    if (stage != NULL && (rc != LOAM_OK || !s->staged)) {
        wal_stage_give(w, stage, size);
    }
    if (wake) {
        wal_wake_keeper(w);
    }
    return rc;
}

void wal_windows_store(struct wal *w, uint64_t position, uint32_t generation, const uint8_t *data,
                       uint64_t n)
{
    struct wal_segment *seg = wal_slot_of(w, generation);
    /* relaxed: the record is reserved and not applied, so the segment and its windows stay. */
    uint64_t d = position - atom_load(&seg->base, relaxed);
    uint32_t shift = atom_load(&seg->shift, relaxed);
    uint64_t window = (uint64_t)1 << shift;
    while (n != 0) {
        uint64_t in = d & (window - 1);
        uint64_t part = window - in < n ? window - in : n;
        /* acquire: pairs with the release in show_locked(). */
        uint8_t *p = atom_load(&seg->window[d >> shift], acquire);
        assert(p != NULL);
        memcpy(p + in, data, (size_t)part);
        d += part;
        data += part;
        n -= part;
    }
}

void wal_windows_allow(struct wal *w, struct wal_segment *seg)
{
    mutex_lock(&w->tail_mu);
    seg->mappable = true;
    mutex_unlock(&w->tail_mu);
}

int wal_windows_first(struct wal *w, uint32_t generation, bool ahead)
{
    struct wal_segment *seg = wal_slot_of(w, generation);
    mutex_lock(&w->tail_mu);
    /* relaxed: while the segment is mappable, of its generation. */
    if (!missing_locked(w, seg, 0) || atom_load(&seg->generation, relaxed) != generation) {
        mutex_unlock(&w->tail_mu);
        return 0;
    }
    return map_aside(w, seg, 0, ahead);
}

int wal_windows_ahead(struct wal *w, uint64_t bytes)
{
    for (uint64_t i = 0; i < WAL_WINDOWS; i++) {
        mutex_lock(&w->tail_mu);
        struct spot at = look_locked(w, 1);
        uint64_t k = at.first + i;
        bool last = k >= (at.offset + bytes) / window_bytes(at.seg);
        if (!missing_locked(w, at.seg, k)) {
            mutex_unlock(&w->tail_mu);
        } else {
            uint64_t number = at.seg->number;
            size_t window = window_bytes(at.seg);
            int rc = map_aside(w, at.seg, (uint32_t)k, true);
            if (rc < 0) {
                return map_error(number, k, window, rc);
            }
        }
        if (last) {
            break;
        }
    }
    return LOAM_OK;
}

/* REQUIRES: mu, or no other call is running; nobody will want the window again. */
static void unmap_at(struct wal *w, struct wal_segment *seg, uint32_t k)
{
    /* relaxed: it is shown when it is NULL, and taken away here, where only one thread is. */
    uint8_t *p = atom_load(&seg->window[k], relaxed);
    if (p != NULL) {
        atom_store(&seg->window[k], NULL, relaxed); /* no writer can still reserve in it */
        wal_window_unmap(&w->place, p, window_bytes(seg));
    }
}

void wal_windows_drop(struct wal *w, struct wal_segment *seg)
{
    mutex_lock(&w->tail_mu);
    seg->mappable = false;
    while (seg->mappers != 0) {
        cond_wait(&w->mapped_cv, &w->tail_mu);
    }
    mutex_unlock(&w->tail_mu);
    for (uint32_t k = 0; k < WAL_WINDOWS; k++) {
        unmap_at(w, seg, k);
    }
}

/* The first position behind the records of generation g; none known for the current one. */
static uint64_t end_of_locked(struct wal *w, uint32_t g)
{
    /* relaxed: current, and base of older ones, are written under mu. */
    if (g == atom_load(&w->current, relaxed)) {
        return UINT64_MAX;
    }
    return atom_load(&wal_slot_of(w, g + 1)->base, relaxed);
}

void wal_windows_behind(struct wal *w, uint64_t applied)
{
    mutex_assert_held(&w->mu);
    /* relaxed: written under mu. */
    for (uint32_t g = atom_load(&w->oldest, relaxed); g <= atom_load(&w->current, relaxed); g++) {
        struct wal_segment *seg = wal_slot_of(w, g);
        uint64_t base = atom_load(&seg->base, relaxed);
        uint32_t shift = atom_load(&seg->shift, relaxed);
        if (applied <= base) {
            return;
        }
        /* Behind its end the last window of an old segment has nothing more to come. */
        bool all = applied >= end_of_locked(w, g);
        uint64_t bound = all ? WAL_WINDOWS : (applied - base) >> shift;
        while (seg->behind < WAL_WINDOWS && seg->behind < bound) {
            mutex_lock(&w->tail_mu); /* who is mapping it just now does not show it from here on */
            uint32_t k = seg->behind++;
            mutex_unlock(&w->tail_mu);
            unmap_at(w, seg, k);
        }
    }
}
