/* db.c - What the parts of an open database ask of it: views, sealed memtables, refused writes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/db.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "arena/status.h"
#include "engine/background.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

#define RESERVE_HOLD_US 60000u /* what the reserve was spent for comes before restoring it */

/* ---- services ---------------------------------------------------------------------------------- */

void db_log(struct db *db, int level, const char *fmt, ...)
{
    if (db->options.user.log == NULL || level > (int)db->options.user.log_level) {
        return;
    }
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    db->options.user.log(db->options.user.log_ctx, level, line);
}

const loam_comparator *db_comparator(void *arg, uint32_t ks)
{
    struct db *db = arg;
    const loam_comparator *cmp = NULL;
    keyspace_order_find(&db->versions.keyspaces, ks, &cmp);
    return cmp;
}

struct sst_get_scratch *db_scratch(struct db *db, struct sst_get_scratch *spare)
{
    uint32_t slot = thread_slot_self();
    if (slot < DB_SCRATCH_SLOTS) {
        struct sst_get_scratch *own = &db->scratch[slot];
        if (own->alloc == NULL) { /* most never see a thread: an open leaves them zero */
            sst_get_scratch_init(own, &db->alloc);
        }
        return own;
    }
    sst_get_scratch_init(spare, &db->alloc);
    return spare;
}

void db_unref(struct db *db)
{
    /* acq_rel: the last one sees what the others did with the shell's memory. */
    if (atom_sub(&db->refs, 1, acq_rel) == 1) {
        snapshots_destroy(&db->snapshots);
        large_pool_destroy(&db->large);
        alloc_put_aligned(alloc_global(), MEM_MISC, db, sizeof *db, CACHE_LINE);
    }
}

/* A name that is missing, or in the way, in the directory of an open database is for its caller an error
 * of the disk: LOAM_E_NOENT would speak of a keyspace. */
static int as_io(int rc)
{
    return rc == LOAM_E_NOENT || rc == LOAM_E_EXISTS ? LOAM_E_IO : rc;
}

/* The thread's error of the moment, with that code, as it is kept for callers to come. */
static loam_error error_to_keep(int rc)
{
    loam_error e = *loam_last_error();
    e.code = as_io(rc);
    return e;
}

void db_refuse_writes_locked(struct db *db, int rc)
{
    mutex_assert_held(&db->mu);
    loam_error e = error_to_keep(rc);
    if (!status_passes(&e)) {
        e.flags |= LOAM_ERR_STICKY;
    }
    e.flags &= ~LOAM_ERR_UNKNOWN; /* writes refused from now on write nothing */
    if (db->error.code == LOAM_OK || (db->error.flags & LOAM_ERR_STICKY) == 0) {
        db->error = e;
    }
    write_controller_refuse(&db->control, true);
    cond_broadcast(&db->idle_cv);
}

void db_refuse_writes(struct db *db, int rc)
{
    mutex_lock(&db->mu);
    db_refuse_writes_locked(db, rc);
    mutex_unlock(&db->mu);
}

void db_log_failed(struct db *db, int rc)
{
    mutex_lock(&db->mu);
    if (!db->resuming && wal_poisoned(&db->wal)) {
        db_refuse_writes_locked(db, rc);
    }
    mutex_unlock(&db->mu);
}

bool db_spend_reserve(struct db *db, int rc)
{
    if (rc != LOAM_E_NOSPACE) {
        return false;
    }
    loam_error e = *loam_last_error();
    bool more = disk_reserve_spend(&db->reserve);
    more = wal_shed(&db->wal) != 0 || more;
    status_raise(&e);
    db_refuse_writes(db, rc);
    if (more) {
        db_log(db, LOAM_LOG_WARN, "the disk is full: its reserve goes to what frees space");
        mutex_lock(&db->mu);
        db->restore_at = clock_micros() + RESERVE_HOLD_US;
        mutex_unlock(&db->mu);
    }
    return more;
}

/* ---- views and sealing ------------------------------------------------------------------------- */

void db_publish_view_locked(struct db *db, struct view *fresh)
{
    mutex_assert_held(&db->mu);
    struct version *v = version_set_ref_current(&db->versions);
    view_fill(fresh, ++db->views, &db->memtables, v);
    version_unref(v);
    struct view *old = atom_load(&db->view, relaxed); /* relaxed: changed under mu only */
    atom_store(&db->view, fresh, release);            /* pairs with db_view() */
    view_retire(old);
}

void db_publish_view(struct db *db, struct view *fresh)
{
    mutex_lock(&db->mu);
    db_publish_view_locked(db, fresh);
    mutex_unlock(&db->mu);
}

/* Callers count on the new files being taken off their hands, as version_set_apply() does. */
static void disown_added(struct db *db, const struct version_edit *edit)
{
    for (uint32_t i = 0; i < edit->added_count; i++) {
        bool moved = false;
        for (uint32_t k = 0; k < edit->removed_count; k++) {
            moved = moved || edit->removed[k].number == edit->added[i].number;
        }
        if (!moved) {
            obsolete_files_add(&db->obsolete, FILE_TABLE, edit->added[i].number);
        }
    }
}

int db_sync_names(struct db *db)
{
    int neg = db->vfs->sync_dir(db->vfs->ctx, db->dir);
    return neg < 0 ? FAIL_IO(neg, 0, 0, "cannot sync the database directory") : LOAM_OK;
}

int db_apply_edit(struct db *db, struct version_edit *edit)
{
    struct view *fresh = view_alloc(&db->alloc); /* first: what is applied must be shown */
    if (fresh == NULL) {
        disown_added(db, edit);
        return FAIL(LOAM_E_NOMEM, "no memory for a view");
    }
    int rc = version_set_apply(&db->versions, edit);
    if (rc < 0) {
        view_discard(fresh);
        if (version_set_in_doubt(&db->versions)) {
            db_refuse_writes(db, rc); /* a crash may find the edit: nothing goes on top of it */
        }
        return rc;
    }
    db_publish_view(db, fresh);
    return LOAM_OK;
}

int db_new_memtable(struct db *db, struct memtable **m)
{
    const struct limits *l = &db->options.limits;
    const struct memtable_options o = {
        .alloc = &db->alloc,
        .pool = &db->chunks,
        .bytes = l->memtable_bytes,
        .comparator = db_comparator,
        .comparator_ctx = db,
    };
    return memtable_create(&o, m);
}

/* Puts the spare memtable behind the active one and shows it, empty, to readers: whoever writes into
 * it after the switch is seen at once. */
static int push_next(struct db *db)
{
    mutex_assert_held(&db->seal_mu);
    if (memtable_list_find(&db->memtables, wal_generation(&db->wal) + 1) != NULL) {
        return LOAM_OK; /* left by a switch that failed */
    }
    if (db->spare == NULL) {
        int rc = db_new_memtable(db, &db->spare);
        if (rc < 0) {
            return rc;
        }
    }
    struct view *fresh = view_alloc(&db->alloc);
    if (fresh == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a view");
    }
    mutex_lock(&db->mu);
    int rc = memtable_list_push(&db->memtables, db->spare, 0);
    if (rc == LOAM_OK) {
        db->spare = NULL;
        db_publish_view_locked(db, fresh);
    }
    mutex_unlock(&db->mu);
    if (rc < 0) {
        view_discard(fresh);
    }
    return rc;
}

static bool has_room(struct db *db)
{
    mutex_lock(&db->mu);
    bool room = memtable_list_in_memory(&db->memtables) < db->options.limits.memtables_max;
    mutex_unlock(&db->mu);
    return room;
}

/* Each write that needs the segment tries again, and so does the keeper; meanwhile health tells. */
static int switch_failed(struct db *db, int rc)
{
    loam_error e = error_to_keep(rc);
    mutex_lock(&db->mu);
    db->seal_error = e;
    mutex_unlock(&db->mu);
    return status_raise(&e);
}

void db_log_may_end(struct db *db, int rc)
{
    loam_error e = error_to_keep(rc);
    mutex_lock(&db->mu);
    db->prepare_error = e;
    mutex_unlock(&db->mu);
}

static void log_goes_on_locked(struct db *db)
{
    db->seal_error.code = db->prepare_error.code = LOAM_OK;
}

void db_log_goes_on(struct db *db)
{
    mutex_lock(&db->mu);
    log_goes_on_locked(db);
    mutex_unlock(&db->mu);
}

static int seal_locked(struct db *db, uint32_t generation, uint64_t payload_hint)
{
    if (wal_generation(&db->wal) != generation) {
        return LOAM_OK;
    }
    bool pushed = memtable_list_find(&db->memtables, generation + 1) != NULL;
    if (!pushed && !has_room(db)) {
        return LOAM_STOPPED;
    }
    int rc = push_next(db);
    if (rc < 0) {
        return rc;
    }
    uint64_t boundary;
    uint32_t next;
    rc = wal_switch(&db->wal, payload_hint, &boundary, &next);
    if (rc < 0) {
        return rc == LOAM_E_BUSY ? rc : switch_failed(db, rc);
    }
    assert(next == generation + 1);
    mutex_lock(&db->mu);
    log_goes_on_locked(db);
    memtable_list_seal(&db->memtables, generation, boundary);
    background_sealed_locked(db);
    mutex_unlock(&db->mu);
    wal_wake_keeper(&db->wal);
    return LOAM_OK;
}

int db_seal(struct db *db, uint32_t generation, uint64_t payload_hint)
{
    assert(!epoch_inside());
    mutex_lock(&db->seal_mu);
    int rc = seal_locked(db, generation, payload_hint);
    mutex_unlock(&db->seal_mu);
    return rc;
}
