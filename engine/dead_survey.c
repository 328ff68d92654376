/* dead_survey.c - Goes through memtables and tables for places to walk from.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_survey.h"

#include "arena/status.h"
#include "engine/db_iter.h"
#include "sstable/sst_paged.h"

#include "arena/poison.h"

#define TABLE_WORK 1024u      /* units that opening a table costs */
#define LEAST_WORK (1u << 15) /* left, below which a look at one more table is not begun */
#define ANY_KS     UINT32_MAX

void dead_survey_init(struct dead_survey *s)
{
    *s = (struct dead_survey){.on = false};
    atomic_init(&s->again, false);
}

/* ---- places -------------------------------------------------------------------------------------- */

/* A look at one keyspace or all, by one thread. */
struct look {
    struct db *db;
    struct db_iter *it;
    uint32_t ks; /* or ANY_KS */
    bool all;    /* as in struct dead_survey */
    uint64_t left;
};

static bool has_order(struct db *db, uint32_t ks)
{
    epoch_enter();
    const struct keyspace *space = keyspace_find(&db->versions.keyspaces, ks);
    /* acquire: pairs with version_set_order_ks(). */
    bool has = space != NULL && atom_load(&space->ordered, acquire);
    epoch_exit();
    return has;
}

/* ---- tables -------------------------------------------------------------------------------------- */

static bool worth_a_look(const struct look *l, const struct table *t)
{
    return t->meta.deletes >= DEAD_SURVEY_TABLE && (l->all || table_dense_deletes(t));
}

/* The tables are looked at in this order. */
static bool comes_before(const struct table *t, uint64_t deletes, uint64_t number)
{
    return t->meta.deletes > deletes || (t->meta.deletes == deletes && t->meta.number < number);
}

/* The next table behind one with so many deletes and this number; NULL: none is left. */
static struct table *next_table(const struct look *l, const struct version *v, uint64_t deletes,
                                uint64_t number)
{
    struct table *best = NULL;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        const struct ks_version *k = v->ks[i];
        if ((l->ks != ANY_KS && k->ks != l->ks) || !has_order(l->db, k->ks)) {
            continue;
        }
        for (int n = 0; n < LEVEL_COUNT; n++) {
            for (uint32_t j = 0; j < k->level[n].count; j++) {
                struct table *t = k->level[n].tables[j];
                if (worth_a_look(l, t) && t->meta.number != number &&
                    !comes_before(t, deletes, number) &&
                    (best == NULL || comes_before(t, best->meta.deletes, best->meta.number))) {
                    best = t;
                }
            }
        }
    }
    return best;
}

/* From what the index marks as deletes and nothing else. */
static bool walk_marked(struct look *l, const struct table *t, const struct sst_reader *r,
                        struct buf *key)
{
    struct sst_part part;
    bool enough = true;
    uint32_t at = 0;
    sst_part_init(&part, &l->db->alloc, MEM_ITER);
    key->size = 0;
    while (enough && sst_next_dead(r, &part, SST_PART_CACHE, &at, key) == LOAM_OK && !key->oom) {
        enough = dead_scout_walk(l->db, l->it, t->meta.ks, buf_slice(key), &l->left);
        key->size = 0;
    }
    sst_part_free(&part);
    return enough;
}

/* From places spread over the table: deletes can be many, and the puts that they hide in between. */
static bool walk_spread(struct look *l, const struct table *t, const struct sst_reader *r,
                        struct buf *key)
{
    uint64_t parts = 1 + t->meta.deletes / DEAD_SCOUT_EVERY;
    bool enough = true;
    parts = parts < DEAD_SURVEY_PLACES ? parts : DEAD_SURVEY_PLACES;
    for (uint64_t i = 0; i <= parts && enough; i++) {
        key->size = 0;
        if (i == 0) {
            buf_append(key, t->meta.smallest.data, t->meta.smallest.size);
        } else if (i == parts) {
            buf_append(key, t->meta.largest.data, t->meta.largest.size);
        } else {
            sst_split_key(r, i, parts, key);
        }
        enough = key->oom || dead_scout_walk(l->db, l->it, t->meta.ks, buf_slice(key), &l->left);
    }
    return enough;
}

/* False: there was not enough left. */
static bool look_over(struct look *l, struct table *t)
{
    struct sst_reader *r;
    struct buf key;
    l->left -= l->left > TABLE_WORK ? TABLE_WORK : l->left;
    if (table_cache_pin(&l->db->tables, t, &r) < 0) {
        return true; /* it is for readers to report */
    }
    buf_init(&key, &l->db->alloc, MEM_ITER);
    bool enough = walk_marked(l, t, r, &key);
    if (enough && t->meta.deletes >= t->meta.entries / 4) {
        enough = walk_spread(l, t, r, &key);
    }
    buf_free(&key);
    table_cache_unpin(&l->db->tables, t);
    return enough;
}

/* False: there was not enough left. */
static bool look_at_tables(struct look *l)
{
    struct version *v = version_set_ref_current(&l->db->versions);
    uint64_t deletes = UINT64_MAX, number = 0;
    struct table *t;
    bool enough = true;
    while (enough && (t = next_table(l, v, deletes, number)) != NULL) {
        deletes = t->meta.deletes;
        number = t->meta.number;
        enough = l->left >= LEAST_WORK && look_over(l, t);
    }
    version_unref(v);
    return enough;
}

/* ---- memtables ----------------------------------------------------------------------------------- */

/* Whether the key is in a range of the newest state; then *end is where it ends. */
static bool known(struct db *db, uint32_t ks, loam_slice key, struct buf *end, bool *behind)
{
    epoch_enter();
    const struct dead_range *r = dead_ranges_find(&db->dead, ks, key, UINT64_MAX);
    if (r != NULL) {
        buf_set(end, r->s.hi.key.data, r->s.hi.key.size);
        *behind = r->s.hi.behind;
    }
    epoch_exit();
    return r != NULL;
}

/* Walks from every run of deletes that is worth it; end: a buffer. False: there was not enough left. */
static bool look_at_memtable(struct look *l, struct memtable *m, uint32_t ks, struct buf *end)
{
    struct memtable_cursor c;
    struct entry e;
    uint32_t run = 0;
    memtable_cursor_init(&c, m, ks);
    for (bool on = memtable_cursor_first(&c); on;) {
        memtable_cursor_entry(&c, &e);
        run = tag_kind(e.tag) == ENTRY_DELETE ? run + 1 : 0;
        if (run < dead_ranges_worth(&l->db->dead)) {
            on = memtable_cursor_next_key(&c);
            continue;
        }
        run = 0;
        if (!dead_scout_walk(l->db, l->it, ks, e.key, &l->left)) {
            dead_scout_leave_(&l->db->scout, ks, e.key);
            return false;
        }
        bool behind;
        if (known(l->db, ks, e.key, end, &behind) && !end->oom) {
            on = memtable_cursor_seek(&c, buf_slice(end), behind ? 0 : UINT64_MAX);
        } else {
            on = memtable_cursor_next_key(&c);
        }
    }
    return true;
}

/* Those that replay has filled. */
static bool look_at_memory(struct look *l)
{
    const struct view *v = db_view(l->db); /* it stays: there are no workers yet */
    struct buf end;
    bool enough = true;
    buf_init(&end, &l->db->alloc, MEM_ITER);
    for (uint32_t i = 0; i < v->mem_count; i++) {
        uint32_t ks = 0;
        for (; memtable_next_ks(v->mems[i], ks, &ks) == LOAM_OK; ks++) {
            if (has_order(l->db, ks)) {
                enough = look_at_memtable(l, v->mems[i], ks, &end) && enough;
            }
        }
    }
    buf_free(&end);
    return enough;
}

/* ---- by whom ------------------------------------------------------------------------------------- */

/* Rounds that a table is worth: what its deletes and all that they may hide fill, twice. */
static uint64_t rounds_of(struct db *db, const struct version *v, const struct table *t)
{
    const struct ks_version *k = version_ks(v, t->meta.ks);
    const struct version_order *order = &db->tables.options.order;
    const loam_comparator *cmp = NULL;
    uint64_t bytes = 0;
    (void)order->find(order->ctx, t->meta.ks, &cmp); /* it has one, or it would not have come up */
    for (int n = 0; n < LEVEL_COUNT; n++) {
        for (uint32_t j = 0; j < k->level[n].count; j++) {
            const struct table *x = k->level[n].tables[j];
            bytes += table_overlaps(x, cmp, t->meta.smallest, t->meta.largest) ? x->meta.size : 0;
        }
    }
    return 2 + 2 * ((t->meta.deletes + bytes / DEAD_SCOUT_READ) / DEAD_SCOUT_KEYS);
}

/* Looks now, and leaves to the worker what is too much. memory: at the memtables, too. */
static void look_now(struct look *l, bool memory)
{
    loam_error before = *loam_last_error();
    l->it = iter_pool_make(l->db);
    if (l->it == NULL) {
        return;
    }
    bool enough = !memory || look_at_memory(l);
    enough = look_at_tables(l) && enough;
    iter_pool_unmake(l->it);
    status_raise(&before); /* what the walks met is for readers to report */
    if (!enough && !l->db->readonly) {
        dead_scout_survey(&l->db->scout);
    }
}

void dead_survey_open(struct db *db, bool was_known, uint64_t deletes)
{
    struct dead_survey *s = &db->scout.survey;
    s->all = !was_known;
    if (s->all) {
        struct look l = {.db = db, .ks = ANY_KS, .all = true, .left = DEAD_SURVEY_WORK + deletes};
        look_now(&l, deletes >= dead_ranges_worth(&db->dead));
    } else if (!db->readonly) {
        dead_scout_survey(&db->scout);
    }
}

void dead_survey_order(struct db *db, struct keyspace *space)
{
    if (db->scout.survey.all) {
        struct look l = {.db = db, .ks = space->id, .all = true, .left = DEAD_SURVEY_WORK};
        look_now(&l, false);
    } else if (!db->readonly) {
        dead_scout_survey(&db->scout);
    }
}

bool dead_survey_step(struct db *db, struct db_iter *it, uint64_t *left)
{
    struct dead_survey *s = &db->scout.survey;
    struct look l = {.db = db, .it = it, .ks = ANY_KS, .all = s->all, .left = *left};
    struct version *v = version_set_ref_current(&db->versions);
    if (atom_swap(&s->again, false, relaxed)) { /* relaxed: a wish, as below */
        s->on = true;
        s->deletes = UINT64_MAX;
        s->number = 0;
        s->tries = 0;
    }
    /* relaxed: a wish. */
    while (s->on && l.left >= LEAST_WORK && !atom_load(&db->stopping, relaxed)) {
        struct table *t = next_table(&l, v, s->deletes, s->number);
        s->on = t != NULL;
        if (t == NULL) {
            break;
        }
        if (look_over(&l, t) || ++s->tries > rounds_of(db, v, t)) {
            s->deletes = t->meta.deletes;
            s->number = t->meta.number;
            s->tries = 0;
        }
    }
    version_unref(v);
    *left = l.left;
    return s->on;
}
