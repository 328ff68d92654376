/* log_syncer.c - Syncs the log every now and then.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/log_syncer.h"

#include "arena/status.h"
#include "engine/db.h"

#include "arena/poison.h"

static void sync_log(struct db *db)
{
    int rc = wal_sync(&db->wal, commit_visible(&db->commit));
    if (rc < 0) {
        db_log(db, LOAM_LOG_ERROR, "background sync failed: %s", loam_last_error()->message);
        db_log_failed(db, rc);
    }
}

void log_syncer_init(struct log_syncer *s, struct db *db)
{
    s->last = clock_micros();
    errand_init(&s->errand, db, "loam-sync", sync_log);
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
    if (!due(db) || !errand_may_begin(&s->errand)) {
        return; /* the next begins as soon as this one has ended */
    }
    s->last = clock_micros();
    if (wal_durable(&db->wal) < commit_visible(&db->commit)) {
        stats_add(&db->stats, STAT_SYNCS, 1);
        errand_begin(&s->errand);
    }
}
