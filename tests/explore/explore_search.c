/* explore_search.c - Which schedules are tried: all, by priorities, with old values, with a stop.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Exhaustive  Depth first over the choices of a run. Either with a bound on preemptions (switches
 *             away from a thread that could go on, or to one that polls while another could go
 *             on; most bugs need two), or without one: then a second thread is tried at a choice
 *             only if what was chosen races with something later (explore_races.c), and not again
 *             until something conflicts with its next operation (sleep sets), so of all runs that
 *             differ only in the order of independent operations one is completed.
 * Priorities  PCT: random priorities for threads, lowered at a few random steps; finds a bug that
 *             needs d ordering constraints with a known probability in each run.
 * Old values  As both of the above, but loads may return stores that explore_order.c allows;
 *             exhaustively with a bound on how many loads of a run do.
 * Stopped     For each thread and each of its steps: it is stopped there for ever, and the others,
 *             scheduled by priorities, must come to their ends.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "arena/random.h"
#include "tests/explore/explore_core.h"

#define BUDGET_DEFAULT 10000u
#define POLLS_MAX      2 /* in a run without a bound: polls while others could go on */

/* One choice of a run in the exhaustive search. */
struct node {
    bool of_age;
    uint8_t chosen;
    uint8_t count;   /* ages */
    uint8_t current; /* the thread that was running */
    uint8_t enabled; /* threads, as sets */
    uint8_t busy;    /* those that do not poll */
    uint8_t turn;    /* when all poll */
    uint8_t tried;   /* and finished */
    uint8_t sleeping;
    int spent; /* preemptions, or old values, before this choice */
};

struct search {
    struct search_options o;
    struct random random;
    uint32_t depth, length; /* of the run; of the path that is replayed */
    int preemptions, aged;
    uint32_t sleeping;
    int bound, stale; /* bound < 0: none, but races and sleep sets */
    uint32_t priority[EXPLORE_THREADS];
    uint32_t change_at[16];
    uint32_t next_low;
    uint32_t stale_chance; /* of 256: that a load returns an old value if there is one */
    const char *replay;
    uint32_t replay_left;
    unsigned replay_thread;
    struct node node[STEPS_MAX];
};

static struct search *S; /* outside of the world */

/* ---- exhaustive -------------------------------------------------------------------------- */

static uint32_t still_asleep(uint32_t set, unsigned chosen)
{
    uint32_t still = 0;
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        if ((set >> i & 1) != 0 && i != chosen &&
            ops_commute(&X->fiber[i].next, &X->fiber[chosen].next)) {
            still |= 1u << i;
        }
    }
    return still;
}

static unsigned lowest(uint32_t set)
{
    return (unsigned)__builtin_ctz(set);
}

static struct node *next_node(bool *fresh)
{
    if (S->depth == STEPS_MAX) {
        explore_fail("a run has more than %u choices", STEPS_MAX);
    }
    struct node *n = &S->node[S->depth++];
    *fresh = S->depth > S->length;
    if (*fresh) {
        memset(n, 0, sizeof *n);
        S->length = S->depth;
    }
    return n;
}

/* What a choice costs of the bound. */
static int cost(const struct node *n, unsigned thread)
{
    if ((n->busy >> n->current & 1) != 0 && S->bound >= 0) {
        return n->current != thread;
    }
    /* Polling threads take turns, so that one that waits for another to poll gets there. */
    return n->busy != 0 ? (n->busy >> thread & 1) == 0 : thread != n->turn;
}

static uint8_t longest_waiting(uint32_t set)
{
    unsigned best = lowest(set);
    for (; set != 0; set &= set - 1) {
        best = X->fiber[lowest(set)].last_step < X->fiber[best].last_step ? lowest(set) : best;
    }
    return (uint8_t)best;
}

static uint32_t busy_of(uint32_t set)
{
    uint32_t busy = set;
    for (; set != 0; set &= set - 1) {
        if (X->fiber[lowest(set)].next.kind == OP_YIELD) {
            busy &= ~(1u << lowest(set));
        }
    }
    return busy;
}

static unsigned dfs_thread(uint32_t enabled, unsigned current)
{
    bool fresh;
    struct node *n = next_node(&fresh);
    if (fresh) {
        n->enabled = (uint8_t)enabled;
        n->current = (uint8_t)current;
        n->sleeping = (uint8_t)(S->bound < 0 ? S->sleeping : 0);
        n->spent = S->preemptions;
        uint32_t open = enabled & ~(uint32_t)n->sleeping;
        if (open == 0) {
            S->length = --S->depth;
            X->cut = true;
            siglongjmp(X->out, 1); /* every continuation is the same as one tried before */
        }
        n->busy = (uint8_t)busy_of(enabled);
        n->turn = longest_waiting(enabled);
        open = (open & n->busy) != 0 ? open & n->busy : open;
        n->chosen = (uint8_t)((open >> current & 1) != 0 ? current : lowest(open));
        if (n->busy == 0 && (open >> n->turn & 1) != 0) {
            n->chosen = n->turn;
        }
    } else if (n->of_age || n->enabled != enabled) {
        explore_fail("the run does not repeat itself: at choice %u threads %x, then %x", S->depth,
                     n->enabled, enabled);
    }
    S->sleeping = still_asleep((uint32_t)n->sleeping | n->tried, n->chosen);
    if (S->bound < 0) {
        races_choice(S->depth - 1, fresh, n->chosen, enabled);
    }
    S->preemptions += cost(n, n->chosen);
    return n->chosen;
}

static unsigned dfs_age(unsigned count)
{
    if (S->aged >= S->stale) {
        return 0;
    }
    bool fresh;
    struct node *n = next_node(&fresh);
    if (fresh) {
        n->of_age = true;
        n->count = (uint8_t)count;
        n->spent = S->aged;
    } else if (!n->of_age || n->count != count) {
        explore_fail("the run does not repeat itself: at choice %u", S->depth);
    }
    S->aged += n->chosen != 0;
    return n->chosen;
}

static bool another(struct node *n)
{
    if (n->of_age) {
        n->chosen++;
        return n->chosen < n->count;
    }
    n->tried |= (uint8_t)(1u << n->chosen);
    uint32_t open = n->enabled & ~(uint32_t)n->sleeping & ~(uint32_t)n->tried;
    int limit = S->bound >= 0 ? S->bound : POLLS_MAX;
    open &= S->bound < 0 ? races_backtrack((uint32_t)(n - S->node)) : open;
    for (; open != 0; open &= open - 1) {
        if (n->spent + cost(n, lowest(open)) <= limit) {
            n->chosen = (uint8_t)lowest(open);
            return true;
        }
    }
    return false;
}

/* To the next path that was not tried; false: that was all. */
static bool backtrack(void)
{
    while (S->length != 0) {
        if (another(&S->node[S->length - 1])) {
            return true;
        }
        S->length--;
    }
    return false;
}

static const struct chooser dfs = {dfs_thread, dfs_age};

/* ---- priorities -------------------------------------------------------------------------- */

static unsigned pct_thread(uint32_t enabled, unsigned current)
{
    for (unsigned i = 0; i < S->o.depth; i++) {
        if (S->change_at[i] == X->steps && current < EXPLORE_THREADS) {
            S->priority[current] = S->next_low--;
        }
    }
    if (current < EXPLORE_THREADS && X->fiber[current].next.kind == OP_YIELD) {
        S->priority[current] = S->next_low--; /* it waits: others first */
    }
    unsigned best = lowest(enabled);
    for (uint32_t left = enabled; left != 0; left &= left - 1) {
        best = S->priority[lowest(left)] > S->priority[best] ? lowest(left) : best;
    }
    return best;
}

static unsigned pct_age(unsigned count)
{
    if (random_below(&S->random, 256) >= S->stale_chance) {
        return 0;
    }
    return 1 + (unsigned)random_below(&S->random, count - 1);
}

static const struct chooser pct = {pct_thread, pct_age};

static void pct_begin(uint64_t seed, uint32_t steps)
{
    random_init(&S->random, seed);
    for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
        S->priority[i] = 0x80000000u + (uint32_t)random_below(&S->random, 1u << 30);
    }
    for (unsigned i = 0; i < S->o.depth; i++) {
        S->change_at[i] = (uint32_t)random_below(&S->random, steps + 1);
    }
    S->next_low = 0x7fffffffu;
    S->stale_chance = (uint32_t)random_below(&S->random, 128);
}

/* ---- replay ------------------------------------------------------------------------------ */

static uint32_t number_at(const char **p)
{
    uint32_t n = 0;
    while (**p >= '0' && **p <= '9') {
        n = n * 10 + (uint32_t)(*(*p)++ - '0');
    }
    return n;
}

static unsigned replay_thread(uint32_t enabled, unsigned current)
{
    (void)current;
    if (S->replay_left == 0 && *S->replay >= 'a' && *S->replay < 'a' + EXPLORE_THREADS) {
        S->replay_thread = (unsigned)(*S->replay++ - 'a');
        S->replay_left = number_at(&S->replay);
        S->replay_left = S->replay_left == 0 ? 1 : S->replay_left;
    }
    if (S->replay_left == 0) {
        return lowest(enabled); /* behind the end of the string */
    }
    S->replay_left--;
    if ((enabled >> S->replay_thread & 1) == 0) {
        explore_fail("this schedule is not one of this scenario: thread %c cannot go on at step %u",
                     'a' + S->replay_thread, X->steps);
    }
    return S->replay_thread;
}

static unsigned replay_age(unsigned count)
{
    if (S->replay_left != 0 || *S->replay != '~') {
        return 0;
    }
    S->replay++;
    uint32_t age = number_at(&S->replay);
    return age < count ? age : 0;
}

static const struct chooser replay = {replay_thread, replay_age};

/* The run as a schedule string. */
static void print_schedule(void)
{
    for (uint32_t i = 0; i < X->log_length;) {
        unsigned char b = X->log[i];
        if (b & 0x80) {
            printf("~%u", b & 0x7fu);
            i++;
            continue;
        }
        uint32_t n = 0;
        while (i < X->log_length && X->log[i] == b) {
            i++;
            n++;
        }
        printf("%c%u", 'a' + b, n);
    }
}

/* ---- scenarios --------------------------------------------------------------------------- */

static void report(const char *how)
{
    const struct scenario *s = X->scenario;
    printf("%s %s: %s\n", s->name, how, X->message);
    if ((s->flags & BROKEN) != 0 && !S->o.verbose) {
        return;
    }
    printf("  replay: loam-explore %s--schedule=", X->weak ? "--modes=w " : "");
    print_schedule();
    printf(" %s\n", s->name);
}

/* The first run, with nothing special: how long it is. */
static uint32_t measure(void)
{
    pct_begin(S->o.seed, 0);
    X->weak = false;
    return run_once(&pct) == RUN_FAILED ? 0 : X->steps;
}

/* bound < 0: none. */
static bool exhaustive(const char *how, int bound, int stale, uint32_t budget)
{
    S->bound = bound;
    S->stale = stale;
    X->weak = stale > 0;
    S->length = 0;
    uint32_t runs = 0, cut = 0;
    bool more = true;
    /* Most runs with sleep sets are cut short. */
    for (; more && runs + cut / 32 < budget; more = backtrack()) {
        S->depth = 0;
        S->preemptions = S->aged = 0;
        S->sleeping = 0;
        races_begin();
        enum run_result r = run_once(&dfs);
        cut += r == RUN_CUT;
        runs += r != RUN_CUT;
        if (r == RUN_FAILED) {
            report(how);
            return false;
        }
    }
    char limit[40] = "";
    if (bound >= 0) {
        snprintf(limit, sizeof limit, ", at most %d preemptions", bound);
    }
    if (cut != 0) {
        snprintf(limit, sizeof limit, ", %u runs cut short", cut);
    }
    printf("  %s %s%s: %u runs%s\n", X->scenario->name, how, limit, runs,
           more ? ", not all" : ", all");
    return true;
}

static bool by_priorities(const char *how, bool weak, uint32_t runs, uint32_t steps)
{
    X->weak = weak;
    for (uint32_t i = 0; i < runs; i++) {
        pct_begin(S->o.seed + i, steps);
        if (run_once(&pct) == RUN_FAILED) {
            report(how);
            printf("  or: --modes=%c --seed=%llu --random=1\n", weak ? 'w' : 'p',
                   (unsigned long long)(S->o.seed + i));
            return false;
        }
    }
    printf("  %s %s: %u runs of some %u steps\n", X->scenario->name, how, runs, steps);
    return true;
}

static bool with_stopped(uint32_t tries, uint32_t steps)
{
    uint32_t runs = 0;
    X->weak = false;
    bool good = true;
    for (unsigned t = 0; good && t < X->scenario->threads; t++) {
        for (uint32_t at = 0; good && at < steps; at++) {
            bool reached = false;
            for (uint32_t i = 0; good && i < tries; i++) {
                pct_begin(S->o.seed + i, steps);
                X->frozen = t;
                X->frozen_at = at;
                good = run_once(&pct) != RUN_FAILED;
                reached = reached || X->fiber[t].state != FIBER_DONE;
                runs++;
            }
            if (!reached) {
                break; /* it ends in fewer steps */
            }
        }
    }
    X->frozen = FIBERS;
    if (!good) {
        report("stopped thread");
        return false;
    }
    printf("  %s stopped threads: %u runs\n", X->scenario->name, runs);
    return true;
}

static bool search_modes(const struct scenario *s)
{
    const struct search_options *o = &S->o;
    uint32_t steps = measure();
    if (steps == 0) {
        report("first run");
        return false;
    }
    uint32_t budget = o->budget != 0 ? o->budget : s->budget != 0 ? s->budget : BUDGET_DEFAULT;
    int bound = o->bound != -2 ? o->bound : s->bound;
    bool good = true;
    if (strchr(o->modes, 'e') != NULL) {
        good = exhaustive("exhaustive", bound, 0, budget);
    }
    if (good && strchr(o->modes, 'p') != NULL) {
        good = by_priorities("priorities", false, o->random, steps);
    }
    if (good && strchr(o->modes, 'w') != NULL) {
        good = by_priorities("old values", true, o->random, steps);
    }
    if (good && strchr(o->modes, 'w') != NULL) {
        good = exhaustive("exhaustive with old values", bound < 0 ? 3 : bound, o->stale, budget);
    }
    if (good && strchr(o->modes, 's') != NULL && (s->flags & LOCK_FREE) != 0) {
        good = with_stopped(8, steps * 2);
    }
    return good;
}

static bool replay_one(const struct scenario *s)
{
    S->replay = S->o.schedule;
    S->replay_left = 0;
    X->weak = strchr(S->o.modes, 'w') != NULL;
    X->trace = true;
    if (run_once(&replay) == RUN_FAILED) {
        printf("%s: %s\n", s->name, X->message);
        return false;
    }
    return true;
}

bool search_scenario(const struct scenario *s, const struct search_options *o)
{
    S = mmap(NULL, sizeof *S, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    S->o = *o;
    X->step_limit = o->step_limit;
    world_begin(s);
    bool good = o->schedule != NULL ? replay_one(s) : search_modes(s);
    return (s->flags & BROKEN) != 0 ? !good : good;
}
