/* call.c - Begins, suspends and ends public calls.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/call.h"

#include <assert.h>

#include "arena/status.h"

#include "arena/poison.h"

int call_begin_raw(struct call *c, uint64_t handle)
{
    if (handle == 0) {
        return FAIL(LOAM_E_INVAL, "the database handle is NULL");
    }
    struct registry *r = registry_get();
    if (r == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for handle tables");
    }
    epoch_enter();
    c->pinned = false;
    c->db = slotmap_get(&r->dbs, handle);
    if (__builtin_expect(c->db == NULL, 0)) {
        epoch_exit();
        return FAIL(LOAM_E_CLOSED, "the database of this handle is closed");
    }
    if (__builtin_expect(c->db->fork_count != thread_slot_fork_count(), 0)) {
        epoch_exit();
        return FAIL(LOAM_E_MISUSE, "the database was opened before fork() by the parent process");
    }
    return LOAM_OK;
}

int call_begin(struct call *c, loam_db *handle)
{
    return call_begin_raw(c, HANDLE_OF(handle));
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
