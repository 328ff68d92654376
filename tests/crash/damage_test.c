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

#include "engine/filename.h"
#include "tests/crash/crash_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/check.h"

#define DIR        "/db"
#define FILES_MAX  24u
#define SMALL      2048u /* files up to here have every byte flipped */
#define SECTOR     512u
#define HANG_AFTER 60 /* seconds */

struct file {
    char name[40];
    enum file_kind kind;
    uint8_t *bytes;    /* Owns */
    size_t size, used; /* used: up to the last byte that is not zero */
};

struct files {
    struct file f[FILES_MAX];
    unsigned count;
};

static struct {
    uint64_t cases, right, errors, at_open, found;
} totals;

static struct oracle oracle;
static uint64_t seed_now;

/* ---- files in and out of disks ----------------------------------------------------------------- */

struct taking {
    const loam_vfs *vfs;
    struct files *to;
};

static int take_file(void *ctx, loam_slice name)
{
    struct taking *t = ctx;
    uint64_t number, size = 0;
    CHECK(t->to->count < FILES_MAX && name.size < sizeof t->to->f[0].name);
    struct file *f = &t->to->f[t->to->count];
    memset(f, 0, sizeof *f);
    memcpy(f->name, name.data, name.size);
    if (!filename_parse(name, &f->kind, &number) || f->kind == FILE_LOCK) {
        return 0;
    }
    char path[64];
    snprintf(path, sizeof path, DIR "/%s", f->name);
    loam_file *file;
    CHECK_EQ(t->vfs->open(t->vfs->ctx, path, LOAM_VFS_READ, &file), 0);
    CHECK_EQ(t->vfs->size(t->vfs->ctx, file, &size), 0);
    f->bytes = malloc(size + 1);
    CHECK(f->bytes != NULL);
    CHECK_EQ(t->vfs->read(t->vfs->ctx, file, f->bytes, size, 0), size);
    t->vfs->close(t->vfs->ctx, file);
    f->size = f->used = size;
    while (f->used != 0 && f->bytes[f->used - 1] == 0) {
        f->used--;
    }
    t->to->count++;
    return 0;
}

static void take_files(const loam_vfs *vfs, struct files *to)
{
    struct taking t = {vfs, to};
    to->count = 0;
    CHECK(vfs->list(vfs->ctx, DIR, take_file, &t) >= 0);
}

static void free_files(struct files *fs)
{
    for (unsigned i = 0; i < fs->count; i++) {
        free(fs->f[i].bytes);
    }
    fs->count = 0;
}

static void put_file(const loam_vfs *vfs, const char *name, const uint8_t *bytes, size_t used,
                     size_t size)
{
    char path[64];
    snprintf(path, sizeof path, DIR "/%s", name);
    loam_file *f;
    CHECK_EQ(vfs->open(vfs->ctx, path, LOAM_VFS_WRITE | LOAM_VFS_CREATE, &f), 0);
    used = used < size ? used : size;
    CHECK_EQ(vfs->write(vfs->ctx, f, bytes, used, 0), used);
    CHECK_EQ(vfs->truncate(vfs->ctx, f, size), 0);
    vfs->close(vfs->ctx, f);
}

/* ---- one case ---------------------------------------------------------------------------------- */

static void check_error(const char *when, int rc)
{
    const loam_error *e = loam_last_error();
    if (rc != LOAM_E_CORRUPT && rc != LOAM_E_FORMAT && rc != LOAM_E_NOENT && rc != LOAM_E_IO) {
        oracle_fail("%s gives %d: %s", when, rc, e->message);
    }
    if (e->file_id == 0 && strstr(e->message, "CURRENT") == NULL) {
        oracle_fail("%s names no file: %s", when, e->message);
    }
    totals.errors++;
}

/* One file of a case as it shall be instead; bytes NULL: gone. */
struct change {
    const char *name;
    const uint8_t *bytes;
    size_t used, size;
};

struct tried {
    const char *what;
    uint64_t at;
    const struct change *changes;
    unsigned count;
};

static int count_finding(void *ctx, const loam_damage *d)
{
    const loam_error *e = loam_last_error();
    ++*(uint64_t *)ctx;
    if (d->struct_size != sizeof *d || d->file == NULL || e->message[0] == '\0' ||
        (d->code != LOAM_E_NOENT && d->code != e->code) ||
        (d->first_key.data != NULL && d->last_key.data == NULL)) {
        oracle_fail("a finding without sense: %d, %s", d->code, e->message);
    }
    return 0;
}

/* What loam_check says of the directory: true, there is damage. */
static bool check_finds(const loam_options *options)
{
    uint64_t findings = 0;
    int rc = loam_check(DIR, options, count_finding, &findings);
    if (rc != LOAM_OK && rc != LOAM_E_CORRUPT && rc != LOAM_E_FORMAT && rc != LOAM_E_IO) {
        oracle_fail("the check gives %d: %s", rc, loam_last_error()->message);
    }
    if ((rc != LOAM_OK) != (findings != 0)) {
        oracle_fail("the check gives %d with %llu findings", rc, (unsigned long long)findings);
    }
    totals.found += rc != LOAM_OK;
    return rc != LOAM_OK;
}

static loam_vfs *disk_of(const struct files *fs, const struct tried *t)
{
    loam_vfs *disk;
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK_EQ(disk->mkdir(disk->ctx, DIR), 0);
    for (unsigned i = 0; i < fs->count; i++) {
        const struct file *f = &fs->f[i];
        bool changed = false;
        for (unsigned k = 0; k < t->count; k++) {
            changed = changed || strcmp(t->changes[k].name, f->name) == 0;
        }
        if (!changed) {
            put_file(disk, f->name, f->bytes, f->used, f->size);
        }
    }
    for (unsigned k = 0; k < t->count; k++) {
        const struct change *c = &t->changes[k];
        if (c->bytes != NULL) {
            put_file(disk, c->name, c->bytes, c->used, c->size);
        }
    }
    return disk;
}

/* The database that `fs` make, with some files changed. What the check calls sound must be right and
 * whole; what cannot be read, the check must have found. */
static void try_case(const struct files *fs, const struct oracle_promise *p, const struct tried *t)
{
    loam_vfs *disk = disk_of(fs, t);
    oracle_context("seed %llu, %s: %s at %llu of %zu", (unsigned long long)seed_now,
                   t->count != 0 ? t->changes[0].name : "-", t->what, (unsigned long long)t->at,
                   t->count != 0 ? t->changes[0].size : 0);
    tap_dump_on_failure(disk);
    crash_alarm(HANG_AFTER);
    loam_options options = crash_options(disk);
    bool found = check_finds(&options);
    /* Few read-only: those try again for a while, in case a writer is moving files. */
    options.flags = LOAM_OPEN_MUST_EXIST | (totals.cases % 16 == 1 ? LOAM_OPEN_READONLY : 0);
    loam_db *db;
    int rc = loam_open(DIR, &options, &db);
    if (rc < 0) {
        check_error("open", rc);
        totals.at_open++;
    } else {
        struct oracle_seen seen;
        rc = oracle_read(&oracle, p, db, &seen);
        if (rc < 0) {
            check_error("reading", rc);
        } else {
            oracle_judge(&oracle, p, &seen);
            totals.right++;
        }
        (void)loam_close(db); /* a merge may have met the damage */
    }
    if (rc < 0 && !found) {
        oracle_fail("the check finds nothing, but: %s", loam_last_error()->message);
    }
    totals.cases++;
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
}

/* Sanitizers make a case ten times as slow: then one in five is tried, another one each time. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONE_IN 5u
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ONE_IN 5u
#endif
#ifndef ONE_IN
#define ONE_IN 1u
#endif

/* With one file changed. */
static void try_file(const struct files *fs, const struct oracle_promise *p, unsigned i,
                     const uint8_t *bytes, size_t used, size_t size, const char *what, uint64_t at)
{
    const struct change c = {fs->f[i].name, bytes, used, size};
    static uint64_t asked;
    if ((asked++ + seed_now) % ONE_IN != 0 && getenv("LOAM_SCALE") == NULL) {
        return;
    }
    try_case(fs, p, &(struct tried){what, at, &c, 1});
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
                 at);
        f->bytes[at] = old;
    }
}

static void cut_short(const struct files *fs, const struct oracle_promise *p, unsigned i,
                      struct random *r)
{
    const struct file *f = &fs->f[i];
    size_t step = f->used / 60 + 1;
    for (size_t n = 0; n < f->size; n += 1 + random_below(r, 2 * step)) {
        try_file(fs, p, i, f->bytes, f->used, n, "cut short", n);
        step = n > f->used ? f->size / 8 + 1 : step;
    }
    try_file(fs, p, i, f->bytes, f->used, f->size - 1, "cut short", f->size - 1);
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
        try_file(fs, p, i, copy, f->used, f->size, "a zeroed sector", at);
        memset(copy + at, 0xff, n);
        try_file(fs, p, i, copy, f->used, f->size, "a sector of ones", at);
        /* A write that went to the wrong place. */
        size_t from = random_below(r, f->used / SECTOR + 1) * SECTOR;
        memcpy(copy + at, f->bytes + at, n);
        memcpy(copy + at, f->bytes + from, from + n <= f->size ? n : f->size - from);
        if (memcmp(copy, f->bytes, f->size) != 0) {
            try_file(fs, p, i, copy, f->used, f->size, "a sector of another place", at);
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
        try_file(fs, p, i, copy, f->used, size, "zeros behind it", more[k]);
        for (size_t n = 0; n < more[k]; n++) {
            copy[f->size + n] = (uint8_t)random_next(r);
        }
        try_file(fs, p, i, copy, size, size, "garbage behind it", more[k]);
        for (size_t n = 0; n < more[k]; n++) {
            copy[f->size + n] = f->bytes[n % (f->used + 1)];
        }
        try_file(fs, p, i, copy, size, size, "its own bytes behind it", more[k]);
    }
    free(copy);
}

static void replace_and_delete(const struct files *fs, const struct oracle_promise *p, unsigned i,
                               const struct files *other)
{
    const struct file *f = &fs->f[i];
    try_file(fs, p, i, NULL, 0, 0, "deleted", 0);
    try_file(fs, p, i, f->bytes, 0, 0, "emptied", 0);
    for (unsigned k = 0; k < fs->count; k++) {
        const struct file *g = &fs->f[k];
        if (k == i) {
            continue;
        }
        try_file(fs, p, i, g->bytes, g->used, g->size, "the bytes of another file", k);
        if (k > i && g->kind == f->kind) {
            const struct change both[] = {{f->name, g->bytes, g->used, g->size},
                                          {g->name, f->bytes, f->used, f->size}};
            try_case(fs, p, &(struct tried){"swapped with another", k, both, 2});
        }
    }
    for (unsigned k = 0; k < other->count; k++) {
        const struct file *g = &other->f[k];
        if (g->kind == f->kind) {
            try_file(fs, p, i, g->bytes, g->used, g->size, "another database's file", k);
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
            uint64_t found = totals.found, right = totals.right;
            try_case(fs, p, &(struct tried){"junk", size, &c, 1});
            CHECK_EQ(totals.found, found);
            CHECK_EQ(totals.right, right + 1);
        }
    }
    for (unsigned k = 0; k < fs->count; k++) { /* a second copy under a number of its own */
        const struct file *f = &fs->f[k];
        if (f->kind == FILE_TABLE || f->kind == FILE_MANIFEST) {
            char name[FILENAME_BASE_CAP];
            filename_base(f->kind, 77, name);
            const struct change c = {name, f->bytes, f->used, f->size};
            uint64_t right = totals.right;
            try_case(fs, p, &(struct tried){"a copy beside", k, &c, 1});
            CHECK_EQ(totals.right, right + 1);
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
            try_file(fs, p, i, g->bytes, g->used, g->size, "an older copy", k);
        }
    }
}

/* ---- the reference ----------------------------------------------------------------------------- */

#define OLD_COPIES 3u

struct reference {
    struct files now, old[OLD_COPIES];
    struct oracle_promise promise;
};

static void take_now(loam_vfs *fault, struct files *to)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(fault, 0, &after), LOAM_OK);
    take_files(after, to);
    loam_vfs_free(after);
}

/* Every kind of file, records in the log included. */
static void build(struct reference *ref, bool closed)
{
    loam_vfs *disk, *fault;
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed_now};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    oracle_init(&oracle);
    struct oracle_writer w = {.o = &oracle, .strict = true};
    random_init(&w.random, seed_now);
    loam_options options = crash_options(fault);
    oracle_open(&w, DIR, &options);
    oracle_ks_create(&w, "one");
    oracle_write(&w, 6, false);
    take_now(fault, &ref->old[0]);
    oracle_flush(&w);
    oracle_write(&w, 6, false);
    oracle_close(&w);
    take_now(fault, &ref->old[1]);
    oracle_open(&w, DIR, &options);
    oracle_compact(&w);
    oracle_write(&w, 4, false);
    oracle_flush(&w);
    take_now(fault, &ref->old[2]);
    oracle_write(&w, 8, false);
    oracle_put(&w, 1, true);
    ref->promise = oracle_promise_low(&oracle, false);
    for (unsigned i = 0; i < 4; i++) {
        oracle_put_long(&w, 4 + i); /* so that no sector holds records before and behind these */
    }
    oracle_put(&w, 2, true);
    oracle_put_long(&w, 8);
    oracle_put(&w, 3, false);
    if (closed) {
        oracle_close(&w);
        ref->promise = oracle_promise_low(&oracle, true);
    }
    oracle_promise_high(&oracle, &ref->promise);
    take_now(fault, &ref->now);
    if (!closed) {
        oracle_close(&w);
    }
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

static void damage_everything(bool closed)
{
    static struct reference ref, other;
    seed_now = oracle_seed();
    struct random r;
    random_init(&r, seed_now);
    const char *s = getenv("LOAM_SCALE");
    unsigned stride = s != NULL ? 1 : 17;
    seed_now++;
    build(&other, closed);
    seed_now--;
    build(&ref, closed); /* last: the oracle is of this one */
    try_case(&ref.now, &ref.promise, &(struct tried){.what = "no damage"});
    CHECK_EQ(totals.right, 1);
    CHECK_EQ(totals.found, 0);
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
    fprintf(stderr,
            "damage, %s: %llu cases: %llu right, %llu errors (%llu at open); %llu found by check\n",
            closed ? "closed" : "killed", (unsigned long long)totals.cases,
            (unsigned long long)totals.right, (unsigned long long)totals.errors,
            (unsigned long long)totals.at_open, (unsigned long long)totals.found);
    free_files(&ref.now);
    free_files(&other.now);
    for (unsigned k = 0; k < OLD_COPIES; k++) {
        free_files(&ref.old[k]);
        free_files(&other.old[k]);
    }
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
