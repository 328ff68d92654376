/* manifest_salvage.h - What a damaged manifest still tells.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each record carries the checksum that seeds the next one's, so behind a damaged record reading goes
 * on where one verifies again: at its end, or, when its size is damaged, where a search finds one. What is gathered is true as far as it goes, but not a state: a version
 * is not built from it.
 */
#ifndef LOAM_ENGINE_MANIFEST_SALVAGE_H_
#define LOAM_ENGINE_MANIFEST_SALVAGE_H_

#include "engine/manifest.h"
#include "engine/version_edit.h"

struct manifest_salvage {
    struct alloc *alloc;
    bool header; /* it verifies: db_id is certain */
    uint64_t db_id;
    struct version_edit keyspaces; /* `created`: those that are there, as far as is known */
    struct buf added, removed;     /* numbers of tables (uint64_t) */
    uint64_t next_file, last_seq;
    uint64_t log_number; /* logs below it are in tables that were added by then; 0: not known */
    bool holes;          /* a record in front of a readable one is not readable */
    uint32_t next_ks;
};

void manifest_salvage_init(struct manifest_salvage *s, struct alloc *a);
void manifest_salvage_free(struct manifest_salvage *s);
/* LOAM_OK: what there is was gathered. LOAM_E_NOENT; LOAM_E_FORMAT: of a newer format for certain;
 * LOAM_E_NOMEM. */
int manifest_salvage_read(struct manifest_salvage *s, const loam_vfs *vfs, const char *dir,
                          uint64_t number);
/* Whether the tables that were removed name this one. */
bool manifest_salvage_removed(const struct manifest_salvage *s, uint64_t table);

#endif
