/* api_iter.c - Public calls on iterators, checked and handed on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/status.h"
#include "engine/api.h"
#include "engine/call.h"
#include "engine/db_iter.h"
#include "engine/iter_lend.h"
#include "engine/loam.h"

#include "arena/poison.h"

/* Why a call on an iterator is not made; the section it was begun in ends here. */
__attribute__((cold, noinline)) static int refuse_handle(bool inside)
{
    if (!inside) {
        return FAIL(LOAM_E_INVAL, "the iterator handle is NULL");
    }
    epoch_exit();
    return FAIL(LOAM_E_CLOSED, "the iterator handle is closed");
}

__attribute__((cold, noinline)) static int refuse_db(struct db *db)
{
    int rc = call_refused_(db->handle, atom_load(&db->stopping, relaxed) ? NULL : db);
    epoch_exit();
    return rc;
}

__attribute__((cold, noinline)) static int refuse_thread(void)
{
    epoch_exit();
    return FAIL(LOAM_E_MISUSE, "two threads use one iterator");
}

static inline void iter_leave(struct db_iter *it)
{
    atom_store(&it->busy, 0, release); /* pairs with the swap in iter_begin() */
    epoch_exit();
}

static inline void iter_end(struct db_iter *it)
{
    struct iter_pool *p = &it->shell->iters;
    if (__builtin_expect(iter_pool_short(p), 0)) {
        iter_pool_trim(p, it);
    }
    iter_leave(it);
}

/* Inside the database's section, and no other thread inside a call on the iterator, until iter_end();
 * NULL: *rc says why not. Inline, for a move along a block costs little more than this. */
static inline struct db_iter *iter_begin(const loam_iter *handle, int *rc)
{
    struct registry *r = registry_get();
    if (__builtin_expect(handle == NULL || r == NULL, 0)) {
        *rc = refuse_handle(false);
        return NULL;
    }
    epoch_enter();
    struct db_iter *it = slotmap_get(&r->iters, HANDLE_OF(handle));
    if (__builtin_expect(it == NULL, 0)) {
        *rc = refuse_handle(true);
        return NULL;
    }
    /* The shell outlives the iterator. acquire: pairs with background_wind_down(): loam_close() waits
     * for sections that do not see its store. */
    struct db *db = it->shell;
    if (__builtin_expect(
            atom_load(&db->stopping, acquire) || db->fork_count != thread_slot_fork_count(), 0)) {
        *rc = refuse_db(db);
        return NULL;
    }
    /* acquire and release at the end: whoever comes next sees what this call did. An exchange, though most
     * iterators stay with a thread, which could own them by plain stores that a stranger's membarrier orders:
     * tried and explored, that gained nothing, nor did no exclusion at all. */
    if (__builtin_expect(atom_swap(&it->busy, 1, acquire) != 0, 0)) {
        *rc = refuse_thread();
        return NULL;
    }
    /* acquire: pairs with db_iter_open(); closed and reused meanwhile, it has another handle. */
    if (__builtin_expect(atom_load(&it->handle, acquire) != HANDLE_OF(handle), 0)) {
        atom_store(&it->busy, 0, release);
        *rc = refuse_handle(true);
        return NULL;
    }
    return it;
}

/* ---- open and close ---------------------------------------------------------------------------- */

static int check_opts(const loam_iter_opts *o)
{
    if (o == NULL) {
        return LOAM_OK;
    }
    int rc = options_check_size(o, o->struct_size, sizeof *o, "iter_opts");
    if (rc < 0) {
        return rc;
    }
    if ((o->flags & ~LOAM_ITER_KEYS) != 0) {
        return FAIL(LOAM_E_INVAL, "iter_opts.flags has unknown bits 0x%x",
                    o->flags & ~LOAM_ITER_KEYS);
    }
    if (o->prefix.size != 0 && (o->lower.size != 0 || o->upper.size != 0)) {
        return FAIL(LOAM_E_INVAL, "iter_opts: prefix goes with neither lower nor upper");
    }
    const loam_slice *slices[] = {&o->lower, &o->upper, &o->prefix};
    for (int i = 0; i < 3; i++) {
        if (slices[i]->size > LOAM_MAX_KEY) {
            return FAIL(LOAM_E_TOOBIG, "iter_opts: a bound of %zu bytes, at most %u",
                        slices[i]->size, LOAM_MAX_KEY);
        }
        if (slices[i]->size != 0 && slices[i]->data == NULL) {
            return FAIL(LOAM_E_INVAL, "iter_opts: a bound's data is NULL");
        }
    }
    return LOAM_OK;
}

/* The first key after all that begin with prefix: prefix with its last byte below 0xff raised and
 * the rest cut off. False: there is none. to has prefix.size bytes. */
static bool prefix_end(loam_slice prefix, uint8_t *to, size_t *size)
{
    memcpy(to, prefix.data, prefix.size);
    for (size_t n = prefix.size; n > 0; n--) {
        if (to[n - 1] != 0xff) {
            to[n - 1]++;
            *size = n;
            return true;
        }
    }
    return false;
}

/* Fills bounds; `end` gets memory for the end of a prefix. */
static int resolve(struct call *c, const struct keyspace *space, const loam_iter_opts *opts,
                   struct db_iter_options *o, struct buf *end)
{
    memset(o, 0, sizeof *o);
    if (opts == NULL) {
        return LOAM_OK;
    }
    o->keys_only = (opts->flags & LOAM_ITER_KEYS) != 0;
    o->readahead = opts->readahead;
    o->lower = opts->lower;
    o->upper = opts->upper;
    o->has_lower = opts->lower.size != 0;
    o->has_upper = opts->upper.size != 0;
    if (opts->prefix.size != 0) {
        if (space->comparator[0] != '\0') {
            return FAIL(LOAM_E_INVAL, "iter_opts.prefix needs byte order");
        }
        uint8_t *to = buf_room(end, opts->prefix.size);
        if (to == NULL) {
            return buf_status(end);
        }
        o->lower = opts->prefix;
        o->has_lower = true;
        o->has_upper = prefix_end(opts->prefix, to, &end->size);
        o->upper = buf_slice(end);
    }
    if (opts->snap != NULL) {
        return call_snapshot(c, opts->snap, &o->snap);
    }
    return LOAM_OK;
}

static int open_in_call(struct call *c, const loam_ks *ks, const loam_iter_opts *opts,
                        struct db_iter **it)
{
    struct keyspace *space;
    int rc = call_keyspace(c, ks, &space);
    if (rc < 0) {
        return rc;
    }
    struct buf end;
    buf_init(&end, &c->db->alloc, MEM_ITER);
    struct db_iter_options o;
    rc = resolve(c, space, opts, &o, &end);
    if (rc == LOAM_OK) {
        rc = db_iter_open(c->db, space, &o, it);
    }
    buf_free(&end);
    return rc;
}

static int open_iter(loam_db *db, const loam_ks *ks, const loam_iter_opts *opts, loam_iter **out)
{
    if (out == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_iter_open: it is NULL");
    }
    *out = NULL;
    int rc = check_opts(opts);
    struct call c;
    if (rc < 0 || (rc = call_begin(&c, db)) < 0) {
        return rc;
    }
    struct db_iter *it;
    rc = open_in_call(&c, ks, opts, &it);
    if (rc == LOAM_OK) {
        *out = HANDLE_AS(loam_iter, atom_load(&it->handle, relaxed)); /* relaxed: set just now */
    }
    call_end(&c);
    return rc;
}

int loam_iter_open(loam_db *db, loam_ks *ks, const loam_iter_opts *opts, loam_iter **out)
{
    int rc = open_iter(db, ks, opts, out);
    return api_give_error(api_err(opts), rc);
}

/* A misusing thread may still be inside; its call ends first. False: it was one of the parent process, whose
 * call never ends here. */
static bool take_over(struct db_iter *it)
{
    while (atom_swap(&it->busy, 1, acquire) != 0) { /* pairs with iter_leave() */
        if (it->shell->fork_count != thread_slot_fork_count()) {
            return false;
        }
        thread_yield();
    }
    return true;
}

/* Ends the handle. *next: what the iterator is opened under next; 0: that takes another slot. False: it was
 * closed before. */
static bool end_handle(struct slotmap *iters, uint64_t handle, uint64_t *next)
{
    *next = slotmap_renew(iters, handle);
    return *next != 0 || slotmap_erase(iters, handle) == LOAM_OK;
}

/* Puts the iterator, whose handle has ended, back. False: its database is closed. */
static bool put_back(struct db_iter *it, uint64_t next)
{
    it->next_handle = next;
    atom_store(&it->handle, 0, relaxed); /* relaxed: ordered by the release below */
    atom_store(&it->busy, 0, release);
    struct call c;
    bool open = call_begin_raw(&c, it->db_handle) == LOAM_OK;
    db_iter_close(open ? c.db : NULL, it);
    if (open) {
        call_end(&c);
    }
    return open;
}

void loam_iter_close(loam_iter *handle)
{
    struct registry *r = registry_get();
    if (handle == NULL || r == NULL) {
        return;
    }
    bool closed = false;
    uint64_t next;
    epoch_enter();
    struct db_iter *it = slotmap_get(&r->iters, HANDLE_OF(handle));
    if (it != NULL && end_handle(&r->iters, HANDLE_OF(handle), &next)) {
        if (take_over(it)) {
            closed = !put_back(it, next);
        } else if (next != 0) { /* what a thread was changing when its process forked stays as it is */
            (void)slotmap_abort(&r->iters, next);
        }
    }
    epoch_exit();
    registry_released(closed);
}

/* ---- moves ------------------------------------------------------------------------------------- */

/* A move that is refused leaves the iterator on no entry, too. Another thread's call on it is left alone. */
__attribute__((cold, noinline)) static int stand_nowhere(const loam_iter *handle, int rc)
{
    struct registry *r = registry_get();
    if (r == NULL) {
        return rc;
    }
    epoch_enter();
    struct db_iter *it = slotmap_get(&r->iters, HANDLE_OF(handle));
    if (it != NULL && atom_swap(&it->busy, 1, acquire) == 0) { /* pairs with iter_leave() */
        if (atom_load(&it->handle, acquire) == HANDLE_OF(handle)) { /* acquire: as in iter_begin() */
            iter_lend_end(it);
        }
        iter_leave(it);
    } else {
        epoch_exit();
    }
    return rc;
}

/* A move that needs nothing but the iterator. */
static inline int move(loam_iter *handle, int (*by)(struct db *db, struct db_iter *it))
{
    int rc;
    struct db_iter *it = iter_begin(handle, &rc);
    if (__builtin_expect(it == NULL, 0)) {
        return stand_nowhere(handle, rc);
    }
    rc = by(it->shell, it);
    iter_end(it);
    return rc;
}

int loam_iter_first(loam_iter *handle)
{
    return move(handle, db_iter_first);
}

int loam_iter_last(loam_iter *handle)
{
    return move(handle, db_iter_last);
}

int loam_iter_next(loam_iter *handle)
{
    return move(handle, db_iter_next);
}

int loam_iter_prev(loam_iter *handle)
{
    return move(handle, db_iter_prev);
}

static int check_key(loam_slice key)
{
    if (key.data == NULL && key.size != 0) {
        return FAIL(LOAM_E_INVAL, "key.data is NULL");
    }
    return key.size > LOAM_MAX_KEY
               ? FAIL(LOAM_E_TOOBIG, "key of %zu bytes, at most %u", key.size, LOAM_MAX_KEY)
               : LOAM_OK;
}

static inline int move_to(loam_iter *handle, loam_slice key,
                          int (*to)(struct db *db, struct db_iter *it, loam_slice key))
{
    int rc = check_key(key);
    struct db_iter *it = rc == LOAM_OK ? iter_begin(handle, &rc) : NULL;
    if (__builtin_expect(it == NULL, 0)) {
        return stand_nowhere(handle, rc);
    }
    rc = to(it->shell, it, key);
    iter_end(it);
    return rc;
}

int loam_iter_seek(loam_iter *handle, loam_slice key)
{
    return move_to(handle, key, db_iter_seek);
}

int loam_iter_seek_le(loam_iter *handle, loam_slice key)
{
    return move_to(handle, key, db_iter_seek_le);
}

int loam_iter_refresh(loam_iter *handle, const loam_snap *snap)
{
    int rc = LOAM_OK;
    struct db_iter *it = iter_begin(handle, &rc);
    if (it == NULL) {
        return rc;
    }
    struct call c = {.db = it->shell, .pinned = false};
    const struct held_seq *held = NULL;
    if (snap != NULL) {
        rc = call_snapshot(&c, snap, &held);
    }
    if (rc == LOAM_OK) {
        rc = db_iter_refresh(c.db, it, held);
    }
    iter_end(it);
    return rc;
}

/* ---- the present entry: beside the handle, so neither a section nor the database is needed ------ */

/* NULL: closed, or on no entry. */
static inline const struct iter_face *standing(const loam_iter *handle)
{
    struct registry *r = registry_get();
    const struct iter_face *f = r != NULL ? slotmap_room_live(&r->iters, HANDLE_OF(handle)) : NULL;
    return f != NULL && f->on_entry ? f : NULL;
}

loam_slice loam_iter_key(const loam_iter *handle)
{
    const struct iter_face *f = standing(handle);
    return f != NULL ? f->key : loam_bytes(NULL, 0);
}

loam_slice loam_iter_value(const loam_iter *handle)
{
    const struct iter_face *f = standing(handle);
    return f != NULL ? f->value : loam_bytes(NULL, 0);
}

uint64_t loam_iter_seq(const loam_iter *handle)
{
    const struct iter_face *f = standing(handle);
    return f != NULL ? tag_seq(f->tag) : 0;
}

/* ---- scan -------------------------------------------------------------------------------------- */

/* fn runs outside of the section: it may take long. */
int loam_scan(loam_db *db, loam_ks *ks, const loam_iter_opts *opts, uint64_t limit,
              loam_scan_fn fn, void *ctx)
{
    if (fn == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_scan: fn is NULL");
    }
    loam_iter *it;
    int rc = loam_iter_open(db, ks, opts, &it);
    if (rc < 0) {
        return rc;
    }
    uint64_t n = 0;
    for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
        if (fn(ctx, loam_iter_key(it), loam_iter_value(it)) != 0 || ++n == limit) {
            rc = LOAM_STOPPED;
            break;
        }
    }
    loam_iter_close(it);
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}
