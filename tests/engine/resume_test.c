/* resume_test.c - The way back to writing after syncs and merges have failed.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: what loam_resume() promises, writes are accepted when it says LOAM_OK, durable ones included.
 */
#include <criterion/criterion.h>

#include <errno.h>

#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(resume);

struct sick {
    loam_vfs *disk, *vfs;
    loam_db *db;
};

static void syncs_fail(struct sick *s, int error)
{
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .fail_calls = LOAM_CALL_SYNC,
                                  .fail_at = 1,
                                  .fail_errno = error,
                                  .fail_repeat = UINT32_MAX,
                                  .drop_dirty = 1};
    const loam_fault_plan none = {.struct_size = sizeof none};
    GOES(loam_vfs_set_plan(s->vfs, error != 0 ? &plan : &none));
}

static struct sick sick_open(uint32_t sync_interval_ms)
{
    struct sick s;
    const loam_fault_plan none = {.struct_size = sizeof none};
    s.disk = memory_disk();
    GOES(loam_vfs_fault(s.disk, &none, &s.vfs));
    loam_options o = small_options(s.vfs);
    o.sync_interval_ms = sync_interval_ms;
    GOES(loam_open("/db", &o, &s.db));
    return s;
}

static void sick_close(struct sick *s)
{
    GOES(loam_close(s->db));
    loam_vfs_free(s->vfs);
    loam_vfs_free(s->disk);
}

static int put_durable(struct sick *s, const char *key)
{
    const loam_write_opts durable = {.struct_size = sizeof durable, .flags = LOAM_W_DURABLE};
    return loam_put(s->db, NULL, text(key), text("value"), &durable);
}

Test(resume, makes_durable_writes_possible_again_after_a_failed_sync)
{
    struct sick s = sick_open(UINT32_MAX);
    GOES(put_durable(&s, "before"));
    syncs_fail(&s, EIO);
    FAILS(put_durable(&s, "during"), LOAM_E_IO);
    CHECK((loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0);
    CHECK_EQ(loam_health(s.db, NULL), LOAM_REFUSING_WRITES);
    syncs_fail(&s, 0);
    FAILS(put_durable(&s, "well, not resumed"), LOAM_E_IO);
    CHECK((loam_last_error()->flags & LOAM_ERR_UNKNOWN) == 0); /* nothing was written */
    expect_none(s.db, NULL, "well, not resumed");
    GOES(loam_resume(s.db));
    CHECK_EQ(loam_health(s.db, NULL), LOAM_HEALTHY);
    GOES(put_durable(&s, "after"));
    sick_close(&s);
}

/* Whether the keys are there after a cut of the power right behind the resume. */
static void resume_and_cut(void)
{
    struct sick s = sick_open(UINT32_MAX);
    for (unsigned i = 0; i < 2000; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%04u", i);
        GOES(loam_put(s.db, NULL, text(key), text("value"), NULL));
    }
    syncs_fail(&s, EIO);
    FAILS(put_durable(&s, "during"), LOAM_E_IO);
    syncs_fail(&s, 0);
    GOES(loam_resume(s.db));
    loam_vfs *after;
    GOES(loam_vfs_power_cut(s.vfs, LOAM_CUT_SYNCED, &after));
    sick_close(&s);
    loam_options o = small_options(after);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    expect_text(db, NULL, "key0000", "value");
    expect_text(db, NULL, "key1999", "value");
    GOES(loam_close(db));
    loam_vfs_free(after);
}

/* No write behind the log that failed may outlive what that log was to keep. Five times, for a flush that
 * nobody waits for is sometimes quick enough. */
Test(resume, ends_when_what_the_failed_log_held_is_in_tables)
{
    for (int i = 0; i < 5; i++) {
        resume_and_cut();
    }
}

/* The first attempt meets a full disk, an error that heals by itself; the log's does not. */
Test(resume, renews_the_log_also_when_an_attempt_before_found_the_disk_full)
{
    struct sick s = sick_open(UINT32_MAX);
    GOES(put_durable(&s, "before"));
    syncs_fail(&s, EIO);
    FAILS(put_durable(&s, "during"), LOAM_E_IO);
    syncs_fail(&s, ENOSPC);
    FAILS(loam_resume(s.db), LOAM_E_NOSPACE);
    loam_error why;
    CHECK_EQ(loam_health(s.db, &why), LOAM_REFUSING_WRITES);
    CHECK((why.flags & LOAM_ERR_STICKY) != 0);
    syncs_fail(&s, 0);
    CHECK(loam_wait_idle(s.db, 0) <= LOAM_OK); /* no job is left that met the full disk */
    GOES(loam_resume(s.db));
    CHECK_EQ(loam_health(s.db, NULL), LOAM_HEALTHY);
    GOES(put_durable(&s, "after"));
    sick_close(&s);
}

/* A write that asks for no durability is told of a log that cannot give any. */
Test(resume, is_asked_for_once_a_sync_of_the_background_has_failed, .timeout = 60)
{
    struct sick s = sick_open(1);
    syncs_fail(&s, EIO);
    put_text(s.db, NULL, "key", "value");
    while (loam_health(s.db, NULL) == LOAM_HEALTHY) {
        thread_sleep_micros(1000);
    }
    FAILS(loam_put(s.db, NULL, text("key"), text("other"), NULL), LOAM_E_IO);
    expect_text(s.db, NULL, "key", "value");
    syncs_fail(&s, 0);
    GOES(loam_resume(s.db));
    put_text(s.db, NULL, "key", "other");
    GOES(loam_sync(s.db));
    sick_close(&s);
}

enum { KEEPER_ROUNDS_US = 400000 }; /* some of the keeper's, which heals what heals by itself */

/* Neither what works again nor the time that passes makes a log whole that has lost records. */
Test(resume, is_asked_for_however_long_all_goes_well)
{
    struct sick s = sick_open(UINT32_MAX);
    GOES(put_durable(&s, "before"));
    syncs_fail(&s, EIO);
    FAILS(put_durable(&s, "during"), LOAM_E_IO);
    syncs_fail(&s, 0);
    int rc = loam_flush(s.db, NULL); /* some part of it may have been on its way to a table */
    CHECK(rc == LOAM_OK || rc == LOAM_E_IO);
    for (unsigned i = 0; i < KEEPER_ROUNDS_US / 1000; i++) {
        CHECK_EQ(loam_health(s.db, NULL), LOAM_REFUSING_WRITES);
        thread_sleep_micros(1000);
    }
    FAILS(loam_put(s.db, NULL, text("key"), text("not resumed"), NULL), LOAM_E_IO);
    GOES(loam_resume(s.db));
    GOES(put_durable(&s, "after"));
    sick_close(&s);
}

/* A merge fails over and over while nobody writes, and each time somebody resumes. */
Test(resume, works_however_often_without_a_write_in_between)
{
    struct sick s = sick_open(UINT32_MAX);
    loam_fault_plan plan = {.struct_size = sizeof plan, .fail_calls = LOAM_CALL_OPEN, .fail_repeat = 10};
    const loam_slice all = {NULL, 0};
    GOES(loam_pause(s.db, 1));
    for (int i = 0; i < 2; i++) {
        put_text(s.db, NULL, "key", "value");
        GOES(loam_flush(s.db, NULL));
    }
    for (int i = 0; i < 300; i++) {
        plan.fail_at = loam_vfs_calls_of(s.vfs, LOAM_CALL_OPEN) + 1;
        GOES(loam_vfs_set_plan(s.vfs, &plan));
        FAILS(loam_compact(s.db, NULL, all, all, 0), LOAM_E_IO);
        CHECK_EQ(loam_health(s.db, NULL), LOAM_REFUSING_WRITES);
        syncs_fail(&s, 0);
        GOES(loam_resume(s.db));
    }
    GOES(put_durable(&s, "after"));
    sick_close(&s);
}

enum { SPACES = 100 }; /* more than a flush holds open at once */

/* What the failed log held goes to tables without another sync of it. */
Test(resume, renews_the_log_of_many_keyspaces)
{
    struct sick s = sick_open(UINT32_MAX);
    loam_ks *ks[SPACES];
    for (int i = 0; i < SPACES; i++) {
        char name[24];
        snprintf(name, sizeof name, "space%d", i);
        GOES(loam_ks_open(s.db, name, NULL, &ks[i]));
        put_text(s.db, ks[i], "key", "value");
    }
    syncs_fail(&s, EIO);
    FAILS(put_durable(&s, "during"), LOAM_E_IO);
    syncs_fail(&s, 0);
    GOES(loam_resume(s.db));
    GOES(put_durable(&s, "after"));
    for (int i = 0; i < SPACES; i++) {
        expect_text(s.db, ks[i], "key", "value");
        loam_ks_release(ks[i]);
    }
    sick_close(&s);
}

/* ---- a write that fails and cannot be taken back ------------------------------------------------- */

static const loam_vfs *inner;
static int write_error, sync_error; /* of the next write; of every sync. 0: none */

static int64_t write_or_fail(void *ctx, loam_file *f, const void *p, size_t n, uint64_t off)
{
    int error = write_error;
    write_error = 0;
    return error != 0 ? -error : inner->write(ctx, f, p, n, off);
}

static int sync_or_fail(void *ctx, loam_file *f, uint32_t data_only)
{
    return sync_error != 0 ? -sync_error : inner->sync(ctx, f, data_only);
}

static void fail_and_resume(int error, int code)
{
    loam_vfs *disk = memory_disk(), failing = *disk;
    inner = disk;
    failing.write = write_or_fail;
    failing.sync = sync_or_fail;
    failing.map = NULL; /* every record is written */
    loam_options o = small_options(&failing);
    o.sync_interval_ms = UINT32_MAX;
    struct sick s = {.vfs = disk};
    GOES(loam_open("/db", &o, &s.db));
    put_text(s.db, NULL, "before", "value");
    write_error = sync_error = error;
    FAILS(loam_put(s.db, NULL, text("during"), text("value"), NULL), code);
    CHECK((loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0);
    loam_error why;
    CHECK_EQ(loam_health(s.db, &why), LOAM_REFUSING_WRITES);
    CHECK((why.flags & LOAM_ERR_STICKY) != 0);
    sync_error = 0;
    GOES(loam_resume(s.db));
    CHECK_EQ(loam_health(s.db, NULL), LOAM_HEALTHY);
    GOES(put_durable(&s, "after"));
    GOES(loam_close(s.db));
    GOES(loam_open("/db", &o, &s.db));
    expect_text(s.db, NULL, "before", "value");
    expect_text(s.db, NULL, "after", "value");
    GOES(loam_close(s.db));
    loam_vfs_free(disk);
}

/* The sync that was to take it back has failed like any other. */
Test(resume, is_asked_for_when_a_failed_write_could_not_be_taken_back)
{
    fail_and_resume(EIO, LOAM_E_IO);
    fail_and_resume(ENOSPC, LOAM_E_NOSPACE); /* which else passes by itself */
}
