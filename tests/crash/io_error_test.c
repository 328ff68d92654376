/* io_error_test.c - A call of the vfs that fails at any index loses nothing acknowledged and shows nothing wrong.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each kind of call fails at each index, once and from then on; a failing write has stored nothing,
 * one byte, half or all but one byte of its data, and what was not yet synced at a failed sync is
 * dropped, as Linux does, or stays. See io_run_support.h for what is checked then. LOAM_SEED repeats a
 * run, LOAM_SCALE=2 tries every combination.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"

static bool tried(struct io_case *c, uint64_t n, int error, bool for_ever, uint32_t lands)
{
    c->plan.fail_at = n;
    c->plan.fail_errno = error;
    c->plan.fail_repeat = for_ever ? UINT32_MAX : 1;
    c->plan.short_writes = lands;
    return io_run(c).fired;
}

static bool fail_write(struct io_case *c, uint64_t n)
{
    static const uint32_t lands[] = {LOAM_LANDS_NOTHING, LOAM_LANDS_ONE, LOAM_LANDS_HALF,
                                     LOAM_LANDS_ALL_BUT_ONE};
    bool fired = false;
    for (unsigned i = 0; i < 4; i++) {
        fired |= tried(c, n, (n + i) % 2 != 0 ? EIO : ENOSPC, false, lands[i]);
        if (io_scale() > 1 || n % 4 == i) {
            fired |= tried(c, n, (n + i) % 2 == 0 ? EIO : ENOSPC, true, lands[i]);
        }
        if (io_scale() > 1) {
            fired |= tried(c, n, (n + i) % 2 == 0 ? EIO : ENOSPC, false, lands[i]);
            fired |= tried(c, n, (n + i) % 2 != 0 ? EIO : ENOSPC, true, lands[i]);
        }
    }
    return fired;
}

static bool fail_other(struct io_case *c, uint64_t n)
{
    bool fired = tried(c, n, n % 2 != 0 ? EIO : ENOSPC, false, 0);
    fired |= tried(c, n, n % 2 == 0 ? EIO : ENOSPC, true, 0);
    if (io_scale() > 1) {
        fired |= tried(c, n, n % 2 == 0 ? EIO : ENOSPC, false, 0);
        fired |= tried(c, n, n % 2 != 0 ? EIO : ENOSPC, true, 0);
    }
    return fired;
}

/* All calls of one kind (LOAM_CALL_*). */
static void fail_kind(const char *name, uint32_t kind, bool mapped, bool drops, uint64_t seed)
{
    uint64_t step = CRASH_SANITIZED ? 5 : 1;
    struct io_case c = {.name = name,
                        .plan = {.struct_size = sizeof c.plan,
                                 .seed = seed,
                                 .fail_calls = kind,
                                 .no_map = !mapped,
                                 .drop_dirty = drops}};
    bool fired = true;
    for (uint64_t n = 1 + seed % step; fired; n += step) {
        fired = kind == LOAM_CALL_WRITE ? fail_write(&c, n) : fail_other(&c, n);
    }
}

static void fail_everywhere(const char *name, bool mapped)
{
    uint64_t seed = oracle_seed();
    oom_install();
    oom_warm_up();
    struct io_case healthy = {.name = "no fault", .strict = true};
    healthy.plan =
        (loam_fault_plan){.struct_size = sizeof healthy.plan, .seed = seed, .no_map = !mapped};
    struct io_result r = io_run(&healthy);
    for (uint32_t kind = 1; kind <= LOAM_CALL_ALL; kind <<= 1) {
        fail_kind(name, kind, mapped, true, seed);
        if (kind == LOAM_CALL_SYNC) {
            fail_kind(name, kind, mapped, false, seed);
        }
    }
    fprintf(stderr, "%s: %llu calls without a fault\n", name, (unsigned long long)r.calls);
    io_print_totals(name);
}

Test(io_error, at_any_call_loses_nothing_with_a_mapped_log)
{
    fail_everywhere("io_error, mapped log", true);
}

Test(io_error, at_any_call_loses_nothing_with_a_buffered_log)
{
    fail_everywhere("io_error, buffered log", false);
}
