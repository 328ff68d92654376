/* wal_prepare.c - Makes the next segment ready before the current one is full.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The file is made without a lock, for that takes as long as the disk takes. `preparing` keeps others
 * from making a second one, and the tail where it is: wal_switch() waits for the end of it. A crash in
 * between leaves a file under a temporary name, a recycled one under its old name, or a segment
 * without records, all of which a recovery passes over.
 */
#include <assert.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

#define GROWTH 4u /* of a segment, from one to the next */

void wal_shape(const struct wal *w, uint64_t capacity, struct wal_segment_plan *plan)
{
    uint32_t shift = 12;
    while ((1ull << shift) < w->window_bytes || capacity > (uint64_t)WAL_WINDOWS << shift) {
        shift++;
    }
    uint64_t mask = (1ull << shift) - 1;
    plan->shift = shift;
    plan->capacity = (capacity + mask) & ~mask;
}

/* While writing is fast a window is four times as large: writers that come before the keeper map one in
 * half a millisecond still, and fewer of them have to. */
#define FAST_LOW_MARK  (1u << 20)
#define FAST_WIDER_MAX 2u /* powers of two */

static void widen(const struct wal *w, struct wal_segment_plan *plan)
{
    /* relaxed: a guess at what comes. */
    bool fast = atom_load(&w->low_mark, relaxed) >= FAST_LOW_MARK;
    for (uint32_t i = 0; fast && i < FAST_WIDER_MAX; i++) {
        if ((plan->capacity & ((2ull << plan->shift) - 1)) == 0) {
            plan->shift++;
        }
    }
}

/* Takes an idle file when one has the size. */
static int plan_locked(struct wal *w, uint64_t capacity, struct wal_segment_plan *plan)
{
    *plan = (struct wal_segment_plan){
        .number = w->next_number,
        .generation = atom_load(&w->current, relaxed) + 1, /* relaxed: written under mu */
        .preallocate_hard = w->mode == WAL_MAPPED,
    };
    wal_shape(w, capacity, plan);
    widen(w, plan);
    if (wal_position(w) > WAL_POSITION_MAX - 2 * plan->capacity - WAL_PAYLOAD_MAX) {
        return FAIL(LOAM_E_TOOBIG, "the log has used up its positions");
    }
    if (w->idle_count != 0 && capacity == w->segment_bytes) {
        const struct wal_idle_file *idle = &w->idle[--w->idle_count];
        plan->reuse = idle->file;
        plan->reuse_settled = idle->settled;
        plan->reuse_number = idle->number;
    }
    return LOAM_OK;
}

/* A log begins small, for so are most databases, and grows as it is filled. */
uint64_t wal_next_bytes_locked(struct wal *w)
{
    mutex_assert_held(&w->mu);
    /* relaxed: written under mu. */
    uint64_t grown = GROWTH * wal_slot_of(w, atom_load(&w->current, relaxed))->capacity;
    return w->idle_count != 0 || grown > w->segment_bytes ? w->segment_bytes : grown;
}

int wal_prepare_locked(struct wal *w, uint64_t capacity)
{
    mutex_assert_held(&w->mu);
    assert(!w->next_ready && !w->preparing);
    struct wal_segment *seg = wal_slot_of(w, atom_load(&w->current, relaxed) + 1);
    if (atom_load(&seg->generation, relaxed) != 0) { /* relaxed: written under mu */
        return FAIL(LOAM_E_BUSY, "%u log segments wait to be released", WAL_SLOTS);
    }
    struct wal_segment_plan plan;
    int rc = plan_locked(w, capacity, &plan);
    if (rc < 0) {
        return rc;
    }
    struct wal_segment_file made = {.file = NULL};
    if (w->mode != WAL_NO_FILES) {
        w->preparing = true;
        mutex_unlock(&w->mu);
        rc = wal_segment_make(&made, &w->place, &plan);
        mutex_lock(&w->mu);
        w->preparing = false;
        cond_broadcast(&w->prepared_cv);
    }
    if (rc < 0) {
        return rc;
    }
    wal_segment_install(seg, &plan, &made);
    wal_windows_allow(w, seg);
    w->next_number++;
    w->next_ready = true;
    return LOAM_OK;
}

/* With every slot alive there is nothing to prepare into, which wal_release ends. */
static bool may_prepare_locked(struct wal *w)
{
    /* relaxed: current and generations of slots are written under mu. */
    uint32_t current = atom_load(&w->current, relaxed);
    return !w->next_ready && !w->preparing &&
           atom_load(&wal_slot_of(w, current + 1)->generation, relaxed) == 0;
}

bool wal_is_used_locked(struct wal *w)
{
    mutex_assert_held(&w->mu);
    /* relaxed: current and bases are written under mu. */
    uint32_t current = atom_load(&w->current, relaxed);
    return wal_position(w) > atom_load(&wal_slot_of(w, current)->base, relaxed);
}

static bool due_locked(struct wal *w)
{
    return may_prepare_locked(w) && wal_is_used_locked(w);
}

static bool shrink_due_locked(struct wal *w)
{
    struct wal_segment_plan small;
    wal_shape(w, w->first_bytes, &small);
    /* relaxed: as above. */
    uint64_t capacity = wal_slot_of(w, atom_load(&w->current, relaxed))->capacity;
    return w->mode != WAL_NO_FILES && capacity > small.capacity && may_prepare_locked(w) && !wal_is_used_locked(w);
}

bool wal_prepare_due(struct wal *w)
{
    mutex_lock(&w->mu);
    bool due = due_locked(w);
    mutex_unlock(&w->mu);
    return due;
}

int wal_prepare(struct wal *w)
{
    int rc = LOAM_OK;
    uint32_t made = 0; /* generation */
    mutex_lock(&w->mu);
    if (due_locked(w)) {
        rc = wal_prepare_locked(w, wal_next_bytes_locked(w));
        made = rc == LOAM_OK ? atom_load(&w->current, relaxed) + 1 : 0; /* relaxed: as above */
    }
    mutex_unlock(&w->mu);
    if (made != 0 && w->mode == WAL_MAPPED) {
        /* So that the first writer finds it. Failing here costs nothing: the writer that needs the
         * window tries again and has the error. */
        (void)wal_windows_first(w, made, true);
    }
    return rc;
}

bool wal_shrink_due(struct wal *w)
{
    mutex_lock(&w->mu);
    bool due = shrink_due_locked(w);
    mutex_unlock(&w->mu);
    return due;
}

bool wal_shrink(struct wal *w)
{
    mutex_lock(&w->mu);
    bool made = shrink_due_locked(w) && wal_prepare_locked(w, w->first_bytes) == LOAM_OK;
    mutex_unlock(&w->mu);
    return made;
}
