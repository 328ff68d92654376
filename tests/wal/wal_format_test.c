/* wal_format_test.c - The log's bytes are what wal_format.h says, today and in files of earlier days.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a golden segment in hexadecimal, written down once; and the layout's own arithmetic.
 */
#include "wal/wal_format.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "arena/hash.h"
#include "arena/vfs.h"
#include "tests/support/check.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"
#include "wal/wal_reader.h"

#define DB_ID 0x1122334455667788u

static const struct wal_file_header sample = {
    .flags = WAL_FLAG_FULL_SIZE,
    .db_id = DB_ID,
    .number = 42,
    .salt = 0xfeedfacecafebeefu,
    .capacity = 65536,
};

Test(wal_format, names_have_twelve_digits_and_parse_back)
{
    char name[WAL_FILE_NAME_MAX];
    const uint64_t numbers[] = {0, 1, 7, 999999999999u, 1000000000000u, UINT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t back = 1234;
        wal_file_name(name, numbers[i]);
        CHECK(wal_parse_file_name(loam_bytes(name, strlen(name)), &back));
        CHECK(back == numbers[i]);
        wal_temporary_name(name, numbers[i]);
        CHECK(!wal_parse_file_name(loam_bytes(name, strlen(name)), &back));
        CHECK(wal_is_temporary_name(loam_bytes(name, strlen(name))));
    }
    wal_file_name(name, 7);
    CHECK_BYTES(name, strlen(name), "000000000007.log", 16);
}

Test(wal_format, other_names_do_not_parse)
{
    const char *names[] = {"",
                           ".log",
                           "7.log",
                           "00000000000a.log",
                           "000000000007.sst",
                           "000000000007.log2",
                           "0000000000007.log",
                           "99999999999999999999.log",
                           "999999999999999999999.log",
                           "-00000000007.log"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        uint64_t n;
        CHECK(!wal_parse_file_name(loam_bytes(names[i], strlen(names[i])), &n));
    }
}

Test(wal_format, a_header_page_reads_back)
{
    uint8_t page[WAL_HEADER_PAGE];
    struct wal_file_header h;
    wal_file_header_encode(page, &sample);
    CHECK_EQ(wal_file_header_decode(page, 42, &h), LOAM_OK);
    CHECK(h.flags == sample.flags && h.db_id == sample.db_id && h.number == sample.number);
    CHECK(h.salt == sample.salt && h.capacity == sample.capacity);
}

Test(wal_format, every_flipped_bit_of_a_header_is_an_error)
{
    uint8_t page[WAL_HEADER_PAGE];
    struct wal_file_header h;
    wal_file_header_encode(page, &sample);
    for (size_t bit = 0; bit < 8 * WAL_HEADER_PAGE; bit++) {
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
        int rc = wal_file_header_decode(page, 42, &h);
        CHECK(rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
        page[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(wal_format, a_newer_version_and_a_foreign_file_are_format_errors)
{
    uint8_t page[WAL_HEADER_PAGE];
    struct wal_file_header h;
    wal_file_header_encode(page, &sample);
    put_fixed32(page + 8, WAL_VERSION + 1);
    CHECK_EQ(wal_file_header_decode(page, 42, &h), LOAM_E_FORMAT);
    wal_file_header_encode(page, &sample);
    put_fixed64(page, 0x1234);
    put_fixed64(page + 4088, checksum64(page, 4088, 0));
    CHECK_EQ(wal_file_header_decode(page, 42, &h), LOAM_E_FORMAT);
    wal_file_header_encode(page, &sample);
    put_fixed32(page + 12, 0x80000001u); /* an unknown feature */
    put_fixed64(page + 4088, checksum64(page, 4088, 0));
    CHECK_EQ(wal_file_header_decode(page, 42, &h), LOAM_E_FORMAT);
}

Test(wal_format, durable_distance_saturates_to_unknown)
{
    CHECK_EQ(wal_durable_distance(800, 800), 0);
    CHECK_EQ(wal_durable_distance(800, 8000), 0);
    CHECK_EQ(wal_durable_distance(800, 0), 100);
    uint64_t far = (uint64_t)WAL_DURABLE_UNKNOWN * 8;
    CHECK_EQ(wal_durable_distance(far, 0), WAL_DURABLE_UNKNOWN);
    CHECK_EQ(wal_durable_distance(far - 8, 0), WAL_DURABLE_UNKNOWN - 1);
    uint8_t record[WAL_RECORD_HEADER] = {0};
    wal_record_header_put(record, 800, 5, WAL_TYPE_OPS, 10);
    struct wal_record_header h = wal_record_header_get(record);
    CHECK(h.position == 800 && h.length == 5 && h.type == WAL_TYPE_OPS);
    CHECK_EQ(wal_record_durable(&h), 720);
    h.durable_distance = WAL_DURABLE_UNKNOWN;
    CHECK_EQ(wal_record_durable(&h), 0);
    h.durable_distance = 101; /* more than there is: hostile */
    CHECK_EQ(wal_record_durable(&h), 0);
}

/* What is not zero in a segment with the records {4096, "hello", durable 4088}, a void one of 8
 * bytes at 4128, and {4160, "", durable unknown}. */
static const struct {
    uint32_t offset;
    const char *hex;
} golden[] = {
    {0, "6c6f616d6c6f670a010000000100000088776655443322112a00000000000000"
        "efbefecacefaedfe0000010000000000"},
    {4088, "db1965157dc81326"},
    {4096, "6d3239216704038b0010000000000000050000001100000068656c6c6f000000"},
    {4128, "16653782587e8b66201000000000000008000000f2ffffff7878787878787878"},
    {4160, "7d582be3ba9b0386401000000000000000000000f1ffffff"},
};

static size_t unhex(uint8_t *out, const char *hex)
{
    size_t n = 0;
    for (; hex[2 * n] != '\0'; n++) {
        unsigned byte;
        CHECK_EQ(sscanf(hex + 2 * n, "%2x", &byte), 1);
        out[n] = (uint8_t)byte;
    }
    return n;
}

Test(wal_format, golden_segment_reads_forever)
{
    static uint8_t file[WAL_HEADER_PAGE + 65536];
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        (void)unhex(file + golden[i].offset, golden[i].hex);
    }
    uint8_t page[WAL_HEADER_PAGE];
    wal_file_header_encode(page, &sample);
    CHECK_BYTES(page, sizeof page, file, sizeof page);

    loam_vfs *vfs = memory_disk();
    disk_file_write(vfs, "/000000000042.log", file, sizeof file);
    struct wal_reader r;
    struct wal_record record;
    struct wal_reader_end end;
    CHECK_EQ(wal_reader_open(&r, vfs, "/", alloc_global(), 42, DB_ID), LOAM_OK);
    CHECK_EQ(wal_read_next(&r, &record), LOAM_OK);
    CHECK_EQ(record.position, 4096);
    CHECK_EQ(record.end, 4128);
    CHECK_BYTES(record.payload.data, record.payload.size, "hello", 5);
    CHECK_EQ(wal_read_next(&r, &record), LOAM_OK);
    CHECK_EQ(record.position, 4160);
    CHECK_EQ(record.end, 4184);
    CHECK_EQ(record.payload.size, 0);
    CHECK_EQ(wal_read_next(&r, &record), LOAM_NOTFOUND);
    CHECK_EQ(wal_reader_check(&r, 4184), LOAM_OK);
    wal_reader_end(&r, &end);
    CHECK_EQ(end.end, 4184);
    CHECK_EQ(end.durable, 4088);
    CHECK(!end.torn && !end.empty);
    wal_reader_close(&r);
    loam_vfs_free(vfs);
}
