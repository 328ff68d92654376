/* model_main.c - The model test as a plain program, for long runs, sanitizers and replays.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   loam-model [--seed=N] [--ops=N] [--seconds=N] [--episode=SEED] [--disk=N] [--durability=N]
 *              [--no-crash] [--byte-order] [--verbose]
 *
 * --episode runs the one database of that seed for --ops operations, as a failure report says.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/model_run.h"

static bool number(const char *arg, const char *name, uint64_t *to)
{
    size_t n = strlen(name);
    if (strncmp(arg, name, n) != 0 || arg[n] != '=') {
        return false;
    }
    *to = strtoull(arg + n + 1, NULL, 0);
    return true;
}

int main(int argc, char **argv)
{
    struct model_run_options o = {.ops = 200000};
    struct model_run_counts c = {0};
    uint64_t seed = 0, episode = 0, seconds = 0, disk = 0, durability = 0;
    bool have_seed = false, have_episode = false;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (number(a, "--seed", &seed)) {
            have_seed = true;
        } else if (number(a, "--episode", &episode)) {
            have_episode = true;
        } else if (strcmp(a, "--no-crash") == 0) {
            o.no_crash = true;
        } else if (strcmp(a, "--byte-order") == 0) {
            o.byte_order = true;
        } else if (strcmp(a, "--verbose") == 0) {
            o.verbose = true;
        } else if (!number(a, "--ops", &o.ops) && !number(a, "--seconds", &seconds) &&
                   !number(a, "--disk", &disk) && !number(a, "--durability", &durability)) {
            fprintf(stderr, "unknown argument %s\n", a);
            return 2;
        }
    }
    o.disk = (enum model_disk)disk;
    o.durability = (uint32_t)durability;
    if (have_episode) {
        o.seed = episode;
        model_run_episode(&o, &c);
    } else {
        o.seed = have_seed ? seed : model_run_seed();
        model_run_many(&o, seconds, &c);
    }
    printf("%" PRIu64 " operations in %" PRIu64 " episodes: %" PRIu64 " writes, %" PRIu64
           " point reads, %" PRIu64 " iterator steps, %" PRIu64 " flushes, %" PRIu64
           " compactions, %" PRIu64 " reopens, %" PRIu64 " crashes, %" PRIu64 " sicknesses\n",
           c.ops, c.episodes, c.writes, c.reads, c.moves, c.flushes, c.compactions, c.reopens,
           c.crashes, c.sicknesses);
    return 0;
}
