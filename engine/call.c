/* call.c - Begins, suspends and ends public calls.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/call.h"

#include <assert.h>

#include "arena/status.h"
#include "engine/handles.h"

#include "arena/poison.h"

int call_refused_(uint64_t handle, const struct db *db)
{
    if (handle == 0) {
        return FAIL(LOAM_E_INVAL, "the database handle is NULL");
    }
    if (registry_get() == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for handle tables");
    }
    return db == NULL ? FAIL(LOAM_E_CLOSED, "the database of this handle is closed")
                      : FAIL(LOAM_E_MISUSE, "the database was opened before fork() by the parent "
                                            "process");
}

bool call_wait_begin(struct call *c)
{
    assert(!c->pinned);
    void *payload;
    if (slotmap_pin(&registry_get()->dbs, c->db->handle, &payload) < 0) {
        FAIL(LOAM_E_CLOSED, "the database is being closed");
        return false;
    }
    c->pinned = true;
    epoch_exit();
    return true;
}

int call_begin_waiting(struct call *c, loam_db *handle)
{
    int rc = call_begin(c, handle);
    if (rc == LOAM_OK && !call_wait_begin(c)) {
        call_end(c);
        rc = LOAM_E_CLOSED;
    }
    return rc;
}

void call_wait_end(struct call *c)
{
    assert(c->pinned);
    epoch_enter();
    c->pinned = false;
    slotmap_unpin(&registry_get()->dbs, c->db->handle);
}

void call_end(struct call *c)
{
    if (c->pinned) {
        slotmap_unpin(&registry_get()->dbs, c->db->handle);
        c->pinned = false;
    } else {
        epoch_exit();
    }
}

int call_foreign(uint64_t db_handle, const char *what)
{
    int rc;
    return call_find(db_handle, &rc) == NULL
               ? rc
               : FAIL(LOAM_E_INVAL, "the %s belongs to another database", what);
}

int call_keyspace(struct call *c, const loam_ks *ks, struct keyspace **space)
{
    if (ks == NULL) {
        *space = keyspace_find(&c->db->versions.keyspaces, KS_DEFAULT);
        return *space != NULL ? LOAM_OK : FAIL(LOAM_E_INTERNAL, "no keyspace \"default\"");
    }
    struct ks_handle *k = slotmap_get(&registry_get()->spaces, HANDLE_OF(ks));
    if (k == NULL) {
        return FAIL(LOAM_E_CLOSED, "the keyspace handle is closed");
    }
    if (k->db_handle != c->db->handle) {
        return call_foreign(k->db_handle, "keyspace");
    }
    *space = k->space;
    /* relaxed: a drop that runs beside this call may come before or after it. */
    return atom_load(&k->space->dropped, relaxed)
               ? FAIL(LOAM_E_NOENT, "the keyspace was dropped")
               : LOAM_OK;
}

int call_snapshot(struct call *c, const loam_snap *handle, const struct held_seq **held)
{
    struct snap *s = slotmap_get(&registry_get()->snaps, HANDLE_OF(handle));
    if (s == NULL) {
        return FAIL(LOAM_E_CLOSED, "the snapshot handle is closed");
    }
    if (s->db_handle != c->db->handle) {
        return call_foreign(s->db_handle, "snapshot");
    }
    *held = &s->held;
    return LOAM_OK;
}
