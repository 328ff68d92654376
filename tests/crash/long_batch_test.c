/* long_batch_test.c - A batch longer than a memtable is there whole or not at all, at whatever change of the disk it is cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Batches of more than a memtable and a log segment hold, some of them durable, before and behind small writes,
 * a flush and a close; and the recovery of a database that was killed with such a log. Every change of the disk
 * is crashed in many ways. LOAM_SEED repeats a run, LOAM_SCALE multiplies the ways.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "tests/crash/crash_support.h"
#include "tests/crash/dated_support.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/state_support.h"
#include "tests/support/check.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"

#define WAYS (LOAM_ASAN ? 2u : 10u)

/* A recorded disk and who writes to it. */
struct scene {
    const char *name;
    uint32_t durability;
    loam_fault_plan plan;
    struct oracle o;
    struct oracle_writer w;
    loam_vfs *disk, *fault;
    struct dated d;
};

static void scene_begin(struct scene *s, loam_vfs *disk)
{
    s->disk = disk;
    CHECK_EQ(loam_vfs_fault(disk, &s->plan, &s->fault), LOAM_OK);
    s->w = (struct oracle_writer){.o = &s->o, .strict = true};
    random_init(&s->w.random, s->plan.seed);
    oracle_context("%s, seed %llu, the workload", s->name, (unsigned long long)s->plan.seed);
    dated_begin(&s->d, disk, &s->w);
}

/* Crashes all of it, with either model of names. */
static void scene_end(struct scene *s, const char *what)
{
    char text[160];
    snprintf(text, sizeof text, "%s, seed %llu, %s", s->name, (unsigned long long)s->plan.seed,
             what);
    for (unsigned i = 0; i < 2; i++) {
        dated_crash(&s->d, 0, loam_recording_mark(s->d.rec), WAYS * io_scale() / 2,
                    s->plan.seed + i, text);
    }
    dated_end(&s->d);
    loam_vfs_free(s->fault);
    loam_vfs_free(s->disk);
}

static void open_scene(struct scene *s)
{
    loam_options options = crash_options(s->fault);
    options.durability = s->durability;
    oracle_open(&s->w, STATE_DIR, &options);
}

/* *killed: in the midst of it. */
static void write_long(struct scene *s, struct scene *killed, loam_vfs **left)
{
    struct oracle_writer *w = &s->w;
    open_scene(s);
    oracle_write(w, 3, false);
    oracle_ks_create(w, "one");
    oracle_batch_long(w, false);
    oracle_batch_long(w, true);
    oracle_flush(w);
    oracle_write(w, 4, false);
    oracle_batch_long(w, true);
    oracle_batch_long(w, false);
    oracle_write(w, 2, false);
    *killed = *s;
    CHECK_EQ(loam_vfs_power_cut(s->fault, 0, left), LOAM_OK);
    oracle_flush(w);
    oracle_batch_long(w, false);
    oracle_close(w);
}

static void recover(struct scene *s)
{
    open_scene(s);
    oracle_write(&s->w, 1, false);
    oracle_batch_long(&s->w, true);
    oracle_close(&s->w);
}

static void cut_everywhere(const char *name, bool mapped, uint32_t durability)
{
    static struct scene first, killed;
    loam_vfs *disk, *left;
    oracle_init(&first.o);
    first.name = name;
    first.durability = durability;
    first.plan = (loam_fault_plan){
        .struct_size = sizeof first.plan, .seed = seed_of_run(), .no_map = !mapped};
    disk = memory_disk();
    scene_begin(&first, disk);
    write_long(&first, &killed, &left);
    scene_end(&first, "the first open");
    scene_begin(&killed, left);
    recover(&killed);
    scene_end(&killed, "a recovery");
    fprintf(stderr, "%s: %llu crash states at %llu changes\n", name,
            (unsigned long long)dated_totals.states, (unsigned long long)dated_totals.moments);
}

Test(long_batch, is_whole_or_absent_after_any_crash_with_a_mapped_log)
{
    cut_everywhere("long_batch, mapped log", true, LOAM_DUR_DEFAULT);
}

Test(long_batch, is_whole_or_absent_after_any_crash_with_a_buffered_log)
{
    cut_everywhere("long_batch, buffered log", false, LOAM_DUR_DEFAULT);
}

Test(long_batch, is_whole_or_absent_after_any_crash_without_a_log)
{
    cut_everywhere("long_batch, no log", true, LOAM_DUR_MEMORY);
}
