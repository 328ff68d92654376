/* log_support.h - For tests of what a memtable of full size holds: a log begins with a small segment.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_LOG_SUPPORT_H_
#define LOAM_TESTS_ENGINE_LOG_SUPPORT_H_

#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

/* What is written from now on goes into a segment of full size. */
static inline void grow_log(loam_db *db)
{
    struct db *in = db_behind(db);
    uint64_t whole = in->options.limits.segment_bytes;
    GOES(db_seal(in, wal_generation(&in->wal), whole - whole / 16));
    GOES(loam_flush(db, NULL));
}

#endif
