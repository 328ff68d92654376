/* io_error_test.c - A call of the vfs that fails at any index loses nothing acknowledged and shows nothing wrong.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The n-th call fails, once or from then on; the writer goes on, then the process is killed or the
 * power cut, and the database is opened on the healthy disk. Acknowledged writes must be there; those
 * that failed must not, unless their error said that it does not know. LOAM_SEED repeats a run,
 * LOAM_SCALE=12 tries every kind of fault at every index.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/crash_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/check.h"

#define DIR         "/db"
#define KINDS       12u /* error, once or for ever, with part of a write or nothing */
#define RUN_SECONDS 60  /* longer: it hangs */

static struct {
    uint64_t runs, fired, states, refused, resumed;
} totals;

/* ---- the workload ------------------------------------------------------------------------------ */

/* What is read meanwhile is right or an error. */
static void read_live(struct oracle_writer *w)
{
    struct oracle_promise p = oracle_promise_low(w->o, true);
    oracle_promise_high(w->o, &p);
    struct oracle_seen seen;
    if (oracle_read(w->o, &p, w->db, &seen) >= 0) {
        oracle_judge(w->o, &p, &seen);
    }
}

static bool open_or_retry(struct oracle_writer *w, const loam_options *options)
{
    for (int i = 0; i < 2; i++) {
        if (oracle_open(w, DIR, options) == LOAM_OK) {
            return true;
        }
    }
    return false;
}

/* Leaves the database open; false: it cannot be opened. */
static bool workload(struct oracle_writer *w, const loam_vfs *vfs)
{
    loam_options options = crash_options(vfs);
    if (!open_or_retry(w, &options)) {
        return false;
    }
    oracle_write(w, 3, false);
    oracle_ks_create(w, "one");
    oracle_write(w, 5, true);
    oracle_flush(w);
    read_live(w);
    oracle_write(w, 4, false);
    oracle_sync(w);
    oracle_close(w);
    if (!open_or_retry(w, &options)) {
        return false;
    }
    oracle_write(w, 4, true);
    oracle_flush(w);
    oracle_ks_create(w, "two");
    oracle_compact(w);
    oracle_write(w, 4, false);
    read_live(w);
    oracle_ks_drop(w, "one");
    oracle_write(w, 3, true);
    oracle_flush(w);
    oracle_write(w, 3, false);
    return true;
}

/* ---- one run ----------------------------------------------------------------------------------- */

static void check_disk(const struct oracle *o, const struct oracle_promise *p, loam_vfs *disk)
{
    loam_options options = crash_options(disk);
    options.flags = p->opened ? LOAM_OPEN_MUST_EXIST : 0;
    loam_db *db;
    struct oracle_seen seen;
    tap_dump_on_failure(disk);
    crash_must(loam_open(DIR, &options, &db), "open on the healthy disk");
    crash_must(oracle_read(o, p, db, &seen), "reading on the healthy disk");
    oracle_judge(o, p, &seen);
    crash_must(loam_close(db), "close");
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
    totals.states++;
}

static void check_cut(const struct oracle *o, loam_vfs *fault, uint64_t variant)
{
    loam_vfs *after;
    struct oracle_promise p = oracle_promise_low(o, variant == 0);
    CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
    oracle_promise_high(o, &p);
    check_disk(o, &p, after);
}

/* With the fault gone: resume must bring the writer back, or a reopen does. */
static void recover_service(struct oracle_writer *w, loam_vfs *fault)
{
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    CHECK_EQ(loam_vfs_set_plan(fault, &healthy), LOAM_OK);
    if (loam_health(w->db, NULL) == LOAM_REFUSING_WRITES && loam_resume(w->db) < 0) {
        oracle_fail("resume on a healthy disk: %s", loam_last_error()->message);
    }
    totals.resumed++;
    w->strict = true;
    oracle_write(w, 4, false);
    oracle_put(w, 5, true);
    oracle_flush(w);
    oracle_write(w, 3, false);
    read_live(w);
    w->strict = false;
}

static loam_fault_plan plan_of(uint64_t n, unsigned kind, bool mapped, uint64_t seed)
{
    static const int errors[] = {EIO, ENOSPC, EINTR};
    return (loam_fault_plan){
        .struct_size = sizeof(loam_fault_plan),
        .seed = seed,
        .fail_at = n,
        .fail_errno = errors[kind % 3],
        .fail_repeat = kind / 3 % 2 == 0 ? 1 : UINT32_MAX,
        .short_writes = kind / 6,
        .no_map = !mapped,
    };
}

/* The n-th call fails (0: none). Returns the calls made. */
static uint64_t run(uint64_t n, unsigned kind, bool mapped, uint64_t seed)
{
    static struct oracle o;
    loam_vfs *disk, *fault;
    oracle_context("seed %llu, call %llu, kind of fault %u, %s map", (unsigned long long)seed,
                   (unsigned long long)n, kind, mapped ? "with" : "no");
    crash_alarm(RUN_SECONDS);
    oracle_init(&o);
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    const loam_fault_plan plan = plan_of(n, kind, mapped, seed);
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    struct oracle_writer w = {.o = &o, .strict = n == 0};
    random_init(&w.random, seed);
    bool open = workload(&w, fault);
    uint64_t calls = loam_vfs_calls(fault);
    check_cut(&o, fault, 0);
    check_cut(&o, fault, 1);
    if (open && n % 2 == 1) {
        recover_service(&w, fault);
        check_cut(&o, fault, 0);
        check_cut(&o, fault, 1);
    }
    if (open) {
        oracle_close(&w);
    }
    check_cut(&o, fault, n % 3);
    totals.runs++;
    totals.fired += calls >= n;
    totals.refused += w.refused;
    loam_vfs_free(fault);
    loam_vfs_free(disk);
    crash_alarm(0);
    return calls;
}

static void fail_everywhere(bool mapped)
{
    uint64_t seed = oracle_seed();
    const char *s = getenv("LOAM_SCALE");
    unsigned kinds = s != NULL ? (unsigned)atoi(s) : 3;
    kinds = kinds < 1 ? 1 : kinds > KINDS ? KINDS : kinds;
    uint64_t calls = run(0, 0, mapped, seed);
    for (uint64_t n = 1; n <= calls; n++) {
        for (unsigned k = 0; k < kinds; k++) {
            run(n, (unsigned)(n * 5 + k) % KINDS, mapped, seed);
        }
    }
    fprintf(stderr,
            "io_error, %s map: %llu runs (%llu faults fired), %llu calls refused, %llu resumed, "
            "%llu disks checked\n",
            mapped ? "with" : "no", (unsigned long long)totals.runs,
            (unsigned long long)totals.fired, (unsigned long long)totals.refused,
            (unsigned long long)totals.resumed, (unsigned long long)totals.states);
}

Test(io_error, at_any_call_loses_nothing_with_a_mapped_log)
{
    fail_everywhere(true);
}

Test(io_error, at_any_call_loses_nothing_with_a_buffered_log)
{
    fail_everywhere(false);
}

/* ---- a full disk ------------------------------------------------------------------------------- */

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
    crash_must(oracle_open(&w, DIR, &options), "open");
    oracle_write(&w, 10, true);
    plan.space = space;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    int rc = fill(&w);
    if (rc < 0 && rc != LOAM_E_NOSPACE) {
        oracle_fail("a full disk gives %d: %s", rc, loam_last_error()->message);
    }
    read_live(&w);
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
    read_live(&w);
    check_cut(&o, fault, 0);
    check_cut(&o, fault, 1);
    oracle_close(&w);
    check_cut(&o, fault, 1);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
    crash_alarm(0);
    return rc < 0;
}

Test(io_error, a_full_disk_refuses_writes_and_serves_again_by_itself)
{
    unsigned full = 0;
    for (uint64_t space = 400000; space < 1600000; space += 150000) {
        full += fill_and_free(true, space);
        full += fill_and_free(false, space);
    }
    fprintf(stderr, "io_error: the disk became full in %u of 16 runs\n", full);
    CHECK(full >= 6);
}
