/* unlogged_test.c - Databases without a log (LOAM_DUR_MEMORY), killed or full in the middle of a flush.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: what a crash leaves of a session without a log is what some flush of it ended with: batches are
 * there or not, what an earlier session logged is there, and a later one loses nothing of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "engine/filename.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"

#define DIR "/db"

TestSuite(unlogged);

enum { SPACES = 100 /* more than a flush holds open at once */, KEYS = 3000, STEP = 7 };

static loam_options unlogged_on(const loam_vfs *vfs)
{
    loam_options o = small_options(vfs);
    o.durability = LOAM_DUR_MEMORY;
    return o;
}

static void write_batch(loam_db *db, loam_ks *ks[SPACES], const char *key)
{
    loam_batch *b = loam_batch_new(0);
    CHECK(b != NULL);
    for (int i = 0; i < SPACES; i++) {
        GOES(loam_batch_put(b, ks[i], text(key), text("v")));
    }
    GOES(loam_write(db, b, NULL));
    loam_batch_free(b);
}

static int count(loam_db *db, loam_ks *ks[SPACES], const char *key)
{
    int n = 0;
    for (int i = 0; i < SPACES; i++) {
        n += loam_get(db, ks[i], text(key), NULL, 0, NULL, NULL) == LOAM_OK;
    }
    return n;
}

static void kill_while_flushing(bool logged_before)
{
    loam_vfs *disk = memory_disk(), *after;
    loam_options logged = small_options(disk), unlogged = unlogged_on(disk);
    loam_recording *rec;
    loam_ks *ks[SPACES];
    loam_db *db;
    GOES(loam_vfs_record(disk, &rec));
    GOES(loam_open(DIR, &logged, &db));
    open_spaces(db, ks, SPACES);
    if (logged_before) {
        write_batch(db, ks, "logged");
    }
    close_spaces(db, ks, SPACES);
    GOES(loam_open(DIR, &unlogged, &db));
    open_spaces(db, ks, SPACES);
    write_batch(db, ks, "new");
    uint64_t begin = loam_recording_mark(rec);
    GOES(loam_flush(db, NULL));
    uint64_t end = loam_recording_mark(rec);
    close_spaces(db, ks, SPACES);
    for (uint64_t at = begin; at <= end; at += at + STEP < end ? STEP : 1) {
        loam_crash crash = {.struct_size = sizeof crash, .at = at, .variant = LOAM_CUT_ALL};
        GOES(loam_recording_crash(rec, &crash, &after));
        for (int i = 0; i < 2; i++) {
            loam_options o = small_options(after);
            if (loam_open(DIR, &o, &db) < 0) {
                CHECK_FAIL_("cut %llu: %s", (unsigned long long)at, loam_last_error()->message);
            }
            open_spaces(db, ks, SPACES);
            int n = count(db, ks, "new");
            if (n != 0 && n != SPACES) {
                CHECK_FAIL_("cut %llu: %d keys of a batch", (unsigned long long)at, n);
            }
            CHECK_EQ(count(db, ks, "logged"), logged_before ? SPACES : 0);
            CHECK_EQ(count(db, ks, "later"), i == 0 ? 0 : SPACES);
            write_batch(db, ks, "later");
            close_spaces(db, ks, SPACES);
        }
        loam_vfs_free(after);
    }
    loam_recording_free(rec);
    loam_vfs_free(disk);
}

Test(unlogged, batches_over_many_keyspaces_are_whole_after_a_kill)
{
    kill_while_flushing(false);
}

Test(unlogged, what_was_logged_before_is_there_after_a_kill)
{
    kill_while_flushing(true);
}

/* The disk is full for a while: what waited for the last edit goes with the flush that failed. */
Test(unlogged, a_flush_that_fails_leaves_no_tables_behind)
{
    bool failed = true;
    for (uint64_t n = 1; failed; n += 17) { /* to the flush's last call */
        loam_vfs *disk = memory_disk(), *front;
        loam_fault_plan plan = {.struct_size = sizeof plan};
        loam_ks *ks[SPACES];
        loam_db *db;
        GOES(loam_vfs_fault(disk, &plan, &front));
        loam_options o = unlogged_on(front);
        GOES(loam_open(DIR, &o, &db));
        open_spaces(db, ks, SPACES);
        write_batch(db, ks, "k");
        plan.fail_errno = ENOSPC;
        plan.fail_calls = LOAM_CALL_ALL & ~LOAM_CALL_SYNC; /* a failed sync would not heal */
        plan.fail_at = loam_vfs_calls_of(front, plan.fail_calls) + n;
        GOES(loam_vfs_set_plan(front, &plan));
        GOES(loam_flush(db, NULL)); /* tried again */
        failed = n < 240 || loam_vfs_faults(front) != 0;
        CHECK_EQ(loam_vfs_faults(front), failed ? 1 : 0);
        plan.fail_at = 0;
        GOES(loam_vfs_set_plan(front, &plan));
        CHECK_EQ(count(db, ks, "k"), SPACES);
        GOES(loam_resume(db));
        GOES(loam_wait_idle(db, UINT64_MAX));
        CHECK_EQ(disk_files(disk, DIR, FILE_TABLE), SPACES);
        close_spaces(db, ks, SPACES);
        loam_vfs_free(front);
        loam_vfs_free(disk);
    }
}

static void each_key(loam_db *db, int from, int to, bool put)
{
    for (int i = from; i < to; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%04d", i);
        if (put) {
            put_text(db, NULL, key, "v");
        } else {
            GOES(loam_delete(db, NULL, text(key), NULL));
        }
    }
}

/* Puts in a table, then deletes in memory that iterators have found to hide all of it. */
static loam_db *open_with_known_range(const loam_vfs *vfs)
{
    loam_options o = unlogged_on(vfs);
    loam_db *db;
    loam_iter *it;
    o.memory_budget = (uint64_t)64 << 20; /* nothing is flushed but by hand */
    GOES(loam_open(DIR, &o, &db));
    each_key(db, 0, KEYS, true);
    GOES(loam_flush(db, NULL));
    each_key(db, 0, KEYS, false);
    for (int i = 0; i < 10; i++) {
        GOES(loam_iter_open(db, NULL, NULL, &it));
        CHECK_EQ(loam_iter_first(it), LOAM_NOTFOUND);
        loam_iter_close(it);
    }
    return db;
}

/* Where the next key is found behind a few that are deleted now, at numbers beyond all that were used. */
static void expect_next_key(const loam_vfs *vfs, bool lost)
{
    loam_options o = small_options(vfs);
    loam_db *db;
    loam_ks *other;
    loam_iter *it;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_ks_open(db, "other", NULL, &other));
    for (int i = 0; i < 2 * KEYS; i++) {
        put_text(db, other, "k", "a value that moves the log on");
    }
    each_key(db, KEYS / 3, KEYS / 2, false);
    GOES(loam_iter_open(db, NULL, NULL, &it));
    CHECK_EQ(loam_iter_seek(it, text("key1000")), lost ? LOAM_OK : LOAM_NOTFOUND);
    if (lost) {
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, "key1500", 7);
    }
    loam_iter_close(it);
    loam_ks_release(other);
    GOES(loam_close(db));
}

/* The deletes are lost with what the close could not write; the keys are there again, and seen. */
Test(unlogged, a_range_of_keys_whose_deletes_a_close_could_not_write_is_forgotten)
{
    const uint32_t kinds = LOAM_CALL_WRITE | LOAM_CALL_RESERVE;
    unsigned losses = 0;
    for (uint32_t failures = 1; failures < 6; failures++) {
        loam_vfs *disk = memory_disk(), *front;
        loam_fault_plan plan = {.struct_size = sizeof plan};
        GOES(loam_vfs_fault(disk, &plan, &front));
        loam_db *db = open_with_known_range(front);
        plan.fail_at = loam_vfs_calls_of(front, kinds) + 1;
        plan.fail_calls = kinds;
        plan.fail_errno = ENOSPC;
        plan.fail_repeat = failures;
        GOES(loam_vfs_set_plan(front, &plan));
        bool lost = loam_close(db) != LOAM_OK;
        losses += lost;
        expect_next_key(disk, lost);
        loam_vfs_free(front);
        loam_vfs_free(disk);
    }
    CHECK(losses != 0);
}
