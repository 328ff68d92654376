/* io_error_test.c - A call of the vfs that fails at any index loses nothing acknowledged and shows nothing wrong.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each kind of call fails at each index, once and from then on; a failing write, durable or not, has
 * stored nothing, one byte, half or all but one byte of its data - a durable one all, too -, and what was
 * not yet synced at a failed sync, durable write or WRITEBACK is dropped, as Linux does, or stays. See
 * io_run_support.h for what is checked then. LOAM_SEED repeats a run, LOAM_SCALE=2 tries every combination.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/seed.h"

#define DURABLE                                                                                    \
    (LOAM_CALL_SYNC | LOAM_CALL_SYNC_DIR | LOAM_CALL_WRITE_DURABLE | LOAM_CALL_ADVISE)

static bool tried(struct io_case *c, uint64_t n, int error, bool for_ever, uint32_t lands)
{
    c->plan.fail_at = n;
    c->plan.fail_errno = error;
    c->plan.fail_repeat = for_ever ? UINT32_MAX : 1;
    c->plan.short_writes = lands;
    return io_run(c).fired;
}

/* kind: WRITE or WRITE_DURABLE. */
static bool fail_write(struct io_case *c, uint32_t kind, uint64_t n)
{
    static const uint32_t lands[] = {LOAM_LANDS_NOTHING, LOAM_LANDS_ONE, LOAM_LANDS_HALF,
                                     LOAM_LANDS_ALL_BUT_ONE, LOAM_LANDS_ALL};
    bool fired = false;
    for (unsigned i = 0; i < (kind == LOAM_CALL_WRITE ? 4 : 5); i++) {
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
    if ((c->plan.fail_calls & DURABLE) != 0) { /* of which it is final, too */
        fired |= tried(c, n, EAGAIN, false, 0);
    }
    if (io_scale() > 1) {
        fired |= tried(c, n, n % 2 == 0 ? EIO : ENOSPC, false, 0);
        fired |= tried(c, n, n % 2 != 0 ? EIO : ENOSPC, true, 0);
    }
    return fired;
}

/* All calls of one kind (LOAM_CALL_*) that the case's workload makes. */
static void fail_kind(struct io_case *c, uint32_t kind)
{
    uint64_t step = LOAM_ASAN ? 5 : 1;
    bool writes = (kind & (LOAM_CALL_WRITE | LOAM_CALL_WRITE_DURABLE)) != 0;
    c->plan.fail_calls = kind;
    for (unsigned drops = (kind & DURABLE) != 0 ? 0 : 1; drops < 2; drops++) {
        bool fired = true;
        c->plan.drop_dirty = drops;
        for (uint64_t n = 1 + c->plan.seed % step; fired; n += step) {
            fired = writes ? fail_write(c, kind, n) : fail_other(c, n);
        }
    }
}

/* How often the workload makes such a call when nothing fails. */
static uint64_t calls_of(struct io_case *c, uint32_t kind)
{
    c->plan.fail_at = 0;
    c->plan.fail_calls = kind;
    c->strict = true;
    struct io_result r = io_run(c);
    c->strict = false;
    return r.of_kind;
}

/* Without a log a map is of no use, and no durable write is made. */
static void fail_everywhere(const char *name, bool mapped, uint32_t durability)
{
    uint64_t seed = seed_of_run();
    oom_install();
    oom_warm_up();
    struct io_case c = {
        .name = name, .durability = durability, .plan = {.struct_size = sizeof c.plan, .seed = seed, .no_map = !mapped}};
    uint64_t calls = calls_of(&c, LOAM_CALL_ALL), durable = calls_of(&c, LOAM_CALL_WRITE_DURABLE);
    CHECK(durable != 0 || durability == LOAM_DUR_MEMORY); /* a log segment is used again */
    for (uint32_t kind = 1; kind <= LOAM_CALL_ALL; kind <<= 1) {
        fail_kind(&c, kind);
    }
    fprintf(stderr, "%s: %llu calls without a fault, %llu of them durable writes\n", name,
            (unsigned long long)calls, (unsigned long long)durable);
    io_print_totals(name);
}

Test(io_error, at_any_call_loses_nothing_with_a_mapped_log)
{
    fail_everywhere("io_error, mapped log", true, LOAM_DUR_DEFAULT);
}

Test(io_error, at_any_call_loses_nothing_with_a_buffered_log)
{
    fail_everywhere("io_error, buffered log", false, LOAM_DUR_DEFAULT);
}

Test(io_error, at_any_call_loses_nothing_that_was_flushed_without_a_log)
{
    fail_everywhere("io_error, no log", false, LOAM_DUR_MEMORY);
}

/* ---- tables so long that the disk is asked to begin with them ---------------------------------- */

#define LONG_TABLE 12u /* values of a table over 1 MiB */

static void write_long_tables(struct oracle_writer *w, const loam_vfs *vfs)
{
    loam_options options = crash_options(vfs);
    options.allocator = oom_allocator();
    options.memory_budget = 24 << 20;
    for (unsigned tries = 0; w->db == NULL; tries++) {
        if (oracle_open(w, IO_DIR, &options) != LOAM_OK && tries == 2) {
            return;
        }
    }
    for (unsigned table = 0; table < 2; table++) {
        for (unsigned i = 0; i < LONG_TABLE; i++) {
            oracle_put_huge(w, 6 * table + i);
        }
        oracle_flush(w);
    }
    oracle_compact(w);
    oracle_write(w, 3, false);
    oracle_flush(w); /* once more what could not be flushed */
    io_read_live(w);
}

Test(io_error, of_what_the_disk_began_to_write_early_loses_nothing)
{
    oom_install();
    oom_warm_up();
    struct io_case c = {.name = "io_error, early writing",
                        .plan = {.struct_size = sizeof c.plan, .seed = seed_of_run()},
                        .work = write_long_tables};
    uint64_t calls = calls_of(&c, LOAM_CALL_ADVISE);
    CHECK(calls >= 3); /* two flushes and a merge */
    fail_kind(&c, LOAM_CALL_ADVISE);
    fprintf(stderr, "%s: %llu pieces of advice\n", c.name, (unsigned long long)calls);
    io_print_totals(c.name);
}
