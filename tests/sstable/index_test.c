/* index_test.c - The index in memory: every lookup against a linear search; separators.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/index.h"
#include "sstable/index_builder.h"

#include <criterion/criterion.h>

#include "tests/sstable/model.h"

static const struct sst_place place = {.file = 5, .file_seed = 1, .offset = 99};

struct made {
    struct model m; /* its keys are the separators */
    uint64_t *offsets;
    uint32_t *sizes;
};

static void make(struct made *x, struct random *r, enum model_shape shape, size_t n,
                 const loam_comparator *cmp)
{
    model_generate(&x->m, r, shape, n, cmp);
    x->offsets = calloc(n, sizeof *x->offsets);
    x->sizes = calloc(n, sizeof *x->sizes);
    for (size_t i = 0; i < x->m.n; i++) {
        x->offsets[i] = random_next(r);
        x->sizes[i] = (uint32_t)(100 + random_below(r, 90000));
    }
}

static void drop(struct made *x)
{
    free(x->offsets);
    free(x->sizes);
    model_free(&x->m);
}

static void next_item(void *arg, uint32_t i, struct index_item *item)
{
    const struct made *x = arg;
    *item = (struct index_item){x->m.e[i].key, x->offsets[i], x->sizes[i], i % 3 == 0};
}

static int open_index(struct index *x, struct made *m, size_t memory_max)
{
    loam_slice a = m->m.e[0].key, b = m->m.e[m->m.n - 1].key;
    uint32_t shared = 0;
    while (shared < a.size && shared < b.size &&
           ((const uint8_t *)a.data)[shared] == ((const uint8_t *)b.data)[shared]) {
        shared++;
    }
    const struct index_source from = {.next = next_item,
                                      .arg = m,
                                      .count = (uint32_t)m->m.n,
                                      .shared = shared,
                                      .memory_max = memory_max};
    return index_open(x, alloc_global(), m->m.cmp, &from, place);
}

static void check_lookups(struct made *m, struct random *r, int probes)
{
    static uint8_t room[70000];
    struct index x;
    CHECK_EQ(open_index(&x, m, SIZE_MAX), LOAM_OK);
    CHECK_EQ(x.count, m->m.n);
    for (uint32_t i = 0; i < x.count; i++) {
        CHECK_EQ(x.offsets[i], m->offsets[i]);
        CHECK_EQ(index_size(&x, i), m->sizes[i]);
        CHECK_EQ(index_dead(&x, i), i % 3 == 0);
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
    size_t size = x.memory_size;
    index_close(&x);
    CHECK_EQ(open_index(&x, m, size - 1), LOAM_STOPPED);
    index_close(&x);
    CHECK_EQ(open_index(&x, m, size), LOAM_OK);
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

Test(index, refuses_separators_out_of_order)
{
    struct random r;
    struct made m;
    struct index x;
    random_init(&r, model_seed());
    make(&m, &r, SHAPE_DECIMAL, 100, NULL);
    for (size_t i = 1; i + 2 < m.m.n; i++) {
        struct entry e = m.m.e[i];
        if (bytes_compare(e.key, m.m.e[i + 1].key) == 0) {
            continue; /* versions of a key that came twice: their order is not the separators' */
        }
        m.m.e[i] = m.m.e[i + 1], m.m.e[i + 1] = e;
        CHECK_EQ(open_index(&x, &m, SIZE_MAX), LOAM_E_CORRUPT);
        m.m.e[i + 1] = m.m.e[i], m.m.e[i] = e;
    }
    drop(&m);
}
