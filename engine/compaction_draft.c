/* compaction_draft.c - Completes a choice of input tables to a job.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction_draft.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

#define LAST (LEVEL_COUNT - 1)

bool site_init(struct site *s, struct compaction_picker *p, struct version *v,
               const struct ks_version *k, uint64_t oldest)
{
    *s = (struct site){.p = p, .v = v, .k = k, .oldest = oldest};
    s->shape = compaction_shape_of(k, &p->tunables);
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

struct key_range run_range(const struct site *s, struct run in)
{
    struct key_range r = {{NULL, 0}, {NULL, 0}};
    widen(&r, s->cmp, in.tables, in.count);
    return r;
}

uint64_t run_bytes(struct run in)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < in.count; i++) {
        sum += in.tables[i]->meta.size;
    }
    return sum;
}

bool run_is_busy(struct run in)
{
    for (uint32_t i = 0; i < in.count; i++) {
        if (in.tables[i]->compacting) {
            return true;
        }
    }
    return false;
}

struct run site_overlap(const struct site *s, int level, struct key_range r)
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

bool draft_conflicts(const struct site *s, struct key_range r, int level, int output_level)
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
        if (site_overlap(s, n, r).count != 0) {
            return false;
        }
    }
    return true;
}

/* Takes more of the input level when that adds nothing to the output level's share. */
static void expand(const struct site *s, struct draft *d)
{
    if (d->level == 0 || d->output_level != d->level + 1 || d->in[1].count == 0) {
        return;
    }
    struct run more = site_overlap(s, d->level, d->range);
    if (more.count == d->in[0].count || run_is_busy(more) ||
        run_bytes(more) + run_bytes(d->in[1]) > s->p->tunables.max_input_bytes) {
        return;
    }
    struct key_range r = run_range(s, more);
    struct run below = site_overlap(s, d->output_level, r);
    if (below.count == d->in[1].count) {
        d->in[0] = more;
        widen(&d->range, s->cmp, more.tables, more.count);
    }
}

bool draft_complete(const struct site *s, struct draft *d)
{
    d->range = run_range(s, d->in[0]);
    d->in[1] = (struct run){NULL, 0};
    if (d->output_level != d->level) {
        d->in[1] = site_overlap(s, d->output_level, d->range);
        widen(&d->range, s->cmp, d->in[1].tables, d->in[1].count);
        expand(s, d);
    }
    d->grandparents = (struct run){NULL, 0};
    if (d->output_level != 0 && d->output_level < LAST) {
        d->grandparents = site_overlap(s, d->output_level + 1, d->range);
    }
    return !run_is_busy(d->in[0]) && !run_is_busy(d->in[1]) &&
           !draft_conflicts(s, d->range, d->level, d->output_level);
}

bool draft_fits(const struct site *s, const struct draft *d)
{
    bool yes = run_bytes(d->in[0]) + run_bytes(d->in[1]) <= s->p->room;
    s->p->cramped = s->p->cramped || !yes;
    return yes;
}

bool draft_is_dear(const struct site *s, const struct draft *d)
{
    return run_bytes(d->in[1]) / s->p->tunables.multiplier > run_bytes(d->in[0]);
}

static uint64_t run_deletes(struct run in)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < in.count; i++) {
        sum += in.tables[i]->meta.deletes;
    }
    return sum;
}

bool draft_can_move(const struct site *s, const struct draft *d, bool bottommost)
{
    if (d->output_level == d->level || d->in[1].count != 0 ||
        (bottommost && run_deletes(d->in[0]) != 0)) {
        return false;
    }
    for (uint32_t i = 0; i < d->in[0].count; i++) {
        struct run one = {&d->in[0].tables[i], 1};
        if (d->output_level < LAST &&
            run_bytes(site_overlap(s, d->output_level + 1, run_range(s, one))) >
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

int draft_commit(const struct site *s, const struct draft *d, struct compaction **out)
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
    c->is_move = draft_can_move(s, d, c->bottommost);
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

int draft_try(const struct site *s, struct draft *d, struct compaction **c)
{
    return draft_complete(s, d) ? draft_commit(s, d, c) : LOAM_CONFLICT;
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
