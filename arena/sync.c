/* sync.c - Threads, ranked mutexes, conditions and waits on a word.
 * SPDX-License-Identifier: Apache-2.0
 *
 * This file is the door to pthreads and futexes.
 */
#include "arena/sync.h"

#include <assert.h>
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREAD_STACK_BYTES (256u * 1024)

#ifndef NDEBUG
#define HELD_MAX 48
/* The ranks this thread holds, lowest first but for try_lock. */
static _Thread_local int held[HELD_MAX];
static _Thread_local unsigned held_count;

static uint64_t self_id(void)
{
    return (uint64_t)(uintptr_t)&held_count;
}

static void rank_push(struct mutex *m)
{
    assert(held_count < HELD_MAX);
    held[held_count++] = m->rank;
    atom_store(&m->owner, self_id(), relaxed); /* relaxed: read for equality by this thread only */
}

static void rank_pop(struct mutex *m)
{
    atom_store(&m->owner, 0, relaxed);
    for (unsigned i = held_count; i-- > 0;) {
        if (held[i] == m->rank) {
            for (; i + 1 < held_count; i++) {
                held[i] = held[i + 1];
            }
            held_count--;
            return;
        }
    }
    assert(held_count > HELD_MAX && "unlocked a mutex this thread does not hold");
}

static void rank_check(const struct mutex *m)
{
    for (unsigned i = 0; i < held_count; i++) {
        assert(held[i] < m->rank && "lock order violated");
    }
}
#else
#define rank_push(m) ((void)(m))
#define rank_pop(m) ((void)(m))
#define rank_check(m) ((void)(m))
#endif

void mutex_init(struct mutex *m, enum lock_rank rank)
{
    int rc = pthread_mutex_init(&m->m, NULL);
    if (rc != 0) {
        abort(); /* glibc's cannot fail for a plain mutex */
    }
    m->rank = (int)rank;
    atomic_init(&m->owner, 0);
}

void mutex_destroy(struct mutex *m)
{
    pthread_mutex_destroy(&m->m);
}

void mutex_lock(struct mutex *m)
{
    rank_check(m);
    pthread_mutex_lock(&m->m);
    rank_push(m);
}

bool mutex_try_lock(struct mutex *m)
{
    if (pthread_mutex_trylock(&m->m) != 0) {
        return false;
    }
    rank_push(m);
    return true;
}

void mutex_lock_unranked(struct mutex *m)
{
    pthread_mutex_lock(&m->m);
    rank_push(m);
}

void mutex_unlock(struct mutex *m)
{
    rank_pop(m);
    pthread_mutex_unlock(&m->m);
}

void mutex_assert_held(const struct mutex *m)
{
#ifndef NDEBUG
    assert(atom_load(&m->owner, relaxed) == self_id());
#else
    (void)m;
#endif
}

void cond_init(struct cond *c)
{
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(&c->c, &a);
    pthread_condattr_destroy(&a);
}

void cond_destroy(struct cond *c)
{
    pthread_cond_destroy(&c->c);
}

void cond_wait(struct cond *c, struct mutex *m)
{
    rank_pop(m);
    pthread_cond_wait(&c->c, &m->m);
    rank_push(m);
}

static struct timespec deadline_after(uint64_t micros)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t limit = (uint64_t)86400 * 365 * 1000000; /* a year is for ever, and cannot overflow */
    if (micros > limit) {
        micros = limit;
    }
    t.tv_sec += (time_t)(micros / 1000000);
    t.tv_nsec += (long)(micros % 1000000) * 1000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

bool cond_wait_for(struct cond *c, struct mutex *m, uint64_t micros)
{
    struct timespec t = deadline_after(micros);
    rank_pop(m);
    int rc = pthread_cond_timedwait(&c->c, &m->m, &t);
    rank_push(m);
    return rc != ETIMEDOUT;
}

void cond_signal(struct cond *c)
{
    pthread_cond_signal(&c->c);
}

void cond_broadcast(struct cond *c)
{
    pthread_cond_broadcast(&c->c);
}

void word_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t micros)
{
    struct timespec t;
    struct timespec *limit = NULL;
    if (micros != UINT64_MAX) {
        t.tv_sec = (time_t)(micros / 1000000);
        t.tv_nsec = (long)(micros % 1000000) * 1000;
        limit = &t;
    }
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, limit, NULL, 0);
}

void word_wake_one(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void word_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

int thread_start(pthread_t *t, void *(*fn)(void *), void *arg)
{
    pthread_attr_t a;
    int rc = pthread_attr_init(&a);
    if (rc != 0) {
        return -rc;
    }
    pthread_attr_setstacksize(&a, THREAD_STACK_BYTES);
    /* The application's signals are the application's threads' business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    rc = pthread_create(t, &a, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&a);
    return -rc;
}

void thread_name(const char *name)
{
    (void)pthread_setname_np(pthread_self(), name); /* a system that refuses goes without */
}

void thread_give_way(int by)
{
    /* Not below the thread that started this one: that may have given way itself. Of a thread, on Linux;
     * what is raised can always be raised further. */
    errno = 0;
    int process = getpriority(PRIO_PROCESS, (id_t)getpid());
    if (errno == 0 && getpriority(PRIO_PROCESS, 0) < process + by) {
        (void)setpriority(PRIO_PROCESS, 0, process + by); /* beyond the least it is the least */
    }
}

void thread_join(pthread_t t)
{
    pthread_join(t, NULL);
}

void thread_yield(void)
{
    sched_yield();
}

void thread_sleep_micros(uint64_t micros)
{
    struct timespec t = {(time_t)(micros / 1000000), (long)(micros % 1000000) * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR) {
    }
}

uint64_t clock_nanos(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_micros(void)
{
    return clock_nanos() / 1000;
}
