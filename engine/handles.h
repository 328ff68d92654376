/* handles.h - What stands behind keyspace, snapshot and batch handles.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_HANDLES_H_
#define LOAM_ENGINE_HANDLES_H_

#include "engine/batch.h"
#include "engine/db.h"

struct ks_handle {
    struct db *shell; /* referenced */
    uint64_t db_handle;
    struct keyspace *space; /* referenced; used only while the database is open */
    uint64_t handle;
};

struct snap {
    struct db *shell; /* referenced */
    uint64_t db_handle;
    uint64_t handle;
    struct held_seq held; /* linked in the shell's list */
};

struct batch_handle {
    struct batch batch;
    uint64_t handle;
};

/* Finalisers: free the object once its handle is gone and no section can hold it. */
void ks_handle_free(void *arg, void *ptr);
void snap_handle_free(void *arg, void *ptr);
void batch_handle_free(void *arg, void *ptr);

#endif
