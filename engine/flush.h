/* flush.h - Sealed memtables to level-0 tables; then their log segments and memory go.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_FLUSH_H_
#define LOAM_ENGINE_FLUSH_H_

#include "engine/db.h"

/* Whether a sealed memtable is waiting. REQUIRES: mu held. */
bool flush_due_locked(const struct db *db);
/* Flushes every memtable sealed at the call, as one: overwritten versions meet and go. One at a time
 * (db->flushing is the caller's). REQUIRES: no lock held, not inside an epoch section. On error the
 * memtables and their log stay. */
int flush_run(struct db *db);

/* ---- for recovery, while nobody else knows the database ------------------------------------------ */

/* Writes every sealed memtable to tables, which `edit` names from then on, and drops the memtables. Whoever
 * applies the edit has made durable the names of the files and the log they came from: until then a
 * crash finds that log alone. On error the memtables stay and the edit is as before. */
int flush_replayed(struct db *db, struct version_edit *edit);
/* The edit is never applied: the files of its added tables, but for the first `keep`, are nobody's, and it names
 * them no more. */
void flush_drop_tables(struct db *db, struct version_edit *edit, uint32_t keep);
/* The edit says that tables hold all positions below `boundary`, and names the oldest log segment that
 * memtables from `generation` on came from. */
void flush_set_log(struct db *db, uint32_t generation, uint64_t boundary, struct version_edit *edit);
/* Log segments that were found at open and are not needed any more serve the log again, if there is one. */
void flush_give_up_replayed(struct db *db);

#endif
