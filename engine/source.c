/* source.c - Memtable cursors and table cursors behind one face.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/source.h"

#include <assert.h>

#include "arena/poison.h"

void source_memtable(struct source *s, struct memtable *m, uint32_t ks, const loam_comparator *cmp)
{
    source_finish(s);
    s->is_memtable = true;
    memtable_cursor_init_in(&s->mem, m, ks, cmp);
}

void source_tables(struct source *s, struct table_cache *tc, struct table *const *run,
                   uint32_t count, const loam_comparator *cmp, struct alloc *a, uint32_t readahead,
                   bool background, struct sst_seat *seat)
{
    source_finish(s);
    s->is_memtable = false;
    s->tables = tc;
    s->run = run;
    s->run_count = count;
    s->cmp = cmp;
    s->alloc = a;
    s->readahead = readahead;
    s->background = background;
    s->seat = seat;
}

static void unbind(struct source *s)
{
    if (s->cursor_ready && s->background) {
        table_cache_unpin(s->tables, s->run[s->run_at]);
    }
    s->cursor_ready = false;
}

void source_finish(struct source *s)
{
    unbind(s);
    s->valid = false;
    s->rc = LOAM_OK;
}

void source_free(struct source *s)
{
    source_finish(s);
    sst_cursor_free(&s->cursor);
}

static bool fail(struct source *s, int rc)
{
    s->valid = false;
    s->rc = rc;
    return false;
}

/* Gives a foreground cursor the reader of the moment: the one it had may have been closed between two
 * calls. The file is the same, so its block and the place in it are. */
static bool refresh(struct source *s)
{
    if (s->background) {
        return true;
    }
    struct sst_reader *r;
    int rc = table_cache_get(s->tables, s->run[s->run_at], &r);
    if (rc < 0) {
        return fail(s, rc);
    }
    s->cursor.r = r;
    return true;
}

/* Puts the cursor on table i of the run, to be placed there. */
static bool bind(struct source *s, uint32_t i)
{
    if (s->cursor_ready && s->run_at == i) {
        return refresh(s);
    }
    struct sst_reader *r;
    struct table *t = s->run[i];
    unbind(s);
    int rc = s->background ? table_cache_pin(s->tables, t, &r) : table_cache_get(s->tables, t, &r);
    if (rc < 0) {
        return fail(s, rc);
    }
    rc = s->cursor.alloc != NULL
             ? sst_cursor_rebind(&s->cursor, r, s->readahead)
             : sst_cursor_init(&s->cursor, r, s->alloc, s->background ? SST_CURSOR_BACKGROUND : 0,
                               s->readahead);
    s->run_at = i;
    if (rc < 0) {
        if (s->background) {
            table_cache_unpin(s->tables, t);
        }
        return fail(s, rc);
    }
    s->cursor.seat = s->seat;
    s->cursor_ready = true;
    return true;
}

/* Takes what the cursor stands on. False: it ran off its table; an error is latched. */
static bool take(struct source *s, bool on_entry)
{
    if (on_entry) {
        sst_cursor_entry(&s->cursor, &s->entry);
        s->valid = true;
        return true;
    }
    s->valid = false;
    s->rc = sst_cursor_rc(&s->cursor);
    return false;
}

/* The first entry of the tables from i on. */
static void first_from(struct source *s, uint32_t i)
{
    s->valid = false;
    for (; i < s->run_count; i++) {
        if (!bind(s, i) || take(s, sst_cursor_first(&s->cursor)) || s->rc < 0) {
            return;
        }
    }
}

/* The last entry of the tables below i. */
static void last_below(struct source *s, uint32_t i)
{
    s->valid = false;
    while (i-- > 0) {
        if (!bind(s, i) || take(s, sst_cursor_last(&s->cursor)) || s->rc < 0) {
            return;
        }
    }
}

static void take_memtable(struct source *s, bool on_entry)
{
    s->valid = on_entry;
    if (on_entry) {
        memtable_cursor_entry(&s->mem, &s->entry);
    }
}

void source_first(struct source *s)
{
    s->rc = LOAM_OK;
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_first(&s->mem));
    } else {
        first_from(s, 0);
    }
}

void source_last(struct source *s)
{
    s->rc = LOAM_OK;
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_last(&s->mem));
    } else {
        last_below(s, s->run_count);
    }
}

/* Index of the first table whose largest key is >= key. */
static uint32_t find(const struct source *s, loam_slice key)
{
    uint32_t lo = 0, hi = s->run_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (key_compare(s->cmp, s->run[mid]->meta.largest, key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

void source_aim(struct source *s, loam_slice key)
{
    s->rc = LOAM_OK;
    s->valid = false;
    if (s->is_memtable) {
        return;
    }
    uint32_t i = find(s, key);
    s->aimed = i < s->run_count && bind(s, i);
    if (s->aimed) {
        sst_cursor_aim(&s->cursor, key);
    }
}

void source_land(struct source *s, loam_slice key, uint64_t tag)
{
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_seek(&s->mem, key, tag));
        return;
    }
    if (s->aimed && !take(s, sst_cursor_land(&s->cursor, key, tag)) && s->rc == LOAM_OK) {
        /* (key, tag) lies behind the table's last version of its last key. */
        first_from(s, s->run_at + 1);
    }
}

void source_seek_before(struct source *s, loam_slice key, uint64_t tag)
{
    s->rc = LOAM_OK;
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_seek_before(&s->mem, key, tag));
        return;
    }
    s->valid = false;
    uint32_t i = find(s, key);
    if (i < s->run_count) {
        if (!bind(s, i) || take(s, sst_cursor_seek_before(&s->cursor, key, tag)) || s->rc < 0) {
            return;
        }
    }
    last_below(s, i);
}

int source_show_(struct source *s)
{
    int rc = refresh(s) ? sst_cursor_show(&s->cursor) : s->rc;
    if (rc < 0) {
        fail(s, rc);
    }
    sst_cursor_entry(&s->cursor, &s->entry);
    return rc;
}

void source_next(struct source *s)
{
    assert(s->valid);
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_next(&s->mem));
        return;
    }
    if (block_cursor_next(&s->cursor.at)) {
        sst_cursor_entry(&s->cursor, &s->entry);
        return;
    }
    if (refresh(s) && !take(s, sst_cursor_next_block(&s->cursor)) && s->rc == LOAM_OK) {
        first_from(s, s->run_at + 1);
    }
}

void source_prev(struct source *s)
{
    assert(s->valid);
    if (s->is_memtable) {
        take_memtable(s, memtable_cursor_prev(&s->mem));
        return;
    }
    if (block_cursor_prev(&s->cursor.at)) {
        sst_cursor_entry(&s->cursor, &s->entry);
        return;
    }
    if (refresh(s) && !take(s, sst_cursor_prev_block(&s->cursor)) && s->rc == LOAM_OK) {
        last_below(s, s->run_at);
    }
}
