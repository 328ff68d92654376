/* epoch.h - Defers a free until no reader can still hold the pointer.
 * SPDX-License-Identifier: Apache-2.0
 *
 * One domain for the process. A reader brackets its use of shared pointers with epoch_enter() and
 * epoch_exit(); whoever unlinks an object hands it to epoch_retire(), or remembers epoch_stamp() and
 * asks epoch_passed() later.
 *
 * Ordering guarantees
 *   What was unlinked (by any store the reader would have to see) before epoch_retire() or
 *   epoch_stamp() is not reached by a section entered after the epoch has passed, and every section
 *   that could reach it has ended by then; its reads happen before the free.
 * Progress guarantees
 *   enter and exit are wait-free: one plain-cost store each. retire and try_advance are lock-free.
 *   synchronize blocks on the slowest section open at its call. Nothing public returns inside a
 *   section, so a stalled user never stops reclamation.
 */
#ifndef LOAM_ARENA_EPOCH_H_
#define LOAM_ARENA_EPOCH_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/atomic.h"

struct epoch_record {
    _Alignas(CACHE_LINE) _Atomic uint64_t active; /* epoch seen at entry << 1 | 1, or 0 outside */
    uint32_t depth;                               /* owner thread only: sections nest */
    _Atomic uint32_t used;                        /* 1 while a live thread owns it */
    struct epoch_record *next;                    /* constant once linked; records are never freed */
};

extern _Thread_local struct epoch_record *epoch_self_;
extern _Atomic uint64_t epoch_now_;
extern bool epoch_asymmetric_; /* constant after first use: membarrier does the readers' fences */

struct epoch_record *epoch_attach_(void); /* never NULL: without memory it waits for a free record */

/* Opens a section; sections nest. Any thread. */
static inline void epoch_enter(void)
{
    struct epoch_record *r = epoch_self_;
    if (__builtin_expect(r == NULL, 0)) {
        r = epoch_attach_();
    }
    if (r->depth++ != 0) {
        return;
    }
    /* acquire: pairs with the advance; a section that sees epoch e also sees everything unlinked
     * before a stamp below e. A stale value only delays reclamation. */
    uint64_t e = atom_load(&epoch_now_, acquire);
#if LOAM_TSAN /* blind to fences */
    atom_swap(&r->active, e << 1 | 1, seq_cst);
#else
    /* release: continues what the last exit released, for a scan that sees this store instead. */
    atom_store(&r->active, e << 1 | 1, release);
    if (__builtin_expect(epoch_asymmetric_, 1)) {
        /* A compiler barrier: the reclaimer's membarrier orders the store before the loads that
         * follow it. */
        atomic_signal_fence(memory_order_seq_cst);
    } else {
        atom_fence(); /* the store must be visible before the section's first load */
    }
#endif
}

static inline void epoch_exit(void)
{
    struct epoch_record *r = epoch_self_;
    if (--r->depth == 0) {
        /* release: pairs with the acquire in epoch_try_advance(); the section's reads are done
         * before anything it could see is freed. */
        atom_store(&r->active, 0, release);
    }
}

/* True inside a section of this thread; for asserts. */
bool epoch_inside(void);

/* The stamp of objects unlinked before this call. Any thread. */
uint64_t epoch_stamp(void);
/* True when every section that was open at the stamp has ended. Tries to advance when not. Lock-
 * free; never waits. A caller inside a section holds its own stamp back. */
bool epoch_passed(uint64_t stamp);
/* Moves the epoch on by one if every open section has seen the present one. */
bool epoch_try_advance(void);

/* Hands `ptr` to fn(arg, ptr) once every section open now has ended. `n` lives in the retired object
 * or beside it, so retiring needs no memory. fn runs on a thread that calls poll or synchronize,
 * under RANK_RECLAIM; it may take any higher lock and retire more.
 * Threads: any, inside or outside a section; lock-free. REQUIRES: ptr is reachable from no shared
 * structure. */
typedef void epoch_free_fn(void *arg, void *ptr);
struct epoch_node {
    struct epoch_node *next;
    epoch_free_fn *fn;
    void *arg;
    void *ptr;
    uint64_t stamp;
};
void epoch_retire_node(struct epoch_node *n, epoch_free_fn *fn, void *arg, void *ptr);

/* Frees what has passed; returns how many objects. Called now and then by background threads; does
 * nothing while another thread is at it. REQUIRES: not inside a section, no lock held. */
uint32_t epoch_poll(void);
/* Waits until all sections open at the call have ended, then until everything retired before it is
 * freed. REQUIRES: not inside a section, no lock held. */
void epoch_synchronize(void);

#endif
