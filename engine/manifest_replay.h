/* manifest_replay.h - Reads a manifest from end to end into the state that its edits add up to.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Linear in the manifest: edits change a hash map of tables by number; versions are built once, from
 * the result.
 */
#ifndef LOAM_ENGINE_MANIFEST_REPLAY_H_
#define LOAM_ENGINE_MANIFEST_REPLAY_H_

#include "engine/manifest.h"
#include "engine/version.h"

/* Behind a clean close a repair numbers its tables from so far behind the manifest's next file that
 * those which it leaves when it is cut off are not taken for tables that an open made. */
#define MANIFEST_REPLAY_GAP ((uint64_t)1 << 32)

struct manifest_replay {
    struct alloc *alloc;
    uint64_t file_id; /* number of the manifest, for errors */
    /* tables by number: open addressing, size a power of two */
    struct table **slots;
    uint32_t slot_count, slots_used; /* removed ones included */
    uint32_t table_count;
    struct version_edit keyspaces; /* `created` holds those that are there, ascending ids; `dead` the
                                      ranges of a clean close, if that was the last edit */
    uint64_t log_number, next_file, last_seq;
    uint64_t log_seq; /* see version_set.h */
    bool log_none;
    uint32_t next_ks;
    bool sealed;
    uint64_t sealed_number, sealed_position;
    struct manifest_end end;
};

void manifest_replay_init(struct manifest_replay *r, struct alloc *a);
void manifest_replay_free(struct manifest_replay *r); /* and the tables that were not taken */

/* Replays the manifest that `current` names. A table that was made after a clean close, when that is the
 * end of the manifest, says that edits are missing: LOAM_E_CORRUPT. LOAM_OK, LOAM_E_CORRUPT, LOAM_E_FORMAT, LOAM_E_IO,
 * LOAM_E_NOMEM. */
int manifest_replay_run(struct manifest_replay *r, const loam_vfs *vfs, const char *dir,
                        const struct manifest_current *current);
/* Lists the directory: every table must have its file (LOAM_E_CORRUPT), and next_file is raised above
 * every number in use by any file of ours. */
int manifest_replay_check_files(struct manifest_replay *r, const loam_vfs *vfs, const char *dir);
/* Lists the directory for a table of this database that was made after the last edit: *later is its number, or
 * 0. LOAM_OK, LOAM_E_IO, LOAM_E_NOMEM. */
int manifest_replay_later_table(const struct manifest_replay *r, const loam_vfs *vfs,
                                const char *dir, uint64_t *later);
/* Whether the state names the table; of tables that were not taken. */
bool manifest_replay_names(struct manifest_replay *r, uint64_t table);
/* The tables in one array of table_count, in no order; the caller frees it, and the tables are the
 * caller's. NULL: no memory, and nothing was taken. */
struct table **manifest_replay_take(struct manifest_replay *r);

#endif
