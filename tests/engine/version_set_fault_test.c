/* version_set_fault_test.c - Edits are durable when acknowledged, whatever call fails and wherever power is cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the set of table numbers after each acknowledged edit. What an open finds after a fault
 * and a power cut is the acknowledged set, or that plus the one edit whose outcome was reported
 * unknown (or that was in flight); every table it names has its file, although all files reported
 * obsolete were deleted at once.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/engine/version_set_support.h"

/* What the disk holds now must open to `acked` or `maybe`. False: there was no database yet. */
static bool check_disk(const loam_vfs *disk, const struct numbers *acked,
                       const struct numbers *maybe, bool must_exist)
{
    struct db d;
    db_start(&d, disk, true, 0);
    int rc = version_set_recover(&d.vs);
    if (rc != LOAM_OK && (must_exist || rc != LOAM_E_NOENT)) {
        CHECK_FAIL_("recover gave %d: %s", rc, loam_last_error()->message);
    }
    if (rc == LOAM_OK) {
        struct numbers now = tables_of(&d.vs);
        CHECK(same(&now, acked) || same(&now, maybe));
    }
    db_stop(&d);
    return rc == LOAM_OK;
}

static void check_cuts(loam_vfs *faulty, const struct numbers *acked, const struct numbers *maybe,
                       bool must_exist)
{
    for (uint64_t variant = 0; variant < 9; variant++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(faulty, variant, &after), LOAM_OK);
        check_disk(after, acked, maybe, must_exist);
        loam_vfs_free(after);
    }
}

struct mode {
    int32_t error;
    uint32_t repeat;
    uint32_t short_writes;
    uint32_t calls; /* LOAM_CALL_* that fail; 0: all */
};

/* As each open makes one before there are tables it could add. */
static int opening_edit(struct db *d)
{
    struct version_edit e;
    version_edit_init(&e, d->vs.options.alloc);
    int rc = version_set_apply(&d->vs, &e);
    version_edit_free(&e);
    return rc;
}

/* A run with one fault plan. Returns false once the plan lies beyond the run's last call. */
static bool faulty_run(uint64_t fail_at, struct mode mode)
{
    loam_vfs *disk = memory_disk_with("/db");
    loam_vfs *faulty;
    loam_fault_plan plan = {.struct_size = sizeof plan,
                            .seed = fail_at,
                            .fail_at = fail_at,
                            .fail_errno = mode.error,
                            .fail_repeat = mode.repeat,
                            .short_writes = mode.short_writes,
                            .fail_calls = mode.calls};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &faulty), LOAM_OK);
    struct db d;
    struct numbers acked = {.count = 0}, maybe = {.count = 0}, next;
    bool exists = false;
    for (int opening = 0; opening < 2; opening++) {
        db_start(&d, faulty, false, 600);
        int rc = version_set_recover(&d.vs);
        if (rc == LOAM_E_NOENT) {
            CHECK(!exists || loam_last_error()->sys_errno != 0);
            rc = exists ? rc : make_db(&d);
        }
        if (rc == LOAM_OK && opening != 0 && exists) {
            rc = opening_edit(&d);
        }
        for (int i = 0; rc == LOAM_OK && i < 6; i++) {
            exists = true;
            struct numbers now = tables_of(&d.vs);
            CHECK(same(&now, &acked) || same(&now, &maybe));
            acked = now;
            int applied = step(&d, &acked, i % 2 == 1, &next);
            maybe = applied == LOAM_OK || version_set_in_doubt(&d.vs) ? next : acked;
            acked = applied == LOAM_OK ? next : acked;
            check_cuts(faulty, &acked, &maybe, true);
            if (version_set_in_doubt(&d.vs)) {
                CHECK((loam_last_error()->flags & LOAM_ERR_STICKY) != 0 ||
                      loam_last_error()->code == LOAM_E_NOSPACE);
                if (version_set_resume(&d.vs) != LOAM_OK) {
                    break; /* what may be on disk is still one of the two */
                }
                maybe = acked;
                obsolete_files_purge(&d.obsolete);
                check_cuts(faulty, &acked, &acked, true);
            }
        }
        if (rc == LOAM_OK && opening == 0 && !version_set_in_doubt(&d.vs)) {
            (void)version_set_close_clean(&d.vs, 0, 0);
        }
        db_stop(&d);
        check_cuts(faulty, &acked, &maybe, exists);
    }
    uint64_t calls = loam_vfs_calls_of(faulty, mode.calls != 0 ? mode.calls : LOAM_CALL_ALL);
    plan.fail_at = 0;
    CHECK_EQ(loam_vfs_set_plan(faulty, &plan), LOAM_OK);
    /* With a healthy disk everything goes on. */
    db_start(&d, faulty, false, 0);
    int rc = version_set_recover(&d.vs);
    rc = rc == LOAM_E_NOENT && !exists ? make_db(&d) : rc;
    CHECK_EQ(rc, LOAM_OK);
    CHECK_EQ(opening_edit(&d), LOAM_OK);
    acked = tables_of(&d.vs);
    CHECK_EQ(step(&d, &acked, false, &next), LOAM_OK);
    CHECK_EQ(version_set_clean_directory(&d.vs, NULL, NULL), LOAM_OK);
    db_stop(&d);
    check_cuts(faulty, &next, &next, true);
    loam_vfs_free(faulty);
    loam_vfs_free(disk);
    return fail_at <= calls;
}

static void sweep(struct mode mode)
{
    uint64_t n = 1;
    while (faulty_run(n, mode)) {
        n++;
    }
    fprintf(stderr, "%llu calls failed in turn\n", (unsigned long long)n);
}

Test(version_set, loses_nothing_when_any_call_fails_once)
{
    sweep((struct mode){.error = EIO, .repeat = 1});
}

Test(version_set, loses_nothing_when_any_two_calls_in_a_row_fail)
{
    sweep((struct mode){.error = ENOSPC, .repeat = 2, .short_writes = 1});
}

/* The edit may be in the manifest, and no new one settles it: files can be removed meanwhile. */
Test(version_set, loses_nothing_when_any_sync_and_the_next_file_fail)
{
    sweep((struct mode){.error = EIO, .repeat = 2, .calls = LOAM_CALL_SYNC | LOAM_CALL_OPEN});
}

Test(version_set, loses_nothing_when_the_disk_fails_for_good)
{
    sweep((struct mode){.error = EIO, .repeat = UINT32_MAX, .short_writes = 1});
}

Test(version_set, loses_nothing_when_any_call_is_to_be_made_again)
{
    sweep((struct mode){.error = EAGAIN, .repeat = 1, .short_writes = 1});
}
