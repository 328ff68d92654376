/* model_sick_support.c - Syncs that fail for a while, and the database's way back to health.
 * SPDX-License-Identifier: Apache-2.0
 *
 * While the disk is sick, syncs of files, of directories or of both fail from some moment on, a few times
 * or for good, and what they should have made durable is lost or stays pending. Writes, flushes, merges
 * and syncs may fail then, and nothing else: reads, snapshots and walks go on and are right. What a
 * failed write left in doubt is what readers see of it. When the disk is well again loam_resume() must
 * succeed and writes must be accepted. A crash may come at any time in between: no acknowledgement that
 * was given may turn out wrong (the rules of model_crash_support.c).
 *
 * Episodes with such a disk have no syncs in the background: nobody could tell whether one that began on
 * the sick disk reports its failure before loam_resume() or after it.
 */
#include <errno.h>

#include "tests/model/model_state.h"

bool run_may_fail(struct run *r, int rc)
{
    bool sick = rc == LOAM_E_IO || rc == LOAM_E_READONLY || rc == LOAM_E_NOSPACE;
    return r->sick && sick ? false : run_fine(r, rc);
}

static void fall_sick(struct run *r)
{
    const uint32_t files = LOAM_CALL_SYNC | LOAM_CALL_WRITE_DURABLE;
    const uint32_t kinds[] = {files, files, LOAM_CALL_SYNC_DIR, files | LOAM_CALL_SYNC_DIR};
    static const uint32_t repeats[] = {1, 1, 2, 5, UINT32_MAX, UINT32_MAX};
    loam_fault_plan plan = {.struct_size = sizeof plan,
                            .seed = r->disk_seed,
                            .no_map = r->disk_kind == MODEL_DISK_UNMAPPED,
                            .fail_calls = kinds[run_below(r, 4)],
                            .fail_errno = run_one_in(r, 3) ? ENOSPC : EIO,
                            .fail_repeat = repeats[run_below(r, 6)],
                            .drop_dirty = !run_one_in(r, 3)};
    plan.fail_at = loam_vfs_calls_of(r->fault, plan.fail_calls) + 1 + run_below(r, 4);
    CHECK_EQ(loam_vfs_set_plan(r->fault, &plan), LOAM_OK);
    r->sick = true;
    r->counts->sicknesses++;
}

/* The disk is well. A job of the background that met the sickness reports before it counts as idle, so
 * that no error of old comes after the resume. */
void run_get_well(struct run *r)
{
    r->what = "resume";
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
    run_set_plan(r, 0);
    run_may_fail(r, loam_wait_idle(r->db, 0));
    r->sick = false;
    run_fine(r, loam_resume(r->db));
    loam_error why;
    if (loam_health(r->db, &why) != LOAM_HEALTHY) {
        MISMATCH(r, "after a resume that succeeded the database is not healthy: %s", why.message);
    }
}

void run_sickness(struct run *r)
{
    r->what = "sickness";
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
    if (!r->sick) {
        fall_sick(r);
    } else if (run_one_in(r, 4)) {
        r->dead = true; /* the crash comes before anything is mended */
    } else if (run_one_in(r, 4)) {
        (void)!loam_resume(r->db); /* in vain, or the sickness has passed by itself */
    } else {
        run_get_well(r);
    }
}

/* Whether readers see the newest commit's version of the row, which the oracle has in place. */
static bool shows_newest(struct run *r, uint32_t ks, uint32_t row)
{
    const struct model_version *v = model_get(&r->m, ks, row, r->m.now);
    loam_pin pin = LOAM_PIN_INIT;
    loam_slice key = r->m.keys[r->m.key_at[r->m.ks[ks].order][row]];
    int rc = loam_get_pin(r->db, r->ks[ks], key, &pin, NULL);
    run_fine(r, rc);
    bool same = rc == LOAM_NOTFOUND ? v == NULL
                                    : v != NULL && model_value_is(v->value_id, v->size, pin.value);
    loam_unpin(&pin);
    return same;
}

void run_settle_doubt(struct run *r)
{
    struct model_pending ops[BATCH_CAP];
    uint32_t count = r->m.pending_count;
    CHECK(count <= BATCH_CAP);
    memcpy(ops, r->m.pending, count * sizeof ops[0]);
    model_commit(&r->m, 0);
    uint32_t seen = 0;
    for (uint32_t i = 0; i < count; i++) {
        seen += shows_newest(r, ops[i].ks, ops[i].row);
    }
    if (seen == count) {
        return; /* as if it had succeeded, but for the promise */
    }
    r->m.now--; /* reached only as now + 1, by the crash that must follow */
    for (uint32_t i = 0; i < count; i++) {
        if (!shows_newest(r, ops[i].ks, ops[i].row)) {
            MISMATCH(r, "a write in doubt is seen in part");
        }
    }
    r->maybe = r->dead = true;
}
