/* model.h - A sorted array of entries in many shapes: input and oracle of the table tests.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SSTABLE_MODEL_H_
#define LOAM_TESTS_SSTABLE_MODEL_H_

#include <stdio.h>
#include <stdlib.h>

#include "arena/entry.h"
#include "arena/hash.h"
#include "arena/random.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

enum model_shape {
    SHAPE_DECIMAL,  /* 16-byte decimal keys, 100-byte values */
    SHAPE_SHORT,    /* 0 to 3 bytes of a tiny alphabet */
    SHAPE_PREFIXED, /* long shared prefixes, many versions */
    SHAPE_EDGES,    /* runs of 00 and FF */
    SHAPE_LONG,     /* keys up to 64 KiB */
    SHAPE_VERSIONS, /* few keys, hundreds of versions each */
    SHAPE_VALUES,   /* values from nothing to far beyond a block */
    SHAPE_COUNT
};

struct model {
    struct entry *e;
    size_t n, cap;
    const loam_comparator *cmp;
};

static inline uint64_t model_seed(void)
{
    return seed_or(20240611);
}

static inline loam_slice model_copy(const void *data, size_t size)
{
    void *p = malloc(size != 0 ? size : 1); /* exact, so that a sanitizer sees each overrun */
    CHECK(p != NULL);
    if (size != 0) {
        memcpy(p, data, size);
    }
    return loam_bytes(p, size);
}

static inline void model_add(struct model *m, loam_slice key, uint64_t tag, loam_slice value)
{
    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 256 : m->cap * 2;
        m->e = realloc(m->e, m->cap * sizeof *m->e);
        CHECK(m->e != NULL);
    }
    m->e[m->n++] =
        (struct entry){model_copy(key.data, key.size), tag, model_copy(value.data, value.size)};
}

static inline void model_free(struct model *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free((void *)(uintptr_t)m->e[i].key.data);
        free((void *)(uintptr_t)m->e[i].value.data);
    }
    free(m->e);
    *m = (struct model){0};
}

/* Order: key ascending, tag descending. */
static inline int model_order(const loam_comparator *cmp, loam_slice ak, uint64_t at, loam_slice bk,
                              uint64_t bt)
{
    int c = key_compare(cmp, ak, bk);
    return c != 0 ? c : (at < bt) - (at > bt);
}

static const loam_comparator *model_sort_cmp;

static inline int model_qsort(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return model_order(model_sort_cmp, x->key, x->tag, y->key, y->tag);
}

static inline size_t model_key(struct random *r, enum model_shape shape, uint8_t *key)
{
    size_t n = 0;
    switch (shape) {
    case SHAPE_DECIMAL:
    case SHAPE_VALUES:
        return (size_t)snprintf((char *)key, 32, "%016llu",
                                (unsigned long long)random_below(r, 1000000));
    case SHAPE_SHORT:
        n = random_below(r, 4);
        for (size_t i = 0; i < n; i++) {
            key[i] = (uint8_t)("\0a\xff"[random_below(r, 3)]);
        }
        return n;
    case SHAPE_PREFIXED:
        memset(key, 'p', 60);
        n = 60 - 20 * random_below(r, 3);
        return n + (size_t)snprintf((char *)key + n, 16, "%llu",
                                    (unsigned long long)random_below(r, 3000));
    case SHAPE_EDGES:
        n = random_below(r, 20);
        memset(key, random_below(r, 2) != 0 ? 0xff : 0, n);
        if (n != 0) {
            key[n - 1] = (uint8_t)random_next(r);
        }
        return n;
    case SHAPE_LONG:
        n = 65535 - (random_below(r, 2) != 0 ? 0 : random_below(r, 65536));
        memset(key, 'l', n);
        if (n > 4) {
            memcpy(key + (random_below(r, 2) != 0 ? n - 4 : 0),
                   &(uint32_t){(uint32_t)random_next(r)}, 4);
        }
        return n;
    case SHAPE_VERSIONS:
        key[0] = (uint8_t)('a' + random_below(r, 3));
        return 1;
    default:
        return 0;
    }
}

static inline size_t model_value_size(struct random *r, enum model_shape shape)
{
    if (shape == SHAPE_VALUES) {
        static const size_t sizes[] = {0, 1, 15, 16, 100, 1000, 4000, 4096, 5000, 70000, 300000};
        return sizes[random_below(r, 11)] + random_below(r, 3);
    }
    return shape == SHAPE_DECIMAL ? 100 : random_below(r, 40);
}

/* About n sorted entries, distinct in (key, tag); seqs from 1 to 2 n, or far apart. */
static inline void model_generate(struct model *m, struct random *r, enum model_shape shape,
                                  size_t n, const loam_comparator *cmp)
{
    static uint8_t key[70000], value[400000];
    uint64_t stride = random_below(r, 2) != 0 ? 1 : (uint64_t)1 << random_below(r, 40);
    *m = (struct model){.cmp = cmp};
    for (size_t i = 0; i < n; i++) {
        size_t key_size = model_key(r, shape, key);
        size_t value_size = model_value_size(r, shape);
        bool is_delete = random_below(r, 8) == 0;
        bool noise = random_below(r, 2) != 0;
        for (size_t k = 0; k < value_size; k++) {
            value[k] = noise ? (uint8_t)random_next(r) : (uint8_t)('v' + k % 3);
        }
        uint64_t tag = entry_tag((i + 1) * stride, is_delete ? ENTRY_DELETE : ENTRY_PUT);
        model_add(m, loam_bytes(key, key_size), tag, loam_bytes(value, is_delete ? 0 : value_size));
    }
    model_sort_cmp = cmp;
    qsort(m->e, m->n, sizeof *m->e, model_qsort);
}

/* Index of the first entry >= (key, tag). */
static inline size_t model_seek(const struct model *m, loam_slice key, uint64_t tag)
{
    size_t low = 0;
    size_t high = m->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (model_order(m->cmp, m->e[mid].key, m->e[mid].tag, key, tag) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* The newest version with seq <= snapshot, or NULL. */
static inline const struct entry *model_get(const struct model *m, loam_slice key,
                                            uint64_t snapshot)
{
    size_t i = model_seek(m, key, snapshot << 8 | 0xff);
    bool found = i < m->n && key_compare(m->cmp, m->e[i].key, key) == 0;
    return found ? &m->e[i] : NULL;
}

/* A key to ask for: one of the model's, or a neighbour that is likely not there. */
static inline loam_slice model_probe(const struct model *m, struct random *r, uint8_t *room)
{
    loam_slice k = m->e[random_below(r, m->n)].key;
    if (k.size != 0) {
        memcpy(room, k.data, k.size);
    }
    size_t n = k.size;
    switch (random_below(r, 6)) {
    case 0:
        room[n++] = (uint8_t)(random_below(r, 2) != 0 ? 0 : 0xff);
        break;
    case 1:
        n -= n != 0 ? 1 : 0;
        break;
    case 2:
        if (n != 0) {
            room[n - 1]++;
        }
        break;
    case 3:
        if (n != 0) {
            room[random_below(r, n)] = (uint8_t)random_next(r);
        }
        break;
    default:
        break;
    }
    return loam_bytes(room, n <= 65535 ? n : 65535);
}

#define CHECK_ENTRY(got, want)                                                                     \
    do {                                                                                           \
        const struct entry *got_ = (got), *want_ = (want);                                         \
        CHECK_EQ(got_->tag, want_->tag);                                                           \
        CHECK_BYTES(got_->key.data, got_->key.size, want_->key.data, want_->key.size);             \
        CHECK_BYTES(got_->value.data, got_->value.size, want_->value.data, want_->value.size);     \
    } while (0)

/* Descending bytes: a comparator that is not byte order. */
static inline int model_reverse(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(b, a);
}

/* Letters without case: keys that differ in bytes may be equal. */
static inline int model_caseless(void *ctx, loam_slice a, loam_slice b)
{
    const uint8_t *p = a.data, *q = b.data;
    (void)ctx;
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        int x = p[i] >= 'A' && p[i] <= 'Z' ? p[i] + 32 : p[i];
        int y = q[i] >= 'A' && q[i] <= 'Z' ? q[i] + 32 : q[i];
        if (x != y) {
            return x - y;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

#endif
