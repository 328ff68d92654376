/* block.c - Checks, searches and walks an uncompressed data block.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/block.h"

#include <assert.h>

#include "arena/copy.h"
#include "arena/hash.h"
#include "sstable/sst_format.h"

#include "arena/poison.h"

_Static_assert(ENTRY_PUT < 1 << BLOCK_KIND_BITS && ENTRY_BLOB < 1 << BLOCK_KIND_BITS,
               "every kind has a number that fits beside the sequence");

/* ---- checking ---- */

static const char unknown_kind[] = "an entry is of an unknown kind"; /* known by its address */

static uint64_t sum_seed(uint64_t file_seed, uint32_t number)
{
    return sst_mix(file_seed + number);
}

uint64_t block_sum(const void *data, size_t size, uint64_t file_seed, uint32_t number)
{
    assert(size >= BLOCK_SIZE_MIN);
    return checksum64((const uint8_t *)data + 8, size - 8, sum_seed(file_seed, number));
}

bool block_sum_matches(const void *data, size_t size, uint64_t file_seed, uint32_t number)
{
    return size >= BLOCK_SIZE_MIN && get_fixed64(data) == block_sum(data, size, file_seed, number);
}

/* The fixed part and the arrays lie inside `size`. */
static const char *check_head(const uint8_t *p, size_t size)
{
    if (size < BLOCK_SIZE_MIN || get_fixed32(p + 8) != size) {
        return "its size is wrong";
    }
    uint32_t count = get_fixed32(p + 12);
    uint64_t seq_base = get_fixed64(p + 16);
    uint64_t prefix = get_fixed16(p + 24);
    uint64_t width = p[26];
    if (count == 0 || count > size || seq_base > SEQ_MAX) {
        return "its head is wrong";
    }
    if ((width != 2 && width != 4) || p[27] > 8 || get_fixed32(p + 28) != 0) {
        return "its head is wrong";
    }
    /* No overflow: count < 2^32 and everything else is small. */
    uint64_t front = BLOCK_HEADER_SIZE + (uint64_t)block_fingerprints_size(count) +
                     ((uint64_t)count + 1) * width + prefix;
    if (front > size - BLOCK_TAIL_SIZE) {
        return "its arrays do not fit";
    }
    for (size_t i = count; i < block_fingerprints_size(count); i++) {
        if (p[BLOCK_HEADER_SIZE + i] != 0) {
            return "its fingerprints are not padded by zeros";
        }
    }
    return get_fixed64(p + size - BLOCK_TAIL_SIZE) == 0 ? NULL : "its tail is not zero";
}

/* Why the entry with the bytes [from, to) of the block cannot be; NULL when it can. */
static const char *check_item(const struct block *b, uint32_t from, uint32_t to, uint32_t key_max)
{
    struct reader r = reader_of(b->data + from, to - from);
    uint64_t rest = read_varint64(&r);
    size_t length_size = (size_t)(r.p - (b->data + from));
    if (r.bad || b->tag_width > reader_left(&r) || rest > reader_left(&r) - b->tag_width) {
        return "an entry does not fit";
    }
    if (b->prefix_size + rest > key_max) {
        return "a key is too long";
    }
    if (length_size != (rest < 0x80 ? 1 : varint64_size(rest))) {
        return "a length is written in too many bytes";
    }
    uint64_t word = get_fixed64(r.p) & b->tag_mask; /* the block's tail keeps this inside */
    unsigned kind = word & ((1u << BLOCK_KIND_BITS) - 1);
    if (kind > ENTRY_PUT) {
        return unknown_kind;
    }
    if (kind == ENTRY_DELETE && rest != reader_left(&r) - b->tag_width) {
        return "a delete has a value";
    }
    if (word >> BLOCK_KIND_BITS > SEQ_MAX - b->seq_base) {
        return "a sequence is too large";
    }
    return NULL;
}

/* Whether a may stand before b. Keys without their shared prefix compare as whole keys do. */
static bool in_order(const loam_comparator *cmp, const struct block_item *a,
                     const struct block_item *b)
{
    int c = key_compare(cmp, loam_bytes(a->rest, a->rest_size), loam_bytes(b->rest, b->rest_size));
    return c < 0 || (c == 0 && a->tag > b->tag);
}

/* check_item() for a put with a key of less than 128 bytes: all questions at once. False: not such a
 * one, or not right. */
static inline bool usual_item(const struct block *b, uint32_t from, uint32_t to, uint32_t key_max)
{
    const uint8_t *p = b->data + from;
    uint32_t rest = *p;
    uint64_t word = get_fixed64(p + 1) & b->tag_mask; /* the block's tail keeps this inside */
    bool wrong = (rest >= 0x80) | (1 + b->tag_width + rest > to - from) |
                 (b->prefix_size + rest > key_max) |
                 ((word & ((1u << BLOCK_KIND_BITS) - 1)) != ENTRY_PUT) |
                 (word >> BLOCK_KIND_BITS > SEQ_MAX - b->seq_base);
    return !wrong;
}

/* The first 8 bytes of a key's rest as a number, zeros behind a shorter one: where two numbers differ
 * they are in the order of the keys. 0 for a rest of 128 bytes or more: it decides nothing. */
static inline uint64_t first_bytes(const struct block *b, uint32_t from)
{
    const uint8_t *p = b->data + from;
    uint32_t rest = *p;
    uint64_t bytes = get_big64(p + 1 + b->tag_width); /* as above */
    uint64_t mask = rest < 8 ? ~(UINT64_MAX >> 8 * rest) : UINT64_MAX;
    return rest < 0x80 ? bytes & mask : 0;
}

static const char *check_items(const struct block *b, size_t end, const loam_comparator *cmp,
                               uint32_t key_max)
{
    struct block_item last, item;
    uint64_t last_bytes = 0; /* first_bytes() of the last entry; UINT64_MAX: it decides nothing */
    uint32_t from = block_offset(b, 0);
    if (from != (size_t)(b->prefix + b->prefix_size - b->data)) {
        return "its entries begin at the wrong place";
    }
    for (uint32_t i = 0; i < b->count; i++) {
        uint32_t to = block_offset(b, i + 1);
        if (to <= from || to > end) {
            return "its offsets do not ascend";
        }
        if (__builtin_expect(!usual_item(b, from, to, key_max), 0)) {
            const char *what = check_item(b, from, to, key_max);
            if (what != NULL) {
                return what;
            }
        }
        uint64_t bytes = first_bytes(b, from);
        if ((bytes <= last_bytes || cmp != NULL) && i != 0) {
            block_item(b, i - 1, &last);
            block_item(b, i, &item);
            if (!in_order(cmp, &last, &item)) {
                return "its entries are out of order";
            }
        }
        last_bytes = b->data[from] < 0x80 ? bytes : UINT64_MAX;
        from = to;
    }
    while (from < end && b->data[from] == 0) { /* the tail may be longer than it must be */
        from++;
    }
    return from == end ? NULL : "bytes are left over";
}

int block_check(const void *data, size_t size, const loam_comparator *cmp, uint32_t key_max,
                const char **what)
{
    struct block b;
    *what = check_head(data, size);
    if (*what != NULL) {
        return LOAM_E_CORRUPT;
    }
    block_init(&b, data);
    if (cmp != NULL && b.prefix_size != 0) {
        *what = "it strips a prefix under a comparator";
        return LOAM_E_CORRUPT;
    }
    *what = check_items(&b, size - BLOCK_TAIL_SIZE, cmp, key_max);
    if (*what == unknown_kind) {
        return LOAM_E_FORMAT;
    }
    return *what == NULL ? LOAM_OK : LOAM_E_CORRUPT;
}

/* ---- searching ---- */

/* From entry i, the first of its key's versions: the newest one the snapshot sees. */
static int newest_visible(const struct block *b, const loam_comparator *cmp, uint32_t i,
                          struct block_item *item, loam_slice key, uint64_t snapshot,
                          struct entry *e)
{
    loam_slice rest = loam_bytes(item->rest, item->rest_size);
    while (tag_seq(item->tag) > snapshot) {
        if (++i == b->count) {
            return BLOCK_GET_MORE;
        }
        block_item(b, i, item);
        if (key_compare(cmp, rest, loam_bytes(item->rest, item->rest_size)) != 0) {
            return LOAM_NOTFOUND;
        }
    }
    e->key = key;
    e->tag = item->tag;
    e->value = loam_bytes(item->rest + item->rest_size, item->value_size);
    return LOAM_OK;
}

static int get_by_order(const struct block *b, const loam_comparator *cmp, loam_slice key,
                        uint64_t snapshot, struct entry *e)
{
    uint32_t i = block_seek(b, cmp, key, UINT64_MAX);
    struct block_item item;
    if (i == b->count) {
        return LOAM_NOTFOUND;
    }
    block_item(b, i, &item);
    if (key_compare(cmp, key, loam_bytes(item.rest, item.rest_size)) != 0) {
        return LOAM_NOTFOUND;
    }
    return newest_visible(b, cmp, i, &item, key, snapshot, e);
}

int block_get(const void *data, const loam_comparator *cmp, loam_slice key, uint64_t key_hash,
              uint64_t snapshot, struct entry *e)
{
    struct block b;
    /* The lines with the fingerprints and offsets of a common block, all at once. */
    __builtin_prefetch((const uint8_t *)data + 64);
    __builtin_prefetch((const uint8_t *)data + 128);
    block_init(&b, data);
    if (cmp != NULL) {
        return get_by_order(&b, cmp, key, snapshot, e);
    }
    if (key.size < b.prefix_size ||
        (b.prefix_size != 0 && memcmp(key.data, b.prefix, b.prefix_size) != 0)) {
        return LOAM_NOTFOUND;
    }
    const uint8_t *rest = key.size != 0 ? (const uint8_t *)key.data + b.prefix_size : NULL;
    size_t rest_size = key.size - b.prefix_size;
    const uint8_t *fingerprints = b.data + BLOCK_HEADER_SIZE;
    uint8_t fp = fingerprint_of(key_hash);
    for (uint32_t base = 0; base < b.count; base += 16) {
        uint32_t match = fingerprint_match16(fingerprints + base, fp);
        for (; match != 0; match &= match - 1) {
            uint32_t i = base + (uint32_t)__builtin_ctz(match);
            struct block_item item;
            if (i >= b.count) {
                return LOAM_NOTFOUND; /* a padding zero */
            }
            block_item(&b, i, &item);
            if (item.rest_size == rest_size &&
                (rest_size == 0 || memcmp(item.rest, rest, rest_size) == 0)) {
                return newest_visible(&b, NULL, i, &item, key, snapshot, e);
            }
        }
    }
    return LOAM_NOTFOUND;
}

/* A key that is looked for, without the prefix that the block's keys share. */
struct target {
    loam_slice rest;
    uint64_t bytes; /* the first 8 of it, zeros behind a shorter one */
};

/* Byte order of an entry's rest and a key's. The first 8 bytes as one number decide nearly always; the
 * block's tail makes them safe to load. */
static inline int compare_bytes(const struct block_item *item, const struct target *t)
{
    uint64_t bytes = get_big64(item->rest);
    if (item->rest_size < 8) {
        bytes &= ~(UINT64_MAX >> 8 * item->rest_size);
    }
    if (bytes != t->bytes) {
        return bytes < t->bytes ? -1 : 1;
    }
    return bytes_compare(loam_bytes(item->rest, item->rest_size), t->rest);
}

/* False: all entries are on one side of the key, *c tells which. */
static bool strip_prefix(const struct block *b, loam_slice key, struct target *t, int *c)
{
    size_t common = key.size < b->prefix_size ? key.size : b->prefix_size;
    *c = common != 0 ? memcmp(key.data, b->prefix, common) : 0;
    if (*c != 0 || common < b->prefix_size) {
        return false;
    }
    t->rest = key;
    if (common != 0) {
        t->rest = loam_bytes((const uint8_t *)key.data + common, key.size - common);
    }
    t->bytes = key_prefix64(t->rest.data, t->rest.size);
    return true;
}

/* The first of the n entries from low on that is not before (t, tag); low + n when there is none. */
static uint32_t search(const struct block *b, const loam_comparator *cmp, const struct target *t,
                       uint64_t tag, uint32_t low, uint32_t n)
{
    while (n != 0) {
        uint32_t half = n / 2;
        struct block_item item;
        block_item(b, low + half, &item);
        int c = cmp == NULL ? compare_bytes(&item, t)
                            : key_compare(cmp, loam_bytes(item.rest, item.rest_size), t->rest);
        bool before = c < 0 || (c == 0 && item.tag > tag);
        low = before ? low + half + 1 : low;
        n = before ? n - half - 1 : half;
    }
    return low;
}

uint32_t block_seek(const struct block *b, const loam_comparator *cmp, loam_slice key, uint64_t tag)
{
    struct target t = {.rest = key};
    int c;
    if (cmp == NULL && !strip_prefix(b, key, &t, &c)) {
        return c > 0 ? b->count : 0;
    }
    return search(b, cmp, &t, tag, 0, b->count);
}

uint32_t block_seek_near(const struct block *b, uint32_t from, loam_slice key)
{
    struct target t;
    int c;
    if (!strip_prefix(b, key, &t, &c)) {
        return c > 0 ? b->count : from;
    }
    for (uint32_t step = 1; step <= b->count - from; step *= 2) {
        struct block_item item;
        block_item(b, from + step - 1, &item);
        if (compare_bytes(&item, &t) >= 0) {
            return search(b, NULL, &t, UINT64_MAX, from, step - 1);
        }
        from += step;
    }
    return search(b, NULL, &t, UINT64_MAX, from, b->count - from);
}

/* ---- cursor ---- */

void block_cursor_init(struct block_cursor *c, const void *data, uint8_t *key)
{
    block_init(&c->block, data);
    c->index = UINT32_MAX;
    c->key = key;
    c->ahead = 0;
    copy_bytes(key, c->block.prefix, c->block.prefix_size);
}
