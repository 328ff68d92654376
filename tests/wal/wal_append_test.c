/* wal_append_test.c - Large records of a mapped log: written, not stored through windows.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the numbers and positions of the records that were acknowledged, read back; and what a vfs in
 * between has seen of maps and writes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "tests/support/memory_disk.h"
#include "tests/wal/wal_support.h"

TestSuite(wal_append, .timeout = 60);

#define LARGE     8000u
#define NOTED_MAX 2000u

static struct wal w;
static struct {
    uint64_t number, position;
} noted[NOTED_MAX];
static size_t noted_count;

static struct {
    const loam_vfs *disk;
    unsigned maps;
    bool fail;      /* the next write */
    size_t part;    /* that it stores first */
    bool watch;     /* writes to records of reused files: they are to end with a page */
    unsigned seen;
} between;

static int map_between(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    between.maps++;
    return between.disk->map(ctx, f, off, len, p);
}

static int64_t write_between(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    if (between.fail) {
        between.fail = false;
        if (between.part != 0) {
            (void)between.disk->write(ctx, f, buf, between.part, off);
        }
        return -EIO;
    }
    if (between.watch && wal_slot_of(&w, wal_generation(&w))->reused && off >= WAL_HEADER_PAGE) {
        CHECK_EQ((off + n) % WAL_PAGE, 0);
        between.seen++;
    }
    return between.disk->write(ctx, f, buf, n, off);
}

static loam_vfs start(void)
{
    loam_vfs *disk = memory_disk();
    memset(&between, 0, sizeof between);
    between.disk = disk;
    loam_vfs v = *disk;
    v.map = map_between;
    v.write = write_between;
    noted_count = 0;
    return v;
}

static void append(uint64_t size, uint64_t i)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, size, i, &s), LOAM_OK);
    CHECK(noted_count < NOTED_MAX);
    noted[noted_count].number = i;
    noted[noted_count++].position = s.position;
}

static void keep(void)
{
    bool more;
    CHECK_EQ(wal_keep(&w, wal_position(&w), &more), LOAM_OK);
}

/* Closes the log; its segments from `first` on hold what was noted. */
static void finish(const loam_vfs *v, uint64_t first)
{
    uint64_t number, end;
    size_t n = 0;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    for (uint64_t i = first; i <= number; i++) {
        struct wal_reader r;
        struct wal_record record;
        int rc = wal_reader_open(&r, v, "/", alloc_global(), i, LOG_DB);
        if (rc == LOAM_E_NOENT) {
            continue;
        }
        CHECK_EQ(rc, LOAM_OK);
        while (wal_read_next(&r, &record) == LOAM_OK) {
            CHECK(n < noted_count);
            CHECK_EQ(log_verify(record.payload), noted[n].number);
            CHECK_EQ(record.position, noted[n].position);
            n++;
        }
        CHECK_EQ(wal_reader_check(&r, i == number ? end : 0), LOAM_OK);
        wal_reader_close(&r);
    }
    CHECK_EQ(n, noted_count);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
    loam_vfs_free((loam_vfs *)(uintptr_t)between.disk);
}

/* The window of the open log is all there is, until a small record needs its own. */
Test(wal_append, large_records_need_no_windows)
{
    loam_vfs v = start();
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(w.mode, WAL_MAPPED);
    for (uint64_t i = 0; i < 100; i++) {
        append(LARGE, i);
        if (i % 5 == 0) {
            keep();
        }
    }
    CHECK_EQ(between.maps, 1);
    append(100, 100);
    CHECK_EQ(between.maps, 2);
    keep(); /* nothing was written since it last looked: the tail has its window */
    append(100, 101);
    append(LARGE, 102);
    append(100, 103);
    finish(&v, 1);
}

/* Around what fits the buffer once and twice, and around the size from which on records are written. */
Test(wal_append, every_size_around_the_buffer_reads_back)
{
    const uint64_t around[] = {WAL_WRITE_MIN, WAL_STAGE_BYTES, 2 * WAL_STAGE_BYTES};
    for (int mapped = 0; mapped < 2; mapped++) {
        loam_vfs v = start();
        v.map = mapped ? v.map : NULL;
        struct wal_options o = log_options(&v, "/");
        o.segment_bytes = 64u << 20;
        CHECK_EQ(wal_open(&w, &o), LOAM_OK);
        uint64_t i = 0;
        for (size_t k = 0; k < sizeof around / sizeof *around; k++) {
            for (uint64_t size = around[k] - 50; size < around[k] + 20; size++) {
                append(size, i++);
                append(size, i++);
            }
        }
        finish(&v, 1);
    }
}

/* The position of a record that could not be written is not used up, and nothing follows in its segment. */
Test(wal_append, behind_a_failed_one_the_log_goes_on_in_a_new_segment)
{
    const size_t parts[] = {0, 1, 24, 5000, LARGE};
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        loam_vfs v = start();
        struct wal_options o = log_options(&v, "/");
        struct wal_slot s;
        CHECK_EQ(wal_open(&w, &o), LOAM_OK);
        append(100, 1);
        append(LARGE, 2);
        uint64_t before = wal_position(&w);
        between.fail = true;
        between.part = parts[p];
        CHECK_EQ(log_append(&w, LARGE, 3 + p % 2, &s), LOAM_E_IO);
        CHECK_EQ(loam_last_error()->flags & LOAM_ERR_UNKNOWN, 0);
        CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
        CHECK_EQ(wal_position(&w), before);
        CHECK_EQ(wal_begin(&w, 100, &s), WAL_FULL);
        CHECK_EQ(wal_begin(&w, LARGE, &s), WAL_FULL);
        CHECK_EQ(wal_begin(&w, 100, &s), WAL_FULL);
        append(100, 5);
        CHECK_EQ(noted[noted_count - 1].position, before);
        CHECK_EQ(wal_generation(&w), 2);
        append(LARGE, 6);
        finish(&v, 1);
    }
}

Test(wal_append, one_that_is_given_up_leaves_the_tail_as_it_was)
{
    loam_vfs v = start();
    struct wal_options o = log_options(&v, "/");
    struct wal_slot s;
    uint8_t *payload = calloc(1, 3 * WAL_STAGE_BYTES);
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    append(100, 1);
    uint64_t before = wal_position(&w);
    CHECK_EQ(wal_begin(&w, LARGE, &s), LOAM_OK);
    CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
    CHECK_EQ(wal_begin_copy(&w, loam_bytes(payload, 3 * WAL_STAGE_BYTES), &s), LOAM_OK);
    CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
    CHECK_EQ(wal_position(&w), before);
    append(100, 2);
    append(LARGE, 3);
    CHECK_EQ(wal_generation(&w), 1);
    CHECK_EQ(wal_begin(&w, LARGE, &s), LOAM_OK); /* and after its end, as long as it is not published */
    memset(s.payload, 1, LARGE);
    CHECK_EQ(wal_end(&w, &s, 0), LOAM_OK);
    CHECK_EQ(wal_void(&w, &s), LOAM_OK);
    append(LARGE, 4);
    finish(&v, 1);
    free(payload);
}

/* A page of a recycled file that is not in memory any more would have to be read, were it written in part. */
Test(wal_append, in_a_recycled_file_whole_pages_are_written)
{
    loam_vfs v = start();
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    between.watch = true;
    for (uint64_t i = 0; i < 1000; i++) {
        append(i % 20 == 0 ? 100000 : LARGE, i);
        if (i % 100 == 50) {
            uint64_t boundary;
            uint32_t generation;
            CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
            noted_count = 0;
            wal_release(&w, generation);
        }
        if (i % 3 == 0) {
            append(100, i);
        }
    }
    CHECK(between.seen > 100);
    finish(&v, wal_segment_number(&w, wal_generation(&w)));
}
