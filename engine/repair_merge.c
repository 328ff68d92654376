/* repair_merge.c - Puts tables of unknown place where they may stand: apart, or merged into one run.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Without a manifest nothing says which of two tables is newer as a whole; only sequence numbers do,
 * version by version. So tables that overlap become one run of the last level, where no key is in two
 * tables. In a keyspace whose order is not known nothing can be merged: its tables stand on the level
 * they were built for, which opening the keyspace will judge.
 */
#include "arena/status.h"
#include "engine/repair.h"
#include "engine/sort.h"
#include "sstable/sst_cursor.h"

#include "arena/poison.h"

#define LAST_LEVEL (LEVEL_COUNT - 1)

struct merged {
    struct sst_reader *reader;
    struct sst_cursor cursor;
    bool ready; /* cursor is initialised */
};

struct by_smallest {
    const struct table_meta *metas;
    const loam_comparator *cmp;
};

static bool meta_less(const void *ctx, const void *a, const void *b)
{
    const struct by_smallest *s = ctx;
    return key_compare(s->cmp, s->metas[*(const uint32_t *)a].smallest,
                       s->metas[*(const uint32_t *)b].smallest) < 0;
}

/* E_FORMAT: one of them is not in the keyspace's order. */
static int open_inputs(struct repair *r, const struct table_meta *metas, const uint32_t *group,
                       size_t n, const loam_comparator *cmp, struct merged *in)
{
    int rc = LOAM_OK;
    for (size_t i = 0; i < n && rc == LOAM_OK; i++) {
        char path[FILENAME_CAP];
        const struct table_meta *m = &metas[group[i]];
        rc = filename_make(r->dir, FILE_TABLE, m->number, path);
        const struct sst_open_options o = {.vfs = r->vfs,
                                           .alloc = r->alloc,
                                           .path = path,
                                           .file_number = m->number,
                                           .db_id = r->db_id,
                                           .cmp = cmp};
        rc = rc == LOAM_OK ? sst_open(&o, &in[i].reader) : rc;
        if (rc == LOAM_OK) {
            rc = sst_cursor_init(&in[i].cursor, in[i].reader, r->alloc, SST_CURSOR_BACKGROUND, 0);
            in[i].ready = rc == LOAM_OK;
        }
        if (rc == LOAM_OK && !sst_cursor_first(&in[i].cursor)) {
            rc = in[i].cursor.rc;
        }
    }
    return rc;
}

/* The input with the next version; NULL: all are at their ends, or one failed (*rc). */
static struct merged *next_input(struct merged *in, size_t n, const loam_comparator *cmp, int *rc)
{
    struct merged *best = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!sst_cursor_valid(&in[i].cursor)) {
            if (in[i].cursor.rc < 0) {
                *rc = in[i].cursor.rc;
                return NULL;
            }
            continue;
        }
        const struct entry *e = &in[i].cursor.at.entry;
        int c = best == NULL ? -1 : key_compare(cmp, e->key, best->cursor.at.entry.key);
        if (c < 0 || (c == 0 && e->tag > best->cursor.at.entry.tag)) {
            best = &in[i];
        }
    }
    return best;
}

static int merge(struct repair *r, const struct table_meta *metas, const uint32_t *group, size_t n,
                 const loam_comparator *cmp)
{
    struct merged *in = alloc_zero(r->alloc, MEM_BUILD, n * sizeof *in), *next;
    struct repair_output out;
    if (in == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to merge %zu tables", n);
    }
    repair_output_init(&out, r, metas[group[0]].ks, LAST_LEVEL, false);
    int rc = open_inputs(r, metas, group, n, cmp, in);
    while (rc == LOAM_OK && (next = next_input(in, n, cmp, &rc)) != NULL) {
        rc = repair_output_add(&out, &next->cursor.at.entry);
        (void)sst_cursor_next(&next->cursor);
    }
    if (rc == LOAM_OK) {
        rc = repair_output_finish(&out);
    }
    repair_output_free(&out);
    for (size_t i = 0; i < n; i++) {
        if (in[i].ready) {
            sst_cursor_free(&in[i].cursor);
        }
        sst_close(in[i].reader);
    }
    alloc_put(r->alloc, MEM_BUILD, in, n * sizeof *in);
    return rc;
}

static bool find_order(void *arg, uint32_t ks, const loam_comparator **cmp)
{
    return repair_order(arg, ks, cmp);
}

int repair_fits(struct repair *r, bool *fit)
{
    uint32_t n = r->state.added_count;
    struct version_graveyard graveyard;
    struct version *v;
    struct table **tables = alloc_zero(r->alloc, MEM_VERSION, (n + 1) * sizeof *tables);
    int rc = tables != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory for %u tables", n);
    for (uint32_t i = 0; i < n && rc == LOAM_OK; i++) {
        tables[i] = table_create(r->alloc, &r->state.added[i]);
        rc = tables[i] != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory for %u tables", n);
    }
    if (rc == LOAM_OK) {
        version_graveyard_init(&graveyard);
        const struct version_build b = {
            .alloc = r->alloc, .graveyard = &graveyard, .order = {find_order, r}};
        rc = version_of_tables(&b, tables, n, &v);
        *fit = rc == LOAM_OK;
        if (rc == LOAM_OK) {
            struct table *dead = NULL; /* the tables stay ours */
            version_free(v, &dead);
        }
        version_graveyard_destroy(&graveyard);
    }
    for (uint32_t i = 0; tables != NULL && i < n; i++) {
        table_free(tables[i]);
    }
    if (tables != NULL) {
        alloc_put(r->alloc, MEM_VERSION, tables, (n + 1) * sizeof *tables);
    }
    return rc == LOAM_E_CORRUPT ? LOAM_OK : rc;
}

/* As they are, on one level. */
static int keep(struct repair *r, const struct table_meta *metas, const uint32_t *group, size_t n,
                int level)
{
    int rc = LOAM_OK;
    for (size_t i = 0; i < n && rc == LOAM_OK; i++) {
        struct table_meta m = metas[group[i]];
        m.level = level >= 0 ? (uint8_t)level : m.level;
        rc = version_edit_add_table(&r->state, &m);
    }
    return rc;
}

/* The tables of one keyspace, by their smallest keys: runs of tables that overlap. */
static int place_ordered(struct repair *r, const struct table_meta *metas, const uint32_t *list,
                         size_t n, const loam_comparator *cmp)
{
    int rc = LOAM_OK;
    for (size_t i = 0, end; i < n && rc == LOAM_OK; i = end) {
        loam_slice largest = metas[list[i]].largest;
        for (end = i + 1; end < n && key_compare(cmp, metas[list[end]].smallest, largest) <= 0;
             end++) {
            loam_slice l = metas[list[end]].largest;
            largest = key_compare(cmp, l, largest) > 0 ? l : largest;
        }
        rc = end - i == 1 ? keep(r, metas, list + i, 1, LAST_LEVEL)
                          : merge(r, metas, list + i, end - i, cmp);
    }
    return rc;
}

static int place_keyspace(struct repair *r, const struct table_meta *metas, uint32_t *list,
                          size_t n)
{
    struct by_smallest s = {.metas = metas};
    if (!repair_order(r, metas[list[0]].ks, &s.cmp)) {
        return keep(r, metas, list, n, -1);
    }
    sort_elements(list, n, sizeof *list, meta_less, &s);
    uint32_t made = r->state.added_count;
    int rc = place_ordered(r, metas, list, n, s.cmp);
    if (rc == LOAM_E_FORMAT) {
        /* Flushed before the order was known: such tables stand on level 0 alone. */
        while (r->state.added_count > made) {
            version_edit_drop_added(&r->state, r->state.added_count - 1);
        }
        rc = keep(r, metas, list, n, 0);
    }
    return rc;
}

int repair_place(struct repair *r)
{
    struct version_edit before;
    version_edit_init(&before, r->alloc);
    /* The tables move over; keyspaces stay. */
    before.added = r->state.added;
    before.added_count = r->state.added_count;
    before.added_cap = r->state.added_cap;
    r->state.added = NULL;
    r->state.added_count = r->state.added_cap = 0;
    uint32_t *list = alloc_get(r->alloc, MEM_BUILD, (before.added_count + 1) * sizeof *list);
    int rc = list != NULL ? LOAM_OK : FAIL(LOAM_E_NOMEM, "no memory to place tables");
    for (uint32_t k = 0; rc == LOAM_OK && k < r->state.created_count; k++) {
        size_t n = 0;
        for (uint32_t i = 0; i < before.added_count; i++) {
            if (before.added[i].ks == r->state.created[k].id) {
                list[n++] = i;
            }
        }
        rc = n != 0 ? place_keyspace(r, before.added, list, n) : LOAM_OK;
    }
    if (list != NULL) {
        alloc_put(r->alloc, MEM_BUILD, list, (before.added_count + 1) * sizeof *list);
    }
    version_edit_free(&before);
    return rc;
}
