/* compaction_trim.c - Picks the smallest merges that free space on a full disk.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A merge needs space for all its outputs before its inputs go. A trim rewrites a single table with
 * the newer level above it only read, and leaves that level as it is: what it says of the table's
 * keys it says still, and says it first. So a trim needs no more space than one table, and gives
 * back what deletes above have hidden in it.
 */
#include "engine/compaction_draft.h"

#include "arena/poison.h"

/* The newest number in tables that hold deletes for t which no trim has applied to it; 0: none. */
static uint64_t new_deletes(const struct site *s, struct run upper, const struct table *t)
{
    uint64_t newest = 0;
    bool any = false;
    for (uint32_t i = 0; i < upper.count; i++) {
        const struct table_meta *u = &upper.tables[i]->meta;
        newest = u->max_seq > newest ? u->max_seq : newest;
        /* relaxed: a trim too many at worst. */
        any = any || (u->max_seq > atom_load(&t->trimmed, relaxed) && u->deletes != 0 &&
                      table_overlaps(upper.tables[i], s->cmp, t->meta.smallest, t->meta.largest));
    }
    return any ? newest : 0;
}

/* What a trim of the table would be; false: nothing, or a running job is in the way. */
static bool plan_trim(const struct site *s, int level, struct table *const *t, struct draft *d,
                      uint64_t *newest)
{
    for (int n = 0; n < level; n++) {
        *d = (struct draft){.level = n, .output_level = level, .in[1] = {t, 1}};
        d->range = run_range(s, d->in[1]);
        d->in[0] = n == 0 ? (struct run){s->k->level[0].tables, s->k->level[0].count}
                          : site_overlap(s, n, d->range);
        *newest = new_deletes(s, d->in[0], *t);
        if (*newest != 0 && !run_is_busy(d->in[0]) && !run_is_busy(d->in[1]) &&
            !draft_conflicts(s, d->range, n, level)) {
            return true;
        }
    }
    return false;
}

/* The smallest table of the keyspace that a trim can do something for. */
static int trim_keyspace(const struct site *s, struct compaction **c)
{
    struct draft d, best = {.level = -1};
    uint64_t newest, newest_of_best = 0;
    for (int n = LEVEL_COUNT - 1; n > 0; n--) {
        const struct level *l = &s->k->level[n];
        for (uint32_t t = 0; t < l->count; t++) {
            bool smaller = best.level < 0 || l->tables[t]->meta.size < run_bytes(best.in[1]);
            if (smaller && plan_trim(s, n, &l->tables[t], &d, &newest)) {
                best = d;
                newest_of_best = newest;
            }
        }
    }
    int rc = best.level >= 0 ? draft_commit(s, &best, c) : LOAM_NOTFOUND;
    if (rc == LOAM_OK) {
        (*c)->trim = newest_of_best;
        (*c)->target_file_bytes = UINT64_MAX;
    }
    return rc;
}

int compaction_pick_trim(struct compaction_picker *p, struct version *v, uint64_t oldest,
                         struct compaction **c)
{
    int rc = LOAM_NOTFOUND;
    for (uint32_t i = 0; i < v->ks_count && rc == LOAM_NOTFOUND; i++) {
        struct site s;
        if (site_init(&s, p, v, v->ks[i], oldest)) {
            rc = trim_keyspace(&s, c);
        }
    }
    return rc;
}
