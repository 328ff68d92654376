/* index.c - Builds up and searches an index in memory.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/index.h"

#include <assert.h>

#include "arena/coding.h"
#include "arena/status.h"

#include "arena/poison.h"

#define NODE 8u /* numbers in a node: one cache line */

/* ---- building up ---- */

/* What a first pass over the separators finds out. */
struct survey {
    uint32_t prefix;     /* bytes all separators share, and need not be kept */
    uint64_t rest_bytes; /* of all rests */
};

static int damaged(struct sst_place at, const char *what)
{
    return FAIL_CORRUPT(at.file, at.offset, "the index of table %llu is wrong: %s",
                        (unsigned long long)at.file, what);
}

/* Sizes of all separators, before anything is allocated. */
static const char *survey_separators(const struct index_source *from, const loam_comparator *cmp,
                                     struct survey *s)
{
    uint64_t total = 0;
    struct index_item item;
    from->next(from->arg, 0, &item);
    /* In byte order what the first and the last one share, all between share. Under a comparator
     * separators are compared in full: nothing is taken off. */
    s->prefix = cmp == NULL ? from->shared : 0;
    assert(s->prefix <= item.separator.size);
    for (uint32_t i = 0; i < from->count; i++) {
        from->next(from->arg, i, &item);
        if (item.separator.size < s->prefix) {
            return "its separators are out of order";
        }
        total += item.separator.size;
    }
    s->rest_bytes = total - (uint64_t)s->prefix * from->count;
    return s->rest_bytes <= UINT32_MAX - SST_KEY_MAX ? NULL : "its separators are too long";
}

static size_t level_nodes(size_t below)
{
    return (below + NODE - 1) / NODE;
}

/* Sizes of the arrays; false: they are more than allowed. */
static bool measure(struct index *x, const struct index_source *from, const struct survey *s)
{
    size_t n = from->count;
    size_t numbers = 0;
    x->count = from->count;
    x->prefix_size = s->prefix;
    x->level_count = 0;
    /* No tree under a comparator: separators are compared in full. */
    for (size_t below = n; x->cmp == NULL && (below > 1 || x->level_count == 0);) {
        below = level_nodes(below);
        x->level_nodes[x->level_count++] = (uint32_t)below;
        numbers += below * NODE;
    }
    assert(x->level_count <= INDEX_LEVELS);
    x->memory_size = numbers * 8 + n * 8 + n * 4 + (n + 1) * 4 + s->prefix + s->rest_bytes;
    return x->memory_size <= from->memory_max;
}

/* One allocation for all arrays, the tree first for its alignment. */
static int carve(struct index *x)
{
    size_t n = x->count;
    x->memory = alloc_get_aligned(x->alloc, MEM_TABLE, x->memory_size, CACHE_LINE);
    if (x->memory == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for an index of %zu bytes", x->memory_size);
    }
    uint64_t *p = x->memory;
    for (uint32_t i = 0; i < x->level_count; i++) {
        x->levels[i] = p;
        p += (size_t)x->level_nodes[i] * NODE;
    }
    x->offsets = p;
    x->sizes = (uint32_t *)(void *)(p + n);
    x->rest_begin = x->sizes + n;
    x->rests = (uint8_t *)(x->rest_begin + n + 1);
    return LOAM_OK;
}

/* The survey has checked every length. */
static void fill_items(struct index *x, const struct index_source *from)
{
    uint8_t *to = x->rests + x->prefix_size;
    struct index_item item;
    for (uint32_t i = 0; i < x->count; i++) {
        from->next(from->arg, i, &item);
        const uint8_t *bytes = item.separator.data;
        size_t rest = item.separator.size - x->prefix_size;
        if (i == 0 && x->prefix_size != 0) {
            memcpy(x->rests, bytes, x->prefix_size);
        }
        x->rest_begin[i] = (uint32_t)(to - x->rests);
        if (rest != 0) {
            memcpy(to, bytes + x->prefix_size, rest);
        }
        to += rest;
        x->offsets[i] = item.offset;
        x->sizes[i] = item.size | (item.dead ? INDEX_DEAD : 0);
    }
    x->rest_begin[x->count] = (uint32_t)(to - x->rests);
}

static const char *check_order(const struct index *x)
{
    /* Under a comparator nothing is shared unless all bytes are: the prefix then matters. */
    for (uint32_t i = 1; x->cmp == NULL && i < x->count; i++) {
        if (bytes_compare(index_rest(x, i - 1), index_rest(x, i)) > 0) {
            return "its separators are out of order";
        }
    }
    return NULL;
}

static void fill_tree(struct index *x)
{
    for (uint32_t level = 0; level < x->level_count; level++) {
        uint64_t *to = (uint64_t *)x->levels[level];
        size_t n = level == 0 ? x->count : x->level_nodes[level - 1];
        for (size_t i = 0; i < n; i++) {
            if (level == 0) {
                loam_slice rest = index_rest(x, (uint32_t)i);
                to[i] = key_prefix64(rest.data, rest.size);
            } else {
                to[i] = x->levels[level - 1][i * NODE + NODE - 1];
            }
        }
        for (size_t i = n; i < (size_t)x->level_nodes[level] * NODE; i++) {
            to[i] = UINT64_MAX;
        }
    }
}

int index_open(struct index *x, struct alloc *a, const loam_comparator *cmp,
               const struct index_source *from, struct sst_place at)
{
    struct survey s;
    assert(from->count != 0);
    memset(x, 0, sizeof *x);
    x->alloc = a;
    x->cmp = cmp;
    const char *what = survey_separators(from, cmp, &s);
    if (what != NULL) {
        return damaged(at, what);
    }
    if (!measure(x, from, &s)) {
        memset(x, 0, sizeof *x);
        return LOAM_STOPPED;
    }
    int rc = carve(x);
    if (rc != LOAM_OK) {
        return rc;
    }
    fill_items(x, from);
    what = check_order(x);
    if (what != NULL) {
        index_close(x);
        return damaged(at, what);
    }
    fill_tree(x);
    return LOAM_OK;
}

void index_close(struct index *x)
{
    if (x->memory != NULL) {
        alloc_put_aligned(x->alloc, MEM_TABLE, x->memory, x->memory_size, CACHE_LINE);
    }
    memset(x, 0, sizeof *x);
}

/* ---- searching ---- */

static uint32_t find_ordered(const struct index *x, loam_slice key)
{
    uint32_t low = 0;
    uint32_t n = x->count;
    while (n != 0) {
        uint32_t half = n / 2;
        bool before = key_compare(x->cmp, index_rest(x, low + half), key) < 0;
        low = before ? low + half + 1 : low;
        n = before ? n - half - 1 : half;
    }
    return low;
}

/* How many numbers of a node are below k; they ascend. */
static inline uint32_t count_below(const uint64_t *node, uint64_t k)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < NODE; i++) {
        n += node[i] < k;
    }
    return n;
}

/* The first number >= k of the level above `end`; what is not there when there is none. Below the top, the
 * node entered always has a number that is not below k: its last one, which stands in the node above. */
static inline size_t descend(const struct index *x, uint64_t k, uint32_t end)
{
    size_t i = 0;
    for (uint32_t level = x->level_count; level > end;) {
        level--;
        if (i >= x->level_nodes[level]) {
            return SIZE_MAX; /* k is above a full top node */
        }
        i = i * NODE + count_below(x->levels[level] + i * NODE, k);
    }
    return i;
}

/* The first block whose 8 bytes are >= k; count when there is none. */
static uint32_t find_number(const struct index *x, uint64_t k)
{
    size_t i = descend(x, k, 0);
    return i < x->count ? (uint32_t)i : x->count;
}

/* The key without the prefix that all separators share. False: it is on one side of them, *c tells which. */
static inline bool strip_prefix(const struct index *x, loam_slice key, loam_slice *rest, int *c)
{
    size_t common = key.size < x->prefix_size ? key.size : x->prefix_size;
    *c = common != 0 ? memcmp(key.data, x->rests, common) : 0;
    if (*c != 0 || common < x->prefix_size) {
        return false;
    }
    *rest = common != 0 ? loam_bytes((const uint8_t *)key.data + common, key.size - common) : key;
    return true;
}

uint32_t index_prefetch(const struct index *x, loam_slice key)
{
    loam_slice rest;
    int c;
    if (x->cmp != NULL || !strip_prefix(x, key, &rest, &c)) {
        return 0;
    }
    size_t node = descend(x, key_prefix64(rest.data, rest.size), 1);
    if (node >= x->level_nodes[0]) {
        return 0;
    }
    __builtin_prefetch(x->levels[0] + node * NODE);
    return (uint32_t)(node * NODE);
}

uint32_t index_find(const struct index *x, loam_slice key)
{
    loam_slice rest;
    int c;
    if (x->cmp != NULL) {
        return find_ordered(x, key);
    }
    if (!strip_prefix(x, key, &rest, &c)) {
        return c > 0 ? x->count : 0;
    }
    uint64_t k = key_prefix64(rest.data, rest.size);
    uint32_t i = find_number(x, k);
    if (i == x->count || x->levels[0][i] != k) {
        return i;
    }
    /* Ties on the 8 bytes: they end where the numbers exceed k. */
    uint32_t n = (k == UINT64_MAX ? x->count : find_number(x, k + 1)) - i;
    while (n != 0) {
        uint32_t half = n / 2;
        bool before = bytes_compare(index_rest(x, i + half), rest) < 0;
        i = before ? i + half + 1 : i;
        n = before ? n - half - 1 : half;
    }
    return i;
}
