/* partition.c - Encodes and checks the entries of index partitions and of the top.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/partition.h"

#include <assert.h>

#include "arena/poison.h"

#define FLAG_DEAD 1u

size_t partition_value_encode(const struct partition_value *v, uint8_t *out)
{
    assert(v->size <= SST_PIECE_MAX);
    uint8_t *p = out;
    *p++ = v->dead ? FLAG_DEAD : 0;
    p = put_varint32(p, v->size);
    p = put_varint64(p, v->number);
    return (size_t)(p - out);
}

static loam_slice value_at(const struct block *b, uint32_t i)
{
    struct block_item item;
    block_item(b, i, &item);
    return loam_bytes(item.rest + item.rest_size, item.value_size);
}

void partition_value(const struct block *b, uint32_t i, struct partition_value *v)
{
    loam_slice bytes = value_at(b, i);
    struct reader r = reader_of(bytes.data, bytes.size);
    v->dead = read_u8(&r) != 0;
    v->size = read_varint32(&r);
    v->number = read_varint64(&r);
    assert(!r.bad);
}

/* An entry that may come from anywhere. */
static int check_value(const struct block *b, uint32_t i, struct partition_value *v,
                       const char **what)
{
    struct block_item item;
    block_item(b, i, &item);
    loam_slice bytes = value_at(b, i);
    struct reader r = reader_of(bytes.data, bytes.size);
    unsigned flags = read_u8(&r);
    v->dead = flags != 0;
    v->size = read_varint32(&r);
    v->number = read_varint64(&r);
    if (r.bad || reader_left(&r) != 0 || item.tag != entry_tag(b->count - 1 - i, ENTRY_PUT)) {
        *what = "an entry does not parse";
        return LOAM_E_CORRUPT;
    }
    if (flags > FLAG_DEAD) {
        *what = "an entry has an unknown flag";
        return LOAM_E_FORMAT;
    }
    if (v->size < SST_TRAILER_SIZE || v->size > SST_PIECE_MAX) {
        *what = "a size is wrong";
        return LOAM_E_CORRUPT;
    }
    return LOAM_OK;
}

int partition_check(const void *data, size_t size, const struct partition_bounds *p,
                    const char **what)
{
    struct block b;
    struct partition_value v;
    int rc = block_check(data, size, p->cmp, p->key_max, what);
    if (rc != LOAM_OK) {
        return rc;
    }
    block_init(&b, data);
    if (b.count != p->count) {
        *what = "it has another number of blocks";
        return LOAM_E_CORRUPT;
    }
    for (uint32_t i = 0; i < b.count; i++) {
        rc = check_value(&b, i, &v, what);
        if (rc != LOAM_OK) {
            return rc;
        }
        if (v.number < p->begin || v.number > p->end || v.size > p->end - v.number) {
            *what = "a block's place is wrong";
            return LOAM_E_CORRUPT;
        }
    }
    return LOAM_OK;
}

int top_check(const void *data, size_t size, const struct partition_bounds *p, const char **what)
{
    struct block b;
    struct partition_value v;
    uint64_t at = p->begin;
    uint64_t before = 0;
    int rc = block_check(data, size, p->cmp, p->key_max, what);
    if (rc != LOAM_OK) {
        return rc;
    }
    block_init(&b, data);
    for (uint32_t i = 0; i < b.count; i++) {
        rc = check_value(&b, i, &v, what);
        if (rc != LOAM_OK) {
            return rc;
        }
        bool follows = i == 0 ? v.number == 0 : v.number > before;
        if (!follows || v.number >= p->blocks || v.size > p->end - at) {
            *what = "a partition's place is wrong";
            return LOAM_E_CORRUPT;
        }
        before = v.number;
        at += v.size;
    }
    if (at != p->end) {
        *what = "its partitions do not fill the file";
        return LOAM_E_CORRUPT;
    }
    return LOAM_OK;
}
