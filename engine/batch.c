/* batch.c - Appends, reserves and rewinds operations.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/batch.h"

#include "arena/copy.h"
#include "arena/status.h"

#include "arena/poison.h"

void batch_init(struct batch *b, struct alloc *a)
{
    *b = (struct batch){0};
    buf_init(&b->ops, a, MEM_BATCH);
    buf_init(&b->spaces, a, MEM_BATCH);
    b->space = KS_DEFAULT;
}

void batch_free(struct batch *b)
{
    buf_free(&b->ops);
    buf_free(&b->spaces);
}

void batch_clear(struct batch *b)
{
    buf_clear(&b->ops);
    buf_clear(&b->spaces);
    b->space = KS_DEFAULT;
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

uint32_t batch_space(const struct batch *b, uint32_t i)
{
    uint32_t id;
    memcpy(&id, b->spaces.data + i * sizeof id, sizeof id);
    return id;
}

/* Enters the id among those of the batch. False: no memory. */
static bool note_space(struct batch *b, uint32_t ks)
{
    if (__builtin_expect(ks == b->space || ks == KS_DEFAULT, 1)) {
        return true;
    }
    uint32_t lo = 0, hi = batch_space_count(b);
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (batch_space(b, mid) < ks) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo == batch_space_count(b) || batch_space(b, lo) != ks) {
        if (buf_room(&b->spaces, sizeof ks) == NULL) {
            b->spaces.oom = false;
            return false;
        }
        uint8_t *at = b->spaces.data + lo * sizeof ks;
        memmove(at + sizeof ks, at, b->spaces.size - lo * sizeof ks);
        memcpy(at, &ks, sizeof ks);
        b->spaces.size += sizeof ks;
    }
    b->space = ks;
    return true;
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
    if (p == NULL || !note_space(b, o->ks)) {
        batch_stick(b, FAIL(LOAM_E_NOMEM, "no memory for a batch of over %zu bytes", b->ops.size));
        return NULL;
    }
    size_t head = op_put_head(p, o->kind, o->ks, o->key.size, value_size);
    copy_bytes(p + head, o->key.data, o->key.size);
    if (db != 0 && b->db == 0) {
        b->db = db;
        b->db_from = b->ops.size;
    }
    b->ops.size += head + o->key.size + value_size;
    b->data += o->key.size + value_size;
    memtable_need_add(&b->need, o->ks, o->key.size, value_size);
    b->count++;
    b->value_max = value_size > b->value_max ? value_size : b->value_max;
    return p + head + o->key.size;
}

int batch_add(struct batch *b, uint64_t db, const struct op *o)
{
    uint8_t *value = append(b, db, o, o->value.size);
    if (value == NULL) {
        return loam_last_error()->code;
    }
    copy_bytes(value, o->value.data, o->value.size);
    return LOAM_OK;
}

void *batch_reserve(struct batch *b, uint64_t db, uint32_t ks, loam_slice key, size_t value_size)
{
    const struct op o = {ENTRY_PUT, ks, key, {NULL, 0}};
    return append(b, db, &o, value_size);
}

/* Forgets keyspaces that no operation is of any more. */
static void note_spaces_again(struct batch *b)
{
    buf_clear(&b->spaces);
    b->space = KS_DEFAULT;
    struct reader r = reader_of(b->ops.data, b->ops.size);
    struct op o;
    while (op_read(&r, &o) == LOAM_OK) {
        (void)note_space(b, o.ks); /* there was memory for more of them */
    }
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
    if (batch_space_count(b) != 0) {
        note_spaces_again(b);
    }
    b->count = count;
    b->data = data;
    b->need = need;
    b->value_max = value_max;
    b->db = mark > b->db_from ? b->db : 0;
    b->error.code = LOAM_OK;
    return LOAM_OK;
}
