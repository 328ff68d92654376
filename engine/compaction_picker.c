/* compaction_picker.c - Goes through what is due, the most urgent first.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction_picker.h"

#include <assert.h>

#include "arena/status.h"
#include "engine/compaction_draft.h"

#include "arena/poison.h"

#define LAST            (LEVEL_COUNT - 1)
#define CANDIDATES_MAX  16  /* levels tried at one pick, the most urgent first */
#define L0_DISJOINT_MAX 64u /* level-0 tables among which single ones are looked for */
#define SEEK_BYTES      4096u /* read by a seek of each table of level 0 */
#define BY_HAND         UINT64_MAX /* share of a rewrite: any part is worth it, whatever the space */

void compaction_picker_init(struct compaction_picker *p, struct alloc *a,
                            const struct compaction_tunables *t, struct version_order order)
{
    *p = (struct compaction_picker){
        .alloc = a, .tunables = *t, .order = order, .room = UINT64_MAX};
    assert(t->l0_trigger_files >= 2 && t->multiplier >= 2 && t->base_level_bytes != 0);
}

void compaction_picker_destroy(struct compaction_picker *p)
{
    assert(p->running == NULL);
    (void)p;
}

/* ---- level 0 --------------------------------------------------------------------------------- */

/* Whether the table overlaps no other of level 0 and nothing down to its output level, and holds no
 * deletes: it can move by itself. */
static bool stands_alone(const struct site *s, uint32_t i, int out)
{
    const struct level *l = &s->k->level[0];
    const struct table_meta *m = &l->tables[i]->meta;
    for (uint32_t j = 0; j < l->count; j++) {
        if (j != i && table_overlaps(l->tables[j], s->cmp, m->smallest, m->largest)) {
            return false;
        }
    }
    struct key_range r = {m->smallest, m->largest};
    return m->deletes == 0 && site_overlap(s, out, r).count == 0;
}

/* Moves those tables of level 0 that stand alone: loading in key order rewrites nothing. */
static int pick_l0_moves(const struct site *s, int out, struct compaction **c)
{
    const struct level *l = &s->k->level[0];
    struct table *alone[L0_DISJOINT_MAX];
    struct draft d = {.level = 0, .output_level = out, .in = {{alone, 0}, {NULL, 0}}};
    if (l->count > L0_DISJOINT_MAX) {
        return LOAM_NOTFOUND;
    }
    for (uint32_t i = 0; i < l->count; i++) {
        if (stands_alone(s, i, out)) {
            alone[d.in[0].count++] = l->tables[i];
        }
    }
    if (d.in[0].count == 0) {
        return LOAM_NOTFOUND;
    }
    /* The range of several may span other tables: then each goes alone. */
    if (!draft_complete(s, &d) || d.in[1].count != 0 || !draft_can_move(s, &d, false)) {
        d.in[0].count = 1;
        if (!draft_complete(s, &d) || d.in[1].count != 0 || !draft_can_move(s, &d, false)) {
            return LOAM_NOTFOUND;
        }
    }
    return draft_commit(s, &d, c);
}

/* The newest tables, as many as make the merge cheapest for each table that goes away. */
static struct run cheapest_run(const struct level *l)
{
    uint64_t bytes = l->tables[0]->meta.size;
    uint64_t best = UINT64_MAX;
    uint32_t n = 1;
    for (; n < l->count; n++) {
        bytes += l->tables[n]->meta.size;
        uint64_t each = bytes / n;
        if (n >= L0_RUN_MIN && each > best) {
            break;
        }
        best = each;
    }
    return (struct run){l->tables, n};
}

/* thrifty: rather merge inside level 0 than rewrite a much larger part of the output level. */
static int pick_l0(const struct site *s, bool thrifty, struct compaction **c)
{
    const struct level *l = &s->k->level[0];
    int out = compaction_output_level(s->k, &s->shape, 0);
    struct draft d = {.level = 0, .output_level = out, .in = {{l->tables, l->count}, {NULL, 0}}};
    if (run_is_busy(d.in[0])) {
        return LOAM_CONFLICT;
    }
    int rc = pick_l0_moves(s, out, c);
    if (rc != LOAM_NOTFOUND) {
        return rc;
    }
    if (!draft_complete(s, &d)) {
        return LOAM_CONFLICT;
    }
    if (!draft_fits(s, &d)) {
        return compaction_pick_part_of_l0(s, out, c);
    }
    if (thrifty && l->count >= L0_RUN_MIN && draft_is_dear(s, &d)) {
        d.output_level = 0;
        d.in[0] = cheapest_run(l);
        return draft_try(s, &d, c);
    }
    return draft_commit(s, &d, c);
}

/* ---- levels 1 and deeper --------------------------------------------------------------------- */

/* The table whose merge costs least a byte of its own, among those no job stands in the way of;
 * tables of mostly deletes before all others. */
static int pick_table(const struct site *s, int level, struct compaction **c)
{
    const struct level *l = &s->k->level[level];
    int out = compaction_output_level(s->k, &s->shape, level);
    double best = -1;
    struct draft chosen = {0};
    for (uint32_t i = 0; i < l->count; i++) {
        struct draft d = {
            .level = level, .output_level = out, .in = {{&l->tables[i], 1}, {NULL, 0}}};
        if (l->tables[i]->compacting || !draft_complete(s, &d) || !draft_fits(s, &d)) {
            continue;
        }
        double value =
            (double)run_bytes(d.in[0]) / (double)(run_bytes(d.in[0]) + run_bytes(d.in[1]));
        value += table_dense_deletes(l->tables[i]) ? 1 : 0;
        if (value > best) {
            best = value;
            chosen = d;
        }
    }
    return best < 0 ? LOAM_CONFLICT : draft_commit(s, &chosen, c);
}

/* What rewriting the table leaves of it, by a guess: deletes weigh little. */
static bool rewrite_fits(const struct site *s, const struct table *t)
{
    double older = (double)t->meta.older / (double)t->meta.entries;
    bool yes = (double)t->meta.size * (1.0 - older) <= (double)s->p->room;
    s->p->cramped = s->p->cramped || !yes;
    return yes;
}

/* Rewrites one table of the last level whose deletes and older versions, at least 1 in `share` entries, can
 * go. */
static int pick_rewrite(const struct site *s, struct run among, uint64_t share,
                        struct compaction **c)
{
    bool busy = false;
    for (uint32_t i = 0; i < among.count; i++) {
        const struct table *t = among.tables[i];
        if (!compaction_can_shrink(t, s->oldest) || table_garbage(t) < t->meta.entries / share ||
            (share != BY_HAND && !rewrite_fits(s, t))) {
            continue;
        }
        struct draft d = {
            .level = LAST, .output_level = LAST, .in = {{&among.tables[i], 1}, {NULL, 0}}};
        int rc = draft_try(s, &d, c);
        if (rc != LOAM_CONFLICT) {
            return rc;
        }
        busy = true;
    }
    return busy ? LOAM_CONFLICT : LOAM_NOTFOUND;
}

static struct run whole_level(const struct site *s, int level)
{
    return (struct run){s->k->level[level].tables, s->k->level[level].count};
}

static int pick_level(const struct site *s, int level, bool thrifty, struct compaction **c)
{
    if (level == 0) {
        return pick_l0(s, thrifty, c);
    }
    return level == LAST ? pick_rewrite(s, whole_level(s, LAST), 2, c) : pick_table(s, level, c);
}

/* ---- what is due ----------------------------------------------------------------------------- */

struct candidate {
    double score;
    const struct ks_version *k;
    int level;
};

/* Keeps the list sorted, the largest score first. */
static void offer(struct candidate *list, uint32_t *count, struct candidate x)
{
    uint32_t i = *count;
    if (i == CANDIDATES_MAX) {
        if (list[--i].score >= x.score) {
            return;
        }
    } else {
        (*count)++;
    }
    for (; i > 0 && list[i - 1].score < x.score; i--) {
        list[i] = list[i - 1];
    }
    list[i] = x;
}

int compaction_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                    struct compaction **c)
{
    struct candidate list[CANDIDATES_MAX];
    uint32_t count = 0;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        struct compaction_shape s = compaction_shape_of(v->ks[i], &p->tunables);
        for (int n = 0; n < LEVEL_COUNT; n++) {
            double score = compaction_level_score(v->ks[i], &s, &p->tunables, n, oldest);
            if (score >= 1) {
                offer(list, &count, (struct candidate){score, v->ks[i], n});
            }
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        struct site s;
        int rc = site_init(&s, p, v, list[i].k, oldest) ? pick_level(&s, list[i].level, true, c)
                                                        : LOAM_NOTFOUND;
        if (rc != LOAM_CONFLICT && rc != LOAM_NOTFOUND) {
            return rc;
        }
    }
    return LOAM_NOTFOUND;
}

int compaction_idle_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         struct compaction **c)
{
    int rc = compaction_pick(p, v, oldest, c);
    for (uint32_t i = 0; rc == LOAM_NOTFOUND && i < v->ks_count; i++) {
        struct site s;
        if (!site_init(&s, p, v, v->ks[i], oldest)) {
            continue;
        }
        bool wastes = compaction_wastes_space(s.k, p->tunables.space_percent);
        for (int n = 0; n < LAST; n++) {
            bool due = wastes || (n == 0 && s.k->level[0].count >= p->tunables.l0_idle_files);
            if (due && s.k->level[n].count != 0) {
                rc = pick_level(&s, n, !wastes, c);
                rc = rc == LOAM_CONFLICT ? LOAM_NOTFOUND : rc;
                break; /* the upper levels go first */
            }
        }
        if (rc == LOAM_NOTFOUND) {
            rc = pick_rewrite(&s, whole_level(&s, LAST), 8, c);
            rc = rc == LOAM_CONFLICT ? LOAM_NOTFOUND : rc;
        }
    }
    return rc;
}

/* Bytes of reading that the seeks so far have cost for want of a merge of level 0: about a block of each
 * table. */
static uint64_t bytes_sought(const struct level *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        /* relaxed: a count that grows slowly. */
        sum += atom_load(&l->tables[i]->seeks, relaxed) * SEEK_BYTES;
    }
    return sum;
}

int compaction_rest_pick(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         struct compaction **c)
{
    for (uint32_t i = 0; i < v->ks_count; i++) {
        struct site s;
        const struct level *l = &v->ks[i]->level[0];
        if (l->count == 0 || !site_init(&s, p, v, v->ks[i], oldest)) {
            continue;
        }
        uint64_t paid = l->bytes * (p->tunables.multiplier + 1), sought = bytes_sought(l);
        paid = sought > paid ? sought : paid;
        struct draft d = {.level = 0,
                          .output_level = compaction_output_level(s.k, &s.shape, 0),
                          .in = {{l->tables, l->count}, {NULL, 0}}};
        if (draft_complete(&s, &d)) {
            uint64_t cost = run_bytes(d.in[0]) + run_bytes(d.in[1]);
            if (cost <= paid && draft_fits(&s, &d)) {
                return draft_commit(&s, &d, c);
            }
        }
    }
    return LOAM_NOTFOUND;
}

void compaction_spend_seeks(const struct compaction *c)
{
    for (uint32_t i = 0; i < c->input_count[0]; i++) {
        atom_store(&c->inputs[0][i]->seeks, 0, relaxed); /* relaxed: as in bytes_sought() */
    }
}

/* ---- by hand --------------------------------------------------------------------------------- */

/* All tables of level 0 that overlap the range, and those that overlap them, and so on. Younger ones may stay
 * above. */
static int pick_range_l0(const struct site *s, const struct compaction_range *range, struct compaction **c)
{
    const struct level *l = &s->k->level[0];
    struct key_range r = range->keys;
    size_t bytes = l->count * sizeof(struct table *);
    struct table **chosen = alloc_get(s->p->alloc, MEM_VERSION, bytes);
    if (chosen == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a compaction");
    }
    uint32_t n = 0;
    for (uint32_t before = UINT32_MAX; before != n;) {
        before = n;
        n = 0;
        for (uint32_t i = 0; i < l->count; i++) {
            if (l->tables[i]->meta.max_seq <= range->upto &&
                table_overlaps(l->tables[i], s->cmp, r.lo, r.hi)) {
                chosen[n++] = l->tables[i];
            }
        }
        if (n != 0) { /* an open side stays open */
            struct key_range hull = run_range(s, (struct run){chosen, n});
            r.lo = r.lo.data != NULL && key_compare(s->cmp, hull.lo, r.lo) < 0 ? hull.lo : r.lo;
            r.hi = r.hi.data != NULL && key_compare(s->cmp, hull.hi, r.hi) > 0 ? hull.hi : r.hi;
        }
    }
    struct draft d = {.level = 0, .output_level = 1, .in = {{chosen, n}, {NULL, 0}}};
    struct key_range hull = run_range(s, d.in[0]);
    while (d.output_level < LAST && site_overlap(s, d.output_level, hull).count == 0) {
        d.output_level++;
    }
    int rc = n == 0 ? LOAM_NOTFOUND : draft_try(s, &d, c);
    alloc_put(s->p->alloc, MEM_VERSION, chosen, bytes);
    return rc;
}

/* The first tables of the level in the range, as many as one job may take. */
static int pick_range_deep(const struct site *s, struct key_range r, int level,
                           struct compaction **c)
{
    struct run all = site_overlap(s, level, r);
    if (all.count == 0) {
        return LOAM_NOTFOUND;
    }
    struct draft d = {.level = level, .in = {{all.tables, 1}, {NULL, 0}}};
    uint64_t bytes = all.tables[0]->meta.size;
    while (d.in[0].count < all.count) {
        bytes += all.tables[d.in[0].count]->meta.size;
        if (bytes > s->p->tunables.max_input_bytes) {
            break;
        }
        d.in[0].count++;
    }
    d.output_level = level + 1;
    struct key_range hull = run_range(s, d.in[0]);
    while (d.output_level < LAST && site_overlap(s, d.output_level, hull).count == 0) {
        d.output_level++;
    }
    return draft_try(s, &d, c);
}

int compaction_pick_range(struct compaction_picker *p, struct version *v,
                          const struct compaction_range *range, int level, uint64_t oldest,
                          struct compaction **c)
{
    assert(level >= 0 && level < LEVEL_COUNT);
    struct site s;
    const struct ks_version *k = version_ks(v, range->ks);
    if (k == NULL || k->level[level].count == 0 || !site_init(&s, p, v, k, oldest)) {
        return LOAM_NOTFOUND;
    }
    if (level == 0) {
        return pick_range_l0(&s, range, c);
    }
    return level == LAST ? pick_rewrite(&s, site_overlap(&s, LAST, range->keys), BY_HAND, c)
                         : pick_range_deep(&s, range->keys, level, c);
}
