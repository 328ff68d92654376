/* atomic.h - The one spelling of atomic operations, so that a schedule explorer can stand in for them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Lock-free modules use these macros and no others. In a normal build they are C11 atomics with
 * the order spelled out; with -DLOAM_MC the explorer (tests/explore) performs each one: it decides
 * who runs next, and which of the stores a load may see. The stand-alone fence is for a load that
 * must come after an earlier store, and for nothing else: thread sanitizers do not understand it,
 * so it may order no data. CAS is always strong and takes two orders; it stores the value seen
 * into *expected on failure.
 */
#ifndef LOAM_ARENA_ATOMIC_H_
#define LOAM_ARENA_ATOMIC_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(LOAM_MC) /* instrumented as for a thread sanitizer, but nobody is blind to fences */
#define LOAM_TSAN 0
#elif defined(__SANITIZE_THREAD__)
#define LOAM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOAM_TSAN 1
#endif
#endif
#ifndef LOAM_TSAN
#define LOAM_TSAN 0
#endif

/* Of a function that looks at a shared map as a kernel does, without being ordered to the stores through it: a
 * race by the letter of the sanitizer and of the explorer, and what a shared map is for. Its atomics are C11's own, so
 * that they are no steps of a schedule. */
#if (LOAM_TSAN || defined(LOAM_MC)) && defined(__clang__)
#define OUTSIDE_TSAN __attribute__((noinline, disable_sanitizer_instrumentation))
#elif LOAM_TSAN || defined(LOAM_MC)
#define OUTSIDE_TSAN __attribute__((noinline, no_sanitize("thread")))
#else
#define OUTSIDE_TSAN
#endif

#if !defined(LOAM_MC)

#define atom_load(p, order)     atomic_load_explicit((p), memory_order_##order)
#define atom_store(p, v, order) atomic_store_explicit((p), (v), memory_order_##order)
#define atom_swap(p, v, order)  atomic_exchange_explicit((p), (v), memory_order_##order)
#define atom_add(p, v, order)   atomic_fetch_add_explicit((p), (v), memory_order_##order)
#define atom_sub(p, v, order)   atomic_fetch_sub_explicit((p), (v), memory_order_##order)
#define atom_or(p, v, order)    atomic_fetch_or_explicit((p), (v), memory_order_##order)
#define atom_and(p, v, order)   atomic_fetch_and_explicit((p), (v), memory_order_##order)
#define atom_cas(p, expected, desired, success, failure)                                           \
    atomic_compare_exchange_strong_explicit((p), (expected), (desired), memory_order_##success,    \
                                            memory_order_##failure)
#if LOAM_TSAN /* compilers refuse it */
#define atom_fence() ((void)0)
#else
#define atom_fence() atomic_thread_fence(memory_order_seq_cst)
#endif

#else /* n is the size of *p in bytes, `where` the place in the source */

enum mc_modify { MC_SWAP, MC_ADD, MC_SUB, MC_OR, MC_AND };
void mc_load(const volatile void *p, size_t n, void *v, memory_order o, const char *where);
void mc_store(volatile void *p, size_t n, const void *v, memory_order o, const char *where);
void mc_modify(volatile void *p, size_t n, enum mc_modify op, const void *v, void *old,
               memory_order o, const char *where);
bool mc_cas(volatile void *p, size_t n, void *expected, const void *desired, memory_order success,
            memory_order failure, const char *where);
void mc_wait(const char *where); /* nothing to do before another thread's next store */
void mc_fence(const char *where);
void mc_barrier_all(void); /* membarrier */

#define MC_LINE__(n) #n
#define MC_LINE_(n)  MC_LINE__(n)
#define MC_HERE_     __FILE__ ":" MC_LINE_(__LINE__)
#define MC_TYPE_(p)  __typeof__((void)0, *(p))

#define atom_load(p, order)                                                                        \
    __extension__({                                                                                \
        MC_TYPE_(p) mc_v_;                                                                         \
        mc_load((p), sizeof mc_v_, &mc_v_, memory_order_##order, MC_HERE_);                        \
        mc_v_;                                                                                     \
    })
#define atom_store(p, v, order)                                                                    \
    __extension__({                                                                                \
        const MC_TYPE_(p) mc_v_ = (v);                                                             \
        mc_store((p), sizeof mc_v_, &mc_v_, memory_order_##order, MC_HERE_);                       \
    })
#define MC_MODIFY_(p, op, v, order)                                                                \
    __extension__({                                                                                \
        MC_TYPE_(p) mc_v_ = (v), mc_old_;                                                          \
        mc_modify((p), sizeof mc_v_, (op), &mc_v_, &mc_old_, memory_order_##order, MC_HERE_);      \
        mc_old_;                                                                                   \
    })
#define atom_swap(p, v, order) MC_MODIFY_(p, MC_SWAP, v, order)
#define atom_add(p, v, order)  MC_MODIFY_(p, MC_ADD, v, order)
#define atom_sub(p, v, order)  MC_MODIFY_(p, MC_SUB, v, order)
#define atom_or(p, v, order)   MC_MODIFY_(p, MC_OR, v, order)
#define atom_and(p, v, order)  MC_MODIFY_(p, MC_AND, v, order)
#define atom_cas(p, expected, desired, success, failure)                                           \
    __extension__({                                                                                \
        const MC_TYPE_(p) mc_v_ = (desired);                                                       \
        mc_cas((p), sizeof mc_v_, (expected), &mc_v_, memory_order_##success,                      \
               memory_order_##failure, MC_HERE_);                                                  \
    })
#define atom_fence() mc_fence(MC_HERE_)

#endif

#define CACHE_LINE 64 /* bytes; what shared hot fields are kept apart by */

/* A hint inside a short wait for another thread's next store. */
static inline void spin_pause(void)
{
#if defined(LOAM_MC)
    mc_wait("spin_pause");
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
