/* entry.h - One version of one key as every floor passes it on: kinds, sequence tags, order.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_ENTRY_H_
#define LOAM_ARENA_ENTRY_H_

#include <string.h>

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

/* Byte order: as unsigned bytes, shorter first. */
static inline int bytes_compare(loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(a.data, b.data, n) : 0;
    if (c != 0) {
        return c;
    }
    return (a.size > b.size) - (a.size < b.size);
}

/* cmp NULL: byte order. */
static inline int key_compare(const loam_comparator *cmp, loam_slice a, loam_slice b)
{
    return cmp == NULL ? bytes_compare(a, b) : cmp->compare(cmp->ctx, a, b);
}

#endif
