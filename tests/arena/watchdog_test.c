/* watchdog_test.c - The watchdog of the stress tests finds who is stuck, and nobody else.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <signal.h>

#include "arena/sync.h"
#include "tests/support/check.h"
#include "tests/support/watchdog.h"

static atomic_bool done;

static void in_circles(struct crew_member *m)
{
    while (m->index == 0 && !atomic_load(&done)) {
    }
    watchdog_step();
}

Test(watchdog, finds_a_thread_that_runs_in_circles, .signal = SIGABRT)
{
    crew_run_watched("in circles", 2, in_circles, NULL, 1);
}

static void waits_for_ever(struct crew_member *m)
{
    pthread_mutex_t *mutex = m->shared;
    pthread_mutex_lock(mutex);
}

Test(watchdog, finds_that_all_threads_sleep, .signal = SIGABRT)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    crew_run_watched("asleep", 2, waits_for_ever, &mutex, 1);
}

static void one_sleeps(struct crew_member *m)
{
    if (m->index == 0) {
        waits_for_ever(m);
    }
    while (!atomic_load(&done)) {
        watchdog_step();
    }
}

Test(watchdog, finds_a_thread_that_sleeps_while_others_work, .signal = SIGABRT)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mutex);
    crew_run_watched("one asleep", 2, one_sleeps, &mutex, 1);
}

static void naps(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20; i++) { /* slow, but it goes on */
        thread_sleep_micros(70000);
        watchdog_step();
    }
}

static void lends(struct crew_member *m)
{
    if (m->index == 0) {
        watchdog_lend(naps, NULL);
        watchdog_lend(naps, NULL);
        atomic_store(&done, true);
    }
    while (!atomic_load(&done)) {
        thread_sleep_micros(1000);
        watchdog_step();
    }
}

Test(watchdog, leaves_alone_who_is_slow)
{
    crew_run_watched("slow", 2, lends, NULL, 1);
    CHECK(atomic_load(&done));
}
