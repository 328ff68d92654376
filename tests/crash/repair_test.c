/* repair_test.c - loam_repair of damaged files: keeps what is readable, tells of what is not.
 * SPDX-License-Identifier: Apache-2.0
 *
 * repair_support.h has the oracle. LOAM_SEED repeats a run.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/random.h"
#include "engine/version_edit.h"
#include "sstable/sst_builder.h"
#include "tests/crash/oracle_support.h"
#include "tests/crash/repair_support.h"
#include "tests/support/seed.h"

Test(repair, leaves_a_sound_database_byte_for_byte_as_it_is)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        struct repair_files fs;
        repair_reference(&fs, 7, closed != 0);
        loam_vfs *disk = repair_disk_of(&fs);
        loam_options o = repair_options_on(disk);
        struct repair_told t = {.findings = 0};
        GOES(loam_repair(DIR, &o, repair_note, &t));
        CHECK_EQ(t.findings, 0);
        CHECK(repair_same_files(disk, &fs));
        loam_vfs_free(disk);
        repair_free_files(&fs);
    }
}

Test(repair, of_no_database_or_of_an_open_one_is_refused)
{
    loam_vfs *disk = memory_disk();
    loam_options o = repair_options_on(disk);
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
    struct repair_files fs;
    repair_reference(&fs, 8, true);
    static const int from_end[] = {-1, -20, -60, -100, -140, -200, -300};
    for (unsigned k = 0; k < 7; k++) {
        struct repair_file *f = repair_file_of(&fs, FILE_TABLE, 0);
        size_t at = f->size + (size_t)from_end[k];
        f->bytes[at] ^= 0x20;
        struct repair_told t = repair_try_repair(&fs);
        CHECK_EQ(t.findings, 1);
        CHECK_EQ(t.lost, 0);
        f->bytes[at] ^= 0x20;
    }
    struct repair_file *f = repair_file_of(&fs, FILE_TABLE, 1);
    f->bytes[20] ^= 1; /* the header */
    CHECK_EQ(repair_try_repair(&fs).lost, 0);
    repair_free_files(&fs);
}

Test(repair, keeps_the_rest_of_a_table_with_a_damaged_block_and_the_file_itself)
{
    struct repair_files fs;
    repair_reference(&fs, 9, true);
    struct repair_file *f = repair_file_of(&fs, FILE_TABLE, 0);
    f->bytes[f->size / 3] ^= 0x20;
    loam_vfs *disk = repair_disk_of(&fs);
    struct repair_told t = {.findings = 0};
    repair_now(disk, &t);
    CHECK_EQ(t.lost, 1);
    CHECK(t.range[0].ks[0] != '\0' && t.range[0].first[0] != '\0');
    char path[80];
    loam_file *file;
    snprintf(path, sizeof path, DIR "/%s.damaged", f->name);
    repair_read_back(disk);
    repair_judge(&t);
    unsigned there = 0;
    for (unsigned s = 0; s < SPACES; s++) {
        for (unsigned i = 0; i < KEYS; i++) {
            there += repair_read_version[s][i] != 0;
        }
    }
    CHECK(there > KEYS);
    CHECK_EQ(disk->open(disk->ctx, path, LOAM_VFS_READ, &file), 0);
    disk->close(disk->ctx, file);
    loam_vfs_free(disk);
    repair_free_files(&fs);
}

/* The files after so many puts more and a flush. */
static void branch(const struct repair_files *from, struct repair_files *to, unsigned puts)
{
    loam_vfs *disk = from != NULL ? repair_disk_of(from) : memory_disk();
    loam_options o = repair_options_on(disk);
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    for (unsigned i = 0; i < puts; i++) {
        GOES(loam_put(db, NULL, repair_key_of(i), LOAM_LIT("v"), NULL));
    }
    GOES(loam_flush(db, NULL));
    GOES(loam_put(db, NULL, LOAM_LIT("logged"), LOAM_LIT("v"), NULL));
    GOES(loam_close(db));
    repair_take(disk, to);
    loam_vfs_free(disk);
}

/* A copy of the database went on by itself, and one of its tables has come into this one: its numbers are
 * beyond the last that the manifest and the log know. */
Test(repair, takes_a_table_of_another_branch_with_sequence_numbers_to_come)
{
    struct repair_files root, here, there;
    branch(NULL, &root, 1);
    branch(&root, &here, 2);
    branch(&root, &there, KEYS);
    unsigned last = 0;
    while (repair_file_of(&there, FILE_TABLE, last + 1) != NULL) {
        last++;
    }
    struct repair_file *theirs = repair_file_of(&there, FILE_TABLE, last);
    struct repair_file *ours = repair_file_of(&here, FILE_TABLE, last);
    CHECK(ours != NULL && strcmp(ours->name, theirs->name) == 0);
    uint8_t *bytes = ours->bytes;
    size_t size = ours->size;
    ours->bytes = theirs->bytes;
    ours->size = theirs->size;
    loam_vfs *disk = repair_disk_of(&here);
    struct repair_told t = {.findings = 0};
    repair_now(disk, &t); /* and nothing is wrong with it then */
    CHECK(t.findings != 0);
    loam_options o = repair_options_on(disk);
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_get(db, NULL, LOAM_LIT("logged"), NULL, 0, NULL, NULL));
    GOES(loam_get(db, NULL, repair_key_of(KEYS - 1), NULL, 0, NULL, NULL));
    GOES(loam_close(db));
    loam_vfs_free(disk);
    ours->bytes = bytes;
    ours->size = size;
    repair_free_files(&root);
    repair_free_files(&here);
    repair_free_files(&there);
}

/* A whole table of this database by its own word, of an id beyond all keyspaces': a manifest that names it
 * cannot be read. */
Test(repair, takes_no_table_of_an_id_that_no_keyspace_can_have)
{
    loam_vfs *disk = memory_disk();
    loam_options o = repair_options_on(disk);
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_put(db, NULL, LOAM_LIT("ours"), LOAM_LIT("v"), NULL));
    GOES(loam_flush(db, NULL));
    GOES(loam_close(db));
    loam_file *f;
    uint8_t current[64];
    CHECK_EQ(disk->open(disk->ctx, DIR "/CURRENT", LOAM_VFS_READ, &f), 0);
    CHECK_EQ(disk->read(disk->ctx, f, current, sizeof current, 0), (int64_t)sizeof current);
    disk->close(disk->ctx, f);
    CHECK_EQ(disk->remove(disk->ctx, DIR "/CURRENT"), 0);
    char path[FILENAME_CAP];
    struct sst_builder *b;
    struct sst_info info;
    GOES(filename_make(DIR, FILE_TABLE, 900, path));
    const struct sst_build_options made = {.vfs = disk,
                                           .alloc = alloc_global(),
                                           .path = path,
                                           .file_number = 900,
                                           .db_id = get_fixed64(current + 16),
                                           .ks = KS_ID_MAX + 1};
    GOES(sst_builder_open(&b, &made));
    const struct entry e = {.key = LOAM_LIT("theirs"), .value = LOAM_LIT("v"), .tag = entry_tag(9, ENTRY_PUT)};
    GOES(sst_builder_add(b, &e, 0));
    GOES(sst_builder_finish(b, &info));
    sst_builder_free(b);
    struct repair_told t = {.findings = 0};
    repair_now(disk, &t);
    CHECK(t.findings >= 2);
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_get(db, NULL, LOAM_LIT("ours"), NULL, 0, NULL, NULL));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(repair, loses_nothing_when_current_or_the_manifest_is_damaged_or_gone)
{
    struct repair_files fs;
    for (unsigned closed = 0; closed < 2; closed++) {
        repair_reference(&fs, 10 + closed, closed != 0);
        for (unsigned what = 0; what < 5; what++) {
            struct repair_file *f = repair_file_of(&fs, what < 2 ? FILE_CURRENT : FILE_MANIFEST, 0);
            uint8_t *bytes = f->bytes;
            size_t at = what == 2 ? 20 : what == 3 ? f->size - 3 : 30;
            if (what == 1) {
                f->bytes = NULL;
            } else {
                f->bytes[at] ^= 4;
            }
            struct repair_told t = repair_try_repair(&fs);
            /* The last edit of a manifest that was not closed may be a torn one; if it was a flush's, the
             * log that is gone is told of. */
            bool torn = closed == 0 && what == 3;
            CHECK(t.findings >= 1 || torn);
            for (unsigned s = 0; s < SPACES && !torn; s++) {
                for (unsigned i = 0; i < KEYS; i++) {
                    if (repair_read_version[s][i] != repair_latest[s][i]) {
                        CHECK_FAIL_("case %u, closed %u: keyspace %u, key %u: %u instead of %u",
                                    what, closed, s, i, repair_read_version[s][i],
                                    repair_latest[s][i]);
                    }
                }
            }
            f->bytes = bytes;
            if (what != 1) {
                f->bytes[at] ^= 4;
            }
        }
        repair_free_files(&fs);
    }
}

/* The log of a flushed memtable may still be there: its puts have been merged with their deletes. */
Test(repair, of_a_lost_current_takes_no_log_that_tables_hold)
{
    loam_vfs *disk = memory_disk(), *fault, *image;
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    CHECK_EQ(loam_vfs_fault(disk, &healthy, &fault), LOAM_OK);
    loam_options o = repair_options_on(fault);
    struct repair_files early, fs;
    loam_db *db;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_put(db, NULL, text("a"), text("1"), NULL));
    GOES(loam_put(db, NULL, text("b"), text("2"), NULL));
    GOES(loam_sync(db));
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &image), LOAM_OK);
    repair_take(image, &early);
    loam_vfs_free(image);
    GOES(loam_flush(db, NULL));
    GOES(loam_delete(db, NULL, text("a"), NULL));
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_close(db));
    repair_take(disk, &fs);
    struct repair_file *log = repair_full_log(&early), *current = repair_file_of(&fs, FILE_CURRENT, 0);
    bool there = false;
    for (unsigned i = 0; i < fs.count; i++) {
        there = there || strcmp(fs.f[i].name, log->name) == 0;
    }
    if (!there) {
        CHECK(fs.count < FILES);
        fs.f[fs.count++] = *log;
        log->bytes = NULL;
    }
    current->bytes[30] ^= 4;
    loam_vfs *damaged = repair_disk_of(&fs);
    struct repair_told t = {.findings = 0};
    repair_now(damaged, &t);
    o = repair_options_on(damaged);
    GOES(loam_open(DIR, &o, &db));
    char value[4];
    size_t n;
    CHECK_EQ(loam_get(db, NULL, text("a"), value, sizeof value, &n, NULL), LOAM_NOTFOUND);
    GOES(loam_get(db, NULL, text("b"), value, sizeof value, &n, NULL));
    GOES(loam_close(db));
    loam_vfs_free(damaged);
    repair_free_files(&fs);
    repair_free_files(&early);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(repair, keeps_the_records_before_and_behind_a_damaged_one)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        struct repair_files fs;
        repair_reference(&fs, 20 + closed, closed != 0);
        for (unsigned which = 0; which < 20; which += 4) {
            struct repair_file *f = repair_full_log(&fs);
            size_t at = repair_record_at(f, which) + 30;
            f->bytes[at] ^= 1;
            struct repair_told t = repair_try_repair(&fs);
            if (closed != 0) {
                CHECK_EQ(t.lost, 1);
            }
            unsigned wrong = 0;
            for (unsigned s = 0; s < SPACES; s++) {
                for (unsigned i = 0; i < KEYS; i++) {
                    wrong += repair_read_version[s][i] != repair_latest[s][i];
                }
            }
            CHECK(wrong <= (t.findings != 0 ? 1 : KEYS));
            f->bytes[at] ^= 1;
        }
        repair_free_files(&fs);
    }
}

/* Nothing is gathered then that could be pointed into. */
Test(repair, of_a_log_of_the_empty_key_alone)
{
    loam_vfs *disk = memory_disk();
    loam_options o = repair_options_on(disk);
    struct repair_files fs;
    loam_db *db;
    char value[4];
    size_t n = 9;
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_put(db, NULL, text(""), text(""), NULL));
    GOES(loam_close(db));
    repair_take(disk, &fs);
    repair_file_of(&fs, FILE_CURRENT, 0)->bytes[30] ^= 4;
    loam_vfs *damaged = repair_disk_of(&fs);
    struct repair_told t = {.findings = 0};
    repair_now(damaged, &t);
    o = repair_options_on(damaged);
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_get(db, NULL, text(""), value, sizeof value, &n, NULL));
    CHECK_EQ(n, 0);
    GOES(loam_close(db));
    loam_vfs_free(damaged);
    repair_free_files(&fs);
    loam_vfs_free(disk);
}

Test(repair, ended_by_the_callback_changes_nothing)
{
    struct repair_files fs;
    repair_reference(&fs, 30, true);
    repair_file_of(&fs, FILE_TABLE, 0)->bytes[300] ^= 1;
    repair_file_of(&fs, FILE_TABLE, 1)->bytes[300] ^= 1;
    for (unsigned n = 1; n <= 2; n++) {
        loam_vfs *disk = repair_disk_of(&fs);
        loam_options o = repair_options_on(disk);
        struct repair_told t = {.stop_at = n};
        CHECK_EQ(loam_repair(DIR, &o, repair_note, &t), LOAM_STOPPED);
        CHECK(repair_same_files(disk, &fs));
        loam_vfs_free(disk);
    }
    repair_free_files(&fs);
}

Test(repair, of_any_random_damage_gives_a_sound_database_and_tells_what_is_missing)
{
    uint64_t seed = seed_of_run();
    struct random r;
    random_init(&r, seed);
    unsigned lost = 0, findings = 0;
    for (unsigned round = 0; round < 4; round++) {
        struct repair_files fs;
        repair_reference(&fs, seed + round, round % 2 != 0);
        for (unsigned n = 0; n < 60; n++) {
            uint8_t *kept[3];
            struct repair_file was[3];
            unsigned places = 1 + (unsigned)random_below(&r, 3), hit[3];
            for (unsigned k = 0; k < places; k++) {
                hit[k] = (unsigned)random_below(&r, fs.count);
                struct repair_file *f = &fs.f[hit[k]];
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
                struct repair_told t = repair_try_repair(&fs);
                lost += t.lost;
                findings += t.findings;
            }
            for (unsigned k = places; k-- > 0;) {
                free(fs.f[hit[k]].bytes);
                fs.f[hit[k]] = was[k];
            }
        }
        repair_free_files(&fs);
    }
    fprintf(stderr, "%u findings, %u of them lost something\n", findings, lost);
    CHECK(lost != 0 && findings > lost);
}

/* ---- orders ------------------------------------------------------------------------------------ */

static int backwards(void *ctx, loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(b.data, a.data, n) : 0;
    (void)ctx;
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

static const loam_comparator reverse = {
    .struct_size = sizeof reverse, .name = "backwards", .compare = backwards};
static const loam_ks_options reversed = {.struct_size = sizeof reversed, .comparator = &reverse};

/* How many keys there are, in falling order. */
static unsigned count_reversed(loam_db *db, loam_ks *ks)
{
    loam_iter *it;
    char last[16] = "~";
    unsigned n = 0;
    GOES(loam_iter_open(db, ks, NULL, &it));
    for (int rc = loam_iter_first(it); rc != LOAM_NOTFOUND; rc = loam_iter_next(it), n++) {
        CHECK_EQ(rc, LOAM_OK);
        loam_slice key = loam_iter_key(it);
        CHECK(key.size < sizeof last && memcmp(key.data, last, key.size) < 0);
        memcpy(last, key.data, key.size);
    }
    loam_iter_close(it);
    return n;
}

Test(repair, keeps_tables_in_orders_that_it_is_given_and_in_ones_that_it_is_not)
{
    for (unsigned what = 0; what < 3; what++) {
        loam_vfs *disk = memory_disk();
        loam_options o = repair_options_on(disk);
        o.default_ks = &reversed;
        loam_db *db;
        loam_ks *ks;
        GOES(loam_open(DIR, &o, &db));
        GOES(loam_ks_open(db, "second", &reversed, &ks));
        for (unsigned i = 0; i < KEYS * 10; i++) {
            static char value[90];
            memset(value, (int)(i % 251), sizeof value);
            GOES(loam_put(db, NULL, repair_key_of(i), loam_bytes(value, sizeof value), NULL));
            GOES(loam_put(db, ks, repair_key_of(i), loam_bytes(value, sizeof value), NULL));
        }
        GOES(loam_flush(db, NULL));
        loam_ks_release(ks);
        GOES(loam_close(db));
        struct repair_files fs;
        repair_take(disk, &fs);
        loam_vfs_free(disk);
        for (unsigned table = 0; table < 2; table++) { /* a block of each, or the footer */
            struct repair_file *f = repair_file_of(&fs, FILE_TABLE, table);
            f->bytes[what == 1 ? f->size - 30 : 300] ^= 1;
        }
        if (what == 2) {
            repair_file_of(&fs, FILE_CURRENT, 0)->bytes[30] ^= 1;
        }
        disk = repair_disk_of(&fs);
        o.vfs = disk;
        struct repair_told t = {.findings = 0};
        GOES(loam_repair(DIR, &o, repair_note, &t));
        GOES(loam_check(DIR, &o, NULL, NULL));
        GOES(loam_open(DIR, &o, &db));
        GOES(loam_ks_open(db, "second", &reversed, &ks));
        unsigned first = count_reversed(db, NULL), second = count_reversed(db, ks);
        CHECK(first > KEYS * 5);
        CHECK(what == 1 ? second == 0 && first == KEYS * 10 : second > KEYS * 5);
        loam_ks_release(ks);
        GOES(loam_close(db));
        loam_vfs_free(disk);
        repair_free_files(&fs);
    }
}

/* ---- keys of many spellings -------------------------------------------------------------------- */

enum { SPELLINGS = 40, LETTERS = 8, SPELLED_VALUE = 1 << 20 };

static int fold(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static int without_case(void *ctx, loam_slice a, loam_slice b)
{
    const uint8_t *x = a.data, *y = b.data;
    size_t n = a.size < b.size ? a.size : b.size;
    (void)ctx;
    for (size_t i = 0; i < n; i++) {
        if (fold(x[i]) != fold(y[i])) {
            return fold(x[i]) - fold(y[i]);
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

static loam_slice spelled(unsigned i, char key[LETTERS])
{
    for (unsigned k = 0; k < LETTERS; k++) {
        key[k] = (i >> k & 1) != 0 ? 'X' : 'x';
    }
    return loam_bytes(key, LETTERS);
}

/* All versions of a key go into one table, however each spells it: else two tables of the last level would
 * have the key, and the database would not open. */
Test(repair, keeps_a_key_of_many_spellings_in_one_table)
{
    static const loam_comparator nocase = {
        .struct_size = sizeof nocase, .name = "nocase", .compare = without_case};
    static const loam_ks_options folded = {.struct_size = sizeof folded, .comparator = &nocase};
    static uint64_t value[SPELLED_VALUE / 8];
    loam_vfs *disk = memory_disk();
    loam_options o = repair_options_on(disk);
    o.memory_budget = (uint64_t)16 << 20;
    o.default_ks = &folded;
    loam_db *db;
    char key[LETTERS];
    struct random r;
    random_init(&r, 1);
    GOES(loam_open(DIR, &o, &db));
    GOES(loam_pause(db, 1));
    for (unsigned i = 0; i < SPELLINGS; i++) {
        for (size_t k = 0; k < SPELLED_VALUE / 8; k++) {
            value[k] = random_next(&r); /* nothing to compress */
        }
        GOES(loam_put(db, NULL, spelled(i, key), loam_bytes(value, sizeof value), NULL));
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_close(db));
    GOES(disk->remove(disk->ctx, DIR "/CURRENT"));
    GOES(loam_repair(DIR, &o, NULL, NULL));
    GOES(loam_check(DIR, &o, NULL, NULL));
    GOES(loam_open(DIR, &o, &db));
    static uint64_t found[SPELLED_VALUE / 8];
    size_t n;
    GOES(loam_get(db, NULL, text("xxxxxxxx"), found, sizeof found, &n, NULL));
    CHECK_BYTES(found, n, value, sizeof value);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
