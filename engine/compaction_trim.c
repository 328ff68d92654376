/* compaction_trim.c - Picks the smallest merges that free space on a full disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A merge needs space for all its outputs before its inputs go. A trim rewrites a single table without
 * what newer tables hide in it; those are only read and stay as they are. So it never needs more space
 * than the one table takes, and once every table has been trimmed nothing is left that nobody can read.
 *
 * It reads all that lies above at once: what a table remembers is up to which number a trim has looked, and
 * what lies in an upper level may be older than what a lower one has of other keys.
 */
#include "arena/status.h"
#include "engine/compaction_draft.h"

#include "arena/poison.h"

/* Puts are worth a trim from this part of all bytes on: it may rewrite them all. So at most this part of
 * the space stays wasted. */
#define PUTS_SHARE 16u

/* What a trim of the i-th table of a level would be. */
struct trim {
    int level;
    uint32_t i;
    struct run above; /* what it reads */
    struct key_range range;
    uint64_t newest; /* number in what lies above */
    bool deletes;    /* there, in what no trim has applied to the table */
    double share;    /* of the table that puts there hide, by a guess */
    uint64_t gain;   /* bytes, likewise; 0: it is not worth while */
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

/* Adds u, of level n, to what is known of the trim of t. */
static void weigh(const struct site *s, const struct table *t, const struct table *u, int n, struct trim *d)
{
    d->newest = u->meta.max_seq > d->newest ? u->meta.max_seq : d->newest;
    if (!has_applied(u, t, s->oldest)) {
        d->deletes = d->deletes || u->meta.deletes != 0;
        d->share += hidden_by(s, u, n);
    }
}

static uint64_t gain_of(const struct table *t, const struct trim *d)
{
    double share = d->deletes || d->share > 1.0 ? 1.0 : d->share;
    return share > 1.0 / PUTS_SHARE ? (uint64_t)((double)t->meta.size * share) : 0;
}

/* The tables of level n that lie above the i-th of `level`, as far as they can overlap it. */
static struct run above(const struct site *s, int n, int level, uint32_t i, struct key_range r)
{
    if (n != 0) {
        return site_overlap(s, n, r);
    }
    const struct level *l = &s->k->level[0]; /* the newest first */
    return (struct run){l->tables, level == 0 ? i : l->count};
}

/* What a trim of the i-th table would be; false: nothing, or a running job is in the way. found: room for all
 * tables of the keyspace, lent to *d. */
static bool plan_trim(const struct site *s, int level, uint32_t i, struct table **found, struct trim *d)
{
    struct table *const *t = &s->k->level[level].tables[i];
    *d = (struct trim){.level = level, .i = i, .range = run_range(s, (struct run){t, 1})};
    uint32_t count = 0;
    for (int n = level == 0 ? 0 : level - 1; n >= 0; n--) {
        struct run among = above(s, n, level, i, d->range);
        for (uint32_t k = 0; k < among.count; k++) {
            if (table_overlaps(among.tables[k], s->cmp, d->range.lo, d->range.hi)) {
                weigh(s, *t, among.tables[k], n, d);
                found[count++] = among.tables[k];
            }
        }
    }
    d->above = (struct run){found, count};
    d->gain = gain_of(*t, d);
    return d->gain != 0 && !(*t)->compacting && !run_is_busy(d->above) &&
           !draft_conflicts(s, d->range, 0, level);
}

static int commit_trim(const struct site *s, const struct trim *d, struct compaction **c)
{
    const struct draft draft = {
        .level = 0, /* whatever it reads is a source of its own, like a table of level 0 */
        .output_level = d->level,
        .in = {d->above, {&s->k->level[d->level].tables[d->i], 1}},
        .range = d->range,
    };
    int rc = draft_commit(s, &draft, c);
    if (rc == LOAM_OK) {
        (*c)->trim = d->newest;
        (*c)->target_file_bytes = UINT64_MAX;
    }
    return rc;
}

/* The trim that gains most of those there is space for, surely or, if the guess is right, probably. */
static int trim_keyspace(const struct site *s, bool surely, struct table **found, struct compaction **c)
{
    struct trim d, best = {.gain = 0};
    for (int n = LEVEL_COUNT - 1; n >= 0; n--) {
        const struct level *l = &s->k->level[n];
        for (uint32_t i = 0; i < l->count; i++) {
            uint64_t size = l->tables[i]->meta.size;
            if (size > best.gain && (!surely || size <= s->p->room) && plan_trim(s, n, i, found, &d) &&
                d.gain > best.gain && size - d.gain <= s->p->room) {
                best = d;
            }
        }
    }
    if (best.gain == 0) {
        return LOAM_NOTFOUND;
    }
    (void)plan_trim(s, best.level, best.i, found, &best); /* others were found since */
    return commit_trim(s, &best, c);
}

static int pick_in_keyspace(const struct site *s, bool surely, struct compaction **c)
{
    size_t bytes = (size_t)version_ks_table_count(s->k) * sizeof(struct table *);
    struct table **found = alloc_get(s->p->alloc, MEM_VERSION, bytes);
    if (found == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a compaction");
    }
    int rc = trim_keyspace(s, surely, found, c);
    alloc_put(s->p->alloc, MEM_VERSION, found, bytes);
    return rc;
}

int compaction_pick_trim(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         bool surely, struct compaction **c)
{
    int rc = LOAM_NOTFOUND;
    for (uint32_t i = 0; i < v->ks_count && rc == LOAM_NOTFOUND; i++) {
        struct site s;
        if (site_init(&s, p, v, v->ks[i], oldest)) {
            rc = pick_in_keyspace(&s, surely, c);
        }
    }
    return rc;
}
