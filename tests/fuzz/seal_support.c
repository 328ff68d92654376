/* seal_support.c - Makes the checksums of changed files right again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Written from the formats' specifications, apart from the library's own writers and readers.
 */
#include "arena/coding.h"
#include "arena/hash.h"
#include "engine/manifest.h"
#include "sstable/block.h"
#include "sstable/filter.h"
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

/* A piece of the file with its own checksum, then the trailer's. */
static void seal_piece(uint8_t *p, size_t size, uint64_t seed, struct sst_handle h, uint32_t number)
{
    if (inside(size, h.offset, h.size)) {
        if (p[h.offset + h.size - SST_TRAILER_SIZE] == SST_CODEC_NONE) {
            fuzz_seal_block(p + h.offset, (size_t)h.size - SST_TRAILER_SIZE, seed, number);
        }
        seal_stored(p, size, seed, h.offset, h.size);
    }
}

/* Calls one() with the places that an uncompressed block of the index names; `number` is an offset in a
 * partition, and a count in the top. */
struct places {
    uint8_t *p;
    size_t size;
    uint64_t seed;
    uint64_t at;     /* the top's next partition */
    uint32_t blocks; /* met so far */
    uint32_t parts;
};

static void each_place(struct places *s, struct sst_handle h,
                       void (*one)(struct places *s, struct sst_handle h))
{
    struct block b;
    const char *what;
    if (!inside(s->size, h.offset, h.size)) {
        return;
    }
    uint8_t *copy = fuzz_copy(s->p + h.offset, (size_t)h.size - SST_TRAILER_SIZE, 16);
    if (block_check(copy, (size_t)h.size - SST_TRAILER_SIZE, NULL, SST_KEY_MAX, &what) == LOAM_OK) {
        block_init(&b, copy);
        for (uint32_t i = 0; i < b.count; i++) {
            struct block_item item;
            block_item(&b, i, &item);
            struct reader r = reader_of(item.rest + item.rest_size, item.value_size);
            read_u8(&r);
            uint64_t bytes = read_varint64(&r), number = read_varint64(&r);
            if (!r.bad) {
                one(s, (struct sst_handle){number, bytes});
            }
        }
    }
    free(copy);
}

static void seal_data(struct places *s, struct sst_handle h)
{
    seal_piece(s->p, s->size, s->seed, h, s->blocks++);
}

static void seal_blocks(struct places *s, struct sst_handle h)
{
    each_place(s, (struct sst_handle){s->at, h.size}, seal_data);
    s->at += h.size;
}

static void seal_part(struct places *s, struct sst_handle h)
{
    seal_piece(s->p, s->size, s->seed, (struct sst_handle){s->at, h.size}, s->blocks + s->parts++);
    s->at += h.size;
}

static struct sst_handle handle_at(const uint8_t *p)
{
    return (struct sst_handle){get_fixed64(p), get_fixed64(p + 8)};
}

/* Pages stand one behind the other, each as large as may be. Returns their number. */
static uint32_t seal_pages(uint8_t *p, size_t size, uint64_t seed, struct sst_handle all,
                           uint32_t first)
{
    uint32_t n = 0;
    while (all.size > SST_TRAILER_SIZE && inside(size, all.offset, all.size)) {
        uint64_t most = FILTER_PAGE_BYTES + SST_TRAILER_SIZE;
        struct sst_handle h = {all.offset, all.size < most ? all.size : most};
        seal_piece(p, size, seed, h, first + n++);
        all.offset += h.size;
        all.size -= h.size;
    }
    return n;
}

/* Blocks, found through top and partitions; then pages and partitions, whose numbers follow theirs. */
static void seal_pieces(uint8_t *p, size_t size, uint64_t seed, const uint8_t *footer)
{
    struct sst_handle index = handle_at(footer + 24), top = handle_at(footer + 40);
    struct places s = {.p = p, .size = size, .seed = seed, .at = index.offset};
    each_place(&s, top, seal_blocks);
    s.blocks += seal_pages(p, size, seed, handle_at(footer + 8), s.blocks);
    s.at = index.offset;
    each_place(&s, top, seal_part);
    seal_piece(p, size, seed, top, UINT32_MAX);
}

void fuzz_seal_table(uint8_t *p, size_t size)
{
    if (size < SST_HEADER_SIZE + SST_FOOTER_SIZE) {
        return;
    }
    uint8_t *footer = p + size - SST_FOOTER_SIZE;
    uint64_t seed = sst_file_seed(get_fixed64(p + 16), get_fixed64(p + 24));
    put_fixed64(p + 40, checksum64(p, 40, 0));
    seal_pieces(p, size, seed, footer);
    seal_stored(p, size, seed, get_fixed64(footer + 56), get_fixed64(footer + 64));
    put_fixed64(footer, checksum64(footer + 8, SST_FOOTER_SIZE - 8, seed) ^
                            sst_mix(size - SST_FOOTER_SIZE));
}
