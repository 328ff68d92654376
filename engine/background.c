/* background.c - What runs next, and the threads that run it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/background.h"

#include "arena/status.h"
#include "engine/compaction.h"
#include "engine/file_remover.h"
#include "engine/flush.h"

#include "arena/poison.h"

#define RETRY_US 30000u       /* after an error: what failed is tried again this often */
#define RESTORE_US 10000u     /* a full disk is looked at this often */
#define MERGE_WAIT_MAX_US 2000000u /* longest pause after merges that failed in a row */
#define IDLE_MERGE_US 200000u /* quiet time before idle merges begin */
#define REST_US 1000000u /* without a write before flushes and merges for readers alone: else the next
                          * ones would be due soon */
#define LOG_PART 64u /* of the tables' bytes may stay in log files kept for writers who rest */
#define AHEAD_AT 16u /* at this part of its limit a memtable is worth memory made ready ahead of it */
#define CHUNKS_AHEAD 4u
#define KEEPER_US 100000u     /* longest sleep of the keeper */
#define KEEPER_FIRST_US 1000u /* before its first round: many databases are closed sooner */
#define PACED_KEEPER_US 2000u /* while writers are paced */
#define DRAIN_DEFAULT ((uint64_t)100 << 20) /* bytes per second before anything is measured */
#define DRAIN_MIN ((uint64_t)1 << 20)

/* ---- pacing ------------------------------------------------------------------------------------ */

/* 0 below soft, 1 at hard, more beyond. */
static double pressure_of(double have, double soft, double hard)
{
    return have <= soft ? 0.0 : (have - soft) / (hard - soft);
}

/* Bytes that flushes take a second. */
static uint64_t drain_locked(const struct db *db)
{
    return db->drain_bytes_per_s != 0 ? db->drain_bytes_per_s : DRAIN_DEFAULT;
}

/* Sets the price of writing from what the background owes. The memtables are the near limit: one
 * sealed is the normal state, and the price rises from there until the last one is full. Merge debt
 * is the far one. */
static void update_pace_locked(struct db *db)
{
    const struct limits *l = &db->options.limits;
    double w = (double)db_memtable_limit(db);
    double mem = pressure_of((double)memtable_list_bytes(&db->memtables), 1.6 * w,
                             (double)l->memtables_max * w);
    double base = (double)db->picker.tunables.base_level_bytes;
    double debt = pressure_of((double)db->debt, 4.0 * base, 16.0 * base);
    double p = mem > debt ? mem : debt;
    if (p <= 0.0) {
        write_controller_pace(&db->control, 0);
        return;
    }
    double share = p < 1.0 ? 2.0 - 1.5 * p : 0.5;
    double rate = (double)drain_locked(db) * share;
    write_controller_pace(&db->control, rate > (double)DRAIN_MIN ? (uint64_t)rate : DRAIN_MIN);
}

static void measure_debt_locked(struct db *db)
{
    struct version *v = version_set_ref_current(&db->versions);
    db->debt = compaction_debt_bytes(v, &db->picker.tunables);
    version_unref(v);
}

/* ---- errors ------------------------------------------------------------------------------------ */

/* A background job failed with the thread's error of the moment. */
static void job_failed(struct db *db, const char *what, bool merge, int rc)
{
    if (rc == LOAM_E_CANCELED) {
        return;
    }
    stats_add(&db->stats, STAT_ERRORS, 1);
    db_log(db, LOAM_LOG_ERROR, "%s failed: %s", what, loam_last_error()->message);
    bool more = db_spend_reserve(db, rc);
    if (!more) {
        db_refuse_writes(db, rc);
    }
    mutex_lock(&db->mu);
    uint64_t now = clock_micros();
    if (merge) { /* a full disk does not wait for it, and each try costs what it writes in vain */
        uint64_t wait = db->merge_wait != 0 ? db->merge_wait * 2 : RETRY_US;
        db->merge_wait = wait < MERGE_WAIT_MAX_US ? wait : MERGE_WAIT_MAX_US;
        db->merge_at = more ? 0 : now + db->merge_wait;
    } else {
        db->retry_at = more ? 0 : now + RETRY_US;
        /* What a merge holds at the moment comes back: then it was not all there was. */
        db->failed_flushes += !more && db->compacting == 0;
    }
    mutex_unlock(&db->mu);
}

static bool may_work_locked(const struct db *db)
{
    return db->retry_at == 0 || clock_micros() >= db->retry_at;
}

/* Whether writes are refused for something that comes back by itself. */
static bool healing_locked(const struct db *db)
{
    return db->error.code != LOAM_OK && (db->error.flags & LOAM_ERR_STICKY) == 0;
}

/* What must be put right before an error that heals is over: a full disk is over when there is space
 * for its reserve again. */
static bool to_restore(const struct db *db)
{
    return disk_reserve_spent(&db->reserve) || version_set_in_doubt(&db->versions);
}

/* A job succeeded: what an error refused may go on. */
static void job_succeeded_locked(struct db *db)
{
    db->retry_at = 0;
    if (healing_locked(db) && to_restore(db)) {
        return;
    }
    db->merge_at = db->merge_wait = 0;
    if (healing_locked(db)) {
        db->error.code = LOAM_OK;
        write_controller_refuse(&db->control, false);
        stats_add(&db->stats, STAT_RESUMES, 1);
    }
}

/* ---- workers ----------------------------------------------------------------------------------- */

static void flush_locked(struct db *db)
{
    uint64_t bytes = memtable_list_bytes(&db->memtables);
    uint64_t start = clock_micros();
    db->flushing = true;
    mutex_unlock(&db->mu);
    int rc = flush_run(db);
    if (rc < 0) {
        job_failed(db, "flush", false, rc);
    }
    epoch_poll();
    mutex_lock(&db->mu);
    db->flushing = false;
    if (rc == LOAM_OK) {
        uint64_t left = memtable_list_bytes(&db->memtables);
        uint64_t micros = clock_micros() - start + 1;
        uint64_t speed = (bytes > left ? bytes - left : 0) * 1000000 / micros;
        if (speed > DRAIN_MIN) {
            db->drain_bytes_per_s =
                db->drain_bytes_per_s != 0 ? (db->drain_bytes_per_s * 3 + speed) / 4 : speed;
        }
        job_succeeded_locked(db);
        measure_debt_locked(db);
        background_kick_locked(db);
    }
    cond_broadcast(&db->idle_cv);
}

static enum worker_round flush_round(void *arg)
{
    struct db *db = arg;
    if (!flush_due_locked(db)) {
        return WORKER_RESTS;
    }
    if (!may_work_locked(db)) {
        return WORKER_WAITS;
    }
    flush_locked(db);
    return WORKER_WORKED;
}

/* Whether a flush runs, a merge, or the seal of what a flush is to take. */
static bool working_locked(const struct db *db)
{
    return db->flushing || db->rest.sealing || db->compacting != 0;
}

/* Micros since there was something else to do; whoever waits for rest need not wait for that. */
static uint64_t quiet_locked(struct db *db)
{
    if (db->idle_waiters != 0) {
        return UINT64_MAX;
    }
    return rest_is_far_locked(db, drain_locked(db)) ? 0 : clock_micros() - db->idle_since;
}

/* Whether what is for readers alone may begin when it has been quiet for so long. */
static bool rests_locked(struct db *db, uint64_t quiet)
{
    return quiet == UINT64_MAX || (quiet > IDLE_MERGE_US && rest_micros_locked(db) > REST_US);
}

/* Bytes that the files may still grow by. A disk without a budget is asked once it has been full. */
static uint64_t disk_room_locked(struct db *db)
{
    struct disk_account *a = &db->files.account;
    if (a->budget != 0) {
        return disk_account_left(a);
    }
    return db->error.code == LOAM_E_NOSPACE ? disk_reserve_free(&db->reserve) : UINT64_MAX;
}

/* Whether the files may grow by all that they are and a full level 0. With less a merge that waits may find no
 * space any more for what it writes, and then nothing ever makes room for writers again. */
static bool roomy_locked(const struct db *db)
{
    uint64_t budget = db->files.account.budget, room = db->picker.room;
    return budget == 0 || room >= budget - room + db->picker.tunables.base_level_bytes;
}

static int pick_trim_locked(struct db *db, struct version *v, uint64_t oldest, bool surely,
                            struct compaction **c)
{
    db->picker.room = disk_room_locked(db);
    return compaction_pick_trim(&db->picker, v, oldest, surely, c);
}

/* What is due, and what waits for it to have been quiet for so long. What there is no space for must wait for
 * merges that need less. */
static int pick_after_locked(struct db *db, struct version *v, uint64_t oldest, uint64_t quiet,
                             struct compaction **c)
{
    struct compaction_picker *p = &db->picker;
    p->room = disk_room_locked(db);
    p->cramped = false;
    int rc = compaction_pick(p, v, oldest, c);
    if (rc == LOAM_NOTFOUND && (quiet > IDLE_MERGE_US || !roomy_locked(db))) {
        rc = compaction_idle_pick(p, v, oldest, c);
    }
    if (rc == LOAM_NOTFOUND && rests_locked(db, quiet)) {
        rc = compaction_rest_pick(p, v, oldest, c);
    }
    return rc == LOAM_NOTFOUND && p->cramped ? compaction_pick_trim(p, v, oldest, false, c) : rc;
}

/* Whether merges may begin by themselves. */
static bool may_merge_locked(const struct db *db)
{
    if (db->error.code != LOAM_OK && (db->error.flags & LOAM_ERR_STICKY) != 0) {
        return false; /* a merge tried again for ever heals nothing and wears out the disk */
    }
    return db->paused == 0 && db->manual == 0 && may_work_locked(db) &&
           clock_micros() >= db->merge_at && !atom_load(&db->stopping, relaxed);
}

/* Micros of quiet; 0: there is something to do. */
static uint64_t quiet_now_locked(struct db *db)
{
    return working_locked(db) || flush_due_locked(db) ? 0 : quiet_locked(db);
}

/* Whether the memtable that resting writers left is to become a table. */
static bool flush_for_readers_locked(struct db *db)
{
    return db->error.code == LOAM_OK && may_merge_locked(db) &&
           rests_locked(db, quiet_now_locked(db)) && rest_flush_due_locked(db, disk_room_locked(db));
}

/* What to merge next; LOAM_NOTFOUND: nothing. */
static int pick_locked(struct db *db, struct compaction **c)
{
    if (!may_merge_locked(db)) {
        return LOAM_NOTFOUND;
    }
    struct version *v = version_set_ref_current(&db->versions);
    uint64_t oldest = snapshot_oldest(&db->snapshots, &db->commit);
    int rc = LOAM_NOTFOUND;
    if (db->error.code == LOAM_E_NOSPACE) {
        rc = pick_trim_locked(db, v, oldest, true, c);
    }
    if (rc == LOAM_NOTFOUND) {
        rc = pick_after_locked(db, v, oldest, quiet_now_locked(db), c);
    }
    version_unref(v);
    return rc;
}

/* Runs a picked job. */
static int compact_locked(struct db *db, struct compaction *c)
{
    db->compacting++;
    compaction_spend_seeks(c);
    mutex_unlock(&db->mu);
    int rc = compaction_run(db, c);
    if (rc < 0) {
        job_failed(db, "merge", true, rc);
    }
    epoch_poll();
    mutex_lock(&db->mu);
    db->compacting--;
    if (rc == LOAM_OK) {
        job_succeeded_locked(db);
        measure_debt_locked(db);
        update_pace_locked(db);
        background_wake_locked(db);
    }
    cond_broadcast(&db->idle_cv);
    return rc;
}

static enum worker_round merge_round(void *arg)
{
    struct db *db = arg;
    struct compaction *c;
    if (compaction_help_locked(db)) {
        return WORKER_WORKED;
    }
    if (dead_scout_due_locked(db)) {
        dead_scout_run_locked(db);
        return WORKER_WORKED;
    }
    if (flush_for_readers_locked(db)) {
        rest_flush_locked(db);
        return WORKER_WORKED;
    }
    if (pick_locked(db, &c) != LOAM_OK) {
        return WORKER_RESTS; /* what cannot be picked now is for the keeper to see */
    }
    compact_locked(db, c);
    return WORKER_WORKED;
}

static const struct worker_kind flusher = {"loam-flush", flush_round, WORKER_IDLE_US, RETRY_US};
static const struct worker_kind merger = {"loam-merge", merge_round, IDLE_MERGE_US, IDLE_MERGE_US};

/* Whether there is something to merge when it has been quiet for so long. */
static bool merge_due_locked(struct db *db, uint64_t quiet)
{
    struct version *v = version_set_ref_current(&db->versions);
    uint64_t oldest = snapshot_oldest(&db->snapshots, &db->commit);
    struct compaction *c;
    int rc = pick_after_locked(db, v, oldest, quiet, &c);
    if (rc == LOAM_OK) {
        compaction_free(&db->picker, c); /* only asked; a worker will pick it again */
    }
    version_unref(v);
    return rc == LOAM_OK;
}

static void wake_locked(struct db *db, const struct worker_kind *kind)
{
    int neg = db->readonly ? 0 : workers_wake_locked(&db->workers, kind);
    if (neg < 0) { /* one flusher and one merger do the work of all; with less nothing would end */
        int rc = FAIL(LOAM_E_NOMEM, "cannot start a background thread: error %d", -neg);
        stats_add(&db->stats, STAT_ERRORS, 1);
        db_refuse_writes_locked(db, rc); /* the keeper tries again */
        db->failed_flushes++;
        db->retry_at = clock_micros() + RETRY_US;
    }
}

void background_wake_locked(struct db *db)
{
    wake_locked(db, NULL);
}

void background_kick_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    db->idle_since = clock_micros();
    update_pace_locked(db);
    background_wake_locked(db);
}

void background_sealed_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    db->idle_since = db->rest.sealed_at = clock_micros();
    update_pace_locked(db);
    wake_locked(db, &flusher);
}

/* On a full disk: frees what it can in steps that need little space. Returns whether it freed some. */
static bool trim_locked(struct db *db)
{
    bool any = false;
    int rc;
    do {
        struct version *v = version_set_ref_current(&db->versions);
        struct compaction *c;
        rc = pick_trim_locked(db, v, snapshot_oldest(&db->snapshots, &db->commit), false, &c);
        version_unref(v);
        if (rc == LOAM_OK) {
            rc = compact_locked(db, c);
        }
        any = any || rc == LOAM_OK;
    } while (rc == LOAM_OK && !atom_load(&db->stopping, relaxed)); /* relaxed: a wish */
    return any;
}

int background_compact_range(struct db *db, const struct compaction_range *range, int level)
{
    mutex_lock(&db->mu);
    struct version *v = version_set_ref_current(&db->versions);
    uint64_t oldest = snapshot_oldest(&db->snapshots, &db->commit);
    struct compaction *c;
    int rc = compaction_pick_range(&db->picker, v, range, level, oldest, &c);
    version_unref(v);
    if (rc == LOAM_OK) {
        rc = compact_locked(db, c);
        if (rc == LOAM_E_NOSPACE) {
            loam_error e = *loam_last_error();
            rc = trim_locked(db) ? LOAM_OK : status_raise(&e);
        }
    }
    mutex_unlock(&db->mu);
    return rc;
}

bool background_idle_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    if (working_locked(db)) {
        return false;
    }
    if (db->error.code != LOAM_OK) {
        return true; /* what is due cannot be done: whoever waits is told why */
    }
    if (flush_due_locked(db) || dead_scout_busy_locked(db)) {
        return false;
    }
    if (db->paused != 0) {
        return true;
    }
    return !flush_for_readers_locked(db) &&
           !merge_due_locked(db, db->idle_waiters != 0 ? UINT64_MAX : 0);
}

/* ---- keeper ------------------------------------------------------------------------------------ */

/* Whether the active memtable has come so far that more memory will be wanted soon. */
static bool under_way(struct db *db)
{
    epoch_enter();
    struct memtable *m = memtable_list_find(&db->memtables, wal_generation(&db->wal));
    bool yes = m != NULL && memtable_bytes(m) >= db_memtable_limit(db) / AHEAD_AT;
    epoch_exit();
    return yes;
}

/* Makes one more chunk ready, so that no writer waits for its pages, until memtables have had all they
 * may have: from then on chunks come back from flushes. None that would be trimmed at once, and made again.
 * Whether there is more to do. */
static bool prepare_chunk(struct db *db)
{
    const struct limits *l = &db->options.limits;
    struct chunk_pool_stats s = chunk_pool_stats(&db->chunks);
    uint64_t all = db_memtable_limit(db) * l->memtables_max / l->chunk_bytes;
    return s.idle < CHUNKS_AHEAD && s.idle < db->share.chunks && s.out + s.idle < all && under_way(db) &&
           chunk_pool_prefill(&db->chunks, (size_t)s.idle + 1) == LOAM_OK;
}

/* Prepares the next memtable, so that sealing does not wait for zeroed pages. */
static void prepare_spare(struct db *db)
{
    if (!under_way(db) || !mutex_try_lock(&db->seal_mu)) {
        return;
    }
    if (db->spare == NULL) {
        db_new_memtable(db, &db->spare); /* no memory now: sealing tries again and reports */
    }
    mutex_unlock(&db->seal_mu);
}

/* Heals what heals by itself: a refusal without STICKY whose retry is due. */
static void retry_errors(struct db *db)
{
    mutex_lock(&db->mu);
    if (healing_locked(db) && may_work_locked(db) && !working_locked(db) && !flush_due_locked(db)) {
        job_succeeded_locked(db); /* nothing is left that failed: let writers try */
    }
    update_pace_locked(db);
    if (flush_due_locked(db)) {
        wake_locked(db, &flusher); /* while writers are paced that is at each tick */
    }
    mutex_unlock(&db->mu);
}

/* Bytes that running merges may still write. */
static uint64_t merges_need_locked(const struct db *db)
{
    uint64_t sum = 0;
    for (const struct compaction *c = db->picker.running; c != NULL; c = c->next) {
        sum += c->is_move ? 0 : c->trim != 0 ? c->inputs[1][0]->meta.size : c->input_bytes;
    }
    return sum;
}

/* Whether the reserve can be set aside without taking what was given up for a merge from it in the midst: it
 * would fail, and fail again each time. */
static bool merges_can_spare_locked(const struct db *db)
{
    uint64_t need = merges_need_locked(db);
    return need == 0 || disk_reserve_free(&db->reserve) >= db->reserve.bytes + need;
}

/* Looks for space where there was none, and ends a doubt about the manifest. */
static void restore_reserve(struct db *db)
{
    mutex_lock(&db->mu);
    uint64_t now = clock_micros();
    bool look = healing_locked(db) && now >= db->restore_at && !db->flushing && to_restore(db) &&
                merges_can_spare_locked(db);
    if (look) {
        db->restore_at = now + RESTORE_US;
    }
    mutex_unlock(&db->mu);
    if (look && disk_reserve_restore(&db->reserve)) {
        db_log(db, LOAM_LOG_INFO, "there is space for the disk reserve");
        (void)version_set_resume(&db->versions); /* an edit that was left in doubt; else tried again */
    }
}

void background_give_up_logs(struct db *db)
{
    uint64_t idle = wal_idle_bytes(&db->wal);
    if (idle == 0) {
        return;
    }
    mutex_lock(&db->mu);
    bool rests = rests_locked(db, quiet_now_locked(db));
    uint64_t kept = version_set_bytes(&db->versions) / LOG_PART;
    mutex_unlock(&db->mu);
    if (rests && idle > kept) {
        (void)wal_shed(&db->wal); /* what cannot be removed is told of by the log, and no loss */
    }
}

/* A log at rest keeps little beside its tables. */
static void rest_log(struct db *db)
{
    mutex_lock(&db->mu);
    bool rests = db->error.code == LOAM_OK && rests_locked(db, quiet_now_locked(db));
    mutex_unlock(&db->mu);
    if (rests) {
        log_preparer_shrink(&db->preparer);
    }
}

/* What became due by time alone and nobody is there to see: idle merges, the scout, a flush whose
 * thread could not be started. A database at rest goes without threads. */
static void start_for_what_is_due(struct db *db)
{
    mutex_lock(&db->mu);
    bool flush = workers_absent_locked(&db->workers, &flusher) && flush_due_locked(db) &&
                 may_work_locked(db);
    bool merge = false;
    if (workers_absent_locked(&db->workers, &merger)) {
        merge = dead_scout_due_locked(db) || flush_for_readers_locked(db) ||
                (may_merge_locked(db) && merge_due_locked(db, quiet_locked(db)));
    }
    if (flush || merge) {
        background_wake_locked(db);
    }
    mutex_unlock(&db->mu);
}

static void *keeper_main(void *arg)
{
    struct db *db = arg;
    thread_name("loam-keeper");
    uint64_t last_tick = clock_micros();
    uint32_t first = wal_work_ticket(&db->wal);
    if (!atom_load(&db->keeper_stop, acquire)) { /* acquire: pairs with background_stop() */
        wal_wait_work(&db->wal, first, KEEPER_FIRST_US);
    }
    while (!atom_load(&db->keeper_stop, acquire)) { /* acquire: pairs with background_stop() */
        uint32_t ticket = wal_work_ticket(&db->wal);
        bool more = false;
        if (wal_keep(&db->wal, commit_visible(&db->commit), &more) < 0) {
            /* The writer that needs the resource gets the error; here it is only retried. */
            more = false;
        }
        log_preparer_poll(&db->preparer);
        prepare_spare(db);
        more = prepare_chunk(db) || more;
        log_syncer_poll(db);
        bool paced = write_controller_state(&db->control) != 0;
        uint64_t now = clock_micros();
        if (paced || now - last_tick >= KEEPER_US) {
            last_tick = now;
            restore_reserve(db);
            retry_errors(db);
            start_for_what_is_due(db);
            background_give_up_logs(db);
            rest_log(db);
            epoch_poll();
            table_cache_poll(&db->tables);
            version_set_reap(&db->versions);
            file_remover_poll(&db->remover); /* of versions that readers held until now, too */
        }
        uint64_t share_us = memory_share_keep(db);
        if (!more) {
            uint64_t rest_us = paced ? PACED_KEEPER_US : KEEPER_US;
            wal_wait_work(&db->wal, ticket, share_us < rest_us ? share_us : rest_us);
        }
    }
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------- */

int background_start(struct db *db)
{
    log_syncer_init(&db->syncer, db);
    log_preparer_init(&db->preparer, db);
    file_remover_init(&db->remover, db);
    workers_add(&db->workers, &flusher, 1);
    workers_add(&db->workers, &merger, db->options.user.threads);
    int neg = thread_start(&db->keeper, keeper_main, db);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot start a background thread");
    }
    db->keeper_running = true;
    mutex_lock(&db->mu);
    db->idle_since = db->rest.sealed_at = clock_micros();
    if (!background_idle_locked(db)) {
        background_wake_locked(db);
    }
    mutex_unlock(&db->mu);
    return LOAM_OK;
}

static void wind_down_locked(struct db *db)
{
    /* release: pairs with iter_begin(), whose sections that do not see it are waited for; the others
     * only read it now and then. */
    atom_store(&db->stopping, true, release);
    cond_broadcast(&db->idle_cv);
}

void background_wind_down(struct db *db)
{
    mutex_lock(&db->mu);
    wind_down_locked(db);
    mutex_unlock(&db->mu);
}

void background_stop(struct db *db)
{
    mutex_lock(&db->mu);
    workers_stop_locked(&db->workers);
    wind_down_locked(db);
    mutex_unlock(&db->mu);
    workers_join(&db->workers);
    if (db->keeper_running) {
        atom_store(&db->keeper_stop, true, release); /* pairs with the load in keeper_main() */
        wal_wake_keeper(&db->wal);
        thread_join(db->keeper);
        errand_finish(&db->syncer.errand);
        errand_finish(&db->preparer.errand);
        errand_finish(&db->remover);
        db->keeper_running = false;
    }
}
