/* dead_scout.c - Rounds over hints.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_scout.h"

#include "engine/db_iter.h"

#include "arena/poison.h"

#define STEP 8192u /* dead keys passed inside one section */
#define VAIN 3u    /* steps that may come to nothing: the view can change in the midst of one */

void dead_scout_init(struct dead_scout *s, struct alloc *a)
{
    mutex_init(&s->mu, RANK_STRUCT);
    for (uint32_t i = 0; i < DEAD_SCOUT_HINTS; i++) {
        buf_init(&s->hint[i].key, a, MEM_ITER);
    }
    s->hints = s->turn = 0;
    s->running = s->survey = false;
    s->again_at = s->surveyed = 0;
    s->tries = 0;
    atomic_init(&s->waiting, false);
    atomic_init(&s->again, false);
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

void dead_scout_leave_(struct dead_scout *s, uint32_t ks, loam_slice key)
{
    if (mutex_try_lock(&s->mu)) {
        keep(s, ks, key);
        mutex_unlock(&s->mu);
    }
}

/* ---- walks ----------------------------------------------------------------------------------- */

/* Walks one way from the key; false: `left` keys were not enough. */
static bool walk(struct db *db, struct db_iter *it, uint32_t ks, loam_slice key, bool forward,
                 uint32_t *left)
{
    bool more = true;
    for (uint32_t vain = 0; more && *left >= STEP && vain < VAIN;) {
        if (atom_load(&db->stopping, relaxed)) { /* relaxed: a wish */
            return true;
        }
        epoch_enter();
        struct keyspace *space = keyspace_find(&db->versions.keyspaces, ks);
        /* acquire: pairs with version_set_order_ks(). */
        more = space != NULL && atom_load(&space->ordered, acquire);
        if (more) {
            uint32_t passed = 0;
            more = db_iter_scout(db, it, space, key, forward, STEP, &passed);
            *left -= passed;
            vain +=
                more && dead_ranges_find(&db->dead, ks, buf_slice(&it->key), it->seq) == NULL;
        }
        epoch_exit();
    }
    return !more || *left >= STEP;
}

/* Likewise both ways. */
static bool walk_from(struct db *db, struct db_iter *it, uint32_t ks, loam_slice key,
                      uint32_t *left)
{
    return walk(db, it, ks, key, true, left) && walk(db, it, ks, key, false, left);
}

/* ---- the survey after an open ------------------------------------------------------------------ */

/* A table worth a look with the lowest number above `after`; NULL: none is left. */
static struct table *next_dense(const struct version *v, uint64_t after)
{
    struct table *best = NULL;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        for (int n = 0; n < LEVEL_COUNT; n++) {
            const struct level *l = &v->ks[i]->level[n];
            for (uint32_t k = 0; k < l->count; k++) {
                struct table *t = l->tables[k];
                if (t->meta.number > after && t->meta.deletes >= DEAD_SCOUT_TABLE &&
                    table_dense_deletes(t) &&
                    (best == NULL || t->meta.number < best->meta.number)) {
                    best = t;
                }
            }
        }
    }
    return best;
}

void dead_scout_survey(struct db *db)
{
    struct version *v = version_set_ref_current(&db->versions);
    if (next_dense(v, 0) != NULL) {
        atom_store(&db->scout.again, true, relaxed); /* relaxed: the release below publishes it */
        /* release: pairs with the acquire in dead_scout_run_locked(). */
        atom_store(&db->scout.waiting, true, release);
    }
    version_unref(v);
}

/* A key at part/parts of the table. */
static bool place_in(struct db *db, struct table *t, uint64_t part, uint64_t parts, struct buf *key)
{
    struct sst_reader *r;
    key->size = 0;
    if (part == 0) {
        buf_append(key, t->meta.smallest.data, t->meta.smallest.size);
    } else if (part == parts) {
        buf_append(key, t->meta.largest.data, t->meta.largest.size);
    } else if (table_cache_pin(&db->tables, t, &r) == LOAM_OK) {
        sst_split_key(r, part, parts, key);
        table_cache_unpin(&db->tables, t);
    } else {
        return false; /* it is for readers to report */
    }
    return buf_status(key) == LOAM_OK;
}

/* False: `left` keys were not enough. */
static bool look_over(struct db *db, struct db_iter *it, struct table *t, uint32_t *left)
{
    uint64_t parts = 1 + t->meta.deletes / DEAD_SCOUT_EVERY;
    struct buf key;
    bool done = true;
    buf_init(&key, &db->alloc, MEM_ITER);
    parts = parts < DEAD_SCOUT_PLACES ? parts : DEAD_SCOUT_PLACES;
    for (uint64_t i = 0; i <= parts && done && place_in(db, t, i, parts, &key); i++) {
        done = walk_from(db, it, t->meta.ks, buf_slice(&key), left);
    }
    buf_free(&key);
    return done;
}

static void survey(struct db *db, struct db_iter *it, uint32_t *left)
{
    struct dead_scout *s = &db->scout;
    struct version *v = version_set_ref_current(&db->versions);
    if (atom_swap(&s->again, false, relaxed)) { /* relaxed: a wish, as below */
        s->survey = true;
        s->surveyed = 0;
        s->tries = 0;
    }
    /* relaxed: a wish. */
    while (s->survey && *left >= STEP && !atom_load(&db->stopping, relaxed)) {
        struct table *t = next_dense(v, s->surveyed);
        s->survey = t != NULL;
        if (t == NULL) {
            break;
        }
        uint64_t enough = 2 + 2 * (t->meta.deletes / DEAD_SCOUT_KEYS);
        if (look_over(db, it, t, left) || ++s->tries > enough) {
            s->surveyed = t->meta.number;
            s->tries = 0;
        }
    }
    version_unref(v);
    if (s->survey) {
        atom_store(&s->waiting, true, relaxed); /* relaxed: looked at now and then */
    }
}

/* ---- rounds, the whole ------------------------------------------------------------------------- */

/* A hint whose walk did not end is kept for the next round. */
static void run(struct db *db, const struct dead_hint *hint, uint32_t count)
{
    struct db_iter *it = iter_pool_make(db);
    uint32_t left = DEAD_SCOUT_KEYS;
    for (uint32_t i = 0; it != NULL && i < count; i++) {
        loam_slice key = buf_slice(&hint[i].key);
        if (!walk_from(db, it, hint[i].ks, key, &left)) {
            dead_scout_leave_(&db->scout, hint[i].ks, key);
        }
    }
    if (it != NULL) {
        survey(db, it, &left);
    } else {
        db->scout.survey = false; /* without memory nothing is kept anyway */
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
