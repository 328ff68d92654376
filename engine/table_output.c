/* table_output.c - Builds tables for flushes and merges.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/table_output.h"

#include "arena/status.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

void table_output_init(struct table_output *o, struct db *db, struct keyspace *space, uint8_t level)
{
    *o = (struct table_output){.db = db, .space = space, .level = level};
    /* Not looked up by id: the keyspace may be dropped while its entries are on their way. acquire:
     * pairs with version_set_order_ks(). */
    o->cmp = atom_load(&space->cmp, acquire);
}

static void remove_file(struct db *db, uint64_t number)
{
    obsolete_files_add(&db->obsolete, FILE_TABLE, number);
}

static int begin_table(struct table_output *o)
{
    struct db *db = o->db;
    char path[FILENAME_CAP];
    o->number = version_set_new_file(&db->versions);
    int rc = filename_make(db->dir, FILE_TABLE, o->number, path);
    if (rc < 0) {
        return rc;
    }
    const struct sst_build_options options = {
        .vfs = db->vfs,
        .alloc = &db->alloc,
        .cache = &db->cache,
        .large = &db->large,
        .path = path,
        .file_number = o->number,
        .db_id = db->versions.db_id,
        .ks = o->space->id,
        .cmp = o->cmp,
        .block_bytes = o->space->block_bytes,
        .filter_bits = o->space->filter_bits,
        .compression = o->space->compression,
        .level = o->level,
        .lent = o->lent,
    };
    rc = sst_builder_open(&o->builder, &options);
    if (rc < 0) {
        o->builder = NULL;
        if (rc != LOAM_E_EXISTS) { /* what was there is not ours */
            remove_file(db, o->number);
        }
    }
    return rc;
}

int table_output_add(struct table_output *o, const struct entry *e)
{
    if (o->builder == NULL) {
        int rc = begin_table(o);
        if (rc < 0) {
            return rc;
        }
    }
    return sst_builder_add(o->builder, e, 0);
}

uint64_t table_output_bytes(const struct table_output *o)
{
    return o->builder != NULL ? sst_builder_bytes(o->builder) : 0;
}

static struct table_made *next_made(struct table_output *o)
{
    if (o->made_count == o->made_cap) {
        uint32_t cap = o->made_cap != 0 ? o->made_cap * 2 : 4;
        void *p = alloc_resize(&o->db->alloc, MEM_BUILD, o->made, o->made_cap * sizeof *o->made,
                               cap * sizeof *o->made);
        if (p == NULL) {
            return NULL;
        }
        o->made = p;
        o->made_cap = cap;
    }
    return &o->made[o->made_count];
}

int table_output_cut(struct table_output *o)
{
    if (o->builder == NULL) {
        return LOAM_OK;
    }
    struct table_made *m = next_made(o);
    if (m == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for the list of new tables");
    }
    struct sst_info info;
    int rc = sst_builder_finish(o->builder, &info);
    if (rc < 0) {
        return rc;
    }
    m->builder = o->builder;
    m->meta = table_meta_of(&info, o->number, o->space->id, o->level);
    o->made_count++;
    o->background_bytes += info.size;
    o->builder = NULL;
    return LOAM_OK;
}

int table_output_describe(const struct table_output *o, struct version_edit *e)
{
    for (uint32_t i = 0; i < o->made_count; i++) {
        int rc = version_edit_add_table(e, &o->made[i].meta);
        if (rc < 0) {
            return rc;
        }
    }
    return LOAM_OK;
}

static struct table *find_table(const struct version *v, const struct table_meta *m)
{
    const struct ks_version *k = version_ks(v, m->ks);
    for (int n = 0; k != NULL && n < LEVEL_COUNT; n++) {
        for (uint32_t i = 0; i < k->level[n].count; i++) {
            if (k->level[n].tables[i]->meta.number == m->number) {
                return k->level[n].tables[i];
            }
        }
    }
    return NULL;
}

static void open_warm(struct table_output *o, const struct version *v, struct table_made *m)
{
    struct db *db = o->db;
    struct sst_warm warm;
    sst_builder_take_warm(m->builder, &warm);
    struct table *t = find_table(v, &m->meta);
    if (t != NULL && o->trimmed != 0) {
        /* relaxed: see compaction_trim.c */
        atom_store(&t->trimmed_for, o->trimmed_for, relaxed);
        atom_store(&t->trimmed, o->trimmed, relaxed);
    }
    char path[FILENAME_CAP];
    if (t == NULL || filename_make(db->dir, FILE_TABLE, m->meta.number, path) < 0) {
        sst_warm_drop(&warm);
        return;
    }
    const struct sst_open_options options = {
        .vfs = db->vfs,
        .alloc = &db->alloc,
        .cache = &db->cache,
        .large = &db->large,
        .path = path,
        .file_number = m->meta.number,
        .db_id = db->versions.db_id,
        .cmp = o->cmp,
        .size = m->meta.size,
        .paranoid = db->paranoid,
        .warm = &warm,
        .resident_bytes = table_cache_room(&db->tables),
    };
    struct sst_reader *r;
    if (sst_open(&options, &r) == LOAM_OK) {
        table_cache_adopt(&db->tables, t, r);
    } /* else: the first read that needs the table opens it, or reports why it cannot */
}

void table_output_installed(struct table_output *o)
{
    struct version *v = version_set_ref_current(&o->db->versions);
    for (uint32_t i = 0; i < o->made_count; i++) {
        memory_share_make_room(o->db);
        open_warm(o, v, &o->made[i]);
    }
    version_unref(v);
    table_output_disown(o);
}

void table_output_disown(struct table_output *o)
{
    for (uint32_t i = 0; i < o->made_count; i++) {
        sst_builder_free(o->made[i].builder);
    }
    o->made_count = 0;
}

void table_output_free(struct table_output *o)
{
    if (o->builder != NULL) {
        sst_builder_free(o->builder);
        remove_file(o->db, o->number);
        o->builder = NULL;
    }
    for (uint32_t i = 0; i < o->made_count; i++) {
        remove_file(o->db, o->made[i].meta.number);
    }
    table_output_disown(o);
    alloc_put(&o->db->alloc, MEM_BUILD, o->made, o->made_cap * sizeof *o->made);
    o->made = NULL;
    o->made_cap = 0;
}
