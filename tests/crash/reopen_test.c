/* reopen_test.c - Opening again and again leaves nothing behind and loses nothing.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "arena/sync.h"
#include "engine/filename.h"
#include "engine/loam.h"
#include "tests/crash/crash_support.h"
#include "tests/support/check.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"
#include "wal/wal_writer.h"

#define DIR "/db"

static void open_and_close(const loam_options *options, int times)
{
    for (int i = 0; i < times; i++) {
        loam_db *db;
        CHECK_EQ(loam_open(DIR, options, &db), LOAM_OK);
        CHECK_EQ(loam_close(db), LOAM_OK);
    }
}

static void put(loam_db *db, const char *key, const char *value)
{
    CHECK_EQ(
        loam_put(db, NULL, loam_bytes(key, strlen(key)), loam_bytes(value, strlen(value)), NULL),
        LOAM_OK);
}

static bool has(loam_db *db, const char *key)
{
    int rc = loam_get(db, NULL, loam_bytes(key, strlen(key)), NULL, 0, NULL, NULL);
    CHECK(rc >= 0);
    return rc == LOAM_OK;
}

Test(reopen, leaves_no_log_segments_without_records_behind)
{
    loam_vfs *vfs = memory_disk();
    const loam_options options = crash_options(vfs);
    open_and_close(&options, 20);
    CHECK(disk_files(vfs, DIR, FILE_LOG) <= 3);
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "k", "v");
    CHECK_EQ(loam_close(db), LOAM_OK);
    open_and_close(&options, 20);
    CHECK(disk_files(vfs, DIR, FILE_LOG) <= 4);
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK(has(db, "k"));
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(vfs);
}

/* The numbers of a stray file are passed over or counted on from, by an open and by a repair. */
Test(reopen, beside_a_file_of_a_number_near_the_largest_goes_on_counting)
{
    static const uint64_t numbers[] = {UINT64_MAX, UINT64_MAX / 2, UINT64_MAX / 2 - 1, UINT64_MAX / 4,
                                       UINT64_MAX / 4 - 1};
    for (size_t i = 0; i < 2 * sizeof numbers / sizeof *numbers; i++) {
        loam_vfs *vfs = memory_disk();
        const loam_options options = crash_options(vfs);
        loam_db *db;
        loam_file *f;
        char path[FILENAME_CAP];
        CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
        put(db, "k", "v");
        CHECK_EQ(loam_close(db), LOAM_OK);
        CHECK_EQ(filename_make(DIR, FILE_TEMP, numbers[i / 2], path), LOAM_OK);
        CHECK(vfs->open(vfs->ctx, path, LOAM_VFS_READ | LOAM_VFS_WRITE | LOAM_VFS_NEW, &f) >= 0);
        CHECK(vfs->close(vfs->ctx, f) >= 0);
        if (i % 2 != 0) {
            CHECK_EQ(vfs->remove(vfs->ctx, DIR "/CURRENT"), 0);
            CHECK_EQ(loam_repair(DIR, &options, NULL, NULL), LOAM_OK);
        }
        for (int n = 0; n < 3; n++) {
            CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
            CHECK(has(db, "k"));
            CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
            CHECK_EQ(loam_close(db), LOAM_OK);
        }
        loam_vfs_free(vfs);
    }
}

/* A log of an earlier use must not come back over what was flushed without one. */
Test(reopen, without_a_log_after_one_with_a_log_keeps_both)
{
    loam_vfs *vfs = memory_disk();
    loam_options with = crash_options(vfs), without = crash_options(vfs);
    without.durability = LOAM_DUR_MEMORY;
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &with, &db), LOAM_OK);
    put(db, "gone", "1");
    put(db, "kept", "1");
    CHECK_EQ(loam_close(db), LOAM_OK);
    CHECK_EQ(loam_open(DIR, &without, &db), LOAM_OK);
    put(db, "new", "1");
    CHECK_EQ(loam_delete(db, NULL, LOAM_LIT("gone"), NULL), LOAM_OK);
    CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
    const loam_slice all = {NULL, 0};
    CHECK_EQ(loam_compact(db, NULL, all, all, 0), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(loam_open(DIR, i == 1 ? &without : &with, &db), LOAM_OK);
        CHECK(!has(db, "gone"));
        CHECK(has(db, "kept") && has(db, "new"));
        CHECK_EQ(loam_close(db), LOAM_OK);
    }
    loam_vfs_free(vfs);
}

/* The manifest's oldest log is then one that never was. */
Test(reopen, of_a_killed_database_without_a_log_finds_what_was_flushed)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    CHECK_EQ(loam_vfs_fault(disk, NULL, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    options.durability = LOAM_DUR_MEMORY;
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "kept", "1");
    CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
    put(db, "lost", "1");
    CHECK_EQ(loam_vfs_power_cut(fault, 1, &after), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
    for (int i = 0; i < 2; i++) {
        options = crash_options(after);
        options.durability = i == 1 ? LOAM_DUR_MEMORY : LOAM_DUR_DEFAULT;
        CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
        CHECK(has(db, "kept") && !has(db, "lost"));
        CHECK_EQ(loam_close(db), LOAM_OK);
    }
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

/* Nobody asked for a sync: the background makes what was acknowledged durable by itself. What comes
 * after may be lost with the power, and only that. */
static void lose_power_after_a_background_sync(bool mapped)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    const loam_fault_plan plan = {.struct_size = sizeof plan, .no_map = !mapped};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    options.sync_interval_ms = 1;
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "first", "1");
    uint64_t seq;
    const loam_write_opts opts = {.struct_size = sizeof opts, .seq = &seq};
    CHECK_EQ(loam_put(db, NULL, LOAM_LIT("second"), LOAM_LIT("2"), &opts), LOAM_OK);
    CHECK_EQ(loam_wait_durable(db, seq, UINT64_MAX), LOAM_OK); /* forces no sync */
    for (uint64_t variant = 0; variant < 20; variant++) {
        loam_db *again;
        CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
        loam_options o = crash_options(after);
        CHECK_EQ(loam_open(DIR, &o, &again), LOAM_OK);
        CHECK(has(again, "first") && has(again, "second"));
        CHECK_EQ(loam_close(again), LOAM_OK);
        loam_vfs_free(after);
    }
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(reopen, without_power_finds_all_up_to_the_last_background_sync)
{
    lose_power_after_a_background_sync(true);
    lose_power_after_a_background_sync(false);
}

/* Without a log a close writes tables; then no loss of power matters. */
Test(reopen, of_a_cleanly_closed_database_without_a_log_finds_everything)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    CHECK_EQ(loam_vfs_fault(disk, NULL, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    options.durability = LOAM_DUR_MEMORY;
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "first", "1");
    put(db, "second", "2");
    CHECK_EQ(loam_close(db), LOAM_OK);
    CHECK_EQ(loam_vfs_power_cut(fault, 1, &after), LOAM_OK);
    options.vfs = after;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK(has(db, "first") && has(db, "second"));
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

/* The page cache still has what a failed sync could not write, and the next sync succeeds. */
static void reopen_after_a_failed_sync(bool mapped)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    loam_fault_plan plan = {.struct_size = sizeof plan, .no_map = !mapped, .drop_dirty = 1};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    loam_db *db;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "synced", "1");
    CHECK_EQ(loam_sync(db), LOAM_OK);
    put(db, "forgotten", "1");
    plan.fail_calls = LOAM_CALL_SYNC;
    plan.fail_at = loam_vfs_calls_of(fault, LOAM_CALL_SYNC) + 1;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    CHECK_EQ(loam_sync(db), LOAM_E_IO);
    CHECK_EQ(loam_close(db), LOAM_E_IO);
    CHECK_EQ(loam_vfs_faults(fault), 1);

    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK(has(db, "synced") && has(db, "forgotten"));
    put(db, "later", "1");
    CHECK_EQ(loam_sync(db), LOAM_OK);
    CHECK_EQ(loam_vfs_power_cut(fault, 1, &after), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);

    options = crash_options(after);
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK(has(db, "synced") && has(db, "forgotten") && has(db, "later"));
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(reopen, after_a_failed_sync_does_not_build_on_what_the_disk_forgot)
{
    reopen_after_a_failed_sync(true);
    reopen_after_a_failed_sync(false);
}

/* An open that finds CURRENT cannot know whether the one that made it could sync its name. */
Test(reopen, builds_on_no_name_that_is_not_durable)
{
    uint64_t fired = 0;
    for (uint64_t n = 2; n < 24; n++) {
        loam_vfs *disk, *fault;
        const loam_fault_plan plan = {.struct_size = sizeof plan,
                                      .seed = n,
                                      .fail_calls = LOAM_CALL_SYNC_DIR,
                                      .fail_at = n / 2,
                                      .fail_repeat = UINT32_MAX,
                                      .fail_errno = n % 2 == 0 ? ENOSPC : EIO,
                                      .drop_dirty = 1};
        disk = memory_disk();
        CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
        const loam_options options = crash_options(fault);
        for (unsigned i = 0; i < 3; i++) {
            loam_db *db;
            if (loam_open(DIR, &options, &db) == LOAM_OK) {
                (void)loam_close(db);
            }
        }
        fired += loam_vfs_faults(fault) != 0;
        for (uint64_t variant = 0; variant < 60; variant++) {
            loam_vfs *after;
            CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
            const loam_options healthy = crash_options(after);
            open_and_close(&healthy, 1);
            loam_vfs_free(after);
        }
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    CHECK(fired >= 12);
}

static const loam_vfs *watched;
static _Atomic unsigned lost_names;

static int watch_rename(void *ctx, const char *from, const char *to)
{
    int rc = watched->rename(ctx, from, to);
    atomic_fetch_add(&lost_names, rc == -ENOENT);
    return rc;
}

/* A segment without records is removed at open; that the disk refused it does not make it one to be
 * used again: the removal is tried until it goes, and would take the name of a live segment. */
Test(reopen, does_not_reuse_a_segment_whose_removal_is_due)
{
    loam_vfs *disk, *fault, *killed;
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    loam_fault_plan plan = healthy;
    disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(disk, &healthy, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    loam_db *db, *again;
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "k", "first");
    /* The next segment is prepared behind us. */
    for (int i = 0; i < 1000 && disk_files(fault, DIR, FILE_LOG) < 2; i++) {
        thread_sleep_micros(1000);
    }
    CHECK(disk_files(fault, DIR, FILE_LOG) >= 2);
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &killed), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(fault);
    loam_vfs_free(disk);

    plan.fail_at = 1;
    plan.fail_repeat = UINT32_MAX;
    plan.fail_calls = LOAM_CALL_REMOVE;
    CHECK_EQ(loam_vfs_fault(killed, &plan, &fault), LOAM_OK);
    watched = fault;
    loam_vfs watcher = *fault;
    watcher.rename = watch_rename;
    options = crash_options(&watcher);
    CHECK_EQ(loam_open(DIR, &options, &again), LOAM_OK);
    CHECK_EQ(loam_vfs_set_plan(fault, &healthy), LOAM_OK);
    for (int i = 0; i < 6; i++) {
        put(again, "k", "later");
        CHECK_EQ(loam_flush(again, NULL), LOAM_OK);
    }
    CHECK_EQ(loam_close(again), LOAM_OK);
    CHECK_EQ(lost_names, 0);
    loam_vfs_free(fault);
    loam_vfs_free(killed);
}

static int note_log(void *ctx, loam_slice name)
{
    uint64_t *last = ctx;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == FILE_LOG && number > *last) {
        *last = number;
    }
    return 0;
}

/* A segment with one record far behind the end of the log, of which nothing was promised: what a power cut
 * can leave of segments that were written to and not synced. */
static void plant_segment(const loam_vfs *disk)
{
    static struct wal w;
    uint64_t last = 0;
    char path[FILENAME_CAP];
    uint8_t page[WAL_HEADER_PAGE];
    struct wal_file_header h;
    loam_file *f;
    CHECK(disk->list(disk->ctx, DIR, note_log, &last) >= 0);
    CHECK_EQ(filename_make(DIR, FILE_LOG, last, path), LOAM_OK);
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_READ, &f), 0);
    CHECK_EQ(disk->read(disk->ctx, f, page, sizeof page, 0), sizeof page);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
    CHECK_EQ(wal_file_header_decode(page, last, &h), LOAM_OK);
    const struct wal_options o = {.vfs = disk,
                                  .dir = DIR,
                                  .alloc = alloc_global(),
                                  .db_id = h.db_id,
                                  .segment_bytes = h.capacity,
                                  .window_bytes = 64u << 10,
                                  .start_position = 1u << 20,
                                  .first_number = last + 1};
    struct wal_slot s;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(wal_begin(&w, 8, &s), LOAM_OK);
    memset(s.payload, 0, 8);
    CHECK_EQ(wal_end(&w, &s, 0), LOAM_OK);
    CHECK_EQ(wal_sync(&w, s.end), LOAM_OK); /* it arrived, but nobody was told */
    wal_abandon(&w);
}

/* Else a later recovery would take what was acknowledged since for the part that does not follow. */
Test(reopen, removes_segments_behind_the_end_for_good_before_anything_is_acknowledged)
{
    const loam_fault_plan none = {.struct_size = sizeof none};
    const loam_fault_plan lie = {.struct_size = sizeof lie,
                                 .fail_calls = LOAM_CALL_SYNC_DIR,
                                 .fail_at = 1,
                                 .fail_repeat = UINT32_MAX,
                                 .fail_how = LOAM_FAULT_LIE};
    const loam_write_opts durable = {.struct_size = sizeof durable, .flags = LOAM_W_DURABLE};
    loam_vfs *first, *disk, *fault, *after;
    loam_db *db;
    first = memory_disk();
    CHECK_EQ(loam_vfs_fault(first, &none, &fault), LOAM_OK);
    loam_options options = crash_options(fault);
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    put(db, "before", "1");
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &disk), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(fault);
    loam_vfs_free(first);
    plant_segment(disk);
    CHECK_EQ(disk->sync_dir(disk->ctx, DIR), 0);
    CHECK_EQ(loam_vfs_fault(disk, &none, &fault), LOAM_OK);
    options = crash_options(fault);
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK_EQ(loam_vfs_set_plan(fault, &lie), LOAM_OK); /* no later sync of names helps */
    CHECK_EQ(loam_put(db, NULL, LOAM_LIT("after"), LOAM_LIT("2"), &durable), LOAM_OK);
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_SYNCED, &after), LOAM_OK);
    (void)loam_close(db);
    options = crash_options(after);
    CHECK_EQ(loam_open(DIR, &options, &db), LOAM_OK);
    CHECK(has(db, "before"));
    CHECK(has(db, "after"));
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}
