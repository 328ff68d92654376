/* stress.c - The registry of stress tests and the crew of threads that start together.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/stress.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "arena/random.h"
#include "tests/support/check.h"

uint64_t stress_scale = 1;
uint64_t stress_ops;

static struct stress_test *first;

void stress_register(struct stress_test *t)
{
    /* Sorted by module and name: link order must not matter. */
    struct stress_test **at = &first;
    while (*at != NULL && (strcmp((*at)->module, t->module) < 0 ||
                           (strcmp((*at)->module, t->module) == 0 &&
                            strcmp((*at)->name, t->name) < 0))) {
        at = &(*at)->next;
    }
    t->next = *at;
    *at = t;
}

struct stress_test *stress_first(void)
{
    return first;
}

struct crew_start {
    struct crew_member member;
    crew_fn *fn;
    pthread_barrier_t *barrier;
    pthread_t thread;
};

static void *crew_main(void *arg)
{
    struct crew_start *s = arg;
    pthread_barrier_wait(s->barrier);
    s->fn(&s->member);
    return NULL;
}

void crew_run(unsigned n, crew_fn *fn, void *shared, uint64_t seed)
{
    struct crew_start *all = calloc(n, sizeof *all);
    CHECK(all != NULL);
    pthread_barrier_t barrier;
    CHECK_EQ(pthread_barrier_init(&barrier, NULL, n), 0);
    for (unsigned i = 0; i < n; i++) {
        all[i].member = (struct crew_member){i, n, splitmix64(&seed), shared};
        all[i].fn = fn;
        all[i].barrier = &barrier;
        CHECK_EQ(pthread_create(&all[i].thread, NULL, crew_main, &all[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        CHECK_EQ(pthread_join(all[i].thread, NULL), 0);
    }
    pthread_barrier_destroy(&barrier);
    free(all);
}
