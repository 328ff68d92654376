/* closed_calls_test.c - Check, verify, repair and destroy when calls of the vfs fail, memory is short, or power goes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each call of the vfs fails with EIO, once and from then on; each allocation is refused, alone and with all
 * after it. Oracles: what cannot be read is never called sound, so a damaged database never is; a sound
 * one gives LOAM_OK or the error that was injected, and stays as it was; a repair that fails has changed
 * nothing, or says that it does not know; destroying leaves a database that is whole or none, and removes
 * the rest when it is repeated. Nothing stays allocated or open. LOAM_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arena/alloc.h"
#include "engine/filename.h"
#include "tests/crash/damage_support.h"
#include "tests/crash/io_run_support.h"
#include "tests/crash/oom_run_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/seed.h"

/* What goes wrong during one call. */
struct trouble {
    uint64_t at;  /* the n-th call of the vfs, or allocation; 0: none */
    bool memory;  /* an allocation */
    bool for_ever;
};

static struct {
    uint64_t runs, fired, sound, refused, cut;
} totals;

static const struct oom_past *past;
static uint64_t seed;

struct scene {
    loam_vfs *disk, *fault;
    loam_options options;
    bool fired;
};

static void make_scene(struct scene *s, loam_vfs *image);
static void free_scene(struct scene *s);
static void expect_whole_or_none(loam_vfs *disk, bool gone);

static void begin(void)
{
    seed = seed_of_run();
    past = oom_make_past();
    oom_warm_up();
    struct scene s; /* what the thread makes once */
    make_scene(&s, past->fault);
    expect_whole_or_none(s.disk, false);
    free_scene(&s);
    memset(&totals, 0, sizeof totals);
}

static void print_totals(const char *name)
{
    fprintf(stderr,
            "closed calls, %s: %llu runs, %llu of them with trouble; %llu calls went, %llu were refused, %llu "
            "disks after a cut\n",
            name, (unsigned long long)totals.runs, (unsigned long long)totals.fired,
            (unsigned long long)totals.sound, (unsigned long long)totals.refused,
            (unsigned long long)totals.cut);
    crash_alarm(0);
}

/* ---- a disk and what happens to it ------------------------------------------------------------- */

static void make_scene(struct scene *s, loam_vfs *image)
{
    const loam_fault_plan healthy = {.struct_size = sizeof healthy, .seed = seed};
    CHECK_EQ(loam_vfs_power_cut(image, 0, &s->disk), LOAM_OK);
    CHECK_EQ(loam_vfs_fault(s->disk, &healthy, &s->fault), LOAM_OK);
    s->options = crash_options(s->fault);
    s->options.allocator = oom_allocator();
    s->fired = false;
}

static void free_scene(struct scene *s)
{
    CHECK_EQ(crash_open_files(s->disk), 0);
    loam_vfs_free(s->fault);
    loam_vfs_free(s->disk);
}

static void start_trouble(struct scene *s, const struct trouble *t)
{
    if (t->memory) {
        oom_arm(OOM_ALL, t->at, t->for_ever);
        return;
    }
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .seed = seed,
                                  .fail_at = t->at != 0 ? loam_vfs_calls(s->fault) + t->at : 0,
                                  .fail_errno = EIO,
                                  .fail_repeat = t->for_ever ? UINT32_MAX : 1};
    CHECK_EQ(loam_vfs_set_plan(s->fault, &plan), LOAM_OK);
}

static void end_trouble(struct scene *s, const struct trouble *t)
{
    const loam_fault_plan healthy = {.struct_size = sizeof healthy, .seed = seed};
    s->fired = t->memory ? oom_disarm() != 0 : loam_vfs_faults(s->fault) != 0;
    CHECK_EQ(loam_vfs_set_plan(s->fault, &healthy), LOAM_OK);
    totals.runs++;
    totals.fired += s->fired;
}

/* The error that was injected, in the words of the library. The disk in memory may be short of it, too. */
static void expect_injected(const struct trouble *t, int rc, const char *what)
{
    const loam_error *e = loam_last_error();
    bool known = rc == LOAM_E_IO || (t->memory && rc == LOAM_E_NOMEM);
    if (rc != e->code || !known || e->message[0] == '\0') {
        oracle_fail("%s gives %d, the last error is %d: %s", what, rc, e->code, e->message);
    }
    totals.refused++;
}

/* Tries every n with `once` until nothing goes wrong any more. */
static void sweep(void (*once)(const struct trouble *t, bool *fired), const char *name)
{
    uint64_t step = LOAM_ASAN ? 4 : 1;
    for (unsigned kind = 0; kind < 4; kind++) {
        bool fired = true;
        for (uint64_t n = kind == 0 ? 0 : 1 + seed % step; fired; n += n == 0 ? 1 : step) {
            const struct trouble t = {n, kind / 2 != 0, kind % 2 != 0};
            oracle_context("%s, seed %llu, %s %llu %s", name, (unsigned long long)seed,
                           t.memory ? "allocation" : "call", (unsigned long long)n,
                           t.for_ever ? "and all after it" : "alone");
            crash_alarm(60);
            struct oom_live before = oom_balance();
            once(&t, &fired);
            if (n != 0) { /* what is made once stays */
                oom_check_balance(name, before);
            }
            fired = fired || n == 0;
        }
    }
    print_totals(name);
}

/* ---- check and verify -------------------------------------------------------------------------- */

static loam_vfs *damaged; /* a fault vfs: past with a byte of a table changed */

struct place {
    const loam_vfs *vfs;
    enum file_kind kind;
    char path[64];
    uint64_t number, below;
};

static int find_newest(void *ctx, loam_slice name)
{
    struct place *p = ctx;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == p->kind && number >= p->number &&
        number < p->below) {
        p->number = number;
        snprintf(p->path, sizeof p->path, DIR "/%.*s", (int)name.size, (const char *)name.data);
    }
    return 0;
}

/* Changes a byte of the newest file of a kind whose number is below that one; returns its number. */
static uint64_t damage_one(const loam_vfs *vfs, enum file_kind kind, uint64_t below, uint64_t at)
{
    struct place p = {.vfs = vfs, .kind = kind, .below = below};
    CHECK(vfs->list(vfs->ctx, DIR, find_newest, &p) >= 0);
    CHECK(p.path[0] != '\0');
    disk_file_flip(vfs, p.path, at, 0x40);
    return p.number;
}

/* The newest log may be one that is not used yet: then the damage goes to the one before. */
static void make_damaged(enum file_kind kind, uint64_t at)
{
    static loam_vfs *disk;
    loam_options o;
    uint64_t below = UINT64_MAX;
    do {
        CHECK_EQ(loam_vfs_power_cut(past->fault, 0, &disk), LOAM_OK);
        below = damage_one(disk, kind, below, at);
        o = crash_options(disk);
    } while (loam_check(DIR, &o, NULL, NULL) == LOAM_OK);
    CHECK_EQ(loam_vfs_fault(disk, NULL, &damaged), LOAM_OK);
}

static int count(void *ctx, const loam_damage *d)
{
    (void)d;
    ++*(unsigned *)ctx;
    return 0;
}

static void check_sound(const struct trouble *t, bool *fired)
{
    struct scene s;
    unsigned found = 0;
    make_scene(&s, past->fault);
    uint64_t hash = loam_vfs_hash(s.disk);
    start_trouble(&s, t);
    int rc = loam_check(DIR, &s.options, count, &found);
    end_trouble(&s, t);
    if (rc != LOAM_OK) {
        CHECK(s.fired);
        expect_injected(t, rc, "check");
    } else {
        totals.sound++;
        if (t->at == 1 && t->for_ever && !t->memory) {
            oracle_fail("a database of which nothing could be read is called sound");
        }
    }
    CHECK(found == 0 || (rc != LOAM_OK && !t->memory)); /* a shortage is no damage */
    CHECK_EQ(loam_vfs_hash(s.disk), hash);
    *fired = s.fired;
    free_scene(&s);
}

static void check_damaged(const struct trouble *t, bool *fired)
{
    struct scene s;
    make_scene(&s, damaged);
    start_trouble(&s, t);
    int rc = loam_check(DIR, &s.options, NULL, NULL);
    end_trouble(&s, t);
    if (rc != LOAM_E_CORRUPT && rc != LOAM_E_FORMAT) {
        if (!s.fired) {
            oracle_fail("without trouble the check gives %d: %s", rc, loam_last_error()->message);
        }
        expect_injected(t, rc, "check"); /* above all not LOAM_OK */
    }
    *fired = s.fired;
    free_scene(&s);
}

static void verify_open(const struct trouble *t, loam_vfs *image, bool harm, bool *fired)
{
    static struct oracle o;
    struct scene s;
    unsigned found = 0;
    memcpy(&o, &past->oracle, sizeof o);
    struct oracle_writer w = {.o = &o, .strict = true};
    random_init(&w.random, seed);
    make_scene(&s, image);
    CHECK_EQ(oracle_open(&w, DIR, &s.options), LOAM_OK);
    oracle_flush(&w);
    crash_must(loam_wait_idle(w.db, 0), "waiting");
    if (harm) {
        damage_one(s.disk, FILE_TABLE, UINT64_MAX, 100);
    }
    start_trouble(&s, t);
    int rc = loam_verify(w.db, count, &found);
    const loam_error why = *loam_last_error();
    end_trouble(&s, t);
    if (harm ? rc != LOAM_E_CORRUPT : rc != LOAM_OK) {
        CHECK(s.fired);
        CHECK_EQ(why.code, rc);
        expect_injected(t, rc, "verify");
    } else {
        totals.sound++;
    }
    if (!harm) {
        CHECK(found == 0 || (rc != LOAM_OK && !t->memory)); /* a shortage is no damage */
        oracle_write(&w, 2, false); /* what a check meets is no reason to refuse anything */
        io_read_live(&w);
    }
    w.strict = !harm;
    (void)oracle_close(&w);
    *fired = s.fired;
    free_scene(&s);
}

static void verify_sound(const struct trouble *t, bool *fired)
{
    verify_open(t, past->fault, false, fired);
}

static void verify_damaged(const struct trouble *t, bool *fired)
{
    verify_open(t, past->fault, true, fired);
}

Test(closed_calls, check_gives_an_answer_or_the_error_it_met)
{
    begin();
    sweep(check_sound, "check");
}

Test(closed_calls, check_never_calls_sound_what_it_could_not_read)
{
    static const struct {
        enum file_kind kind;
        uint64_t at;
        const char *name;
    } places[] = {{FILE_TABLE, 100, "check of a damaged table"},
                  {FILE_MANIFEST, 100, "check of a damaged manifest"},
                  {FILE_LOG, 10, "check of a damaged log"},
                  {FILE_CURRENT, 20, "check of a damaged CURRENT"}};
    begin();
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        make_damaged(places[i].kind, places[i].at);
        sweep(check_damaged, places[i].name);
    }
}

Test(closed_calls, verify_gives_an_answer_or_the_error_it_met)
{
    begin();
    sweep(verify_sound, "verify");
}

Test(closed_calls, verify_never_calls_sound_what_it_could_not_read)
{
    begin();
    sweep(verify_damaged, "verify of a damaged table");
}

/* ---- repair ------------------------------------------------------------------------------------ */

static void repair_damaged(const struct trouble *t, bool *fired)
{
    struct scene s;
    make_scene(&s, damaged);
    uint64_t hash = loam_vfs_hash(s.disk);
    start_trouble(&s, t);
    int rc = loam_repair(DIR, &s.options, NULL, NULL);
    bool unknown = (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0;
    if (rc != LOAM_OK) {
        expect_injected(t, rc, "repair");
    }
    end_trouble(&s, t);
    if (rc != LOAM_OK) {
        CHECK(s.fired);
        /* Names of files that were begun may be left; what there was is as it was. */
        int again = loam_check(DIR, &s.options, NULL, NULL);
        CHECK(unknown || again == LOAM_E_CORRUPT || loam_vfs_hash(s.disk) == hash);
        crash_must(loam_repair(DIR, &s.options, NULL, NULL), "repair again");
    }
    crash_must(loam_check(DIR, &s.options, NULL, NULL), "the check of what was repaired");
    *fired = s.fired;
    free_scene(&s);
}

Test(closed_calls, repair_repairs_or_gives_the_error_it_met)
{
    begin();
    make_damaged(FILE_TABLE, 100);
    sweep(repair_damaged, "repair");
}

/* ---- destroy ----------------------------------------------------------------------------------- */

static int count_ours(void *ctx, loam_slice name)
{
    enum file_kind kind;
    uint64_t number;
    *(unsigned *)ctx += filename_parse(name, &kind, &number) && kind != FILE_LOCK;
    return 0;
}

static unsigned files_left(const loam_vfs *vfs)
{
    unsigned left = 0;
    (void)vfs->list(vfs->ctx, DIR, count_ours, &left); /* no directory, no files */
    return left;
}

/* Whole or none; destroyed again, nothing is left of it. */
static void expect_whole_or_none(loam_vfs *disk, bool gone)
{
    loam_options o = crash_options(disk);
    o.allocator = oom_allocator();
    o.flags = LOAM_OPEN_MUST_EXIST;
    loam_db *db;
    int rc = loam_open(DIR, &o, &db);
    if (rc == LOAM_OK) {
        struct oracle_promise p = oracle_promise_low(&past->oracle, true);
        oracle_promise_high(&past->oracle, &p);
        struct oracle_seen seen;
        CHECK(!gone);
        crash_must(oracle_read(&past->oracle, &p, db, &seen), "reading what was not destroyed");
        oracle_judge(&past->oracle, &p, &seen);
        crash_must(loam_close(db), "close");
    } else if (rc != LOAM_E_NOENT && rc != LOAM_E_CORRUPT) {
        oracle_fail("a half destroyed database gives %d: %s", rc, loam_last_error()->message);
    } else if (strstr(loam_last_error()->message, "CURRENT is missing") == NULL &&
               rc != LOAM_E_NOENT) {
        oracle_fail("a half destroyed database is still one: %s", loam_last_error()->message);
    }
    rc = loam_destroy(DIR, &o);
    if (rc != LOAM_OK && (rc != LOAM_E_NOENT || files_left(disk) != 0)) {
        oracle_fail("destroying again gives %d, %u files are left: %s", rc, files_left(disk),
                    loam_last_error()->message);
    }
    CHECK_EQ(files_left(disk), 0);
}

static void destroy_it(const struct trouble *t, bool *fired)
{
    struct scene s;
    make_scene(&s, past->fault);
    start_trouble(&s, t);
    int rc = loam_destroy(DIR, &s.options);
    if (rc != LOAM_OK) {
        expect_injected(t, rc, "destroy");
    } else {
        totals.sound++;
    }
    end_trouble(&s, t);
    CHECK(rc != LOAM_OK || files_left(s.disk) == 0);
    expect_whole_or_none(s.disk, rc == LOAM_OK);
    *fired = s.fired;
    free_scene(&s);
}

Test(closed_calls, destroy_leaves_a_whole_database_or_none)
{
    begin();
    sweep(destroy_it, "destroy");
}

Test(closed_calls, destroy_cut_off_by_a_loss_of_power_leaves_a_whole_database_or_none)
{
    begin();
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct scene s;
        make_scene(&s, past->fault);
        CHECK_EQ(s.disk->sync_dir(s.disk->ctx, DIR), 0);
        const loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed + n, .crash_at = n};
        CHECK_EQ(loam_vfs_set_plan(s.fault, &plan), LOAM_OK);
        done = loam_destroy(DIR, &s.options) == LOAM_OK;
        for (uint64_t variant = 0; variant < 24; variant++) {
            loam_vfs *after;
            oracle_context("destroy, seed %llu, power cut at call %llu, variant %llu",
                           (unsigned long long)seed, (unsigned long long)n,
                           (unsigned long long)variant);
            crash_alarm(60);
            CHECK_EQ(loam_vfs_power_cut(s.fault, variant, &after), LOAM_OK);
            expect_whole_or_none(after, done);
            loam_vfs_free(after);
            totals.cut++;
        }
        totals.runs++;
        free_scene(&s);
    }
    CHECK(totals.runs > 10);
    print_totals("destroy, power cut");
}
