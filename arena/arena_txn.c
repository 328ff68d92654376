/* arena_txn.c - Nested transactions over an arena's savepoints, with budgets and functions to run.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/arena_txn.h"

#include <assert.h>

#include "arena/status.h"

#include "arena/poison.h"

void arena_txn_begin(struct arena_txn *t, struct arena *a, struct arena_txn *parent,
                     uint64_t budget)
{
    assert(parent == NULL || parent->arena == a);
    *t = (struct arena_txn){
        .arena = a, .parent = parent, .mark = arena_checkpoint(a), .budget = budget};
}

static bool fits(const struct arena_txn *t, size_t size)
{
    for (; t != NULL; t = t->parent) {
        if (t->used > t->budget || size > t->budget - t->used) {
            return false;
        }
    }
    return true;
}

void *arena_txn_alloc(struct arena_txn *t, size_t size, size_t align)
{
    if (!fits(t, size)) {
        FAIL(LOAM_E_BUDGET, "%zu bytes more than the budget of a transaction", size);
        return NULL;
    }
    void *p = arena_alloc(t->arena, size, align);
    for (struct arena_txn *u = t; p != NULL && u != NULL; u = u->parent) {
        u->used += size;
    }
    return p;
}

int arena_txn_at_drop(struct arena_txn *t, void (*fn)(void *ptr), void *ptr)
{
    struct arena_drop *d = arena_txn_alloc(t, sizeof *d, _Alignof(struct arena_drop));
    if (d == NULL) {
        return loam_last_error()->code;
    }
    *d = (struct arena_drop){t->drops, fn, ptr};
    t->drops = d;
    return LOAM_OK;
}

void arena_txn_commit(struct arena_txn *t)
{
    assert(t->arena != NULL);
    if (t->drops != NULL && t->parent == NULL) {
        arena_adopt_drops_(t->arena, t->drops);
    } else if (t->drops != NULL) {
        struct arena_drop *oldest = t->drops;
        while (oldest->next != NULL) {
            oldest = oldest->next;
        }
        oldest->next = t->parent->drops;
        t->parent->drops = t->drops;
    }
    t->arena = NULL;
}

void arena_txn_rollback(struct arena_txn *t)
{
    if (t->arena == NULL) {
        return;
    }
    for (struct arena_drop *d = t->drops; d != NULL; d = d->next) {
        d->fn(d->ptr);
    }
    for (struct arena_txn *u = t->parent; u != NULL; u = u->parent) {
        u->used -= t->used;
    }
    arena_rewind(t->arena, t->mark);
    t->arena = NULL;
}
