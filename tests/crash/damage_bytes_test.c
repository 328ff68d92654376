/* damage_bytes_test.c - Every byte of a small database in turn: a bit of it flipped, all of it cleared, all of it set.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The files hold a few records each, so that every byte of every kind of file can be tried, in one of
 * these ways: of CURRENT, manifest and tables all of them; of logs the header's page and the records, and of
 * the zeros in reserve behind them, as of the file RESERVE, one in RESERVE_STEP. Closed and killed
 * databases are judged as in damage_support.h. An open one is damaged under its eyes, and must find by
 * loam_verify what loam_check finds from outside: in the same file, around the byte; what neither finds
 * must leave a database that is right.
 *
 * LOAM_SEED repeats a run; LOAM_SCALE=2 and up tries all three ways, and more of the reserve.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/epoch.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/crash/damage_support.h"
#include "tests/crash/io_run_support.h"
#include "tests/support/seed.h"

#define RESERVE_STEP 1009u
#define LOG_HEADER   4096u
#if LOAM_ASAN /* ten times as slow: others each time */
#define ONE_IN 31u
#else
#define ONE_IN 1u
#endif

/* What a byte becomes. */
static uint8_t spoilt(uint8_t old, unsigned way, struct random *r)
{
    switch (way) {
    case 0:
        return old ^ (uint8_t)(1u << random_below(r, 8));
    case 1:
        return 0;
    default:
        return 0xff;
    }
}
#define WAYS 3u

/* Whether this way is to be tried here; without a choice of all it is the first one that changes the byte. */
static bool due(const struct file *f, size_t at, unsigned way)
{
    if (io_scale() > 1) {
        return true;
    }
    unsigned turn = (unsigned)((at + damage_seed) % WAYS);
    while ((turn == 1 && f->bytes[at] == 0) || (turn == 2 && f->bytes[at] == 0xff)) {
        turn = (turn + 1) % WAYS;
    }
    return way == turn;
}

/* The byte to be tried after this one. */
static size_t next_byte(const struct file *f, size_t at)
{
    bool reserve = f->kind == FILE_RESERVE ||
                   (f->kind == FILE_LOG && at >= f->used && at >= LOG_HEADER);
    return at + (reserve ? RESERVE_STEP / io_scale() + 1 : 1) * ONE_IN;
}

/* ---- the database ------------------------------------------------------------------------------ */

/* Tables of two keyspaces, records of all kinds in the log. *promise: what a kill leaves for sure: the records
 * behind it say that it is durable. */
static void write_small(struct oracle_writer *w, const loam_vfs *vfs,
                        struct oracle_promise *promise)
{
    loam_options options = crash_options(vfs);
    oracle_open(w, DIR, &options);
    oracle_ks_create(w, "one");
    for (unsigned i = 0; i < 4; i++) {
        oracle_put(w, 2 * i, false);
    }
    oracle_write(w, 4, false);
    oracle_flush(w);
    oracle_put(w, 3, true);
    oracle_write(w, 2, false);
    oracle_put(w, 5, true);
    *promise = oracle_promise_low(&damage_oracle, false);
    oracle_put(w, 7, false);
}

static void take_small(struct files *fs, struct oracle_promise *promise, bool closed)
{
    loam_vfs *disk, *fault;
    struct oracle_writer w;
    damage_begin(&disk, &fault, &w);
    write_small(&w, fault, promise);
    if (!closed) {
        damage_take_killed(fault, fs); /* the flush may not have removed its log yet */
    }
    oracle_close(&w);
    if (closed) {
        damage_take_killed(fault, fs);
        *promise = oracle_promise_low(&damage_oracle, true);
    }
    oracle_promise_high(&damage_oracle, promise);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

static void print_files(const struct files *fs)
{
    for (unsigned i = 0; i < fs->count; i++) {
        fprintf(stderr, "  %s: %zu bytes, %zu used\n", fs->f[i].name, fs->f[i].size, fs->f[i].used);
    }
}

/* ---- closed and killed ------------------------------------------------------------------------- */

static void spoil_file(const struct files *fs, struct file *f, const struct oracle_promise *p,
                       struct random *r)
{
    static const char *const words[] = {"a flipped bit", "a cleared byte", "a byte of ones"};
    for (size_t at = damage_seed % ONE_IN; at < f->size; at = next_byte(f, at)) {
        uint8_t old = f->bytes[at];
        for (unsigned way = 0; way < WAYS; way++) {
            f->bytes[at] = old;
            if (!due(f, at, way)) {
                continue;
            }
            f->bytes[at] = spoilt(old, way, r);
            if (f->bytes[at] != old) {
                const struct change c = {f->name, f->bytes, f->used > at ? f->used : at + 1, f->size};
                damage_try(fs, p, &(struct tried){words[way], at, &c, 1, HARM_BYTE});
            }
        }
        f->bytes[at] = old;
    }
}

static void spoil_everything(bool closed)
{
    static struct files fs;
    struct oracle_promise p;
    struct random r;
    damage_seed = seed_of_run();
    random_init(&r, damage_seed);
    take_small(&fs, &p, closed);
    print_files(&fs);
    damage_try(&fs, &p, &(struct tried){.what = "no damage"});
    CHECK_EQ(damage_totals.right, 1);
    CHECK_EQ(damage_totals.found, 0);
    for (unsigned i = 0; i < fs.count; i++) {
        spoil_file(&fs, &fs.f[i], &p, &r);
        if (getenv("LOAM_VERBOSE") != NULL) {
            fprintf(stderr, "  %s: %llu cases so far\n", fs.f[i].name,
                    (unsigned long long)damage_totals.cases);
        }
    }
    damage_print_totals(closed ? "bytes, closed" : "bytes, killed");
    damage_free_files(&fs);
    crash_alarm(0);
}

Test(damage_bytes, of_a_closed_database_are_found_or_do_not_matter)
{
    spoil_everything(true);
}

Test(damage_bytes, of_a_killed_database_are_found_or_cost_unpromised_records_only)
{
    spoil_everything(false);
}

/* ---- open -------------------------------------------------------------------------------------- */

struct open_database {
    loam_vfs *disk, *fault;
    loam_options options;
    struct oracle_writer w;
    struct oracle_promise promise;
    struct files files; /* as they are now */
    uint64_t cases, found, by_verify_only;
};

static void poke(const struct open_database *d, loam_file *f, size_t at, uint8_t byte)
{
    CHECK_EQ(d->disk->write(d->disk->ctx, f, &byte, 1, at), 1);
}

/* Only the end of the log may be known to the open database alone. */
static void judge_open(struct open_database *d, const struct file *f, size_t at, uint8_t byte)
{
    static struct findings check, verify;
    bool outside = damage_look(&d->options, NULL, &check);
    bool inside = damage_look(NULL, d->w.db, &verify);
    d->cases++;
    d->found += inside;
    d->by_verify_only += inside && !outside;
    if (outside && !damage_covers(&check, f->name, at)) {
        oracle_fail("check does not tell the place, but %s at %llu", check.f[0].file,
                    (unsigned long long)check.f[0].offset);
    }
    if (inside && !damage_covers(&verify, f->name, at)) {
        oracle_fail("verify does not tell the place, but %s at %llu", verify.f[0].file,
                    (unsigned long long)verify.f[0].offset);
    }
    if (inside != outside && (outside || f->kind != FILE_LOG)) {
        oracle_fail("only %s finds it", inside ? "verify" : "check");
    }
    if (!outside) {
        uint8_t old = f->bytes[at];
        f->bytes[at] = byte;
        const struct change c = {f->name, f->bytes, f->used > at ? f->used : at + 1, f->size};
        damage_try(&d->files, &d->promise,
                   &(struct tried){"a byte under an open database", at, &c, 1, HARM_BYTE});
        f->bytes[at] = old;
    }
}

static void spoil_open_file(struct open_database *d, const struct file *f, struct random *r)
{
    char path[64];
    loam_file *handle;
    snprintf(path, sizeof path, DIR "/%s", f->name);
    CHECK_EQ(d->disk->open(d->disk->ctx, path, LOAM_VFS_WRITE, &handle), 0);
    for (size_t at = damage_seed % ONE_IN; at < f->size; at = next_byte(f, at)) {
        for (unsigned way = 0; way < WAYS; way++) {
            uint8_t byte = spoilt(f->bytes[at], way, r);
            if (byte != f->bytes[at] && due(f, at, way)) {
                oracle_context("seed %llu, open, %s: %02x at %zu instead of %02x",
                               (unsigned long long)damage_seed, f->name, byte, at, f->bytes[at]);
                crash_alarm(60);
                poke(d, handle, at, byte);
                judge_open(d, f, at, byte);
            }
        }
        poke(d, handle, at, f->bytes[at]);
    }
    d->disk->close(d->disk->ctx, handle);
}

/* The next segment is made beside the writers, from a file that has had another name. */
static void wait_for_the_next_segment(loam_db *handle)
{
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(handle));
    epoch_exit();
    for (bool ready = false; !ready;) {
        mutex_lock(&db->wal.mu);
        ready = db->wal.next_ready;
        mutex_unlock(&db->wal.mu);
        thread_sleep_micros(ready ? 0 : 1000);
    }
}

Test(damage_bytes, of_an_open_database_are_found_by_verify_as_by_check)
{
    static struct open_database d;
    static struct findings none;
    struct random r;
    damage_seed = seed_of_run();
    random_init(&r, damage_seed);
    damage_begin(&d.disk, &d.fault, &d.w);
    d.options = crash_options(d.fault);
    write_small(&d.w, d.fault, &d.promise);
    oracle_sync(&d.w);
    oracle_promise_high(&damage_oracle, &d.promise);
    crash_must(loam_wait_idle(d.w.db, 0), "waiting");
    wait_for_the_next_segment(d.w.db);
    damage_take_files(d.disk, &d.files);
    print_files(&d.files);
    CHECK(!damage_look(&d.options, NULL, &none) && !damage_look(NULL, d.w.db, &none));
    for (unsigned i = 0; i < d.files.count; i++) {
        spoil_open_file(&d, &d.files.f[i], &r);
    }
    CHECK(!damage_look(&d.options, NULL, &none) && !damage_look(NULL, d.w.db, &none));
    fprintf(stderr, "damage, bytes, open: %llu cases: %llu found, %llu of them by verify alone\n",
            (unsigned long long)d.cases, (unsigned long long)d.found,
            (unsigned long long)d.by_verify_only);
    damage_print_totals("bytes that neither finds");
    oracle_close(&d.w);
    damage_free_files(&d.files);
    loam_vfs_free(d.fault);
    loam_vfs_free(d.disk);
    crash_alarm(0);
}
