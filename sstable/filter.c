/* filter.c - Builds and opens blocked Bloom filters.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/filter.h"

#include <assert.h>

#include "arena/coding.h"

#include "arena/poison.h"

#define KIND_BLOCKED_BLOOM 1u
#define PROBES_MAX         16u
#define CHUNK_HASHES       4094u /* a chunk has 32 KiB */
#define LINES_MAX          ((uint64_t)UINT32_MAX)

struct filter_chunk {
    struct filter_chunk *next;
    uint64_t count;
    uint64_t hashes[CHUNK_HASHES];
};

uint64_t filter_lines_of_size(uint64_t size, uint32_t overhead)
{
    uint64_t page = FILTER_PAGE_BYTES + overhead;
    uint64_t lines = size / page * FILTER_PAGE_LINES;
    uint64_t rest = size % page;
    if (rest != 0) {
        if (rest < FILTER_HEAD + FILTER_LINE + overhead ||
            (rest - FILTER_HEAD - overhead) % FILTER_LINE != 0) {
            return 0;
        }
        lines += (rest - FILTER_HEAD - overhead) / FILTER_LINE;
    }
    return lines <= LINES_MAX ? lines : 0;
}

const char *filter_page_check(const void *data, size_t size, const struct filter_shape *f,
                              uint64_t page)
{
    const uint8_t *p = data;
    if (size < FILTER_HEAD + FILTER_LINE || get_fixed32(p + 8) != KIND_BLOCKED_BLOOM) {
        return "it is no page of a blocked Bloom filter";
    }
    uint32_t probes = get_fixed32(p + 12);
    if (probes == 0 || probes > PROBES_MAX || get_fixed64(p + 16) != f->lines ||
        get_fixed64(p + 24) != f->keys || get_fixed32(p + 32) != page) {
        return "its head is wrong";
    }
    if (page >= filter_page_count(f->lines) || size != filter_page_size(f->lines, page)) {
        return "its size is wrong";
    }
    for (size_t i = 36; i < FILTER_HEAD; i++) {
        if (p[i] != 0) {
            return "its head is wrong";
        }
    }
    return NULL;
}

uint32_t filter_page_probes(const void *data)
{
    return get_fixed32((const uint8_t *)data + 12);
}

bool filter_page_may_contain(const void *data, uint64_t lines, uint64_t hash)
{
    uint64_t i = filter_line_of(hash, lines) % FILTER_PAGE_LINES;
    const uint8_t *line = (const uint8_t *)data + FILTER_HEAD + i * FILTER_LINE;
    return filter_line_has(line, filter_page_probes(data), hash);
}

/* ---- building ---- */

void filter_builder_init(struct filter_builder *b, struct alloc *a)
{
    *b = (struct filter_builder){.alloc = a};
}

void filter_builder_free(struct filter_builder *b)
{
    struct filter_chunk *c = b->first;
    while (c != NULL) {
        struct filter_chunk *next = c->next;
        alloc_put(b->alloc, MEM_BUILD, c, sizeof *c);
        c = next;
    }
    filter_builder_init(b, b->alloc);
}

bool filter_builder_add_slow(struct filter_builder *b, uint64_t hash)
{
    struct filter_chunk *c = b->last;
    if (c == NULL || c->count == CHUNK_HASHES) {
        c = alloc_get(b->alloc, MEM_BUILD, sizeof *c);
        if (c == NULL) {
            return false;
        }
        c->next = NULL;
        c->count = 0;
        if (b->last != NULL) {
            b->last->next = c;
        } else {
            b->first = c;
        }
        b->last = c;
    }
    c->hashes[c->count++] = hash;
    b->hash_last = hash;
    b->keys++;
    return true;
}

uint64_t filter_builder_lines(const struct filter_builder *b, uint32_t bits)
{
    assert(bits >= 1 && bits <= FILTER_BITS_MAX);
    uint64_t lines = (b->keys * bits + 8 * FILTER_LINE - 1) / (8 * FILTER_LINE);
    lines = lines == 0 ? 1 : lines;
    return lines > LINES_MAX ? LINES_MAX : lines;
}

/* A little below bits * ln 2: lines that got more than their share of keys suffer from each probe.
 */
static uint32_t probe_count(uint32_t bits)
{
    uint32_t n = bits * 62 / 100;
    n = n == 0 ? 1 : n;
    return n > PROBES_MAX ? PROBES_MAX : n;
}

/* Where a line stands among the pages; each page's head is a line, too. */
static uint8_t *line_at(uint8_t *pages, uint64_t line)
{
    return pages + (line + line / FILTER_PAGE_LINES + 1) * FILTER_LINE;
}

static void set_bits(uint8_t *line, uint32_t probes, uint64_t hash)
{
    uint32_t h = (uint32_t)hash;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t bit = h >> 23;
        line[bit >> 3] = (uint8_t)(line[bit >> 3] | 1u << (bit & 7));
        h *= 0x9e3779b9u;
    }
}

void filter_builder_emit(const struct filter_builder *b, uint32_t bits, void *out)
{
    uint64_t lines = filter_builder_lines(b, bits);
    uint64_t pages = filter_page_count(lines);
    uint32_t probes = probe_count(bits);
    uint8_t *p = out;
    memset(p, 0, (lines + pages) * FILTER_LINE);
    for (uint64_t i = 0; i < pages; i++) {
        uint8_t *head = p + i * FILTER_PAGE_BYTES;
        put_fixed32(head + 8, KIND_BLOCKED_BLOOM);
        put_fixed32(head + 12, probes);
        put_fixed64(head + 16, lines);
        put_fixed64(head + 24, b->keys);
        put_fixed32(head + 32, (uint32_t)i);
    }
    for (const struct filter_chunk *c = b->first; c != NULL; c = c->next) {
        for (uint64_t i = 0; i < c->count; i++) {
            /* The lines are spread over memory: ask for those of the next keys ahead. */
            if (i + 8 < c->count) {
                __builtin_prefetch(line_at(p, filter_line_of(c->hashes[i + 8], lines)), 1);
            }
            set_bits(line_at(p, filter_line_of(c->hashes[i], lines)), probes, c->hashes[i]);
        }
    }
}
