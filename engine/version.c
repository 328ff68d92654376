/* version.c - Finds keyspaces in versions, whose lives end in the graveyard.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version.h"

#include <assert.h>

#include "arena/epoch.h"

#include "arena/poison.h"

/* ---- searching ------------------------------------------------------------------------------- */

const struct ks_version *version_ks(const struct version *v, uint32_t ks)
{
    if (ks < v->ks_count && v->ks[ks]->ks == ks) {
        return v->ks[ks]; /* ids without gaps are the usual case */
    }
    uint32_t lo = 0;
    uint32_t hi = v->ks_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (v->ks[mid]->ks < ks) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < v->ks_count && v->ks[lo]->ks == ks ? v->ks[lo] : NULL;
}

struct table *version_table(const struct version *v, uint32_t ks, int level, uint64_t number)
{
    const struct ks_version *k = version_ks(v, ks);
    for (uint32_t i = 0; k != NULL && i < k->level[level].count; i++) {
        if (k->level[level].tables[i]->meta.number == number) {
            return k->level[level].tables[i];
        }
    }
    return NULL;
}

uint64_t version_ks_bytes(const struct ks_version *k)
{
    uint64_t sum = 0;
    for (int n = 0; n < LEVEL_COUNT; n++) {
        sum += k->level[n].bytes;
    }
    return sum;
}

uint64_t version_bytes(const struct version *v)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        sum += version_ks_bytes(v->ks[i]);
    }
    return sum;
}

uint64_t version_ks_table_count(const struct ks_version *k)
{
    uint64_t sum = 0;
    for (int n = 0; n < LEVEL_COUNT; n++) {
        sum += k->level[n].count;
    }
    return sum;
}

uint64_t version_table_count(const struct version *v)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        sum += version_ks_table_count(v->ks[i]);
    }
    return sum;
}

/* ---- references ------------------------------------------------------------------------------ */

void version_graveyard_init(struct version_graveyard *g)
{
    mutex_init(&g->mu, RANK_LEAF);
    g->first = NULL;
}

void version_graveyard_destroy(struct version_graveyard *g)
{
    assert(g->first == NULL);
    mutex_destroy(&g->mu);
}

void version_ref(struct version *v)
{
    /* relaxed: the caller's own reference already orders its reads. */
    uint32_t before = atom_add(&v->refs, 1, relaxed);
    assert(before != 0);
    (void)before;
}

bool version_try_ref(struct version *v)
{
    uint32_t n = atom_load(&v->refs, relaxed);
    while (n != 0) {
        /* relaxed: contents became visible by the acquire load that found v. A failed CAS means
         * that another thread changed the count. */
        if (atom_cas(&v->refs, &n, n + 1, relaxed, relaxed)) {
            return true;
        }
    }
    return false;
}

void version_unref(struct version *v)
{
    /* acq_rel: release so that this holder's reads come before the free; acquire so that the last
     * holder's stamp comes after all of them. Pairs among the calls of version_unref(). */
    if (v == NULL || atom_sub(&v->refs, 1, acq_rel) != 1) {
        return;
    }
    v->stamp = epoch_stamp();
    struct version_graveyard *g = v->graveyard;
    mutex_lock(&g->mu);
    v->dead_next = g->first;
    g->first = v;
    mutex_unlock(&g->mu);
}

struct version *version_graveyard_take(struct version_graveyard *g)
{
    mutex_lock(&g->mu);
    struct version *all = g->first;
    g->first = NULL;
    mutex_unlock(&g->mu);
    struct version *passed = NULL;
    struct version *kept = NULL;
    struct version **kept_end = &kept;
    while (all != NULL) {
        struct version *v = all;
        all = v->dead_next;
        if (epoch_passed(v->stamp)) {
            v->dead_next = passed;
            passed = v;
        } else {
            *kept_end = v;
            kept_end = &v->dead_next;
        }
    }
    if (kept != NULL) {
        mutex_lock(&g->mu);
        *kept_end = g->first;
        g->first = kept;
        mutex_unlock(&g->mu);
    }
    return passed;
}

/* ---- parts ----------------------------------------------------------------------------------- */

void ks_version_release(struct alloc *a, struct ks_version *k, struct table **dead)
{
    assert(k->refs > 0);
    if (--k->refs != 0) {
        return;
    }
    for (int n = 0; n < LEVEL_COUNT; n++) {
        level_release(a, &k->level[n], dead);
    }
    alloc_put(a, MEM_VERSION, k, sizeof *k);
}

static size_t version_alloc_bytes(uint32_t ks_count)
{
    return sizeof(struct version) + ks_count * sizeof(struct ks_version *);
}

struct version *version_create(struct alloc *a, struct version_graveyard *g, uint64_t number,
                               uint32_t ks_count)
{
    struct version *v = alloc_zero(a, MEM_VERSION, version_alloc_bytes(ks_count));
    if (v == NULL) {
        return NULL;
    }
    v->number = number;
    v->graveyard = g;
    v->alloc = a;
    v->ks_count = ks_count;
    /* relaxed: the version is published later, by a release store of a pointer to it. */
    atom_store(&v->refs, 1, relaxed);
    return v;
}

void version_free(struct version *v, struct table **dead)
{
    struct alloc *a = v->alloc;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        ks_version_release(a, v->ks[i], dead);
    }
    alloc_put(a, MEM_VERSION, v, version_alloc_bytes(v->ks_count));
}
