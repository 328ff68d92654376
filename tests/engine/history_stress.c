/* history_stress.c - Reads and writes of many threads on few keys can be explained by one order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: tests/support/history.h. A tiny budget, a janitor that flushes and merges every few
 * milliseconds, and reopening in between - after a close, or after the process was killed while flushes
 * and merges ran - make every read path meet every change of state.
 *
 * Long runs: loam-stress-engine --ops=100000000 linearizable
 */
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"

#define KEYS_MAX 16u

struct world {
    loam_db *db;
    loam_ks *space[2]; /* odd keys live in space[1] when split */
    bool split;
    uint32_t keys;
    uint64_t steps; /* of each thread */
    struct history history;
    struct watchdog dog;
    uint64_t *next_id; /* by thread; goes on over reopening */
};

static uint64_t fresh_id(struct world *w, unsigned thread)
{
    return ((uint64_t)(thread + 1) << 40) | ++w->next_id[thread];
}

static loam_ks *space_of(const struct world *w, uint32_t key)
{
    return w->split ? w->space[key % 2] : NULL;
}

/* ---- single operations -------------------------------------------------------------------------
 */

static void write_one(struct world *w, unsigned thread, uint32_t key, bool put, uint32_t flags)
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
}

static uint64_t read_one(struct world *w, uint32_t key, const loam_snap *snap, uint64_t *seq)
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

static void get_one(struct world *w, unsigned thread, uint32_t key)
{
    uint64_t seq;
    uint64_t inv = history_now();
    uint64_t id = read_one(w, key, NULL, &seq);
    history_read(&w->history, thread, key, id, seq, inv, history_now());
}

/* ---- batches ----------------------------------------------------------------------------------- */

/* One id for some of the keys, or for all; now and then a batch of deletes. */
static void write_batch(struct world *w, unsigned thread, struct random *r, loam_batch *b,
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
}

/* ---- cuts --------------------------------------------------------------------------------------
 */

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
static void walk(loam_iter *it, bool backward, uint64_t *seen)
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
    walk(it, backward, seen);
    loam_iter_close(it);
}

/* Reads every key, in one of five ways. */
static void read_all(struct world *w, const loam_snap *snap, unsigned way, uint64_t *seen)
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
                seen[k] = read_one(w, k, snap, &seq);
            }
            break;
        }
    }
}

/* Without a snapshot one call sees one state; only calls on one keyspace do. */
static void cut_now(struct world *w, unsigned thread, struct random *r)
{
    uint64_t seen[KEYS_MAX];
    uint64_t inv = history_now();
    read_all(w, NULL, (unsigned)random_below(r, 4), seen);
    uint64_t res = history_now();
    memcpy(history_cut(&w->history, thread, UINT64_MAX, inv, res), seen, w->keys * sizeof *seen);
}

/* Two readings of one snapshot, with writes, flushes and merges of others between them. */
static void cut_snapshot(struct world *w, unsigned thread, struct random *r)
{
    uint64_t seen[KEYS_MAX], again[KEYS_MAX];
    loam_snap *snap;
    uint64_t inv = history_now();
    GOES(loam_snap_take(w->db, &snap));
    uint64_t res = history_now();
    read_all(w, snap, (unsigned)random_below(r, 5), seen);
    if (random_below(r, 4) == 0) {
        thread_sleep_micros(random_below(r, 3000));
    } else {
        thread_yield();
    }
    read_all(w, snap, (unsigned)random_below(r, 5), again);
    for (uint32_t k = 0; k < w->keys; k++) {
        CHECK_EQ(seen[k], again[k]);
    }
    memcpy(history_cut(&w->history, thread, loam_snap_seq(snap), inv, res), seen,
           w->keys * sizeof *seen);
    loam_snap_release(snap);
}

/* ---- everything at once ------------------------------------------------------------------------ */

static void mixed_member(struct crew_member *m)
{
    struct world *w = m->shared;
    struct random r;
    random_init(&r, m->seed);
    loam_batch *b = loam_batch_new(0);
    CHECK(b != NULL);
    for (uint64_t i = 0; i < w->steps; i++) {
        uint32_t key = (uint32_t)random_below(&r, w->keys);
        uint64_t dice = random_below(&r, 100);
        if (dice < 36) {
            write_one(w, m->index, key, true, 0);
        } else if (dice < 46) {
            write_one(w, m->index, key, false, 0);
        } else if (dice < 49) {
            write_one(w, m->index, key, true, LOAM_W_NOWAIT);
        } else if (dice < 53) {
            write_batch(w, m->index, &r, b, 0);
        } else if (dice < 97) {
            get_one(w, m->index, key);
        } else if (dice < 99) {
            cut_now(w, m->index, &r);
        } else {
            cut_snapshot(w, m->index, &r);
        }
        watchdog_beat(&w->dog, m->index);
    }
    loam_batch_free(b);
    watchdog_rest(&w->dog, m->index);
}

static void open_spaces(struct world *w)
{
    if (w->split) {
        GOES(loam_ks_open(w->db, "even", NULL, &w->space[0]));
        GOES(loam_ks_open(w->db, "odd", NULL, &w->space[1]));
    }
}

static void report(const char *what, const struct history_summary *s, unsigned threads,
                   uint64_t jobs)
{
    printf("    %s: %u threads, %" PRIu64 " writes, %" PRIu64 " reads, %" PRIu64 " cuts, %" PRIu64
           " janitor jobs\n",
           what, threads, s->writes, s->reads, s->cuts, jobs);
    fflush(stdout);
    stress_ops += s->writes + s->reads + s->cuts;
}

/* Runs the crew `rounds` times over one directory, with a close or a kill and an open between two rounds,
 * and judges all of it as one history. */
static void run_rounds(const char *what, crew_fn *fn, struct world *w, unsigned threads,
                       unsigned rounds, bool memory, uint64_t seed)
{
    struct load_disk disk;
    load_disk_init(&disk, memory);
    if (memory) {
        load_make_mortal(&disk);
    }
    history_init(&w->history, threads, w->keys);
    w->next_id = calloc(threads, sizeof *w->next_id);
    CHECK(w->next_id != NULL);
    uint64_t jobs = 0;
    for (unsigned round = 0; round < rounds; round++) {
        w->db = load_open(&disk, NULL);
        open_spaces(w);
        struct janitor j;
        janitor_start(&j, w->db, 2000, splitmix64(&seed));
        watchdog_start(&w->dog, what);
        crew_run(threads, fn, w, splitmix64(&seed));
        watchdog_stop(&w->dog);
        janitor_stop(&j);
        jobs += j.jobs;
        if (memory && splitmix64(&seed) % 2 == 0) {
            load_kill(&disk, w->db);
        } else {
            GOES(loam_close(w->db));
        }
        loam_ks_release(w->space[0]);
        loam_ks_release(w->space[1]);
        w->space[0] = w->space[1] = NULL;
    }
    struct history_summary s = history_check(&w->history);
    report(what, &s, threads, jobs);
    history_free(&w->history);
    free(w->next_id);
    load_disk_free(&disk);
}

STRESS(engine, reads_and_writes_are_linearizable)
{
    for (unsigned threads = 2; threads <= 8; threads += threads < 4 ? 1 : 2) {
        struct world w = {.keys = 3, .steps = 4800 / threads * stress_scale};
        run_rounds("history in memory", mixed_member, &w, threads, 3, true, splitmix64(&seed));
    }
}

STRESS(engine, reads_and_writes_are_linearizable_on_a_real_disk)
{
    struct world w = {.keys = 4, .steps = 1000 * stress_scale};
    run_rounds("history on disk", mixed_member, &w, 6, 2, false, splitmix64(&seed));
}

/* ---- batches and cuts -------------------------------------------------------------------------- */

static void batch_member(struct crew_member *m)
{
    struct world *w = m->shared;
    struct random r;
    random_init(&r, m->seed);
    loam_batch *b = loam_batch_new(0);
    CHECK(b != NULL);
    for (uint64_t i = 0; i < w->steps; i++) {
        uint64_t dice = random_below(&r, 100);
        if (dice < 45) {
            write_batch(w, m->index, &r, b, 0);
        } else if (dice < 55) {
            get_one(w, m->index, (uint32_t)random_below(&r, w->keys));
        } else if (dice < 85 && !w->split) {
            cut_now(w, m->index, &r);
        } else {
            cut_snapshot(w, m->index, &r);
        }
        watchdog_beat(&w->dog, m->index);
    }
    loam_batch_free(b);
    watchdog_rest(&w->dog, m->index);
}

STRESS(engine, batches_are_seen_whole)
{
    struct world w = {.keys = 8, .steps = 500 * stress_scale};
    run_rounds("batches", batch_member, &w, 6, 2, true, splitmix64(&seed));
}

STRESS(engine, batches_over_two_keyspaces_are_seen_whole)
{
    struct world w = {.keys = 8, .steps = 400 * stress_scale, .split = true};
    run_rounds("batches in two keyspaces", batch_member, &w, 4, 2, true, splitmix64(&seed));
}

/* ---- iterators held long -----------------------------------------------------------------------
 */

#define HELD 4u

/* An iterator that has been open for a while, what it saw first, and the key it stands on. */
struct held {
    loam_iter *it;
    uint64_t seen[KEYS_MAX];
    int64_t at; /* key; -1: on none */
};

static void hold_open(struct world *w, unsigned thread, struct random *r, struct held *h)
{
    loam_snap *snap;
    uint64_t inv = history_now();
    GOES(loam_snap_take(w->db, &snap));
    uint64_t res = history_now();
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    if (h->it == NULL) {
        GOES(loam_iter_open(w->db, NULL, &o, &h->it));
    } else {
        GOES(loam_iter_refresh(h->it, snap));
    }
    h->at = -1;
    read_all(w, snap, (unsigned)random_below(r, 5), h->seen);
    memcpy(history_cut(&w->history, thread, loam_snap_seq(snap), inv, res), h->seen,
           w->keys * sizeof *h->seen);
    loam_snap_release(snap); /* the iterator holds the number by itself */
}

/* The key that follows `at` in this direction in what the iterator saw; -1: none. */
static int64_t neighbour(const struct world *w, const struct held *h, int64_t at, bool backward)
{
    for (;;) {
        at += backward ? -1 : 1;
        if (at < 0 || at >= (int64_t)w->keys) {
            return -1;
        }
        if (h->seen[at] != 0) {
            return at;
        }
    }
}

static void expect_at(struct held *h, int rc, int64_t key)
{
    h->at = key;
    if (key < 0) {
        CHECK_EQ(rc, LOAM_NOTFOUND);
        return;
    }
    GOES(rc);
    CHECK_EQ(load_key_number(loam_iter_key(h->it)), key);
    CHECK_EQ(load_value_id(loam_iter_value(h->it)), h->seen[key]);
}

static void hold_move(struct world *w, struct random *r, struct held *h)
{
    uint32_t key = (uint32_t)random_below(r, w->keys);
    struct load_key k = load_key_of(key);
    uint64_t seen[KEYS_MAX] = {0};
    switch (random_below(r, 6)) {
    case 0:
        expect_at(h, loam_iter_seek(h->it, load_key_slice(&k)),
                  neighbour(w, h, (int64_t)key - 1, false));
        break;
    case 1:
        expect_at(h, loam_iter_seek_le(h->it, load_key_slice(&k)),
                  neighbour(w, h, (int64_t)key + 1, true));
        break;
    case 2:
        walk(h->it, random_below(r, 2) != 0, seen);
        for (uint32_t i = 0; i < w->keys; i++) {
            CHECK_EQ(seen[i], h->seen[i]);
        }
        h->at = -1;
        break;
    case 3:
        expect_at(h, loam_iter_prev(h->it), h->at < 0 ? -1 : neighbour(w, h, h->at, true));
        break;
    default:
        expect_at(h, loam_iter_next(h->it), h->at < 0 ? -1 : neighbour(w, h, h->at, false));
        break;
    }
}

static void holding_member(struct crew_member *m)
{
    struct world *w = m->shared;
    struct random r;
    random_init(&r, m->seed);
    struct held held[HELD] = {{0}};
    for (uint64_t i = 0; i < w->steps; i++) {
        struct held *h = &held[random_below(&r, HELD)];
        uint64_t dice = random_below(&r, 100);
        if (h->it == NULL || dice < 2) {
            hold_open(w, m->index, &r, h);
        } else if (dice < 3) {
            loam_iter_close(h->it);
            h->it = NULL;
        } else if (dice < 50) {
            hold_move(w, &r, h);
        } else {
            write_one(w, m->index, (uint32_t)random_below(&r, w->keys), dice < 85, 0);
        }
        watchdog_beat(&w->dog, m->index);
    }
    for (unsigned i = 0; i < HELD; i++) {
        loam_iter_close(held[i].it);
    }
    watchdog_rest(&w->dog, m->index);
}

STRESS(engine, F10_F11_held_iterators_keep_their_moment)
{
    struct world w = {.keys = KEYS_MAX, .steps = 3000 * stress_scale};
    run_rounds("held iterators", holding_member, &w, 4, 1, true, splitmix64(&seed));
}

/* ---- threads that come and go
 * -------------------------------------------------------------------- */

struct life {
    struct crew_member member;
    pthread_t thread;
};

static void *short_life(void *arg)
{
    struct life *l = arg;
    struct world *w = l->member.shared;
    struct random r;
    random_init(&r, l->member.seed);
    for (unsigned i = 0; i < 100; i++) {
        uint32_t key = (uint32_t)random_below(&r, w->keys);
        uint64_t dice = random_below(&r, 100);
        if (dice < 50) {
            write_one(w, l->member.index, key, dice < 40, 0);
        } else if (dice < 96) {
            get_one(w, l->member.index, key);
        } else {
            cut_now(w, l->member.index, &r);
        }
        watchdog_beat(&w->dog, l->member.index);
    }
    return NULL;
}

/* Each member is a line of threads, one after the other; a join hands the log on. */
static void churn_member(struct crew_member *m)
{
    struct world *w = m->shared;
    uint64_t seed = m->seed;
    for (uint64_t i = 0; i < w->steps; i++) {
        struct life l = {.member = *m};
        l.member.seed = splitmix64(&seed);
        CHECK_EQ(pthread_create(&l.thread, NULL, short_life, &l), 0);
        CHECK_EQ(pthread_join(l.thread, NULL), 0);
    }
    watchdog_rest(&w->dog, m->index);
}

STRESS(engine, threads_come_and_go)
{
    struct world w = {.keys = 4, .steps = 10 * stress_scale};
    run_rounds("threads that come and go", churn_member, &w, 8, 2, true, splitmix64(&seed));
}
