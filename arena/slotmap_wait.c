/* slotmap_wait.c - The calls of a slotmap that wait: for the last unpin, for a commit.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sleepers look at the slot's word and at the map's `wake` count, and sleep while the count stays
 * what it was before the look. Whoever changes a slot that has sleepers raises the count after it:
 * the last unpin of a TAKING slot always, commit and abort when RESERVED_WAITED is set.
 */
#include <assert.h>

#include "arena/slotmap_slot.h"
#include "arena/status.h"

#include "arena/poison.h"

void slotmap_wake_(struct slotmap *m)
{
    atom_add(&m->wake, 1, release); /* release: pairs with the acquire in the waits */
    word_wake_all(&m->wake);
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
        /* acquire: pairs with the release in slotmap_wake_(); the word is read after it. */
        uint32_t seen = atom_load(&m->wake, acquire);
        uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with the last unpin */
        if (word_pins(w) == 0) {
            return true;
        }
        if (!wait_until(m, seen, deadline)) {
            assert(slot_may_step(word_state(w), SLOTMAP_CLOSING));
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
        rc = slotmap_claim_(m, s, h, SLOTMAP_TAKING, &before);
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
        slotmap_limbo_push_(m, handle_index(h));
        return LOAM_STOPPED;
    }
    if (payload != NULL) {
        *payload = atom_load(&s->payload, relaxed); /* relaxed: the slot is this thread's alone */
    }
    slotmap_finalise_(m, handle_index(h), payload == NULL);
    return LOAM_OK;
}

int slotmap_wait_ready(struct slotmap *m, uint64_t h, uint64_t timeout_us)
{
    assert(!epoch_inside());
    uint64_t deadline = deadline_of(timeout_us);
    struct slotmap_slot *s;
    int rc = slot_find(m, h, &s);
    while (rc == LOAM_OK) {
        /* acquire: pairs with the release in slotmap_wake_(). */
        uint32_t seen = atom_load(&m->wake, acquire);
        uint64_t w = atom_load(&s->word, acquire); /* acquire: pairs with slot_publish() */
        enum slotmap_slot_state state = word_state(w);
        if (word_generation(w) != (uint32_t)h || state == SLOTMAP_FREE || state > SLOTMAP_LIVE) {
            return slotmap_refuse_(w, h, SLOTMAP_LIVE);
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
