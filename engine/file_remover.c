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
        errand_put_off(&db->remover, AGAIN_US);
    }
}

void file_remover_init(struct errand *e, struct db *db)
{
    errand_init(e, db, "loam-remove", remove_queued);
}

void file_remover_poll(struct errand *e)
{
    if (errand_may_begin(e) && obsolete_files_pending(&e->db->obsolete) != 0) {
        errand_begin(e);
    }
}
