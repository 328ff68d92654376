/* crash_workload.c - Runs random sessions and dates what each call begins and promises.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/crash_workload.h"

#include <string.h>

#define BATCH_MAX 12u
/* Of a long batch: more than a memtable of the smallest budget, up to more than a reader of the log takes at once,
 * and less than half of that budget. */
#define LONG_BYTES 130000u
#define LONG_MORE  100000u
#define LONG_ONE_IN 6u /* steps */
#define LARGER_BUDGET ((uint64_t)6 << 20)

loam_options crash_options(const loam_vfs *vfs)
{
    return (loam_options){
        .struct_size = sizeof(loam_options),
        .memory_budget = 1 << 20,
        .sync_interval_ms = UINT32_MAX,
        .threads = 1,
        .vfs = vfs,
    };
}

static uint32_t below(struct crash_workload *w, uint32_t n)
{
    return model_below(&w->seed, n);
}

static bool done(struct crash_workload *w, int rc, const char *what)
{
    if (rc < 0) {
        snprintf(w->why, sizeof w->why, "%s gives %d: %s", what, rc, loam_last_error()->message);
    }
    return rc >= 0;
}

/* ---- writes ------------------------------------------------------------------------------------ */

/* An identity whose value is a big one, or not. */
static uint32_t new_value(struct model *m, bool big)
{
    if (big) {
        m->next_value |= 63;
    } else if (m->next_value % 64 == 63) {
        m->next_value++;
    }
    return m->next_value++;
}

static unsigned some_space(struct crash_workload *w)
{
    for (;;) {
        unsigned s = below(w, MODEL_SPACES);
        if (s == 0 || w->ks[s] != NULL) {
            return s;
        }
    }
}

/* How long the values of a write are; LONG: a batch of many big ones. */
enum length { PLAIN, BIG, LONG };

static bool write_some(struct crash_workload *w, enum length length)
{
    uint8_t bytes[MODEL_VALUE_MAX + 8];
    struct model *m = w->model;
    bool durable = below(w, w->durable_one_in) == 0 && !w->unlogged;
    bool asked = durable && w->durable_one_in != 1; /* else the database says it for all */
    const loam_write_opts opts = {.struct_size = sizeof opts, .flags = asked ? LOAM_W_DURABLE : 0};
    size_t least = length == LONG ? LONG_BYTES + (size_t)below(w, 3) * LONG_MORE : 0, put = 0;
    unsigned n = length == LONG || below(w, 3) == 0 ? 2 + below(w, BATCH_MAX - 1) : 1;
    loam_batch *batch = n > 1 ? loam_batch_new(0) : NULL;
    struct model_state *next = model_next_state(m);
    if (n > 1) {
        model_begun(m, loam_recording_mark(w->rec), false);
    }
    int rc = LOAM_OK;
    for (unsigned i = 0; i < n || put < least; i++) {
        unsigned s = some_space(w), k = below(w, MODEL_KEYS);
        bool big = length == LONG || (length == BIG && i == 0);
        uint32_t value = below(w, 4) == 0 ? 0 : new_value(m, big);
        loam_slice bytes_of = value != 0 ? model_value(value, bytes) : loam_bytes(NULL, 0);
        next->value[s][k] = value;
        put += bytes_of.size;
        if (n > 1) {
            rc = value != 0 ? loam_batch_put(batch, w->ks[s], model_key(k), bytes_of)
                            : loam_batch_delete(batch, w->ks[s], model_key(k));
        } else {
            model_begun(m, loam_recording_mark(w->rec), false);
            rc = value != 0 ? loam_put(w->db, w->ks[s], model_key(k), bytes_of, &opts)
                            : loam_delete(w->db, w->ks[s], model_key(k), &opts);
        }
    }
    if (n > 1) {
        rc = rc >= 0 ? loam_write(w->db, batch, &opts) : rc;
        loam_batch_free(batch);
    }
    if (!done(w, rc, "a write")) {
        return false;
    }
    model_acked(m, loam_recording_mark(w->rec), false, durable);
    return true;
}

/* One in `big_one_in` has a value of up to MODEL_VALUE_MAX bytes; 0: none. */
static bool write_many(struct crash_workload *w, unsigned n, unsigned big_one_in)
{
    for (unsigned i = 0; i < n; i++) {
        if (!write_some(w, big_one_in != 0 && below(w, big_one_in) == 0 ? BIG : PLAIN)) {
            return false;
        }
    }
    return true;
}

/* ---- keyspaces --------------------------------------------------------------------------------- */

/* Short names and long ones, which make the manifest grow. */
static void new_name(struct crash_workload *w, char name[MODEL_NAME])
{
    size_t n = !w->many_names && below(w, 2) == 0 ? 3 + below(w, 8) : 150 + below(w, 100);
    for (size_t i = 0; i < n; i++) {
        name[i] = (char)('a' + below(w, 26));
    }
    name[n] = '\0';
}

static bool control_begin(struct crash_workload *w)
{
    model_begun(w->model, loam_recording_mark(w->rec), true);
    return true;
}

static bool control_end(struct crash_workload *w, int rc, const char *what)
{
    if (!done(w, rc, what)) {
        return false;
    }
    model_acked(w->model, loam_recording_mark(w->rec), true, false);
    return true;
}

static bool ks_create(struct crash_workload *w)
{
    struct model *m = w->model;
    if (m->spaces == MODEL_SPACES) {
        return true;
    }
    unsigned s = m->spaces++;
    char name[MODEL_NAME];
    new_name(w, name);
    memcpy(model_next_names(m)->name[s], name, sizeof name);
    control_begin(w);
    return control_end(w, loam_ks_open(w->db, name, model_ks_options(s), &w->ks[s]),
                       "creating a keyspace");
}

/* A keyspace other than "default", or 0. */
static unsigned other_space(struct crash_workload *w)
{
    unsigned start = below(w, MODEL_SPACES);
    for (unsigned i = 0; i < MODEL_SPACES; i++) {
        unsigned s = (start + i) % MODEL_SPACES;
        if (s != 0 && w->ks[s] != NULL) {
            return s;
        }
    }
    return 0;
}

static bool ks_drop(struct crash_workload *w)
{
    unsigned s = other_space(w);
    if (s == 0) {
        return true;
    }
    char name[MODEL_NAME];
    struct model_names *next = model_next_names(w->model);
    memcpy(name, next->name[s], sizeof name);
    next->name[s][0] = '\0';
    control_begin(w);
    loam_ks_release(w->ks[s]);
    w->ks[s] = NULL;
    return control_end(w, loam_ks_drop(w->db, name), "dropping a keyspace");
}

static bool ks_rename(struct crash_workload *w)
{
    unsigned s = other_space(w);
    if (s == 0) {
        return true;
    }
    char from[MODEL_NAME], to[MODEL_NAME];
    struct model_names *next = model_next_names(w->model);
    memcpy(from, next->name[s], sizeof from);
    new_name(w, to);
    memcpy(next->name[s], to, sizeof to);
    control_begin(w);
    return control_end(w, loam_ks_rename(w->db, from, to), "renaming a keyspace");
}

/* ---- the rest ---------------------------------------------------------------------------------- */

static bool session_open(struct crash_workload *w)
{
    loam_options options = crash_options(w->vfs);
    options.memory_budget = w->larger ? LARGER_BUDGET : options.memory_budget;
    bool all_durable = below(w, 8) == 0;
    options.durability = all_durable ? LOAM_DUR_POWER : LOAM_DUR_DEFAULT;
    w->durable_one_in = all_durable ? 1 : below(w, 3) == 0 ? 40 : 4;
    w->unlogged = w->unlogged_some && below(w, 2) == 0;
    options.durability = w->unlogged ? LOAM_DUR_MEMORY : options.durability;
    model_session(w->model, w->unlogged);
    if (!done(w, loam_open(CRASH_DIR, &options, &w->db), "open")) {
        return false;
    }
    model_opened(w->model, loam_recording_mark(w->rec));
    const struct model_names *names = &w->model->controls[w->model->controls_last];
    for (unsigned s = 1; s < MODEL_SPACES; s++) {
        if (names->name[s][0] != '\0' &&
            !done(w, loam_ks_open(w->db, names->name[s], model_ks_options(s), &w->ks[s]),
                  "opening a keyspace")) {
            return false;
        }
    }
    return true;
}

static bool session_close(struct crash_workload *w)
{
    for (unsigned s = 1; s < MODEL_SPACES; s++) {
        loam_ks_release(w->ks[s]);
        w->ks[s] = NULL;
    }
    loam_db *db = w->db;
    w->db = NULL;
    if (!done(w, loam_close(db), "close")) {
        return false;
    }
    model_synced(w->model, loam_recording_mark(w->rec));
    return true;
}

static bool synced_by(struct crash_workload *w, int rc, const char *what)
{
    if (!done(w, rc, what)) {
        return false;
    }
    model_synced(w->model, loam_recording_mark(w->rec));
    return true;
}

/* ---- manifests --------------------------------------------------------------------------------- */

struct manifests {
    char newest[32];
    unsigned count;
};

/* Their numbers have the same width: the names are in order. */
static int note_manifest(void *ctx, loam_slice name)
{
    struct manifests *m = ctx;
    char text[sizeof m->newest] = "";
    if (name.size >= sizeof text || name.size < 9 || memcmp(name.data, "MANIFEST-", 9) != 0) {
        return 0;
    }
    memcpy(text, name.data, name.size);
    m->count++;
    if (strcmp(text, m->newest) > 0) {
        memcpy(m->newest, text, sizeof text);
    }
    return 0;
}

unsigned crash_manifests(const loam_vfs *vfs, char newest[32])
{
    struct manifests m = {.count = 0};
    (void)!vfs->list(vfs->ctx, CRASH_DIR, note_manifest, &m); /* no directory yet: none */
    memcpy(newest, m.newest, sizeof m.newest);
    return m.count;
}

/* The first edit of a session begins a manifest; another one that follows was rolled. */
static void note_roll(struct crash_workload *w, uint64_t from)
{
    char newest[sizeof w->manifest];
    crash_manifests(w->vfs, newest);
    if (strcmp(newest, w->manifest) == 0) {
        return;
    }
    if (w->own_manifest && w->roll_count < CRASH_ROLLS_MAX) {
        w->rolls[w->roll_count++] = (struct crash_roll){from, loam_recording_mark(w->rec)};
    }
    w->own_manifest = true;
    memcpy(w->manifest, newest, sizeof newest);
}

/* ---- sessions ---------------------------------------------------------------------------------- */

static bool step(struct crash_workload *w)
{
    if (w->long_batches && below(w, LONG_ONE_IN) == 0) {
        return write_some(w, LONG);
    }
    if (w->many_names && below(w, 4) != 0) {
        return below(w, 4) == 0 ? ks_create(w) : ks_rename(w);
    }
    switch (below(w, 16)) {
    case 0:
    case 1:
        return ks_create(w);
    case 2:
        return ks_rename(w);
    case 3:
        return below(w, 2) != 0 || ks_drop(w);
    case 4:
    case 5:
        return synced_by(w, w->unlogged ? loam_flush(w->db, NULL) : loam_sync(w->db), "sync");
    case 6:
    case 7:
        return synced_by(w, loam_flush(w->db, NULL), "flush");
    case 8: {
        loam_ks *ks = w->ks[some_space(w)];
        loam_slice all = loam_bytes(NULL, 0);
        return synced_by(w, loam_compact(w->db, ks, all, all, 0), "compact");
    }
    case 9:
        return done(w, loam_wait_idle(w->db, 0), "wait");
    case 10:
        /* Fills memtables: the log goes on in its next segment with nothing synced. */
        return write_many(w, 10 + below(w, 30), 2);
    default:
        return write_many(w, 1 + below(w, 10), 40);
    }
}

/* Of a session; now and then nearly none, so that a recovery follows upon a recovery. */
static unsigned steps_of(struct crash_workload *w, bool first)
{
    if (!first && below(w, 4) == 0) {
        return below(w, 3);
    }
    return w->many_names ? 30 + below(w, 30) : w->whole ? 6 + below(w, 18) : 4 + below(w, 8);
}

bool crash_workload_run(struct crash_workload *w)
{
    /* Fewer where each state takes longer: other rounds find more in the same time. */
    bool few = w->long_batches || w->larger_last || w->many_names;
    unsigned sessions = (few ? 1 : 2) + below(w, w->whole && !few ? 3 : 2);
    bool ok = true;
    for (unsigned i = 0; i < sessions && ok; i++) {
        unsigned steps = steps_of(w, i == 0);
        w->larger = w->larger_last && i + 1 == sessions;
        w->own_manifest = false;
        ok = session_open(w);
        note_roll(w, 0);
        for (unsigned k = 0; k < steps && ok; k++) {
            uint64_t from = loam_recording_mark(w->rec);
            ok = step(w);
            note_roll(w, from);
        }
        if (w->larger && ok) {
            /* The log is left with more than memtables of a recovery may hold. */
            ok = write_many(w, 30 + below(w, 30), 1);
        }
        ok = ok && session_close(w);
    }
    if (w->db != NULL) {
        (void)session_close(w);
    }
    return ok;
}
