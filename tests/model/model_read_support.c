/* model_read_support.c - Random gets, iterator moves and scans, each compared with the oracle.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/model/model_state.h"

/* ---- point reads -------------------------------------------------------------------------------
 */

void run_get(struct run *r)
{
    r->what = "get";
    uint32_t ks = run_pick_ks(r), key = run_pick_key(r), row = run_row_of(r, ks, key);
    uint64_t commit, seq = 0;
    loam_read_opts o = {.struct_size = sizeof o, .seq = &seq};
    o.flags = (uint32_t)run_below(r, 4);
    o.snap = run_pick_snap(r, &commit);
    size_t len = 12345, cap = VALUE_CAP;
    if (run_one_in(r, 10)) {
        cap = run_below(r, 200);
    }
    int rc = loam_get(r->db, r->ks[ks], r->m.keys[key], r->buffer, cap, &len, &o);
    r->counts->reads++;
    if (!run_fine(r, rc)) {
        return;
    }
    if (rc == LOAM_NOTFOUND) {
        if (len != 12345) {
            MISMATCH(r, "NOTFOUND touched len");
        }
        run_check_absent(r, ks, row, commit);
        return;
    }
    if ((rc == LOAM_TRUNCATED) != (len > cap)) {
        MISMATCH(r, "rc %d for %zu bytes into %zu", rc, len, cap);
    }
    run_check_entry(r, ks, row, commit, loam_bytes(r->buffer, len), rc == LOAM_OK, seq);
}

void run_get_pin(struct run *r)
{
    r->what = "get_pin";
    uint32_t ks = run_pick_ks(r), key = run_pick_key(r);
    uint64_t commit, seq = 0;
    loam_read_opts o = {.struct_size = sizeof o, .seq = &seq};
    o.snap = run_pick_snap(r, &commit);
    loam_pin pin = LOAM_PIN_INIT;
    int rc = loam_get_pin(r->db, r->ks[ks], r->m.keys[key], &pin, &o);
    r->counts->reads++;
    if (!run_fine(r, rc)) {
        return;
    }
    if (rc == LOAM_OK) {
        run_check_entry(r, ks, run_row_of(r, ks, key), commit, pin.value, true, seq);
    } else {
        run_check_absent(r, ks, run_row_of(r, ks, key), commit);
    }
    loam_unpin(&pin);
}

void run_get_many(struct run *r)
{
    r->what = "get_many";
    enum { MANY = 24 };
    uint32_t ks = run_pick_ks(r), list[MANY], n = (uint32_t)run_below(r, MANY + 1);
    loam_slice keys[MANY] = {{NULL, 0}};
    loam_pin pins[MANY];
    int rcs[MANY];
    uint64_t commit;
    loam_read_opts o = {.struct_size = sizeof o};
    o.snap = run_pick_snap(r, &commit);
    for (uint32_t i = 0; i < n; i++) {
        list[i] = run_pick_key(r);
        keys[i] = r->m.keys[list[i]];
        pins[i] = (loam_pin)LOAM_PIN_INIT;
    }
    int rc = loam_get_many(r->db, r->ks[ks], keys, n, pins, rcs, &o);
    r->counts->reads += n;
    for (uint32_t i = 0; i < n && run_fine(r, rc); i++) {
        uint32_t row = run_row_of(r, ks, list[i]);
        if (rcs[i] == LOAM_NOTFOUND) {
            run_check_absent(r, ks, row, commit);
        } else {
            const struct model_version *v = model_get(&r->m, ks, row, commit);
            run_check_entry(r, ks, row, commit, pins[i].value, true, v != NULL ? v->seq : 0);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        loam_unpin(&pins[i]);
    }
}

/* ---- iterators ---------------------------------------------------------------------------------
 */

/* Draws bounds and the rows they leave. */
static void draw_bounds(struct run *r, struct walker *w, loam_iter_opts *o)
{
    const struct model *m = &r->m;
    enum model_order order = m->ks[w->ks].order;
    w->lo = 0;
    w->hi = m->row_count[order];
    uint64_t d = run_below(r, 10);
    if (d < 3 && order == MODEL_BYTES) {
        loam_slice whole = m->keys[run_pick_key(r)];
        o->prefix = loam_bytes(whole.data, run_below(r, (whole.size < 8 ? whole.size : 8) + 1));
        if (o->prefix.size == 0) {
            return;
        }
        uint32_t row = 0;
        for (; row < w->hi; row++) {
            loam_slice k = m->keys[m->key_at[order][row]];
            if (k.size >= o->prefix.size && memcmp(k.data, o->prefix.data, o->prefix.size) == 0) {
                break;
            }
        }
        w->lo = row;
        for (; row < w->hi; row++) {
            loam_slice k = m->keys[m->key_at[order][row]];
            if (k.size < o->prefix.size || memcmp(k.data, o->prefix.data, o->prefix.size) != 0) {
                break;
            }
        }
        w->hi = row;
    } else if (d < 7) {
        if (run_one_in(r, 2)) {
            uint32_t key = run_pick_key(r);
            o->lower = m->keys[key];
            w->lo = o->lower.size != 0 ? m->row_of[order][key] : 0;
        }
        if (run_one_in(r, 2)) {
            uint32_t key = run_pick_key(r);
            o->upper = m->keys[key];
            w->hi = o->upper.size != 0 ? m->row_of[order][key] : w->hi;
        }
    }
}

static void open_walker(struct run *r, struct walker *w)
{
    r->what = "iter_open";
    *w = (struct walker){.ks = run_pick_ks(r), .at = MODEL_NONE};
    loam_iter_opts o = {.struct_size = sizeof o};
    draw_bounds(r, w, &o);
    w->keys_only = run_one_in(r, 5);
    o.flags = w->keys_only ? LOAM_ITER_KEYS : 0;
    o.readahead = run_one_in(r, 4) ? 16384 : 0;
    o.snap = run_pick_snap(r, &w->commit);
    run_note(r, r->what, w->ks, MODEL_NONE);
    run_fine(r, loam_iter_open(r->db, r->ks[w->ks], &o, &w->it));
}

void run_close_walker(struct walker *w)
{
    loam_iter_close(w->it);
    w->it = NULL;
}

static void place_walker(struct run *r, struct walker *w)
{
    const struct model *m = &r->m;
    uint32_t key = run_pick_key(r), row = run_row_of(r, w->ks, key);
    switch (run_below(r, 4)) {
    case 0:
        r->what = "iter_first";
        run_check_position(r, w, loam_iter_first(w->it),
                           model_find(m, w->ks, w->lo, 1, w->lo, w->hi, w->commit));
        break;
    case 1:
        r->what = "iter_last";
        run_check_position(r, w, loam_iter_last(w->it),
                           model_find(m, w->ks, (int64_t)w->hi - 1, -1, w->lo, w->hi, w->commit));
        break;
    case 2:
        r->what = "iter_seek";
        run_check_position(r, w, loam_iter_seek(w->it, m->keys[key]),
                           model_find(m, w->ks, row, 1, w->lo, w->hi, w->commit));
        break;
    default:
        r->what = "iter_seek_le";
        run_check_position(r, w, loam_iter_seek_le(w->it, m->keys[key]),
                           model_find(m, w->ks, row, -1, w->lo, w->hi, w->commit));
        break;
    }
}

static void step_walker(struct run *r, struct walker *w)
{
    bool forward = run_one_in(r, 2);
    r->what = forward ? "iter_next" : "iter_prev";
    uint64_t steps = run_one_in(r, 20) ? run_below(r, 200) : 1 + run_below(r, 6);
    for (uint64_t i = 0; i < steps && !r->dead; i++) {
        if (run_one_in(r, 6)) {
            forward = !forward;
        }
        bool none = w->at == MODEL_NONE;
        int64_t from = forward ? w->at + 1 : w->at - 1;
        uint32_t expected =
            none ? MODEL_NONE
                 : model_find(&r->m, w->ks, from, forward ? 1 : -1, w->lo, w->hi, w->commit);
        int rc = forward ? loam_iter_next(w->it) : loam_iter_prev(w->it);
        if (!run_check_position(r, w, rc, expected) || expected == MODEL_NONE) {
            break;
        }
        r->counts->moves++;
    }
}

void run_iter(struct run *r)
{
    struct walker *w = &r->walkers[run_below(r, ITERS)];
    if (w->it == NULL) {
        open_walker(r, w);
        return;
    }
    uint64_t d = run_below(r, 100);
    if (d < 4) {
        run_close_walker(w);
    } else if (d < 10) {
        r->what = "iter_refresh";
        const loam_snap *snap = run_pick_snap(r, &w->commit);
        run_fine(r, loam_iter_refresh(w->it, snap));
        w->at = MODEL_NONE;
    } else if (d < 45 || w->at == MODEL_NONE) {
        place_walker(r, w);
    } else {
        step_walker(r, w);
    }
}

struct scan_check {
    struct run *r;
    struct walker *w;
    uint64_t left; /* entries until the callback stops; UINT64_MAX: it does not */
    uint64_t seen;
};

static int on_scanned(void *ctx, loam_slice key, loam_slice value)
{
    struct scan_check *s = ctx;
    struct run *r = s->r;
    struct walker *w = s->w;
    uint32_t row = model_find(&r->m, w->ks, w->at + 1, 1, w->lo, w->hi, w->commit);
    if (row == MODEL_NONE) {
        MISMATCH(r, "scan shows an entry behind the last");
    }
    const struct model_version *v = model_get(&r->m, w->ks, row, w->commit);
    if (!run_key_of_row(r, w->ks, row, key)) {
        run_print_row(r, w->ks, row);
        MISMATCH(r, "scan of ks %u shows another key than row %u", w->ks, row);
    }
    run_check_entry(r, w->ks, row, w->commit, value, !w->keys_only, v->seq);
    w->at = row;
    s->seen++;
    return s->left != UINT64_MAX && --s->left == 0;
}

void run_scan(struct run *r)
{
    r->what = "scan";
    struct walker w = {.ks = run_pick_ks(r), .at = -1};
    loam_iter_opts o = {.struct_size = sizeof o};
    draw_bounds(r, &w, &o);
    w.at = (int64_t)w.lo - 1;
    w.keys_only = run_one_in(r, 4);
    o.flags = w.keys_only ? LOAM_ITER_KEYS : 0;
    o.snap = run_pick_snap(r, &w.commit);
    struct scan_check s = {r, &w, run_one_in(r, 3) ? 1 + run_below(r, 50) : UINT64_MAX, 0};
    uint64_t limit = run_one_in(r, 2) ? run_below(r, 60) : 0;
    int rc = loam_scan(r->db, r->ks[w.ks], &o, limit, on_scanned, &s);
    if (!run_fine(r, rc)) {
        return;
    }
    bool stopped = s.left == 0 || (limit != 0 && s.seen == limit);
    if ((rc == LOAM_STOPPED) != stopped) {
        MISMATCH(r, "scan of %" PRIu64 " entries with limit %" PRIu64 " returned %d", s.seen, limit,
                 rc);
    }
    if (!stopped && model_find(&r->m, w.ks, w.at + 1, 1, w.lo, w.hi, w.commit) != MODEL_NONE) {
        MISMATCH(r, "scan ended before the last entry");
    }
}
