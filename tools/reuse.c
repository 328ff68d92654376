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

#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h> /* without the sanitizer its macros do nothing */
#else
#define ASAN_POISON_MEMORY_REGION(start, size)   ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

#define THREADS_MAX 32
#define MAPS_MAX    64
#define MAP_BYTES   ((size_t)1 << 20) /* looking for what was stored in a larger one is dearer than mapping it */
#define PAGE        ((size_t)4096)

/* ---- threads ----------------------------------------------------------------------------------- */

/* A thread that waits for something to run. It has a mutex of its own, which nobody holds while waking
 * it: a thread that is woken into a mutex that is held goes to sleep again at once. */
struct kept_thread {
    pthread_t id; /* constant */
    bool taken;   /* created and not yet joined; guarded by thread_mu */
    /* guarded by mu */
    pthread_mutex_t mu;
    pthread_cond_t changed;
    void *(*fn)(void *); /* NULL: it waits */
    void *arg, *result;
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
    for (;;) {
        pthread_mutex_lock(&k->mu);
        while (k->fn == NULL) {
            pthread_cond_wait(&k->changed, &k->mu);
        }
        pthread_mutex_unlock(&k->mu);
        void *result = k->fn(k->arg); /* both stay until it says that it is done */
        pthread_mutex_lock(&k->mu);
        k->result = result;
        k->fn = NULL;
        pthread_mutex_unlock(&k->mu);
        pthread_cond_broadcast(&k->changed);
    }
    return NULL;
}

/* One that nobody has. NULL: there are as many as are kept, or none can be made. */
static struct kept_thread *take_thread_locked(const pthread_attr_t *a)
{
    struct kept_thread *k = threads;
    while (k < threads + thread_count && k->taken) {
        k++;
    }
    if (k == threads + thread_count) {
        if (thread_count == THREADS_MAX || pthread_mutex_init(&k->mu, NULL) != 0 ||
            pthread_cond_init(&k->changed, NULL) != 0 ||
            __real_pthread_create(&k->id, a, run_for_ever, k) != 0) {
            return NULL;
        }
        thread_count++;
    }
    k->taken = true;
    return k;
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    pthread_mutex_lock(&thread_mu);
    struct kept_thread *k = take_thread_locked(a);
    pthread_mutex_unlock(&thread_mu);
    if (k == NULL) {
        return __real_pthread_create(t, a, fn, arg);
    }
    *t = k->id;
    pthread_mutex_lock(&k->mu);
    k->arg = arg;
    k->fn = fn;
    pthread_mutex_unlock(&k->mu);
    pthread_cond_broadcast(&k->changed);
    return 0;
}

static struct kept_thread *find_taken(pthread_t t)
{
    struct kept_thread *found = NULL;
    pthread_mutex_lock(&thread_mu);
    for (struct kept_thread *k = threads; k < threads + thread_count && found == NULL; k++) {
        found = k->taken && pthread_equal(k->id, t) ? k : NULL;
    }
    pthread_mutex_unlock(&thread_mu);
    return found;
}

int __wrap_pthread_join(pthread_t t, void **result)
{
    struct kept_thread *k = find_taken(t);
    if (k == NULL) {
        return __real_pthread_join(t, result);
    }
    pthread_mutex_lock(&k->mu);
    while (k->fn != NULL) {
        pthread_cond_wait(&k->changed, &k->mu);
    }
    if (result != NULL) {
        *result = k->result;
    }
    pthread_mutex_unlock(&k->mu);
    pthread_mutex_lock(&thread_mu);
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

/* Makes a kept mapping zero. Pages that are so already are only read: most of them nobody ever stored to,
 * and all of these are one page of the system's. */
static void wipe(char *p, size_t n)
{
    for (size_t at = 0; at < n; at += PAGE) {
        size_t size = n - at < PAGE ? n - at : PAGE;
        if (p[at] != 0 || memcmp(p + at, p + at + 1, size - 1) != 0) {
            memset(p + at, 0, size);
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
        wipe(p, n);
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
