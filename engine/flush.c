/* flush.c - Merges sealed memtables into one table a keyspace.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/flush.h"

#include <string.h>

#include "arena/status.h"
#include "engine/merge_iter.h"
#include "engine/table_output.h"
#include "engine/version_filter.h"

#include "arena/poison.h"

#define SPACES_AT_ONCE 64u /* keyspaces whose tables are held open at once */

struct flush {
    struct db *db;
    uint32_t begin, end; /* generations */
    uint64_t boundary;   /* positions of them lie below it */
    struct memtable *mems[MEMTABLE_SLOTS];
    uint32_t count;
    uint64_t *held; /* sequence numbers readers hold */
    size_t held_count, held_cap;
    struct source source[MEMTABLE_SLOTS];
    struct source *all[MEMTABLE_SLOTS], *heap[MEMTABLE_SLOTS];
    struct table_output out[SPACES_AT_ONCE];
    struct keyspace *space[SPACES_AT_ONCE];
    uint32_t out_count;
    struct version_edit *edit; /* the next one; its tables are the flush's, but for those of `out` */
    struct version_edit own;   /* it, but in a replay */
    uint32_t before;           /* tables that it had, and keeps when the flush fails */
    uint64_t edit_bytes;       /* of the flush's */
    bool replay;               /* `edit` is applied later: nothing is installed */
};

bool flush_due_locked(const struct db *db)
{
    const struct memtable_list *l = &db->memtables;
    return l->oldest < l->end && l->slots[l->oldest % MEMTABLE_SLOTS].boundary != 0;
}

/* Fixes which generations go. */
static void choose(struct flush *f)
{
    struct db *db = f->db;
    mutex_lock(&db->mu);
    struct memtable_list *l = &db->memtables;
    f->begin = f->end = l->oldest;
    while (f->end < l->end && memtable_list_slot(l, f->end)->boundary != 0) {
        f->boundary = memtable_list_slot(l, f->end)->boundary;
        f->mems[f->count++] = memtable_list_find(l, f->end);
        f->end++;
    }
    mutex_unlock(&db->mu);
}

/* Whether any table holds entries of the keyspace: one of the version, or one that waits in the edit. */
static bool any_table(struct flush *f, uint32_t ks)
{
    struct version *v = version_set_ref_current(&f->db->versions);
    bool any = version_ks(v, ks) != NULL;
    version_unref(v);
    for (uint32_t i = 0; i < f->edit->added_count && !any; i++) {
        any = f->edit->added[i].ks == ks;
    }
    return any;
}

/* One keyspace's entries to one table. */
static int write_space(struct flush *f, struct table_output *o)
{
    struct db *db = f->db;
    for (uint32_t i = 0; i < f->count; i++) {
        f->source[i] = (struct source){0};
        source_memtable(&f->source[i], f->mems[i], o->space->id, o->cmp);
        f->all[i] = &f->source[i];
    }
    /* Nothing on disk to hide; and none of these entries hides another whose bytes differ, as it may
     * when the order is not known yet (see keyspace_order.h). acquire: as in keyspace_order_find(). */
    bool bottom = !any_table(f, o->space->id) && atom_load(&o->space->ordered, acquire);
    struct merge_iter m;
    struct version_filter filter;
    merge_init(&m, o->cmp, f->all, f->heap, f->count);
    version_filter_init(&filter, &db->alloc, f->held, f->held_count, o->cmp, bottom);
    filter.lent = true; /* what is in memtables lies still */
    int rc = LOAM_OK;
    for (merge_first(&m); merge_valid(&m) && rc == LOAM_OK; merge_next(&m)) {
        bool same_key;
        switch (version_filter_next(&filter, merge_entry(&m), &same_key)) {
        case VERSION_KEEP:
            rc = table_output_add(o, merge_entry(&m));
            break;
        case VERSION_DROP:
            break;
        case VERSION_OOM:
            rc = FAIL(LOAM_E_NOMEM, "no memory for the last key of a flush");
            break;
        }
    }
    version_filter_free(&filter);
    return rc < 0 ? rc : m.rc < 0 ? m.rc : table_output_cut(o);
}

/* The smallest keyspace id >= ks in any of the memtables, or LOAM_NOTFOUND. */
static int next_space(struct flush *f, uint32_t ks, uint32_t *found)
{
    int rc = LOAM_NOTFOUND;
    for (uint32_t i = 0; i < f->count; i++) {
        uint32_t id;
        if (memtable_next_ks(f->mems[i], ks, &id) == LOAM_OK &&
            (rc == LOAM_NOTFOUND || id < *found)) {
            *found = id;
            rc = LOAM_OK;
        }
    }
    return rc;
}

void flush_set_log(struct db *db, uint32_t generation, uint64_t boundary, struct version_edit *edit)
{
    mutex_lock(&db->mu);
    uint64_t replayed = memtable_list_slot(&db->memtables, generation)->first_log;
    mutex_unlock(&db->mu);
    /* Without a log, too: what was replayed at open must not be replayed over these tables. */
    version_edit_set_log_number(
        edit, replayed != 0 ? replayed : wal_segment_number(&db->wal, generation),
        replayed == 0 && !db->logging);
    version_edit_set_last_seq(edit, boundary - 1);
}

/* Adds the tables of `out` to the edit: all or none. */
static int describe(struct flush *f)
{
    uint32_t before = f->edit->added_count;
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < f->out_count && rc == LOAM_OK; i++) {
        rc = table_output_describe(&f->out[i], f->edit);
    }
    while (rc < 0 && f->edit->added_count > before) {
        version_edit_drop_added(f->edit, f->edit->added_count - 1);
    }
    for (uint32_t i = 0; i < f->out_count && rc == LOAM_OK; i++) {
        f->edit_bytes += f->out[i].background_bytes;
    }
    return rc;
}

/* Whether there is any: all that an output was given may have been dropped. */
static bool makes_tables(const struct flush *f)
{
    bool any = f->edit->added_count != 0;
    for (uint32_t i = 0; i < f->out_count; i++) {
        any = any || f->out[i].made_count != 0;
    }
    return any;
}

/* Makes the tables built so far part of the database. last: also gives up the log behind them. */
static int install(struct flush *f, bool last)
{
    struct db *db = f->db;
    int rc = makes_tables(f) ? db_sync_names(db) : LOAM_OK;
    if (rc == LOAM_OK) {
        rc = describe(f);
    }
    if (rc < 0) {
        return rc;
    }
    if (last) { /* the two go together: the log begins behind the last number in tables */
        flush_set_log(db, f->end, f->boundary, f->edit);
    }
    rc = version_set_apply(&db->versions, f->edit);
    for (uint32_t i = 0; i < f->out_count; i++) {
        if (rc == LOAM_OK) {
            table_output_installed(&f->out[i]);
        } else {
            table_output_disown(&f->out[i]);
        }
    }
    version_edit_free(f->edit); /* the version set has taken charge of its tables */
    if (rc == LOAM_OK) {
        stats_add(&db->stats, STAT_BYTES_FLUSHED, f->edit_bytes);
    }
    f->edit_bytes = 0;
    return rc;
}

static void close_outputs(struct flush *f)
{
    for (uint32_t i = 0; i < f->out_count; i++) {
        table_output_free(&f->out[i]);
        keyspace_put(f->space[i]);
    }
    f->out_count = 0;
}

/* Whether the log holds, for certain, all that is flushed. A failed one is told of; the flush is its cure. */
static bool log_holds_all(struct flush *f)
{
    struct db *db = f->db;
    int rc = db->logging ? wal_sync(&db->wal, f->boundary) : LOAM_OK;
    if (rc < 0) {
        db_log_failed(db, rc);
    }
    return db->logging && rc == LOAM_OK;
}

/* The tables built so far wait in the edit, closed. */
static int gather(struct flush *f)
{
    int rc = describe(f);
    for (uint32_t i = 0; i < f->out_count && rc == LOAM_OK; i++) {
        table_output_disown(&f->out[i]);
    }
    return rc;
}

/* Some of the keyspaces go before the others: until the last edit gives up the log, a crash must find
 * there whatever these tables hold, and the rest of their batches. Without such a log only one edit keeps
 * batches whole, and what is replayed waits for it anyway. */
static int install_some(struct flush *f)
{
    return !f->replay && log_holds_all(f) ? install(f, false) : gather(f);
}

void flush_drop_tables(struct db *db, struct version_edit *edit, uint32_t keep)
{
    while (edit->added_count > keep) {
        obsolete_files_add(&db->obsolete, FILE_TABLE, edit->added[edit->added_count - 1].number);
        version_edit_drop_added(edit, edit->added_count - 1);
    }
}

static int write_all(struct flush *f)
{
    struct db *db = f->db;
    uint32_t id = 0;
    int rc = LOAM_OK;
    while (rc == LOAM_OK && next_space(f, id, &id) == LOAM_OK) {
        struct keyspace *space = keyspace_get(&db->versions.keyspaces, id);
        if (space != NULL) { /* NULL: dropped meanwhile, and its entries with it */
            if (f->out_count == SPACES_AT_ONCE) {
                rc = install_some(f);
                close_outputs(f);
                if (rc < 0) {
                    keyspace_put(space);
                    return rc;
                }
            }
            f->space[f->out_count] = space;
            struct table_output *o = &f->out[f->out_count++];
            table_output_init(o, db, space, 0);
            o->lent = true; /* by memtables, which stay until the last table is installed */
            rc = write_space(f, o);
        }
        if (id == UINT32_MAX) {
            break;
        }
        id++;
    }
    return rc;
}

void flush_give_up_replayed(struct db *db)
{
    uint64_t needed = version_set_log_number(&db->versions);
    size_t kept = 0;
    for (size_t at = 0; at < db->replayed.size; at += sizeof(uint64_t)) {
        uint64_t number;
        memcpy(&number, db->replayed.data + at, sizeof number);
        if (number < needed && db->logging) {
            wal_adopt(&db->wal, number);
        } else if (number < needed) {
            obsolete_files_add(&db->obsolete, FILE_LOG, number);
        } else {
            memmove(db->replayed.data + kept, &number, sizeof number);
            kept += sizeof number;
        }
    }
    db->replayed.size = kept;
}

/* The memtables go. fresh: shows what there is instead; NULL: nobody looks yet. */
static void drop_memtables(struct flush *f, struct view *fresh)
{
    struct db *db = f->db;
    struct memtable_slot gone[MEMTABLE_SLOTS];
    mutex_lock(&db->mu);
    uint32_t n = memtable_list_take_below(&db->memtables, f->end, gone);
    if (fresh != NULL) {
        db_publish_view_locked(db, fresh);
    }
    mutex_unlock(&db->mu);
    for (uint32_t i = 0; i < n; i++) {
        memtable_list_release(&db->memtables, &gone[i]);
        mutex_lock(&db->mu);
        memtable_list_left(&db->memtables);
        cond_broadcast(&db->idle_cv);
        mutex_unlock(&db->mu);
    }
}

/* The memtables are in tables: shows the new state and lets go of memory and log. */
static void retire(struct flush *f, struct view *fresh)
{
    struct db *db = f->db;
    wal_raise_durable(&db->wal, f->boundary); /* first: who waits for the flush looks at the memtables */
    drop_memtables(f, fresh);
    wal_release(&db->wal, f->end);
    flush_give_up_replayed(db);
    version_set_reap(&db->versions);
}

/* edit: gets the tables of a replay; NULL: each flush has its own. NULL: no memory. */
static struct flush *flush_new(struct db *db, struct version_edit *edit)
{
    struct flush *f = alloc_zero(&db->alloc, MEM_BUILD, sizeof *f);
    if (f != NULL) {
        f->db = db;
        version_edit_init(&f->own, &db->alloc);
        f->replay = edit != NULL;
        f->edit = edit != NULL ? edit : &f->own;
        f->before = f->edit->added_count;
    }
    return f;
}

/* done: what it gathered is named, or will be. */
static void flush_free(struct flush *f, bool done)
{
    if (f == NULL) {
        return;
    }
    close_outputs(f);
    if (!done) {
        flush_drop_tables(f->db, f->edit, f->before);
    }
    version_edit_free(&f->own);
    alloc_put(&f->db->alloc, MEM_BUILD, f, sizeof *f);
}

/* Writes the tables of all memtables that are sealed; f->count: how many. */
static int build(struct flush *f)
{
    struct db *db = f->db;
    choose(f);
    if (f->count == 0) {
        return LOAM_OK;
    }
    commit_wait(&db->commit, f->boundary); /* the last writers into it are done */
    for (uint32_t i = 0; i < f->count; i++) {
        memtable_freeze(f->mems[i]); /* a late one would miss the table and be lost */
    }
    f->held = snapshot_numbers(&db->snapshots, &db->commit, &db->alloc, &f->held_count, &f->held_cap);
    int rc = f->held == NULL ? FAIL(LOAM_E_NOMEM, "no memory for a flush") : write_all(f);
    alloc_put(&db->alloc, MEM_BUILD, f->held, f->held_cap * sizeof *f->held);
    return rc;
}

/* Whether there is anything to flush: a log that shrinks at rest leaves an empty memtable. */
static bool any_entries(const struct flush *f)
{
    bool any = false;
    for (uint32_t i = 0; i < f->count; i++) {
        any = any || !memtable_empty(f->mems[i]);
    }
    return any;
}

int flush_run(struct db *db)
{
    struct flush *f = flush_new(db, NULL);
    struct view *fresh = view_alloc(&db->alloc);
    if (f == NULL || fresh == NULL) {
        flush_free(f, false);
        view_discard(fresh);
        return FAIL(LOAM_E_NOMEM, "no memory for a flush");
    }
    uint64_t start = clock_nanos();
    int rc = build(f);
    if (rc == LOAM_OK && f->count != 0) {
        rc = install(f, true);
    }
    if (rc == LOAM_OK && f->count != 0) {
        if (any_entries(f)) {
            stats_add(&db->stats, STAT_FLUSHES, 1);
            stats_time(&db->stats, LOAM_HIST_FLUSH, clock_nanos() - start);
        }
        retire(f, fresh);
    } else {
        view_discard(fresh);
    }
    flush_free(f, rc == LOAM_OK);
    return rc;
}

int flush_replayed(struct db *db, struct version_edit *edit)
{
    struct flush *f = flush_new(db, edit);
    if (f == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a flush");
    }
    int rc = build(f);
    if (rc == LOAM_OK) {
        rc = gather(f);
    }
    if (rc == LOAM_OK) {
        drop_memtables(f, NULL);
        stats_add(&db->stats, STAT_FLUSHES, 1);
        stats_add(&db->stats, STAT_BYTES_FLUSHED, f->edit_bytes);
    }
    flush_free(f, rc == LOAM_OK);
    return rc;
}
