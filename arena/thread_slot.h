/* thread_slot.h - A small dense number per live thread, recycled at its exit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The number indexes per-thread records (epochs, magazines, counters). A thread gets one at first
 * use and gives it back when it exits, after the exit hooks of every structure have run. There is
 * no limit on threads: numbers grow as far as threads live at the same time.
 *
 * Ordering: what a thread did until its exit hooks ended happens before what the next owner of its
 * number does; numbers go through one lock.
 * Progress: thread_slot_self() is wait-free after a thread's first call.
 */
#ifndef LOAM_ARENA_THREAD_SLOT_H_
#define LOAM_ARENA_THREAD_SLOT_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/atomic.h"

#define THREAD_SLOT_NONE UINT32_MAX

extern _Thread_local uint32_t thread_slot_cached_; /* slot + 1; 0 = none yet */

uint32_t thread_slot_register_(void);

/* This thread's number; THREAD_SLOT_NONE when memory is out or the thread is past its exit hooks. */
static inline uint32_t thread_slot_self(void)
{
    uint32_t s = thread_slot_cached_;
    return s != 0 ? s - 1 : thread_slot_register_();
}

/* One more than the largest number ever given out. Any thread. */
uint32_t thread_slot_bound(void);

/* `fn(arg, slot)` runs on each exiting thread that has a slot, and on threads calling
 * thread_slot_detach(). Hooks are removed by the same (fn, arg); removal waits for hooks running
 * now. Returns 0, or LOAM_E_NOMEM. */
typedef void thread_exit_fn(void *arg, uint32_t slot);
int thread_slot_add_exit_hook(thread_exit_fn *fn, void *arg);
void thread_slot_remove_exit_hook(thread_exit_fn *fn, void *arg);
/* Gives the number back early, as at exit; the next use takes a new one. */
void thread_slot_detach(void);

/* Grows by one at every fork in the child: a handle stamped with another value belongs to the
 * parent process. */
extern _Atomic uint32_t thread_slot_forks_;
static inline uint32_t thread_slot_fork_count(void)
{
    return atom_load(&thread_slot_forks_, relaxed); /* relaxed: changes while there is one thread */
}

#endif
