/* compaction_trim.c - Picks the smallest merges that free space on a full disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A merge needs space for all its outputs before its inputs go. A trim rewrites a single table without
 * what newer tables hide in it; those are only read and stay as they are. So it never needs more space
 * than the one table takes, and once every table has been trimmed nothing is left that nobody can read.
 */
#include "engine/compaction_draft.h"

#include "arena/poison.h"

/* Puts are worth a trim from this part of all bytes on: it may rewrite them all. So at most this part of
 * the space stays wasted. */
#define PUTS_SHARE 16u

/* What a trim of a table would be. */
struct trim {
    struct draft draft;
    uint64_t newest; /* number in what lies above */
    uint64_t gain;   /* bytes, by a guess; 0: it is not worth while */
};

/* Whether a trim has taken out of t what u above it hides. What was left because somebody could read it is worth
 * another look once u is older than all readers: then nobody can. */
static bool has_applied(const struct table *u, const struct table *t, uint64_t oldest)
{
    uint64_t newest = u->meta.max_seq;
    /* relaxed: a trim too many at worst. */
    return newest <= atom_load(&t->trimmed, relaxed) &&
           (newest <= atom_load(&t->trimmed_for, relaxed) || newest > oldest);
}

/* What puts of u, a table of level n, hide of anything below it, on the average: as much as u is of all that
 * lies where u does. Tables of level 0 lie everywhere. */
static double hidden_by(const struct site *s, const struct table *u, int n)
{
    struct table *const one[] = {(struct table *)u};
    struct key_range r = run_range(s, (struct run){one, 1});
    uint64_t around = n == 0 ? version_ks_bytes(s->k) : 0;
    for (int k = 1; n != 0 && k < LEVEL_COUNT; k++) {
        around += run_bytes(site_overlap(s, k, r));
    }
    return (double)u->meta.size / (double)(around + 1);
}

/* What is known of the tables of draft.in[0], which lie above t, and no trim has applied to t. */
static void weigh(const struct site *s, const struct table *t, struct trim *d)
{
    double share = 0;
    bool deletes = false;
    d->newest = 0;
    for (uint32_t i = 0; i < d->draft.in[0].count; i++) {
        const struct table *u = d->draft.in[0].tables[i];
        d->newest = u->meta.max_seq > d->newest ? u->meta.max_seq : d->newest;
        if (!has_applied(u, t, s->oldest) &&
            table_overlaps(u, s->cmp, t->meta.smallest, t->meta.largest)) {
            deletes = deletes || u->meta.deletes != 0;
            share += hidden_by(s, u, d->draft.level);
        }
    }
    share = deletes || share > 1.0 ? 1.0 : share;
    d->gain = share > 1.0 / PUTS_SHARE ? (uint64_t)((double)t->meta.size * share) : 0;
}

/* The tables of level n that lie above the i-th of `level`. */
static struct run above(const struct site *s, int n, int level, uint32_t i, struct key_range r)
{
    if (n != 0) {
        return site_overlap(s, n, r);
    }
    const struct level *l = &s->k->level[0]; /* the newest first */
    return (struct run){l->tables, level == 0 ? i : l->count};
}

/* What a trim of the i-th table would be; false: nothing, or a running job is in the way. The nearest
 * level first, as its numbers are the lowest and `trimmed` tells only how far one came. */
static bool plan_trim(const struct site *s, int level, uint32_t i, struct trim *d)
{
    struct table *const *t = &s->k->level[level].tables[i];
    for (int n = level == 0 ? 0 : level - 1; n >= 0; n--) {
        d->draft = (struct draft){.level = n, .output_level = level, .in[1] = {t, 1}};
        d->draft.range = run_range(s, d->draft.in[1]);
        d->draft.in[0] = above(s, n, level, i, d->draft.range);
        weigh(s, *t, d);
        if (d->gain != 0 && !run_is_busy(d->draft.in[0]) && !run_is_busy(d->draft.in[1]) &&
            !draft_conflicts(s, d->draft.range, n, level)) {
            return true;
        }
    }
    return false;
}

/* The trim that gains most of those there is space for, surely or, if the guess is right, probably. */
static int trim_keyspace(const struct site *s, bool surely, struct compaction **c)
{
    struct trim d, best = {.gain = 0};
    for (int n = LEVEL_COUNT - 1; n >= 0; n--) {
        const struct level *l = &s->k->level[n];
        for (uint32_t i = 0; i < l->count; i++) {
            uint64_t size = l->tables[i]->meta.size;
            if (size > best.gain && (!surely || size <= s->p->room) && plan_trim(s, n, i, &d) &&
                d.gain > best.gain && size - d.gain <= s->p->room) {
                best = d;
            }
        }
    }
    int rc = best.gain != 0 ? draft_commit(s, &best.draft, c) : LOAM_NOTFOUND;
    if (rc == LOAM_OK) {
        (*c)->trim = best.newest;
        (*c)->target_file_bytes = UINT64_MAX;
    }
    return rc;
}

int compaction_pick_trim(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         bool surely, struct compaction **c)
{
    int rc = LOAM_NOTFOUND;
    for (uint32_t i = 0; i < v->ks_count && rc == LOAM_NOTFOUND; i++) {
        struct site s;
        if (site_init(&s, p, v, v->ks[i], oldest)) {
            rc = trim_keyspace(&s, surely, c);
        }
    }
    return rc;
}
