/* index.c - Builds, decodes and searches the index of a table.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/index.h"

#include <assert.h>

#include "arena/coding.h"
#include "arena/status.h"

#include "arena/poison.h"

#define NODE 8u /* numbers in a node: one cache line */

/* ---- decoding ---- */

/* What a first pass over the separators finds out. */
struct survey {
    uint32_t count;
    uint32_t prefix;     /* bytes all separators share */
    uint64_t rest_bytes; /* of all rests */
};

static int damaged(struct sst_place at, const char *what)
{
    return FAIL_CORRUPT(at.file, at.offset, "the index of table %llu is wrong: %s",
                        (unsigned long long)at.file, what);
}

/* Sizes of all separators, without allocating anything. */
static const char *survey_separators(struct reader r, uint64_t data_end, struct survey *s)
{
    uint64_t total = 0;
    uint64_t last = 0;
    uint64_t prefix = SST_KEY_MAX;
    s->count = read_fixed32(&r);
    /* Each block costs at least two bytes of separator and two of handle. */
    if (read_fixed32(&r) != 0 || r.bad || s->count == 0 || s->count > reader_left(&r) / 4) {
        return "its head does not fit";
    }
    for (uint32_t i = 0; i < s->count; i++) {
        uint64_t shared = read_varint64(&r);
        uint64_t rest = read_varint64(&r);
        if (r.bad || shared > last || rest > SST_KEY_MAX - shared || read_bytes(&r, rest) == NULL) {
            return "a separator does not fit";
        }
        last = shared + rest;
        total += last;
        uint64_t common = i == 0 ? last : shared;
        prefix = common < prefix ? common : prefix;
    }
    s->prefix = (uint32_t)prefix;
    s->rest_bytes = total - prefix * s->count;
    /* No separator is longer than a key of its block, and no block larger than its codec allows. */
    if (total / (SST_RATIO_MAX + 1) > data_end || s->rest_bytes > UINT32_MAX - SST_KEY_MAX) {
        return "its separators are too long";
    }
    return NULL;
}

static size_t level_nodes(size_t below)
{
    return (below + NODE - 1) / NODE;
}

/* One allocation for all arrays, the tree first for its alignment. */
static int carve(struct index *x, const struct survey *s)
{
    size_t n = s->count;
    size_t numbers = 0;
    x->count = s->count;
    x->prefix_size = s->prefix;
    x->level_count = 0;
    /* No tree under a comparator: separators are compared in full. */
    for (size_t below = n; x->cmp == NULL && (below > 1 || x->level_count == 0);) {
        below = level_nodes(below);
        x->level_nodes[x->level_count++] = (uint32_t)below;
        numbers += below * NODE;
    }
    assert(x->level_count <= INDEX_LEVELS);
    x->memory_size = numbers * 8 + n * 8 + n * 4 + (n + 1) * 4 + s->prefix + s->rest_bytes;
    x->memory = alloc_get_aligned(x->alloc, MEM_TABLE, x->memory_size, CACHE_LINE);
    if (x->memory == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for an index of %zu bytes", x->memory_size);
    }
    uint64_t *p = x->memory;
    for (uint32_t i = 0; i < x->level_count; i++) {
        x->levels[i] = p;
        p += (size_t)x->level_nodes[i] * NODE;
    }
    x->offsets = p;
    x->sizes = (uint32_t *)(void *)(p + n);
    x->rest_begin = x->sizes + n;
    x->rests = (uint8_t *)(x->rest_begin + n + 1);
    return LOAM_OK;
}

/* The separators, expanded; the survey has checked every length. */
static void fill_separators(struct index *x, struct reader *r)
{
    uint8_t *to = x->rests + x->prefix_size;
    read_bytes(r, 8);
    for (uint32_t i = 0; i < x->count; i++) {
        size_t shared = (size_t)read_varint64(r);
        size_t rest = (size_t)read_varint64(r);
        const uint8_t *bytes = read_bytes(r, rest);
        x->rest_begin[i] = (uint32_t)(to - x->rests);
        if (i == 0) {
            memcpy(x->rests, bytes, x->prefix_size);
            bytes += x->prefix_size;
            rest -= x->prefix_size;
        } else {
            size_t kept = shared - x->prefix_size;
            if (kept != 0) {
                memcpy(to, x->rests + x->rest_begin[i - 1], kept);
            }
            to += kept;
        }
        if (rest != 0) {
            memcpy(to, bytes, rest);
        }
        to += rest;
    }
    x->rest_begin[x->count] = (uint32_t)(to - x->rests);
}

static const char *check_order(const struct index *x)
{
    /* Under a comparator nothing is shared unless all bytes are: the prefix then matters. */
    for (uint32_t i = 1; x->cmp == NULL && i < x->count; i++) {
        if (bytes_compare(index_rest(x, i - 1), index_rest(x, i)) > 0) {
            return "its separators are out of order";
        }
    }
    return NULL;
}

/* Wraps on purpose: the result is held against the file's bounds. */
static uint64_t move_by_zigzag(uint64_t from, uint64_t zigzag)
{
    return from + ((zigzag >> 1) ^ (0 - (zigzag & 1)));
}

static const char *fill_handles(struct index *x, struct reader *r, uint64_t data_end)
{
    uint64_t expected = SST_HEADER_SIZE;
    uint64_t left = data_end - SST_HEADER_SIZE;
    for (uint32_t i = 0; i < x->count; i++) {
        uint64_t size = read_varint64(r);
        uint64_t offset = move_by_zigzag(expected, read_varint64(r));
        if (r->bad || size < SST_TRAILER_SIZE || size > left || size > UINT32_MAX) {
            return "a block's size is wrong";
        }
        if (offset < SST_HEADER_SIZE || offset > data_end || size > data_end - offset) {
            return "a block's place is wrong";
        }
        x->offsets[i] = offset;
        x->sizes[i] = (uint32_t)size;
        left -= size;
        expected = offset + size;
    }
    if (left != 0 || reader_left(r) != 0) {
        return "its blocks do not fill the file";
    }
    return NULL;
}

static void fill_tree(struct index *x)
{
    for (uint32_t level = 0; level < x->level_count; level++) {
        uint64_t *to = (uint64_t *)x->levels[level];
        size_t n = level == 0 ? x->count : x->level_nodes[level - 1];
        for (size_t i = 0; i < n; i++) {
            if (level == 0) {
                loam_slice rest = index_rest(x, (uint32_t)i);
                to[i] = key_prefix64(rest.data, rest.size);
            } else {
                to[i] = x->levels[level - 1][i * NODE + NODE - 1];
            }
        }
        for (size_t i = n; i < (size_t)x->level_nodes[level] * NODE; i++) {
            to[i] = UINT64_MAX;
        }
    }
}

int index_open(struct index *x, struct alloc *a, const loam_comparator *cmp, loam_slice payload,
               struct sst_place at, uint64_t data_end)
{
    struct survey s;
    struct reader r = reader_of(payload.data, payload.size);
    memset(x, 0, sizeof *x);
    x->alloc = a;
    x->cmp = cmp;
    assert(data_end >= SST_HEADER_SIZE);
    const char *what = survey_separators(r, data_end, &s);
    if (what != NULL) {
        return damaged(at, what);
    }
    if (cmp != NULL) {
        /* Separators are compared in full: nothing is taken off. */
        s.rest_bytes += (uint64_t)s.prefix * s.count;
        s.prefix = 0;
        if (s.rest_bytes > UINT32_MAX - SST_KEY_MAX) {
            return damaged(at, "its separators are too long");
        }
    }
    int rc = carve(x, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    fill_separators(x, &r);
    what = fill_handles(x, &r, data_end);
    what = what == NULL ? check_order(x) : what;
    if (what != NULL) {
        index_close(x);
        return damaged(at, what);
    }
    fill_tree(x);
    return LOAM_OK;
}

void index_close(struct index *x)
{
    if (x->memory != NULL) {
        alloc_put_aligned(x->alloc, MEM_TABLE, x->memory, x->memory_size, CACHE_LINE);
    }
    memset(x, 0, sizeof *x);
}

/* ---- searching ---- */

static uint32_t find_ordered(const struct index *x, loam_slice key)
{
    uint32_t low = 0;
    uint32_t n = x->count;
    while (n != 0) {
        uint32_t half = n / 2;
        bool before = key_compare(x->cmp, index_rest(x, low + half), key) < 0;
        low = before ? low + half + 1 : low;
        n = before ? n - half - 1 : half;
    }
    return low;
}

/* How many numbers of a node are below k; they ascend. */
static inline uint32_t count_below(const uint64_t *node, uint64_t k)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < NODE; i++) {
        n += node[i] < k;
    }
    return n;
}

/* The first block whose 8 bytes are >= k; count when there is none. Below the top, the node entered
 * always has a number that is not below k: its last one, which stands in the node above. */
static uint32_t find_number(const struct index *x, uint64_t k)
{
    size_t i = 0;
    for (uint32_t level = x->level_count; level != 0;) {
        level--;
        if (i >= x->level_nodes[level]) {
            return x->count; /* k is above a full top node */
        }
        i = i * NODE + count_below(x->levels[level] + i * NODE, k);
    }
    return i < x->count ? (uint32_t)i : x->count;
}

uint32_t index_find(const struct index *x, loam_slice key)
{
    if (x->cmp != NULL) {
        return find_ordered(x, key);
    }
    size_t common = key.size < x->prefix_size ? key.size : x->prefix_size;
    int c = common != 0 ? memcmp(key.data, x->rests, common) : 0;
    if (c != 0 || common < x->prefix_size) {
        return c > 0 ? x->count : 0;
    }
    loam_slice rest = key;
    if (common != 0) {
        rest = loam_bytes((const uint8_t *)key.data + common, key.size - common);
    }
    uint64_t k = key_prefix64(rest.data, rest.size);
    uint32_t i = find_number(x, k);
    if (i == x->count || x->levels[0][i] != k) {
        return i;
    }
    /* Ties on the 8 bytes: they end where the numbers exceed k. */
    uint32_t n = (k == UINT64_MAX ? x->count : find_number(x, k + 1)) - i;
    while (n != 0) {
        uint32_t half = n / 2;
        bool before = bytes_compare(index_rest(x, i + half), rest) < 0;
        i = before ? i + half + 1 : i;
        n = before ? n - half - 1 : half;
    }
    return i;
}

/* ---- building ---- */

void index_builder_init(struct index_builder *b, struct alloc *a)
{
    buf_init(&b->separators, a, MEM_BUILD);
    buf_init(&b->last, a, MEM_BUILD);
    b->count = 0;
}

void index_builder_free(struct index_builder *b)
{
    buf_free(&b->separators);
    buf_free(&b->last);
    b->count = 0;
}

/* Bytes that a and b share at their start. */
static size_t shared_size(loam_slice a, loam_slice b)
{
    const uint8_t *p = a.data;
    const uint8_t *q = b.data;
    size_t n = a.size < b.size ? a.size : b.size;
    size_t i = 0;
    while (i < n && p[i] == q[i]) {
        i++;
    }
    return i;
}

void index_builder_add(struct index_builder *b, loam_slice separator)
{
    size_t shared = shared_size(buf_slice(&b->last), separator);
    buf_append_varint(&b->separators, shared);
    buf_append_varint(&b->separators, separator.size - shared);
    if (separator.size != shared) {
        buf_append(&b->separators, (const uint8_t *)separator.data + shared,
                   separator.size - shared);
    }
    buf_set(&b->last, separator.data, separator.size);
    b->count++;
}

int index_builder_emit(struct index_builder *b, const uint64_t *offsets, const uint32_t *sizes,
                       struct buf *out)
{
    if (buf_status(&b->separators) != LOAM_OK || buf_status(&b->last) != LOAM_OK) {
        return LOAM_E_NOMEM;
    }
    buf_append_fixed32(out, b->count);
    buf_append_fixed32(out, 0);
    buf_append(out, b->separators.data, b->separators.size);
    uint64_t expected = SST_HEADER_SIZE;
    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t distance = offsets[i] - expected; /* two's complement: may be negative */
        buf_append_varint(out, sizes[i]);
        buf_append_varint(out, distance << 1 ^ (0 - (distance >> 63)));
        expected = offsets[i] + sizes[i];
    }
    return buf_status(out);
}

/* Byte order: the shortest s with a <= s < b. */
static void shorten(loam_slice a, loam_slice b, struct buf *out)
{
    const uint8_t *p = a.data;
    const uint8_t *q = b.data;
    size_t common = shared_size(a, b);
    if (common == a.size) {
        buf_set(out, a.data, a.size); /* a is a prefix of b, and the shortest itself */
    } else if (b.size > common + 1) {
        buf_set(out, b.data, common + 1);
    } else if (p[common] + 1 < q[common]) {
        buf_set(out, a.data, common + 1);
        if (!out->oom) {
            out->data[common]++;
        }
    } else {
        buf_set(out, a.data, a.size);
    }
}

void index_separator(const loam_comparator *cmp, loam_slice a, loam_slice b, struct buf *out)
{
    if (cmp == NULL) {
        shorten(a, b, out);
        return;
    }
    buf_clear(out);
    uint8_t *room = NULL;
    if (cmp->separator != NULL && a.size != 0) {
        room = buf_room(out, a.size);
    }
    if (room != NULL) {
        size_t n = cmp->separator(cmp->ctx, a, b, room, a.size);
        loam_slice s = loam_bytes(room, n);
        /* User code: believed only when it kept its promise. */
        if (n != 0 && n <= a.size && cmp->compare(cmp->ctx, a, s) <= 0 &&
            cmp->compare(cmp->ctx, s, b) < 0) {
            out->size = n;
            return;
        }
    }
    buf_set(out, a.data, a.size);
}
