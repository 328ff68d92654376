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
