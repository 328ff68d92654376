/* wal_torn_tail_test.c - Damage in a log is an error or a clean cut, never wrong bytes or silent loss.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Segments are built byte by byte in memory and served by a vfs of one file. Oracle: the records
 * that were put in; a reading must give a prefix of them, and what a later durable mark or the
 * sealed end covers must be there or LOAM_E_CORRUPT.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>

#include "arena/hash.h"
#include "arena/random.h"
#include "tests/support/seed.h"
#include "tests/wal/wal_support.h"

#define NUMBER 5u
#define SALT   0x5a17u
#define BASE   0x10000u

struct loam_file {
    int unused;
};

/* The file under test. */
static struct {
    uint8_t bytes[4u << 20];
    uint64_t size;
    uint64_t end;      /* where the next record goes */
    uint64_t position; /* of it */
    uint64_t salt;
    unsigned records;
    uint64_t ends[64]; /* file offsets */
    uint64_t read;     /* bytes handed out */
} image;

static int image_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    static struct loam_file one;
    (void)ctx, (void)path, (void)flags;
    *f = &one;
    return 0;
}

static int image_close(void *ctx, loam_file *f)
{
    (void)ctx, (void)f;
    return 0;
}

static int64_t image_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    (void)ctx, (void)f;
    if (off >= image.size) {
        return 0;
    }
    n = n < image.size - off ? n : (size_t)(image.size - off);
    memcpy(buf, image.bytes + off, n);
    image.read += n;
    return (int64_t)n;
}

static int image_size(void *ctx, loam_file *f, uint64_t *size)
{
    (void)ctx, (void)f;
    *size = image.size;
    return 0;
}

static int image_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    (void)ctx, (void)f, (void)off, (void)len, (void)advice;
    return 0;
}

static const loam_vfs image_vfs = {
    .struct_size = sizeof(loam_vfs),
    .name = "image",
    .open = image_open,
    .close = image_close,
    .read = image_read,
    .size = image_size,
    .advise = image_advise,
};

static void image_header(uint32_t flags, uint64_t capacity)
{
    struct wal_file_header h = {flags, LOG_DB, NUMBER, SALT, capacity};
    wal_file_header_encode(image.bytes, &h);
}

static void image_begin(uint32_t flags, uint64_t capacity)
{
    CHECK(capacity + WAL_HEADER_PAGE <= sizeof image.bytes);
    memset(image.bytes, 0, (size_t)capacity + WAL_HEADER_PAGE);
    image_header(flags, capacity);
    image.size = WAL_HEADER_PAGE + capacity;
    image.end = WAL_HEADER_PAGE;
    image.position = BASE;
    image.salt = SALT;
    image.records = 0;
}

static void image_add(uint64_t size, uint32_t distance)
{
    uint8_t *p = image.bytes + image.end;
    uint64_t total = wal_record_size(size);
    wal_record_header_put(p, image.position, (uint32_t)size, WAL_TYPE_OPS, distance);
    memset(p + total - 8, 0, 8);
    log_fill(p + WAL_RECORD_HEADER, size, image.records);
    put_fixed64(p, checksum64(p + 8, total - 8, image.salt));
    image.end += total;
    image.position += total;
    image.ends[image.records++] = image.end;
}

/* Reads the image. *records: how many came, checked to be the first ones. Returns
 * wal_reader_check's verdict or the first error. */
static int image_judge(uint64_t sealed_end, unsigned *records, struct wal_reader_end *end)
{
    struct wal_reader r;
    struct wal_record record;
    *records = 0;
    memset(end, 0, sizeof *end);
    int rc = wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER, LOG_DB);
    if (rc < 0) {
        return rc;
    }
    while ((rc = wal_read_next(&r, &record)) == LOAM_OK) {
        CHECK_EQ(log_verify(record.payload), *records);
        ++*records;
        CHECK(*records <= image.records);
    }
    if (rc == LOAM_NOTFOUND) {
        rc = wal_reader_check(&r, sealed_end);
    }
    wal_reader_end(&r, end);
    wal_reader_close(&r);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
    return rc;
}

/* Three records, each knowing all before it to be durable. */
static void three_durable(uint32_t flags)
{
    image_begin(flags, 512);
    image_add(40, 0);
    image_add(9, 0);
    image_add(64, 0);
}

static unsigned record_at(uint64_t offset)
{
    unsigned i = 0;
    while (i < image.records && image.ends[i] <= offset) {
        i++;
    }
    return i;
}

Test(wal_torn_tail, every_flipped_bit_is_an_error_below_the_durable_mark)
{
    struct wal_reader_end end;
    unsigned n;
    three_durable(WAL_FLAG_FULL_SIZE);
    uint64_t sealed = image.position;
    CHECK_EQ(image_judge(0, &n, &end), LOAM_OK);
    CHECK_EQ(n, 3);
    CHECK_EQ(image_judge(sealed, &n, &end), LOAM_OK);
    for (uint64_t bit = 0; bit < image.size * 8; bit++) {
        image.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = image_judge(0, &n, &end);
        int closed_rc;
        unsigned same, hit = record_at(bit / 8);
        struct wal_reader_end closed_end;
        closed_rc = image_judge(sealed, &same, &closed_end);
        CHECK_EQ(same, n);
        if (bit / 8 < WAL_HEADER_PAGE) {
            CHECK(rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
            CHECK_EQ(n, 0);
        } else if (bit / 8 >= image.end) {
            CHECK_EQ(rc, LOAM_OK);
            CHECK_EQ(closed_rc, LOAM_OK);
            CHECK_EQ(n, 3);
        } else {
            CHECK_EQ(n, hit);
            CHECK_EQ(closed_rc, LOAM_E_CORRUPT);
            if (hit < 2) { /* a later record vouches for it */
                CHECK_EQ(rc, LOAM_E_CORRUPT);
                CHECK_EQ(loam_last_error()->file_id, NUMBER);
            } else {
                CHECK(rc == LOAM_OK || rc == WAL_TORN);
                CHECK_EQ(end.offset, image.ends[1]);
            }
        }
        image.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(wal_torn_tail, cut_at_every_length_gives_a_prefix_or_an_error)
{
    struct wal_reader_end end;
    for (uint32_t flags = 0; flags <= WAL_FLAG_FULL_SIZE; flags++) {
        three_durable(flags);
        uint64_t full = image.size, sealed = image.position;
        for (uint64_t size = 0; size < full; size++) {
            unsigned n;
            image.size = size;
            int rc = image_judge(0, &n, &end);
            if (flags != 0 || size < WAL_HEADER_PAGE) {
                CHECK_EQ(rc, LOAM_E_CORRUPT);
                continue;
            }
            CHECK_EQ(n, record_at(size));
            CHECK(rc == LOAM_OK || rc == WAL_TORN);
            CHECK_EQ(image_judge(sealed, &n, &end), size >= image.end ? LOAM_OK : LOAM_E_CORRUPT);
        }
    }
}

Test(wal_torn_tail, unsynced_records_may_be_lost_with_holes_between)
{
    struct wal_reader_end end;
    unsigned n;
    for (unsigned hole = 0; hole < 4; hole++) {
        image_begin(WAL_FLAG_FULL_SIZE, 1024);
        for (unsigned i = 0; i < 5; i++) {
            image_add(50, WAL_DURABLE_UNKNOWN);
        }
        uint64_t from = hole == 0 ? WAL_HEADER_PAGE : image.ends[hole - 1];
        memset(image.bytes + from, 0, (size_t)(image.ends[hole] - from));
        CHECK_EQ(image_judge(0, &n, &end), WAL_TORN);
        CHECK_EQ(n, hole);
        CHECK(end.torn);
        CHECK_EQ(end.end, BASE + (from - WAL_HEADER_PAGE));
    }
}

Test(wal_torn_tail, a_mark_reaching_into_the_middle_decides)
{
    struct wal_reader_end end;
    unsigned n;
    for (unsigned hole = 0; hole < 4; hole++) {
        for (unsigned mark = 0; mark < 5; mark++) { /* records below `mark` are durable */
            image_begin(WAL_FLAG_FULL_SIZE, 1024);
            for (unsigned i = 0; i < 5; i++) {
                uint64_t durable = BASE + 80 * mark;
                image_add(50, i == 4 ? wal_durable_distance(image.position, durable)
                                     : WAL_DURABLE_UNKNOWN);
            }
            image.bytes[WAL_HEADER_PAGE + 80 * hole + 40] ^= 1;
            int rc = image_judge(0, &n, &end);
            CHECK_EQ(n, hole);
            CHECK_EQ(rc, mark > hole ? LOAM_E_CORRUPT : WAL_TORN);
        }
    }
}

Test(wal_torn_tail, stale_records_of_a_recycled_file_never_parse)
{
    struct wal_reader_end end;
    struct random r;
    random_init(&r, 1);
    for (unsigned kept = 0; kept < 5; kept++) {
        image_begin(WAL_FLAG_FULL_SIZE, 1u << 20);
        image.salt = SALT + 1; /* the file's last use */
        image.position = BASE - (1u << 15);
        while (image.end + 2000 < image.size) {
            image.records = 0;
            image_add(8 + random_below(&r, 500), 0);
        }
        image.end = WAL_HEADER_PAGE;
        image.position = BASE;
        image.salt = SALT;
        image.records = 0;
        for (unsigned i = 0; i < kept; i++) {
            image_add(100, 0);
        }
        unsigned n;
        CHECK_EQ(image_judge(0, &n, &end), LOAM_OK);
        CHECK_EQ(n, kept);
        CHECK(!end.torn);
        CHECK_EQ(end.empty, kept == 0);
        if (kept >= 2) { /* the first one lost: the second one says so */
            image.bytes[WAL_HEADER_PAGE + 30] ^= 8;
            CHECK_EQ(image_judge(0, &n, &end), LOAM_E_CORRUPT);
        }
    }
}

Test(wal_torn_tail, limit_expectation_and_promise_shape_the_verdict)
{
    struct wal_reader r;
    struct wal_record record;
    uint64_t base;
    three_durable(WAL_FLAG_FULL_SIZE);
    uint64_t second = BASE + (image.ends[0] - WAL_HEADER_PAGE);
    CHECK_EQ(wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER, LOG_DB), LOAM_OK);
    CHECK_EQ(wal_reader_peek(&r, &base), LOAM_OK);
    CHECK_EQ(base, BASE);
    wal_reader_limit(&r, second);
    wal_reader_promise(&r, second + 4000); /* of a later segment: what it says about this one */
    CHECK_EQ(wal_read_next(&r, &record), LOAM_OK);
    CHECK_EQ(wal_read_next(&r, &record), LOAM_NOTFOUND);
    CHECK_EQ(wal_reader_check(&r, 0), LOAM_OK);
    wal_reader_close(&r);

    CHECK_EQ(wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER, LOG_DB), LOAM_OK);
    wal_reader_promise(&r, image.position + 8);
    CHECK_EQ(wal_reader_check(&r, 0), LOAM_E_CORRUPT);
    wal_reader_close(&r);

    image.bytes[WAL_HEADER_PAGE] ^= 1;
    CHECK_EQ(wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER, LOG_DB), LOAM_OK);
    CHECK_EQ(wal_reader_peek(&r, &base), LOAM_NOTFOUND);
    wal_reader_expect(&r, BASE);
    CHECK_EQ(wal_reader_check(&r, 0), LOAM_E_CORRUPT);
    wal_reader_close(&r);
}

Test(wal_torn_tail, swapped_and_foreign_files_are_errors)
{
    struct wal_reader r;
    three_durable(WAL_FLAG_FULL_SIZE);
    CHECK_EQ(wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER + 1, LOG_DB),
             LOAM_E_CORRUPT);
    CHECK_EQ(wal_reader_open(&r, &image_vfs, "/", alloc_global(), NUMBER, LOG_DB + 1),
             LOAM_E_CORRUPT);
}

Test(wal_torn_tail, a_valid_record_of_an_unknown_type_is_a_newer_format)
{
    struct wal_reader_end end;
    unsigned n;
    three_durable(WAL_FLAG_FULL_SIZE);
    uint8_t *p = image.bytes + image.ends[0];
    put_fixed32(p + 20, 3);
    put_fixed64(p, checksum64(p + 8, (size_t)(image.ends[1] - image.ends[0] - 8), SALT));
    CHECK_EQ(image_judge(0, &n, &end), LOAM_E_FORMAT);
    CHECK_EQ(n, 1);
}

Test(wal_torn_tail, long_records_are_checked_in_pieces)
{
    struct wal_reader_end end;
    unsigned n;
    image_begin(WAL_FLAG_FULL_SIZE, 3u << 20);
    image_add(1000, 0);
    image_add(1000001, 0);
    image_add(1200003, 0);
    image_add(77, 0);
    CHECK_EQ(image_judge(0, &n, &end), LOAM_OK);
    CHECK_EQ(n, 4);
    for (uint64_t at = WAL_HEADER_PAGE; at < image.end; at += 40009) {
        image.bytes[at] ^= 0x10;
        CHECK_EQ(image_judge(0, &n, &end), at < image.ends[2] ? LOAM_E_CORRUPT : WAL_TORN);
        CHECK_EQ(n, record_at(at));
        image.bytes[at] ^= 0x10;
    }
}

Test(wal_torn_tail, lengths_that_lie_cost_neither_memory_nor_time)
{
    struct wal_reader_end end;
    unsigned n;
    /* Every 8 bytes look like the header of a record up to the end of the file: the position of one
     * is length and type of the one before, so the numbers are chosen to be both. */
    image_begin(WAL_FLAG_FULL_SIZE, 1u << 20);
    image_add(16, 0);
    uint64_t base = ((uint64_t)0x12 << 32 | 1) << 0;
    base = (base & ~7ull) | 8;
    image.position = base;
    image.end = WAL_HEADER_PAGE;
    image.records = 0;
    image_add(16, 0);
    for (uint64_t off = image.end; off + 8 <= image.size; off += 8) {
        /* position wanted by the candidate at off - 8 */
        put_fixed64(image.bytes + off, base + (off - 8 - WAL_HEADER_PAGE));
    }
    image.read = 0;
    int rc = image_judge(0, &n, &end);
    CHECK(rc == LOAM_E_CORRUPT || rc == WAL_TORN || rc == LOAM_OK);
    CHECK_EQ(n, 1);
    CHECK(image.read < 16 * image.size);

    const uint32_t lengths[] = {
        0,         8, 487, 488, 489, 4096, WAL_PAYLOAD_MAX, WAL_PAYLOAD_MAX + 1, UINT32_MAX - 24,
        UINT32_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        three_durable(WAL_FLAG_FULL_SIZE);
        put_fixed32(image.bytes + image.ends[1] + 16, lengths[i]);
        rc = image_judge(0, &n, &end);
        CHECK_EQ(n, 2);
        CHECK(rc == WAL_TORN || rc == LOAM_OK);
    }
}

Test(wal_torn_tail, random_bytes_never_give_wrong_records)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct wal_reader_end end;
    for (unsigned round = 0; round < 3000; round++) {
        image_begin(round % 2 ? WAL_FLAG_FULL_SIZE : 0, 4096);
        while (image.end + 200 < image.size && image.records < 20) {
            image_add(8 + random_below(&r, 150), random_below(&r, 2) ? 0 : WAL_DURABLE_UNKNOWN);
        }
        static uint8_t whole[sizeof image.bytes];
        memcpy(whole, image.bytes, image.end);
        for (unsigned k = 0; k < 1 + round % 4; k++) {
            uint64_t at = WAL_HEADER_PAGE + random_below(&r, image.end - WAL_HEADER_PAGE);
            uint64_t len = 1 + random_below(&r, 64);
            uint64_t kind = random_below(&r, 3);
            for (uint64_t i = at; i < at + len && i < image.end; i++) {
                image.bytes[i] = kind == 0 ? 0 : kind == 1 ? 0xff : (uint8_t)random_next(&r);
            }
        }
        uint64_t same = WAL_HEADER_PAGE; /* one damage may undo another */
        while (same < image.end && whole[same] == image.bytes[same]) {
            same++;
        }
        unsigned first = record_at(same);
        unsigned n;
        int rc = image_judge(0, &n, &end);
        CHECK_EQ(n, first);
        CHECK(rc == LOAM_OK || rc == WAL_TORN || rc == LOAM_E_CORRUPT);
        if (n + 1 < image.records && rc == LOAM_OK) {
            /* Nothing behind the hole may have been readable. */
            CHECK(!end.torn);
        }
    }
}

/* The lost first record leaves the base to be found; a whole record that damage has put elsewhere must
 * not be believed about it, or it hides what the others promise. */
/* A long record that did not arrive whole is as torn as a short one. */
Test(wal_torn_tail, a_long_record_that_was_not_promised_may_be_torn)
{
    struct wal_reader_end end;
    unsigned n;
    image_begin(WAL_FLAG_FULL_SIZE, 3u << 20);
    image_add(1000, 0);
    image_add(1200003, 0);
    for (uint64_t at = image.ends[0] + 8; at < image.ends[1]; at += 70001) {
        image.bytes[at] ^= 0x10;
        CHECK(image_judge(0, &n, &end) >= 0); /* torn, or nothing that looks like a record */
        CHECK_EQ(n, 1);
        image.bytes[at] ^= 0x10;
    }
}

/* A whole record of the same file, where another should be: it is not taken for that one. */
Test(wal_torn_tail, a_record_in_anothers_place_is_not_read)
{
    struct wal_reader_end end;
    unsigned n;
    image_begin(0, 64u << 10);
    for (unsigned i = 0; i < 6; i++) {
        image_add(500, 0);
    }
    uint64_t size = image.ends[1] - image.ends[0];
    memcpy(image.bytes + image.ends[3], image.bytes + image.ends[1], (size_t)size);
    CHECK_EQ(image_judge(0, &n, &end), LOAM_E_CORRUPT); /* the last record knows of the fifth */
    CHECK_EQ(n, 4);
}

Test(wal_torn_tail, a_record_at_another_place_hides_no_promise)
{
    struct wal_reader_end end;
    unsigned records;
    image_begin(0, 64u << 10);
    image_add(6000, WAL_DURABLE_UNKNOWN);
    image_add(2000, 0); /* the first one was durable when this was written */
    uint64_t from = image.end;
    image_add(64, WAL_DURABLE_UNKNOWN);
    memcpy(image.bytes + WAL_HEADER_PAGE + 1024, image.bytes + from, (size_t)(image.end - from));
    CHECK_EQ(image_judge(0, &records, &end), LOAM_E_CORRUPT);
    CHECK_EQ(records, 0);
}
