/* version_build.c - Merges the changes of an edit into the levels they touch.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_build.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "engine/sort.h"

#include "arena/poison.h"

static int no_memory(void)
{
    return FAIL(LOAM_E_NOMEM, "no memory for a version");
}

struct version *version_empty(const struct version_build *b)
{
    return version_create(b->alloc, b->graveyard, 0, 0);
}

/* ---- order ----------------------------------------------------------------------------------- */

/* The comparator of the keyspace looked up last: lists are grouped by keyspace. */
struct order_cache {
    const struct version_build *build;
    uint32_t ks;
    bool valid;
    bool known;
    const loam_comparator *cmp;
};

/* False: the keyspace's order is not known; *cmp is byte order then, which at least is some order.
 */
static bool order_of(struct order_cache *o, uint32_t ks, const loam_comparator **cmp)
{
    if (!o->valid || o->ks != ks) {
        o->cmp = NULL;
        o->known = o->build->order.find(o->build->order.ctx, ks, &o->cmp);
        if (!o->known) {
            o->cmp = NULL;
        }
        o->ks = ks;
        o->valid = true;
    }
    *cmp = o->cmp;
    return o->known;
}

/* A table and the place it is to have. */
struct placed {
    struct table *table;
    uint64_t number;
    uint32_t ks;
    uint8_t level;
    bool fresh; /* made for this version */
};

static bool placed_less(const void *ctx, const void *x, const void *y)
{
    const struct placed *a = x;
    const struct placed *b = y;
    if (a->ks != b->ks) {
        return a->ks < b->ks;
    }
    if (a->level != b->level) {
        return a->level < b->level;
    }
    const loam_comparator *cmp;
    order_of((struct order_cache *)(uintptr_t)ctx, a->ks, &cmp);
    return level_stands_before(a->level, cmp, a->table, b->table);
}

static bool placed_less_number(const void *ctx, const void *x, const void *y)
{
    (void)ctx;
    const struct placed *a = x;
    const struct placed *b = y;
    if (a->ks != b->ks) {
        return a->ks < b->ks;
    }
    return a->level != b->level ? a->level < b->level : a->number < b->number;
}

/* ---- a version in the making ----------------------------------------------------------------- */

/* A version in the making. On failure everything taken so far is given back by plan_free(). */
struct plan {
    const struct version_build *b;
    struct order_cache order;
    struct placed *removed, *added;
    uint32_t removed_count, added_count; /* filled in so far */
    uint32_t removed_cap, added_cap;
    struct table **scratch; /* one level's tables, in order */
    uint32_t scratch_cap;
    struct ks_version **ks; /* the result, a reference each */
    uint32_t ks_count, ks_cap;
};

static void plan_free(struct plan *p, bool failed)
{
    struct alloc *a = p->b->alloc;
    if (failed) {
        struct table *dead = NULL;
        for (uint32_t i = 0; i < p->ks_count; i++) {
            ks_version_release(a, p->ks[i], &dead);
        }
        for (uint32_t i = 0; i < p->added_count; i++) {
            if (p->added[i].fresh) {
                table_free(p->added[i].table);
            }
        }
    }
    alloc_put(a, MEM_VERSION, p->removed, p->removed_cap * sizeof *p->removed);
    alloc_put(a, MEM_VERSION, p->added, p->added_cap * sizeof *p->added);
    alloc_put(a, MEM_VERSION, p->scratch, p->scratch_cap * sizeof(struct table *));
    alloc_put(a, MEM_VERSION, p->ks, p->ks_cap * sizeof(struct ks_version *));
}

static bool plan_alloc(struct plan *p, uint32_t removed, uint32_t added, uint32_t ks)
{
    struct alloc *a = p->b->alloc;
    p->removed = alloc_get(a, MEM_VERSION, removed * sizeof *p->removed);
    p->removed_cap = p->removed != NULL ? removed : 0;
    p->added = alloc_get(a, MEM_VERSION, added * sizeof *p->added);
    p->added_cap = p->added != NULL ? added : 0;
    p->ks = alloc_get(a, MEM_VERSION, ks * sizeof(struct ks_version *));
    p->ks_cap = p->ks != NULL ? ks : 0;
    return p->removed != NULL && p->added != NULL && p->ks != NULL;
}

static bool plan_scratch(struct plan *p, uint32_t count)
{
    if (count <= p->scratch_cap) {
        return true;
    }
    struct table **s = alloc_get(p->b->alloc, MEM_VERSION, count * sizeof(struct table *));
    if (s == NULL) {
        return false;
    }
    alloc_put(p->b->alloc, MEM_VERSION, p->scratch, p->scratch_cap * sizeof(struct table *));
    p->scratch = s;
    p->scratch_cap = count;
    return true;
}

static int plan_finish(struct plan *p, uint64_t number, struct version **out)
{
    struct version *v = version_create(p->b->alloc, p->b->graveyard, number, p->ks_count);
    if (v == NULL) {
        return no_memory();
    }
    memcpy(v->ks, p->ks, p->ks_count * sizeof(struct ks_version *));
    *out = v;
    return LOAM_OK;
}

/* The run of changes for (ks, level) at the front of [*p, end); moves *p behind it. */
static uint32_t take_run(struct placed **p, const struct placed *end, uint32_t ks, unsigned level)
{
    uint32_t n = 0;
    while (*p < end && (*p)->ks == ks && (*p)->level == level) {
        (*p)++;
        n++;
    }
    return n;
}

static struct placed *find_number(struct placed *run, uint32_t count, uint64_t number)
{
    uint32_t lo = 0;
    uint32_t hi = count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (run[mid].number < number) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < count && run[lo].number == number ? &run[lo] : NULL;
}

/* Copies the edit's removals in order and finds the tables they mean. */
static int plan_removals(struct plan *p, const struct version *base, const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->removed_count; i++) {
        const struct removed_table *r = &e->removed[i];
        p->removed[i] = (struct placed){.number = r->number, .ks = r->ks, .level = r->level};
    }
    p->removed_count = e->removed_count;
    sort_elements(p->removed, p->removed_count, sizeof *p->removed, placed_less_number, NULL);
    struct placed *next = p->removed;
    struct placed *end = p->removed + p->removed_count;
    while (next < end) {
        struct placed *run = next;
        const struct ks_version *k = version_ks(base, run->ks);
        uint32_t n = take_run(&next, end, run->ks, run->level);
        uint32_t found = 0;
        for (uint32_t i = 0; k != NULL && i < k->level[run->level].count; i++) {
            struct table *t = k->level[run->level].tables[i];
            struct placed *r = find_number(run, n, t->meta.number);
            if (r != NULL) {
                r->table = t;
                found++;
            }
        }
        if (found != n) { /* also when one is named twice */
            return FAIL_CORRUPT(p->b->file_id, 0,
                                "an edit removes a table that level %u of keyspace %u has not",
                                run->level, run->ks);
        }
    }
    return LOAM_OK;
}

/* The table that the edit removes elsewhere under this number: it moves. */
static struct table *find_moved(const struct plan *p, const struct table_meta *m)
{
    for (unsigned level = 0; level < LEVEL_COUNT && p->removed_count != 0; level++) {
        struct placed key = {.number = m->number, .ks = m->ks, .level = (uint8_t)level};
        uint32_t lo = 0;
        uint32_t hi = p->removed_count;
        while (lo < hi) {
            uint32_t mid = lo + (hi - lo) / 2;
            if (placed_less_number(NULL, &p->removed[mid], &key)) {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        if (lo < p->removed_count && !placed_less_number(NULL, &key, &p->removed[lo])) {
            return p->removed[lo].table;
        }
    }
    return NULL;
}

static int plan_additions(struct plan *p, const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->added_count; i++) {
        const struct table_meta *m = &e->added[i];
        struct table *t = find_moved(p, m);
        bool fresh = t == NULL;
        if (fresh) {
            t = table_create(p->b->alloc, m);
            if (t == NULL) {
                return no_memory();
            }
        } else if (t->meta.size != m->size || t->meta.checksum != m->checksum) {
            return FAIL_CORRUPT(p->b->file_id, 0, "table %llu changes while it moves",
                                (unsigned long long)m->number);
        }
        p->added[i] = (struct placed){
            .table = t, .number = m->number, .ks = m->ks, .level = m->level, .fresh = fresh};
        p->added_count = i + 1;
    }
    sort_elements(p->added, p->added_count, sizeof *p->added, placed_less, &p->order);
    return LOAM_OK;
}

static bool ks_is_empty(const struct ks_version *k)
{
    for (int n = 0; n < LEVEL_COUNT; n++) {
        if (k->level[n].count != 0) {
            return false;
        }
    }
    return true;
}

/* base's level without the removed run, merged with the added run. */
static int merge_level(struct plan *p, uint32_t ks, unsigned level, const struct level *base,
                       struct placed *removed, uint32_t removed_count, const struct placed *added,
                       uint32_t added_count, struct level *out)
{
    if (!plan_scratch(p, base->count + added_count)) {
        return no_memory();
    }
    struct level_build build = {.alloc = p->b->alloc, .file_id = p->b->file_id, .level = level};
    build.known = order_of(&p->order, ks, &build.cmp);
    uint32_t n = 0;
    uint32_t a = 0;
    for (uint32_t i = 0; i < base->count; i++) {
        struct table *t = base->tables[i];
        if (find_number(removed, removed_count, t->meta.number) != NULL) {
            continue;
        }
        while (a < added_count && level_stands_before(level, build.cmp, added[a].table, t)) {
            p->scratch[n++] = added[a++].table;
        }
        p->scratch[n++] = t;
    }
    while (a < added_count) {
        p->scratch[n++] = added[a++].table;
    }
    return level_make(&build, p->scratch, n, out);
}

/* Makes the keyspace anew with the changes at the front of the two runs; *out is NULL when no table
 * is left. base may be NULL. */
static int merge_ks(struct plan *p, uint32_t ks, const struct ks_version *base,
                    struct placed **removed, struct placed **added, struct ks_version **out)
{
    static const struct level empty;
    struct ks_version *k = alloc_zero(p->b->alloc, MEM_VERSION, sizeof *k);
    if (k == NULL) {
        return no_memory();
    }
    k->ks = ks;
    k->refs = 1;
    int rc = LOAM_OK;
    for (unsigned n = 0; n < LEVEL_COUNT && rc == LOAM_OK; n++) {
        const struct level *l = base != NULL ? &base->level[n] : &empty;
        struct placed *r = *removed;
        struct placed *a = *added;
        uint32_t r_count = take_run(removed, p->removed + p->removed_count, ks, n);
        uint32_t a_count = take_run(added, p->added + p->added_count, ks, n);
        if (r_count == 0 && a_count == 0) {
            k->level[n] = *l;
            level_share(l);
        } else {
            rc = merge_level(p, ks, n, l, r, r_count, a, a_count, &k->level[n]);
        }
    }
    if (rc != LOAM_OK || ks_is_empty(k)) {
        struct table *dead = NULL;
        ks_version_release(p->b->alloc, k, &dead);
        k = NULL;
    }
    *out = k;
    return rc;
}

static bool edit_drops(const struct version_edit *e, uint32_t ks)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        if (e->dropped[i] == ks) {
            return true;
        }
    }
    return false;
}

/* Walks base and the changes together, in the order of keyspaces. */
static int plan_keyspaces(struct plan *p, const struct version *base, const struct version_edit *e)
{
    struct placed *r = p->removed;
    struct placed *r_end = p->removed + p->removed_count;
    struct placed *a = p->added;
    struct placed *a_end = p->added + p->added_count;
    uint32_t i = 0;
    while (i < base->ks_count || r < r_end || a < a_end) {
        uint32_t ks = i < base->ks_count ? base->ks[i]->ks : UINT32_MAX;
        ks = r < r_end && r->ks < ks ? r->ks : ks;
        ks = a < a_end && a->ks < ks ? a->ks : ks;
        const struct ks_version *old = NULL;
        if (i < base->ks_count && base->ks[i]->ks == ks) {
            old = base->ks[i++];
        }
        struct ks_version *k = NULL;
        bool changed = (r < r_end && r->ks == ks) || (a < a_end && a->ks == ks);
        if (edit_drops(e, ks)) {
            while (r < r_end && r->ks == ks) {
                r++;
            }
            old = NULL;
            changed = a < a_end && a->ks == ks;
        }
        if (changed) {
            int rc = merge_ks(p, ks, old, &r, &a, &k);
            if (rc != LOAM_OK) {
                return rc;
            }
        } else if (old != NULL) {
            k = (struct ks_version *)(uintptr_t)old;
            k->refs++;
        }
        if (k != NULL) {
            p->ks[p->ks_count++] = k;
        }
    }
    return LOAM_OK;
}

int version_apply(const struct version_build *b, const struct version *base,
                  const struct version_edit *e, struct version **out)
{
    struct plan p = {.b = b, .order = {.build = b}};
    int rc = plan_alloc(&p, e->removed_count, e->added_count, base->ks_count + e->added_count)
                 ? LOAM_OK
                 : no_memory();
    if (rc == LOAM_OK) {
        rc = plan_removals(&p, base, e);
    }
    if (rc == LOAM_OK) {
        rc = plan_additions(&p, e);
    }
    if (rc == LOAM_OK) {
        rc = plan_keyspaces(&p, base, e);
    }
    if (rc == LOAM_OK) {
        rc = plan_finish(&p, base->number + 1, out);
    }
    plan_free(&p, rc != LOAM_OK);
    return rc;
}

int version_of_tables(const struct version_build *b, struct table **tables, size_t count,
                      struct version **out)
{
    if (count > UINT32_MAX / 2) {
        return no_memory();
    }
    struct version *base = version_empty(b);
    if (base == NULL) {
        return no_memory();
    }
    struct plan p = {.b = b, .order = {.build = b}};
    struct version_edit none;
    version_edit_init(&none, b->alloc);
    int rc = plan_alloc(&p, 0, (uint32_t)count, (uint32_t)count) ? LOAM_OK : no_memory();
    if (rc == LOAM_OK) {
        for (uint32_t i = 0; i < count; i++) {
            const struct table_meta *m = &tables[i]->meta;
            p.added[i] = (struct placed){
                .table = tables[i], .number = m->number, .ks = m->ks, .level = m->level};
        }
        p.added_count = (uint32_t)count;
        sort_elements(p.added, count, sizeof *p.added, placed_less, &p.order);
        for (uint32_t i = 0; i < count; i++) {
            tables[i] = p.added[i].table;
        }
        rc = plan_keyspaces(&p, base, &none);
    }
    if (rc == LOAM_OK) {
        rc = plan_finish(&p, 1, out);
    }
    plan_free(&p, rc != LOAM_OK);
    struct table *dead = NULL;
    version_free(base, &dead);
    return rc;
}

int version_reorder(const struct version_build *b, const struct version *base, uint32_t ks,
                    struct version **out)
{
    struct version_edit e;
    version_edit_init(&e, b->alloc);
    const struct ks_version *k = version_ks(base, ks);
    int rc = LOAM_OK;
    /* Every table leaves its place and comes back to it: a move that ends in the right order. */
    for (uint8_t n = 0; k != NULL && n < LEVEL_COUNT; n++) {
        for (uint32_t i = 0; i < k->level[n].count && rc == LOAM_OK; i++) {
            struct table_meta m = k->level[n].tables[i]->meta;
            m.level = n;
            rc = version_edit_remove_table(&e, ks, n, m.number);
            if (rc == LOAM_OK) {
                rc = version_edit_add_table(&e, &m);
            }
        }
    }
    if (rc == LOAM_OK) {
        rc = version_apply(b, base, &e, out);
    }
    version_edit_free(&e);
    return rc;
}
