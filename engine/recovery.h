/* recovery.h - From a directory to a running state: manifest, logs, orphans.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   lock -> CURRENT, manifest -> replay every live log segment, in order, into memtables
 *        -> sync what was replayed -> new log segment -> first edit -> clean the directory
 *
 * The first live segment begins at or before the number after the manifest's last sequence number (a
 * flush of replayed entries may end inside a segment), and each one must begin where the one before it
 * ended; so a segment that is missing is noticed.
 *
 * Replay stops at the first record that does not parse. If anything in the logs says that a position
 * beyond it was durable, or the manifest says that the log was closed cleanly at another place, that
 * is damage, and the open fails with LOAM_E_CORRUPT naming file and offset. Otherwise it is the torn
 * end of writes that nobody was promised, and what lies behind it is given up for good: the logs
 * replayed stay as they are until a flush, the ones behind the end are removed before the first new
 * record is written.
 */
#ifndef LOAM_ENGINE_RECOVERY_H_
#define LOAM_ENGINE_RECOVERY_H_

#include "engine/db.h"

/* Fills versions, memtables, commit and wal of a database object whose directory exists and is
 * locked (read-only: is not). created: there was no database and one was made. */
int recovery_run(struct db *db, bool *created);

#endif
