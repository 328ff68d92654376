/* slotmap_slot.h - One slot of a slotmap: its word, its place in the pages, the steps it may take.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Private to slotmap*.c; the picture and the invariants are in slotmap.h.
 *
 *     from       to        by                                  who wins
 *     FREE       RESERVED  slotmap_reserve                     the slot came from its magazine
 *     FREE       LIVE      slotmap_insert                      as above
 *     RESERVED   FILLING   slotmap_commit                      compare-and-swap
 *     RESERVED   CLOSING   slotmap_abort, a thread's exit      compare-and-swap
 *     FILLING    LIVE      slotmap_commit                      the winner of FILLING
 *     LIVE       CLOSING   slotmap_erase                       compare-and-swap
 *     LIVE       TAKING    slotmap_erase_wait                  compare-and-swap
 *     LIVE       RESERVED  slotmap_renew; generation + 1       compare-and-swap
 *     TAKING     CLOSING   slotmap_erase_wait, at its timeout  compare-and-swap, or no pin is left
 *     CLOSING    FREE      after the epoch, or at once when aborted and not renewed; generation + 1
 *     TAKING     FREE      slotmap_erase_wait; generation + 1
 *     CLOSING, TAKING -> RETIRED instead, when the generation was the last
 *
 * slot_may_step() is this table; each step asserts it.
 *
 * In RESERVED the pin field holds three flags: RESERVED_WAITED (somebody sleeps in wait_ready),
 * RESERVED_AUTO (payload holds the reserving thread's slot number + 1) and RESERVED_RENEWED (payload
 * and occupancy bit are those of the generation before).
 */
#ifndef LOAM_ARENA_SLOTMAP_SLOT_H_
#define LOAM_ARENA_SLOTMAP_SLOT_H_

#include "arena/slotmap.h"

#define PIN_MASK        ((uint64_t)SLOTMAP_PIN_MAX)
#define RESERVED_WAITED  ((uint64_t)1)
#define RESERVED_AUTO    ((uint64_t)2)
#define RESERVED_RENEWED ((uint64_t)4)

#define INDEX_MASK 0x0fffffffu

/* ---- the word ------------------------------------------------------------------------------- */

static inline uint64_t word_of(uint32_t generation, enum slotmap_slot_state state, uint64_t pins)
{
    return (uint64_t)generation << 32 | (uint64_t)state << 29 | pins;
}

static inline uint32_t word_generation(uint64_t w)
{
    return (uint32_t)(w >> 32);
}

static inline enum slotmap_slot_state word_state(uint64_t w)
{
    return (enum slotmap_slot_state)(w >> 29 & 7);
}

static inline uint64_t word_pins(uint64_t w)
{
    return w & PIN_MASK;
}

static inline bool slot_may_step(enum slotmap_slot_state from, enum slotmap_slot_state to)
{
    static const unsigned char next[] = {
        [SLOTMAP_FREE] = 1 << SLOTMAP_RESERVED | 1 << SLOTMAP_LIVE,
        [SLOTMAP_RESERVED] = 1 << SLOTMAP_FILLING | 1 << SLOTMAP_CLOSING,
        [SLOTMAP_FILLING] = 1 << SLOTMAP_LIVE,
        [SLOTMAP_LIVE] = 1 << SLOTMAP_CLOSING | 1 << SLOTMAP_TAKING | 1 << SLOTMAP_RESERVED,
        [SLOTMAP_CLOSING] = 1 << SLOTMAP_FREE | 1 << SLOTMAP_RETIRED,
        [SLOTMAP_TAKING] = 1 << SLOTMAP_CLOSING | 1 << SLOTMAP_FREE | 1 << SLOTMAP_RETIRED,
        [SLOTMAP_RETIRED] = 0,
    };
    return (next[from] >> to & 1) != 0;
}

/* ---- handles and pages ---------------------------------------------------------------------- */

static inline uint32_t handle_index(uint64_t h)
{
    return (uint32_t)(h >> 32) & INDEX_MASK;
}

static inline uint64_t handle_of(const struct slotmap *m, uint32_t index, uint32_t generation)
{
    return (uint64_t)m->kind << 60 | (uint64_t)index << 32 | generation;
}

static inline unsigned page_of(uint32_t index)
{
    return 31u - (unsigned)__builtin_clz(index + SLOTMAP_PAGE_FIRST) - 10u;
}

static inline uint32_t page_slots(unsigned page)
{
    return SLOTMAP_PAGE_FIRST << page;
}

static inline uint32_t page_first_index(unsigned page)
{
    return page_slots(page) - SLOTMAP_PAGE_FIRST;
}

/* A page: the slots, one occupancy bit for each, one link for each. */
static inline size_t page_bytes(const struct slotmap *m, unsigned page)
{
    size_t n = page_slots(page);
    return n * m->slot_bytes + n / 8 + n * sizeof(uint32_t);
}

/* NULL: no such page yet. */
static inline char *page_at(const struct slotmap *m, unsigned page)
{
    /* acquire: pairs with the release in slotmap_page_ensure_(). */
    uintptr_t origin = atom_load(&m->page[page + 10], acquire);
    return origin == 0 ? NULL : (char *)(origin + (uintptr_t)page_slots(page) * m->slot_bytes);
}

static inline struct slotmap_slot *slot_at(const struct slotmap *m, uint32_t index)
{
    return slotmap_slot_(m, handle_of(m, index, 0));
}

static inline _Atomic uint64_t *occupancy_at(const struct slotmap *m, uint32_t index)
{
    unsigned page = page_of(index);
    char *bits = page_at(m, page) + (size_t)page_slots(page) * m->slot_bytes;
    return (_Atomic uint64_t *)(void *)bits + (index - page_first_index(page)) / 64;
}

/* The next slot + 1 in limbo, the batch or the spill list; owned with the list's top. */
static inline uint32_t *link_at(const struct slotmap *m, uint32_t index)
{
    unsigned page = page_of(index);
    size_t n = page_slots(page);
    char *links = page_at(m, page) + n * m->slot_bytes + n / 8;
    return (uint32_t *)(void *)links + (index - page_first_index(page));
}

/* Slots ever handed to magazines; each is on a page. */
static inline uint32_t carved_slots(const struct slotmap *m)
{
    return atom_load(&m->carved, acquire); /* acquire: pairs with the release in carve() */
}

/* ---- shared by the slotmap's own files ------------------------------------------------------ */

/* Makes the page. False: no memory. */
bool slotmap_page_ensure_(struct slotmap *m, unsigned page);
/* Says that h is null or another map's. Returns LOAM_E_INVAL. */
int slotmap_foreign_(const struct slotmap *m, uint64_t h);

/* The slot a handle names, whatever its state; or why there is none. */
static inline int slot_find(const struct slotmap *m, uint64_t h, struct slotmap_slot **slot)
{
    *slot = slotmap_slot_(m, h);
    return *slot != NULL && (uint32_t)h != 0 ? LOAM_OK : slotmap_foreign_(m, h);
}

/* Why a slot with word w does not serve handle h as `wanted`. */
int slotmap_refuse_(uint64_t w, uint64_t h, enum slotmap_slot_state wanted);
/* Wins a handle out of LIVE into `state`; *before is the word as it was. */
int slotmap_claim_(struct slotmap *m, struct slotmap_slot *s, uint64_t h,
                   enum slotmap_slot_state state, uint64_t *before);
/* Wakes those who sleep in erase_wait and wait_ready. */
void slotmap_wake_(struct slotmap *m);

/* Between the magazines and the pages: see struct magazine_options. */
uint32_t slotmap_refill_(void *arg, uint64_t *items, uint32_t n);
void slotmap_spill_(void *arg, const uint64_t *items, uint32_t n);
/* Ends the generation of a slot nobody else can change, which is in state `from`. */
void slotmap_recycle_(struct slotmap *m, struct slotmap_slot *s, uint32_t index,
                      uint32_t generation, enum slotmap_slot_state from);
/* The end of an erased slot: finaliser if asked for, then free. */
void slotmap_finalise_(struct slotmap *m, uint32_t index, bool finalise);
/* Puts a closing slot without pins in limbo. Threads: the one that brought it there, once. */
void slotmap_limbo_push_(struct slotmap *m, uint32_t index);
/* Without a finaliser: recycles the batch if its epoch has passed and takes the next one. */
void slotmap_limbo_step_(struct slotmap *m);

#endif
