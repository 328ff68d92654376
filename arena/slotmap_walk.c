/* slotmap_walk.c - Over all slots of a map: the live ones in order, counts, the census.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Occupancy bits lead to the live slots, so a walk costs O(live + slots / 64). They are hints: the
 * slot's word decides, and a walk beside changes sees each slot at its own moment.
 */
#include <string.h>

#include "arena/slotmap_slot.h"

#include "arena/poison.h"

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
        bool occupied = (state >= SLOTMAP_FILLING && state <= SLOTMAP_TAKING) ||
                        (state == SLOTMAP_RESERVED && (w & RESERVED_RENEWED) != 0);
        out->occupancy_errors += bit != occupied;
    }
}
