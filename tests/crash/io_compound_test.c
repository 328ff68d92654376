/* io_compound_test.c - Faults while faults are handled and during recovery, and writes that are short without an error.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Random pairs of faults; every fault of a recovery, and power cuts after it; short writes, which no
 * caller may notice. See io_run_support.h for what is checked. LOAM_SEED
 * repeats a run, LOAM_SCALE multiplies the pairs.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/seed.h"

#define WRITES (LOAM_CALL_WRITE | LOAM_CALL_WRITE_DURABLE)
#define PAIRS (LOAM_ASAN ? 60u : 400u)

/* ---- pairs ------------------------------------------------------------------------------------- */

static loam_fault_plan random_plan(struct random *r, uint64_t seed, uint64_t most)
{
    static const int errors[] = {EIO, ENOSPC, EIO, EDQUOT, EMFILE, ENOMEM};
    uint32_t kind = random_below(r, 3) == 0 ? 0 : 1u << random_below(r, 20);
    kind = random_below(r, 4) == 0 ? WRITES | LOAM_CALL_SYNC : kind;
    return (loam_fault_plan){
        .struct_size = sizeof(loam_fault_plan),
        .seed = seed,
        .fail_at = 1 + random_below(r, kind == 0 ? most : most / 8),
        .fail_errno = errors[random_below(r, 6)],
        .fail_repeat = random_below(r, 3) == 0 ? UINT32_MAX : 1 + (uint32_t)random_below(r, 3),
        .short_writes = (uint32_t)random_below(r, 5),
        .fail_calls = kind,
        .drop_dirty = random_below(r, 4) != 0,
    };
}

Test(io_error, while_another_is_handled_loses_nothing)
{
    uint64_t seed = seed_of_run();
    struct random r;
    random_init(&r, seed);
    oom_install();
    oom_warm_up();
    struct io_case first = {.name = "no fault"};
    first.plan.struct_size = sizeof first.plan;
    io_run(&first);
    for (unsigned i = 0; i < PAIRS * io_scale(); i++) {
        struct io_case c = {.name = "pairs", .two = true};
        uint64_t run_seed = random_next(&r);
        c.plan = random_plan(&r, run_seed, 280);
        c.second = random_plan(&r, run_seed, 40);
        c.plan.no_map = c.second.no_map = i % 2 == 0;
        io_run(&c);
    }
    io_print_totals("io_error, pairs");
}

/* ---- recovery ---------------------------------------------------------------------------------- */

static void recover(struct oracle_writer *w, const loam_vfs *vfs)
{
    loam_options options = crash_options(vfs);
    options.allocator = oom_allocator();
    for (int i = 0; i < 3; i++) {
        if (oracle_open(w, IO_DIR, &options) == LOAM_OK) {
            io_read_live(w);
            oracle_write(w, 2, true);
            return;
        }
    }
}

/* Each call of an open after a kill fails, and the database is killed or cut again. */
static void fail_recovery(bool mapped)
{
    uint64_t seed = seed_of_run(), step = LOAM_ASAN ? 5 : 1;
    const struct oom_past *past = oom_make_past();
    oom_warm_up();
    struct io_case c = {
        .name = "recovery", .image = past->fault, .known = &past->oracle, .work = recover};
    c.plan = (loam_fault_plan){.struct_size = sizeof c.plan, .seed = seed, .no_map = !mapped};
    io_run(&c);
    bool fired = true;
    for (uint64_t n = 1 + seed % step; fired; n += step) {
        fired = false;
        for (unsigned k = 0; k < 4; k++) {
            c.plan = (loam_fault_plan){.struct_size = sizeof c.plan,
                                       .seed = seed,
                                       .fail_at = n,
                                       .fail_errno = (n + k) % 2 != 0 ? EIO : ENOSPC,
                                       .fail_repeat = k < 2 ? 1 : 1 + 4 * k,
                                       .short_writes = (uint32_t)(n + k) % 5,
                                       .no_map = !mapped,
                                       .drop_dirty = 1};
            fired |= io_run(&c).fired;
        }
    }
    io_print_totals(mapped ? "io_error, recovery, mapped log" : "io_error, recovery, buffered log");
}

Test(io_error, during_recovery_loses_nothing_with_a_mapped_log)
{
    fail_recovery(true);
}

Test(io_error, during_recovery_loses_nothing_with_a_buffered_log)
{
    fail_recovery(false);
}

/* ---- what is no error -------------------------------------------------------------------------- */

static void go_unnoticed(const char *name, loam_fault_plan plan)
{
    uint64_t step = LOAM_ASAN ? 5 : 1;
    struct io_case c = {.name = name, .strict = true, .plan = plan};
    c.plan.struct_size = sizeof plan;
    io_run(&c);
    bool fired = true;
    for (uint64_t n = 1 + plan.seed % step; fired; n += step) {
        c.plan.fail_at = n;
        c.plan.no_map = n % 2;
        fired = io_run(&c).fired;
    }
}

Test(io_error, that_is_a_short_write_goes_unnoticed)
{
    uint64_t seed = seed_of_run();
    oom_install();
    oom_warm_up();
    go_unnoticed("short writes",
                 (loam_fault_plan){.seed = seed,
                                   .fail_calls = WRITES,
                                   .fail_how = LOAM_FAULT_SHORT,
                                   .short_writes = 2});
    go_unnoticed("short writes from then on", (loam_fault_plan){.seed = seed,
                                                                .fail_calls = WRITES,
                                                                .fail_how = LOAM_FAULT_SHORT,
                                                                .short_writes = LOAM_LANDS_HALF,
                                                                .fail_repeat = UINT32_MAX});
    io_print_totals("io_error, short writes");
}

Test(io_error, that_is_an_interruption_goes_unnoticed)
{
    uint64_t seed = seed_of_run();
    oom_install();
    oom_warm_up();
    go_unnoticed("interruptions", (loam_fault_plan){.seed = seed,
                                                    .fail_errno = EINTR,
                                                    .fail_repeat = 1 + (uint32_t)(seed % 3),
                                                    .short_writes = LOAM_LANDS_HALF});
    io_print_totals("io_error, interruptions");
}

/* One of the calls on a closed directory, with its n-th vfs call interrupted. False: it makes fewer. */
static bool interrupt_closed(loam_vfs *image, uint64_t n,
                             int (*call)(const char *dir, const loam_options *o))
{
    loam_vfs *disk, *fault;
    const loam_fault_plan plan = {
        .struct_size = sizeof plan, .fail_at = n, .fail_errno = EINTR, .fail_repeat = 2};
    CHECK_EQ(loam_vfs_power_cut(image, 0, &disk), LOAM_OK);
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    const loam_options o = crash_options(fault);
    oracle_context("call %llu is interrupted", (unsigned long long)n);
    crash_must(call(IO_DIR, &o), "a call on a closed directory");
    bool fired = loam_vfs_faults(fault) != 0;
    loam_vfs_free(fault);
    CHECK_EQ(crash_open_files(disk), 0);
    loam_vfs_free(disk);
    return fired;
}

static int check_closed(const char *dir, const loam_options *o)
{
    return loam_check(dir, o, NULL, NULL);
}

/* Takes CURRENT away first, so that there is something to do. */
static int repair_closed(const char *dir, const loam_options *o)
{
    const loam_vfs *vfs = o->vfs;
    char path[64];
    snprintf(path, sizeof path, "%s/CURRENT", dir);
    int rc = vfs->remove(vfs->ctx, path);
    while (rc == -EINTR) {
        rc = vfs->remove(vfs->ctx, path);
    }
    CHECK_EQ(rc, 0);
    return loam_repair(dir, o, NULL, NULL);
}

Test(io_error, that_is_an_interruption_goes_unnoticed_by_calls_on_a_closed_directory)
{
    const struct oom_past *past = oom_make_past();
    int (*const calls[])(const char *, const loam_options *) = {check_closed, repair_closed,
                                                                loam_destroy};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        uint64_t n = 1;
        while (interrupt_closed(past->fault, n, calls[i])) {
            n++;
        }
        CHECK(n > 10);
    }
}
