/* repair_support.c - A database with known contents, its files, and what may be there after a repair.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/repair_support.h"

#include "arena/coding.h"
#include "arena/random.h"
#include "tests/crash/oracle_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"

/* ---- the database ------------------------------------------------------------------------------ */

uint32_t repair_latest[SPACES][KEYS];  /* 0: deleted or never there */
static uint32_t flushed[SPACES][KEYS]; /* what tables hold */
static bool killed; /* what is in the log alone was promised by nothing behind it */

loam_options repair_options_on(const loam_vfs *vfs)
{
    loam_options o = small_options(vfs);
    o.memory_budget = 4 << 20;
    o.sync_interval_ms = UINT32_MAX;
    return o;
}

loam_slice repair_key_of(unsigned i)
{
    static char key[16];
    snprintf(key, sizeof key, "key%04u", i);
    return text(key);
}

static size_t value_of(unsigned space, unsigned key, uint32_t version, char out[400])
{
    int n = snprintf(out, 400, "%u %u %u ", space, key, version);
    struct random r;
    random_init(&r, key * 1000 + version);
    for (; n < 150 + (int)(key % 7) * 30; n++) {
        out[n] = (char)('a' + random_below(&r, 26));
    }
    return (size_t)n;
}

static void put(loam_db *db, loam_ks *ks, unsigned space, unsigned key)
{
    static uint32_t version;
    char value[400];
    size_t n = value_of(space, key, ++version, value);
    GOES(loam_put(db, ks, repair_key_of(key), loam_bytes(value, n), NULL));
    repair_latest[space][key] = version;
}

/* Tables on several levels that overlap, deletions, records in the log. */
static void fill(const loam_vfs *vfs, uint64_t seed, bool closed, loam_db **left_open)
{
    struct random r;
    loam_options o = repair_options_on(vfs);
    loam_db *db;
    loam_ks *ks;
    random_init(&r, seed);
    memset(repair_latest, 0, sizeof repair_latest);
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_ks_open(db, "second", NULL, &ks));
    GOES(loam_pause(db, 1));
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < KEYS; i++) {
            if (round == 0 || random_below(&r, 2) == 0) {
                put(db, NULL, 0, i);
            }
            if (random_below(&r, 2) == 0) {
                put(db, ks, 1, i);
            }
        }
        for (unsigned i = 0; i < 3; i++) {
            unsigned key = (unsigned)random_below(&r, KEYS);
            GOES(loam_delete(db, NULL, repair_key_of(key), NULL));
            repair_latest[0][key] = 0;
        }
        if (round < 3) {
            GOES(loam_flush(db, NULL));
            memcpy(flushed, repair_latest, sizeof flushed);
        }
        if (round == 1) {
            GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        }
    }
    GOES(loam_sync(db));
    loam_ks_release(ks);
    killed = !closed;
    if (closed) {
        GOES(loam_close(db));
        db = NULL;
    }
    *left_open = db;
}

/* ---- files ------------------------------------------------------------------------------------- */

static int take_file(void *ctx, loam_slice name)
{
    struct repair_files *fs = ctx;
    char path[80];
    struct repair_file *f = &fs->f[fs->count++];
    CHECK(fs->count <= FILES && name.size < sizeof f->name);
    memset(f, 0, sizeof *f);
    memcpy(f->name, name.data, name.size);
    snprintf(path, sizeof path, DIR "/%s", f->name);
    f->bytes = disk_file_read(fs->vfs, path, &f->size);
    return 0;
}

void repair_take(const loam_vfs *vfs, struct repair_files *fs)
{
    *fs = (struct repair_files){.vfs = vfs};
    CHECK(vfs->list(vfs->ctx, DIR, take_file, fs) >= 0);
}

void repair_free_files(struct repair_files *fs)
{
    for (unsigned i = 0; i < fs->count; i++) {
        free(fs->f[i].bytes);
    }
    fs->count = 0;
}

loam_vfs *repair_disk_of(const struct repair_files *fs)
{
    loam_vfs *disk = memory_disk_with(DIR);
    for (unsigned i = 0; i < fs->count; i++) {
        char path[80];
        if (fs->f[i].bytes == NULL) {
            continue;
        }
        snprintf(path, sizeof path, DIR "/%s", fs->f[i].name);
        disk_file_write(disk, path, fs->f[i].bytes, fs->f[i].size);
    }
    CHECK_EQ(disk->sync_dir(disk->ctx, DIR), 0);
    return disk;
}

bool repair_same_files(const loam_vfs *vfs, const struct repair_files *fs)
{
    struct repair_files now;
    repair_take(vfs, &now);
    unsigned same = 0, others = 0;
    for (unsigned i = 0; i < now.count; i++) {
        bool found = false;
        for (unsigned k = 0; k < fs->count; k++) {
            found = found ||
                    (strcmp(now.f[i].name, fs->f[k].name) == 0 && now.f[i].size == fs->f[k].size &&
                     memcmp(now.f[i].bytes, fs->f[k].bytes, fs->f[k].size) == 0);
        }
        same += found;
        others += !found && strcmp(now.f[i].name, "LOCK") != 0;
    }
    repair_free_files(&now);
    return same == fs->count && others == 0;
}

struct repair_file *repair_file_of(struct repair_files *fs, enum file_kind kind, unsigned which)
{
    for (unsigned i = 0; i < fs->count; i++) {
        enum file_kind k;
        uint64_t number;
        if (filename_parse(text(fs->f[i].name), &k, &number) && k == kind && which-- == 0) {
            return &fs->f[i];
        }
    }
    return NULL;
}

struct repair_file *repair_full_log(struct repair_files *fs)
{
    for (unsigned i = 0;; i++) {
        struct repair_file *f = repair_file_of(fs, FILE_LOG, i);
        if (f == NULL || (f->size > 4096 && get_fixed32(f->bytes + 4096 + 16) != 0)) {
            return f;
        }
    }
}

size_t repair_record_at(const struct repair_file *log, unsigned i)
{
    size_t at = 4096;
    while (i-- != 0) {
        at += (24 + get_fixed32(log->bytes + at + 16) + 7) & ~(size_t)7;
    }
    return at;
}

/* ---- a repair and its oracle ------------------------------------------------------------------- */

static void copy(char *to, size_t cap, loam_slice s)
{
    size_t n = s.size < cap - 1 ? s.size : cap - 1;
    memset(to, 0, cap);
    if (n != 0) {
        memcpy(to, s.data, n);
    }
}

int repair_note(void *ctx, const loam_damage *d)
{
    struct repair_told *t = ctx;
    CHECK(loam_last_error()->message[0] != '\0' && d->file != NULL);
    t->findings++;
    if (!d->recovered) {
        struct repair_range *g = &t->range[t->lost++];
        CHECK(t->lost <= 200);
        copy(g->ks, sizeof g->ks, d->ks_name);
        copy(g->first, sizeof g->first, d->first_key);
        copy(g->last, sizeof g->last, d->last_key);
    }
    return t->findings == t->stop_at;
}

static bool was_told(const struct repair_told *t, unsigned space, unsigned key)
{
    const char *k = repair_key_of(key).data;
    for (unsigned i = 0; i < t->lost; i++) {
        const struct repair_range *g = &t->range[i];
        if ((g->ks[0] == '\0' || strcmp(g->ks, space == 0 ? "default" : "second") == 0) &&
            strcmp(g->first, k) <= 0 && (g->last[0] == '\0' || strcmp(k, g->last) <= 0)) {
            return true;
        }
    }
    return false;
}

/* What is there of a key: 0 nothing, else the version; a value that is not its own aborts. */
static uint32_t version_of(loam_db *db, loam_ks *ks, unsigned space, unsigned key)
{
    char value[400], right[400];
    size_t n;
    unsigned s, k, v;
    int rc = loam_get(db, ks, repair_key_of(key), value, sizeof value, &n, NULL);
    if (rc == LOAM_NOTFOUND) {
        return 0;
    }
    if (rc != LOAM_OK) {
        oracle_fail("get of key %u: %s", key, loam_last_error()->message);
    }
    value[n < 399 ? n : 399] = '\0';
    if (sscanf(value, "%u %u %u ", &s, &k, &v) != 3 || s != space || k != key ||
        value_of(s, k, v, right) != n || memcmp(right, value, n) != 0) {
        oracle_fail("keyspace %u, key %u has a value that was never its own: %.30s (%zu)", space,
                    key, value, n);
    }
    return v;
}

uint32_t repair_read_version[SPACES][KEYS];

void repair_read_back(const loam_vfs *vfs)
{
    loam_options o = repair_options_on(vfs);
    loam_db *db;
    loam_ks *ks[SPACES] = {NULL, NULL};
    o.flags = LOAM_OPEN_MUST_EXIST;
    if (loam_open(DIR, &o, &db) < 0) {
        oracle_fail("open after the repair: %s", loam_last_error()->message);
    }
    static const char *const names[] = {"default", "second"};
    for (unsigned s = 0; s < SPACES; s++) {
        if (loam_ks_open(db, names[s], NULL, &ks[s]) < 0) {
            oracle_fail("keyspace %s: %s", names[s], loam_last_error()->message);
        }
        for (unsigned i = 0; i < KEYS; i++) {
            repair_read_version[s][i] = version_of(db, ks[s], s, i);
        }
        loam_ks_release(ks[s]);
    }
    put_text(db, NULL, "after", "a value");
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    expect_text(db, NULL, "after", "a value");
    GOES(loam_close(db));
}

void repair_judge(const struct repair_told *t)
{
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned i = 0; i < KEYS; i++) {
            uint32_t v = repair_read_version[s][i];
            if (v != repair_latest[s][i] && !was_told(t, s, i) && !(killed && v >= flushed[s][i])) {
                oracle_fail(
                    "keyspace %u, key %u: version %u instead of %u, and nobody told (%u lost)", s,
                    i, repair_read_version[s][i], repair_latest[s][i], t->lost);
            }
        }
    }
}

void repair_now(const loam_vfs *vfs, struct repair_told *t)
{
    loam_options o = repair_options_on(vfs);
    if (loam_repair(DIR, &o, repair_note, t) != LOAM_OK) {
        oracle_fail("repair: %s", loam_last_error()->message);
    }
    struct repair_told again = {.findings = 0};
    if (loam_check(DIR, &o, repair_note, &again) != LOAM_OK) {
        oracle_fail("the check after the repair: %s", loam_last_error()->message);
    }
    struct repair_files now;
    repair_take(vfs, &now);
    if (loam_repair(DIR, &o, repair_note, &again) != LOAM_OK || again.findings != 0 ||
        !repair_same_files(vfs, &now)) {
        oracle_fail("a second repair finds something to do");
    }
    repair_free_files(&now);
}

/* Returns what was told. */
struct repair_told repair_try_repair(const struct repair_files *fs)
{
    static struct repair_told t;
    loam_vfs *disk = repair_disk_of(fs);
    t = (struct repair_told){.findings = 0};
    tap_dump_on_failure(disk);
    repair_now(disk, &t);
    repair_read_back(disk);
    repair_judge(&t);
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
    return t;
}

void repair_reference(struct repair_files *fs, uint64_t seed, bool closed)
{
    loam_vfs *disk = memory_disk(), *fault, *image;
    const loam_fault_plan healthy = {.struct_size = sizeof healthy, .seed = seed};
    loam_db *db;
    CHECK_EQ(loam_vfs_fault(disk, &healthy, &fault), LOAM_OK);
    fill(fault, seed, closed, &db);
    /* All files at one moment: the flush thread may still be giving log segments other names. */
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &image), LOAM_OK);
    repair_take(image, fs);
    for (unsigned i = 0; i < fs->count; i++) {
        if (strcmp(fs->f[i].name, "LOCK") == 0) {
            free(fs->f[i].bytes);
            fs->f[i--] = fs->f[--fs->count];
        }
    }
    if (db != NULL) {
        GOES(loam_close(db));
    }
    fs->vfs = NULL;
    loam_vfs_free(image);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}
