/* watchdog.c - Looks at each thread's processor time, state and steps, ten times a second.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/watchdog.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "arena/sync.h"
#include "tests/support/check.h"

#define LOOK_MICROS 100000u
#define OWN_NANOS    ((uint64_t)1000000000)
#define ASLEEP_NANOS ((uint64_t)5000000000) /* locks are not fair, and the disk has its moods */

struct watched {
    _Atomic uint64_t steps;
    _Atomic int tid; /* who works at this place now; 0: nobody */
};

/* What the watchdog knew of a place when it last saw it go on. */
struct seen {
    uint64_t steps;
    int tid;
    uint64_t own, process, wall; /* nanoseconds */
    unsigned long switches;
};

struct watch {
    const char *name;
    unsigned count;
    crew_fn *fn;
    void *shared;
    struct watched *place;
    _Atomic bool stop;
};

static _Thread_local struct watched *self;

/* False: whose clock it is has ended. */
static bool clock_of(clockid_t id, uint64_t *nanos)
{
    struct timespec t;
    if (clock_gettime(id, &t) != 0) {
        return false;
    }
    *nanos = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    return true;
}

/* Processor time, state letter and voluntary switches of a thread; false: it is gone. */
static bool look(int tid, uint64_t *own, char *state, unsigned long *switches)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    *state = 'R';
    *switches = 0;
    while (fgets(line, sizeof line, f) != NULL) {
        sscanf(line, "State: %c", state);
        sscanf(line, "voluntary_ctxt_switches: %lu", switches);
    }
    fclose(f);
    /* The kernel's name of a thread's clock. The thread may have ended since its file was opened. */
    return clock_of((clockid_t)(~(unsigned)tid << 3 | 6), own);
}

/* Whether a thread of the process, but this one, runs or wants to: what sleeps may be waiting for it. */
static bool somebody_runs(void)
{
    bool runs = false;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; d != NULL && !runs && (e = readdir(d)) != NULL;) {
        uint64_t own;
        char state;
        unsigned long switches;
        int tid = atoi(e->d_name);
        runs = tid > 0 && tid != (int)syscall(SYS_gettid) && look(tid, &own, &state, &switches) &&
               state != 'S';
    }
    if (d != NULL) {
        closedir(d);
    }
    return runs;
}

static void stuck(const struct watch *w, unsigned i, const char *how)
{
    fprintf(stderr, "watchdog: %s: thread %u of %u %s\n", w->name, i, w->count, how);
    abort();
}

static void look_at(const struct watch *w, unsigned i, struct seen *s)
{
    struct watched *p = &w->place[i];
    uint64_t steps = atom_load(&p->steps, relaxed), own; /* relaxed: counts */
    int tid = atom_load(&p->tid, relaxed);
    uint64_t process, wall = clock_nanos();
    char state;
    unsigned long switches;
    CHECK(clock_of(CLOCK_PROCESS_CPUTIME_ID, &process));
    if (tid == 0 || !look(tid, &own, &state, &switches)) {
        s->tid = 0;
        return;
    }
    bool asleep = state == 'S' && switches == s->switches;
    if (steps != s->steps || tid != s->tid) {
        *s = (struct seen){steps, tid, own, process, wall, switches};
        return;
    }
    if (own - s->own >= OWN_NANOS) {
        stuck(w, i, "used a second of processor time without a step");
    }
    if (!asleep) {
        s->process = process;
        s->wall = wall;
        s->switches = switches;
    } else if (process - s->process >= ASLEEP_NANOS) {
        stuck(w, i, "slept while the others used five seconds of processor time");
    } else if (wall - s->wall >= ASLEEP_NANOS) {
        if (!somebody_runs()) {
            stuck(w, i, "slept, and so did all others");
        }
        s->wall = wall;
    }
}

static void *watch_main(void *arg)
{
    struct watch *w = arg;
    struct seen *seen = calloc(w->count, sizeof *seen);
    CHECK(seen != NULL);
    while (!atom_load(&w->stop, relaxed)) { /* relaxed: a request */
        thread_sleep_micros(LOOK_MICROS);
        for (unsigned i = 0; i < w->count; i++) {
            look_at(w, i, &seen[i]);
        }
    }
    free(seen);
    return NULL;
}

static void work_at(struct watched *p)
{
    self = p;
    if (p != NULL) {
        atom_store(&p->tid, (int)syscall(SYS_gettid),
                   relaxed); /* relaxed: the watchdog looks again */
    }
}

static void watched_main(struct crew_member *m)
{
    struct watch *w = m->shared;
    struct crew_member inner = *m;
    inner.shared = w->shared;
    work_at(&w->place[m->index]);
    w->fn(&inner);
    atom_store(&self->tid, 0, relaxed); /* relaxed: as above */
    self = NULL;
}

void crew_run_watched(const char *name, unsigned n, crew_fn *fn, void *shared, uint64_t seed)
{
    struct watch w = {.name = name, .count = n, .fn = fn, .shared = shared};
    w.place = calloc(n, sizeof *w.place);
    CHECK(w.place != NULL);
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, watch_main, &w), 0);
    crew_run(n, watched_main, &w, seed);
    atom_store(&w.stop, true, relaxed); /* relaxed: a request */
    CHECK_EQ(pthread_join(t, NULL), 0);
    free(w.place);
}

void watchdog_step(void)
{
    if (self != NULL) {
        atom_add(&self->steps, 1, relaxed); /* relaxed: a count */
    }
}

struct lent {
    struct watched *place;
    void (*fn)(void *arg);
    void *arg;
};

static void *lent_main(void *arg)
{
    struct lent *l = arg;
    work_at(l->place);
    l->fn(l->arg);
    return NULL;
}

void watchdog_lend(void (*fn)(void *arg), void *arg)
{
    struct lent l = {self, fn, arg};
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, lent_main, &l), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
    work_at(self);
}
