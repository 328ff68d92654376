/* dead_known.c - Hands proven ranges to the edit of a clean close, and takes them from it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_known.h"

#include "engine/db.h"

#include "arena/poison.h"

/* Restores the range if its keyspace has an order or is gone. False: it has to wait. */
static bool restore(struct db *db, const struct dead_note *n)
{
    epoch_enter();
    struct keyspace *space = keyspace_find(&db->versions.keyspaces, n->ks);
    /* acquire: pairs with version_set_order_ks(). */
    bool waits = space != NULL && !atom_load(&space->ordered, acquire);
    if (space != NULL && !waits) {
        const struct dead_stretch s = {.ks = n->ks,
                                       .cmp = atom_load(&space->cmp, relaxed), /* as above */
                                       .from = n->from,
                                       .lo = {n->lo, n->lo_behind},
                                       .hi = {n->hi, n->hi_behind}};
        dead_ranges_restore(&db->dead, &s);
    }
    epoch_exit();
    return !waits;
}

/* Those of the keyspace, or all. */
static void restore_all(struct db *db, const uint32_t *ks)
{
    struct version_set *vs = &db->versions;
    mutex_lock(&vs->mu);
    for (uint32_t i = vs->known.dead_count; i-- > 0;) {
        const struct dead_note *n = &vs->known.dead[i];
        if ((ks == NULL || n->ks == *ks) && restore(db, n)) {
            version_edit_drop_dead(&vs->known, i);
        }
    }
    mutex_unlock(&vs->mu);
}

void dead_known_open(struct db *db, bool as_closed)
{
    if (as_closed) {
        restore_all(db, NULL);
    } else {
        mutex_lock(&db->versions.mu);
        version_edit_free(&db->versions.known);
        mutex_unlock(&db->versions.mu);
    }
}

void dead_known_order(struct db *db, uint32_t ks)
{
    restore_all(db, &ks);
}

static bool leave(void *arg, const struct dead_stretch *s)
{
    const struct dead_note n = {.ks = s->ks,
                                .lo_behind = s->lo.behind,
                                .hi_behind = s->hi.behind,
                                .from = s->from,
                                .lo = s->lo.key,
                                .hi = s->hi.key};
    return version_edit_add_dead(arg, &n) == LOAM_OK;
}

void dead_known_close(struct db *db)
{
    struct version_set *vs = &db->versions;
    mutex_lock(&vs->mu);
    dead_ranges_each(&db->dead, leave, &vs->known);
    mutex_unlock(&vs->mu);
}
