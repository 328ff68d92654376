/* oom_run_support.c - Counts a scenario's allocations and refuses one after another.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/oom_run_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/epoch.h"
#include "arena/slab.h"
#include "arena/sync.h"
#include "engine/object.h"
#include "engine/registry.h"
#include "tests/crash/tap_support.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"
#include "tests/support/stress.h"

#define THREADS 24u /* more than are ever alive together */
#define OBJECTS 100 /* of each kind, a thread: more than any scenario holds */
#if LOAM_ASAN
#define STEP 4u /* much slower: others with each seed */
#else
#define STEP 1u
#endif

static struct {
    uint64_t runs, fired, calls, errors, opens_refused, disks;
} totals;

static struct oracle oracle;

/* ---- one run ----------------------------------------------------------------------------------- */

static loam_options options_of(const struct oom_scene *s)
{
    loam_options o = crash_options(s->fault);
    o.durability = s->durability;
    o.disk_budget = (uint64_t)64 << 20; /* counts files; never reached */
    o.allocator = oom_allocator();
    return o;
}

/* An answer, or memory was short: nothing else may go wrong. */
bool oom_short(int rc, const char *what)
{
    if (rc >= 0) {
        return false;
    }
    const loam_error *e = loam_last_error();
    if (e->code != rc) {
        oracle_fail("%s gives %d, but the last error is %d: %s", what, rc, e->code, e->message);
    }
    if (rc != LOAM_E_NOMEM && rc != LOAM_E_READONLY && rc != LOAM_E_BUSY && rc != LOAM_E_IO &&
        rc != LOAM_E_CLOSED && rc != LOAM_E_INVAL) {
        oracle_fail("%s gives %d: %s", what, rc, e->message);
    }
    if (rc == LOAM_E_INVAL && strstr(e->message, "NULL") == NULL) { /* of a handle refused before */
        oracle_fail("%s gives %d: %s", what, rc, e->message);
    }
    totals.errors++;
    return true;
}

void oom_judge_live(struct oracle_writer *w)
{
    struct oracle_promise p = oracle_promise_low(w->o, true);
    oracle_promise_high(w->o, &p);
    struct oracle_seen seen;
    if (!oom_short(oracle_read(w->o, &p, w->db, &seen), "reading")) {
        oracle_judge(w->o, &p, &seen);
    }
}

static void check_disk(const struct oracle *o, loam_vfs *fault, uint64_t variant)
{
    loam_vfs *after;
    struct oracle_promise p = oracle_promise_low(o, variant == 0);
    CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
    oracle_promise_high(o, &p);
    loam_options options = crash_options(after);
    options.flags = p.opened ? LOAM_OPEN_MUST_EXIST : 0;
    loam_db *db;
    struct oracle_seen seen;
    tap_dump_on_failure(after);
    crash_must(loam_open(OOM_DIR, &options, &db), "open with memory again");
    crash_must(oracle_read(o, &p, db, &seen), "reading with memory again");
    oracle_judge(o, &p, &seen);
    crash_must(loam_close(db), "close");
    tap_dump_on_failure(NULL);
    loam_vfs_free(after);
    totals.disks++;
}

/* Shortage of memory heals by itself. */
static void wait_for_service(loam_db *db)
{
    for (int i = 0; loam_health(db, NULL) != LOAM_HEALTHY; i++) {
        loam_error why;
        if (i == 2000 || loam_health(db, &why) == LOAM_HEALTHY) {
            oracle_fail("writes are still refused: %s", why.message);
        }
        thread_sleep_micros(5000);
    }
}

/* Memory is there again: the database at hand must serve. */
static void recover_service(struct oom_scene *s)
{
    struct oracle_writer *w = &s->w;
    loam_options options = options_of(s);
    w->strict = true;
    if (w->db == NULL) {
        totals.opens_refused++;
        oracle_open(w, OOM_DIR, &options);
    } else if (s->plan.at % 4 != 0) {
        crash_must(loam_resume(w->db), "resume");
    } else {
        wait_for_service(w->db);
    }
    /* A job that was under way without memory may say so only now. */
    int idle = loam_wait_idle(w->db, UINT64_MAX); /* its error heals, too */
    (void)idle;
    wait_for_service(w->db);
    oracle_write(w, 3, false);
    oom_judge_live(w);
    oracle_flush(w);
    oracle_write(w, 2, true);
    oracle_sync(w);
    oom_judge_live(w);
    w->strict = false;
}

struct oom_live oom_balance(void)
{
    for (int i = 0; i < 3; i++) { /* what was given back waits for an epoch, or the next batch */
        epoch_synchronize();
    }
    struct oom_live live = oom_live();
    for (int k = 0; k < OBJECT_KIND_COUNT; k++) { /* free objects stay the process's */
        struct slab_stats s;
        object_stats(k, &s);
        live.mapped_bytes -= (int64_t)s.bytes;
        live.blocks += (int64_t)s.live;
    }
    return live;
}

void oom_check_balance(const char *when, struct oom_live before)
{
    struct oom_live now = oom_balance();
    if (now.hook_bytes != before.hook_bytes || now.global_bytes != before.global_bytes ||
        now.mapped_bytes != before.mapped_bytes || now.blocks != before.blocks) {
        oom_print_blocks(before.last_number);
        oracle_fail("%s: %lld bytes of the database, %lld global bytes, %lld mapped, %lld blocks "
                    "more than before",
                    when, (long long)(now.hook_bytes - before.hook_bytes),
                    (long long)(now.global_bytes - before.global_bytes),
                    (long long)(now.mapped_bytes - before.mapped_bytes),
                    (long long)(now.blocks - before.blocks));
    }
}

bool oom_open(struct oom_scene *s)
{
    loam_options options = options_of(s);
    return oracle_open(&s->w, OOM_DIR, &options) == LOAM_OK;
}

/* Returns whether something was refused. */
static bool run(const struct oom_scenario *c, struct oom_plan plan, uint64_t seed)
{
    struct oom_scene s = {.w = {.o = &oracle}, .plan = plan, .durability = c->durability};
    oracle_context("%s, seed %llu, allocation %llu %s", c->name, (unsigned long long)seed,
                   (unsigned long long)plan.at, plan.persist ? "and all after it" : "alone");
    crash_alarm(OOM_RUN_SECONDS);
    if (c->past != NULL) {
        memcpy(&oracle, &c->past->oracle, sizeof oracle);
    } else {
        oracle_init(&oracle);
    }
    random_init(&s.w.random, seed);
    struct oom_live before = oom_balance();
    if (c->past == NULL) {
        s.disk = memory_disk();
    } else {
        CHECK_EQ(loam_vfs_power_cut(c->past->fault, 0, &s.disk), LOAM_OK);
    }
    const loam_fault_plan healthy = {.struct_size = sizeof healthy, .seed = seed};
    CHECK_EQ(loam_vfs_fault(s.disk, &healthy, &s.fault), LOAM_OK);
    s.w.strict = plan.at == 0;
    if (c->open) {
        CHECK(oom_open(&s));
    }
    oom_arm(OOM_ALL, plan.at, plan.persist);
    c->act(&s);
    uint64_t fired = oom_disarm(), calls = oom_calls();
    s.w.strict = false;
    check_disk(&oracle, s.fault, 0);
    check_disk(&oracle, s.fault, 1);
    recover_service(&s);
    check_disk(&oracle, s.fault, 0);
    crash_must(oracle_close(&s.w), "close with memory again");
    check_disk(&oracle, s.fault, 1);
    CHECK_EQ(crash_open_files(s.disk), 0);
    loam_vfs_free(s.fault);
    loam_vfs_free(s.disk);
    if (plan.at != 0) { /* the first run of all warms up what stays for good */
        oom_check_balance("after close", before);
    }
    totals.runs++;
    totals.fired += fired != 0;
    totals.calls = calls > totals.calls ? calls : totals.calls;
    crash_alarm(0);
    return fired != 0;
}

/* What a thread once made stays the process's for good, for as many as were ever alive together. */
static void be_a_thread(struct crew_member *m)
{
    struct registry *r = registry_get();
    struct slotmap *maps[] = {&r->dbs,   &r->spaces,  &r->snaps,
                              &r->iters, &r->batches, &r->memtables};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        CHECK_EQ(slotmap_abort(maps[i], slotmap_reserve(maps[i])), LOAM_OK);
    }
    void *objects[OBJECT_KIND_COUNT][OBJECTS];
    for (int k = 0; k < OBJECT_KIND_COUNT; k++) {
        for (int i = 0; i < OBJECTS; i++) {
            objects[k][i] = object_take(alloc_global(), k);
        }
    }
    pthread_barrier_wait(m->shared);
    for (int k = 0; k < OBJECT_KIND_COUNT; k++) {
        for (int i = 0; i < OBJECTS; i++) {
            object_give(alloc_global(), k, objects[k][i]);
        }
    }
    epoch_enter();
    epoch_exit();
    pthread_barrier_wait(m->shared);
}

void oom_warm_up(void)
{
    pthread_barrier_t together;
    pthread_barrier_init(&together, NULL, THREADS);
    crew_run(THREADS, be_a_thread, &together, 1);
    pthread_barrier_destroy(&together);
}

void oom_sweep(const struct oom_scenario *c)
{
    uint64_t seed = seed_of_run();
    memset(&totals, 0, sizeof totals);
    oracle_on_fail = oom_print_place;
    const char *from = getenv("LOAM_AT"), *scale = getenv("LOAM_SCALE");
    uint64_t step = scale != NULL ? 1 : STEP;
    oom_warm_up();
    run(c, (struct oom_plan){0}, seed);
    /* Until nothing is left to refuse: how many there are differs a little from run to run. */
    bool fired = true;
    for (uint64_t n = from != NULL ? strtoull(from, NULL, 0) : 1 + seed % step; fired; n += step) {
        fired = run(c, (struct oom_plan){n, false}, seed);
        fired = run(c, (struct oom_plan){n, true}, seed) || fired;
    }
    fprintf(stderr,
            "oom, %s: up to %llu allocations, %llu runs (%llu refusals fired), %llu errors, %llu "
            "times not "
            "opened, %llu disks checked\n",
            c->name, (unsigned long long)totals.calls, (unsigned long long)totals.runs,
            (unsigned long long)totals.fired, (unsigned long long)totals.errors,
            (unsigned long long)totals.opens_refused, (unsigned long long)totals.disks);
}

/* ---- a database with a past --------------------------------------------------------------------- */

const struct oom_past *oom_make_past(void)
{
    static struct oom_past past;
    oom_install();
    oracle_init(&past.oracle);
    past.disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(past.disk, NULL, &past.fault), LOAM_OK);
    struct oracle_writer w = {.o = &past.oracle, .strict = true};
    random_init(&w.random, 7);
    loam_options options = crash_options(past.fault);
    oracle_open(&w, OOM_DIR, &options);
    oracle_write(&w, 20, true);
    oracle_ks_create(&w, "one");
    oracle_ks_create(&w, "two");
    oracle_write(&w, 20, true);
    oracle_compact(&w);
    oracle_write(&w, 10, true);
    oracle_flush(&w);
    oracle_write(&w, 10, false);
    oracle_sync(&w);
    loam_vfs *killed, *fault;
    CHECK_EQ(loam_vfs_power_cut(past.fault, 0, &killed), LOAM_OK);
    oracle_close(&w);
    CHECK_EQ(loam_vfs_fault(killed, NULL, &fault), LOAM_OK);
    loam_vfs_free(past.fault);
    loam_vfs_free(past.disk);
    past.disk = killed;
    past.fault = fault;
    return &past;
}
