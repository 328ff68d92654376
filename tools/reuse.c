/* reuse.c - Keeps threads and small mappings of closed databases for those that are opened next.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For programs that open thousands of small databases a second, one after the other: there the system's
 * part of making and ending threads and mappings is the larger one. The linker leads their calls of
 * mmap(), munmap(), pthread_create() and pthread_join() here (--wrap). What was kept is zero when it is
 * mapped again, and until then out of reach under an address sanitizer. A thread that is joined has
 * returned from its function, but has not ended: what it holds for its lifetime it holds on to.
 *
 * Not for processes that fork with threads, or that use pthread_detach() or pthread_exit().
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

#if defined(__SANITIZE_ADDRESS__)
#define REUSE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define REUSE_ASAN 1
#endif
#endif
#if defined(REUSE_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size)   ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#define THREADS_MAX 32
#define MAPS_MAX    64
#define MAP_BYTES   ((size_t)512 << 10) /* zeroing a larger one is dearer than mapping it */

/* ---- threads ----------------------------------------------------------------------------------- */

/* A thread that waits for something to run. Guarded by thread_mu, but for `id`, constant. */
struct kept_thread {
    pthread_t id;
    pthread_cond_t changed;
    void *(*fn)(void *); /* NULL: it waits */
    void *arg, *result;
    bool taken; /* created and not yet joined */
};

static pthread_mutex_t thread_mu = PTHREAD_MUTEX_INITIALIZER;
static struct kept_thread threads[THREADS_MAX];
static unsigned thread_count;

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);
int __real_pthread_join(pthread_t t, void **result);
int __wrap_pthread_join(pthread_t t, void **result);

static void *run_for_ever(void *arg)
{
    struct kept_thread *k = arg;
    pthread_mutex_lock(&thread_mu);
    for (;;) {
        while (k->fn == NULL) {
            pthread_cond_wait(&k->changed, &thread_mu);
        }
        pthread_mutex_unlock(&thread_mu);
        void *result = k->fn(k->arg);
        pthread_mutex_lock(&thread_mu);
        k->result = result;
        k->fn = NULL;
        pthread_cond_broadcast(&k->changed);
    }
    return NULL;
}

/* One that nobody has. NULL: there are as many as are kept, or none can be made. */
static struct kept_thread *free_thread_locked(const pthread_attr_t *a)
{
    for (unsigned i = 0; i < thread_count; i++) {
        if (!threads[i].taken) {
            return &threads[i];
        }
    }
    if (thread_count == THREADS_MAX) {
        return NULL;
    }
    struct kept_thread *k = &threads[thread_count];
    if (pthread_cond_init(&k->changed, NULL) != 0 ||
        __real_pthread_create(&k->id, a, run_for_ever, k) != 0) {
        return NULL;
    }
    thread_count++;
    return k;
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    pthread_mutex_lock(&thread_mu);
    struct kept_thread *k = free_thread_locked(a);
    if (k != NULL) {
        k->taken = true;
        k->arg = arg;
        k->fn = fn;
        *t = k->id;
        pthread_cond_broadcast(&k->changed);
    }
    pthread_mutex_unlock(&thread_mu);
    return k != NULL ? 0 : __real_pthread_create(t, a, fn, arg);
}

int __wrap_pthread_join(pthread_t t, void **result)
{
    pthread_mutex_lock(&thread_mu);
    struct kept_thread *k = threads, *end = threads + thread_count;
    while (k < end && !(k->taken && pthread_equal(k->id, t))) {
        k++;
    }
    if (k == end) {
        pthread_mutex_unlock(&thread_mu);
        return __real_pthread_join(t, result);
    }
    while (k->fn != NULL) {
        pthread_cond_wait(&k->changed, &thread_mu);
    }
    if (result != NULL) {
        *result = k->result;
    }
    k->taken = false;
    pthread_mutex_unlock(&thread_mu);
    return 0;
}

/* ---- mappings ---------------------------------------------------------------------------------- */

struct kept_map {
    char *p; /* NULL: an empty place */
    size_t size;
    bool out; /* somebody has it, whole so far */
};

static pthread_mutex_t map_mu = PTHREAD_MUTEX_INITIALIZER;
static struct kept_map maps[MAPS_MAX]; /* guarded by map_mu */

void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_munmap(void *p, size_t n);
int __wrap_munmap(void *p, size_t n);

/* The one somebody has that begins at p. */
static struct kept_map *find_out_locked(const void *p)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        if (maps[i].p != NULL && maps[i].p == p && maps[i].out) {
            return &maps[i];
        }
    }
    return NULL;
}

static uintptr_t alignment(const void *p)
{
    return (uintptr_t)p & -(uintptr_t)p;
}

/* Of those that nobody has the best aligned one: who needs that asks for this size again and again. */
static struct kept_map *find_kept_locked(size_t size)
{
    struct kept_map *best = NULL;
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        struct kept_map *m = &maps[i];
        if (m->p != NULL && !m->out && m->size == size &&
            (best == NULL || alignment(m->p) > alignment(best->p))) {
            best = m;
        }
    }
    return best;
}

/* The system has changed what is mapped here. Of a mapping cut at one end the rest is still known. */
static void forget_locked(char *p, size_t size)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        struct kept_map *m = &maps[i];
        if (m->p == NULL || m->p >= p + size || p >= m->p + m->size) {
            continue;
        }
        if (m->out && m->p == p && size < m->size) {
            m->p += size;
            m->size -= size;
        } else if (m->out && m->p < p && p + size == m->p + m->size) {
            m->size -= size;
        } else {
            m->p = NULL;
        }
    }
}

static void note_locked(char *p, size_t size)
{
    for (unsigned i = 0; i < MAPS_MAX; i++) {
        if (maps[i].p == NULL) {
            maps[i] = (struct kept_map){p, size, true};
            return;
        }
    }
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    bool plain = at == NULL && n <= MAP_BYTES && prot == (PROT_READ | PROT_WRITE) &&
                 (flags & ~MAP_NORESERVE) == (MAP_PRIVATE | MAP_ANONYMOUS);
    pthread_mutex_lock(&map_mu);
    struct kept_map *m = plain ? find_kept_locked(n) : NULL;
    void *p;
    if (m != NULL) {
        m->out = true;
        p = m->p;
    } else {
        p = __real_mmap(at, n, prot, flags, fd, off);
        if (p != MAP_FAILED) {
            forget_locked(p, n);
        }
        if (p != MAP_FAILED && plain) {
            note_locked(p, n);
        }
    }
    pthread_mutex_unlock(&map_mu);
    if (m != NULL) {
        ASAN_UNPOISON_MEMORY_REGION(p, n);
        memset(p, 0, n);
    }
    return p;
}

int __wrap_munmap(void *p, size_t n)
{
    pthread_mutex_lock(&map_mu);
    struct kept_map *m = find_out_locked(p);
    int rc = 0;
    if (m != NULL && m->size == n) {
        ASAN_POISON_MEMORY_REGION(p, n);
        m->out = false;
    } else {
        forget_locked(p, n);
        rc = __real_munmap(p, n);
    }
    pthread_mutex_unlock(&map_mu);
    return rc;
}
