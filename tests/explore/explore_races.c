/* explore_races.c - Which other thread must also go first at an earlier choice of the run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two runs that differ only in the order of neighbouring operations that commute are one: all that
 * counts is the order of those that do not. So the exhaustive search without a bound tries a second
 * thread at a choice only when the run shows a reason (dynamic partial-order reduction by source sets,
 * Abdulla, Aronis, Jonsson and Sagonas, POPL 2014):
 *
 *     .. k: e ....... i: e'      e and e' conflict, and nothing in between orders them: a race
 *
 * For e' to come first, that which is in between and does not follow from e must come before e as
 * well; v is this, and e'. Any thread whose first operation in v follows from no other in v can begin
 * it; one of those must be tried at k. Where that is not enabled (it is woken in between), all are.
 *
 * Follows: by the order of the thread, and of operations that do not commute, kept as vector clocks.
 * A thread that wakes does not follow from who woke it here: that finds races too many, never too few.
 */
#include <string.h>
#include <sys/mman.h>

#include "tests/explore/explore_core.h"

struct step {
    uint8_t thread;
    uint8_t enabled;
    uint8_t backtrack; /* threads to be tried here */
    struct op op;
    struct view before; /* steps of each thread before this choice */
    struct view clock;  /* of the operation */
};

static struct step *step; /* outside of the world */
static struct view *clock_of;

bool ops_commute(const struct op *a, const struct op *b)
{
    if (a->kind == OP_BEGIN || b->kind == OP_BEGIN || a->kind == OP_RESUME ||
        b->kind == OP_RESUME) {
        return true;
    }
    if (a->kind >= OP_YIELD || b->kind >= OP_YIELD) {
        return false;
    }
    return a->at != b->at || (a->kind == OP_READ && b->kind == OP_READ);
}

void races_open(void)
{
    size_t bytes = STEPS_MAX * sizeof *step + EXPLORE_THREADS * sizeof *clock_of;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        explore_fail("no memory for %u choices", STEPS_MAX);
    }
    step = p;
    clock_of = (void *)(step + STEPS_MAX);
}

static void join(struct view *to, const struct view *from)
{
    for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
        to->of[i] = to->of[i] > from->of[i] ? to->of[i] : from->of[i];
    }
}

/* Whether nothing between the choice and the operation orders the latter, but its own thread. */
static bool begins(const struct step *at, unsigned thread, const struct view *clock)
{
    for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
        if (i != thread && clock->of[i] > at->before.of[i]) {
            return false;
        }
    }
    return true;
}

/* The operation of `thread` at choice i, of which `clock` is known without the choice k, races with
 * what was done there. */
static void race(uint32_t k, uint32_t i, unsigned thread, const struct view *clock)
{
    struct step *at = &step[k];
    uint32_t met = 0, first = 0;
    for (uint32_t j = k + 1; j < i; j++) {
        const struct step *s = &step[j];
        if ((met >> s->thread & 1) != 0 ||
            s->clock.of[at->thread] >= at->clock.of[at->thread]) {
            continue; /* not the first of its thread, or it follows from the operation at k */
        }
        met |= 1u << s->thread;
        first |= begins(at, s->thread, &s->clock) ? 1u << s->thread : 0;
    }
    if ((met >> thread & 1) == 0 && begins(at, thread, clock)) {
        first |= 1u << thread;
    }
    if ((first & at->backtrack) != 0) {
        return;
    }
    uint32_t able = first & at->enabled;
    if (able == 0) {
        at->backtrack = at->enabled;
    } else {
        at->backtrack |= (uint8_t)((able >> thread & 1) != 0 ? 1u << thread : able & -able);
    }
}

void races_begin(void)
{
    memset(clock_of, 0, EXPLORE_THREADS * sizeof *clock_of);
}

void races_choice(uint32_t i, bool fresh, unsigned thread, uint32_t enabled)
{
    struct step *s = &step[i];
    if (fresh) {
        *s = (struct step){.enabled = (uint8_t)enabled};
    }
    s->backtrack |= (uint8_t)(1u << thread);
    s->thread = (uint8_t)thread;
    s->op = X->fiber[thread].next;
    for (unsigned t = 0; t < EXPLORE_THREADS; t++) {
        s->before.of[t] = clock_of[t].of[t];
    }
    struct view clock = clock_of[thread], unlocks = {0};
    for (uint32_t k = i; k-- != 0;) {
        const struct step *e = &step[k];
        if (e->thread == thread || ops_commute(&e->op, &s->op)) {
            continue;
        }
        if (s->op.kind == OP_LOCK && e->op.kind == OP_UNLOCK) {
            join(&unlocks, &e->clock); /* it races with the lock before it */
            continue;
        }
        if (clock.of[e->thread] < e->clock.of[e->thread]) {
            race(k, i, thread, &clock);
        }
        join(&clock, &e->clock);
    }
    join(&clock, &unlocks);
    clock.of[thread]++;
    s->clock = clock_of[thread] = clock;
}

uint32_t races_backtrack(uint32_t i)
{
    return step[i].backtrack;
}
