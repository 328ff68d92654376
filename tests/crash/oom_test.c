/* oom_test.c - Memory that runs out at any allocation costs a database an error, never data, memory or service.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Scenarios: the life of a new database, a recovery, housekeeping. What is read meanwhile is right or
 * LOAM_E_NOMEM; see oom_run_support.h for what is checked then.
 */
#include <criterion/criterion.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/crash/oom_run_support.h"
#include "tests/support/memory_disk.h"

/* ---- a life of a new database ------------------------------------------------------------------ */

static void new_database(struct oom_scene *s)
{
    struct oracle_writer *w = &s->w;
    if (!oom_open(s)) {
        return;
    }
    oracle_write(w, 4, false);
    oracle_ks_create(w, "one");
    oracle_write(w, 6, true);
    oracle_flush(w);
    oom_judge_live(w);
    oracle_write(w, 4, false);
    oracle_ks_rename(w, "one", "three");
    oracle_sync(w);
    oracle_close(w);
    if (oom_open(s)) {
        oracle_write(w, 3, false);
    }
}

Test(oom, costs_a_new_database_an_error_at_most)
{
    oom_install();
    oom_sweep(&(struct oom_scenario){.name = "a new database", .act = new_database});
}

Test(oom, costs_a_new_database_without_a_log_an_error_at_most)
{
    oom_install();
    oom_sweep(&(struct oom_scenario){
        .name = "a new database without a log", .act = new_database, .durability = LOAM_DUR_MEMORY});
}

/* ---- a database with a past -------------------------------------------------------------------- */

static void recovering(struct oom_scene *s)
{
    struct oracle_writer *w = &s->w;
    if (!oom_open(s)) {
        return;
    }
    oom_judge_live(w);
    oracle_write(w, 4, true);
    oracle_close(w);
}

Test(oom, costs_a_recovery_an_error_at_most)
{
    oom_sweep(
        &(struct oom_scenario){.name = "a recovery", .act = recovering, .past = oom_make_past()});
}

static void housekeeping(struct oom_scene *s)
{
    struct oracle_writer *w = &s->w;
    oracle_write(w, 4, true);
    oracle_flush(w);
    oracle_ks_drop(w, "one");
    oracle_write(w, 4, true);
    oracle_compact(w);
    oracle_ks_create(w, "four");
    oracle_ks_rename(w, "two", "five");
    oom_short(loam_pause(w->db, 1), "pause");
    oom_short(loam_pause(w->db, 0), "pause");
    oom_short(loam_wait_idle(w->db, 0), "waiting");
    oom_judge_live(w);
}

Test(oom, costs_flushes_and_merges_an_error_at_most)
{
    oom_sweep(&(struct oom_scenario){
        .name = "housekeeping", .act = housekeeping, .open = true, .past = oom_make_past()});
}

Test(oom, costs_flushes_and_merges_without_a_log_an_error_at_most)
{
    oom_sweep(&(struct oom_scenario){.name = "housekeeping without a log",
                                     .act = housekeeping,
                                     .durability = LOAM_DUR_MEMORY,
                                     .open = true,
                                     .past = oom_make_past()});
}

/* ---- the first call of a process --------------------------------------------------------------- */

enum { NOTHING_REFUSED = 3 };

/* In a process of its own: what is made once for all handles is made by a later call. */
static int first_call(uint64_t at, bool persist)
{
    loam_vfs *disk;
    loam_db *db;
    oracle_context("the first call, allocation %llu %s", (unsigned long long)at,
                   persist ? "and all after it" : "alone");
    oracle_on_fail = oom_print_place;
    oom_install();
    disk = memory_disk();
    loam_options options = crash_options(disk);
    options.allocator = oom_allocator();
    oom_arm(OOM_GLOBAL | OOM_MAP, at, persist);
    loam_batch *b = loam_batch_new(0);
    int rc = loam_open(OOM_DIR, &options, &db);
    bool open = !oom_short(rc, "open");
    bool fired = oom_disarm() != 0;
    if (!open) {
        crash_must(loam_open(OOM_DIR, &options, &db), "open with memory again");
    }
    b = b != NULL ? b : loam_batch_new(0);
    CHECK(b != NULL);
    CHECK_EQ(loam_batch_put(b, NULL, LOAM_LIT("k"), LOAM_LIT("v")), LOAM_OK);
    crash_must(loam_write(db, b, NULL), "write with memory again");
    loam_batch_free(b);
    crash_must(loam_close(db), "close");
    loam_vfs_free(disk);
    return fired ? 0 : NOTHING_REFUSED;
}

Test(oom, at_the_first_call_of_a_process_is_over_when_memory_is_there)
{
    int status = 0;
    for (uint64_t n = 1; status == 0 && n < 10000; n++) {
        for (int persist = 0; persist < 2; persist++) {
            pid_t child = fork();
            if (child == 0) {
                _exit(first_call(n, persist != 0));
            }
            CHECK(child > 0 && waitpid(child, &status, 0) == child);
            CHECK(WIFEXITED(status));
            status = WEXITSTATUS(status);
        }
    }
    CHECK_EQ(status, NOTHING_REFUSED);
}

/* ---- defects that were found ------------------------------------------------------------------- */

static loam_db *open_new(loam_vfs **disk)
{
    loam_db *db;
    oom_install();
    crash_alarm(OOM_RUN_SECONDS);
    CHECK_EQ(loam_vfs_memory(disk), LOAM_OK);
    loam_options options = crash_options(*disk);
    options.allocator = oom_allocator();
    CHECK_EQ(loam_open(OOM_DIR, &options, &db), LOAM_OK);
    return db;
}

static int count_names(void *ctx, loam_slice name)
{
    (void)name;
    ++*(unsigned *)ctx;
    return 0;
}

Test(oom, leaves_no_keyspace_behind_whose_opening_failed)
{
    loam_vfs *disk;
    loam_db *db = open_new(&disk);
    uint64_t n = 0, refused;
    do { /* some allocations can be done without, such as a thread's magazine */
        loam_ks *ks;
        oom_arm(OOM_ALL, ++n, false);
        int rc = loam_ks_open(db, "new", NULL, &ks);
        refused = oom_disarm();
        unsigned names = 0;
        CHECK_EQ(loam_ks_list(db, count_names, &names), LOAM_OK);
        CHECK_EQ(names, rc < 0 ? 1 : 2);
        if (rc == LOAM_OK) {
            loam_ks_release(ks);
            CHECK_EQ(loam_ks_drop(db, "new"), LOAM_OK);
        }
    } while (refused != 0);
    CHECK(n > 10);
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(disk);
}

Test(oom, ends_waiting_for_background_work_that_cannot_be_done)
{
    loam_vfs *disk;
    loam_db *db = open_new(&disk);
    CHECK_EQ(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL), LOAM_OK);
    uint64_t due = 0; /* until the switch of memtables goes and the flush does not */
    unsigned whole = 0;
    for (uint64_t n = 1; due == 0; n++) {
        oom_disarm();
        CHECK_EQ(loam_resume(db), LOAM_OK);
        oom_arm(OOM_HOOK, n, true);
        int rc = loam_flush(db, NULL);
        if (rc == LOAM_OK) { /* what it wanted had been made ready: from the beginning */
            oom_disarm();
            CHECK(++whole < 100);
            CHECK_EQ(loam_put(db, NULL, LOAM_LIT("k"), LOAM_LIT("v"), NULL), LOAM_OK);
            n = 0;
            continue;
        }
        CHECK_EQ(rc, LOAM_E_NOMEM);
        CHECK_EQ(loam_property(db, NULL, "pending_flushes", &due), LOAM_OK);
    }
    CHECK_EQ(loam_wait_idle(db, 0), LOAM_E_NOMEM);
    oom_disarm();
    CHECK_EQ(loam_resume(db), LOAM_OK);
    CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
    CHECK_EQ(loam_wait_idle(db, 0), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
    loam_vfs_free(disk);
}
