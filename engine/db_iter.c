/* db_iter.c - Builds sources from the view, merges them, and shows one version of each key.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/db_iter.h"

#include <assert.h>

#include "arena/status.h"
#include "engine/dead_walk.h"
#include "engine/iter_lend.h"
#include "engine/iter_versions.h"
#include "engine/object.h"

#include "arena/poison.h"

#define NEXTS_AT_ONCE     256u /* moves between two visits to the counters */
#define SEEKS_AT_ONCE     64u  /* likewise seeks, to those of level 0 */
#define SCOUT_READ        16384u /* bytes: a scout's walk ends soon, mostly */
#define SCOUT_LOOK        64u    /* keys between two looks at what they cost to read */
#define SCOUT_EACH        256u   /* bytes read for a key, on average, that a scout goes on for */

/* ---- life -------------------------------------------------------------------------------------- */

/* snap NULL: the newest state. */
static int hold(struct db *db, const struct held_seq *snap, struct held_seq *h)
{
    if (snap == NULL) {
        snapshot_hold_latest(&db->snapshots, &db->commit, h);
    } else if (!snapshot_hold_same(snap, h)) {
        return FAIL(LOAM_E_CLOSED, "the snapshot was released during the call");
    }
    return LOAM_OK;
}

/* Hands over what has been counted since the last time. */
static void hand_in_counts(struct db *db, struct db_iter *it)
{
    uint64_t hits = 0, misses = 0;
    for (uint32_t i = 0; i < it->source_count; i++) {
        struct sst_cursor *c = &it->sources[i]->cursor;
        hits += c->cache_hits;
        misses += c->cache_misses;
        c->cache_hits = c->cache_misses = 0;
    }
    struct stats_stripe *t = stats_stripe_self(&db->stats);
    stats_bump(t, STAT_CACHE_HITS, hits);
    stats_bump(t, STAT_CACHE_MISSES, misses);
    stats_bump(t, STAT_NEXTS, it->nexts);
    it->nexts = 0;
}

static void put_back(struct db *db, struct db_iter *it)
{
    if (db != NULL) {
        hand_in_counts(db, it);
    }
    iter_pool_give(db != NULL ? &db->iters : NULL, it);
}

void db_iter_close(struct db *db, struct db_iter *it)
{
    db_let_go(it->shell, &it->held);
    put_back(db, it);
}

/* Most iterators are opened on the keyspace they were on last, whose count of references all threads share. */
static bool refer_to(struct db_iter *it, struct keyspace *space)
{
    if (it->space != space) {
        keyspace_put(it->space);
        it->space = keyspace_ref(space) ? space : NULL;
    }
    return it->space != NULL;
}

int db_iter_open(struct db *db, struct keyspace *space, const struct db_iter_options *o,
                 struct db_iter **out)
{
    struct db_iter *it = iter_pool_take(&db->iters, db);
    if (it == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for an iterator");
    }
    if (!refer_to(it, space)) {
        put_back(db, it);
        return FAIL(LOAM_E_NOENT, "the keyspace was dropped");
    }
    it->ks = space->id;
    it->cmp = atom_load(&space->cmp, acquire); /* pairs with version_set_order_ks() */
    it->keys_only = o->keys_only;
    it->readahead = o->readahead;
    it->has_lower = o->has_lower;
    it->has_upper = o->has_upper;
    it->run = NULL;
    it->view_number = 0;
    it->seat.way = LARGE_HELD;
    it->seat.keys_only = o->keys_only;
    buf_set(&it->lower, o->lower.data, o->lower.size);
    buf_set(&it->upper, o->upper.data, o->upper.size);
    int rc = hold(db, o->snap, &it->held);
    if (rc < 0) {
        put_back(db, it);
        return rc;
    }
    it->seq = it->held.seq;
    struct slotmap *iters = &registry_get()->iters;
    uint64_t handle = it->next_handle;
    if (handle == 0 && !it->lower.oom && !it->upper.oom) {
        handle = slotmap_reserve(iters);
    }
    if (handle == 0 || it->lower.oom || it->upper.oom) {
        it->face = NULL;
        db_iter_close(db, it);
        return FAIL(LOAM_E_NOMEM, "no memory for an iterator");
    }
    it->next_handle = 0;
    it->face = slotmap_room(iters, handle);
    *it->face = (struct iter_face){.on_entry = false};
    rc = slotmap_commit(iters, handle, it);
    assert(rc == LOAM_OK); /* nobody else knows the handle */
    (void)rc;
    atom_store(&it->handle, handle, release); /* pairs with iter_begin() */
    *out = it;
    return LOAM_OK;
}

/* Nothing is lent any more, and no large value in memory. */
static void lend_nothing(struct db_iter *it)
{
    iter_lend_end(it);
    sst_seat_clear(&it->seat);
}

int db_iter_refresh(struct db *db, struct db_iter *it, const struct held_seq *snap)
{
    struct held_seq next; /* the old number stays until there is a new one */
    int rc = hold(db, snap, &next);
    if (rc < 0) {
        return rc;
    }
    snapshot_drop(&it->held);
    snapshot_move(&next, &it->held);
    it->seq = it->held.seq;
    lend_nothing(it);
    it->view_number = 0; /* the view may be older than the new number */
    return LOAM_OK;
}

/* ---- sources ----------------------------------------------------------------------------------- */

static int grow_sources(struct db_iter *it, uint32_t need)
{
    if (need <= it->source_cap) {
        return LOAM_OK;
    }
    struct alloc *a = &it->shell->alloc;
    uint32_t cap = need + need / 2 + 4;
    struct source **sources = alloc_zero(a, MEM_ITER, cap * sizeof *sources);
    struct source **heap = alloc_get(a, MEM_ITER, cap * sizeof *heap);
    if (sources == NULL || heap == NULL) {
        alloc_put(a, MEM_ITER, sources, cap * sizeof *sources);
        alloc_put(a, MEM_ITER, heap, cap * sizeof *heap);
        return FAIL(LOAM_E_NOMEM, "no memory for an iterator over %u sources", need);
    }
    if (it->source_cap != 0) {
        memcpy(sources, it->sources, it->source_cap * sizeof *sources);
    }
    alloc_put(a, MEM_ITER, it->sources, it->source_cap * sizeof *it->sources);
    alloc_put(a, MEM_ITER, it->heap, it->source_cap * sizeof *it->heap);
    it->sources = sources;
    it->heap = heap;
    it->source_cap = cap;
    return LOAM_OK;
}

static struct source *next_source(struct db_iter *it)
{
    struct source **s = &it->sources[it->source_count];
    if (*s == NULL) {
        *s = object_take(&it->shell->alloc, OBJECT_SOURCE);
        if (*s == NULL) {
            return NULL;
        }
    }
    it->source_count++;
    return *s;
}

/* Bytes that each of so many runs of tables reads ahead. */
static uint32_t ahead_of_each(const struct db *db, const struct db_iter *it, uint32_t runs)
{
    const struct limits *l = &db->options.limits;
    uint32_t most = l->readahead_bytes / (runs != 0 ? runs : 1);
    most = most > l->scan_read_bytes ? most : l->scan_read_bytes;
    uint32_t told = it->readahead;
    return told == 0 ? l->scan_read_bytes : told < most ? told : most;
}

static bool add_tables(struct db *db, struct db_iter *it, struct table *const *run, uint32_t count, uint32_t ahead)
{
    struct source *s = next_source(it);
    if (s == NULL) {
        return false;
    }
    source_tables(s, &db->tables, run, count, it->cmp, &db->alloc, ahead, it->dead_limit != 0,
                  &it->seat);
    return true;
}

static uint32_t run_count(const struct ks_version *k)
{
    uint32_t n = k->level[0].count;
    for (int i = 1; i < LEVEL_COUNT; i++) {
        n += k->level[i].count != 0;
    }
    return n;
}

static int build(struct db *db, struct db_iter *it, const struct view *v)
{
    const struct ks_version *k = version_ks(v->version, it->ks);
    sst_seat_clear(&it->seat);
    uint32_t need = v->mem_count + (k != NULL ? k->level[0].count + LEVEL_COUNT - 1 : 0);
    it->view_number = 0;
    it->source_count = 0;
    int rc = grow_sources(it, need);
    if (rc < 0) {
        return rc;
    }
    uint32_t ahead = ahead_of_each(db, it, k != NULL ? run_count(k) : 0);
    bool ok = true;
    for (uint32_t i = 0; i < v->mem_count && ok; i++) {
        if (memtable_empty(v->mems[i])) {
            continue; /* entries that come later are newer than the iterator's number */
        }
        struct source *s = next_source(it);
        ok = s != NULL;
        if (ok) {
            source_memtable(s, v->mems[i], it->ks, it->cmp);
        }
    }
    for (uint32_t i = 0; k != NULL && ok && i < k->level[0].count; i++) {
        ok = add_tables(db, it, &k->level[0].tables[i], 1, ahead);
    }
    for (int n = 1; k != NULL && ok && n < LEVEL_COUNT; n++) {
        if (k->level[n].count != 0) {
            ok = add_tables(db, it, k->level[n].tables, k->level[n].count, ahead);
        }
    }
    if (!ok) {
        return FAIL(LOAM_E_NOMEM, "no memory for an iterator over %u sources", need);
    }
    merge_init(&it->merge, it->cmp, it->sources, it->heap, it->source_count);
    it->view_number = v->number;
    return LOAM_OK;
}

/* Sources of the view of this moment; *fresh tells that they were built now and stand nowhere. */
static int attach(struct db *db, struct db_iter *it, bool *fresh)
{
    const struct view *v = db_view(db);
    *fresh = v->number != it->view_number;
    /* relaxed: ordered by the load of the view, which a drop publishes last. */
    if (*fresh && atom_load(&it->space->dropped, relaxed)) {
        return FAIL(LOAM_E_NOENT, "the keyspace was dropped");
    }
    return *fresh ? build(db, it, v) : LOAM_OK;
}

/* ---- finding visible entries ------------------------------------------------------------------- */

static int fail(struct db_iter *it, int rc)
{
    lend_nothing(it);
    it->view_number = 0;
    /* NULL: a scout. acquire: a drop comes before what it makes fail, such as opening a table. */
    if (it->space != NULL && atom_load(&it->space->dropped, acquire)) {
        return FAIL(LOAM_E_NOENT, "the keyspace was dropped");
    }
    return rc;
}

static int off_range(struct db_iter *it)
{
    lend_nothing(it);
    return it->merge.rc < 0 ? fail(it, it->merge.rc) : LOAM_NOTFOUND;
}

static int keep_key(struct db_iter *it, loam_slice key)
{
    int rc = iter_lend_key(it, key);
    return rc < 0 ? fail(it, rc) : LOAM_OK;
}

/* Copies the present key when it is lent from a block that is about to go. */
static int own_key(struct db_iter *it)
{
    return it->run != NULL ? keep_key(it, it->face->key) : LOAM_OK;
}

static int keep_value(struct db_iter *it, struct source *s, bool stays)
{
    int rc = iter_lend_value(it, s, stays);
    return rc < 0 ? fail(it, rc) : LOAM_OK;
}

/* Bytes that the sources' tables have read. */
static uint64_t bytes_read(const struct db_iter *it)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < it->source_count; i++) {
        sum += it->sources[i]->cursor.read_bytes;
    }
    return sum;
}

/* Whether a scout has done what it was sent for. */
static bool scouted(const struct db_iter *it, uint64_t hidden)
{
    return hidden == it->dead_limit ||
           (hidden % SCOUT_LOOK == 0 && bytes_read(it) > (uint64_t)it->dead_limit * SCOUT_EACH);
}

static void end_stretch(struct db *db, struct db_iter *it, struct dead_walk *w, uint64_t hidden)
{
    dead_walk_end(db, it, w);
    if (it->dead_limit == 0) { /* else nobody waited */
        stats_add(&db->stats, STAT_TOMBSTONES_SKIPPED, hidden);
    }
    it->passed = (uint32_t)hidden;
}

/* From where the merge stands, forward. */
static int find_forward(struct db *db, struct db_iter *it)
{
    it->forward = true;
    uint64_t hidden = 0;
    uint32_t newer = 0;
    struct dead_walk w = {0};
    int rc = LOAM_NOTFOUND;
    while (merge_valid(&it->merge)) {
        const struct entry *e = merge_entry(&it->merge);
        if (it->has_upper && key_compare(it->cmp, e->key, buf_slice(&it->upper)) >= 0) {
            break;
        }
        if (tag_seq(e->tag) > it->seq) {
            dead_walk_newer(db, it, &w); /* ends what it->key was kept for */
            rc = iter_versions_newer(it, ++newer);
            if (rc < 0) {
                return fail(it, rc);
            }
            rc = LOAM_NOTFOUND;
            continue;
        }
        rc = keep_key(it, e->key);
        if (rc < 0) {
            return rc;
        }
        if (tag_kind(e->tag) != ENTRY_DELETE) {
            it->face->on_entry = true;
            rc = keep_value(it, it->merge.heap[0], true);
            iter_lend_settle(it, it->merge.heap[0]);
            break;
        }
        uint64_t seq = tag_seq(e->tag);
        merge_next(&it->merge);
        iter_versions_rest(it);
        dead_walk_pass(db, it, &w, seq);
        rc = LOAM_NOTFOUND;
        hidden++;
        if (it->dead_limit != 0 && scouted(it, hidden)) {
            break;
        }
    }
    if (hidden != 0) {
        end_stretch(db, it, &w, hidden);
    }
    return rc == LOAM_NOTFOUND ? off_range(it) : rc;
}

/* ---- runs -------------------------------------------------------------------------------------- */

/* Begins a run where one is worth while. REQUIRES: on the top source's entry, forward. */
static void find_run(struct db_iter *it)
{
    const struct merge_iter *m = &it->merge;
    struct source *top = m->heap[0];
    bool again = top == it->top;
    it->top = top;
    if (!again || top->is_memtable || top->cursor.single || it->cmp != NULL) {
        return; /* finding a run's end costs a few comparisons: not where sources take turns */
    }
    const struct block *b = &top->cursor.at.block;
    uint32_t next = top->cursor.at.index + 1, end = b->count;
    if (m->second != 0) {
        end = block_seek_near(b, next, m->heap[m->second]->entry.key);
    }
    if (it->has_upper && next < end) {
        uint32_t bound = block_seek_near(b, next, buf_slice(&it->upper));
        end = bound < end ? bound : end;
    }
    if (next < end) {
        it->run = &top->cursor.at;
        it->run_end = end;
    }
}

/* Moves along the run to the next key that is to be seen. False: there is none; the cursor stands on
 * the run's last entry, and *settled tells whether a version of that entry's key decided about it. */
static bool run_next(struct db *db, struct db_iter *it, bool *settled)
{
    struct block_cursor *c = it->run;
    uint64_t hidden = 0;
    bool found = false;
    *settled = true;
    while (!found && c->index + 1 < it->run_end) {
        if (!block_cursor_next_same(c)) {
            *settled = false;
        }
        if (*settled || tag_seq(c->entry.tag) > it->seq) {
            continue;
        }
        *settled = true;
        found = tag_kind(c->entry.tag) != ENTRY_DELETE;
        hidden += !found;
    }
    if (__builtin_expect(hidden != 0, 0)) {
        stats_add(&db->stats, STAT_TOMBSTONES_SKIPPED, hidden);
    }
    block_cursor_fetch_ahead(c);
    struct entry e;
    entry_copy(&e, &c->entry);
    it->face->key = e.key;
    it->face->value = it->keys_only ? loam_bytes(NULL, 0) : e.value;
    it->face->tag = e.tag;
    return found;
}

/* ---- backward ---------------------------------------------------------------------------------- */

/* From where the merge stands, backward. */
static int find_backward(struct db *db, struct db_iter *it)
{
    it->forward = false;
    uint64_t hidden = 0, seq = 0;
    struct dead_walk w = {0};
    int rc = LOAM_NOTFOUND;
    while (merge_valid(&it->merge)) {
        const struct entry *e = merge_entry(&it->merge);
        if (it->has_lower && key_compare(it->cmp, e->key, buf_slice(&it->lower)) < 0) {
            break;
        }
        bool newer;
        rc = iter_versions_gather(it, &seq, &newer);
        if (rc < 0) {
            return fail(it, rc);
        }
        if (newer || rc == LOAM_OK) {
            dead_walk_newer(db, it, &w);
        }
        if (rc == LOAM_OK) {
            it->face->on_entry = true;
            iter_lend_settle(it, NULL);
            break;
        }
        dead_walk_pass(db, it, &w, seq);
        hidden += seq != 0;
        if (it->dead_limit != 0 && hidden != 0 && scouted(it, hidden)) {
            break;
        }
    }
    if (hidden != 0) {
        end_stretch(db, it, &w, hidden);
    }
    return rc == LOAM_NOTFOUND ? off_range(it) : rc;
}

/* ---- moves ------------------------------------------------------------------------------------- */

/* Tells the tables of level 0 that they cost so many more seeks a look. */
static void charge_level0(struct db *db, const struct db_iter *it, uint64_t seeks)
{
    const struct ks_version *k = version_ks(db_view(db)->version, it->ks);
    for (uint32_t i = 0; k != NULL && i < k->level[0].count; i++) {
        atom_add(&k->level[0].tables[i]->seeks, seeks, relaxed); /* relaxed: only the sum matters */
    }
}

static int place(struct db *db, struct db_iter *it)
{
    bool fresh;
    struct stats_stripe *t = stats_stripe_self(&db->stats);
    iter_lend_end(it);
    stats_bump(t, STAT_SEEKS, 1);
    if (atom_load(&t->n[STAT_SEEKS], relaxed) % SEEKS_AT_ONCE == 0) { /* relaxed: its own count */
        charge_level0(db, it, SEEKS_AT_ONCE);
        rest_charge(&db->rest, SEEKS_AT_ONCE);
        hand_in_counts(db, it);
    }
    int rc = attach(db, it, &fresh);
    return rc < 0 ? fail(it, rc) : LOAM_OK;
}

int db_iter_first(struct db *db, struct db_iter *it)
{
    int rc = place(db, it);
    if (rc < 0) {
        return rc;
    }
    if (it->has_lower) {
        merge_seek(&it->merge, buf_slice(&it->lower), UINT64_MAX);
    } else {
        merge_first(&it->merge);
    }
    return find_forward(db, it);
}

int db_iter_last(struct db *db, struct db_iter *it)
{
    int rc = place(db, it);
    if (rc < 0) {
        return rc;
    }
    if (it->has_upper) {
        merge_seek_before(&it->merge, buf_slice(&it->upper), UINT64_MAX);
    } else {
        merge_last(&it->merge);
    }
    return find_backward(db, it);
}

int db_iter_seek(struct db *db, struct db_iter *it, loam_slice key)
{
    if (it->has_lower && key_compare(it->cmp, key, buf_slice(&it->lower)) < 0) {
        return db_iter_first(db, it);
    }
    int rc = place(db, it);
    if (rc < 0) {
        return rc;
    }
    merge_seek(&it->merge, key, UINT64_MAX);
    return find_forward(db, it);
}

int db_iter_seek_le(struct db *db, struct db_iter *it, loam_slice key)
{
    if (it->has_upper && key_compare(it->cmp, key, buf_slice(&it->upper)) >= 0) {
        return db_iter_last(db, it);
    }
    int rc = place(db, it);
    if (rc < 0) {
        return rc;
    }
    merge_seek_before(&it->merge, key, 0); /* behind every version of key */
    return find_backward(db, it);
}

bool db_iter_scout(struct db *db, struct db_iter *it, struct keyspace *space, loam_slice key,
                   bool forward, uint32_t limit, struct db_scouted *found)
{
    const struct view *v = db_view(db);
    struct iter_face face = {.on_entry = false}; /* nobody looks at it */
    it->face = &face;
    it->ks = space->id;
    it->cmp = atom_load(&space->cmp, acquire); /* pairs with version_set_order_ks() */
    it->seq = commit_visible(&db->commit) - 1; /* behind the load of the view */
    it->keys_only = true;
    it->seat.keys_only = true;
    it->readahead = SCOUT_READ;
    it->dead_limit = limit;
    it->passed = 0;
    it->learned = false;
    int rc = build(db, it, v);
    for (uint32_t i = 0; i < it->source_count; i++) {
        it->sources[i]->cursor.read_bytes = 0; /* buffers are kept, and so is what was counted */
    }
    if (rc == LOAM_OK && forward) {
        merge_seek(&it->merge, key, UINT64_MAX);
        rc = find_forward(db, it);
    } else if (rc == LOAM_OK) {
        merge_seek_before(&it->merge, key, 0);
        rc = find_backward(db, it);
    }
    bool more = rc == LOAM_NOTFOUND && merge_valid(&it->merge);
    *found = (struct db_scouted){
        .passed = it->passed, .learned = it->learned, .read = bytes_read(it)};
    for (uint32_t i = 0; i < it->source_count; i++) {
        source_finish(it->sources[i]); /* the tables it has pinned are the section's */
    }
    it->face = NULL;
    return more;
}

static inline void count_next(struct db *db, struct db_iter *it)
{
    if (++it->nexts == NEXTS_AT_ONCE) {
        hand_in_counts(db, it);
    }
}

int db_iter_next(struct db *db, struct db_iter *it)
{
    if (!it->face->on_entry) {
        return LOAM_NOTFOUND;
    }
    count_next(db, it);
    bool fresh = db_view(db)->number != it->view_number, settled = true;
    if (it->run != NULL && !fresh && run_next(db, it, &settled)) {
        return LOAM_OK;
    }
    int rc = own_key(it);
    if (rc == LOAM_OK) {
        rc = attach(db, it, &fresh);
    }
    if (rc < 0) {
        return fail(it, rc);
    }
    iter_lend_end(it);
    if (fresh || !it->forward) {
        /* Behind the key's versions, or before them when none of them was decided about yet: the view
         * may have changed since the run ended. */
        merge_seek(&it->merge, buf_slice(&it->key), settled ? 0 : UINT64_MAX);
    } else {
        merge_next(&it->merge);
        if (settled) {
            iter_versions_rest(it);
        }
    }
    rc = find_forward(db, it);
    if (rc == LOAM_OK) {
        find_run(it);
    }
    return rc;
}

int db_iter_prev(struct db *db, struct db_iter *it)
{
    if (!it->face->on_entry) {
        return LOAM_NOTFOUND;
    }
    bool fresh;
    int rc = own_key(it);
    if (rc == LOAM_OK) {
        rc = attach(db, it, &fresh);
    }
    if (rc < 0) {
        return fail(it, rc);
    }
    count_next(db, it);
    iter_lend_end(it);
    if (fresh || it->forward) {
        merge_seek_before(&it->merge, buf_slice(&it->key), UINT64_MAX);
    }
    return find_backward(db, it);
}
