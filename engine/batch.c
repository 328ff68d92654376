/* batch.c - Appends, reserves and rewinds operations.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/batch.h"

#include "arena/status.h"

#include "arena/poison.h"

void batch_init(struct batch *b, struct alloc *a)
{
    *b = (struct batch){0};
    buf_init(&b->ops, a, MEM_BATCH);
}

void batch_free(struct batch *b)
{
    buf_free(&b->ops);
}

void batch_clear(struct batch *b)
{
    buf_clear(&b->ops);
    b->count = b->data = b->db = b->value_max = 0;
    b->need = (struct memtable_need){0};
    b->error.code = LOAM_OK;
}

int batch_stick(struct batch *b, int rc)
{
    if (rc < 0 && b->error.code == LOAM_OK) {
        b->error = *loam_last_error();
    }
    return rc;
}

/* Room for one more operation, its head and key in place; NULL with the error stuck. */
static uint8_t *append(struct batch *b, uint64_t db, const struct op *o, size_t value_size)
{
    if (b->error.code != LOAM_OK) {
        status_raise(&b->error);
        return NULL;
    }
    if (db != 0 && b->db != 0 && db != b->db) {
        batch_stick(b, FAIL(LOAM_E_INVAL, "the batch holds keyspaces of two databases"));
        return NULL;
    }
    if (o->key.size > LOAM_MAX_KEY || value_size > LOAM_MAX_VALUE) {
        batch_stick(b, FAIL(LOAM_E_TOOBIG, "key of %zu and value of %zu bytes; at most %u and %llu",
                            o->key.size, value_size, LOAM_MAX_KEY,
                            (unsigned long long)LOAM_MAX_VALUE));
        return NULL;
    }
    uint8_t *p = buf_room(&b->ops, OP_HEAD_MAX + o->key.size + value_size);
    if (p == NULL) {
        batch_stick(b, FAIL(LOAM_E_NOMEM, "no memory for a batch of over %zu bytes", b->ops.size));
        return NULL;
    }
    size_t head = op_put_head(p, o->kind, o->ks, o->key.size, value_size);
    if (o->key.size != 0) {
        memcpy(p + head, o->key.data, o->key.size);
    }
    b->ops.size += head + o->key.size + value_size;
    b->data += o->key.size + value_size;
    memtable_need_add(&b->need, o->ks, o->key.size, value_size);
    b->count++;
    b->value_max = value_size > b->value_max ? value_size : b->value_max;
    b->db = db != 0 ? db : b->db;
    return p + head + o->key.size;
}

int batch_add(struct batch *b, uint64_t db, const struct op *o)
{
    uint8_t *value = append(b, db, o, o->value.size);
    if (value == NULL) {
        return loam_last_error()->code;
    }
    if (o->value.size != 0) {
        memcpy(value, o->value.data, o->value.size);
    }
    return LOAM_OK;
}

void *batch_reserve(struct batch *b, uint64_t db, uint32_t ks, loam_slice key, size_t value_size)
{
    const struct op o = {ENTRY_PUT, ks, key, {NULL, 0}};
    return append(b, db, &o, value_size);
}

int batch_rewind(struct batch *b, size_t mark)
{
    if (mark > b->ops.size) {
        return FAIL(LOAM_E_INVAL, "mark %zu is beyond the batch's end %zu", mark, b->ops.size);
    }
    struct reader r = reader_of(b->ops.data, mark);
    uint64_t count = 0, data = 0, value_max = 0;
    struct memtable_need need = {0};
    struct op o;
    int rc;
    while ((rc = op_read(&r, &o)) == LOAM_OK) {
        count++;
        data += o.key.size + o.value.size;
        memtable_need_add(&need, o.ks, o.key.size, o.value.size);
        value_max = o.value.size > value_max ? o.value.size : value_max;
    }
    if (rc < 0) {
        return FAIL(LOAM_E_INVAL, "mark %zu is not the end of an operation", mark);
    }
    b->ops.size = mark;
    b->ops.oom = false;
    b->count = count;
    b->data = data;
    b->need = need;
    b->value_max = value_max;
    b->db = count != 0 ? b->db : 0;
    b->error.code = LOAM_OK;
    return LOAM_OK;
}
