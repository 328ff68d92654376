/* dead_scout.c - Rounds over hints.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_scout.h"

#include "engine/db_iter.h"

#include "arena/poison.h"

#define STEP 8192u /* dead keys passed inside one section */
#define VAIN 3u    /* steps that may come to nothing: the view can change in the midst of one */

void dead_scout_init(struct dead_scout *s)
{
    mutex_init(&s->mu, RANK_LEAF);
    s->hints = s->turn = 0;
    s->running = false;
    s->again_at = 0;
    atomic_init(&s->waiting, false);
}

void dead_scout_destroy(struct dead_scout *s)
{
    mutex_destroy(&s->mu);
}

/* Takes a place. REQUIRES: mu held. */
static void keep(struct dead_scout *s, uint32_t ks, loam_slice key)
{
    uint32_t i = s->hints;
    if (i == DEAD_SCOUT_HINTS) {
        i = 1 + s->turn++ % (DEAD_SCOUT_HINTS - 1);
    } else {
        s->hints++;
    }
    s->hint[i].ks = ks;
    s->hint[i].size = (uint32_t)key.size;
    if (key.size != 0) {
        memcpy(s->hint[i].key, key.data, key.size);
    }
    atom_store(&s->waiting, true, relaxed); /* relaxed: looked at now and then */
}

void dead_scout_leave_(struct dead_scout *s, uint32_t ks, loam_slice key)
{
    if (key.size <= DEAD_SCOUT_KEY_MAX && mutex_try_lock(&s->mu)) {
        keep(s, ks, key);
        mutex_unlock(&s->mu);
    }
}

/* ---- rounds ---------------------------------------------------------------------------------- */

/* Walks one way from the hint; false: `left` keys were not enough. */
static bool walk(struct db *db, struct db_iter *it, const struct dead_hint *h, bool forward,
                 uint32_t *left)
{
    bool more = true;
    for (uint32_t vain = 0; more && *left >= STEP && vain < VAIN;) {
        if (atom_load(&db->stopping, relaxed)) { /* relaxed: a wish */
            return true;
        }
        epoch_enter();
        struct keyspace *space = keyspace_find(&db->versions.keyspaces, h->ks);
        /* acquire: pairs with version_set_order_ks(). */
        more = space != NULL && atom_load(&space->ordered, acquire);
        if (more) {
            uint32_t passed = 0;
            loam_slice key = loam_bytes(h->key, h->size);
            more = db_iter_scout(db, it, space, key, forward, STEP, &passed);
            *left -= passed;
            vain +=
                more && dead_ranges_find(&db->dead, h->ks, buf_slice(&it->key), it->seq) == NULL;
        }
        epoch_exit();
    }
    return !more || *left >= STEP;
}

/* A hint whose walk did not end is kept for the next round. */
static void run(struct db *db, struct dead_hint *hint, uint32_t count)
{
    struct db_iter *it = iter_pool_make(db);
    uint32_t left = DEAD_SCOUT_KEYS;
    for (uint32_t i = 0; it != NULL && i < count; i++) {
        if (!walk(db, it, &hint[i], true, &left) || !walk(db, it, &hint[i], false, &left)) {
            dead_scout_leave_(&db->scout, hint[i].ks, loam_bytes(hint[i].key, hint[i].size));
        }
    }
    iter_pool_unmake(it);
}

bool dead_scout_due_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    /* relaxed: seen the next time */
    return atom_load(&db->scout.waiting, relaxed) && !db->scout.running &&
           !atom_load(&db->stopping, relaxed) && clock_micros() >= db->scout.again_at;
}

bool dead_scout_busy_locked(struct db *db)
{
    mutex_assert_held(&db->mu);
    return atom_load(&db->scout.waiting, relaxed) || db->scout.running; /* relaxed: as above */
}

void dead_scout_run_locked(struct db *db)
{
    struct dead_scout *s = &db->scout;
    struct dead_hint hint[DEAD_SCOUT_HINTS];
    s->running = true;
    mutex_unlock(&db->mu);
    mutex_lock(&s->mu);
    uint32_t count = s->hints;
    memcpy(hint, s->hint, count * sizeof *hint);
    s->hints = 0;
    atom_store(&s->waiting, false, relaxed); /* relaxed: set again under mu */
    mutex_unlock(&s->mu);
    run(db, hint, count);
    mutex_lock(&db->mu);
    s->running = false;
    s->again_at = clock_micros() + DEAD_SCOUT_US;
    cond_broadcast(&db->idle_cv);
}
