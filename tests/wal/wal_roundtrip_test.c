/* wal_roundtrip_test.c - What the writer puts into the log the reader gives back, in every mode.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the list of (position, record number) the writer was told, and each record's known bytes.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "arena/random.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"
#include "tests/wal/wal_support.h"

struct noted {
    uint64_t position, end, number;
};

#define NOTED_MAX 20000

static struct noted noted[NOTED_MAX];
static size_t noted_count;
static struct wal w;

static void note(const struct wal_slot *s, uint64_t number)
{
    CHECK(noted_count < NOTED_MAX);
    noted[noted_count++] = (struct noted){s->position, s->end, number};
}

static void append(uint64_t size, uint64_t i)
{
    struct wal_slot s;
    CHECK_EQ(log_append(&w, size, i, &s), LOAM_OK);
    note(&s, i);
}

/* Reads segments first..last and compares with what was noted; returns the records read. */
static size_t expect_all(const loam_vfs *vfs, const char *dir, uint64_t first, uint64_t last,
                         uint64_t sealed_number, uint64_t sealed_end)
{
    size_t n = 0;
    for (uint64_t number = first; number <= last; number++) {
        struct wal_reader r;
        struct wal_record record;
        CHECK_EQ(wal_reader_open(&r, vfs, dir, alloc_global(), number, LOG_DB), LOAM_OK);
        int rc;
        while ((rc = wal_read_next(&r, &record)) == LOAM_OK) {
            CHECK(n < noted_count);
            CHECK_EQ(record.position, noted[n].position);
            CHECK_EQ(record.end, noted[n].end);
            CHECK_EQ(log_verify(record.payload), noted[n].number);
            n++;
        }
        CHECK_EQ(rc, LOAM_NOTFOUND);
        CHECK_EQ(wal_reader_check(&r, number == sealed_number ? sealed_end : 0), LOAM_OK);
        wal_reader_close(&r);
    }
    CHECK_EQ(n, noted_count);
    return n;
}

static void random_log(const loam_vfs *vfs, enum wal_mode mode)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct wal_options o = log_options(vfs, "/log");
    CHECK_EQ(vfs->mkdir(vfs->ctx, "/log"), 0);
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(w.mode, mode);
    noted_count = 0;
    uint64_t applied = 64;
    for (uint64_t i = 0; i < 3000; i++) {
        uint64_t kind = random_below(&r, 1000);
        uint64_t size = 8 + random_below(&r, kind < 5 ? 300000 : kind < 50 ? 20000 : 200);
        struct wal_slot s;
        CHECK_EQ(log_append(&w, size, i, &s), LOAM_OK);
        if (kind >= 990) {
            CHECK_EQ(wal_void(&w, &s), LOAM_OK);
        } else {
            note(&s, i);
        }
        if (kind >= 980 && kind < 990) {
            CHECK(wal_begin(&w, size, &s) == LOAM_OK);
            int rc = wal_void(&w, &s);
            CHECK_EQ(rc, mode == WAL_MAPPED ? LOAM_OK : WAL_UNUSED);
        }
        applied = wal_position(&w);
        if (kind % 7 == 0) {
            CHECK_EQ(log_keep(&w, applied), LOAM_OK);
        }
        if (kind % 101 == 0) {
            CHECK_EQ(wal_sync(&w, applied), LOAM_OK);
            CHECK_EQ(wal_durable(&w), applied);
        }
    }
    uint64_t number = 0, end = 0;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(end, applied);
    CHECK(number >= 3);
    (void)expect_all(vfs, "/log", 1, number, number, end);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
}

Test(wal_roundtrip, mapped_log_of_mixed_sizes_reads_back)
{
    loam_vfs *vfs = memory_disk();
    random_log(vfs, WAL_MAPPED);
    loam_vfs_free(vfs);
}

Test(wal_roundtrip, buffered_log_of_mixed_sizes_reads_back)
{
    loam_vfs *vfs = memory_disk();
    loam_vfs unmapped = *vfs;
    unmapped.map = NULL;
    unmapped.unmap = NULL;
    random_log(&unmapped, WAL_BUFFERED);
    loam_vfs_free(vfs);
}

static int refuse_to_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    (void)ctx, (void)f, (void)off, (void)len, (void)p;
    return -EOPNOTSUPP;
}

Test(wal_roundtrip, a_vfs_that_refuses_to_map_gets_the_buffered_log)
{
    loam_vfs *vfs = memory_disk();
    loam_vfs refusing = *vfs;
    refusing.map = refuse_to_map;
    random_log(&refusing, WAL_BUFFERED);
    loam_vfs_free(vfs);
}

static int cannot_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    (void)ctx, (void)f, (void)off, (void)len;
    return -EOPNOTSUPP;
}

Test(wal_roundtrip, a_vfs_without_reserve_works_in_both_modes)
{
    for (int buffered = 0; buffered < 2; buffered++) {
        loam_vfs *vfs = memory_disk();
        loam_vfs plain = *vfs;
        plain.reserve = cannot_reserve;
        if (buffered) {
            plain.map = NULL;
        }
        random_log(&plain, buffered ? WAL_BUFFERED : WAL_MAPPED);
        loam_vfs_free(vfs);
    }
}

Test(wal_roundtrip, without_files_positions_and_generations_work)
{
    struct wal_options o = log_options(loam_vfs_os(), "/nowhere");
    o.no_files = true;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    struct wal_slot s;
    uint64_t last = 64;
    unsigned switches = 0;
    for (unsigned i = 0; i < 20000; i++) {
        int rc = wal_begin(&w, 130, &s);
        if (rc == WAL_FULL) {
            uint64_t boundary;
            uint32_t generation;
            CHECK_EQ(wal_switch(&w, 130, &boundary, &generation), LOAM_OK);
            CHECK_EQ(boundary, last);
            CHECK_EQ(generation, 2 + switches);
            switches++;
            wal_release(&w, generation);
            rc = wal_begin(&w, 130, &s);
        }
        CHECK_EQ(rc, LOAM_OK);
        CHECK(s.payload == NULL);
        CHECK_EQ(s.position, last);
        last = s.end;
        CHECK_EQ(wal_end(&w, &s, 0), LOAM_OK);
        CHECK_EQ(wal_sync(&w, s.end), LOAM_OK);
    }
    CHECK(switches >= 2);
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
}

Test(wal_roundtrip, a_record_longer_than_a_segment_gets_a_segment_of_its_size)
{
    loam_vfs *vfs = memory_disk();
    for (int buffered = 0; buffered < 2; buffered++) {
        loam_vfs v = *vfs;
        v.map = buffered ? NULL : vfs->map;
        struct wal_options o = log_options(&v, buffered ? "/b" : "/m");
        CHECK_EQ(v.mkdir(v.ctx, o.dir), 0);
        CHECK_EQ(wal_open(&w, &o), LOAM_OK);
        noted_count = 0;
        append(100, 1);
        CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK); /* a standard one is ready */
        append(9000000, 2);
        append(100, 3);
        append(5000000, 4);
        uint64_t number, end;
        CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
        size_t n = 0;
        for (uint64_t i = 1; i <= number; i++) { /* the standard one that was dropped is a gap */
            struct wal_reader r;
            struct wal_record record;
            if (wal_reader_open(&r, &v, o.dir, alloc_global(), i, LOG_DB) == LOAM_E_NOENT) {
                continue;
            }
            while (wal_read_next(&r, &record) == LOAM_OK) {
                CHECK_EQ(log_verify(record.payload), noted[n].number);
                n++;
            }
            CHECK_EQ(wal_reader_check(&r, i == number ? end : 0), LOAM_OK);
            wal_reader_close(&r);
        }
        CHECK_EQ(n, 4);
    }
    struct wal_slot s;
    struct wal_options o = log_options(vfs, "/m2");
    CHECK_EQ(vfs->mkdir(vfs->ctx, "/m2"), 0);
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(wal_begin(&w, (uint64_t)WAL_PAYLOAD_MAX + 1, &s), LOAM_E_TOOBIG);
    wal_abandon(&w);
    loam_vfs_free(vfs);
}

static int count_name(void *ctx, loam_slice name)
{
    (void)name;
    ++*(unsigned *)ctx;
    return 0;
}

Test(wal_roundtrip, released_files_are_recycled_and_their_old_records_never_return)
{
    loam_vfs *vfs = memory_disk();
    struct wal_options o = log_options(vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    for (uint64_t i = 0; i < 60000; i++) {
        struct wal_slot s;
        CHECK_EQ(log_append(&w, 120, i, &s), LOAM_OK);
        if (i % 500 == 0) {
            wal_release(&w, s.generation);
            CHECK_EQ(log_keep(&w, s.end), LOAM_OK);
        }
    }
    unsigned files = 0;
    CHECK(vfs->list(vfs->ctx, "/", count_name, &files) >= 0);
    CHECK(files <= 4); /* current, prepared, two idle */
    uint64_t boundary;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_release(&w, generation);
    noted_count = 0;
    append(50, 1);
    append(60, 2);
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(expect_all(vfs, "/", number, number, 0, 0), 2);
    files = 0;
    CHECK(vfs->list(vfs->ctx, "/", count_name, &files) >= 0);
    CHECK_EQ(files, 1);
    loam_vfs_free(vfs);
}

Test(wal_roundtrip, adopted_files_are_recycled)
{
    loam_vfs *vfs = memory_disk();
    struct wal_options o = log_options(vfs, "/");
    uint64_t number, end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    noted_count = 0;
    for (uint64_t i = 0; i < 5000; i++) {
        append(100, i);
        noted_count = 0;
    }
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    o.first_number = number + 1;
    o.start_position = end;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    wal_adopt(&w, number);
    CHECK_EQ(w.idle_count, 1);
    append(100, 1);
    CHECK_EQ(log_keep(&w, wal_position(&w)), LOAM_OK);
    CHECK_EQ(w.idle_count, 0);
    uint64_t boundary;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    append(100, 2);
    append(100, 3);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(expect_all(vfs, "/", o.first_number, number, number, end), 3);
    loam_vfs_free(vfs);
}

Test(wal_roundtrip, slots_run_out_with_busy_and_come_back_with_release)
{
    loam_vfs *vfs = memory_disk();
    struct wal_options o = log_options(vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    uint64_t boundary;
    uint32_t generation = 1;
    noted_count = 0;
    for (unsigned i = 1; i < WAL_SLOTS; i++) {
        append(64, i);
        CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    }
    append(64, 99);
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_E_BUSY);
    CHECK_EQ(wal_segment_number(&w, generation), generation);
    wal_release(&w, 3);
    CHECK_EQ(wal_segment_number(&w, 2), 0);
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    CHECK_EQ(number, WAL_SLOTS); /* the last one that holds a record, not the empty one */
    loam_vfs_free(vfs);
}

Test(wal_roundtrip, at_one_position_switches_end_before_a_tail_word_repeats)
{
    struct wal_options o = log_options(loam_vfs_os(), "/nowhere");
    o.no_files = true;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    uint64_t boundary;
    uint32_t generation;
    for (unsigned i = 0; i < 254; i++) {
        CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
        wal_release(&w, generation);
    }
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_E_BUSY);
    struct wal_slot s;
    CHECK_EQ(wal_begin(&w, 8, &s), LOAM_OK);
    CHECK_EQ(wal_end(&w, &s, 0), LOAM_OK);
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_abandon(&w);
}

/* ---- faults ------------------------------------------------------------------------------------
 */

static int fail_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    (void)ctx, (void)f, (void)data_only;
    return -EIO;
}

Test(wal_roundtrip, a_failed_sync_poisons_until_cleared_behind_a_switch)
{
    loam_vfs *vfs = memory_disk();
    loam_vfs v = *vfs;
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    noted_count = 0;
    append(100, 1);
    CHECK_EQ(wal_sync(&w, wal_position(&w)), LOAM_OK);
    uint64_t good = wal_durable(&w);
    append(100, 2);
    v.sync = fail_sync;
    CHECK_EQ(wal_sync(&w, wal_position(&w)), LOAM_E_IO);
    v.sync = vfs->sync;
    CHECK_EQ(wal_sync(&w, wal_position(&w)), LOAM_E_IO);
    CHECK((loam_last_error()->flags & LOAM_ERR_STICKY) != 0);
    CHECK_EQ(loam_last_error()->file_id, 1);
    CHECK_EQ(wal_durable(&w), good);
    CHECK_EQ(wal_sync(&w, good), LOAM_OK);
    CHECK_EQ(wal_clear_poison(&w), LOAM_E_INVAL);
    uint64_t boundary;
    uint32_t generation;
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    append(100, 3);
    CHECK_EQ(wal_sync(&w, wal_position(&w)), LOAM_E_IO);
    CHECK_EQ(wal_clear_poison(&w), LOAM_OK);
    CHECK_EQ(wal_durable(&w), boundary);
    CHECK_EQ(wal_sync(&w, wal_position(&w)), LOAM_OK);
    wal_release(&w, generation);
    CHECK_EQ(w.idle_count, 0); /* the poisoned file is not used again */
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(vfs);
}

/* Bytes of memory that a record across windows takes until it ends. */
static uint64_t held_by(const uint8_t *payload, uint64_t size, bool copied)
{
    loam_vfs *vfs;
    struct wal_slot s;
    vfs = memory_disk();
    struct wal_options o = log_options(vfs, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    uint64_t before = alloc_used_by(alloc_global(), MEM_LOG);
    CHECK_EQ(copied ? wal_begin_copy(&w, loam_bytes(payload, size), &s) : wal_begin(&w, size, &s),
             LOAM_OK);
    uint64_t held = alloc_used_by(alloc_global(), MEM_LOG) - before;
    if (!copied) {
        memcpy(s.payload, payload, size);
    }
    CHECK_EQ(wal_end(&w, &s, 0), LOAM_OK);
    noted_count = 0;
    note(&s, 7);
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    (void)expect_all(vfs, "/", 1, number, number, end);
    loam_vfs_free(vfs);
    return held;
}

Test(wal_roundtrip, a_payload_that_lies_together_is_held_but_once)
{
    enum { SIZE = 300001 };
    uint8_t *payload = malloc(SIZE);
    log_fill(payload, SIZE, 7);
    CHECK(held_by(payload, SIZE, false) >= held_by(payload, SIZE, true) + SIZE);
    free(payload);
}

/* A vfs in which the n-th write fails after storing a part. */
static struct {
    const loam_vfs *real;
    unsigned countdown; /* 0: none fails */
    size_t part;
    int error;
} broken;

static int64_t broken_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    if (broken.countdown != 0 && --broken.countdown == 0) {
        if (broken.part != 0) {
            (void)broken.real->write(ctx, f, buf, broken.part < n ? broken.part : n, off);
        }
        return broken.error;
    }
    return broken.real->write(ctx, f, buf, n, off);
}

static int64_t tiny_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    static unsigned turn;
    turn++;
    if (turn % 3 == 0) {
        return -EAGAIN;
    }
    return broken.real->write(ctx, f, buf, n < 7 ? n : 7, off);
}

Test(wal_roundtrip, short_and_refused_writes_go_on)
{
    loam_vfs *vfs = memory_disk();
    broken.real = vfs;
    loam_vfs v = *vfs;
    v.map = NULL;
    v.write = tiny_write;
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    noted_count = 0;
    for (uint64_t i = 0; i < 50; i++) {
        append(8 + i * 5, i);
    }
    uint64_t number, end;
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    (void)expect_all(vfs, "/", 1, number, number, end);
    loam_vfs_free(vfs);
}

/* A failed append loses itself and nothing else, at every record and for every part that landed. */
Test(wal_roundtrip, after_a_failed_append_the_log_goes_on_in_a_new_segment)
{
    const size_t parts[] = {0, 1, 12, 24, 60, 1000};
    for (unsigned n = 1; n <= 12; n++) {
        for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
            loam_vfs *vfs = memory_disk();
            broken.real = vfs;
            loam_vfs v = *vfs;
            v.map = NULL;
            struct wal_options o = log_options(&v, "/");
            CHECK_EQ(wal_open(&w, &o), LOAM_OK);
            v.write = broken_write;
            broken.countdown = n;
            broken.part = parts[p];
            broken.error = n % 2 == 0 ? -ENOSPC : -EIO;
            noted_count = 0;
            unsigned failed = 0;
            for (uint64_t i = 0; i < 10; i++) {
                struct wal_slot s;
                uint64_t before = wal_position(&w);
                int rc = log_append(&w, 72, i, &s);
                if (rc == LOAM_OK) {
                    note(&s, i);
                    CHECK_EQ(s.position, before);
                } else {
                    CHECK_EQ(rc, n % 2 == 0 ? LOAM_E_NOSPACE : LOAM_E_IO);
                    CHECK_EQ(loam_last_error()->flags & LOAM_ERR_UNKNOWN, 0);
                    CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
                    CHECK_EQ(wal_position(&w), before);
                    failed++;
                }
            }
            CHECK_EQ(failed, n <= 10);
            uint64_t number, end;
            CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
            CHECK_EQ(number, 1 + failed - (n == 10));
            (void)expect_all(vfs, "/", 1, number, number, end);
            loam_vfs_free(vfs);
        }
    }
}

/* What a failed append left in the file is not known; it is given up with the segment. */
Test(wal_roundtrip, the_file_of_a_failed_append_is_not_used_again)
{
    loam_vfs *vfs = memory_disk();
    broken.real = vfs;
    loam_vfs v = *vfs;
    v.map = NULL;
    struct wal_options o = log_options(&v, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    uint64_t boundary, number, end;
    uint32_t generation;
    noted_count = 0;
    append(100, 1);
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
    wal_release(&w, generation);
    CHECK_EQ(w.idle_count, 1); /* as a file without a failure is */
    append(100, 2);
    v.write = broken_write;
    broken.countdown = 1;
    broken.part = 30;
    broken.error = -EIO;
    struct wal_slot s;
    CHECK_EQ(log_append(&w, 72, 3, &s), LOAM_E_IO);
    CHECK_EQ(wal_void(&w, &s), WAL_UNUSED);
    CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK); /* into the idle one, or a new one */
    unsigned idle = w.idle_count;
    wal_release(&w, generation);
    CHECK_EQ(w.idle_count, idle);
    append(100, 4);
    CHECK_EQ(wal_close(&w, &number, &end), LOAM_OK);
    loam_vfs_free(vfs);
}

/* Every call of the vfs failing once, or for ever: no crash, no leak, what was acknowledged is
 * there. */
static void fault_run(bool mapped, uint64_t at, uint32_t repeat, int error, uint64_t *calls)
{
    loam_vfs *disk = memory_disk(), *vfs;
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = at, .no_map = !mapped};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &vfs), LOAM_OK);
    plan.fail_at = at;
    plan.fail_errno = error;
    plan.fail_repeat = repeat;
    plan.short_writes = 1;
    CHECK_EQ(loam_vfs_set_plan(vfs, &plan), LOAM_OK);
    struct wal_options o = log_options(vfs, "/");
    o.segment_bytes = o.window_bytes;
    noted_count = 0;
    bool unknown = false;
    uint64_t synced = 0;
    if (wal_open(&w, &o) == LOAM_OK) {
        for (uint64_t i = 0; i < 40; i++) {
            struct wal_slot s;
            if (log_append(&w, i % 4 < 2 ? 6000 : 3000, i, &s) == LOAM_OK) { /* written, stored */
                note(&s, i);
            } else {
                unknown = unknown || (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0;
            }
            if (i % 5 == 0) {
                (void)log_keep(&w, wal_position(&w));
            }
            if (i % 4 == 3 && wal_sync(&w, wal_position(&w)) == LOAM_OK) {
                synced = noted_count;
            }
        }
        wal_abandon(&w);
    }
    *calls = loam_vfs_calls(vfs);
    for (int cut = 0; cut < 2; cut++) { /* the process was killed; the power was cut */
        loam_vfs *after = NULL;
        CHECK_EQ(loam_vfs_power_cut(vfs, (uint64_t)cut, &after), LOAM_OK);
        size_t n = 0, want = cut ? synced : noted_count;
        uint64_t expected = 64;
        for (uint64_t number = 1; number <= 12; number++) {
            struct wal_reader r;
            struct wal_record record;
            int rc = wal_reader_open(&r, after, "/", alloc_global(), number, LOG_DB);
            if (rc == LOAM_E_NOENT) {
                continue;
            }
            CHECK_EQ(rc, LOAM_OK);
            uint64_t base = 0;
            if (wal_reader_peek(&r, &base) == LOAM_OK && base != expected && !unknown) {
                CHECK(cut == 1 && n >= want);
                wal_reader_close(&r);
                break;
            }
            while (wal_read_next(&r, &record) == LOAM_OK) {
                uint64_t i = log_verify(record.payload);
                if (unknown && (n == noted_count || i != noted[n].number)) {
                    continue;
                }
                CHECK(n < noted_count);
                CHECK_EQ(i, noted[n].number);
                CHECK_EQ(record.position, noted[n].position);
                expected = record.end;
                n++;
            }
            CHECK(wal_reader_check(&r, 0) >= 0);
            wal_reader_close(&r);
        }
        CHECK(n >= want);
        loam_vfs_free(after);
    }
    loam_vfs_free(vfs);
    loam_vfs_free(disk);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
}

static void fault_sweep(bool mapped)
{
    const int errors[] = {EIO, ENOSPC, ENOMEM};
    uint64_t calls = 0;
    fault_run(mapped, 0, 0, EIO, &calls);
    CHECK_EQ(noted_count, 40);
    for (uint64_t at = 1; at <= calls; at++) {
        for (size_t e = 0; e < sizeof errors / sizeof *errors; e++) {
            uint64_t ignored;
            fault_run(mapped, at, 1, errors[e], &ignored);
            fault_run(mapped, at, UINT32_MAX, errors[e], &ignored);
        }
    }
}

Test(wal_roundtrip, every_failing_call_is_survived_mapped)
{
    fault_sweep(true);
}

Test(wal_roundtrip, every_failing_call_is_survived_buffered)
{
    fault_sweep(false);
}
