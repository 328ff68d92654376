/* api_data.c - Public calls that write, read and hold snapshots, checked and handed on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "engine/call.h"
#include "engine/handles.h"
#include "engine/loam.h"
#include "engine/read.h"
#include "engine/write.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

/* ---- checks ------------------------------------------------------------------------------------ */

static int give_error(loam_error *out, int rc)
{
    if (rc < 0 && out != NULL) {
        *out = *loam_last_error();
    }
    return rc;
}

static int check_slice(loam_slice s, const char *what)
{
    return s.data == NULL && s.size != 0 ? FAIL(LOAM_E_INVAL, "%s.data is NULL", what) : LOAM_OK;
}

static int check_write_opts(const loam_write_opts *o)
{
    if (o == NULL) {
        return LOAM_OK;
    }
    if (o->struct_size < sizeof *o) {
        return FAIL(LOAM_E_INVAL, "write_opts.struct_size is %zu, at least %zu", o->struct_size,
                    sizeof *o);
    }
    const uint32_t known = LOAM_W_DURABLE | LOAM_W_RELAXED | LOAM_W_NOWAIT;
    if ((o->flags & ~known) != 0 || o->reserved_ != 0) {
        return FAIL(LOAM_E_INVAL, "write_opts.flags has unknown bits 0x%x, or reserved_ is set",
                    o->flags & ~known);
    }
    if ((o->flags & LOAM_W_DURABLE) != 0 && (o->flags & LOAM_W_RELAXED) != 0) {
        return FAIL(LOAM_E_INVAL, "write_opts.flags: DURABLE and RELAXED exclude each other");
    }
    return LOAM_OK;
}

static int check_read_opts(const loam_read_opts *o)
{
    if (o == NULL) {
        return LOAM_OK;
    }
    if (o->struct_size < sizeof *o) {
        return FAIL(LOAM_E_INVAL, "read_opts.struct_size is %zu, at least %zu", o->struct_size,
                    sizeof *o);
    }
    const uint32_t known = LOAM_R_NOFILL | LOAM_R_VERIFY;
    if ((o->flags & ~known) != 0 || o->reserved_ != 0) {
        return FAIL(LOAM_E_INVAL, "read_opts.flags has unknown bits 0x%x, or reserved_ is set",
                    o->flags & ~known);
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

int call_keyspace(struct call *c, const loam_ks *ks, struct keyspace **space)
{
    if (ks == NULL) {
        *space = keyspace_find(&c->db->versions.keyspaces, KS_DEFAULT);
        return *space != NULL ? LOAM_OK : FAIL(LOAM_E_INTERNAL, "no keyspace \"default\"");
    }
    struct ks_handle *k = slotmap_get(&registry_get()->spaces, HANDLE_OF(ks));
    if (k == NULL) {
        return FAIL(LOAM_E_CLOSED, "the keyspace handle is closed");
    }
    if (k->db_handle != c->db->handle) {
        return FAIL(LOAM_E_INVAL, "the keyspace belongs to another database");
    }
    *space = k->space;
    /* relaxed: a drop that runs beside this call may come before or after it. */
    return atom_load(&k->space->dropped, relaxed)
               ? FAIL(LOAM_E_NOENT, "the keyspace was dropped")
               : LOAM_OK;
}

/* ---- writes ------------------------------------------------------------------------------------ */

static int write_one(loam_db *db, loam_ks *ks, enum entry_kind kind, loam_slice key,
                     loam_slice value, const loam_write_opts *opts)
{
    int rc = check_write_opts(opts);
    if (rc < 0 || (rc = check_slice(key, "key")) < 0 || (rc = check_slice(value, "value")) < 0) {
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
        const struct write_request q = {.one = &op, .count = 1, .data = key.size + value.size};
        rc = write_apply(&c, &q, opts);
    }
    call_end(&c);
    return rc;
}

int loam_put(loam_db *db, loam_ks *ks, loam_slice key, loam_slice value,
             const loam_write_opts *opts)
{
    int rc = write_one(db, ks, ENTRY_PUT, key, value, opts);
    return give_error(opts != NULL ? opts->err : NULL, rc);
}

int loam_delete(loam_db *db, loam_ks *ks, loam_slice key, const loam_write_opts *opts)
{
    int rc = write_one(db, ks, ENTRY_DELETE, key, loam_bytes(NULL, 0), opts);
    return give_error(opts != NULL ? opts->err : NULL, rc);
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
    const struct limits *l = &c.db->options.limits;
    if (b == NULL) {
        rc = LOAM_E_INVAL;
    } else if (b->error.code != LOAM_OK) {
        rc = status_raise(&b->error);
    } else if (b->db != 0 && b->db != c.db->handle) {
        rc = FAIL(LOAM_E_INVAL, "the batch's keyspaces belong to another database");
    } else if (b->ops.size > l->batch_max || b->value_max > l->value_max) {
        rc = FAIL(LOAM_E_TOOBIG, "batch of %zu bytes with a value of %llu, at most %llu and %llu",
                  b->ops.size, (unsigned long long)b->value_max, (unsigned long long)l->batch_max,
                  (unsigned long long)l->value_max);
    } else if (b->count != 0) {
        const struct write_request q = {
            .ops = buf_slice(&b->ops), .count = b->count, .data = b->data};
        rc = write_apply(&c, &q, opts);
    }
    call_end(&c);
    return rc;
}

int loam_write(loam_db *db, loam_batch *b, const loam_write_opts *opts)
{
    int rc = write_batch(db, b, opts);
    return give_error(opts != NULL ? opts->err : NULL, rc);
}

/* ---- batches ----------------------------------------------------------------------------------- */

loam_batch *loam_batch_new(size_t reserve)
{
    struct registry *r = registry_get();
    struct batch_handle *b =
        r != NULL ? alloc_get(alloc_global(), MEM_BATCH, sizeof *b) : NULL;
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
    alloc_put(alloc_global(), MEM_BATCH, b, sizeof *b);
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
        rc = check_slice(key, "key");
        if (rc == LOAM_OK) {
            rc = check_slice(value, "value");
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
        int rc = check_slice(key, "key");
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
        call_wait_end(&c); /* a pin kept all the time would make loam_close() wait for the timeout */
        if (!call_wait_begin(&c)) {
            rc = LOAM_E_CLOSED;
            break;
        }
        mutex_lock(&db->mu);
        if (db->error.code != LOAM_OK || atom_load(&db->stopping, relaxed)) {
            rc = db->error.code != LOAM_OK ? status_raise(&db->error) : LOAM_STOPPED;
        }
        mutex_unlock(&db->mu);
        if (rc != LOAM_OK) {
            break;
        }
    }
    call_end(&c);
    return rc;
}

/* ---- snapshots --------------------------------------------------------------------------------- */

int loam_snap_take(loam_db *handle, loam_snap **out)
{
    if (out == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_snap_take: snap is NULL");
    }
    *out = NULL;
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    struct snap *s = alloc_get(alloc_global(), MEM_HANDLE, sizeof *s);
    if (s == NULL) {
        call_end(&c);
        return FAIL(LOAM_E_NOMEM, "no memory for a snapshot");
    }
    *s = (struct snap){.shell = c.db, .db_handle = c.db->handle};
    db_ref(c.db);
    snapshot_hold_latest(&c.db->snapshots, &c.db->commit, &s->held);
    s->handle = slotmap_insert(&registry_get()->snaps, s);
    if (s->handle == 0) {
        snapshot_drop(&c.db->snapshots, &s->held);
        snap_handle_free(NULL, s);
        rc = FAIL(LOAM_E_NOMEM, "no memory for a snapshot handle");
    } else {
        *out = HANDLE_AS(loam_snap, s->handle);
    }
    call_end(&c);
    return rc;
}

void snap_handle_free(void *arg, void *ptr)
{
    (void)arg;
    struct snap *s = ptr;
    struct db *shell = s->shell;
    alloc_put(alloc_global(), MEM_HANDLE, s, sizeof *s);
    db_unref(shell);
}

void loam_snap_release(loam_snap *handle)
{
    struct registry *r = registry_get();
    if (handle == NULL || r == NULL) {
        return;
    }
    epoch_enter();
    struct snap *s = slotmap_get(&r->snaps, HANDLE_OF(handle));
    if (s != NULL && slotmap_erase(&r->snaps, HANDLE_OF(handle)) == LOAM_OK) {
        db_let_go(s->shell, &s->held);
    }
    epoch_exit();
}

int call_snapshot(struct call *c, const loam_snap *handle, uint64_t *seq)
{
    struct snap *s = slotmap_get(&registry_get()->snaps, HANDLE_OF(handle));
    if (s == NULL) {
        return FAIL(LOAM_E_CLOSED, "the snapshot handle is closed");
    }
    if (s->db_handle != c->db->handle) {
        return FAIL(LOAM_E_INVAL, "the snapshot belongs to another database");
    }
    *seq = s->held.seq;
    return LOAM_OK;
}

uint64_t loam_snap_seq(const loam_snap *handle)
{
    struct registry *r = registry_get();
    if (r == NULL) {
        return 0;
    }
    epoch_enter();
    uint64_t seq = 0;
    struct snap *s = slotmap_get(&r->snaps, HANDLE_OF(handle));
    struct call c;
    if (s != NULL && call_begin_raw(&c, s->db_handle) == LOAM_OK) {
        seq = s->held.seq;
        call_end(&c);
    }
    epoch_exit();
    return seq;
}

/* ---- reads ------------------------------------------------------------------------------------- */

/* What one get needs, looked up once. */
struct lookup {
    const struct view *view;
    uint64_t seq;
    struct keyspace *space;
    const loam_comparator *cmp;
    struct sst_get_scratch spare, *scratch;
    struct stats_stripe *stats;
    uint64_t hits, misses;
};

static int lookup_begin(struct call *c, loam_ks *ks, const loam_read_opts *opts, struct lookup *l)
{
    int rc = call_keyspace(c, ks, &l->space);
    if (rc < 0) {
        return rc;
    }
    l->view = db_view(c->db); /* before the sequence number; see view.h */
    l->seq = commit_visible(&c->db->commit) - 1;
    if (opts != NULL && opts->snap != NULL && (rc = call_snapshot(c, opts->snap, &l->seq)) < 0) {
        return rc;
    }
    /* acquire: pairs with the store in version_set_order_ks(). */
    l->cmp = atom_load(&l->space->cmp, acquire);
    l->scratch = db_scratch(c->db, &l->spare);
    l->scratch->no_fill = opts != NULL && (opts->flags & LOAM_R_NOFILL) != 0;
    l->scratch->verify = opts != NULL && (opts->flags & LOAM_R_VERIFY) != 0;
    l->hits = l->scratch->cache_hits;
    l->misses = l->scratch->cache_misses;
    l->stats = stats_stripe_self(&c->db->stats);
    return LOAM_OK;
}

static int lookup(struct call *c, struct lookup *l, loam_slice key, const loam_read_opts *opts,
                  struct entry *e)
{
    int rc = check_slice(key, "key");
    if (rc < 0) {
        return rc;
    }
    stats_bump(l->stats, STAT_GETS, 1);
    if (key.size > LOAM_MAX_KEY) {
        return LOAM_NOTFOUND;
    }
    rc = read_get(c->db, l->view, l->space->id, l->cmp, key, l->seq, l->scratch, e);
    /* relaxed: ordered by the load of the view, which a drop publishes last. */
    if (rc != LOAM_OK && atom_load(&l->space->dropped, relaxed)) {
        return FAIL(LOAM_E_NOENT, "the keyspace was dropped");
    }
    if (rc == LOAM_OK) {
        stats_bump(l->stats, STAT_BYTES_GOT, e->value.size);
        if (opts != NULL && opts->seq != NULL) {
            *opts->seq = tag_seq(e->tag);
        }
    }
    return rc;
}

static void lookup_end(struct lookup *l)
{
    if (l->scratch->cache_hits != l->hits) {
        stats_bump(l->stats, STAT_CACHE_HITS, l->scratch->cache_hits - l->hits);
    }
    if (l->scratch->cache_misses != l->misses) {
        stats_bump(l->stats, STAT_CACHE_MISSES, l->scratch->cache_misses - l->misses);
    }
    if (l->scratch == &l->spare) {
        sst_get_scratch_free(&l->spare);
    }
}

static int get(loam_db *db, loam_ks *ks, loam_slice key, void *buf, size_t cap, size_t *len,
               const loam_read_opts *opts)
{
    if (buf == NULL && cap != 0) {
        return FAIL(LOAM_E_INVAL, "loam_get: buf is NULL and cap is %zu", cap);
    }
    int rc = check_read_opts(opts);
    struct call c;
    if (rc < 0 || (rc = call_begin(&c, db)) < 0) {
        return rc;
    }
    struct lookup l;
    rc = lookup_begin(&c, ks, opts, &l);
    if (rc < 0) {
        call_end(&c);
        return rc;
    }
    uint64_t start = stats_sample(l.stats) ? clock_nanos() : 0;
    struct entry e;
    rc = lookup(&c, &l, key, opts, &e);
    if (rc == LOAM_OK) {
        size_t n = e.value.size < cap ? e.value.size : cap;
        if (n != 0) {
            memcpy(buf, e.value.data, n);
        }
        if (len != NULL) {
            *len = e.value.size;
        }
        rc = n < e.value.size && buf != NULL ? LOAM_TRUNCATED : LOAM_OK;
    }
    lookup_end(&l);
    if (start != 0) {
        stats_time(&c.db->stats, LOAM_HIST_GET, clock_nanos() - start);
    }
    call_end(&c);
    return rc;
}

int loam_get(loam_db *db, loam_ks *ks, loam_slice key, void *buf, size_t cap, size_t *len,
             const loam_read_opts *opts)
{
    int rc = get(db, ks, key, buf, cap, len, opts);
    return give_error(opts != NULL ? opts->err : NULL, rc);
}

/* A pin owns a copy: memory of the shell's allocator, so it outlives the database. */
enum { PIN_SHELL = 0, PIN_DATA = 1, PIN_SIZE = 2 };

static int pin_value(struct call *c, loam_pin *pin, loam_slice value)
{
    void *copy = alloc_get(&c->db->alloc, MEM_ITER, value.size);
    if (copy == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to pin a value of %zu bytes", value.size);
    }
    if (value.size != 0) {
        memcpy(copy, value.data, value.size);
    }
    db_ref(c->db);
    pin->value = loam_bytes(copy, value.size);
    pin->opaque_[PIN_SHELL] = (uint64_t)(uintptr_t)c->db;
    pin->opaque_[PIN_DATA] = (uint64_t)(uintptr_t)copy;
    pin->opaque_[PIN_SIZE] = value.size;
    return LOAM_OK;
}

void loam_unpin(loam_pin *pin)
{
    if (pin == NULL || pin->opaque_[PIN_SHELL] == 0) {
        return;
    }
    struct db *shell = (struct db *)(uintptr_t)pin->opaque_[PIN_SHELL];
    alloc_put(&shell->alloc, MEM_ITER, (void *)(uintptr_t)pin->opaque_[PIN_DATA],
              (size_t)pin->opaque_[PIN_SIZE]);
    db_unref(shell);
    *pin = (loam_pin)LOAM_PIN_INIT;
}

int loam_get_many(loam_db *db, loam_ks *ks, const loam_slice *keys, size_t n, loam_pin *pins,
                  int *rcs, const loam_read_opts *opts)
{
    int worst = check_read_opts(opts);
    if (worst == LOAM_OK && n != 0 && (keys == NULL || pins == NULL || rcs == NULL)) {
        worst = FAIL(LOAM_E_INVAL, "loam_get_many: keys, pins or rcs is NULL");
    }
    for (size_t i = 0; worst == LOAM_OK && i < n; i++) {
        if (pins[i].opaque_[PIN_SHELL] != 0) {
            worst = FAIL(LOAM_E_INVAL, "pin %zu is not empty", i);
        }
    }
    struct call c;
    if (worst == LOAM_OK) {
        worst = call_begin(&c, db);
    }
    if (worst < 0) {
        return give_error(opts != NULL ? opts->err : NULL, worst);
    }
    struct lookup l;
    worst = lookup_begin(&c, ks, opts, &l);
    if (worst == LOAM_OK) {
        for (size_t i = 0; i < n; i++) {
            struct entry e;
            rcs[i] = lookup(&c, &l, keys[i], opts, &e);
            if (rcs[i] == LOAM_OK) {
                rcs[i] = pin_value(&c, &pins[i], e.value);
            }
            if (rcs[i] < 0 && rcs[i] < worst) {
                worst = give_error(opts != NULL ? opts->err : NULL, rcs[i]);
            }
        }
        lookup_end(&l);
    } else {
        give_error(opts != NULL ? opts->err : NULL, worst);
    }
    call_end(&c);
    return worst;
}

int loam_get_pin(loam_db *db, loam_ks *ks, loam_slice key, loam_pin *pin,
                 const loam_read_opts *opts)
{
    if (pin == NULL) {
        return give_error(opts != NULL ? opts->err : NULL,
                          FAIL(LOAM_E_INVAL, "loam_get_pin: pin is NULL"));
    }
    int rc = LOAM_E_INTERNAL;
    int worst = loam_get_many(db, ks, &key, 1, pin, &rc, opts);
    return worst < 0 ? worst : rc;
}
