/* memtable_scenarios.c - Inserts at all levels, version chains, reads and cursors of the memtable.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "memtable/memtable.h"

#include <stdio.h>
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/thread_slot.h"
#include "memtable/key_index.h"
#include "tests/explore/explore.h"
#include "tests/explore/list_world.h"

/* ---- inserts ----------------------------------------------------------------------------- */

static const char *const between[] = {"b", "c", "d"};

static void insert_body(unsigned thread)
{
    add_tall(thread, between[thread], thread + 1);
}

static void three_check(void)
{
    list_check();
    EXPECT_EQ(skiplist_count(&w.list), 4);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(has(between[i], i + 1));
    }
}

SCENARIO(skiplist_insert, .says = "three neighbours of height 3 at once", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare, .body = insert_body,
         .check = three_check, .bound = 2)

static void insert_two_body(unsigned thread)
{
    add_tall(thread, thread == 0 ? "b" : "c", 1);
    add_tall(thread, thread == 0 ? "d" : "a", 2);
}

SCENARIO(skiplist_insert_two, .says = "two threads, two towers each, crosswise", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare, .body = insert_two_body,
         .check = list_check, .bound = 3)

/* What one thread inserts lies between the two inserts of the other, whose second one uses the
 * place of the first again: at upper levels that knows the newcomer as what follows. */
static void kept_place_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "b", 1);
        add_tall(0, "d", 2);
    } else {
        add_tall(1, "c", 3);
    }
}

SCENARIO(skiplist_kept_place, .says = "an insert next to the last one, with another in between",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare,
         .body = kept_place_body, .check = list_check, .bound = -1)

static void same_key_body(unsigned thread)
{
    add_tall(thread, "k", thread + 1);
}

SCENARIO(skiplist_same_key, .says = "three insert one key", .threads = 3, .flags = LOCK_FREE,
         .setup = setup_list, .prepare = prepare, .body = same_key_body, .check = same_key_check,
         .bound = -1, .budget = 20000)

/* ---- versions ---------------------------------------------------------------------------- */

static void setup_chain(void)
{
    setup_list();
    add("m", 3);
    add("m", 5);
}

static void chain_body(unsigned thread)
{
    static const uint64_t tags[3][2] = {{7, 2}, {6, 4}, {8, 9}};
    add("m", tags[thread][0]);
    add("m", tags[thread][1]);
    EXPECT(has("m", tags[thread][0]));
}

static void chain_check(void)
{
    list_check();
    struct entry e;
    for (uint64_t tag = 1; tag <= 9; tag++) {
        EXPECT_EQ(skiplist_get(&w.list, 0, slice("m"), tag, &e), LOAM_OK);
        EXPECT_EQ(e.tag, tag);
        expect_value(&e);
    }
}

SCENARIO(skiplist_chain, .says = "versions of one key, in any order, by three threads",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_chain, .prepare = prepare,
         .body = chain_body, .check = chain_check, .bound = 2)

/* ---- readers ----------------------------------------------------------------------------- */

static void setup_read(void)
{
    setup_list();
    add("a", 1); /* a cursor steps from here onto the new node, and reads ahead along its tower */
}

static void read_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "k", 1);
        add("k", 2);
    } else if (thread == 1) {
        bool first = has("k", 1);
        bool second = has("k", 1);
        EXPECT(!first || second);
        (void)has("z", 1);
    } else {
        struct skiplist_cursor c;
        skiplist_cursor_init(&c, &w.list, 0);
        char last = 0;
        bool seen_m = false;
        for (bool on = skiplist_cursor_first(&c); on; on = skiplist_cursor_next_key(&c)) {
            struct entry e;
            skiplist_cursor_entry(&c, &e);
            expect_value(&e);
            char key = *(const char *)e.key.data;
            EXPECT(key > last);
            last = key;
            seen_m = seen_m || key == 'm';
        }
        EXPECT(seen_m);
    }
}

SCENARIO(skiplist_read, .says = "a get and a cursor beside an insert and an overwrite",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_read, .prepare = prepare,
         .body = read_body, .check = list_check, .bound = -1)

static void reverse_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "k", 1);
        add_tall(0, "p", 2);
    } else {
        struct skiplist_cursor c;
        skiplist_cursor_init(&c, &w.list, 0);
        char last = 127;
        for (bool on = skiplist_cursor_last(&c); on; on = skiplist_cursor_prev(&c)) {
            struct entry e;
            skiplist_cursor_entry(&c, &e);
            expect_value(&e);
            char key = *(const char *)e.key.data;
            EXPECT(key < last);
            last = key;
        }
        EXPECT(last <= 'm');
    }
}

SCENARIO(skiplist_reverse, .says = "a cursor backwards beside inserts", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_read, .prepare = prepare, .body = reverse_body,
         .check = list_check, .bound = -1)

static void before_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "p", 1);
        add("m", 2);
    } else {
        struct skiplist_cursor c;
        struct entry e;
        skiplist_cursor_init(&c, &w.list, 0);
        EXPECT(skiplist_cursor_seek_before(&c, slice("n"), UINT64_MAX));
        skiplist_cursor_entry(&c, &e);
        EXPECT(*(const char *)e.key.data == 'm' && e.tag == 1);
        EXPECT(skiplist_cursor_seek_before(&c, slice("m"), 0));
        skiplist_cursor_entry(&c, &e);
        EXPECT(*(const char *)e.key.data == 'm' && e.tag == 1);
        EXPECT(skiplist_cursor_seek_before(&c, slice("m"), UINT64_MAX));
        skiplist_cursor_entry(&c, &e);
        EXPECT(*(const char *)e.key.data == 'a');
    }
}

SCENARIO(skiplist_seek_before, .says = "a cursor goes before a place behind which others add",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_read, .prepare = prepare,
         .body = before_body, .check = list_check, .bound = -1)

/* Level 1 of "k" is set, but not reachable there yet, when a cursor comes to it along level 0 and reads
 * ahead to "l". */
static struct skiplist_cursor lanes;

static void prepare_lanes(unsigned thread)
{
    if (thread < 2) {
        prepare(thread);
    } else {
        skiplist_cursor_init(&lanes, &w.list, 0);
        EXPECT(skiplist_cursor_first(&lanes));
    }
}

static void lanes_body(unsigned thread)
{
    if (thread == 2) {
        EXPECT(skiplist_cursor_next_key(&lanes));
        struct entry e;
        skiplist_cursor_entry(&lanes, &e);
        expect_value(&e);
    } else {
        w.writer[thread]->random = w.seed[2];
        add(thread == 0 ? "k" : "l", thread + 1);
    }
}

SCENARIO(skiplist_lanes, .says = "a cursor reads ahead along a tower that is being linked",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_read, .prepare = prepare_lanes,
         .body = lanes_body, .check = list_check, .bound = -1)

/* ---- the memtable: filter and index before the list -------------------------------------- */

static void setup_memtable(void)
{
    setup_pool();
    const struct memtable_options o = {
        .alloc = alloc_global(), .pool = &w.pool, .bytes = 4096, .id = 1};
    EXPECT_EQ(memtable_create(&o, &w.m), LOAM_OK);
}

static void prepare_memtable(unsigned thread)
{
    (void)thread;
    struct memtable_need need = {0};
    for (unsigned i = 0; i < 4; i++) {
        memtable_need_add(&need, 0, 16, 16);
    }
    EXPECT_EQ(memtable_reserve(w.m, &need), LOAM_OK);
}

static void put(const char *key, uint64_t seq)
{
    unsigned char buf[8];
    loam_slice k = slice(key);
    uint64_t tag = entry_tag(seq, ENTRY_PUT);
    memset(buf, (int)('0' + seq), 8);
    EXPECT_EQ(memtable_add(w.m, 0, k, hash_key(k.data, k.size), tag, loam_bytes(buf, 8)), LOAM_OK);
}

/* The sequence number of the newest version up to the snapshot; 0: none. */
static uint64_t get(const char *key, uint64_t snapshot)
{
    loam_slice k = slice(key);
    struct entry e;
    if (memtable_get(w.m, 0, k, hash_key(k.data, k.size), snapshot, &e) != LOAM_OK) {
        return 0;
    }
    uint64_t seq = tag_seq(e.tag);
    const unsigned char *p = e.value.data;
    for (unsigned i = 0; i < 8; i++) {
        EXPECT_EQ(p[i], '0' + seq);
    }
    return seq;
}

static void put_get_body(unsigned thread)
{
    if (thread < 2) {
        uint64_t seq = thread + 1;
        put("k", seq);
        EXPECT(get("k", SEQ_MAX) >= seq); /* what is added is found */
        EXPECT_EQ(get("k", seq), seq);
    } else {
        uint64_t first = get("k", SEQ_MAX);
        EXPECT(get("k", SEQ_MAX) >= first);
        EXPECT_EQ(get("x", SEQ_MAX), 0);
    }
}

static void put_get_check(void)
{
    EXPECT_EQ(get("k", 1), 1);
    EXPECT_EQ(get("k", 2), 2);
    EXPECT_EQ(memtable_count(w.m), 2);
}

SCENARIO(memtable_put_get, .says = "two add one key, the third asks for it", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_memtable, .prepare = prepare_memtable,
         .body = put_get_body, .check = put_get_check, .bound = -1)

/* Who is told that the key is there finds it. */
static void add_new_body(unsigned thread)
{
    unsigned char buf[8];
    uint64_t seq = thread + 1;
    loam_slice k = slice("k");
    struct entry in_way;
    int rc = memtable_add_new(w.m, 0, k, hash_key(k.data, k.size), entry_tag(seq, ENTRY_PUT),
                              value_of(seq, buf), &in_way);
    if (rc == LOAM_OK) {
        EXPECT_EQ(get("k", SEQ_MAX), seq);
    } else {
        EXPECT_EQ(rc, LOAM_E_EXISTS);
        EXPECT_EQ(get("k", SEQ_MAX), tag_seq(in_way.tag));
    }
}

static void add_new_check(void)
{
    EXPECT_EQ(memtable_count(w.m), 1);
    EXPECT(get("k", SEQ_MAX) != 0);
}

SCENARIO(memtable_add_new, .says = "two add one key if it is not there yet", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_memtable, .prepare = prepare_memtable,
         .body = add_new_body, .check = add_new_check, .bound = -1)

/* A batch's searches are under way when one of its keys comes from elsewhere. */
static void batch_body(unsigned thread)
{
    static const char *const keys[] = {"j", "k", "l"};
    if (thread == 1) {
        put("k", 4);
        EXPECT(get("k", SEQ_MAX) >= 4);
        return;
    }
    struct memtable_op ops[3];
    unsigned char values[3][8];
    for (unsigned i = 0; i < 3; i++) {
        loam_slice key = slice(keys[i]);
        memset(values[i], (int)('1' + i), 8);
        ops[i] = (struct memtable_op){.key = key,
                                      .key_hash = hash_key(key.data, key.size),
                                      .tag = entry_tag(i + 1, ENTRY_PUT),
                                      .value = loam_bytes(values[i], 8)};
    }
    EXPECT_EQ(memtable_add_batch(w.m, ops, 3), LOAM_OK);
    for (unsigned i = 0; i < 3; i++) {
        EXPECT(get(keys[i], SEQ_MAX) >= i + 1);
    }
}

static void batch_check(void)
{
    EXPECT_EQ(memtable_count(w.m), 4);
    EXPECT_EQ(get("j", SEQ_MAX), 1);
    EXPECT_EQ(get("k", 3), 2);
    EXPECT_EQ(get("k", SEQ_MAX), 4);
    EXPECT_EQ(get("l", SEQ_MAX), 3);
}

SCENARIO(memtable_batch, .says = "a batch, and another thread adds one of its keys", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_memtable, .prepare = prepare_memtable,
         .body = batch_body, .check = batch_check, .bound = -1)

/* ---- one bucket of the index --------------------------------------------------------------- */

static struct key_index_bucket bucket;
static struct key_index index_of_one;

static void setup_index(void)
{
    key_index_init(&index_of_one, &bucket, 1);
}

/* Each takes the slot behind those that it knows to be taken, and looks through all of them. */
static void index_body(unsigned thread)
{
    uint64_t hash = (uint64_t)(thread + 1) << 24;
    uint32_t ref = thread + 2, at = 0;
    key_index_add_new(&index_of_one, hash, ref);
    EXPECT_EQ(key_index_next(&bucket, hash, &at), ref);
}

static void index_check(void)
{
    for (unsigned i = 0; i < KEY_INDEX_SLOTS; i++) {
        EXPECT((atom_load(&bucket.slot[i], relaxed) != 0) == (i < 3));
    }
}

SCENARIO(index_new, .says = "three take slots of one bucket, and find what they put there",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_index, .body = index_body,
         .check = index_check, .bound = -1)
