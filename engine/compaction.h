/* compaction.h - Runs one merge of tables, alone or with the help of idle workers.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   pick (mu) -> parts by key range -> each part: merge_iter -> version_filter -> table_output
 *             -> all parts done: one edit removes the inputs and adds the outputs
 *
 * The worker that runs the job offers its parts through db->job; other workers take parts from it
 * until none is left. The edit is the running worker's alone.
 */
#ifndef LOAM_ENGINE_COMPACTION_H_
#define LOAM_ENGINE_COMPACTION_H_

#include "engine/db.h"
#include "engine/table_output.h"

#define COMPACTION_PARTS_MAX 16u

struct compaction_part {
    struct key_range range; /* lo <= key < hi */
    struct table_output out;
    uint64_t bytes_in;
    int rc;
    loam_error error; /* when rc < 0 */
};

struct compaction_job {
    struct db *db;
    struct compaction *c;
    struct keyspace *space; /* referenced */
    uint64_t *held;
    size_t held_count, held_cap;
    _Atomic bool cancel;
    uint32_t part_count;
    uint32_t next;    /* guarded by db->mu: first part nobody has taken */
    uint32_t running; /* guarded by db->mu: parts taken and not ended */
    struct compaction_part parts[COMPACTION_PARTS_MAX];
};

/* Runs the job to its end and installs the result. Owns: c is freed. REQUIRES: no lock held.
 * Returns LOAM_OK, LOAM_E_CANCELED when the database is closing, or the first error: then nothing
 * has changed. */
int compaction_run(struct db *db, struct compaction *c);
/* Takes one part of db->job and runs it. REQUIRES: mu held (released meanwhile). False: none left. */
bool compaction_help_locked(struct db *db);

#endif
