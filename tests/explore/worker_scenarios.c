/* worker_scenarios.c - Work arrives while a worker ends: it is done, and every thread is waited for.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Thread 0 brings work, waits for it without a limit, stops the workers and waits for them. Thread 1 is
 * time: from any point of the schedule on, a worker that finds nothing has rested long enough. The others are stages
 * on which started threads run. A sleep that only its own limit ends is a lost wake-up.
 */
#include <errno.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "engine/workers.h"
#include "tests/explore/explore.h"

enum { TIME = 1, FIRST_STAGE, STAGES = EXPLORE_THREADS };
enum { EMPTY, BEGUN, NEVER };

static struct {
    struct mutex mu;
    struct cond done_cv;
    struct workers workers;
    struct worker_kind kind;
    uint32_t due, done;
    uint32_t refuse; /* starts to come that fail */
    uint32_t stages; /* taken */
    _Atomic bool late;
    struct stage {
        _Atomic uint32_t state, ended;
        void *(*fn)(void *);
        void *arg;
    } stage[STAGES];
} w;

/* ---- threads ----------------------------------------------------------------------------- */

int thread_start(pthread_t *t, void *(*fn)(void *), void *arg)
{
    mutex_assert_held(&w.mu);
    if (w.refuse != 0) {
        w.refuse--;
        return -EAGAIN;
    }
    EXPECT(FIRST_STAGE + w.stages < STAGES);
    uint32_t k = FIRST_STAGE + w.stages++;
    w.stage[k].fn = fn;
    w.stage[k].arg = arg;
    *t = (pthread_t)k;
    atom_store(&w.stage[k].state, BEGUN, release); /* pairs with stage_run() */
    word_wake_all(&w.stage[k].state);
    return 0;
}

void thread_join(pthread_t t)
{
    struct stage *s = &w.stage[(uint32_t)t];
    while (atom_load(&s->ended, acquire) == 0) { /* acquire: pairs with stage_run() */
        word_wait(&s->ended, 0, UINT64_MAX);
    }
}

void thread_name(const char *name)
{
    (void)name;
}

void thread_give_way(int by)
{
    (void)by;
}

static void stage_run(struct stage *s)
{
    uint32_t state;
    while ((state = atom_load(&s->state, acquire)) == EMPTY) { /* acquire: fn and arg */
        word_wait(&s->state, EMPTY, UINT64_MAX);
    }
    if (state == BEGUN) {
        (void)s->fn(s->arg);
        atom_store(&s->ended, 1, release); /* pairs with thread_join() */
        word_wake_all(&s->ended);
    }
}

/* ---- work -------------------------------------------------------------------------------- */

static enum worker_round round_of_one(void *owner)
{
    EXPECT(owner == &w);
    mutex_assert_held(&w.mu);
    if (w.due == 0) {
        if (atom_load(&w.late, relaxed)) {
            thread_sleep_micros(WORKER_IDLE_US); /* moves the clock */
        }
        return WORKER_RESTS;
    }
    w.due--;
    mutex_unlock(&w.mu);
    mutex_lock(&w.mu);
    w.done++;
    cond_broadcast(&w.done_cv);
    return WORKER_WORKED;
}

static void setup(void)
{
    mutex_init(&w.mu, RANK_DB);
    cond_init(&w.done_cv);
    w.kind = (struct worker_kind){"worker", round_of_one, WORKER_IDLE_US, WORKER_IDLE_US};
    workers_init(&w.workers, &w.mu, &w);
    workers_add(&w.workers, &w.kind, 1);
}

static void refusing_setup(void)
{
    setup();
    w.refuse = 1;
}

static void bring(void)
{
    w.due++;
    bool refused = w.refuse != 0;
    EXPECT_EQ(workers_wake_locked(&w.workers, NULL), refused ? -EAGAIN : 0);
    if (refused) {
        EXPECT(workers_absent_locked(&w.workers, &w.kind));
        EXPECT_EQ(workers_wake_locked(&w.workers, NULL), 0);
    }
    EXPECT(!workers_absent_locked(&w.workers, &w.kind));
}

static void time_passes(void)
{
    atom_store(&w.late, true, relaxed);
    cond_broadcast(&w.workers.group[0].cv);
}

static void work_comes(void)
{
    mutex_lock(&w.mu);
    for (uint32_t i = 1; i <= 2; i++) {
        bring();
        while (w.done != i) {
            cond_wait(&w.done_cv, &w.mu);
        }
    }
    workers_stop_locked(&w.workers);
    EXPECT_EQ(workers_wake_locked(&w.workers, NULL), 0);
    mutex_unlock(&w.mu);
    workers_join(&w.workers);
    for (uint32_t k = FIRST_STAGE; k < STAGES; k++) {
        if (k < FIRST_STAGE + w.stages) {
            EXPECT_EQ(atom_load(&w.stage[k].ended, relaxed), 1);
        } else {
            atom_store(&w.stage[k].state, NEVER, release);
            word_wake_all(&w.stage[k].state);
        }
    }
}

static void body(unsigned thread)
{
    if (thread == 0) {
        work_comes();
    } else if (thread == TIME) {
        time_passes();
    } else {
        stage_run(&w.stage[thread]);
    }
}

SCENARIO(workers_end, .says = "work that comes as a worker ends is done, and each thread is joined",
         .threads = EXPLORE_THREADS, .flags = NO_LAPSE, .setup = setup, .body = body, .bound = 2)
SCENARIO(workers_refused, .says = "a thread that cannot be started is started by the next wake",
         .threads = EXPLORE_THREADS, .flags = NO_LAPSE, .setup = refusing_setup, .body = body, .bound = 2)
