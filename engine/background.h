/* background.h - The threads behind a database: one flushes, others merge, one keeps time and the log.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   flusher   sealed memtables, as soon as there are any
 *   mergers   `threads` of them: what the picker finds, parts of a big merge, idle merges
 *   keeper    log windows ahead of the tail, reclamation, pacing, retries; begins syncs of the log,
 *             the making of its segments and the removal of files, each on a thread of its own
 *             (errand.h)
 *
 * The keeper begins with the database and ends with it. The others are workers (workers.h): they begin
 * when there is something for them to do, and end when there has been nothing for some seconds; what
 * becomes due by time alone after that is for the keeper to see. It sleeps on the log's work word with
 * a time limit.
 */
#ifndef LOAM_ENGINE_BACKGROUND_H_
#define LOAM_ENGINE_BACKGROUND_H_

#include "engine/db.h"

/* LOAM_OK, or the error of starting a thread. REQUIRES: mu not held. */
int background_start(struct db *db);
/* The database is about to close: no merge begins any more, running ones are canceled, and waits for
 * background work end. Flushes go on, and the threads stay until background_stop(). */
void background_wind_down(struct db *db);
/* Ends every thread; running merges are canceled, a running flush ends. */
void background_stop(struct db *db);
/* Wakes the workers, and starts those that are not there; when that fails writes are refused until a
 * later call can. REQUIRES: mu held. */
void background_wake_locked(struct db *db);
/* Something may be due: wakes workers, updates pacing. REQUIRES: mu held. */
void background_kick_locked(struct db *db);
/* The same for a memtable that was sealed: by a writer, who wakes no more threads than that needs.
 * REQUIRES: mu held. */
void background_sealed_locked(struct db *db);
/* No flush or merge is running or due. REQUIRES: mu held. */
bool background_idle_locked(struct db *db);
/* When writers rest, gives up the log files kept for recycling if they are much beside the tables: the next
 * writer pays for a new one. REQUIRES: mu not held. */
void background_give_up_logs(struct db *db);
/* Runs one merge for a caller's thread (loam_compact): picks level by level in the range.
 * LOAM_OK: something was done; LOAM_NOTFOUND: nothing is left; LOAM_CONFLICT: wait and try again. */
int background_compact_range(struct db *db, const struct compaction_range *range, int level);

#endif
