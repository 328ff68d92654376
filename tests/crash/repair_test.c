/* repair_test.c - loam_repair: keeps what is readable, tells of what is not, may be cut off anywhere.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The database holds for every key its latest value, which names keyspace, key and version. Oracle after
 * a repair: the database opens and the check finds nothing; no key has a value that was never its own;
 * if nothing was told as lost every key has its latest value; what is not the latest lies in a range
 * that was told. A repair cut off by a loss of power and repeated ends with the same contents.
 *
 * LOAM_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/random.h"
#include "engine/filename.h"
#include "tests/crash/oracle_support.h"
#include "tests/crash/tap_support.h"
#include "tests/engine/db_support.h"

#define DIR    "/db"
#define KEYS   60u
#define SPACES 2u
#define FILES  32u

/* ---- the database ------------------------------------------------------------------------------ */

static uint32_t latest[SPACES][KEYS];  /* 0: deleted or never there */
static uint32_t flushed[SPACES][KEYS]; /* what tables hold */
static bool killed; /* what is in the log alone was promised by nothing behind it */

static loam_options options_on(const loam_vfs *vfs)
{
    loam_options o = small_options(vfs);
    o.memory_budget = 4 << 20;
    o.sync_interval_ms = UINT32_MAX;
    return o;
}

static loam_slice key_of(unsigned i)
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
    GOES(loam_put(db, ks, key_of(key), loam_bytes(value, n), NULL));
    latest[space][key] = version;
}

/* Tables on several levels that overlap, deletions, records in the log. */
static void fill(const loam_vfs *vfs, uint64_t seed, bool closed, loam_db **left_open)
{
    struct random r;
    loam_options o = options_on(vfs);
    loam_db *db;
    loam_ks *ks;
    random_init(&r, seed);
    memset(latest, 0, sizeof latest);
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
            GOES(loam_delete(db, NULL, key_of(key), NULL));
            latest[0][key] = 0;
        }
        if (round < 3) {
            GOES(loam_flush(db, NULL));
            memcpy(flushed, latest, sizeof flushed);
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

struct file {
    char name[48];
    uint8_t *bytes; /* Owns */
    size_t size;
};

struct files {
    struct file f[FILES];
    unsigned count;
    const loam_vfs *vfs;
};

static int take_file(void *ctx, loam_slice name)
{
    struct files *fs = ctx;
    char path[80];
    uint64_t size;
    loam_file *file;
    struct file *f = &fs->f[fs->count++];
    CHECK(fs->count <= FILES && name.size < sizeof f->name);
    memset(f, 0, sizeof *f);
    memcpy(f->name, name.data, name.size);
    snprintf(path, sizeof path, DIR "/%s", f->name);
    CHECK_EQ(fs->vfs->open(fs->vfs->ctx, path, LOAM_VFS_READ, &file), 0);
    CHECK_EQ(fs->vfs->size(fs->vfs->ctx, file, &size), 0);
    f->bytes = malloc(size + 1);
    f->size = size;
    CHECK(f->bytes != NULL);
    CHECK_EQ(fs->vfs->read(fs->vfs->ctx, file, f->bytes, size, 0), size);
    fs->vfs->close(fs->vfs->ctx, file);
    return 0;
}

static void take(const loam_vfs *vfs, struct files *fs)
{
    *fs = (struct files){.vfs = vfs};
    CHECK(vfs->list(vfs->ctx, DIR, take_file, fs) >= 0);
}

static void free_files(struct files *fs)
{
    for (unsigned i = 0; i < fs->count; i++) {
        free(fs->f[i].bytes);
    }
    fs->count = 0;
}

static loam_vfs *disk_of(const struct files *fs)
{
    loam_vfs *disk = memory_disk();
    CHECK_EQ(disk->mkdir(disk->ctx, DIR), 0);
    for (unsigned i = 0; i < fs->count; i++) {
        char path[80];
        loam_file *f;
        if (fs->f[i].bytes == NULL) {
            continue;
        }
        snprintf(path, sizeof path, DIR "/%s", fs->f[i].name);
        CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_WRITE | LOAM_VFS_CREATE, &f), 0);
        CHECK_EQ(disk->write(disk->ctx, f, fs->f[i].bytes, fs->f[i].size, 0), fs->f[i].size);
        CHECK_EQ(disk->sync(disk->ctx, f, 0), 0);
        disk->close(disk->ctx, f);
    }
    CHECK_EQ(disk->sync_dir(disk->ctx, DIR), 0);
    return disk;
}

static bool same_files(const loam_vfs *vfs, const struct files *fs)
{
    struct files now;
    take(vfs, &now);
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
    free_files(&now);
    return same == fs->count && others == 0;
}

static struct file *file_of(struct files *fs, enum file_kind kind, unsigned which)
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

/* ---- a repair and its oracle ------------------------------------------------------------------- */

struct range {
    char ks[16], first[24], last[24]; /* "" : open */
};

struct told {
    unsigned findings, lost;
    struct range range[200];
    unsigned stop_at;
};

static void copy(char *to, size_t cap, loam_slice s)
{
    size_t n = s.size < cap - 1 ? s.size : cap - 1;
    memset(to, 0, cap);
    if (n != 0) {
        memcpy(to, s.data, n);
    }
}

static int note(void *ctx, const loam_damage *d)
{
    struct told *t = ctx;
    CHECK(loam_last_error()->message[0] != '\0' && d->file != NULL);
    t->findings++;
    if (!d->recovered) {
        struct range *g = &t->range[t->lost++];
        CHECK(t->lost <= 200);
        copy(g->ks, sizeof g->ks, d->ks_name);
        copy(g->first, sizeof g->first, d->first_key);
        copy(g->last, sizeof g->last, d->last_key);
    }
    return t->findings == t->stop_at;
}

static bool was_told(const struct told *t, unsigned space, unsigned key)
{
    const char *k = key_of(key).data;
    for (unsigned i = 0; i < t->lost; i++) {
        const struct range *g = &t->range[i];
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
    int rc = loam_get(db, ks, key_of(key), value, sizeof value, &n, NULL);
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

static uint32_t read_version[SPACES][KEYS];

static void read_back(const loam_vfs *vfs)
{
    loam_options o = options_on(vfs);
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
            read_version[s][i] = version_of(db, ks[s], s, i);
        }
        loam_ks_release(ks[s]);
    }
    put_text(db, NULL, "after", "a value");
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    expect_text(db, NULL, "after", "a value");
    GOES(loam_close(db));
}

static void judge(const struct told *t)
{
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned i = 0; i < KEYS; i++) {
            uint32_t v = read_version[s][i];
            if (v != latest[s][i] && !was_told(t, s, i) && !(killed && v >= flushed[s][i])) {
                oracle_fail(
                    "keyspace %u, key %u: version %u instead of %u, and nobody told (%u lost)", s,
                    i, read_version[s][i], latest[s][i], t->lost);
            }
        }
    }
}

static void repair(const loam_vfs *vfs, struct told *t)
{
    loam_options o = options_on(vfs);
    if (loam_repair(DIR, &o, note, t) != LOAM_OK) {
        oracle_fail("repair: %s", loam_last_error()->message);
    }
    struct told again = {.findings = 0};
    if (loam_check(DIR, &o, note, &again) != LOAM_OK) {
        oracle_fail("the check after the repair: %s", loam_last_error()->message);
    }
    struct files now;
    take(vfs, &now);
    if (loam_repair(DIR, &o, note, &again) != LOAM_OK || again.findings != 0 ||
        !same_files(vfs, &now)) {
        oracle_fail("a second repair finds something to do");
    }
    free_files(&now);
}

/* Returns what was told. */
static struct told try_repair(const struct files *fs)
{
    static struct told t;
    loam_vfs *disk = disk_of(fs);
    t = (struct told){.findings = 0};
    tap_dump_on_failure(disk);
    repair(disk, &t);
    read_back(disk);
    judge(&t);
    tap_dump_on_failure(NULL);
    loam_vfs_free(disk);
    return t;
}

static void reference(struct files *fs, uint64_t seed, bool closed)
{
    loam_vfs *disk = memory_disk();
    loam_db *db;
    fill(disk, seed, closed, &db);
    take(disk, fs);
    for (unsigned i = 0; i < fs->count; i++) {
        if (strcmp(fs->f[i].name, "LOCK") == 0) {
            free(fs->f[i].bytes);
            fs->f[i--] = fs->f[--fs->count];
        }
    }
    if (db != NULL) {
        GOES(loam_close(db));
    }
    loam_vfs_free(disk);
}

/* ---- tests ------------------------------------------------------------------------------------- */

Test(repair, leaves_a_sound_database_byte_for_byte_as_it_is)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        struct files fs;
        reference(&fs, 7, closed != 0);
        loam_vfs *disk = disk_of(&fs);
        loam_options o = options_on(disk);
        struct told t = {.findings = 0};
        GOES(loam_repair(DIR, &o, note, &t));
        CHECK_EQ(t.findings, 0);
        CHECK(same_files(disk, &fs));
        loam_vfs_free(disk);
        free_files(&fs);
    }
}

Test(repair, of_no_database_or_of_an_open_one_is_refused)
{
    loam_vfs *disk = memory_disk();
    loam_options o = options_on(disk);
    FAILS(loam_repair(DIR, &o, NULL, NULL), LOAM_E_NOENT);
    FAILS(loam_repair("", &o, NULL, NULL), LOAM_E_INVAL);
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    FAILS(loam_repair(DIR, &o, NULL, NULL), LOAM_E_LOCKED);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(repair, brings_everything_back_when_only_a_table_s_own_description_is_damaged)
{
    struct files fs;
    reference(&fs, 8, true);
    static const int from_end[] = {-1, -20, -60, -100, -140, -200, -300};
    for (unsigned k = 0; k < 7; k++) {
        struct file *f = file_of(&fs, FILE_TABLE, 0);
        size_t at = f->size + (size_t)from_end[k];
        f->bytes[at] ^= 0x20;
        struct told t = try_repair(&fs);
        CHECK_EQ(t.findings, 1);
        CHECK_EQ(t.lost, 0);
        f->bytes[at] ^= 0x20;
    }
    struct file *f = file_of(&fs, FILE_TABLE, 1);
    f->bytes[20] ^= 1; /* the header */
    CHECK_EQ(try_repair(&fs).lost, 0);
    free_files(&fs);
}

Test(repair, keeps_the_rest_of_a_table_with_a_damaged_block_and_the_file_itself)
{
    struct files fs;
    reference(&fs, 9, true);
    struct file *f = file_of(&fs, FILE_TABLE, 0);
    f->bytes[f->size / 3] ^= 0x20;
    loam_vfs *disk = disk_of(&fs);
    struct told t = {.findings = 0};
    repair(disk, &t);
    CHECK_EQ(t.lost, 1);
    CHECK(t.range[0].ks[0] != '\0' && t.range[0].first[0] != '\0');
    char path[80];
    loam_file *file;
    snprintf(path, sizeof path, DIR "/%s.damaged", f->name);
    read_back(disk);
    judge(&t);
    unsigned there = 0;
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned i = 0; i < KEYS; i++) {
            there += read_version[s][i] != 0;
        }
    }
    CHECK(there > KEYS);
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_READ, &file), 0);
    disk->close(disk->ctx, file);
    loam_vfs_free(disk);
    free_files(&fs);
}

Test(repair, loses_nothing_when_current_or_the_manifest_is_damaged_or_gone)
{
    struct files fs;
    for (unsigned closed = 0; closed < 2; closed++) {
        reference(&fs, 10 + closed, closed != 0);
        for (unsigned what = 0; what < 5; what++) {
            struct file *f = file_of(&fs, what < 2 ? FILE_CURRENT : FILE_MANIFEST, 0);
            uint8_t *bytes = f->bytes;
            size_t at = what == 2 ? 20 : what == 3 ? f->size - 3 : 30;
            if (what == 1) {
                f->bytes = NULL;
            } else {
                f->bytes[at] ^= 4;
            }
            struct told t = try_repair(&fs);
            /* The last edit of a manifest that was not closed may be a torn one. */
            CHECK(t.findings >= 1 || (closed == 0 && what == 3));
            for (unsigned s = 0; s < SPACES; s++) {
                for (unsigned i = 0; i < KEYS; i++) {
                    if (read_version[s][i] != latest[s][i]) {
                        CHECK_FAIL_("case %u, closed %u: keyspace %u, key %u: %u instead of %u",
                                    what, closed, s, i, read_version[s][i], latest[s][i]);
                    }
                }
            }
            f->bytes = bytes;
            if (what != 1) {
                f->bytes[at] ^= 4;
            }
        }
        free_files(&fs);
    }
}

/* Where in a log the i-th record begins. */
static size_t record_at(const struct file *f, unsigned i)
{
    size_t at = 4096;
    while (i-- != 0) {
        at += (24 + get_fixed32(f->bytes + at + 16) + 7) & ~(size_t)7;
    }
    return at;
}

static struct file *full_log(struct files *fs)
{
    for (unsigned i = 0;; i++) {
        struct file *f = file_of(fs, FILE_LOG, i);
        CHECK(f != NULL);
        if (f->size > 4096 && get_fixed32(f->bytes + 4096 + 16) != 0) {
            return f;
        }
    }
}

Test(repair, keeps_the_records_before_and_behind_a_damaged_one)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        struct files fs;
        reference(&fs, 20 + closed, closed != 0);
        for (unsigned which = 0; which < 20; which += 4) {
            struct file *f = full_log(&fs);
            size_t at = record_at(f, which) + 30;
            f->bytes[at] ^= 1;
            struct told t = try_repair(&fs);
            if (closed != 0) {
                CHECK_EQ(t.lost, 1);
            }
            unsigned wrong = 0;
            for (unsigned s = 0; s < SPACES; s++) {
                for (unsigned i = 0; i < KEYS; i++) {
                    wrong += read_version[s][i] != latest[s][i];
                }
            }
            CHECK(wrong <= (t.findings != 0 ? 1 : KEYS));
            f->bytes[at] ^= 1;
        }
        free_files(&fs);
    }
}

Test(repair, ended_by_the_callback_changes_nothing)
{
    struct files fs;
    reference(&fs, 30, true);
    file_of(&fs, FILE_TABLE, 0)->bytes[300] ^= 1;
    file_of(&fs, FILE_TABLE, 1)->bytes[300] ^= 1;
    for (unsigned n = 1; n <= 2; n++) {
        loam_vfs *disk = disk_of(&fs);
        loam_options o = options_on(disk);
        struct told t = {.stop_at = n};
        CHECK_EQ(loam_repair(DIR, &o, note, &t), LOAM_STOPPED);
        CHECK(same_files(disk, &fs));
        loam_vfs_free(disk);
    }
    free_files(&fs);
}

Test(repair, of_any_random_damage_gives_a_sound_database_and_tells_what_is_missing)
{
    uint64_t seed = oracle_seed();
    struct random r;
    random_init(&r, seed);
    unsigned lost = 0, findings = 0;
    for (unsigned round = 0; round < 4; round++) {
        struct files fs;
        reference(&fs, seed + round, round % 2 != 0);
        for (unsigned n = 0; n < 60; n++) {
            uint8_t *kept[3];
            struct file was[3];
            unsigned places = 1 + (unsigned)random_below(&r, 3), hit[3];
            for (unsigned k = 0; k < places; k++) {
                hit[k] = (unsigned)random_below(&r, fs.count);
                struct file *f = &fs.f[hit[k]];
                was[k] = *f;
                kept[k] = f->bytes;
                if (f->bytes == NULL) {
                    continue;
                }
                f->bytes = malloc(f->size + 1);
                CHECK(f->bytes != NULL);
                memcpy(f->bytes, kept[k], f->size);
                size_t used = f->size < 20000 ? f->size : 20000;
                size_t at = used != 0 ? random_below(&r, used) : 0;
                switch (used == 0 ? 9 : random_below(&r, 5)) {
                case 0:
                    f->bytes[at] ^= (uint8_t)(1u << random_below(&r, 8));
                    break;
                case 1:
                    memset(f->bytes + at, 0, used - at < 512 ? used - at : 512);
                    break;
                case 2:
                    f->size = at;
                    break;
                case 3:
                    memset(f->bytes + at, 0xff, used - at < 64 ? used - at : 64);
                    break;
                case 4:
                    free(f->bytes);
                    f->bytes = NULL;
                    break;
                default:
                    break;
                }
            }
            oracle_context("seed %llu, round %u, case %u: %s and %u more", (unsigned long long)seed,
                           round, n, fs.f[hit[0]].name, places - 1);
            bool any = false; /* a directory without any file of a database is none */
            for (unsigned k = 0; k < fs.count; k++) {
                any = any || (fs.f[k].bytes != NULL && strstr(fs.f[k].name, ".sst") != NULL);
            }
            if (any) {
                struct told t = try_repair(&fs);
                lost += t.lost;
                findings += t.findings;
            }
            for (unsigned k = places; k-- > 0;) {
                free(fs.f[hit[k]].bytes);
                fs.f[hit[k]] = was[k];
            }
        }
        free_files(&fs);
    }
    fprintf(stderr, "%u findings, %u of them lost something\n", findings, lost);
    CHECK(lost != 0 && findings > lost);
}

/* ---- cut off ----------------------------------------------------------------------------------- */

static void damage_for_cuts(struct files *fs, unsigned kind)
{
    struct file *f = kind == 2 ? file_of(fs, FILE_MANIFEST, 0) : file_of(fs, FILE_TABLE, 0);
    f->bytes[f->size / 3] ^= 0x20;
    if (kind == 1) {
        struct file *log = full_log(fs);
        log->bytes[record_at(log, 8) + 30] ^= 1;
    }
}

Test(repair, cut_off_by_a_loss_of_power_at_any_call_and_repeated_ends_the_same)
{
    static const uint64_t variants[] = {0, 1, 2, 3, 5, 6};
    unsigned cuts = 0;
    for (unsigned kind = 0; kind < 3; kind++) {
        struct files fs;
        reference(&fs, 40 + kind, true);
        damage_for_cuts(&fs, kind);
        loam_vfs *whole = disk_of(&fs);
        struct told t = {.findings = 0};
        repair(whole, &t);
        read_back(whole);
        loam_vfs_free(whole);
        uint32_t expected[SPACES][KEYS];
        memcpy(expected, read_version, sizeof expected);
        bool done = false;
        for (uint64_t n = 1; !done; n += 1 + n / 24) {
            loam_vfs *disk = disk_of(&fs), *fault;
            loam_fault_plan plan = {.struct_size = sizeof plan, .seed = n, .crash_at = n};
            GOES(loam_vfs_fault(disk, &plan, &fault));
            loam_options o = options_on(fault);
            done = loam_repair(DIR, &o, NULL, NULL) == LOAM_OK;
            for (unsigned v = 0; v < sizeof variants / sizeof variants[0]; v++) {
                loam_vfs *after;
                GOES(loam_vfs_power_cut(fault, variants[v], &after));
                oracle_context("damage %u, cut at call %llu, variant %llu", kind,
                               (unsigned long long)n, (unsigned long long)variants[v]);
                tap_dump_on_failure(after);
                t = (struct told){.findings = 0};
                repair(after, &t);
                read_back(after);
                if (memcmp(expected, read_version, sizeof expected) != 0) {
                    oracle_fail("the contents differ");
                }
                cuts++;
                tap_dump_on_failure(NULL);
                loam_vfs_free(after);
            }
            loam_vfs_free(fault);
            loam_vfs_free(disk);
        }
        free_files(&fs);
    }
    fprintf(stderr, "%u disks\n", cuts);
}

Test(repair, that_meets_failing_calls_fails_or_tells_and_may_be_repeated)
{
    struct files fs;
    reference(&fs, 50, true);
    damage_for_cuts(&fs, 1);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        loam_vfs *disk = disk_of(&fs), *fault;
        loam_fault_plan plan = {.struct_size = sizeof plan,
                                .seed = n,
                                .fail_at = n,
                                .fail_errno = n % 2 != 0 ? EMFILE : ENOSPC};
        GOES(loam_vfs_fault(disk, &plan, &fault));
        loam_options o = options_on(fault);
        static struct told t;
        t = (struct told){.findings = 0};
        int rc = loam_repair(DIR, &o, note, &t);
        done = loam_vfs_calls(fault) < n;
        oracle_context("failing call %llu", (unsigned long long)n);
        bool changed = !same_files(disk, &fs);
        if (rc != LOAM_OK) {
            CHECK(!changed || (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0);
            repair(disk, &t);
        }
        read_back(disk);
        judge(&t);
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
    free_files(&fs);
}
