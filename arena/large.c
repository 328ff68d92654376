/* large.c - Counts and turns of large values.
 * SPDX-License-Identifier: Apache-2.0
 *
 * `held` is a count that nothing else hangs on, so all its orders are relaxed. It changes by CAS from a value
 * that was looked at: nobody is refused because of another who is about to be.
 */
#include "arena/large.h"

#include <assert.h>

#include "arena/status.h"

#include "arena/poison.h"

void large_pool_init(struct large_pool *p, uint64_t held_most, uint64_t passing_most)
{
    p->held_most = held_most;
    p->passing_most = passing_most;
    atomic_init(&p->held, 0);
    atomic_init(&p->giant, 0);
    p->passing = p->turns = p->served = 0;
    mutex_init(&p->mu, RANK_LEAF);
    cond_init(&p->less);
}

void large_pool_destroy(struct large_pool *p)
{
    assert(p->passing == 0);
    cond_destroy(&p->less);
    mutex_destroy(&p->mu);
}

static bool is_giant(const struct large_pool *p, uint64_t bytes)
{
    return bytes > p->held_most / 2;
}

bool large_hold(struct large_pool *p, uint64_t bytes)
{
    uint32_t none = 0;
    if (is_giant(p, bytes)) {
        return atom_cas(&p->giant, &none, 1, relaxed, relaxed); /* relaxed: see above */
    }
    uint64_t others = large_held(p);
    do {
        if (others + bytes > p->held_most) {
            return false;
        }
    } while (!atom_cas(&p->held, &others, others + bytes, relaxed, relaxed)); /* relaxed: see above */
    return true;
}

void large_let_go(struct large_pool *p, uint64_t bytes)
{
    if (is_giant(p, bytes)) {
        atom_store(&p->giant, 0, relaxed); /* relaxed: see above */
    } else {
        atom_sub(&p->held, bytes, relaxed); /* relaxed: as above */
    }
}

int large_refused(uint64_t bytes)
{
    int rc = FAIL(LOAM_E_BUDGET, "%llu bytes more than iterators and pins hold already are too many",
                  (unsigned long long)bytes);
    return status_add_flags(rc, LOAM_ERR_RETRY);
}

void large_pass_begin(struct large_pool *p, uint64_t bytes)
{
    if (p == NULL) {
        return;
    }
    mutex_lock(&p->mu);
    uint64_t turn = p->turns++;
    while (p->served != turn || (p->passing != 0 && p->passing + bytes > p->passing_most)) {
        cond_wait(&p->less, &p->mu);
    }
    p->served++;
    p->passing += bytes;
    cond_broadcast(&p->less); /* the next one may fit, too */
    mutex_unlock(&p->mu);
}

void large_pass_end(struct large_pool *p, uint64_t bytes)
{
    if (p == NULL) {
        return;
    }
    mutex_lock(&p->mu);
    p->passing -= bytes;
    cond_broadcast(&p->less);
    mutex_unlock(&p->mu);
}

/* Gives the count or the turn back, not the memory. */
static void leave(struct large_pool *p, enum large_way way, size_t size)
{
    if (way == LARGE_PASSING) {
        large_pass_end(p, size);
    } else if (way == LARGE_HELD && p != NULL) {
        large_let_go(p, size);
    }
}

int large_take(struct large_pool *p, struct alloc *a, struct large *l, enum large_way way,
               enum mem_owner owner, size_t size)
{
    assert(l->data == NULL);
    if (way == LARGE_PASSING) {
        large_pass_begin(p, size);
    } else if (way == LARGE_HELD && p != NULL && !large_hold(p, size)) {
        return LOAM_E_BUDGET;
    }
    uint8_t *data = alloc_get(a, owner, size);
    if (data == NULL) {
        leave(p, way, size);
        return FAIL(LOAM_E_NOMEM, "no memory for a value of %zu bytes", size);
    }
    *l = (struct large){data, size, p, a, way, owner};
    return LOAM_OK;
}

void large_give(struct large *l)
{
    if (l->data != NULL) {
        alloc_put(l->alloc, l->owner, l->data, l->size);
        leave(l->pool, l->way, l->size);
        *l = (struct large){0};
    }
}
