/* index_test.c - The table index: every lookup against a linear search, and damage to any byte.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/index.h"

#include <criterion/criterion.h>

#include "tests/sstable/model.h"

static const struct sst_place place = {.file = 5, .file_seed = 1, .offset = 99};

struct made {
    struct model m; /* its keys are the separators */
    struct buf payload;
    uint64_t *offsets;
    uint32_t *sizes;
    uint64_t data_end;
};

/* Blocks stand in the file in pairs that are swapped. */
static void encode(struct made *x, struct random *r)
{
    struct index_builder b;
    size_t n = x->m.n;
    index_builder_init(&b, alloc_global());
    x->offsets = calloc(n, sizeof *x->offsets);
    x->sizes = calloc(n, sizeof *x->sizes);
    uint64_t at = SST_HEADER_SIZE;
    for (size_t i = 0; i < n; i++) {
        index_builder_add(&b, x->m.e[i].key);
        x->sizes[i] = (uint32_t)(100 + random_below(r, 90000));
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = i % 2 == 0 ? (i + 1 < n ? i + 1 : i) : i - 1;
        x->offsets[j] = at;
        at += x->sizes[j];
    }
    x->data_end = at;
    buf_init(&x->payload, alloc_global(), MEM_MISC);
    CHECK_EQ(index_builder_emit(&b, x->offsets, x->sizes, &x->payload), LOAM_OK);
    index_builder_free(&b);
}

static void make(struct made *x, struct random *r, enum model_shape shape, size_t n,
                 const loam_comparator *cmp)
{
    model_generate(&x->m, r, shape, n, cmp);
    encode(x, r);
}

static void drop(struct made *x)
{
    buf_free(&x->payload);
    free(x->offsets);
    free(x->sizes);
    model_free(&x->m);
}

static int open_index(struct index *x, const struct made *m, loam_slice payload)
{
    return index_open(x, alloc_global(), m->m.cmp, payload, place, m->data_end);
}

static void check_lookups(const struct made *m, struct random *r, int probes)
{
    static uint8_t room[70000];
    struct index x;
    CHECK_EQ(open_index(&x, m, buf_slice(&m->payload)), LOAM_OK);
    CHECK_EQ(x.count, m->m.n);
    for (uint32_t i = 0; i < x.count; i++) {
        CHECK_EQ(x.offsets[i], m->offsets[i]);
        CHECK_EQ(x.sizes[i], m->sizes[i]);
        loam_slice rest = index_rest(&x, i);
        loam_slice k = m->m.e[i].key;
        CHECK_EQ(x.prefix_size + rest.size, k.size);
        CHECK(k.size == 0 || memcmp(x.rests, k.data, x.prefix_size) == 0);
        CHECK(rest.size == 0 ||
              memcmp(rest.data, (const uint8_t *)k.data + x.prefix_size, rest.size) == 0);
    }
    for (int i = 0; i < probes; i++) {
        loam_slice k = model_probe(&m->m, r, room);
        CHECK_EQ(index_find(&x, k), model_seek(&m->m, k, UINT64_MAX));
    }
    CHECK_EQ(index_find(&x, LOAM_LIT("")), model_seek(&m->m, LOAM_LIT(""), UINT64_MAX));
    index_close(&x);
}

Test(index, finds_the_first_separator_not_below_the_key)
{
    static const size_t counts[] = {1, 2, 7, 8, 9, 63, 64, 65, 511, 512, 513, 5000};
    struct random r;
    random_init(&r, model_seed());
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        for (int shape = 0; shape < SHAPE_VALUES; shape++) {
            struct made m;
            if (shape == SHAPE_LONG && counts[k] > 65) {
                continue;
            }
            make(&m, &r, (enum model_shape)shape, counts[k], NULL);
            check_lookups(&m, &r, 2000);
            drop(&m);
        }
    }
}

Test(index, follows_a_comparator)
{
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    struct random r;
    random_init(&r, model_seed());
    for (int shape = 0; shape < SHAPE_LONG; shape++) {
        struct made m;
        make(&m, &r, (enum model_shape)shape, 500, &reverse);
        check_lookups(&m, &r, 2000);
        drop(&m);
    }
}

Test(index, separators_are_short_and_in_between)
{
    struct random r;
    random_init(&r, model_seed());
    struct buf s;
    buf_init(&s, alloc_global(), MEM_MISC);
    for (int shape = 0; shape < SHAPE_VERSIONS; shape++) {
        struct model m;
        model_generate(&m, &r, (enum model_shape)shape, shape == SHAPE_LONG ? 40 : 2000, NULL);
        for (size_t i = 1; i < m.n; i++) {
            loam_slice a = m.e[i - 1].key, b = m.e[i].key;
            index_separator(NULL, a, b, &s);
            CHECK(bytes_compare(a, buf_slice(&s)) <= 0);
            if (bytes_compare(a, b) == 0) {
                CHECK_BYTES(s.data, s.size, a.data, a.size);
                continue;
            }
            CHECK(bytes_compare(buf_slice(&s), b) < 0);
            CHECK(s.size <= a.size || s.size < b.size);
        }
        model_free(&m);
    }
    index_separator(NULL, LOAM_LIT("abcdef"), LOAM_LIT("abzz"), &s);
    CHECK_BYTES(s.data, s.size, "abz", 3);
    index_separator(NULL, LOAM_LIT("abcdef"), LOAM_LIT("abf"), &s);
    CHECK_BYTES(s.data, s.size, "abd", 3);
    index_separator(NULL, LOAM_LIT("abc"), LOAM_LIT("abcd"), &s);
    CHECK_BYTES(s.data, s.size, "abc", 3);
    buf_free(&s);
}

static size_t lying_separator(void *ctx, loam_slice a, loam_slice b, void *out, size_t cap)
{
    (void)ctx, (void)b;
    memset(out, 0xff, cap < a.size ? cap : a.size);
    return a.size;
}

static size_t good_separator(void *ctx, loam_slice a, loam_slice b, void *out, size_t cap)
{
    (void)ctx, (void)a, (void)b;
    CHECK(cap >= 1);
    *(char *)out = 'm';
    return 1;
}

static int bytewise(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(a, b);
}

Test(index, believes_a_comparators_separator_only_when_it_fits)
{
    loam_comparator c = {sizeof c, "bytes", bytewise, lying_separator, NULL};
    struct buf s;
    buf_init(&s, alloc_global(), MEM_MISC);
    index_separator(&c, LOAM_LIT("key"), LOAM_LIT("zoo"), &s);
    CHECK_BYTES(s.data, s.size, "key", 3);
    c.separator = good_separator;
    index_separator(&c, LOAM_LIT("key"), LOAM_LIT("zoo"), &s);
    CHECK_BYTES(s.data, s.size, "m", 1);
    index_separator(&c, LOAM_LIT("a"), LOAM_LIT("b"), &s);
    CHECK_BYTES(s.data, s.size, "a", 1);
    buf_free(&s);
}

/* Whatever the bytes say, an index that opens stays inside its arrays and the file. */
static void try_payload(const struct made *m, const uint8_t *data, size_t size)
{
    struct index x;
    if (open_index(&x, m, loam_bytes(data, size)) != LOAM_OK) {
        return;
    }
    for (uint32_t i = 0; i < x.count; i++) {
        CHECK(x.offsets[i] >= SST_HEADER_SIZE && x.offsets[i] <= m->data_end);
        CHECK(x.sizes[i] <= m->data_end - x.offsets[i]);
    }
    for (size_t i = 0; i < m->m.n; i++) {
        CHECK(index_find(&x, m->m.e[i].key) <= x.count);
    }
    index_close(&x);
}

Test(index, refuses_or_survives_damage_to_any_byte)
{
    struct random r;
    random_init(&r, model_seed());
    for (int shape = 0; shape < SHAPE_LONG; shape++) {
        struct made m;
        make(&m, &r, (enum model_shape)shape, 40, NULL);
        size_t n = m.payload.size;
        for (size_t at = 0; at < n; at++) {
            for (int k = 0; k < 4; k++) {
                uint8_t *copy = malloc(n);
                memcpy(copy, m.payload.data, n);
                copy[at] = (uint8_t)(k == 0 ? copy[at] ^ 0x80 : k == 1 ? 0xff : random_next(&r));
                try_payload(&m, copy, n);
                free(copy);
            }
            uint8_t *cut = malloc(at + 1);
            struct index x;
            memcpy(cut, m.payload.data, at);
            CHECK(open_index(&x, &m, loam_bytes(cut, at)) != LOAM_OK);
            free(cut);
        }
        drop(&m);
    }
}
