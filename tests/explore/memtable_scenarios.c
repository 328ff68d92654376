/* memtable_scenarios.c - Inserts at all levels, version chains, reads and cursors of the memtable.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Behind every schedule the list is checked as a whole: level 0 in strict order, every tower linked
 * at each of its levels, each level a part of the one below, tags of chains falling.
 */
#include "memtable/memtable.h"

#include <stdio.h>
#include <string.h>

#include "arena/hash.h"
#include "arena/status.h"
#include "arena/thread_slot.h"
#include "tests/explore/explore.h"

enum { CHUNK = 16384, TALL = 3 };

static struct {
    struct chunk_pool pool;
    struct arena arena;
    struct skiplist list;
    struct memtable *m;
    struct skiplist_writer *writer[EXPLORE_THREADS];
    uint64_t seed[TALL + 1]; /* by the height that is drawn next */
} w;

static uint32_t height_from(uint64_t r)
{
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    uint64_t mixed = (r * 0x2545f4914f6cdd1du) >> 32;
    return 1 + (uint32_t)__builtin_ctzll(mixed | (uint64_t)1 << 30) / 2;
}

static loam_slice slice(const char *s)
{
    return loam_bytes(s, strlen(s));
}

/* Values tell their tag, in every byte. */
static loam_slice value_of(uint64_t tag, unsigned char buf[8])
{
    memset(buf, (int)('0' + tag), 8);
    return loam_bytes(buf, 8);
}

static void expect_value(const struct entry *e)
{
    EXPECT_EQ(e->value.size, 8);
    const unsigned char *p = e->value.data;
    for (unsigned i = 0; i < 8; i++) {
        EXPECT_EQ(p[i], '0' + e->tag);
    }
}

static void add(const char *key, uint64_t tag)
{
    unsigned char buf[8];
    struct skiplist_target t = skiplist_target(&w.list, 0, slice(key));
    struct skiplist_place p;
    skiplist_locate(&w.list, &t, &p);
    EXPECT_EQ(skiplist_link(&w.list, &p, tag, value_of(tag, buf)), LOAM_OK);
}

static bool has(const char *key, uint64_t min_tag)
{
    struct entry e;
    if (skiplist_get(&w.list, 0, slice(key), UINT64_MAX, &e) != LOAM_OK) {
        return false;
    }
    expect_value(&e);
    return e.tag >= min_tag;
}

/* With chunks that were used before. */
static void setup_pool(void)
{
    EXPECT_EQ(chunk_pool_init(&w.pool, alloc_global(), CHUNK, 4), LOAM_OK);
    void *a = chunk_pool_take(&w.pool), *b = chunk_pool_take(&w.pool);
    EXPECT(a != NULL && b != NULL);
    memset(a, 0xa5, CHUNK);
    memset(b, 0xa5, CHUNK);
    chunk_pool_give(&w.pool, a);
    chunk_pool_give(&w.pool, b);
}

static void setup_list(void)
{
    for (uint32_t h = 1; h <= TALL; h++) {
        for (w.seed[h] = 1; height_from(w.seed[h]) != h; w.seed[h]++) {
        }
    }
    setup_pool();
    EXPECT_EQ(arena_init(&w.arena, &w.pool, arena_new_ids(1), 2048, ARENA_NO_LIMIT), LOAM_OK);
    skiplist_init(&w.list, &w.arena, &w.arena, NULL, NULL);
    add("m", 1);
}

/* A writer's record for each thread, and room, so that schedules are about links. */
static void prepare(unsigned thread)
{
    EXPECT_EQ(skiplist_ensure(&w.list, 4, 64), LOAM_OK);
    uint32_t ref = w.list.writers;
    struct skiplist_writer *r = arena_at(&w.arena, ref);
    while (r->slot != thread_slot_self()) {
        r = arena_at(&w.arena, r->next);
    }
    r->random = w.seed[TALL];
    w.writer[thread] = r;
}

static void add_high(unsigned thread, uint32_t height, const char *key, uint64_t tag)
{
    w.writer[thread]->random = w.seed[height];
    add(key, tag);
    EXPECT(has(key, tag));
}

static void add_tall(unsigned thread, const char *key, uint64_t tag)
{
    add_high(thread, TALL, key, tag);
}

static void list_check(void)
{
    const char *broken = skiplist_check(&w.list);
    if (broken != NULL) {
        explore_fail("%s", broken);
    }
}

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

static void same_key_check(void)
{
    list_check();
    EXPECT_EQ(skiplist_count(&w.list), 4);
    struct entry e;
    for (uint64_t tag = 1; tag <= 3; tag++) {
        EXPECT_EQ(skiplist_get(&w.list, 0, slice("k"), tag, &e), LOAM_OK);
        EXPECT_EQ(e.tag, tag);
        expect_value(&e);
    }
}

SCENARIO(skiplist_same_key, .says = "three insert one key", .threads = 3, .flags = LOCK_FREE,
         .setup = setup_list, .prepare = prepare, .body = same_key_body, .check = same_key_check,
         .bound = 2)

/* ---- guides ------------------------------------------------------------------------------ */

/* "aa" has a guide with two of its neighbours; "abc" will take over what lies behind it, of which
 * "abd" has one byte in common with "aa" and two with "abc". */
static void setup_guides(void)
{
    setup_list();
    prepare(0);
    add_high(0, TALL, "aa", 1);
    add_high(0, 2, "abd", 2);
    add_high(0, 1, "b", 3);
}

static void guides_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "abc", 4);
    } else if (thread == 1) {
        add_high(1, 2, "abb", 5);
        add_high(1, 2, "abe", 6);
    } else {
        EXPECT(has("abd", 2));
        EXPECT(has("b", 3));
        EXPECT(!has("abcd", 1));
        (void)has("abe", 6);
    }
}

static void guides_check(void)
{
    static const char *const keys[] = {"m", "aa", "abd", "b", "abc", "abb", "abe"};
    list_check();
    for (unsigned i = 0; i < 7; i++) {
        EXPECT(has(keys[i], i == 0 ? 1 : i));
    }
}

SCENARIO(skiplist_guides, .says = "a guide is divided beside additions to it and searches by it",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_guides, .prepare = prepare,
         .body = guides_body, .check = guides_check, .bound = 2)

static void guides_two_body(unsigned thread)
{
    if (thread == 0) {
        add_high(0, 2, "abb", 4);
        add_high(0, 2, "abc", 5);
    } else {
        add_high(1, 2, "abe", 6);
    }
}

static void guides_two_check(void)
{
    static const char *const keys[] = {"aa", "abd", "b", "abb", "abc", "abe"};
    list_check();
    for (unsigned i = 0; i < 6; i++) {
        EXPECT(has(keys[i], i + 1));
    }
}

SCENARIO(skiplist_guides_two, .says = "two threads link behind what a guide named last",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_guides, .prepare = prepare,
         .body = guides_two_body, .check = guides_two_check, .bound = 3)

/* "c" goes behind what a guide names, of which one level may not be linked yet. */
static void guides_new_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "a", 2);
        add_high(0, 2, "c", 3);
    } else {
        add_high(1, 2, "b", 4);
    }
}

static void guides_new_check(void)
{
    list_check();
    EXPECT(has("a", 2));
    EXPECT(has("b", 4));
    EXPECT(has("c", 3));
}

SCENARIO(skiplist_guides_new, .says = "a guide is collected while one of its nodes is being linked",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare,
         .body = guides_new_body, .check = guides_new_check, .bound = 3)

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
         .body = read_body, .check = list_check, .bound = 2)

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
    EXPECT_EQ(memtable_reserve(w.m, 4, 64), LOAM_OK);
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
