/* recovery.h - From a directory to a running state: manifest, logs, orphans.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   lock -> CURRENT, manifest -> replay every live log segment, in order, into memtables
 *        -> sync what was replayed -> new log segment -> first edit -> clean the directory
 *
 * log_chain.h says where replay ends and what is damage: then the open fails. The logs replayed stay as
 * they are until a flush; the ones behind the end are removed before the first new record is written.
 */
#ifndef LOAM_ENGINE_RECOVERY_H_
#define LOAM_ENGINE_RECOVERY_H_

#include "engine/db.h"

struct recovery_found {
    bool as_closed;   /* the last close was clean, and nothing was logged since */
    uint64_t deletes; /* replayed */
};

/* Fills versions, memtables, commit and wal of a database object whose directory exists and is
 * locked (read-only: is not). Makes the database if there is none and the options allow it. */
int recovery_run(struct db *db, struct recovery_found *found);

#endif
