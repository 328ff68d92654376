/* dead_scout.c - Rounds over hints.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_scout.h"

#include "engine/db_iter.h"

#include "arena/poison.h"

#define STEP  8192u /* dead keys passed inside one section */
#define PLACE 32u   /* keys that a seek costs as much as */
#define VAIN  3u    /* steps that may come to nothing: the view can change in the midst of one */

void dead_scout_init(struct dead_scout *s, struct alloc *a)
{
    mutex_init(&s->mu, RANK_STRUCT);
    for (uint32_t i = 0; i < DEAD_SCOUT_HINTS; i++) {
        buf_init(&s->hint[i].key, a, MEM_ITER);
    }
    s->hints = s->turn = 0;
    s->running = false;
    s->again_at = 0;
    dead_survey_init(&s->survey);
    atomic_init(&s->waiting, false);
}

void dead_scout_destroy(struct dead_scout *s)
{
    for (uint32_t i = 0; i < DEAD_SCOUT_HINTS; i++) {
        buf_free(&s->hint[i].key);
    }
    mutex_destroy(&s->mu);
}

/* Takes a place. REQUIRES: mu held. */
static void keep(struct dead_scout *s, uint32_t ks, loam_slice key)
{
    uint32_t i = s->hints < DEAD_SCOUT_HINTS ? s->hints
                                             : 1 + s->turn++ % (DEAD_SCOUT_HINTS - 1);
    struct buf *to = &s->hint[i].key;
    buf_set(to, key.data, key.size);
    if (to->oom) {
        buf_clear(to); /* lost; one that was there before leads to the keyspace's first key */
        return;
    }
    s->hint[i].ks = ks;
    s->hints += i == s->hints;
    atom_store(&s->waiting, true, relaxed); /* relaxed: looked at now and then */
}

void dead_scout_survey(struct dead_scout *s)
{
    atom_store(&s->survey.again, true, relaxed); /* relaxed: the release below publishes it */
    /* release: pairs with the acquire in dead_scout_run_locked(). */
    atom_store(&s->waiting, true, release);
}

void dead_scout_leave_(struct dead_scout *s, uint32_t ks, loam_slice key)
{
    if (mutex_try_lock(&s->mu)) {
        keep(s, ks, key);
        mutex_unlock(&s->mu);
    }
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* Walks one way from the key. */
static bool walk(struct db *db, struct db_iter *it, uint32_t ks, loam_slice key, bool forward,
                 uint64_t *left)
{
    bool more = true;
    uint32_t vain = 0;
    while (more && *left >= STEP && vain < VAIN) {
        if (atom_load(&db->stopping, relaxed)) { /* relaxed: a wish */
            return true;
        }
        epoch_enter();
        struct keyspace *space = keyspace_find(&db->versions.keyspaces, ks);
        /* acquire: pairs with version_set_order_ks(). */
        more = space != NULL && atom_load(&space->ordered, acquire);
        if (more) {
            struct db_scouted found;
            more = db_iter_scout(db, it, space, key, forward, STEP, &found);
            uint64_t work = PLACE + found.passed + found.read / DEAD_SCOUT_READ;
            *left -= work < *left ? work : *left;
            bool known =
                found.learned &&
                dead_ranges_find(&db->dead, ks, buf_slice(&it->key), it->seq) != NULL;
            vain += more && !known;
            it->gained += known;
        }
        epoch_exit();
    }
    return !more || *left >= STEP;
}

bool dead_scout_walk(struct db *db, struct db_iter *it, uint32_t ks, loam_slice key, uint64_t *left)
{
    return walk(db, it, ks, key, true, left) && walk(db, it, ks, key, false, left);
}

/* ---- rounds ------------------------------------------------------------------------------------ */

/* A hint whose walk did not end is kept for the next round, which begins at the same key: when this one had all
 * it needs and nothing is known better for it, the next would be like it. */
static void run(struct db *db, const struct dead_hint *hint, uint32_t count)
{
    struct db_iter *it = iter_pool_make(db);
    uint64_t left = DEAD_SCOUT_KEYS;
    for (uint32_t i = 0; it != NULL && i < count; i++) {
        loam_slice key = buf_slice(&hint[i].key);
        uint32_t before = it->gained;
        bool begins = left >= STEP, ends = dead_scout_walk(db, it, hint[i].ks, key, &left);
        if (!ends && (!begins || it->gained != before)) {
            dead_scout_leave_(&db->scout, hint[i].ks, key);
        }
    }
    if (it != NULL && dead_survey_step(db, it, &left)) { /* without memory nothing is kept anyway */
        atom_store(&db->scout.waiting, true, relaxed);   /* relaxed: looked at now and then */
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
    for (uint32_t i = 0; i < count; i++) {
        hint[i] = s->hint[i];
        buf_init(&s->hint[i].key, &db->alloc, MEM_ITER);
    }
    s->hints = 0;
    /* acquire: pairs with the release in dead_scout_survey(): the round sees what it is to do. */
    (void)atom_swap(&s->waiting, false, acquire);
    mutex_unlock(&s->mu);
    run(db, hint, count);
    for (uint32_t i = 0; i < count; i++) {
        buf_free(&hint[i].key);
    }
    mutex_lock(&db->mu);
    s->running = false;
    s->again_at = clock_micros() + DEAD_SCOUT_US;
    cond_broadcast(&db->idle_cv);
}
