/* repair_fault_test.c - loam_repair cut off anywhere, or on a disk whose calls fail: it may be repeated.
 * SPDX-License-Identifier: Apache-2.0
 *
 * repair_support.h has the oracle.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/crash/oracle_support.h"
#include "tests/crash/repair_support.h"
#include "tests/crash/tap_support.h"

static void damage_for_cuts(struct repair_files *fs, unsigned kind)
{
    struct repair_file *f =
        kind == 2 ? repair_file_of(fs, FILE_MANIFEST, 0) : repair_file_of(fs, FILE_TABLE, 0);
    f->bytes[f->size / 3] ^= 0x20;
    if (kind == 1) {
        struct repair_file *log = repair_full_log(fs);
        log->bytes[repair_record_at(log, 8) + 30] ^= 1;
    }
}

Test(repair, cut_off_by_a_loss_of_power_at_any_call_and_repeated_ends_the_same)
{
    static const uint64_t variants[] = {0, 1, 2, 3, 5, 6};
    unsigned cuts = 0;
    for (unsigned kind = 0; kind < 3; kind++) {
        struct repair_files fs;
        repair_reference(&fs, 40 + kind, true);
        damage_for_cuts(&fs, kind);
        loam_vfs *whole = repair_disk_of(&fs);
        struct repair_told t = {.findings = 0};
        repair_now(whole, &t);
        repair_read_back(whole);
        loam_vfs_free(whole);
        uint32_t expected[SPACES][KEYS];
        memcpy(expected, repair_read_version, sizeof expected);
        bool done = false;
        for (uint64_t n = 1; !done; n += 1 + n / 24) {
            loam_vfs *disk = repair_disk_of(&fs), *fault;
            loam_fault_plan plan = {.struct_size = sizeof plan, .seed = n, .crash_at = n};
            GOES(loam_vfs_fault(disk, &plan, &fault));
            loam_options o = repair_options_on(fault);
            done = loam_repair(DIR, &o, NULL, NULL) == LOAM_OK;
            for (unsigned v = 0; v < sizeof variants / sizeof variants[0]; v++) {
                loam_vfs *after;
                GOES(loam_vfs_power_cut(fault, variants[v], &after));
                oracle_context("damage %u, cut at call %llu, variant %llu", kind,
                               (unsigned long long)n, (unsigned long long)variants[v]);
                tap_dump_on_failure(after);
                t = (struct repair_told){.findings = 0};
                repair_now(after, &t);
                repair_read_back(after);
                if (memcmp(expected, repair_read_version, sizeof expected) != 0) {
                    oracle_fail("the contents differ");
                }
                cuts++;
                tap_dump_on_failure(NULL);
                loam_vfs_free(after);
            }
            loam_vfs_free(fault);
            loam_vfs_free(disk);
        }
        repair_free_files(&fs);
    }
    fprintf(stderr, "%u disks\n", cuts);
}

/* A database that can be opened beside its damage still can. */
Test(repair, cut_off_at_any_call_leaves_a_database_that_opens)
{
    struct repair_files fs;
    repair_reference(&fs, 40, true);
    damage_for_cuts(&fs, 0);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        loam_vfs *disk = repair_disk_of(&fs), *fault, *after;
        loam_fault_plan plan = {.struct_size = sizeof plan, .seed = n, .crash_at = n};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = repair_options_on(fault);
        done = loam_repair(DIR, &o, NULL, NULL) == LOAM_OK;
        GOES(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &after));
        oracle_context("cut at call %llu", (unsigned long long)n);
        o.vfs = after;
        for (int i = 0; i < 2; i++) { /* and still when what the repair left is gone */
            loam_db *db;
            if (loam_open(DIR, &o, &db) < 0) {
                oracle_fail("%s", loam_last_error()->message);
            }
            GOES(loam_close(db));
        }
        loam_vfs_free(after);
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    repair_free_files(&fs);
}

Test(repair, that_meets_failing_calls_fails_or_tells_and_may_be_repeated)
{
    struct repair_files fs;
    repair_reference(&fs, 50, true);
    damage_for_cuts(&fs, 1);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        loam_vfs *disk = repair_disk_of(&fs), *fault;
        loam_fault_plan plan = {.struct_size = sizeof plan,
                                .seed = n,
                                .fail_at = n,
                                .fail_errno = n % 2 != 0 ? EMFILE : ENOSPC};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = repair_options_on(fault);
        static struct repair_told t;
        t = (struct repair_told){.findings = 0};
        int rc = loam_repair(DIR, &o, repair_note, &t);
        done = loam_vfs_calls(fault) < n;
        oracle_context("failing call %llu", (unsigned long long)n);
        bool changed = !repair_same_files(disk, &fs);
        if (rc != LOAM_OK) {
            CHECK(!changed || (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0);
            repair_now(disk, &t);
        }
        repair_read_back(disk);
        repair_judge(&t);
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    repair_free_files(&fs);
}

/* Searches of a table and a manifest that cannot be read as usual, of a disk that says -EINTR for ever. */
Test(repair, ends_though_every_read_is_interrupted, .timeout = 60)
{
    struct repair_files fs;
    repair_reference(&fs, 50, true);
    struct repair_file *table = repair_file_of(&fs, FILE_TABLE, 0);
    struct repair_file *manifest = repair_file_of(&fs, FILE_MANIFEST, 0);
    table->bytes[table->size - 1] ^= 1; /* its footer */
    manifest->bytes[manifest->size / 2] ^= 1;
    uint64_t made = UINT64_MAX;
    for (uint64_t n = 1; n <= made; n++) {
        loam_vfs *disk = repair_disk_of(&fs), *fault;
        const loam_fault_plan plan = {.struct_size = sizeof plan,
                                      .fail_calls = LOAM_CALL_READ,
                                      .fail_at = n,
                                      .fail_errno = EINTR,
                                      .fail_repeat = UINT32_MAX};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = repair_options_on(fault);
        static struct repair_told t;
        t = (struct repair_told){.findings = 0};
        (void)!loam_repair(DIR, &o, repair_note, &t); /* whatever it says, it ends */
        made = loam_vfs_faults(fault) == 0 ? 0 : made;
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    repair_free_files(&fs);
}
