/* epoch_scenarios.c - Readers in sections against those who unlink, retire and free.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/epoch.h"

#include "arena/sync.h"
#include "tests/explore/explore.h"

struct thing {
    struct epoch_node node;
    uint64_t value;
};

static struct {
    _Atomic(struct thing *) current;
    struct thing *made[4];
    unsigned freed;
} world;

static void free_thing(void *arg, void *ptr)
{
    (void)arg;
    world.freed++;
    explore_free(ptr, sizeof(struct thing));
}

static void setup(void)
{
    for (unsigned i = 0; i < 4; i++) {
        world.made[i] = explore_memory(sizeof(struct thing));
        world.made[i]->value = 100 + i;
    }
    atom_store(&world.current, world.made[0], relaxed);
}

static void setup_fallback(void)
{
    setup();
    epoch_enter(); /* the module has started */
    epoch_exit();
    epoch_asymmetric_ = false;
}

static void read_current(void)
{
    epoch_enter();
    const struct thing *t = atom_load(&world.current, acquire);
    EXPECT(t->value >= 100 && t->value < 104);
    epoch_exit();
}

static void replace(unsigned with)
{
    struct thing *old = atom_swap(&world.current, world.made[with], acq_rel);
    epoch_retire_node(&old->node, free_thing, NULL, old);
}

static void retire_body(unsigned thread)
{
    if (thread == 0) {
        replace(1);
        epoch_poll();
        epoch_poll();
    } else {
        read_current();
        read_current();
    }
}

SCENARIO(epoch_retire, .says = "a reader, and one who replaces, retires and polls", .threads = 2,
         .flags = LOCK_FREE, .setup = setup, .body = retire_body, .bound = -1)
SCENARIO(epoch_retire_fallback, .says = "the same without membarrier", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_fallback, .body = retire_body, .bound = 3)

static void two_writers_body(unsigned thread)
{
    if (thread < 2) {
        replace(1 + thread);
        epoch_poll();
        epoch_poll();
    } else {
        read_current();
        read_current();
    }
}

SCENARIO(epoch_two_writers, .says = "two retire and poll at once, one reads", .threads = 3,
         .flags = LOCK_FREE, .setup = setup, .body = two_writers_body, .bound = 2)

/* Reuse by stamp, as the ring does it: the memory is written again, not freed. */
static void stamp_body(unsigned thread)
{
    if (thread == 0) {
        struct thing *old = atom_swap(&world.current, world.made[1], acq_rel);
        uint64_t stamp = epoch_stamp();
        for (int i = 0; i < 3; i++) {
            if (epoch_passed(stamp)) {
                old->value = 0; /* a race, if a section can still see it */
                break;
            }
        }
    } else {
        read_current();
        read_current();
    }
}

SCENARIO(epoch_stamp, .says = "memory is reused once a stamp has passed", .threads = 3,
         .flags = LOCK_FREE, .setup = setup, .body = stamp_body, .bound = 2)

static void synchronize_body(unsigned thread)
{
    if (thread == 0) {
        replace(1);
        epoch_synchronize();
        EXPECT(world.freed == 1);
    } else {
        read_current();
    }
}

SCENARIO(epoch_synchronize, .says = "synchronize waits for sections, then frees", .threads = 2,
         .setup = setup, .body = synchronize_body, .bound = -1)

static void late_body(unsigned thread)
{
    if (thread == 0) {
        replace(1);
        epoch_poll();
    } else if (thread == 1) {
        epoch_poll();
        epoch_poll();
    } else {
        read_current();
    }
}

SCENARIO(epoch_other_polls, .says = "another thread frees what one retired", .threads = 3,

         .flags = EXITS, .setup = setup, .body = late_body, .bound = 2)

/* The one who frees has seen no record itself: what it knows comes by way of the epoch. */
static void relay_body(unsigned thread)
{
    if (thread == 0) {
        replace(1);
        epoch_poll();
    } else if (thread == 1) {
        (void)epoch_try_advance();
        (void)epoch_try_advance();
    } else {
        read_current();
    }
}

SCENARIO(epoch_relay, .says = "one advances, another frees", .threads = 3, .flags = LOCK_FREE,
         .setup = setup, .body = relay_body, .bound = 3, .budget = 120000)

/* The unlinking falls between the barrier of an advance and the advance itself. */
static void late_unlink_body(unsigned thread)
{
    if (thread == 0) {
        struct thing *old = atom_swap(&world.current, world.made[1], acq_rel);
        uint64_t stamp = epoch_stamp();
        if (epoch_passed(stamp) || epoch_passed(stamp)) {
            old->value = 0;
        }
    } else if (thread == 1) {
        (void)epoch_try_advance();
    } else {
        read_current();
    }
}

SCENARIO(epoch_late_unlink, .says = "an object is unlinked in the midst of an advance",
         .threads = 3, .flags = LOCK_FREE, .setup = setup, .body = late_unlink_body, .bound = 3,
         .budget = 120000)
