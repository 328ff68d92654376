/* version_set_test.c - Edits are durable when acknowledged, whatever call fails and wherever power is cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the set of table numbers after each acknowledged edit. What an open finds after a fault
 * and a power cut is the acknowledged set, or that plus the one edit whose outcome was reported
 * unknown (or that was in flight); every table it names has its file, although all files reported
 * obsolete were deleted at once.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/loam.h"
#include "engine/version_set.h"
#include "tests/support/check.h"

#define TABLES_MAX 256

struct db {
    const loam_vfs *vfs;
    struct alloc alloc;
    struct obsolete_files obsolete;
    struct version_set vs;
};

static void db_start(struct db *d, const loam_vfs *vfs, bool read_only, uint64_t manifest_bytes)
{
    memset(d, 0, sizeof *d);
    d->vfs = vfs;
    alloc_init(&d->alloc, NULL, UINT64_MAX);
    obsolete_files_init(&d->obsolete, vfs, "/db", &d->alloc);
    struct version_set_options o = {.vfs = vfs,
                                    .dir = "/db",
                                    .alloc = &d->alloc,
                                    .obsolete = &d->obsolete,
                                    .manifest_bytes = manifest_bytes,
                                    .read_only = read_only};
    CHECK_EQ(version_set_create(&d->vs, &o), LOAM_OK);
}

static void db_stop(struct db *d)
{
    version_set_destroy(&d->vs);
    obsolete_files_destroy(&d->obsolete);
    CHECK_EQ(alloc_used(&d->alloc), 0);
}

static void default_ks(struct version_edit *e)
{
    struct ks_desc k = {.id = KS_DEFAULT,
                        .compression = LOAM_COMPRESS_LZ4,
                        .filter_bits = 10,
                        .block_bytes = 4096,
                        .name = LOAM_LIT("default")};
    CHECK_EQ(version_edit_create_ks(e, &k), LOAM_OK);
}

static int make_db(struct db *d)
{
    struct version_edit e;
    version_edit_init(&e, &d->alloc);
    default_ks(&e);
    int rc = version_set_make(&d->vs, &e);
    version_edit_free(&e);
    return rc;
}

static struct loam_vfs *new_disk(void)
{
    loam_vfs *disk;
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK(disk->mkdir(disk->ctx, "/db") >= 0);
    CHECK(disk->sync_dir(disk->ctx, "/") >= 0);
    return disk;
}

/* A table's file, made as the engine does: written, synced, its name synced. */
static int make_file(const loam_vfs *vfs, uint64_t number)
{
    char path[FILENAME_CAP];
    loam_file *f;
    CHECK_EQ(filename_make("/db", FILE_TABLE, number, path), LOAM_OK);
    int rc = vfs->open(vfs->ctx, path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &f);
    if (rc < 0) {
        return rc;
    }
    rc = vfs->sync(vfs->ctx, f, 0);
    int rc2 = vfs->close(vfs->ctx, f);
    rc = rc < 0 ? rc : rc2;
    return rc < 0 ? rc : vfs->sync_dir(vfs->ctx, "/db");
}

static void add_table(struct version_edit *e, uint32_t ks, uint8_t level, uint64_t number)
{
    char key[16];
    int n = snprintf(key, sizeof key, "k%06llu", (unsigned long long)number);
    struct table_meta m = {.number = number,
                           .size = 1000,
                           .entries = 10,
                           .raw_bytes = 2000,
                           .checksum = number * 77,
                           .min_seq = number,
                           .max_seq = number,
                           .ks = ks,
                           .level = level,
                           .smallest = loam_bytes(key, (size_t)n),
                           .largest = loam_bytes(key, (size_t)n)};
    CHECK_EQ(version_edit_add_table(e, &m), LOAM_OK);
}

struct numbers {
    uint64_t n[TABLES_MAX];
    uint32_t count;
};

static bool contains(const struct numbers *s, uint64_t n)
{
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->n[i] == n) {
            return true;
        }
    }
    return false;
}

static struct numbers tables_of(struct version_set *vs)
{
    struct numbers s = {.count = 0};
    epoch_enter();
    const struct version *v = version_set_current(vs);
    for (uint32_t k = 0; k < v->ks_count; k++) {
        for (int l = 0; l < LEVEL_COUNT; l++) {
            for (uint32_t i = 0; i < v->ks[k]->level[l].count; i++) {
                CHECK(s.count < TABLES_MAX);
                s.n[s.count++] = v->ks[k]->level[l].tables[i]->meta.number;
            }
        }
    }
    epoch_exit();
    return s;
}

static bool same(const struct numbers *a, const struct numbers *b)
{
    bool ok = a->count == b->count;
    for (uint32_t i = 0; ok && i < a->count; i++) {
        ok = contains(b, a->n[i]);
    }
    return ok;
}

/* One edit: a table comes, and sometimes the oldest goes. Returns apply's result; *after is what
 * the edit would lead to. */
static int step(struct db *d, const struct numbers *before, bool drop_oldest, struct numbers *after)
{
    struct version_edit e;
    version_edit_init(&e, &d->alloc);
    uint64_t number = version_set_new_file(&d->vs);
    *after = *before;
    int rc = make_file(d->vfs, number);
    if (rc >= 0) {
        if (drop_oldest && after->count != 0) {
            CHECK_EQ(version_edit_remove_table(&e, KS_DEFAULT, 0, after->n[0]), LOAM_OK);
            memmove(after->n, after->n + 1, --after->count * sizeof after->n[0]);
        }
        add_table(&e, KS_DEFAULT, 0, number);
        after->n[after->count++] = number;
        version_edit_set_log_number(&e, number, false);
        rc = version_set_apply(&d->vs, &e);
    } else {
        rc = LOAM_E_IO;
        *after = *before;
    }
    version_edit_free(&e);
    obsolete_files_purge(&d->obsolete);
    return rc;
}

Test(version_set, finds_no_database_and_makes_one)
{
    loam_vfs *disk = new_disk();
    struct db d;
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    uint64_t id = d.vs.db_id;
    CHECK(id != 0);
    db_stop(&d);

    db_start(&d, disk, true, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK(d.vs.db_id == id);
    struct keyspace *k = keyspace_get_by_name(&d.vs.keyspaces, LOAM_LIT("default"));
    CHECK(k != NULL && k->id == KS_DEFAULT && k->block_bytes == 4096);
    keyspace_put(k);
    struct version_edit e;
    version_edit_init(&e, &d.alloc);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_E_READONLY);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, recovers_tables_keyspaces_and_counters)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_start(&d, disk, false, 4096); /* small manifests: many roll over */
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(step(&d, &state, state.count > 50, &next), LOAM_OK);
        state = next;
        if (i % 97 == 96) {
            uint64_t log = version_set_log_number(&d.vs);
            uint64_t seq = version_set_last_seq(&d.vs);
            db_stop(&d);
            db_start(&d, disk, false, 4096);
            CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
            CHECK(log == version_set_log_number(&d.vs));
            CHECK(seq == version_set_last_seq(&d.vs));
            CHECK(version_set_next_file(&d.vs) > state.n[state.count - 1]);
        }
        struct numbers now = tables_of(&d.vs);
        CHECK(same(&now, &state));
    }
    CHECK(d.vs.manifest_number > 2);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, moves_a_table_without_making_its_file_obsolete)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    CHECK_EQ(step(&d, &state, false, &next), LOAM_OK);
    uint64_t number = next.n[0];
    struct table *before = version_table(version_set_current(&d.vs), 0, 0, number);
    struct version_edit e;
    version_edit_init(&e, &d.alloc);
    CHECK_EQ(version_edit_remove_table(&e, 0, 0, number), LOAM_OK);
    add_table(&e, 0, 6, number);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    version_set_reap(&d.vs);
    CHECK_EQ(obsolete_files_pending(&d.obsolete), 0);
    CHECK(version_table(version_set_current(&d.vs), 0, 6, number) == before);
    db_stop(&d);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK(version_table(version_set_current(&d.vs), 0, 6, number) != NULL);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, keeps_an_old_version_while_it_is_referenced)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    struct version *held = version_set_ref_current(&d.vs);
    CHECK_EQ(step(&d, &state, true, &next), LOAM_OK);
    epoch_synchronize();
    version_set_reap(&d.vs);
    CHECK_EQ(obsolete_files_pending(&d.obsolete), 0);
    CHECK(version_table(held, 0, 0, state.n[0]) != NULL);
    version_unref(held);
    version_set_reap(&d.vs);
    CHECK_EQ(obsolete_files_pending(&d.obsolete), 1);
    CHECK_EQ(obsolete_files_purge(&d.obsolete), 1);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, creates_renames_and_drops_keyspaces)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct version_edit e;
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    for (uint32_t i = 0; i < 40; i++) {
        char name[16];
        struct ks_desc k = {.id = (uint32_t)version_set_new_ks_id(&d.vs), .block_bytes = 4096};
        CHECK_EQ(k.id, i + 1);
        k.name = loam_bytes(name, (size_t)snprintf(name, sizeof name, "ks%u", i));
        version_edit_init(&e, &d.alloc);
        CHECK_EQ(version_edit_create_ks(&e, &k), LOAM_OK);
        CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
        CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_E_CORRUPT); /* the name is taken */
        version_edit_free(&e);
    }
    struct keyspace *held = keyspace_get_by_name(&d.vs.keyspaces, LOAM_LIT("ks7"));
    uint64_t number = version_set_new_file(&d.vs);
    CHECK(make_file(disk, number) >= 0);
    version_edit_init(&e, &d.alloc);
    add_table(&e, held->id, 0, number);
    CHECK_EQ(version_edit_rename_ks(&e, held->id, LOAM_LIT("seven")), LOAM_OK);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    char name[256];
    CHECK_EQ(keyspace_name(held, name), 5);
    CHECK(strcmp(name, "seven") == 0);
    CHECK(keyspace_get_by_name(&d.vs.keyspaces, LOAM_LIT("ks7")) == NULL);

    version_edit_init(&e, &d.alloc);
    CHECK_EQ(version_edit_drop_ks(&e, held->id), LOAM_OK);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    CHECK(atom_load(&held->dropped, acquire));
    /* A flush that was under way adds a table of the dropped keyspace: it is left out. */
    uint64_t late = version_set_new_file(&d.vs);
    CHECK(make_file(disk, late) >= 0);
    version_edit_init(&e, &d.alloc);
    add_table(&e, held->id, 0, late);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    version_set_reap(&d.vs);
    obsolete_files_purge(&d.obsolete);
    CHECK_EQ(atom_load(&d.obsolete.removed, relaxed), 2);
    keyspace_put(held);
    version_set_reap(&d.vs);
    db_stop(&d);

    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK_EQ(keyspace_table_count(&d.vs.keyspaces), 40);
    CHECK_EQ(version_set_new_ks_id(&d.vs), 41); /* no id comes back */
    db_stop(&d);
    loam_vfs_free(disk);
}

static int reverse(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(b, a);
}

Test(version_set, orders_a_keyspace_when_its_comparator_is_given)
{
    static const loam_comparator cmp = {sizeof cmp, "reverse", reverse, NULL, NULL};
    static const loam_comparator other = {sizeof other, "other", reverse, NULL, NULL};
    loam_vfs *disk = new_disk();
    struct db d;
    struct version_edit e;
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    struct ks_desc k = {.id = (uint32_t)version_set_new_ks_id(&d.vs),
                        .block_bytes = 4096,
                        .name = LOAM_LIT("r"),
                        .comparator = LOAM_LIT("reverse")};
    version_edit_init(&e, &d.alloc);
    CHECK_EQ(version_edit_create_ks(&e, &k), LOAM_OK);
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    CHECK_EQ(version_set_order_ks(&d.vs, k.id, &cmp), LOAM_OK);
    version_edit_init(&e, &d.alloc);
    for (int i = 0; i < 5; i++) {
        uint64_t number = version_set_new_file(&d.vs);
        CHECK(make_file(disk, number) >= 0);
        add_table(&e, k.id, 6, number);
    }
    CHECK_EQ(version_set_apply(&d.vs, &e), LOAM_OK);
    version_edit_free(&e);
    db_stop(&d);

    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK_EQ(version_set_order_ks(&d.vs, k.id, &other), LOAM_E_FORMAT);
    CHECK_EQ(version_set_order_ks(&d.vs, k.id, NULL), LOAM_E_FORMAT);
    const loam_comparator *found;
    CHECK(!keyspace_order_find(&d.vs.keyspaces, k.id, &found));
    CHECK_EQ(version_set_order_ks(&d.vs, k.id, &cmp), LOAM_OK);
    CHECK(keyspace_order_find(&d.vs.keyspaces, k.id, &found) && found == &cmp);
    const struct level *l = &version_ks(version_set_current(&d.vs), k.id)->level[6];
    CHECK_EQ(l->count, 5);
    for (uint32_t i = 0; i + 1 < l->count; i++) {
        CHECK(l->tables[i]->meta.number > l->tables[i + 1]->meta.number);
    }
    db_stop(&d);
    loam_vfs_free(disk);
}

static uint64_t file_size(const loam_vfs *vfs, const char *path)
{
    loam_file *f;
    uint64_t size = 0;
    CHECK(vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f) >= 0);
    CHECK(vfs->size(vfs->ctx, f, &size) >= 0);
    vfs->close(vfs->ctx, f);
    return size;
}

static void change_file(const loam_vfs *vfs, const char *path, uint64_t at, uint8_t flip, bool cut)
{
    loam_file *f;
    uint8_t b;
    CHECK(vfs->open(vfs->ctx, path, LOAM_VFS_READ | LOAM_VFS_WRITE, &f) >= 0);
    if (cut) {
        CHECK(vfs->truncate(vfs->ctx, f, at) >= 0);
    } else {
        CHECK_EQ(vfs->read(vfs->ctx, f, &b, 1, at), 1);
        b ^= flip;
        CHECK_EQ(vfs->write(vfs->ctx, f, &b, 1, at), 1);
    }
    vfs->close(vfs->ctx, f);
}

static void copy_file(const loam_vfs *vfs, const char *from, const char *to)
{
    static uint8_t bytes[1 << 16];
    loam_file *f;
    CHECK(vfs->open(vfs->ctx, from, LOAM_VFS_READ, &f) >= 0);
    int64_t n = vfs->read(vfs->ctx, f, bytes, sizeof bytes, 0);
    vfs->close(vfs->ctx, f);
    CHECK(n >= 0 && (size_t)n < sizeof bytes);
    CHECK(vfs->open(vfs->ctx, to, LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, &f) >= 0);
    CHECK_EQ(vfs->write(vfs->ctx, f, bytes, (size_t)n, 0), n);
    vfs->close(vfs->ctx, f);
}

Test(version_set, accepts_no_damage_after_a_clean_close)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0};
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    }
    CHECK_EQ(version_set_close_clean(&d.vs, 9, 800), LOAM_OK);
    db_stop(&d);
    static const char *files[] = {"/db/CURRENT", "/db/MANIFEST-000000000001"};
    for (int which = 0; which < 2; which++) {
        copy_file(disk, files[which], "/db/saved");
        uint64_t size = file_size(disk, "/db/saved");
        for (uint64_t at = 0; at < size; at++) {
            for (int cut = 0; cut < 2; cut++) {
                change_file(disk, files[which], at, (uint8_t)(1u << (at % 8)), cut != 0);
                db_start(&d, disk, true, 0);
                int rc = version_set_recover(&d.vs);
                CHECK(rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
                db_stop(&d);
                copy_file(disk, "/db/saved", files[which]);
            }
        }
    }
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    uint64_t number, position;
    CHECK(version_set_sealed(&d.vs, &number, &position));
    CHECK(number == 9 && position == 800);
    copy_file(disk, files[1], "/db/saved");
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK); /* the first edit forgets the close */
    CHECK(!version_set_sealed(&d.vs, &number, &position));
    db_stop(&d);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK(!version_set_sealed(&d.vs, &number, &position));
    CHECK_EQ(tables_of(&d.vs).count, 5);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, reports_missing_files)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0};
    char path[FILENAME_CAP];
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    db_stop(&d);
    CHECK(disk->rename(disk->ctx, "/db/CURRENT", "/db/hidden") >= 0);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_CORRUPT); /* tables without CURRENT */
    db_stop(&d);
    CHECK(disk->rename(disk->ctx, "/db/hidden", "/db/CURRENT") >= 0);
    CHECK_EQ(filename_make("/db", FILE_TABLE, state.n[0], path), LOAM_OK);
    CHECK(disk->remove(disk->ctx, path) >= 0);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_CORRUPT);
    CHECK(loam_last_error()->file_id == state.n[0]);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, cleans_the_directory_but_leaves_strangers)
{
    loam_vfs *disk = new_disk();
    struct db d;
    struct numbers state = {.count = 0};
    static const char *names[] = {"/db/000000000900.sst",      "/db/000000000901.tmp",
                                  "/db/MANIFEST-000000000902", "/db/000000000001.log",
                                  "/db/000000000999.log",      "/db/notes.txt"};
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    }
    db_stop(&d);
    for (size_t i = 0; i < 6; i++) {
        loam_file *f;
        CHECK(disk->open(disk->ctx, names[i], LOAM_VFS_WRITE | LOAM_VFS_NEW, &f) >= 0);
        disk->close(disk->ctx, f);
    }
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    CHECK_EQ(version_set_next_file(&d.vs), 1000); /* above every file that is there */
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    uint64_t log = version_set_log_number(&d.vs);
    CHECK(log > 999);
    CHECK_EQ(version_set_clean_directory(&d.vs, NULL, NULL), LOAM_OK);
    for (size_t i = 0; i < 6; i++) {
        loam_file *f = NULL;
        int rc = disk->open(disk->ctx, names[i], LOAM_VFS_READ, &f);
        CHECK_EQ(rc >= 0, i == 5);
        if (rc >= 0) {
            disk->close(disk->ctx, f);
        }
    }
    db_stop(&d);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    db_stop(&d);
    loam_vfs_free(disk);
}

/* A worker takes a number for a file in the middle of a new manifest. */
static struct {
    const loam_vfs *disk;
    struct version_set *set;
} busy;

static int open_busily(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    if ((flags & LOAM_VFS_NEW) != 0) {
        (void)version_set_new_file(busy.set);
    }
    return busy.disk->open(ctx, path, flags, f);
}

Test(version_set, a_new_manifest_with_an_edit_reads_back_beside_workers)
{
    loam_vfs *disk = new_disk();
    loam_vfs vfs = *disk;
    struct db d;
    struct numbers state = {.count = 0};
    vfs.open = open_busily;
    db_start(&d, &vfs, false, 0);
    busy.disk = disk;
    busy.set = &d.vs;
    CHECK_EQ(version_set_recover(&d.vs), LOAM_E_NOENT);
    CHECK_EQ(make_db(&d), LOAM_OK); /* its first edit ends a snapshot */
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    db_stop(&d);
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    db_stop(&d);
    loam_vfs_free(disk);
}

/* ---- faults ---------------------------------------------------------------------------------- */

/* What the disk holds now must open to `acked` or `maybe`. False: there was no database yet. */
static bool check_disk(const loam_vfs *disk, const struct numbers *acked,
                       const struct numbers *maybe, bool must_exist)
{
    struct db d;
    db_start(&d, disk, true, 0);
    int rc = version_set_recover(&d.vs);
    if (rc != LOAM_OK && (must_exist || rc != LOAM_E_NOENT)) {
        CHECK_FAIL_("recover gave %d: %s", rc, loam_last_error()->message);
    }
    if (rc == LOAM_OK) {
        struct numbers now = tables_of(&d.vs);
        CHECK(same(&now, acked) || same(&now, maybe));
    }
    db_stop(&d);
    return rc == LOAM_OK;
}

static void check_cuts(loam_vfs *faulty, const struct numbers *acked, const struct numbers *maybe,
                       bool must_exist)
{
    for (uint64_t variant = 0; variant < 9; variant++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(faulty, variant, &after), LOAM_OK);
        check_disk(after, acked, maybe, must_exist);
        loam_vfs_free(after);
    }
}

struct mode {
    int32_t error;
    uint32_t repeat;
    uint32_t short_writes;
    uint32_t calls; /* LOAM_CALL_* that fail; 0: all */
};

/* As each open makes one before there are tables it could add. */
static int opening_edit(struct db *d)
{
    struct version_edit e;
    version_edit_init(&e, d->vs.options.alloc);
    int rc = version_set_apply(&d->vs, &e);
    version_edit_free(&e);
    return rc;
}

/* A run with one fault plan. Returns false once the plan lies beyond the run's last call. */
static bool faulty_run(uint64_t fail_at, struct mode mode)
{
    loam_vfs *disk = new_disk();
    loam_vfs *faulty;
    loam_fault_plan plan = {.struct_size = sizeof plan,
                            .seed = fail_at,
                            .fail_at = fail_at,
                            .fail_errno = mode.error,
                            .fail_repeat = mode.repeat,
                            .short_writes = mode.short_writes,
                            .fail_calls = mode.calls};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &faulty), LOAM_OK);
    struct db d;
    struct numbers acked = {.count = 0}, maybe = {.count = 0}, next;
    bool exists = false;
    for (int opening = 0; opening < 2; opening++) {
        db_start(&d, faulty, false, 600);
        int rc = version_set_recover(&d.vs);
        if (rc == LOAM_E_NOENT) {
            CHECK(!exists || loam_last_error()->sys_errno != 0);
            rc = exists ? rc : make_db(&d);
        }
        if (rc == LOAM_OK && opening != 0 && exists) {
            rc = opening_edit(&d);
        }
        for (int i = 0; rc == LOAM_OK && i < 6; i++) {
            exists = true;
            struct numbers now = tables_of(&d.vs);
            CHECK(same(&now, &acked) || same(&now, &maybe));
            acked = now;
            int applied = step(&d, &acked, i % 2 == 1, &next);
            maybe = applied == LOAM_OK || version_set_in_doubt(&d.vs) ? next : acked;
            acked = applied == LOAM_OK ? next : acked;
            check_cuts(faulty, &acked, &maybe, true);
            if (version_set_in_doubt(&d.vs)) {
                CHECK((loam_last_error()->flags & LOAM_ERR_STICKY) != 0 ||
                      loam_last_error()->code == LOAM_E_NOSPACE);
                if (version_set_resume(&d.vs) != LOAM_OK) {
                    break; /* what may be on disk is still one of the two */
                }
                maybe = acked;
                obsolete_files_purge(&d.obsolete);
                check_cuts(faulty, &acked, &acked, true);
            }
        }
        if (rc == LOAM_OK && opening == 0 && !version_set_in_doubt(&d.vs)) {
            (void)version_set_close_clean(&d.vs, 0, 0);
        }
        db_stop(&d);
        check_cuts(faulty, &acked, &maybe, exists);
    }
    uint64_t calls = loam_vfs_calls_of(faulty, mode.calls != 0 ? mode.calls : LOAM_CALL_ALL);
    plan.fail_at = 0;
    CHECK_EQ(loam_vfs_set_plan(faulty, &plan), LOAM_OK);
    /* With a healthy disk everything goes on. */
    db_start(&d, faulty, false, 0);
    int rc = version_set_recover(&d.vs);
    rc = rc == LOAM_E_NOENT && !exists ? make_db(&d) : rc;
    CHECK_EQ(rc, LOAM_OK);
    CHECK_EQ(opening_edit(&d), LOAM_OK);
    acked = tables_of(&d.vs);
    CHECK_EQ(step(&d, &acked, false, &next), LOAM_OK);
    CHECK_EQ(version_set_clean_directory(&d.vs, NULL, NULL), LOAM_OK);
    db_stop(&d);
    check_cuts(faulty, &next, &next, true);
    loam_vfs_free(faulty);
    loam_vfs_free(disk);
    return fail_at <= calls;
}

static void sweep(struct mode mode)
{
    uint64_t n = 1;
    while (faulty_run(n, mode)) {
        n++;
    }
    fprintf(stderr, "%llu calls failed in turn\n", (unsigned long long)n);
}

Test(version_set, loses_nothing_when_any_call_fails_once)
{
    sweep((struct mode){.error = EIO, .repeat = 1});
}

Test(version_set, loses_nothing_when_any_two_calls_in_a_row_fail)
{
    sweep((struct mode){.error = ENOSPC, .repeat = 2, .short_writes = 1});
}

/* The edit may be in the manifest, and no new one settles it: files can be removed meanwhile. */
Test(version_set, loses_nothing_when_any_sync_and_the_next_file_fail)
{
    sweep((struct mode){.error = EIO, .repeat = 2, .calls = LOAM_CALL_SYNC | LOAM_CALL_OPEN});
}

Test(version_set, loses_nothing_when_the_disk_fails_for_good)
{
    sweep((struct mode){.error = EIO, .repeat = UINT32_MAX, .short_writes = 1});
}

Test(version_set, loses_nothing_when_any_call_is_to_be_made_again)
{
    sweep((struct mode){.error = EAGAIN, .repeat = 1, .short_writes = 1});
}
