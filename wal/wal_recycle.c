/* wal_recycle.c - Segments that are not needed any more: their files serve again, or go.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>

#include "arena/status.h"
#include "wal/wal_writer.h"

#include "arena/poison.h"

/* Keeps the file for recycling; false: there is no room for one more. */
static bool keep_idle_locked(struct wal *w, const struct wal_idle_file *idle)
{
    mutex_assert_held(&w->mu);
    if (w->idle_count == WAL_IDLE_MAX) {
        return false;
    }
    w->idle[w->idle_count++] = *idle;
    return true;
}

static void close_and_remove(struct wal *w, const struct wal_idle_file *gone)
{
    char name[WAL_FILE_NAME_MAX];
    wal_file_name(name, gone->number);
    (void)w->place.vfs->close(w->place.vfs->ctx, gone->file);
    wal_place_remove(&w->place, name);
}

unsigned wal_shed(struct wal *w)
{
    struct wal_idle_file gone[WAL_IDLE_MAX];
    mutex_lock(&w->mu);
    unsigned n = w->idle_count;
    for (unsigned i = 0; i < n; i++) {
        gone[i] = w->idle[i];
    }
    w->idle_count = 0;
    mutex_unlock(&w->mu);
    for (unsigned i = 0; i < n; i++) {
        close_and_remove(w, &gone[i]);
    }
    return n;
}

uint64_t wal_idle_bytes(struct wal *w)
{
    struct wal_segment_plan standard;
    wal_shape(w, w->segment_bytes, &standard);
    mutex_lock(&w->mu);
    uint64_t bytes = w->idle_count * (WAL_HEADER_PAGE + standard.capacity);
    mutex_unlock(&w->mu);
    return bytes;
}

uint64_t wal_live_bytes(struct wal *w)
{
    uint64_t bytes = 0;
    mutex_lock(&w->mu);
    for (unsigned i = 0; i < WAL_SLOTS; i++) {
        const struct wal_segment *seg = &w->slots[i];
        /* relaxed: slots come and go under mu. */
        bool alive = atom_load(&seg->generation, relaxed) != 0 && seg->file != NULL;
        bytes += alive ? WAL_HEADER_PAGE + seg->capacity : 0;
    }
    mutex_unlock(&w->mu);
    return bytes;
}

/* Empties the slots below the generation asked for; files that are not kept for recycling go to `out`.
 * As sync leader, so that no file goes while it is synced. */
static unsigned take_files_locked(struct wal *w, struct wal_idle_file out[WAL_SLOTS])
{
    mutex_assert_held(&w->mu);
    struct wal_segment_plan standard;
    wal_shape(w, w->segment_bytes, &standard);
    /* relaxed, all: written under mu. */
    uint32_t below = atom_load(&w->release_below, relaxed);
    uint32_t g = atom_load(&w->oldest, relaxed);
    if (below <= g) {
        return 0;
    }
    wal_sync_pass(w, atom_load(&wal_slot_of(w, below)->base, relaxed), below);
    unsigned n = 0;
    for (; g < below; g++) {
        struct wal_segment *seg = wal_slot_of(w, g);
        wal_windows_drop(w, seg);
        bool reusable = seg->full_size && !seg->sync_failed &&
                        !atom_load(&seg->write_failed, relaxed) &&
                        seg->capacity == standard.capacity;
        /* The sync when it was prepared covers its size and space: it is of full size. */
        struct wal_idle_file file = {.number = seg->number, .settled = true};
        file.file = wal_segment_take_file(seg);
        if (file.file != NULL && !(reusable && keep_idle_locked(w, &file))) {
            out[n++] = file;
        }
    }
    atom_store(&w->oldest, below, relaxed);
    return n;
}

/* As sync leader, which it is no more on return. */
static void release_as_leader(struct wal *w)
{
    struct wal_idle_file gone[WAL_SLOTS];
    mutex_lock(&w->mu);
    unsigned n = take_files_locked(w, gone);
    mutex_unlock(&w->mu);
    wal_sync_unlock(w);
    for (unsigned i = 0; i < n; i++) {
        close_and_remove(w, &gone[i]);
    }
    /* A slot may have become free for a segment that could not be prepared. */
    wal_wake_keeper(w);
}

void wal_release_rest(struct wal *w)
{
    if (wal_release_due(w) && wal_sync_try_lock(w)) {
        release_as_leader(w);
    }
}

void wal_release_wait(struct wal *w)
{
    if (wal_release_due(w)) {
        wal_sync_lock(w);
        release_as_leader(w);
    }
}

void wal_release(struct wal *w, uint32_t below_generation)
{
    mutex_lock(&w->mu);
    /* relaxed: written under mu. */
    assert(below_generation <= atom_load(&w->current, relaxed));
    bool more = below_generation > atom_load(&w->release_below, relaxed) &&
                below_generation > atom_load(&w->oldest, relaxed);
    if (more) {
        wal_raise_durable(w, atom_load(&wal_slot_of(w, below_generation)->base, relaxed));
        /* release: pairs with wal_release_due(). */
        atom_store(&w->release_below, below_generation, release);
    }
    mutex_unlock(&w->mu);
    if (more) {
        wal_release_rest(w);
    }
}

/* Files of a directory that was copied may have holes, and on a full disk nothing can be mapped there. Costs
 * little where the space is there. */
static bool has_space(const struct wal *w, loam_file *f, uint64_t bytes)
{
    bool full;
    return wal_place_set_aside(&w->place, f, bytes, false, &full) == 0;
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
    struct wal_segment_plan standard;
    wal_shape(w, w->segment_bytes, &standard);
    uint64_t bytes = 0;
    /* It may have grown to this size, and nobody knows what of it was synced. */
    struct wal_idle_file idle = {.number = number, .settled = false};
    if (vfs->open(vfs->ctx, path, LOAM_VFS_READ | LOAM_VFS_WRITE, &idle.file) >= 0) {
        bool right = vfs->size(vfs->ctx, idle.file, &bytes) >= 0 &&
                     bytes == WAL_HEADER_PAGE + standard.capacity && has_space(w, idle.file, bytes);
        mutex_lock(&w->mu);
        bool kept = right && keep_idle_locked(w, &idle);
        mutex_unlock(&w->mu);
        if (!kept) {
            close_and_remove(w, &idle);
        }
    } else {
        (void)vfs->remove(vfs->ctx, path); /* what is under other names as well stays there as it is */
    }
    alloc_put(w->place.alloc, MEM_LOG, path, size);
}
