/* dead_walk.c - Jumping over dead ranges, and proving new ones.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/dead_walk.h"

#include "arena/poison.h"

#define SPINS  200u /* for writers that have their place in the log and are not done */
#define YIELDS 20u

/* ---- proof ----------------------------------------------------------------------------------- */

/* Whether all below `end` becomes visible soon. */
static bool visible_below(struct db *db, uint64_t end)
{
    for (uint32_t n = 0; n < SPINS + YIELDS; n++) {
        if (commit_visible(&db->commit) >= end) {
            return true;
        }
        if (n < SPINS) {
            spin_pause();
        } else {
            thread_yield();
        }
    }
    return false;
}

/* Whether the memtable has no put above `seq` in the stretch. */
static bool no_put_since(struct memtable *m, const struct dead_stretch *s, uint64_t seq)
{
    struct memtable_cursor c;
    memtable_cursor_init_in(&c, m, s->ks, s->cmp); /* the keyspace may be dropped meanwhile */
    bool on = memtable_cursor_seek(&c, s->lo.key, s->lo.behind ? 0 : UINT64_MAX);
    while (on) {
        struct entry e;
        memtable_cursor_entry(&c, &e);
        int order = key_compare(s->cmp, e.key, s->hi.key);
        if (order > 0 || (order == 0 && !s->hi.behind)) {
            break;
        }
        if (tag_seq(e.tag) <= seq) {
            on = memtable_cursor_next_key(&c);
        } else if (tag_kind(e.tag) == ENTRY_DELETE) {
            on = memtable_cursor_next(&c);
        } else {
            return false;
        }
    }
    return true;
}

/* The stretch has been announced. See (b) in dead_ranges.h. */
static bool prove(struct db *db, const struct db_iter *it, const struct dead_stretch *s)
{
    uint64_t end = wal_fence(&db->wal);
    if (end <= it->seq + 1) {
        return true; /* nothing was written since the iterator's number was the newest */
    }
    if (!visible_below(db, end)) {
        return false;
    }
    const struct view *v = db_view(db);
    if (v->number != it->view_number) {
        return false;
    }
    for (uint32_t i = 0; i < v->mem_count; i++) {
        if (!no_put_since(v->mems[i], s, it->seq)) {
            return false;
        }
    }
    return true;
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* The stretch from the mark ends (backward: begins) at `end`. */
static void learn(struct db *db, struct db_iter *it, struct dead_walk *w, struct dead_place end)
{
    if (w->jumps > 1 || w->passed >= dead_ranges_worth(&db->dead)) {
        struct dead_place mark = {buf_slice(&it->mark), !it->forward};
        struct dead_stretch s = {.ks = it->ks,
                                 .cmp = it->cmp,
                                 .from = w->newest,
                                 .lo = it->forward ? mark : end,
                                 .hi = it->forward ? end : mark};
        struct dead_range *r = dead_ranges_announce(&db->dead, &s);
        if (r != NULL) {
            bool proven = prove(db, it, &s);
            dead_ranges_settle(&db->dead, r, proven);
            it->learned |= proven;
        }
    }
    *w = (struct dead_walk){.newer = w->newer};
}

/* Moves the merge to the end of the range the key is in, if there is one. */
static bool jump(struct db *db, struct db_iter *it, struct dead_walk *w, loam_slice key)
{
    const struct dead_range *r = dead_ranges_find(&db->dead, it->ks, key, it->seq);
    if (r == NULL) {
        return false;
    }
    w->jumps++;
    w->newest = r->s.from > w->newest ? r->s.from : w->newest;
    if (it->forward) {
        merge_seek(&it->merge, r->s.hi.key, r->s.hi.behind ? 0 : UINT64_MAX);
    } else {
        merge_seek_before(&it->merge, r->s.lo.key, r->s.lo.behind ? 0 : UINT64_MAX);
    }
    return true;
}

void dead_walk_pass(struct db *db, struct db_iter *it, struct dead_walk *w, uint64_t seq)
{
    loam_slice key = buf_slice(&it->key);
    if (w->newer) {
        w->newer = false; /* this key may be the one: it belongs to no stretch */
        return;
    }
    w->newest = seq > w->newest ? seq : w->newest;
    w->passed++;
    /* What a scout learns both ways from a key is to meet there. */
    if (w->passed == (it->dead_limit != 0 ? 1 : DEAD_WALK_FIRST)) {
        buf_set(&it->mark, key.data, key.size);
        if (it->mark.oom) {
            *w = (struct dead_walk){0}; /* a stretch may begin later, too */
            return;
        }
    }
    if (w->passed - w->looked == (w->more ? DEAD_WALK_LOOK : DEAD_WALK_FIRST)) {
        w->looked = w->passed;
        w->more = !jump(db, it, w, key);
    }
}

void dead_walk_break_(struct db *db, struct db_iter *it, struct dead_walk *w)
{
    learn(db, it, w, (struct dead_place){buf_slice(&it->key), true});
}

void dead_walk_end(struct db *db, struct db_iter *it, struct dead_walk *w)
{
    if (w->passed == 0 || it->merge.rc < 0) {
        return;
    }
    if (merge_valid(&it->merge)) {
        learn(db, it, w, (struct dead_place){merge_entry(&it->merge)->key, !it->forward});
    } else {
        learn(db, it, w, (struct dead_place){buf_slice(&it->key), it->forward});
    }
}
