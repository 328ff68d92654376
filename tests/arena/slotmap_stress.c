/* slotmap_stress.c - Threads that reserve, commit, look up, pin and erase in one map.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a payload says which handle it belongs to and is wiped by its finaliser, so a lookup that
 * finds another handle's payload, or one that is finalised, is seen. Each erase has one winner,
 * each payload one finalisation; at the end the census adds up. A test that stops is a live-lock.
 */
#include <pthread.h>
#include <stdlib.h>

#include "arena/random.h"
#include "arena/slotmap.h"
#include "arena/status.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

#define BOARD 128

struct thing {
    uint64_t handle;
    uint64_t check; /* ~handle while alive */
};

struct shared {
    struct alloc memory;
    struct slotmap map;
    _Atomic uint64_t board[BOARD]; /* handles anybody may use */
    _Atomic uint64_t made, erased, finalised;
};

static void wipe(void *arg, void *payload)
{
    struct shared *s = arg;
    struct thing *t = payload;
    CHECK(t->check == ~t->handle); /* the first to do so */
    t->handle = t->check = 0;
    atom_add(&s->finalised, 1, relaxed);
    free(t);
}

static void start(struct shared *s, bool finaliser)
{
    memset(s, 0, sizeof *s);
    alloc_init(&s->memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&s->map, &s->memory, 1), LOAM_OK);
    if (finaliser) {
        slotmap_set_finaliser(&s->map, wipe, s);
    }
}

static void finish(struct shared *s)
{
    struct slotmap_census c;
    for (int i = 0; i < 3; i++) {
        epoch_synchronize();
    }
    slotmap_census(&s->map, &c);
    CHECK_EQ(c.free + c.reserved + c.live + c.closing + c.retired, c.carved);
    CHECK_EQ(c.live, slotmap_len(&s->map));
    CHECK_EQ(c.occupancy_errors, 0);
    CHECK_EQ(c.reserved, 0);
    CHECK_EQ(c.pinned, 0);
    if (s->map.finaliser != NULL) {
        CHECK_EQ(c.closing, 0);
        CHECK_EQ(s->erased, s->finalised);
    }
    slotmap_destroy(&s->map);
    CHECK_EQ(alloc_used(&s->memory), 0);
}

static uint64_t publish(struct shared *s, struct random *r)
{
    uint64_t h = slotmap_reserve(&s->map);
    CHECK(h != 0);
    if (random_below(r, 8) == 0) {
        CHECK_EQ(slotmap_abort(&s->map, h), LOAM_OK);
        return 0;
    }
    struct thing *t = malloc(sizeof *t);
    CHECK(t != NULL);
    t->handle = h;
    t->check = ~h;
    CHECK_EQ(slotmap_commit(&s->map, h, t), LOAM_OK);
    atom_add(&s->made, 1, relaxed);
    return h;
}

static void look(struct shared *s, uint64_t h)
{
    epoch_enter();
    struct thing *t = slotmap_get(&s->map, h);
    if (t != NULL) {
        CHECK(t->handle == h);
        CHECK(t->check == ~h);
    }
    epoch_exit();
}

static void hold(struct shared *s, uint64_t h)
{
    void *p;
    int rc = slotmap_pin(&s->map, h, &p);
    if (rc != LOAM_OK) {
        CHECK(rc == LOAM_E_CLOSED);
        return;
    }
    struct thing *t = p;
    CHECK(t->handle == h && t->check == ~h);
    thread_yield();
    CHECK(t->handle == h && t->check == ~h);
    slotmap_unpin(&s->map, h);
}

static void drop(struct shared *s, uint64_t h, struct random *r)
{
    void *p = NULL;
    bool wait = random_below(r, 64) == 0;
    int rc = wait ? slotmap_erase_wait(&s->map, h, random_below(r, 2) * 2000, &p)
                  : slotmap_erase(&s->map, h);
    if (rc == LOAM_OK || rc == LOAM_STOPPED) {
        atom_add(&s->erased, 1, relaxed);
        if (wait && rc == LOAM_OK) {
            wipe(s, p);
        }
    } else {
        CHECK(rc == LOAM_E_CLOSED);
    }
}

static void one_step(struct shared *s, struct random *r)
{
    _Atomic uint64_t *at = &s->board[random_below(r, BOARD)];
    uint64_t h = atom_load(at, acquire);
    unsigned op = (unsigned)random_below(r, 8);
    if (h == 0 || op == 0) {
        uint64_t fresh = publish(s, r);
        h = atom_swap(at, fresh, acq_rel);
        if (h != 0) {
            drop(s, h, r);
        }
    } else if (op < 4) {
        look(s, h);
    } else if (op < 6) {
        hold(s, h);
    } else if (op == 6) {
        drop(s, h, r); /* stays on the board: others find it stale */
    } else {
        epoch_poll();
    }
}

static void work(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < 20000 * stress_scale; i++) {
        one_step(s, &r);
    }
}

STRESS(slotmap, S1_S2_no_interleaving_stops_or_leaks)
{
    static struct shared s;
    start(&s, true);
    crew_run(4, work, &s, seed);
    struct slotmap_census c;
    slotmap_census(&s.map, &c);
    CHECK(c.carved < 20000); /* slots came back */
    for (int i = 0; i < BOARD; i++) {
        if (slotmap_contains(&s.map, s.board[i])) {
            s.erased++;
            CHECK_EQ(slotmap_erase(&s.map, s.board[i]), LOAM_OK);
        }
    }
    finish(&s);
}

static void *short_life(void *arg)
{
    struct crew_member *m = arg;
    struct random r;
    random_init(&r, m->seed++);
    for (int i = 0; i < 300; i++) {
        one_step(m->shared, &r);
    }
    CHECK(slotmap_reserve_auto(&((struct shared *)m->shared)->map) != 0); /* left to the exit */
    return NULL;
}

static void give_birth(struct crew_member *m)
{
    for (uint64_t i = 0; i < 60 * stress_scale; i++) {
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, short_life, m), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
}

STRESS(slotmap, D4_threads_are_born_and_die)
{
    static struct shared s;
    start(&s, true);
    crew_run(4, give_birth, &s, seed);
    s.erased += slotmap_clear(&s.map);
    finish(&s);
}

/* Insert and erase with nothing else: the pair that stopped the design before this one. */
static void churn(struct crew_member *m)
{
    struct shared *s = m->shared;
    static int thing;
    for (uint64_t i = 0; i < 100000 * stress_scale; i++) {
        uint64_t h = slotmap_insert(&s->map, &thing);
        CHECK(h != 0);
        CHECK_EQ(slotmap_erase(&s->map, h), LOAM_OK);
    }
}

STRESS(slotmap, S11_churn_reuses_slots_without_waiting)
{
    static struct shared s;
    start(&s, false);
    crew_run(4, churn, &s, seed);
    CHECK_EQ(slotmap_len(&s.map), 0);
    CHECK_EQ(slotmap_retired(&s.map), 0);
    finish(&s);
}

/* Things kept for ever, each under one handle after the other; whoever renews a handle puts the next one on
 * the board. Readers find the same thing by all of its handles, and one that tells the handle or a later one. */
struct kept {
    _Atomic uint64_t handle;
    uint64_t place; /* on the board */
};

static void renew_one(struct shared *s, _Atomic uint64_t *at, uint64_t h, struct random *r)
{
    epoch_enter();
    struct kept *t = slotmap_get(&s->map, h);
    uint64_t next = t != NULL ? slotmap_renew(&s->map, h) : 0;
    if (next == 0) {
        epoch_exit();
        return;
    }
    CHECK_EQ(next, h + 1);
    CHECK_EQ(atom_swap(&t->handle, 0, relaxed), h); /* nobody else has won it */
    epoch_exit();
    if (random_below(r, 16) == 0) {
        CHECK_EQ(slotmap_abort(&s->map, next), LOAM_OK);
        next = slotmap_reserve(&s->map);
        CHECK(next != 0);
    }
    atom_store(&t->handle, next, relaxed);
    CHECK_EQ(slotmap_commit(&s->map, next, t), LOAM_OK);
    atom_store(at, next, release);
}

static void renew_many(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < 20000 * stress_scale; i++) {
        _Atomic uint64_t *at = &s->board[random_below(&r, 8)];
        uint64_t h = atom_load(at, acquire);
        if (random_below(&r, 4) == 0) {
            renew_one(s, at, h, &r);
            continue;
        }
        epoch_enter();
        const struct kept *t = slotmap_get(&s->map, h);
        if (t != NULL) { /* renewed meanwhile it has no handle, or a later one, in this slot or another */
            CHECK_EQ(t->place, (uint64_t)(at - s->board));
            uint64_t now = atom_load(&t->handle, relaxed);
            CHECK(now == 0 || now >> 32 != h >> 32 || now >= h);
        }
        epoch_exit();
    }
}

STRESS(slotmap, renewed_handles_lead_to_one_thing_for_ever)
{
    static struct shared s;
    static struct kept kept[8];
    start(&s, false);
    for (uint64_t i = 0; i < 8; i++) {
        kept[i].place = i;
        s.board[i] = kept[i].handle = slotmap_insert(&s.map, &kept[i]);
    }
    crew_run(4, renew_many, &s, seed);
    CHECK_EQ(slotmap_len(&s.map), 8);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(s.board[i], kept[i].handle);
        CHECK(slotmap_contains(&s.map, s.board[i]));
    }
    CHECK_EQ(slotmap_clear(&s.map), 8);
    finish(&s);
}

struct race {
    struct shared s;
    uint64_t handle[256];
    _Atomic unsigned committed[256], aborted[256], erased[256];
};

static void end_reservations(struct crew_member *m)
{
    struct race *r = m->shared;
    static int thing[2];
    for (int i = 0; i < 256; i++) {
        if (m->index % 2 == 0) {
            atom_add(&r->committed[i],
                     slotmap_commit(&r->s.map, r->handle[i], &thing[0]) == LOAM_OK, relaxed);
        } else {
            atom_add(&r->aborted[i], slotmap_abort(&r->s.map, r->handle[i]) == LOAM_OK, relaxed);
        }
        atom_add(&r->erased[i], slotmap_erase(&r->s.map, r->handle[i]) == LOAM_OK, relaxed);
    }
}

STRESS(slotmap, D2_reservation_has_one_end_and_erase_one_winner)
{
    static struct race r;
    start(&r.s, false);
    for (uint64_t round = 0; round < 50 * stress_scale; round++) {
        for (int i = 0; i < 256; i++) {
            r.handle[i] = slotmap_reserve(&r.s.map);
            r.committed[i] = r.aborted[i] = r.erased[i] = 0;
        }
        crew_run(4, end_reservations, &r, seed + round);
        for (int i = 0; i < 256; i++) {
            CHECK_EQ(r.committed[i] + r.aborted[i], 1);
            CHECK(r.erased[i] <= r.committed[i]);
        }
        slotmap_clear(&r.s.map);
    }
    finish(&r.s);
}

/* Two nodes that name each other before either exists, committed from two threads. */
struct node {
    uint64_t other;
};

struct circle {
    struct shared s;
    uint64_t handle[2];
    struct node node[2];
};

static void commit_half(struct crew_member *m)
{
    struct circle *c = m->shared;
    unsigned i = m->index;
    c->node[i].other = c->handle[1 - i];
    CHECK_EQ(slotmap_commit(&c->s.map, c->handle[i], &c->node[i]), LOAM_OK);
    CHECK_EQ(slotmap_wait_ready(&c->s.map, c->handle[1 - i], UINT64_MAX), LOAM_OK);
    epoch_enter();
    struct node *n = slotmap_get(&c->s.map, c->node[i].other);
    CHECK(n == &c->node[1 - i] && n->other == c->handle[i]);
    epoch_exit();
}

STRESS(slotmap, circular_references_are_committed_by_two_threads)
{
    static struct circle c;
    start(&c.s, false);
    for (uint64_t round = 0; round < 200 * stress_scale; round++) {
        c.handle[0] = slotmap_reserve(&c.s.map);
        c.handle[1] = slotmap_reserve(&c.s.map);
        crew_run(2, commit_half, &c, seed + round);
        CHECK_EQ(slotmap_clear(&c.s.map), 2);
    }
    finish(&c.s);
}

static void S5_work(struct crew_member *m)
{
    struct shared *s = m->shared;
    static int thing;
    for (uint64_t i = 0; i < 2000 * stress_scale; i++) {
        if (m->index == 0) {
            uint64_t h = slotmap_insert(&s->map, &thing);
            void *p;
            CHECK_EQ(slotmap_pin(&s->map, h, &p), LOAM_OK);
            atom_store(&s->board[0], h, release);
            for (int k = 0; k < 40; k++) { /* grows the map while the pin is held */
                CHECK(slotmap_insert(&s->map, &thing) != 0);
            }
            slotmap_unpin(&s->map, h);
        } else {
            uint64_t h = atom_load(&s->board[0], acquire);
            if (h != 0) {
                int rc = slotmap_erase_wait(&s->map, h, UINT64_MAX, NULL);
                CHECK(rc == LOAM_OK || rc == LOAM_E_CLOSED);
            }
        }
    }
}

STRESS(slotmap, S5_growing_under_a_pin_and_waiting_for_it)
{
    static struct shared s;
    start(&s, false);
    crew_run(2, S5_work, &s, seed);
    finish(&s);
}

static bool check_seen(void *arg, uint64_t h, void *payload)
{
    (void)arg;
    struct thing *t = payload;
    CHECK(t->handle == h && t->check == ~h);
    return true;
}

static void walk(struct crew_member *m)
{
    struct shared *s = m->shared;
    if (m->index == 0) {
        for (uint64_t i = 0; i < 300 * stress_scale; i++) {
            slotmap_foreach(&s->map, check_seen, NULL);
        }
    } else {
        work(m);
    }
}

STRESS(slotmap, foreach_sees_only_whole_payloads)
{
    static struct shared s;
    start(&s, true);
    crew_run(3, walk, &s, seed);
    s.erased += slotmap_clear(&s.map);
    finish(&s);
}
