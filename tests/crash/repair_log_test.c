/* repair_log_test.c - loam_repair of logs: what tables hold already, what they do not, and reads that fail.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/oracle_support.h"
#include "tests/crash/repair_support.h"
#include "tests/crash/tap_support.h"
#include "tests/engine/log_support.h"

enum { MANY = 100 /* keyspaces: more than a flush holds open at once */, STEP = 7 };

/* Damages the first record of the log that has records. */
static bool damage_first_record(struct repair_files *fs)
{
    struct repair_file *f = repair_full_log(fs);
    if (f != NULL) {
        f->bytes[repair_record_at(f, 0) + 30] ^= 1;
    }
    return f != NULL;
}

static unsigned count_of(loam_vfs *disk)
{
    loam_options o = small_options(disk);
    loam_ks *ks[MANY];
    loam_db *db;
    unsigned n = 0;
    GOES(loam_open(DIR, &o, &db));
    open_spaces(db, ks, MANY);
    for (int i = 0; i < MANY; i++) {
        n += loam_get(db, ks[i], LOAM_LIT("key"), NULL, 0, NULL, NULL) == LOAM_OK;
    }
    close_spaces(db, ks, MANY);
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
    open_spaces(db, ks, MANY);
    GOES(loam_put(db, NULL, LOAM_LIT("first"), LOAM_LIT("v"), NULL));
    for (int i = MANY; i-- > 0;) {
        GOES(loam_put(db, ks[i], LOAM_LIT("key"), LOAM_LIT("v"), NULL));
    }
    GOES(loam_sync(db));
    GOES(loam_put(db, NULL, LOAM_LIT("last"), LOAM_LIT("v"), NULL)); /* says what was synced */
    uint64_t begin = loam_recording_mark(rec);
    GOES(loam_flush(db, NULL));
    uint64_t end = loam_recording_mark(rec);
    close_spaces(db, ks, MANY);
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

static void repair_and_read(loam_vfs *disk, uint32_t there[SPACES][KEYS])
{
    static struct repair_told t;
    t = (struct repair_told){.findings = 0};
    repair_now(disk, &t);
    repair_read_back(disk);
    memcpy(there, repair_read_version, sizeof repair_read_version);
}

/* Every n-th call of a kind fails once; a repair that goes on all the same has to bring back as much. */
static void fail_calls(const struct repair_files *fs, uint32_t calls, int error, uint32_t expected[SPACES][KEYS])
{
    uint64_t faults = 1;
    for (uint64_t n = 1; faults != 0; n++) {
        loam_vfs *disk = repair_disk_of(fs), *fault;
        const loam_fault_plan plan = {
            .struct_size = sizeof plan, .fail_calls = calls, .fail_at = n, .fail_errno = error};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = repair_options_on(fault);
        int rc = loam_repair(DIR, &o, NULL, NULL);
        faults = loam_vfs_faults(fault);
        oracle_context("failing call %llu of kind %u", (unsigned long long)n, calls);
        if (rc != LOAM_OK) {
            CHECK((loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0 || repair_same_files(disk, fs));
        } else {
            repair_read_back(disk);
            if (memcmp(repair_read_version, expected, sizeof repair_read_version) != 0) {
                oracle_fail("less was brought back");
            }
        }
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
}

Test(repair, loses_nothing_to_calls_that_would_go_well_another_time, .timeout = 120)
{
    for (unsigned what = 0; what < 3; what++) {
        uint32_t expected[SPACES][KEYS];
        struct repair_files fs;
        repair_reference(&fs, 60 + what, true);
        if (what == 0) {
            CHECK(damage_first_record(&fs));
        } else {
            struct repair_file *f = repair_file_of(&fs, what == 1 ? FILE_MANIFEST : FILE_TABLE, 0);
            f->bytes[what == 1 ? f->size / 2 : f->size - 1] ^= 0x20; /* all of it has to be searched */
        }
        loam_vfs *disk = repair_disk_of(&fs);
        repair_and_read(disk, expected);
        loam_vfs_free(disk);
        fail_calls(&fs, LOAM_CALL_OPEN, EMFILE, expected);
        fail_calls(&fs, LOAM_CALL_READ, EAGAIN, expected);
        repair_free_files(&fs);
    }
}

enum { LARGE = 24, LARGE_BYTES = 1 << 20 }; /* more than is gathered before it is written */

static loam_slice large_key(unsigned i)
{
    static char key[8];
    snprintf(key, sizeof key, "%u", i);
    return text(key);
}

/* A log of large values whose first record is damaged. */
static void make_large_log(struct repair_files *fs)
{
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    loam_vfs *disk = memory_disk(), *fault, *image;
    GOES(loam_vfs_fault(disk, &healthy, &fault));
    loam_options o = small_options(fault);
    o.memory_budget = (uint64_t)512 << 20;
    loam_db *db;
    uint8_t *value = calloc(1, LARGE_BYTES);
    CHECK(value != NULL);
    GOES(loam_open(DIR, &o, &db));
    grow_log(db);
    put_text(db, NULL, "damaged", "v");
    for (unsigned i = 0; i < LARGE; i++) {
        GOES(loam_put(db, NULL, large_key(i), loam_bytes(value, LARGE_BYTES), NULL));
    }
    GOES(loam_sync(db));
    put_text(db, NULL, "last", "v"); /* says what was synced */
    GOES(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &image));
    repair_take(image, fs);
    CHECK(damage_first_record(fs));
    GOES(loam_close(db));
    free(value);
    loam_vfs_free(image);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(repair, of_a_large_log_fails_when_a_part_of_it_cannot_be_written, .timeout = 120)
{
    struct repair_files fs;
    uint64_t faults = 1;
    unsigned failed = 0;
    make_large_log(&fs);
    for (uint64_t n = 1; faults != 0; n += 3) {
        loam_vfs *disk = repair_disk_of(&fs), *fault;
        const loam_fault_plan plan = {
            .struct_size = sizeof plan, .fail_calls = LOAM_CALL_WRITE, .fail_at = n};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = repair_options_on(fault);
        int rc = loam_repair(DIR, &o, NULL, NULL);
        faults = loam_vfs_faults(fault);
        failed += rc != LOAM_OK;
        if (rc != LOAM_OK) {
            CHECK(repair_same_files(disk, &fs));
        } else {
            loam_db *db;
            o = small_options(disk);
            o.memory_budget = (uint64_t)64 << 20;
            GOES(loam_open(DIR, &o, &db));
            for (unsigned i = 0; i < LARGE; i++) {
                if (loam_get(db, NULL, large_key(i), NULL, 0, NULL, NULL) != LOAM_OK) {
                    oracle_fail("failing write %llu: value %u is gone", (unsigned long long)n, i);
                }
            }
            GOES(loam_close(db));
        }
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    CHECK(failed != 0);
    repair_free_files(&fs);
}
