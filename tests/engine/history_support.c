/* history_support.c - Calls whose histories are recorded, and the lives of the database they are made on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/engine/history_support.h"

static uint64_t fresh_id(struct world *w, unsigned thread)
{
    return ((uint64_t)(thread + 1) << 40) | ++w->next_id[thread];
}

static loam_ks *space_of(const struct world *w, uint32_t key)
{
    return w->split ? w->space[key % 2] : NULL;
}

/* ---- single operations ------------------------------------------------------------------------- */

/* What a durable write says of itself and of all before it; an empty batch says nothing. */
static void promise_write(struct world *w, unsigned thread, uint32_t flags, uint64_t seq,
                          uint64_t inv, uint64_t res)
{
    bool durable = (flags & LOAM_W_DURABLE) != 0 ||
                   (w->durability == LOAM_DUR_POWER && (flags & LOAM_W_RELAXED) == 0);
    if (durable && seq != 0 && w->durability != LOAM_DUR_MEMORY) {
        history_promise(&w->history, thread, seq, inv, res);
    }
}

void world_write(struct world *w, unsigned thread, uint32_t key, bool put, uint32_t flags)
{
    uint8_t bytes[LOAD_VALUE_MAX];
    uint64_t id = put ? fresh_id(w, thread) : 0;
    size_t n = put ? load_value_make(id, bytes) : 0;
    struct load_key k = load_key_of(key);
    uint64_t seq = 0;
    loam_write_opts o = {.struct_size = sizeof o, .seq = &seq, .flags = flags};
    uint64_t inv = history_now();
    int rc = put ? loam_put(w->db, space_of(w, key), load_key_slice(&k), loam_bytes(bytes, n), &o)
                 : loam_delete(w->db, space_of(w, key), load_key_slice(&k), &o);
    uint64_t res = history_now();
    if (rc == LOAM_E_BUSY && (flags & LOAM_W_NOWAIT) != 0) {
        return; /* not admitted: nothing was written */
    }
    GOES(rc);
    history_write(&w->history, thread, key, id, seq, seq, inv, res);
    promise_write(w, thread, flags, seq, inv, res);
}

uint64_t world_read(struct world *w, uint32_t key, const loam_snap *snap, uint64_t *seq)
{
    uint8_t bytes[LOAD_VALUE_MAX];
    size_t n = 0;
    struct load_key k = load_key_of(key);
    *seq = 0;
    loam_read_opts o = {.struct_size = sizeof o, .snap = snap, .seq = seq};
    int rc = loam_get(w->db, space_of(w, key), load_key_slice(&k), bytes, sizeof bytes, &n, &o);
    if (rc == LOAM_NOTFOUND) {
        CHECK_EQ(*seq, 0);
        return 0;
    }
    GOES(rc);
    return load_value_id(loam_bytes(bytes, n));
}

void world_get(struct world *w, unsigned thread, uint32_t key)
{
    uint64_t seq;
    uint64_t inv = history_now();
    uint64_t id = world_read(w, key, NULL, &seq);
    history_read(&w->history, thread, key, id, seq, inv, history_now());
}

/* ---- batches ----------------------------------------------------------------------------------- */

/* One id for some of the keys, or for all; now and then a batch of deletes. */
void world_batch(struct world *w, unsigned thread, struct random *r, loam_batch *b,
                        uint32_t flags)
{
    uint8_t bytes[LOAD_VALUE_MAX];
    bool put = random_below(r, 8) != 0;
    uint64_t id = put ? fresh_id(w, thread) : 0;
    size_t n = put ? load_value_make(id, bytes) : 0;
    uint32_t keys[KEYS_MAX];
    uint32_t count = 0;
    bool all = random_below(r, 2) != 0;
    loam_batch_clear(b);
    for (uint32_t k = 0; k < w->keys; k++) {
        if (!all && random_below(r, 2) == 0) {
            continue;
        }
        struct load_key key = load_key_of(k);
        if (put) {
            GOES(loam_batch_put(b, space_of(w, k), load_key_slice(&key), loam_bytes(bytes, n)));
        } else {
            GOES(loam_batch_delete(b, space_of(w, k), load_key_slice(&key)));
        }
        keys[count++] = k;
    }
    uint64_t seq = 0;
    loam_write_opts o = {.struct_size = sizeof o, .seq = &seq, .flags = flags};
    uint64_t inv = history_now();
    GOES(loam_write(w->db, b, &o));
    uint64_t res = history_now();
    for (uint32_t i = 0; i < count; i++) {
        history_write(&w->history, thread, keys[i], id, seq + i, seq, inv, res);
    }
    promise_write(w, thread, flags, seq, inv, res);
}

/* ---- cuts -------------------------------------------------------------------------------------- */

/* The keys of one keyspace: all, or those that leave `rest` modulo 2. */
static void get_many(struct world *w, const loam_snap *snap, uint32_t rest, uint64_t *seen)
{
    struct load_key keys[KEYS_MAX];
    loam_slice slices[KEYS_MAX];
    loam_pin pins[KEYS_MAX];
    int rcs[KEYS_MAX];
    uint32_t numbers[KEYS_MAX];
    size_t n = 0;
    for (uint32_t k = 0; k < w->keys; k++) {
        if (w->split && k % 2 != rest) {
            continue;
        }
        keys[n] = load_key_of(k);
        slices[n] = load_key_slice(&keys[n]);
        pins[n] = (loam_pin)LOAM_PIN_INIT;
        numbers[n++] = k;
    }
    loam_read_opts o = {.struct_size = sizeof o, .snap = snap};
    GOES(loam_get_many(w->db, space_of(w, rest), slices, n, pins, rcs, &o));
    for (size_t i = 0; i < n; i++) {
        CHECK(rcs[i] == LOAM_OK || rcs[i] == LOAM_NOTFOUND);
        seen[numbers[i]] = rcs[i] == LOAM_OK ? load_value_id(pins[i].value) : 0;
        loam_unpin(&pins[i]);
    }
}

static int take_entry(void *ctx, loam_slice key, loam_slice value)
{
    uint64_t *seen = ctx;
    seen[load_key_number(key)] = load_value_id(value);
    return 0;
}

static void scan(struct world *w, const loam_snap *snap, uint32_t rest, uint64_t *seen)
{
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    GOES(loam_scan(w->db, space_of(w, rest), &o, 0, take_entry, seen));
}

/* The whole range through an open iterator; keys must come in order. */
void world_walk(loam_iter *it, bool backward, uint64_t *seen)
{
    int64_t last = backward ? INT64_MAX : -1;
    int rc = backward ? loam_iter_last(it) : loam_iter_first(it);
    for (; rc == LOAM_OK; rc = backward ? loam_iter_prev(it) : loam_iter_next(it)) {
        int64_t key = (int64_t)load_key_number(loam_iter_key(it));
        CHECK(backward ? key < last : key > last);
        last = key;
        seen[key] = load_value_id(loam_iter_value(it));
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
}

static void iterate(struct world *w, const loam_snap *snap, uint32_t rest, bool backward,
                    uint64_t *seen)
{
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    loam_iter *it;
    GOES(loam_iter_open(w->db, space_of(w, rest), &o, &it));
    world_walk(it, backward, seen);
    loam_iter_close(it);
}

/* Reads every key, in one of five ways. */
void world_read_all(struct world *w, const loam_snap *snap, unsigned way, uint64_t *seen)
{
    uint64_t seq;
    memset(seen, 0, w->keys * sizeof *seen);
    for (uint32_t rest = 0; rest < (w->split ? 2u : 1u); rest++) {
        switch (way) {
        case 0:
            get_many(w, snap, rest, seen);
            break;
        case 1:
            scan(w, snap, rest, seen);
            break;
        case 2:
        case 3:
            iterate(w, snap, rest, way == 3, seen);
            break;
        default:
            for (uint32_t k = rest; k < w->keys; k += w->split ? 2 : 1) {
                seen[k] = world_read(w, k, snap, &seq);
            }
            break;
        }
    }
}

/* Without a snapshot one call sees one state; only calls on one keyspace do. */
void world_cut(struct world *w, unsigned thread, struct random *r)
{
    uint64_t seen[KEYS_MAX];
    uint64_t inv = history_now();
    world_read_all(w, NULL, (unsigned)random_below(r, 4), seen);
    uint64_t res = history_now();
    memcpy(history_cut(&w->history, thread, UINT64_MAX, inv, res), seen, w->keys * sizeof *seen);
}

/* Two readings of one snapshot, with writes, flushes and merges of others between them. */
void world_cut_snapshot(struct world *w, unsigned thread, struct random *r)
{
    uint64_t seen[KEYS_MAX], again[KEYS_MAX];
    loam_snap *snap;
    uint64_t inv = history_now();
    GOES(loam_snap_take(w->db, &snap));
    uint64_t res = history_now();
    world_read_all(w, snap, (unsigned)random_below(r, 5), seen);
    if (random_below(r, 4) == 0) {
        thread_sleep_micros(random_below(r, 3000));
    } else {
        thread_yield();
    }
    world_read_all(w, snap, (unsigned)random_below(r, 5), again);
    for (uint32_t k = 0; k < w->keys; k++) {
        CHECK_EQ(seen[k], again[k]);
    }
    memcpy(history_cut(&w->history, thread, loam_snap_seq(snap), inv, res), seen,
           w->keys * sizeof *seen);
    loam_snap_release(snap);
}

/* ---- promises ---------------------------------------------------------------------------------- */

void world_promise(struct world *w, unsigned thread, struct random *r)
{
    uint64_t number = 0;
    uint64_t inv = history_now();
    switch (w->durability == LOAM_DUR_MEMORY ? 0 : random_below(r, 8)) {
    case 0:
        GOES(loam_flush(w->db, NULL));
        break;
    case 1:
    case 2:
    case 3:
        GOES(loam_sync(w->db));
        break;
    default:
        number = loam_durable_seq(w->db);
        inv = 0; /* it speaks of what it names alone */
        break;
    }
    history_promise(&w->history, thread, number, inv, history_now());
}

uint32_t world_flags(const struct world *w, struct random *r)
{
    if (w->durability == LOAM_DUR_MEMORY) {
        return 0;
    }
    bool odd = random_below(r, w->odds != 0 ? w->odds : 16) == 0;
    return w->durability == LOAM_DUR_POWER ? (odd ? 0 : LOAM_W_RELAXED)
                                           : (odd ? LOAM_W_DURABLE : 0);
}

/* ---- everything at once ------------------------------------------------------------------------ */

void world_mixed_member(struct crew_member *m)
{
    struct world *w = m->shared;
    struct random r;
    random_init(&r, m->seed);
    loam_batch *b = loam_batch_new(0);
    CHECK(b != NULL);
    for (uint64_t i = 0; i < w->steps && !world_stopped(w); i++) {
        uint32_t key = (uint32_t)random_below(&r, w->keys);
        uint64_t dice = random_below(&r, 100);
        if (dice < 36) {
            world_write(w, m->index, key, true, world_flags(w, &r));
        } else if (dice < 46) {
            world_write(w, m->index, key, false, world_flags(w, &r));
        } else if (dice < 49) {
            world_write(w, m->index, key, true, world_flags(w, &r) | LOAM_W_NOWAIT);
        } else if (dice < 53) {
            world_batch(w, m->index, &r, b, world_flags(w, &r));
        } else if (dice < 54) {
            world_promise(w, m->index, &r);
        } else if (dice < 97) {
            world_get(w, m->index, key);
        } else if (dice < 99 && !w->split) {
            world_cut(w, m->index, &r);
        } else {
            world_cut_snapshot(w, m->index, &r);
        }
        watchdog_beat(&w->dog, m->index);
    }
    loam_batch_free(b);
    watchdog_rest(&w->dog, m->index);
}

/* ---- lives ------------------------------------------------------------------------------------- */

void world_begin(struct world *w, unsigned threads, bool memory)
{
    load_disk_init(&w->disk, memory);
    history_init(&w->history, threads, w->keys);
    w->next_id = calloc(threads, sizeof *w->next_id);
    CHECK(w->next_id != NULL);
    w->sum = (struct history_summary){0};
    w->jobs = 0;
    w->lived = false;
}

/* What is there before anybody writes. */
static void meet(struct world *w)
{
    struct history_version found[KEYS_MAX] = {{0, 0, 0}};
    for (uint32_t k = 0; k < w->keys; k++) {
        found[k].value = world_read(w, k, NULL, &found[k].seq);
    }
    history_restart(&w->history, &w->end, found, &w->sum);
}

void world_open(struct world *w)
{
    loam_options o = small_options(NULL);
    o.durability = w->durability;
    o.sync_interval_ms = w->sync_interval_ms;
    w->db = load_open(&w->disk, &o);
    if (w->split) {
        GOES(loam_ks_open(w->db, "even", NULL, &w->space[0]));
        GOES(loam_ks_open(w->db, "odd", NULL, &w->space[1]));
    }
    if (w->lived) {
        meet(w);
    }
    w->lived = true;
    atomic_store_explicit(&w->stop, false, memory_order_relaxed);
}

/* Nobody calls any more, but for releases. */
static void let_go(struct world *w)
{
    loam_ks_release(w->space[0]);
    loam_ks_release(w->space[1]);
    w->space[0] = w->space[1] = NULL;
}

void world_close(struct world *w)
{
    w->end = (struct history_end){.inv = history_now(), .res = UINT64_MAX};
    GOES(loam_close(w->db));
    let_go(w);
}

void world_cut_off(struct world *w, uint64_t variant)
{
    bool killed = variant == LOAM_CUT_ALL;
    w->end.promised_only = !killed || w->durability == LOAM_DUR_MEMORY;
    w->end.inv = history_now();
    load_cut(&w->disk, variant);
    w->end.res = history_now();
}

void world_reboot(struct world *w)
{
    load_reboot(&w->disk, w->db);
    let_go(w);
}

void world_end(struct world *w, const char *what)
{
    struct history_summary *s = &w->sum;
    history_check(&w->history, s);
    printf("    %s: %u threads, %" PRIu64 " writes, %" PRIu64 " reads, %" PRIu64 " cuts, %" PRIu64
           " writes lost, %" PRIu64 " janitor jobs\n",
           what, w->history.threads, s->writes, s->reads, s->cuts, s->lost, w->jobs);
    fflush(stdout);
    stress_ops += s->writes + s->reads + s->cuts;
    history_free(&w->history);
    free(w->next_id);
    load_disk_free(&w->disk);
}
