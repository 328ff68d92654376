/* explore_doors.c - Stand-ins for the doors of the library: memory, locks and waits, thread exit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Takes the place of arena/alloc.c and arena/sync.c. Memory is a bump heap in the world; what is
 * freed is handed out again first, newest first, to whoever asks for the same size: the harshest
 * treatment of stale pointers. Locks and sleeps are the scheduler's business. A futex sleeps until
 * it is woken, never for no reason, so a lost wake-up stops the run; time passes only when nothing
 * else can happen.
 */
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arena/alloc.h"
#include "arena/sync.h"
#include "tests/explore/explore_core.h"

#define HEAP_BYTES (64u << 20)
#define SIZES_MAX  64u /* different sizes freed in a run */

/* ---- memory ------------------------------------------------------------------------------ */

static struct {
    unsigned char *start;
    size_t used;
    struct freed {
        size_t size, align;
        void *newest; /* each holds the next in its first word */
    } freed[SIZES_MAX];
    unsigned sizes;
} heap;

static struct alloc global = {.limit = UINT64_MAX};

void heap_open(void)
{
    heap.start = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (heap.start == MAP_FAILED) {
        abort();
    }
    plain_open(heap.start, HEAP_BYTES);
}

void *heap_used(size_t *size)
{
    *size = heap.used;
    return heap.start;
}

static struct freed *freed_of(size_t size, size_t align)
{
    for (unsigned i = 0; i < heap.sizes; i++) {
        if (heap.freed[i].size == size && heap.freed[i].align == align) {
            return &heap.freed[i];
        }
    }
    if (heap.sizes == SIZES_MAX) {
        explore_fail("more than %u sizes were freed", SIZES_MAX);
    }
    heap.freed[heap.sizes] = (struct freed){size, align, NULL};
    return &heap.freed[heap.sizes++];
}

static void *heap_get(size_t size, size_t align)
{
    align = align < 16 ? 16 : align;
    size = (size + 15) & ~(size_t)15;
    struct freed *f = freed_of(size, align);
    void *p = f->newest;
    if (p != NULL) {
        memcpy(&f->newest, p, sizeof p);
    } else {
        uintptr_t at = ((uintptr_t)heap.start + heap.used + align - 1) & ~(uintptr_t)(align - 1);
        size_t end = (size_t)(at - (uintptr_t)heap.start) + size;
        if (end > HEAP_BYTES) {
            explore_fail("the explorer's heap is full");
        }
        heap.used = end;
        p = (void *)at;
    }
    plain_allocated(p, size);
    memset(p, 0xa5, size);
    return p;
}

static void heap_put(void *p, size_t size, size_t align)
{
    align = align < 16 ? 16 : align;
    size = (size + 15) & ~(size_t)15;
    plain_access(p, size, FREE, "free");
    memset(p, 0xdd, size);
    struct freed *f = freed_of(size, align);
    memcpy(p, &f->newest, sizeof p);
    f->newest = p;
}

void *explore_memory(uint64_t size)
{
    return memset(heap_get((size_t)size, 64), 0, (size_t)size);
}

void explore_free(void *p, uint64_t size)
{
    plain_access(p, (size_t)size, FREE, "explore_free");
    memset(p, 0xdd, (size_t)size);
}

struct alloc *alloc_global(void)
{
    return &global;
}

void alloc_init(struct alloc *a, const loam_allocator *hooks, uint64_t limit)
{
    (void)hooks;
    memset(a, 0, sizeof *a);
    a->limit = limit;
}

void *alloc_get_aligned(struct alloc *a, enum mem_owner o, size_t size, size_t align)
{
    (void)a;
    (void)o;
    return heap_get(size, align);
}

void *alloc_get(struct alloc *a, enum mem_owner o, size_t size)
{
    return alloc_get_aligned(a, o, size, 0);
}

void *alloc_zero(struct alloc *a, enum mem_owner o, size_t size)
{
    return memset(alloc_get(a, o, size), 0, size);
}

void *alloc_resize(struct alloc *a, enum mem_owner o, void *p, size_t old_size, size_t new_size)
{
    void *q = alloc_get(a, o, new_size);
    if (p != NULL) {
        memcpy(q, p, old_size < new_size ? old_size : new_size);
        alloc_put(a, o, p, old_size);
    }
    return q;
}

void alloc_put_aligned(struct alloc *a, enum mem_owner o, void *p, size_t size, size_t align)
{
    (void)a;
    (void)o;
    if (p != NULL) {
        heap_put(p, size, align);
    }
}

void alloc_put(struct alloc *a, enum mem_owner o, void *p, size_t size)
{
    alloc_put_aligned(a, o, p, size, 0);
}

void *alloc_map(struct alloc *a, enum mem_owner o, size_t size, size_t align, bool huge,
                bool reserve_only)
{
    (void)huge;
    (void)reserve_only;
    return memset(alloc_get_aligned(a, o, size, align), 0, size);
}

void alloc_unmap(struct alloc *a, enum mem_owner o, void *p, size_t size, bool reserve_only)
{
    (void)reserve_only;
    if (p != NULL) {
        alloc_put_aligned(a, o, p, size, 4096); /* all maps of the scenarios are aligned so */
    }
}

void alloc_discard(void *p, size_t size)
{
    (void)p;
    (void)size; /* a scenario writes there itself, so that it is seen */
}

void alloc_charge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    (void)a;
    (void)o;
    (void)bytes;
}

void alloc_uncharge(struct alloc *a, enum mem_owner o, uint64_t bytes)
{
    (void)a;
    (void)o;
    (void)bytes;
}

uint64_t alloc_used(const struct alloc *a)
{
    (void)a;
    return heap.used;
}

/* ---- locks ------------------------------------------------------------------------------- */

static volatile uint64_t *owner_of(struct mutex *m)
{
    return (volatile uint64_t *)(uintptr_t)&m->owner;
}

void mutex_init(struct mutex *m, enum lock_rank rank)
{
    m->rank = (int)rank;
    *owner_of(m) = 0;
}

void mutex_destroy(struct mutex *m)
{
    assert(*owner_of(m) == 0);
}

static void rank_push(struct mutex *m, bool ordered)
{
    struct fiber *f = self();
    for (unsigned i = 0; ordered && i < f->held_count; i++) {
        if (f->held[i] >= m->rank) {
            explore_fail("a lock of rank %d is taken under one of rank %d", m->rank, f->held[i]);
        }
    }
    assert(f->held_count < sizeof f->held / sizeof f->held[0]);
    f->held[f->held_count++] = m->rank;
}

static void rank_pop(struct mutex *m)
{
    struct fiber *f = self();
    for (unsigned i = f->held_count; i-- > 0;) {
        if (f->held[i] == m->rank) {
            f->held[i] = f->held[--f->held_count];
            return;
        }
    }
}

static void take(struct mutex *m)
{
    *owner_of(m) = X->current + 1;
    order_acquire(owner_of(m));
    trace("locks rank %d", m->rank);
}

void mutex_lock(struct mutex *m)
{
    if (X->phase == PHASE_QUIET) {
        assert(*owner_of(m) == 0);
        *owner_of(m) = X->current + 1;
        return;
    }
    point(OP_LOCK, owner_of(m), "lock", "mutex_lock");
    rank_push(m, true);
    take(m);
}

void mutex_lock_unranked(struct mutex *m)
{
    (void)m;
    assert(false && "only a thread that forks takes locks out of order");
}

bool mutex_try_lock(struct mutex *m)
{
    if (X->phase != PHASE_QUIET) {
        point(OP_WRITE, owner_of(m), "try_lock", "mutex_try_lock");
    }
    if (*owner_of(m) != 0) {
        return false;
    }
    if (X->phase == PHASE_QUIET) {
        *owner_of(m) = X->current + 1;
        return true;
    }
    rank_push(m, false);
    take(m);
    return true;
}

static void give(struct mutex *m)
{
    assert(*owner_of(m) == X->current + 1);
    order_release(owner_of(m));
    *owner_of(m) = 0;
    rank_pop(m);
    wrote();
    trace("unlocks rank %d", m->rank);
}

void mutex_unlock(struct mutex *m)
{
    if (X->phase == PHASE_QUIET) {
        *owner_of(m) = 0;
        return;
    }
    point(OP_UNLOCK, owner_of(m), "unlock", "mutex_unlock");
    give(m);
}

void mutex_assert_held(const struct mutex *m)
{
    assert(*owner_of((struct mutex *)(uintptr_t)m) == X->current + 1);
    (void)m;
}

void cond_init(struct cond *c)
{
    memset(c, 0, sizeof *c);
}

void cond_destroy(struct cond *c)
{
    (void)c;
}

static bool cond_sleep(struct cond *c, struct mutex *m, bool timed)
{
    point(OP_WRITE, c, "cond_wait", "cond_wait");
    give(m);
    bool woken = sleep_on(c, timed, "cond_wait");
    point(OP_LOCK, owner_of(m), "lock", "cond_wait");
    rank_push(m, true);
    take(m);
    return woken;
}

void cond_wait(struct cond *c, struct mutex *m)
{
    (void)cond_sleep(c, m, false);
}

bool cond_wait_for(struct cond *c, struct mutex *m, uint64_t micros)
{
    (void)micros;
    return cond_sleep(c, m, true);
}

static void wake_at(const volatile void *at, unsigned most, const char *name)
{
    if (X->phase != PHASE_QUIET) {
        point(OP_WRITE, at, name, name);
        unsigned n = wake(at, most);
        trace("wakes %u", n);
    }
}

void cond_signal(struct cond *c)
{
    wake_at(c, 1, "cond_signal");
}

void cond_broadcast(struct cond *c)
{
    wake_at(c, FIBERS, "cond_broadcast");
}

void word_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t micros)
{
    if (X->phase == PHASE_QUIET) {
        return;
    }
    point(OP_WRITE, word, "word_wait", "word_wait");
    trace("sleeps if %p is %u: it is %u", (void *)word, expected, *(volatile uint32_t *)word);
    if (*(volatile uint32_t *)word == expected) {
        (void)sleep_on(word, micros != UINT64_MAX, "word_wait");
    }
}

void word_wake_one(_Atomic uint32_t *word)
{
    wake_at(word, 1, "word_wake_one");
}

void word_wake_all(_Atomic uint32_t *word)
{
    wake_at(word, FIBERS, "word_wake_all");
}

void thread_yield(void)
{
    mc_wait("thread_yield");
}

void thread_sleep_micros(uint64_t micros)
{
    X->clock += micros;
    mc_wait("thread_sleep");
}

uint64_t clock_nanos(void)
{
    return clock_micros() * 1000;
}

uint64_t clock_micros(void)
{
    return X->clock;
}

/* ---- thread exit ------------------------------------------------------------------------- */

#define KEYS_MAX 8u

static void (*destructor[KEYS_MAX])(void *);
static unsigned keys;
static _Thread_local void *value_of[KEYS_MAX];

/* The modules' pthread_key_create and pthread_setspecific (see tests/CMakeLists.txt). */
int mc_key_create(pthread_key_t *key, void (*fn)(void *));
int mc_key_create(pthread_key_t *key, void (*fn)(void *))
{
    assert(keys < KEYS_MAX);
    destructor[keys] = fn;
    *key = keys++;
    return 0;
}

int mc_setspecific(pthread_key_t key, const void *value);
int mc_setspecific(pthread_key_t key, const void *value)
{
    value_of[key] = (void *)(uintptr_t)value;
    return 0;
}

void thread_exits(void)
{
    for (unsigned i = 0; i < keys; i++) {
        void *v = value_of[i];
        value_of[i] = NULL;
        if (v != NULL && destructor[i] != NULL) {
            destructor[i](v);
        }
    }
}
