/* atomic.h - The one spelling of atomic operations, so that a schedule explorer can stand in for them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Lock-free modules use these macros and no others. In a normal build they are C11 atomics with the
 * order spelled out; with -DLOAM_MC each one first calls the explorer, which decides who runs next.
 * There is no stand-alone fence on purpose: thread sanitizers do not understand them.
 * CAS is always strong and takes two orders; it stores the value seen into *expected on failure.
 */
#ifndef LOAM_ARENA_ATOMIC_H_
#define LOAM_ARENA_ATOMIC_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(LOAM_MC)
void mc_point(const volatile void *address); /* tests/support/explorer */
void mc_wait(void);
#define ATOM_POINT_(p) (mc_point((const volatile void *)(p)))
#else
#define ATOM_POINT_(p) ((void)0)
#endif

#define atom_load(p, order) (ATOM_POINT_(p), atomic_load_explicit((p), memory_order_##order))
#define atom_store(p, v, order)                                                                    \
    (ATOM_POINT_(p), atomic_store_explicit((p), (v), memory_order_##order))
#define atom_swap(p, v, order)                                                                     \
    (ATOM_POINT_(p), atomic_exchange_explicit((p), (v), memory_order_##order))
#define atom_add(p, v, order)                                                                      \
    (ATOM_POINT_(p), atomic_fetch_add_explicit((p), (v), memory_order_##order))
#define atom_sub(p, v, order)                                                                      \
    (ATOM_POINT_(p), atomic_fetch_sub_explicit((p), (v), memory_order_##order))
#define atom_or(p, v, order)                                                                       \
    (ATOM_POINT_(p), atomic_fetch_or_explicit((p), (v), memory_order_##order))
#define atom_and(p, v, order)                                                                      \
    (ATOM_POINT_(p), atomic_fetch_and_explicit((p), (v), memory_order_##order))
#define atom_cas(p, expected, desired, success, failure)                                           \
    (ATOM_POINT_(p),                                                                               \
     atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_##success,   \
                                             memory_order_##failure))

#define CACHE_LINE 64 /* bytes; what shared hot fields are kept apart by */

/* A hint inside a short wait for another thread's next store. */
static inline void spin_pause(void)
{
#if defined(LOAM_MC)
    mc_wait();
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#if defined(__SANITIZE_THREAD__)
#define LOAM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOAM_TSAN 1
#endif
#endif
#ifndef LOAM_TSAN
#define LOAM_TSAN 0
#endif

#endif
