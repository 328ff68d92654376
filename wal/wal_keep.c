/* wal_keep.c - What runs every few milliseconds behind the writers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

/* As much is mapped ahead as was written in one lap: that long a busy machine may keep the caller of
 * wal_keep() away before a writer has to map for itself. The pages of a window are dirty as soon as it
 * is mapped, so more would make syncs write what holds no records. */
#define LAP_US          50000u
#define AHEAD_BYTES_MAX (8u << 20)

static uint64_t most_ahead(const struct wal *w)
{
    uint64_t most = w->segment_bytes / 4; /* small segments belong to a small budget */
    return most < AHEAD_BYTES_MAX ? most : AHEAD_BYTES_MAX;
}

/* stored: bytes of records in windows so far. */
static uint64_t bytes_ahead(struct wal *w, uint64_t stored)
{
    uint64_t now = clock_micros();
    uint64_t grown = stored - w->lap_stored, time = now - w->lap_at;
    if (time >= LAP_US) {
        w->lap_bytes = grown / (time / LAP_US);
        w->lap_stored = stored;
        w->lap_at = now;
    }
    uint64_t bytes = grown > w->lap_bytes ? grown : w->lap_bytes;
    uint64_t most = most_ahead(w);
    return bytes < most ? bytes : most;
}

/* Bytes of records in windows so far. The count of those that were written moves right before the tail does: what
 * this cannot tell apart is looked at next time. */
static uint64_t stored_so_far(const struct wal *w, uint64_t written)
{
    uint64_t position = wal_position(w);
    /* relaxed: position's acquire keeps it behind, and shows what was counted before the tail was there. */
    bool steady = atom_load(&w->written, relaxed) == written;
    int64_t more = (int64_t)(position - written - w->kept_stored);
    return w->kept_stored + (steady && more > 0 ? (uint64_t)more : 0);
}

/* While all that comes is written, a window at the tail would be behind it before it is of use. */
static int map_ahead(struct wal *w)
{
    uint64_t written = atom_load(&w->written, relaxed); /* relaxed: see stored_so_far() */
    uint64_t stored = stored_so_far(w, written);
    bool only_written = stored == w->kept_stored && written != w->kept_written;
    uint64_t bytes = bytes_ahead(w, stored);
    w->kept_stored = stored;
    w->kept_written = written;
    /* relaxed: an old mark wakes sooner or later than need be. */
    atom_store(&w->low_mark, bytes / 2, relaxed);
    return only_written ? LOAM_OK : wal_windows_ahead(w, bytes);
}

int wal_keep(struct wal *w, uint64_t applied, bool *more)
{
    uint32_t ticket = wal_work_ticket(w);
    int rc = LOAM_OK;
    if (w->mode == WAL_MAPPED) {
        rc = map_ahead(w); /* first what a writer may need in the next microseconds */
        mutex_lock(&w->mu);
        wal_windows_behind(w, applied);
        mutex_unlock(&w->mu);
    }
    loam_error why = *loam_last_error();
    wal_release_rest(w); /* last: it may remove files, which takes as long as the disk takes */
    *more = ticket != wal_work_ticket(w);
    return rc < 0 ? status_raise(&why) : LOAM_OK;
}

void wal_relieve(struct wal *w, uint64_t applied)
{
    /* As much as ahead at most may lie behind the tail before the keeper is late. */
    if (alloc_used_by(w->place.alloc, MEM_LOG) > 2 * most_ahead(w) && mutex_try_lock(&w->mu)) {
        wal_windows_behind(w, applied);
        mutex_unlock(&w->mu);
    }
}

uint32_t wal_work_ticket(const struct wal *w)
{
    /* acquire: pairs with wal_wake_keeper; the tail that caused the work is seen. */
    return atom_load(&w->work, acquire);
}

void wal_wait_work(struct wal *w, uint32_t ticket, uint64_t micros)
{
    word_wait(&w->work, ticket, micros);
}

void wal_wake_keeper(struct wal *w)
{
    /* release: pairs with wal_work_ticket. */
    atom_add(&w->work, 1, release);
    word_wake_one(&w->work);
}
