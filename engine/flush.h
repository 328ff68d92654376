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

#endif
