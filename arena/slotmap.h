/* slotmap.h - Generational handles to pointers: reserve, commit, look up, pin, erase; no lock.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     handle    kind:4 | index:28 | generation:32         0 is no handle
 *     slot      generation:32 | state:3 | pins:29, payload  16 bytes (64 if padded)
 *     pages     1024 slots, then 2048, 4096, ...: index + 1024 has its page in its leading zeros
 *
 *                 reserve            commit            erase              last unpin, epoch
 *        FREE(g) --------> RESERVED(g) ----> LIVE(g) --------> CLOSING(g) ----------> FREE(g+1)
 *                              | abort                \ erase_wait -> TAKING(g) ----> FREE(g+1)
 *                              `-----------------------------------------------------> FREE(g+1)
 *        FILLING(g) stands between RESERVED and LIVE while commit writes the payload.
 *        renew goes from LIVE(g) to RESERVED(g+1) at once and leaves the payload where it is.
 *        A slot whose generation is the last one becomes RETIRED instead of FREE.
 *
 * Invariants
 *   1. A handle names one payload for ever: a slot's generation only rises and never wraps.
 *   2. Pages are never moved or freed before destroy, so any handle may be looked at at any time.
 *   3. pins rise only in LIVE. One thread wins the step out of RESERVED, one the step out of LIVE.
 *      Whoever brings CLOSING to pins 0 (eraser or last unpinner) puts the slot in limbo, once.
 *   4. A slot leaves limbo when every section open then has ended. Only then the finaliser sees the
 *      payload, and only then the slot gets its next generation; renew gives it one before, and leaves
 *      the payload. So a section that found LIVE(g) may read the payload field until its end.
 *   5. The occupancy bit is set exactly in FILLING, LIVE, CLOSING and TAKING (but for the instants
 *      inside commit and abort), and in RESERVED after renew.
 *   6. Each carved slot is FREE in one magazine, depot cell or the spill list; or in limbo; or in
 *      one of the other states.
 * Ordering guarantees
 *   What was written before commit is visible after get, pin and foreach. What was done before an
 *   unpin, or inside a section before its end, happened before the finaliser.
 * Progress guarantees
 *   get and renew are wait-free; reserve, commit, abort, insert, pin, unpin and erase are lock-free, save that
 *   new pages come from the system and that free slots beyond the depot's room are kept in a list
 *   under a lock, taken once in 32 operations at most. Only erase_wait and wait_ready wait.
 *   Nothing but a new page and a thread's first use of a map allocates.
 * Finalisers
 *   A map with a finaliser hands batches of erased slots to the epoch module: the finaliser runs in
 *   epoch_poll() or epoch_synchronize() of some thread, in erase_wait or in destroy; never in
 *   erase, abort or unpin. Some thread must call epoch_poll() now and then. A map without a
 *   finaliser recycles its slots itself, every 256 erases.
 */
#ifndef LOAM_ARENA_SLOTMAP_H_
#define LOAM_ARENA_SLOTMAP_H_

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/epoch.h"
#include "arena/magazine.h"
#include "arena/sync.h"

#define SLOTMAP_PAGES      18
#define SLOTMAP_PAGE_FIRST 1024u                                   /* slots in page 0 */
#define SLOTMAP_SLOT_LIMIT ((1u << 28) - SLOTMAP_PAGE_FIRST)       /* slots in all pages */
#define SLOTMAP_PIN_MAX    ((1u << 29) - 1)

enum slotmap_slot_state {
    SLOTMAP_FREE = 0,
    SLOTMAP_RESERVED = 1,
    SLOTMAP_FILLING = 2,
    SLOTMAP_LIVE = 3,
    SLOTMAP_CLOSING = 4,
    SLOTMAP_TAKING = 5,
    SLOTMAP_RETIRED = 6
};

struct slotmap_slot {
    _Atomic uint64_t word;
    void *_Atomic payload;
};

/* What was still there at destroy. */
struct slotmap_leaks {
    uint32_t reserved; /* reserved, neither committed nor aborted */
    uint32_t pinned;   /* slots with pins */
};

struct slotmap {
    /* By the position of the highest bit of index + 1024: where slot -1024 would be, were the page
     * to begin there; 0: no page. Only entries 10 to 27 ever have one. */
    _Atomic uintptr_t page[32];
    uint32_t handle_base; /* constant after init: upper half of a handle = handle_base + j */
    uint32_t slot_bytes;  /* constant after init: 16 or 64 */
    unsigned kind;        /* constant after init */
    uint32_t first_generation;             /* of slots never used; 1 but in tests */
    struct alloc *alloc;                   /* constant after init */
    void (*finaliser)(void *arg, void *payload); /* constant after the first reserve */
    void *finaliser_arg;
    _Alignas(CACHE_LINE) _Atomic uint64_t limbo; /* count:31 | armed:1 | newest slot + 1:32 */
    _Atomic uint32_t draining;                   /* 1 while a thread owns `batch` (no finaliser) */
    uint32_t batch;                              /* slot + 1 of the list that waits for an epoch */
    uint64_t batch_stamp;
    struct epoch_node node;
    _Alignas(CACHE_LINE) _Atomic uint32_t carved; /* slots ever handed to magazines */
    _Atomic uint32_t retired;
    _Atomic uint32_t wake; /* grows when a commit, abort or last unpin has somebody to wake */
    _Atomic uint32_t spill_count;
    struct mutex spill_mutex; /* protects the two below */
    uint32_t spill_first;     /* slot + 1; FREE slots in no magazine, oldest first */
    uint32_t spill_last;
    struct slotmap_leaks leaks;
    struct magazine_set magazines;
};

/* ---- lifetime ------------------------------------------------------------------------------- */

/* kind: 1 to 15, part of every handle. REQUIRES: no lock held.
 * Returns: LOAM_OK, LOAM_E_INVAL or LOAM_E_NOMEM. */
int slotmap_init(struct slotmap *m, struct alloc *a, unsigned kind);
/* The same with one slot per cache line, for few slots that many threads pin at once. */
int slotmap_init_padded(struct slotmap *m, struct alloc *a, unsigned kind);
/* Finalises what is erased but in limbo, then what is live, and frees the pages. Quiescent: no
 * other call now or later. REQUIRES: not inside a section or a finaliser, no lock held. */
void slotmap_destroy(struct slotmap *m);
/* After destroy: reservations and pins that their owners forgot. */
struct slotmap_leaks slotmap_leaks(const struct slotmap *m);
/* fn runs once for each erased payload (see the head), and for live ones at destroy. To be set
 * before the first reserve. */
void slotmap_set_finaliser(struct slotmap *m, void (*fn)(void *arg, void *payload), void *arg);
/* For tests: slots never used so far start at this generation. */
void slotmap_set_first_generation(struct slotmap *m, uint32_t generation);
/* Before a fork, and after it in parent and child: no other thread is in the midst of a change to
 * the free slots meanwhile, so the child may make handles of its own. */
void slotmap_fork_prepare(struct slotmap *m);
void slotmap_fork_done(struct slotmap *m);
/* Makes room: the map's first n slots exist. LOAM_OK, LOAM_E_NOMEM, or LOAM_E_TOOBIG. */
int slotmap_ensure(struct slotmap *m, uint32_t n);

/* ---- coming and going ----------------------------------------------------------------------- */

/* A handle whose payload comes later. Returns 0: no memory. Any thread. */
uint64_t slotmap_reserve(struct slotmap *m);
/* The same; if the calling thread exits first, the reservation is aborted. */
uint64_t slotmap_reserve_auto(struct slotmap *m);
/* Makes a reservation readable. payload is not NULL. Any thread, one winner.
 * Returns: LOAM_OK; LOAM_E_CLOSED when it was aborted; LOAM_E_EXISTS when committed before;
 * LOAM_E_INVAL for a null or foreign handle or a NULL payload. */
int slotmap_commit(struct slotmap *m, uint64_t h, void *payload);
/* Gives a reservation up. Returns as commit. A renewed one's slot waits for an epoch as after erase. */
int slotmap_abort(struct slotmap *m, uint64_t h);
/* reserve and commit. Returns 0: no memory, or payload NULL. */
uint64_t slotmap_insert(struct slotmap *m, void *payload);
/* Ends the handle; the payload is finalised after the last unpin and an epoch. Never waits.
 * Returns: LOAM_OK to exactly one caller; LOAM_E_CLOSED to the others and later ones; LOAM_E_BUSY
 * for a reservation; LOAM_E_INVAL for a null or foreign handle. */
int slotmap_erase(struct slotmap *m, uint64_t h);
/* Ends the handle as erase does, and returns its slot's next one: reserved, to be committed with the same
 * payload, or aborted. Touches nothing but the slot, for what is closed and opened again all the time. As
 * there is no epoch between the two, a section that found the payload by h may still use it behind the
 * commit: the payload itself must tell whose it is. Returns 0, with h as it was: stale, not committed,
 * pinned, foreign, or of the slot's last generation. Any thread, one winner.
 * REQUIRES: a map without finaliser. */
uint64_t slotmap_renew(struct slotmap *m, uint64_t h);
/* Ends the handle, waits until no pin is left and every section of now has ended, and hands the
 * payload out, without finaliser; payload NULL: the finaliser is run before the return.
 * timeout_us: UINT64_MAX = none. REQUIRES: not inside a section, no pin of the caller.
 * Returns: as erase, or LOAM_STOPPED at the timeout: the handle is gone, *payload is untouched and
 * the map finalises it later as after erase. */
int slotmap_erase_wait(struct slotmap *m, uint64_t h, uint64_t timeout_us, void **payload);
/* erase_wait that hands the payload out; no finaliser runs. */
static inline int slotmap_take(struct slotmap *m, uint64_t h, uint64_t timeout_us, void **payload)
{
    assert(payload != NULL);
    return slotmap_erase_wait(m, h, timeout_us, payload);
}
/* Erases every live handle; reservations stay. Returns how many. */
size_t slotmap_clear(struct slotmap *m);
/* Erases the live handles for which keep() is false; it runs inside a section. Returns how many. */
size_t slotmap_retain(struct slotmap *m, bool (*keep)(void *arg, uint64_t h, void *payload),
                      void *arg);

/* ---- looking -------------------------------------------------------------------------------- */

/* The slot of a handle, NULL for a foreign one or one beyond the pages. With another kind the
 * difference below is too large, or wraps to less than 1024: there is no page in either case. */
static inline struct slotmap_slot *slotmap_slot_(const struct slotmap *m, uint64_t h)
{
    uint32_t j = (uint32_t)(h >> 32) - m->handle_base;
    /* acquire: pairs with the release that linked the page. */
    uintptr_t page = atom_load(&m->page[31 - __builtin_clz(j | 1)], acquire);
    if (__builtin_expect(page == 0, 0)) {
        return NULL;
    }
    return (struct slotmap_slot *)(page + (uintptr_t)j * m->slot_bytes);
}

static inline bool slotmap_live_(uint64_t word, uint64_t h)
{
    return __builtin_expect(word >> 29 == ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE), 1);
}

/* The payload, lent until the section ends; NULL: stale, foreign or not committed.
 * REQUIRES: inside an epoch section. */
static inline void *slotmap_get(struct slotmap *m, uint64_t h)
{
    assert(epoch_inside());
    struct slotmap_slot *s = slotmap_slot_(m, h);
    if (__builtin_expect(s == NULL, 0)) {
        return NULL;
    }
    /* acquire: pairs with the release in commit; makes the payload and its bytes visible. */
    if (!slotmap_live_(atom_load(&s->word, acquire), h)) {
        return NULL;
    }
    return atom_load(&s->payload, relaxed); /* relaxed: ordered by the word; invariant 4 */
}

/* Bytes beside the payload in each slot of a padded map, zero at first: its owner's to use from reserve
 * on, for what is asked for so often that following the payload would show. */
#define SLOTMAP_ROOM 48u
/* REQUIRES: a padded map; h is reserved or live, and the caller's. */
static inline void *slotmap_room(const struct slotmap *m, uint64_t h)
{
    return slotmap_slot_(m, h) + 1;
}
/* The room of a live handle; NULL: stale, foreign or not committed. Needs no section: slots are never
 * unmapped, so reading while the handle is closed gives what was written there last, or mixtures of it.
 * REQUIRES: a padded map. */
static inline const void *slotmap_room_live(const struct slotmap *m, uint64_t h)
{
    const struct slotmap_slot *s = slotmap_slot_(m, h);
    /* acquire: pairs with the release in commit. */
    bool live = s != NULL && slotmap_live_(atom_load(&s->word, acquire), h);
    return live ? s + 1 : NULL;
}

/* get that says why not: LOAM_OK and *payload; LOAM_E_BUSY: reserved, not committed; LOAM_E_CLOSED:
 * stale; LOAM_E_INVAL: null, foreign or never issued. REQUIRES: inside an epoch section. */
int slotmap_get_or_stale(struct slotmap *m, uint64_t h, void **payload);
/* True when h is live at this moment. No section needed. */
bool slotmap_contains(const struct slotmap *m, uint64_t h);
/* Waits until the reservation h is committed. LOAM_OK, LOAM_E_CLOSED (aborted or erased),
 * LOAM_E_INVAL, or LOAM_STOPPED after timeout_us. REQUIRES: not inside a section. */
int slotmap_wait_ready(struct slotmap *m, uint64_t h, uint64_t timeout_us);

/* Keeps the payload beyond epoch sections until unpin; *payload is valid then. No section needed.
 * Returns: LOAM_OK; LOAM_E_CLOSED: stale; LOAM_E_BUSY: not committed; LOAM_E_INVAL: null or
 * foreign; LOAM_E_BUDGET: 2^29 - 1 pins already. */
int slotmap_pin(struct slotmap *m, uint64_t h, void **payload);
/* REQUIRES: one pin of h is the caller's. Any thread. */
void slotmap_unpin(struct slotmap *m, uint64_t h);

/* Calls fn for each live handle until it returns false; O(live + slots / 64). Weakly consistent:
 * what is inserted or erased meanwhile may or may not be seen. fn runs inside a section.
 * Returns how many calls were made. */
size_t slotmap_foreach(struct slotmap *m, bool (*fn)(void *arg, uint64_t h, void *payload),
                       void *arg);

size_t slotmap_len(const struct slotmap *m);      /* live handles; approximate under change */
size_t slotmap_capacity(const struct slotmap *m); /* slots that exist */
size_t slotmap_retired(const struct slotmap *m);  /* slots whose generations are used up */

/* Every carved slot by its state; O(slots), exact when nobody else is inside. */
struct slotmap_census {
    uint32_t carved, free, reserved, live, closing, retired;
    uint32_t pinned;           /* slots with pins */
    uint32_t occupancy_errors; /* slots whose bit contradicts invariant 5 */
};
void slotmap_census(const struct slotmap *m, struct slotmap_census *out);

/* A reservation that is aborted at the end of the scope unless committed:
 *     SLOTMAP_RESERVE_AUTO(r, &map);  if (r.handle == 0) ...;  rc = slotmap_commit_auto(&r, p); */
struct slotmap_reservation {
    struct slotmap *map;
    uint64_t handle;
};
void slotmap_reservation_close_(struct slotmap_reservation *r);
int slotmap_commit_auto(struct slotmap_reservation *r, void *payload);
#define SLOTMAP_RESERVE_AUTO(name, map_)                                                           \
    __attribute__((cleanup(slotmap_reservation_close_))) struct slotmap_reservation name = {       \
        (map_), slotmap_reserve_auto(map_)}

/* A pin until the end of the scope; payload NULL: it was refused, and the thread's error says why.
 *     SLOTMAP_PIN_AUTO(p, &map, h);  if (p.payload == NULL) ...; */
struct slotmap_pinned {
    struct slotmap *map;
    uint64_t handle;
    void *payload;
};
static inline struct slotmap_pinned slotmap_pin_open_(struct slotmap *m, uint64_t h)
{
    struct slotmap_pinned p = {m, h, NULL};
    (void)slotmap_pin(m, h, &p.payload);
    return p;
}
static inline void slotmap_pin_close_(struct slotmap_pinned *p)
{
    if (p->payload != NULL) {
        slotmap_unpin(p->map, p->handle);
    }
}
#define SLOTMAP_PIN_AUTO(name, map_, h)                                                            \
    __attribute__((cleanup(slotmap_pin_close_))) struct slotmap_pinned name =                      \
        slotmap_pin_open_((map_), (h))

#endif
