/* wal_sync.c - Makes the log durable: one leader syncs for everyone who waits.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   waiter: raise sync_goal, then  [nobody leads] -> lead: sync up to the goal, move durable, wake
 * all [somebody leads] -> sleep, look again
 *
 * Leadership (`leading`) is also what keeps files open while they are synced: releasing segments
 * takes it, or leaves it to wal_keep() while a sync runs; a wal_switch() that needs the slot of a
 * segment so left waits for the leader, which never waits for a switch. The leader holds no mutex while
 * the disk works.
 */
#include <assert.h>

#include "arena/status.h"
#include "arena/vfs_full.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

#define GATHER_US    100u /* a leader waits for others at most; and a quarter of a sync */
#define LONELY_SYNCS 3u  /* in which nobody is waited for, after one that waited in vain */

void wal_sync_lock(struct wal *w)
{
    mutex_lock(&w->sync_mu);
    while (w->leading) {
        cond_wait(&w->sync_cv, &w->sync_mu);
    }
    w->leading = true;
    mutex_unlock(&w->sync_mu);
}

bool wal_sync_try_lock(struct wal *w)
{
    mutex_lock(&w->sync_mu);
    bool free = !w->leading;
    w->leading = true;
    mutex_unlock(&w->sync_mu);
    return free;
}

void wal_sync_unlock(struct wal *w)
{
    mutex_lock(&w->sync_mu);
    assert(w->leading);
    w->leading = false;
    cond_broadcast(&w->sync_cv);
    mutex_unlock(&w->sync_mu);
}

void wal_raise_durable(struct wal *w, uint64_t position)
{
    /* relaxed: the loop looks again. */
    uint64_t durable = atom_load(&w->durable, relaxed);
    while (durable < position) {
        /* release: pairs with wal_durable(); the sync came before. Bounded: it only grows. */
        if (atom_cas(&w->durable, &durable, position, release, relaxed)) {
            break;
        }
    }
}

void wal_sync_pass(struct wal *w, uint64_t position, uint32_t generation)
{
    wal_raise_durable(w, position);
    if (w->sync_from < generation) {
        w->sync_from = generation;
    }
}

static int poison(struct wal *w, struct wal_segment *seg, int rc)
{
    seg->sync_failed = true;
    rc = status_add_flags(FAIL_IO(rc, seg->number, 0, "cannot sync log segment %llu",
                                  (unsigned long long)seg->number),
                          LOAM_ERR_STICKY);
    w->poison = *loam_last_error();
    /* release: pairs with the acquire in wal_poisoned(); the error is in place. */
    atom_store(&w->poisoned, 1, release);
    return rc;
}

int wal_sync_segment(struct wal *w, struct wal_segment *seg)
{
    assert(!seg->sync_failed);
    int rc = w->place.vfs->sync(w->place.vfs->ctx, seg->file, 1);
    return rc < 0 ? poison(w, seg, rc) : LOAM_OK;
}

/* As leader. Syncs the segments that hold unsynced positions below goal, oldest first. */
static int sync_up_to(struct wal *w, uint64_t goal)
{
    /* acquire: pairs with the tail's release; every segment up to the tail's is set up. */
    uint64_t tail = atom_load(&w->tail, acquire);
    assert(goal <= wal_tail_position(tail));
    /* relaxed, all: the tail carried these. */
    uint32_t last = atom_load(&wal_slot_of_tail(w, tail)->generation, relaxed);
    for (uint32_t g = w->sync_from; g <= last; g++) {
        struct wal_segment *seg = wal_slot_of(w, g);
        bool sealed = g < last;
        uint64_t end = sealed ? atom_load(&wal_slot_of(w, g + 1)->base, relaxed) : goal;
        if (atom_load(&seg->base, relaxed) >= goal) {
            break;
        }
        /* relaxed: a release that raises it meanwhile makes one sync superfluous. */
        if (end > atom_load(&w->durable, relaxed)) {
            int rc = wal_sync_segment(w, seg);
            if (rc < 0) {
                return rc;
            }
        }
        wal_raise_durable(w, end < goal ? end : goal);
        if (sealed && end <= goal) {
            w->sync_from = g + 1;
        }
    }
    return LOAM_OK;
}

/* Whoever was served by the last sync is likely to be back with the next record in a moment. A leader that does
 * not wait for that syncs for those alone who came during the last sync, so that two parties take turns, and each
 * waits for the other's sync, too. */
static void gather_locked(struct wal *w)
{
    if (w->sync_lonely != 0) {
        w->sync_lonely--;
        return;
    }
    uint64_t most = w->sync_micros / 4 < GATHER_US ? w->sync_micros / 4 : GATHER_US;
    uint64_t start = clock_micros();
    while (w->sync_waiting < w->sync_party) {
        if (clock_micros() - start >= most) {
            w->sync_lonely = LONELY_SYNCS;
            break;
        }
        mutex_unlock(&w->sync_mu);
        thread_yield();
        mutex_lock(&w->sync_mu);
    }
}

/* As leader: one sync for all who wait. */
static int lead_locked(struct wal *w)
{
    gather_locked(w);
    uint64_t goal = w->sync_goal;
    uint32_t served = w->sync_waiting;
    mutex_unlock(&w->sync_mu);
    uint64_t start = clock_micros();
    int rc = sync_up_to(w, goal);
    uint64_t micros = clock_micros() - start;
    mutex_lock(&w->sync_mu);
    w->sync_micros = micros;
    w->sync_party = w->sync_waiting;
    w->sync_waiting -= served;
    return rc;
}

int wal_sync(struct wal *w, uint64_t upto)
{
    if (w->mode == WAL_NO_FILES) {
        return LOAM_OK;
    }
    mutex_lock(&w->sync_mu);
    w->sync_waiting += wal_durable(w) < upto;
    int rc = LOAM_OK;
    bool led = false;
    while (wal_durable(w) < upto) {
        if (w->sync_goal < upto) {
            w->sync_goal = upto;
        }
        if (w->leading) {
            cond_wait(&w->sync_cv, &w->sync_mu);
            continue;
        }
        if (wal_poisoned(w)) {
            rc = status_raise(&w->poison);
            break;
        }
        w->leading = led = true;
        rc = lead_locked(w);
        w->leading = false;
        cond_broadcast(&w->sync_cv);
        if (rc < 0) {
            break;
        }
    }
    mutex_unlock(&w->sync_mu);
    if (led && wal_release_due(w)) {
        wal_wake_keeper(w); /* the release found the sync running */
    }
    return rc;
}

int wal_clear_poison(struct wal *w)
{
    wal_sync_lock(w);
    uint64_t tail = atom_load(&w->tail, acquire); /* pairs with wal_switch */
    struct wal_segment *seg = wal_slot_of_tail(w, tail);
    bool clear = !seg->sync_failed;
    if (clear) {
        /* relaxed: the tail carried them. */
        wal_sync_pass(w, atom_load(&seg->base, relaxed), atom_load(&seg->generation, relaxed));
        atom_store(&w->poisoned, 0, release); /* pairs with wal_poisoned() */
    }
    wal_sync_unlock(w);
    return clear ? LOAM_OK
                 : FAIL(LOAM_E_INVAL, "the log's current segment is the one that cannot be synced");
}
