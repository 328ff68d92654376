/* io_run_support.c - One run with faults: work, judge, recover, judge again, count what is left.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/io_run_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/sync.h"
#include "tests/crash/dated_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/memory_disk.h"

#define RUN_SECONDS 60 /* longer: it hangs */

struct io_totals io_totals;

/* ---- the workload ------------------------------------------------------------------------------ */

void io_read_live(struct oracle_writer *w)
{
    struct oracle_promise p = oracle_promise_live(w->o);
    struct oracle_seen seen;
    int rc = oracle_read(w->o, &p, w->db, &seen);
    if (rc >= 0) {
        oracle_judge(w->o, &p, &seen);
    } else if (w->strict) {
        crash_must(rc, "reading");
    }
}

static uint32_t durability; /* of the run */

static loam_options options_of(const loam_vfs *vfs)
{
    loam_options o = crash_options(vfs);
    o.allocator = oom_allocator();
    o.durability = durability;
    o.disk_budget = vfs->map == NULL ? (uint64_t)64 << 20 : 0; /* counts files; never reached */
    return o;
}

bool io_open(struct oracle_writer *w, const loam_vfs *vfs)
{
    loam_options options = options_of(vfs);
    for (int i = 0; i < 2; i++) {
        if (oracle_open(w, IO_DIR, &options) == LOAM_OK) {
            return true;
        }
    }
    return false;
}

void io_workload(struct oracle_writer *w, const loam_vfs *vfs)
{
    if (!io_open(w, vfs)) {
        return;
    }
    oracle_write(w, 3, false);
    oracle_ks_create(w, "one");
    oracle_write(w, 5, true);
    oracle_flush(w);
    io_read_live(w);
    oracle_write(w, 4, false);
    oracle_sync(w);
    oracle_close(w);
    if (!io_open(w, vfs)) {
        return;
    }
    oracle_write(w, 4, true);
    oracle_flush(w);
    oracle_ks_create(w, "two");
    oracle_compact(w);
    oracle_write(w, 4, false);
    io_read_live(w);
    oracle_ks_drop(w, "one");
    for (unsigned i = 0; i < 3; i++) { /* the log comes to segments that were used before */
        oracle_write(w, 2, i == 0);
        oracle_flush(w);
        oracle_put(w, i, true);
    }
    oracle_write(w, 3, false);
}

/* ---- judging ----------------------------------------------------------------------------------- */

static const char *stage = "";
static char disk_name[128] = "a healthy disk";

void io_check_disk(const struct oracle *o, const struct oracle_promise *p, loam_vfs *disk)
{
    loam_options options = crash_options(disk);
    options.flags = p->opened ? LOAM_OPEN_MUST_EXIST : 0;
    loam_db *db;
    struct oracle_seen seen;
    tap_dump_on_failure(disk);
    crash_must(loam_open(IO_DIR, &options, &db), disk_name);
    crash_must(oracle_read(o, p, db, &seen), disk_name);
    oracle_judge(o, p, &seen);
    crash_must(loam_close(db), "close");
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
    io_totals.disks++;
}

void io_check_cut(const struct oracle *o, loam_vfs *fault, uint64_t variant)
{
    loam_vfs *after;
    struct oracle_promise p = oracle_promise_low(o, variant == 0);
    CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
    oracle_promise_high(o, &p);
    snprintf(disk_name, sizeof disk_name, "%s, disk of variant %llu", stage,
             (unsigned long long)variant);
    io_check_disk(o, &p, after);
}

/* With the fault gone: resume must bring the writer back, or the first open that goes. */
static void recover_service(struct oracle_writer *w, struct tap *t)
{
    loam_options options = options_of(&t->vfs);
    w->strict = true;
    /* What is under way may have met the fault and not said so yet. */
    bool idle = w->db != NULL && loam_wait_idle(w->db, 0) == LOAM_OK;
    if (w->db == NULL) {
        oracle_open(w, IO_DIR, &options);
    } else if (!idle && loam_health(w->db, NULL) == LOAM_REFUSING_WRITES) {
        crash_must(loam_resume(w->db), "resume on a healthy disk");
        io_totals.resumed++;
    }
    oracle_write(w, 4, false);
    oracle_put(w, 5, true);
    oracle_flush(w);
    oracle_write(w, 3, false);
    io_read_live(w);
    w->strict = false;
}

/* Every file is one that the database names: an open and a close make removals good that failed. */
static void check_files(struct tap *t)
{
    loam_options options = options_of(&t->vfs);
    loam_db *db;
    crash_must(loam_open(IO_DIR, &options, &db), "open to clean up");
    crash_must(loam_wait_idle(db, 0), "waiting");
    crash_must(loam_close(db), "close");
    options.flags = LOAM_OPEN_READONLY;
    crash_must(loam_open(IO_DIR, &options, &db), "open to count files");
    crash_directory(&t->vfs, IO_DIR, db);
    crash_must(loam_close(db), "close");
    CHECK_EQ(crash_open_files(t->disk), 0);
}

/* ---- one run ----------------------------------------------------------------------------------- */

static char run_text[384];

static void describe(const struct io_case *c)
{
    const loam_fault_plan *p = &c->plan, *q = &c->second;
    char two[128] = "";
    if (c->two) {
        snprintf(two, sizeof two, "; then call %llu of 0x%x, errno %d, %u times, lands %u",
                 (unsigned long long)q->fail_at, q->fail_calls, q->fail_errno, q->fail_repeat,
                 q->short_writes);
    }
    snprintf(
        run_text, sizeof run_text,
        "%s, seed %llu, %s map: call %llu of 0x%x, errno %d, how %u, %u times, lands %u, "
        "drops %u%s",
        c->name, (unsigned long long)p->seed, p->no_map ? "no" : "with",
        (unsigned long long)p->fail_at, p->fail_calls, p->fail_errno, p->fail_how, p->fail_repeat,
        p->short_writes, p->drop_dirty, two);
    oracle_context("%s", run_text);
}

static loam_vfs *first_disk(const struct io_case *c)
{
    loam_vfs *disk;
    if (c->image == NULL) {
        disk = memory_disk();
    } else {
        CHECK_EQ(loam_vfs_power_cut(c->image, 0, &disk), LOAM_OK);
    }
    return disk;
}

/* From what the fault met to now, with the database closed. */
static void crash_since_fault(const struct io_case *c, struct dated *d, uint64_t quiet)
{
    uint64_t end = loam_recording_mark(d->rec), mixed = c->plan.seed + c->plan.fail_at;
    dated_crash(d, quiet, end, c->swept, splitmix64(&mixed), run_text);
    dated_end(d);
    oracle_context("%s", run_text);
}

struct io_result io_run(const struct io_case *c)
{
    static struct oracle o;
    static struct tap t;
    describe(c);
    durability = c->durability;
    crash_alarm(RUN_SECONDS);
    if (c->known != NULL) {
        memcpy(&o, c->known, sizeof o);
    } else {
        oracle_init(&o);
    }
    struct oom_live before = oom_balance();
    tap_create(&t, first_disk(c), &c->plan, &o);
    t.second = c->two ? &c->second : NULL;
    struct oracle_writer w = {.o = &o, .strict = c->strict};
    random_init(&w.random, c->plan.seed);
    struct dated dated;
    if (c->swept != 0) {
        dated_begin(&dated, t.disk, &w);
        t.rec = dated.rec;
    }
    (c->work != NULL ? c->work : io_workload)(&w, &t.vfs);
    struct io_result r = {loam_vfs_calls(t.fault), 0, loam_vfs_faults(t.fault) != 0};
    r.of_kind =
        loam_vfs_calls_of(t.fault, c->plan.fail_calls != 0 ? c->plan.fail_calls : LOAM_CALL_ALL);
    uint64_t n = c->plan.fail_at + c->second.fail_at;
    stage = "after the work";
    io_check_cut(&o, t.fault, 0);
    io_check_cut(&o, t.fault, n % 2 == 0 ? 1 : 5 + n);
    const loam_fault_plan healthy = {.struct_size = sizeof healthy, .seed = c->plan.seed};
    t.second = NULL;
    CHECK_EQ(loam_vfs_set_plan(t.fault, &healthy), LOAM_OK);
    if (n % 3 != 0 || w.db == NULL || c->swept != 0) {
        recover_service(&w, &t);
        stage = "in service again";
        io_check_cut(&o, t.fault, 0);
        io_check_cut(&o, t.fault, 1);
    }
    oracle_close(&w);
    stage = "after close";
    io_check_cut(&o, t.fault, n % 3);
    if (c->swept != 0) {
        crash_since_fault(c, &dated, t.quiet);
        t.rec = NULL;
    }
    check_files(&t);
    tap_destroy(&t);
    if (c->plan.fail_at != 0) { /* a first run without a fault makes what stays for good */
        oom_check_balance("after close", before);
    }
    io_totals.runs++;
    io_totals.fired += r.fired;
    io_totals.refused += w.refused;
    crash_alarm(0);
    return r;
}

/* ---- a shortage that passes -------------------------------------------------------------------- */

void io_shortage_begin(struct io_shortage *s, bool mapped, unsigned writes)
{
    crash_alarm(RUN_SECONDS);
    memset(s, 0, sizeof *s);
    oracle_init(&s->o);
    s->w.o = &s->o;
    s->plan = (loam_fault_plan){.struct_size = sizeof s->plan, .no_map = !mapped};
    s->disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(s->disk, &s->plan, &s->fault), LOAM_OK);
    loam_options options = crash_options(s->fault);
    crash_must(oracle_open(&s->w, IO_DIR, &options), "open");
    oracle_write(&s->w, writes, true);
}

void io_shortage_set(struct io_shortage *s, const loam_fault_plan *plan)
{
    CHECK_EQ(loam_vfs_set_plan(s->fault, plan), LOAM_OK);
}

static uint64_t wait_for_service(struct oracle_writer *w)
{
    uint64_t start = clock_micros();
    for (int i = 0; i < 2500; i++) {
        if (oracle_put(w, 3, false) == LOAM_OK && loam_health(w->db, NULL) == LOAM_HEALTHY) {
            return clock_micros() - start;
        }
        thread_sleep_micros(4000);
    }
    oracle_fail("with nothing missing any more writes are still refused: %s",
                loam_last_error()->message);
    return 0;
}

uint64_t io_shortage_end(struct io_shortage *s)
{
    io_shortage_set(s, &s->plan);
    uint64_t waited = wait_for_service(&s->w);
    s->w.strict = true;
    oracle_write(&s->w, 10, true);
    oracle_flush(&s->w);
    oracle_compact(&s->w);
    io_read_live(&s->w);
    io_check_cut(&s->o, s->fault, 0);
    io_check_cut(&s->o, s->fault, 1);
    oracle_close(&s->w);
    io_check_cut(&s->o, s->fault, 1);
    loam_vfs_free(s->fault);
    loam_vfs_free(s->disk);
    crash_alarm(0);
    return waited;
}

void io_print_totals(const char *name)
{
    fprintf(stderr,
            "%s: %llu runs (%llu with faults), %llu calls refused, %llu times resumed, %llu disks "
            "checked\n",
            name, (unsigned long long)io_totals.runs, (unsigned long long)io_totals.fired,
            (unsigned long long)io_totals.refused, (unsigned long long)io_totals.resumed,
            (unsigned long long)io_totals.disks);
    memset(&io_totals, 0, sizeof io_totals);
}

unsigned io_scale(void)
{
    const char *s = getenv("LOAM_SCALE");
    int n = s != NULL ? atoi(s) : 1;
    return n < 1 ? 1 : (unsigned)n;
}
