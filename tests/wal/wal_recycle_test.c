/* wal_recycle_test.c - What using a segment's file again costs the disk, and what it must not save.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a count of the calls that wait for the disk. What recycled files read as is wal_roundtrip_test.c.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/support/memory_disk.h"
#include "tests/wal/wal_support.h"

static struct wal w;

static void append(void)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, 100, 1, &s), LOAM_OK);
}

/* A disk in memory that counts, and writes durably as long as it does not fail. */
static struct {
    const loam_vfs *disk;
    unsigned syncs, durable_writes;
    int fails;
} counted;

static int counted_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    counted.syncs++;
    return counted.disk->sync(ctx, f, data_only);
}

static int64_t counted_write_durable(void *ctx, loam_file *f, const void *buf, size_t n,
                                     uint64_t off)
{
    counted.durable_writes++;
    if (counted.fails != 0) {
        return counted.fails;
    }
    int64_t put = counted.disk->write(ctx, f, buf, n, off);
    int rc = put > 0 ? counted.disk->sync(ctx, f, 1) : 0;
    return rc < 0 ? rc : put;
}

/* *vfs counts; what it stands on is the caller's to free. */
static loam_vfs *counting_disk(loam_vfs *vfs)
{
    loam_vfs *disk = memory_disk();
    *vfs = *disk;
    vfs->sync = counted_sync;
    vfs->write_durable = counted_write_durable;
    counted.disk = disk;
    counted.fails = 0;
    return disk;
}

static void next_segment(void)
{
    uint64_t boundary;
    uint32_t generation;
    append();
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_release(&w, generation);
    append(); /* the next segment is prepared when this one is in use */
    (void)log_keep(&w, wal_position(&w));
}

Test(wal_recycle, a_recycled_segment_costs_no_sync_of_what_it_held)
{
    loam_vfs vfs, *disk = counting_disk(&vfs);
    struct wal_options o = log_options(&vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    for (int i = 0; i < 4; i++) {
        next_segment(); /* until there are enough segments, and one waits */
    }
    counted.syncs = counted.durable_writes = 0;
    for (int i = 0; i < 4; i++) {
        next_segment();
    }
    CHECK_EQ(counted.durable_writes, 4);
    CHECK_EQ(counted.syncs, 0);
    /* A header that cannot be made durable makes no segment; the next one is made anew. */
    counted.fails = -EIO;
    next_segment();
    CHECK(counted.durable_writes > 4 && !w.next_ready);
    counted.fails = 0;
    next_segment();
    CHECK(counted.syncs > 0 && w.next_ready);
    uint64_t number, end;
    append();
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

/* A durable write that did not work may have lost what it wrote for good, whatever the error. */
Test(wal_recycle, a_header_that_is_refused_is_not_tried_again)
{
    unsigned tried[2];
    for (int i = 0; i < 2; i++) {
        loam_vfs vfs, *disk = counting_disk(&vfs);
        struct wal_options o = log_options(&vfs, "/");
        CHECK_EQ(wal_open(&w, &o), LOAM_OK);
        for (int k = 0; k < 4; k++) {
            next_segment();
        }
        counted.durable_writes = 0;
        counted.fails = i == 0 ? -EIO : -EAGAIN;
        next_segment();
        tried[i] = counted.durable_writes;
        CHECK(tried[i] != 0 && !w.next_ready);
        counted.fails = 0;
        uint64_t number, end;
        CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
        loam_vfs_free(disk);
    }
    CHECK_EQ(tried[0], tried[1]);
}

/* Opens the log behind one that has been closed; the number of that one's file. */
static uint64_t open_behind_another(const loam_vfs *vfs)
{
    struct wal_options o = log_options(vfs, "/");
    uint64_t number, end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append();
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    o.first_number = number + 1;
    o.start_position = end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    return number;
}

Test(wal_recycle, a_file_nobody_knows_the_syncs_of_is_synced_before_it_is_used_again)
{
    loam_vfs vfs, *disk = counting_disk(&vfs);
    uint64_t end, number = open_behind_another(&vfs);
    wal_adopt(&w, number);
    CHECK_EQ(w.idle_count, 1);
    append();
    counted.syncs = counted.durable_writes = 0;
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    CHECK_EQ(w.idle_count, 0);
    CHECK(counted.syncs > 0);
    CHECK_EQ(counted.durable_writes, 0);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

static int no_space(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    (void)ctx, (void)f, (void)off, (void)len;
    return -ENOSPC;
}

/* A directory that was copied: its files have holes where nothing was written yet. To map such a place on a full
 * disk is an I/O error, and nobody says that there is no space. */
Test(wal_recycle, a_file_that_may_have_holes_serves_again_only_with_its_space)
{
    loam_vfs vfs, *disk = counting_disk(&vfs);
    uint64_t end, number = open_behind_another(&vfs);
    vfs.reserve = no_space;
    wal_adopt(&w, number);
    CHECK_EQ(w.idle_count, 0);
    char path[1 + WAL_FILE_NAME_MAX] = "/";
    loam_file *f;
    wal_file_name(path + 1, number);
    CHECK_EQ(vfs.open(vfs.ctx, path, LOAM_VFS_READ, &f), -ENOENT);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

static int the_same_again(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    memset(buf, 7, n);
    return 0;
}

/* As on the disk of a test, or in a machine that was set back. */
Test(wal_recycle, a_recycled_file_is_empty_even_if_chance_repeats_itself)
{
    loam_vfs *disk = memory_disk(), vfs = *disk;
    vfs.random = the_same_again;
    struct wal_options o = log_options(&vfs, "/");
    uint64_t number, end, base;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append();
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    o.first_number = number + 1;
    o.start_position = end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    wal_adopt(&w, number);
    append();
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    CHECK_EQ(w.idle_count, 0);
    struct wal_reader r;
    CHECK_EQ(wal_reader_open(&r, &vfs, "/", alloc_global(), number + 2, LOG_DB), LOAM_OK);
    CHECK_EQ(wal_reader_peek(&r, &base), LOAM_NOTFOUND);
    wal_reader_close(&r);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

Test(wal_recycle, a_release_does_not_wait_for_a_sync_that_runs)
{
    loam_vfs *disk = memory_disk();
    struct wal_options o = log_options(disk, "/");
    uint64_t boundary, number, end;
    uint32_t generation;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append();
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_sync_lock(&w); /* as the thread has it that syncs */
    wal_release(&w, generation);
    CHECK_EQ(wal_durable(&w), boundary);
    append();
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    CHECK(wal_segment_number(&w, generation - 1) != 0); /* its file may be the one that is synced */
    CHECK_EQ(w.idle_count, 0);
    wal_sync_unlock(&w);
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    CHECK_EQ(wal_segment_number(&w, generation - 1), 0);
    CHECK_EQ(w.idle_count, 1);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
    loam_vfs_free(disk);
}

static unsigned windows_shown(uint32_t generation)
{
    unsigned n = 0;
    for (uint32_t k = 0; k < WAL_WINDOWS; k++) {
        n += atom_load(&wal_slot_of(&w, generation)->window[k], relaxed) != NULL;
    }
    return n;
}

Test(wal_recycle, a_log_without_a_record_holds_one_window_and_one_file)
{
    loam_vfs *disk = memory_disk();
    struct wal_options o = log_options(disk, "/");
    uint64_t number, end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    }
    CHECK_EQ(windows_shown(1), 1);
    CHECK(!w.next_ready);
    /* What was written says how much is mapped ahead. */
    for (int i = 0; i < 1500; i++) {
        append();
    }
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    uint64_t first = (wal_position(&w) - o.start_position) / o.window_bytes;
    CHECK_EQ(windows_shown(1), 1 + first + 1); /* the tail's, as many as are full, a part more */
    CHECK(w.next_ready);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

static uint64_t capacity_now(void)
{
    return wal_slot_of(&w, wal_generation(&w))->capacity;
}

Test(wal_recycle, a_log_begins_small_and_grows_as_it_is_filled)
{
    loam_vfs *disk = memory_disk();
    struct wal_options o = log_options(disk, "/");
    o.first_bytes = o.window_bytes;
    o.segment_bytes = 8 * o.window_bytes;
    uint64_t number, end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(capacity_now(), o.first_bytes);
    CHECK_EQ(wal_live_bytes(&w), WAL_HEADER_PAGE + o.first_bytes);
    next_segment();
    CHECK_EQ(capacity_now(), 4 * o.first_bytes);
    for (int i = 0; i < 3; i++) {
        next_segment();
        CHECK_EQ(capacity_now(), o.segment_bytes);
    }
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    /* A record that is longer than the next segment would be gets one of full size. */
    o.first_number = number + 1;
    o.start_position = end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    uint64_t boundary;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 5 * o.first_bytes, &boundary, &generation), LOAM_OK);
    CHECK_EQ(capacity_now(), o.segment_bytes);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

Test(wal_recycle, a_log_without_a_record_can_go_on_small)
{
    loam_vfs *disk = memory_disk();
    struct wal_options o = log_options(disk, "/");
    o.first_bytes = o.window_bytes;
    o.segment_bytes = 4 * o.window_bytes;
    uint64_t number, end, boundary;
    uint32_t generation;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK(!wal_shrink_due(&w) && !wal_shrink(&w)); /* it is small */
    append();
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    CHECK_EQ(capacity_now(), o.segment_bytes);
    CHECK(wal_shrink_due(&w));
    append();
    CHECK(!wal_shrink_due(&w) && !wal_shrink(&w));
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    CHECK(wal_shrink(&w));
    CHECK(!wal_shrink_due(&w) && !wal_shrink(&w)); /* there is a next one */
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    CHECK_EQ(capacity_now(), o.first_bytes);
    CHECK(!wal_shrink_due(&w));
    append();
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(disk);
}

/* An unmap that fails must not leave the slot with a window of the file that was in it. */
static int refuse_unmap(void *ctx, void *p, size_t len)
{
    (void)ctx, (void)p, (void)len;
    return -ENOMEM;
}

Test(wal_recycle, what_cannot_be_unmapped_is_not_written_to_again)
{
    loam_vfs *disk = memory_disk();
    loam_vfs vfs = *disk;
    vfs.unmap = refuse_unmap;
    struct wal_options o = log_options(&vfs, "/");
    uint64_t boundary;
    uint32_t generation;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append();
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_release(&w, generation);
    CHECK_EQ(windows_shown(1), 0);
    wal_abandon(&w);
    loam_vfs_free(disk);
}
