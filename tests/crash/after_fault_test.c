/* after_fault_test.c - A crash at any change of the disk after a fault, and while its effects are put right, loses nothing.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Runs are drawn: a kind of call, which of those that the workload makes, how often it fails and how. The disk is
 * recorded, and crashed at every change from the fault on: while writes are refused, while a resume or the
 * keeper brings the database back, in the log and the manifest that follow, and in the close. See
 * io_run_support.h for what else is checked. LOAM_SEED repeats a run, LOAM_SCALE multiplies the runs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "tests/crash/dated_support.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"

#define RUNS (CRASH_SANITIZED ? 8u : 40u)
#define WAYS 1u /* of a crash at each change, beside that of what was synced alone */

/* Those after which the disk is another than was thought, more often than the others. */
static const uint32_t kinds[] = {
    LOAM_CALL_SYNC,   LOAM_CALL_WRITE, LOAM_CALL_SYNC_DIR, LOAM_CALL_WRITE_DURABLE,
    LOAM_CALL_RENAME, LOAM_CALL_OPEN,  LOAM_CALL_TRUNCATE, LOAM_CALL_RESERVE,
    LOAM_CALL_MAP,    LOAM_CALL_REMOVE, LOAM_CALL_SYNC,    LOAM_CALL_WRITE,
    LOAM_CALL_READ,   LOAM_CALL_CLOSE, LOAM_CALL_ADVISE,   LOAM_CALL_SYNC_DIR,
};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

/* How many of each the workload makes. */
static void count_calls(struct io_case *c, uint64_t calls[KINDS])
{
    c->strict = true;
    for (unsigned i = 0; i < KINDS; i++) {
        c->plan.fail_calls = kinds[i];
        calls[i] = io_run(c).of_kind;
    }
    c->strict = false;
}

static void draw(struct io_case *c, struct random *r, unsigned kind, uint64_t calls)
{
    static const int errors[] = {EIO, ENOSPC, EIO, EDQUOT};
    c->plan.fail_calls = kinds[kind];
    c->plan.fail_at = 1 + random_below(r, calls);
    c->plan.fail_errno = errors[random_below(r, 4)];
    c->plan.fail_repeat = random_below(r, 3) == 0 ? UINT32_MAX : 1 + (uint32_t)random_below(r, 2);
    c->plan.short_writes = (uint32_t)random_below(r, kinds[kind] == LOAM_CALL_WRITE ? 5 : 6);
    c->plan.drop_dirty = random_below(r, 4) != 0;
    c->swept = WAYS;
}

static void crash_after_faults(const char *name, bool mapped, void (*work)(struct oracle_writer *,
                                                                           const loam_vfs *))
{
    uint64_t calls[KINDS], seed = oracle_seed();
    struct random r;
    random_init(&r, seed);
    oom_install();
    oom_warm_up();
    struct io_case c = {
        .name = name,
        .work = work,
        .plan = {.struct_size = sizeof c.plan, .seed = seed, .no_map = !mapped}};
    count_calls(&c, calls);
    unsigned first = (unsigned)(seed % KINDS);
    for (unsigned i = 0; i < RUNS * io_scale(); i++) {
        unsigned kind = (first + i) % KINDS;
        if (calls[kind] != 0) {
            draw(&c, &r, kind, calls[kind]);
            io_run(&c);
        }
    }
    CHECK(dated_totals.states != 0);
    fprintf(stderr, "%s: %llu crash states at %llu changes\n", name,
            (unsigned long long)dated_totals.states, (unsigned long long)dated_totals.moments);
    io_print_totals(name);
}

Test(after_fault, any_crash_loses_nothing_with_a_mapped_log)
{
    crash_after_faults("after_fault, mapped log", true, NULL);
}

Test(after_fault, any_crash_loses_nothing_with_a_buffered_log)
{
    crash_after_faults("after_fault, buffered log", false, NULL);
}
