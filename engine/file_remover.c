/* file_remover.c - Has files removed that nothing names any more, while the keeper goes on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/file_remover.h"

#include "engine/db.h"

#include "arena/poison.h"

#define AGAIN_US 100000u /* after a failure: what a disk refuses now it may allow later */

static void remove_queued(struct db *db)
{
    obsolete_files_purge(&db->obsolete);
    if (obsolete_files_pending(&db->obsolete) != 0) {
        db->remover.again_at = clock_micros() + AGAIN_US;
    }
}

void file_remover_init(struct file_remover *r, struct db *db)
{
    r->again_at = 0;
    errand_init(&r->errand, db, "loam-remove", remove_queued);
}

void file_remover_poll(struct file_remover *r)
{
    if (!errand_running(&r->errand) && obsolete_files_pending(&r->errand.db->obsolete) != 0 &&
        clock_micros() >= r->again_at) {
        errand_begin(&r->errand);
    }
}
