/* version_set_test.c - Edits, tables and keyspaces are there after a reopen, and damage is told.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "tests/engine/version_set_support.h"
#include "tests/support/disk_files.h"

Test(version_set, finds_no_database_and_makes_one)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    db_new(&d, disk, 0);
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
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_new(&d, disk, 4096); /* small manifests: many roll over */
    for (int i = 0; i < 400; i++) {
        CHECK_EQ(step(&d, &state, state.count > 50, &next), LOAM_OK);
        state = next;
        if (i % 97 == 96) {
            uint64_t log = version_set_log_number(&d.vs);
            uint64_t seq = version_set_last_seq(&d.vs);
            db_reopen(&d, disk, 4096);
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
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_new(&d, disk, 0);
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
    db_reopen(&d, disk, 0);
    CHECK(version_table(version_set_current(&d.vs), 0, 6, number) != NULL);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, keeps_an_old_version_while_it_is_referenced)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0}, next;
    db_new(&d, disk, 0);
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
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct version_edit e;
    db_new(&d, disk, 0);
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
    db_reopen(&d, disk, 0);
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
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct version_edit e;
    db_new(&d, disk, 0);
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
    db_reopen(&d, disk, 0);
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

Test(version_set, accepts_no_damage_after_a_clean_close)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0};
    db_new(&d, disk, 0);
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(step(&d, &state, false, &state), LOAM_OK);
    }
    CHECK_EQ(version_set_close_clean(&d.vs, 9, 800), LOAM_OK);
    db_stop(&d);
    static const char *files[] = {"/db/CURRENT", "/db/MANIFEST-000000000001"};
    for (int which = 0; which < 2; which++) {
        size_t size;
        uint8_t *saved = disk_file_read(disk, files[which], &size);
        for (uint64_t at = 0; at < size; at++) {
            for (int cut = 0; cut < 2; cut++) {
                if (cut != 0) {
                    disk_file_write(disk, files[which], saved, at);
                } else {
                    disk_file_flip(disk, files[which], at, (uint8_t)(1u << (at % 8)));
                }
                db_start(&d, disk, true, 0);
                int rc = version_set_recover(&d.vs);
                CHECK(rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
                db_stop(&d);
                disk_file_write(disk, files[which], saved, size);
            }
        }
        free(saved);
    }
    db_start(&d, disk, false, 0);
    CHECK_EQ(version_set_recover(&d.vs), LOAM_OK);
    uint64_t number, position;
    CHECK(version_set_sealed(&d.vs, &number, &position));
    CHECK(number == 9 && position == 800);
    CHECK_EQ(step(&d, &state, false, &state), LOAM_OK); /* the first edit forgets the close */
    CHECK(!version_set_sealed(&d.vs, &number, &position));
    db_reopen(&d, disk, 0);
    CHECK(!version_set_sealed(&d.vs, &number, &position));
    CHECK_EQ(tables_of(&d.vs).count, 5);
    db_stop(&d);
    loam_vfs_free(disk);
}

Test(version_set, reports_missing_files)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0};
    char path[FILENAME_CAP];
    db_new(&d, disk, 0);
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
    loam_vfs *disk = memory_disk_with("/db");
    struct db d;
    struct numbers state = {.count = 0};
    static const char *names[] = {"/db/000000000900.sst",      "/db/000000000901.tmp",
                                  "/db/MANIFEST-000000000902", "/db/000000000001.log",
                                  "/db/000000000999.log",      "/db/notes.txt"};
    db_new(&d, disk, 0);
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
    db_reopen(&d, disk, 0);
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
    loam_vfs *disk = memory_disk_with("/db");
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
    db_reopen(&d, disk, 0);
    db_stop(&d);
    loam_vfs_free(disk);
}
