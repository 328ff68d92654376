/* recovery_memory_test.c - An open keeps to its own budget, whatever budget the log was written under.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>

#include "tests/engine/db_support.h"
#include "tests/engine/log_support.h"
#include "tests/support/disk_files.h"

TestSuite(recovery_memory);

#define KEYS        14000u
#define VALUE_BYTES 1500u /* 21 MB in all */
#define DELETED_LATER 2000u /* puts */
#define BESIDE      ((uint64_t)16 << 20) /* what may be taken beside the budget */

static uint8_t value_bytes[VALUE_BYTES];

static loam_slice key_of(unsigned i, char key[16])
{
    return loam_bytes(key, (size_t)snprintf(key, 16, "%08u", i));
}

/* Nobody else's, and compression gains nothing. */
static loam_slice value_of(unsigned i)
{
    uint64_t x = i + 1;
    for (size_t n = 0; n < VALUE_BYTES; n++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        value_bytes[n] = (uint8_t)(x >> 56);
    }
    return loam_bytes(value_bytes, VALUE_BYTES);
}

static bool is_deleted(unsigned i)
{
    return i % 16 == 3;
}

/* All keys, each sixteenth deleted some MB later, in a log that nothing was flushed from. */
static void write_large_log(const loam_vfs *disk)
{
    loam_options o = small_options(disk);
    o.memory_budget = (uint64_t)1 << 30;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    grow_log(db);
    char key[16];
    for (unsigned i = 0; i < KEYS + DELETED_LATER; i++) {
        if (i < KEYS) {
            GOES(loam_put(db, NULL, key_of(i, key), value_of(i), NULL));
        }
        if (i >= DELETED_LATER && is_deleted(i - DELETED_LATER)) {
            GOES(loam_delete(db, NULL, key_of(i - DELETED_LATER, key), NULL));
        }
    }
    GOES(loam_close(db));
}

static void expect_all(loam_db *db)
{
    char key[16];
    uint8_t buf[VALUE_BYTES];
    size_t n;
    for (unsigned i = 0; i < KEYS; i++) {
        int rc = loam_get(db, NULL, key_of(i, key), buf, sizeof buf, &n, NULL);
        CHECK_EQ(rc, is_deleted(i) ? LOAM_NOTFOUND : LOAM_OK);
        if (rc == LOAM_OK) {
            loam_slice v = value_of(i);
            CHECK_BYTES(buf, n, v.data, v.size);
        }
    }
}

static loam_stats stats_of(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    return s;
}

/* What earlier tables hold is deleted by what the log brings later, too. */
Test(recovery_memory, of_a_log_from_a_larger_budget_is_within_the_smaller_one)
{
    loam_vfs *disk = memory_disk();
    write_large_log(disk);
    loam_db *db = open_small(disk, "/db");
    loam_stats s = stats_of(db);
    CHECK(s.memory_peak <= s.memory_budget + BESIDE);
    expect_all(db);
    put_text(db, NULL, "one", "more");
    GOES(loam_close(db));
    db = open_small(disk, "/db");
    expect_all(db);
    expect_text(db, NULL, "one", "more");
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- when no table can be made ------------------------------------------------------------------- */

static const loam_vfs *inner;
static bool no_tables, no_logs, no_remove, full;

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), m = strlen(end);
    return n >= m && strcmp(path + n - m, end) == 0;
}

static int open_some(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    return no_tables && (flags & LOAM_VFS_WRITE) != 0 && ends_in(path, ".sst")
               ? -EIO
               : inner->open(ctx, path, flags, f);
}

static int rename_some(void *ctx, const char *from, const char *to)
{
    return no_logs && ends_in(to, ".log") ? -EIO : inner->rename(ctx, from, to);
}

static int remove_some(void *ctx, const char *path)
{
    return no_remove ? -EIO : inner->remove(ctx, path);
}

static int space_left(void *ctx, const char *path, uint64_t *left, uint64_t *total)
{
    int rc = inner->space(ctx, path, left, total);
    *left = full && rc >= 0 ? (uint64_t)1 << 20 : *left;
    return rc;
}

static loam_vfs failing_disk(const loam_vfs *disk)
{
    loam_vfs v = *disk;
    inner = disk;
    v.open = open_some;
    v.rename = rename_some;
    v.remove = remove_some;
    v.space = space_left;
    return v;
}

/* It is no reason to refuse the open. */
Test(recovery_memory, is_exceeded_when_no_table_can_be_made)
{
    loam_vfs *disk = memory_disk(), failing = failing_disk(disk);
    write_large_log(disk);
    no_tables = true;
    loam_db *db = open_small(&failing, "/db");
    CHECK(stats_of(db).memory_peak > KEYS * VALUE_BYTES);
    expect_all(db);
    no_tables = false;
    GOES(loam_resume(db)); /* a flush may have failed meanwhile */
    GOES(loam_close(db));
    db = open_small(&failing, "/db");
    CHECK(stats_of(db).memory_peak <= stats_of(db).memory_budget + BESIDE);
    expect_all(db);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* What the open needs beside them comes first. */
Test(recovery_memory, is_exceeded_when_the_disk_has_no_room_for_tables)
{
    loam_vfs *disk = memory_disk(), failing = failing_disk(disk);
    write_large_log(disk);
    full = true;
    loam_db *db = open_small(&failing, "/db");
    CHECK(stats_of(db).memory_peak > KEYS * VALUE_BYTES);
    full = false;
    expect_all(db);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* The tables of opens that came to no end go, and are in nobody's way. */
Test(recovery_memory, is_kept_by_the_open_after_one_that_failed)
{
    loam_vfs *disk = memory_disk(), failing = failing_disk(disk);
    write_large_log(disk);
    loam_options o = small_options(&failing);
    loam_db *db;
    no_logs = no_remove = true;
    FAILS(loam_open("/db", &o, &db), LOAM_E_IO);
    CHECK(disk_files(disk, "/db", FILE_TABLE) != 0); /* or the test shows nothing */
    no_remove = false;
    FAILS(loam_open("/db", &o, &db), LOAM_E_IO);
    CHECK_EQ(disk_files(disk, "/db", FILE_TABLE), 0);
    no_logs = false;
    db = open_small(&failing, "/db");
    CHECK(stats_of(db).memory_peak <= stats_of(db).memory_budget + BESIDE);
    expect_all(db);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- a damaged log ------------------------------------------------------------------------------- */

/* In the middle of the log, which is one segment. */
static void damage_log(const loam_vfs *disk)
{
    static const uint8_t zeros[1 << 16];
    const struct file_on_disk log = disk_file_of(disk, "/db", FILE_LOG, 0);
    loam_file *f;
    CHECK_EQ(disk->open(disk->ctx, log.path, LOAM_VFS_READ | LOAM_VFS_WRITE, &f), 0);
    CHECK_EQ(disk->write(disk->ctx, f, zeros, sizeof zeros, (uint64_t)KEYS * VALUE_BYTES / 2),
             (int64_t)sizeof zeros);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
}

/* What only the clean close knew of its end is not forgotten by opens that fail. */
Test(recovery_memory, is_no_reason_to_forget_where_the_log_ended)
{
    loam_vfs *disk = memory_disk();
    write_large_log(disk);
    damage_log(disk);
    loam_options o = small_options(disk);
    loam_db *db;
    FAILS(loam_open("/db", &o, &db), LOAM_E_CORRUPT);
    FAILS(loam_open("/db", &o, &db), LOAM_E_CORRUPT);
    CHECK_EQ(disk_files(disk, "/db", FILE_TABLE), 0);
    loam_vfs_free(disk);
}
