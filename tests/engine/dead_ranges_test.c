/* dead_ranges_test.c - Sets of dead ranges against an array that knows of each key since when it is dead.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: for each keyspace and key the smallest number from which on it was proven dead, with no put
 * since. A range that is found must not claim more; without eviction and with memory a key that is dead
 * must be found.
 */
#include <criterion/criterion.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/random.h"
#include "engine/dead_ranges.h"
#include "engine/loam.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

enum { KS = 3, KEYS = 600, ROUNDS = 60000, SEQS = 1000 };
#define ALIVE UINT64_MAX

TestSuite(dead_ranges);

struct city {
    struct alloc alloc;
    struct dead_ranges d;
    struct random r;
    uint64_t dead[KS][KEYS];
};

static struct random failures;
static unsigned fail_one_in; /* allocations; 0: none */

static void *sometimes(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    CHECK(align <= _Alignof(max_align_t));
    return fail_one_in != 0 && random_below(&failures, fail_one_in) == 0 ? NULL : malloc(size);
}

static void give(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    free(p);
}

static int reverse(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(b, a);
}

static const loam_comparator backwards = {
    .struct_size = sizeof backwards, .name = "test.reverse", .compare = reverse};

/* Keyspace 1 is in reverse order; `i` is the place in the order. */
static loam_slice key_of(uint32_t ks, uint32_t i, char to[8])
{
    return loam_bytes(to, (size_t)snprintf(to, 8, "k%03u", ks == 1 ? KEYS - 1 - i : i));
}

static const loam_comparator *order_of(uint32_t ks)
{
    return ks == 1 ? &backwards : NULL;
}

static uint32_t index_of(uint32_t ks, loam_slice key)
{
    char text[8] = {0};
    CHECK_EQ(key.size, 4);
    memcpy(text, key.data, key.size);
    uint32_t i = (uint32_t)strtoul(text + 1, NULL, 10);
    return ks == 1 ? KEYS - 1 - i : i;
}

/* Announces a drawn stretch of the keys [a, b), and proves it, unless a put comes. */
static void add(struct city *c, uint32_t most)
{
    uint32_t ks = (uint32_t)random_below(&c->r, KS), a = (uint32_t)random_below(&c->r, KEYS - 1);
    uint32_t b = a + 1 + (uint32_t)random_below(&c->r, most);
    b = b < KEYS ? b : KEYS - 1;
    char lo[8], hi[8], put[8];
    struct dead_stretch s = {.ks = ks, .cmp = order_of(ks), .from = random_below(&c->r, SEQS)};
    bool after = a != 0 && random_below(&c->r, 2) == 0, behind = random_below(&c->r, 2) == 0;
    s.lo = (struct dead_place){key_of(ks, after ? a - 1 : a, lo), after};
    s.hi = (struct dead_place){key_of(ks, behind ? b - 1 : b, hi), behind};
    struct dead_range *r = dead_ranges_announce(&c->d, &s);
    if (r == NULL) {
        CHECK(fail_one_in != 0);
        return;
    }
    bool proven = random_below(&c->r, 8) != 0, broken = random_below(&c->r, 8) == 0;
    if (broken) {
        uint32_t k = a + (uint32_t)random_below(&c->r, b - a);
        dead_ranges_put(&c->d, ks, key_of(ks, k, put));
        c->dead[ks][k] = ALIVE;
    }
    dead_ranges_settle(&c->d, r, proven);
    for (uint32_t k = a; k < b && proven && !broken; k++) {
        c->dead[ks][k] = s.from < c->dead[ks][k] ? s.from : c->dead[ks][k];
    }
}

static void put(struct city *c)
{
    char key[8];
    uint32_t ks = (uint32_t)random_below(&c->r, KS), k = (uint32_t)random_below(&c->r, KEYS);
    dead_ranges_put(&c->d, ks, key_of(ks, k, key));
    c->dead[ks][k] = ALIVE;
}

static void look(struct city *c, bool complete)
{
    char key[8];
    uint32_t ks = (uint32_t)random_below(&c->r, KS), k = (uint32_t)random_below(&c->r, KEYS);
    uint64_t seq = random_below(&c->r, SEQS + 1);
    const struct dead_range *r = dead_ranges_find(&c->d, ks, key_of(ks, k, key), seq);
    if (r != NULL) {
        uint32_t lo = index_of(ks, r->s.lo.key) + r->s.lo.behind;
        uint32_t hi = index_of(ks, r->s.hi.key) + r->s.hi.behind;
        CHECK(r->s.ks == ks && lo <= k && k < hi && r->s.from <= seq);
        for (uint32_t i = lo; i < hi; i++) {
            CHECK(c->dead[ks][i] <= r->s.from);
        }
    } else if (complete && seq == SEQS) {
        CHECK(c->dead[ks][k] == ALIVE);
    }
}

static void run(unsigned failing)
{
    struct city *c = calloc(1, sizeof *c);
    uint64_t seed = seed_or(7);
    random_init(&c->r, seed);
    random_init(&failures, seed + 1);
    const loam_allocator hooks = {.struct_size = sizeof hooks, .alloc = sometimes, .free = give};
    alloc_init(&c->alloc, &hooks, UINT64_MAX);
    dead_ranges_init(&c->d, &c->alloc);
    for (uint32_t ks = 0; ks < KS; ks++) {
        for (uint32_t k = 0; k < KEYS; k++) {
            c->dead[ks][k] = ALIVE;
        }
    }
    fail_one_in = failing;
    for (uint32_t n = 0; n < ROUNDS; n++) {
        uint32_t most = n / (ROUNDS / 4) % 2 == 0 ? 4 : 40; /* many small ranges, few large ones */
        epoch_enter();
        uint64_t what = random_below(&c->r, 10);
        if (what < 2) {
            add(c, most);
        } else if (what < 4) {
            put(c);
        } else {
            look(c, failing == 0);
        }
        epoch_exit();
    }
    fail_one_in = 0;
    epoch_synchronize();
    dead_ranges_destroy(&c->d);
    CHECK_EQ(alloc_used(&c->alloc), 0);
    free(c);
}

Test(dead_ranges, claim_what_was_proven_and_no_more)
{
    run(0);
}

Test(dead_ranges, claim_no_more_without_memory_either)
{
    run(6);
}

/* A put of another thread where it would be missed: while its range is in no set. */
static struct {
    struct dead_ranges *d;
    unsigned calls; /* of the allocator since the first, which fails */
    bool on;
} between;

static void *fails_once(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    if (between.on && between.calls++ == 0) {
        return NULL;
    }
    if (between.on) {
        CHECK(atom_load(&between.d->set, acquire) == NULL); /* the put waits for nobody */
        dead_ranges_put(between.d, 1, LOAM_LIT("b"));
    }
    return malloc(size);
}

/* The set is full, and there is no memory for one without the range that is to make room. */
Test(dead_ranges, what_is_forgotten_for_room_is_not_proven_afterwards)
{
    const loam_allocator hooks = {.struct_size = sizeof hooks, .alloc = fails_once, .free = give};
    struct alloc a;
    struct dead_ranges d;
    char lo[8], hi[8];
    alloc_init(&a, &hooks, UINT64_MAX);
    dead_ranges_init(&d, &a);
    epoch_enter();
    for (uint32_t i = 0; i < DEAD_RANGES_MAX; i++) {
        snprintf(lo, sizeof lo, "%04ua", i);
        snprintf(hi, sizeof hi, "%04ub", i);
        struct dead_stretch s = {.lo = {loam_bytes(lo, 5), false}, .hi = {loam_bytes(hi, 5), false}};
        dead_ranges_settle(&d, dead_ranges_announce(&d, &s), true);
    }
    struct dead_stretch s = {
        .ks = 1, .lo = {LOAM_LIT("a"), false}, .hi = {LOAM_LIT("c"), false}};
    struct dead_range *r = dead_ranges_announce(&d, &s);
    CHECK(r != NULL);
    between.d = &d;
    between.on = true;
    dead_ranges_settle(&d, r, true);
    between.on = false;
    CHECK(between.calls != 0);
    if (between.calls == 1) {
        dead_ranges_put(&d, 1, LOAM_LIT("b"));
    }
    CHECK(dead_ranges_find(&d, 1, LOAM_LIT("b"), 0) == NULL);
    epoch_exit();
    epoch_synchronize();
    dead_ranges_destroy(&d);
    CHECK_EQ(alloc_used(&a), 0);
}

/* What is made anew, and waits for readers, is little, however many there are. */
static void expect_cheap(struct alloc *a, uint64_t before)
{
    CHECK(alloc_used(a) - before <= 8192);
}

Test(dead_ranges, thousands_are_kept_and_each_change_costs_little)
{
    enum { STRETCHES = 3000 };
    struct alloc a;
    struct dead_ranges d;
    char lo[16], hi[16], put[16];
    alloc_init(&a, NULL, UINT64_MAX);
    dead_ranges_init(&d, &a);
    for (uint32_t n = 0; n < STRETCHES; n++) {
        uint32_t i = n * 1009 % STRETCHES; /* in no order */
        const struct dead_stretch s = {
            .lo = {loam_bytes(lo, (size_t)snprintf(lo, sizeof lo, "%08ua", i)), false},
            .hi = {loam_bytes(hi, (size_t)snprintf(hi, sizeof hi, "%08uz", i)), false}};
        uint64_t before = alloc_used(&a);
        epoch_enter();
        struct dead_range *r = dead_ranges_announce(&d, &s);
        CHECK(r != NULL);
        dead_ranges_settle(&d, r, true);
        expect_cheap(&a, before);
        epoch_exit();
        epoch_synchronize();
    }
    for (uint32_t i = 0; i < STRETCHES; i += 3) {
        uint64_t before = alloc_used(&a);
        epoch_enter();
        dead_ranges_put(&d, 0, loam_bytes(put, (size_t)snprintf(put, sizeof put, "%08um", i)));
        expect_cheap(&a, before);
        epoch_exit();
        epoch_synchronize();
    }
    epoch_enter();
    for (uint32_t i = 0; i < STRETCHES; i++) {
        for (const char *c = "abmyz"; *c != '\0'; c++) {
            loam_slice key = loam_bytes(put, (size_t)snprintf(put, sizeof put, "%08u%c", i, *c));
            const struct dead_range *r = dead_ranges_find(&d, 0, key, 0);
            CHECK_EQ(r != NULL, *c != 'z' && (*c != 'm' || i % 3 != 0));
        }
    }
    epoch_exit();
    dead_ranges_destroy(&d);
    CHECK_EQ(alloc_used(&a), 0);
}

/* Ranges of which one was used lately: the others make room. */
Test(dead_ranges, stay_within_their_bounds_and_keep_what_is_used)
{
    struct alloc a;
    struct dead_ranges d;
    alloc_init(&a, NULL, UINT64_MAX);
    dead_ranges_init(&d, &a);
    for (int big = 0; big < 2; big++) {
        for (uint32_t i = 0; i < (big != 0 ? 1024 : 2 * DEAD_RANGES_MAX); i++) {
            static char lo[LOAM_MAX_KEY], hi[LOAM_MAX_KEY];
            size_t size = big != 0 ? sizeof lo : 16;
            memset(lo, 'x', sizeof lo);
            snprintf(lo, sizeof lo, "%08ua", i);
            memcpy(hi, lo, sizeof lo);
            hi[8] = 'b';
            struct dead_stretch s = {.ks = (uint32_t)big,
                                     .lo = {loam_bytes(lo, size), false},
                                     .hi = {loam_bytes(hi, size), false}};
            epoch_enter();
            struct dead_range *r = dead_ranges_announce(&d, &s);
            CHECK(r != NULL);
            dead_ranges_settle(&d, r, true);
            CHECK(dead_ranges_find(&d, (uint32_t)big, loam_bytes(lo, size), 0) != NULL);
            CHECK(dead_ranges_find(&d, 0, LOAM_LIT("00000000ab"), 0) !=
                  NULL); /* the first of all */
            epoch_exit();
            epoch_synchronize();
            CHECK(alloc_used(&a) <= DEAD_RANGES_BYTES + 4 * LOAM_MAX_KEY + sizeof(struct dead_set) +
                                        8 * (DEAD_RANGES_MAX + 1) +
                                        (sizeof(struct dead_block) + 8) * DEAD_RANGES_MAX / 16);
        }
    }
    dead_ranges_destroy(&d);
    CHECK_EQ(alloc_used(&a), 0);
}
