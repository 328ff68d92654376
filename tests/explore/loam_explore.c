/* loam_explore.c - The command line of the schedule explorer.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/explore/explore_core.h"

static const char usage[] =
    "loam-explore [options] [scenario...]: runs schedules of the lock-free modules.\n"
    "A scenario is a name, or the beginning of some. Default: all.\n"
    "  --list          the scenarios\n"
    "  --modes=epws    e exhaustive, p priorities, w old values of atomics, s stopped threads\n"
    "  --bound=N       preemptions in the exhaustive search; -1: any number\n"
    "  --budget=N      runs of an exhaustive search\n"
    "  --stale=N       old values a run of the exhaustive search may see (1)\n"
    "  --random=N      runs by priorities (1000)\n"
    "  --pct=N         changes of priority in each (3)\n"
    "  --seed=N        of the runs by priorities (1)\n"
    "  --schedule=S    one run: a schedule as printed with a failure; prints every step\n"
    "  --steps=N       a run that has more of them is taken for a loop without end (3000)\n"
    "  --long          100 times the budget and 20 times the random runs\n"
    "  --part=I/N      of these the Ith of N parts: each Nth scenario\n"
    "  --first         stop at the first failure\n"
    "  --verbose       schedules of known defects, too\n";

static struct scenario *first;
static struct {
    unsigned i, n;
} part = {1, 1};

void scenario_register(struct scenario *s)
{
    struct scenario **at = &first;
    while (*at != NULL && strcmp((*at)->name, s->name) < 0) {
        at = &(*at)->next;
    }
    if (*at != NULL && strcmp((*at)->name, s->name) == 0) {
        fprintf(stderr, "loam-explore: two scenarios are called %s\n", s->name);
        abort();
    }
    s->next = *at;
    *at = s;
}

static bool option(const char *arg, const char *name, const char **value)
{
    size_t n = strlen(name);
    if (strncmp(arg, name, n) != 0 || arg[n] != '=') {
        return false;
    }
    *value = arg + n + 1;
    return true;
}

/* False: not an option. */
static bool parse(struct search_options *o, const char *arg)
{
    const char *v;
    if (option(arg, "--modes", &v)) {
        o->modes = v;
    } else if (option(arg, "--bound", &v)) {
        o->bound = atoi(v);
    } else if (option(arg, "--budget", &v)) {
        o->budget = (uint32_t)strtoul(v, NULL, 10);
    } else if (option(arg, "--stale", &v)) {
        o->stale = atoi(v);
    } else if (option(arg, "--random", &v)) {
        o->random = (uint32_t)strtoul(v, NULL, 10);
    } else if (option(arg, "--pct", &v)) {
        o->depth = (unsigned)strtoul(v, NULL, 10) % 16;
    } else if (option(arg, "--seed", &v)) {
        o->seed = strtoull(v, NULL, 10);
    } else if (option(arg, "--schedule", &v)) {
        o->schedule = v;
    } else if (option(arg, "--part", &v)) {
        return sscanf(v, "%u/%u", &part.i, &part.n) == 2 && part.i >= 1 && part.i <= part.n;
    } else if (option(arg, "--steps", &v)) {
        o->step_limit = (uint32_t)strtoul(v, NULL, 10);
    } else if (strcmp(arg, "--long") == 0) {
        o->random *= 20;
        o->budget = 100 * 10000;
    } else if (strcmp(arg, "--first") == 0) {
        o->first = true;
    } else if (strcmp(arg, "--verbose") == 0) {
        o->verbose = true;
    } else {
        return false;
    }
    return true;
}

/* In a process of its own, so that each scenario starts in a fresh world. */
static bool run_scenario(const struct scenario *s, const struct search_options *o)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        explorer_open();
        bool good = search_scenario(s, o);
        fflush(stdout);
        _exit(good ? 0 : 1);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("loam-explore");
        exit(2);
    }
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    printf("%s %s%s\n", good ? "ok  " : "FAIL", s->name,
           (s->flags & BROKEN) == 0 ? ""
           : good                   ? " (a known defect, and found)"
                                    : " (a known defect, not found)");
    return good;
}

int main(int argc, char **argv)
{
    struct search_options o = {.seed = 1,
                               .bound = -2,
                               .stale = 1,
                               .random = 1000,
                               .depth = 3,
                               .modes = "epws",
                               .step_limit = 3000};
    unsigned names = 0, count = 0, passed = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--list") == 0) {
            for (const struct scenario *s = first; s != NULL; s = s->next) {
                printf("%-28s %u threads  %s\n", s->name, s->threads, s->says);
            }
            return 0;
        }
        if (argv[i][0] != '-') {
            argv[names++] = argv[i];
        } else if (!parse(&o, argv[i])) {
            fputs(usage, strcmp(argv[i], "--help") == 0 ? stdout : stderr);
            return strcmp(argv[i], "--help") == 0 ? 0 : 2;
        }
    }
    for (const struct scenario *s = first; s != NULL && !(o.first && failed != 0); s = s->next) {
        bool wanted = names == 0;
        for (unsigned i = 0; i < names; i++) {
            wanted = wanted || strncmp(s->name, argv[i], strlen(argv[i])) == 0;
        }
        if (wanted && count++ % part.n == part.i - 1) {
            bool good = run_scenario(s, &o);
            passed += good;
            failed += !good;
        }
    }
    printf("%u passed, %u failed\n", passed, failed);
    return failed == 0 && passed != 0 ? 0 : 1;
}
