/* log_chain_test.c - A log of several segments is read as one, or ends where it was never promised to go on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the records that were appended. Segments are made by the log itself; then files go.
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "engine/log_chain.h"
#include "engine/op.h"
#include "tests/support/check.h"
#include "tests/support/memory_disk.h"
#include "wal/wal_writer.h"

enum { SEGMENTS = 4, RECORDS = 3, ID = 77, START = 64 };

TestSuite(log_chain);

static uint64_t ends[SEGMENTS + 1]; /* positions behind each segment's records */

/* The segments before `first` stay without records. */
static loam_vfs *make_log(unsigned first, bool synced)
{
    static struct wal w;
    loam_vfs *disk = memory_disk_with("/db");
    const struct wal_options o = {.vfs = disk,
                                  .dir = "/db",
                                  .alloc = alloc_global(),
                                  .db_id = ID,
                                  .segment_bytes = 64u << 10,
                                  .window_bytes = 64u << 10,
                                  .start_position = START,
                                  .first_number = 1};
    CHECK_EQ(wal_open(&w, &o), LOAM_OK);
    ends[0] = START;
    for (unsigned i = 0; i < SEGMENTS; i++) {
        for (unsigned k = 0; k < RECORDS && i + 1 >= first; k++) {
            struct wal_slot s;
            uint8_t head[OP_HEAD_MAX];
            size_t n = op_put_head(head, ENTRY_DELETE, 0, 1, 0);
            CHECK_EQ(wal_begin(&w, n + 1, &s), LOAM_OK);
            memcpy(s.payload, head, n);
            s.payload[n] = (uint8_t)('a' + i);
            CHECK_EQ(wal_end(&w, &s, wal_durable(&w)), LOAM_OK);
            CHECK_EQ(synced ? wal_sync(&w, s.end) : LOAM_OK, LOAM_OK);
        }
        ends[i + 1] = wal_position(&w);
        uint64_t boundary;
        uint32_t generation;
        CHECK_EQ(i + 1 < SEGMENTS ? wal_switch(&w, 0, &boundary, &generation) : LOAM_OK, LOAM_OK);
    }
    wal_abandon(&w); /* as a kill leaves it */
    return disk;
}

static int count_record(void *ctx, uint64_t number, const struct wal_record *record)
{
    (void)number, (void)record;
    ++*(unsigned *)ctx;
    return LOAM_OK;
}

static int walk(const loam_vfs *disk, unsigned *records, uint64_t *end)
{
    struct log_chain c;
    *records = 0;
    const struct log_chain_options o = {.vfs = disk,
                                        .dir = "/db",
                                        .alloc = alloc_global(),
                                        .db_id = ID,
                                        .first_needed = 1,
                                        .last_seq = START - 1,
                                        .next_ks = 1,
                                        .record = count_record,
                                        .ctx = records};
    CHECK_EQ(log_chain_init(&c, &o), LOAM_OK);
    int rc = log_chain_run(&c);
    *end = c.end;
    log_chain_free(&c);
    return rc;
}

static void lose(const loam_vfs *disk, unsigned number)
{
    char path[64], name[WAL_FILE_NAME_MAX];
    wal_file_name(name, number);
    snprintf(path, sizeof path, "/db/%s", name);
    CHECK(disk->remove(disk->ctx, path) >= 0);
}

Test(log_chain, reads_segment_after_segment)
{
    unsigned records;
    uint64_t end;
    loam_vfs *disk = make_log(1, false);
    CHECK_EQ(walk(disk, &records, &end), LOAM_OK);
    CHECK_EQ(records, SEGMENTS * RECORDS);
    CHECK_EQ(end, ends[SEGMENTS]);
    loam_vfs_free(disk);
}

/* Nothing behind a gap is shown, whether it is damage or was never promised. */
Test(log_chain, ends_before_a_segment_that_is_missing)
{
    for (unsigned number = 1; number <= SEGMENTS; number++) {
        for (int synced = 0; synced < 2; synced++) {
            unsigned records;
            uint64_t end;
            loam_vfs *disk = make_log(1, synced != 0);
            lose(disk, number);
            int rc = walk(disk, &records, &end);
            CHECK_EQ(records, (number - 1) * RECORDS);
            /* The first is named by the manifest; the last takes the promises about it along. */
            bool damage = number == 1 || (synced && number < SEGMENTS);
            CHECK_EQ(rc, damage ? LOAM_E_CORRUPT : LOAM_OK);
            CHECK(damage || end == ends[number - 1]);
            loam_vfs_free(disk);
        }
    }
}

/* What the manifest names must be there, also when nothing seems to be missing without it. */
Test(log_chain, needs_its_first_segment_even_without_records)
{
    unsigned records;
    uint64_t end;
    loam_vfs *disk = make_log(2, false);
    CHECK_EQ(walk(disk, &records, &end), LOAM_OK);
    CHECK_EQ(records, (SEGMENTS - 1) * RECORDS);
    lose(disk, 1);
    CHECK_EQ(walk(disk, &records, &end), LOAM_E_CORRUPT);
    CHECK_EQ(records, 0);
    loam_vfs_free(disk);
}
