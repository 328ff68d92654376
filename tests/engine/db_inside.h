/* db_inside.h - For tests that look into an open database.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_DB_INSIDE_H_
#define LOAM_TESTS_ENGINE_DB_INSIDE_H_

#include "arena/epoch.h"
#include "engine/db.h"
#include "engine/handles.h"

/* The database behind a handle, which stays open. */
static inline struct db *db_behind(loam_db *db)
{
    epoch_enter();
    struct db *in = slotmap_get(&registry_get()->dbs, HANDLE_OF(db));
    epoch_exit();
    return in;
}

#endif
