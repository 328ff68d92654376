/* level.c - Searches levels by the prefixes of their largest keys.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/level.h"

#include <assert.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/status.h"

#include "arena/poison.h"

/* One allocation: this, then the prefixes, then the table pointers. */
struct level_array {
    uint32_t refs; /* guarded by the version set's mutex */
    uint32_t count;
    uint64_t prefixes[];
};

/* ---- searching ------------------------------------------------------------------------------- */

/* First table of [from, count) whose largest key is >= key, by whole keys. */
static uint32_t find_by_keys(const struct level *l, const loam_comparator *cmp, loam_slice key,
                             uint32_t from)
{
    uint32_t lo = from;
    uint32_t hi = l->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (key_compare(cmp, l->tables[mid]->meta.largest, key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* First index whose prefix is >= p. The loop has no branch that depends on the data. */
static uint32_t find_prefix(const uint64_t *prefixes, uint32_t count, uint64_t p)
{
    const uint64_t *base = prefixes;
    uint32_t n = count;
    while (n > 1) {
        uint32_t half = n / 2;
        base += base[half - 1] < p ? half : 0;
        n -= half;
    }
    return (uint32_t)(base - prefixes) + (n == 1 && *base < p);
}

uint32_t level_find(const struct level *l, const loam_comparator *cmp, loam_slice key)
{
    if (cmp != NULL) {
        return find_by_keys(l, cmp, key, 0);
    }
    if (l->count == 0) {
        return 0;
    }
    uint32_t shared = l->shared;
    if (shared != 0) {
        size_t n = key.size < shared ? key.size : shared;
        int c = n != 0 ? memcmp(key.data, l->tables[0]->meta.smallest.data, n) : 0;
        if (c != 0 || n < shared) {
            return c <= 0 ? 0 : l->count;
        }
    }
    /* An empty key may have no address to add to. */
    const uint8_t *rest = shared != 0 ? (const uint8_t *)key.data + shared : key.data;
    uint64_t p = key_prefix64(rest, key.size - shared);
    uint32_t i = find_prefix(l->prefixes, l->count, p);
    if (i == l->count || l->prefixes[i] != p) {
        return i;
    }
    if (bytes_compare(l->tables[i]->meta.largest, key) >= 0) {
        return i;
    }
    i++;
    return i == l->count || l->prefixes[i] != p ? i : find_by_keys(l, NULL, key, i);
}

bool level_overlaps(const struct level *l, const loam_comparator *cmp, loam_slice lo, loam_slice hi,
                    uint32_t *first, uint32_t *end)
{
    *first = lo.data == NULL ? 0 : level_find(l, cmp, lo);
    *end = l->count;
    if (hi.data != NULL) {
        uint32_t i = level_find(l, cmp, hi);
        *end = i < l->count && key_compare(cmp, l->tables[i]->meta.smallest, hi) <= 0 ? i + 1 : i;
    }
    if (*end < *first) {
        *end = *first;
    }
    return *first < *end;
}

/* ---- building -------------------------------------------------------------------------------- */

bool level_stands_before(unsigned level, const loam_comparator *cmp, const struct table *a,
                         const struct table *b)
{
    if (level != 0) {
        int c = key_compare(cmp, a->meta.smallest, b->meta.smallest);
        return c != 0 ? c < 0 : a->meta.number < b->meta.number;
    }
    if (a->meta.max_seq != b->meta.max_seq) {
        return a->meta.max_seq > b->meta.max_seq;
    }
    return a->meta.number > b->meta.number;
}

static size_t level_array_bytes(uint32_t count)
{
    return sizeof(struct level_array) + count * (sizeof(uint64_t) + sizeof(struct table *));
}

static struct level_array *array_of(const struct level *l)
{
    return (struct level_array *)((uint8_t *)l->prefixes - offsetof(struct level_array, prefixes));
}

void level_share(const struct level *l)
{
    if (l->count != 0) {
        array_of(l)->refs++;
    }
}

void level_release(struct alloc *a, struct level *l, struct table **dead)
{
    if (l->count == 0) {
        return;
    }
    struct level_array *array = array_of(l);
    assert(array->refs > 0);
    if (--array->refs != 0) {
        return;
    }
    for (uint32_t i = 0; i < l->count; i++) {
        struct table *t = l->tables[i];
        assert(t->refs > 0);
        if (--t->refs == 0) {
            t->next = *dead;
            *dead = t;
        }
    }
    alloc_put(a, MEM_VERSION, array, level_array_bytes(array->count));
}

/* Tables of level 1 and deeper must be in order and disjoint, and each must have a range. */
static int level_check(const struct level_build *b, struct table *const *tables, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct table_meta *m = &tables[i]->meta;
        if (key_compare(b->cmp, m->smallest, m->largest) > 0) {
            return FAIL_CORRUPT(b->file_id, 0, "table %llu ends before it begins",
                                (unsigned long long)m->number);
        }
        if (b->level != 0 && i != 0 &&
            key_compare(b->cmp, tables[i - 1]->meta.largest, m->smallest) >= 0) {
            return FAIL_CORRUPT(b->file_id, 0, "tables %llu and %llu overlap in level %u",
                                (unsigned long long)tables[i - 1]->meta.number,
                                (unsigned long long)m->number, b->level);
        }
    }
    return LOAM_OK;
}

static uint32_t shared_bytes(loam_slice a, loam_slice b)
{
    const uint8_t *x = a.data;
    const uint8_t *y = b.data;
    uint32_t n = 0;
    while (n < a.size && n < b.size && x[n] == y[n]) {
        n++;
    }
    return n;
}

int level_make(const struct level_build *b, struct table *const *tables, uint32_t count,
               struct level *l)
{
    *l = (struct level){0};
    if (count == 0) {
        return LOAM_OK;
    }
    int rc = b->known ? level_check(b, tables, count) : LOAM_OK;
    if (rc != LOAM_OK) {
        return rc;
    }
    struct level_array *array = alloc_get(b->alloc, MEM_VERSION, level_array_bytes(count));
    if (array == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a level of %u tables", count);
    }
    array->refs = 1;
    array->count = count;
    l->prefixes = array->prefixes;
    l->tables = (struct table **)(void *)(array->prefixes + count);
    l->count = count;
    if (b->known && b->cmp == NULL && b->level != 0) {
        /* In byte order what the first and last key share, all keys between share. */
        l->shared = shared_bytes(tables[0]->meta.smallest, tables[count - 1]->meta.largest);
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct table_meta *m = &tables[i]->meta;
        l->tables[i] = tables[i];
        l->prefixes[i] = l->shared <= m->largest.size
                             ? key_prefix64((const uint8_t *)m->largest.data + l->shared,
                                            m->largest.size - l->shared)
                             : 0;
        tables[i]->refs++;
        l->bytes += m->size;
        l->entries += m->entries;
        l->deletes += m->deletes;
    }
    return LOAM_OK;
}
