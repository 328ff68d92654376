/* pause_test.c - A pause waits for the merges that run, and only as long as it is one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(pause, .timeout = 60);

static const loam_vfs *inner;
static _Atomic bool holding;  /* no table is made */
static _Atomic unsigned held; /* threads that wait for it */

static int open_held(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    size_t n = strlen(path);
    bool table = (flags & LOAM_VFS_NEW) != 0 && n > 4 && strcmp(path + n - 4, ".sst") == 0;
    if (table) {
        atom_add(&held, 1, relaxed);
    }
    while (table && atom_load(&holding, relaxed)) {
        thread_sleep_micros(1000);
    }
    return inner->open(ctx, path, flags, f);
}

static void *compact(void *arg)
{
    loam_slice all = loam_bytes(NULL, 0);
    GOES(loam_compact(arg, NULL, all, all, 0));
    return NULL;
}

static _Atomic bool paused;

static void *pause_all(void *arg)
{
    GOES(loam_pause(arg, 1));
    atom_store(&paused, true, relaxed);
    return NULL;
}

/* Others have ended it: there is nothing to wait for any more. */
Test(pause, that_somebody_ends_does_not_wait_on)
{
    loam_vfs *disk = memory_disk(), slow = *disk;
    inner = disk;
    slow.open = open_held;
    loam_options o = small_options(&slow);
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    for (int i = 0; i < 2; i++) { /* two tables to be merged */
        put_text(db, NULL, "key", i == 0 ? "old" : "new");
        GOES(loam_flush(db, NULL));
    }
    atom_store(&held, 0, relaxed);
    atom_store(&holding, true, relaxed);
    pthread_t merger, pauser;
    CHECK_EQ(pthread_create(&merger, NULL, compact, db), 0);
    while (atom_load(&held, relaxed) == 0) {
        thread_sleep_micros(1000);
    }
    CHECK_EQ(pthread_create(&pauser, NULL, pause_all, db), 0);
    while (!atom_load(&paused, relaxed)) { /* the pause may begin behind the first of these */
        GOES(loam_pause(db, 0));
        thread_sleep_micros(1000);
    }
    CHECK(atom_load(&holding, relaxed));
    atom_store(&holding, false, relaxed);
    CHECK_EQ(pthread_join(pauser, NULL), 0);
    CHECK_EQ(pthread_join(merger, NULL), 0);
    expect_text(db, NULL, "key", "new");
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
