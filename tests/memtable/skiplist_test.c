/* skiplist_test.c - Structure of the list: order, towers, version chains, cost of inserts and walks.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: skiplist_check() verifies every level and chain; numbers of comparisons are counted
 * through a comparator. Contents against a model are in memtable_model_test.c. Defects of earlier lists
 * (F..) that are no behaviour of this one: F10 and F14 (snapshot numbers and sealing are the
 * caller's), F18 (no shared counter exists), F22 (the stress tests run this very code).
 */
#include <criterion/criterion.h>

#include "arena/random.h"
#include "memtable/skiplist.h"
#include "memtable/skiplist_guide.h"
#include "tests/support/check.h"
#include "tests/support/list_seed.h"
#include "tests/support/seed.h"

static struct alloc memory;
static struct chunk_pool pool;
static struct arena nodes, values;
static struct skiplist list;
static uint64_t compares;

static int compare_counting(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    compares++;
    return bytes_compare(a, b);
}

static const loam_comparator counting = {
    .struct_size = sizeof counting, .name = "counting", .compare = compare_counting};

/* Keyspace 9 counts. */
static const loam_comparator *test_order(void *ctx, uint32_t ks)
{
    (void)ctx;
    return ks == 9 ? &counting : NULL;
}

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&pool, &memory, 256 << 10, 4), LOAM_OK);
    CHECK_EQ(arena_init(&nodes, &pool, arena_new_ids(1), 16 << 10, ARENA_NO_LIMIT), LOAM_OK);
    CHECK_EQ(arena_init(&values, &pool, arena_new_ids(1), 16 << 10, ARENA_NO_LIMIT), LOAM_OK);
    skiplist_init(&list, &nodes, &values, test_order, NULL);
}

static void teardown(void)
{
    const char *broken = skiplist_check(&list);
    if (broken != NULL) {
        CHECK_FAIL_("%s", broken);
    }
    arena_destroy(&values);
    arena_destroy(&nodes);
    chunk_pool_destroy(&pool);
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(skiplist, .init = setup, .fini = teardown);

static int insert(uint32_t ks, loam_slice key, uint64_t tag, loam_slice value)
{
    struct skiplist_target t = skiplist_target(&list, ks, key);
    struct skiplist_place p;
    skiplist_locate(&list, &t, &p);
    return skiplist_link(&list, &p, tag, value);
}

static loam_slice number_key(char key[24], uint64_t n)
{
    snprintf(key, 24, "%016llu", (unsigned long long)n);
    return loam_bytes(key, 16);
}

static void insert_number(uint32_t ks, uint64_t n, uint64_t tag)
{
    char key[24];
    CHECK_EQ(insert(ks, number_key(key, n), tag, loam_bytes(&tag, 8)), LOAM_OK);
}

Test(skiplist, F15_F16_every_level_is_sorted_and_every_tower_linked)
{
    struct random r;
    random_init(&r, seed_of_run());
    CHECK(skiplist_empty(&list));
    for (uint64_t i = 1; i <= 20000; i++) {
        insert_number((uint32_t)random_below(&r, 3), random_below(&r, 15000), i << 8);
        if ((i & (i - 1)) == 0) {
            const char *broken = skiplist_check(&list);
            cr_assert(broken == NULL, "%s", broken);
        }
    }
    CHECK_EQ(skiplist_count(&list), 20000);
    CHECK(atom_load(&list.height, relaxed) >= 5);
}

Test(skiplist, descending_and_interleaved_runs_keep_the_order)
{
    for (uint64_t i = 0; i < 3000; i++) {
        insert_number(0, 100000 - i, 1);
        insert_number(0, 200000 + i, 1);
        insert_number(1, i * 7919 % 3000, 1);
    }
}

Test(skiplist, ascending_inserts_compare_a_bounded_number_of_times)
{
    insert_number(9, 1u << 30, 1);
    for (uint64_t i = 0; i < 1000; i++) {
        insert_number(9, i, 1);
    }
    compares = 0;
    for (uint64_t i = 1000; i < 5000; i++) {
        insert_number(9, i, 1);
    }
    CHECK(compares <= 4000 * 2);
}

Test(skiplist, searches_compare_a_logarithmic_number_of_times)
{
    struct random r;
    random_init(&r, seed_of_run());
    for (uint64_t i = 0; i < 20000; i++) {
        insert_number(9, i * 7919 % 20000, 1);
    }
    compares = 0;
    for (int i = 0; i < 1000; i++) {
        char key[24];
        struct entry e;
        snprintf(key, sizeof key, "%016llu", (unsigned long long)random_below(&r, 20000));
        CHECK_EQ(skiplist_get(&list, 9, loam_bytes(key, 16), UINT64_MAX, &e), LOAM_OK);
    }
    CHECK(compares < 1000 * 60);
}

Test(skiplist, a_very_long_chain_is_searched_and_walked_quickly)
{
    enum { VERSIONS = 200000 };
    struct entry e;
    for (uint64_t i = 1; i <= VERSIONS; i++) {
        CHECK_EQ(insert(0, LOAM_LIT("hot"), i << 8, loam_bytes(&i, 8)), LOAM_OK);
    }
    CHECK_EQ(insert(0, LOAM_LIT("a"), 1 << 8, LOAM_LIT("")), LOAM_OK);
    for (uint64_t i = 1; i <= VERSIONS; i += 7) {
        CHECK_EQ(skiplist_get(&list, 0, LOAM_LIT("hot"), i << 8 | 0xff, &e), LOAM_OK);
        CHECK_EQ(e.tag, i << 8);
    }
    CHECK_EQ(skiplist_get(&list, 0, LOAM_LIT("hot"), 255, &e), LOAM_NOTFOUND);
    struct skiplist_cursor c;
    skiplist_cursor_init(&c, &list, 0);
    CHECK(skiplist_cursor_last(&c));
    for (uint64_t i = 1; i <= VERSIONS; i++) {
        skiplist_cursor_entry(&c, &e);
        CHECK_EQ(e.tag, i << 8);
        CHECK(skiplist_cursor_prev(&c));
    }
    skiplist_cursor_entry(&c, &e);
    CHECK_BYTES(e.key.data, e.key.size, "a", 1);
}

Test(skiplist, versions_may_arrive_in_any_order)
{
    struct random r;
    random_init(&r, seed_of_run());
    uint64_t tags[500];
    for (uint64_t i = 0; i < 500; i++) {
        tags[i] = i + 1;
    }
    for (size_t i = 500; i > 1; i--) {
        size_t k = random_below(&r, i);
        uint64_t t = tags[i - 1];
        tags[i - 1] = tags[k];
        tags[k] = t;
    }
    for (size_t i = 0; i < 500; i++) {
        CHECK_EQ(insert(0, LOAM_LIT("k"), tags[i], loam_bytes(&tags[i], 8)), LOAM_OK);
    }
    struct skiplist_cursor c;
    struct entry e;
    skiplist_cursor_init(&c, &list, 0);
    CHECK(skiplist_cursor_first(&c));
    for (uint64_t want = 500; want > 0; want--) {
        skiplist_cursor_entry(&c, &e);
        CHECK_EQ(e.tag, want);
        CHECK_EQ(skiplist_cursor_next(&c), want > 1);
    }
    CHECK(skiplist_cursor_last(&c));
    for (uint64_t want = 1; want <= 500; want++) {
        skiplist_cursor_entry(&c, &e);
        CHECK_EQ(e.tag, want);
        CHECK_EQ(skiplist_cursor_prev(&c), want < 500);
        CHECK_EQ(skiplist_get(&list, 0, LOAM_LIT("k"), want, &e), LOAM_OK);
        CHECK_EQ(e.tag, want);
    }
}

Test(skiplist, F17_an_entry_is_allocated_once)
{
    uint64_t entries = 10000;
    for (uint64_t i = 0; i < entries; i++) {
        insert_number(0, i * 7919 % entries, (i + 1) << 8);
    }
    /* 12 bytes of node, a third of a link more, the key, 80 bytes of guide for one in 16; 16 bytes of
     * version, the value. */
    CHECK(arena_used(&nodes) < entries * 36 + (40 << 10));
    CHECK(arena_used(&values) < entries * 24 + (40 << 10));
}

Test(skiplist, F21_walks_backwards_and_seeks_under_a_comparator)
{
    for (uint64_t i = 0; i < 1000; i++) {
        insert_number(9, i * 2, 1);
    }
    struct skiplist_cursor c;
    struct entry e;
    char key[24];
    skiplist_cursor_init(&c, &list, 9);
    CHECK(skiplist_cursor_seek(&c, LOAM_LIT("0000000000000999"), UINT64_MAX));
    for (uint64_t want = 1000;; want -= 2) {
        skiplist_cursor_entry(&c, &e);
        snprintf(key, sizeof key, "%016llu", (unsigned long long)want);
        CHECK_BYTES(e.key.data, e.key.size, key, 16);
        if (!skiplist_cursor_prev(&c)) {
            CHECK_EQ(want, 0);
            break;
        }
    }
    CHECK(!skiplist_cursor_valid(&c));
}

static void expect_before(struct skiplist_cursor *c, uint64_t key, uint64_t tag, int64_t want_key,
                          uint64_t want_tag)
{
    char text[24];
    struct entry e;
    snprintf(text, sizeof text, "%016llu", (unsigned long long)key);
    CHECK_EQ(skiplist_cursor_seek_before(c, loam_bytes(text, 16), tag), want_key >= 0);
    if (want_key >= 0) {
        skiplist_cursor_entry(c, &e);
        snprintf(text, sizeof text, "%016llu", (unsigned long long)want_key);
        CHECK_BYTES(e.key.data, e.key.size, text, 16);
        CHECK_EQ(e.tag, want_tag);
    }
}

Test(skiplist, seeks_before_a_place_among_versions)
{
    struct skiplist_cursor c;
    skiplist_cursor_init(&c, &list, 3);
    expect_before(&c, 5, 0, -1, 0);
    insert_number(2, 1, 9); /* of another keyspace, like those of 4 */
    insert_number(4, 1, 9);
    expect_before(&c, 5, 0, -1, 0);
    for (uint64_t i = 1; i <= 3; i++) {
        insert_number(3, i * 2, 4);
        insert_number(3, i * 2, 8);
        insert_number(3, i * 2, 12);
    }
    for (uint64_t i = 1; i <= 3; i++) {
        int64_t key = (int64_t)i * 2, lower = i > 1 ? key - 2 : -1;
        expect_before(&c, i * 2, UINT64_MAX, lower, 4);
        expect_before(&c, i * 2, 12, lower, 4);
        expect_before(&c, i * 2, 11, key, 12);
        expect_before(&c, i * 2, 8, key, 12);
        expect_before(&c, i * 2, 5, key, 8);
        expect_before(&c, i * 2, 3, key, 4);
        expect_before(&c, i * 2, 0, key, 4);
        expect_before(&c, i * 2 - 1, 0, lower, 4);
        expect_before(&c, i * 2 - 1, UINT64_MAX, lower, 4);
    }
    expect_before(&c, 99, 0, 6, 4);
}

Test(skiplist, keys_that_differ_only_in_zero_bytes_or_length_are_different)
{
    static const unsigned char zeros[20];
    for (size_t n = 0; n <= sizeof zeros; n++) {
        CHECK_EQ(insert(0, loam_bytes(zeros, n), 1, loam_bytes(&n, sizeof n)), LOAM_OK);
    }
    CHECK_EQ(skiplist_count(&list), sizeof zeros + 1);
    struct skiplist_cursor c;
    struct entry e;
    skiplist_cursor_init(&c, &list, 0);
    CHECK(skiplist_cursor_first(&c));
    for (size_t n = 0; n <= sizeof zeros; n++) {
        skiplist_cursor_entry(&c, &e);
        CHECK_EQ(e.key.size, n);
        skiplist_cursor_next(&c);
        CHECK_EQ(skiplist_get(&list, 0, loam_bytes(zeros, n), 1, &e), LOAM_OK);
        CHECK_BYTES(e.value.data, e.value.size, &n, sizeof n);
    }
}

enum { SHAPE_MAX = 320 };

/* Few different bytes, many common prefixes: also some longer than codes tell apart. */
static loam_slice shaped_key(struct random *r, unsigned char buf[SHAPE_MAX])
{
    static const unsigned char alphabet[] = {0, 1, 127, 128, 255};
    static const size_t common[] = {0, 0, 3, 8, 250, 255, 256, 300};
    size_t n = common[random_below(r, 8)];
    memset(buf, 'p', n);
    for (uint64_t more = random_below(r, 12); more != 0; more--) {
        buf[n++] = alphabet[random_below(r, sizeof alphabet)];
    }
    return loam_bytes(buf, n);
}

Test(skiplist, codes_of_guides_never_contradict_the_order_of_keys)
{
    struct random r;
    unsigned char bytes[3][SHAPE_MAX];
    uint64_t told = 0;
    random_init(&r, seed_of_run());
    for (int i = 0; i < 300000; i++) {
        loam_slice x = shaped_key(&r, bytes[0]);
        loam_slice a = shaped_key(&r, bytes[1]), b = shaped_key(&r, bytes[2]);
        if (bytes_compare(a, x) > 0 && bytes_compare(b, x) > 0) {
            uint32_t ca = guide_code(x, a), cb = guide_code(x, b);
            CHECK(ca >= cb || bytes_compare(a, b) < 0);
            CHECK(ca <= cb || bytes_compare(a, b) > 0);
            told += ca != cb;
        }
    }
    CHECK(told > 10000);
}

static uint32_t random_code(struct random *r)
{
    static const uint32_t ends[] = {1, 2, 1u << 23, (1u << 31) - 2, (1u << 31) - 1};
    return random_below(r, 2) != 0 ? ends[random_below(r, 5)] : 1 + (uint32_t)random_below(r, 8);
}

/* What guide_find() is to say, entry by entry. */
static void read_guide(const _Atomic uint64_t *guide, uint32_t code, struct guide_answer *a)
{
    uint64_t last = 0, last_higher = 0, first = 0;
    for (uint32_t i = 0; i < GUIDE_SLOTS; i++) {
        uint64_t entry = guide[i];
        uint32_t its = (uint32_t)(entry >> GUIDE_CODE_SHIFT);
        bool before = entry != 0 && its < code, higher = (entry & GUIDE_HIGHER) != 0;
        last = before && entry > last ? entry : last;
        last_higher = before && higher && entry > last_higher ? entry : last_higher;
        first = its > code && (first == 0 || entry < first) ? entry : first;
    }
    a->last = (uint32_t)last;
    a->higher = (last & GUIDE_HIGHER) != 0;
    a->last_higher = (uint32_t)last_higher;
    a->first = (uint32_t)first;
}

Test(skiplist, guides_are_searched_as_if_entry_by_entry)
{
    struct random r;
    _Atomic uint64_t guide[GUIDE_SLOTS];
    struct guide_answer want, is;
    random_init(&r, seed_of_run());
    for (int i = 0; i < 100000; i++) {
        uint64_t taken = random_below(&r, GUIDE_SLOTS + 1);
        guide_clear(guide);
        for (uint64_t slot = 0; slot < taken; slot++) {
            uint32_t ref = i % 2 == 0 ? UINT32_MAX - (uint32_t)slot : 1 + (uint32_t)slot;
            guide_set(&guide[random_below(&r, GUIDE_SLOTS)],
                      guide_entry(random_code(&r), random_below(&r, 2) != 0, ref));
        }
        uint32_t code = random_code(&r);
        read_guide(guide, code, &want);
        guide_find(guide, code, true, &is);
        CHECK_EQ(is.last_higher, want.last_higher);
        for (int again = 0; again < 2; again++) {
            CHECK_EQ(is.last, want.last);
            CHECK_EQ(is.higher, want.higher);
            CHECK_EQ(is.first, want.first);
            guide_find(guide, code, false, &is);
        }
    }
}

static int order_keys(const void *a, const void *b)
{
    return bytes_compare(*(const loam_slice *)a, *(const loam_slice *)b);
}

Test(skiplist, keys_of_every_shape_are_found_and_sought)
{
    enum { KEYS = 6000 };
    static unsigned char bytes[KEYS][SHAPE_MAX];
    static loam_slice keys[KEYS];
    struct random r;
    random_init(&r, seed_of_run());
    for (uint64_t i = 0; i < KEYS; i++) {
        keys[i] = shaped_key(&r, bytes[i]);
        CHECK_EQ(insert(0, keys[i], i + 1, loam_bytes(&i, sizeof i)), LOAM_OK);
        CHECK_EQ(insert(9, keys[i], i + 1, loam_bytes(&i, sizeof i)), LOAM_OK);
    }
    qsort(keys, KEYS, sizeof *keys, order_keys);
    struct skiplist_cursor c;
    struct entry e;
    for (size_t i = 0; i < KEYS; i++) {
        CHECK_EQ(skiplist_get(&list, 0, keys[i], UINT64_MAX, &e), LOAM_OK);
        unsigned char wanted[SHAPE_MAX];
        loam_slice k = shaped_key(&r, wanted);
        size_t low = 0, high = KEYS;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (bytes_compare(keys[middle], k) < 0) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        skiplist_cursor_init(&c, &list, i % 2 == 0 ? 0 : 9);
        CHECK_EQ(skiplist_cursor_seek(&c, k, UINT64_MAX), low < KEYS);
        if (low < KEYS) {
            skiplist_cursor_entry(&c, &e);
            CHECK_BYTES(e.key.data, e.key.size, keys[low].data, keys[low].size);
            CHECK_EQ(skiplist_cursor_prev(&c) || low == 0, true);
        }
    }
}

Test(skiplist, nodes_and_values_may_share_an_arena)
{
    struct arena one;
    struct skiplist s;
    CHECK_EQ(arena_init(&one, &pool, arena_new_ids(1), 16 << 10, 1 << 20), LOAM_OK);
    skiplist_init(&s, &one, &one, NULL, NULL);
    uint64_t i = 0;
    struct skiplist_need need = {0};
    skiplist_need_add(&need, 0, 8, 100);
    while (skiplist_ensure(&s, &need) == LOAM_OK) {
        i++;
        uint64_t key = i * 0x9e3779b97f4a7c15u;
        static const char value[100];
        struct skiplist_target t = skiplist_target(&s, 0, loam_bytes(&key, 8));
        struct skiplist_place p;
        skiplist_locate(&s, &t, &p);
        CHECK_EQ(skiplist_link(&s, &p, i, loam_bytes(value, sizeof value)), LOAM_OK);
    }
    CHECK(i > 5000);
    CHECK(skiplist_check(&s) == NULL);
    arena_destroy(&one);
}

/* What is set aside is for the entries: with room for them alone a thread that has no record yet, which is
 * made out of the same memory, is told so before anything is promised. */
Test(skiplist, a_thread_without_a_record_is_promised_nothing_when_memory_is_out)
{
    struct arena full;
    struct skiplist s;
    const uint64_t limit = 256 << 10;
    CHECK_EQ(arena_init(&full, &pool, arena_new_ids(1), 16 << 10, limit), LOAM_OK);
    skiplist_init(&s, &full, &full, NULL, NULL);
    while (arena_alloc(&full, 64, 8) != NULL) {
    }
    CHECK(skiplist_ensure(&s, &(struct skiplist_need){0}) < 0);
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    arena_destroy(&full);
}

static int compare_of_eight(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    CHECK_EQ(a.size, 8);
    CHECK_EQ(b.size, 8);
    return bytes_compare(a, b);
}

static const loam_comparator of_eight = {
    .struct_size = sizeof of_eight, .name = "eight", .compare = compare_of_eight};

static const loam_comparator *order_of_eight(void *ctx, uint32_t ks)
{
    (void)ctx;
    (void)ks;
    return &of_eight;
}

/* The place kept for the next insert is that of a node, never of one that found no memory. */
static void fail_inserts(bool search_ahead)
{
    static char memory_lent[8192];
    static const char large[8192];
    struct arena lent;
    struct skiplist s;
    CHECK_EQ(arena_init_memory(&lent, memory_lent, sizeof memory_lent, arena_new_ids(1), 1024),
             LOAM_OK);
    skiplist_init(&s, &lent, &lent, order_of_eight, NULL);
    static const char *const keys[] = {"56781234", "12345678", "12345678", "12345678", "34567812"};
    for (unsigned i = 0; i < 5; i++) {
        struct skiplist_target t = skiplist_target(&s, 0, loam_bytes(keys[i], 8));
        struct skiplist_place p;
        struct skiplist_ahead a;
        bool fails = i == 1 || i == 2;
        if (search_ahead && i < 2) {
            CHECK(skiplist_ahead_begin(&s, &t, &a));
            skiplist_locate_ahead(&s, &a, &p);
        } else {
            skiplist_locate(&s, &t, &p);
        }
        CHECK_EQ(skiplist_link(&s, &p, i + 1, loam_bytes(large, fails ? sizeof large : 8)),
                 fails ? LOAM_E_BUDGET : LOAM_OK);
    }
    CHECK_EQ(skiplist_count(&s), 3);
    CHECK(skiplist_check(&s) == NULL);
    arena_destroy(&lent);
}

Test(skiplist, a_failed_insert_leaves_no_place_behind)
{
    fail_inserts(false);
    fail_inserts(true);
}

struct pending {
    bool begun;
    uint32_t ks;
    char key[24];
    struct skiplist_ahead ahead;
};

/* Not begun: as any other insert. */
static void insert_pending(struct pending *p, uint64_t tag, loam_slice value)
{
    struct skiplist_place place;
    if (!p->begun) {
        CHECK_EQ(insert(p->ks, loam_bytes(p->key, 16), tag, value), LOAM_OK);
        return;
    }
    skiplist_locate_ahead(&list, &p->ahead, &place);
    CHECK_EQ(skiplist_link(&list, &place, tag, value), LOAM_OK);
    p->begun = false;
}

/* Searches stop on all levels, while nodes come on all levels, some of the same keys. */
Test(skiplist, searches_ahead_find_what_came_since)
{
    enum { KEYS = 900, INSERTS = 8000, PENDING = 6 };
    static uint64_t newest[3][KEYS];
    static struct pending pending[PENDING];
    struct random r;
    random_init(&r, seed_of_run());
    uint64_t begun = 0;
    for (uint64_t tag = 1; tag <= INSERTS;) {
        struct pending *p = &pending[random_below(&r, PENDING)];
        uint64_t what = random_below(&r, 8);
        if (p->begun && what != 0) {
            skiplist_ahead_step(&list, &p->ahead);
            continue;
        }
        if (!p->begun) {
            p->ks = (uint32_t)random_below(&r, 3);
            loam_slice key = number_key(p->key, random_below(&r, KEYS));
            struct skiplist_target t = skiplist_target(&list, p->ks, key);
            p->begun = what % 2 == 0 && skiplist_ahead_begin(&list, &t, &p->ahead);
            if (p->begun) {
                begun++;
                continue;
            }
        }
        insert_pending(p, tag, loam_bytes(&tag, 8));
        newest[p->ks][strtoull(p->key, NULL, 10)] = tag++;
        if (tag % 500 == 0) {
            const char *broken = skiplist_check(&list);
            cr_assert(broken == NULL, "%s", broken);
        }
    }
    CHECK(begun > INSERTS / 10);
    CHECK_EQ(skiplist_count(&list), INSERTS);
    for (uint32_t ks = 0; ks < 3; ks++) {
        for (uint64_t i = 0; i < KEYS; i++) {
            char key[24];
            struct entry e = {.tag = 0};
            int rc = skiplist_get(&list, ks, number_key(key, i), UINT64_MAX, &e);
            CHECK_EQ(rc, newest[ks][i] != 0 ? LOAM_OK : LOAM_NOTFOUND);
            CHECK_EQ(e.tag, newest[ks][i]);
        }
    }
}

/* The list gets a level between the first step and the last: the place there must not be that of a later key. */
Test(skiplist, a_search_ahead_knows_nothing_of_levels_that_came_since)
{
    insert_number(0, 100000, 1);
    struct skiplist_writer *w = arena_at(&nodes, atom_load(&list.writers, relaxed));
    for (uint32_t height = 2; height <= 9; height++) {
        char key[24];
        uint64_t number = 10000 - 20 * height;
        struct skiplist_target t = skiplist_target(&list, 0, number_key(key, number));
        struct skiplist_ahead a;
        struct skiplist_place p;
        w->random = seed_of_height(height);
        CHECK(skiplist_ahead_begin(&list, &t, &a));
        w->random = seed_of_height(height);
        insert_number(0, number + 5, 1);
        CHECK_EQ(atom_load(&list.height, relaxed), height);
        skiplist_locate_ahead(&list, &a, &p);
        CHECK_EQ(skiplist_link(&list, &p, 1, loam_bytes(key, 8)), LOAM_OK);
        const char *broken = skiplist_check(&list);
        cr_assert(broken == NULL, "%s", broken);
    }
}

static void begin_number(struct pending *p, uint64_t n)
{
    struct skiplist_target t = skiplist_target(&list, 0, number_key(p->key, n));
    p->begun = skiplist_ahead_begin(&list, &t, &p->ahead);
}

/* What has come in order is expected to go on so; a search ahead would be thrown away. */
Test(skiplist, keys_in_order_are_not_searched_for_ahead)
{
    static struct pending p, q;
    insert_number(0, 10, 1);
    begin_number(&p, 20);
    CHECK(p.begun);
    insert_number(0, 20, 1);
    insert_number(0, 30, 1);
    begin_number(&q, 40);
    CHECK(!q.begun);
    insert_number(0, 10, 2);
    begin_number(&q, 40);
    CHECK(q.begun);
}

/* The same of what was searched for ahead itself. */
Test(skiplist, searches_ahead_notice_what_comes_in_order)
{
    static struct pending p, q, next;
    insert_number(0, 50, 1);
    begin_number(&p, 10);
    begin_number(&q, 20);
    CHECK(p.begun && q.begun);
    insert_pending(&p, 1, LOAM_LIT("v"));
    insert_pending(&q, 1, LOAM_LIT("v"));
    begin_number(&next, 30);
    CHECK(!next.begun);
    insert_number(0, 90, 1);
    begin_number(&p, 70);
    CHECK(p.begun);
    insert_number(0, 25, 1);
    insert_number(0, 26, 1); /* in order, until the other comes */
    insert_pending(&p, 1, LOAM_LIT("v"));
    begin_number(&next, 80);
    CHECK(next.begun);
}

/* At odd levels the place is that of a guide's answer, which costs a node of height 2 a few steps to its
 * link, not all that the guide passes. */
Test(skiplist, the_place_of_a_node_of_two_levels_is_close_at_both)
{
    enum { NODES = 20000, SEARCHES = 1000 };
    struct random r;
    random_init(&r, seed_of_run());
    for (uint64_t i = 0; i < NODES; i++) {
        insert_number(0, 2 * (i * 7919 % NODES), 1);
    }
    struct skiplist_writer *w = arena_at(&nodes, atom_load(&list.writers, relaxed));
    uint64_t steps[2] = {0};
    for (int i = 0; i < 2 * SEARCHES; i++) {
        static struct pending p;
        struct skiplist_place place;
        char key[24];
        w->random = seed_of_height(2);
        w->has_place = w->in_order = false; /* each by a search */
        uint64_t number = 2 * random_below(&r, NODES) + 1;
        struct skiplist_target t = skiplist_target(&list, 0, number_key(key, number));
        if (i % 2 == 0) {
            skiplist_locate(&list, &t, &place);
        } else {
            begin_number(&p, number);
            skiplist_locate_ahead(&list, &p.ahead, &place);
        }
        CHECK(place.found == NULL);
        const struct skiplist_node *n = w->prev[1];
        uint32_t ref;
        while ((ref = node_next(n, 1)) != 0 && compare(&list, node_at(&list, ref), &t) < 0) {
            n = node_at(&list, ref);
            steps[i % 2]++;
        }
    }
    CHECK(steps[0] < SEARCHES && steps[1] < SEARCHES); /* some 0.4 each; else 1.9 */
}
