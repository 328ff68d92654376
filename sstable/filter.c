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

const char *filter_open(const void *payload, size_t size, struct filter *f, uint64_t *keys)
{
    const uint8_t *p = payload;
    if (size < FILTER_HEAD + FILTER_LINE || get_fixed32(p) != KIND_BLOCKED_BLOOM) {
        return "it is not a blocked Bloom filter";
    }
    uint32_t probes = get_fixed32(p + 4);
    uint64_t lines = get_fixed64(p + 8);
    if (probes == 0 || probes > PROBES_MAX || lines == 0 || lines > LINES_MAX) {
        return "its head is wrong";
    }
    if (lines != (size - FILTER_HEAD) / FILTER_LINE || (size - FILTER_HEAD) % FILTER_LINE != 0) {
        return "its size is wrong";
    }
    for (size_t i = 24; i < FILTER_HEAD; i++) {
        if (p[i] != 0) {
            return "its head is wrong";
        }
    }
    assert(((uintptr_t)p & (FILTER_LINE - 1)) == 0);
    *f = (struct filter){p + FILTER_HEAD, lines, probes};
    *keys = get_fixed64(p + 16);
    return NULL;
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

static uint64_t line_count(const struct filter_builder *b, uint32_t bits)
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

uint64_t filter_builder_size(const struct filter_builder *b, uint32_t bits)
{
    return FILTER_HEAD + line_count(b, bits) * FILTER_LINE;
}

static void set_bits(uint8_t *lines, uint64_t count, uint32_t probes, uint64_t hash)
{
    uint8_t *line = lines + (((hash >> 32) * count) >> 32) * FILTER_LINE;
    uint32_t h = (uint32_t)hash;
    for (uint32_t i = 0; i < probes; i++) {
        uint32_t bit = h >> 23;
        line[bit >> 3] = (uint8_t)(line[bit >> 3] | 1u << (bit & 7));
        h *= 0x9e3779b9u;
    }
}

void filter_builder_emit(const struct filter_builder *b, uint32_t bits, void *out)
{
    uint64_t lines = line_count(b, bits);
    uint32_t probes = probe_count(bits);
    uint8_t *p = out;
    memset(p, 0, FILTER_HEAD + lines * FILTER_LINE);
    put_fixed32(p, KIND_BLOCKED_BLOOM);
    put_fixed32(p + 4, probes);
    put_fixed64(p + 8, lines);
    put_fixed64(p + 16, b->keys);
    for (const struct filter_chunk *c = b->first; c != NULL; c = c->next) {
        for (uint64_t i = 0; i < c->count; i++) {
            /* The lines are spread over memory: ask for those of the next keys ahead. */
            if (i + 8 < c->count) {
                uint64_t ahead = ((c->hashes[i + 8] >> 32) * lines) >> 32;
                __builtin_prefetch(p + FILTER_HEAD + ahead * FILTER_LINE, 1);
            }
            set_bits(p + FILTER_HEAD, lines, probes, c->hashes[i]);
        }
    }
}
