/* memtable_list.c - The active memtable and the sealed ones.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "memtable/memtable_list.h"

#include <assert.h>

#include "arena/status.h"

#include "arena/poison.h"

/* Each generation from oldest to end, and no other, has its slot filled; boundaries never fall. */
static __attribute__((unused)) bool list_holds(struct memtable_list *l)
{
    uint64_t boundary = 0;
    for (uint32_t g = l->oldest; g < l->end; g++) {
        const struct memtable_slot *s = memtable_list_slot(l, g);
        if (memtable_list_find(l, g) == NULL || s->generation != g ||
            (s->boundary != 0 && s->boundary < boundary)) {
            return false;
        }
        boundary = s->boundary != 0 ? s->boundary : boundary;
    }
    return memtable_list_count(l) <= MEMTABLE_SLOTS &&
           (memtable_list_count(l) == MEMTABLE_SLOTS || memtable_list_find(l, l->end) == NULL);
}

void memtable_list_init(struct memtable_list *l, struct slotmap *handles, uint32_t generation)
{
    *l = (struct memtable_list){.handles = handles, .oldest = generation, .end = generation};
}

void memtable_list_destroy(struct memtable_list *l)
{
    struct memtable_slot out[MEMTABLE_SLOTS];
    uint32_t n = memtable_list_take_below(l, l->end, out);
    for (uint32_t i = 0; i < n; i++) {
        memtable_list_release(l, &out[i]);
    }
}

int memtable_list_push(struct memtable_list *l, struct memtable *m, uint64_t first_log)
{
    if (memtable_list_count(l) == MEMTABLE_SLOTS) {
        return FAIL(LOAM_E_BUSY, "%u memtables are waiting to be flushed", MEMTABLE_SLOTS);
    }
    uint64_t handle = slotmap_insert(l->handles, m);
    if (handle == 0) {
        return FAIL(LOAM_E_NOMEM, "no memory for a memtable handle");
    }
    struct memtable_slot *s = memtable_list_slot(l, l->end);
    s->handle = handle;
    s->generation = l->end;
    s->boundary = 0;
    s->first_log = first_log;
    atom_store(&s->m, m, release); /* pairs with memtable_list_find() */
    l->end++;
    assert(list_holds(l));
    return LOAM_OK;
}

void memtable_list_seal(struct memtable_list *l, uint32_t generation, uint64_t boundary)
{
    struct memtable_slot *s = memtable_list_slot(l, generation);
    assert(atom_load(&s->m, relaxed) != NULL && s->generation == generation && s->boundary == 0);
    s->boundary = boundary;
    assert(list_holds(l));
}

uint32_t memtable_list_take_below(struct memtable_list *l, uint32_t generation,
                                  struct memtable_slot *out)
{
    uint32_t n = 0;
    while (l->oldest < generation) {
        assert(l->oldest < l->end);
        struct memtable_slot *s = memtable_list_slot(l, l->oldest++);
        out[n++] = (struct memtable_slot){.handle = s->handle,
                                          .generation = s->generation,
                                          .boundary = s->boundary,
                                          .first_log = s->first_log};
        atom_store(&s->m, NULL, release); /* pairs with memtable_list_find() */
    }
    l->leaving += n;
    assert(list_holds(l));
    return n;
}

void memtable_list_release(struct memtable_list *l, const struct memtable_slot *s)
{
    void *m = NULL;
    if (slotmap_erase_wait(l->handles, s->handle, UINT64_MAX, &m) == LOAM_OK) {
        memtable_destroy(m);
    }
}

uint64_t memtable_list_bytes(struct memtable_list *l)
{
    uint64_t bytes = 0;
    for (uint32_t g = l->oldest; g < l->end; g++) {
        bytes += memtable_bytes(memtable_list_find(l, g));
    }
    return bytes;
}
