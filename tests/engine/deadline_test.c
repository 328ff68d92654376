/* deadline_test.c - Writes that find no room while no flush can end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A disk that lets no table be created until it is told so holds every flush back: what a write does then
 * depends on its options alone, and on no clock but its own deadline's.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(deadline, .timeout = 60);

static const loam_vfs *real;
static _Atomic uint32_t held;

static int hold_tables(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    while (strstr(path, ".sst") != NULL && (flags & LOAM_VFS_WRITE) != 0 &&
           atom_load(&held, acquire) != 0) {
        thread_sleep_micros(200);
    }
    return real->open(ctx, path, flags, f);
}

static int put_big(loam_db *db, int i, const loam_write_opts *w)
{
    static const uint8_t value[48 * 1024];
    return loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), w);
}

Test(deadline, ends_a_write_that_finds_no_room)
{
    loam_vfs *disk = memory_disk();
    loam_vfs slow = *disk;
    real = disk;
    slow.open = hold_tables;
    loam_options o = small_options(&slow);
    o.max_write_pause_us = 1; /* pacing holds nothing back for long: only the lack of room does */
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    atom_store(&held, 1, release);
    const loam_write_opts now = {.struct_size = sizeof now, .flags = LOAM_W_NOWAIT};
    const loam_write_opts soon = {.struct_size = sizeof soon, .deadline_us = 2000};
    int i = 0, rc;
    while ((rc = put_big(db, i, &now)) == LOAM_OK) {
        CHECK(++i < 1000); /* 48 MB in a database of 1 MB: nothing was held back */
    }
    CHECK_EQ(rc, LOAM_E_BUSY);
    FAILS(put_big(db, i, &soon), LOAM_E_BUSY);
    FAILS(put_big(db, i, &now), LOAM_E_BUSY);
    CHECK_EQ(loam_get(db, NULL, loam_bytes(&i, sizeof i), NULL, 0, NULL, NULL), LOAM_NOTFOUND);
    atom_store(&held, 0, release);
    GOES(put_big(db, i, NULL)); /* waits for the flush, which goes on */
    GOES(loam_get(db, NULL, loam_bytes(&i, sizeof i), NULL, 0, NULL, NULL));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

static void *let_go(void *arg)
{
    (void)arg;
    thread_sleep_micros(50000);
    atom_store(&held, 0, release);
    return NULL;
}

/* A time that would end beyond the end of the clock has no end, and not one that has passed. */
Test(deadline, of_the_largest_number_is_as_none)
{
    loam_vfs *disk = memory_disk();
    loam_vfs slow = *disk;
    real = disk;
    slow.open = hold_tables;
    loam_options o = small_options(&slow);
    o.max_write_pause_us = 1;
    loam_db *db;
    pthread_t t;
    GOES(loam_open("/db", &o, &db));
    atom_store(&held, 1, release);
    const loam_write_opts now = {.struct_size = sizeof now, .flags = LOAM_W_NOWAIT};
    const loam_write_opts ever = {.struct_size = sizeof ever, .deadline_us = UINT64_MAX};
    int i = 0;
    while (put_big(db, i, &now) == LOAM_OK) {
        CHECK(++i < 1000);
    }
    CHECK_EQ(thread_start(&t, let_go, NULL), 0);
    GOES(put_big(db, i, &ever));
    thread_join(t);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
