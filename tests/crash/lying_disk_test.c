/* lying_disk_test.c - What is left of the promises on a disk that says a sync or a write worked when it did not.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each sync of a file or directory, and each write, lies at each index, once and from then on; then the
 * process is killed, or power goes. No engine can keep what such a disk has never stored. What must hold:
 *  - without loss of power a lie about syncs costs nothing;
 *  - what is read is a prefix of the commits, however short, keyspaces likewise; or an error that says
 *    corruption (or that this is no database), from the open or from a read. Never a value that was not
 *    written, never a hole that goes unnoticed, no crash, no call that does not return.
 *  - a run without a lie loses nothing in the same variants, so that the judge is not blind.
 * LOAM_SEED repeats a run, LOAM_SCALE=2 tries more power cuts.
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "arena/alloc.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"

#define RUN_SECONDS 60 /* longer: it hangs */

#define SYNCS       (LOAM_CALL_SYNC | LOAM_CALL_WRITE_DURABLE)

enum answer { WHOLE, SHORT, REFUSED, ANSWERS };

struct lie {
    const char *name;
    uint32_t kind; /* LOAM_CALL_*; 0: the disk is honest */
    bool mapped;
    uint64_t seed;
    uint64_t counts[ANSWERS];
};

/* FORMAT: of files that hold nothing but zeros, that they are not a database's. */
static bool says_corrupt(int rc)
{
    return rc == LOAM_E_CORRUPT || rc == LOAM_E_NOENT || rc == LOAM_E_FORMAT;
}

/* Opens what is left, which it frees, and reads it whole. */
static enum answer judge(const struct lie *l, const struct oracle *o, loam_vfs *disk,
                         const struct oracle_promise *promised, uint64_t variant)
{
    bool stores = (l->kind & LOAM_CALL_WRITE) == 0;
    bool keeps = l->kind == 0 || (variant == LOAM_CUT_ALL && stores);
    struct oracle_promise p = *promised;
    if (!keeps) {
        p.low = p.control_low = 0;
    }
    loam_options options = crash_options(disk);
    options.flags = LOAM_OPEN_MUST_EXIST;
    loam_db *db;
    struct oracle_seen seen;
    enum answer answer = REFUSED;
    int rc = loam_open(IO_DIR, &options, &db);
    if (rc == LOAM_OK) {
        rc = oracle_read(o, &p, db, &seen);
        if (rc == LOAM_OK) {
            answer = oracle_judge(o, &p, &seen) < promised->low ? SHORT : WHOLE;
        }
        (void)loam_close(db); /* of damaged files it may not go */
    }
    if (rc != LOAM_OK && (keeps || !says_corrupt(rc))) {
        oracle_fail("%d: %s", rc, loam_last_error()->message);
    }
    loam_vfs_free(disk);
    return answer;
}

static bool run(struct lie *l, uint64_t n, bool for_ever)
{
    static struct oracle o;
    bool stores = (l->kind & LOAM_CALL_WRITE) == 0;
    uint32_t lands = stores ? LOAM_LANDS_ALL : (uint32_t)(n % (LOAM_LANDS_ALL_BUT_ONE + 1));
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .seed = l->seed,
                                  .no_map = !l->mapped,
                                  .fail_calls = l->kind,
                                  .fail_at = l->kind != 0 ? n : 0,
                                  .fail_how = LOAM_FAULT_LIE,
                                  .short_writes = lands,
                                  .fail_repeat = for_ever ? UINT32_MAX : 1};
    loam_vfs *disk, *vfs;
    crash_alarm(RUN_SECONDS);
    oracle_init(&o);
    disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(disk, &plan, &vfs), LOAM_OK);
    struct oracle_writer w = {.o = &o};
    random_init(&w.random, l->seed);
    oracle_context("%s, seed %llu, lie %llu, %s", l->name, (unsigned long long)l->seed,
                   (unsigned long long)n, for_ever ? "for ever" : "once");
    io_workload(&w, vfs);
    bool fired = loam_vfs_faults(vfs) != 0;
    const uint64_t cuts = 6 * io_scale();
    for (uint64_t i = 0; i < cuts; i++) {
        uint64_t variant = i <= LOAM_CUT_SIZES ? i : LOAM_CUT_SIZES + n * cuts + i;
        struct oracle_promise p = oracle_promise_low(&o, variant == LOAM_CUT_ALL);
        oracle_promise_high(&o, &p);
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(vfs, variant, &after), LOAM_OK);
        oracle_context("%s, seed %llu, lie %llu, %s, disk of variant %llu", l->name,
                       (unsigned long long)l->seed, (unsigned long long)n,
                       for_ever ? "for ever" : "once", (unsigned long long)variant);
        l->counts[judge(l, &o, after, &p, variant)]++;
    }
    (void)oracle_close(&w);
    loam_vfs_free(vfs);
    loam_vfs_free(disk);
    crash_alarm(0);
    return fired;
}

static void lie_everywhere(const char *name, uint32_t kind, bool mapped)
{
    struct lie l = {.name = name, .kind = kind, .mapped = mapped, .seed = seed_of_run()};
    struct lie honest = {.name = "no lie", .mapped = mapped, .seed = l.seed};
    uint64_t step = LOAM_ASAN ? 5 : 1;
    (void)run(&honest, 0, false);
    CHECK_EQ(honest.counts[SHORT] + honest.counts[REFUSED], 0);
    bool fired = true;
    for (uint64_t n = 1 + l.seed % step; fired; n += step) {
        fired = run(&l, n, false);
        fired |= run(&l, n, true);
    }
    fprintf(stderr, "%s: %llu disks whole, %llu shorter than promised, %llu refused as corrupt\n", name,
            (unsigned long long)l.counts[WHOLE], (unsigned long long)l.counts[SHORT],
            (unsigned long long)l.counts[REFUSED]);
    CHECK(l.counts[SHORT] + l.counts[REFUSED] != 0); /* the lies do reach what is read */
}

Test(lying_disk, that_syncs_no_file_leaves_a_prefix_or_an_error_with_a_mapped_log)
{
    lie_everywhere("file syncs lie, mapped log", SYNCS, true);
}

Test(lying_disk, that_syncs_no_file_leaves_a_prefix_or_an_error_with_a_buffered_log)
{
    lie_everywhere("file syncs lie, buffered log", SYNCS, false);
}

Test(lying_disk, that_syncs_no_directory_leaves_a_prefix_or_an_error)
{
    lie_everywhere("directory syncs lie", LOAM_CALL_SYNC_DIR, true);
}

Test(lying_disk, that_stores_a_part_of_a_write_leaves_a_prefix_or_an_error)
{
    lie_everywhere("writes lie, buffered log", LOAM_CALL_WRITE | LOAM_CALL_WRITE_DURABLE, false);
}
