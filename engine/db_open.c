/* db_open.c - Opens and closes the database object.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "engine/background.h"
#include "engine/db.h"
#include "engine/db_iter.h"
#include "engine/dead_known.h"
#include "engine/lifecycle.h"
#include "engine/recovery.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

#define READONLY_TRIES 5u
#define RESERVE_LEAST  ((uint64_t)16 << 20)

/* ---- open -------------------------------------------------------------------------------------- */

/* Taking the lock makes a file: a directory without a database must not get one. */
static int must_exist(struct db *db)
{
    char path[FILENAME_CAP];
    int rc = filename_make(db->dir, FILE_CURRENT, 0, path);
    if (rc < 0) {
        return rc;
    }
    loam_file *f;
    int neg = db->vfs->open(db->vfs->ctx, path, LOAM_VFS_READ, &f);
    if (neg < 0 && status_from_errno(neg) == LOAM_E_NOENT) {
        return FAIL(LOAM_E_NOENT, "no database here: there is no CURRENT");
    }
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot open CURRENT of the database");
    }
    db->vfs->close(db->vfs->ctx, f);
    return LOAM_OK;
}

static int make_directory(struct db *db)
{
    int neg = db->vfs->mkdir(db->vfs->ctx, db->dir);
    return neg < 0 && status_from_errno(neg) != LOAM_E_EXISTS
               ? FAIL_IO(neg, 0, 0, "cannot create the database directory")
               : LOAM_OK;
}

static int open_directory(struct db *db)
{
    char path[FILENAME_CAP];
    int rc = filename_make(db->dir, FILE_LOCK, 0, path); /* first of all: the name may be too long */
    if (rc < 0 || db->readonly) {
        return rc;
    }
    bool exists = (db->options.user.flags & LOAM_OPEN_MUST_EXIST) != 0;
    rc = exists ? must_exist(db) : make_directory(db);
    if (rc < 0 || (rc = lifecycle_lock(db->vfs, path, &db->lock)) < 0) {
        return rc;
    }
    int neg = db_vfs_count(&db->files);
    return neg < 0 ? FAIL_IO(neg, 0, 0, "cannot count the files of the database") : LOAM_OK;
}

static int init_parts(struct db *db)
{
    const struct limits *l = &db->options.limits;
    int rc = stats_init(&db->stats, &db->alloc);
    if (rc < 0) {
        return rc;
    }
    db->scratch = alloc_zero(&db->alloc, MEM_MISC, DB_SCRATCH_SLOTS * sizeof *db->scratch);
    if (db->scratch == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for read buffers");
    }
    rc = chunk_pool_init(&db->chunks, &db->alloc, l->chunk_bytes,
                         (size_t)(l->memtable_bytes / l->chunk_bytes * (l->memtables_max - 1)));
    if (rc < 0) {
        return rc;
    }
    db->have_chunks = true;
    rc = block_cache_init(&db->cache, &db->alloc, l->ring_bytes, l->lent_bytes_most);
    if (rc < 0) {
        return rc;
    }
    db->have_cache = true;
    obsolete_files_init(&db->obsolete, db->vfs, db->dir, &db->alloc);
    const struct table_cache_options tc = {
        .vfs = db->vfs,
        .dir = db->dir,
        .alloc = &db->alloc,
        .blocks = &db->cache,
        .large = &db->large,
        .max_open_files = db->options.user.max_open_files,
        .max_bytes = l->table_bytes_most,
        .paranoid = db->paranoid,
        .order_later = db->readonly,
    };
    rc = table_cache_init(&db->tables, &tc);
    if (rc < 0) {
        return rc;
    }
    db->have_tables = true;
    const struct version_set_options vs = {
        .vfs = db->vfs,
        .dir = db->dir,
        .alloc = &db->alloc,
        .cache = &db->tables,
        .obsolete = &db->obsolete,
        .read_only = db->readonly,
        .manifest_bytes = l->manifest_bytes,
    };
    rc = version_set_create(&db->versions, &vs);
    if (rc < 0) {
        return rc;
    }
    db->have_versions = true;
    const struct version_order order = {keyspace_order_find, &db->versions.keyspaces};
    db->tables.options.order = order;
    struct compaction_tunables t;
    compaction_tunables_init(&t, l->memtable_bytes);
    t.target_file_bytes = l->target_file_bytes;
    compaction_picker_init(&db->picker, &db->alloc, &t, order);
    return LOAM_OK;
}

static struct db *shell_create(const char *dir, const struct options *o)
{
    struct db *db = alloc_get_aligned(alloc_global(), MEM_MISC, sizeof *db, CACHE_LINE);
    if (db == NULL) {
        return NULL;
    }
    memset(db, 0, sizeof *db);
    alloc_init(&db->alloc, o->user.allocator, UINT64_MAX);
    db->options = *o;
    db->readonly = (o->user.flags & LOAM_OPEN_READONLY) != 0;
    /* A writer may remove the files of a read-only database: what it has open stays open. */
    const struct db_vfs_options files = {
        .inner = o->user.vfs,
        .alloc = &db->alloc,
        .max_open_files = db->readonly ? 0 : o->user.max_open_files,
        .disk_budget = db->readonly ? 0 : o->user.disk_budget,
    };
    db_vfs_init(&db->files, &files, NULL);
    db->vfs = &db->files.vfs;
    db->paranoid = (o->user.flags & LOAM_OPEN_PARANOID) != 0;
    db->logging = o->user.durability != LOAM_DUR_MEMORY;
    db->fork_count = thread_slot_fork_count();
    atomic_init(&db->refs, 1);
    atomic_init(&db->memtable_limit, o->limits.memtable_bytes);
    mutex_init(&db->mu, RANK_DB);
    mutex_init(&db->seal_mu, RANK_SEAL);
    mutex_init(&db->control_mu, RANK_CONTROL);
    iter_pool_init(&db->iters, &db->alloc, o->limits.iter_bytes);
    dead_ranges_init(&db->dead, &db->alloc);
    dead_scout_init(&db->scout, &db->alloc);
    workers_init(&db->workers, &db->mu, db);
    cond_init(&db->idle_cv);
    snapshots_init(&db->snapshots);
    large_pool_init(&db->large, o->limits.held_bytes, o->limits.passing_bytes);
    disk_reserve_init(&db->reserve, db->vfs, NULL);
    write_controller_init(&db->control, o->user.max_write_pause_us);
    db->dir_size = strlen(dir) + 1;
    db->dir = alloc_get(&db->alloc, MEM_MISC, db->dir_size);
    if (db->dir != NULL) {
        memcpy(db->dir, dir, db->dir_size);
        db->reserve.dir = db->files.dir = db->dir;
    }
    return db;
}

/* A read-only database keeps every table of its version open, those of keyspaces whose order is not
 * known yet, too: a writer may remove their files. hold false: lets them go again. */
static int hold_tables(struct db *db, bool hold)
{
    struct version *v = version_set_ref_current(&db->versions);
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < v->ks_count && rc == LOAM_OK; i++) {
        for (int n = 0; n < LEVEL_COUNT; n++) {
            const struct level *l = &v->ks[i]->level[n];
            for (uint32_t t = 0; t < l->count && rc == LOAM_OK; t++) {
                struct sst_reader *r;
                if (hold) {
                    rc = table_cache_pin(&db->tables, l->tables[t], &r);
                } else if (atom_load(&l->tables[t]->pins, relaxed) != 0) {
                    table_cache_unpin(&db->tables, l->tables[t]); /* relaxed: nobody else is left */
                }
            }
        }
    }
    version_unref(v);
    return rc;
}

/* Room for log segments of deletes and for the flushes of what was written before; in a database that
 * holds little, an eighth of it, since nobody wants more set aside than is kept. */
static void open_reserve(struct db *db)
{
    const struct limits *l = &db->options.limits;
    uint64_t wanted = db->options.user.disk_reserve;
    uint64_t whole = 2 * l->segment_bytes + 3 * l->memtable_bytes;
    uint64_t share = version_set_bytes(&db->versions) / 8;
    share = share > RESERVE_LEAST ? share : RESERVE_LEAST;
    share = share < whole ? share : whole;
    disk_reserve_open(&db->reserve, wanted != 0 ? wanted : share, wanted != 0);
    if (disk_reserve_spent(&db->reserve)) {
        db_refuse_writes(db, disk_reserve_missing(&db->reserve));
    }
}

static int open_once(const char *dir, const struct options *o, struct db **out)
{
    struct registry *registry = registry_get();
    struct db *db = registry != NULL ? shell_create(dir, o) : NULL;
    if (db == NULL || db->dir == NULL) {
        if (db != NULL) {
            lifecycle_free(db);
        }
        return FAIL(LOAM_E_NOMEM, "no memory for a database");
    }
    struct recovery_found found;
    struct view *first = NULL;
    int rc = open_directory(db);
    if (rc < 0 || (rc = init_parts(db)) < 0) {
        goto fail;
    }
    if (!db->readonly) {
        disk_reserve_yield(&db->reserve, 2 * db->options.limits.segment_bytes);
    }
    rc = recovery_run(db, &found);
    if (rc < 0) {
        goto fail;
    }
    if (!db->readonly) {
        /* Not before: without a log and a manifest nothing could be deleted. */
        disk_account_enforce(&db->files.account);
        open_reserve(db);
    }
    first = view_alloc(&db->alloc);
    if (first == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for a view");
        goto fail;
    }
    db_publish_view(db, first);
    /* Before the workers that read it; it leads here once all is there. */
    db->handle = slotmap_reserve(&registry->dbs);
    if (db->handle == 0) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for a database handle");
        goto fail;
    }
    dead_survey_open(db, found.as_closed, found.deletes);
    rc = db->readonly ? hold_tables(db, true) : background_start(db);
    if (rc < 0) {
        goto fail;
    }
    rc = slotmap_commit(&registry->dbs, db->handle, db);
    assert(rc == LOAM_OK); /* nobody else knows the handle */
    *out = db;
    return LOAM_OK;

fail:;
    loam_error e = *loam_last_error();
    background_stop(db);
    if (db->handle != 0) {
        slotmap_abort(&registry->dbs, db->handle);
    }
    lifecycle_free(db);
    status_raise(&e);
    return rc;
}

int lifecycle_open(const char *dir, const struct options *o, struct db **out)
{
    int rc = open_once(dir, o, out);
    if ((o->user.flags & LOAM_OPEN_READONLY) == 0) {
        return rc;
    }
    /* A live writer may have replaced files between two looks: what is truly damaged stays so. */
    for (unsigned tries = 0; tries < READONLY_TRIES && (rc == LOAM_E_CORRUPT || rc == LOAM_E_IO ||
                                                        rc == LOAM_E_NOENT); tries++) {
        thread_sleep_micros(1000u << tries);
        rc = open_once(dir, o, out);
    }
    return rc;
}

/* ---- close ------------------------------------------------------------------------------------- */

/* Ends the log as durability asks. LOAM_DUR_MEMORY has none: what is in memory goes to tables.
 * whole: that was so; else the next open finds keys whose deletes are lost, and no range may hide them. */
static int close_log(struct db *db, bool whole)
{
    uint64_t number = 0, position = 0;
    int rc = db->logging ? wal_close(&db->wal, &number, &position) : LOAM_OK;
    if (!db->logging) {
        wal_abandon(&db->wal);
    }
    db->log_open = false;
    if (rc == LOAM_OK && position == 0) {
        /* Nothing was logged since the open: the log ends where it was found, if it is still needed. */
        bool needed = db->replayed_number >= version_set_log_number(&db->versions);
        number = needed ? db->replayed_number : 0;
        position = needed ? db->replayed_end : 0;
    }
    if (rc == LOAM_OK) {
        if (whole) {
            dead_known_close(db);
        }
        rc = version_set_close_clean(&db->versions, number, position);
    }
    return rc;
}

int lifecycle_close(struct db *db)
{
    int rc = LOAM_OK;
    if (!db->readonly) {
        if (!db->logging) {
            rc = lifecycle_flush(db);
        }
        background_stop(db);
        mutex_lock(&db->mu);
        loam_error e = db->error;
        mutex_unlock(&db->mu);
        bool sick = e.code != LOAM_OK && (e.flags & LOAM_ERR_STICKY) != 0;
        if (sick) {
            /* What was acknowledged is where it was acknowledged; recovery will judge the rest. */
            wal_abandon(&db->wal);
            db->log_open = false;
            rc = status_raise(&e);
        } else {
            int rc_log = close_log(db, rc == LOAM_OK);
            rc = rc < 0 ? rc : rc_log;
        }
    }
    loam_error e = *loam_last_error();
    lifecycle_free(db);
    if (rc < 0) {
        status_raise(&e);
    }
    return rc;
}

void lifecycle_free(struct db *db)
{
    struct view *v = atom_swap(&db->view, NULL, relaxed); /* relaxed: nobody else is left */
    view_retire(v);
    if (db->log_open) {
        wal_abandon(&db->wal);
    }
    epoch_synchronize();
    iter_pool_destroy(&db->iters);
    dead_ranges_destroy(&db->dead);
    dead_scout_destroy(&db->scout);
    if (db->memtables.handles != NULL) {
        memtable_list_destroy(&db->memtables);
    }
    memtable_destroy(db->spare);
    if (db->readonly && db->have_versions && v != NULL) {
        hold_tables(db, false);
    }
    if (db->have_versions) {
        version_set_reap(&db->versions);
        obsolete_files_purge(&db->obsolete);
        compaction_picker_destroy(&db->picker);
        epoch_synchronize();
        version_set_destroy(&db->versions);
    }
    if (db->have_tables) {
        table_cache_destroy(&db->tables);
        obsolete_files_destroy(&db->obsolete);
        epoch_synchronize(); /* what closed readers retired is charged to this database */
    }
    if (db->have_cache) {
        block_cache_destroy(&db->cache);
    }
    if (db->have_chunks) {
        chunk_pool_destroy(&db->chunks);
    }
    for (uint32_t i = 0; i < DB_SCRATCH_SLOTS && db->scratch != NULL; i++) {
        sst_get_scratch_free(&db->scratch[i]);
    }
    alloc_put(&db->alloc, MEM_MISC, db->scratch, DB_SCRATCH_SLOTS * sizeof *db->scratch);
    db->scratch = NULL;
    stats_destroy(&db->stats);
    if (db->lock != NULL) {
        db->vfs->close(db->vfs->ctx, db->lock);
        db->lock = NULL;
    }
    buf_free(&db->replayed);
    alloc_put(&db->alloc, MEM_MISC, db->dir, db->dir_size);
    db->dir = NULL;
    workers_destroy(&db->workers);
    cond_destroy(&db->idle_cv);
    mutex_destroy(&db->mu);
    mutex_destroy(&db->seal_mu);
    mutex_destroy(&db->control_mu);
    disk_reserve_destroy(&db->reserve);
    db_vfs_destroy(&db->files);
    db_unref(db);
}
