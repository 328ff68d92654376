/* model_check_support.c - Reports differences, draws arguments, compares reads with the oracle.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/model/model_state.h"

/* ---- reporting ---------------------------------------------------------------------------------
 */

void run_note(struct run *r, const char *what, uint32_t ks, uint32_t key)
{
    r->trace[r->traced++ % TRACE] = (struct trace){r->op, what, ks, key, r->m.now};
}

void run_print_trace(const struct run *r)
{
    uint64_t from = r->traced > TRACE ? r->traced - TRACE : 0;
    for (uint64_t i = from; i < r->traced; i++) {
        const struct trace *t = &r->trace[i % TRACE];
        fprintf(stderr, "  op %" PRIu64 " %s ks %d key %d, commits %" PRIu64 "\n", t->op, t->what,
                (int)t->ks, (int)t->key, t->commit);
    }
}

void run_print_row(const struct run *r, uint32_t ks, uint32_t row)
{
    const struct model_chain *c = &r->m.ks[ks].rows[row];
    uint32_t from = c->count > 12 ? c->count - 12 : 0;
    fprintf(stderr, "  versions of ks %u (%s, order %d) row %u:\n", ks, r->m.ks[ks].name,
            (int)r->m.ks[ks].order, row);
    for (uint32_t i = from; i < c->count; i++) {
        const struct model_version *v = &c->v[i];
        fprintf(stderr, "    commit %" PRIu64 " seq %" PRIu64 " %s key %u size %u\n", v->commit,
                v->seq, v->present ? "put" : "delete", v->key, v->size);
    }
}

/* The shape of each keyspace: files by level. */
void run_print_levels(const struct run *r)
{
    for (uint32_t ks = 0; r->db != NULL && ks < MODEL_KS_MAX; ks++) {
        if (!r->m.ks[ks].live) {
            continue;
        }
        fprintf(stderr, "  ks %u order %d files by level:", ks, (int)r->m.ks[ks].order);
        for (int level = 0; level < 7; level++) {
            char name[32];
            uint64_t files = 0;
            snprintf(name, sizeof name, "level.%d.files", level);
            int rc = loam_property(r->db, r->ks[ks], name, &files);
            fprintf(stderr, rc == LOAM_OK ? " %" PRIu64 : " ?", files);
        }
        fputc('\n', stderr);
    }
}

/* True when rc is no error. An error is right only when the disk was told to fail. */
bool run_fine(struct run *r, int rc)
{
    if (rc >= 0) {
        return true;
    }
    if (!r->armed) {
        MISMATCH(r, "returned %d (%s)", rc, loam_strerror(rc));
    }
    if (rc != LOAM_E_IO && rc != LOAM_E_READONLY) {
        MISMATCH(r, "returned %d (%s) on a failing disk", rc, loam_strerror(rc));
    }
    r->dead = true;
    return false;
}

uint64_t run_below(struct run *r, uint64_t n)
{
    return random_below(&r->rng, n);
}

bool run_one_in(struct run *r, uint64_t n)
{
    return random_below(&r->rng, n) == 0;
}

/* ---- drawing things ----------------------------------------------------------------------------
 */

uint32_t run_pick_key(struct run *r)
{
    if (run_one_in(r, 2)) {
        return (uint32_t)run_below(r, r->m.key_count);
    }
    return (uint32_t)(r->m.key_count - 1 - run_below(r, r->hot));
}

/* Keyspace 0 is "default" and always live. */
uint32_t run_pick_ks(struct run *r)
{
    uint32_t ks = (uint32_t)run_below(r, MODEL_KS_MAX);
    return r->m.ks[ks].live ? ks : 0;
}

uint32_t run_pick_size(struct run *r)
{
    uint64_t d = run_below(r, 1000);
    uint64_t n = d < 60    ? 0
                 : d < 700 ? 1 + run_below(r, 100)
                 : d < 930 ? run_below(r, 1200)
                 : d < 990 ? run_below(r, 9000)
                 : d < 997 ? run_below(r, 40000)
                           : run_below(r, 200 * 1024);
    return (uint32_t)(n < r->value_max ? n : r->value_max);
}

uint32_t run_row_of(const struct run *r, uint32_t ks, uint32_t key)
{
    return r->m.row_of[r->m.ks[ks].order][key];
}

/* A moment to read at: now, or a snapshot's. */
const loam_snap *run_pick_snap(struct run *r, uint64_t *commit)
{
    const struct holder *h = &r->holders[run_below(r, SNAPS)];
    if (h->snap == NULL || run_one_in(r, 2)) {
        *commit = r->m.now;
        return NULL;
    }
    *commit = h->commit;
    return h->snap;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

void run_check_entry(struct run *r, uint32_t ks, uint32_t row, uint64_t commit, loam_slice value,
                     bool with_value, uint64_t seq)
{
    const struct model_version *v = model_get(&r->m, ks, row, commit);
    if (v == NULL) {
        run_print_row(r, ks, row);
        MISMATCH(r, "found ks %u row %u as of commit %" PRIu64 ", which is deleted", ks, row,
                 commit);
    }
    if (with_value && !model_value_is(v->value_id, v->size, value)) {
        run_print_row(r, ks, row);
        MISMATCH(r, "wrong value of ks %u row %u as of commit %" PRIu64 ": %zu bytes, expected %u",
                 ks, row, commit, value.size, v->size);
    }
    if (v->seq != 0 && seq != v->seq) {
        run_print_row(r, ks, row);
        MISMATCH(r, "ks %u row %u as of commit %" PRIu64 " has seq %" PRIu64 ", expected %" PRIu64,
                 ks, row, commit, seq, v->seq);
    }
}

void run_check_absent(struct run *r, uint32_t ks, uint32_t row, uint64_t commit)
{
    if (model_get(&r->m, ks, row, commit) != NULL) {
        run_print_row(r, ks, row);
        MISMATCH(r, "ks %u row %u as of commit %" PRIu64 " is not found", ks, row, commit);
    }
}

/* Whether the engine may show `key` for a row: keys that an order takes for equal are one key, and
 * which of them is shown is not promised. */
bool run_key_of_row(const struct run *r, uint32_t ks, uint32_t row, loam_slice key)
{
    enum model_order order = r->m.ks[ks].order;
    const loam_comparator *c = model_comparator(order);
    loam_slice own = r->m.keys[r->m.key_at[order][row]];
    return key.size == own.size &&
           (c != NULL ? c->compare(c->ctx, key, own) == 0
                      : key.size == 0 || memcmp(key.data, own.data, key.size) == 0);
}

/* Compares where a walk stands: rc of the move, and the row the oracle says. */
bool run_check_position(struct run *r, struct walker *w, int rc, uint32_t expected)
{
    if (!run_fine(r, rc)) {
        return false;
    }
    w->at = expected;
    if (rc == LOAM_NOTFOUND) {
        if (expected != MODEL_NONE) {
            run_print_row(r, w->ks, expected);
            MISMATCH(r, "iterator on ks %u as of commit %" PRIu64 " ran off, expected row %u",
                     w->ks, w->commit, expected);
        }
        if (loam_iter_key(w->it).size != 0 || loam_iter_seq(w->it) != 0) {
            MISMATCH(r, "an iterator on no entry shows a key");
        }
        return true;
    }
    loam_slice key = loam_iter_key(w->it);
    const struct model_version *v =
        expected != MODEL_NONE ? model_get(&r->m, w->ks, expected, w->commit) : NULL;
    if (v == NULL || !run_key_of_row(r, w->ks, expected, key)) {
        if (v != NULL) {
            run_print_row(r, w->ks, expected);
        }
        MISMATCH(r,
                 "iterator on ks %u as of commit %" PRIu64 " shows a key of %zu bytes '%.*s', "
                 "expected row %d '%.*s'",
                 w->ks, w->commit, key.size, (int)(key.size < 40 ? key.size : 40),
                 (const char *)key.data, (int)expected,
                 v != NULL ? (int)(r->m.keys[v->key].size < 40 ? r->m.keys[v->key].size : 40) : 0,
                 v != NULL ? (const char *)r->m.keys[v->key].data : "");
    }
    loam_slice value = loam_iter_value(w->it);
    if (w->keys_only && value.size != 0) {
        MISMATCH(r, "an iterator over keys shows a value");
    }
    run_check_entry(r, w->ks, expected, w->commit, value, !w->keys_only, loam_iter_seq(w->it));
    return true;
}

/* Every keyspace as of now, by iterator in one direction and by gets. */
void run_check_all(struct run *r)
{
    r->what = "check all";
    bool forward = run_one_in(r, 2);
    for (uint32_t ks = 0; ks < MODEL_KS_MAX && !r->dead; ks++) {
        if (!r->m.ks[ks].live) {
            continue;
        }
        struct walker w = {.ks = ks, .commit = r->m.now};
        w.hi = r->m.row_count[r->m.ks[ks].order];
        if (!run_fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &w.it))) {
            return;
        }
        int step = forward ? 1 : -1;
        int64_t row = forward ? 0 : (int64_t)w.hi - 1;
        int rc = forward ? loam_iter_first(w.it) : loam_iter_last(w.it);
        while (run_check_position(r, &w, rc, model_find(&r->m, ks, row, step, 0, w.hi, w.commit)) &&
               rc == LOAM_OK) {
            row = w.at + step;
            rc = forward ? loam_iter_next(w.it) : loam_iter_prev(w.it);
        }
        loam_iter_close(w.it);
        for (uint32_t key = 0; key < r->m.key_count && !r->dead; key++) {
            size_t len;
            rc = loam_get(r->db, r->ks[ks], r->m.keys[key], NULL, 0, &len, NULL);
            if (!run_fine(r, rc)) {
                return;
            }
            const struct model_version *v = model_get(&r->m, ks, run_row_of(r, ks, key), r->m.now);
            if ((rc == LOAM_OK) != (v != NULL) || (v != NULL && len != v->size)) {
                run_print_row(r, ks, run_row_of(r, ks, key));
                MISMATCH(r, "get of ks %u key %u gives %d and the iterator disagrees", ks, key, rc);
            }
        }
    }
}
