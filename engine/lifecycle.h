/* lifecycle.h - Opening, flushing and closing a database object, and removing one from disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_LIFECYCLE_H_
#define LOAM_ENGINE_LIFECYCLE_H_

#include "engine/db.h"

/* Owns: *db is registered under db->handle, until lifecycle_close(). Errors as loam_open(). */
int lifecycle_open(const char *dir, const struct options *o, struct db **db);
/* REQUIRES: the handle is erased and no call is inside. Frees everything but the shell, which lives
 * until its last reference. */
int lifecycle_close(struct db *db);
void lifecycle_free(struct db *db);
/* Seals the active memtable, if it holds anything, and waits until everything sealed is in tables.
 * REQUIRES: not inside an epoch section. */
int lifecycle_flush(struct db *db);
/* After an error: verifies and accepts writes again. As loam_resume(). */
int lifecycle_resume(struct db *db);
/* Takes the lock file; LOAM_E_LOCKED when somebody has it. */
int lifecycle_lock(const loam_vfs *vfs, const char *path, loam_file **f);
/* As loam_destroy(). */
int lifecycle_destroy(const char *dir, const loam_vfs *vfs);

#endif
