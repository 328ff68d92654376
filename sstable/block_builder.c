/* block_builder.c - Lays out entries as one data block.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/block_builder.h"

#include <assert.h>

#include "arena/coding.h"
#include "arena/copy.h"
#include "arena/status.h"
#include "sstable/block.h"
#include "sstable/sst_format.h"

#include "arena/poison.h"

/* What an entry takes beside its key and value, and a block beside its entries, at most: tag, length, fingerprint,
 * offset; header, tail, one offset more, fingerprints nobody has. */
#define ENTRY_MOST 16u
#define BLOCK_MOST 80u

void block_builder_init(struct block_builder *b, struct alloc *a, bool strip)
{
    *b = (struct block_builder){.alloc = a, .strip = strip};
}

void block_builder_free(struct block_builder *b)
{
    alloc_put(b->alloc, MEM_BUILD, b->inputs, b->cap * sizeof *b->inputs);
    alloc_put(b->alloc, MEM_BUILD, b->bytes, b->bytes_cap);
    block_builder_init(b, b->alloc, b->strip);
}

void block_builder_clear(struct block_builder *b)
{
    b->count = 0;
    b->bytes_size = 0;
    b->prefix = 0;
}

/* Doubles the array of inputs. */
static int grow_inputs(struct block_builder *b)
{
    uint32_t cap = b->cap == 0 ? 64 : b->cap * 2;
    struct block_input *p = alloc_resize(b->alloc, MEM_BUILD, b->inputs, b->cap * sizeof *b->inputs,
                                         cap * sizeof *b->inputs);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to build a block of %u entries", cap);
    }
    b->inputs = p;
    b->cap = cap;
    return LOAM_OK;
}

/* Makes room for `more` bytes; the inputs point into the memory and move with it. */
static int grow_bytes(struct block_builder *b, size_t more)
{
    size_t cap = b->bytes_cap == 0 ? 8192 : b->bytes_cap * 2;
    if (cap < b->bytes_size + more) {
        cap = b->bytes_size + more;
    }
    uint8_t *p = alloc_get(b->alloc, MEM_BUILD, cap);
    if (p == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to build a block of %zu bytes", cap);
    }
    if (b->bytes_size != 0) {
        memcpy(p, b->bytes, b->bytes_size);
    }
    for (uint32_t i = 0; i < b->count; i++) {
        b->inputs[i].key = p + (b->inputs[i].key - b->bytes);
        b->inputs[i].value = p + (b->inputs[i].value - b->bytes);
    }
    alloc_put(b->alloc, MEM_BUILD, b->bytes, b->bytes_cap);
    b->bytes = p;
    b->bytes_cap = cap;
    return LOAM_OK;
}

/* How many bytes, at most n, two runs have in common. */
static uint32_t common_bytes(const uint8_t *a, const uint8_t *b, uint32_t n)
{
    uint32_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x = get_fixed64(a + i) ^ get_fixed64(b + i);
        if (x != 0) {
            return i + (uint32_t)__builtin_ctzll(x) / 8;
        }
    }
    if (i != 0 && i < n) {
        /* The last 8 bytes again with what is known to be equal: no loop over the tail. */
        uint64_t x = get_fixed64(a + n - 8) ^ get_fixed64(b + n - 8);
        return x != 0 ? n - 8 + (uint32_t)__builtin_ctzll(x) / 8 : n;
    }
    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

uint32_t block_builder_shared(const struct block_builder *b, loam_slice key)
{
    uint32_t limit = key.size < b->prefix ? (uint32_t)key.size : b->prefix;
    return common_bytes(b->inputs[0].key, key.data, limit);
}

static void note_entry(struct block_builder *b, const uint8_t *key, uint32_t key_size, uint64_t seq)
{
    if (b->count == 0) {
        b->prefix = b->strip ? key_size : 0;
        b->key_max = key_size;
        b->seq_min = b->seq_max = seq;
        return;
    }
    b->key_max = key_size > b->key_max ? key_size : b->key_max;
    b->prefix = block_builder_shared(b, loam_bytes(key, key_size));
    b->seq_min = seq < b->seq_min ? seq : b->seq_min;
    b->seq_max = seq > b->seq_max ? seq : b->seq_max;
}

/* A copy of the entry's bytes, key and value side by side. False: no memory. */
static bool copy_entry(struct block_builder *b, const struct entry *e, const uint8_t **key,
                       const uint8_t **value)
{
    size_t need = e->key.size + e->value.size;
    if ((need > b->bytes_cap - b->bytes_size || b->bytes_cap == 0) &&
        grow_bytes(b, need) != LOAM_OK) {
        return false;
    }
    uint8_t *p = b->bytes + b->bytes_size;
    copy_bytes(p, e->key.data, e->key.size);
    copy_bytes(p + e->key.size, e->value.data, e->value.size);
    *key = p;
    *value = p + e->key.size;
    return true;
}

int block_builder_add(struct block_builder *b, const struct entry *e, uint8_t fingerprint)
{
    assert(e->key.size <= SST_KEY_MAX);
    assert(e->value.size <= UINT32_MAX - e->key.size);
    if (b->count == b->cap && grow_inputs(b) != LOAM_OK) {
        return LOAM_E_NOMEM;
    }
    const uint8_t *key = e->key.data, *value = e->value.data;
    if (!b->lent && !copy_entry(b, e, &key, &value)) {
        return LOAM_E_NOMEM;
    }
    note_entry(b, key, (uint32_t)e->key.size, tag_seq(e->tag));
    b->inputs[b->count++] = (struct block_input){
        .key = key,
        .value = value,
        .key_size = (uint32_t)e->key.size,
        .value_size = (uint32_t)e->value.size,
        .tag = e->tag,
        .fingerprint = fingerprint,
    };
    b->bytes_size += e->key.size + e->value.size;
    return LOAM_OK;
}

/* ---- layout ---- */

/* Bytes that hold the largest tag of a block: sequence distance, then kind. */
static uint8_t tag_width(uint64_t distance)
{
    uint64_t largest = distance << BLOCK_KIND_BITS | ((1u << BLOCK_KIND_BITS) - 1);
    return (uint8_t)((64u - (unsigned)__builtin_clzll(largest) + 7u) / 8u);
}

/* entries: bytes of all of them, without their tags. */
static void shape_make(uint32_t n, uint32_t prefix, uint64_t seq_min, uint64_t seq_max, uint64_t entries,
                       struct block_shape *s)
{
    s->prefix = prefix;
    s->seq_base = seq_min;
    s->tag_width = tag_width(seq_max - seq_min);
    uint64_t size = BLOCK_HEADER_SIZE + (uint64_t)block_fingerprints_size(n) + prefix +
                    (uint64_t)n * s->tag_width + entries + BLOCK_TAIL_SIZE;
    uint64_t slots = (uint64_t)n + 1;
    s->offset_width = size + 2 * slots <= UINT16_MAX ? 2 : 4;
    s->size = size + s->offset_width * slots;
}

static void shape_of(const struct block_input *in, uint32_t n, uint32_t prefix, uint64_t seq_min,
                     uint64_t seq_max, struct block_shape *s)
{
    assert(n != 0);
    assert(seq_max <= SEQ_MAX);
    uint64_t entries = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rest = in[i].key_size - prefix;
        entries += varint64_size(rest) + (uint64_t)rest + in[i].value_size;
    }
    shape_make(n, prefix, seq_min, seq_max, entries, s);
}

bool block_builder_fits(const struct block_builder *b, const struct entry *e, size_t limit)
{
    uint64_t n = (uint64_t)b->count + 1, bytes = (uint64_t)b->bytes_size + e->key.size + e->value.size;
    if (b->count == 0 || bytes + n * ENTRY_MOST + BLOCK_MOST <= limit) {
        return true;
    }
    uint64_t seq = tag_seq(e->tag);
    uint64_t longest = e->key.size > b->key_max ? e->key.size : b->key_max;
    uint32_t prefix = block_builder_shared(b, e->key);
    struct block_shape s;
    shape_make((uint32_t)n, prefix, seq < b->seq_min ? seq : b->seq_min,
               seq > b->seq_max ? seq : b->seq_max,
               bytes - n * prefix + n * varint64_size(longest - prefix), &s);
    return s.size <= limit;
}

void block_builder_shape(const struct block_builder *b, struct block_shape *s)
{
    shape_of(b->inputs, b->count, b->prefix, b->seq_min, b->seq_max, s);
}

void block_shape_single(const struct block_input *in, bool strip, struct block_shape *s)
{
    uint64_t seq = tag_seq(in->tag);
    shape_of(in, 1, strip ? in->key_size : 0, seq, seq, s);
}

static uint8_t *put_offset(uint8_t *p, uint8_t width, uint64_t offset)
{
    if (width == 2) {
        put_fixed16(p, (uint16_t)offset);
    } else {
        put_fixed32(p, (uint32_t)offset);
    }
    return p + width;
}

static uint8_t *put_bytes(uint8_t *p, const uint8_t *data, size_t n)
{
    if (n != 0) {
        memcpy(p, data, n);
    }
    return p + n;
}

void block_emit(const struct block_input *in, uint32_t n, const struct block_shape *s,
                uint64_t file_seed, uint32_t number, void *out)
{
    assert(s->size <= SST_BLOCK_SIZE_MAX);
    uint8_t *data = out;
    put_fixed32(data + 8, (uint32_t)s->size);
    put_fixed32(data + 12, n);
    put_fixed64(data + 16, s->seq_base);
    put_fixed16(data + 24, (uint16_t)s->prefix);
    data[26] = s->offset_width;
    data[27] = s->tag_width;
    put_fixed32(data + 28, 0);
    uint8_t *fingerprint = data + BLOCK_HEADER_SIZE;
    uint8_t *offset = fingerprint + block_fingerprints_size(n);
    memset(fingerprint, 0, (size_t)(offset - fingerprint));
    uint8_t *p = offset + ((size_t)n + 1) * s->offset_width;
    p = put_bytes(p, in[0].key, s->prefix);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t rest = in[i].key_size - s->prefix;
        uint64_t word = (tag_seq(in[i].tag) - s->seq_base) << BLOCK_KIND_BITS | tag_kind(in[i].tag);
        *fingerprint++ = in[i].fingerprint;
        offset = put_offset(offset, s->offset_width, (uint64_t)(p - data));
        p = put_varint32(p, rest);
        uint8_t bytes[8];
        put_fixed64(bytes, word);
        for (unsigned k = 0; k < s->tag_width; k++) {
            p[k] = bytes[k];
        }
        p = put_bytes(p + s->tag_width, in[i].key + s->prefix, rest);
        p = put_bytes(p, in[i].value, in[i].value_size);
    }
    put_offset(offset, s->offset_width, (uint64_t)(p - data));
    assert((size_t)(p + BLOCK_TAIL_SIZE - data) <= s->size);
    memset(p, 0, (size_t)(data + s->size - p));
    put_fixed64(data, block_sum(data, s->size, file_seed, number));
}
