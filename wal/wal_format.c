/* wal_format.c - Encodes and decodes what wal_format.h specifies.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "wal/wal_format.h"

#include <stdio.h>

#include "arena/hash.h"
#include "arena/status.h"

#include "arena/poison.h"

#define CHECKSUM_OFFSET (WAL_HEADER_PAGE - 8)
#define NUMBER_DIGITS   12
#define SUFFIX          ".log"
#define TEMPORARY       ".log.new"

void wal_file_name(char name[WAL_FILE_NAME_MAX], uint64_t number)
{
    snprintf(name, WAL_FILE_NAME_MAX, "%012llu" SUFFIX, (unsigned long long)number);
}

void wal_temporary_name(char name[WAL_FILE_NAME_MAX], uint64_t number)
{
    snprintf(name, WAL_FILE_NAME_MAX, "%012llu" TEMPORARY, (unsigned long long)number);
}

/* A number as the names have it, padded to 12 digits and never more, then `suffix`. */
static bool parse_name(loam_slice name, const char *suffix, uint64_t *number)
{
    const char *text = name.data;
    size_t tail = strlen(suffix);
    if (name.size < NUMBER_DIGITS + tail || name.size > 20 + tail) {
        return false;
    }
    size_t digits = name.size - tail;
    if (memcmp(text + digits, suffix, tail) != 0 || (digits > NUMBER_DIGITS && text[0] == '0')) {
        return false;
    }
    uint64_t n = 0;
    for (size_t i = 0; i < digits; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(text[i] - '0');
        if (n > (UINT64_MAX - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    *number = n;
    return true;
}

bool wal_parse_file_name(loam_slice name, uint64_t *number)
{
    return parse_name(name, SUFFIX, number);
}

bool wal_is_temporary_name(loam_slice name)
{
    uint64_t number;
    return parse_name(name, TEMPORARY, &number);
}

void wal_file_header_encode(uint8_t page[WAL_HEADER_PAGE], const struct wal_file_header *h)
{
    memset(page, 0, WAL_HEADER_PAGE);
    put_fixed64(page, WAL_MAGIC);
    put_fixed32(page + 8, WAL_VERSION);
    put_fixed32(page + 12, h->flags);
    put_fixed64(page + 16, h->db_id);
    put_fixed64(page + 24, h->number);
    put_fixed64(page + 32, h->salt);
    put_fixed64(page + 40, h->capacity);
    put_fixed64(page + CHECKSUM_OFFSET, checksum64(page, CHECKSUM_OFFSET, 0));
}

int wal_file_header_decode(const uint8_t page[WAL_HEADER_PAGE], uint64_t number,
                           struct wal_file_header *h)
{
    bool ours = get_fixed64(page) == WAL_MAGIC;
    bool sealed = get_fixed64(page + CHECKSUM_OFFSET) == checksum64(page, CHECKSUM_OFFSET, 0);
    uint32_t version = get_fixed32(page + 8);
    if (ours && version > WAL_VERSION) {
        /* Another version may keep its checksum elsewhere, so it is not asked for. */
        return FAIL_AT(LOAM_E_FORMAT, number, 8,
                       "log segment %llu has format version %u, newer than %u",
                       (unsigned long long)number, version, WAL_VERSION);
    }
    if (!sealed || (ours && version == 0)) {
        return FAIL_CORRUPT(number, 0, "log segment %llu: damaged header",
                            (unsigned long long)number);
    }
    if (!ours) {
        return FAIL_AT(LOAM_E_FORMAT, number, 0, "file %llu is not a log segment",
                       (unsigned long long)number);
    }
    struct wal_file_header got = {
        .flags = get_fixed32(page + 12),
        .db_id = get_fixed64(page + 16),
        .number = get_fixed64(page + 24),
        .salt = get_fixed64(page + 32),
        .capacity = get_fixed64(page + 40),
    };
    if ((got.flags & ~WAL_FLAG_FULL_SIZE) != 0) {
        return FAIL_AT(LOAM_E_FORMAT, number, 12, "log segment %llu uses unknown features %#x",
                       (unsigned long long)number, got.flags);
    }
    if (got.salt == 0 || got.capacity == 0 || got.capacity > WAL_CAPACITY_MAX) {
        return FAIL_CORRUPT(number, 0, "log segment %llu: impossible header",
                            (unsigned long long)number);
    }
    *h = got;
    return LOAM_OK;
}
