/* sync.h - Threads, ranked mutexes, conditions and waits on a word.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every mutex has a rank; a thread takes mutexes in strictly rising rank, which debug builds check,
 * so no cycle of waits can form. All waiting is by the monotonic clock.
 */
#ifndef LOAM_ARENA_SYNC_H_
#define LOAM_ARENA_SYNC_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "arena/atomic.h"

/* The order in which locks are taken: lower first. */
enum lock_rank {
    RANK_REGISTRY = 1,   /* making the process-wide tables of handles */
    RANK_HOOKS = 5,      /* list of thread exit hooks; held while they run */
    RANK_RECLAIM = 6,    /* held while retired objects are freed */
    RANK_CONTROL = 20,   /* one control operation (keyspace, compact, resume) at a time */
    RANK_MANIFEST = 30,  /* installing an edit: manifest append, then the new version */
    RANK_SEAL = 35,      /* switching memtable and log segment */
    RANK_DB = 40,        /* the database's background state */
    RANK_DISK_RESERVE = 50, /* the file that holds space for a full disk */
    RANK_WAL = 60,       /* log segments: switching, syncing, buffered appends */
    RANK_WAL_KEEPER = 65, /* hand-over between writers and the thread that maps windows */
    RANK_SNAPSHOT = 70,
    RANK_TABLE = 80,     /* opening one table file */
    RANK_TABLE_OUT = 85, /* one table's write buffer */
    RANK_STRUCT = 90,    /* inside a memory structure's slow path (depot, directory) */
    RANK_VFS = 95,       /* memory and fault disks */
    RANK_LEAF = 99       /* protects a few words; nothing is called while it is held */
};

struct mutex {
    pthread_mutex_t m;
    int rank;
    _Atomic uint64_t owner; /* thread id while held, else 0; debug checks only */
};

void mutex_init(struct mutex *m, enum lock_rank rank);
void mutex_destroy(struct mutex *m);
void mutex_lock(struct mutex *m);
bool mutex_try_lock(struct mutex *m); /* exempt from the rank order: it cannot wait */
/* Exempt from the rank order too, and waits: for the thread that forks, which takes all the locks
 * that a child could otherwise find held by nobody. */
void mutex_lock_unranked(struct mutex *m);
void mutex_unlock(struct mutex *m);
void mutex_assert_held(const struct mutex *m);

struct cond {
    pthread_cond_t c;
};

void cond_init(struct cond *c);
void cond_destroy(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m);
/* False when `micros` passed without a signal. */
bool cond_wait_for(struct cond *c, struct mutex *m, uint64_t micros);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);

/* Sleeps while *word == expected, until woken or `micros` passed (UINT64_MAX: no limit). May return
 * early for no reason; the caller checks its condition again. */
void word_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t micros);
void word_wake_one(_Atomic uint32_t *word);
void word_wake_all(_Atomic uint32_t *word);

/* A thread with a fixed 256 KiB stack and all signals blocked. 0 or -errno. */
int thread_start(pthread_t *t, void *(*fn)(void *), void *arg);
/* Names the calling thread, for whoever looks at the process; at most 15 bytes. */
void thread_name(const char *name);
/* The calling thread's nice value becomes that of its process and so much: where processors are short, others
 * come first. */
void thread_give_way(int by);
void thread_join(pthread_t t);
void thread_yield(void);
void thread_sleep_micros(uint64_t micros);
uint64_t clock_micros(void); /* monotonic */
uint64_t clock_nanos(void);  /* monotonic */

#endif
