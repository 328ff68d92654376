/* stress_criterion.c - Runs each registered stress test as a Criterion test of its own.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/stress.h"

struct stress_param {
    char name[120];
    uint64_t seed;
};

ParameterizedTestParameters(stress, all)
{
    size_t n = 0;
    for (struct stress_test *t = stress_first(); t != NULL; t = t->next) {
        n++;
    }
    struct stress_param *p = cr_malloc(n * sizeof *p);
    uint64_t seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    size_t i = 0;
    for (struct stress_test *t = stress_first(); t != NULL; t = t->next, i++) {
        snprintf(p[i].name, sizeof p[i].name, "%s/%s", t->module, t->name);
        p[i].seed = seed;
    }
    return cr_make_param_array(struct stress_param, p, n, NULL);
}

ParameterizedTest(struct stress_param *p, stress, all)
{
    for (struct stress_test *t = stress_first(); t != NULL; t = t->next) {
        char name[120];
        snprintf(name, sizeof name, "%s/%s", t->module, t->name);
        if (strcmp(name, p->name) == 0) {
            fprintf(stderr, "%s --seed=%llu\n", name, (unsigned long long)p->seed);
            t->fn(p->seed);
            return;
        }
    }
    cr_assert_fail("no stress test of the name %s", p->name);
}
