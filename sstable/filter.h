/* filter.h - Blocked Bloom filter over key hashes: one cache line answers a probe.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The line is chosen by the upper half of the hash, scaled to the number of lines; within it,
 * `probes` bits by the top 9 bits of the lower half, multiplied by 0x9e3779b9 before each further
 * one. All of this is part of the table format.
 *
 * Stored, the lines are cut into pages of FILTER_PAGE_LINES with a head of one line each
 * (sst_format.h), which are probed as they are or brought together in memory. The line is of the whole
 * filter, not of the key's part of the table: a resident filter answers before the index is searched.
 *
 * 10 bits per key give 0.95 % false positives (a plain Bloom filter 0.82 %, in 7 cache lines).
 */
#ifndef LOAM_SSTABLE_FILTER_H_
#define LOAM_SSTABLE_FILTER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/types.h"

#define FILTER_LINE     64u /* bytes */
#define FILTER_HEAD     64u /* bytes before the lines of a page, to keep them aligned */
#define FILTER_BITS_MAX 32u

#define FILTER_PAGE_LINES 63u
#define FILTER_PAGE_BYTES (FILTER_HEAD + FILTER_PAGE_LINES * FILTER_LINE) /* of all but the last */

/* A filter in memory; the lines are aligned to FILTER_LINE. probes 0: no filter, everything may be
 * there. */
struct filter {
    const uint8_t *lines;
    uint64_t line_count; /* < 2^32 */
    uint32_t probes;
};

/* The line of a filter that decides about a hash. */
static inline uint64_t filter_line_of(uint64_t hash, uint64_t line_count)
{
    return ((hash >> 32) * line_count) >> 32;
}

static inline bool filter_line_has(const uint8_t *line, uint32_t probes, uint64_t hash)
{
    uint32_t h = (uint32_t)hash;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t bit = h >> 23;
        if ((line[bit >> 3] & 1u << (bit & 7)) == 0) {
            return false;
        }
        h *= 0x9e3779b9u;
    }
    return true;
}

static inline void filter_prefetch(const struct filter *f, uint64_t hash)
{
    __builtin_prefetch(f->lines + filter_line_of(hash, f->line_count) * FILTER_LINE);
}

static inline bool filter_may_contain(const struct filter *f, uint64_t hash)
{
    return filter_line_has(f->lines + filter_line_of(hash, f->line_count) * FILTER_LINE, f->probes,
                           hash);
}

/* ---- pages ---- */

/* What all pages of a filter say. */
struct filter_shape {
    uint64_t lines;
    uint64_t keys;
};

/* Lines of a filter whose pages, each with `overhead` bytes behind it, take `size` bytes; 0: no filter
 * has that size. */
uint64_t filter_lines_of_size(uint64_t size, uint32_t overhead);
static inline uint64_t filter_page_count(uint64_t lines)
{
    return (lines + FILTER_PAGE_LINES - 1) / FILTER_PAGE_LINES;
}
/* Bytes of a page. */
static inline uint32_t filter_page_size(uint64_t lines, uint64_t page)
{
    uint64_t left = lines - page * FILTER_PAGE_LINES;
    return FILTER_HEAD +
           (uint32_t)(left < FILTER_PAGE_LINES ? left : FILTER_PAGE_LINES) * FILTER_LINE;
}
/* Whether these bytes are page number `page`. Returns NULL, or what is wrong as static text. */
const char *filter_page_check(const void *data, size_t size, const struct filter_shape *f,
                              uint64_t page);
/* REQUIRES: the page was checked. */
uint32_t filter_page_probes(const void *data);
/* REQUIRES: `page` was checked and holds filter_line_of(hash, lines). */
bool filter_page_may_contain(const void *data, uint64_t lines, uint64_t hash);

/* ---- building ---- */

/* Collects the hashes of distinct keys in chunks that never move. */
struct filter_builder {
    struct alloc *alloc;
    struct filter_chunk *first, *last;
    uint64_t keys;
    uint64_t hash_last;
};

void filter_builder_init(struct filter_builder *b, struct alloc *a);
void filter_builder_free(struct filter_builder *b);
/* Equal neighbours count once, so it may be called per version. False: no memory. */
bool filter_builder_add_slow(struct filter_builder *b, uint64_t hash);
static inline bool filter_builder_add(struct filter_builder *b, uint64_t hash)
{
    return (b->keys != 0 && hash == b->hash_last) || filter_builder_add_slow(b, hash);
}
/* Lines of the filter. bits is per key, 1 to FILTER_BITS_MAX. */
uint64_t filter_builder_lines(const struct filter_builder *b, uint32_t bits);
/* Writes all pages, each where FILTER_PAGE_BYTES of the ones before it end; their checksums are the
 * caller's. `out` has room for them: a line for each line and each page. */
void filter_builder_emit(const struct filter_builder *b, uint32_t bits, void *out);

#endif
