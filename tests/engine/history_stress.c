/* history_stress.c - Reads and writes of many threads on few keys can be explained by one order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: tests/support/history.h. A tiny budget, a janitor that flushes and merges every few
 * milliseconds, and reopening in between - after a close, after the process was killed while flushes
 * and merges ran, after it was killed or lost power while the threads were in the middle of calls - make
 * every read path meet every change of state.
 *
 * Long runs: loam-stress-engine --ops=100000000 linearizable
 */
#include "tests/engine/history_support.h"

/* Runs the crew `rounds` times over one directory, with a close or a kill and an open between two rounds,
 * and judges all of it as one history. */
static void run_rounds(const char *what, crew_fn *fn, struct world *w, unsigned threads,
                       unsigned rounds, bool memory, uint64_t seed)
{
    world_begin(w, threads, memory);
    if (memory) {
        load_make_mortal(&w->disk, splitmix64(&seed));
    }
    for (unsigned round = 0; round < rounds; round++) {
        world_open(w);
        struct janitor j;
        janitor_start(&j, w->db, 2000, splitmix64(&seed));
        watchdog_start(&w->dog, what);
        crew_run(threads, fn, w, splitmix64(&seed));
        watchdog_stop(&w->dog);
        janitor_stop(&j);
        w->jobs += j.jobs;
        if (memory && splitmix64(&seed) % 2 == 0) {
            world_cut_off(w, LOAM_CUT_ALL);
            world_reboot(w);
        } else {
            world_close(w);
        }
    }
    world_end(w, what);
}

STRESS(engine, reads_and_writes_are_linearizable)
{
    for (unsigned threads = 2; threads <= 8; threads += threads < 4 ? 1 : 2) {
        struct world w = {.keys = 3, .steps = 4800 / threads * stress_scale};
        run_rounds("history in memory", world_mixed_member, &w, threads, 3, true, splitmix64(&seed));
    }
}

STRESS(engine, reads_and_writes_are_linearizable_on_a_real_disk)
{
    struct world w = {.keys = 4, .steps = 1000 * stress_scale};
    run_rounds("history on disk", world_mixed_member, &w, 6, 2, false, splitmix64(&seed));
}

/* ---- crashes in the middle of calls ------------------------------------------------------------- */

#define LIVES 6u
#define BEATS 1600u /* a life ends before so many steps of all members */

/* Lets the crew work for a while, and cuts it off. */
struct cutter {
    struct world *w;
    uint64_t beats; /* steps of all members */
    uint64_t variant;
    pthread_t thread;
};

static void *cutter_main(void *arg)
{
    struct cutter *c = arg;
    while (watchdog_beats(&c->w->dog) < c->beats) {
        thread_sleep_micros(50);
    }
    world_cut_off(c->w, c->variant);
    atomic_store_explicit(&c->w->stop, true, memory_order_relaxed);
    return NULL;
}

/* A kill, or a loss of power that leaves what it likes: 5 and above are as many ways. */
static uint64_t draw_variant(struct random *r)
{
    switch (random_below(r, 4)) {
    case 0:
        return LOAM_CUT_ALL;
    case 1:
        return LOAM_CUT_SYNCED + random_below(r, 4);
    default:
        return 5 + random_below(r, UINT32_MAX);
    }
}

/* One life that ends while every member is at work. */
static void live_and_crash(const char *what, struct world *w, unsigned threads, struct random *r)
{
    world_open(w);
    struct janitor j;
    struct cutter c = {.w = w, .beats = random_below(r, BEATS), .variant = draw_variant(r)};
    janitor_start(&j, w->db, 500, random_next(r));
    watchdog_start(&w->dog, what);
    CHECK_EQ(pthread_create(&c.thread, NULL, cutter_main, &c), 0);
    crew_run(threads, world_mixed_member, w, random_next(r));
    CHECK_EQ(pthread_join(c.thread, NULL), 0);
    watchdog_stop(&w->dog);
    janitor_stop(&j);
    w->jobs += j.jobs;
    world_reboot(w);
}

static void run_crashes(const char *what, struct world *w, unsigned threads, uint64_t seed)
{
    struct random r;
    random_init(&r, seed);
    world_begin(w, threads, true);
    load_make_mortal(&w->disk, random_next(&r));
    for (uint64_t life = 0; life < LIVES * stress_scale; life++) {
        w->sync_interval_ms = random_below(&r, 2) == 0 ? 2 : UINT32_MAX;
        w->odds = random_below(&r, 2) == 0 ? 8 : 500;
        live_and_crash(what, w, threads, &r);
    }
    world_open(w);
    world_close(w);
    world_end(w, what);
}

STRESS(engine, reads_and_writes_are_linearizable_over_crashes)
{
    for (unsigned threads = 2; threads <= 8; threads += threads < 4 ? 1 : 2) {
        struct world w = {.keys = 3, .steps = UINT64_MAX};
        run_crashes("crashes", &w, threads, splitmix64(&seed));
    }
}

STRESS(engine, reads_and_writes_are_linearizable_over_crashes_with_two_keyspaces)
{
    struct world w = {.keys = 8, .steps = UINT64_MAX, .split = true, .durability = LOAM_DUR_POWER};
    run_crashes("crashes, power and relaxed", &w, 4, splitmix64(&seed));
}

STRESS(engine, reads_and_writes_are_linearizable_over_crashes_without_a_log)
{
    struct world w = {.keys = 3, .steps = UINT64_MAX, .durability = LOAM_DUR_MEMORY};
    run_crashes("crashes, no log", &w, 4, splitmix64(&seed));
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
            world_batch(w, m->index, &r, b, 0);
        } else if (dice < 55) {
            world_get(w, m->index, (uint32_t)random_below(&r, w->keys));
        } else if (dice < 85 && !w->split) {
            world_cut(w, m->index, &r);
        } else {
            world_cut_snapshot(w, m->index, &r);
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
    world_read_all(w, snap, (unsigned)random_below(r, 5), h->seen);
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
        world_walk(h->it, random_below(r, 2) != 0, seen);
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
            world_write(w, m->index, (uint32_t)random_below(&r, w->keys), dice < 85, 0);
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
            world_write(w, l->member.index, key, dice < 40, 0);
        } else if (dice < 96) {
            world_get(w, l->member.index, key);
        } else {
            world_cut(w, l->member.index, &r);
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
