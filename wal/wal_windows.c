/* wal_windows.c - Maps the log around its tail and places the records that windows cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All tables of windows change under tail_mu. A segment found through a tail word that was loaded
 * under tail_mu cannot be dropped before the mutex is free: wal_windows_drop() takes it, and comes
 * after the tail has left the segment.
 */
#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

static int map_error(const struct wal_segment *seg, int rc, uint32_t k)
{
    /* relaxed: constant while the segment is alive. */
    return FAIL_IO(rc, seg->number, (uint64_t)k << atom_load(&seg->shift, relaxed),
                   "cannot map window %u of log segment %llu", k, (unsigned long long)seg->number);
}

static int map_range_locked(struct wal *w, struct wal_segment *seg, uint64_t first, uint64_t last)
{
    mutex_assert_held(&w->tail_mu);
    for (uint64_t k = first; k <= last && k < WAL_WINDOWS; k++) {
        int rc = wal_segment_map(seg, &w->place, (uint32_t)k);
        if (rc < 0) {
            return map_error(seg, rc, (uint32_t)k);
        }
    }
    return LOAM_OK;
}

uint8_t *wal_stage_take(struct wal *w, uint64_t size)
{
    if (size <= WAL_STAGE_BYTES) {
        /* acquire: pairs with the release in wal_stage_give; the last user is done with it. */
        uint8_t *kept = atom_swap(&w->stage, NULL, acquire);
        if (kept != NULL) {
            return kept;
        }
        size = WAL_STAGE_BYTES;
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
        alloc_put(w->place.alloc, MEM_LOG, stage, WAL_STAGE_BYTES);
    }
}

/* The place of a record, as one look at the tail has it. */
struct spot {
    uint64_t tail;
    struct wal_segment *seg;
    uint64_t position;
    uint64_t first, last; /* windows */
    uint64_t in_first;    /* offset in the first window */
    bool fits;            /* in the segment */
};

static struct spot look_locked(struct wal *w, uint64_t size)
{
    struct spot at;
    /* acquire: pairs with the release of wal_switch; the slot's words are the tail's. */
    at.tail = atom_load(&w->tail, acquire);
    at.seg = wal_slot_of_tail(w, at.tail);
    at.position = at.tail >> 8;
    /* relaxed, here and in the callers: stable while tail_mu keeps the segment from being dropped.
     */
    uint64_t limit = atom_load(&at.seg->limit, relaxed);
    uint64_t d = at.position - atom_load(&at.seg->base, relaxed);
    uint32_t shift = atom_load(&at.seg->shift, relaxed);
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
    s->staged = at->first != at->last;
    s->given = true;
    uint8_t *record =
        s->staged ? stage : atom_load(&at->seg->window[at->first], relaxed) + at->in_first;
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

int wal_windows_reserve(struct wal *w, uint64_t size, struct wal_slot *s)
{
    uint8_t *stage = NULL;
    mutex_lock(&w->tail_mu);
    int rc = reserve_locked(w, size, &stage, s);
    mutex_unlock(&w->tail_mu);
    if (stage != NULL && (rc != LOAM_OK || !s->staged)) {
        wal_stage_give(w, stage, size);
    }
    if (rc == LOAM_OK) {
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
        /* acquire: pairs with the release in wal_segment_map. */
        uint8_t *p = atom_load(&seg->window[d >> shift], acquire);
        assert(p != NULL);
        memcpy(p + in, data, (size_t)part);
        d += part;
        data += part;
        n -= part;
    }
}

int wal_windows_ahead(struct wal *w, uint32_t ahead)
{
    int rc = LOAM_OK;
    for (uint32_t i = 0; i <= ahead && rc == LOAM_OK; i++) {
        /* One window at a time, so that a writer waits for one map call at most. */
        mutex_lock(&w->tail_mu);
        struct spot at = look_locked(w, 1);
        uint64_t k = at.first + i;
        bool missing = k < WAL_WINDOWS && atom_load(&at.seg->window[k], relaxed) == NULL;
        if (missing) {
            wal_segment_prefetch(at.seg, &w->place, (uint32_t)k + 1);
        }
        rc = map_range_locked(w, at.seg, k, k);
        mutex_unlock(&w->tail_mu);
    }
    return rc;
}

void wal_windows_drop(struct wal *w, struct wal_segment *seg)
{
    mutex_lock(&w->tail_mu);
    for (uint32_t k = 0; k < WAL_WINDOWS; k++) {
        wal_segment_unmap(seg, &w->place, k);
    }
    mutex_unlock(&w->tail_mu);
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
        mutex_lock(&w->tail_mu);
        for (uint32_t k = 0; k < WAL_WINDOWS && k < bound; k++) {
            wal_segment_unmap(seg, &w->place, k);
        }
        mutex_unlock(&w->tail_mu);
    }
}
