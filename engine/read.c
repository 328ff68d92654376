/* read.c - The point lookup.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Sources are asked from newest to oldest, and the first that knows the key decides: memtables by
 * age, level 0 by age, then at most one table of each deeper level. The key's hash is computed once
 * and serves every filter on the way.
 */
#include "engine/read.h"

#include "arena/hash.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

/* likely: as a rule in this table, if anywhere; what is looked at next is then fetched all at once. */
static int in_table(struct db *db, struct table *t, bool likely, loam_slice key, uint64_t hash,
                    uint64_t snapshot, struct sst_get_scratch *scratch, struct entry *e)
{
    struct sst_reader *r;
    int rc = table_cache_get(&db->tables, t, &r);
    if (rc < 0) {
        return rc;
    }
    if (likely) {
        sst_expect(r, key, hash);
    }
    struct stats_stripe *stripe = stats_stripe_self(&db->stats);
    if (!sst_may_contain(r, hash)) {
        stats_bump(stripe, STAT_FILTER_USEFUL, 1);
        return LOAM_NOTFOUND;
    }
    rc = sst_get(r, key, hash, snapshot, scratch, e);
    if (rc == LOAM_NOTFOUND) {
        stats_bump(stripe, sst_ruled_out(r, scratch) ? STAT_FILTER_USEFUL : STAT_FILTER_FALSE, 1);
    }
    return rc;
}

static int in_tables(struct db *db, const struct ks_version *k, const loam_comparator *cmp,
                     loam_slice key, uint64_t hash, uint64_t snapshot,
                     struct sst_get_scratch *scratch, struct entry *e)
{
    const struct level *l0 = &k->level[0];
    for (uint32_t i = 0; i < l0->count; i++) {
        struct table *t = l0->tables[i];
        if (t->meta.min_seq > snapshot || !table_covers(t, cmp, key)) {
            continue;
        }
        int rc = in_table(db, t, false, key, hash, snapshot, scratch, e);
        if (rc != LOAM_NOTFOUND) {
            return rc;
        }
    }
    int deepest = LEVEL_COUNT - 1; /* has most of the keys */
    while (deepest > 0 && k->level[deepest].count == 0) {
        deepest--;
    }
    for (int n = 1; n <= deepest; n++) {
        const struct level *l = &k->level[n];
        if (l->count == 0) {
            continue;
        }
        uint32_t i = level_find(l, cmp, key);
        if (i == l->count || key_compare(cmp, l->tables[i]->meta.smallest, key) > 0) {
            continue;
        }
        int rc = in_table(db, l->tables[i], n == deepest, key, hash, snapshot, scratch, e);
        if (rc != LOAM_NOTFOUND) {
            return rc;
        }
    }
    return LOAM_NOTFOUND;
}

int read_get(struct db *db, const struct view *v, uint32_t ks, const loam_comparator *cmp,
             loam_slice key, uint64_t snapshot, struct sst_get_scratch *scratch, struct entry *e)
{
    uint64_t hash = hash_key(key.data, key.size);
    int rc = LOAM_NOTFOUND;
    for (uint32_t i = 0; i < v->mem_count && rc == LOAM_NOTFOUND; i++) {
        rc = memtable_get(v->mems[i], ks, key, hash, snapshot, e);
    }
    if (rc == LOAM_NOTFOUND) {
        const struct ks_version *k = version_ks(v->version, ks);
        if (k == NULL) {
            return LOAM_NOTFOUND;
        }
        rc = in_tables(db, k, cmp, key, hash, snapshot, scratch, e);
    }
    if (rc == LOAM_OK && tag_kind(e->tag) == ENTRY_DELETE) {
        return LOAM_NOTFOUND;
    }
    return rc;
}
