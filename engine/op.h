/* op.h - One operation as it stands in a batch and in a log record.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   kind u8 | keyspace varint32 | key size varint32 | [put: value size varint64] | key | [put: value]
 *
 * A log record's payload is a run of these; operation i has sequence number position + i. An
 * operation takes at least 3 bytes and a record header 24, so the numbers of a record end before
 * the next record's position.
 */
#ifndef LOAM_ENGINE_OP_H_
#define LOAM_ENGINE_OP_H_

#include "arena/coding.h"
#include "arena/entry.h"
#include "arena/hash.h"
#include "memtable/memtable.h"

#define OP_KEY_MAX 65535u
#define OP_VALUE_MAX ((uint64_t)1 << 30)
#define OP_HEAD_MAX (1 + 2 * VARINT32_MAX_BYTES + VARINT64_MAX_BYTES)

struct op {
    enum entry_kind kind;
    uint32_t ks;
    loam_slice key;
    loam_slice value; /* empty for a delete */
};

/* Writes everything before the key into head (OP_HEAD_MAX bytes); returns its size. */
static inline size_t op_put_head(uint8_t *head, enum entry_kind kind, uint32_t ks, size_t key_size,
                                 size_t value_size)
{
    uint8_t *p = head;
    *p++ = (uint8_t)kind;
    p = put_varint32(p, ks);
    p = put_varint32(p, (uint32_t)key_size);
    if (kind == ENTRY_PUT) {
        p = put_varint64(p, value_size);
    }
    return (size_t)(p - head);
}

/* The next operation of a run; slices point into it. LOAM_OK, LOAM_NOTFOUND at the end,
 * LOAM_E_FORMAT for a kind of a later version, LOAM_E_CORRUPT for bytes that are no operation. */
int op_read(struct reader *r, struct op *o);

/* The operation under its sequence number, as the memtable takes it. */
static inline struct memtable_op op_addition(const struct op *o, uint64_t seq)
{
    return (struct memtable_op){.ks = o->ks,
                                .key = o->key,
                                .key_hash = hash_key(o->key.data, o->key.size),
                                .tag = entry_tag(seq, o->kind),
                                .value = o->value};
}

#endif
