/* workers.h - Threads that begin when there is work and end when there has been none for a while.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The owner describes kinds of workers: what one round of work is, and how many may do it at a time. Work
 * becomes due under the owner's lock, by whoever calls workers_wake_locked() before letting go of it.
 *
 *   none -> running  [workers_wake_locked: a thread is started]
 *   running -> none  [the worker itself: it found nothing for WORKER_IDLE_US]
 *
 * Nothing is lost between a worker that ends and work that arrives: that it found nothing, and that it does
 * not run any more, is one stretch under the lock. Work that came before is seen by it; whoever brings
 * work later sees that it does not run. What is left of its thread by then is its way out, and that is
 * waited for by the thread that takes its place, or by workers_join().
 *
 * Work that becomes due by time alone is for the owner to wake workers for: none may be there to look.
 */
#ifndef LOAM_ENGINE_WORKERS_H_
#define LOAM_ENGINE_WORKERS_H_

#include "arena/sync.h"

#define WORKERS_MAX    65u
#define WORKER_KINDS   2u
/* Where processors are short, callers come first and get a time slice less often from under their feet:
 * a worker gets a third of a caller's share, and when that is too little writes are paced. */
#define WORKER_NICE    5
#define WORKER_IDLE_US 3000000u /* a longer one saves restarts and keeps threads of databases at rest */

enum worker_round {
    WORKER_WORKED, /* look again */
    WORKER_WAITS,  /* what is due cannot be done yet: look again soon, and stay */
    WORKER_RESTS   /* nothing is due */
};

struct worker_kind {
    const char *name; /* of its threads */
    /* Called with the lock held; may let go of it when it returns WORKER_WORKED, and only then. */
    enum worker_round (*round)(void *owner);
    uint64_t look_us; /* how often a worker at rest looks for what is due by time */
    uint64_t wait_us; /* how often after WORKER_WAITS */
};

/* The workers of a kind; constant but for cv. */
struct worker_group {
    struct workers *of;
    const struct worker_kind *kind;
    uint32_t first, count; /* places */
    struct cond cv;
};

/* A place for a thread; guarded by mu. */
struct worker {
    struct worker_group *group;     /* constant */
    bool running;                   /* the thread has not decided to end */
    bool started;                   /* `thread` is to be joined */
    bool follows;                   /* `before` is to be joined, by the thread itself */
    pthread_t thread;
    pthread_t before;
};

struct workers {
    /* constant after the last workers_add() */
    struct mutex *mu; /* the owner's */
    void *owner;
    uint32_t groups;
    uint32_t count;
    struct worker_group group[WORKER_KINDS];
    /* guarded by mu */
    bool stopped;
    struct worker place[WORKERS_MAX];
};

void workers_init(struct workers *w, struct mutex *mu, void *owner);
/* REQUIRES: stopped and joined, or never woken. */
void workers_destroy(struct workers *w);
/* Up to `count` workers of a kind, which the caller keeps. REQUIRES: before the first wake; at most
 * WORKERS_MAX of WORKER_KINDS. */
void workers_add(struct workers *w, const struct worker_kind *kind, uint32_t count);

/* Something may be due for the kind, NULL: for all: wakes those that run and starts the others. 0, or
 * -errno when no thread of a kind runs and none could be started; calling again tries again.
 * REQUIRES: mu held. */
int workers_wake_locked(struct workers *w, const struct worker_kind *kind);
/* Whether no thread of the kind runs. REQUIRES: mu held. */
bool workers_absent_locked(const struct workers *w, const struct worker_kind *kind);
/* No thread is started any more, and each ends after its round. REQUIRES: mu held. */
void workers_stop_locked(struct workers *w);
/* Waits until every thread has ended. REQUIRES: stopped; mu not held. */
void workers_join(struct workers *w);

#endif
