/* log_support.h - For tests of what a memtable of full size holds: a log begins with a small segment.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_LOG_SUPPORT_H_
#define LOAM_TESTS_ENGINE_LOG_SUPPORT_H_

#include "arena/epoch.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/db_support.h"

/* The database behind a handle, which stays open. */
static inline struct db *db_behind(loam_db *db)
{
    epoch_enter();
    struct db *in = slotmap_get(&registry_get()->dbs, HANDLE_OF(db));
    epoch_exit();
    return in;
}

/* What is written from now on goes into a segment of full size. */
static inline void grow_log(loam_db *db)
{
    struct db *in = db_behind(db);
    uint64_t whole = in->options.limits.segment_bytes;
    GOES(db_seal(in, wal_generation(&in->wal), whole - whole / 16));
    GOES(loam_flush(db, NULL));
}

#endif
