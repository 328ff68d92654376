/* stress_main.c - A plain main for stress tests: no framework between them and the sanitizers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/stress.h"

int main(int argc, char **argv)
{
    uint64_t seed = (uint64_t)time(NULL) * 1000003u ^ (uint64_t)getpid();
    const char *filter = "";
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--seed=", 7) == 0) {
            seed = strtoull(argv[i] + 7, NULL, 0);
        } else if (strncmp(argv[i], "--scale=", 8) == 0) {
            stress_scale = strtoull(argv[i] + 8, NULL, 0);
        } else {
            filter = argv[i];
        }
    }
    unsigned ran = 0;
    for (struct stress_test *t = stress_first(); t != NULL; t = t->next) {
        char name[256];
        snprintf(name, sizeof name, "%s/%s", t->module, t->name);
        if (strstr(name, filter) == NULL) {
            continue;
        }
        printf("[ RUN  ] %s --seed=%llu\n", name, (unsigned long long)seed);
        fflush(stdout);
        t->fn(seed);
        ran++;
    }
    printf("%u passed, 0 failed\n", ran);
    return ran == 0;
}
