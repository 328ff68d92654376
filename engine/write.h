/* write.h - Takes a list of operations through admission, log, memtable and commit.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   admit -> [seal when full] -> wal_begin -> memtable_reserve -> copy -> wal_end
 *         -> memtable_add, or the pipeline of a batch -> commit_publish -> [wal_sync]
 *
 * wal_begin is the one step that fixes position, sequence number and memtable. What can fail comes
 * before the record is sealed; a record whose memtable has no room is voided, and one that the log cannot
 * write takes no position, so that an error means that nothing was written.
 */
#ifndef LOAM_ENGINE_WRITE_H_
#define LOAM_ENGINE_WRITE_H_

#include "engine/call.h"
#include "engine/op.h"
#include "memtable/memtable.h"

struct write_request {
    const struct op *one; /* a single operation, or NULL */
    loam_slice ops;       /* otherwise: op.h encoding */
    uint64_t count;       /* operations */
    uint64_t data;        /* bytes of keys and values */
    struct memtable_need need;
};

/* opts NULL: defaults. REQUIRES: inside the call's epoch section, sizes checked against the limits.
 * Returns as loam_put(). */
int write_apply(struct call *c, const struct write_request *q, const loam_write_opts *opts);
/* Makes everything visible now survive power loss. */
int write_sync(struct call *c, uint64_t position);

#endif
