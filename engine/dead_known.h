/* dead_known.h - What is known of dead ranges outlives a clean close.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The last edit of a clean close carries the proven ranges (version_edit.h, field 27). Nothing can come
 * between that edit and the open that reads it, and the first edit of that open starts a manifest which
 * says nothing of them: so a range on disk is never older than what it speaks of. After a crash there are
 * none, and the open looks for itself (dead_survey.h).
 *
 * A range needs its keyspace's order. Until a comparator is given the ranges of its keyspace wait in
 * version_set.known: nobody can write there before; if it is never given, the next close takes them along.
 *
 * Nothing fails: without memory ranges are forgotten. Those that make no sense are passed over.
 */
#ifndef LOAM_ENGINE_DEAD_KNOWN_H_
#define LOAM_ENGINE_DEAD_KNOWN_H_

#include <stdbool.h>
#include <stdint.h>

struct db;

/* At the end of an open, the log replayed. as_closed: it ended where the close had left it; a database
 * that is open for reading only may have been opened for writing meanwhile. REQUIRES: nobody else uses
 * the database yet. */
void dead_known_open(struct db *db, bool as_closed);
/* The keyspace has its order now. REQUIRES: nobody has a handle of it yet. */
void dead_known_order(struct db *db, uint32_t ks);
/* Before version_set_close_clean(). REQUIRES: nobody else uses the database any more. */
void dead_known_close(struct db *db);

#endif
