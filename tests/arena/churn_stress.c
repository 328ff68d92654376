/* churn_stress.c - Every structure under threads that are born and die, four times more than processors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each place of a crew is held by one thread after another; a thread does OPERATIONS and exits, leaving
 * what it cached to the next. A watchdog sees to it that none is stuck. Oracles: an object carries the
 * mark of its holder from take to give; a handle leads to its own payload or nowhere; an entry's bytes
 * repeat its cookie; at the end nothing is missing. Tags and generations start where they end.
 */
#include <string.h>
#include <unistd.h>

#include "arena/arena.h"
#include "arena/random.h"
#include "arena/ring.h"
#include "arena/slab.h"
#include "arena/slotmap.h"
#include "arena/sync.h"
#include "tests/support/check.h"
#include "tests/support/watchdog.h"

#define OPERATIONS 1000u /* of one thread's life */
#define LIVES      6u

struct life {
    void *shared;
    uint64_t seed;
};

static unsigned crew_size(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return 4 * (unsigned)(n < 1 ? 1 : n > 8 ? 8 : n);
}

static void churn(struct crew_member *m, void (*live)(void *arg))
{
    for (uint64_t i = 0; i < LIVES * stress_scale; i++) {
        struct life l = {m->shared, splitmix64(&m->seed)};
        watchdog_lend(live, &l);
    }
}

/* ---- slotmap ----------------------------------------------------------------------------------- */

#define THINGS 64

struct handles {
    struct slotmap map;
    uint64_t thing[THINGS]; /* payloads; each knows its number */
    _Atomic uint64_t shared_handle[THINGS];
    _Atomic uint64_t reuses;
};

static void slotmap_life(void *arg)
{
    struct life *l = arg;
    struct handles *s = l->shared;
    struct random r;
    random_init(&r, l->seed);
    for (unsigned i = 0; i < OPERATIONS; i++, watchdog_step()) {
        uint64_t n = random_below(&r, THINGS);
        uint64_t h = slotmap_insert(&s->map, &s->thing[n]);
        CHECK(h != 0);
        atom_add(&s->reuses, 1, relaxed);                           /* relaxed: a count */
        uint64_t old = atom_swap(&s->shared_handle[n], h, acq_rel); /* with the same of others */
        void *p;
        if (old != 0 && slotmap_pin(&s->map, old, &p) == LOAM_OK) {
            CHECK(p == &s->thing[n]);
            CHECK_EQ(slotmap_erase(&s->map, old), LOAM_OK);
            CHECK_EQ(slotmap_erase(&s->map, old), LOAM_E_CLOSED);
            slotmap_unpin(&s->map, old);
        } else {
            CHECK_EQ(old, 0); /* whoever swapped it out erases it, once */
        }
        uint64_t other = random_below(&r, THINGS);
        h = atom_load(&s->shared_handle[other], acquire); /* acquire: pairs with the swap */
        epoch_enter();
        p = h != 0 ? slotmap_get(&s->map, h) : NULL;
        CHECK(p == NULL || *(uint64_t *)p == other);
        epoch_exit();
        if (random_below(&r, 4) == 0) {
            CHECK(slotmap_reserve_auto(&s->map) != 0); /* forgotten: ends with the thread */
        }
    }
}

static void slotmap_churn(struct crew_member *m)
{
    churn(m, slotmap_life);
}

static void slotmap_rounds(uint64_t seed, uint32_t first_generation)
{
    static struct handles s;
    static struct alloc memory;
    memset(&s, 0, sizeof s);
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&s.map, &memory, 3), LOAM_OK);
    slotmap_set_first_generation(&s.map, first_generation);
    for (uint64_t i = 0; i < THINGS; i++) {
        s.thing[i] = i;
    }
    crew_run_watched("slotmap", crew_size(), slotmap_churn, &s, seed);
    struct slotmap_census c;
    slotmap_census(&s.map, &c);
    CHECK_EQ(c.free + c.reserved + c.live + c.closing + c.retired, c.carved);
    CHECK_EQ(c.reserved, 0);
    CHECK_EQ(c.pinned, 0);
    CHECK(c.live <= THINGS);
    CHECK_EQ(c.occupancy_errors, 0);
    CHECK_EQ(c.retired != 0, first_generation > 1);
    slotmap_destroy(&s.map);
    CHECK_EQ(alloc_used(&memory), 0);
}

STRESS(churn, S7_slotmap_threads_are_born_and_die)
{
    slotmap_rounds(seed, 1);
}

STRESS(churn, D6_slotmap_generations_run_out_under_threads_that_come_and_go)
{
    slotmap_rounds(seed, UINT32_MAX - 2);
}

/* One slot, handed on more often than 16 bits can count, between threads. */
static void one_slot_life(void *arg)
{
    struct life *l = arg;
    struct handles *s = l->shared;
    for (unsigned i = 0; i < OPERATIONS; i++, watchdog_step()) {
        /* What is aborted goes to the thread's magazine and comes from there again. */
        uint64_t h = slotmap_reserve(&s->map);
        CHECK(h != 0);
        CHECK_EQ(slotmap_abort(&s->map, h), LOAM_OK);
        CHECK_EQ(slotmap_commit(&s->map, h, &s->thing[0]), LOAM_E_CLOSED);
        CHECK(!slotmap_contains(&s->map, h));
    }
}

static void one_slot_churn(struct crew_member *m)
{
    for (unsigned i = 0; i < 70; i++) { /* 70,000 reuses a place */
        struct life l = {m->shared, 0};
        watchdog_lend(one_slot_life, &l);
    }
}

STRESS(churn, S7_few_slots_are_reused_more_than_65537_times)
{
    static struct handles s;
    static struct alloc memory;
    memset(&s, 0, sizeof s);
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(slotmap_init(&s.map, &memory, 3), LOAM_OK);
    unsigned places = 4;
    crew_run_watched("one slot", places, one_slot_churn, &s, seed);
    uint64_t uses = 0;
    struct slotmap_census c;
    slotmap_census(&s.map, &c);
    for (uint32_t i = 0; i < c.carved; i++) {
        uint64_t w =
            atom_load(&slotmap_slot_(&s.map, (uint64_t)3 << 60 | (uint64_t)i << 32)->word, relaxed);
        uses += w >> 32 == 0 ? 0 : (w >> 32) - 1;
    }
    CHECK_EQ(uses, (uint64_t)places * 70 * OPERATIONS); /* every generation counted, none twice */
    CHECK_EQ(c.retired, 0);
    slotmap_destroy(&s.map);
    CHECK_EQ(alloc_used(&memory), 0);
}

/* ---- slab -------------------------------------------------------------------------------------- */

struct objects {
    struct slab slab;
    _Atomic(void *) left[THINGS]; /* for whoever comes next */
};

static void slab_life(void *arg)
{
    struct life *l = arg;
    struct objects *s = l->shared;
    struct random r;
    random_init(&r, l->seed);
    for (unsigned i = 0; i < OPERATIONS; i++, watchdog_step()) {
        uint64_t *p = slab_take(&s->slab);
        CHECK(p != NULL);
        for (unsigned k = 0; k < 8; k++) {
            p[k] = l->seed + i;
        }
        uint64_t *old = atom_swap(&s->left[random_below(&r, THINGS)], p, acq_rel); /* as it says */
        if (old != NULL) {
            for (unsigned k = 1; k < 8; k++) {
                CHECK_EQ(old[k], old[0]);
            }
            CHECK_EQ(slab_give(&s->slab, old), LOAM_OK);
        }
    }
}

static void slab_churn(struct crew_member *m)
{
    churn(m, slab_life);
}

STRESS(churn, A8_slab_threads_are_born_and_die)
{
    static struct objects s;
    static struct alloc memory;
    memset(&s, 0, sizeof s);
    alloc_init(&memory, NULL, UINT64_MAX);
    const struct slab_options o = {.object_size = 64, .segment_bytes = 16 << 10};
    CHECK_EQ(slab_init(&s.slab, &memory, &o), LOAM_OK);
    crew_run_watched("slab", crew_size(), slab_churn, &s, seed);
    for (unsigned i = 0; i < THINGS; i++) {
        CHECK_EQ(slab_give(&s.slab, atom_load(&s.left[i], acquire)), LOAM_OK);
    }
    struct slab_stats t;
    slab_stats(&s.slab, &t);
    CHECK_EQ(t.live, 0);
    CHECK_EQ(t.free, t.slots);
    CHECK_EQ(t.rejected, 0);
    CHECK(t.bytes < 1u << 20); /* what dead threads cached was used by the next */
    slab_destroy(&s.slab);
    CHECK_EQ(alloc_used(&memory), 0);
}

/* ---- arena ------------------------------------------------------------------------------------- */

struct bytes {
    struct arena arena;
    struct chunk_pool pool;
};

static void arena_life(void *arg)
{
    struct life *l = arg;
    struct bytes *s = l->shared;
    uint64_t *last = NULL;
    for (unsigned i = 0; i < OPERATIONS; i++, watchdog_step()) {
        uint64_t *p = arena_alloc(&s->arena, 40, 8);
        CHECK(p != NULL);
        CHECK(last == NULL || (last[0] == l->seed && last[4] == ~l->seed));
        p[0] = p[1] = p[2] = p[3] = l->seed;
        p[4] = ~l->seed;
        last = p;
    }
}

static void arena_churn(struct crew_member *m)
{
    churn(m, arena_life);
}

/* Round after round the same memory: what threads leave behind does not add up. */
STRESS(churn, F2_F7_arena_cycles_under_threads_that_come_and_go_stay_flat)
{
    static struct bytes s;
    static struct alloc memory;
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&s.pool, &memory, 256 << 10, 64), LOAM_OK);
    CHECK_EQ(arena_init(&s.arena, &s.pool, arena_new_ids(1), 16 << 10, ARENA_NO_LIMIT), LOAM_OK);
    uint64_t most = 0;
    for (unsigned round = 0; round < 4; round++) {
        crew_run_watched("arena", crew_size(), arena_churn, &s, seed + round);
        uint64_t reserved = arena_reserved(&s.arena);
        uint64_t data = (uint64_t)crew_size() * LIVES * stress_scale * OPERATIONS * 40;
        CHECK(reserved <
              data * 2 + (1 << 20)); /* a thread leaves no more than about what it used */
        CHECK(round == 0 || reserved <= most + (256 << 10));
        most = reserved > most ? reserved : most;
        arena_reset(&s.arena, arena_new_ids(1));
        CHECK_EQ(arena_reserved(&s.arena), 0);
    }
    arena_destroy(&s.arena);
    chunk_pool_destroy(&s.pool);
    CHECK_EQ(alloc_used(&memory), 0);
}

/* ---- ring -------------------------------------------------------------------------------------- */

static int ring_check(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)arg;
    *outcome = c->cookie % 3 == 0 ? RING_GONE : RING_KEEP;
    for (size_t i = 0; i < c->size; i += sizeof c->cookie) {
        CHECK_BYTES((const char *)c->data + i, sizeof c->cookie, &c->cookie, sizeof c->cookie);
    }
    return LOAM_OK;
}

static void ring_life(void *arg)
{
    struct life *l = arg;
    struct ring *r = l->shared;
    struct random random;
    random_init(&random, l->seed);
    for (unsigned i = 0; i < OPERATIONS; i++, watchdog_step()) {
        uint64_t addr, cookie = random_next(&random);
        size_t words = 1 + random_below(&random, 40);
        if (ring_reserve(r, RING_DIRTY, words * 8, l->seed, cookie, &addr) == LOAM_OK) {
            uint64_t *p = ring_data(r, addr);
            for (size_t k = 0; k < words; k++) {
                p[k] = cookie;
            }
            if (random_below(&random, 10) == 0) {
                ring_discard(r, addr);
            } else {
                ring_publish(r, addr);
            }
        }
        if (random_below(&random, 3) != 0) {
            ring_evict_one(r, ring_check, NULL, NULL);
        }
        if (i % 100 == 0) {
            struct ring_metrics m; /* C9: beside those who write what it reads */
            ring_metrics(r, &m);
            CHECK(m.head <= m.evict && m.evict <= m.tail);
            ring_wait_space(r, 64, 2000);
        }
    }
}

static void ring_churn(struct crew_member *m)
{
    churn(m, ring_life);
}

static void ring_rounds(uint64_t seed, uint64_t first_lap)
{
    static struct ring r;
    static struct alloc memory;
    alloc_init(&memory, NULL, UINT64_MAX);
    const struct ring_options o = {
        .alloc = &memory, .unit = 64, .bytes = 64 << 10, .first_lap = first_lap};
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    crew_run_watched("ring", crew_size(), ring_churn, &r, seed);
    CHECK_EQ(ring_drain(&r, ring_check, NULL, UINT64_MAX, NULL), LOAM_OK);
    CHECK_EQ(ring_dirty_bytes(&r), 0);
    ring_destroy(&r);
    CHECK_EQ(alloc_used(&memory), 0);
}

STRESS(churn, C9_ring_threads_are_born_and_die)
{
    ring_rounds(seed, 0);
}

STRESS(churn, ring_tags_near_their_last)
{
    ring_rounds(seed, RING_LAP_MAX - 20000);
}
