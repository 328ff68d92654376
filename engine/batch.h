/* batch.h - A list of operations in log encoding, with the error that stuck to it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_BATCH_H_
#define LOAM_ENGINE_BATCH_H_

#include "arena/buf.h"
#include "engine/loam.h"
#include "engine/op.h"
#include "engine/version_edit.h"
#include "memtable/memtable.h"

struct batch {
    struct buf ops;   /* op.h encoding, ready for the log */
    uint64_t count;   /* operations */
    uint64_t data;    /* bytes of keys and values */
    struct memtable_need need; /* memory */
    struct buf spaces;  /* ids (uint32_t) of its keyspaces but "default", ascending */
    uint32_t space;     /* the one that was named last; KS_DEFAULT: none */
    uint64_t value_max; /* bytes of the largest value so far */
    uint64_t db;      /* handle all keyspaces belong to; 0 until one is named */
    size_t db_from;   /* bytes of operations before the first that named it */
    loam_error error; /* sticks; code 0 when fine */
};

void batch_init(struct batch *b, struct alloc *a);
void batch_free(struct batch *b);
void batch_clear(struct batch *b);
/* Each returns LOAM_OK or the error that now sticks. db: handle of the keyspace's database, 0 for
 * "default" of whichever database the batch is written to. */
int batch_add(struct batch *b, uint64_t db, const struct op *o);
/* As a put of value_size bytes that the caller fills in before the next call; NULL: error. */
void *batch_reserve(struct batch *b, uint64_t db, uint32_t ks, loam_slice key, size_t value_size);
static inline uint32_t batch_space_count(const struct batch *b)
{
    return (uint32_t)(b->spaces.size / sizeof(uint32_t));
}
uint32_t batch_space(const struct batch *b, uint32_t i); /* an id; ascending */
/* Drops everything behind byte `mark`, which must be the end of an operation. */
int batch_rewind(struct batch *b, size_t mark);
/* Makes rc, the thread's error of the moment, stick. */
int batch_stick(struct batch *b, int rc);

/* What a batch takes while it is written, about: its operations in the memtable, and its bytes in the log. Of
 * small operations that is a multiple of the bytes they have. */
#define BATCH_OP_COST   60u
#define BATCH_OP_SMALL  48u /* mean bytes of key and value */
static inline uint64_t batch_cost(const struct batch *b)
{
    return b->count * BATCH_OP_COST + 2 * b->data;
}
static inline bool batch_is_small(const struct batch *b)
{
    return b->data < b->count * BATCH_OP_SMALL;
}

#endif
