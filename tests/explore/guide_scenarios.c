/* guide_scenarios.c - Guides divided, entered, collected and searched by, and the places writers keep.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/explore/list_world.h"

/* ---- guides of level 2 ------------------------------------------------------------------- */

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

/* The list is sound, and the i-th key is there since i + 1. */
static void expect_all(const char *const *keys, unsigned count)
{
    list_check();
    for (unsigned i = 0; i < count; i++) {
        EXPECT(has(keys[i], i + 1));
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
    expect_all(keys, 6);
}

SCENARIO(skiplist_guides_two, .says = "two threads link behind what a guide named last",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_guides, .prepare = prepare,
         .body = guides_two_body, .check = guides_two_check, .bound = -1)

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
         .body = guides_new_body, .check = guides_new_check, .bound = -1)

/* ---- guides of level 4 ------------------------------------------------------------------- */

/* "aa" has both guides: "aca" of height 3 and "b" of height 4 in the one of level 4, "abd" in that of
 * level 2. */
static void setup_guides_high(void)
{
    setup_list();
    prepare(0);
    add_high(0, HIGHEST, "aa", 1);
    add_high(0, 2, "abd", 2);
    add_high(0, 3, "aca", 3);
    add_high(0, 4, "b", 4);
}

static void guides_high_body(unsigned thread)
{
    if (thread == 0) {
        add_high(0, HIGHEST, "abc", 5);
    } else if (thread == 1) {
        add_high(1, 4, "abb", 6);
        add_high(1, 3, "ad", 7);
    } else {
        EXPECT(has("abd", 2));
        EXPECT(has("b", 4));
        EXPECT(!has("abcd", 1));
        (void)has("ad", 7);
    }
}

static void guides_high_check(void)
{
    static const char *const keys[] = {"aa", "abd", "aca", "b", "abc", "abb", "ad"};
    expect_all(keys, 7);
}

SCENARIO(skiplist_guides_high, .says = "guides of two levels are divided and searched by at once",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_guides_high, .prepare = prepare,
         .body = guides_high_body, .check = guides_high_check, .bound = 2)

/* As guides_new, two levels up. */
static void guides_high_new_body(unsigned thread)
{
    if (thread == 0) {
        add_high(0, HIGHEST, "a", 2);
        add_high(0, 4, "c", 3);
    } else {
        add_high(1, 4, "b", 4);
    }
}

SCENARIO(skiplist_guides_high_new, .says = "the same with guides of level 4", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare, .body = guides_high_new_body,
         .check = guides_new_check, .bound = 3)

static void guides_high_two_body(unsigned thread)
{
    add_high(thread, 4, thread == 0 ? "ae" : "af", 5 + thread);
}

static void guides_high_two_check(void)
{
    static const char *const keys[] = {"aa", "abd", "aca", "b", "ae", "af"};
    expect_all(keys, 6);
}

SCENARIO(skiplist_guides_high_two, .says = "what a guide of level 4 names last is still being linked",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_guides_high, .prepare = prepare,
         .body = guides_high_two_body, .check = guides_high_two_check, .bound = -1)

/* ---- guides and keyspaces ---------------------------------------------------------------- */

/* Keyspace 2 has keys that are smaller, by bytes, than those of keyspace 1 before it. */
static void setup_keyspaces(void)
{
    setup_empty();
    prepare(0);
    add_high_in(0, 2, 1, "m", 1);
    add_high_in(0, 1, 1, "x", 2);
}

static void keyspaces_body(unsigned thread)
{
    if (thread == 0) {
        add_high_in(0, TALL, 1, "p", 3);
        add_high_in(0, 2, 1, "q", 4);
    } else {
        add_high_in(1, 1, 2, "b", 5);
        add_high_in(1, TALL, 2, "a", 6);
    }
}

static void keyspaces_check(void)
{
    static const char *const keys[] = {"m", "x", "p", "q", "b", "a"};
    list_check();
    for (unsigned i = 0; i < 6; i++) {
        uint32_t ks = i < 4 ? 1 : 2;
        EXPECT(has_in(ks, keys[i], i + 1));
        EXPECT(!has_in(3 - ks, keys[i], 1));
    }
}

SCENARIO(skiplist_guides_keyspaces, .says = "two fill neighbouring keyspaces: no guide crosses",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_keyspaces, .prepare = prepare,
         .body = keyspaces_body, .check = keyspaces_check, .bound = -1)

/* ---- undone nodes ------------------------------------------------------------------------ */

/* Two insert one key. The loser's node had taken over a part of the guide of "aa"; its memory becomes
 * that of another node, while a third searches by that guide. */
static void loser_body(unsigned thread)
{
    if (thread < 2) {
        add_tall(thread, "abc", 4 + thread);
        add_high(thread, 2, thread == 0 ? "abb" : "abe", 6 + thread);
    } else {
        EXPECT(has("abd", 2));
        EXPECT(has("b", 3));
        (void)has("abc", 4);
    }
}

static void loser_check(void)
{
    static const char *const keys[] = {"aa", "abd", "b", "abc", "abc", "abb", "abe"};
    expect_all(keys, 7);
}

SCENARIO(skiplist_guides_loser, .says = "a node that came second is undone, guides and all",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_guides, .prepare = prepare,
         .body = loser_body, .check = loser_check, .bound = 2)

/* ---- kept places ------------------------------------------------------------------------- */

/* The place that thread 0 keeps behind "b" knows nothing of the levels that "c" brings. */
static void kept_high_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "b", 1);
        add_high(0, HIGHEST, "d", 2);
    } else {
        add_high(1, HIGHEST, "c", 3);
    }
}

SCENARIO(skiplist_kept_high, .says = "a kept place, and a higher node between in the meantime",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare,
         .body = kept_high_body, .check = list_check, .bound = 3)

/* ---- searches ahead ---------------------------------------------------------------------- */

/* What thread 0 has found on the upper levels is old when it goes on: there are nodes of its own behind it, and
 * of the other. */
static void ahead_body(unsigned thread)
{
    if (thread == 0) {
        struct skiplist_ahead high, low;
        begin_high(0, HIGHEST, "abc", 2, &high);
        begin_high(0, 2, "ac", SKIPLIST_AHEAD_STEPS, &low);
        add_high(0, 4, "abb", 5);
        end_high(&high, 6);
        end_high(&low, 7);
    } else {
        add_high(1, HIGHEST, "abbb", 8);
        add_high(1, 3, "abe", 9);
    }
}

static void ahead_check(void)
{
    static const char *const keys[] = {"aa", "abd", "aca", "b", "abb", "abc", "ac", "abbb", "abe"};
    expect_all(keys, 9);
}

SCENARIO(skiplist_ahead, .says = "two searches are begun, other nodes come, and they go on", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_guides_high, .prepare = prepare, .body = ahead_body,
         .check = ahead_check, .bound = 2)

/* Levels that the list did not have when it was begun. */
static void ahead_height_body(unsigned thread)
{
    if (thread == 0) {
        struct skiplist_ahead a;
        begin_high(0, HIGHEST, "b", 1, &a);
        add_high(0, HIGHEST, "d", 1);
        end_high(&a, 2);
    } else {
        add_high(1, HIGHEST, "c", 3);
    }
}

SCENARIO(skiplist_ahead_height, .says = "a search goes on in a list that has become higher", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare, .body = ahead_height_body,
         .check = list_check, .bound = 3)

/* The key that was searched for has come meanwhile, by either thread. */
static void ahead_same_body(unsigned thread)
{
    if (thread == 0) {
        struct skiplist_ahead one, two;
        begin_high(0, TALL, "k", SKIPLIST_AHEAD_STEPS, &one);
        begin_high(0, TALL, "k", 1, &two);
        end_high(&one, 1);
        end_high(&two, 2);
    } else {
        add_tall(1, "k", 3);
    }
}

SCENARIO(skiplist_ahead_same, .says = "one key is searched for ahead twice, and inserted by another",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_list, .prepare = prepare,
         .body = ahead_same_body, .check = same_key_check, .bound = -1)

/* The record of a thread that exits, place included, is that of who gets its number. */
static void prepare_takeover(unsigned thread)
{
    if (thread == 0) {
        prepare(thread);
    } else {
        thread_exits(); /* it has no number until its first insert */
    }
}

static void takeover_body(unsigned thread)
{
    if (thread == 0) {
        add_tall(0, "b", 1);
    } else {
        add("c", 2);
        add("e", 3);
    }
}

static void takeover_check(void)
{
    list_check();
    EXPECT_EQ(skiplist_count(&w.list), 4);
    EXPECT(has("b", 1));
    EXPECT(has("c", 2));
    EXPECT(has("e", 3));
}

SCENARIO(skiplist_takeover, .says = "a thread goes on with the record of one that has exited",
         .threads = 2, .flags = EXITS, .setup = setup_list, .prepare = prepare_takeover,
         .body = takeover_body, .check = takeover_check, .bound = -1)
