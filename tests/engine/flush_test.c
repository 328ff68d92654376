/* flush_test.c - A flush does for its tables what it must, and nothing for those that it does not make.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"

TestSuite(flush);

static const loam_vfs *inner;
static _Atomic unsigned syncs; /* of directories */

static int count_sync_dir(void *ctx, const char *dir)
{
    atom_add(&syncs, 1, relaxed);
    return inner->sync_dir(ctx, dir);
}

/* Of deletes of what was never there nothing is left on the way to a table. */
Test(flush, that_makes_no_table_syncs_no_names)
{
    loam_vfs *disk = memory_disk(), counting = *disk;
    inner = disk;
    counting.sync_dir = count_sync_dir;
    loam_options o = small_options(&counting);
    o.durability = LOAM_DUR_MEMORY; /* no log, which has names of its own */
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    put_text(db, NULL, "key", "value");
    unsigned before = atom_load(&syncs, relaxed);
    GOES(loam_flush(db, NULL));
    CHECK(atom_load(&syncs, relaxed) > before);
    loam_ks *ks;
    GOES(loam_ks_open(db, "empty", NULL, &ks));
    before = atom_load(&syncs, relaxed);
    GOES(loam_delete(db, ks, LOAM_LIT("none"), NULL));
    GOES(loam_flush(db, NULL));
    CHECK_EQ(atom_load(&syncs, relaxed), before);
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* The log of an earlier session, which nothing is logged behind: its segments serve no more. */
Test(flush, without_a_log_leaves_none_of_a_session_before, .timeout = 60)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    put_text(db, NULL, "key", "value");
    GOES(loam_close(db));
    CHECK(disk_files(disk, "/db", FILE_LOG) != 0); /* or the test shows nothing */
    loam_options o = small_options(disk);
    o.durability = LOAM_DUR_MEMORY;
    GOES(loam_open("/db", &o, &db));
    expect_text(db, NULL, "key", "value");
    GOES(loam_flush(db, NULL));
    while (disk_files(disk, "/db", FILE_LOG) != 0) {
        thread_sleep_micros(1000);
    }
    expect_text(db, NULL, "key", "value");
    GOES(loam_close(db));
    db = open_small(disk, "/db");
    expect_text(db, NULL, "key", "value");
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
