/* stress_main.c - A plain main for stress tests: no framework between them and the sanitizers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * program [--seed=N] [--scale=N] [--ops=N] [--but=WORD] [filter]
 *
 * The tests whose names hold the filter, but for those that hold WORD.
 * --ops repeats the tests that count operations, in slices with a seed each that repeats the slice, until
 * so many are done; each slice prints the sum. The last line then tells operations and the first seed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/stress.h"

static unsigned run_all(const char *filter, const char *but, uint64_t seed)
{
    unsigned ran = 0;
    for (struct stress_test *t = stress_first(); t != NULL; t = t->next) {
        char name[256];
        snprintf(name, sizeof name, "%s/%s", t->module, t->name);
        if (strstr(name, filter) == NULL || (but != NULL && strstr(name, but) != NULL)) {
            continue;
        }
        printf("[ RUN  ] %s --seed=%llu\n", name, (unsigned long long)seed);
        fflush(stdout);
        t->fn(seed);
        ran++;
    }
    return ran;
}

int main(int argc, char **argv)
{
    uint64_t seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid(), ops = 0;
    const char *filter = "", *but = NULL;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 0);
        } else if (strncmp(argv[i], "--scale=", 8) == 0) {
            stress_scale = strtoull(argv[i] + 8, NULL, 0);
        } else if (strncmp(argv[i], "--ops=", 6) == 0) {
            ops = strtoull(argv[i] + 6, NULL, 0);
        } else if (strncmp(argv[i], "--but=", 6) == 0) {
            but = argv[i] + 6;
        } else {
            filter = argv[i];
        }
    }
    unsigned ran = run_all(filter, but, seed);
    uint64_t slices = 1;
    for (; stress_ops != 0 && stress_ops < ops; slices++) {
        printf("%" PRIu64 " operations in %" PRIu64 " slices\n", stress_ops, slices);
        run_all(filter, but, seed + slices);
    }
    printf("%u passed, 0 failed", ran);
    if (ops != 0) {
        printf(", %" PRIu64 " operations judged in %" PRIu64 " slices from --seed=%" PRIu64,
               stress_ops, slices, seed);
    }
    putchar('\n');
    return ran == 0;
}
