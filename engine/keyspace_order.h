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

/* Flushes the keyspace's entries from memory and writes its tables that are in byte order anew in the
 * order of cmp; nothing to do when its order is known. To be followed by version_set_order_ks().
 * Threads: the holder of control_mu, outside of a section.
 * Returns: LOAM_OK, an error of a flush or merge, or E_READONLY: a read-only database cannot. */
int keyspace_order_prepare(struct db *db, struct keyspace *space, const loam_comparator *cmp);

#endif
