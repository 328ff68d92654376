/* keyspace_order.c - Flushes and rewrites what stands in byte order only for want of a comparator.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/keyspace_order.h"

#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "engine/dead_known.h"
#include "engine/lifecycle.h"
#include "engine/source.h"
#include "engine/table_output.h"
#include "sstable/sst_cursor.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

static int cannot_write(void)
{
    return FAIL(LOAM_E_READONLY, "the keyspace has entries to be put in its order: it must be "
                                 "opened for writing once");
}

static bool in_memory(struct db *db, uint32_t ks)
{
    bool found = false;
    epoch_enter();
    const struct view *v = db_view(db);
    for (uint32_t i = 0; i < v->mem_count && !found; i++) {
        uint32_t id;
        found = memtable_next_ks(v->mems[i], ks, &id) == LOAM_OK && id == ks;
    }
    epoch_exit();
    return found;
}

static const loam_comparator *given_comparator(void *ctx, uint32_t ks)
{
    (void)ks;
    return ctx;
}

/* All entries of the table, in a memtable ordered by cmp. */
static int sort_table(struct db *db, struct sst_reader *r, uint32_t ks, struct memtable *m)
{
    struct sst_cursor c;
    int rc = sst_cursor_init(&c, r, &db->alloc, SST_CURSOR_BACKGROUND, 0);
    if (rc < 0) {
        return rc;
    }
    for (bool valid = sst_cursor_first(&c); valid && rc == LOAM_OK; valid = sst_cursor_next(&c)) {
        struct entry e;
        sst_cursor_entry(&c, &e);
        rc = memtable_add(m, ks, e.key, hash_key(e.key.data, e.key.size), e.tag, e.value);
    }
    rc = rc < 0 ? rc : sst_cursor_rc(&c);
    sst_cursor_free(&c);
    return rc;
}

/* Puts the output in the place of the table. */
static int replace(struct db *db, const struct table *t, struct table_output *o)
{
    struct version_edit edit;
    version_edit_init(&edit, &db->alloc);
    int rc = version_edit_remove_table(&edit, t->meta.ks, 0, t->meta.number);
    if (rc == LOAM_OK) {
        rc = table_output_describe(o, &edit);
    }
    if (rc == LOAM_OK) {
        rc = db_sync_names(db);
    }
    if (rc == LOAM_OK) {
        rc = db_apply_edit(db, &edit);
        table_output_disown(o); /* not opened warm: the keyspace has no order yet */
    }
    version_edit_free(&edit);
    return rc;
}

static int write_sorted(struct db *db, struct keyspace *space, const loam_comparator *cmp,
                        const struct table *t, struct memtable *m)
{
    struct table_output o;
    struct source s = {0};
    table_output_init(&o, db, space, 0);
    o.cmp = cmp;
    source_memtable(&s, m, space->id, cmp);
    int rc = LOAM_OK;
    for (source_first(&s); s.valid && rc == LOAM_OK; source_next(&s)) {
        rc = table_output_add(&o, &s.entry);
    }
    if (rc == LOAM_OK) {
        rc = table_output_cut(&o);
    }
    if (rc == LOAM_OK) {
        rc = replace(db, t, &o);
    }
    table_output_free(&o);
    source_free(&s);
    return rc;
}

static int rewrite(struct db *db, struct keyspace *space, const loam_comparator *cmp,
                   const struct table *t, struct sst_reader *r)
{
    const struct memtable_options mo = {
        .alloc = &db->alloc,
        .pool = &db->chunks,
        .bytes = db->options.limits.memtable_bytes,
        .comparator = given_comparator,
        .comparator_ctx = (void *)(uintptr_t)cmp,
    };
    struct memtable *m;
    int rc = memtable_create(&mo, &m);
    if (rc < 0) {
        return rc;
    }
    rc = sort_table(db, r, space->id, m);
    if (rc == LOAM_OK) {
        rc = write_sorted(db, space, cmp, t, m);
    }
    memtable_destroy(m);
    return rc;
}

static int look_at_table(struct db *db, struct keyspace *space, const loam_comparator *cmp,
                         const struct table *t)
{
    char path[FILENAME_CAP];
    int rc = filename_make(db->dir, FILE_TABLE, t->meta.number, path);
    if (rc < 0) {
        return rc;
    }
    const struct sst_open_options options = {
        .vfs = db->vfs,
        .alloc = &db->alloc,
        .path = path,
        .file_number = t->meta.number,
        .db_id = db->versions.db_id,
        .size = t->meta.size,
        .paranoid = db->paranoid,
        .order_later = true, /* it may have none */
    };
    struct sst_reader *r;
    rc = sst_open(&options, &r);
    if (rc < 0) {
        return rc;
    }
    const struct sst_props *p = sst_props(r);
    if (p->ks != t->meta.ks) {
        rc = FAIL_CORRUPT(t->meta.number, 0, "table %llu is of another keyspace",
                          (unsigned long long)t->meta.number);
    } else if (p->comparator.size == 0) {
        rc = rewrite(db, space, cmp, t, r);
    }
    sst_close(r);
    return rc;
}

/* Only level 0 can have such tables: merges need an order. */
static int rewrite_tables(struct db *db, struct keyspace *space, const loam_comparator *cmp)
{
    struct version *v = version_set_ref_current(&db->versions);
    const struct ks_version *k = version_ks(v, space->id);
    int rc = LOAM_OK;
    for (uint32_t i = 0; k != NULL && i < k->level[0].count && rc == LOAM_OK; i++) {
        rc = look_at_table(db, space, cmp, k->level[0].tables[i]);
    }
    version_unref(v);
    return rc;
}

/* Of a read-only database, which holds the readers: their files may be gone. */
static int order_held_table(struct db *db, const loam_comparator *cmp, struct table *t)
{
    struct sst_reader *r;
    int rc = table_cache_pin(&db->tables, t, &r);
    if (rc == LOAM_OK) {
        rc = sst_props(r)->comparator.size == 0 ? cannot_write() : sst_set_comparator(r, cmp);
        table_cache_unpin(&db->tables, t);
    }
    return rc;
}

static int order_held_tables(struct db *db, struct keyspace *space, const loam_comparator *cmp)
{
    struct version *v = version_set_ref_current(&db->versions);
    const struct ks_version *k = version_ks(v, space->id);
    int rc = LOAM_OK;
    for (int n = 0; k != NULL && n < LEVEL_COUNT; n++) {
        for (uint32_t i = 0; i < k->level[n].count && rc == LOAM_OK; i++) {
            rc = order_held_table(db, cmp, k->level[n].tables[i]);
        }
    }
    version_unref(v);
    return rc;
}

static int put_in_order(struct db *db, struct keyspace *space, const loam_comparator *cmp)
{
    bool memory = in_memory(db, space->id);
    if (db->readonly) {
        return memory ? cannot_write() : order_held_tables(db, space, cmp);
    }
    int rc = memory ? lifecycle_flush(db) : LOAM_OK;
    return rc < 0 ? rc : rewrite_tables(db, space, cmp);
}

int keyspace_order_give(struct db *db, struct keyspace *space, const loam_comparator *cmp)
{
    /* acquire: as in keyspace_order_find(). A wrong name is reported by version_set_order_ks(). */
    if (cmp == NULL || atom_load(&space->ordered, acquire) ||
        strcmp(space->comparator, cmp->name) != 0) {
        return version_set_order_ks(&db->versions, space->id, cmp);
    }
    int rc = put_in_order(db, space, cmp);
    if (rc < 0) {
        return rc;
    }
    struct view *fresh = view_alloc(&db->alloc);
    if (fresh == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a view");
    }
    rc = version_set_order_ks(&db->versions, space->id, cmp);
    if (rc < 0) {
        view_discard(fresh);
        return rc;
    }
    db_publish_view(db, fresh); /* the tables of each level stand in another order now */
    dead_known_order(db, space->id);
    dead_survey_order(db, space);
    return LOAM_OK;
}
