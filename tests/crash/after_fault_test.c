/* after_fault_test.c - A crash at any change of the disk after a fault, and while its effects are put right, loses nothing.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs are drawn: a kind of call, which of those that the workload makes, how often it fails and how, and for every
 * other run a second fault soon after, in the midst of what is done about the first. The disk is recorded, and crashed at every change from the fault on: while writes are refused, while a resume or the
 * keeper brings the database back, in the log and the manifest that follow, and in the close. See
 * io_run_support.h for what else is checked. LOAM_SEED repeats a run, LOAM_SCALE multiplies the runs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "tests/crash/dated_support.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/seed.h"

#define RUNS (LOAM_ASAN ? 6u : 30u)
#define WAYS 1u /* of a crash at each change, beside that of what was synced alone */

#define KINDS 20u

/* Those after which the disk is another than was thought, more often than the others. */
static const uint32_t of_work[KINDS] = {
    LOAM_CALL_SYNC,    LOAM_CALL_WRITE,  LOAM_CALL_SYNC_DIR, LOAM_CALL_WRITE_DURABLE,
    LOAM_CALL_SYNC,    LOAM_CALL_OPEN,   LOAM_CALL_SYNC,     LOAM_CALL_RENAME,
    LOAM_CALL_RESERVE, LOAM_CALL_WRITE,  LOAM_CALL_SYNC,     LOAM_CALL_REMOVE,
    LOAM_CALL_SYNC,    LOAM_CALL_MAP,    LOAM_CALL_TRUNCATE, LOAM_CALL_SYNC_DIR,
    LOAM_CALL_READ,    LOAM_CALL_WRITE,  LOAM_CALL_SYNC,     LOAM_CALL_CLOSE,
};
/* Here above all what makes the manifest that replaces another the one in force. */
static const uint32_t of_recovery[KINDS] = {
    LOAM_CALL_SYNC_DIR, LOAM_CALL_RENAME, LOAM_CALL_SYNC_DIR, LOAM_CALL_SYNC,
    LOAM_CALL_SYNC_DIR, LOAM_CALL_WRITE,  LOAM_CALL_SYNC_DIR, LOAM_CALL_OPEN,
    LOAM_CALL_SYNC_DIR, LOAM_CALL_SYNC,   LOAM_CALL_SYNC_DIR, LOAM_CALL_WRITE_DURABLE,
    LOAM_CALL_SYNC_DIR, LOAM_CALL_RENAME, LOAM_CALL_SYNC_DIR, LOAM_CALL_SYNC,
    LOAM_CALL_SYNC_DIR, LOAM_CALL_REMOVE, LOAM_CALL_SYNC_DIR, LOAM_CALL_RESERVE,
};

/* How many of each the workload makes. */
static void count_calls(struct io_case *c, const uint32_t kinds[KINDS], uint64_t calls[KINDS])
{
    c->strict = true;
    for (unsigned i = 0; i < KINDS; i++) {
        c->plan.fail_calls = kinds[i];
        calls[i] = io_run(c).of_kind;
    }
    c->strict = false;
}

static void draw_plan(loam_fault_plan *p, struct random *r, uint32_t calls, uint64_t most)
{
    static const int errors[] = {EIO, ENOSPC, EIO, EDQUOT};
    p->fail_calls = calls;
    p->fail_at = 1 + random_below(r, most);
    p->fail_errno = errors[random_below(r, 4)];
    p->fail_repeat = random_below(r, 3) == 0 ? UINT32_MAX : 1 + (uint32_t)random_below(r, 2);
    p->short_writes = (uint32_t)random_below(r, calls == LOAM_CALL_WRITE_DURABLE ? 6 : 5);
    p->drop_dirty = random_below(r, 4) != 0;
}

static void draw(struct io_case *c, struct random *r, uint32_t kind, uint64_t calls)
{
    static const uint32_t then[] = {LOAM_CALL_SYNC_DIR, LOAM_CALL_SYNC, LOAM_CALL_WRITE,
                                    LOAM_CALL_RENAME | LOAM_CALL_SYNC_DIR};
    draw_plan(&c->plan, r, kind, calls);
    c->two = random_below(r, 2) == 0;
    c->second = c->plan;
    draw_plan(&c->second, r, then[random_below(r, 4)], 3);
    c->second.fail_repeat = 1 + (uint32_t)random_below(r, 2);
}

static void crash_after_faults(struct io_case *c, bool mapped, const uint32_t kinds[KINDS],
                               unsigned runs)
{
    uint64_t calls[KINDS], seed = seed_of_run();
    struct random r;
    random_init(&r, seed);
    oom_warm_up();
    c->plan = (loam_fault_plan){.struct_size = sizeof c->plan, .seed = seed, .no_map = !mapped};
    count_calls(c, kinds, calls);
    c->swept = WAYS;
    unsigned first = (unsigned)(seed % KINDS);
    for (unsigned i = 0; i < runs * io_scale(); i++) {
        unsigned kind = (first + i) % KINDS;
        if (calls[kind] != 0) {
            draw(c, &r, kinds[kind], calls[kind]);
            io_run(c);
        }
    }
    CHECK(dated_totals.states != 0);
    fprintf(stderr, "%s: %llu crash states at %llu changes\n", c->name,
            (unsigned long long)dated_totals.states, (unsigned long long)dated_totals.moments);
    io_print_totals(c->name);
}

Test(after_fault, a_crash_loses_nothing_with_a_mapped_log)
{
    struct io_case c = {.name = "after_fault, mapped log"};
    oom_install();
    crash_after_faults(&c, true, of_work, RUNS);
}

Test(after_fault, a_crash_loses_nothing_with_a_buffered_log)
{
    struct io_case c = {.name = "after_fault, buffered log"};
    oom_install();
    crash_after_faults(&c, false, of_work, RUNS);
}

Test(after_fault, a_crash_loses_nothing_that_was_flushed_without_a_log)
{
    struct io_case c = {.name = "after_fault, no log", .durability = LOAM_DUR_MEMORY};
    oom_install();
    crash_after_faults(&c, false, of_work, RUNS);
}

/* A database that was killed: its manifest is replaced, its log goes to tables. */
static void recover(struct oracle_writer *w, const loam_vfs *vfs)
{
    if (!io_open(w, vfs)) {
        return;
    }
    io_read_live(w);
    oracle_write(w, 3, true);
    oracle_ks_drop(w, "one");
    oracle_flush(w);
    oracle_ks_create(w, "three");
    oracle_put(w, 3, true);
}

Test(after_fault, in_a_recovery_a_crash_loses_nothing)
{
    const struct oom_past *past = oom_make_past();
    struct io_case c = {.name = "after_fault, recovery",
                        .image = past->fault,
                        .known = &past->oracle,
                        .work = recover};
    crash_after_faults(&c, true, of_recovery, 3 * RUNS / 2);
}
