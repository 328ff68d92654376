/* replaced_test.c - Another directory stands where that of an open database was.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A is open in /db, which is renamed to /moved; then B, another database or a copy of A, is there. Oracle: no
 * call of A changes a byte of /db, what A was asked for and could not do is an error, what A has acknowledged
 * is in /moved, and B holds what it held.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "arena/hash.h"
#include "arena/sync.h"
#include "engine/db.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"

#define KEYS  400u
#define VALUE 1000u

TestSuite(replaced);

static loam_vfs *disk;

static int put(loam_db *db, unsigned key)
{
    char value[VALUE];
    memset(value, (int)('a' + key % 26), sizeof value);
    return loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, sizeof value), NULL);
}

static void fill(loam_db *db, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        GOES(put(db, i));
        if (i % (KEYS / 4) == 0) {
            GOES(loam_flush(db, NULL));
        }
    }
}

static void expect(const char *dir, unsigned from, unsigned to)
{
    loam_options o = small_options(disk);
    o.flags = LOAM_OPEN_MUST_EXIST;
    GOES(loam_check(dir, &o, NULL, NULL));
    loam_db *db;
    GOES(loam_open(dir, &o, &db));
    for (unsigned i = 0; i < to + KEYS; i++) {
        int rc = loam_get(db, NULL, loam_bytes(&i, sizeof i), NULL, 0, NULL, NULL);
        CHECK_EQ(rc, i >= from && i < to ? LOAM_OK : LOAM_NOTFOUND);
    }
    GOES(loam_close(db));
}

/* ---- the files of a directory ------------------------------------------------------------------ */

struct walk {
    const char *from, *to; /* to: NULL, or where copies go */
    uint64_t sum;          /* of names and bytes; the order does not matter */
};

static int walk_name(void *arg, loam_slice name)
{
    struct walk *w = arg;
    char path[128];
    size_t n;
    snprintf(path, sizeof path, "%s/%.*s", w->from, (int)name.size, (const char *)name.data);
    uint8_t *bytes = disk_file_read(disk, path, &n);
    w->sum += checksum64(bytes, n, hash_key(name.data, name.size));
    if (w->to != NULL) {
        snprintf(path, sizeof path, "%s/%.*s", w->to, (int)name.size, (const char *)name.data);
        disk_file_write(disk, path, bytes, n);
    }
    free(bytes);
    return 0;
}

static uint64_t sum_of(const char *dir)
{
    struct walk w = {.from = dir};
    CHECK_EQ(disk->list(disk->ctx, dir, walk_name, &w), 0);
    return w.sum;
}

static void copy_directory(const char *from, const char *to)
{
    struct walk w = {.from = from, .to = to};
    CHECK_EQ(disk->mkdir(disk->ctx, to), 0);
    CHECK_EQ(disk->list(disk->ctx, from, walk_name, &w), 0);
}

static void move(const char *from, const char *to)
{
    CHECK_EQ(disk->rename(disk->ctx, from, to), 0);
}

/* ---- the cases --------------------------------------------------------------------------------- */

static loam_db *open_first(void)
{
    disk = memory_disk();
    loam_db *a = open_small(disk, "/db");
    fill(a, 0, KEYS);
    return a;
}

/* What was met before may be told until it is tried again. */
static void refused(loam_db *a)
{
    CHECK_EQ(loam_flush(a, NULL), LOAM_E_IO);
    CHECK_EQ(loam_resume(a), LOAM_E_IO);
    CHECK_EQ(loam_last_error()->sys_errno, ESTALE);
}

/* All that needs names: tables, a log, the manifest, files that go. Returns how many keys A acknowledged. */
static unsigned use_elsewhere(loam_db *a)
{
    unsigned acked = KEYS;
    loam_error why;
    while (put(a, acked) == LOAM_OK) {
        acked++;
        CHECK(acked < 100 * KEYS);
    }
    CHECK(loam_compact(a, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0) < 0);
    refused(a);
    CHECK_EQ(loam_health(a, &why), LOAM_REFUSING_WRITES);
    CHECK_EQ(why.sys_errno, ESTALE);
    return acked;
}

/* ends: A is closed, too, while B stands there; else it moves back and goes on. */
static void beside(const char *b, unsigned first, bool closed, bool ends)
{
    loam_db *a = open_first(), *other = NULL;
    if (first != 0) {
        loam_db *made = open_small(disk, b);
        fill(made, first, first + 2 * KEYS);
        GOES(loam_close(made));
    } else {
        GOES(loam_close(a));
        copy_directory("/db", b);
        a = open_small(disk, "/db");
    }
    move("/db", "/moved");
    move(b, "/db");
    if (!closed) {
        other = open_small(disk, "/db");
    }
    uint64_t before = sum_of("/db");
    unsigned acked = use_elsewhere(a);
    if (closed) { /* an open one may change what it likes */
        CHECK_EQ(sum_of("/db"), before);
    } else {
        GOES(loam_close(other));
    }
    if (ends) {
        (void)!loam_close(a);
    }
    expect("/db", first, first != 0 ? first + 2 * KEYS : KEYS);
    move("/db", b);
    move("/moved", "/db");
    if (!ends) {
        GOES(loam_resume(a));
        fill(a, acked, acked + KEYS);
        acked += KEYS;
        GOES(loam_close(a));
    }
    expect("/db", 0, acked);
    loam_vfs_free(disk);
}

Test(replaced, by_a_database_that_is_closed_it_is_left_as_it_is)
{
    beside("/other", 100000, true, true);
    beside("/other", 100000, true, false);
}

Test(replaced, by_a_database_that_is_open_it_is_left_as_it_is)
{
    beside("/other", 100000, false, true);
    beside("/other", 100000, false, false);
}

Test(replaced, by_a_copy_it_is_left_as_it_is)
{
    beside("/copy", 0, true, true);
    beside("/copy", 0, true, false);
    beside("/copy", 0, false, true);
}

/* A directory that is somewhere else is no damage: no table of it is missing, nor is what is to be removed gone. */
static void is_elsewhere(int rc)
{
    CHECK_EQ(rc, LOAM_E_IO);
    CHECK_EQ(loam_last_error()->sys_errno, ESTALE);
}

Test(replaced, by_nothing_it_misses_no_file)
{
    enum { FILES = 16, MANY = 8000 };
    disk = memory_disk();
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    loam_error why;
    loam_db *a;
    o.max_open_files = FILES;
    o.default_ks = &plain;
    GOES(loam_open("/db", &o, &a));
    for (unsigned i = 0; i < MANY; i++) {
        GOES(put(a, i));
    }
    GOES(loam_flush(a, NULL));
    GOES(loam_wait_idle(a, 0));
    GOES(loam_pause(a, 1));
    GOES(put(a, 0));
    GOES(put(a, MANY - 1));
    GOES(loam_flush(a, NULL)); /* something to merge with all others */
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(a, NULL, &s));
    CHECK(s.files > FILES); /* so that some are shut */
    move("/db", "/moved");
    for (unsigned i = 0; i < MANY; i += 4) {
        int rc = loam_get(a, NULL, loam_bytes(&i, sizeof i), NULL, 0, NULL, NULL);
        if (rc != LOAM_OK) {
            is_elsewhere(rc);
        }
    }
    is_elsewhere(loam_compact(a, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    is_elsewhere(loam_verify(a, NULL, NULL));
    CHECK_EQ(loam_health(a, &why), LOAM_REFUSING_WRITES);
    CHECK_EQ(why.sys_errno, ESTALE);
    struct db *in = db_behind(a);
    CHECK_EQ(in->vfs->remove(in->vfs->ctx, "/db/000000000001.sst"), -ESTALE);
    move("/moved", "/db");
    GOES(loam_resume(a));
    GOES(loam_close(a));
    expect("/db", 0, MANY);
    loam_vfs_free(disk);
}

/* A makes files ahead of time; none of them is where B begins. */
Test(replaced, by_a_database_made_there_it_works)
{
    loam_db *a = open_first();
    move("/db", "/moved");
    loam_db *b = open_small(disk, "/db");
    fill(b, 100000, 100000 + KEYS);
    unsigned acked = use_elsewhere(a);
    fill(b, 100000 + KEYS, 100000 + 2 * KEYS);
    GOES(loam_close(b));
    (void)!loam_close(a);
    expect("/db", 100000, 100000 + 2 * KEYS);
    expect("/moved", 0, acked);
    loam_vfs_free(disk);
}

/* Whoever removes a lock lets another process in: from then on two would write the same files. */
Test(replaced, without_its_lock_a_database_makes_no_more_files)
{
    loam_db *a = open_first();
    CHECK_EQ(disk->remove(disk->ctx, "/db/LOCK"), 0);
    GOES(put(a, KEYS));
    CHECK_EQ(loam_flush(a, NULL), LOAM_E_IO);
    CHECK_EQ(loam_last_error()->sys_errno, ESTALE);
    loam_db *b = open_small(disk, "/db");
    refused(a);
    (void)!loam_close(a);
    GOES(loam_close(b));
    loam_vfs_free(disk);
}

/* Not all that is in the way is in another directory. */
Test(replaced, a_file_under_the_name_of_a_table_to_come_is_left)
{
    loam_db *a = open_first();
    char path[64];
    loam_file *f;
    uint64_t planted = 0;
    for (unsigned i = 1; i < 200; i++) {
        snprintf(path, sizeof path, "/db/%012u.sst", i);
        if (disk->open(disk->ctx, path, LOAM_VFS_READ, &f) == 0) {
            CHECK_EQ(disk->close(disk->ctx, f), 0);
        } else {
            disk_file_write(disk, path, "not ours", 8);
            planted |= i < 64 ? (uint64_t)1 << i : 0;
        }
    }
    GOES(put(a, KEYS));
    CHECK(loam_flush(a, NULL) < 0);
    CHECK(loam_flush(a, NULL) < 0);
    thread_sleep_micros(300000); /* what is obsolete goes now */
    for (unsigned i = 1; i < 64; i++) {
        if ((planted >> i & 1) != 0) {
            size_t n;
            snprintf(path, sizeof path, "/db/%012u.sst", i);
            uint8_t *bytes = disk_file_read(disk, path, &n);
            CHECK_BYTES(bytes, n, "not ours", 8);
            free(bytes);
        }
    }
    (void)!loam_close(a);
    loam_vfs_free(disk);
}
