/* slab_test.c - One thread's view of the slab: each promise of the header, and old defects.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: every slot is with one owner, whatever is given back. Oracle: cookies written into each
 * live object and checked before it is given, and the counts of slab_stats().
 *
 * A numbers are the defects of a design this one replaces. Those that are a behaviour have a test
 * of that name. The others, and why they cannot occur: A4   a corrupt link read through before it
 * is checked: free slots hold no links; which slots are free is kept outside of them (A3 has the
 * test). A7   all fields public, raw memory behind safe-looking calls: every pointer given is
 * checked against the segment's range, the slot grid and the state byte before anything changes. A8
 * one lock for all: magazines and depot; see slab_stress.c.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/slab.h"
#include "arena/status.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

#if LOAM_ASAN
#include <sanitizer/asan_interface.h>
#endif

static struct alloc memory;
static struct slab slab;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
}

static void start(struct slab_options o)
{
    CHECK_EQ(slab_init(&slab, &memory, &o), LOAM_OK);
}

static void stop(void)
{
    slab_destroy(&slab);
    CHECK_EQ(alloc_used(&memory), 0);
}

static struct slab_stats stats(void)
{
    struct slab_stats t;
    slab_stats(&slab, &t);
    CHECK_EQ(t.slots, t.live + t.free + t.quarantined);
    CHECK_EQ(t.taken - t.given, t.live);
    return t;
}

TestSuite(slab, .init = setup);

Test(slab, objects_are_distinct_aligned_and_usable)
{
    enum { N = 5000 };
    static unsigned char *p[N];
    for (size_t align = 1; align <= 4096; align *= 8) {
        start((struct slab_options){.object_size = 40, .object_align = align});
        for (int i = 0; i < N; i++) {
            p[i] = slab_take(&slab);
            CHECK(p[i] != NULL && (uintptr_t)p[i] % align == 0);
            memset(p[i], i, 40);
        }
        for (int i = 0; i < N; i++) {
            CHECK(p[i][0] == (unsigned char)i && p[i][39] == (unsigned char)i);
        }
        CHECK_EQ(stats().live, N);
        for (int i = 0; i < N; i++) {
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        }
        CHECK_EQ(stats().live, 0);
        stop();
    }
}

Test(slab, A1_double_give_is_refused)
{
    start((struct slab_options){.object_size = 64});
    void *a = slab_take(&slab), *b = slab_take(&slab);
    CHECK_EQ(slab_give(&slab, a), LOAM_OK);
    CHECK_EQ(slab_give(&slab, a), LOAM_E_INVAL);
    CHECK_EQ(slab_give(&slab, b), LOAM_OK);
    CHECK_EQ(slab_give(&slab, a), LOAM_E_INVAL);
    slab_trim(&slab); /* at home, and after the segment has gone */
    CHECK_EQ(slab_give(&slab, a), LOAM_E_INVAL);
    void *x = slab_take(&slab), *y = slab_take(&slab);
    CHECK(x != y);
    CHECK_EQ(stats().rejected, 3);
    stop();
}

Test(slab, A2_give_of_a_slot_never_taken_is_refused)
{
    start((struct slab_options){.object_size = 64, .fixed = true, .cache_items = 2});
    static _Alignas(64) char buffer[64 * 100];
    CHECK_EQ(slab_attach(&slab, buffer, sizeof buffer), LOAM_OK);
    char *a = slab_take(&slab), *b = slab_take(&slab);
    size_t stride = (size_t)(b > a ? b - a : a - b);
    for (size_t i = 2; i < slab_slots_in(&slab, buffer, sizeof buffer); i++) {
        CHECK_EQ(slab_give(&slab, buffer + i * stride), LOAM_E_INVAL);
    }
    CHECK_EQ(stats().live, 2);
    stop();
}

Test(slab, foreign_and_inner_pointers_are_refused)
{
    start((struct slab_options){.object_size = 48});
    struct slab other;
    CHECK_EQ(slab_init(&other, &memory, &(struct slab_options){.object_size = 48}), LOAM_OK);
    char *p = slab_take(&slab), *q = slab_take(&other);
    int local;
    CHECK_EQ(slab_give(&slab, q), LOAM_E_INVAL);
    CHECK_EQ(slab_give(&slab, &local), LOAM_E_INVAL);
    CHECK_EQ(slab_give(&slab, (void *)(uintptr_t)8), LOAM_E_INVAL);
    CHECK_EQ(slab_give(&slab, (void *)UINTPTR_MAX), LOAM_E_INVAL);
    for (int i = 1; i < 48; i++) {
        CHECK_EQ(slab_give(&slab, p + i), LOAM_E_INVAL);
    }
    CHECK_EQ(slab_give(&slab, NULL), LOAM_OK);
    CHECK_EQ(slab_give(&slab, p), LOAM_OK);
    CHECK_EQ(slab_give(&other, q), LOAM_OK);
    slab_destroy(&other);
    stop();
}

Test(slab, A3_A4_stale_write_loses_no_slot_and_leads_nowhere, .disabled = LOAM_ASAN)
{
    enum { N = 16 };
    static _Alignas(16) char buffer[16 * N];
    start((struct slab_options){.object_size = 16, .fixed = true, .cache_items = 4});
    CHECK_EQ(slab_attach(&slab, buffer, sizeof buffer), LOAM_OK);
    void *p[N];
    for (int i = 0; i < N; i++) {
        p[i] = slab_take(&slab);
    }
    for (int i = 0; i < N; i++) {
        CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
    }
    memset(buffer, 0xff, sizeof buffer); /* a use after free, everywhere */
    for (int i = 0; i < N; i++) {
        CHECK(slab_take(&slab) != NULL);
    }
    CHECK(slab_take(&slab) == NULL);
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    CHECK(!slab_has_free(&slab));
    CHECK_EQ(slab_state(&slab), SLAB_FULL);
    stop();
}

Test(slab, A3_poison_finds_a_stale_write_and_keeps_the_slot_out, .disabled = LOAM_ASAN)
{
    start((struct slab_options){.object_size = 32, .poison = true});
    char *p = slab_take(&slab);
    CHECK_EQ(slab_give(&slab, p), LOAM_OK);
    CHECK_EQ((unsigned char)p[0], 0xdd);
    p[17] = 0; /* use after free */
    for (int i = 0; i < 3000; i++) {
        CHECK(slab_take(&slab) != p);
    }
    CHECK_EQ(stats().quarantined, 1);
    CHECK_EQ(slab_give(&slab, p), LOAM_E_INVAL);
    stop();
}

Test(slab, A5_large_memory_is_used_whole)
{
    size_t size = (size_t)8 << 20;
    char *buffer = malloc(size);
    CHECK(buffer != NULL);
    start((struct slab_options){.object_size = 8, .fixed = true});
    CHECK_EQ(slab_attach(&slab, buffer, size), LOAM_OK);
    size_t slots = slab_slots_in(&slab, buffer, size), n = 0;
    CHECK(LOAM_ASAN || slots == size / 8);
    while (slab_take(&slab) != NULL) {
        n++;
    }
    CHECK_EQ(n, slots);
    stop();
    free(buffer);
}

Test(slab, A6_sizes_and_alignments_from_one_byte)
{
    for (size_t size = 1; size <= 40; size++) {
        start((struct slab_options){.object_size = size, .object_align = 1});
        unsigned char *p[300];
        for (int i = 0; i < 300; i++) {
            p[i] = slab_take(&slab);
            memset(p[i], i, size);
        }
        for (int i = 0; i < 300; i++) {
            CHECK(p[i][0] == (unsigned char)i && p[i][size - 1] == (unsigned char)i);
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        }
        stop();
    }
    struct slab_options bad[] = {{.object_size = 0},
                                 {.object_size = 8, .object_align = 3},
                                 {.object_size = 8, .segment_bytes = 5000},
                                 {.object_size = 8, .segment_bytes = 4096},
                                 {.object_size = 8, .cache_items = 33},
                                 {.object_size = SIZE_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(slab_init(&slab, &memory, &bad[i]), LOAM_E_INVAL);
    }
    /* Objects bigger than a segment raise its size. */
    start((struct slab_options){.object_size = 1 << 20, .segment_bytes = 16 << 10});
    memset(slab_take(&slab), 1, 1 << 20);
    CHECK(stats().slots >= 7);
    stop();
}

Test(slab, attach_takes_any_address_and_size)
{
    static char buffer[5000];
    for (size_t size = 1; size <= 4097; size += size < 64 ? 1 : 61) {
        for (size_t skew = 0; skew < 17; skew++) {
            start((struct slab_options){.object_size = 24, .fixed = true});
            size_t slots = slab_slots_in(&slab, buffer + skew, size);
            CHECK_EQ(slab_attach(&slab, buffer + skew, size), slots == 0 ? LOAM_E_INVAL : LOAM_OK);
            size_t n = 0;
            for (char *p; (p = slab_take(&slab)) != NULL; n++) {
                CHECK(p >= buffer + skew && p + 24 <= buffer + skew + size);
                CHECK((uintptr_t)p % 8 == 0);
                memset(p, 7, 24);
            }
            CHECK_EQ(n, slots);
            slab_destroy(&slab);
        }
    }
    memset(buffer, 0, sizeof buffer); /* no poison is left on it */
}

Test(slab, detach_waits_for_the_last_object)
{
    static _Alignas(64) char first[64 * 50], second[64 * 50];
    start((struct slab_options){.object_size = 64, .fixed = true});
    CHECK_EQ(slab_attach(&slab, first, sizeof first), LOAM_OK);
    CHECK_EQ(slab_attach(&slab, first + 64, 640), LOAM_E_INVAL);
    CHECK_EQ(slab_attach(&slab, NULL, 640), LOAM_E_INVAL);
    char *p = slab_take(&slab);
    CHECK_EQ(slab_attach(&slab, second, sizeof second), LOAM_OK);
    CHECK_EQ(slab_detach(&slab, first), LOAM_E_BUSY);
    CHECK_EQ(slab_detach(&slab, first + 64), LOAM_E_NOENT);
    for (int i = 0; i < 20; i++) { /* from now on only from the other */
        char *q = slab_take(&slab);
        CHECK(q >= second && q < second + sizeof second);
    }
    CHECK_EQ(slab_give(&slab, p), LOAM_OK);
    CHECK_EQ(slab_detach(&slab, first), LOAM_OK);
    CHECK_EQ(slab_detach(&slab, first), LOAM_E_NOENT);
    CHECK_EQ(slab_give(&slab, p), LOAM_E_INVAL);
    memset(first, 0, sizeof first);
    CHECK_EQ(slab_attach(&slab, first, sizeof first), LOAM_OK);
    stop();
}

Test(slab, A9_states_and_counts_follow_takes_and_gives)
{
    static _Alignas(16) char buffer[32 * 200];
    start((struct slab_options){.object_size = 32, .fixed = true});
    CHECK_EQ(slab_attach(&slab, buffer, sizeof buffer), LOAM_OK);
    size_t slots = slab_slots_in(&slab, buffer, sizeof buffer);
    CHECK_EQ(stats().slots, slots);
    CHECK_EQ(slab_state(&slab), SLAB_FREE);
    static void *p[200];
    for (size_t i = 0; i < slots; i++) {
        CHECK(slab_has_free(&slab));
        p[i] = slab_take(&slab);
        CHECK_EQ(slab_state(&slab), i + 1 < slots ? SLAB_PARTIAL : SLAB_FULL);
    }
    for (size_t i = 0; i < slots; i++) {
        CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        CHECK_EQ(stats().live, slots - i - 1);
    }
    CHECK_EQ(slab_state(&slab), SLAB_FREE);
    CHECK_EQ(stats().carved, slots);
    stop();
}

Test(slab, A9_empty_segments_go_back_but_for_one)
{
    enum { N = 20000 };
    static void *p[N];
    start((struct slab_options){.object_size = 128});
    for (int i = 0; i < N; i++) {
        p[i] = slab_take(&slab);
    }
    size_t peak = stats().segments;
    CHECK(peak > 30);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
    }
    /* What is left holds slots of the magazines and the depot. */
    CHECK(stats().segments <= 6);
    CHECK(slab_trim(&slab) > 0);
    CHECK_EQ(stats().segments, 0);
    CHECK_EQ(stats().shrunk, stats().grown);
    CHECK(slab_take(&slab) != NULL);
    stop();
}

Test(slab, zero_option_clears_every_object)
{
    start((struct slab_options){.object_size = 100, .zero = true, .poison = true});
    for (int round = 0; round < 3; round++) {
        unsigned char *p[200];
        for (int i = 0; i < 200; i++) {
            p[i] = slab_take(&slab);
            for (int k = 0; k < 100; k++) {
                CHECK_EQ(p[i][k], 0);
            }
            memset(p[i], 0xaa, 100);
        }
        for (int i = 0; i < 200; i++) {
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        }
    }
    CHECK_EQ(stats().quarantined, 0);
    stop();
}

struct hooks {
    unsigned grown, shrunk;
    bool refuse_grow, refuse_shrink;
};

static int hook_grow(void *arg, size_t bytes, size_t align, void **out)
{
    struct hooks *h = arg;
    if (h->refuse_grow) {
        return LOAM_E_BUDGET;
    }
    h->grown++;
    *out = aligned_alloc(align, bytes);
    return *out != NULL ? LOAM_OK : LOAM_E_NOMEM;
}

static int hook_shrink(void *arg, void *p, size_t bytes)
{
    (void)bytes;
    struct hooks *h = arg;
    if (h->refuse_shrink) {
        return LOAM_E_BUSY;
    }
    h->shrunk++;
    free(p);
    return LOAM_OK;
}

Test(slab, hooks_give_and_take_segments_and_may_refuse)
{
    enum { N = 3000 };
    static void *p[N];
    struct hooks h = {0};
    start((struct slab_options){.object_size = 64,
                                .segment_bytes = 16 << 10,
                                .poison = true,
                                .grow = hook_grow,
                                .shrink = hook_shrink,
                                .hook_arg = &h});
    for (int i = 0; i < N; i++) {
        CHECK((p[i] = slab_take(&slab)) != NULL);
    }
    CHECK(h.grown > 10);
    h.refuse_grow = true;
    while (slab_take(&slab) != NULL) {
    }
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    h.refuse_shrink = true;
    for (int i = 0; i < N; i++) {
        CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
    }
    CHECK_EQ(slab_trim(&slab), 0);
    h.refuse_shrink = false;
    CHECK(slab_trim(&slab) > 0);
    stop();
    CHECK_EQ(h.grown, h.shrunk);
}

Test(slab, no_memory_is_an_answer)
{
    struct alloc small;
    alloc_init(&small, NULL, 200000);
    CHECK_EQ(slab_init(&slab, &small, &(struct slab_options){.object_size = 64}), LOAM_OK);
    void *last = NULL;
    for (void *p; (p = slab_take(&slab)) != NULL;) {
        last = p;
    }
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOMEM);
    CHECK_EQ(slab_give(&slab, last), LOAM_OK);
    CHECK(slab_take(&slab) == last);
    slab_destroy(&slab);
    CHECK_EQ(alloc_used(&small), 0);
}

Test(slab, single_thread_mode_works_alike)
{
    start((struct slab_options){.object_size = 64, .single_thread = true});
    void *p[1000];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 1000; i++) {
            p[i] = slab_take(&slab);
        }
        for (int i = 0; i < 1000; i++) {
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_E_INVAL);
        }
    }
    CHECK(slab_trim(&slab) > 0);
    CHECK_EQ(stats().segments, 0);
    stop();
}

Test(slab, scope_gives_its_object_back_unless_kept)
{
    start((struct slab_options){.object_size = sizeof(int)});
    int *kept;
    {
        SLAB_AUTO(int, a, &slab);
        SLAB_AUTO(int, b, &slab);
        CHECK(a != NULL && b != NULL);
        *a = 1, *b = 2;
        kept = slab_box_keep(&b_box);
        CHECK_EQ(stats().live, 2);
    }
    CHECK_EQ(stats().live, 1);
    CHECK_EQ(*kept, 2);
    CHECK_EQ(slab_give(&slab, kept), LOAM_OK);
    stop();
}

Test(slab, last_user_destroys_it)
{
    start((struct slab_options){.object_size = 32});
    slab_retain(&slab);
    slab_take(&slab);
    CHECK(!slab_release(&slab));
    CHECK(slab_take(&slab) != NULL);
    CHECK(slab_release(&slab));
    CHECK_EQ(alloc_used(&memory), 0);
}

Test(slab, steady_state_makes_no_allocation)
{
    start((struct slab_options){.object_size = 64});
    void *p[3000];
    for (int round = 0; round < 10; round++) {
        uint64_t calls = alloc_calls();
        for (int i = 0; i < 3000; i++) {
            p[i] = slab_take(&slab);
        }
        CHECK(round == 0 || alloc_calls() == calls);
        for (int i = 0; i < 2900; i++) {
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        }
        for (int i = 2900; i < 3000; i++) {
            CHECK_EQ(slab_give(&slab, p[i]), LOAM_OK);
        }
    }
    stop();
}

#if LOAM_ASAN
Test(slab, free_slots_and_red_zones_are_poisoned)
{
    start((struct slab_options){.object_size = 24});
    char *p = slab_take(&slab);
    CHECK(!__asan_address_is_poisoned(p) && !__asan_address_is_poisoned(p + 23));
    CHECK(__asan_address_is_poisoned(p + 24));
    CHECK_EQ(slab_give(&slab, p), LOAM_OK);
    CHECK(__asan_address_is_poisoned(p) && __asan_address_is_poisoned(p + 23));
    stop();
}
#endif

struct object {
    uint32_t cookie[15];
};

Test(slab, random_operations_keep_every_cookie)
{
    enum { LIVE = 2000, REGIONS = 4 };
    static struct object *live[LIVE];
    static char region[REGIONS][9000];
    bool attached[REGIONS] = {false};
    size_t n = 0;
    struct random r;
    random_init(&r, seed_of_run());
    start((struct slab_options){.object_size = sizeof(struct object),
                                .segment_bytes = 16 << 10,
                                .poison = random_below(&r, 2) == 0});
    for (int step = 0; step < 200000; step++) {
        unsigned op = (unsigned)random_below(&r, 1000);
        size_t i = n != 0 ? random_below(&r, n) : 0;
        bool filling = step / 5000 % 2 == 0;
        if (op < (filling ? 600u : 300u) && n < LIVE) {
            struct object *p = slab_take(&slab);
            CHECK(p != NULL);
            for (int k = 0; k < 15; k++) {
                p->cookie[k] = (uint32_t)((uintptr_t)p >> 2) + (uint32_t)k;
            }
            live[n++] = p;
        } else if (op < 990 && n != 0) {
            struct object *p = live[i];
            for (int k = 0; k < 15; k++) {
                CHECK_EQ(p->cookie[k], (uint32_t)((uintptr_t)p >> 2) + (uint32_t)k);
            }
            CHECK_EQ(slab_give(&slab, p), LOAM_OK);
            CHECK_EQ(slab_give(&slab, p), LOAM_E_INVAL);
            live[i] = live[--n];
        } else if (op < 996) {
            size_t k = random_below(&r, REGIONS);
            int rc = attached[k] ? slab_detach(&slab, region[k] + k)
                                 : slab_attach(&slab, region[k] + k, sizeof region[k] - k);
            CHECK(rc == LOAM_OK || (attached[k] && rc == LOAM_E_BUSY));
            attached[k] ^= rc == LOAM_OK;
        } else if (op == 996) {
            slab_trim(&slab);
        }
        if (step % 1000 == 0) {
            CHECK_EQ(stats().live, n);
        }
    }
    CHECK_EQ(stats().quarantined, 0);
    stop();
}
