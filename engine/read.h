/* read.h - One key at one sequence number, through memtables and tables.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_READ_H_
#define LOAM_ENGINE_READ_H_

#include "engine/db.h"

/* The newest version of key with a sequence number <= snapshot; a delete is LOAM_NOTFOUND. *e is lent
 * until the epoch section ends or the scratch is used again. REQUIRES: inside an epoch section, in
 * which v was loaded before the snapshot number, if that is the latest. cmp: the keyspace's order. */
int read_get(struct db *db, const struct view *v, uint32_t ks, const loam_comparator *cmp,
             loam_slice key, uint64_t snapshot, struct sst_get_scratch *scratch, struct entry *e);

#endif
