/* log_release_test.c - A log segment serves until what it holds is named by a durable edit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A flush is held at its edit while the log goes on over several segments, which would use its file again.
 * Oracle: what a kill leaves at that moment has every acknowledged key.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(log_release, .timeout = 60);

enum { FIRST = 500, MORE = 1300 }; /* keys: of the held flush, and of more than a memtable */

/* A vfs that holds a write to the manifest. */
static struct {
    const loam_vfs *real;
    loam_file *manifest;
    _Atomic bool armed, held, go;
} gate;

static int noting_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    int rc = gate.real->open(ctx, path, flags, f);
    if (rc == 0 && strstr(path, "MANIFEST") != NULL) {
        gate.manifest = *f;
    }
    return rc;
}

static int64_t gated_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    if (f == gate.manifest && atom_swap(&gate.armed, false, acq_rel)) {
        atom_store(&gate.held, true, release);
        while (!atom_load(&gate.go, acquire)) {
            thread_sleep_micros(200);
        }
    }
    return gate.real->write(ctx, f, buf, n, off);
}

static void *flush(void *db)
{
    GOES(loam_flush(db, NULL));
    return NULL;
}

static void put_keys(loam_db *db, int from, int to)
{
    char key[16];
    uint8_t value[100] = {0};
    for (int i = from; i < to; i++) {
        snprintf(key, sizeof key, "key%05d", i);
        GOES(loam_put(db, NULL, text(key), loam_bytes(value, sizeof value), NULL));
    }
}

static void expect_keys(loam_db *db, int n)
{
    char key[16];
    for (int i = 0; i < n; i++) {
        snprintf(key, sizeof key, "key%05d", i);
        int rc = loam_get(db, NULL, text(key), NULL, 0, NULL, NULL);
        if (rc != LOAM_OK) {
            CHECK_FAIL_("%s of %d gives %d", key, n, rc);
        }
    }
}

Test(log_release, waits_for_the_edit_that_names_what_was_flushed)
{
    loam_vfs *disk = memory_disk(), *fault, *after;
    const loam_fault_plan none = {.struct_size = sizeof none};
    GOES(loam_vfs_fault(disk, &none, &fault));
    loam_vfs vfs = *fault;
    gate.real = fault;
    vfs.open = noting_open;
    vfs.write = gated_write;
    loam_db *db = open_small(&vfs, "/db");
    put_keys(db, 0, FIRST);
    atom_store(&gate.armed, true, release);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, flush, db), 0);
    while (!atom_load(&gate.held, acquire)) {
        thread_sleep_micros(200);
    }
    put_keys(db, FIRST, FIRST + MORE);
    GOES(loam_vfs_power_cut(fault, LOAM_CUT_ALL, &after));
    atom_store(&gate.go, true, release);
    CHECK_EQ(pthread_join(t, NULL), 0);
    GOES(loam_close(db));
    db = open_small(after, "/db");
    expect_keys(db, FIRST + MORE);
    GOES(loam_close(db));
    loam_vfs_free(after);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}
