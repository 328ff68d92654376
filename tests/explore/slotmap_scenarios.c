/* slotmap_scenarios.c - Handles inserted, looked up, pinned, erased, reserved by several threads.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Checked behind every schedule: no slot is lost and none is in two places (all slots can be
 * reserved, each once), occupancy agrees with the states, and each erased payload was finalised
 * exactly once. A payload that is finalised counts as freed memory from then on.
 */
#include "arena/slotmap.h"

#include "arena/status.h"
#include "tests/explore/explore.h"

enum { KIND = 3, PAYLOADS = 8, SLOTS_MAX = 32 };

struct payload {
    uint64_t name;
    bool finalised;
};

static struct {
    struct slotmap map;
    struct payload *made[PAYLOADS];
    bool gone[PAYLOADS]; /* finalised or handed out */
    uint64_t h[PAYLOADS];
    int won[4];
    bool finaliser;
} w;

static void finalise(void *arg, void *payload)
{
    (void)arg;
    struct payload *p = payload;
    EXPECT(p->name < PAYLOADS && !p->finalised);
    p->finalised = true;
    w.gone[p->name] = true;
    explore_free(p, sizeof *p);
}

static void setup_with(bool finaliser)
{
    EXPECT_EQ(slotmap_init(&w.map, alloc_global(), KIND), LOAM_OK);
    w.finaliser = finaliser;
    if (finaliser) {
        slotmap_set_finaliser(&w.map, finalise, NULL);
    }
    for (uint64_t i = 0; i < PAYLOADS; i++) {
        w.made[i] = explore_memory(sizeof(struct payload));
        w.made[i]->name = i;
    }
    w.h[0] = slotmap_insert(&w.map, w.made[0]);
    EXPECT(w.h[0] != 0);
}

static void setup(void)
{
    setup_with(false);
}

static void setup_finaliser(void)
{
    setup_with(true);
}

/* Each thread has its magazines already, so that schedules are about slots. */
static void prepare(unsigned thread)
{
    uint64_t h = slotmap_insert(&w.map, w.made[4 + thread]);
    EXPECT(h != 0);
    w.h[4 + thread] = h;
}

static bool see(uint64_t h, uint64_t name)
{
    epoch_enter();
    const struct payload *p = slotmap_get(&w.map, h);
    if (p != NULL) {
        EXPECT_EQ(p->name, name);
        EXPECT(!p->finalised);
    }
    epoch_exit();
    return p != NULL;
}

/* Nothing is in limbo behind this. */
static void settle(void)
{
    if (w.finaliser) {
        for (int i = 0; i < 3; i++) { /* what came while a batch was under way is the next one */
            epoch_synchronize();
        }
        return;
    }
    for (int i = 0; i < 4; i++) { /* each erase looks at what is in limbo */
        uint64_t h = slotmap_insert(&w.map, w.made[3]);
        EXPECT(h != 0);
        EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
    }
}

static void check(void)
{
    settle();
    struct slotmap_census c;
    slotmap_census(&w.map, &c);
    EXPECT_EQ(c.occupancy_errors, 0);
    EXPECT_EQ(c.pinned, 0);
    EXPECT_EQ(slotmap_len(&w.map), c.live);
    EXPECT_EQ(c.carved, c.free + c.live + c.closing + c.reserved);
    EXPECT(c.closing <= (w.finaliser ? 0 : 2)); /* a batch and its successor wait for an epoch */
    bool seen[SLOTS_MAX] = {false};
    /* Magazines of threads that have not ended keep a few; those of this thread and the depot are
     * emptied, and no slot comes up twice. */
    for (uint32_t i = 0; i < c.free; i++) {
        uint64_t h = slotmap_reserve(&w.map);
        EXPECT(h != 0);
        uint32_t index = (uint32_t)(h >> 32) & 0xfffffff;
        EXPECT(index < SLOTS_MAX && !seen[index]);
        seen[index] = true;
        EXPECT_EQ(slotmap_commit(&w.map, h, w.made[3]), LOAM_OK);
    }
}

/* ---- insert and erase: the pair that broke the map of seed_livelock ---------------------- */

static void insert_erase_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t h = slotmap_insert(&w.map, w.made[1]);
        EXPECT(h != 0 && h != w.h[0]);
        EXPECT(see(h, 1));
        EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
        EXPECT(!see(h, 1));
    } else {
        EXPECT_EQ(slotmap_erase(&w.map, w.h[0]), LOAM_OK);
        uint64_t h = slotmap_insert(&w.map, w.made[2]);
        EXPECT(h != 0 && h != w.h[0]);
        EXPECT(see(h, 2));
    }
}

SCENARIO(slotmap_insert_erase, .says = "inserts and erases of two threads", .threads = 2,
         .flags = LOCK_FREE, .setup = setup, .prepare = prepare, .body = insert_erase_body,
         .check = check, .bound = -1, .budget = 20000)

/* Slots go round: both threads erase and insert until depot and limbo are passed. */
static void churn_body(unsigned thread)
{
    uint64_t h = w.h[4 + thread];
    for (int i = 0; i < 4; i++) {
        EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
        uint64_t next = slotmap_insert(&w.map, w.made[4 + thread]);
        EXPECT(next != 0 && next != h);
        EXPECT(!see(h, 4 + thread));
        h = next;
    }
}

SCENARIO(slotmap_churn, .says = "slots go through magazines, depot and limbo", .threads = 3,
         .setup = setup, .prepare = prepare, .body = churn_body, .check = check, .bound = 1)

/* ---- erase against readers --------------------------------------------------------------- */

static void get_erase_body(unsigned thread)
{
    if (thread == 0) {
        EXPECT_EQ(slotmap_erase(&w.map, w.h[0]), LOAM_OK);
        epoch_poll();
        epoch_poll();
    } else {
        (void)see(w.h[0], 0);
        (void)see(w.h[0], 0);
    }
}

SCENARIO(slotmap_get_erase, .says = "get in a section, erase, finaliser in a poll", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_finaliser, .prepare = prepare, .body = get_erase_body,
         .check = check, .bound = -1)

/* The slot is used again at once; the old handle must not see the new payload. */
static void reuse_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t h = w.h[0];
        for (int i = 0; i < 4; i++) {
            EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
            h = slotmap_insert(&w.map, w.made[1]);
            EXPECT(h != 0);
        }
    } else {
        (void)see(w.h[0], 0);
        (void)see(w.h[0], 0);
    }
}

SCENARIO(slotmap_reuse, .says = "an old handle while its slot is used again", .threads = 2,
         .flags = LOCK_FREE, .setup = setup, .prepare = prepare, .body = reuse_body, .check = check,
         .bound = 2)

static void pin_once(uint64_t h, uint64_t name)
{
    void *p;
    if (slotmap_pin(&w.map, h, &p) == LOAM_OK) {
        EXPECT_EQ(((struct payload *)p)->name, name);
        EXPECT(!((struct payload *)p)->finalised);
        slotmap_unpin(&w.map, h);
    }
}

static void pin_erase_body(unsigned thread)
{
    if (thread == 0) {
        EXPECT_EQ(slotmap_erase(&w.map, w.h[0]), LOAM_OK);
        epoch_poll();
        epoch_poll();
    } else {
        pin_once(w.h[0], 0);
        epoch_poll();
    }
}

static void erased_check(void)
{
    check();
    EXPECT(!w.finaliser || w.gone[0]);
}

SCENARIO(slotmap_pin_erase, .says = "pins of two threads, erase, polls by all", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_finaliser, .prepare = prepare, .body = pin_erase_body,
         .check = erased_check, .bound = 2)

/* Handles come into limbo while another thread empties it. */
static void drain_body(unsigned thread)
{
    if (thread == 2) {
        epoch_poll();
        epoch_poll();
        epoch_poll();
    } else {
        EXPECT_EQ(slotmap_erase(&w.map, w.h[thread]), LOAM_OK);
        epoch_poll();
    }
}

static void setup_drain(void)
{
    setup_finaliser();
    w.h[1] = slotmap_insert(&w.map, w.made[1]);
    EXPECT(w.h[1] != 0);
}

static void drain_check(void)
{
    check();
    EXPECT(w.gone[0] && w.gone[1]);
}

SCENARIO(slotmap_drain, .says = "two erase while the third finalises", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_drain, .prepare = prepare, .body = drain_body,
         .check = drain_check, .bound = 2)

static void erase_twice_body(unsigned thread)
{
    int rc = slotmap_erase(&w.map, w.h[0]);
    EXPECT(rc == LOAM_OK || rc == LOAM_E_CLOSED);
    w.won[thread] = rc == LOAM_OK;
    pin_once(w.h[0], 0);
}

static void one_winner_check(void)
{
    EXPECT_EQ(w.won[0] + w.won[1] + w.won[2], 1);
    erased_check();
}

SCENARIO(slotmap_erase_twice, .says = "three erase one handle, one wins", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_finaliser, .prepare = prepare, .body = erase_twice_body,
         .check = one_winner_check, .bound = -1)

static void take_body(unsigned thread)
{
    if (thread == 0) {
        void *p = NULL;
        EXPECT_EQ(slotmap_erase_wait(&w.map, w.h[0], UINT64_MAX, &p), LOAM_OK);
        struct payload *mine = p;
        EXPECT_EQ(mine->name, 0);
        mine->name = 77; /* it is this thread's alone */
    } else if (thread == 1) {
        pin_once(w.h[0], 0);
    } else {
        (void)see(w.h[0], 0);
    }
}

static void taken_check(void)
{
    EXPECT(!w.gone[0]);
    check();
}

SCENARIO(slotmap_take, .says = "erase_wait hands the payload out, against pin and get",
         .threads = 3, .flags = NO_LAPSE, .setup = setup_finaliser, .prepare = prepare,
         .body = take_body, .check = taken_check, .bound = 2)

/* ---- reservations ------------------------------------------------------------------------ */

static void setup_reserved(void)
{
    setup_with(true);
    w.h[1] = slotmap_reserve(&w.map);
    EXPECT(w.h[1] != 0);
}

static void reserve_body(unsigned thread)
{
    if (thread == 0) {
        w.made[1]->name = 1; /* written before commit, so seen after get */
        w.won[0] = slotmap_commit(&w.map, w.h[1], w.made[1]) == LOAM_OK;
    } else if (thread == 1) {
        w.won[1] = slotmap_abort(&w.map, w.h[1]) == LOAM_OK;
    } else {
        (void)see(w.h[1], 1);
        pin_once(w.h[1], 1);
        (void)slotmap_erase(&w.map, w.h[1]);
    }
}

static void reserve_check(void)
{
    EXPECT_EQ(w.won[0] + w.won[1], 1);
    check();
}

SCENARIO(slotmap_reserve, .says = "commit against abort, with a reader that may erase",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_reserved, .prepare = prepare,
         .body = reserve_body, .check = reserve_check, .bound = -1)

static void wait_ready_body(unsigned thread)
{
    if (thread == 0) {
        EXPECT_EQ(slotmap_commit(&w.map, w.h[1], w.made[1]), LOAM_OK);
    } else {
        EXPECT_EQ(slotmap_wait_ready(&w.map, w.h[1], UINT64_MAX), LOAM_OK);
        EXPECT(see(w.h[1], 1));
    }
}

SCENARIO(slotmap_wait_ready, .says = "two wait for a commit", .threads = 3, .flags = NO_LAPSE,
         .setup = setup_reserved, .prepare = prepare, .body = wait_ready_body, .check = check,
         .bound = 2)

static void exit_body(unsigned thread)
{
    if (thread == 0) {
        w.h[1] = slotmap_reserve_auto(&w.map);
        EXPECT(w.h[1] != 0);
    } else {
        uint64_t h = slotmap_insert(&w.map, w.made[2]);
        EXPECT(h != 0);
        EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
    }
}

static void exit_check(void)
{
    struct slotmap_census c;
    slotmap_census(&w.map, &c);
    EXPECT_EQ(c.reserved, 0);
    check();
}

SCENARIO(slotmap_thread_exit, .says = "a thread exits with a reservation open", .threads = 2,
         .flags = EXITS, .setup = setup, .prepare = prepare, .body = exit_body, .check = exit_check,
         .bound = -1)

/* One of renew and erase has the handle; a section that found it keeps the payload either way. */
static void renew_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t next = slotmap_renew(&w.map, w.h[0]);
        w.won[0] = next != 0;
        EXPECT(!see(w.h[0], 0));
        if (next != 0) {
            EXPECT(!see(next, 0));
            EXPECT_EQ(slotmap_commit(&w.map, next, w.made[0]), LOAM_OK);
            EXPECT(see(next, 0));
        }
    } else {
        (void)see(w.h[0], 0);
        w.won[1] = slotmap_erase(&w.map, w.h[0]) == LOAM_OK;
        EXPECT(!see(w.h[0], 0));
    }
}

static void renew_check(void)
{
    EXPECT_EQ(w.won[0] + w.won[1], 1);
    check();
}

SCENARIO(slotmap_renew, .says = "renew against erase, with readers of the old handle", .threads = 2,
         .flags = LOCK_FREE, .setup = setup, .prepare = prepare, .body = renew_body,
         .check = renew_check, .bound = -1)

/* A renewal is given up, and its slot taken for another payload. */
static void renew_abort_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t next = slotmap_renew(&w.map, w.h[0]);
        EXPECT(next != 0);
        EXPECT_EQ(slotmap_abort(&w.map, next), LOAM_OK);
        for (int i = 0; i < 4; i++) {
            uint64_t h = slotmap_insert(&w.map, w.made[1]);
            EXPECT(h != 0 && h != w.h[0] && h != next);
            EXPECT_EQ(slotmap_erase(&w.map, h), LOAM_OK);
        }
    } else {
        (void)see(w.h[0], 0);
        (void)see(w.h[0], 0);
    }
}

SCENARIO(slotmap_renew_abort, .says = "a renewal given up, its slot used again", .threads = 2,
         .flags = LOCK_FREE, .setup = setup, .prepare = prepare, .body = renew_abort_body,
         .check = check, .bound = 2)

static bool count_live(void *arg, uint64_t h, void *payload)
{
    (void)h;
    const struct payload *p = payload;
    EXPECT(!p->finalised);
    ++*(int *)arg;
    return true;
}

static void foreach_body(unsigned thread)
{
    if (thread == 0) {
        int n = 0;
        slotmap_foreach(&w.map, count_live, &n);
        EXPECT(n >= 2); /* those of prepare stay */
    } else {
        EXPECT_EQ(slotmap_erase(&w.map, w.h[0]), LOAM_OK);
        epoch_poll();
        uint64_t h = slotmap_insert(&w.map, w.made[1]);
        EXPECT(h != 0);
        epoch_poll();
    }
}

SCENARIO(slotmap_foreach, .says = "a walk over live handles while they change", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_finaliser, .prepare = prepare, .body = foreach_body,
         .check = check, .bound = -1)
