/* full_disk_test.c - A full disk refuses writes, keeps what it has, and serves again by itself.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "arena/sync.h"
#include "tests/crash/io_run_support.h"

#define RUN_SECONDS 60

/* Writes until the disk is full; the code of the first write that was refused. */
static int fill(struct oracle_writer *w)
{
    for (int i = 0; i < 900; i++) {
        int rc = oracle_put(w, (unsigned)i % ORACLE_KEYS, i % 16 == 0);
        if (rc < 0) {
            return rc;
        }
        if (i % 8 == 7) {
            oracle_flush(w);
            oracle_write(w, 1, true);
        }
    }
    return LOAM_OK;
}

/* Waits until writes are accepted again without a resume or a reopen. */
static void wait_for_service(struct oracle_writer *w)
{
    for (int i = 0; i < 500; i++) {
        if (oracle_put(w, 3, false) == LOAM_OK) {
            return;
        }
        thread_sleep_micros(20000);
    }
    oracle_fail("with space again writes are still refused: %s", loam_last_error()->message);
}

/* Whether the disk became full. */
static bool fill_and_free(bool mapped, uint64_t space)
{
    static struct oracle o;
    loam_vfs *disk, *fault;
    oracle_context("a disk of %llu bytes, %s map", (unsigned long long)space,
                   mapped ? "with" : "no");
    crash_alarm(RUN_SECONDS);
    oracle_init(&o);
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    loam_fault_plan plan = {.struct_size = sizeof plan, .no_map = !mapped};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    struct oracle_writer w = {.o = &o};
    loam_options options = crash_options(fault);
    crash_must(oracle_open(&w, IO_DIR, &options), "open");
    oracle_write(&w, 10, true);
    plan.space = space;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    int rc = fill(&w);
    if (rc < 0 && rc != LOAM_E_NOSPACE) {
        oracle_fail("a full disk gives %d: %s", rc, loam_last_error()->message);
    }
    io_read_live(&w);
    struct oracle_seen seen;
    struct oracle_promise p = oracle_promise_low(&o, true);
    oracle_promise_high(&o, &p);
    crash_must(oracle_read(&o, &p, w.db, &seen), "reading with a full disk");
    plan.space = 0;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    wait_for_service(&w);
    w.strict = true;
    oracle_write(&w, 10, true);
    oracle_flush(&w);
    io_read_live(&w);
    io_check_cut(&o, fault, 0);
    io_check_cut(&o, fault, 1);
    oracle_close(&w);
    io_check_cut(&o, fault, 1);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
    crash_alarm(0);
    return rc < 0;
}

Test(full_disk, refuses_writes_and_serves_again_by_itself)
{
    unsigned full = 0;
    for (uint64_t space = 400000; space < 1600000; space += 150000) {
        full += fill_and_free(true, space);
        full += fill_and_free(false, space);
    }
    fprintf(stderr, "full_disk: the disk became full in %u of 16 runs\n", full);
    CHECK(full >= 6);
}
