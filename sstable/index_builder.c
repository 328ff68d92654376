/* index_builder.c - Chooses separators and lays them out in partitions.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/index_builder.h"

#include <assert.h>

#include "arena/coding.h"
#include "arena/status.h"
#include "sstable/block_builder.h"
#include "sstable/partition.h"

#include "arena/poison.h"

#define RAW_FACTOR 8u   /* a partition is cut, too, when stripped prefixes add up to that */
#define LONG_KEY   256u /* bytes; of longer ones a partition holds LONG_COUNT, if only they share enough */
#define LONG_COUNT 64u

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

void index_builder_add(struct index_builder *b, loam_slice separator, bool dead)
{
    size_t shared = shared_size(buf_slice(&b->last), separator);
    buf_append_u8(&b->separators, dead);
    buf_append_varint(&b->separators, shared);
    buf_append_varint(&b->separators, separator.size - shared);
    if (separator.size != shared) {
        buf_append(&b->separators, (const uint8_t *)separator.data + shared,
                   separator.size - shared);
    }
    buf_set(&b->last, separator.data, separator.size);
    b->count++;
}

/* ---- laying out ---- */

/* Entries on their way into a partition or the top. */
struct layout {
    struct block_builder block;
    uint8_t *image;
    size_t image_cap;
};

struct emission {
    const struct index_emit *how;
    struct layout part, top;
    struct buf key;        /* the present separator */
    struct buf part_key;   /* the last one of the partition */
    uint32_t parts, first; /* partitions written; number of the first block of the present one */
    bool dead;             /* so is every block of the present partition */
    struct sst_handle index;
};

static int add(struct layout *l, loam_slice key, const struct partition_value *v)
{
    uint8_t value[PARTITION_VALUE_MAX];
    size_t n = partition_value_encode(v, value);
    const struct entry e = {key, entry_tag(0, ENTRY_PUT), loam_bytes(value, n)};
    return block_builder_add(&l->block, &e, 0);
}

/* Lays out what was gathered and hands it on. */
static int put(struct emission *m, struct layout *l, enum sst_type type, uint32_t number,
               struct sst_handle *h)
{
    struct block_builder *b = &l->block;
    struct block_shape s;
    for (uint32_t i = 0; i < b->count; i++) {
        b->inputs[i].tag = entry_tag(b->count - 1 - i, ENTRY_PUT);
    }
    b->seq_min = 0;
    b->seq_max = b->count - 1;
    block_builder_shape(b, &s);
    if (s.size > SST_BLOCK_SIZE_MAX) {
        return FAIL(LOAM_E_TOOBIG, "an index part of %llu bytes", (unsigned long long)s.size);
    }
    int rc = sst_fit(b->alloc, MEM_BUILD, &l->image, &l->image_cap, s.size);
    if (rc == LOAM_OK) {
        block_emit(b->inputs, b->count, &s, m->how->file_seed, number, l->image);
        rc = m->how->put(m->how->arg, type, l->image, s.size, h);
    }
    block_builder_clear(b);
    return rc;
}

/* Ends the present partition in front of block `next`. */
static int cut(struct emission *m, uint32_t next)
{
    struct sst_handle h;
    int rc = put(m, &m->part, SST_INDEX, m->how->first_number + m->parts, &h);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (m->parts == 0) {
        m->index.offset = h.offset;
    }
    assert(h.offset == m->index.offset + m->index.size);
    m->index.size += h.size;
    m->parts++;
    const struct partition_value v = {(uint32_t)h.size, m->dead, m->first};
    m->first = next;
    m->dead = true;
    return add(&m->top, buf_slice(&m->part_key), &v);
}

/* Separators count whole, which leaves room for what they may lose of the prefix they share. Long ones do not:
 * each would fill a partition, and the index of keys with a long prefix be as large as the keys. */
static bool is_full(const struct block_builder *b, loam_slice key)
{
    if (b->count == 0) {
        return false;
    }
    if (key.size <= LONG_KEY) {
        return block_builder_estimate(b) + key.size + PARTITION_VALUE_MAX >
                   PARTITION_BYTES + b->prefix ||
               b->bytes_size > (size_t)RAW_FACTOR * PARTITION_BYTES;
    }
    size_t prefix = block_builder_shared(b, key);
    size_t rests = b->bytes_size + key.size - ((size_t)b->count + 1) * prefix;
    return rests + ((size_t)b->count + 1) * PARTITION_VALUE_MAX > PARTITION_BYTES ||
           b->count >= LONG_COUNT;
}

static int emit_block(struct emission *m, struct reader *r, uint32_t i)
{
    const struct partition_value v = {m->how->sizes[i], read_u8(r) != 0, m->how->offsets[i]};
    int rc = LOAM_OK;
    m->key.size = (size_t)read_varint64(r);
    loam_slice rest = read_slice(r);
    buf_append(&m->key, rest.data, rest.size);
    if (is_full(&m->part.block, buf_slice(&m->key))) {
        rc = cut(m, i);
    }
    if (rc == LOAM_OK) {
        rc = buf_status(&m->key);
    }
    if (rc == LOAM_OK) {
        rc = add(&m->part, buf_slice(&m->key), &v);
        m->dead = m->dead && v.dead;
        buf_set(&m->part_key, m->key.data, m->key.size);
    }
    return rc == LOAM_OK ? buf_status(&m->part_key) : rc;
}

static void layout_free(struct layout *l)
{
    alloc_put(l->block.alloc, MEM_BUILD, l->image, l->image_cap);
    block_builder_free(&l->block);
}

int index_builder_emit(struct index_builder *b, const struct index_emit *how,
                       struct sst_handle *index, struct sst_handle *top)
{
    struct alloc *a = b->separators.alloc;
    struct emission m = {.how = how, .dead = true};
    assert(b->count != 0);
    if (buf_status(&b->separators) != LOAM_OK || buf_status(&b->last) != LOAM_OK) {
        return LOAM_E_NOMEM;
    }
    block_builder_init(&m.part.block, a, how->strip);
    block_builder_init(&m.top.block, a, how->strip);
    buf_init(&m.key, a, MEM_BUILD);
    buf_init(&m.part_key, a, MEM_BUILD);
    struct reader r = reader_of(b->separators.data, b->separators.size);
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < b->count && rc == LOAM_OK; i++) {
        rc = emit_block(&m, &r, i);
    }
    assert(!r.bad);
    if (rc == LOAM_OK) {
        rc = cut(&m, b->count);
    }
    if (rc == LOAM_OK) {
        rc = put(&m, &m.top, SST_TOP, PARTITION_TOP, top);
        *index = m.index;
    }
    layout_free(&m.part);
    layout_free(&m.top);
    buf_free(&m.key);
    buf_free(&m.part_key);
    return rc;
}

/* ---- separators ---- */

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
