/* call.h - The frame of a public call: find the database, stay in an epoch section, or pin and wait.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A call begins an epoch section and looks its handle up; the database cannot be freed while the
 * section lasts. Before a call waits for anything (pacing, a flush, a sync) it pins the handle and
 * leaves the section, so that waiting never holds back reclamation, and loam_close() waits for pins.
 */
#ifndef LOAM_ENGINE_CALL_H_
#define LOAM_ENGINE_CALL_H_

#include "engine/db.h"

struct call {
    struct db *db;
    bool pinned;
};

/* Why there is no database for a handle: the error of call_begin. */
int call_refused_(uint64_t handle, const struct db *db);

/* The database of a raw handle, as iterators and snapshots keep it; NULL with *rc. REQUIRES: inside a
 * section, which lends it. */
static inline struct db *call_find(uint64_t handle, int *rc)
{
    struct registry *r = registry_get();
    struct db *db = r != NULL ? (struct db *)slotmap_get(&r->dbs, handle) : NULL;
    if (__builtin_expect(db == NULL || db->fork_count != thread_slot_fork_count(), 0)) {
        *rc = call_refused_(handle, db);
        return NULL;
    }
    return db;
}

/* LOAM_OK: inside a section, until call_end(). E_INVAL, E_CLOSED, E_MISUSE otherwise. */
static inline int call_begin_raw(struct call *c, uint64_t handle)
{
    int rc = LOAM_OK;
    epoch_enter();
    c->pinned = false;
    c->db = call_find(handle, &rc);
    if (__builtin_expect(c->db == NULL, 0)) {
        epoch_exit();
    }
    return rc;
}
static inline int call_begin(struct call *c, loam_db *handle)
{
    return call_begin_raw(c, HANDLE_OF(handle));
}
/* For a call that waits from the start: pinned, outside of a section. */
int call_begin_waiting(struct call *c, loam_db *handle);
/* Leaves the section with the database pinned; false with the error set when it is being closed. */
bool call_wait_begin(struct call *c);
void call_wait_end(struct call *c);
void call_end(struct call *c);

/* Why `what`, a handle of another database, does not go with the present one: E_INVAL, or what is wrong with
 * that other database, E_CLOSED or E_MISUSE. REQUIRES: inside the section. */
int call_foreign(uint64_t db_handle, const char *what);
/* The keyspace behind a handle of this database (NULL: "default"), lent until the section ends.
 * REQUIRES: inside the section. E_CLOSED, E_NOENT (dropped), call_foreign(). */
int call_keyspace(struct call *c, const loam_ks *ks, struct keyspace **space);
/* What a snapshot of this database holds, in memory that lasts as long as the section.
 * REQUIRES: inside the section. */
int call_snapshot(struct call *c, const loam_snap *snap, const struct held_seq **held);

#endif
