/* model_write_support.c - Random puts, deletes and batches, each told to the oracle.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/model/model_state.h"

static bool durable_write(const struct run *r, uint32_t flags)
{
    return (flags & LOAM_W_DURABLE) != 0 ||
           (r->options.durability == LOAM_DUR_POWER && (flags & LOAM_W_RELAXED) == 0);
}

static loam_write_opts draw_write_opts(struct run *r, uint64_t *seq)
{
    loam_write_opts w = {.struct_size = sizeof w, .seq = seq};
    uint64_t d = run_below(r, 100);
    uint64_t dear = r->disk_kind == MODEL_DISK_OS ? 1 : 6; /* syncs of a real disk take long */
    if (d < dear && r->options.durability != LOAM_DUR_MEMORY) {
        w.flags = LOAM_W_DURABLE;
    } else if (d < 20 || (r->disk_kind == MODEL_DISK_OS && d < 98)) {
        w.flags = LOAM_W_RELAXED;
    } else if (d < 24) {
        w.flags = LOAM_W_NOWAIT;
    } else if (d < 28) {
        w.deadline_us = 1 + run_below(r, 3000);
    }
    return w;
}

/* Takes over the answer to the write whose operations the oracle has pending. */
static void finish_write(struct run *r, int rc, const loam_write_opts *w, uint64_t seq)
{
    r->counts->writes++;
    if (rc == LOAM_E_BUSY && ((w->flags & LOAM_W_NOWAIT) != 0 || w->deadline_us != 0)) {
        model_abort(&r->m);
        return;
    }
    if (rc < 0) {
        bool unknown = (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0;
        run_may_fail(r, rc);
        if (unknown && r->sick) {
            run_settle_doubt(r);
        } else if (unknown) {
            model_commit(&r->m, 0);
            r->m.now--; /* reached only as now + 1, by the crash that must follow */
            r->maybe = true;
        } else {
            model_abort(&r->m);
        }
        return;
    }
    if (rc != LOAM_OK) {
        MISMATCH(r, "a write returned %d", rc);
    }
    if (seq <= r->m.first_seq[r->m.now]) {
        MISMATCH(r, "sequence number %" PRIu64 " does not rise above %" PRIu64, seq,
                 r->m.first_seq[r->m.now]);
    }
    model_commit(&r->m, seq);
    if (durable_write(r, w->flags)) {
        r->durable = r->m.now;
    }
}

void run_put(struct run *r)
{
    r->what = "put";
    uint32_t ks = run_pick_ks(r), key = run_pick_key(r), size = run_pick_size(r);
    uint64_t id = r->next_value++, seq = 0;
    loam_write_opts w = draw_write_opts(r, &seq);
    model_value(id, size, r->buffer);
    run_note(r, r->what, ks, key);
    model_put(&r->m, ks, key, id, size);
    int rc = loam_put(r->db, r->ks[ks], r->m.keys[key], loam_bytes(r->buffer, size), &w);
    finish_write(r, rc, &w, seq);
}

void run_delete(struct run *r)
{
    r->what = "delete";
    uint32_t ks = run_pick_ks(r), key = run_pick_key(r);
    uint64_t seq = 0;
    loam_write_opts w = draw_write_opts(r, &seq);
    run_note(r, r->what, ks, key);
    model_delete(&r->m, ks, key);
    int rc = loam_delete(r->db, r->ks[ks], r->m.keys[key], &w);
    finish_write(r, rc, &w, seq);
}

/* Adds a drawn operation to the batch and to list[n]; its bytes. */
static uint32_t add_to_batch(struct run *r, struct batch_op *b, uint32_t left)
{
    *b = (struct batch_op){.ks = run_pick_ks(r), .key = run_pick_key(r), .put = !run_one_in(r, 4)};
    if (r->m.keys[b->key].size > left) {
        b->key = r->m.key_count - 1;
    }
    loam_slice key = r->m.keys[b->key];
    if (!b->put) {
        CHECK_EQ(loam_batch_delete(r->batch, r->ks[b->ks], key), LOAM_OK);
        return (uint32_t)key.size;
    }
    b->value_id = r->next_value++;
    b->size = run_pick_size(r);
    b->size = b->size < left ? b->size : left;
    if (run_one_in(r, 3)) {
        void *to = loam_batch_reserve(r->batch, r->ks[b->ks], key, b->size);
        CHECK(to != NULL);
        model_value(b->value_id, b->size, to);
    } else {
        model_value(b->value_id, b->size, r->buffer);
        loam_slice value = loam_bytes(r->buffer, b->size);
        CHECK_EQ(loam_batch_put(r->batch, r->ks[b->ks], key, value), LOAM_OK);
    }
    return (uint32_t)key.size + b->size;
}

static void stick_and_rewind(struct run *r)
{
    size_t mark = loam_batch_mark(r->batch);
    static uint8_t big[LOAM_MAX_KEY + 1];
    if (run_one_in(r, 2)) {
        CHECK_EQ(loam_batch_put(r->batch, r->ks[0], loam_bytes(big, sizeof big), LOAM_LIT("")),
                 LOAM_E_TOOBIG);
        if (loam_write(r->db, r->batch, NULL) != LOAM_E_TOOBIG) {
            MISMATCH(r, "a batch with an error was written");
        }
    } else { /* a value the budget cannot hold, found out only by the write */
        void *p = loam_batch_reserve(r->batch, r->ks[0], LOAM_LIT("big"),
                                     (size_t)(r->options.memory_budget / 4 + 1));
        CHECK(p != NULL);
        if (loam_write(r->db, r->batch, NULL) != LOAM_E_TOOBIG) {
            MISMATCH(r, "a batch with a value over the limit was written");
        }
    }
    CHECK_EQ(loam_batch_rewind(r->batch, mark), LOAM_OK);
}

void run_batch(struct run *r)
{
    r->what = "batch";
    if (r->batch == NULL) {
        r->batch = loam_batch_new(run_one_in(r, 2) ? 0 : 10000);
        CHECK(r->batch != NULL);
    }
    loam_batch_clear(r->batch);
    struct batch_op list[BATCH_CAP];
    uint32_t n = 0, marked = 0, left = BATCH_BYTES < r->value_max ? BATCH_BYTES : r->value_max;
    uint32_t want =
        run_one_in(r, 20) ? 0 : 1 + (uint32_t)run_below(r, run_one_in(r, 5) ? BATCH_CAP : 8);
    size_t mark = 0;
    while (n < want) {
        if (run_one_in(r, 8)) {
            mark = loam_batch_mark(r->batch);
            marked = n;
        }
        uint32_t used = add_to_batch(r, &list[n], left);
        left -= used < left ? used : left;
        n++;
        if (run_one_in(r, 12)) {
            CHECK_EQ(loam_batch_rewind(r->batch, mark), LOAM_OK);
            n = marked;
            want--;
        }
    }
    if (run_one_in(r, 30) && !r->armed && !r->sick) {
        stick_and_rewind(r);
    }
    CHECK_EQ(loam_batch_count(r->batch), n);
    for (int times = run_one_in(r, 15) ? 2 : 1; times > 0 && !r->dead; times--) {
        for (uint32_t i = 0; i < n; i++) {
            run_note(r, r->what, list[i].ks, list[i].key);
            if (list[i].put) {
                model_put(&r->m, list[i].ks, list[i].key, list[i].value_id, list[i].size);
            } else {
                model_delete(&r->m, list[i].ks, list[i].key);
            }
        }
        uint64_t seq = 0;
        loam_write_opts w = draw_write_opts(r, &seq);
        int rc = loam_write(r->db, r->batch, &w);
        if (n == 0 && rc == LOAM_OK) {
            return; /* takes no number */
        }
        finish_write(r, rc, &w, seq);
    }
}

/* Deletes most keys of a keyspace in a row, up to BATCH_CAP at a time, and then lets iterators loose on it:
 * stretches of deletes long enough for readers to remember them. The other operations put into
 * them. */
void run_delete_stretch(struct run *r)
{
    r->what = "delete_stretch";
    uint32_t ks = run_pick_ks(r), rows = r->m.row_count[r->m.ks[ks].order];
    uint32_t at = (uint32_t)run_below(r, rows / 4), end = rows - (uint32_t)run_below(r, rows / 4);
    if (r->batch == NULL) {
        r->batch = loam_batch_new(0);
        CHECK(r->batch != NULL);
    }
    while (at < end && !r->dead) {
        loam_batch_clear(r->batch);
        for (uint32_t n = 0, bytes = 0; at < end && n < BATCH_CAP; n++, at++) {
            uint32_t key = r->m.key_at[r->m.ks[ks].order][at];
            loam_slice bytes_of = r->m.keys[key];
            bytes += (uint32_t)bytes_of.size;
            if (n != 0 && bytes > r->value_max) {
                break;
            }
            run_note(r, r->what, ks, key);
            CHECK_EQ(loam_batch_delete(r->batch, r->ks[ks], bytes_of), LOAM_OK);
            model_delete(&r->m, ks, key);
        }
        uint64_t seq = 0;
        loam_write_opts w = draw_write_opts(r, &seq);
        int rc = loam_write(r->db, r->batch, &w);
        finish_write(r, rc, &w, seq);
    }
    for (uint32_t n = 0; n < 12 && !r->dead; n++) {
        if (run_one_in(r, 4)) {
            run_scan(r);
        } else {
            run_iter(r);
        }
    }
}
