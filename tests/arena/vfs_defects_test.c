/* vfs_defects_test.c - Defects that a disk in memory once had: each test was red before its cure.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/vfs_disk.h"
#include "tests/arena/vfs_contract.h"

static loam_vfs *disk;

static void setup(void)
{
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK_EQ(VFS(disk, mkdir, "/db"), 0);
}

static void teardown(void)
{
    loam_vfs_free(disk);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VFS), 0);
}

TestSuite(vfs_defects, .init = setup, .fini = teardown);

static loam_file *file_of(const loam_vfs *v, const char *path)
{
    loam_file *f;
    CHECK_EQ(VFS(v, open, path, RW | LOAM_VFS_CREATE, &f), 0);
    return f;
}

/* ---- faults ------------------------------------------------------------------------------------ */

static loam_vfs *fault_of(const loam_fault_plan *plan)
{
    loam_vfs *v;
    CHECK_EQ(loam_vfs_fault(disk, plan, &v), LOAM_OK);
    return v;
}

static void expect_durable(loam_vfs *fault, const char *name, const char *text)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(fault, LOAM_CUT_SYNCED, &after), LOAM_OK);
    struct contract c = {.vfs = after, .dir = "/db"};
    expect_file(&c, name, text);
    loam_vfs_free(after);
}

/* A call that a signal interrupted has seen no error of the disk; made again, it does all its work. */
Test(vfs_defects, an_interrupted_sync_drops_nothing)
{
    static const uint32_t kinds[] = {LOAM_CALL_SYNC, LOAM_CALL_WRITE_DURABLE};
    for (size_t i = 0; i < 2; i++) {
        loam_fault_plan plan = {.struct_size = sizeof plan,
                                .fail_at = 1,
                                .fail_errno = EINTR,
                                .fail_calls = kinds[i],
                                .drop_dirty = 1};
        loam_vfs *fault = fault_of(&plan);
        loam_file *f = file_of(fault, "/db/f");
        CHECK_EQ(VFS(fault, write, f, "whole", 5, 0), 5);
        CHECK_EQ(VFS(fault, sync_dir, "/db"), 0);
        if (kinds[i] == LOAM_CALL_SYNC) {
            CHECK_EQ(VFS(fault, sync, f, 1), -EINTR);
        } else {
            CHECK_EQ(VFS(fault, write_durable, f, "W", 1, 0), -EINTR);
        }
        CHECK_EQ(VFS(fault, sync, f, 1), 0);
        expect_durable(fault, "f", "whole");
        CHECK_EQ(VFS(fault, close, f), 0);
        CHECK_EQ(VFS(fault, remove, "/db/f"), 0);
        loam_vfs_free(fault);
    }
}

/* Bytes behind the end of a file are zeros once it grows over them, also after a power cut that left a
 * size inside a page of which more had been written. */
static void expect_zeros_from(loam_vfs *fault, uint64_t variant, uint64_t from, uint64_t size)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(fault, variant, &after), LOAM_OK);
    loam_file *f = file_of(after, "/db/f");
    uint64_t left;
    CHECK_EQ(VFS(after, size, f, &left), 0);
    CHECK_EQ(left, size);
    CHECK_EQ(VFS(after, truncate, f, size + 200), 0);
    char bytes[200];
    static const char zeros[200];
    CHECK_EQ(VFS(after, read, f, bytes, sizeof bytes, from), 200);
    CHECK_BYTES(bytes, sizeof bytes, zeros, sizeof zeros);
    CHECK_EQ(VFS(after, close, f), 0);
    loam_vfs_free(after);
}

static loam_file *a_synced_file(loam_vfs *fault, size_t size)
{
    char *bytes = malloc(size);
    CHECK(bytes != NULL);
    memset(bytes, 'a', size);
    loam_file *f = file_of(fault, "/db/f");
    CHECK_EQ(VFS(fault, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(fault, sync, f, 0), 0);
    CHECK_EQ(VFS(fault, write, f, bytes, size, 0), (int64_t)size);
    free(bytes);
    return f;
}

Test(vfs_defects, a_durable_write_leaves_nothing_behind_the_end_it_left)
{
    const loam_fault_plan plan = {.struct_size = sizeof plan};
    loam_vfs *fault = fault_of(&plan);
    loam_file *f = a_synced_file(fault, 400);
    CHECK_EQ(VFS(fault, write_durable, f, "bb", 2, 98), 2);
    expect_zeros_from(fault, LOAM_CUT_SYNCED, 100, 100);
    expect_zeros_from(fault, LOAM_CUT_SIZES, 100, 400); /* written, and not synced */
    CHECK_EQ(VFS(fault, close, f), 0);
    loam_vfs_free(fault);
}

Test(vfs_defects, a_dropped_cut_leaves_nothing_behind_the_new_end)
{
    loam_fault_plan plan = {.struct_size = sizeof plan,
                            .fail_at = 3,
                            .fail_calls = LOAM_CALL_SYNC,
                            .drop_dirty = 1};
    loam_vfs *fault = fault_of(&plan);
    loam_file *f = a_synced_file(fault, 400);
    CHECK_EQ(VFS(fault, sync, f, 0), 0);
    CHECK_EQ(VFS(fault, truncate, f, 100), 0);
    CHECK_EQ(VFS(fault, sync, f, 0), -EIO);
    expect_zeros_from(fault, LOAM_CUT_DATA, 100, 100);
    CHECK_EQ(VFS(fault, sync, f, 0), 0); /* of the size alone */
    expect_zeros_from(fault, LOAM_CUT_SYNCED, 100, 100);
    CHECK_EQ(VFS(fault, close, f), 0);
    loam_vfs_free(fault);
}

/* ---- recordings -------------------------------------------------------------------------------- */

static loam_vfs *crash_at_end(loam_recording *rec)
{
    loam_vfs *after = NULL;
    const loam_crash c = {.struct_size = sizeof c, .at = loam_recording_length(rec)};
    CHECK_EQ(loam_recording_crash(rec, &c, &after), LOAM_OK);
    return after;
}

/* The space of a removed file that is still open was counted as free twice, and then there was none. */
Test(vfs_defects, a_recording_repeats_what_is_done_to_a_removed_file)
{
    static const char bytes[3 * DISK_PAGE] = "text";
    loam_recording *rec;
    CHECK_EQ(loam_vfs_record(disk, &rec), LOAM_OK);
    loam_file *gone = file_of(disk, "/db/gone");
    CHECK_EQ(VFS(disk, write, gone, bytes, sizeof bytes, 0), (int64_t)sizeof bytes);
    CHECK_EQ(VFS(disk, remove, "/db/gone"), 0);
    CHECK_EQ(VFS(disk, truncate, gone, 0), 0);
    loam_file *f = file_of(disk, "/db/f");
    CHECK_EQ(VFS(disk, write, f, bytes, sizeof bytes, 0), (int64_t)sizeof bytes);
    loam_vfs *after = crash_at_end(rec);
    CHECK_EQ(loam_vfs_hash(after), loam_vfs_hash(disk));
    loam_vfs_free(after);
    CHECK_EQ(VFS(disk, close, gone), 0);
    CHECK_EQ(VFS(disk, close, f), 0);
    loam_recording_free(rec);
}

static _Atomic bool writer_stops, writer_writes;

static void *write_on(void *arg)
{
    loam_file *f = arg;
    /* relaxed: nothing else hangs on it */
    for (uint64_t i = 0; !atom_load(&writer_stops, relaxed); i++) {
        CHECK_EQ(VFS(disk, write, f, &i, sizeof i, i % 512 * sizeof i), (int64_t)sizeof i);
        atom_store(&writer_writes, true, relaxed); /* relaxed: as above */
    }
    return NULL;
}

Test(vfs_defects, a_recording_that_begins_while_others_write_has_every_change)
{
    loam_file *f = file_of(disk, "/db/f");
    for (unsigned i = 0; i < 300; i++) {
        pthread_t writer;
        loam_recording *rec;
        atom_store(&writer_stops, false, relaxed);  /* relaxed: as above */
        atom_store(&writer_writes, false, relaxed); /* relaxed: as above */
        CHECK_EQ(pthread_create(&writer, NULL, write_on, f), 0);
        do {
            usleep(200);
        } while (!atom_load(&writer_writes, relaxed)); /* relaxed: as above */
        CHECK_EQ(loam_vfs_record(disk, &rec), LOAM_OK);
        atom_store(&writer_stops, true, relaxed); /* relaxed: as above */
        CHECK_EQ(pthread_join(writer, NULL), 0);
        loam_vfs *after = crash_at_end(rec);
        uint64_t now = loam_vfs_hash(disk), then = loam_vfs_hash(after);
        loam_vfs_free(after);
        loam_recording_free(rec);
        CHECK_EQ(then, now);
    }
    CHECK_EQ(VFS(disk, close, f), 0);
}
