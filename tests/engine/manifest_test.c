/* manifest_test.c - The manifest's bytes are as documented; damage is told from an append cut short.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a list of payloads. A file cut or damaged in its last record reads as the list without
 * it; damaged anywhere before, it is refused with the offset of the bad record. The golden bytes
 * are the format: they must be read for ever.
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "arena/random.h"
#include "engine/manifest.h"
#include "engine/manifest_replay.h"
#include "engine/version_edit.h"
#include "tests/support/check.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"

#define RECORDS 6

static const uint8_t golden_manifest[] = {
#include "tests/engine/manifest_golden.inc"
};

static size_t payload_of(int i, uint8_t out[64])
{
    size_t n = (size_t)(5 + i * 7);
    memset(out, 'a' + i, n);
    return n;
}

/* A manifest of RECORDS records, the first of which is the snapshot, in force. */
static void write_manifest(const loam_vfs *vfs, uint64_t db_id, uint64_t number, bool closed,
                           uint64_t ends[RECORDS + 1])
{
    struct manifest m;
    struct buf record;
    uint8_t payload[64];
    bool renamed;
    CHECK_EQ(manifest_init(&m, vfs, "/db", alloc_global()), LOAM_OK);
    buf_init(&record, alloc_global(), MEM_VERSION);
    CHECK_EQ(manifest_create(&m, db_id, number, true), LOAM_OK);
    ends[0] = m.size;
    for (int i = 0; i < RECORDS; i++) {
        manifest_record_begin(&record);
        buf_append(&record, payload, payload_of(i, payload));
        if (i == 0) {
            CHECK_EQ(manifest_write(&m, &record), LOAM_OK);
            CHECK_EQ(manifest_finish_snapshot(&m), LOAM_OK);
            CHECK_EQ(manifest_set_current(&m, false, &renamed), LOAM_OK);
            CHECK(renamed);
        } else {
            CHECK_EQ(manifest_append(&m, &record), LOAM_OK);
        }
        ends[i + 1] = m.size;
    }
    if (closed) {
        CHECK_EQ(manifest_set_current(&m, true, &renamed), LOAM_OK);
    }
    buf_free(&record);
    manifest_destroy(&m);
}

/* Reads it all; *count is how many records were good. */
static int read_manifest(const loam_vfs *vfs, int *count, bool *torn)
{
    struct manifest_current current;
    struct manifest_reader r;
    *count = 0;
    *torn = false;
    int rc = manifest_read_current(vfs, "/db", &current);
    if (rc != LOAM_OK) {
        return rc;
    }
    rc = manifest_reader_open(&r, vfs, "/db", alloc_global(), &current);
    if (rc != LOAM_OK) {
        return rc;
    }
    loam_slice payload;
    uint64_t offset;
    while ((rc = manifest_read_next(&r, &payload, &offset)) == LOAM_OK) {
        uint8_t expected[64];
        CHECK_BYTES(payload.data, payload.size, expected, payload_of(*count, expected));
        r.snapshot_size = r.offset;
        (*count)++;
    }
    *torn = r.torn;
    manifest_reader_close(&r);
    return rc;
}

static size_t load(const loam_vfs *vfs, const char *path, uint8_t *bytes, size_t cap)
{
    loam_file *f;
    CHECK(vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f) >= 0);
    int64_t n = vfs->read(vfs->ctx, f, bytes, cap, 0);
    CHECK(n >= 0);
    vfs->close(vfs->ctx, f);
    return (size_t)n;
}

#define PATH "/db/MANIFEST-000000000003"

Test(manifest, reads_back_what_was_written)
{
    uint64_t ends[RECORDS + 1];
    for (int closed = 0; closed < 2; closed++) {
        loam_vfs *disk = memory_disk_with("/db");
        int count;
        bool torn;
        CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_E_NOENT);
        write_manifest(disk, 77, 3, closed != 0, ends);
        CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
        CHECK_EQ(count, RECORDS);
        CHECK(!torn);
        loam_vfs_free(disk);
    }
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VERSION), 0);
}

/* On a full disk another one is tried every few milliseconds, each under a name of its own. */
Test(manifest, that_cannot_be_begun_leaves_no_file)
{
    loam_vfs *disk = memory_disk_with("/db"), *fault;
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .fail_calls = LOAM_CALL_WRITE,
                                  .fail_at = 1,
                                  .fail_errno = ENOSPC};
    struct manifest m;
    loam_file *f;
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    CHECK_EQ(manifest_init(&m, fault, "/db", alloc_global()), LOAM_OK);
    CHECK_EQ(manifest_create(&m, 1, 7, false), LOAM_E_NOSPACE);
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOSPACE);
    CHECK(!manifest_is_open(&m));
    CHECK_EQ(disk->open(disk->ctx, m.path, LOAM_VFS_READ, &f), -ENOENT);
    manifest_destroy(&m);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(manifest, every_flipped_bit_of_current_is_an_error)
{
    uint64_t ends[RECORDS + 1];
    loam_vfs *disk = memory_disk_with("/db");
    uint8_t bytes[256];
    struct manifest_current current;
    write_manifest(disk, 77, 3, true, ends);
    size_t n = load(disk, "/db/CURRENT", bytes, sizeof bytes);
    CHECK_EQ(n, MANIFEST_CURRENT_BYTES);
    for (size_t bit = 0; bit < n * 8; bit++) {
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
        disk_file_write(disk, "/db/CURRENT", bytes, n);
        CHECK(manifest_read_current(disk, "/db", &current) < 0);
        bytes[bit / 8] = (uint8_t)(bytes[bit / 8] ^ 1u << bit % 8);
    }
    loam_vfs_free(disk);
}

/* A crash before CURRENT named it: its number serves again, for the same snapshot and maybe the same edits. An
 * append that was cut short may then have in its blocks what the first one had there. */
Test(manifest, records_of_an_old_manifest_of_the_same_number_are_no_damage)
{
    uint64_t ends[RECORDS + 1];
    loam_vfs *disk = memory_disk_with("/db");
    uint8_t old[4096], bytes[4096];
    int count;
    bool torn;
    write_manifest(disk, 77, 3, false, ends);
    size_t n = load(disk, PATH, old, sizeof old);
    write_manifest(disk, 77, 3, false, ends);
    CHECK_EQ(load(disk, PATH, bytes, sizeof bytes), n);
    size_t at = ends[RECORDS - 3];
    memcpy(bytes + at, old + at, n - at);
    memset(bytes + at, 0, 10);
    disk_file_write(disk, PATH, bytes, n);
    CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
    CHECK_EQ(count, RECORDS - 3);
    CHECK(torn);
    loam_vfs_free(disk);
}

/* A block that the cut-off append got may have been the file's own, before it moved to another place. */
Test(manifest, records_of_its_own_in_a_later_block_are_no_damage)
{
    uint64_t ends[RECORDS + 1];
    loam_vfs *disk = memory_disk_with("/db");
    uint8_t bytes[4096];
    int count;
    bool torn;
    write_manifest(disk, 77, 3, false, ends);
    size_t n = load(disk, PATH, bytes, sizeof bytes);
    size_t from = ends[0], size = ends[RECORDS - 1] - from, bad = 20; /* all but the first and the last */
    CHECK(n + bad + size <= sizeof bytes);
    memset(bytes + n, 0, bad);
    memcpy(bytes + n + bad, bytes + from, size);
    disk_file_write(disk, PATH, bytes, n + bad + size);
    CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
    CHECK_EQ(count, RECORDS);
    CHECK(torn);
    loam_vfs_free(disk);
}

/* One of the same length, whose records are good, but not those that were there at the close. */
Test(manifest, that_was_rolled_back_behind_a_clean_close_is_damage)
{
    uint64_t ends[RECORDS + 1];
    loam_vfs *disk = memory_disk_with("/db");
    struct manifest_current current;
    struct manifest_reader r;
    write_manifest(disk, 77, 3, true, ends);
    CHECK_EQ(manifest_read_current(disk, "/db", &current), LOAM_OK);
    current.chain++;
    CHECK_EQ(manifest_reader_open(&r, disk, "/db", alloc_global(), &current), LOAM_OK);
    loam_slice payload;
    uint64_t offset;
    for (int i = 0; i < RECORDS; i++) {
        CHECK_EQ(manifest_read_next(&r, &payload, &offset), LOAM_OK);
    }
    CHECK_EQ(manifest_read_next(&r, &payload, &offset), LOAM_E_CORRUPT);
    manifest_reader_close(&r);
    loam_vfs_free(disk);
}

/* Its records are whole, but the last one of the snapshot is missing. */
Test(manifest, that_ends_inside_its_snapshot_is_damage)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct manifest_current current;
    for (int whole = 0; whole < 2; whole++) {
        struct manifest m;
        struct buf record;
        struct version_edit e;
        struct manifest_replay r;
        bool renamed;
        CHECK_EQ(manifest_init(&m, disk, "/db", alloc_global()), LOAM_OK);
        buf_init(&record, alloc_global(), MEM_VERSION);
        CHECK_EQ(manifest_create(&m, 77, 3, true), LOAM_OK);
        version_edit_init(&e, alloc_global());
        version_edit_set_next_file(&e, 9);
        const struct ks_desc space = {
            .id = KS_DEFAULT, .block_bytes = 4096, .name = LOAM_LIT("default")};
        CHECK_EQ(version_edit_create_ks(&e, &space), LOAM_OK);
        e.snapshot_end = whole != 0;
        manifest_record_begin(&record);
        version_edit_encode(&e, &record);
        CHECK_EQ(manifest_write(&m, &record), LOAM_OK);
        CHECK_EQ(manifest_finish_snapshot(&m), LOAM_OK);
        CHECK_EQ(manifest_set_current(&m, false, &renamed), LOAM_OK);
        version_edit_free(&e);
        buf_free(&record);
        manifest_destroy(&m);
        CHECK_EQ(manifest_read_current(disk, "/db", &current), LOAM_OK);
        manifest_replay_init(&r, alloc_global());
        CHECK_EQ(manifest_replay_run(&r, disk, "/db", &current), whole ? LOAM_OK : LOAM_E_CORRUPT);
        manifest_replay_free(&r);
    }
    loam_vfs_free(disk);
}

/* A power cut may leave a new block with what an old manifest had there: records that follow each other
 * well, and still no damage. */
Test(manifest, records_of_an_old_manifest_in_a_torn_append_are_no_damage)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1];
    uint8_t old[1024], bytes[2048];
    int count;
    bool torn;
    write_manifest(disk, 77, 2, false, ends);
    load(disk, "/db/MANIFEST-000000000002", old, sizeof old);
    write_manifest(disk, 77, 3, false, ends);
    load(disk, PATH, bytes, sizeof bytes);
    size_t at = (size_t)ends[RECORDS - 1], stale = (size_t)(ends[RECORDS] - ends[1]);
    memset(bytes + at, 0, MANIFEST_RECORD_BYTES);
    bytes[at] = (uint8_t)stale; /* one long record, whose bytes are not there */
    bytes[at + 4] = 1;
    CHECK(stale < 256);
    memcpy(bytes + at + MANIFEST_RECORD_BYTES, old + ends[1], stale);
    disk_file_write(disk, PATH, bytes, at + MANIFEST_RECORD_BYTES + stale);
    CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
    CHECK_EQ(count, RECORDS - 1);
    CHECK(torn);
    loam_vfs_free(disk);
}

Test(manifest, takes_only_the_last_record_for_a_torn_append)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1];
    uint8_t good[1024], bad[1024];
    int count;
    bool torn;
    write_manifest(disk, 77, 3, false, ends);
    size_t size = load(disk, PATH, good, sizeof good);
    CHECK_EQ(size, ends[RECORDS]);
    for (size_t at = 0; at < size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(bad, good, size);
            bad[at] ^= (uint8_t)(1u << bit);
            disk_file_write(disk, PATH, bad, size);
            int rc = read_manifest(disk, &count, &torn);
            if (at >= ends[RECORDS - 1]) {
                CHECK_EQ(rc, LOAM_NOTFOUND);
                CHECK_EQ(count, RECORDS - 1);
                CHECK(torn);
            } else {
                CHECK(rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
                CHECK(rc == LOAM_E_FORMAT || loam_last_error()->file_id == 3);
                CHECK(at < ends[0] || loam_last_error()->offset == ends[count]);
            }
        }
    }
    loam_vfs_free(disk);
}

/* Two records behind the close of write_manifest(). */
static void go_on(const loam_vfs *vfs, uint64_t ends[2])
{
    struct manifest_current current;
    struct manifest_reader r;
    struct manifest m;
    struct buf record;
    loam_slice payload;
    uint64_t offset;
    uint8_t bytes[64];
    CHECK_EQ(manifest_read_current(vfs, "/db", &current), LOAM_OK);
    CHECK_EQ(manifest_reader_open(&r, vfs, "/db", alloc_global(), &current), LOAM_OK);
    while (manifest_read_next(&r, &payload, &offset) == LOAM_OK) {
        r.snapshot_size = r.snapshot_size != 0 ? r.snapshot_size : r.offset;
    }
    struct manifest_end end = manifest_reader_end(&r);
    CHECK(end.closed && !end.torn);
    manifest_reader_close(&r);
    CHECK_EQ(manifest_init(&m, vfs, "/db", alloc_global()), LOAM_OK);
    CHECK_EQ(manifest_continue(&m, &end), LOAM_OK);
    CHECK_EQ(m.snapshot_size, end.snapshot_size);
    buf_init(&record, alloc_global(), MEM_VERSION);
    for (int i = 0; i < 2; i++) {
        manifest_record_begin(&record);
        buf_append(&record, bytes, payload_of(RECORDS + i, bytes));
        CHECK_EQ(manifest_append(&m, &record), LOAM_OK);
        ends[i] = m.size;
    }
    buf_free(&record);
    manifest_destroy(&m);
}

Test(manifest, that_was_closed_may_be_torn_only_behind_the_close)
{
    uint64_t ends[RECORDS + 1], later[2];
    uint8_t good[1024], bad[1024];
    int count;
    bool torn;
    for (int more = 0; more < 2; more++) {
        loam_vfs *disk = memory_disk_with("/db");
        write_manifest(disk, 77, 3, true, ends);
        if (more != 0) {
            go_on(disk, later);
        }
        uint64_t closed = ends[RECORDS], last = more != 0 ? later[0] : closed;
        size_t size = load(disk, PATH, good, sizeof good);
        CHECK_EQ(size, more != 0 ? later[1] : closed);
        for (size_t at = 0; at < size; at++) {
            memcpy(bad, good, size);
            bad[at] ^= 4;
            disk_file_write(disk, PATH, bad, size);
            int rc = read_manifest(disk, &count, &torn);
            CHECK(at >= last ? rc == LOAM_NOTFOUND && torn && count == RECORDS + 1 : rc < 0);
            disk_file_write(disk, PATH, good, at);
            rc = read_manifest(disk, &count, &torn);
            CHECK(at >= closed ? rc == LOAM_NOTFOUND && count >= RECORDS : rc == LOAM_E_CORRUPT);
        }
        disk_file_write(disk, PATH, good, size);
        CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
        CHECK_EQ(count, more != 0 ? RECORDS + 2 : RECORDS);
        loam_vfs_free(disk);
    }
}

Test(manifest, accepts_a_cut_only_behind_the_snapshot)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1];
    uint8_t good[1024];
    int count;
    bool torn;
    write_manifest(disk, 77, 3, false, ends);
    size_t size = load(disk, PATH, good, sizeof good);
    for (size_t n = 0; n < size; n++) {
        disk_file_write(disk, PATH, good, n);
        int rc = read_manifest(disk, &count, &torn);
        if (n < ends[0] || (n > ends[0] && n < ends[1])) {
            CHECK_EQ(rc, LOAM_E_CORRUPT);
        } else {
            CHECK_EQ(rc, LOAM_NOTFOUND);
            CHECK(ends[count] <= n && (count == RECORDS || n < ends[count + 1]));
        }
    }
    loam_vfs_free(disk);
}

Test(manifest, ignores_zeros_and_garbage_behind_the_last_record)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1];
    uint8_t bytes[4096];
    struct random r;
    int count;
    bool torn;
    random_init(&r, 1);
    write_manifest(disk, 77, 3, false, ends);
    size_t size = load(disk, PATH, bytes, sizeof bytes);
    for (int round = 0; round < 100; round++) {
        for (size_t i = size; i < sizeof bytes; i++) {
            bytes[i] = round == 0 ? 0 : (uint8_t)random_next(&r);
        }
        disk_file_write(disk, PATH, bytes, sizeof bytes);
        CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_NOTFOUND);
        CHECK_EQ(count, RECORDS);
        CHECK(torn);
    }
    loam_vfs_free(disk);
}

Test(manifest, detects_records_swapped_removed_or_of_another_manifest)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1], other_ends[RECORDS + 1];
    uint8_t good[1024], other[1024], bad[1024];
    int count;
    bool torn;
    write_manifest(disk, 78, 3, false, other_ends);
    size_t size = load(disk, PATH, other, sizeof other);
    write_manifest(disk, 77, 3, false, ends);
    CHECK_EQ(load(disk, PATH, good, sizeof good), size);
    for (int i = 1; i + 1 < RECORDS; i++) { /* record i is missing */
        memcpy(bad, good, size);
        memmove(bad + ends[i], bad + ends[i + 1], size - ends[i + 1]);
        disk_file_write(disk, PATH, bad, size - (ends[i + 1] - ends[i]));
        int rc = read_manifest(disk, &count, &torn);
        /* Only the last pair cannot be told: what stands there follows nothing. */
        CHECK(i + 2 < RECORDS ? rc == LOAM_E_CORRUPT : rc == LOAM_NOTFOUND && count == i);
    }
    for (int i = 1; i + 1 < RECORDS; i++) { /* record i is another manifest's */
        memcpy(bad, good, size);
        memcpy(bad + ends[i], other + ends[i], ends[i + 1] - ends[i]);
        disk_file_write(disk, PATH, bad, size);
        CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_E_CORRUPT);
    }
    disk_file_write(disk, PATH, other, size);
    CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_E_CORRUPT);
    loam_vfs_free(disk);
}

Test(manifest, stays_linear_on_a_file_full_of_false_records)
{
    loam_vfs *disk = memory_disk_with("/db");
    uint64_t ends[RECORDS + 1];
    static uint8_t bytes[1 << 18];
    int count;
    bool torn;
    write_manifest(disk, 77, 3, false, ends);
    size_t size = load(disk, PATH, bytes, sizeof bytes);
    for (size_t i = size; i + 16 <= sizeof bytes; i += 16) { /* each claims all that follows */
        uint32_t n = (uint32_t)(sizeof bytes - i - 16);
        uint32_t kind = 1;
        memcpy(bytes + i, &n, 4);
        memcpy(bytes + i + 4, &kind, 4);
        memset(bytes + i + 8, 0x5a, 8);
    }
    disk_file_write(disk, PATH, bytes, sizeof bytes);
    CHECK_EQ(read_manifest(disk, &count, &torn), LOAM_E_CORRUPT);
    loam_vfs_free(disk);
}

static int no_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    memset(buf, 0, n);
    return 0;
}

Test(manifest, writes_the_golden_bytes)
{
    loam_vfs *disk = memory_disk_with("/db");
    loam_vfs plain = *disk;
    plain.random = no_random;
    struct manifest m;
    struct buf record;
    struct version_edit e;
    uint8_t bytes[1024];
    bool renamed;
    struct ks_desc k = {
        .compression = 2, .filter_bits = 10, .block_bytes = 4096, .name = LOAM_LIT("default")};
    struct table_meta t = {.number = 7,
                           .size = 70000,
                           .entries = 600,
                           .deletes = 3,
                           .raw_bytes = 69000,
                           .checksum = 0x1122334455667788,
                           .min_seq = 64,
                           .max_seq = 90000,
                           .level = 6,
                           .smallest = LOAM_LIT("apple"),
                           .largest = LOAM_LIT("pear")};
    CHECK_EQ(manifest_init(&m, &plain, "/db", alloc_global()), LOAM_OK);
    CHECK_EQ(manifest_create(&m, 0x0102030405060708, 3, false), LOAM_OK);
    buf_init(&record, alloc_global(), MEM_VERSION);
    version_edit_init(&e, alloc_global());
    CHECK_EQ(version_edit_create_ks(&e, &k), LOAM_OK);
    version_edit_set_next_file(&e, 4);
    version_edit_set_next_ks(&e, 1);
    e.snapshot_end = true;
    manifest_record_begin(&record);
    version_edit_encode(&e, &record);
    CHECK_EQ(manifest_write(&m, &record), LOAM_OK);
    CHECK_EQ(manifest_finish_snapshot(&m), LOAM_OK);
    version_edit_free(&e);
    CHECK_EQ(version_edit_add_table(&e, &t), LOAM_OK);
    CHECK_EQ(version_edit_remove_table(&e, 0, 0, 5), LOAM_OK);
    version_edit_set_log_number(&e, 6, false);
    version_edit_set_last_seq(&e, 90000);
    manifest_record_begin(&record);
    version_edit_encode(&e, &record);
    CHECK_EQ(manifest_append(&m, &record), LOAM_OK);
    CHECK_EQ(manifest_set_current(&m, true, &renamed), LOAM_OK);
    size_t n = load(disk, PATH, bytes, sizeof bytes);
    n += load(disk, "/db/CURRENT", bytes + n, sizeof bytes - n);
    if (getenv("LOAM_GOLDEN") != NULL) { /* prints the bytes for manifest_golden.inc */
        for (size_t i = 0; i < n; i++) {
            printf("0x%02x,%s", bytes[i], i % 16 == 15 ? "\n" : " ");
        }
        printf("\n");
        fflush(stdout);
    }
    CHECK_BYTES(bytes, n, golden_manifest, sizeof golden_manifest);
    version_edit_free(&e);
    buf_free(&record);
    manifest_destroy(&m);
    loam_vfs_free(disk);
}

static void append_edit(struct manifest *m, struct version_edit *e)
{
    struct buf record;
    buf_init(&record, alloc_global(), MEM_VERSION);
    manifest_record_begin(&record);
    version_edit_encode(e, &record);
    CHECK_EQ(manifest_append(m, &record), LOAM_OK);
    buf_free(&record);
    version_edit_free(e);
}

static uint32_t dead_ranges_of(const loam_vfs *disk)
{
    struct manifest_current current;
    struct manifest_replay r;
    CHECK_EQ(manifest_read_current(disk, "/db", &current), LOAM_OK);
    manifest_replay_init(&r, alloc_global());
    CHECK_EQ(manifest_replay_run(&r, disk, "/db", &current), LOAM_OK);
    uint32_t n = r.keyspaces.dead_count;
    manifest_replay_free(&r);
    return n;
}

/* What is said of the state at a clean close is not said of any later one. */
Test(manifest, dead_ranges_are_of_the_last_edit_alone)
{
    loam_vfs *disk = memory_disk_with("/db");
    struct manifest m;
    struct version_edit e;
    bool renamed;
    const struct ks_desc k = {
        .compression = 2, .filter_bits = 10, .block_bytes = 4096, .name = LOAM_LIT("default")};
    const struct dead_note n = {.from = 9, .lo = LOAM_LIT("a"), .hi = LOAM_LIT("b")};
    CHECK_EQ(manifest_init(&m, disk, "/db", alloc_global()), LOAM_OK);
    CHECK_EQ(manifest_create(&m, 1, 3, false), LOAM_OK);
    version_edit_init(&e, alloc_global());
    CHECK_EQ(version_edit_create_ks(&e, &k), LOAM_OK);
    version_edit_set_next_file(&e, 4);
    version_edit_set_next_ks(&e, 1);
    e.snapshot_end = true;
    append_edit(&m, &e);
    CHECK_EQ(manifest_finish_snapshot(&m), LOAM_OK);
    CHECK_EQ(manifest_set_current(&m, false, &renamed), LOAM_OK);
    CHECK_EQ(dead_ranges_of(disk), 0);
    version_edit_set_sealed(&e, 0, 0);
    CHECK_EQ(version_edit_add_dead(&e, &n), LOAM_OK);
    append_edit(&m, &e);
    CHECK_EQ(dead_ranges_of(disk), 1);
    version_edit_set_last_seq(&e, 20);
    append_edit(&m, &e);
    CHECK_EQ(dead_ranges_of(disk), 0);
    manifest_destroy(&m);
    loam_vfs_free(disk);
}
