/* workers.c - Threads that begin when there is work and end when there has been none for a while.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/workers.h"

#include <assert.h>

#include "arena/poison.h"

void workers_init(struct workers *w, struct mutex *mu, void *owner)
{
    *w = (struct workers){.mu = mu, .owner = owner};
}

void workers_destroy(struct workers *w)
{
    for (uint32_t g = 0; g < w->groups; g++) {
        cond_destroy(&w->group[g].cv);
    }
}

void workers_add(struct workers *w, const struct worker_kind *kind, uint32_t count)
{
    assert(w->groups < WORKER_KINDS);
    assert(count <= WORKERS_MAX - w->count);
    struct worker_group *g = &w->group[w->groups++];
    *g = (struct worker_group){.of = w, .kind = kind, .first = w->count, .count = count};
    cond_init(&g->cv);
    for (uint32_t i = 0; i < count; i++) {
        w->place[w->count++] = (struct worker){.group = g};
    }
}

/* How long the worker may sleep; 0: it has rested enough. */
static uint64_t sleep_of(const struct worker_kind *k, enum worker_round round, uint64_t rested)
{
    if (round == WORKER_WAITS) {
        return k->wait_us;
    }
    uint64_t left = rested < WORKER_IDLE_US ? WORKER_IDLE_US - rested : 0;
    return left < k->look_us ? left : k->look_us;
}

static void work_locked(struct worker_group *g)
{
    struct workers *w = g->of;
    uint64_t since = clock_micros();
    while (!w->stopped) {
        enum worker_round round = g->kind->round(w->owner);
        uint64_t now = clock_micros();
        since = round == WORKER_RESTS ? since : now;
        if (round != WORKER_WORKED) {
            uint64_t sleep = sleep_of(g->kind, round, now - since);
            if (sleep == 0) {
                return;
            }
            cond_wait_for(&g->cv, w->mu, sleep);
        }
    }
}

static void *worker_main(void *arg)
{
    struct worker *p = arg;
    if (p->follows) { /* written before this thread was started, and by nobody while it runs */
        thread_join(p->before);
    }
    struct worker_group *g = p->group;
    thread_name(g->kind->name);
    thread_give_way(WORKER_NICE);
    mutex_lock(g->of->mu);
    work_locked(g);
    p->running = false;
    mutex_unlock(g->of->mu);
    return NULL;
}

static int start_locked(struct worker *p)
{
    pthread_t thread;
    p->before = p->thread;
    p->follows = p->started;
    int neg = thread_start(&thread, worker_main, p);
    if (neg == 0) {
        p->thread = thread;
        p->started = p->running = true;
    }
    return neg;
}

static bool group_absent(const struct worker_group *g)
{
    const struct worker *p = &g->of->place[g->first];
    for (uint32_t i = 0; i < g->count; i++) {
        if (p[i].running) {
            return false;
        }
    }
    return true;
}

bool workers_absent_locked(const struct workers *w, const struct worker_kind *kind)
{
    mutex_assert_held(w->mu);
    for (uint32_t g = 0; g < w->groups; g++) {
        if (w->group[g].kind == kind && !group_absent(&w->group[g])) {
            return false;
        }
    }
    return true;
}

static int wake_group_locked(struct worker_group *g)
{
    struct worker *p = &g->of->place[g->first];
    int failed = 0;
    for (uint32_t i = 0; i < g->count && !g->of->stopped; i++) {
        int neg = p[i].running ? 0 : start_locked(&p[i]);
        if (neg < 0 && group_absent(g)) {
            failed = neg;
        }
    }
    cond_broadcast(&g->cv);
    return failed;
}

int workers_wake_locked(struct workers *w, const struct worker_kind *kind)
{
    mutex_assert_held(w->mu);
    int failed = 0;
    for (uint32_t g = 0; g < w->groups; g++) {
        if (kind == NULL || w->group[g].kind == kind) {
            int neg = wake_group_locked(&w->group[g]);
            failed = neg < 0 ? neg : failed;
        }
    }
    return failed;
}

void workers_stop_locked(struct workers *w)
{
    mutex_assert_held(w->mu);
    w->stopped = true;
    (void)workers_wake_locked(w, NULL); /* starts none any more */
}

void workers_join(struct workers *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        struct worker *p = &w->place[i];
        if (p->started) {
            thread_join(p->thread);
            p->started = false;
        }
    }
}
