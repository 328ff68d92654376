/* older_versions_test.c - What only a released snapshot could read is given back, at the bottom, too.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the number of entries in the tables, which is what was put and is not hidden from everybody.
 */
#include <criterion/criterion.h>

#include "arena/epoch.h"
#include "arena/sync.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "engine/registry.h"
#include "tests/engine/db_support.h"

enum { KEYS = 1200 };

static void put_all(loam_db *db, int round)
{
    char key[16], value[300];
    for (int i = 0; i < KEYS; i++) {
        int n = snprintf(key, sizeof key, "%06d", i);
        memset(value, i * 7 + round * 31, sizeof value);
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)n), loam_bytes(value, sizeof value), NULL));
    }
}

static void merge_all(loam_db *db)
{
    const loam_slice all = {NULL, 0};
    GOES(loam_compact(db, NULL, all, all, 0));
}

/* All entries, all of them in the last level. */
static uint64_t entries_at_the_bottom(loam_db *db)
{
    epoch_enter();
    struct db *in = slotmap_get(&registry_get()->dbs, HANDLE_OF(db));
    const struct ks_version *k = version_ks(version_set_current(&in->versions), 0);
    uint64_t sum = k->level[LEVEL_COUNT - 1].entries;
    for (int n = 0; n < LEVEL_COUNT - 1; n++) {
        CHECK_EQ(k->level[n].count, 0);
    }
    epoch_exit();
    return sum;
}

static uint64_t merges(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    return s.compactions;
}

/* Every key twice at the bottom, the older ones for the snapshot alone. No merge begins by itself. */
static loam_db *open_twice(loam_vfs *disk, loam_snap **s)
{
    loam_db *db = open_small(disk, "/db");
    GOES(loam_pause(db, 1));
    put_all(db, 0);
    GOES(loam_snap_take(db, s));
    put_all(db, 1);
    merge_all(db);
    CHECK_EQ(entries_at_the_bottom(db), 2 * KEYS);
    return db;
}

static void check_and_close(loam_db *db, loam_vfs *disk)
{
    char want[300], got[300];
    size_t n;
    CHECK_EQ(entries_at_the_bottom(db), KEYS);
    for (int i = 0; i < KEYS; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%06d", i);
        memset(want, i * 7 + 31, sizeof want);
        GOES(loam_get(db, NULL, loam_bytes(key, (size_t)size), got, sizeof got, &n, NULL));
        CHECK_BYTES(got, n, want, sizeof want);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(older_versions, of_a_released_snapshot_go_when_merged_by_hand)
{
    loam_vfs *disk = memory_disk();
    loam_snap *s;
    loam_db *db = open_twice(disk, &s);
    loam_snap_release(s);
    merge_all(db);
    check_and_close(db, disk);
}

Test(older_versions, of_a_released_snapshot_go_by_themselves)
{
    loam_vfs *disk = memory_disk();
    loam_snap *s;
    loam_db *db = open_twice(disk, &s);
    loam_snap_release(s);
    GOES(loam_pause(db, 0));
    GOES(loam_wait_idle(db, 0));
    check_and_close(db, disk);
}

/* No snapshot outlives a close, but nobody else knows what it kept. */
Test(older_versions, of_a_snapshot_go_after_a_reopen)
{
    loam_vfs *disk = memory_disk();
    loam_snap *s;
    loam_db *db = open_twice(disk, &s);
    GOES(loam_close(db));
    loam_snap_release(s);
    db = open_small(disk, "/db");
    GOES(loam_wait_idle(db, 0));
    check_and_close(db, disk);
}

Test(older_versions, are_not_looked_for_while_they_can_be_read)
{
    loam_vfs *disk = memory_disk();
    loam_snap *s;
    loam_db *db = open_twice(disk, &s);
    uint64_t before = merges(db);
    merge_all(db);
    GOES(loam_pause(db, 0));
    GOES(loam_wait_idle(db, 0));
    CHECK_EQ(merges(db), before);
    CHECK_EQ(entries_at_the_bottom(db), 2 * KEYS);
    loam_snap_release(s);
    GOES(loam_wait_idle(db, 0));
    check_and_close(db, disk);
}
