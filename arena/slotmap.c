/* slotmap.c - The life of a slot: free, reserved, live, closing, in limbo, free again or retired.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states, the invariants and the guarantees are in the header. Limbo is a stack linked through
 * the pages' link arrays; one word holds its top, so a push is one compare-and-swap and everything
 * in it is taken by one exchange (there is no pop, hence no ABA). What was taken is the batch. It
 * waits for one epoch as a whole: with a finaliser as the map's only epoch node (`armed` in the
 * word says that the node is on its way), without one by a stamp that a later erase looks at.
 *
 * In RESERVED the pin field holds two flags: RESERVED_WAITED (somebody sleeps in wait_ready) and
 * RESERVED_AUTO (payload holds the reserving thread's slot number + 1).
 */
#include "arena/slotmap.h"

#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

#define PIN_MASK        ((uint64_t)SLOTMAP_PIN_MAX)
#define RESERVED_WAITED ((uint64_t)1)
#define RESERVED_AUTO   ((uint64_t)2)

#define LIMBO_NEWEST ((uint64_t)UINT32_MAX) /* slot + 1 */
#define LIMBO_ARMED  ((uint64_t)1 << 32)
#define LIMBO_ONE    ((uint64_t)1 << 33)
#define LIMBO_STEP   256 /* erases between two looks at the epoch; a power of two */

#define INDEX_MASK 0x0fffffffu

/* ---- words, handles, pages ------------------------------------------------------------------ */

static uint64_t word_of(uint32_t generation, enum slotmap_slot_state state, uint64_t pins)
{
    return (uint64_t)generation << 32 | (uint64_t)state << 29 | pins;
}

static uint32_t word_generation(uint64_t w)
{
    return (uint32_t)(w >> 32);
}

static enum slotmap_slot_state word_state(uint64_t w)
{
    return (enum slotmap_slot_state)(w >> 29 & 7);
}

static uint64_t word_pins(uint64_t w)
{
    return w & PIN_MASK;
}

static uint32_t handle_index(uint64_t h)
{
    return (uint32_t)(h >> 32) & INDEX_MASK;
}

static uint64_t handle_of(const struct slotmap *m, uint32_t index, uint32_t generation)
{
    return (uint64_t)m->kind << 60 | (uint64_t)index << 32 | generation;
}

static unsigned page_of(uint32_t index)
{
    return 31u - (unsigned)__builtin_clz(index + SLOTMAP_PAGE_FIRST) - 10u;
}

static uint32_t page_slots(unsigned page)
{
    return SLOTMAP_PAGE_FIRST << page;
}

static uint32_t page_first_index(unsigned page)
{
    return page_slots(page) - SLOTMAP_PAGE_FIRST;
}

/* A page: the slots, one occupancy bit for each, one link for each. */
static size_t page_bytes(const struct slotmap *m, unsigned page)
{
    size_t n = page_slots(page);
    return n * m->slot_bytes + n / 8 + n * sizeof(uint32_t);
}

/* NULL: no such page yet. */
static char *page_at(const struct slotmap *m, unsigned page)
{
    /* acquire: pairs with the release in page_ensure(). */
    uintptr_t origin = atom_load(&m->page[page + 10], acquire);
    return origin == 0 ? NULL : (char *)(origin + (uintptr_t)page_slots(page) * m->slot_bytes);
}

static struct slotmap_slot *slot_at(const struct slotmap *m, uint32_t index)
{
    return slotmap_slot_(m, handle_of(m, index, 0));
}

static _Atomic uint64_t *occupancy_at(const struct slotmap *m, uint32_t index)
{
    unsigned page = page_of(index);
    char *bits = page_at(m, page) + (size_t)page_slots(page) * m->slot_bytes;
    return (_Atomic uint64_t *)(void *)bits + (index - page_first_index(page)) / 64;
}

/* The next slot + 1 in limbo, the batch or the spill list; owned with the list's top. */
static uint32_t *link_at(const struct slotmap *m, uint32_t index)
{
    unsigned page = page_of(index);
    size_t n = page_slots(page);
    char *links = page_at(m, page) + n * m->slot_bytes + n / 8;
    return (uint32_t *)(void *)links + (index - page_first_index(page));
}

/* False: no memory. */
static bool page_ensure(struct slotmap *m, unsigned page)
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

/* The slot a handle names, whatever its state; or why there is none. */
static int slot_find(const struct slotmap *m, uint64_t h, struct slotmap_slot **slot)
{
    *slot = slotmap_slot_(m, h);
    if (*slot == NULL || (uint32_t)h == 0) {
        return FAIL(LOAM_E_INVAL, "no handle of kind %u: %u of kind %u", m->kind, handle_index(h),
                    (unsigned)(h >> 60));
    }
    return LOAM_OK;
}

/* Why a slot with word w does not serve handle h as `wanted`. */
static int slot_refuse(uint64_t w, uint64_t h, enum slotmap_slot_state wanted)
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

/* ---- free slots ----------------------------------------------------------------------------- */

static void spill(void *arg, const uint64_t *items, uint32_t n)
{
    struct slotmap *m = arg;
    mutex_lock(&m->spill_mutex);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t index = (uint32_t)items[i];
        *link_at(m, index) = 0;
        if (m->spill_last != 0) {
            *link_at(m, m->spill_last - 1) = index + 1;
        } else {
            m->spill_first = index + 1;
        }
        m->spill_last = index + 1;
    }
    /* relaxed, here and in unspill: a hint to those who do not hold the lock. */
    atom_store(&m->spill_count, atom_load(&m->spill_count, relaxed) + n, relaxed);
    mutex_unlock(&m->spill_mutex);
}

static uint32_t unspill(struct slotmap *m, uint64_t *items, uint32_t n)
{
    uint32_t got = 0;
    mutex_lock(&m->spill_mutex);
    for (; got < n && m->spill_first != 0; got++) {
        uint32_t index = m->spill_first - 1;
        items[got] = index;
        m->spill_first = *link_at(m, index);
    }
    if (m->spill_first == 0) {
        m->spill_last = 0;
    }
    atom_store(&m->spill_count, atom_load(&m->spill_count, relaxed) - got, relaxed);
    mutex_unlock(&m->spill_mutex);
    return got;
}

/* Slots that were never used, lowest on top. */
static uint32_t carve(struct slotmap *m, uint64_t *items)
{
    uint32_t first = atom_load(&m->carved, relaxed); /* relaxed: the exchange below decides */
    do {
        if (first >= SLOTMAP_SLOT_LIMIT || !page_ensure(m, page_of(first))) {
            return 0;
        }
        /* release: pairs with the acquire in carved_slots(); the page exists. */
    } while (!atom_cas(&m->carved, &first, first + MAGAZINE_ITEMS, release, relaxed));
    for (uint32_t i = 0; i < MAGAZINE_ITEMS; i++) {
        items[i] = first + MAGAZINE_ITEMS - 1 - i;
    }
    return MAGAZINE_ITEMS;
}

static uint32_t refill(void *arg, uint64_t *items, uint32_t n)
{
    struct slotmap *m = arg;
    assert(n == MAGAZINE_ITEMS); /* runs of 32 never cross a page */
    if (atom_load(&m->spill_count, relaxed) != 0) {
        uint32_t got = unspill(m, items, n);
        if (got != 0) {
            return got;
        }
    }
    return carve(m, items);
}

/* Ends the generation of a slot nobody else can change. Threads: the slot's owner. */
static void slot_recycle(struct slotmap *m, struct slotmap_slot *s, uint32_t index,
                         uint32_t generation)
{
    /* relaxed: whoever gets the slot next gets it through the magazines. */
    atom_store(&s->payload, NULL, relaxed);
    if (generation == UINT32_MAX) {
        atom_store(&s->word, word_of(generation, SLOTMAP_RETIRED, 0), relaxed);
        atom_add(&m->retired, 1, relaxed); /* relaxed: a statistic */
        return;
    }
    atom_store(&s->word, word_of(generation + 1, SLOTMAP_FREE, 0), relaxed);
    magazine_give(&m->magazines, magazine_cache_self(&m->magazines), index);
}

/* ---- limbo ---------------------------------------------------------------------------------- */

/* The end of an erased slot: finaliser if asked for, then free. */
static void slot_finalise(struct slotmap *m, uint32_t index, bool finalise)
{
    struct slotmap_slot *s = slot_at(m, index);
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the slot is this thread's alone */
    assert(word_pins(w) == 0);
    if (finalise && m->finaliser != NULL) {
        m->finaliser(m->finaliser_arg, atom_load(&s->payload, relaxed)); /* relaxed: as above */
    }
    /* relaxed: the bit changes hands with the slot. */
    atom_and(occupancy_at(m, index), ~((uint64_t)1 << index % 64), relaxed);
    slot_recycle(m, s, index, word_generation(w));
}

static void batch_finalise(struct slotmap *m, uint32_t newest)
{
    while (newest != 0) {
        uint32_t index = newest - 1;
        newest = *link_at(m, index);
        slot_finalise(m, index, true);
    }
}

static void limbo_drain(void *arg, void *ptr);

/* Sends everything in limbo off as a batch. Threads: the one that set `armed`. */
static void limbo_arm(struct slotmap *m)
{
    /* acq_rel: acquire pairs with the release of every push (links); release hands `batch` on. */
    m->batch = (uint32_t)atom_swap(&m->limbo, LIMBO_ARMED, acq_rel);
    epoch_retire_node(&m->node, limbo_drain, m, NULL);
}

/* The epoch node's function: the sections that could see the batch have ended. */
static void limbo_drain(void *arg, void *ptr)
{
    (void)ptr;
    struct slotmap *m = arg;
    batch_finalise(m, m->batch);
    uint64_t expected = LIMBO_ARMED;
    /* release: the next to arm, and destroy, see this thread's use of node and batch ended. */
    if (!atom_cas(&m->limbo, &expected, 0, release, relaxed)) {
        limbo_arm(m);
    }
}

/* Without a finaliser: recycles the batch if its epoch has passed and takes the next one. */
static void limbo_step(struct slotmap *m)
{
    /* acquire: pairs with the release below; the batch is this thread's until then. */
    if (atom_load(&m->draining, relaxed) != 0 || atom_swap(&m->draining, 1, acquire) != 0) {
        return;
    }
    if (m->batch == 0 || epoch_passed(m->batch_stamp)) {
        batch_finalise(m, m->batch);
        m->batch = (uint32_t)atom_swap(&m->limbo, 0, acquire); /* acquire: the pushes' links */
        m->batch_stamp = epoch_stamp();
    }
    atom_store(&m->draining, 0, release);
}

/* Puts a closing slot without pins in limbo. Threads: the one that brought it there, once. */
static void limbo_push(struct slotmap *m, uint32_t index)
{
    uint64_t armed = m->finaliser != NULL ? LIMBO_ARMED : 0;
    uint64_t head = atom_load(&m->limbo, relaxed); /* relaxed: the exchange below decides */
    uint64_t next;
    do {
        *link_at(m, index) = (uint32_t)head;
        next = ((head & ~LIMBO_NEWEST) | armed | (index + 1)) + LIMBO_ONE;
        /* release: pairs with whoever takes the list; the link and all done with the payload.
         * acquire: pairs with the release in limbo_drain(), for the one that arms. */
    } while (!atom_cas(&m->limbo, &head, next, acq_rel, relaxed));
    if (armed != 0) {
        if ((head & LIMBO_ARMED) == 0) {
            limbo_arm(m);
        }
    } else if ((next / LIMBO_ONE) % LIMBO_STEP == 0) {
        limbo_step(m);
    }
}

static void wake_waiters(struct slotmap *m)
{
    atom_add(&m->wake, 1, release); /* release: pairs with the acquire in the waits */
    word_wake_all(&m->wake);
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
        limbo_step(m);
        limbo_step(m);
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

/* Wins a reservation out of RESERVED into `state`; *flags as it was. */
static int reservation_claim(struct slotmap_slot *s, uint64_t h, uint64_t next, uint64_t *flags)
{
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the exchange below decides */
    do {
        if (word_generation(w) != (uint32_t)h || word_state(w) != SLOTMAP_RESERVED) {
            return slot_refuse(w, h, SLOTMAP_RESERVED);
        }
        /* acquire: the slot is the winner's; pairs with a waiter's flag. */
    } while (!atom_cas(&s->word, &w, next, acquire, relaxed));
    *flags = word_pins(w);
    return LOAM_OK;
}

static void slot_publish(struct slotmap *m, struct slotmap_slot *s, uint64_t h, void *payload)
{
    uint32_t index = handle_index(h);
    atom_store(&s->payload, payload, relaxed); /* relaxed: ordered by the word below */
    /* relaxed: foreach looks at the word afterwards. */
    atom_or(occupancy_at(m, index), (uint64_t)1 << index % 64, relaxed);
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
    slot_publish(m, s, h, payload);
    if ((flags & RESERVED_AUTO) != 0) {
        auto_ended(m);
    }
    if ((flags & RESERVED_WAITED) != 0) {
        wake_waiters(m);
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
    /* CLOSING: nobody has seen a payload, so there is no epoch to wait for. */
    rc = reservation_claim(s, h, word_of((uint32_t)h, SLOTMAP_CLOSING, 0), &flags);
    if (rc != LOAM_OK) {
        return rc;
    }
    slot_recycle(m, s, handle_index(h), (uint32_t)h);
    if ((flags & RESERVED_AUTO) != 0) {
        auto_ended(m);
    }
    if ((flags & RESERVED_WAITED) != 0) {
        wake_waiters(m);
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
    slot_publish(m, s, h, payload);
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
            return slot_refuse(w, h, SLOTMAP_LIVE);
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
            limbo_push(m, handle_index(h));
        } else {
            wake_waiters(m); /* the slot belongs to the waiter in erase_wait */
        }
    }
}

/* Wins a handle out of LIVE into `state`; *before is the word as it was. */
static int live_claim(struct slotmap *m, struct slotmap_slot *s, uint64_t h,
                      enum slotmap_slot_state state, uint64_t *before)
{
    uint64_t w = atom_load(&s->word, relaxed); /* relaxed: the exchange below decides */
    do {
        if (w >> 29 != ((uint64_t)(uint32_t)h << 3 | SLOTMAP_LIVE)) {
            return slot_refuse(w, h, SLOTMAP_LIVE);
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
        rc = live_claim(m, s, h, SLOTMAP_CLOSING, &before);
    }
    if (rc == LOAM_OK && word_pins(before) == 0) {
        limbo_push(m, handle_index(h));
    }
    return rc;
}

static uint64_t deadline_of(uint64_t timeout_us)
{
    uint64_t now = clock_micros();
    return timeout_us > UINT64_MAX - now ? UINT64_MAX : now + timeout_us;
}

/* Sleeps until `wake` moves from `seen`; false: the deadline has passed. */
static bool wait_until(struct slotmap *m, uint32_t seen, uint64_t deadline)
{
    uint64_t now = deadline == UINT64_MAX ? 0 : clock_micros();
    if (now >= deadline) {
        return false;
    }
    word_wait(&m->wake, seen, deadline == UINT64_MAX ? UINT64_MAX : deadline - now);
    return true;
}

/* Waits until a TAKING slot has no pins. False at the deadline; then it is CLOSING, not ours. */
static bool wait_unpinned(struct slotmap *m, struct slotmap_slot *s, uint64_t deadline)
{
    for (;;) {
        /* acquire: pairs with the release in wake_waiters(); the word is read after it. */
        uint32_t seen = atom_load(&m->wake, acquire);
        uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with the last unpin */
        if (word_pins(w) == 0) {
            return true;
        }
        if (!wait_until(m, seen, deadline)) {
            uint64_t closing = word_of(word_generation(w), SLOTMAP_CLOSING, word_pins(w));
            /* release: the last unpinner takes over. On failure a pin has just gone: look again. */
            if (atom_cas(&s->word, &w, closing, release, relaxed)) {
                return false;
            }
        }
    }
}

/* False at the deadline. */
static bool wait_epoch(uint64_t deadline)
{
    uint64_t stamp = epoch_stamp();
    for (unsigned tries = 0; !epoch_passed(stamp); tries++) {
        if (deadline != UINT64_MAX && clock_micros() >= deadline) {
            return false;
        }
        if (tries < 16) {
            thread_yield();
        } else {
            thread_sleep_micros(50);
        }
    }
    return true;
}

int slotmap_erase_wait(struct slotmap *m, uint64_t h, uint64_t timeout_us, void **payload)
{
    assert(!epoch_inside());
    uint64_t deadline = deadline_of(timeout_us);
    struct slotmap_slot *s;
    uint64_t before = 0;
    int rc = slot_find(m, h, &s);
    if (rc == LOAM_OK) {
        rc = live_claim(m, s, h, SLOTMAP_TAKING, &before);
    }
    if (rc != LOAM_OK) {
        return rc;
    }
    if (!wait_unpinned(m, s, deadline)) {
        return LOAM_STOPPED;
    }
    if (!wait_epoch(deadline)) {
        /* relaxed: the push releases. */
        atom_store(&s->word, word_of((uint32_t)h, SLOTMAP_CLOSING, 0), relaxed);
        limbo_push(m, handle_index(h));
        return LOAM_STOPPED;
    }
    if (payload != NULL) {
        *payload = atom_load(&s->payload, relaxed); /* relaxed: the slot is this thread's alone */
    }
    slot_finalise(m, handle_index(h), payload == NULL);
    return LOAM_OK;
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
        return slot_refuse(w, h, SLOTMAP_LIVE);
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

int slotmap_wait_ready(struct slotmap *m, uint64_t h, uint64_t timeout_us)
{
    assert(!epoch_inside());
    uint64_t deadline = deadline_of(timeout_us);
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    while (rc == LOAM_OK) {
        /* acquire: pairs with the release in wake_waiters(). */
        uint32_t seen = atom_load(&m->wake, acquire);
        uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with slot_publish() */
        enum slotmap_slot_state state = word_state(w);
        if (word_generation(w) != (uint32_t)h || state == SLOTMAP_FREE || state > SLOTMAP_LIVE) {
            return slot_refuse(w, h, SLOTMAP_LIVE);
        }
        if (state == SLOTMAP_LIVE) {
            return LOAM_OK;
        }
        if (state == SLOTMAP_FILLING) {
            thread_yield(); /* a commit is between two stores */
            continue;
        }
        /* relaxed: the flag carries no data. On failure the slot has moved on: look again. */
        if ((w & RESERVED_WAITED) == 0 &&
            !atom_cas(&s->word, &w, w | RESERVED_WAITED, relaxed, relaxed)) {
            continue;
        }
        if (!wait_until(m, seen, deadline)) {
            return LOAM_STOPPED;
        }
    }
    return rc;
}

static uint32_t carved_slots(const struct slotmap *m)
{
    return atom_load(&m->carved, acquire); /* acquire: pairs with the release in carve() */
}

size_t slotmap_foreach(struct slotmap *m, bool (*fn)(void *arg, uint64_t h, void *payload),
                       void *arg)
{
    size_t calls = 0;
    bool more = true;
    uint32_t carved = carved_slots(m);
    epoch_enter();
    for (uint32_t first = 0; more && first < carved; first += 64) {
        /* relaxed: a hint; the slots' words decide. */
        uint64_t bits = atom_load(occupancy_at(m, first), relaxed);
        for (; more && bits != 0; bits &= bits - 1) {
            uint32_t index = first + (uint32_t)__builtin_ctzll(bits);
            struct slotmap_slot *s = slot_at(m, index);
            uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with slot_publish() */
            if (word_state(w) == SLOTMAP_LIVE) {
                void *payload = atom_load(&s->payload, relaxed); /* relaxed: as in get */
                more = fn(arg, handle_of(m, index, word_generation(w)), payload);
                calls++;
            }
        }
    }
    epoch_exit();
    return calls;
}

struct retain_state {
    struct slotmap *map;
    bool (*keep)(void *arg, uint64_t h, void *payload);
    void *arg;
    size_t erased;
};

static bool retain_one(void *arg, uint64_t h, void *payload)
{
    struct retain_state *r = arg;
    if (r->keep == NULL || !r->keep(r->arg, h, payload)) {
        r->erased += slotmap_erase(r->map, h) == LOAM_OK; /* else another thread was first */
    }
    return true;
}

size_t slotmap_retain(struct slotmap *m, bool (*keep)(void *arg, uint64_t h, void *payload),
                      void *arg)
{
    struct retain_state r = {m, keep, arg, 0};
    slotmap_foreach(m, retain_one, &r);
    return r.erased;
}

size_t slotmap_clear(struct slotmap *m)
{
    return slotmap_retain(m, NULL, NULL);
}

size_t slotmap_len(const struct slotmap *m)
{
    uint64_t out = magazine_counted(&m->magazines, MAGAZINE_COUNT_OUT);
    uint64_t in = magazine_counted(&m->magazines, MAGAZINE_COUNT_IN);
    return in > out ? (size_t)(in - out) : 0;
}

size_t slotmap_capacity(const struct slotmap *m)
{
    size_t n = 0;
    for (unsigned page = 0; page < SLOTMAP_PAGES; page++) {
        n += page_at(m, page) != NULL ? page_slots(page) : 0;
    }
    return n;
}

size_t slotmap_retired(const struct slotmap *m)
{
    return atom_load(&m->retired, relaxed); /* relaxed: a statistic */
}

void slotmap_census(const struct slotmap *m, struct slotmap_census *out)
{
    memset(out, 0, sizeof *out);
    out->carved = carved_slots(m);
    for (uint32_t index = 0; index < out->carved; index++) {
        uint64_t w = atom_load(&slot_at(m, index)->word, relaxed); /* relaxed: a statistic */
        enum slotmap_slot_state state = word_state(w);
        bool bit = (atom_load(occupancy_at(m, index), relaxed) >> index % 64 & 1) != 0;
        out->free += state == SLOTMAP_FREE;
        out->reserved += state == SLOTMAP_RESERVED;
        out->live += state == SLOTMAP_LIVE || state == SLOTMAP_FILLING;
        out->closing += state == SLOTMAP_CLOSING || state == SLOTMAP_TAKING;
        out->retired += state == SLOTMAP_RETIRED;
        out->pinned += state >= SLOTMAP_LIVE && word_pins(w) != 0;
        out->occupancy_errors += bit != (state >= SLOTMAP_FILLING && state <= SLOTMAP_TAKING);
    }
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
    m->fork_count = thread_slot_fork_count();
    struct magazine_options o = {.alloc = a,
                                 .owner = MEM_HANDLE,
                                 .limit = MAGAZINE_ITEMS,
                                 .fifo = true,
                                 .refill = refill,
                                 .spill = spill,
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

bool slotmap_forked(const struct slotmap *m)
{
    return m->fork_count != thread_slot_fork_count();
}

int slotmap_ensure(struct slotmap *m, uint32_t n)
{
    if (n > SLOTMAP_SLOT_LIMIT) {
        return FAIL(LOAM_E_TOOBIG, "a slotmap holds at most %u handles", SLOTMAP_SLOT_LIMIT);
    }
    for (unsigned page = 0; page < SLOTMAP_PAGES && page_first_index(page) < n; page++) {
        if (!page_ensure(m, page)) {
            return FAIL(LOAM_E_NOMEM, "no memory for %u handles", n);
        }
    }
    return LOAM_OK;
}
