/* wal_keep.c - What runs behind the writers: segments prepared ahead, windows mapped ahead, files recycled.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

#define WINDOWS_AHEAD 2u

/* The window size keeps the number of windows within the slot's table. */
static void shape(const struct wal *w, uint64_t capacity, struct wal_segment_plan *plan)
{
    uint32_t shift = 12;
    while ((1ull << shift) < w->window_bytes || capacity > (uint64_t)WAL_WINDOWS << shift) {
        shift++;
    }
    uint64_t mask = (1ull << shift) - 1;
    plan->shift = shift;
    plan->capacity = (capacity + mask) & ~mask;
}

int wal_prepare_next(struct wal *w, uint64_t capacity)
{
    mutex_assert_held(&w->mu);
    assert(!w->next_ready);
    /* relaxed: current and the slots' generations are written under mu. */
    uint32_t generation = atom_load(&w->current, relaxed) + 1;
    struct wal_segment *seg = wal_slot_of(w, generation);
    if (atom_load(&seg->generation, relaxed) != 0) {
        return FAIL(LOAM_E_BUSY, "%u log segments wait to be released", WAL_SLOTS);
    }
    struct wal_segment_plan plan = {
        .number = w->next_number,
        .generation = generation,
        .preallocate_hard = w->mode == WAL_MAPPED,
    };
    shape(w, capacity, &plan);
    if (wal_position(w) > WAL_POSITION_MAX - 2 * plan.capacity - WAL_PAYLOAD_MAX) {
        return FAIL(LOAM_E_TOOBIG, "the log has used up its positions");
    }
    if (w->mode == WAL_NO_FILES) {
        wal_segment_prepare_memory(seg, &plan);
    } else {
        if (w->idle_count != 0 && capacity == w->segment_bytes) {
            w->idle_count--;
            plan.reuse = w->idle[w->idle_count].file;
            plan.reuse_settled = w->idle[w->idle_count].settled;
            plan.reuse_number = w->idle[w->idle_count].number;
        }
        int rc = wal_segment_prepare(seg, &w->place, &plan);
        if (rc < 0) {
            return rc;
        }
    }
    w->next_number++;
    w->next_ready = true;
    return LOAM_OK;
}

/* The first window of the prepared segment, so that the first writer finds it. */
static void map_next_locked(struct wal *w)
{
    struct wal_segment *seg = wal_slot_of(w, atom_load(&w->current, relaxed) + 1);
    mutex_lock(&w->tail_mu);
    /* Failing here costs nothing: the writer that needs the window tries again and has the error.
     */
    (void)wal_segment_map(seg, &w->place, 0);
    wal_segment_prefetch(seg, &w->place, 1);
    mutex_unlock(&w->tail_mu);
}

/* With every slot alive there is nothing to prepare into, which wal_release ends. */
static int keep_next(struct wal *w)
{
    mutex_lock(&w->mu);
    struct wal_segment *seg = wal_slot_of(w, atom_load(&w->current, relaxed) + 1);
    int rc = LOAM_OK;
    if (!w->next_ready && atom_load(&seg->generation, relaxed) == 0) {
        rc = wal_prepare_next(w, w->segment_bytes);
        if (rc == LOAM_OK && w->mode == WAL_MAPPED) {
            map_next_locked(w);
        }
    }
    mutex_unlock(&w->mu);
    return rc;
}

int wal_keep(struct wal *w, uint64_t applied, bool *more)
{
    /* relaxed: a statistic for this function's callers; nothing is read through it. */
    if (atom_load(&w->applied, relaxed) < applied) {
        atom_store(&w->applied, applied, relaxed);
    }
    uint32_t ticket = wal_work_ticket(w);
    int rc = LOAM_OK;
    if (w->mode == WAL_MAPPED) {
        /* First what a writer may need in the next microseconds. */
        rc = wal_windows_ahead(w, WINDOWS_AHEAD);
    }
    loam_error why = *loam_last_error();
    int next = keep_next(w);
    if (w->mode == WAL_MAPPED) {
        mutex_lock(&w->mu);
        wal_windows_behind(w, applied);
        mutex_unlock(&w->mu);
    }
    *more = ticket != wal_work_ticket(w);
    if (rc < 0) {
        return status_raise(&why);
    }
    return next;
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

void wal_retire_file(struct wal *w, loam_file *file, uint64_t number, bool reusable, bool settled)
{
    mutex_assert_held(&w->mu);
    if (reusable && w->idle_count < WAL_IDLE_MAX) {
        w->idle[w->idle_count].settled = settled;
        w->idle[w->idle_count].file = file;
        w->idle[w->idle_count].number = number;
        w->idle_count++;
        return;
    }
    char name[WAL_FILE_NAME_MAX];
    wal_file_name(name, number);
    (void)w->place.vfs->close(w->place.vfs->ctx, file);
    wal_place_remove(&w->place, name);
}

unsigned wal_shed(struct wal *w)
{
    mutex_lock(&w->mu);
    unsigned n = w->idle_count;
    w->idle_count = 0;
    for (unsigned i = 0; i < n; i++) {
        wal_retire_file(w, w->idle[i].file, w->idle[i].number, false, false);
    }
    mutex_unlock(&w->mu);
    return n;
}

/* A file taken out of its slot. */
struct retired {
    loam_file *file;
    uint64_t number;
    bool reusable;
};

/* As sync leader, so that no file goes while it is synced. */
static unsigned take_files(struct wal *w, uint32_t below, struct retired out[WAL_SLOTS])
{
    struct wal_segment_plan standard;
    shape(w, w->segment_bytes, &standard);
    unsigned n = 0;
    /* relaxed: oldest and the bases are written under mu, which the caller holds. */
    for (uint32_t g = atom_load(&w->oldest, relaxed); g < below; g++) {
        struct wal_segment *seg = wal_slot_of(w, g);
        wal_windows_drop(w, seg);
        out[n].number = seg->number;
        out[n].reusable = seg->full_size && !seg->sync_failed &&
                          !atom_load(&seg->write_failed, relaxed) &&
                          seg->capacity == standard.capacity;
        out[n].file = wal_segment_take_file(seg);
        n++;
    }
    wal_sync_pass(w, atom_load(&wal_slot_of(w, below)->base, relaxed), below);
    atom_store(&w->oldest, below, relaxed);
    return n;
}

int wal_release(struct wal *w, uint32_t below_generation)
{
    struct retired files[WAL_SLOTS];
    mutex_lock(&w->mu);
    /* relaxed: written under mu. */
    assert(below_generation <= atom_load(&w->current, relaxed));
    if (below_generation <= atom_load(&w->oldest, relaxed)) {
        mutex_unlock(&w->mu);
        return LOAM_OK;
    }
    wal_sync_lock(w);
    unsigned n = take_files(w, below_generation, files);
    wal_sync_unlock(w);
    for (unsigned i = 0; i < n; i++) {
        if (files[i].file != NULL) {
            /* The sync when it was prepared covers its size and space: it is of full size. */
            wal_retire_file(w, files[i].file, files[i].number, files[i].reusable, true);
        }
    }
    mutex_unlock(&w->mu);
    /* A slot may have become free for a segment that could not be prepared. */
    wal_wake_keeper(w);
    return LOAM_OK;
}

void wal_adopt(struct wal *w, uint64_t number)
{
    char name[WAL_FILE_NAME_MAX];
    wal_file_name(name, number);
    size_t size;
    char *path = w->mode != WAL_NO_FILES ? wal_place_path(&w->place, name, &size) : NULL;
    if (path == NULL) {
        return;
    }
    const loam_vfs *vfs = w->place.vfs;
    loam_file *f = NULL;
    struct wal_segment_plan standard;
    shape(w, w->segment_bytes, &standard);
    uint64_t bytes = 0;
    mutex_lock(&w->mu);
    if (vfs->open(vfs->ctx, path, LOAM_VFS_READ | LOAM_VFS_WRITE, &f) >= 0) {
        bool right =
            vfs->size(vfs->ctx, f, &bytes) >= 0 && bytes == WAL_HEADER_PAGE + standard.capacity;
        /* It may have grown to this size, and nobody knows what of it was synced. */
        wal_retire_file(w, f, number, right, false);
    }
    mutex_unlock(&w->mu);
    alloc_put(w->place.alloc, MEM_LOG, path, size);
}
