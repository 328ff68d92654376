/* op.c - Reads one operation of a batch or log record.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/op.h"

#include "arena/status.h"

#include "arena/poison.h"

int op_read(struct reader *r, struct op *o)
{
    if (reader_left(r) == 0 && !r->bad) {
        return LOAM_NOTFOUND;
    }
    uint8_t kind = read_u8(r);
    o->ks = read_varint32(r);
    uint32_t key_size = read_varint32(r);
    uint64_t value_size = kind == ENTRY_PUT ? read_varint64(r) : 0;
    if (!r->bad && kind != ENTRY_PUT && kind != ENTRY_DELETE) {
        if (kind <= ENTRY_BLOB) {
            return FAIL(LOAM_E_FORMAT, "operation of kind %u needs a newer version", kind);
        }
        r->bad = true;
    }
    const uint8_t *key = read_bytes(r, key_size);
    if (value_size > OP_VALUE_MAX) {
        r->bad = true;
    }
    const uint8_t *value = read_bytes(r, r->bad ? 0 : (size_t)value_size);
    if (r->bad || key_size > OP_KEY_MAX) {
        return FAIL(LOAM_E_CORRUPT, "malformed operation of kind %u", kind);
    }
    o->kind = (enum entry_kind)kind;
    o->key = loam_bytes(key, key_size);
    o->value = loam_bytes(value, (size_t)value_size);
    return LOAM_OK;
}
