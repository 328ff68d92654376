/* buf.c - A growable byte buffer.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/buf.h"

#include "arena/coding.h"
#include "arena/status.h"

#include "arena/poison.h"

void buf_init(struct buf *b, struct alloc *a, enum mem_owner o)
{
    *b = (struct buf){.alloc = a, .owner = o};
}

void buf_free(struct buf *b)
{
    if (b->alloc != NULL) {
        alloc_put(b->alloc, b->owner, b->data, b->cap);
    }
    b->data = NULL;
    b->size = b->cap = 0;
    b->oom = false;
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    b->oom = false;
}

uint8_t *buf_room(struct buf *b, size_t more)
{
    if (b->cap - b->size >= more) {
        return b->data + b->size;
    }
    if (b->oom || more > SIZE_MAX / 4 - b->size) {
        b->oom = true;
        return NULL;
    }
    size_t cap = b->cap * 2;
    if (cap < b->size + more) {
        cap = b->size + more;
    }
    if (cap < 64) {
        cap = 64;
    }
    void *p = alloc_resize(b->alloc, b->owner, b->data, b->cap, cap);
    if (p == NULL) {
        b->oom = true;
        return NULL;
    }
    b->data = p;
    b->cap = cap;
    return b->data + b->size;
}

void buf_append(struct buf *b, const void *data, size_t size)
{
    if (size == 0) {
        return;
    }
    uint8_t *p = buf_room(b, size);
    if (p != NULL && !b->oom) {
        memcpy(p, data, size);
        b->size += size;
    }
}

void buf_append_u8(struct buf *b, uint8_t v)
{
    buf_append(b, &v, 1);
}

void buf_append_fixed64(struct buf *b, uint64_t v)
{
    uint8_t t[8];
    put_fixed64(t, v);
    buf_append(b, t, sizeof t);
}

void buf_append_varint(struct buf *b, uint64_t v)
{
    uint8_t t[VARINT64_MAX_BYTES];
    buf_append(b, t, (size_t)(put_varint64(t, v) - t));
}

void buf_append_slice(struct buf *b, loam_slice s)
{
    buf_append_varint(b, s.size);
    buf_append(b, s.data, s.size);
}

void buf_set(struct buf *b, const void *data, size_t size)
{
    buf_clear(b);
    buf_append(b, data, size);
}

int buf_status(const struct buf *b)
{
    return b->oom ? FAIL(LOAM_E_NOMEM, "no memory for a buffer of over %zu bytes", b->size)
                  : LOAM_OK;
}
