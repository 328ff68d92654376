/* keyspace_order.h - Brings what was recovered of a keyspace into its order once the order is known.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A comparator is code, so after an open the order of a keyspace that has one is unknown until
 * loam_ks_open() gives it. Entries that the log brought back before that stand in memtables in byte
 * order, and a flush writes them to level 0 in byte order, in tables whose comparator is "". Nobody
 * can read or write the keyspace meanwhile, for that takes a handle; merges leave it alone.
 */
#ifndef LOAM_ENGINE_KEYSPACE_ORDER_H_
#define LOAM_ENGINE_KEYSPACE_ORDER_H_

#include "engine/db.h"

/* Sets the order of a keyspace, for good. Before that, entries in byte order are flushed from memory
 * and their tables written anew; nothing of it when the order is known already.
 * Threads: the holder of control_mu, outside of a section.
 * Returns: LOAM_OK, E_FORMAT (another comparator), an error of a flush or merge, or E_READONLY:
 * there are such entries, and a read-only database cannot write them. */
int keyspace_order_give(struct db *db, struct keyspace *space, const loam_comparator *cmp);

#endif
