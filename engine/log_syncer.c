/* log_syncer.c - Syncs the log every now and then, on a thread that lasts as long as the sync.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/log_syncer.h"

#include "arena/status.h"
#include "engine/db.h"

#include "arena/poison.h"

void log_syncer_init(struct log_syncer *s)
{
    s->last = clock_micros();
    s->started = false;
    atomic_init(&s->running, false);
}

static void sync_log(struct db *db)
{
    int rc = wal_sync(&db->wal, commit_visible(&db->commit));
    if (rc < 0) {
        db_log(db, LOAM_LOG_ERROR, "background sync failed: %s", loam_last_error()->message);
        db_log_failed(db, rc);
    }
}

static void *syncer_main(void *arg)
{
    struct db *db = arg;
    thread_name("loam-sync");
    sync_log(db);
    atom_store(&db->syncer.running, false, release); /* pairs with log_syncer_poll() */
    return NULL;
}

static bool due(const struct db *db)
{
    uint32_t interval = db->options.user.sync_interval_ms;
    return db->logging && interval != UINT32_MAX &&
           clock_micros() - db->syncer.last >= (uint64_t)interval * 1000;
}

void log_syncer_poll(struct db *db)
{
    struct log_syncer *s = &db->syncer;
    if (!due(db)) {
        return;
    }
    /* acquire: pairs with the release in syncer_main(); what is left of it is its return. */
    if (atom_load(&s->running, acquire)) {
        return; /* the next begins as soon as this one has ended */
    }
    log_syncer_stop(s);
    s->last = clock_micros();
    if (wal_durable(&db->wal) >= commit_visible(&db->commit)) {
        return;
    }
    stats_add(&db->stats, STAT_SYNCS, 1);
    atom_store(&s->running, true, relaxed); /* relaxed: the start of the thread orders it */
    s->started = thread_start(&s->thread, syncer_main, db) == 0;
    if (!s->started) { /* late windows are better than no sync */
        atom_store(&s->running, false, relaxed);
        sync_log(db);
    }
}

void log_syncer_stop(struct log_syncer *s)
{
    if (s->started) {
        thread_join(s->thread);
        s->started = false;
    }
}
