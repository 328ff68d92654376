/* lifecycle.c - Flush on request, resume after errors, removal.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/lifecycle.h"

#include <errno.h>

#include "arena/status.h"
#include "engine/background.h"
#include "engine/flush.h"

#include "arena/poison.h"

#define LOOK_US 100000u /* how long a wait lasts before errors are looked at */

int lifecycle_lock(const loam_vfs *vfs, const char *path, loam_file **f)
{
    int neg = vfs->lock(vfs->ctx, path, f);
    if (neg == -EAGAIN || neg == -EACCES) {
        return FAIL(LOAM_E_LOCKED, "the database is open elsewhere: its LOCK is held");
    }
    return neg < 0 ? FAIL_IO(neg, 0, 0, "cannot lock the database") : LOAM_OK;
}

/* Waits until no memtable below `end` is left; the error that stands in the way. */
static int wait_flushed(struct db *db, uint32_t end)
{
    int rc = LOAM_OK;
    mutex_lock(&db->mu);
    uint64_t failed = db->failed_flushes; /* what heals by itself has not failed this flush yet */
    while (rc == LOAM_OK && db->memtables.oldest < end) {
        if (db->error.code != LOAM_OK && ((db->error.flags & LOAM_ERR_STICKY) != 0 ||
                                          db->failed_flushes != failed)) {
            rc = status_raise(&db->error);
        } else {
            background_wake_locked(db);
            cond_wait_for(&db->idle_cv, &db->mu, LOOK_US);
        }
    }
    mutex_unlock(&db->mu);
    return rc;
}

/* Seals `generation`, waiting for room for the memtable that follows it. */
static int seal_and_wait(struct db *db, uint32_t generation)
{
    int rc = db_seal(db, generation, 0);
    if (db_spend_reserve(db, rc)) {
        rc = db_seal(db, generation, 0);
    }
    while (rc == LOAM_STOPPED) {
        int failed = LOAM_OK;
        mutex_lock(&db->mu);
        /* A flush may have made room since: then there is nothing to wait for. */
        if (db->error.code != LOAM_OK) {
            failed = status_raise(&db->error);
        } else if (memtable_list_in_memory(&db->memtables) >= db->options.limits.memtables_max) {
            background_wake_locked(db);
            cond_wait_for(&db->idle_cv, &db->mu, LOOK_US);
        }
        mutex_unlock(&db->mu);
        if (failed < 0) {
            return failed;
        }
        rc = db_seal(db, generation, 0);
    }
    return rc;
}

int lifecycle_flush(struct db *db)
{
    uint32_t generation = wal_generation(&db->wal);
    epoch_enter();
    struct memtable *m = memtable_list_find(&db->memtables, generation);
    bool empty = m != NULL && memtable_empty(m);
    epoch_exit();
    int rc = empty ? LOAM_OK : seal_and_wait(db, generation);
    if (rc < 0) {
        return rc;
    }
    return wait_flushed(db, empty ? generation : generation + 1);
}

/* A failed sync: the log behind it is not to be trusted, so everything in it goes to tables. */
static int renew_log(struct db *db, uint32_t generation)
{
    int rc = seal_and_wait(db, generation);
    if (rc < 0) {
        return rc;
    }
    return wait_flushed(db, generation + 1);
}

/* Clearing takes all of the log before its current segment for durable elsewhere. Writers that were
 * let in before the error may have filled another segment meanwhile: then that must go, too. */
static int clear_log(struct db *db)
{
    for (;;) {
        uint32_t generation = wal_generation(&db->wal);
        int rc = renew_log(db, generation);
        if (rc < 0) {
            return rc;
        }
        mutex_lock(&db->seal_mu); /* nobody switches now */
        bool current = wal_generation(&db->wal) == generation + 1;
        rc = current ? wal_clear_poison(&db->wal) : LOAM_OK;
        mutex_unlock(&db->seal_mu);
        if (current) {
            return rc;
        }
    }
}

/* Goes on in another segment, if the log could not when it was to. */
static int go_on_with_log(struct db *db)
{
    mutex_lock(&db->mu);
    bool goes_on = db->seal_error.code == LOAM_OK;
    mutex_unlock(&db->mu);
    return goes_on ? LOAM_OK : seal_and_wait(db, wal_generation(&db->wal));
}

int lifecycle_resume(struct db *db)
{
    mutex_lock(&db->mu);
    loam_error old = db->error;
    db->error.code = db->prepare_error.code = LOAM_OK;
    db->retry_at = db->merge_at = db->merge_wait = 0;
    db->resuming = old.code != LOAM_OK;
    background_wake_locked(db);
    mutex_unlock(&db->mu);
    if (old.code == LOAM_OK) {
        return go_on_with_log(db);
    }
    int rc = version_set_resume(&db->versions);
    if (rc == LOAM_OK && !disk_reserve_restore(&db->reserve)) {
        rc = disk_reserve_missing(&db->reserve);
    }
    if (rc == LOAM_OK && db->logging && (old.flags & LOAM_ERR_STICKY) != 0) {
        /* A log that has not failed need not go on elsewhere: there is an end to switches without a write. */
        rc = wal_poisoned(&db->wal) ? clear_log(db) : lifecycle_flush(db);
    }
    if (rc == LOAM_OK) {
        rc = go_on_with_log(db); /* it may have failed beside what was refused */
    }
    mutex_lock(&db->mu);
    db->resuming = false;
    if (rc == LOAM_OK && wal_poisoned(&db->wal)) {
        rc = FAIL(LOAM_E_IO, "the log failed again while it was being resumed");
    }
    if (rc < 0) {
        /* What made it stick is still there, whatever kept it from being put right. */
        rc = status_add_flags(rc, old.flags & LOAM_ERR_STICKY);
        db_refuse_writes_locked(db, rc);
    } else if (db->error.code != LOAM_OK) {
        rc = status_raise(&db->error); /* a new one came meanwhile */
    } else {
        write_controller_refuse(&db->control, false);
        stats_add(&db->stats, STAT_RESUMES, 1);
        background_kick_locked(db);
    }
    mutex_unlock(&db->mu);
    return rc;
}

/* ---- destroy ----------------------------------------------------------------------------------- */

/* Files go in an order in which every state is either a database that is whole or none at all, and none
 * that this would not recognise and remove:
 *   what a database can do without, CURRENT, [directory synced], what it names, LOCK, [synced]. */
struct destroy {
    const loam_vfs *vfs;
    const char *dir;
    struct obsolete_files spare, files;
    bool found;     /* a database, or what is left of one */
    bool forgotten; /* there was no memory to note a name */
};

static int note_file(void *ctx, loam_slice name)
{
    struct destroy *d = ctx;
    enum file_kind kind;
    uint64_t number;
    if (!filename_parse(name, &kind, &number)) {
        return 0;
    }
    if (kind == FILE_LOCK) { /* the last to go; who makes a database at this moment holds it */
        d->found = true;
        return 0;
    }
    bool spare = kind == FILE_RESERVE || kind == FILE_TEMP;
    d->found = d->found || !spare;
    if (kind != FILE_CURRENT) {
        struct obsolete_files *o = spare ? &d->spare : &d->files;
        uint32_t noted = obsolete_files_pending(o);
        obsolete_files_add(o, kind, number);
        d->forgotten = d->forgotten || obsolete_files_pending(o) == noted;
    }
    return 0;
}

static int remove_noted(struct obsolete_files *o)
{
    obsolete_files_purge(o);
    uint32_t left = obsolete_files_pending(o);
    return left == 0 ? LOAM_OK : FAIL(LOAM_E_IO, "%u files could not be removed", left);
}

static int remove_kind(const struct destroy *d, enum file_kind kind)
{
    char path[FILENAME_CAP];
    int rc = filename_make(d->dir, kind, 0, path);
    if (rc < 0) {
        return rc;
    }
    int neg = d->vfs->remove(d->vfs->ctx, path);
    return neg >= 0 || neg == -ENOENT ? LOAM_OK : FAIL_IO(neg, 0, 0, "cannot remove %s", path);
}

static int sync_names(const struct destroy *d)
{
    int neg = d->vfs->sync_dir(d->vfs->ctx, d->dir);
    return neg >= 0 ? LOAM_OK
                    : status_add_flags(FAIL_IO(neg, 0, 0, "cannot sync the directory of what is removed"),
                                       LOAM_ERR_UNKNOWN);
}

/* REQUIRES: LOCK is held. */
static int remove_all(struct destroy *d)
{
    int rc = remove_noted(&d->spare);
    if (rc == LOAM_OK) {
        rc = remove_kind(d, FILE_CURRENT);
    }
    if (rc == LOAM_OK) {
        rc = sync_names(d);
    }
    if (rc == LOAM_OK) {
        rc = remove_noted(&d->files);
    }
    if (rc == LOAM_OK) {
        rc = remove_kind(d, FILE_LOCK);
    }
    return rc;
}

static int destroy_found(struct destroy *d)
{
    char path[FILENAME_CAP];
    loam_file *lock;
    int rc = filename_make(d->dir, FILE_LOCK, 0, path);
    if (rc == LOAM_OK) {
        rc = lifecycle_lock(d->vfs, path, &lock);
    }
    if (rc < 0) {
        return rc;
    }
    rc = remove_all(d);
    d->vfs->close(d->vfs->ctx, lock);
    if (rc == LOAM_OK) {
        rc = sync_names(d);
    }
    if (rc == LOAM_OK) {
        d->vfs->remove(d->vfs->ctx, d->dir); /* fails when other files are there: they are not ours */
    }
    return rc;
}

int lifecycle_destroy(const char *dir, const loam_vfs *vfs)
{
    char path[FILENAME_CAP];
    int rc = filename_make(dir, FILE_CURRENT, 0, path);
    if (rc < 0) {
        return rc;
    }
    struct destroy d = {.vfs = vfs, .dir = dir};
    obsolete_files_init(&d.spare, vfs, dir, alloc_global());
    obsolete_files_init(&d.files, vfs, dir, alloc_global());
    int neg = vfs->list(vfs->ctx, dir, note_file, &d);
    if (neg < 0 && status_from_errno(neg) != LOAM_E_NOENT) {
        rc = FAIL_IO(neg, 0, 0, "cannot list the directory");
    } else if (neg < 0 || !d.found) {
        rc = FAIL(LOAM_E_NOENT, "there is no database in the directory");
    } else if (d.forgotten) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for the names of the files");
    } else {
        rc = destroy_found(&d);
    }
    obsolete_files_destroy(&d.spare);
    obsolete_files_destroy(&d.files);
    return rc;
}
