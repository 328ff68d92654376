/* memtable_list.h - The active memtable and the sealed ones behind it, each named by a slotmap handle.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   oldest                       active      next
 *   | sealed g | sealed g+1 | g+2 (tail's) | g+3 prepared |        g = log generation
 *
 * Writers find the memtable of the generation that their log reservation named: a slot is filled
 * before the log switches to its generation, and emptied only when every record of the generation is
 * applied and its entries are in tables. So a writer needs neither a lock nor a reference.
 *
 *   (empty) -> NEXT [push] -> ACTIVE [the log switches] -> SEALED [seal] -> (empty) [take_below]
 *
 * Dropping is in two steps: take_below() empties the slots under the lock; memtable_list_release(),
 * outside of it, ends the handle, waits for the epoch sections and pins that may still hold the
 * memtable, and destroys it.
 *
 * Ordering: who finds a memtable sees it complete, and who finds its place empty comes after all that
 * came before take_below().
 * Progress: memtable_list_find() is wait-free; memtable_list_release() waits for sections and pins.
 * Threads: find for writers as above; everything else under the caller's lock.
 */
#ifndef LOAM_MEMTABLE_MEMTABLE_LIST_H_
#define LOAM_MEMTABLE_MEMTABLE_LIST_H_

#include "arena/slotmap.h"
#include "memtable/memtable.h"

#define MEMTABLE_SLOTS 16u /* generations alive at once, at most */

struct memtable_slot {
    _Atomic(struct memtable *) m; /* NULL: empty. Writers load it without a lock */
    uint64_t handle;
    uint32_t generation;
    uint64_t boundary;  /* log positions of the generation lie below it; 0 until sealed */
    uint64_t first_log; /* number of the oldest log file its entries came from */
};

struct memtable_list {
    struct slotmap *handles;
    uint32_t oldest; /* generations [oldest, end) have memtables */
    uint32_t end;
    uint32_t leaving; /* taken below, and in memory still */
    struct memtable_slot slots[MEMTABLE_SLOTS]; /* by generation % MEMTABLE_SLOTS */
};

/* handles: a map whose payloads are memtables. */
void memtable_list_init(struct memtable_list *l, struct slotmap *handles, uint32_t generation);
/* Destroys all. REQUIRES: no lock held, not inside an epoch section. */
void memtable_list_destroy(struct memtable_list *l);

/* Owns: takes m over on LOAM_OK. LOAM_E_NOMEM, or LOAM_E_BUSY when every slot is taken. */
int memtable_list_push(struct memtable_list *l, struct memtable *m, uint64_t first_log);
/* The generation's last position is known; it takes no more writes. */
void memtable_list_seal(struct memtable_list *l, uint32_t generation, uint64_t boundary);
/* Moves every generation below `generation` to out (MEMTABLE_SLOTS of them); returns how many. */
uint32_t memtable_list_take_below(struct memtable_list *l, uint32_t generation,
                                  struct memtable_slot *out);
/* REQUIRES: no lock held, not inside an epoch section, and no view shows it any more. */
void memtable_list_release(struct memtable_list *l, const struct memtable_slot *s);
/* One that was taken is released now. */
static inline void memtable_list_left(struct memtable_list *l)
{
    l->leaving--;
}

static inline struct memtable_slot *memtable_list_slot(struct memtable_list *l, uint32_t generation)
{
    return &l->slots[generation % MEMTABLE_SLOTS];
}
static inline uint32_t memtable_list_count(const struct memtable_list *l)
{
    return l->end - l->oldest;
}
/* With those that readers may keep in memory a while longer. */
static inline uint32_t memtable_list_in_memory(const struct memtable_list *l)
{
    return memtable_list_count(l) + l->leaving;
}
/* For writers, inside an epoch section: the memtable of a generation, or NULL when the generation is
 * no longer, or not yet, here. What is found stays until the section ends. */
static inline struct memtable *memtable_list_find(struct memtable_list *l, uint32_t generation)
{
    /* acquire: pairs with the release in push and take_below. */
    return atom_load(&memtable_list_slot(l, generation)->m, acquire);
}
/* Bytes held by all. */
uint64_t memtable_list_bytes(struct memtable_list *l);

#endif
