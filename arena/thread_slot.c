/* thread_slot.c - Dense thread numbers from a bitmap, given back by a thread-exit destructor.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/thread_slot.h"

#include <pthread.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/status.h"
#include "arena/sync.h"

#include "arena/poison.h"

struct hook {
    struct hook *next;
    thread_exit_fn *fn;
    void *arg;
};

_Thread_local uint32_t thread_slot_cached_;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;
static struct mutex bitmap_mutex;
static uint64_t *bitmap;      /* guarded by bitmap_mutex: a set bit is a number in use */
static uint32_t bitmap_words; /* guarded by bitmap_mutex */
static _Atomic uint32_t bound;
static struct mutex hooks_mutex;
static struct hook *hooks; /* guarded by hooks_mutex */
_Atomic uint32_t thread_slot_forks_; /* registered with the first thread number */

static void slot_release(uint32_t slot)
{
    mutex_lock(&hooks_mutex);
    for (struct hook *h = hooks; h != NULL; h = h->next) {
        h->fn(h->arg, slot);
    }
    mutex_unlock(&hooks_mutex);
    mutex_lock(&bitmap_mutex);
    bitmap[slot / 64] &= ~((uint64_t)1 << slot % 64);
    mutex_unlock(&bitmap_mutex);
}

static void at_thread_exit(void *value)
{
    uint32_t slot = (uint32_t)(uintptr_t)value - 1;
    slot_release(slot);
    thread_slot_cached_ = 0;
}

static void at_fork_child(void)
{
    /* Other threads may have held these; they do not exist here. */
    mutex_init(&bitmap_mutex, RANK_LEAF);
    mutex_init(&hooks_mutex, RANK_HOOKS);
    atom_add(&thread_slot_forks_, 1, relaxed); /* relaxed: the child has one thread */
}

static void start(void)
{
    mutex_init(&bitmap_mutex, RANK_LEAF);
    mutex_init(&hooks_mutex, RANK_HOOKS);
    if (pthread_key_create(&exit_key, at_thread_exit) != 0) {
        exit_key = (pthread_key_t)-1; /* numbers are then never given back */
    }
    pthread_atfork(NULL, NULL, at_fork_child);
}

/* The lowest free number, or NONE. */
static uint32_t take_number(void)
{
    for (uint32_t w = 0; w < bitmap_words; w++) {
        if (bitmap[w] != UINT64_MAX) {
            unsigned bit = (unsigned)__builtin_ctzll(~bitmap[w]);
            bitmap[w] |= (uint64_t)1 << bit;
            return w * 64 + bit;
        }
    }
    uint32_t words = bitmap_words != 0 ? bitmap_words * 2 : 4;
    uint64_t *p = alloc_resize(alloc_global(), MEM_MISC, bitmap, bitmap_words * sizeof *bitmap,
                               words * sizeof *bitmap);
    if (p == NULL) {
        return THREAD_SLOT_NONE;
    }
    memset(p + bitmap_words, 0, (words - bitmap_words) * sizeof *p);
    uint32_t slot = bitmap_words * 64;
    p[bitmap_words] = 1;
    bitmap = p;
    bitmap_words = words;
    return slot;
}

uint32_t thread_slot_register_(void)
{
    pthread_once(&once, start);
    mutex_lock(&bitmap_mutex);
    uint32_t slot = take_number();
    if (slot != THREAD_SLOT_NONE && slot >= atom_load(&bound, relaxed)) {
        /* release: pairs with thread_slot_bound(); the number is counted before it is used. */
        atom_store(&bound, slot + 1, release);
    }
    mutex_unlock(&bitmap_mutex);
    if (slot == THREAD_SLOT_NONE) {
        return slot;
    }
    if (exit_key != (pthread_key_t)-1) {
        pthread_setspecific(exit_key, (void *)(uintptr_t)(slot + 1));
    }
    thread_slot_cached_ = slot + 1;
    return slot;
}

uint32_t thread_slot_bound(void)
{
    /* acquire: pairs with the release in registration. */
    return atom_load(&bound, acquire);
}

int thread_slot_add_exit_hook(thread_exit_fn *fn, void *arg)
{
    pthread_once(&once, start);
    struct hook *h = alloc_get(alloc_global(), MEM_MISC, sizeof *h);
    if (h == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a thread exit hook");
    }
    h->fn = fn;
    h->arg = arg;
    mutex_lock(&hooks_mutex);
    h->next = hooks;
    hooks = h;
    mutex_unlock(&hooks_mutex);
    return LOAM_OK;
}

void thread_slot_remove_exit_hook(thread_exit_fn *fn, void *arg)
{
    pthread_once(&once, start);
    mutex_lock(&hooks_mutex);
    for (struct hook **at = &hooks; *at != NULL; at = &(*at)->next) {
        struct hook *h = *at;
        if (h->fn == fn && h->arg == arg) {
            *at = h->next;
            alloc_put(alloc_global(), MEM_MISC, h, sizeof *h);
            break;
        }
    }
    mutex_unlock(&hooks_mutex);
}

void thread_slot_detach(void)
{
    if (thread_slot_cached_ != 0) {
        uint32_t slot = thread_slot_cached_ - 1;
        slot_release(slot);
        if (exit_key != (pthread_key_t)-1) {
            pthread_setspecific(exit_key, NULL);
        }
        thread_slot_cached_ = 0;
    }
}
