/* api_write.c - Public calls that write, batch and sync, checked and handed on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"
#include "engine/api.h"
#include "engine/call.h"
#include "engine/handles.h"
#include "engine/loam.h"
#include "engine/object.h"
#include "engine/write.h"

#include "arena/poison.h"

/* ---- checks ------------------------------------------------------------------------------------ */

static int check_write_opts(const loam_write_opts *o)
{
    if (o == NULL) {
        return LOAM_OK;
    }
    int rc = options_check_size(o, o->struct_size, sizeof *o, "write_opts");
    if (rc < 0) {
        return rc;
    }
    const uint32_t known = LOAM_W_DURABLE | LOAM_W_RELAXED | LOAM_W_NOWAIT;
    if ((o->flags & ~known) != 0) {
        return FAIL(LOAM_E_INVAL, "write_opts.flags has unknown bits 0x%x", o->flags & ~known);
    }
    if (o->reserved_ != 0) {
        return FAIL(LOAM_E_INVAL, "write_opts.reserved_ is not zero");
    }
    if ((o->flags & LOAM_W_DURABLE) != 0 && (o->flags & LOAM_W_RELAXED) != 0) {
        return FAIL(LOAM_E_INVAL, "write_opts.flags: DURABLE and RELAXED exclude each other");
    }
    return LOAM_OK;
}

static int check_sizes(const struct db *db, loam_slice key, loam_slice value)
{
    if (key.size > LOAM_MAX_KEY) {
        return FAIL(LOAM_E_TOOBIG, "key of %zu bytes, at most %u", key.size, LOAM_MAX_KEY);
    }
    if (value.size > db->options.limits.value_max) {
        return FAIL(LOAM_E_TOOBIG, "value of %zu bytes, at most %llu under this memory budget",
                    value.size, (unsigned long long)db->options.limits.value_max);
    }
    return LOAM_OK;
}

/* ---- writes ------------------------------------------------------------------------------------ */

static int write_one(loam_db *db, loam_ks *ks, enum entry_kind kind, loam_slice key,
                     loam_slice value, const loam_write_opts *opts)
{
    int rc = check_write_opts(opts);
    if (rc < 0 || (rc = api_check_slice(key, "key")) < 0 ||
        (rc = api_check_slice(value, "value")) < 0) {
        return rc;
    }
    struct call c;
    rc = call_begin(&c, db);
    if (rc < 0) {
        return rc;
    }
    struct keyspace *space;
    rc = call_keyspace(&c, ks, &space);
    if (rc == LOAM_OK) {
        rc = check_sizes(c.db, key, value);
    }
    if (rc == LOAM_OK) {
        const struct op op = {kind, space->id, key, value};
        struct write_request q = {.one = &op, .count = 1, .data = key.size + value.size};
        memtable_need_add(&q.need, space->id, key.size, value.size);
        rc = write_apply(&c, &q, opts);
    }
    call_end(&c);
    return rc;
}

int loam_put(loam_db *db, loam_ks *ks, loam_slice key, loam_slice value,
             const loam_write_opts *opts)
{
    int rc = write_one(db, ks, ENTRY_PUT, key, value, opts);
    return api_give_error(api_err(opts), rc);
}

int loam_delete(loam_db *db, loam_ks *ks, loam_slice key, const loam_write_opts *opts)
{
    int rc = write_one(db, ks, ENTRY_DELETE, key, loam_bytes(NULL, 0), opts);
    return api_give_error(api_err(opts), rc);
}

/* The batch behind a handle; lent until the section ends. */
static struct batch *find_batch(const loam_batch *handle)
{
    struct registry *r = registry_get();
    struct batch_handle *b = r != NULL ? slotmap_get(&r->batches, HANDLE_OF(handle)) : NULL;
    if (b == NULL) {
        FAIL(LOAM_E_INVAL, "the batch handle is NULL or was freed");
        return NULL;
    }
    return &b->batch;
}

/* A keyspace may have been dropped since the batch was filled. */
static int check_spaces(struct db *db, const struct batch *b)
{
    for (uint32_t i = 0; i < batch_space_count(b); i++) {
        if (keyspace_find(&db->versions.keyspaces, batch_space(b, i)) == NULL) {
            return FAIL(LOAM_E_NOENT, "a keyspace of the batch was dropped");
        }
    }
    return LOAM_OK;
}

/* The batch and its largest value against the limits of a database. */
static int check_batch(struct db *db, const struct batch *b)
{
    const struct limits *l = &db->options.limits;
    if (b->ops.size > l->batch_max || b->value_max > l->value_max) {
        return FAIL(LOAM_E_TOOBIG, "batch of %zu bytes with a value of %llu, at most %llu and %llu",
                    b->ops.size, (unsigned long long)b->value_max, (unsigned long long)l->batch_max,
                    (unsigned long long)l->value_max);
    }
    if (batch_is_small(b) && batch_cost(b) > l->batch_small_max) {
        return FAIL(LOAM_E_TOOBIG,
                    "batch of %llu small operations, which take %llu bytes of memory, at most %llu",
                    (unsigned long long)b->count, (unsigned long long)batch_cost(b),
                    (unsigned long long)l->batch_small_max);
    }
    return check_spaces(db, b);
}

static int write_batch(loam_db *db, loam_batch *handle, const loam_write_opts *opts)
{
    int rc = check_write_opts(opts);
    if (rc < 0) {
        return rc;
    }
    struct call c;
    rc = call_begin(&c, db);
    if (rc < 0) {
        return rc;
    }
    struct batch *b = find_batch(handle);
    if (b == NULL) {
        rc = LOAM_E_INVAL;
    } else if (b->error.code != LOAM_OK) {
        rc = status_raise(&b->error);
    } else if (b->db != 0 && b->db != c.db->handle) {
        rc = call_foreign(b->db, "batch");
    } else if ((rc = check_batch(c.db, b)) == LOAM_OK && b->count != 0) {
        const struct write_request q = {
            .ops = buf_slice(&b->ops), .count = b->count, .data = b->data, .need = b->need};
        rc = write_apply(&c, &q, opts);
    }
    call_end(&c);
    return rc;
}

int loam_write(loam_db *db, loam_batch *b, const loam_write_opts *opts)
{
    int rc = write_batch(db, b, opts);
    return api_give_error(api_err(opts), rc);
}

/* ---- batches ----------------------------------------------------------------------------------- */

loam_batch *loam_batch_new(size_t reserve)
{
    struct registry *r = registry_get();
    struct batch_handle *b = r != NULL ? object_take(alloc_global(), OBJECT_BATCH) : NULL;
    if (b == NULL) {
        FAIL(LOAM_E_NOMEM, "no memory for a batch");
        return NULL;
    }
    batch_init(&b->batch, alloc_global());
    if ((reserve != 0 && buf_room(&b->batch.ops, reserve) == NULL) ||
        (b->handle = slotmap_insert(&r->batches, b)) == 0) {
        batch_handle_free(NULL, b);
        FAIL(LOAM_E_NOMEM, "no memory for a batch of %zu bytes", reserve);
        return NULL;
    }
    return HANDLE_AS(loam_batch, b->handle);
}

void batch_handle_free(void *arg, void *ptr)
{
    (void)arg;
    struct batch_handle *b = ptr;
    batch_free(&b->batch);
    object_give(alloc_global(), OBJECT_BATCH, b);
}

void loam_batch_free(loam_batch *handle)
{
    struct registry *r = registry_get();
    if (handle == NULL || r == NULL) {
        return;
    }
    /* A batch belongs to one thread, so nobody else can be inside: what it holds goes at once, and
     * only the small shell waits for the epoch. */
    epoch_enter();
    struct batch *b = find_batch(handle);
    if (b != NULL) {
        batch_free(b);
        slotmap_erase(&r->batches, HANDLE_OF(handle));
    }
    epoch_exit();
    registry_released(false);
}

void loam_batch_clear(loam_batch *handle)
{
    epoch_enter();
    struct batch *b = find_batch(handle);
    if (b != NULL) {
        batch_clear(b);
    }
    epoch_exit();
}

/* Keyspace id and database of a handle, for a batch. */
static int batch_keyspace(const loam_ks *ks, uint64_t *db, uint32_t *id)
{
    *db = 0;
    *id = KS_DEFAULT;
    if (ks == NULL) {
        return LOAM_OK;
    }
    struct ks_handle *k = slotmap_get(&registry_get()->spaces, HANDLE_OF(ks));
    if (k == NULL) {
        return FAIL(LOAM_E_CLOSED, "the keyspace handle is closed");
    }
    *db = k->db_handle;
    struct call c;
    int rc = call_begin_raw(&c, k->db_handle);
    if (rc < 0) {
        return rc;
    }
    *id = k->space->id;
    rc = atom_load(&k->space->dropped, relaxed) /* relaxed: as in call_keyspace() */
             ? FAIL(LOAM_E_NOENT, "the keyspace was dropped")
             : LOAM_OK;
    call_end(&c);
    return rc;
}

static int batch_op(loam_batch *handle, loam_ks *ks, enum entry_kind kind, loam_slice key,
                    loam_slice value)
{
    epoch_enter();
    struct batch *b = find_batch(handle);
    int rc = LOAM_E_INVAL;
    if (b != NULL) {
        uint64_t db;
        struct op o = {kind, 0, key, value};
        rc = api_check_slice(key, "key");
        if (rc == LOAM_OK) {
            rc = api_check_slice(value, "value");
        }
        if (rc == LOAM_OK) {
            rc = batch_keyspace(ks, &db, &o.ks);
        }
        rc = rc == LOAM_OK ? batch_add(b, db, &o) : batch_stick(b, rc);
    }
    epoch_exit();
    return rc;
}

int loam_batch_put(loam_batch *b, loam_ks *ks, loam_slice key, loam_slice value)
{
    return batch_op(b, ks, ENTRY_PUT, key, value);
}

int loam_batch_delete(loam_batch *b, loam_ks *ks, loam_slice key)
{
    return batch_op(b, ks, ENTRY_DELETE, key, loam_bytes(NULL, 0));
}

void *loam_batch_reserve(loam_batch *handle, loam_ks *ks, loam_slice key, size_t value_size)
{
    void *p = NULL;
    epoch_enter();
    struct batch *b = find_batch(handle);
    if (b != NULL) {
        uint64_t db;
        uint32_t id;
        int rc = api_check_slice(key, "key");
        if (rc == LOAM_OK) {
            rc = batch_keyspace(ks, &db, &id);
        }
        if (rc == LOAM_OK) {
            p = batch_reserve(b, db, id, key, value_size);
        } else {
            batch_stick(b, rc);
        }
    }
    epoch_exit();
    return p;
}

size_t loam_batch_mark(const loam_batch *handle)
{
    epoch_enter();
    struct batch *b = find_batch(handle);
    size_t mark = b != NULL ? b->ops.size : 0;
    epoch_exit();
    return mark;
}

int loam_batch_rewind(loam_batch *handle, size_t mark)
{
    epoch_enter();
    struct batch *b = find_batch(handle);
    int rc = b != NULL ? batch_rewind(b, mark) : LOAM_E_INVAL;
    epoch_exit();
    return rc;
}

size_t loam_batch_count(const loam_batch *handle)
{
    epoch_enter();
    struct batch *b = find_batch(handle);
    size_t count = b != NULL ? (size_t)b->count : 0;
    epoch_exit();
    return count;
}

/* ---- durability -------------------------------------------------------------------------------- */

int loam_sync(loam_db *handle)
{
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    if (c.db->readonly) {
        rc = LOAM_OK;
    } else if (!c.db->logging) {
        rc = FAIL(LOAM_E_UNSUPPORTED, "there is no log to sync under LOAM_DUR_MEMORY; flush");
    } else {
        rc = write_sync(&c, commit_visible(&c.db->commit));
    }
    call_end(&c);
    return rc;
}

uint64_t loam_durable_seq(loam_db *handle)
{
    struct call c;
    if (call_begin(&c, handle) < 0) {
        return 0;
    }
    struct db *db = c.db;
    uint64_t seq = db->readonly ? commit_visible(&db->commit) - 1 : wal_durable(&db->wal) - 1;
    call_end(&c);
    return seq;
}

int loam_wait_durable(loam_db *handle, uint64_t seq, uint64_t timeout_us)
{
    struct call c;
    int rc = call_begin_waiting(&c, handle);
    if (rc < 0) {
        return rc;
    }
    struct db *db = c.db;
    uint64_t start = clock_micros();
    while (!db->readonly && wal_durable(&db->wal) <= seq) {
        uint64_t spent = clock_micros() - start;
        if (spent >= timeout_us) {
            rc = LOAM_STOPPED;
            break;
        }
        uint64_t left = timeout_us - spent;
        thread_sleep_micros(left < 500 ? left : 500);
        /* A pin kept all the time would make loam_close() wait for the timeout. */
        call_wait_end(&c);
        if (!call_wait_begin(&c)) {
            rc = LOAM_E_CLOSED;
            break;
        }
        mutex_lock(&db->mu);
        if (db->error.code != LOAM_OK) {
            rc = status_raise(&db->error);
        } else if (atom_load(&db->stopping, relaxed)) { /* relaxed: a wish */
            rc = FAIL(LOAM_E_CLOSED, "the database was closed during the call");
        }
        mutex_unlock(&db->mu);
        if (rc != LOAM_OK) {
            break;
        }
    }
    call_end(&c);
    return rc;
}
