/* repair_log_test.c - loam_repair of logs: what tables hold already, what they do not, and reads that fail.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arena/coding.h"
#include "tests/crash/oracle_support.h"
#include "tests/crash/repair_support.h"
#include "tests/crash/tap_support.h"

enum { MANY = 100 /* keyspaces: more than a flush holds open at once */, STEP = 7 };

static void open_many(loam_db *db, loam_ks *ks[MANY])
{
    for (int i = 0; i < MANY; i++) {
        char name[24];
        snprintf(name, sizeof name, "space%d", i);
        GOES(loam_ks_open(db, name, NULL, &ks[i]));
    }
}

static void close_many(loam_db *db, loam_ks *ks[MANY])
{
    for (int i = 0; i < MANY; i++) {
        loam_ks_release(ks[i]);
    }
    GOES(loam_close(db));
}

/* Damages the first record of the log that has records. */
static bool damage_first_record(struct repair_files *fs)
{
    for (unsigned i = 0;; i++) {
        struct repair_file *f = repair_file_of(fs, FILE_LOG, i);
        if (f == NULL) {
            return false;
        }
        if (f->size > 4096 && get_fixed32(f->bytes + 4096 + 16) != 0) {
            f->bytes[4096 + 30] ^= 1;
            return true;
        }
    }
}

static unsigned count_of(loam_vfs *disk)
{
    loam_options o = small_options(disk);
    loam_ks *ks[MANY];
    loam_db *db;
    unsigned n = 0;
    GOES(loam_open(DIR, &o, &db));
    open_many(db, ks);
    for (int i = 0; i < MANY; i++) {
        n += loam_get(db, ks[i], LOAM_LIT("key"), NULL, 0, NULL, NULL) == LOAM_OK;
    }
    close_many(db, ks);
    return n;
}

/* What becomes of a state before its log is damaged. */
enum { AS_IT_IS, OPENED_AND_KILLED, REPAIRED, BEFORES };

/* An open after a crash writes a manifest of its own. */
static void open_and_kill(loam_vfs *disk, struct repair_files *fs)
{
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    loam_vfs *fault, *image;
    loam_db *db;
    GOES(loam_vfs_fault(disk, &healthy, &fault));
    loam_options o = small_options(fault);
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &image));
    o.vfs = image;
    GOES(loam_check(DIR, &o, NULL, NULL));
    repair_take(image, fs);
    GOES(loam_close(db));
    loam_vfs_free(image);
    loam_vfs_free(fault);
}

/* A repair that finds the log sound keeps it. */
static void damage_a_table_and_repair(struct repair_files *fs)
{
    struct repair_file *f = repair_file_of(fs, FILE_TABLE, 0);
    if (f != NULL) {
        struct repair_told t = {.findings = 0};
        f->bytes[f->size - 1] ^= 1;
        loam_vfs *disk = repair_disk_of(fs);
        repair_now(disk, &t);
        repair_free_files(fs);
        repair_take(disk, fs);
        loam_vfs_free(disk);
    }
}

/* Whether there was anything to damage. */
static bool try_damage(struct repair_files *fs, unsigned before, uint64_t at)
{
    struct repair_told t = {.findings = 0};
    if (!damage_first_record(fs)) {
        return false;
    }
    loam_vfs *damaged = repair_disk_of(fs);
    repair_now(damaged, &t);
    unsigned n = count_of(damaged);
    if (n != MANY) {
        oracle_fail("change %llu, before %u: %u of %u keys are there, %u findings",
                    (unsigned long long)at, before, n, (unsigned)MANY, t.findings);
    }
    loam_vfs_free(damaged);
    return t.findings != 0;
}

/* A flush over many keyspaces makes tables of some of them durable before the others: then the manifest
 * has sequence numbers up to which tables do not hold everything. */
Test(repair, of_a_log_takes_what_a_flush_that_was_killed_had_not_come_to, .timeout = 120)
{
    loam_vfs *disk = memory_disk(), *after;
    loam_options o = small_options(disk);
    loam_recording *rec;
    loam_ks *ks[MANY];
    loam_db *db;
    GOES(loam_vfs_record(disk, &rec));
    GOES(loam_open(DIR, &o, &db));
    open_many(db, ks);
    GOES(loam_put(db, NULL, LOAM_LIT("first"), LOAM_LIT("v"), NULL));
    for (int i = MANY; i-- > 0;) {
        GOES(loam_put(db, ks[i], LOAM_LIT("key"), LOAM_LIT("v"), NULL));
    }
    GOES(loam_sync(db));
    GOES(loam_put(db, NULL, LOAM_LIT("last"), LOAM_LIT("v"), NULL)); /* says what was synced */
    uint64_t begin = loam_recording_mark(rec);
    GOES(loam_flush(db, NULL));
    uint64_t end = loam_recording_mark(rec);
    close_many(db, ks);
    unsigned repaired[BEFORES] = {0};
    for (uint64_t at = begin; at <= end; at += at + STEP < end ? STEP : 1) {
        const loam_crash crash = {.struct_size = sizeof crash, .at = at, .variant = LOAM_CUT_ALL};
        for (unsigned before = 0; before < BEFORES; before++) {
            struct repair_files fs;
            GOES(loam_recording_crash(rec, &crash, &after));
            if (before == OPENED_AND_KILLED) {
                open_and_kill(after, &fs);
            } else {
                repair_take(after, &fs);
            }
            if (before == REPAIRED) {
                damage_a_table_and_repair(&fs);
            }
            repaired[before] += try_damage(&fs, before, at);
            repair_free_files(&fs);
            loam_vfs_free(after);
        }
    }
    CHECK(repaired[AS_IT_IS] != 0 && repaired[OPENED_AND_KILLED] != 0 && repaired[REPAIRED] != 0);
    loam_recording_free(rec);
    loam_vfs_free(disk);
}
