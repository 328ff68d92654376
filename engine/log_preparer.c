/* log_preparer.c - Has the log's next segment made ready while writers fill the current one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/log_preparer.h"

#include "engine/db.h"

#include "arena/poison.h"

#define AGAIN_US 50000u /* after a failure: on a full disk the keeper comes by every few milliseconds */
#define MUCH_PART 8u    /* of the tables' bytes, and as much is set aside: a quarter in all */
#define FAILED_TELL 3u  /* in a row: what passes by itself is not told of */

/* The large segment is given back like any other whose memtable is flushed, and this one is empty. */
static void shrink(struct db *db)
{
    uint32_t generation = wal_generation(&db->wal);
    if (wal_shrink(&db->wal)) {
        (void)db_seal(db, generation, 0); /* no room for a memtable now: it is the next one */
    }
}

static void prepare(struct db *db)
{
    struct log_preparer *p = &db->preparer;
    if (p->shrink) {
        p->shrink = false;
        shrink(db);
        return;
    }
    /* Else the writer that needs the segment tries again and has the error. */
    int rc = wal_prepare(&db->wal);
    if (rc == LOAM_OK) {
        p->failed = 0;
        db_log_goes_on(db);
        return;
    }
    if (++p->failed >= FAILED_TELL) {
        db_log_may_end(db, rc);
    }
    errand_put_off(&p->errand, AGAIN_US);
}

void log_preparer_init(struct log_preparer *p, struct db *db)
{
    p->failed = 0;
    p->shrink = false;
    errand_init(&p->errand, db, "loam-log", prepare);
}

void log_preparer_poll(struct log_preparer *p)
{
    if (errand_may_begin(&p->errand) && wal_prepare_due(&p->errand.db->wal)) {
        errand_begin(&p->errand);
    }
}

bool log_is_much(struct db *db)
{
    return db->options.limits.segment_bytes > version_set_bytes(&db->versions) / MUCH_PART;
}

void log_preparer_shrink(struct log_preparer *p)
{
    struct db *db = p->errand.db;
    if (errand_may_begin(&p->errand) && wal_shrink_due(&db->wal) && log_is_much(db)) {
        p->shrink = true;
        errand_begin(&p->errand);
    }
}
