/* slotmap.c - The life of a map, and of a slot in use: reserved, live, pinned, erased.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states, the invariants and the guarantees are in slotmap.h, the steps between states in
 * slotmap_slot.h. What happens to a slot after its erase is slotmap_limbo.c, what waits is
 * slotmap_wait.c, what walks over all slots is slotmap_walk.c.
 */
#include "arena/slotmap.h"

#include <assert.h>
#include <string.h>

#include "arena/slotmap_slot.h"
#include "arena/status.h"

#include "arena/poison.h"

/* ---- pages, and what handles name ------------------------------------------------------------ */

bool slotmap_page_ensure_(struct slotmap *m, unsigned page)
{
    if (page_at(m, page) != NULL) {
        return true;
    }
    char *fresh = alloc_map(m->alloc, MEM_HANDLE, page_bytes(m, page), 4096, false, false);
    if (fresh == NULL) {
        return page_at(m, page) != NULL;
    }
    uintptr_t expected = 0;
    uintptr_t origin = (uintptr_t)fresh - (uintptr_t)page_slots(page) * m->slot_bytes;
    /* release: pairs with the acquire in page_at() and get; the zeroes are visible. */
    if (!atom_cas(&m->page[page + 10], &expected, origin, release, relaxed)) {
        alloc_unmap(m->alloc, MEM_HANDLE, fresh, page_bytes(m, page), false);
    }
    return true;
}

int slotmap_foreign_(const struct slotmap *m, uint64_t h)
{
    return FAIL(LOAM_E_INVAL, "no handle of kind %u: %u of kind %u", m->kind, handle_index(h),
                (unsigned)(h >> 60));
}

int slotmap_refuse_(uint64_t w, uint64_t h, enum slotmap_slot_state wanted)
{
    uint32_t generation = (uint32_t)h;
    enum slotmap_slot_state state = word_state(w);
    if (generation > word_generation(w) ||
        (generation == word_generation(w) && state == SLOTMAP_FREE)) {
        return FAIL(LOAM_E_INVAL, "a handle that was never given out");
    }
    if (generation < word_generation(w) || state > SLOTMAP_LIVE) {
        return FAIL(LOAM_E_CLOSED, "a handle that was closed");
    }
    if (wanted == SLOTMAP_RESERVED) {
        return FAIL(LOAM_E_EXISTS, "a reservation that was committed before");
    }
    return FAIL(LOAM_E_BUSY, "a handle that is reserved but not committed");
}

/* ---- reservations --------------------------------------------------------------------------- */

/* Takes a free slot, in any state a writer may give it; false: no memory. */
static bool slot_take(struct slotmap *m, uint32_t *index)
{
    uint64_t item;
    struct magazine_cache *c = magazine_cache_self(&m->magazines);
    if (!magazine_take(&m->magazines, c, &item)) {
        /* The last resort: slots in limbo whose epoch may have passed. */
        if (m->finaliser != NULL) {
            return false;
        }
        slotmap_limbo_step_(m);
        slotmap_limbo_step_(m);
        c = magazine_cache_self(&m->magazines);
        if (!magazine_take(&m->magazines, c, &item)) {
            return false;
        }
    }
    *index = (uint32_t)item;
    return true;
}

/* The generation a free slot will have when it is taken. */
static uint32_t slot_next_generation(const struct slotmap *m, const struct slotmap_slot *s)
{
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the slot came through the magazines */
    assert(word_state(w) == SLOTMAP_FREE && word_pins(w) == 0);
    return word_generation(w) != 0 ? word_generation(w) : m->first_generation;
}

static uint64_t reserve_as(struct slotmap *m, uint64_t flags, void *tag)
{
    uint32_t index;
    if (!slot_take(m, &index)) {
        FAIL(LOAM_E_NOMEM, "no memory for another handle of kind %u", m->kind);
        return 0;
    }
    struct slotmap_slot *s = slot_at(m, index);
    uint32_t generation = slot_next_generation(m, s);
    atom_store(&s->payload, tag, relaxed); /* relaxed: ordered by the word */
    /* release: pairs with the acquire in thread_exit_hook(); the tag is that of this reserver. */
    atom_store(&s->word, word_of(generation, SLOTMAP_RESERVED, flags), release);
    return handle_of(m, index, generation);
}

uint64_t slotmap_reserve(struct slotmap *m)
{
    return reserve_as(m, 0, NULL);
}

uint64_t slotmap_reserve_auto(struct slotmap *m)
{
    uint32_t thread = thread_slot_self();
    if (thread == THREAD_SLOT_NONE) {
        return slotmap_reserve(m); /* a thread past its exit hooks */
    }
    uint64_t h = reserve_as(m, RESERVED_AUTO, (void *)((uintptr_t)thread + 1));
    struct magazine_cache *c = magazine_cache_self(&m->magazines);
    if (h != 0 && c != NULL) {
        c->note++; /* the exit hook has something to look for */
    }
    return h;
}

/* Wins a reservation out of RESERVED into the word `next`; *flags as they were. */
static int reservation_claim(struct slotmap_slot *s, uint64_t h, uint64_t next, uint64_t *flags)
{
    assert(slot_may_step(SLOTMAP_RESERVED, word_state(next)));
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the exchange below decides */
    do {
        if (word_generation(w) != (uint32_t)h || word_state(w) != SLOTMAP_RESERVED) {
            return slotmap_refuse_(w, h, SLOTMAP_RESERVED);
        }
        /* acquire: the slot is the winner's; pairs with a waiter's flag. */
    } while (!atom_cas(&s->word, &w, next, acquire, relaxed));
    *flags = word_pins(w);
    return LOAM_OK;
}

/* Makes a slot of this thread, in state `from`, readable. */
static void slot_publish(struct slotmap *m, struct slotmap_slot *s, uint64_t h, void *payload,
                         enum slotmap_slot_state from)
{
    assert(slot_may_step(from, SLOTMAP_LIVE));
    (void)from;
    uint32_t index = handle_index(h);
    uint64_t bit = (uint64_t)1 << index % 64;
    atom_store(&s->payload, payload, relaxed); /* relaxed: ordered by the word below */
    /* relaxed: the bit is the slot's owner's, and foreach looks at the word afterwards. Set already when
     * renewed: then the line, which 512 slots share, is not written. */
    if ((atom_load(occupancy_at(m, index), relaxed) & bit) == 0) {
        atom_or(occupancy_at(m, index), bit, relaxed);
    }
    magazine_count(&m->magazines, magazine_cache_self(&m->magazines), MAGAZINE_COUNT_IN);
    /* release: pairs with the acquire in get, pin and foreach; makes the payload visible. */
    atom_store(&s->word, word_of((uint32_t)h, SLOTMAP_LIVE, 0), release);
}

/* An automatic reservation has ended: one less for the exit hook. */
static void auto_ended(struct slotmap *m)
{
    struct magazine_cache *c = magazine_cache_self(&m->magazines);
    /* Ended by another thread than its own, the note stays too high: a needless look at exit. */
    if (c != NULL && c->note != 0) {
        c->note--;
    }
}

int slotmap_commit(struct slotmap *m, uint64_t h, void *payload)
{
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (payload == NULL) {
        return FAIL(LOAM_E_INVAL, "a handle cannot name NULL");
    }
    uint64_t flags = 0;
    rc = reservation_claim(s, h, word_of((uint32_t)h, SLOTMAP_FILLING, 0), &flags);
    if (rc != LOAM_OK) {
        return rc;
    }
    /* relaxed: no other thread changes it. */
    assert((flags & RESERVED_RENEWED) == 0 || atom_load(&s->payload, relaxed) == payload);
    slot_publish(m, s, h, payload, SLOTMAP_FILLING);
    if ((flags & RESERVED_AUTO) != 0) {
        auto_ended(m);
    }
    if ((flags & RESERVED_WAITED) != 0) {
        slotmap_wake_(m);
    }
    return LOAM_OK;
}

int slotmap_abort(struct slotmap *m, uint64_t h)
{
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint64_t flags = 0;
    rc = reservation_claim(s, h, word_of((uint32_t)h, SLOTMAP_CLOSING, 0), &flags);
    if (rc != LOAM_OK) {
        return rc;
    }
    if ((flags & RESERVED_RENEWED) != 0) {
        slotmap_limbo_push_(m, handle_index(h)); /* a section may have found the generation before */
    } else { /* nobody has seen a payload, so there is no epoch to wait for */
        slotmap_recycle_(m, s, handle_index(h), (uint32_t)h, SLOTMAP_CLOSING);
    }
    if ((flags & RESERVED_AUTO) != 0) {
        auto_ended(m);
    }
    if ((flags & RESERVED_WAITED) != 0) {
        slotmap_wake_(m);
    }
    return LOAM_OK;
}

uint64_t slotmap_insert(struct slotmap *m, void *payload)
{
    if (payload == NULL) {
        FAIL(LOAM_E_INVAL, "a handle cannot name NULL");
        return 0;
    }
    uint32_t index;
    if (!slot_take(m, &index)) {
        FAIL(LOAM_E_NOMEM, "no memory for another handle of kind %u", m->kind);
        return 0;
    }
    struct slotmap_slot *s = slot_at(m, index);
    uint64_t h = handle_of(m, index, slot_next_generation(m, s));
    slot_publish(m, s, h, payload, SLOTMAP_FREE);
    return h;
}

void slotmap_reservation_close_(struct slotmap_reservation *r)
{
    if (r->handle != 0) {
        slotmap_abort(r->map, r->handle);
        r->handle = 0;
    }
}

int slotmap_commit_auto(struct slotmap_reservation *r, void *payload)
{
    int rc = slotmap_commit(r->map, r->handle, payload);
    if (rc == LOAM_OK) {
        r->handle = 0;
    }
    return rc;
}

/* ---- pins and erasure ----------------------------------------------------------------------- */

int slotmap_pin(struct slotmap *m, uint64_t h, void **payload)
{
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the exchange below decides */
    do {
        if (__builtin_expect(w >> 29 != ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE), 0)) {
            return slotmap_refuse_(w, h, SLOTMAP_LIVE);
        }
        if (__builtin_expect(word_pins(w) == SLOTMAP_PIN_MAX, 0)) {
            return FAIL(LOAM_E_BUDGET, "a handle has %u pins, the most there can be",
                        SLOTMAP_PIN_MAX);
        }
        /* acquire: pairs with the release in slot_publish(), as in get. A failed exchange means
         * that another thread has pinned, unpinned or erased. */
    } while (!atom_cas(&s->word, &w, w + 1, acquire, relaxed));
    *payload = atom_load(&s->payload, relaxed); /* relaxed: ordered by the word */
    return LOAM_OK;
}

void slotmap_unpin(struct slotmap *m, uint64_t h)
{
    struct slotmap_slot *s = slotmap_slot_(m, h);
    assert(s != NULL);
    /* release: what the pin's owner did happens before the finaliser. acquire: the last one sees
     * what the others did and hands it on. */
    uint64_t w = atom_sub(&s->word, 1, acq_rel);
    assert(word_generation(w) == (uint32_t)h && word_pins(w) != 0);
    if (__builtin_expect(word_pins(w) == 1 && word_state(w) != SLOTMAP_LIVE, 0)) {
        if (word_state(w) == SLOTMAP_CLOSING) {
            slotmap_limbo_push_(m, handle_index(h));
        } else {
            slotmap_wake_(m); /* the slot belongs to the waiter in erase_wait */
        }
    }
}

int slotmap_claim_(struct slotmap *m, struct slotmap_slot *s, uint64_t h,
                   enum slotmap_slot_state state, uint64_t *before)
{
    assert(slot_may_step(SLOTMAP_LIVE, state));
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the exchange below decides */
    do {
        if (w >> 29 != ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE)) {
            return slotmap_refuse_(w, h, SLOTMAP_LIVE);
        }
        /* acq_rel: acquire as a pin does; release: who finds it closed sees all before the erase.
         */
    } while (!atom_cas(&s->word, &w, word_of((uint32_t)h, state, word_pins(w)), acq_rel, relaxed));
    magazine_count(&m->magazines, magazine_cache_self(&m->magazines), MAGAZINE_COUNT_OUT);
    *before = w;
    return LOAM_OK;
}

int slotmap_erase(struct slotmap *m, uint64_t h)
{
    struct slotmap_slot *s;
    uint64_t before = 0;
    int rc = slot_find(m, h, &s);
    if (rc == LOAM_OK) {
        rc = slotmap_claim_(m, s, h, SLOTMAP_CLOSING, &before);
    }
    if (rc == LOAM_OK && word_pins(before) == 0) {
        slotmap_limbo_push_(m, handle_index(h));
    }
    return rc;
}

uint64_t slotmap_renew(struct slotmap *m, uint64_t h)
{
    assert(m->finaliser == NULL);
    assert(slot_may_step(SLOTMAP_LIVE, SLOTMAP_RESERVED));
    struct slotmap_slot *s = slotmap_slot_(m, h);
    if (s == NULL || (uint32_t)h == UINT32_MAX) {
        return 0;
    }
    uint64_t live = word_of((uint32_t)h, SLOTMAP_LIVE, 0);
    uint64_t next = word_of((uint32_t)h + 1, SLOTMAP_RESERVED, RESERVED_RENEWED);
    /* acq_rel: as in slotmap_claim_(). */
    if (!atom_cas(&s->word, &live, next, acq_rel, relaxed)) {
        return 0;
    }
    magazine_count(&m->magazines, magazine_cache_self(&m->magazines), MAGAZINE_COUNT_OUT);
    return h + 1;
}

/* ---- looking -------------------------------------------------------------------------------- */

int slotmap_get_or_stale(struct slotmap *m, uint64_t h, void **payload)
{
    assert(epoch_inside());
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with slot_publish() */
    if (w >> 29 != ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE)) {
        return slotmap_refuse_(w, h, SLOTMAP_LIVE);
    }
    *payload = atom_load(&s->payload, relaxed); /* relaxed: ordered by the word */
    return LOAM_OK;
}

bool slotmap_contains(const struct slotmap *m, uint64_t h)
{
    struct slotmap_slot *s = slotmap_slot_(m, h);
    /* acquire: a true answer sees what was done before the commit. */
    return s != NULL &&
           atom_load(&s->word, acquire) >> 29 == ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE);
}

/* ---- lifetime ------------------------------------------------------------------------------- */

/* Aborts the automatic reservations that the exiting thread leaves behind. */
static void thread_exit_hook(void *arg, uint32_t thread)
{
    struct slotmap *m = arg;
    struct magazine_cache *c = magazine_cache_self(&m->magazines);
    if (c == NULL || c->note == 0) {
        return;
    }
    c->note = 0;
    uint32_t carved = carved_slots(m);
    for (uint32_t index = 0; index < carved; index++) {
        struct slotmap_slot *s = slot_at(m, index);
        uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with reserve_as(); the tag */
        if (word_state(w) == SLOTMAP_RESERVED && (w & RESERVED_AUTO) != 0 &&
            atom_load(&s->payload, relaxed) == (void *)((uintptr_t)thread + 1)) {
            slotmap_abort(m, handle_of(m, index, word_generation(w)));
        }
    }
}

static int init_sized(struct slotmap *m, struct alloc *a, unsigned kind, uint32_t slot_bytes)
{
    if (kind == 0 || kind > 15) {
        return FAIL(LOAM_E_INVAL, "a slotmap's kind is %u, not 1 to 15", kind);
    }
    memset(m, 0, sizeof *m);
    m->kind = kind;
    m->handle_base = (kind << 28) - SLOTMAP_PAGE_FIRST;
    m->slot_bytes = slot_bytes;
    m->first_generation = 1;
    m->alloc = a;
    struct magazine_options o = {.alloc = a,
                                 .owner = MEM_HANDLE,
                                 .limit = MAGAZINE_ITEMS,
                                 .fifo = true,
                                 .refill = slotmap_refill_,
                                 .spill = slotmap_spill_,
                                 .arg = m};
    int rc = magazine_set_init(&m->magazines, &o);
    if (rc != LOAM_OK) {
        return rc;
    }
    mutex_init(&m->spill_mutex, RANK_MAGAZINE_SOURCE);
    rc = thread_slot_add_exit_hook(thread_exit_hook, m);
    if (rc != LOAM_OK) {
        mutex_destroy(&m->spill_mutex);
        magazine_set_destroy(&m->magazines);
    }
    return rc;
}

int slotmap_init(struct slotmap *m, struct alloc *a, unsigned kind)
{
    _Static_assert(sizeof(struct slotmap_slot) == 16, "four slots share a cache line");
    return init_sized(m, a, kind, sizeof(struct slotmap_slot));
}

int slotmap_init_padded(struct slotmap *m, struct alloc *a, unsigned kind)
{
    return init_sized(m, a, kind, CACHE_LINE);
}

/* Finalises what lives and counts what was forgotten. */
static void sweep_out(struct slotmap *m)
{
    uint32_t carved = carved_slots(m);
    for (uint32_t index = 0; index < carved; index++) {
        struct slotmap_slot *s = slot_at(m, index);
        uint64_t w = atom_load(&s->word, relaxed); /* relaxed: nobody else is left */
        enum slotmap_slot_state state = word_state(w);
        m->leaks.reserved += state == SLOTMAP_RESERVED;
        m->leaks.pinned += state >= SLOTMAP_LIVE && word_pins(w) != 0;
        if (m->finaliser != NULL &&
            (state == SLOTMAP_LIVE || (state == SLOTMAP_CLOSING && word_pins(w) != 0))) {
            m->finaliser(m->finaliser_arg, atom_load(&s->payload, relaxed)); /* relaxed: as above */
        }
    }
}

void slotmap_destroy(struct slotmap *m)
{
    assert(!epoch_inside());
    thread_slot_remove_exit_hook(thread_exit_hook, m);
    /* acquire: pairs with the release in limbo_drain(); the node is free. A finaliser may erase
     * more handles of this map, so the limbo may fill again. */
    while (m->finaliser != NULL && atom_load(&m->limbo, acquire) != 0) {
        epoch_synchronize();
    }
    sweep_out(m);
    for (unsigned page = 0; page < SLOTMAP_PAGES; page++) {
        char *base = page_at(m, page);
        if (base != NULL) {
            alloc_unmap(m->alloc, MEM_HANDLE, base, page_bytes(m, page), false);
        }
        atom_store(&m->page[page + 10], 0, relaxed); /* relaxed: nobody else is left */
    }
    magazine_set_destroy(&m->magazines);
    mutex_destroy(&m->spill_mutex);
}

struct slotmap_leaks slotmap_leaks(const struct slotmap *m)
{
    return m->leaks;
}

void slotmap_set_finaliser(struct slotmap *m, void (*fn)(void *arg, void *payload), void *arg)
{
    assert(carved_slots(m) == 0);
    m->finaliser = fn;
    m->finaliser_arg = arg;
}

void slotmap_set_first_generation(struct slotmap *m, uint32_t generation)
{
    assert(generation != 0);
    m->first_generation = generation;
}

void slotmap_fork_prepare(struct slotmap *m)
{
    magazine_fork_prepare(&m->magazines);
    mutex_lock_unranked(&m->spill_mutex);
}

void slotmap_fork_done(struct slotmap *m)
{
    mutex_unlock(&m->spill_mutex);
    magazine_fork_done(&m->magazines);
}

int slotmap_ensure(struct slotmap *m, uint32_t n)
{
    if (n > SLOTMAP_SLOT_LIMIT) {
        return FAIL(LOAM_E_TOOBIG, "a slotmap holds at most %u handles", SLOTMAP_SLOT_LIMIT);
    }
    for (unsigned page = 0; page < SLOTMAP_PAGES && page_first_index(page) < n; page++) {
        if (!slotmap_page_ensure_(m, page)) {
            return FAIL(LOAM_E_NOMEM, "no memory for %u handles", n);
        }
    }
    return LOAM_OK;
}
