/* memtable_test.c - The write buffer against a sorted list of versions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: an array of all versions added, sorted by (keyspace, key in its order, tag falling). Gets
 * at random snapshots and random walks of cursors are compared with it entry by entry.
 */
#include <criterion/criterion.h>

#include "arena/hash.h"
#include "arena/random.h"
#include "memtable/memtable.h"
#include "tests/support/check.h"
#include "tests/support/seed.h"

static struct alloc memory;
static struct chunk_pool pool;

static void setup(void)
{
    alloc_init(&memory, NULL, UINT64_MAX);
    CHECK_EQ(chunk_pool_init(&pool, &memory, 256 << 10, 16), LOAM_OK);
}

static void teardown(void)
{
    chunk_pool_destroy(&pool);
    CHECK_EQ(alloc_used(&memory), 0);
}

TestSuite(memtable, .init = setup, .fini = teardown);

static int compare_backwards(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return bytes_compare(b, a);
}

static const loam_comparator backwards = {
    .struct_size = sizeof backwards, .name = "backwards", .compare = compare_backwards};

/* Odd keyspaces run backwards. */
static const loam_comparator *order_of(void *ctx, uint32_t ks)
{
    (void)ctx;
    return ks % 2 == 1 ? &backwards : NULL;
}

static struct memtable *make(size_t bytes, size_t limit)
{
    struct memtable_options o = {.alloc = &memory,
                                 .pool = &pool,
                                 .bytes = bytes,
                                 .hard_limit = limit,
                                 .comparator = order_of,
                                 .id = 77};
    struct memtable *m = NULL;
    CHECK_EQ(memtable_create(&o, &m), LOAM_OK);
    return m;
}

static int add(struct memtable *m, uint32_t ks, loam_slice key, uint64_t tag, loam_slice value)
{
    return memtable_add(m, ks, key, hash_key(key.data, key.size), tag, value);
}

static int get(struct memtable *m, uint32_t ks, loam_slice key, uint64_t snapshot, struct entry *e)
{
    return memtable_get(m, ks, key, hash_key(key.data, key.size), snapshot, e);
}

/* ---- the oracle ---- */

struct version {
    uint32_t ks;
    uint64_t tag;
    unsigned char key[1400];
    size_t key_size;
    size_t value_size; /* bytes (unsigned char)(tag >> 8 + i) */
};

static int version_order(const void *x, const void *y)
{
    const struct version *a = x, *b = y;
    if (a->ks != b->ks) {
        return a->ks < b->ks ? -1 : 1;
    }
    int c = key_compare(order_of(NULL, a->ks), loam_bytes(a->key, a->key_size),
                        loam_bytes(b->key, b->key_size));
    return c != 0 ? c : (a->tag < b->tag) - (a->tag > b->tag);
}

static const uint32_t spaces[] = {0, 1, 2, 7, 65534, 65535, 65536, UINT32_MAX};

/* Few distinct keys, many that differ late or only in length. */
static void random_key(struct random *r, struct version *v)
{
    static const unsigned char letters[] = {0, 1, 'a', 0x7f, 0x80, 0xff};
    v->ks = spaces[random_below(r, 8)];
    v->key_size = random_below(r, random_below(r, 30) == 0 ? 1400 : 12);
    memset(v->key, 'k', sizeof v->key);
    for (size_t i = 0; i < 3 && v->key_size != 0; i++) {
        v->key[random_below(r, v->key_size)] = letters[random_below(r, 6)];
    }
}

static void check_entry(const struct entry *e, const struct version *v)
{
    unsigned char value[600];
    CHECK_BYTES(e->key.data, e->key.size, v->key, v->key_size);
    CHECK_EQ(e->tag, v->tag);
    for (size_t i = 0; i < v->value_size; i++) {
        value[i] = (unsigned char)((v->tag >> 8) + i);
    }
    CHECK_BYTES(e->value.data, e->value.size, value, v->value_size);
}

/* Room for one entry. */
static int reserve_one(struct memtable *m, uint32_t ks, size_t key_size, size_t value_size)
{
    struct memtable_need need = {0};
    memtable_need_add(&need, ks, key_size, value_size);
    return memtable_reserve(m, &need);
}

static void add_random(struct memtable *m, struct random *r, struct version *v, uint64_t seq)
{
    unsigned char value[600];
    random_key(r, v);
    bool put = random_below(r, 4) != 0;
    v->tag = entry_tag(seq, put ? ENTRY_PUT : ENTRY_DELETE);
    v->value_size = put ? random_below(r, 600) : 0;
    for (size_t i = 0; i < v->value_size; i++) {
        value[i] = (unsigned char)(seq + i);
    }
    if (random_below(r, 2) == 0) {
        CHECK_EQ(reserve_one(m, v->ks, v->key_size, v->value_size), LOAM_OK);
    }
    CHECK_EQ(
        add(m, v->ks, loam_bytes(v->key, v->key_size), v->tag, loam_bytes(value, v->value_size)),
        LOAM_OK);
}

static bool same_key(const struct version *a, const struct version *b)
{
    return a->ks == b->ks && a->key_size == b->key_size && memcmp(a->key, b->key, a->key_size) == 0;
}

static void check_gets(struct memtable *m, struct random *r, const struct version *all, size_t n,
                       uint64_t top)
{
    for (int i = 0; i < 3000; i++) {
        struct version want;
        if (random_below(r, 2) == 0) {
            random_key(r, &want);
        } else {
            want = all[random_below(r, n)];
        }
        uint64_t snapshot = random_below(r, 3) == 0 ? UINT64_MAX : random_below(r, top + 2);
        const struct version *expected = NULL;
        for (size_t k = 0; k < n; k++) {
            if (same_key(&all[k], &want) && tag_seq(all[k].tag) <= snapshot &&
                (expected == NULL || expected->tag < all[k].tag)) {
                expected = &all[k];
            }
        }
        struct entry e;
        int rc = get(m, want.ks, loam_bytes(want.key, want.key_size), snapshot, &e);
        CHECK_EQ(rc, expected != NULL ? LOAM_OK : LOAM_NOTFOUND);
        if (expected != NULL) {
            check_entry(&e, expected);
        }
    }
}

/* The range of one keyspace in the sorted array. */
static void range_of(const struct version *all, size_t n, uint32_t ks, size_t *from, size_t *to)
{
    for (*from = 0; *from < n && all[*from].ks < ks; (*from)++) {
    }
    for (*to = *from; *to < n && all[*to].ks == ks; (*to)++) {
    }
}

static void check_walks(struct memtable *m, struct random *r, const struct version *all, size_t n)
{
    for (int walk = 0; walk < 300; walk++) {
        uint32_t ks = spaces[random_below(r, 8)];
        size_t from, to;
        range_of(all, n, ks, &from, &to);
        struct memtable_cursor c;
        memtable_cursor_init(&c, m, ks);
        CHECK(!memtable_cursor_valid(&c));
        CHECK(!memtable_cursor_next(&c) && !memtable_cursor_prev(&c));
        size_t at; /* `to` or SIZE_MAX: off */
        bool ok;
        uint64_t how = random_below(r, 4);
        if (how == 0) {
            ok = memtable_cursor_first(&c);
            at = from;
        } else if (how == 1) {
            ok = memtable_cursor_last(&c);
            at = to - 1;
        } else {
            struct version want;
            random_key(r, &want);
            if (how == 2 && from != to) {
                want = all[from + random_below(r, to - from)];
            }
            want.ks = ks;
            want.tag = random_below(r, 2) == 0 ? UINT64_MAX : random_below(r, 4000) << 8;
            ok = memtable_cursor_seek(&c, loam_bytes(want.key, want.key_size), want.tag);
            for (at = from; at < to && version_order(&all[at], &want) < 0; at++) {
            }
        }
        for (int step = 0; step < 100; step++) {
            bool valid = at >= from && at < to;
            CHECK_EQ(ok, valid);
            CHECK_EQ(memtable_cursor_valid(&c), valid);
            if (!valid) {
                CHECK(!memtable_cursor_next(&c) && !memtable_cursor_next_key(&c));
                break;
            }
            struct entry e;
            memtable_cursor_entry(&c, &e);
            check_entry(&e, &all[at]);
            uint64_t move = random_below(r, 10);
            if (move < 5) {
                ok = memtable_cursor_next(&c);
                at++;
            } else if (move < 9) {
                ok = memtable_cursor_prev(&c);
                at = at == from ? to : at - 1;
            } else {
                ok = memtable_cursor_next_key(&c);
                size_t key = at;
                while (at < to && same_key(&all[at], &all[key])) {
                    at++;
                }
            }
        }
    }
}

static void model(size_t n, size_t bytes)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct memtable *m = make(bytes, 0);
    struct version *all = calloc(n, sizeof *all);
    CHECK(all != NULL);
    CHECK(memtable_empty(m));
    for (size_t i = 0; i < n; i++) {
        /* Mostly in order of sequence, sometimes a bit late, as concurrent writers are. */
        add_random(m, &r, &all[i], (i ^ (random_below(&r, 8) == 0 ? 0u : 1u)) * 2 + i % 2);
    }
    CHECK_EQ(memtable_count(m), n);
    CHECK(!memtable_empty(m));
    check_gets(m, &r, all, n, 2 * n + 2);
    qsort(all, n, sizeof *all, version_order);
    check_walks(m, &r, all, n);
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t found = 1;
        size_t k = 0;
        while (k < n && all[k].ks < spaces[i]) {
            k++;
        }
        CHECK_EQ(memtable_next_ks(m, spaces[i], &found), k < n ? LOAM_OK : LOAM_NOTFOUND);
        CHECK(k == n || found == all[k].ks);
    }
    free(all);
    memtable_destroy(m);
}

Test(memtable, agrees_with_the_model)
{
    model(2000, 4 << 20);
}

Test(memtable, agrees_with_the_model_when_filter_and_index_are_far_too_small)
{
    model(3000, 0);
}

Test(memtable, an_empty_one_answers)
{
    struct memtable *m = make(1 << 20, 0);
    struct memtable_cursor c;
    struct entry e;
    uint32_t ks;
    memtable_cursor_init(&c, m, 3);
    CHECK(!memtable_cursor_first(&c) && !memtable_cursor_last(&c));
    CHECK(!memtable_cursor_seek(&c, LOAM_LIT("a"), UINT64_MAX));
    CHECK_EQ(get(m, 3, LOAM_LIT("a"), SEQ_MAX, &e), LOAM_NOTFOUND);
    CHECK_EQ(memtable_next_ks(m, 0, &ks), LOAM_NOTFOUND);
    CHECK_EQ(memtable_bytes(m), 0);
    CHECK_EQ(memtable_count(m), 0);
    CHECK_EQ(memtable_id(m), 77);
    memtable_destroy(m);
    memtable_destroy(NULL);
}

Test(memtable, F8_a_delete_of_a_key_not_held_is_an_entry)
{
    struct memtable *m = make(1 << 20, 0);
    struct entry e;
    CHECK_EQ(add(m, 0, LOAM_LIT("elsewhere"), entry_tag(5, ENTRY_DELETE), LOAM_LIT("")), LOAM_OK);
    CHECK_EQ(get(m, 0, LOAM_LIT("elsewhere"), 5, &e), LOAM_OK);
    CHECK_EQ(tag_kind(e.tag), ENTRY_DELETE);
    CHECK_EQ(e.value.size, 0);
    CHECK_EQ(get(m, 0, LOAM_LIT("elsewhere"), 4, &e), LOAM_NOTFOUND);
    memtable_destroy(m);
}

Test(memtable, F9_F11_overwrites_and_deletes_leave_older_snapshots_alone)
{
    struct memtable *m = make(1 << 20, 0);
    struct entry e;
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(1, ENTRY_PUT), LOAM_LIT("one")), LOAM_OK);
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(2, ENTRY_DELETE), LOAM_LIT("")), LOAM_OK);
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(3, ENTRY_PUT), LOAM_LIT("three")), LOAM_OK);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), 1, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "one", 3);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), 2, &e), LOAM_OK);
    CHECK_EQ(tag_kind(e.tag), ENTRY_DELETE);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), SEQ_MAX, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "three", 5);
    memtable_destroy(m);
}

Test(memtable, F12_counts_every_entry_once)
{
    struct memtable *m = make(1 << 20, 0);
    for (uint64_t i = 1; i <= 1000; i++) {
        uint64_t key = i % 10;
        CHECK_EQ(add(m, 0, loam_bytes(&key, 8), entry_tag(i, i % 3 == 0 ? ENTRY_DELETE : ENTRY_PUT),
                     LOAM_LIT("")),
                 LOAM_OK);
        CHECK_EQ(memtable_count(m), i);
    }
    memtable_destroy(m);
}

Test(memtable, F13_the_limit_is_an_error_and_what_was_reserved_fits)
{
    struct random r;
    random_init(&r, seed_of_run());
    struct memtable *m = make(1 << 20, 2 << 20);
    static unsigned char value[9000];
    uint64_t seq = 0, added = 0;
    for (;;) {
        size_t n = 1 + random_below(&r, 50), keys[50], values[50];
        uint32_t spaces[50];
        struct memtable_need need = {0};
        for (size_t i = 0; i < n; i++) {
            keys[i] = random_below(&r, random_below(&r, 50) == 0 ? 5000 : 40);
            values[i] = random_below(&r, random_below(&r, 50) == 0 ? sizeof value : 100);
            spaces[i] = (uint32_t)random_below(&r, 2) * 70000;
            memtable_need_add(&need, spaces[i], keys[i], values[i]);
        }
        int rc = memtable_reserve(m, &need);
        if (rc != LOAM_OK) {
            CHECK_EQ(rc, LOAM_E_BUDGET);
            break;
        }
        for (size_t i = 0; i < n; i++) {
            memset(value, (int)random_below(&r, 256), keys[i]);
            CHECK_EQ(add(m, spaces[i], loam_bytes(value, keys[i]),
                         entry_tag(++seq, ENTRY_PUT), loam_bytes(value, values[i])),
                     LOAM_OK);
            added++;
        }
    }
    CHECK(memtable_reserved(m) <= 2 << 20);
    CHECK(memtable_bytes(m) > 1 << 20);
    /* Without a reservation it fails at some point, and then nothing was added. */
    int rc;
    do {
        rc = add(m, 0, LOAM_LIT("key"), entry_tag(++seq, ENTRY_PUT), loam_bytes(value, 500));
        added += rc == LOAM_OK;
    } while (rc == LOAM_OK);
    CHECK_EQ(rc, LOAM_E_BUDGET);
    struct entry e;
    if (get(m, 0, LOAM_LIT("key"), SEQ_MAX, &e) == LOAM_OK) {
        CHECK(tag_seq(e.tag) < seq);
    }
    CHECK_EQ(memtable_count(m), added);
    memtable_destroy(m);
}

/* What a need says is what its entries take: a batch of a million tiny ones must not take twice its memory. */
Test(memtable, a_need_is_what_entries_take)
{
    static const struct {
        size_t key, value;
    } shapes[] = {{2, 0}, {8, 1}, {16, 16}, {16, 100}, {1000, 0}, {1024, 3}, {5000, 100}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        static unsigned char bytes[5000], value[100];
        struct memtable *m = make(1 << 20, 0);
        struct memtable_need need = {0};
        uint64_t n = 3000;
        for (uint64_t k = 0; k < n; k++) {
            memtable_need_add(&need, 0, shapes[i].key, shapes[i].value);
        }
        uint64_t cost = memtable_cost(&need);
        CHECK_EQ(memtable_reserve(m, &need), LOAM_OK);
        uint64_t taken = memtable_bytes(m);
        for (uint64_t k = 0; k < n; k++) {
            bytes[0] = (unsigned char)k;
            bytes[1] = (unsigned char)(k >> 8);
            CHECK_EQ(add(m, 0, loam_bytes(bytes, shapes[i].key), entry_tag(k + 1, ENTRY_PUT),
                         loam_bytes(value, shapes[i].value)),
                     LOAM_OK);
        }
        CHECK_EQ(memtable_bytes(m), taken); /* nothing was missing */
        CHECK(taken <= cost + cost / 10 + 4096);
        CHECK(cost <= n * (shapes[i].key + shapes[i].value + 80));
        memtable_destroy(m);
    }
}

Test(memtable, F19_keys_and_values_over_their_limits_are_refused)
{
    struct memtable *m = make(1 << 20, 0);
    CHECK_EQ(memtable_add(m, 0, loam_bytes("", MEMTABLE_MAX_KEY + 1), 0, 1 << 8 | ENTRY_PUT,
                          LOAM_LIT("")),
             LOAM_E_TOOBIG);
    CHECK_EQ(memtable_add(m, 0, LOAM_LIT("k"), 0, 1 << 8 | ENTRY_PUT,
                          loam_bytes("", ((size_t)1 << 32) + 5)),
             LOAM_E_TOOBIG);
    CHECK(memtable_empty(m));
    static unsigned char key[MEMTABLE_MAX_KEY];
    struct entry e;
    for (uint64_t i = 0; i < 20; i++) {
        key[sizeof key - 1] = (unsigned char)i;
        CHECK_EQ(reserve_one(m, 0, sizeof key, 8), LOAM_OK);
        CHECK_EQ(
            add(m, 0, loam_bytes(key, sizeof key), entry_tag(i + 1, ENTRY_PUT), loam_bytes(&i, 8)),
            LOAM_OK);
    }
    for (uint64_t i = 0; i < 20; i++) {
        key[sizeof key - 1] = (unsigned char)i;
        CHECK_EQ(get(m, 0, loam_bytes(key, sizeof key), SEQ_MAX, &e), LOAM_OK);
        CHECK_BYTES(e.value.data, e.value.size, &i, 8);
        CHECK_BYTES(e.key.data, e.key.size, key, sizeof key);
    }
    memtable_destroy(m);
}

Test(memtable, what_is_expected_counts_until_it_came)
{
    struct memtable *m = make(1 << 20, 0);
    uint64_t limit = 1 << 20;
    CHECK(memtable_expect(m, 3 * limit, limit)); /* into an empty one, whatever it is */
    CHECK(!memtable_expect(m, 1, limit));
    memtable_came(m, 3 * limit);
    CHECK(memtable_expect(m, limit / 2, limit));
    CHECK(!memtable_expect(m, limit, limit));
    CHECK(memtable_expect(m, limit / 4, limit));
    CHECK_EQ(memtable_add(m, 0, LOAM_LIT("k"), hash_key("k", 1), entry_tag(9, ENTRY_PUT),
                          LOAM_LIT("v")),
             LOAM_OK);
    memtable_came(m, limit / 2);
    memtable_came(m, limit / 4);
    CHECK(memtable_expect(m, limit / 2, limit));
    memtable_came(m, limit / 2);
    CHECK(!memtable_expect(m, limit, limit)); /* something is there */
    memtable_destroy(m);
}

/* Between the two it is in no entry yet. */
Test(memtable, what_has_memory_and_is_still_to_be_added_counts)
{
    struct memtable *m = make(1 << 20, 0);
    uint64_t limit = 1 << 20;
    CHECK(memtable_untouched(m));
    CHECK(memtable_expect(m, 3 * limit, limit));
    CHECK_EQ(reserve_one(m, 0, 8, 3 * limit), LOAM_OK);
    memtable_came(m, 3 * limit);
    CHECK(memtable_empty(m));
    CHECK(!memtable_untouched(m));
    CHECK(!memtable_expect(m, 3 * limit, limit));
    memtable_destroy(m);
}

Test(memtable, large_values_round_trip)
{
    struct memtable *m = make(1 << 20, 0);
    size_t size = (size_t)24 << 20;
    unsigned char *value = malloc(size);
    memset(value, 5, size);
    value[size - 1] = 9;
    CHECK_EQ(reserve_one(m, 0, 1, size), LOAM_OK);
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(1, ENTRY_PUT), loam_bytes(value, size)), LOAM_OK);
    struct entry e;
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), 1, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, value, size);
    CHECK(memtable_bytes(m) >= size && memtable_bytes(m) < size + (1 << 20));
    free(value);
    memtable_destroy(m);
}

Test(memtable, F7_fill_and_drop_cycles_map_nothing_new)
{
    uint64_t maps = 0, held = 0;
    for (int cycle = 0; cycle < 8; cycle++) {
        struct memtable *m = make(1 << 20, 0);
        for (uint64_t i = 0; i < 8000; i++) {
            uint64_t key = i * 0x9e3779b97f4a7c15u;
            CHECK_EQ(add(m, 0, loam_bytes(&key, 8), entry_tag(i + 1, ENTRY_PUT),
                         loam_bytes("0123456789012345678901234567890123456789", 40)),
                     LOAM_OK);
        }
        memtable_destroy(m);
        if (cycle == 0) {
            maps = chunk_pool_stats(&pool).map_calls;
            held = alloc_used(&memory);
        }
    }
    CHECK_EQ(chunk_pool_stats(&pool).map_calls, maps);
    CHECK_EQ(alloc_used(&memory), held);
}

Test(memtable, adding_and_reading_call_no_allocator)
{
    struct memtable *m = make(1 << 20, 0);
    CHECK_EQ(add(m, 0, LOAM_LIT("first"), entry_tag(1, ENTRY_PUT), LOAM_LIT("v")), LOAM_OK);
    uint64_t calls = alloc_calls();
    for (uint64_t i = 2; i < 3000; i++) {
        struct entry e;
        CHECK_EQ(reserve_one(m, 0, 8, 8), LOAM_OK);
        CHECK_EQ(add(m, 0, loam_bytes(&i, 8), entry_tag(i, ENTRY_PUT), loam_bytes(&i, 8)), LOAM_OK);
        CHECK_EQ(get(m, 0, loam_bytes(&i, 8), SEQ_MAX, &e), LOAM_OK);
    }
    CHECK_EQ(alloc_calls(), calls);
    memtable_destroy(m);
}

Test(memtable, equal_keys_of_different_bytes_are_one_key_under_a_comparator)
{
    /* Keyspace 1 compares by its comparator only, so differing hashes must not hide a key. */
    struct memtable *m = make(1 << 20, 0);
    struct entry e;
    CHECK_EQ(memtable_add(m, 1, LOAM_LIT("k"), 1, entry_tag(1, ENTRY_PUT), LOAM_LIT("v")), LOAM_OK);
    CHECK_EQ(memtable_get(m, 1, LOAM_LIT("k"), UINT64_MAX, SEQ_MAX, &e), LOAM_OK);
    memtable_destroy(m);
}

Test(memtable, without_memory_it_is_not_created)
{
    struct memtable_options o = {.alloc = &memory, .pool = &pool, .bytes = 1 << 20};
    struct memtable *m = NULL;
    o.hard_limit = 1000;
    CHECK_EQ(memtable_create(&o, &m), LOAM_E_BUDGET);
    memory.limit = alloc_used(&memory) + 100;
    CHECK_EQ(memtable_create(&o, &m), LOAM_E_NOMEM);
    memory.limit = alloc_used(&memory) + 5000;
    o.hard_limit = 0;
    CHECK_EQ(memtable_create(&o, &m), LOAM_E_NOMEM);
    CHECK(m == NULL);
}

/* ---- additions that depend on what is there ---- */

static int add_new(struct memtable *m, loam_slice key, uint64_t tag, loam_slice value,
                   struct entry *in_way)
{
    return memtable_add_new(m, 0, key, hash_key(key.data, key.size), tag, value, in_way);
}

Test(memtable, F13_adding_a_new_key_tells_stored_from_not_stored)
{
    struct memtable *m = make(1 << 20, 0);
    struct entry e = {0};
    CHECK_EQ(add_new(m, LOAM_LIT("k"), entry_tag(1, ENTRY_PUT), LOAM_LIT("one"), &e), LOAM_OK);
    CHECK_EQ(add_new(m, LOAM_LIT("k"), entry_tag(2, ENTRY_PUT), LOAM_LIT("two"), &e),
             LOAM_E_EXISTS);
    CHECK_EQ(e.tag, entry_tag(1, ENTRY_PUT));
    CHECK_BYTES(e.value.data, e.value.size, "one", 3);
    CHECK_EQ(memtable_count(m), 1);
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(5, ENTRY_DELETE), LOAM_LIT("")), LOAM_OK);
    CHECK_EQ(add_new(m, LOAM_LIT("k"), entry_tag(4, ENTRY_PUT), LOAM_LIT("late"), &e),
             LOAM_E_EXISTS); /* the delete is newer */
    CHECK_EQ(tag_kind(e.tag), ENTRY_DELETE);
    CHECK_EQ(add_new(m, LOAM_LIT("k"), entry_tag(6, ENTRY_PUT), LOAM_LIT("six"), &e), LOAM_OK);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), SEQ_MAX, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "six", 3);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), 5, &e), LOAM_OK);
    CHECK_EQ(tag_kind(e.tag), ENTRY_DELETE);
    CHECK_EQ(memtable_count(m), 3);
    memtable_destroy(m);
}

Test(memtable, F14_a_frozen_one_refuses_by_a_code_of_its_own_and_can_be_read)
{
    struct memtable *m = make(1 << 20, 0);
    struct entry e;
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(1, ENTRY_PUT), LOAM_LIT("v")), LOAM_OK);
    CHECK(!memtable_frozen(m));
    memtable_freeze(m); /* readers may be anywhere, and nobody has to be the sole owner */
    CHECK(memtable_frozen(m));
    CHECK_EQ(add(m, 0, LOAM_LIT("k"), entry_tag(2, ENTRY_PUT), LOAM_LIT("w")), LOAM_E_CLOSED);
    CHECK_EQ(add_new(m, LOAM_LIT("l"), entry_tag(3, ENTRY_PUT), LOAM_LIT("w"), &e), LOAM_E_CLOSED);
    const struct memtable_op op = {.key = LOAM_LIT("m"), .tag = entry_tag(4, ENTRY_PUT)};
    CHECK_EQ(memtable_add_batch(m, &op, 1), LOAM_E_CLOSED);
    CHECK_EQ(get(m, 0, LOAM_LIT("k"), SEQ_MAX, &e), LOAM_OK);
    CHECK_EQ(tag_seq(e.tag), 1);
    CHECK_EQ(memtable_count(m), 1);
    memtable_destroy(m);
}

Test(memtable, F21_a_batch_is_added_whole_or_not_at_all)
{
    struct memtable *m = make(256 << 10, 1 << 20);
    static unsigned char big[300 << 10];
    struct memtable_op ops[4];
    for (unsigned i = 0; i < 4; i++) {
        unsigned char *key = &big[1000 * i];
        key[0] = (unsigned char)('a' + i);
        ops[i] = (struct memtable_op){.key = loam_bytes(key, 1),
                                      .key_hash = hash_key(key, 1),
                                      .tag = entry_tag(i + 1, ENTRY_PUT),
                                      .value = loam_bytes(big, 10)};
    }
    CHECK_EQ(memtable_add_batch(m, ops, 4), LOAM_OK);
    CHECK_EQ(memtable_count(m), 4);
    for (unsigned i = 0; i < 4; i++) {
        ops[i].tag = entry_tag(i + 10, ENTRY_PUT);
        ops[i].value = loam_bytes(big, sizeof big); /* the first ones would fit */
    }
    CHECK_EQ(memtable_add_batch(m, ops, 4), LOAM_E_BUDGET);
    CHECK_EQ(memtable_count(m), 4);
    ops[3].value = loam_bytes(big, (size_t)MEMTABLE_MAX_VALUE + 1);
    CHECK_EQ(memtable_add_batch(m, ops, 4), LOAM_E_TOOBIG);
    CHECK_EQ(memtable_count(m), 4);
    CHECK_EQ(memtable_add_batch(m, ops, 0), LOAM_OK);
    memtable_destroy(m);
}

Test(memtable, many_gets_answer_as_one_by_one)
{
    enum { KEYS = 1000, MANY = 61 };
    struct memtable *m = make(1 << 20, 0);
    for (uint32_t i = 0; i < KEYS; i += 2) {
        CHECK_EQ(add(m, 3, loam_bytes(&i, sizeof i), entry_tag(i + 1, ENTRY_PUT),
                     loam_bytes(&i, sizeof i)),
                 LOAM_OK);
    }
    struct random r;
    random_init(&r, seed_of_run());
    for (int round = 0; round < 100; round++) {
        uint32_t raw[MANY];
        loam_slice keys[MANY];
        uint64_t hashes[MANY];
        struct entry entries[MANY], e;
        int codes[MANY];
        size_t n = random_below(&r, MANY + 1);
        uint64_t snapshot = random_below(&r, KEYS + 10);
        for (size_t i = 0; i < n; i++) {
            raw[i] = (uint32_t)random_below(&r, KEYS);
            keys[i] = loam_bytes(&raw[i], sizeof raw[i]);
            hashes[i] = hash_key(&raw[i], sizeof raw[i]);
        }
        memtable_get_many(m, 3, keys, hashes, n, snapshot, entries, codes);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(codes[i], get(m, 3, keys[i], snapshot, &e));
            CHECK(codes[i] != LOAM_OK || entries[i].value.data == e.value.data);
        }
    }
    memtable_destroy(m);
}

Test(memtable, F20_figures_mean_the_same_with_and_without_a_limit)
{
    struct memtable *m = make(256 << 10, 0), *limited = make(256 << 10, 1 << 20);
    struct memtable_stats s, t;
    char value[100] = {0};
    for (uint32_t i = 0; i < 500; i++) {
        loam_slice key = loam_bytes(&i, sizeof i), v = loam_bytes(value, sizeof value);
        CHECK_EQ(add(m, 0, key, entry_tag(i + 1, ENTRY_PUT), v), LOAM_OK);
        CHECK_EQ(add(limited, 0, key, entry_tag(i + 1, ENTRY_PUT), v), LOAM_OK);
    }
    memtable_stats(m, &s);
    memtable_stats(limited, &t);
    CHECK(s.entries == 500 && t.entries == 500);
    CHECK(s.bytes == t.bytes && s.reserved == t.reserved && s.idle == t.idle);
    CHECK_EQ(s.bytes, memtable_bytes(m));
    CHECK(s.entry_bytes >= sizeof value + 4 && s.percent_used <= 100);
    CHECK(!s.under_pressure && !s.frozen && s.limit == UINT64_MAX && t.limit == 1 << 20);
    uint32_t i = 1000;
    while (!memtable_under_pressure(limited)) { /* comes before the end of the room */
        CHECK_EQ(add(limited, 0, loam_bytes(&i, sizeof i), entry_tag(i, ENTRY_PUT),
                     loam_bytes(value, sizeof value)),
                 LOAM_OK);
        i++;
    }
    memtable_stats(limited, &t);
    CHECK(t.under_pressure && t.reserved <= t.limit);
    memtable_destroy(m);
    memtable_destroy(limited);
}
