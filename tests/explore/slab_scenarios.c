/* slab_scenarios.c - Objects taken by one thread, given back by another, or twice.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Who has an object writes it; an object in two hands is a race.
 */
#include "arena/slab.h"

#include "arena/status.h"
#include "tests/explore/explore.h"

static struct {
    struct slab slab;
    _Atomic(uint64_t *) box[2]; /* objects on their way from one thread to another */
    uint64_t *twice;
    int won[3];
} w;

static void setup(void)
{
    const struct slab_options o = {.object_size = 32, .cache_items = 2, .owner = MEM_HANDLE};
    EXPECT_EQ(slab_init(&w.slab, alloc_global(), &o), LOAM_OK);
}

/* Each thread has its magazines. */
static void prepare(unsigned thread)
{
    (void)thread;
    EXPECT_EQ(slab_give(&w.slab, slab_take(&w.slab)), LOAM_OK);
}

static uint64_t *take(unsigned thread)
{
    uint64_t *p = slab_take(&w.slab);
    EXPECT(p != NULL);
    p[0] = p[3] = thread;
    return p;
}

static void pass_body(unsigned thread)
{
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t *mine = take(thread);
        EXPECT_EQ(mine[0], thread);
        /* release: the object's words; acquire: those of the other's. */
        uint64_t *theirs = atom_swap(&w.box[i % 2], mine, acq_rel);
        if (theirs != NULL) {
            theirs[0] = 77;
            EXPECT_EQ(slab_give(&w.slab, theirs), LOAM_OK);
        }
    }
}

static void pass_check(void)
{
    struct slab_stats s;
    slab_stats(&w.slab, &s);
    EXPECT_EQ(s.live, (w.box[0] != NULL) + (w.box[1] != NULL));
    EXPECT_EQ(s.rejected, 0);
    EXPECT_EQ(s.slots, s.live + s.free);
}

SCENARIO(slab_pass, .says = "objects taken here and given back there", .threads = 3, .setup = setup,
         .prepare = prepare, .body = pass_body, .check = pass_check, .bound = -1)

static void setup_twice(void)
{
    setup();
    w.twice = slab_take(&w.slab);
    EXPECT(w.twice != NULL);
}

static void twice_body(unsigned thread)
{
    w.won[thread] = slab_give(&w.slab, w.twice) == LOAM_OK;
}

static void twice_check(void)
{
    EXPECT_EQ(w.won[0] + w.won[1] + w.won[2], 1);
    struct slab_stats s;
    slab_stats(&w.slab, &s);
    EXPECT_EQ(s.live, 0);
    EXPECT_EQ(s.rejected, 2);
}

SCENARIO(slab_twice, .says = "three give back one object, one may", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_twice, .prepare = prepare, .body = twice_body,
         .check = twice_check, .bound = -1)

/* A descriptor serves again while a thread that used it last looks at it: it lay where another segment is
 * by now, whose object the thread gives. Segments come in the order that brings this about. */
enum { SEGMENT = 16 << 10, SLOTS = 8 };

static struct {
    struct slab slab;
    unsigned came;
    void *given[SLOTS + 2];
    _Atomic(void *) mine;
} again;
static _Alignas(SEGMENT) unsigned char places[3][SEGMENT];

static int place_of(void *arg, size_t bytes, size_t align, void **memory)
{
    static const unsigned char order[] = {0, 1, 0, 2};
    (void)arg;
    EXPECT(bytes == SEGMENT && align == SEGMENT && again.came < sizeof order);
    *memory = places[order[again.came++]];
    return LOAM_OK;
}

static int place_back(void *arg, void *memory, size_t bytes)
{
    (void)arg, (void)memory, (void)bytes;
    return LOAM_OK;
}

static void setup_again(void)
{
    const struct slab_options o = {.object_size = SEGMENT / SLOTS,
                                   .segment_bytes = SEGMENT,
                                   .cache_items = 2,
                                   .owner = MEM_HANDLE,
                                   .grow = place_of,
                                   .shrink = place_back};
    EXPECT_EQ(slab_init(&again.slab, alloc_global(), &o), LOAM_OK);
}

static void again_prepare(unsigned thread)
{
    if (thread == 0) { /* keeps nothing but its hint */
        for (unsigned i = 0; i < SLOTS + 2; i++) {
            again.given[i] = slab_take(&again.slab);
        }
        EXPECT_EQ(slab_give(&again.slab, again.given[0]), LOAM_OK);
        again.given[0] = slab_take(&again.slab);
        return;
    }
    for (unsigned i = 0; i < SLOTS + 2; i++) {
        EXPECT_EQ(slab_give(&again.slab, again.given[i]), LOAM_OK);
    }
    slab_trim(&again.slab);
    for (unsigned i = 0; i < SLOTS; i++) {
        /* release: as if it were handed over. */
        atom_store(&again.mine, slab_take(&again.slab), release);
    }
    EXPECT_EQ(again.came, 3);
}

static void again_body(unsigned thread)
{
    if (thread == 0) {
        void *mine = atom_load(&again.mine, acquire); /* acquire: the other's prepare comes before */
        EXPECT((unsigned char *)mine < places[1]);
        EXPECT_EQ(slab_give(&again.slab, mine), LOAM_OK);
    } else {
        void *p = slab_take(&again.slab);
        EXPECT((unsigned char *)p >= places[2]);
        EXPECT_EQ(slab_give(&again.slab, p), LOAM_OK);
    }
}

static void again_check(void)
{
    struct slab_stats s;
    slab_stats(&again.slab, &s);
    EXPECT_EQ(s.rejected, 0);
    EXPECT_EQ(s.live, SLOTS - 1);
}

SCENARIO(slab_again, .says = "a descriptor serves again under a thread that used it last", .threads = 2,
         .setup = setup_again, .prepare = again_prepare, .body = again_body, .check = again_check,
         .bound = 2)
