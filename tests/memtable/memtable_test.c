/* memtable_test.c - What the write buffer promises case by case: limits, counts, batches, a frozen one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "arena/random.h"
#include "tests/memtable/memtable_support.h"
#include "tests/support/seed.h"

TestSuite(memtable, .init = memtable_fix_start, .fini = memtable_fix_stop); /* and of its model's tests */
TestSuite(small_memtable, .init = memtable_fix_start_small, .fini = memtable_fix_stop);

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
            maps = chunk_pool_stats(&memtable_fix.pool).map_calls;
            held = alloc_used(&memtable_fix.memory);
        }
    }
    CHECK_EQ(chunk_pool_stats(&memtable_fix.pool).map_calls, maps);
    CHECK_EQ(alloc_used(&memtable_fix.memory), held);
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
    struct memtable_options o = {.alloc = &memtable_fix.memory, .pool = &memtable_fix.pool, .bytes = 1 << 20};
    struct memtable *m = NULL;
    o.hard_limit = 1000;
    CHECK_EQ(memtable_create(&o, &m), LOAM_E_BUDGET);
    memtable_fix.memory.limit = alloc_used(&memtable_fix.memory) + 100;
    CHECK_EQ(memtable_create(&o, &m), LOAM_E_NOMEM);
    memtable_fix.memory.limit = alloc_used(&memtable_fix.memory) + 5000;
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

/* Heights, too, are as they were reckoned with: in memory of any fill a batch finds what was set aside for it. */
Test(small_memtable, F21_batches_are_whole_until_one_is_refused)
{
    enum { MEMTABLES = 1000, MOST = 100 };
    static char keys[MOST][24];
    struct random r;
    random_init(&r, seed_of_run());
    for (unsigned i = 0; i < MEMTABLES; i++) {
        struct memtable *m = make(0, 128 << 10);
        uint64_t n = random_next(&r) >> 16, added = 0;
        for (;;) {
            struct memtable_op ops[MOST];
            uint64_t count = 1 + random_below(&r, MOST);
            for (uint64_t k = 0; k < count; k++) {
                ops[k] = numbered(n++, keys[k]);
            }
            int rc = memtable_add_batch(m, ops, count);
            added += rc == LOAM_OK ? count : 0;
            CHECK_EQ(memtable_count(m), added);
            if (rc != LOAM_OK) {
                CHECK_EQ(rc, LOAM_E_BUDGET);
                break;
            }
        }
        CHECK(added != 0);
        memtable_destroy(m);
    }
}

/* When an addition's turn comes its search has taken all the steps that the ones before it left time for. */
Test(memtable, a_pipeline_searches_ahead_of_each_addition)
{
    enum { ADDED = 2000, PIPED = 1000 };
    static char keys[PIPED][24];
    struct memtable *m = make(1 << 20, 0);
    struct memtable_need need = {0};
    for (uint64_t i = 0; i < ADDED; i++) {
        struct memtable_op o = numbered(i, keys[0]);
        CHECK_EQ(add(m, o.ks, o.key, o.tag, o.value), LOAM_OK);
        memtable_need_add(&need, 0, 16, 8);
    }
    CHECK_EQ(memtable_reserve(m, &need), LOAM_OK);
    struct memtable_pipeline p;
    memtable_pipeline_begin(&p, m);
    uint64_t searched = 0;
    for (uint64_t i = 0; i < PIPED; i++) {
        struct memtable_op o = numbered(ADDED + i, keys[i]);
        memtable_pipeline_add(&p, &o);
        const struct memtable_stage *next = &p.stages[p.added % MEMTABLE_STAGES];
        if (p.added >= SKIPLIST_AHEAD_STEPS) {
            CHECK(next->search != STAGE_NEW);
            CHECK(next->search != STAGE_SEARCHED || next->ahead.steps == SKIPLIST_AHEAD_STEPS);
            searched += next->search == STAGE_SEARCHED;
        }
    }
    memtable_pipeline_end(&p);
    CHECK(searched > PIPED * 9 / 10);
    CHECK_EQ(memtable_count(m), ADDED + PIPED);
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
