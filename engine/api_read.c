/* api_read.c - Public calls that read and hold snapshots, checked and handed on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/copy.h"
#include "arena/status.h"
#include "engine/api.h"
#include "engine/call.h"
#include "engine/handles.h"
#include "engine/loam.h"
#include "engine/object.h"
#include "engine/read.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

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
    struct snap *s = object_take(&c.db->alloc, OBJECT_SNAP);
    if (s == NULL) {
        call_end(&c);
        return FAIL(LOAM_E_NOMEM, "no memory for a snapshot");
    }
    s->shell = c.db;
    s->db_handle = c.db->handle;
    db_ref(c.db);
    snapshot_hold_latest(&c.db->snapshots, &c.db->commit, &s->held);
    s->handle = slotmap_insert(&registry_get()->snaps, s);
    if (s->handle == 0) {
        snapshot_drop(&s->held);
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
    object_give(&shell->alloc, OBJECT_SNAP, s);
    db_unref(shell);
}

void loam_snap_release(loam_snap *handle)
{
    struct registry *r = registry_get();
    if (handle == NULL || r == NULL) {
        return;
    }
    bool closed = false;
    epoch_enter();
    struct snap *s = slotmap_get(&r->snaps, HANDLE_OF(handle));
    if (s != NULL && slotmap_erase(&r->snaps, HANDLE_OF(handle)) == LOAM_OK) {
        db_let_go(s->shell, &s->held);
        closed = slotmap_get(&r->dbs, s->db_handle) == NULL;
    }
    epoch_exit();
    registry_released(closed);
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

static int check_read_opts(const loam_read_opts *o)
{
    if (o == NULL) {
        return LOAM_OK;
    }
    int rc = options_check_size(o, o->struct_size, sizeof *o, "read_opts");
    if (rc < 0) {
        return rc;
    }
    const uint32_t known = LOAM_R_NOFILL | LOAM_R_VERIFY;
    if ((o->flags & ~known) != 0) {
        return FAIL(LOAM_E_INVAL, "read_opts.flags has unknown bits 0x%x", o->flags & ~known);
    }
    if (o->reserved_ != 0) {
        return FAIL(LOAM_E_INVAL, "read_opts.reserved_ is not zero");
    }
    return LOAM_OK;
}

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
    if (opts != NULL && opts->snap != NULL) {
        const struct held_seq *held;
        rc = call_snapshot(c, opts->snap, &held);
        if (rc < 0) {
            return rc;
        }
        l->seq = held->seq;
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

static int lookup(struct call *c, struct lookup *l, loam_slice key, struct entry *e)
{
    int rc = api_check_slice(key, "key");
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
    }
    return rc;
}

/* Not before the call is sure to give the value. */
static void give_seq(const loam_read_opts *opts, const struct entry *e)
{
    if (opts != NULL && opts->seq != NULL) {
        *opts->seq = tag_seq(e->tag);
    }
}

static void lookup_end(struct lookup *l)
{
    if (l->scratch->cache_hits != l->hits) {
        stats_bump(l->stats, STAT_CACHE_HITS, l->scratch->cache_hits - l->hits);
    }
    if (l->scratch->cache_misses != l->misses) {
        stats_bump(l->stats, STAT_CACHE_MISSES, l->scratch->cache_misses - l->misses);
    }
    sst_get_scratch_rest(l->scratch);
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
    rc = lookup(&c, &l, key, &e);
    if (rc == LOAM_OK) {
        give_seq(opts, &e);
        size_t n = e.value.size < cap ? e.value.size : cap;
        copy_bytes(buf, e.value.data, n);
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
    return api_give_error(api_err(opts), rc);
}

/* A pin owns a copy: memory of the shell's allocator, so it outlives the database. All pins count as held,
 * large values or not: there may be any number of them. */
enum { PIN_SHELL = 0, PIN_DATA = 1, PIN_SIZE = 2 };

static int pin_value(struct call *c, loam_pin *pin, loam_slice value)
{
    if (!large_hold(&c->db->large, value.size)) {
        return large_refused(value.size);
    }
    void *copy = alloc_get(&c->db->alloc, MEM_ITER, value.size);
    if (copy == NULL) {
        large_let_go(&c->db->large, value.size);
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
    large_let_go(&shell->large, pin->opaque_[PIN_SIZE]);
    db_unref(shell);
    *pin = (loam_pin)LOAM_PIN_INIT;
}

/* The worst error, which is also the thread's, or LOAM_OK. */
static int get_each(struct call *c, struct lookup *l, const loam_slice *keys, size_t n,
                    loam_pin *pins, int *rcs, const loam_read_opts *opts)
{
    loam_error worst; /* all of it only when there is one: a quarter of a kilobyte */
    worst.code = LOAM_OK;
    for (size_t i = 0; i < n; i++) {
        struct entry e;
        rcs[i] = lookup(c, l, keys[i], &e);
        if (rcs[i] == LOAM_OK) {
            rcs[i] = pin_value(c, &pins[i], e.value);
            sst_get_scratch_rest(l->scratch);
        }
        if (rcs[i] == LOAM_OK) {
            give_seq(opts, &e);
        } else if (rcs[i] < worst.code) {
            worst = *loam_last_error();
        }
    }
    return worst.code < 0 ? status_raise(&worst) : LOAM_OK;
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
        return api_give_error(api_err(opts), worst);
    }
    struct lookup l;
    worst = lookup_begin(&c, ks, opts, &l);
    if (worst == LOAM_OK) {
        worst = get_each(&c, &l, keys, n, pins, rcs, opts);
        lookup_end(&l);
    }
    call_end(&c);
    return api_give_error(api_err(opts), worst);
}

int loam_get_pin(loam_db *db, loam_ks *ks, loam_slice key, loam_pin *pin,
                 const loam_read_opts *opts)
{
    if (pin == NULL) {
        return api_give_error(api_err(opts),
                          FAIL(LOAM_E_INVAL, "loam_get_pin: pin is NULL"));
    }
    int rc = LOAM_E_INTERNAL;
    int worst = loam_get_many(db, ks, &key, 1, pin, &rc, opts);
    return worst < 0 ? worst : rc;
}
