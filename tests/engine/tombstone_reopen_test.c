/* tombstone_reopen_test.c - What is known of deleted keys across a close, a crash and a late comparator.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: after a clean close the first seek knows what was known before; after a crash a worker finds it
 * out, also where a comparator comes later; and what was written since is never hidden.
 * Oracle: as in tombstone_test.c.
 */
#include <criterion/criterion.h>

#include "tests/engine/tombstone_support.h"

TestSuite(tombstone_reopen);

static const enum layout layouts[] = {IN_MEMORY, BOTH_FLUSHED, PUTS_AT_BOTTOM, DELETES_SPREAD};
enum { COUNT = sizeof layouts / sizeof *layouts };

static void open_known_town(struct town *t, enum layout layout, bool reversed)
{
    town_open(t, reversed);
    town_fill(t, layout);
    town_learn(t, FIRST, true, LAST);
    CHECK(town_knows(t, 1, FEW));
}

/* Nobody has looked yet, nor will a worker, where a database is open for reading only. */
Test(tombstone_reopen, what_was_known_at_a_clean_close_is_known_to_the_first_seek)
{
    for (int i = 0; i < 2 * COUNT; i++) {
        struct town t;
        bool reversed = i >= COUNT;
        open_known_town(&t, layouts[i % COUNT], reversed);
        for (int n = 0; n < 2; n++) { /* known ranges are known at the second close, too */
            town_close_db(&t);
            town_open_db(&t, 0);
            town_open_ks(&t);
            CHECK(town_knows(&t, 1, FEW));
        }
        GOES(loam_flush(t.db, NULL)); /* what is in memory could not be put in another order */
        town_close_db(&t);
        town_open_db(&t, LOAM_OPEN_READONLY);
        town_open_ks(&t);
        town_moves_are_cheap(&t);
        town_close(&t);
    }
}

/* A comparator that is not given keeps its ranges waiting, over as many closes as it takes. */
Test(tombstone_reopen, ranges_wait_for_the_comparator_of_their_keyspace)
{
    struct town t;
    open_known_town(&t, IN_MEMORY, true);
    for (int i = 0; i < 3; i++) {
        town_close_db(&t);
        town_open_db(&t, 0);
        CHECK(!town_knows(&t, 1, FEW));
    }
    town_open_ks(&t);
    CHECK(town_knows(&t, 1, FEW));
    town_moves_are_cheap(&t);
    town_close(&t);
}

/* The put is in the log or in a table when the process ends, which leaves the ranges it found or not. */
static void put_after_reopen(bool reversed, bool flushed, bool crash)
{
    struct town t;
    open_known_town(&t, BOTH_FLUSHED, reversed);
    town_close_db(&t);
    town_open_db(&t, 0);
    town_open_ks(&t);
    CHECK(town_knows(&t, 1, FEW));
    uint32_t n = FIRST + DEAD / 2;
    town_put(&t, town_place(&t, n));
    if (flushed) {
        GOES(loam_flush(t.db, NULL));
    }
    for (int i = 0; i < 2; i++) {
        loam_iter *it = town_iter(&t, NULL);
        town_seek(&t, it, FIRST, true, n);
        town_seek(&t, it, LAST - 1, false, n);
        loam_iter_close(it);
        if (i == 1) {
            break;
        }
        if (crash) {
            town_crash(&t);
        } else {
            town_close_db(&t);
        }
        town_open_db(&t, 0);
        town_open_ks(&t);
    }
    town_close(&t);
}

Test(tombstone_reopen, a_put_since_the_open_is_seen_after_the_next)
{
    for (int i = 0; i < 8; i++) {
        put_after_reopen((i & 1) != 0, (i & 2) != 0, (i & 4) != 0);
    }
}

/* A keyspace that is gone leaves nothing behind, nor does it stand in the way of another. */
Test(tombstone_reopen, ranges_of_a_dropped_keyspace_are_gone)
{
    struct town t;
    open_known_town(&t, BOTH_FLUSHED, false);
    GOES(loam_ks_drop(t.db, "town"));
    town_close_db(&t);
    town_open_db(&t, 0);
    CHECK(!town_knows(&t, 1, FEW));
    town_open_ks(&t); /* another one */
    for (uint32_t i = 0; i < KEYS; i++) {
        town_put(&t, i);
    }
    loam_iter *it = town_iter(&t, NULL);
    town_seek(&t, it, FIRST + 1, true, FIRST + 1);
    loam_iter_close(it);
    town_close(&t);
}

/* The open finds it out, or, where a comparator comes later, the call that gives it. */
Test(tombstone_reopen, after_a_crash_the_first_seek_knows_the_stretch)
{
    for (int i = 0; i < 2 * COUNT; i++) {
        struct town t;
        town_open(&t, i >= COUNT);
        town_fill(&t, layouts[i % COUNT]);
        town_crash(&t);
        town_open_db(&t, 0);
        CHECK_EQ(town_knows(&t, 1, WORTH), !t.reversed);
        town_open_ks(&t);
        CHECK(town_knows(&t, 1, WORTH));
        loam_iter *it = town_iter(&t, NULL);
        CHEAP(&t, town_seek(&t, it, FIRST + DEAD / 3, true, LAST));
        loam_iter_close(it);
        town_close(&t);
    }
}

/* ---- long keys --------------------------------------------------------------------------------- */

enum { LONG_KEYS = 160, LONG_FIRST = 5, LONG_LAST = LONG_KEYS - 5 };

static loam_slice long_key(uint32_t i, char to[LOAM_MAX_KEY])
{
    memset(to, 'k', LOAM_MAX_KEY);
    char end[16];
    loam_slice k = town_key(i, end);
    memcpy(to + LOAM_MAX_KEY - k.size, k.data, k.size);
    return loam_bytes(to, LOAM_MAX_KEY);
}

/* A move from key i; the key it finds. */
static void long_seek(struct town *t, loam_iter *it, uint32_t i, bool forward, uint32_t expected)
{
    static char key[LOAM_MAX_KEY];
    loam_slice k = long_key(i, key), found;
    GOES(forward ? loam_iter_seek(it, k) : loam_iter_seek_le(it, k));
    found = loam_iter_key(it);
    k = long_key(expected, key);
    CHECK_BYTES(found.data, found.size, k.data, k.size);
    (void)t;
}

static void long_moves_are_cheap(struct town *t)
{
    loam_iter *it = town_iter(t, NULL);
    for (uint32_t i = LONG_FIRST; i < LONG_LAST; i += 29) {
        CHEAP(t, long_seek(t, it, i, true, LONG_LAST));
        CHEAP(t, long_seek(t, it, i, false, LONG_FIRST - 1));
    }
    loam_iter_close(it);
}

Test(tombstone_reopen, stretches_of_the_longest_keys_are_known_and_stay_so)
{
    static char key[LOAM_MAX_KEY];
    for (int flushed = 0; flushed < 2; flushed++) {
        struct town t;
        town_open(&t, false);
        for (uint32_t i = 0; i < LONG_KEYS; i++) {
            GOES(loam_put(t.db, t.ks, long_key(i, key), text("value"), NULL));
        }
        for (uint32_t i = LONG_FIRST; i < LONG_LAST; i++) {
            GOES(loam_delete(t.db, t.ks, long_key(i, key), NULL));
        }
        if (flushed != 0) {
            GOES(loam_flush(t.db, NULL));
        }
        loam_iter *it = town_iter(&t, NULL);
        for (int n = 0; n < TRIES; n++) {
            long_seek(&t, it, LONG_FIRST, true, LONG_LAST);
        }
        long_moves_are_cheap(&t);
        /* A put parts the stretch in two, and both are known. */
        GOES(loam_put(t.db, t.ks, long_key(80, key), text("value"), NULL));
        GOES(loam_iter_refresh(it, NULL));
        CHEAP(&t, long_seek(&t, it, LONG_FIRST, true, 80));
        CHEAP(&t, long_seek(&t, it, LONG_LAST - 1, false, 80));
        GOES(loam_delete(t.db, t.ks, long_key(80, key), NULL));
        GOES(loam_iter_refresh(it, NULL));
        long_seek(&t, it, LONG_FIRST, true, LONG_LAST);
        loam_iter_close(it);
        town_close_db(&t);
        town_open_db(&t, 0);
        town_open_ks(&t);
        long_moves_are_cheap(&t);
        town_close(&t);
    }
}
