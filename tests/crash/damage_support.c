/* damage_support.c - Files in and out of disks, and the judgement of one damaged database.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/damage_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/tap_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"

#define HANG_AFTER 60 /* seconds */

struct damage_totals damage_totals;
struct oracle damage_oracle;
uint64_t damage_seed;

/* ---- files in and out of disks ----------------------------------------------------------------- */

void damage_begin(loam_vfs **disk, loam_vfs **fault, struct oracle_writer *w)
{
    const loam_fault_plan plan = {.struct_size = sizeof plan, .seed = damage_seed};
    *disk = memory_disk();
    CHECK_EQ(loam_vfs_fault(*disk, &plan, fault), LOAM_OK);
    oracle_init(&damage_oracle);
    *w = (struct oracle_writer){.o = &damage_oracle, .strict = true};
    random_init(&w->random, damage_seed);
}

struct taking {
    const loam_vfs *vfs;
    struct files *to;
};

static int take_file(void *ctx, loam_slice name)
{
    struct taking *t = ctx;
    CHECK(t->to->count < FILES_MAX && name.size < sizeof t->to->f[0].name);
    struct file *f = &t->to->f[t->to->count];
    memset(f, 0, sizeof *f);
    memcpy(f->name, name.data, name.size);
    if (!filename_parse(name, &f->kind, &f->number) || f->kind == FILE_LOCK) {
        return 0;
    }
    char path[64];
    snprintf(path, sizeof path, DIR "/%s", f->name);
    f->bytes = disk_file_read(t->vfs, path, &f->size);
    f->used = f->size;
    while (f->used != 0 && f->bytes[f->used - 1] == 0) {
        f->used--;
    }
    t->to->count++;
    return 0;
}

void damage_take_files(const loam_vfs *vfs, struct files *to)
{
    struct taking t = {vfs, to};
    to->count = 0;
    CHECK(vfs->list(vfs->ctx, DIR, take_file, &t) >= 0);
}

void damage_take_killed(loam_vfs *fault, struct files *to)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &after), LOAM_OK);
    damage_take_files(after, to);
    loam_vfs_free(after);
}

void damage_free_files(struct files *fs)
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

loam_vfs *damage_disk_of(const struct files *fs, const struct tried *t)
{
    loam_vfs *disk = memory_disk_with(DIR);
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

/* ---- what is told ------------------------------------------------------------------------------ */

static void keep_key(loam_slice key, uint8_t to[1024], size_t *size, bool *open)
{
    *open = key.data == NULL;
    CHECK(key.size <= 1024);
    *size = key.size;
    if (key.size != 0) {
        memcpy(to, key.data, key.size);
    }
}

static int keep_finding(void *ctx, const loam_damage *d)
{
    struct findings *all = ctx;
    const loam_error *e = loam_last_error();
    if (d->struct_size != sizeof *d || d->file == NULL || e->message[0] == '\0' ||
        (d->code != LOAM_E_NOENT && d->code != e->code) ||
        (d->first_key.data != NULL && d->last_key.data == NULL)) {
        oracle_fail("a finding without sense: %d, %s", d->code, e->message);
    }
    if (all->count++ >= FINDINGS_MAX) {
        return 0;
    }
    struct finding *f = &all->f[all->count - 1];
    CHECK(strlen(d->file) < sizeof f->file && d->ks_name.size < sizeof f->ks);
    strcpy(f->file, d->file);
    f->offset = d->offset;
    f->bytes = d->bytes;
    f->any_ks = d->ks_name.data == NULL;
    memset(f->ks, 0, sizeof f->ks);
    if (!f->any_ks) {
        memcpy(f->ks, d->ks_name.data, d->ks_name.size);
    }
    keep_key(d->first_key, f->first, &f->first_size, &f->open_first);
    keep_key(d->last_key, f->last, &f->last_size, &f->open_last);
    return 0;
}

bool damage_look(const loam_options *options, loam_db *db, struct findings *found)
{
    const char *who = db != NULL ? "verify" : "check";
    found->count = 0;
    int rc = db != NULL ? loam_verify(db, keep_finding, found)
                        : loam_check(DIR, options, keep_finding, found);
    if (rc != LOAM_OK && rc != LOAM_E_CORRUPT && rc != LOAM_E_FORMAT && rc != LOAM_E_IO) {
        oracle_fail("%s gives %d: %s", who, rc, loam_last_error()->message);
    }
    if ((rc != LOAM_OK) != (found->count != 0)) {
        oracle_fail("%s gives %d with %u findings", who, rc, found->count);
    }
    return rc != LOAM_OK;
}

static unsigned kept(const struct findings *found)
{
    return found->count < FINDINGS_MAX ? found->count : FINDINGS_MAX;
}

bool damage_names(const struct findings *found, const char *file, size_t size)
{
    for (unsigned i = 0; i < kept(found); i++) {
        if (strcmp(found->f[i].file, file) == 0 && found->f[i].offset <= size) {
            return true;
        }
    }
    return false;
}

bool damage_covers(const struct findings *found, const char *file, uint64_t at)
{
    for (unsigned i = 0; i < kept(found); i++) {
        const struct finding *f = &found->f[i];
        if (strcmp(f->file, file) == 0 && f->offset <= at &&
            (f->bytes == 0 || at - f->offset < f->bytes)) {
            return true;
        }
    }
    return false;
}

static int compare(const void *a, size_t an, const void *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);
    return c != 0 ? c : an < bn ? -1 : an > bn;
}

/* Whether a finding says that the key may be lost. */
static bool at_risk(const struct findings *found, const char *ks, loam_slice key)
{
    for (unsigned i = 0; i < kept(found); i++) {
        const struct finding *f = &found->f[i];
        if ((f->any_ks || strcmp(f->ks, ks) == 0) &&
            (f->open_first ||
             compare(f->first, f->first_size, key.size != 0 ? key.data : "", key.size) <= 0) &&
            (f->open_last ||
             compare(f->last, f->last_size, key.size != 0 ? key.data : "", key.size) >= 0)) {
            return true;
        }
    }
    return false;
}

static void dump_findings(const struct findings *found, const char *who)
{
    for (unsigned i = 0; i < kept(found); i++) {
        const struct finding *f = &found->f[i];
        fprintf(stderr, "  %s: %s, %llu bytes at %llu, keyspace \"%s\"%s, %s range\n", who, f->file,
                (unsigned long long)f->bytes, (unsigned long long)f->offset, f->ks,
                f->any_ks ? " or any" : "", f->open_first && f->open_last ? "open" : "bounded");
    }
}

/* ---- one case ---------------------------------------------------------------------------------- */

/* What the calls say of one case. */
struct answers {
    const struct tried *t;
    struct findings check, verify;
    bool check_found, verify_found;
};

static _Noreturn void case_fails(const struct answers *a, const char *what)
{
    dump_findings(&a->check, "check");
    dump_findings(&a->verify, "verify");
    oracle_fail("%s (last error: %s)", what, loam_last_error()->message);
}

static size_t size_now(const struct change *c)
{
    return c->bytes != NULL ? c->size : 0;
}

/* Whether the findings name a changed file; and, of a changed byte, its place. */
static bool names_change(const struct findings *found, const struct tried *t)
{
    for (unsigned k = 0; k < t->count; k++) {
        const struct change *c = &t->changes[k];
        if (damage_names(found, c->name, size_now(c)) &&
            (t->harm != HARM_BYTE || damage_covers(found, c->name, t->at))) {
            return true;
        }
    }
    return t->harm == HARM_FOREIGN;
}

static bool error_names_change(const loam_error *e, const struct tried *t)
{
    for (unsigned k = 0; k < t->count; k++) {
        const struct change *c = &t->changes[k];
        enum file_kind kind;
        uint64_t number;
        CHECK(filename_parse(loam_bytes(c->name, strlen(c->name)), &kind, &number));
        bool same = kind == FILE_CURRENT ? strstr(e->message, "CURRENT") != NULL
                                         : e->file_id == number && number != 0;
        if (same && e->offset <= size_now(c)) {
            return true;
        }
        /* A manifest that lacks its end is of an earlier state, whose files are gone, or whose log ends where
         * the next began. The check tells of the manifest, too. */
        if (kind == FILE_MANIFEST && e->file_id != 0 &&
            (strstr(e->message, "is missing") != NULL ||
             strstr(e->message, "the log was durable up to") != NULL)) {
            return true;
        }
    }
    return t->harm == HARM_FOREIGN && (e->file_id != 0 || strstr(e->message, "CURRENT") != NULL);
}

/* An error that a call gives for damage. */
static void check_error(const struct answers *a, const char *when, int rc)
{
    const loam_error *e = loam_last_error();
    if (rc != LOAM_E_CORRUPT && rc != LOAM_E_FORMAT && rc != LOAM_E_NOENT && rc != LOAM_E_IO) {
        oracle_fail("%s gives %d: %s", when, rc, e->message);
    }
    if (!error_names_change(e, a->t)) {
        oracle_fail("%s names no changed file and place, but file %llu, offset %llu: %s", when,
                    (unsigned long long)e->file_id, (unsigned long long)e->offset, e->message);
    }
}

/* A key that cannot be read by itself is in a range of both reports. */
static void check_failure(void *ctx, const char *ks, const char *call, int key, int rc)
{
    const struct answers *a = ctx;
    check_error(a, call, rc);
    if (key < 0) {
        return;
    }
    damage_totals.unreadable++;
    if (!at_risk(&a->check, ks, oracle_key((unsigned)key)) ||
        !at_risk(&a->verify, ks, oracle_key((unsigned)key))) {
        case_fails(a, "a key that cannot be read is in no range that was told");
    }
}

/* The open database. Whatever the check found in a file that recovery does not write anew is there. */
static void check_verify(struct answers *a, loam_db *db)
{
    a->verify_found = damage_look(NULL, db, &a->verify);
    damage_totals.verified += a->verify_found;
    if (a->verify_found && !a->check_found) {
        case_fails(a, "verify finds what check does not");
    }
    if (a->verify_found && !names_change(&a->verify, a->t)) {
        case_fails(a, "verify does not name the place of the damage");
    }
    for (unsigned k = 0; k < a->t->count; k++) {
        const struct change *c = &a->t->changes[k];
        enum file_kind kind;
        uint64_t number;
        if (filename_parse(loam_bytes(c->name, strlen(c->name)), &kind, &number) &&
            kind == FILE_TABLE && damage_names(&a->check, c->name, size_now(c)) &&
            !damage_names(&a->verify, c->name, size_now(c))) {
            case_fails(a, "verify does not find what check does");
        }
    }
}

/* What is read is right, though the rest cannot be read. True: it can. */
static bool check_reads(struct answers *a, loam_db *db, const struct oracle_promise *p)
{
    struct oracle_seen seen;
    int rc = oracle_read(&damage_oracle, p, db, &seen);
    if (rc < 0) {
        check_error(a, "reading", rc);
        damage_totals.errors++;
        int again = oracle_read_beside(&damage_oracle, p, db, &seen, check_failure, a);
        if (again < 0) {
            oracle_fail("the keyspaces give %d: %s", again, loam_last_error()->message);
        }
    } else {
        damage_totals.right++;
    }
    oracle_judge(&damage_oracle, p, &seen);
    return rc >= 0;
}

/* Few read-only: those try again for a while, in case a writer is moving files. */
static int open_damaged(loam_options *options, loam_db **db)
{
    options->flags = LOAM_OPEN_MUST_EXIST |
                     (damage_totals.cases % 16 == 1 ? LOAM_OPEN_READONLY : 0);
    return loam_open(DIR, options, db);
}

void damage_try(const struct files *fs, const struct oracle_promise *p, const struct tried *t)
{
    static struct answers a;
    loam_vfs *disk = damage_disk_of(fs, t);
    oracle_context("seed %llu, %s: %s at %llu of %zu", (unsigned long long)damage_seed,
                   t->count != 0 ? t->changes[0].name : "-", t->what, (unsigned long long)t->at,
                   t->count != 0 ? t->changes[0].size : 0);
    tap_dump_on_failure(disk);
    crash_alarm(HANG_AFTER);
    a.t = t;
    a.verify.count = 0;
    loam_options options = crash_options(disk);
    a.check_found = damage_look(&options, NULL, &a.check);
    damage_totals.found += a.check_found;
    if (a.check_found && !names_change(&a.check, t)) {
        case_fails(&a, "check does not name the place of the damage");
    }
    loam_db *db;
    bool readable = false;
    int rc = open_damaged(&options, &db);
    if (rc < 0) {
        check_error(&a, "open", rc);
        damage_totals.errors++;
        damage_totals.at_open++;
    } else {
        if (a.check_found) {
            check_verify(&a, db);
        }
        readable = check_reads(&a, db, p);
        (void)loam_close(db); /* a merge may have met the damage */
    }
    if (!readable && !a.check_found) {
        case_fails(&a, "the check finds nothing of what cannot be read");
    }
    damage_totals.cases++;
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
}

void damage_print_totals(const char *name)
{
    const struct damage_totals *d = &damage_totals;
    fprintf(stderr,
            "damage, %s: %llu cases: %llu right, %llu errors (%llu at open); %llu found by check, %llu "
            "by verify; %llu keys not to be read\n",
            name, (unsigned long long)d->cases, (unsigned long long)d->right,
            (unsigned long long)d->errors, (unsigned long long)d->at_open,
            (unsigned long long)d->found, (unsigned long long)d->verified,
            (unsigned long long)d->unreadable);
}
