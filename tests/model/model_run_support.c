/* model_run_support.c - The random operations, each followed by a comparison with the oracle.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An episode is one database: a shape drawn from the seed (disk, durability, budget, keyspaces),
 * then a stream of operations, clean reopens and crashes among them. The stream is a function of
 * the seed; only what background threads do in between differs from run to run.
 *
 * The oracle's rules for a crash: `durable` is the last commit that some answer has promised to
 * survive this kind of crash. The recovered state must equal the oracle's as of one commit p with
 * durable <= p <= now (now + 1 when the last write failed with its outcome unknown), the same p in
 * all keyspaces.
 */
#include "tests/model/model_run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/loam.h"
#include "tests/support/check.h"
#include "tests/support/model.h"

#define ITERS       6u
#define SNAPS       6u
#define KEYS        700u
#define TRACE       48u
#define VALUE_CAP   (256u * 1024)
#define BATCH_CAP   100u
#define BATCH_BYTES (180u * 1024)

struct walker {
    loam_iter *it; /* NULL: free */
    uint32_t ks;
    uint64_t commit;
    uint32_t lo, hi; /* rows it may show */
    bool keys_only;
    int64_t at; /* row it stands on; MODEL_NONE: none */
};

struct holder {
    loam_snap *snap;
    uint64_t commit;
};

struct batch_op {
    uint32_t ks, key;
    bool put;
    uint64_t value_id;
    uint32_t size;
};

struct run {
    const struct model_run_options *o;
    struct model_run_counts *counts;
    struct random rng;
    struct model m;
    uint64_t op;      /* number of the present one */
    const char *what; /* name of the present one */
    uint64_t next_value;
    uint32_t next_name;
    /* shape */
    enum model_disk disk_kind;
    loam_options options;
    loam_ks_options default_ks;
    uint32_t value_max;
    uint32_t hot; /* keys drawn half of the time */
    bool orders;  /* keyspaces with comparators too */
    /* disk */
    loam_vfs *disk, *fault; /* NULL on the system's disk */
    uint64_t disk_seed;
    char dir[256];
    /* handles */
    loam_db *db;
    loam_ks *ks[MODEL_KS_MAX]; /* [0]: a handle of "default", or NULL */
    struct walker walkers[ITERS];
    struct holder holders[SNAPS];
    loam_batch *batch;
    bool paused;
    /* crash rules */
    bool armed;       /* the disk will fail, or has failed */
    bool dead;        /* an answer said so */
    uint64_t durable; /* commit */
    bool maybe;       /* one more commit than now may have survived */
    /* trace */
    struct trace {
        uint64_t op;
        const char *what;
        uint32_t ks, key;
        uint64_t commit;
    } trace[TRACE];
    uint64_t traced;
    uint8_t *buffer; /* VALUE_CAP bytes */
};

/* ---- reporting ---------------------------------------------------------------------------------
 */

static void note(struct run *r, const char *what, uint32_t ks, uint32_t key)
{
    r->trace[r->traced++ % TRACE] = (struct trace){r->op, what, ks, key, r->m.now};
}

static void print_trace(const struct run *r)
{
    uint64_t from = r->traced > TRACE ? r->traced - TRACE : 0;
    for (uint64_t i = from; i < r->traced; i++) {
        const struct trace *t = &r->trace[i % TRACE];
        fprintf(stderr, "  op %" PRIu64 " %s ks %d key %d, commits %" PRIu64 "\n", t->op, t->what,
                (int)t->ks, (int)t->key, t->commit);
    }
}

static void print_row(const struct run *r, uint32_t ks, uint32_t row)
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
static void print_levels(const struct run *r)
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

#define MISMATCH(r, ...)                                                                           \
    do {                                                                                           \
        fprintf(stderr, "MODEL: seed %" PRIu64 ", op %" PRIu64 " (%s): ", (r)->o->seed, (r)->op,   \
                (r)->what);                                                                        \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fprintf(stderr,                                                                            \
                "\n  disk %d, durability %u, budget %" PRIu64 ", commits %" PRIu64                 \
                ", durable %" PRIu64 ", last error: %s\n",                                         \
                (int)(r)->disk_kind, (r)->options.durability, (r)->options.memory_budget,          \
                (r)->m.now, (r)->durable, loam_last_error()->message);                             \
        print_trace(r);                                                                            \
        print_levels(r);                                                                           \
        fprintf(stderr,                                                                            \
                "  replay: loam-model --episode=%" PRIu64 " --ops=%" PRIu64                        \
                " --disk=%d --durability=%u%s%s\n",                                                \
                (r)->o->seed, (r)->o->ops, (int)(r)->o->disk, (r)->o->durability,                  \
                (r)->o->no_crash ? " --no-crash" : "", (r)->o->byte_order ? " --byte-order" : ""); \
        fflush(stderr);                                                                            \
        abort();                                                                                   \
    } while (0)

/* True when rc is no error. An error is right only when the disk was told to fail. */
static bool fine(struct run *r, int rc)
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

static uint64_t below(struct run *r, uint64_t n)
{
    return random_below(&r->rng, n);
}

static bool one_in(struct run *r, uint64_t n)
{
    return random_below(&r->rng, n) == 0;
}

/* ---- drawing things ----------------------------------------------------------------------------
 */

static uint32_t pick_key(struct run *r)
{
    if (one_in(r, 2)) {
        return (uint32_t)below(r, r->m.key_count);
    }
    return (uint32_t)(r->m.key_count - 1 - below(r, r->hot));
}

/* Keyspace 0 is "default" and always live. */
static uint32_t pick_ks(struct run *r)
{
    uint32_t ks = (uint32_t)below(r, MODEL_KS_MAX);
    return r->m.ks[ks].live ? ks : 0;
}

static uint32_t pick_size(struct run *r)
{
    uint64_t d = below(r, 1000);
    uint64_t n = d < 60    ? 0
                 : d < 700 ? 1 + below(r, 100)
                 : d < 930 ? below(r, 1200)
                 : d < 990 ? below(r, 9000)
                 : d < 997 ? below(r, 40000)
                           : below(r, 200 * 1024);
    return (uint32_t)(n < r->value_max ? n : r->value_max);
}

static uint32_t row_of(const struct run *r, uint32_t ks, uint32_t key)
{
    return r->m.row_of[r->m.ks[ks].order][key];
}

/* A moment to read at: now, or a snapshot's. */
static const loam_snap *pick_snap(struct run *r, uint64_t *commit)
{
    const struct holder *h = &r->holders[below(r, SNAPS)];
    if (h->snap == NULL || one_in(r, 2)) {
        *commit = r->m.now;
        return NULL;
    }
    *commit = h->commit;
    return h->snap;
}

/* ---- comparing ---------------------------------------------------------------------------------
 */

static void check_entry(struct run *r, uint32_t ks, uint32_t row, uint64_t commit, loam_slice value,
                        bool with_value, uint64_t seq)
{
    const struct model_version *v = model_get(&r->m, ks, row, commit);
    if (v == NULL) {
        print_row(r, ks, row);
        MISMATCH(r, "found ks %u row %u as of commit %" PRIu64 ", which is deleted", ks, row,
                 commit);
    }
    if (with_value && !model_value_is(v->value_id, v->size, value)) {
        print_row(r, ks, row);
        MISMATCH(r, "wrong value of ks %u row %u as of commit %" PRIu64 ": %zu bytes, expected %u",
                 ks, row, commit, value.size, v->size);
    }
    if (v->seq != 0 && seq != v->seq) {
        print_row(r, ks, row);
        MISMATCH(r, "ks %u row %u as of commit %" PRIu64 " has seq %" PRIu64 ", expected %" PRIu64,
                 ks, row, commit, seq, v->seq);
    }
}

static void check_absent(struct run *r, uint32_t ks, uint32_t row, uint64_t commit)
{
    if (model_get(&r->m, ks, row, commit) != NULL) {
        print_row(r, ks, row);
        MISMATCH(r, "ks %u row %u as of commit %" PRIu64 " is not found", ks, row, commit);
    }
}

/* Whether the engine may show `key` for a row: keys that an order takes for equal are one key, and
 * which of them is shown is not promised. */
static bool key_of_row(const struct run *r, uint32_t ks, uint32_t row, loam_slice key)
{
    enum model_order order = r->m.ks[ks].order;
    const loam_comparator *c = model_comparator(order);
    loam_slice own = r->m.keys[r->m.key_at[order][row]];
    return key.size == own.size &&
           (c != NULL ? c->compare(c->ctx, key, own) == 0
                      : key.size == 0 || memcmp(key.data, own.data, key.size) == 0);
}

/* Compares where a walk stands: rc of the move, and the row the oracle says. */
static bool check_position(struct run *r, struct walker *w, int rc, uint32_t expected)
{
    if (!fine(r, rc)) {
        return false;
    }
    w->at = expected;
    if (rc == LOAM_NOTFOUND) {
        if (expected != MODEL_NONE) {
            print_row(r, w->ks, expected);
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
    if (v == NULL || !key_of_row(r, w->ks, expected, key)) {
        if (v != NULL) {
            print_row(r, w->ks, expected);
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
    check_entry(r, w->ks, expected, w->commit, value, !w->keys_only, loam_iter_seq(w->it));
    return true;
}

/* Every keyspace as of now, by iterator in one direction and by gets. */
static void check_all(struct run *r)
{
    r->what = "check all";
    bool forward = one_in(r, 2);
    for (uint32_t ks = 0; ks < MODEL_KS_MAX && !r->dead; ks++) {
        if (!r->m.ks[ks].live) {
            continue;
        }
        struct walker w = {.ks = ks, .commit = r->m.now};
        w.hi = r->m.row_count[r->m.ks[ks].order];
        if (!fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &w.it))) {
            return;
        }
        int step = forward ? 1 : -1;
        int64_t row = forward ? 0 : (int64_t)w.hi - 1;
        int rc = forward ? loam_iter_first(w.it) : loam_iter_last(w.it);
        while (check_position(r, &w, rc, model_find(&r->m, ks, row, step, 0, w.hi, w.commit)) &&
               rc == LOAM_OK) {
            row = w.at + step;
            rc = forward ? loam_iter_next(w.it) : loam_iter_prev(w.it);
        }
        loam_iter_close(w.it);
        for (uint32_t key = 0; key < r->m.key_count && !r->dead; key++) {
            size_t len;
            rc = loam_get(r->db, r->ks[ks], r->m.keys[key], NULL, 0, &len, NULL);
            if (!fine(r, rc)) {
                return;
            }
            const struct model_version *v = model_get(&r->m, ks, row_of(r, ks, key), r->m.now);
            if ((rc == LOAM_OK) != (v != NULL) || (v != NULL && len != v->size)) {
                print_row(r, ks, row_of(r, ks, key));
                MISMATCH(r, "get of ks %u key %u gives %d and the iterator disagrees", ks, key, rc);
            }
        }
    }
}

/* ---- writes ------------------------------------------------------------------------------------
 */

static bool durable_write(const struct run *r, uint32_t flags)
{
    return (flags & LOAM_W_DURABLE) != 0 ||
           (r->options.durability == LOAM_DUR_POWER && (flags & LOAM_W_RELAXED) == 0);
}

static loam_write_opts draw_write_opts(struct run *r, uint64_t *seq)
{
    loam_write_opts w = {.struct_size = sizeof w, .seq = seq};
    uint64_t d = below(r, 100);
    uint64_t dear = r->disk_kind == MODEL_DISK_OS ? 1 : 6; /* syncs of a real disk take long */
    if (d < dear && r->options.durability != LOAM_DUR_MEMORY) {
        w.flags = LOAM_W_DURABLE;
    } else if (d < 20 || (r->disk_kind == MODEL_DISK_OS && d < 98)) {
        w.flags = LOAM_W_RELAXED;
    } else if (d < 24) {
        w.flags = LOAM_W_NOWAIT;
    } else if (d < 28) {
        w.deadline_us = 1 + below(r, 3000);
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
        fine(r, rc);
        if (unknown) {
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

static void do_put(struct run *r)
{
    r->what = "put";
    uint32_t ks = pick_ks(r), key = pick_key(r), size = pick_size(r);
    uint64_t id = r->next_value++, seq = 0;
    loam_write_opts w = draw_write_opts(r, &seq);
    model_value(id, size, r->buffer);
    note(r, r->what, ks, key);
    model_put(&r->m, ks, key, id, size);
    int rc = loam_put(r->db, r->ks[ks], r->m.keys[key], loam_bytes(r->buffer, size), &w);
    finish_write(r, rc, &w, seq);
}

static void do_delete(struct run *r)
{
    r->what = "delete";
    uint32_t ks = pick_ks(r), key = pick_key(r);
    uint64_t seq = 0;
    loam_write_opts w = draw_write_opts(r, &seq);
    note(r, r->what, ks, key);
    model_delete(&r->m, ks, key);
    int rc = loam_delete(r->db, r->ks[ks], r->m.keys[key], &w);
    finish_write(r, rc, &w, seq);
}

/* Adds a drawn operation to the batch and to list[n]; its bytes. */
static uint32_t add_to_batch(struct run *r, struct batch_op *b, uint32_t left)
{
    *b = (struct batch_op){.ks = pick_ks(r), .key = pick_key(r), .put = !one_in(r, 4)};
    if (r->m.keys[b->key].size > left) {
        b->key = r->m.key_count - 1;
    }
    loam_slice key = r->m.keys[b->key];
    if (!b->put) {
        CHECK_EQ(loam_batch_delete(r->batch, r->ks[b->ks], key), LOAM_OK);
        return (uint32_t)key.size;
    }
    b->value_id = r->next_value++;
    b->size = pick_size(r);
    b->size = b->size < left ? b->size : left;
    if (one_in(r, 3)) {
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
    if (one_in(r, 2)) {
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

static void do_batch(struct run *r)
{
    r->what = "batch";
    if (r->batch == NULL) {
        r->batch = loam_batch_new(one_in(r, 2) ? 0 : 10000);
        CHECK(r->batch != NULL);
    }
    loam_batch_clear(r->batch);
    struct batch_op list[BATCH_CAP];
    uint32_t n = 0, marked = 0, left = BATCH_BYTES < r->value_max ? BATCH_BYTES : r->value_max;
    uint32_t want = one_in(r, 20) ? 0 : 1 + (uint32_t)below(r, one_in(r, 5) ? BATCH_CAP : 8);
    size_t mark = 0;
    while (n < want) {
        if (one_in(r, 8)) {
            mark = loam_batch_mark(r->batch);
            marked = n;
        }
        uint32_t used = add_to_batch(r, &list[n], left);
        left -= used < left ? used : left;
        n++;
        if (one_in(r, 12)) {
            CHECK_EQ(loam_batch_rewind(r->batch, mark), LOAM_OK);
            n = marked;
            want--;
        }
    }
    if (one_in(r, 30) && !r->armed) {
        stick_and_rewind(r);
    }
    CHECK_EQ(loam_batch_count(r->batch), n);
    for (int times = one_in(r, 15) ? 2 : 1; times > 0 && !r->dead; times--) {
        for (uint32_t i = 0; i < n; i++) {
            note(r, r->what, list[i].ks, list[i].key);
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

/* ---- point reads -------------------------------------------------------------------------------
 */

static void do_get(struct run *r)
{
    r->what = "get";
    uint32_t ks = pick_ks(r), key = pick_key(r), row = row_of(r, ks, key);
    uint64_t commit, seq = 0;
    loam_read_opts o = {.struct_size = sizeof o, .seq = &seq};
    o.flags = (uint32_t)below(r, 4);
    o.snap = pick_snap(r, &commit);
    size_t len = 12345, cap = VALUE_CAP;
    if (one_in(r, 10)) {
        cap = below(r, 200);
    }
    int rc = loam_get(r->db, r->ks[ks], r->m.keys[key], r->buffer, cap, &len, &o);
    r->counts->reads++;
    if (!fine(r, rc)) {
        return;
    }
    if (rc == LOAM_NOTFOUND) {
        if (len != 12345) {
            MISMATCH(r, "NOTFOUND touched len");
        }
        check_absent(r, ks, row, commit);
        return;
    }
    if ((rc == LOAM_TRUNCATED) != (len > cap)) {
        MISMATCH(r, "rc %d for %zu bytes into %zu", rc, len, cap);
    }
    check_entry(r, ks, row, commit, loam_bytes(r->buffer, len), rc == LOAM_OK, seq);
}

static void do_get_pin(struct run *r)
{
    r->what = "get_pin";
    uint32_t ks = pick_ks(r), key = pick_key(r);
    uint64_t commit, seq = 0;
    loam_read_opts o = {.struct_size = sizeof o, .seq = &seq};
    o.snap = pick_snap(r, &commit);
    loam_pin pin = LOAM_PIN_INIT;
    int rc = loam_get_pin(r->db, r->ks[ks], r->m.keys[key], &pin, &o);
    r->counts->reads++;
    if (!fine(r, rc)) {
        return;
    }
    if (rc == LOAM_OK) {
        check_entry(r, ks, row_of(r, ks, key), commit, pin.value, true, seq);
    } else {
        check_absent(r, ks, row_of(r, ks, key), commit);
    }
    loam_unpin(&pin);
}

static void do_get_many(struct run *r)
{
    r->what = "get_many";
    enum { MANY = 24 };
    uint32_t ks = pick_ks(r), list[MANY], n = (uint32_t)below(r, MANY + 1);
    loam_slice keys[MANY] = {{NULL, 0}};
    loam_pin pins[MANY];
    int rcs[MANY];
    uint64_t commit;
    loam_read_opts o = {.struct_size = sizeof o};
    o.snap = pick_snap(r, &commit);
    for (uint32_t i = 0; i < n; i++) {
        list[i] = pick_key(r);
        keys[i] = r->m.keys[list[i]];
        pins[i] = (loam_pin)LOAM_PIN_INIT;
    }
    int rc = loam_get_many(r->db, r->ks[ks], keys, n, pins, rcs, &o);
    r->counts->reads += n;
    for (uint32_t i = 0; i < n && fine(r, rc); i++) {
        uint32_t row = row_of(r, ks, list[i]);
        if (rcs[i] == LOAM_NOTFOUND) {
            check_absent(r, ks, row, commit);
        } else {
            const struct model_version *v = model_get(&r->m, ks, row, commit);
            check_entry(r, ks, row, commit, pins[i].value, true, v != NULL ? v->seq : 0);
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
    uint64_t d = below(r, 10);
    if (d < 3 && order == MODEL_BYTES) {
        loam_slice whole = m->keys[pick_key(r)];
        o->prefix = loam_bytes(whole.data, below(r, (whole.size < 8 ? whole.size : 8) + 1));
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
        if (one_in(r, 2)) {
            uint32_t key = pick_key(r);
            o->lower = m->keys[key];
            w->lo = o->lower.size != 0 ? m->row_of[order][key] : 0;
        }
        if (one_in(r, 2)) {
            uint32_t key = pick_key(r);
            o->upper = m->keys[key];
            w->hi = o->upper.size != 0 ? m->row_of[order][key] : w->hi;
        }
    }
}

static void open_walker(struct run *r, struct walker *w)
{
    r->what = "iter_open";
    *w = (struct walker){.ks = pick_ks(r), .at = MODEL_NONE};
    loam_iter_opts o = {.struct_size = sizeof o};
    draw_bounds(r, w, &o);
    w->keys_only = one_in(r, 5);
    o.flags = w->keys_only ? LOAM_ITER_KEYS : 0;
    o.readahead = one_in(r, 4) ? 16384 : 0;
    o.snap = pick_snap(r, &w->commit);
    note(r, r->what, w->ks, MODEL_NONE);
    fine(r, loam_iter_open(r->db, r->ks[w->ks], &o, &w->it));
}

static void close_walker(struct walker *w)
{
    loam_iter_close(w->it);
    w->it = NULL;
}

static void place_walker(struct run *r, struct walker *w)
{
    const struct model *m = &r->m;
    uint32_t key = pick_key(r), row = row_of(r, w->ks, key);
    switch (below(r, 4)) {
    case 0:
        r->what = "iter_first";
        check_position(r, w, loam_iter_first(w->it),
                       model_find(m, w->ks, w->lo, 1, w->lo, w->hi, w->commit));
        break;
    case 1:
        r->what = "iter_last";
        check_position(r, w, loam_iter_last(w->it),
                       model_find(m, w->ks, (int64_t)w->hi - 1, -1, w->lo, w->hi, w->commit));
        break;
    case 2:
        r->what = "iter_seek";
        check_position(r, w, loam_iter_seek(w->it, m->keys[key]),
                       model_find(m, w->ks, row, 1, w->lo, w->hi, w->commit));
        break;
    default:
        r->what = "iter_seek_le";
        check_position(r, w, loam_iter_seek_le(w->it, m->keys[key]),
                       model_find(m, w->ks, row, -1, w->lo, w->hi, w->commit));
        break;
    }
}

static void step_walker(struct run *r, struct walker *w)
{
    bool forward = one_in(r, 2);
    r->what = forward ? "iter_next" : "iter_prev";
    uint64_t steps = one_in(r, 20) ? below(r, 200) : 1 + below(r, 6);
    for (uint64_t i = 0; i < steps && !r->dead; i++) {
        if (one_in(r, 6)) {
            forward = !forward;
        }
        bool none = w->at == MODEL_NONE;
        int64_t from = forward ? w->at + 1 : w->at - 1;
        uint32_t expected =
            none ? MODEL_NONE
                 : model_find(&r->m, w->ks, from, forward ? 1 : -1, w->lo, w->hi, w->commit);
        int rc = forward ? loam_iter_next(w->it) : loam_iter_prev(w->it);
        if (!check_position(r, w, rc, expected) || expected == MODEL_NONE) {
            break;
        }
        r->counts->moves++;
    }
}

static void do_iter(struct run *r)
{
    struct walker *w = &r->walkers[below(r, ITERS)];
    if (w->it == NULL) {
        open_walker(r, w);
        return;
    }
    uint64_t d = below(r, 100);
    if (d < 4) {
        close_walker(w);
    } else if (d < 10) {
        r->what = "iter_refresh";
        const loam_snap *snap = pick_snap(r, &w->commit);
        fine(r, loam_iter_refresh(w->it, snap));
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
    if (!key_of_row(r, w->ks, row, key)) {
        print_row(r, w->ks, row);
        MISMATCH(r, "scan of ks %u shows another key than row %u", w->ks, row);
    }
    check_entry(r, w->ks, row, w->commit, value, !w->keys_only, v->seq);
    w->at = row;
    s->seen++;
    return s->left != UINT64_MAX && --s->left == 0;
}

static void do_scan(struct run *r)
{
    r->what = "scan";
    struct walker w = {.ks = pick_ks(r), .at = -1};
    loam_iter_opts o = {.struct_size = sizeof o};
    draw_bounds(r, &w, &o);
    w.at = (int64_t)w.lo - 1;
    w.keys_only = one_in(r, 4);
    o.flags = w.keys_only ? LOAM_ITER_KEYS : 0;
    o.snap = pick_snap(r, &w.commit);
    struct scan_check s = {r, &w, one_in(r, 3) ? 1 + below(r, 50) : UINT64_MAX, 0};
    uint64_t limit = one_in(r, 2) ? below(r, 60) : 0;
    int rc = loam_scan(r->db, r->ks[w.ks], &o, limit, on_scanned, &s);
    if (!fine(r, rc)) {
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

/* ---- snapshots, keyspaces, keeping house -------------------------------------------------------
 */

static void do_snapshot(struct run *r)
{
    r->what = "snapshot";
    struct holder *h = &r->holders[below(r, SNAPS)];
    if (h->snap != NULL) {
        loam_snap_release(h->snap);
        h->snap = NULL;
    } else if (fine(r, loam_snap_take(r->db, &h->snap))) {
        h->commit = r->m.now;
        if (loam_snap_seq(h->snap) < r->m.first_seq[r->m.now]) {
            MISMATCH(r, "the snapshot's number is below the last write's");
        }
    }
    note(r, r->what, MODEL_NONE, MODEL_NONE);
}

static loam_ks_options ks_options(struct run *r, enum model_order order)
{
    loam_ks_options o = {.struct_size = sizeof o, .comparator = model_comparator(order)};
    static const uint32_t blocks[] = {0, 512, 1024, 4096, 16384, 65536};
    static const uint32_t bits[] = {0, 1, 10, 32, UINT32_MAX};
    o.block_bytes = blocks[below(r, 6)];
    o.filter_bits = bits[below(r, 5)];
    o.compression = (uint32_t)below(r, 3);
    return o;
}

/* Opens the handle of a keyspace of the oracle. */
static void open_ks(struct run *r, uint32_t ks)
{
    loam_ks_options o = ks_options(r, r->m.ks[ks].order);
    fine(r, loam_ks_open(r->db, r->m.ks[ks].name, &o, &r->ks[ks]));
}

static void forget_ks(struct run *r, uint32_t ks)
{
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && r->walkers[i].ks == ks) {
            close_walker(&r->walkers[i]);
        }
    }
}

static void do_keyspace(struct run *r)
{
    r->what = "keyspace";
    uint32_t ks = 1 + (uint32_t)below(r, MODEL_KS_MAX - 1);
    char name[32];
    snprintf(name, sizeof name, "space-%u", r->next_name);
    note(r, r->what, ks, MODEL_NONE);
    if (!r->m.ks[ks].live) {
        /* Created while armed, it may or may not be there afterwards. */
        if (r->armed) {
            return;
        }
        r->next_name++;
        ks = model_ks_add(&r->m, name, (enum model_order)below(r, r->orders ? MODEL_ORDERS : 1));
        open_ks(r, ks);
    } else if (one_in(r, 3) && !r->armed) {
        r->what = "ks_drop";
        forget_ks(r, ks);
        fine(r, loam_ks_drop(r->db, r->m.ks[ks].name));
        size_t len;
        int rc = loam_get(r->db, r->ks[ks], LOAM_LIT("x"), NULL, 0, &len, NULL);
        if (rc != LOAM_E_NOENT) {
            MISMATCH(r, "a dropped keyspace's handle gives %d", rc);
        }
        loam_ks_release(r->ks[ks]);
        r->ks[ks] = NULL;
        model_ks_drop(&r->m, ks);
    } else if (one_in(r, 2) && !r->armed) {
        r->what = "ks_rename";
        r->next_name++;
        fine(r, loam_ks_rename(r->db, r->m.ks[ks].name, name));
        model_ks_rename(&r->m, ks, name);
    } else { /* another handle of the same keyspace */
        loam_ks *old = r->ks[ks];
        open_ks(r, ks);
        loam_ks_release(old);
    }
}

static void do_flush(struct run *r)
{
    r->what = "flush";
    note(r, r->what, MODEL_NONE, MODEL_NONE);
    uint64_t upto = r->m.now;
    if (fine(r, loam_flush(r->db, r->ks[pick_ks(r)]))) {
        r->durable = upto;
        r->counts->flushes++;
    }
}

static void do_compact(struct run *r)
{
    r->what = "compact";
    uint32_t ks = pick_ks(r);
    note(r, r->what, ks, MODEL_NONE);
    loam_slice lo = {NULL, 0}, hi = {NULL, 0};
    if (one_in(r, 2)) {
        lo = r->m.keys[pick_key(r)];
    }
    if (one_in(r, 2)) {
        hi = r->m.keys[pick_key(r)];
    }
    uint64_t upto = r->m.now;
    int rc = loam_compact(r->db, r->ks[ks], lo, hi, one_in(r, 4) ? 1 + below(r, 3000) : 0);
    if (fine(r, rc)) {
        r->durable = rc == LOAM_OK ? upto : r->durable;
        r->counts->compactions++;
    }
}

static void do_pause(struct run *r)
{
    r->what = r->paused ? "resume merges" : "pause";
    r->paused = !r->paused;
    fine(r, loam_pause(r->db, r->paused));
}

static void do_sync(struct run *r)
{
    r->what = "sync";
    note(r, r->what, MODEL_NONE, MODEL_NONE);
    if (r->options.durability == LOAM_DUR_MEMORY) {
        return;
    }
    uint64_t upto = r->m.now;
    if (one_in(r, 3)) {
        uint64_t commit = upto != 0 ? 1 + below(r, upto) : 0;
        int rc = loam_wait_durable(r->db, r->m.first_seq[commit], below(r, 2000));
        if (fine(r, rc) && rc == LOAM_OK && commit > r->durable) {
            r->durable = commit;
        }
    } else if (fine(r, loam_sync(r->db))) {
        r->durable = upto;
        if (loam_durable_seq(r->db) < r->m.first_seq[upto]) {
            MISMATCH(r, "durable_seq %" PRIu64 " is below what was synced, %" PRIu64,
                     loam_durable_seq(r->db), r->m.first_seq[upto]);
        }
    }
}

static void do_numbers(struct run *r)
{
    r->what = "numbers";
    loam_stats s = {.struct_size = sizeof s};
    if (!fine(r, loam_get_stats(r->db, r->ks[pick_ks(r)], &s))) {
        return;
    }
    if (s.last_seq < r->m.first_seq[r->m.now]) {
        MISMATCH(r, "stats.last_seq %" PRIu64 " is below the last write's %" PRIu64, s.last_seq,
                 r->m.first_seq[r->m.now]);
    }
    char text[256];
    size_t need;
    int rc = loam_format_stats(r->db, (int)below(r, 2), text, sizeof text, &need);
    if (rc != (need < sizeof text ? LOAM_OK : LOAM_TRUNCATED)) {
        MISMATCH(r, "format_stats returned %d for %zu bytes", rc, need);
    }
    uint64_t value;
    CHECK_EQ(loam_property(r->db, r->ks[pick_ks(r)], "level.1.bytes", &value), LOAM_OK);
    if (!r->armed && loam_health(r->db, NULL) != LOAM_HEALTHY) {
        MISMATCH(r, "the database is not healthy");
    }
    if (one_in(r, 10)) {
        rc = loam_wait_idle(r->db, 1 + below(r, 20000));
        fine(r, rc);
    }
}

/* ---- open, close, crash ------------------------------------------------------------------------
 */

static void check_names(struct run *r);

static int open_db(struct run *r)
{
    r->options.vfs = r->fault; /* NULL: the system's */
    return loam_open(r->dir, &r->options, &r->db);
}

/* Keyspace handles after an open; now and then the database flushes before they are open. */
static void open_handles(struct run *r)
{
    if (one_in(r, 3)) { /* entries of keyspaces whose order nobody has given yet go to tables */
        fine(r, loam_flush(r->db, NULL));
    }
    if (one_in(r, 2)) {
        fine(r, loam_ks_open(r->db, "default", &r->default_ks, &r->ks[0]));
    }
    for (uint32_t ks = 1; ks < MODEL_KS_MAX && !r->dead; ks++) {
        if (r->m.ks[ks].live) {
            open_ks(r, ks);
        }
    }
}

/* Handles may go before the database or after it. */
static void release_handles(struct run *r, bool all)
{
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && (all || one_in(r, 2))) {
            close_walker(&r->walkers[i]);
        }
    }
    for (uint32_t i = 0; i < SNAPS; i++) {
        if (r->holders[i].snap != NULL && (all || one_in(r, 2))) {
            loam_snap_release(r->holders[i].snap);
            r->holders[i].snap = NULL;
        }
    }
    for (uint32_t i = 0; i < MODEL_KS_MAX; i++) {
        if (all || one_in(r, 2)) {
            loam_ks_release(r->ks[i]);
            r->ks[i] = NULL;
        }
    }
}

static int close_db(struct run *r)
{
    release_handles(r, false);
    int rc = loam_close(r->db);
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && loam_iter_first(r->walkers[i].it) != LOAM_E_CLOSED) {
            MISMATCH(r, "an iterator of a closed database moved");
        }
    }
    release_handles(r, true);
    r->db = NULL;
    r->paused = false;
    return rc;
}

/* False: a keyspace with a comparator has entries that were never put in its order, and only a
 * writer can do that. */
static bool open_read_only(struct run *r)
{
    for (uint32_t ks = 1; ks < MODEL_KS_MAX; ks++) {
        const struct model_ks *k = &r->m.ks[ks];
        loam_ks_options o = ks_options(r, k->order);
        int rc = k->live ? loam_ks_open(r->db, k->name, &o, &r->ks[ks]) : LOAM_OK;
        if (rc == LOAM_E_READONLY && k->order != MODEL_BYTES) {
            return false;
        }
        fine(r, rc);
    }
    return true;
}

static void do_reopen(struct run *r)
{
    r->what = "close";
    note(r, r->what, MODEL_NONE, MODEL_NONE);
    fine(r, close_db(r));
    r->what = "reopen";
    if (one_in(r, 4)) { /* a reader first: it sees the same and changes nothing */
        r->options.flags |= LOAM_OPEN_READONLY;
        fine(r, open_db(r));
        r->what = "open read-only";
        fine(r, loam_ks_open(r->db, "default", &r->default_ks, &r->ks[0]));
        if (open_read_only(r)) {
            check_all(r);
        }
        fine(r, close_db(r));
        r->options.flags &= ~LOAM_OPEN_READONLY;
        r->what = "reopen";
    }
    fine(r, open_db(r));
    open_handles(r);
    r->durable = r->m.now;
    check_names(r);
    check_all(r);
    r->counts->reopens++;
}

/* Whether the database shows exactly the oracle's state as of commit p. */
static bool equals(struct run *r, uint64_t p)
{
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        if (!r->m.ks[ks].live) {
            continue;
        }
        uint32_t rows = r->m.row_count[r->m.ks[ks].order];
        loam_iter *it;
        fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &it));
        uint32_t row = model_find(&r->m, ks, 0, 1, 0, rows, p);
        int rc = loam_iter_first(it);
        bool same = true;
        while (same && rc == LOAM_OK && row != MODEL_NONE) {
            const struct model_version *v = model_get(&r->m, ks, row, p);
            same = key_of_row(r, ks, row, loam_iter_key(it)) &&
                   model_value_is(v->value_id, v->size, loam_iter_value(it));
            row = model_find(&r->m, ks, (int64_t)row + 1, 1, 0, rows, p);
            rc = loam_iter_next(it);
        }
        fine(r, rc);
        same = same && rc == LOAM_NOTFOUND && row == MODEL_NONE;
        loam_iter_close(it);
        if (!same) {
            return false;
        }
    }
    return true;
}

/* The largest number of an entry that is there: commits before its own are all there. */
static uint64_t largest_seq(struct run *r)
{
    uint64_t seq = 0;
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        loam_iter *it;
        if (!r->m.ks[ks].live) {
            continue;
        }
        fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &it));
        int rc;
        for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
            seq = loam_iter_seq(it) > seq ? loam_iter_seq(it) : seq;
        }
        fine(r, rc);
        loam_iter_close(it);
    }
    return seq;
}

static void find_prefix(struct run *r)
{
    r->what = "prefix after crash";
    uint64_t to = r->m.now + (r->maybe ? 1 : 0);
    uint64_t hint = model_commit_of_seq(&r->m, largest_seq(r));
    uint64_t from = hint > r->durable ? hint : r->durable;
    uint64_t p = from;
    /* The last one first: a batch written twice makes two commits of one state, and of a write
     * whose outcome was unknown the oracle has no numbers to compare. */
    if (r->maybe && equals(r, to)) {
        p = to;
    }
    while (p <= to && !equals(r, p)) {
        p++;
    }
    if (p > to) {
        for (p = 0; p < from && !equals(r, p); p++) {
        }
        if (p < from) {
            MISMATCH(r,
                     "the state after the crash is that of commit %" PRIu64 "; %" PRIu64
                     " were promised",
                     p, r->durable);
        }
        MISMATCH(r,
                 "the state after the crash is that of no commit up to %" PRIu64
                 "; the newest entry has commit %" PRIu64,
                 to, hint);
    }
    if (p > r->m.now) {
        r->m.now = p;
    }
    model_truncate(&r->m, p);
    r->durable = p;
    r->maybe = false;
}

static int on_name(void *ctx, loam_slice name)
{
    uint32_t *found = ctx;
    (void)name;
    (*found)++;
    return 0;
}

static void check_names(struct run *r)
{
    uint32_t found = 0, live = 0;
    if (!fine(r, loam_ks_list(r->db, on_name, &found))) {
        return;
    }
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        live += r->m.ks[ks].live;
    }
    if (found != live) {
        MISMATCH(r, "%u keyspaces, expected %u", found, live);
    }
}

static void set_plan(struct run *r, uint64_t crash_in)
{
    const loam_fault_plan plan = {
        .struct_size = sizeof plan,
        .seed = r->disk_seed,
        .no_map = r->disk_kind == MODEL_DISK_UNMAPPED,
        .crash_at = crash_in != 0 ? loam_vfs_calls(r->fault) + crash_in : 0,
    };
    CHECK_EQ(loam_vfs_set_plan(r->fault, &plan), LOAM_OK);
}

static void wrap_disk(struct run *r)
{
    r->disk_seed = random_next(&r->rng);
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .seed = r->disk_seed,
                                  .no_map = r->disk_kind == MODEL_DISK_UNMAPPED};
    CHECK_EQ(loam_vfs_fault(r->disk, &plan, &r->fault), LOAM_OK);
}

/* Cuts power, or kills the process, and goes on from what the disk holds. */
static void crash(struct run *r)
{
    uint64_t variant = one_in(r, 3) ? 0 : 1 + below(r, 9);
    r->what = variant == 0 ? "kill" : "power cut";
    note(r, r->what, (uint32_t)variant, MODEL_NONE);
    for (unsigned depth = 0;; depth++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(r->fault, variant, &after), LOAM_OK);
        if (variant == 0 && depth == 0 && r->options.durability != LOAM_DUR_MEMORY) {
            r->durable = r->m.now;
        }
        if (r->db != NULL) {
            set_plan(r, 1); /* closing must not take long, nor can it help */
            close_db(r);
        }
        loam_vfs_free(r->fault);
        loam_vfs_free(r->disk);
        r->disk = after;
        wrap_disk(r);
        /* Now and then recovery itself is interrupted; then the disk is cut again. */
        r->armed = depth < 3 && one_in(r, 3);
        set_plan(r, r->armed ? 1 + below(r, 60) : 0);
        int rc = open_db(r);
        if (rc < 0 && r->armed && rc == LOAM_E_IO) {
            variant = 1 + below(r, 9);
            continue;
        }
        if (rc < 0) {
            MISMATCH(r, "open after the crash returned %d (%s)", rc, loam_strerror(rc));
        }
        set_plan(r, 0);
        if (r->armed) { /* the interruption would have come just after the open */
            r->armed = false;
            loam_error why;
            if (loam_health(r->db, &why) != LOAM_HEALTHY) {
                set_plan(r, 1);
                variant = 1 + below(r, 9);
                continue;
            }
        }
        break;
    }
    r->armed = r->dead = false;
    open_handles(r);
    check_names(r);
    find_prefix(r);
    check_all(r);
    r->counts->crashes++;
}

/* ---- the stream --------------------------------------------------------------------------------
 */

static void step(struct run *r)
{
    uint64_t d = below(r, 10000);
    if (d < 3000) {
        do_put(r);
    } else if (d < 3700) {
        do_delete(r);
    } else if (d < 4500) {
        do_batch(r);
    } else if (d < 6000) {
        do_get(r);
    } else if (d < 6300) {
        do_get_pin(r);
    } else if (d < 6450) {
        do_get_many(r);
    } else if (d < 9450) {
        do_iter(r);
    } else if (d < 9600) {
        do_scan(r);
    } else if (d < 9800) {
        do_snapshot(r);
    } else if (d < 9860) {
        do_sync(r);
    } else if (d < 9900) {
        do_numbers(r);
    } else if (d < 9940) {
        do_flush(r);
    } else if (d < 9952) {
        do_compact(r);
    } else if (d < 9965) {
        do_keyspace(r);
    } else if (d < 9972) {
        do_pause(r);
    } else if (d < 9980) {
        if (!r->armed) {
            do_reopen(r);
        }
    } else if (d < 9990 && r->fault != NULL && !r->o->no_crash) {
        if (one_in(r, 2) && !r->armed) {
            r->armed = true; /* the disk dies a little later, in the middle of something */
            set_plan(r, 1 + below(r, 200));
        } else {
            r->dead = true;
        }
    }
}

static void draw_shape(struct run *r)
{
    r->disk_kind = r->o->disk;
    if (r->disk_kind == MODEL_DISK_ANY) {
        uint64_t d = below(r, 8);
        r->disk_kind = d < 4 ? MODEL_DISK_MAPPED : d < 7 ? MODEL_DISK_UNMAPPED : MODEL_DISK_OS;
    }
    static const uint64_t budgets[] = {1, 1, 1, 2, 4};
    static const uint32_t intervals[] = {1, 50, 1000, UINT32_MAX};
    static const uint32_t durabilities[] = {LOAM_DUR_MEMORY, LOAM_DUR_PROCESS, LOAM_DUR_PROCESS,
                                            LOAM_DUR_POWER};
    r->default_ks = ks_options(r, MODEL_BYTES);
    r->options = (loam_options){
        .struct_size = sizeof r->options,
        .flags = one_in(r, 4) ? LOAM_OPEN_PARANOID : 0,
        .durability = r->o->durability != 0 ? r->o->durability : durabilities[below(r, 4)],
        .sync_interval_ms = intervals[below(r, 4)],
        .threads = 1 + (uint32_t)below(r, 2),
        .memory_budget = budgets[below(r, 5)] << 20,
        .max_open_files = one_in(r, 2) ? 16 : 0,
        .default_ks = &r->default_ks,
    };
    r->value_max = (uint32_t)(r->options.memory_budget / 4);
    r->value_max = r->value_max < VALUE_CAP ? r->value_max : VALUE_CAP;
    r->hot = 4 + (uint32_t)below(r, 60);
    r->orders = !r->o->byte_order && one_in(r, 2);
}

static void make_disk(struct run *r)
{
    if (r->disk_kind != MODEL_DISK_OS) {
        CHECK_EQ(loam_vfs_memory(&r->disk), LOAM_OK);
        wrap_disk(r);
        snprintf(r->dir, sizeof r->dir, "/db");
        return;
    }
    const char *tmp = getenv("TMPDIR");
    char base[200];
    snprintf(base, sizeof base, "%s/loam-model-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(base) != NULL);
    snprintf(r->dir, sizeof r->dir, "%s", base);
}

/* Removes the database; nothing of it may be left. */
static void remove_db(struct run *r)
{
    r->what = "destroy";
    fine(r, loam_destroy(r->dir, &r->options));
    loam_options o = r->options;
    o.flags = LOAM_OPEN_MUST_EXIST;
    loam_db *db;
    int rc = loam_open(r->dir, &o, &db);
    if (rc != LOAM_E_NOENT) {
        MISMATCH(r, "open of a destroyed database returned %d", rc);
    }
    if (r->disk_kind == MODEL_DISK_OS && access(r->dir, F_OK) == 0) {
        MISMATCH(r, "destroy left the directory");
    }
}

void model_run_episode(const struct model_run_options *o, struct model_run_counts *counts)
{
    struct run *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->o = o;
    r->counts = counts;
    r->what = "open";
    random_init(&r->rng, o->seed);
    r->buffer = malloc(VALUE_CAP);
    CHECK(r->buffer != NULL);
    draw_shape(r);
    model_init(&r->m, random_next(&r->rng), KEYS);
    model_commit(&r->m, 0); /* commit 1 is the empty database */
    CHECK_EQ(model_ks_add(&r->m, "default", MODEL_BYTES), 0);
    make_disk(r);
    if (o->verbose) {
        fprintf(stderr, "episode %" PRIu64 ": disk %d, durability %u, budget %" PRIu64 " MiB\n",
                o->seed, (int)r->disk_kind, r->options.durability, r->options.memory_budget >> 20);
    }
    fine(r, open_db(r));
    r->durable = r->m.now;
    for (r->op = 0; r->op < o->ops; r->op++) {
        step(r);
        if (r->dead) {
            crash(r);
        } else if (one_in(r, 4000) && !r->armed) {
            check_all(r);
        }
        counts->ops++;
    }
    if (r->armed) {
        crash(r);
    }
    do_reopen(r);
    fine(r, close_db(r));
    remove_db(r);
    loam_batch_free(r->batch);
    loam_vfs_free(r->fault);
    loam_vfs_free(r->disk);
    model_free(&r->m);
    free(r->buffer);
    free(r);
    epoch_synchronize(); /* what closed handles retired is gone before leaks are counted */
    counts->episodes++;
}

static uint64_t seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

void model_run_many(const struct model_run_options *o, uint64_t seconds,
                    struct model_run_counts *counts)
{
    struct random seeds;
    random_init(&seeds, o->seed);
    uint64_t start = seconds_now();
    uint64_t left = o->ops;
    while (seconds != 0 ? seconds_now() - start < seconds : left != 0) {
        struct model_run_options one = *o;
        one.seed = random_next(&seeds) >> 16;
        one.ops = 2000 + random_below(&seeds, 12000);
        if (seconds == 0) {
            one.ops = one.ops < left ? one.ops : left;
            left -= one.ops;
        }
        model_run_episode(&one, counts);
    }
}

uint64_t model_run_seed(void)
{
    const char *text = getenv("LOAM_SEED");
    uint64_t seed;
    if (text != NULL) {
        seed = strtoull(text, NULL, 0);
    } else {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        seed = ((uint64_t)t.tv_sec << 20 ^ (uint64_t)t.tv_nsec) & UINT32_MAX;
    }
    fprintf(stderr, "LOAM_SEED=%" PRIu64 "\n", seed);
    return seed;
}
