/* compaction_picker.c - Scores levels and assembles jobs.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction_picker.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"
#include "engine/sort.h"

#include "arena/poison.h"

#define LAST            (LEVEL_COUNT - 1)
#define CANDIDATES_MAX  16  /* levels tried at one pick, the most urgent first */
#define L0_RUN_MIN      4u  /* tables worth merging inside level 0 */
#define L0_DISJOINT_MAX 64u /* level-0 tables among which single ones are looked for */
#define DRAIN_SCORE     1.5 /* of a level that should not be there */

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static uint64_t clamp(uint64_t v, uint64_t lo, uint64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void compaction_tunables_init(struct compaction_tunables *t, uint64_t memtable_bytes)
{
    *t = (struct compaction_tunables){
        .l0_trigger_files = 12, .l0_idle_files = 4, .multiplier = 10, .space_percent = 25};
    t->target_file_bytes = clamp(memtable_bytes / 2, 256 * KIB, 64 * MIB);
    t->base_level_bytes = clamp(t->l0_trigger_files * memtable_bytes, MIB, UINT64_MAX / 256);
    t->max_input_bytes = 25 * t->target_file_bytes;
    t->grandparent_bytes = 10 * t->target_file_bytes;
}

void compaction_picker_init(struct compaction_picker *p, struct alloc *a,
                            const struct compaction_tunables *t, struct version_order order)
{
    *p = (struct compaction_picker){.alloc = a, .tunables = *t, .order = order};
    assert(t->l0_trigger_files >= 2 && t->multiplier >= 2 && t->base_level_bytes != 0);
}

void compaction_picker_destroy(struct compaction_picker *p)
{
    assert(p->running == NULL);
    (void)p;
}

/* ---- shape ----------------------------------------------------------------------------------- */

struct shape {
    int base;                     /* level that level 0 is merged into */
    uint64_t target[LEVEL_COUNT]; /* bytes; 0: the level should be empty */
};

static struct shape shape_of(const struct ks_version *k, const struct compaction_tunables *t)
{
    struct shape s = {.base = LAST};
    uint64_t bytes = t->base_level_bytes;
    for (int n = 1; n < LEVEL_COUNT; n++) {
        bytes = k->level[n].bytes > bytes ? k->level[n].bytes : bytes;
    }
    s.target[LAST] = bytes;
    while (s.base > 1 && bytes / t->multiplier >= t->base_level_bytes) {
        bytes /= t->multiplier;
        s.target[--s.base] = bytes;
    }
    return s;
}

/* Where tables of `level` go: the next level that holds something, at most the base level; from the
 * base level on, the next one. */
static int output_of(const struct ks_version *k, const struct shape *s, int level)
{
    int out = level + 1;
    while (out < s->base && k->level[out].count == 0) {
        out++;
    }
    return out;
}

static bool droppable_deletes(const struct table *t, uint64_t oldest)
{
    return t->meta.deletes != 0 && t->meta.max_seq <= oldest;
}

/* Bytes of the level's tables that no job has, those of mostly deletes counted twice. */
static uint64_t urgent_bytes(const struct level *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        const struct table *t = l->tables[i];
        if (!t->compacting) {
            sum += table_dense_deletes(t) ? 2 * t->meta.size : t->meta.size;
        }
    }
    return sum;
}

static double level_score(const struct ks_version *k, const struct shape *s,
                          const struct compaction_tunables *t, int level, uint64_t oldest)
{
    const struct level *l = &k->level[level];
    if (l->count == 0) {
        return 0;
    }
    if (level == 0) {
        double files = (double)l->count / t->l0_trigger_files;
        double bytes = (double)l->bytes / (double)t->base_level_bytes;
        return files > bytes ? files : bytes;
    }
    if (level < LAST) {
        uint64_t bytes = urgent_bytes(l);
        if (s->target[level] == 0) {
            return bytes != 0 ? DRAIN_SCORE : 0;
        }
        return (double)bytes / (double)s->target[level];
    }
    for (uint32_t i = 0; i < l->count; i++) {
        const struct table *x = l->tables[i];
        if (!x->compacting && table_dense_deletes(x) && droppable_deletes(x, oldest)) {
            return 1;
        }
    }
    return 0;
}

/* ---- debt ------------------------------------------------------------------------------------ */

/* What rewriting `over` bytes out of `bytes` costs when `next` bytes lie below them all. */
static double cost_of(double over, double bytes, double next, const struct compaction_tunables *t)
{
    double ratio = bytes > 0 ? next / bytes : 0;
    double most = 2.0 * t->multiplier; /* a small level under a huge one is merged in part */
    return over * (1 + (ratio < most ? ratio : most));
}

uint64_t compaction_debt_bytes_ks(const struct ks_version *k, const struct compaction_tunables *t)
{
    struct shape s = shape_of(k, t);
    double debt = 0;
    double arriving[LEVEL_COUNT + 1] = {0}; /* from the levels above, once they are in shape */
    for (int n = 0; n < LAST; n++) {
        double bytes = (double)k->level[n].bytes + arriving[n];
        double target = n == 0 ? (double)t->base_level_bytes : (double)s.target[n];
        if (bytes <= target) {
            continue;
        }
        int out = output_of(k, &s, n);
        debt += cost_of(bytes - target, bytes, (double)k->level[out].bytes, t);
        arriving[out] += bytes - target;
    }
    return (uint64_t)debt;
}

uint64_t compaction_debt_bytes(const struct version *v, const struct compaction_tunables *t)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        sum += compaction_debt_bytes_ks(v->ks[i], t);
    }
    return sum;
}

/* ---- assembling a job ------------------------------------------------------------------------ */

/* One keyspace of the version being picked from. */
struct site {
    struct compaction_picker *p;
    struct version *v;
    const struct ks_version *k;
    const loam_comparator *cmp;
    struct shape shape;
    uint64_t oldest;
};

/* Tables of one level for inputs[0], as a run of its array. */
struct run {
    struct table *const *tables;
    uint32_t count;
};

static bool site_init(struct site *s, struct compaction_picker *p, struct version *v,
                      const struct ks_version *k, uint64_t oldest)
{
    *s = (struct site){.p = p, .v = v, .k = k, .oldest = oldest};
    s->shape = shape_of(k, &p->tunables);
    return p->order.find(p->order.ctx, k->ks, &s->cmp);
}

static void widen(struct key_range *r, const loam_comparator *cmp, struct table *const *tables,
                  uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct table_meta *m = &tables[i]->meta;
        if (r->lo.data == NULL || key_compare(cmp, m->smallest, r->lo) < 0) {
            r->lo = m->smallest;
        }
        if (r->hi.data == NULL || key_compare(cmp, m->largest, r->hi) > 0) {
            r->hi = m->largest;
        }
    }
}

static struct key_range range_of(const struct site *s, struct run in)
{
    struct key_range r = {{NULL, 0}, {NULL, 0}};
    widen(&r, s->cmp, in.tables, in.count);
    return r;
}

static uint64_t run_bytes(struct run in)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < in.count; i++) {
        sum += in.tables[i]->meta.size;
    }
    return sum;
}

static bool run_is_busy(struct run in)
{
    for (uint32_t i = 0; i < in.count; i++) {
        if (in.tables[i]->compacting) {
            return true;
        }
    }
    return false;
}

/* Tables of level 1 or deeper that overlap the range. */
static struct run overlap(const struct site *s, int level, struct key_range r)
{
    uint32_t first;
    uint32_t end;
    assert(level > 0 && level < LEVEL_COUNT);
    const struct level *l = &s->k->level[level];
    if (l->count == 0 || !level_overlaps(l, s->cmp, r.lo, r.hi, &first, &end)) {
        return (struct run){NULL, 0};
    }
    return (struct run){l->tables + first, end - first};
}

/* Whether a running job of the keyspace overlaps both the range and the levels. */
static bool conflicts(const struct site *s, struct key_range r, int level, int output_level)
{
    for (const struct compaction *c = s->p->running; c != NULL; c = c->next) {
        if (c->ks == s->k->ks && c->level <= output_level && level <= c->output_level &&
            key_compare(s->cmp, c->range.lo, r.hi) <= 0 &&
            key_compare(s->cmp, r.lo, c->range.hi) <= 0) {
            return true;
        }
    }
    return false;
}

static bool is_bottommost(const struct site *s, struct key_range r, int output_level)
{
    if (output_level == 0) {
        return false; /* older tables of level 0 may lie under the run */
    }
    for (int n = output_level + 1; n < LEVEL_COUNT; n++) {
        if (overlap(s, n, r).count != 0) {
            return false;
        }
    }
    return true;
}

/* What a job is made of before it is allocated. */
struct draft {
    int level, output_level;
    struct run in[2], grandparents;
    struct key_range range;
};

/* Takes more of the input level when that adds nothing to the output level's share. */
static void expand(const struct site *s, struct draft *d)
{
    if (d->level == 0 || d->output_level != d->level + 1 || d->in[1].count == 0) {
        return;
    }
    struct run more = overlap(s, d->level, d->range);
    if (more.count == d->in[0].count || run_is_busy(more) ||
        run_bytes(more) + run_bytes(d->in[1]) > s->p->tunables.max_input_bytes) {
        return;
    }
    struct key_range r = range_of(s, more);
    struct run below = overlap(s, d->output_level, r);
    if (below.count == d->in[1].count) {
        d->in[0] = more;
        widen(&d->range, s->cmp, more.tables, more.count);
    }
}

/* Fills in what follows from level, output_level and in[0]. False: it overlaps a running job. */
static bool draft_complete(const struct site *s, struct draft *d)
{
    d->range = range_of(s, d->in[0]);
    d->in[1] = (struct run){NULL, 0};
    if (d->output_level != d->level) {
        d->in[1] = overlap(s, d->output_level, d->range);
        widen(&d->range, s->cmp, d->in[1].tables, d->in[1].count);
        expand(s, d);
    }
    d->grandparents = (struct run){NULL, 0};
    if (d->output_level != 0 && d->output_level < LAST) {
        d->grandparents = overlap(s, d->output_level + 1, d->range);
    }
    return !run_is_busy(d->in[0]) && !run_is_busy(d->in[1]) &&
           !conflicts(s, d->range, d->level, d->output_level);
}

static uint64_t run_deletes(struct run in)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < in.count; i++) {
        sum += in.tables[i]->meta.deletes;
    }
    return sum;
}

/* A job may be a move when nothing is merged, no delete can go, and no moved table will be dear to
 * merge further down. */
static bool can_move(const struct site *s, const struct draft *d, bool bottommost)
{
    if (d->output_level == d->level || d->in[1].count != 0 ||
        (bottommost && run_deletes(d->in[0]) != 0)) {
        return false;
    }
    for (uint32_t i = 0; i < d->in[0].count; i++) {
        struct run one = {&d->in[0].tables[i], 1};
        if (d->output_level < LAST && run_bytes(overlap(s, d->output_level + 1, range_of(s, one))) >
                                          s->p->tunables.grandparent_bytes) {
            return false;
        }
        for (uint32_t j = 0; d->level == 0 && j < i; j++) {
            if (table_overlaps(d->in[0].tables[j], s->cmp, one.tables[0]->meta.smallest,
                               one.tables[0]->meta.largest)) {
                return false;
            }
        }
    }
    return true;
}

static struct table **copy_run(struct table **to, struct run from, struct table ***field,
                               uint32_t *count)
{
    *field = to;
    *count = from.count;
    if (from.count != 0) {
        memcpy(to, from.tables, from.count * sizeof(struct table *));
    }
    return to + from.count;
}

static void flag_inputs(struct compaction *c, bool compacting)
{
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < c->input_count[side]; i++) {
            assert(c->inputs[side][i]->compacting != compacting);
            c->inputs[side][i]->compacting = compacting;
        }
    }
}

/* Makes the job, flags its tables and lists it as running. */
static int draft_commit(const struct site *s, const struct draft *d, struct compaction **out)
{
    struct compaction_picker *p = s->p;
    size_t tables = (size_t)d->in[0].count + d->in[1].count + d->grandparents.count;
    size_t bytes = sizeof(struct compaction) + tables * sizeof(struct table *);
    struct compaction *c = alloc_zero(p->alloc, MEM_VERSION, bytes);
    if (c == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a compaction");
    }
    c->ks = s->k->ks;
    c->level = d->level;
    c->output_level = d->output_level;
    c->input_bytes = run_bytes(d->in[0]) + run_bytes(d->in[1]);
    c->bottommost = is_bottommost(s, d->range, d->output_level);
    c->is_move = can_move(s, d, c->bottommost);
    c->target_file_bytes = d->output_level == 0 ? UINT64_MAX : p->tunables.target_file_bytes;
    c->grandparent_bytes = p->tunables.grandparent_bytes;
    c->range = d->range;
    c->cmp = s->cmp;
    c->version = s->v;
    c->alloc = p->alloc;
    c->bytes = bytes;
    struct table **to = (struct table **)(c + 1);
    to = copy_run(to, d->in[0], &c->inputs[0], &c->input_count[0]);
    to = copy_run(to, d->in[1], &c->inputs[1], &c->input_count[1]);
    copy_run(to, d->grandparents, &c->grandparents, &c->grandparent_count);
    version_ref(s->v);
    flag_inputs(c, true);
    c->next = p->running;
    c->link = &p->running;
    if (c->next != NULL) {
        c->next->link = &c->next;
    }
    p->running = c;
    *out = c;
    return LOAM_OK;
}

void compaction_free(struct compaction_picker *p, struct compaction *c)
{
    (void)p;
    if (c == NULL) {
        return;
    }
    flag_inputs(c, false);
    *c->link = c->next;
    if (c->next != NULL) {
        c->next->link = c->link;
    }
    version_unref(c->version);
    alloc_put(c->alloc, MEM_VERSION, c, c->bytes);
}

static int try_draft(const struct site *s, struct draft *d, struct compaction **c)
{
    return draft_complete(s, d) ? draft_commit(s, d, c) : LOAM_CONFLICT;
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
    return m->deletes == 0 && overlap(s, out, r).count == 0;
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
    if (!draft_complete(s, &d) || d.in[1].count != 0 || !can_move(s, &d, false)) {
        d.in[0].count = 1;
        if (!draft_complete(s, &d) || d.in[1].count != 0 || !can_move(s, &d, false)) {
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
    int out = output_of(s->k, &s->shape, 0);
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
    if (thrifty && l->count >= L0_RUN_MIN &&
        run_bytes(d.in[1]) / s->p->tunables.multiplier > l->bytes) {
        d.output_level = 0;
        d.in[0] = cheapest_run(l);
        return try_draft(s, &d, c);
    }
    return draft_commit(s, &d, c);
}

/* ---- levels 1 and deeper --------------------------------------------------------------------- */

/* The table whose merge costs least a byte of its own, among those no job stands in the way of;
 * tables of mostly deletes before all others. */
static int pick_table(const struct site *s, int level, struct compaction **c)
{
    const struct level *l = &s->k->level[level];
    int out = output_of(s->k, &s->shape, level);
    double best = -1;
    struct draft chosen = {0};
    for (uint32_t i = 0; i < l->count; i++) {
        struct draft d = {
            .level = level, .output_level = out, .in = {{&l->tables[i], 1}, {NULL, 0}}};
        if (l->tables[i]->compacting || !draft_complete(s, &d)) {
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

/* Rewrites one table of the last level whose deletes, at least 1 in `share` entries, can go. */
static int pick_rewrite(const struct site *s, struct run among, uint64_t share,
                        struct compaction **c)
{
    bool busy = false;
    for (uint32_t i = 0; i < among.count; i++) {
        const struct table *t = among.tables[i];
        if (!droppable_deletes(t, s->oldest) || t->meta.deletes < t->meta.entries / share) {
            continue;
        }
        struct draft d = {
            .level = LAST, .output_level = LAST, .in = {{&among.tables[i], 1}, {NULL, 0}}};
        int rc = try_draft(s, &d, c);
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
        struct shape s = shape_of(v->ks[i], &p->tunables);
        for (int n = 0; n < LEVEL_COUNT; n++) {
            double score = level_score(v->ks[i], &s, &p->tunables, n, oldest);
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

/* Whether what lies above the last level may hide so much of it that the files are larger than
 * (100 + percent) % of what is live. Each entry above is taken to hide one below it. */
static bool wastes_space(const struct ks_version *k, uint32_t percent)
{
    const struct level *last = &k->level[LAST];
    double bytes = 0;
    double puts = 0;
    double entries = 0;
    for (int n = 0; n < LAST; n++) {
        const struct level *l = &k->level[n];
        bytes += (double)l->bytes;
        entries += (double)l->entries;
        if (l->entries != 0) {
            puts += (double)l->bytes * (double)(l->entries - l->deletes) / (double)l->entries;
        }
    }
    if (bytes <= 0 || last->count == 0) {
        return bytes > 0;
    }
    double hidden = entries < (double)last->entries
                        ? (double)last->bytes * entries / (double)last->entries
                        : (double)last->bytes;
    double live = (double)last->bytes - hidden + puts;
    return ((double)last->bytes + bytes) * 100 > live * (100 + percent);
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
        bool wastes = wastes_space(s.k, p->tunables.space_percent);
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

/* ---- by hand --------------------------------------------------------------------------------- */

/* All tables of level 0 that overlap the range, and those that overlap them, and so on. */
static int pick_range_l0(const struct site *s, struct key_range r, struct compaction **c)
{
    const struct level *l = &s->k->level[0];
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
            if (table_overlaps(l->tables[i], s->cmp, r.lo, r.hi)) {
                chosen[n++] = l->tables[i];
            }
        }
        if (n != 0) { /* an open side stays open */
            struct key_range hull = range_of(s, (struct run){chosen, n});
            r.lo = r.lo.data != NULL && key_compare(s->cmp, hull.lo, r.lo) < 0 ? hull.lo : r.lo;
            r.hi = r.hi.data != NULL && key_compare(s->cmp, hull.hi, r.hi) > 0 ? hull.hi : r.hi;
        }
    }
    struct draft d = {.level = 0, .output_level = 1, .in = {{chosen, n}, {NULL, 0}}};
    struct key_range hull = range_of(s, d.in[0]);
    while (d.output_level < LAST && overlap(s, d.output_level, hull).count == 0) {
        d.output_level++;
    }
    int rc = n == 0 ? LOAM_NOTFOUND : try_draft(s, &d, c);
    alloc_put(s->p->alloc, MEM_VERSION, chosen, bytes);
    return rc;
}

/* The first tables of the level in the range, as many as one job may take. */
static int pick_range_deep(const struct site *s, struct key_range r, int level,
                           struct compaction **c)
{
    struct run all = overlap(s, level, r);
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
    struct key_range hull = range_of(s, d.in[0]);
    while (d.output_level < LAST && overlap(s, d.output_level, hull).count == 0) {
        d.output_level++;
    }
    return try_draft(s, &d, c);
}

int compaction_pick_range(struct compaction_picker *p, struct version *v, uint32_t ks,
                          struct key_range range, int level, uint64_t oldest, struct compaction **c)
{
    assert(level >= 0 && level < LEVEL_COUNT);
    struct site s;
    const struct ks_version *k = version_ks(v, ks);
    if (k == NULL || k->level[level].count == 0 || !site_init(&s, p, v, k, oldest)) {
        return LOAM_NOTFOUND;
    }
    if (level == 0) {
        return pick_range_l0(&s, range, c);
    }
    return level == LAST ? pick_rewrite(&s, overlap(&s, LAST, range), UINT64_MAX, c)
                         : pick_range_deep(&s, range, level, c);
}

/* ---- while a job runs ------------------------------------------------------------------------ */

bool compaction_split_before(const struct compaction *c, struct compaction_split_state *s,
                             loam_slice key, uint64_t output_bytes)
{
    while (s->grandparent < c->grandparent_count) {
        const struct table_meta *m = &c->grandparents[s->grandparent]->meta;
        if (key_compare(c->cmp, key, m->largest) <= 0) {
            break;
        }
        s->overlap += s->any ? m->size : 0; /* those before the first key do not count */
        s->grandparent++;
    }
    s->any = true;
    if (output_bytes == 0) {
        s->overlap = 0;
        return false;
    }
    if (output_bytes < c->target_file_bytes && s->overlap <= c->grandparent_bytes) {
        return false;
    }
    s->overlap = 0;
    return true;
}

int compaction_remove_inputs(const struct compaction *c, struct version_edit *e)
{
    int rc = LOAM_OK;
    for (int side = 0; side < 2; side++) {
        uint8_t level = (uint8_t)(side == 0 ? c->level : c->output_level);
        for (uint32_t i = 0; i < c->input_count[side] && rc == LOAM_OK; i++) {
            rc = version_edit_remove_table(e, c->ks, level, c->inputs[side][i]->meta.number);
        }
    }
    return rc;
}

int compaction_move_edit(const struct compaction *c, struct version_edit *e)
{
    assert(c->is_move && c->input_count[1] == 0);
    int rc = compaction_remove_inputs(c, e);
    for (uint32_t i = 0; i < c->input_count[0] && rc == LOAM_OK; i++) {
        struct table_meta m = c->inputs[0][i]->meta;
        m.level = (uint8_t)c->output_level;
        rc = version_edit_add_table(e, &m);
    }
    return rc;
}
