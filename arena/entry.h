/* entry.h - One version of one key as every floor passes it on: kinds, sequence tags, order.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_ENTRY_H_
#define LOAM_ARENA_ENTRY_H_

#include <string.h>

#include "arena/coding.h"
#include "arena/types.h"

/* What an entry does to its key. The numbers are stored in logs and tables. */
enum entry_kind {
    ENTRY_DELETE = 0,
    ENTRY_PUT = 1,
    /* Reserved in every format; a reader of this version refuses them with LOAM_E_FORMAT. */
    ENTRY_RANGE_DELETE = 2,
    ENTRY_MERGE = 3,
    ENTRY_PUT_TTL = 4,
    ENTRY_BLOB = 5
};

#define SEQ_MAX (((uint64_t)1 << 56) - 1)

/* Sequence number and kind in one word; of one key's versions the larger tag is the newer. */
static inline uint64_t entry_tag(uint64_t seq, enum entry_kind kind)
{
    return seq << 8 | (uint64_t)kind;
}
static inline uint64_t tag_seq(uint64_t tag)
{
    return tag >> 8;
}
static inline enum entry_kind tag_kind(uint64_t tag)
{
    return (enum entry_kind)(tag & 0xff);
}

/* Lent: valid as long as the source says. */
struct entry {
    loam_slice key; /* user key */
    uint64_t tag;
    loam_slice value; /* empty for a delete */
};

/* Member by member: a slice that is read as one just after it was written as two waits until both are in the
 * cache, some four nanoseconds. */
static inline void entry_copy(struct entry *to, const struct entry *from)
{
    to->key = loam_bytes(from->key.data, from->key.size);
    to->tag = from->tag;
    to->value = loam_bytes(from->value.data, from->value.size);
}

/* Byte order: as unsigned bytes, shorter first. Eight at a time: keys are short, and a call of memcmp
 * costs more than comparing them. */
static inline int bytes_compare(loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    const uint8_t *p = (const uint8_t *)a.data, *q = (const uint8_t *)b.data;
    for (; n >= 8; n -= 8, p += 8, q += 8) {
        uint64_t x = get_big64(p), y = get_big64(q);
        if (x != y) {
            return x < y ? -1 : 1;
        }
    }
    for (; n != 0; n--, p++, q++) {
        if (*p != *q) {
            return *p < *q ? -1 : 1;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

/* cmp NULL: byte order. */
static inline int key_compare(const loam_comparator *cmp, loam_slice a, loam_slice b)
{
    return cmp == NULL ? bytes_compare(a, b) : cmp->compare(cmp->ctx, a, b);
}

#endif
