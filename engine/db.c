/* db.c - Opens and closes the database object, publishes views, seals memtables.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/db.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arena/status.h"
#include "engine/background.h"
#include "engine/db_iter.h"
#include "engine/lifecycle.h"
#include "engine/recovery.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

#define READONLY_TRIES 5u
#define RESERVE_LEAST   ((uint64_t)16 << 20)
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

void db_share_memory(struct db *db)
{
    const struct limits *l = &db->options.limits;
    uint64_t have = table_cache_bytes(&db->tables);
    uint64_t each = have > l->table_bytes ? (have - l->table_bytes) / l->memtables_max : 0;
    uint64_t most = l->memtable_bytes / 2;
    uint64_t limit = l->memtable_bytes - (each < most ? each : most);
    atom_store(&db->memtable_limit, limit, relaxed); /* relaxed: as in db_memtable_limit() */
    /* Chunks kept for the next memtables are of the memtables' share, too. */
    uint64_t chunks = limit * l->memtables_max / l->chunk_bytes;
    uint64_t out = chunk_pool_stats(&db->chunks).out;
    chunk_pool_trim(&db->chunks, (size_t)(chunks > out ? chunks - out : 0));
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
        return &db->scratch[slot];
    }
    sst_get_scratch_init(spare, &db->alloc);
    return spare;
}

void db_unref(struct db *db)
{
    /* acq_rel: the last one sees what the others did with the shell's memory. */
    if (atom_sub(&db->refs, 1, acq_rel) == 1) {
        snapshot_list_destroy(&db->snapshots);
        alloc_put_aligned(alloc_global(), MEM_MISC, db, sizeof *db, CACHE_LINE);
    }
}

void db_refuse_writes_locked(struct db *db, int rc)
{
    mutex_assert_held(&db->mu);
    loam_error e = *loam_last_error();
    e.code = rc;
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
    bool room = memtable_list_count(&db->memtables) < db->options.limits.memtables_max;
    mutex_unlock(&db->mu);
    return room;
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
        return rc;
    }
    assert(next == generation + 1);
    mutex_lock(&db->mu);
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
    db->scratch = alloc_zero(&db->alloc, MEM_ITER, DB_SCRATCH_SLOTS * sizeof *db->scratch);
    if (db->scratch == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for read buffers");
    }
    for (uint32_t i = 0; i < DB_SCRATCH_SLOTS; i++) {
        sst_get_scratch_init(&db->scratch[i], &db->alloc);
    }
    rc = chunk_pool_init(&db->chunks, &db->alloc, l->chunk_bytes,
                         (size_t)(l->memtable_bytes / l->chunk_bytes * (l->memtables_max - 1)));
    if (rc < 0) {
        return rc;
    }
    db->have_chunks = true;
    rc = block_cache_init(&db->cache, &db->alloc, l->ring_bytes);
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
    dead_scout_init(&db->scout);
    workers_init(&db->workers, &db->mu, db);
    cond_init(&db->idle_cv);
    snapshot_list_init(&db->snapshots);
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
    struct version *v = version_set_ref_current(&db->versions);
    uint64_t share = version_bytes(v) / 8;
    version_unref(v);
    share = share > RESERVE_LEAST ? share : RESERVE_LEAST;
    share = share < whole ? share : whole;
    disk_reserve_open(&db->reserve, wanted != 0 ? wanted : share, wanted != 0);
    if (disk_reserve_spent(&db->reserve)) {
        int rc = FAIL(LOAM_E_NOSPACE, "the disk has no space for the reserve of %llu bytes",
                      (unsigned long long)db->reserve.bytes);
        db_refuse_writes(db, rc);
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
    bool created = false;
    struct view *first = NULL;
    int rc = open_directory(db);
    if (rc < 0 || (rc = init_parts(db)) < 0) {
        goto fail;
    }
    if (!db->readonly) {
        disk_reserve_yield(&db->reserve, 2 * db->options.limits.segment_bytes);
    }
    rc = recovery_run(db, &created);
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
    if (!db->readonly) {
        dead_scout_open(db);
    }
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

/* Ends the log as durability asks. LOAM_DUR_MEMORY has none: what is in memory goes to tables. */
static int close_log(struct db *db)
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
            int rc_log = close_log(db);
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
    alloc_put(&db->alloc, MEM_ITER, db->scratch, DB_SCRATCH_SLOTS * sizeof *db->scratch);
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
