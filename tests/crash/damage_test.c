/* damage_test.c - A damaged file gives the right data or an error, never a wrong value or a silent loss.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A small database with every kind of file is taken apart into its files; each case changes one of
 * them or two, puts all on a new memory disk, checks it, opens it and reads everything. Whatever cannot
 * be opened or read, loam_check must have found. After a clean close the data
 * must be complete. After a kill the last records of the log, which nothing behind them promises, may
 * be missing: damage there cannot be told from a torn write.
 *
 * LOAM_SEED repeats a run, LOAM_SCALE=1 and up flips more of the large files' bytes.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/coding.h"
#include "engine/manifest.h"
#include "tests/crash/damage_support.h"
#include "tests/support/seed.h"

#define SMALL      2048u /* files up to here have every byte flipped */
#define SECTOR     512u

/* A sanitizer makes a case ten times as slow: then one in five is tried, another one each time. */
#define ONE_IN (LOAM_ASAN ? 5u : 1u)

/* With one file changed. */
static void try_file(const struct files *fs, const struct oracle_promise *p, unsigned i,
                     const uint8_t *bytes, size_t used, size_t size, const char *what, uint64_t at,
                     enum harm harm)
{
    const struct change c = {fs->f[i].name, bytes, used, size};
    static uint64_t asked;
    if ((asked++ + damage_seed) % ONE_IN != 0 && getenv("LOAM_SCALE") == NULL) {
        return;
    }
    damage_try(fs, p, &(struct tried){what, at, &c, 1, harm});
}

/* ---- kinds of damage --------------------------------------------------------------------------- */

static void flip_bytes(const struct files *fs, const struct oracle_promise *p, unsigned i,
                       unsigned stride, struct random *r)
{
    struct file *f = (struct file *)&fs->f[i];
    size_t step = f->used <= SMALL ? 1 : stride;
    for (size_t at = random_below(r, step); at < f->size; at += step) {
        if (at > f->used) { /* the zeros that a log has in reserve */
            step = f->size / 16 + 1;
        } else if (f->kind == FILE_LOG && at > 64 && at < 4000) {
            step = 509; /* the rest of its header page */
        } else {
            step = f->used <= SMALL ? 1 : stride;
        }
        uint8_t old = f->bytes[at];
        static const uint8_t kinds[] = {0x01, 0x80, 0xff, 0x10};
        f->bytes[at] ^= kinds[random_below(r, sizeof kinds)];
        try_file(fs, p, i, f->bytes, f->used > at ? f->used : at + 1, f->size, "a flipped byte",
                 at, HARM_BYTE);
        f->bytes[at] = old;
    }
}

static void cut_short(const struct files *fs, const struct oracle_promise *p, unsigned i,
                      struct random *r)
{
    const struct file *f = &fs->f[i];
    size_t step = f->used / 60 + 1;
    for (size_t n = 0; n < f->size; n += 1 + random_below(r, 2 * step)) {
        try_file(fs, p, i, f->bytes, f->used, n, "cut short", n, HARM_CONTENT);
        step = n > f->used ? f->size / 8 + 1 : step;
    }
    try_file(fs, p, i, f->bytes, f->used, f->size - 1, "cut short", f->size - 1, HARM_CONTENT);
}

static void spoil_sectors(const struct files *fs, const struct oracle_promise *p, unsigned i,
                          struct random *r)
{
    const struct file *f = &fs->f[i];
    uint8_t *copy = malloc(f->size + SECTOR);
    CHECK(copy != NULL);
    for (size_t at = 0; at < f->used; at += SECTOR) {
        size_t n = f->size - at < SECTOR ? f->size - at : SECTOR;
        memcpy(copy, f->bytes, f->size);
        memset(copy + at, 0, n);
        try_file(fs, p, i, copy, f->used, f->size, "a zeroed sector", at, HARM_CONTENT);
        memset(copy + at, 0xff, n);
        try_file(fs, p, i, copy, f->used, f->size, "a sector of ones", at, HARM_CONTENT);
        /* A write that went to the wrong place. */
        size_t from = random_below(r, f->used / SECTOR + 1) * SECTOR;
        memcpy(copy + at, f->bytes + at, n);
        memcpy(copy + at, f->bytes + from, from + n <= f->size ? n : f->size - from);
        if (memcmp(copy, f->bytes, f->size) != 0) {
            try_file(fs, p, i, copy, f->used, f->size, "a sector of another place", at, HARM_CONTENT);
        }
    }
    free(copy);
}

/* Bytes behind the end. */
static void extend(const struct files *fs, const struct oracle_promise *p, unsigned i,
                   struct random *r)
{
    const struct file *f = &fs->f[i];
    static const size_t more[] = {1, 7, 16, 512, 4096, 70000};
    uint8_t *copy = malloc(f->size + 70000);
    CHECK(copy != NULL);
    memcpy(copy, f->bytes, f->size);
    for (unsigned k = 0; k < sizeof more / sizeof more[0]; k++) {
        size_t size = f->size + more[k];
        memset(copy + f->size, 0, more[k]);
        try_file(fs, p, i, copy, f->used, size, "zeros behind it", more[k], HARM_CONTENT);
        for (size_t n = 0; n < more[k]; n++) {
            copy[f->size + n] = (uint8_t)random_next(r);
        }
        try_file(fs, p, i, copy, size, size, "garbage behind it", more[k], HARM_CONTENT);
        for (size_t n = 0; n < more[k]; n++) {
            copy[f->size + n] = f->used != 0 ? f->bytes[n % f->used] : 0;
        }
        try_file(fs, p, i, copy, size, size, "its own bytes behind it", more[k], HARM_CONTENT);
    }
    free(copy);
}

static void replace_and_delete(const struct files *fs, const struct oracle_promise *p, unsigned i,
                               const struct files *other)
{
    const struct file *f = &fs->f[i];
    try_file(fs, p, i, NULL, 0, 0, "deleted", 0, HARM_CONTENT);
    try_file(fs, p, i, f->bytes, 0, 0, "emptied", 0, HARM_CONTENT);
    for (unsigned k = 0; k < fs->count; k++) {
        const struct file *g = &fs->f[k];
        if (k == i) {
            continue;
        }
        try_file(fs, p, i, g->bytes, g->used, g->size, "the bytes of another file", k, HARM_FOREIGN);
        if (k > i && g->kind == f->kind) {
            const struct change both[] = {{f->name, g->bytes, g->used, g->size},
                                          {g->name, f->bytes, f->used, f->size}};
            damage_try(fs, p, &(struct tried){"swapped with another", k, both, 2, HARM_FOREIGN});
        }
    }
    for (unsigned k = 0; k < other->count; k++) {
        const struct file *g = &other->f[k];
        if (g->kind == f->kind) {
            try_file(fs, p, i, g->bytes, g->used, g->size, "another database's file", k, HARM_FOREIGN);
        }
    }
}

/* Files that are not the database's, or that nothing is read from: without effect. */
static void add_files(const struct files *fs, const struct oracle_promise *p)
{
    static const uint8_t junk[5000] = "LOAMSST\nloamlog\nloamMANIloamCURR";
    static const char *const names[] = {
        "LOCK",
        "000000000099.tmp",
        "000000000099.log.new",
        "CURRENT.old",
        "1.sst",
        "notes",
        "MANIFEST-000000000099",
        "000000000099.sst",
        "MANIFEST-9",
        "000000000003.sst.damaged",
    };
    for (unsigned k = 0; k < sizeof names / sizeof names[0]; k++) {
        for (size_t size = 0; size <= sizeof junk; size += sizeof junk / 2) {
            const struct change c = {names[k], junk, size, size};
            uint64_t found = damage_totals.found, right = damage_totals.right;
            damage_try(fs, p, &(struct tried){"junk", size, &c, 1, HARM_FOREIGN});
            CHECK_EQ(damage_totals.found, found);
            CHECK_EQ(damage_totals.right, right + 1);
        }
    }
    for (unsigned k = 0; k < fs->count; k++) { /* a second copy under a number of its own */
        const struct file *f = &fs->f[k];
        if (f->kind == FILE_TABLE || f->kind == FILE_MANIFEST) {
            char name[FILENAME_BASE_CAP];
            filename_base(f->kind, 77, name);
            const struct change c = {name, f->bytes, f->used, f->size};
            uint64_t right = damage_totals.right;
            damage_try(fs, p, &(struct tried){"a copy beside", k, &c, 1, HARM_FOREIGN});
            CHECK_EQ(damage_totals.right, right + 1);
        }
    }
}

/* What it held at earlier times. rollback of an open log cannot be seen, but for its promises. */
static void older_copy(const struct files *fs, const struct oracle_promise *p, unsigned i,
                       const struct files *old, bool closed)
{
    const struct file *f = &fs->f[i];
    for (unsigned k = 0; k < old->count; k++) {
        const struct file *g = &old->f[k];
        if (strcmp(g->name, f->name) == 0 && (closed || f->kind != FILE_LOG) &&
            (g->size != f->size || memcmp(g->bytes, f->bytes, f->size) != 0)) {
            try_file(fs, p, i, g->bytes, g->used, g->size, "an older copy", k, HARM_FOREIGN);
        }
    }
}

/* ---- the reference ----------------------------------------------------------------------------- */

#define OLD_COPIES 3u

struct reference {
    struct files now, old[OLD_COPIES];
    struct oracle_promise promise;
};

static void free_reference(struct reference *ref)
{
    damage_free_files(&ref->now);
    for (unsigned k = 0; k < OLD_COPIES; k++) {
        damage_free_files(&ref->old[k]);
    }
}

/* Every kind of file, records in the log included. */
static void build(struct reference *ref, bool closed)
{
    loam_vfs *disk, *fault;
    struct oracle_writer w;
    damage_begin(&disk, &fault, &w);
    loam_options options = crash_options(fault);
    oracle_open(&w, DIR, &options);
    oracle_ks_create(&w, "one");
    oracle_write(&w, 6, false);
    damage_take_killed(fault, &ref->old[0]);
    oracle_flush(&w);
    oracle_write(&w, 6, false);
    oracle_close(&w);
    damage_take_killed(fault, &ref->old[1]);
    oracle_open(&w, DIR, &options);
    oracle_compact(&w);
    oracle_write(&w, 4, false);
    oracle_flush(&w);
    damage_take_killed(fault, &ref->old[2]);
    oracle_write(&w, 8, false);
    oracle_put(&w, 1, true);
    for (unsigned i = 0; i < 4; i++) {
        oracle_put_long(&w, 4 + i);
    }
    oracle_put(&w, 2, true);
    /* The records behind it say that it is durable. Only these may be taken for a torn end, and no sector
     * holds it and all of them. */
    ref->promise = oracle_promise_low(&damage_oracle, false);
    do {
        oracle_put_long(&w, 8);
    } while (oracle_value(damage_oracle.next_value - 1).size < 4 * SECTOR);
    oracle_put(&w, 3, false);
    if (closed) {
        oracle_close(&w);
        ref->promise = oracle_promise_low(&damage_oracle, true);
    }
    oracle_promise_high(&damage_oracle, &ref->promise);
    damage_take_killed(fault, &ref->now);
    if (!closed) {
        oracle_close(&w);
    }
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

static void damage_everything(bool closed)
{
    static struct reference ref, other;
    damage_seed = seed_of_run();
    struct random r;
    random_init(&r, damage_seed);
    const char *s = getenv("LOAM_SCALE");
    unsigned stride = s != NULL ? 1 : 17;
    damage_seed++;
    build(&other, closed);
    damage_seed--;
    build(&ref, closed); /* last: the oracle is of this one */
    damage_try(&ref.now, &ref.promise, &(struct tried){.what = "no damage"});
    CHECK_EQ(damage_totals.right, 1);
    CHECK_EQ(damage_totals.found, 0);
    for (unsigned i = 0; i < ref.now.count; i++) {
        flip_bytes(&ref.now, &ref.promise, i, stride, &r);
        cut_short(&ref.now, &ref.promise, i, &r);
        spoil_sectors(&ref.now, &ref.promise, i, &r);
        extend(&ref.now, &ref.promise, i, &r);
        replace_and_delete(&ref.now, &ref.promise, i, &other.now);
        for (unsigned k = 0; k < OLD_COPIES; k++) {
            older_copy(&ref.now, &ref.promise, i, &ref.old[k], closed);
        }
    }
    add_files(&ref.now, &ref.promise);
    damage_print_totals(closed ? "closed" : "killed");
    free_reference(&ref);
    free_reference(&other);
    crash_alarm(0);
}

/* All that was written since the close is in tables, and nothing of it in the log. */
static void build_flushed(struct reference *ref)
{
    loam_vfs *disk, *fault;
    struct oracle_writer w;
    damage_begin(&disk, &fault, &w);
    loam_options options = crash_options(fault);
    oracle_open(&w, DIR, &options);
    oracle_write(&w, 6, false);
    oracle_flush(&w);
    oracle_close(&w);
    damage_take_killed(fault, &ref->old[0]);
    oracle_open(&w, DIR, &options);
    oracle_write(&w, 6, false);
    oracle_flush(&w);
    ref->promise = oracle_promise_low(&damage_oracle, false);
    oracle_promise_high(&damage_oracle, &ref->promise);
    damage_take_killed(fault, &ref->now);
    oracle_close(&w);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

static const struct file *file_named(const struct files *fs, const char *name)
{
    for (unsigned i = 0; i < fs->count; i++) {
        if (strcmp(fs->f[i].name, name) == 0) {
            return &fs->f[i];
        }
    }
    return NULL;
}

/* The manifest goes on where a clean close left it: as it was then it is whole, and of another time. */
Test(damage, of_a_manifest_cut_back_to_a_clean_close_is_found)
{
    static struct reference ref;
    damage_seed = seed_of_run();
    build_flushed(&ref);
    damage_try(&ref.now, &ref.promise, &(struct tried){.what = "no damage"});
    CHECK_EQ(damage_totals.right, 1);
    unsigned manifests = 0;
    for (unsigned i = 0; i < ref.now.count; i++) {
        if (ref.now.f[i].kind == FILE_MANIFEST) {
            const struct file *was = file_named(&ref.old[0], ref.now.f[i].name);
            CHECK(was != NULL && was->size < ref.now.f[i].size);
            manifests++;
            damage_try(&ref.now, &ref.promise,
                       &(struct tried){"cut back", 0,
                                       &(struct change){was->name, was->bytes, was->used, was->size}, 1,
                                       HARM_FOREIGN});
        }
    }
    CHECK_EQ(manifests, 1);
    CHECK_EQ(damage_totals.right, 1);
    CHECK_EQ(damage_totals.at_open, 1);
    free_reference(&ref);
    crash_alarm(0);
}

/* From where a record of a manifest begins to where the next does. */
static void next_record(const struct file *f, size_t *at)
{
    CHECK(*at + MANIFEST_RECORD_BYTES <= f->size);
    *at += MANIFEST_RECORD_BYTES + get_fixed32(f->bytes + *at);
    CHECK(*at <= f->size);
}

/* Cut between two records a manifest is whole, and of an earlier state: other files tell. */
Test(damage, of_a_manifest_cut_between_records_is_found)
{
    static struct reference ref;
    uint64_t seed = seed_of_run();
    uint64_t found_some = 0;
    for (damage_seed = seed; damage_seed < seed + (LOAM_ASAN ? 5 : 25); damage_seed++) {
        build(&ref, false);
        for (unsigned i = 0; i < ref.now.count; i++) {
            const struct file *f = &ref.now.f[i];
            size_t at = MANIFEST_HEADER_BYTES;
            for (; f->kind == FILE_MANIFEST && at < f->size; next_record(f, &at)) {
                uint64_t found = damage_totals.found;
                const struct change c = {f->name, f->bytes, f->used, at};
                damage_try(&ref.now, &ref.promise, &(struct tried){"cut", at, &c, 1, HARM_CONTENT});
                found_some += damage_totals.found != found;
            }
        }
        free_reference(&ref);
    }
    CHECK(found_some != 0);
    damage_print_totals("manifest cut between records");
    crash_alarm(0);
}

Test(damage, of_any_file_after_a_clean_close_is_an_error_or_without_effect)
{
    damage_everything(true);
}

Test(damage, of_any_file_after_a_kill_is_an_error_or_costs_unpromised_records_only)
{
    damage_everything(false);
}
