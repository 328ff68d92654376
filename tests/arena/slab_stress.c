/* slab_stress.c - Threads that take, pass on and give back objects, being born and dying meanwhile.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an object's owner marks it; nobody else's mark may ever be found in it. At the end every
 * slot is accounted for, and all segments can be given back.
 */
#include <pthread.h>

#include "arena/random.h"
#include "arena/slab.h"
#include "arena/status.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

struct object {
    uint64_t mark;
    uint64_t copy;
    uint64_t more[6];
};

#define BASKETS 64

struct shared {
    struct alloc memory;
    struct slab slab;
    struct object *_Atomic basket[BASKETS]; /* objects on their way to another thread */
    _Atomic uint64_t doubles;
};

static void mark(struct object *o, uint64_t by)
{
    o->mark = by;
    o->copy = ~by;
}

static void check_mark(const struct object *o, uint64_t by)
{
    CHECK(o->mark == by && o->copy == ~by);
}

static void check_empty(struct shared *s)
{
    struct slab_stats t;
    slab_stats(&s->slab, &t);
    CHECK_EQ(t.live, 0);
    slab_trim(&s->slab);
    slab_stats(&s->slab, &t);
    CHECK_EQ(t.segments, 0); /* exited threads left nothing behind */
    slab_destroy(&s->slab);
    CHECK_EQ(alloc_used(&s->memory), 0);
}

static void start(struct shared *s, struct slab_options o)
{
    memset(s, 0, sizeof *s);
    alloc_init(&s->memory, NULL, UINT64_MAX);
    CHECK_EQ(slab_init(&s->slab, &s->memory, &o), LOAM_OK);
}

static void keep_and_give(struct crew_member *m)
{
    enum { HELD = 200 };
    struct shared *s = m->shared;
    struct object *held[HELD] = {NULL};
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < 30000 * stress_scale; i++) {
        struct object **at = &held[random_below(&r, HELD)];
        if (*at == NULL) {
            CHECK((*at = slab_take(&s->slab)) != NULL);
            mark(*at, m->seed);
        } else {
            check_mark(*at, m->seed);
            CHECK_EQ(slab_give(&s->slab, *at), LOAM_OK);
            *at = NULL;
        }
    }
    for (int i = 0; i < HELD; i++) {
        CHECK_EQ(slab_give(&s->slab, held[i]), LOAM_OK);
    }
}

STRESS(slab, objects_belong_to_one_thread)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object)});
    crew_run(4, keep_and_give, &s, seed);
    check_empty(&s);
}

/* Takes here, gives there: every object is given by a thread that finds it in a basket. */
static void pass_on(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < 30000 * stress_scale; i++) {
        struct object *o = slab_take(&s->slab);
        CHECK(o != NULL);
        mark(o, (uint64_t)(uintptr_t)o);
        /* acq_rel: hands the object over. */
        o = atom_swap(&s->basket[random_below(&r, BASKETS)], o, acq_rel);
        if (o != NULL) {
            check_mark(o, (uint64_t)(uintptr_t)o);
            CHECK_EQ(slab_give(&s->slab, o), LOAM_OK);
        }
    }
}

STRESS(slab, A8_objects_given_by_other_threads)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object), .poison = true});
    crew_run(4, pass_on, &s, seed);
    for (int i = 0; i < BASKETS; i++) {
        CHECK_EQ(slab_give(&s.slab, s.basket[i]), LOAM_OK);
    }
    check_empty(&s);
}

/* Both of two threads give the same object: exactly one may succeed. */
static void give_twice(struct crew_member *m)
{
    struct shared *s = m->shared;
    for (int i = 0; i < BASKETS; i++) {
        if (slab_give(&s->slab, atom_load(&s->basket[i], relaxed)) == LOAM_OK) {
            atom_add(&s->doubles, 1, relaxed);
        }
    }
}

STRESS(slab, A1_racing_double_give_has_one_winner)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object)});
    for (uint64_t round = 0; round < 100 * stress_scale; round++) {
        for (int i = 0; i < BASKETS; i++) {
            s.basket[i] = slab_take(&s.slab);
        }
        s.doubles = 0;
        crew_run(2, give_twice, &s, seed + round);
        CHECK_EQ(s.doubles, BASKETS);
    }
    check_empty(&s);
}

static void *short_life(void *arg)
{
    struct shared *s = arg;
    struct object *o[50];
    for (int i = 0; i < 50; i++) {
        CHECK((o[i] = slab_take(&s->slab)) != NULL);
        mark(o[i], (uint64_t)i);
    }
    for (int i = 0; i < 50; i++) {
        check_mark(o[i], (uint64_t)i);
        CHECK_EQ(slab_give(&s->slab, o[i]), LOAM_OK);
    }
    return NULL;
}

static void give_birth(struct crew_member *m)
{
    for (uint64_t i = 0; i < 100 * stress_scale; i++) {
        pthread_t t[3];
        for (int k = 0; k < 3; k++) {
            CHECK_EQ(pthread_create(&t[k], NULL, short_life, m->shared), 0);
        }
        for (int k = 0; k < 3; k++) {
            CHECK_EQ(pthread_join(t[k], NULL), 0);
        }
    }
}

STRESS(slab, threads_are_born_and_die)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object)});
    crew_run(2, give_birth, &s, seed);
    check_empty(&s);
}

static void hold_a_while(struct crew_member *m)
{
    for (int i = 0; i < 20; i++) {
        short_life(m->shared);
    }
}

STRESS(slab, more_threads_than_the_near_directory)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object)});
    crew_run(MAGAZINE_NEAR * 2 + 10, hold_a_while, &s, seed);
    check_empty(&s);
}

static char region[2][64 * 1000];

static void attach_and_detach(struct crew_member *m)
{
    struct shared *s = m->shared;
    if (m->index >= 2) {
        keep_and_give(m);
        return;
    }
    char *mine = region[m->index] + m->index;
    for (uint64_t i = 0; i < 100 * stress_scale; i++) {
        CHECK_EQ(slab_attach(&s->slab, mine, sizeof region[0] - 1), LOAM_OK);
        short_life(s);
        int rc;
        for (int tries = 0; (rc = slab_detach(&s->slab, mine)) == LOAM_E_BUSY && tries < 3;
             tries++) {
            thread_yield();
        }
        if (rc == LOAM_E_BUSY) { /* a thread sits on a slot of it: once more at the end */
            return;
        }
        CHECK_EQ(rc, LOAM_OK);
        memset(mine, 0x5a, sizeof region[0] - 1);
    }
}

STRESS(slab, regions_come_and_go)
{
    static struct shared s;
    start(&s, (struct slab_options){.object_size = sizeof(struct object)});
    crew_run(4, attach_and_detach, &s, seed);
    for (int i = 0; i < 2; i++) {
        int rc = slab_detach(&s.slab, region[i] + i);
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOENT);
    }
    check_empty(&s);
}
