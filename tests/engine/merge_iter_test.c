/* merge_iter_test.c - Many memtables merged walk like one sorted array, both ways.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an array of all entries, sorted by key and falling tag.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/epoch.h"
#include "arena/hash.h"
#include "arena/random.h"
#include "engine/merge_iter.h"
#include "tests/support/check.h"

#define SOURCES 9u
#define ENTRIES 600u
#define CHUNK   65536u

struct fixture {
    struct chunk_pool pool;
    struct memtable *mem[SOURCES];
    struct source source[SOURCES];
    struct source *all[SOURCES], *heap[SOURCES];
    char keys[ENTRIES][8];
    struct entry sorted[ENTRIES];
    uint32_t count;
    struct merge_iter m;
};

static int by_entry(const void *x, const void *y)
{
    const struct entry *a = x, *b = y;
    int c = key_compare(NULL, a->key, b->key);
    return c != 0 ? c : a->tag > b->tag ? -1 : 1;
}

/* used: how many of the sources get entries; the others are empty. */
static struct fixture *make(uint64_t seed, uint32_t used, uint32_t count)
{
    struct fixture *f = calloc(1, sizeof *f);
    CHECK(f != NULL);
    CHECK_EQ(chunk_pool_init(&f->pool, alloc_global(), CHUNK, 0), LOAM_OK);
    const struct memtable_options o = {.alloc = alloc_global(), .pool = &f->pool, .bytes = CHUNK};
    for (uint32_t i = 0; i < SOURCES; i++) {
        CHECK_EQ(memtable_create(&o, &f->mem[i]), LOAM_OK);
        f->all[i] = &f->source[i];
    }
    struct random r;
    random_init(&r, seed);
    for (uint32_t i = 0; i < count; i++) {
        int n = snprintf(f->keys[i], sizeof f->keys[i], "%03u", (unsigned)random_below(&r, 150));
        struct entry *e = &f->sorted[f->count++];
        *e = (struct entry){loam_bytes(f->keys[i], (size_t)n), entry_tag(i + 1, ENTRY_PUT),
                            loam_bytes(f->keys[i], (size_t)n)};
        struct memtable *m = f->mem[random_below(&r, used)];
        CHECK_EQ(memtable_add(m, 0, e->key, hash_key(e->key.data, e->key.size), e->tag, e->value),
                 LOAM_OK);
    }
    qsort(f->sorted, f->count, sizeof *f->sorted, by_entry);
    for (uint32_t i = 0; i < SOURCES; i++) {
        source_memtable(&f->source[i], f->mem[i], 0, NULL);
    }
    merge_init(&f->m, NULL, f->all, f->heap, SOURCES);
    return f;
}

static void destroy(struct fixture *f)
{
    for (uint32_t i = 0; i < SOURCES; i++) {
        source_free(&f->source[i]);
        memtable_destroy(f->mem[i]);
    }
    epoch_synchronize();
    chunk_pool_destroy(&f->pool);
    free(f);
}

static void expect_at(struct fixture *f, int64_t at)
{
    bool inside = at >= 0 && at < (int64_t)f->count;
    CHECK_EQ(f->m.rc, LOAM_OK);
    CHECK_EQ(merge_valid(&f->m), inside);
    if (inside) {
        const struct entry *e = merge_entry(&f->m);
        CHECK_EQ(e->tag, f->sorted[at].tag);
        CHECK(key_compare(NULL, e->key, f->sorted[at].key) == 0);
        CHECK(merge_in_memtable(&f->m));
    }
}

static void walk(uint32_t used, uint32_t count)
{
    struct fixture *f = make(used + count, used, count);
    merge_first(&f->m);
    for (int64_t i = 0; i < (int64_t)f->count; i++) {
        expect_at(f, i);
        merge_next(&f->m);
    }
    expect_at(f, f->count);
    merge_last(&f->m);
    for (int64_t i = (int64_t)f->count - 1; i >= 0; i--) {
        expect_at(f, i);
        merge_prev(&f->m);
    }
    expect_at(f, -1);
    destroy(f);
}

Test(merge_iter, walks_over_any_number_of_sources)
{
    walk(1, 0);
    walk(1, 1);
    walk(1, ENTRIES);
    walk(2, ENTRIES);
    walk(3, 10);
    walk(SOURCES, ENTRIES);
}

Test(merge_iter, seeks_land_on_the_neighbours)
{
    struct fixture *f = make(17, SOURCES, ENTRIES);
    struct random r;
    random_init(&r, 4);
    for (int round = 0; round < 3000; round++) {
        char key[8];
        int n = snprintf(key, sizeof key, "%0*u", (int)(2 + random_below(&r, 3)),
                         (unsigned)random_below(&r, 160));
        static const uint64_t edges[] = {0, UINT64_MAX};
        uint64_t tag = random_below(&r, 2) != 0 ? edges[random_below(&r, 2)]
                                                : entry_tag(random_below(&r, ENTRIES), ENTRY_PUT);
        struct entry target = {loam_bytes(key, (size_t)n), tag, {NULL, 0}};
        int64_t at = 0; /* the first entry >= target */
        while (
            at < (int64_t)f->count && by_entry(&f->sorted[at], &target) < 0 &&
            !(f->sorted[at].tag == tag && key_compare(NULL, f->sorted[at].key, target.key) == 0)) {
            at++;
        }
        if (random_below(&r, 2) != 0) {
            merge_seek(&f->m, target.key, tag);
            for (int i = 0; i < 5 && at < (int64_t)f->count; i++, at++) {
                expect_at(f, at);
                merge_next(&f->m);
            }
            expect_at(f, at);
        } else {
            merge_seek_before(&f->m, target.key, tag);
            at--;
            for (int i = 0; i < 5 && at >= 0; i++, at--) {
                expect_at(f, at);
                merge_prev(&f->m);
            }
            expect_at(f, at);
        }
    }
    destroy(f);
}

/* A version that stands in two sources is taken from the first, both ways: a get looks there first, too. */
Test(merge_iter, takes_a_version_that_is_there_twice_from_the_newer_source)
{
    struct fixture *f = make(1, 1, 0);
    const loam_slice key = loam_bytes("key", 3), value[] = {{"new", 3}, {"old", 3}};
    for (uint32_t first = 0; first < SOURCES; first++) {
        for (uint32_t other = first + 1; other < SOURCES; other++) {
            uint64_t tag = entry_tag(1 + first * SOURCES + other, ENTRY_PUT);
            CHECK_EQ(memtable_add(f->mem[first], 0, key, hash_key("key", 3), tag, value[0]), LOAM_OK);
            CHECK_EQ(memtable_add(f->mem[other], 0, key, hash_key("key", 3), tag, value[1]), LOAM_OK);
        }
    }
    unsigned forward = 0, backward = 0;
    for (merge_first(&f->m); merge_valid(&f->m); merge_next(&f->m), forward++) {
        const struct entry *e = merge_entry(&f->m);
        const loam_slice *want = &value[forward % 2];
        CHECK_BYTES(e->value.data, e->value.size, want->data, want->size);
    }
    for (merge_last(&f->m); merge_valid(&f->m); merge_prev(&f->m), backward++) {
        const struct entry *e = merge_entry(&f->m);
        const loam_slice *want = &value[1 - backward % 2];
        CHECK_BYTES(e->value.data, e->value.size, want->data, want->size);
    }
    CHECK_EQ(forward, SOURCES * (SOURCES - 1));
    CHECK_EQ(backward, forward);
    destroy(f);
}
