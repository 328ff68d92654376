/* iter_lend.c - Copies of keys and values, and large values in one place.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/iter_lend.h"

#include "arena/poison.h"

int iter_lend_key(struct db_iter *it, loam_slice key)
{
    buf_set(&it->key, key.data, key.size);
    it->face->key = buf_slice(&it->key);
    return buf_status(&it->key);
}

static int copy_value(struct db_iter *it, loam_slice value)
{
    buf_set(&it->value, value.data, value.size);
    it->face->value = buf_slice(&it->value);
    return buf_status(&it->value);
}

/* A large value of a memtable. */
static int copy_large(struct db_iter *it, loam_slice value)
{
    struct db *db = it->shell;
    struct large *to = &it->seat.copy;
    sst_seat_clear(&it->seat);
    int rc = large_take(&db->large, &db->alloc, to, LARGE_HELD, MEM_ITER, value.size);
    if (rc == LOAM_OK) {
        memcpy(to->data, value.data, value.size);
        it->face->value = loam_bytes(to->data, value.size);
    }
    return rc == LOAM_E_BUDGET ? large_refused(value.size) : rc;
}

int iter_lend_value_(struct db_iter *it, struct source *s, bool stays)
{
    if (it->keys_only) {
        it->face->value = loam_bytes(NULL, 0);
        return LOAM_OK;
    }
    large_give(&it->seat.copy); /* of an older version, met before on the way back */
    int rc = source_show(s);
    loam_slice value = s->entry.value;
    if (rc < 0) {
        return rc;
    }
    if (s->is_memtable) {
        return value.size > LARGE_FROM ? copy_large(it, value) : copy_value(it, value);
    }
    if (!stays && !s->cursor.single) {
        return copy_value(it, value);
    }
    if (!stays) {
        sst_seat_keep(&it->seat, &s->cursor);
    }
    it->face->value = value;
    return LOAM_OK;
}

bool iter_lend_own(struct db_iter *it)
{
    bool lent = it->face->on_entry && it->forward && it->source_count != 0 &&
                !merge_in_memtable(&it->merge);
    if (!lent) {
        return true;
    }
    struct source *top = it->merge.heap[0];
    loam_slice key = it->face->key, value = it->face->value;
    if (it->run != NULL) {
        buf_set(&it->key, key.data, key.size);
    }
    if (it->seat.holder == NULL) {
        buf_set(&it->value, value.data, value.size);
    }
    if (it->key.oom || it->value.oom) {
        return false;
    }
    if (it->seat.holder != NULL) {
        sst_seat_keep(&it->seat, &top->cursor);
    } else {
        it->face->value = buf_slice(&it->value);
    }
    it->face->key = buf_slice(&it->key);
    it->run = NULL;
    return true;
}
