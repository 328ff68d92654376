/* wait_idle_test.c - Waiting for rest does what otherwise waits for quiet times.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "arena/sync.h"
#include "engine/db.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

TestSuite(wait_idle, .timeout = 60);

enum { TABLES = 7, KEYS = 300, MANY = 3000 };

static void put_all(loam_db *db, int version, int keys)
{
    uint8_t value[200];
    memset(value, version, sizeof value);
    for (int i = 0; i < keys; i++) {
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), NULL));
    }
}

static uint64_t level_0(loam_db *db)
{
    uint64_t files;
    GOES(loam_property(db, NULL, "level.0.files", &files));
    return files;
}

/* Fewer tables than level 0 may have while the database is written to, more than at rest. */
static void make_tables(loam_db *db)
{
    GOES(loam_pause(db, 1));
    for (int i = 1; i <= TABLES; i++) {
        put_all(db, i, KEYS);
        GOES(loam_flush(db, NULL));
    }
    CHECK_EQ(level_0(db), TABLES);
}

Test(wait_idle, leaves_few_tables_in_level_0)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    make_tables(db);
    GOES(loam_wait_idle(db, 0)); /* paused: nothing is due */
    CHECK_EQ(level_0(db), TABLES);
    GOES(loam_pause(db, 0));
    GOES(loam_wait_idle(db, 0));
    CHECK(level_0(db) < 4);
    GOES(loam_wait_idle(db, 0));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Few tables stay in level 0, until the seeks that had to look into them have cost as much as a merge and
 * nobody writes. The runner ends a test that waits for ever. */
Test(wait_idle, leaves_what_seeks_then_ask_to_be_merged)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    put_all(db, 1, MANY);
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    for (int i = 0; i < 2; i++) {
        for (int key = i; key < MANY; key += MANY / 5) {
            GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes("new", 3), NULL));
        }
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(level_0(db), 2);
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    for (int i = 0; i < 1000; i++) { /* some 8 MB of blocks for a merge of 600 KB */
        int key = i % MANY;
        GOES(loam_iter_seek(it, loam_bytes(&key, sizeof key)));
    }
    while (level_0(db) != 0) {
        thread_sleep_micros(10000);
    }
    GOES(loam_wait_idle(db, 0));
    int key = MANY / 5;
    GOES(loam_iter_seek(it, loam_bytes(&key, sizeof key)));
    CHECK_EQ(loam_iter_value(it).size, 3);
    loam_iter_close(it);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* What cannot be given back is not waited for. */
Test(wait_idle, returns_though_a_snapshot_holds_old_versions)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_db *db;
    loam_snap *snap[TABLES];
    GOES(loam_open("/db", &o, &db));
    for (int i = 0; i < TABLES; i++) {
        put_all(db, i, KEYS);
        GOES(loam_snap_take(db, &snap[i]));
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_wait_idle(db, 0));
    CHECK(level_0(db) < 4);
    for (int i = 0; i < TABLES; i++) {
        uint8_t value[200];
        int key = KEYS / 2;
        loam_read_opts r = {.struct_size = sizeof r, .snap = snap[i]};
        GOES(loam_get(db, NULL, loam_bytes(&key, sizeof key), value, sizeof value, NULL, &r));
        CHECK_EQ(value[7], i);
        loam_snap_release(snap[i]);
    }
    GOES(loam_wait_idle(db, 0));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* What a close has cut off is not under way any more when the waiter looks: it is not done for that. */
Test(wait_idle, does_not_call_idle_what_is_being_closed)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    GOES(loam_wait_idle(db, 0));
    struct db *in = db_behind(db);
    atom_store(&in->stopping, true, release);
    FAILS(loam_wait_idle(db, 0), LOAM_E_CLOSED);
    atom_store(&in->stopping, false, release);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
