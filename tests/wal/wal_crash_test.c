/* wal_crash_test.c - After a power cut at any step the log replays a prefix with all that was synced.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the records in the order they were written, and how many of them a wal_sync has covered.
 * Recovery goes the way that wal_reader.h describes, and an undamaged disk never gives
 * LOAM_E_CORRUPT.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/random.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"
#include "tests/wal/wal_support.h"

#define STEPS    90u
#define VARIANTS 16u
#define NUMBERS  40u

static struct wal w;
static unsigned shrunk; /* times the log went on in a small segment */
static size_t written, synced, released; /* records; those below `released` need not be there */
static uint64_t position_of[STEPS + 1];  /* of record i */
static uint64_t first_live;              /* segment number, as a manifest would have it */

/* The replay of one disk. */
struct replay {
    struct wal_reader r[NUMBERS];
    uint64_t base[NUMBERS]; /* 0: no record */
    unsigned count;
};

static void open_all(struct replay *p, const loam_vfs *vfs)
{
    p->count = 0;
    for (uint64_t number = first_live; number < NUMBERS; number++) {
        struct wal_reader *r = &p->r[p->count];
        int rc = wal_reader_open(r, vfs, "/", alloc_global(), number, LOG_DB);
        if (rc == LOAM_E_NOENT) {
            continue;
        }
        CHECK_EQ(rc, LOAM_OK);
        p->base[p->count] = 0;
        rc = wal_reader_peek(r, &p->base[p->count]);
        CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND);
        p->count++;
    }
}

static uint64_t next_base(const struct replay *p, unsigned i)
{
    for (i++; i < p->count; i++) {
        if (p->base[i] != 0) {
            return p->base[i];
        }
    }
    return 0;
}

/* Replays segment i from record n on; returns the records there are then. */
static size_t replay_one(struct wal_reader *r, size_t n)
{
    struct wal_record record;
    int rc;
    while ((rc = wal_read_next(r, &record)) == LOAM_OK) {
        uint64_t i = log_verify(record.payload);
        CHECK(n == SIZE_MAX || i == n);
        CHECK(i < written);
        CHECK_EQ(record.position, position_of[i]);
        n = i + 1;
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    return n;
}

/* The segment where the replay ends: damage, or a clean cut? */
static void judge_last(struct replay *p, unsigned i)
{
    uint64_t promised = 0;
    for (unsigned k = i + 1; k < p->count; k++) {
        CHECK_EQ(wal_reader_scan(&p->r[k]), LOAM_OK);
        struct wal_reader_end end;
        wal_reader_end(&p->r[k], &end);
        promised = end.durable > promised ? end.durable : promised;
    }
    wal_reader_promise(&p->r[i], promised);
    CHECK(wal_reader_check(&p->r[i], 0) >= 0);
}

static void recover(const loam_vfs *vfs)
{
    static struct replay p;
    open_all(&p, vfs);
    size_t n = SIZE_MAX;
    for (unsigned i = 0; i < p.count; i++) {
        if (p.base[i] == 0) {
            continue;
        }
        uint64_t b = next_base(&p, i);
        if (b != 0) {
            wal_reader_limit(&p.r[i], b);
        }
        n = replay_one(&p.r[i], n);
        struct wal_reader_end end;
        wal_reader_end(&p.r[i], &end);
        if (b == 0 || end.end != b) {
            judge_last(&p, i);
            break;
        }
    }
    if (n == SIZE_MAX) {
        n = 0;
    }
    CHECK(n >= synced || synced <= released);
    for (unsigned i = 0; i < p.count; i++) {
        wal_reader_close(&p.r[i]);
    }
}

static void step(struct random *r, uint64_t i)
{
    struct wal_slot s;
    uint64_t kind = random_below(r, 100);
    uint64_t size = 8 + random_below(r, kind < 10 ? 30000 : 3000);
    CHECK_EQ(log_append(&w, size, i, &s), LOAM_OK);
    position_of[i] = s.position;
    written = (size_t)i + 1;
    if (kind % 4 == 0) {
        CHECK_EQ(wal_sync(&w, s.end), LOAM_OK);
        synced = written;
    }
    if (kind % 5 == 0) {
        CHECK_EQ(log_keep(&w, s.end), LOAM_OK);
    }
    if (kind % 17 == 0) { /* a flush of everything older: the manifest first, then the release */
        uint64_t boundary;
        uint32_t generation;
        CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
        if (wal_shrink(&w)) { /* a rest */
            CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
            shrunk++;
        }
        first_live = wal_segment_number(&w, generation);
        released = synced = written;
        wal_release(&w, generation);
    }
}

static void crash_everywhere(bool mapped, bool grows, uint64_t seed)
{
    loam_vfs *disk, *vfs;
    struct random r;
    random_init(&r, seed);
    disk = memory_disk();
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed, .no_map = !mapped};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &vfs), LOAM_OK);
    struct wal_options o = log_options(vfs, "/");
    o.first_bytes = o.window_bytes;
    o.segment_bytes = grows ? 4 * o.window_bytes : o.window_bytes;
    shrunk = 0;
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    CHECK_EQ(w.mode, mapped ? WAL_MAPPED : WAL_BUFFERED);
    written = synced = released = 0;
    first_live = 1;
    for (uint64_t i = 0; i < STEPS; i++) {
        step(&r, i);
        for (uint64_t v = 0; v < VARIANTS; v++) {
            loam_vfs *after;
            CHECK_EQ(loam_vfs_power_cut(vfs, v + (v > 4 ? i * VARIANTS : 0), &after), LOAM_OK);
            size_t keep = synced;
            if (v == 0) {
                synced = written; /* the process was killed: nothing may be missing */
            }
            recover(after);
            synced = keep;
            loam_vfs_free(after);
        }
    }
    CHECK(shrunk == 0 || grows);
    wal_abandon(&w);
    loam_vfs_free(vfs);
    loam_vfs_free(disk);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
}

/* A disk that writes a record, syncs it and cuts the power at the end of each call with which a
 * segment is made: no lock of the log is held there. */
static struct {
    loam_vfs *below;
    bool armed;
    unsigned cuts;
    uint64_t next; /* record */
} making;

static void write_and_cut(void)
{
    if (!making.armed) {
        return;
    }
    making.armed = false; /* what is called here calls the disk itself */
    struct wal_slot s;
    CHECK_EQ(wal_begin(&w, 100, &s), LOAM_OK);
    log_fill(s.payload, 100, making.next);
    CHECK_EQ(wal_end(&w, &s, wal_durable(&w)), LOAM_OK);
    position_of[making.next] = s.position;
    written = (size_t)++making.next;
    CHECK_EQ(wal_sync(&w, s.end), LOAM_OK);
    synced = written;
    for (uint64_t v = 0; v < VARIANTS; v++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(making.below, v, &after), LOAM_OK);
        recover(after);
        loam_vfs_free(after);
    }
    making.cuts++;
    making.armed = true;
}

static int64_t making_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    int64_t rc = making.below->write(ctx, f, buf, n, off);
    write_and_cut();
    return rc;
}

static int making_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    int rc = making.below->sync(ctx, f, data_only);
    write_and_cut();
    return rc;
}

static int making_rename(void *ctx, const char *from, const char *to)
{
    int rc = making.below->rename(ctx, from, to);
    write_and_cut();
    return rc;
}

static int making_sync_dir(void *ctx, const char *dir)
{
    int rc = making.below->sync_dir(ctx, dir);
    write_and_cut();
    return rc;
}

/* Making a new segment, and one of a file that was released, with records under the knife beside it. */
Test(wal_crash, records_survive_a_power_cut_while_the_next_segment_is_made)
{
    loam_vfs *disk = memory_disk(), *vfs;
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed_of_run()};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &vfs), LOAM_OK);
    loam_vfs knife = *vfs;
    knife.write = making_write;
    knife.sync = making_sync;
    knife.rename = making_rename;
    knife.sync_dir = making_sync_dir;
    knife.write_durable = NULL;
    making.below = vfs;
    making.armed = false;
    making.cuts = 0;
    making.next = 0;
    written = synced = released = 0;
    first_live = 1;
    struct wal_options o = log_options(&knife, "/");
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    for (unsigned round = 0; round < 4; round++) {
        uint64_t boundary;
        uint32_t generation;
        struct wal_slot s;
        CHECK_EQ(log_append(&w, 300, making.next, &s), LOAM_OK);
        position_of[making.next] = s.position;
        written = (size_t)++making.next;
        unsigned before = making.cuts;
        making.armed = true;
        CHECK_EQ(wal_prepare(&w), LOAM_OK);
        making.armed = false;
        CHECK(w.next_ready);
        CHECK(making.cuts >= before + 4); /* header, its sync, the name, its sync */
        CHECK_EQ(wal_switch(&w, 0, &boundary, &generation), LOAM_OK);
        if (round != 0) {
            first_live = wal_segment_number(&w, generation);
            released = synced = written;
            wal_release(&w, generation); /* the next one is made of it */
        }
    }
    wal_abandon(&w);
    loam_vfs_free(vfs);
    loam_vfs_free(disk);
}

Test(wal_crash, a_mapped_log_recovers_a_prefix_with_all_that_was_synced)
{
    crash_everywhere(true, false, seed_of_run());
    crash_everywhere(true, true, seed_of_run());
}

Test(wal_crash, a_buffered_log_recovers_a_prefix_with_all_that_was_synced)
{
    crash_everywhere(false, false, seed_of_run());
    crash_everywhere(false, true, seed_of_run());
}
