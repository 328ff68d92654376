/* log_preparer.c - Has the log's next segment made ready while writers fill the current one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/log_preparer.h"

#include "engine/db.h"

#include "arena/poison.h"

static void prepare(struct db *db)
{
    /* Else the writer that needs the segment tries again and has the error. */
    if (wal_prepare(&db->wal) == LOAM_OK) {
        db_log_goes_on(db);
    }
}

void log_preparer_init(struct errand *e, struct db *db)
{
    errand_init(e, db, "loam-log", prepare);
}

void log_preparer_poll(struct errand *e)
{
    if (!errand_running(e) && wal_prepare_due(&e->db->wal)) {
        errand_begin(e);
    }
}
