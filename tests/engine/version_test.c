/* version_test.c - Versions share what an edit does not touch, stay ordered, and searches find their table.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a linear scan over the level for searches; allocator counts for lifetimes.
 */
#include <criterion/criterion.h>

#include "arena/random.h"
#include "tests/engine/version_support.h"
#include "tests/support/check.h"

static void add(struct version_edit *e, uint32_t ks, uint8_t level, uint64_t number, loam_slice lo,
                loam_slice hi)
{
    version_fix_add(e,
                    (struct table_meta){
                        .number = number, .ks = ks, .level = level, .smallest = lo, .largest = hi});
}

/* Random keys, sorted: pairs of them become tables. prefix bytes are common to all. */
static uint32_t make_keys(struct random *r, uint8_t (*keys)[24], size_t *sizes, uint32_t n,
                          size_t prefix, unsigned alphabet)
{
    for (uint32_t i = 0; i < n; i++) {
        sizes[i] = prefix + random_below(r, 24 - prefix);
        for (size_t k = 0; k < sizes[i]; k++) {
            keys[i][k] = k < prefix ? 'p' : (uint8_t)random_below(r, alphabet);
        }
        for (uint32_t j = i; j > 0; j--) {
            loam_slice a = loam_bytes(keys[j - 1], sizes[j - 1]);
            loam_slice b = loam_bytes(keys[j], sizes[j]);
            if (bytes_compare(a, b) <= 0) {
                break;
            }
            uint8_t t[24];
            size_t size = sizes[j];
            memcpy(t, keys[j], 24);
            memcpy(keys[j], keys[j - 1], 24);
            memcpy(keys[j - 1], t, 24);
            sizes[j] = sizes[j - 1];
            sizes[j - 1] = size;
        }
    }
    uint32_t kept = 1;
    for (uint32_t i = 1; i < n; i++) {
        if (bytes_compare(loam_bytes(keys[kept - 1], sizes[kept - 1]),
                          loam_bytes(keys[i], sizes[i])) != 0) {
            memmove(keys[kept], keys[i], 24);
            sizes[kept++] = sizes[i];
        }
    }
    return kept;
}

static void check_search(const struct level *l, const loam_comparator *cmp, loam_slice key,
                         loam_slice hi)
{
    uint32_t expect = 0, first, end;
    while (expect < l->count && bytes_compare(l->tables[expect]->meta.largest, key) < 0) {
        expect++;
    }
    CHECK_EQ(level_find(l, cmp, key), expect);
    bool any = level_overlaps(l, cmp, key, hi, &first, &end);
    CHECK_EQ(any, first < end);
    for (uint32_t i = 0; i < l->count; i++) {
        CHECK_EQ(i >= first && i < end, table_overlaps(l->tables[i], cmp, key, hi));
    }
}

static int compare_bytes(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(a, b);
}

Test(version, searches_find_what_a_scan_finds)
{
    static const loam_comparator custom = {sizeof custom, "c", compare_bytes, NULL, NULL};
    static uint8_t keys[200][24];
    static size_t sizes[200];
    struct random r;
    random_init(&r, 5);
    for (int round = 0; round < 300; round++) {
        const loam_comparator *cmp = round % 4 == 0 ? &custom : NULL;
        struct version_fix f;
        version_fix_start(&f, cmp);
        uint32_t n = make_keys(&r, keys, sizes, 2 + (uint32_t)random_below(&r, 190),
                               random_below(&r, 16), round % 2 == 0 ? 2 : 256);
        struct version_edit e;
        struct version *base = version_empty(&f.build), *v;
        version_edit_init(&e, alloc_global());
        for (uint32_t i = 0; i + 1 < n; i += 2) {
            add(&e, 3, 4, n - i, loam_bytes(keys[i], sizes[i]),
                loam_bytes(keys[i + 1], sizes[i + 1]));
        }
        CHECK_EQ(version_apply(&f.build, base, &e, &v), LOAM_OK);
        version_edit_free(&e);
        version_unref(base);
        const struct ks_version *k = version_ks(v, 3);
        for (int i = 0; k != NULL && i < 100; i++) {
            uint8_t other[24];
            uint32_t at = (uint32_t)random_below(&r, n);
            memcpy(other, keys[at], 24);
            size_t size = random_below(&r, 3) == 0 ? random_below(&r, 25) : sizes[at];
            if (random_below(&r, 2) == 0) {
                other[random_below(&r, 24)] ^= 1;
            }
            uint32_t to = (uint32_t)random_below(&r, n);
            check_search(&k->level[4], cmp, loam_bytes(other, size),
                         loam_bytes(keys[to], sizes[to]));
        }
        version_unref(v);
        version_fix_stop(&f);
    }
}

Test(version, shares_what_an_edit_does_not_touch)
{
    struct version_fix f;
    struct version_edit e;
    version_fix_start(&f, NULL);
    struct version *base = version_empty(&f.build), *a, *b;
    version_edit_init(&e, alloc_global());
    add(&e, 0, 6, 1, LOAM_LIT("a"), LOAM_LIT("b"));
    add(&e, 0, 0, 2, LOAM_LIT("a"), LOAM_LIT("z"));
    add(&e, 9, 6, 3, LOAM_LIT("a"), LOAM_LIT("b"));
    CHECK_EQ(version_apply(&f.build, base, &e, &a), LOAM_OK);
    version_edit_free(&e);
    add(&e, 0, 0, 4, LOAM_LIT("a"), LOAM_LIT("z"));
    CHECK_EQ(version_apply(&f.build, a, &e, &b), LOAM_OK);
    version_edit_free(&e);
    CHECK(version_ks(a, 9) == version_ks(b, 9));
    CHECK(version_ks(a, 0) != version_ks(b, 0));
    CHECK(version_ks(a, 0)->level[6].tables == version_ks(b, 0)->level[6].tables);
    CHECK_EQ(version_ks(b, 0)->level[0].tables[0]->meta.number, 4); /* newest first */
    CHECK_EQ(b->number, a->number + 1);
    CHECK(version_ks(b, 5) == NULL);
    CHECK_EQ(version_table_count(b), 4);
    version_unref(base);
    version_unref(a);
    version_fix_reap(&f);
    CHECK_EQ(version_table(b, 0, 6, 1)->meta.number, 1);
    version_unref(b);
    version_fix_stop(&f);
}

Test(version, refuses_edits_that_do_not_fit)
{
    struct version_fix f;
    struct version_edit e;
    version_fix_start(&f, NULL);
    struct version *base = version_empty(&f.build), *a, *none = NULL;
    version_edit_init(&e, alloc_global());
    add(&e, 0, 2, 1, LOAM_LIT("d"), LOAM_LIT("h"));
    CHECK_EQ(version_apply(&f.build, base, &e, &a), LOAM_OK);
    version_edit_free(&e);
    static const char *ranges[][2] = {{"a", "d"}, {"e", "f"}, {"h", "z"}, {"a", "z"}, {"z", "y"}};
    for (int i = 0; i < 5; i++) {
        add(&e, 0, 2, 2, loam_bytes(ranges[i][0], 1), loam_bytes(ranges[i][1], 1));
        CHECK_EQ(version_apply(&f.build, a, &e, &none), LOAM_E_CORRUPT);
        version_edit_free(&e);
    }
    CHECK_EQ(version_edit_remove_table(&e, 0, 3, 1), LOAM_OK);
    CHECK_EQ(version_apply(&f.build, a, &e, &none), LOAM_E_CORRUPT);
    version_edit_free(&e);
    CHECK_EQ(version_edit_remove_table(&e, 0, 2, 1), LOAM_OK);
    CHECK_EQ(version_edit_remove_table(&e, 0, 2, 1), LOAM_OK);
    CHECK_EQ(version_apply(&f.build, a, &e, &none), LOAM_E_CORRUPT);
    version_edit_free(&e);
    CHECK(none == NULL);
    version_unref(base);
    version_unref(a);
    version_fix_stop(&f);
}

Test(version, survives_running_out_of_memory)
{
    for (uint64_t limit = 0;; limit += 64) {
        static struct alloc small;
        struct version_fix f;
        struct version_edit e, first;
        struct version *a = NULL, *b = NULL;
        alloc_init(&small, NULL, UINT64_MAX);
        version_fix_start(&f, NULL);
        f.build.alloc = &small;
        struct version *base = version_empty(&f.build);
        version_edit_init(&e, alloc_global());
        version_edit_init(&first, alloc_global());
        add(&first, 0, 6, 1, LOAM_LIT("a"), LOAM_LIT("b"));
        CHECK_EQ(version_apply(&f.build, base, &first, &a), LOAM_OK);
        add(&e, 0, 6, 2, LOAM_LIT("c"), LOAM_LIT("d"));
        add(&e, 1, 0, 3, LOAM_LIT("c"), LOAM_LIT("d"));
        add(&e, 0, 5, 1, LOAM_LIT("a"), LOAM_LIT("b"));
        CHECK_EQ(version_edit_remove_table(&e, 0, 6, 1), LOAM_OK);
        small.limit = alloc_used(&small) + limit;
        int rc = version_apply(&f.build, a, &e, &b);
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOMEM);
        version_unref(b);
        version_unref(a);
        version_unref(base);
        version_edit_free(&e);
        version_edit_free(&first);
        version_fix_stop(&f);
        CHECK_EQ(alloc_used(&small), 0);
        if (rc == LOAM_OK) {
            break;
        }
    }
}
