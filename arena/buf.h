/* buf.h - A growable byte buffer whose out-of-memory state sticks until it is looked at.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_BUF_H_
#define LOAM_ARENA_BUF_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/types.h"

struct buf {
    struct alloc *alloc;
    enum mem_owner owner;
    bool oom; /* an append failed; contents are a prefix of what was asked for */
    uint8_t *data;
    size_t size;
    size_t cap;
};

/* Nothing is allocated before the first append. */
void buf_init(struct buf *b, struct alloc *a, enum mem_owner o);
void buf_free(struct buf *b); /* back to the state after buf_init */
void buf_clear(struct buf *b); /* size 0, oom off, memory kept */
/* Room for `more` bytes behind size; NULL (and oom) when out. The caller adds to size itself. */
uint8_t *buf_room(struct buf *b, size_t more);
void buf_append(struct buf *b, const void *data, size_t size);
void buf_append_slice(struct buf *b, loam_slice s); /* varint length, then the bytes */
void buf_append_u8(struct buf *b, uint8_t v);
void buf_append_fixed64(struct buf *b, uint64_t v);
void buf_append_varint(struct buf *b, uint64_t v);
/* Replaces the contents. */
void buf_set(struct buf *b, const void *data, size_t size);
static inline loam_slice buf_slice(const struct buf *b)
{
    return loam_bytes(b->data, b->size);
}
/* LOAM_OK, or LOAM_E_NOMEM with the thread's error set. */
int buf_status(const struct buf *b);

#endif
