/* doubt_test.c - The table of a merge whose edit may be on disk stays as long as that is not known.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The sync of the manifest fails and no other one can be begun. Oracle: whether the edit arrived or not, the
 * database opens behind a power cut and has each key; and the table that the edit would have added is gone
 * once a new manifest says that it was not made.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/engine/db_support.h"

#define KEYS 200u

TestSuite(doubt);

static struct {
    const loam_vfs *inner;
    _Atomic(loam_file *) manifest; /* the one in use; NULL once its sync has failed: it is closed then */
    _Atomic bool sick;
    bool arrives;    /* what is written before the sync that fails */
    char table[256]; /* the last that was begun */
} disk;

static int open_or_fail(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    bool manifest = strstr(path, "/MANIFEST-") != NULL;
    if (manifest && disk.sick) {
        return -EIO;
    }
    if ((flags & LOAM_VFS_NEW) != 0 && strstr(path, ".sst") != NULL) {
        snprintf(disk.table, sizeof disk.table, "%s", path);
    }
    int rc = disk.inner->open(ctx, path, flags, f);
    if (rc >= 0 && manifest && (flags & LOAM_VFS_WRITE) != 0) {
        disk.manifest = *f;
    }
    return rc;
}

static int sync_or_fail(void *ctx, loam_file *f, uint32_t data_only)
{
    bool fails = disk.sick && f == disk.manifest;
    int rc = fails && !disk.arrives ? 0 : disk.inner->sync(ctx, f, data_only);
    if (fails) {
        disk.manifest = NULL;
        return -EIO;
    }
    return rc;
}

struct doubtful {
    loam_vfs *memory, *fault, vfs;
    loam_db *db;
};

/* Two tables of the same keys, and a merge of them of which nobody knows whether it was. */
static void doubtful_open(struct doubtful *d, bool arrives)
{
    const loam_fault_plan none = {.struct_size = sizeof none};
    const loam_slice all = {NULL, 0};
    d->memory = memory_disk();
    GOES(loam_vfs_fault(d->memory, &none, &d->fault));
    d->vfs = *d->fault;
    d->vfs.open = open_or_fail;
    d->vfs.sync = sync_or_fail;
    disk.inner = d->fault;
    disk.arrives = arrives;
    d->db = open_small(&d->vfs, "/db");
    GOES(loam_pause(d->db, 1));
    for (unsigned i = 0; i < 2 * KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%04u", i % KEYS);
        put_text(d->db, NULL, key, i < KEYS ? "old" : "new");
        if (i % KEYS == KEYS - 1) {
            GOES(loam_flush(d->db, NULL));
        }
    }
    disk.sick = true;
    FAILS(loam_compact(d->db, NULL, all, all, 0), LOAM_E_IO);
    CHECK_EQ(loam_health(d->db, NULL), LOAM_REFUSING_WRITES);
}

static void doubtful_free(struct doubtful *d)
{
    loam_vfs_free(d->fault);
    loam_vfs_free(d->memory);
}

static bool table_is_there(const loam_vfs *vfs)
{
    loam_file *f;
    int rc = vfs->open(vfs->ctx, disk.table, LOAM_VFS_READ, &f);
    CHECK(rc >= 0 || rc == -ENOENT);
    if (rc >= 0) {
        vfs->close(vfs->ctx, f);
    }
    return rc >= 0;
}

static void crash_in_doubt(bool arrives)
{
    struct doubtful d;
    loam_vfs *after;
    doubtful_open(&d, arrives);
    CHECK(loam_close(d.db) < 0); /* files that wait for their removal are removed */
    CHECK(table_is_there(d.fault));
    GOES(loam_vfs_power_cut(d.fault, LOAM_CUT_SYNCED, &after));
    loam_db *db = open_small(after, "/db");
    CHECK_EQ(table_is_there(after), arrives); /* what nothing names is removed */
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%04u", i);
        expect_text(db, NULL, key, "new");
    }
    GOES(loam_close(db));
    loam_vfs_free(after);
    doubtful_free(&d);
}

Test(doubt, a_crash_with_the_edit_on_disk_finds_its_table)
{
    crash_in_doubt(true);
}

Test(doubt, a_crash_without_the_edit_finds_what_was_merged)
{
    crash_in_doubt(false);
}

Test(doubt, ends_with_the_removal_of_the_table)
{
    struct doubtful d;
    doubtful_open(&d, true);
    CHECK(table_is_there(d.fault));
    disk.sick = false;
    GOES(loam_resume(d.db));
    GOES(loam_close(d.db));
    CHECK(!table_is_there(d.fault));
    doubtful_free(&d);
}
