/* loam_crash.c - Crashes recorded workloads at every change of the disk and checks every recovery.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The parent shares out rounds to worker processes, shows how far they are, and notices when one
 * dies or hangs: both are findings about the state it was opening.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bound_fork.h"
#include "tools/crash_run.h"

#define JOBS_MAX 64u
#define HANG_SECONDS 60 /* without a new state */

struct settings {
    struct crash_plan plan;
    double seconds;     /* 0: no limit */
    uint64_t rounds;    /* 0: no limit */
    uint64_t first;     /* round */
    uint64_t at_least;  /* distinct states; fewer are a failure */
    unsigned jobs;
    bool json;
    const char *replay;
};

struct shared {
    struct crash_totals totals;
    struct crash_position position[JOBS_MAX];
};

struct worker {
    pid_t pid; /* 0: it has ended */
    uint64_t tried;
    double since; /* it was last seen to move */
};

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- workers ----------------------------------------------------------------------------------- */

/* Where there are jobs for all processors each keeps its threads on one: an open and its workers hand over
 * to each other several times, and waking another processor costs more than the work it is woken for. Jobs
 * beyond these go anywhere; with them, threads of one recovery truly run at once. */
static void keep_to_processor(unsigned jobs, unsigned i)
{
    cpu_set_t all, one;
    if (sched_getaffinity(0, sizeof all, &all) != 0 || jobs < (unsigned)CPU_COUNT(&all)) {
        return;
    }
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all) && i-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            (void)sched_setaffinity(0, sizeof one, &one); /* it is a matter of speed alone */
            return;
        }
    }
}

static _Noreturn void worker_main(const struct settings *s, struct shared *sh, unsigned i)
{
    keep_to_processor(s->jobs, i);
    struct crash_run *r = crash_run_new(&s->plan, &sh->totals, &sh->position[i]);
    if (r == NULL) {
        _exit(4);
    }
    while (!atomic_load(&sh->totals.stop)) {
        uint64_t round = atomic_fetch_add(&sh->totals.rounds, 1);
        if (s->rounds != 0 && round >= s->rounds) {
            break;
        }
        crash_run_round(r, s->first + round);
    }
    crash_run_free(r);
    fflush(NULL);
    _exit(0);
}

static void died(struct shared *sh, const struct settings *s, unsigned i, const char *how, int number)
{
    const struct crash_position *p = &sh->position[i];
    atomic_fetch_add(&sh->totals.other, 1);
    atomic_store(&sh->totals.stop, true);
    fprintf(stderr,
            "\nFAILED seed %" PRIu64 ", round %" PRIu64 ", depth %u, change %" PRIu64
            ", variant %u, names %u, case seed %" PRIu64 "\n  the process %s %d\n"
            "  again: loam-crash --seed=%" PRIu64 " --round=%" PRIu64 "\n",
            s->plan.seed, atomic_load(&p->round), atomic_load(&p->depth), atomic_load(&p->at),
            atomic_load(&p->variant), atomic_load(&p->names), atomic_load(&p->seed), how, number,
            s->plan.seed, atomic_load(&p->round));
}

/* True while it runs. */
static bool watch(struct worker *w, struct shared *sh, const struct settings *s, unsigned i)
{
    int status;
    const struct crash_position *p = &sh->position[i];
    uint64_t moved = atomic_load(&p->round) * 1000003u + atomic_load(&p->at) * 31u +
                     atomic_load(&p->seed) + atomic_load(&p->variant);
    pid_t ended = waitpid(w->pid, &status, WNOHANG);
    if (ended == 0) {
        if (moved != w->tried) {
            w->tried = moved;
            w->since = now_seconds();
        } else if (now_seconds() - w->since > HANG_SECONDS) {
            died(sh, s, i, "hangs, for seconds:", HANG_SECONDS);
            kill(w->pid, SIGKILL);
            waitpid(w->pid, &status, 0);
            return false;
        }
        return true;
    }
    if (ended == w->pid && WIFSIGNALED(status)) {
        died(sh, s, i, "died by signal", WTERMSIG(status));
    } else if (ended == w->pid && WEXITSTATUS(status) != 0) {
        died(sh, s, i, "ended with status", WEXITSTATUS(status));
    }
    return false;
}

/* ---- what is shown ----------------------------------------------------------------------------- */

static void show(const struct settings *s, struct shared *sh, double elapsed)
{
    enum { WIDTH = 20 };
    struct crash_totals *t = &sh->totals;
    uint64_t distinct = atomic_load(&t->distinct);
    double share = 0;
    if (s->plan.states != 0) {
        share = (double)distinct / (double)s->plan.states;
    }
    if (s->seconds > 0 && elapsed / s->seconds > share) {
        share = elapsed / s->seconds;
    }
    if (s->rounds != 0 && (double)atomic_load(&t->finished) / (double)s->rounds > share) {
        share = (double)atomic_load(&t->finished) / (double)s->rounds;
    }
    char bar[WIDTH + 1];
    for (int i = 0; i < WIDTH; i++) {
        bar[i] = i < (int)(share * WIDTH) ? '#' : '.';
    }
    bar[WIDTH] = '\0';
    fprintf(stderr, "\rcrash states [%s] %3.0f%%  %" PRIu64 " distinct, %.0f/s, %" PRIu64 " failed ",
            bar, share < 1 ? share * 100 : 100, distinct,
            elapsed > 0 ? (double)distinct / elapsed : 0, crash_failures(t));
    fflush(stderr);
}

static void print_totals(const struct settings *s, struct shared *sh, double elapsed)
{
    struct crash_totals *t = &sh->totals;
    uint64_t distinct = atomic_load(&t->distinct), rounds = atomic_load(&t->finished);
    uint64_t lost = atomic_load(&t->lost), wrong = atomic_load(&t->wrong);
    uint64_t unopenable = atomic_load(&t->unopenable), other = atomic_load(&t->other);
    if (s->json) {
        printf("{\"distinct\":%" PRIu64 ",\"wanted\":%" PRIu64 ",\"tried\":%" PRIu64 ",\"nested\":%" PRIu64
               ",\"exhaustive_moments\":%" PRIu64 ",\"sampled_moments\":%" PRIu64
               ",\"rolls\":%" PRIu64 ",\"rolling\":%" PRIu64 ",\"changes\":%" PRIu64 ",\"rounds\":%" PRIu64 ",\"lost\":%" PRIu64
               ",\"wrong\":%" PRIu64 ",\"unopenable\":%" PRIu64 ",\"other\":%" PRIu64
               ",\"seconds\":%.1f,\"jobs\":%u,\"seed\":%" PRIu64 "}\n",
               distinct, s->plan.states, atomic_load(&t->tried), atomic_load(&t->nested),
               atomic_load(&t->exhaustive), atomic_load(&t->sampled), atomic_load(&t->rolls),
               atomic_load(&t->rolling), atomic_load(&t->changes),
               rounds, lost, wrong, unopenable, other, elapsed, s->jobs, s->plan.seed);
        return;
    }
    printf("%" PRIu64, distinct);
    if (distinct < s->plan.states) {
        printf(" of %" PRIu64 " wanted", s->plan.states); /* time, or patience with failures, ran out */
    }
    printf(" distinct crash states (%" PRIu64 " tried, %" PRIu64
           " in recoveries, %" PRIu64 " within %" PRIu64
           " manifest rolls, every subset at %" PRIu64 " of %" PRIu64 " moments, %" PRIu64
           " whole rounds) in %.1f s: %" PRIu64 " lost, %" PRIu64 " wrong, %" PRIu64
           " unopenable, %" PRIu64 " other failures (seed %" PRIu64 ")\n",
           atomic_load(&t->tried), atomic_load(&t->nested), atomic_load(&t->rolling),
           atomic_load(&t->rolls), atomic_load(&t->exhaustive),
           atomic_load(&t->exhaustive) + atomic_load(&t->sampled), rounds, elapsed, lost, wrong,
           unopenable, other, s->plan.seed);
}

/* ---- the parent -------------------------------------------------------------------------------- */

static int run(const struct settings *s)
{
    struct shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                             -1, 0);
    if (sh == MAP_FAILED) {
        perror("loam-crash: mmap");
        return 4;
    }
    if (mkdir(s->plan.save, 0700) != 0 && errno != EEXIST) {
        perror(s->plan.save);
        return 4;
    }
    struct worker w[JOBS_MAX] = {0};
    double start = now_seconds();
    bool terminal = isatty(STDERR_FILENO) == 1 && !s->json;
    fflush(NULL);
    for (unsigned i = 0; i < s->jobs; i++) {
        w[i] = (struct worker){bound_fork(), 0, start};
        if (w[i].pid == 0) {
            worker_main(s, sh, i);
        }
        if (w[i].pid < 0) {
            perror("loam-crash: fork");
            atomic_store(&sh->totals.stop, true);
            w[i].pid = 0;
        }
    }
    for (bool running = true; running;) {
        running = false;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        for (unsigned i = 0; i < s->jobs; i++) {
            if (w[i].pid != 0 && !watch(&w[i], sh, s, i)) {
                w[i].pid = 0;
            }
            running = running || w[i].pid != 0;
        }
        double elapsed = now_seconds() - start;
        if ((s->seconds > 0 && elapsed >= s->seconds) ||
            crash_failures(&sh->totals) >= s->plan.failures) {
            atomic_store(&sh->totals.stop, true);
        }
        if (terminal) {
            show(s, sh, elapsed);
        }
    }
    if (terminal) {
        fprintf(stderr, "\r%79s\r", "");
    }
    print_totals(s, sh, now_seconds() - start);
    rmdir(s->plan.save); /* stays when there are cases in it */
    uint64_t distinct = atomic_load(&sh->totals.distinct);
    bool clean = crash_failures(&sh->totals) == 0 && distinct != 0;
    if (clean && distinct < s->at_least) {
        fprintf(stderr, "loam-crash: %" PRIu64 " distinct states are fewer than --at_least=%" PRIu64 "\n",
                distinct, s->at_least);
        return 1;
    }
    return clean == (s->plan.lie == 0) ? 0 : 3;
}

/* ---- flags ------------------------------------------------------------------------------------- */

static void usage(FILE *f)
{
    fputs("usage: loam-crash [flags]\n"
          "       loam-crash --replay=CASE\n"
          "Runs random workloads on a disk in memory and crashes them at every change of the disk,\n"
          "in many ways: the process killed, or power lost with unsynced blocks kept, dropped, torn,\n"
          "full of garbage or of old data, names kept or not, under both models of when a name is\n"
          "durable. Opens each distinct result and compares it with what was promised; crashes some\n"
          "of those recoveries too, to a depth of 3. Last line: counts and the seed; it begins with\n"
          "\"N of M wanted\" when a run ends before --states.\n"
          "Exit 0: nothing lost, wrong or unopenable; 1: likewise, but of fewer states than --at_least;\n"
          "3: something was; 2: bad flags; 4: no run. With --lie the other way round: 0 when it was\n"
          "noticed.\n\n"
          "  --states N    stop at N distinct states (default 60000; 0: no limit)\n"
          "  --at_least N  fewer distinct states when the run ends are a failure, too (default 0)\n"
          "  --seconds N   stop after N seconds\n"
          "  --hours N     stop after N hours, whatever the states\n"
          "  --rounds N    stop after N workloads\n"
          "  --seed N      of the workloads and crashes (default: LOAM_SEED, or the time)\n"
          "  --round N     only workload N of the seed\n"
          "  --jobs N      processes, at most 64 (default: one a core, which it keeps to)\n"
          "  --tries N     seeds of each random variant at a moment (default 2)\n"
          "  --nested N    one state in N has its recovery crashed too (default 150; 0: none)\n"
          "  --exhaustive  every subset of up to 10 pending blocks and names at every moment, not only\n"
          "                of up to 6, and of more at one moment in 16\n"
          "  --failures N  stop after N (default 5)\n"
          "  --save DIR    where failed cases go (default loam-crash-cases)\n"
          "  --replay CASE check one saved case; its files are in CASE/db\n"
          "  --lie KIND    the disk only pretends to do it: sync, sync_dir or write; shows that the\n"
          "                checks see what they should\n"
          "  --json        the last line as a JSON object\n",
          f);
}

static bool parse_lie(const char *text, uint32_t *calls)
{
    static const struct {
        const char *name;
        uint32_t call;
    } kinds[] = {{"sync", LOAM_CALL_SYNC | LOAM_CALL_WRITE_DURABLE},
                 {"sync_dir", LOAM_CALL_SYNC_DIR},
                 {"write", LOAM_CALL_WRITE}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(text, kinds[i].name) == 0) {
            *calls = kinds[i].call;
            return true;
        }
    }
    return false;
}

static int parse(int argc, char **argv, struct settings *s)
{
    static const struct option flags[] = {
        {"states", required_argument, NULL, 'n'},   {"seconds", required_argument, NULL, 's'},
        {"hours", required_argument, NULL, 'H'},    {"rounds", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 'S'},     {"round", required_argument, NULL, 'R'},
        {"jobs", required_argument, NULL, 'j'},     {"tries", required_argument, NULL, 't'},
        {"nested", required_argument, NULL, 'N'},   {"failures", required_argument, NULL, 'f'},
        {"save", required_argument, NULL, 'o'},     {"replay", required_argument, NULL, 'p'},
        {"lie", required_argument, NULL, 'l'},      {"exhaustive", no_argument, NULL, 'x'},
        {"at_least", required_argument, NULL, 'L'}, {"json", no_argument, NULL, 'J'},
        {"help", no_argument, NULL, 'h'},           {NULL, 0, NULL, 0}};
    int c;
    bool fine = true;
    while (fine && (c = getopt_long_only(argc, argv, "", flags, NULL)) != -1) {
        switch (c) {
        case 'n': s->plan.states = strtoull(optarg, NULL, 0); break;
        case 's': s->seconds = atof(optarg); break;
        case 'H': s->seconds = atof(optarg) * 3600; s->plan.states = 0; break;
        case 'r': s->rounds = strtoull(optarg, NULL, 0); break;
        case 'S': s->plan.seed = strtoull(optarg, NULL, 0); break;
        case 'R': s->first = strtoull(optarg, NULL, 0); s->rounds = 1; s->plan.states = 0; break;
        case 'j': s->jobs = (unsigned)strtoul(optarg, NULL, 0); break;
        case 't': s->plan.tries = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'N': s->plan.nested_every = (uint32_t)strtoul(optarg, NULL, 0); break;
        case 'f': s->plan.failures = strtoull(optarg, NULL, 0); break;
        case 'o': s->plan.save = optarg; break;
        case 'p': s->replay = optarg; break;
        case 'l': fine = parse_lie(optarg, &s->plan.lie); break;
        case 'L': s->at_least = strtoull(optarg, NULL, 0); break;
        case 'x': s->plan.exhaustive = true; break;
        case 'J': s->json = true; break;
        case 'h': usage(stdout); exit(0);
        default: fine = false; break;
        }
    }
    if (!fine || optind != argc || s->jobs == 0 || s->jobs > JOBS_MAX || s->plan.failures == 0 ||
        s->seconds < 0) {
        fputs("loam-crash: see --help\n", stderr);
        return 2;
    }
    return 0;
}

static uint64_t default_seed(void)
{
    const char *text = getenv("LOAM_SEED"); /* as the tests have it */
    return text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
}

int main(int argc, char **argv)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct settings s = {
        .plan = {.seed = default_seed(), .states = 60000, .tries = 2, .nested_every = 150,
                 .failures = 5, .save = "loam-crash-cases"},
        .jobs = cores < 1 ? 1 : cores > (long)JOBS_MAX ? JOBS_MAX : (unsigned)cores,
    };
    int rc = parse(argc, argv, &s);
    if (rc != 0) {
        return rc;
    }
    return s.replay != NULL ? crash_replay(s.replay) : run(&s);
}
