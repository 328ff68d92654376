/* seal_support.c - Makes the checksums of changed files right again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written from the formats' specifications, apart from the library's own writers and readers.
 */
#include "arena/coding.h"
#include "arena/hash.h"
#include "engine/manifest.h"
#include "sstable/sst_format.h"
#include "tests/fuzz/fuzz_support.h"
#include "wal/wal_format.h"

void fuzz_seal_current(uint8_t *p, size_t size)
{
    if (size >= MANIFEST_CURRENT_BYTES) {
        put_fixed64(p + 56, checksum64(p, 56, 0));
    }
}

void fuzz_seal_manifest(uint8_t *p, size_t size)
{
    if (size < MANIFEST_HEADER_BYTES) {
        return;
    }
    uint64_t tie = checksum64(p, 32, 0), chain = tie;
    put_fixed64(p + 32, chain);
    for (size_t at = MANIFEST_HEADER_BYTES; size - at > MANIFEST_RECORD_BYTES;) {
        uint32_t payload = get_fixed32(p + at);
        if (payload > size - at - MANIFEST_RECORD_BYTES) {
            return;
        }
        struct checksum_stream s;
        checksum_begin(&s, tie + chain);
        checksum_add(&s, p + at, 8);
        checksum_add(&s, p + at + MANIFEST_RECORD_BYTES, payload);
        chain = checksum_end(&s);
        put_fixed64(p + at + 8, chain);
        at += MANIFEST_RECORD_BYTES + payload;
    }
}

void fuzz_seal_log(uint8_t *p, size_t size)
{
    if (size < WAL_HEADER_PAGE) {
        return;
    }
    put_fixed64(p + WAL_HEADER_PAGE - 8, checksum64(p, WAL_HEADER_PAGE - 8, 0));
    uint64_t salt = get_fixed64(p + 32);
    for (size_t at = WAL_HEADER_PAGE; size - at >= WAL_RECORD_HEADER;) {
        struct wal_record_header h = wal_record_header_get(p + at);
        if (h.length > size - at || wal_record_size(h.length) > size - at) {
            return;
        }
        put_fixed64(p + at,
                    checksum64(p + at + 8, (size_t)wal_record_covered(h.type, h.length), salt));
        at += (size_t)wal_record_size(h.length);
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

void fuzz_seal_block(uint8_t *p, size_t size, uint64_t seed, uint32_t number)
{
    if (size >= 8) {
        put_fixed64(p, checksum64(p + 8, size - 8, sst_mix(seed + number)));
    }
}

static bool inside(size_t size, uint64_t offset, uint64_t n)
{
    return offset <= size && n <= size - offset && n >= SST_TRAILER_SIZE;
}

static void seal_stored(uint8_t *p, size_t size, uint64_t seed, uint64_t offset, uint64_t n)
{
    if (!inside(size, offset, n)) {
        return;
    }
    uint8_t *trailer = p + offset + n - SST_TRAILER_SIZE;
    uint64_t sum =
        checksum64(p + offset, (size_t)n - SST_TRAILER_SIZE, sst_mix(seed ^ get_fixed64(trailer)));
    put_fixed64(trailer + 8, sum ^ sst_mix(offset));
}

/* The data blocks, found through the index. */
static void seal_data(uint8_t *p, size_t size, uint64_t seed, uint64_t index, uint64_t n)
{
    if (!inside(size, index, n) || n < SST_TRAILER_SIZE + 8) {
        return;
    }
    uint32_t count = get_fixed32(p + index);
    struct reader r = reader_of(p + index + 8, (size_t)n - SST_TRAILER_SIZE - 8);
    for (uint32_t i = 0; i < count && !r.bad; i++) {
        read_varint64(&r);
        read_slice(&r);
    }
    uint64_t end = SST_HEADER_SIZE;
    for (uint32_t i = 0; i < count && !r.bad; i++) {
        uint64_t bytes = read_varint64(&r), z = read_varint64(&r);
        uint64_t offset = end + ((z >> 1) ^ (0 - (z & 1)));
        if (!r.bad && inside(size, offset, bytes)) {
            if (p[offset + bytes - SST_TRAILER_SIZE] == SST_CODEC_NONE) {
                fuzz_seal_block(p + offset, (size_t)bytes - SST_TRAILER_SIZE, seed, i);
            }
            seal_stored(p, size, seed, offset, bytes);
        }
        end = offset + bytes;
    }
}

void fuzz_seal_table(uint8_t *p, size_t size)
{
    if (size < SST_HEADER_SIZE + SST_FOOTER_SIZE) {
        return;
    }
    uint8_t *footer = p + size - SST_FOOTER_SIZE;
    uint64_t seed = sst_file_seed(get_fixed64(p + 16), get_fixed64(p + 24));
    put_fixed64(p + 40, checksum64(p, 40, 0));
    seal_data(p, size, seed, get_fixed64(footer + 8), get_fixed64(footer + 16));
    for (unsigned at = 8; at <= 40; at += 16) {
        seal_stored(p, size, seed, get_fixed64(footer + at), get_fixed64(footer + at + 8));
    }
    put_fixed64(footer, checksum64(footer + 8, SST_FOOTER_SIZE - 8, seed) ^
                            sst_mix(size - SST_FOOTER_SIZE));
}
