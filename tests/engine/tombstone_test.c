/* tombstone_test.c - Seeks among deleted keys: what they show, and how many they look at.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: once a stretch of deletes has been walked over, every move into, out of or across it looks at no
 * more than a few of them, forward and backward, wherever puts and deletes are stored, and whatever is
 * put into the stretch is seen by whoever may see it, and by nobody else.
 * Oracle: the keys that live are known; steps are counted by the statistic of deletes passed, never by time.
 */
#include <criterion/criterion.h>

#include "arena/sync.h"
#include "engine/db.h"
#include "engine/dead_scout.h"
#include "tests/engine/log_support.h"
#include "tests/engine/tombstone_support.h"

TestSuite(tombstone);

static void known_after_one_walk(bool reversed, bool forward)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct town t;
        town_open(&t, reversed);
        town_fill(&t, (enum layout)layout);
        town_learn(&t, forward ? FIRST : LAST - 1, forward, forward ? LAST : FIRST - 1);
        town_moves_are_cheap(&t);
        town_old_snapshot_sees_all(&t);
        town_close(&t);
    }
}

Test(tombstone, a_stretch_walked_forward_is_jumped_over_ever_after)
{
    known_after_one_walk(false, true);
}

Test(tombstone, a_stretch_walked_backward_is_jumped_over_ever_after)
{
    known_after_one_walk(false, false);
}

Test(tombstone, stretches_follow_the_order_of_a_comparator)
{
    known_after_one_walk(true, true);
    known_after_one_walk(true, false);
}

/* A key is put into the known stretch and deleted again, at both ends and within. */
static void put_into_stretch(enum layout layout, bool reversed)
{
    struct town t;
    town_open(&t, reversed);
    town_fill(&t, layout);
    town_learn(&t, FIRST, true, LAST);
    static const uint32_t where[] = {FIRST, FIRST + 1, FIRST + DEAD / 2, LAST - 2, LAST - 1};
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        uint32_t n = where[i];
        loam_iter *earlier = town_iter(&t, NULL);
        town_put(&t, town_place(&t, n));
        if (i % 2 == 1) {
            GOES(loam_flush(t.db, NULL));
        }
        loam_iter *it = town_iter(&t, NULL);
        CHEAP(&t, town_seek(&t, it, FIRST, true, n));
        CHEAP(&t, town_seek(&t, it, LAST - 1, false, n));
        CHEAP(&t, town_seek(&t, it, n, true, n));
        CHEAP(&t, town_stands_on(it, loam_iter_next(it), town_place(&t, LAST)));
        CHEAP(&t, town_stands_on(it, loam_iter_prev(it), town_place(&t, n)));
        CHEAP(&t, town_stands_on(it, loam_iter_prev(it), town_place(&t, FIRST - 1)));
        /* One that was opened before does not see it, and jumps over both halves. */
        uint64_t start = town_passed(&t);
        town_seek(&t, earlier, FIRST, true, LAST);
        town_seek(&t, earlier, LAST - 1, false, FIRST - 1);
        CHECK(town_passed(&t) - start <= 6 * FEW);
        loam_iter_close(earlier);
        town_delete(&t, town_place(&t, n));
        town_seek(&t, it, FIRST, true, n); /* the iterator's state is the older one */
        CHECK_EQ(loam_iter_refresh(it, NULL), LOAM_OK);
        start = town_passed(&t);
        town_seek(&t, it, FIRST, true, LAST);
        town_seek(&t, it, LAST - 1, false, FIRST - 1);
        CHECK(town_passed(&t) - start <= 6 * FEW);
        loam_iter_close(it);
    }
    town_old_snapshot_sees_all(&t);
    town_close(&t);
}

Test(tombstone, a_put_into_a_known_stretch_is_seen_and_costs_it_nothing)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        put_into_stretch((enum layout)layout, false);
    }
    put_into_stretch(IN_MEMORY, true);
}

/* An iterator's number is older than a put into the stretch it walks over: what it learns must not hide
 * the put from those who see it. The put is in memory, or in a table by then. */
static void learn_behind_the_time(bool flushed, bool forward)
{
    struct town t;
    town_open(&t, false);
    town_fill(&t, BOTH_FLUSHED);
    loam_iter *behind = town_iter(&t, NULL);
    uint32_t n = FIRST + DEAD / 2;
    town_put(&t, n);
    if (flushed) {
        GOES(loam_flush(t.db, NULL));
    }
    town_seek(&t, behind, forward ? FIRST : LAST - 1, forward, forward ? LAST : FIRST - 1);
    loam_iter_close(behind);
    loam_iter *it = town_iter(&t, NULL);
    town_seek(&t, it, FIRST, true, n);
    town_seek(&t, it, LAST - 1, false, n);
    loam_iter_close(it);
    town_close(&t);
}

Test(tombstone, a_walk_at_an_older_number_does_not_hide_newer_puts)
{
    for (int i = 0; i < 4; i++) {
        learn_behind_the_time((i & 1) != 0, (i & 2) != 0);
    }
}

/* The memtable is empty when the iterator's sources are built, so the walk does not come by the put. */
Test(tombstone, a_walk_that_cannot_see_a_put_does_not_hide_it)
{
    struct town t;
    town_open(&t, false);
    town_fill(&t, BOTH_FLUSHED);
    loam_iter *behind = town_iter(&t, NULL);
    town_seek(&t, behind, 0, true, 0);
    town_put(&t, FIRST + DEAD / 2);
    town_seek(&t, behind, FIRST, true, LAST);
    loam_iter_close(behind);
    loam_iter *it = town_iter(&t, NULL);
    town_seek(&t, it, FIRST, true, FIRST + DEAD / 2);
    town_seek(&t, it, LAST - 1, false, FIRST + DEAD / 2);
    loam_iter_close(it);
    town_close(&t);
}

/* For the snapshot the first half is deleted, for those who learn all of it. */
Test(tombstone, what_newer_readers_learned_hides_nothing_of_an_older_snapshot)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        struct town t;
        town_open(&t, false);
        for (uint32_t i = 0; i < KEYS; i++) {
            town_put(&t, i);
        }
        for (uint32_t i = FIRST; i < LAST; i++) {
            if (i == FIRST + DEAD / 2) {
                GOES(loam_snap_take(t.db, &t.before));
            }
            town_delete(&t, i);
        }
        if (flushed != 0) {
            GOES(loam_flush(t.db, NULL));
        }
        town_learn(&t, FIRST, true, LAST);
        loam_iter *old = town_iter(&t, t.before);
        town_seek(&t, old, FIRST, true, FIRST + DEAD / 2);
        town_seek(&t, old, FIRST + DEAD / 2 - 1, false, FIRST - 1);
        town_seek(&t, old, FIRST + DEAD / 2 - 1, true, FIRST + DEAD / 2);
        town_seek(&t, old, LAST - 1, false, LAST - 1);
        loam_iter_close(old);
        town_moves_are_cheap(&t);
        town_close(&t);
    }
}

/* ... and is of use to newer readers when what was written meanwhile is elsewhere. */
Test(tombstone, a_walk_at_an_older_number_is_of_use_to_newer_ones)
{
    for (int n = 0; n < TRIES; n++) { /* a view that changes in the midst of a proof spoils it */
        struct town t;
        town_open(&t, false);
        town_fill(&t, n % 2 == 0 ? BOTH_FLUSHED : IN_MEMORY);
        loam_iter *behind = town_iter(&t, NULL);
        town_put(&t, FIRST - 1);
        town_put(&t, LAST);
        town_delete(&t, FIRST + DEAD / 2);
        town_seek(&t, behind, FIRST, true, LAST);
        loam_iter_close(behind);
        loam_iter *it = town_iter(&t, NULL);
        uint64_t start = town_passed(&t);
        town_seek(&t, it, FIRST, true, LAST);
        bool known = town_passed(&t) - start <= 4 * FEW; /* two stretches: the delete parts them */
        loam_iter_close(it);
        town_close(&t);
        if (known) {
            return;
        }
    }
    CHECK_FAIL_("%d walks, and nothing was learned", TRIES);
}

Test(tombstone, a_stretch_of_one_keyspace_hides_nothing_of_another)
{
    struct town t;
    town_open(&t, false);
    town_fill(&t, IN_MEMORY);
    town_learn(&t, FIRST, true, LAST);
    struct town other = t;
    loam_ks_options k = {.struct_size = sizeof k};
    GOES(loam_ks_open(t.db, "other", &k, &other.ks));
    for (uint32_t i = 0; i < KEYS; i += 7) {
        town_put(&other, i);
    }
    for (uint32_t i = 0; i < KEYS; i += 14) {
        town_delete(&other, i);
    }
    loam_iter *it = town_iter(&other, NULL);
    int rc = loam_iter_first(it);
    for (uint32_t i = 7; i < KEYS; i += 14, rc = loam_iter_next(it)) {
        town_stands_on(it, rc, i);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    loam_iter_close(it);
    town_moves_are_cheap(&t); /* and the puts there have not cut it here */
    loam_ks_release(other.ks);
    town_close(&t);
}

/* A queue: keys are put at the end and deleted at the front, and the front is looked for each time. */
Test(tombstone, the_front_of_a_queue_is_found_in_a_bounded_number_of_steps)
{
    struct town t;
    town_open(&t, false);
    GOES(loam_snap_take(t.db, &t.before));
    enum { LENGTH = 5, OPS = 20000 };
    uint64_t most = 0, slow = 0;
    for (uint32_t i = 0; i < OPS; i++) {
        town_put(&t, i);
        if (i < LENGTH) {
            continue;
        }
        town_delete(&t, i - LENGTH);
        uint64_t start = town_passed(&t);
        loam_iter *it = town_iter(&t, NULL);
        town_stands_on(it, loam_iter_first(it), i - LENGTH + 1);
        loam_iter_close(it);
        uint64_t n = town_passed(&t) - start;
        most = n > most ? n : most;
        slow += n > 2 * WORTH;
    }
    if (slow > TRIES) { /* a walk is in vain when the view changes in the midst of it, no more */
        CHECK_FAIL_("%llu looks at the front passed up to %llu deletes", (unsigned long long)slow,
                    (unsigned long long)most);
    }
    town_close(&t);
}

/* Each lies between two keys, and is looked for in no better order than all others. */
Test(tombstone, two_thousand_stretches_are_known_at_once)
{
    enum { STRETCHES = 2000, EACH = 3 * WORTH };
    struct town t;
    char key[16];
    town_open(&t, false);
    GOES(loam_snap_take(t.db, &t.before));
    for (uint32_t i = 0; i <= STRETCHES * EACH; i++) {
        if (i % EACH == 0) {
            town_put(&t, i);
        } else {
            town_delete(&t, i);
        }
    }
    loam_iter *it = town_iter(&t, NULL);
    uint32_t dear = STRETCHES;
    for (int pass = 0; pass < TRIES && dear != 0; pass++) {
        dear = 0;
        for (uint32_t i = 0; i < STRETCHES; i++) {
            uint64_t start = town_passed(&t);
            int rc = loam_iter_seek(it, town_key(i * EACH + 1, key));
            town_stands_on(it, rc, (i + 1) * EACH);
            dear += town_passed(&t) - start > 2 * WORTH;
        }
    }
    loam_iter_close(it);
    CHECK_EQ(dear, 0);
    town_close(&t);
}

/* Bounds end a walk early; what was learned reaches beyond them and is right there, too. */
Test(tombstone, bounds_inside_a_known_stretch_are_kept)
{
    struct town t;
    town_open(&t, false);
    town_fill(&t, BOTH_FLUSHED);
    town_learn(&t, FIRST, true, LAST);
    char a[16], b[16];
    loam_iter_opts o = {
        .struct_size = sizeof o, .lower = town_key(FIRST + 100, a), .upper = town_key(LAST - 100, b)};
    loam_iter *it;
    GOES(loam_iter_open(t.db, t.ks, &o, &it));
    CHEAP(&t, CHECK_EQ(loam_iter_first(it), LOAM_NOTFOUND));
    CHEAP(&t, CHECK_EQ(loam_iter_last(it), LOAM_NOTFOUND));
    town_put(&t, FIRST + 200);
    CHECK_EQ(loam_iter_refresh(it, NULL), LOAM_OK);
    CHEAP(&t, town_stands_on(it, loam_iter_first(it), FIRST + 200));
    CHEAP(&t, town_stands_on(it, loam_iter_last(it), FIRST + 200));
    loam_iter_close(it);
    town_close(&t);
}

static uint64_t disk_bytes(const struct town *t)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(t->db, t->ks, &s));
    return s.disk_bytes;
}

/* Deletes leave hints; a worker walks from there before any reader comes. The runner ends a test that waits
 * for ever. */
Test(tombstone, the_first_seek_finds_the_stretch_known)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct town t;
        town_open(&t, layout % 2 == 1);
        town_fill(&t, (enum layout)layout);
        for (uint32_t deletes = DEAD; !town_knows(&t, 1, 0);) {
            do { /* the last one leaves a hint; one that is lost is followed by another */
                town_delete(&t, FIRST + deletes % DEAD);
            } while (++deletes % DEAD_SCOUT_EVERY != 0);
            for (int n = 0; n < 1000 && !town_knows(&t, 1, 0); n++) {
                thread_sleep_micros(1000);
            }
        }
        CHECK_EQ(town_passed(&t), 0);
        town_moves_are_cheap(&t);
        town_old_snapshot_sees_all(&t);
        town_close(&t);
    }
}

enum { STRETCHES = DEAD_RANGES_MAX / 2 + 10, BIG = 300, BIG_BYTES = 40000 };

static void dig_stretches(struct town *t)
{
    for (uint32_t i = 0; i < STRETCHES; i++) {
        for (uint32_t n = 0; n <= WORTH + 1; n++) {
            n == 0 ? town_put(t, i * 100) : town_delete(t, i * 100 + n);
        }
    }
    loam_iter *it = town_iter(t, NULL);
    for (int rc = loam_iter_first(it); rc != LOAM_NOTFOUND; rc = loam_iter_next(it)) {
        CHECK_EQ(rc, LOAM_OK);
    }
    loam_iter_close(it);
}

/* Deletes over puts for each of which a walk reads a block that no cache holds. */
static loam_ks *bury_big(struct town *t)
{
    static char value[BIG_BYTES];
    const loam_ks_options o = {
        .struct_size = sizeof o, .block_bytes = 65536, .compression = LOAM_COMPRESS_NONE};
    loam_ks *ks;
    char key[16];
    GOES(loam_ks_open(t->db, "big", &o, &ks));
    for (uint32_t i = 0; i < BIG; i++) {
        GOES(loam_put(t->db, ks, town_key(i, key), loam_bytes(value, sizeof value), NULL));
    }
    GOES(loam_flush(t->db, NULL));
    loam_ks_release(ks);
    town_close_db(t);
    town_open_db(t, 0);
    town_open_ks(t);
    GOES(loam_ks_open(t->db, "big", &o, &ks));
    for (uint32_t i = 0; i < BIG; i++) {
        GOES(loam_delete(t->db, ks, town_key(i, key), NULL));
    }
    return ks;
}

static bool scout_is_busy(struct db *db)
{
    mutex_lock(&db->mu);
    bool busy = dead_scout_busy_locked(db);
    mutex_unlock(&db->mu);
    return busy;
}

/* With half of the places taken a few dead keys are not worth another, and these are as many as a scout may pass
 * at once for what has to be read. */
Test(tombstone, a_hint_that_leads_to_nothing_worth_a_place_is_given_up)
{
    struct town t;
    char key[16];
    town_open(&t, false);
    loam_ks *ks = bury_big(&t);
    grow_log(t.db);
    dig_stretches(&t);
    struct db *db = db_behind(t.db);
    CHECK(dead_ranges_worth(&db->dead) > WORTH);
    dead_scout_leave_(&db->scout, 2, town_key(BIG / 2, key));
    GOES(loam_put(t.db, t.ks, LOAM_LIT("somebody looks"), LOAM_LIT("for work"), NULL));
    for (int n = 0; scout_is_busy(db); n++) {
        CHECK(n < 50); /* rounds */
        thread_sleep_micros(DEAD_SCOUT_US);
    }
    loam_ks_release(ks);
    town_close(&t);
}

/* Merges that wait for quiet times are not waited for by loam_wait_idle(). The runner ends a test that
 * waits for ever. */
static void wait_for_bytes(const struct town *t, uint64_t at_most)
{
    while (disk_bytes(t) > at_most) {
        thread_sleep_micros(10000);
    }
}

/* Deletes that hide nothing go, and so does what they hid, with no more than time to be idle. */
Test(tombstone, the_space_of_deleted_keys_comes_back)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct town t;
        town_open(&t, false);
        town_fill(&t, (enum layout)layout);
        GOES(loam_flush(t.db, NULL));
        uint64_t full = disk_bytes(&t);
        GOES(loam_pause(t.db, 0));
        GOES(loam_wait_idle(t.db, 0));
        town_old_snapshot_sees_all(&t); /* as long as somebody may look, all stays */
        loam_snap_release(t.before);
        t.before = NULL;
        wait_for_bytes(&t, full / 10);
        loam_iter *it = town_iter(&t, NULL);
        uint64_t start = town_passed(&t);
        town_seek(&t, it, FIRST, true, LAST);
        town_seek(&t, it, LAST - 1, false, FIRST - 1);
        CHECK_EQ(town_passed(&t), start); /* there is not one delete left */
        loam_iter_close(it);
        for (uint32_t i = 0; i < KEYS; i++) {
            town_delete(&t, i);
        }
        GOES(loam_flush(t.db, NULL));
        wait_for_bytes(&t, 0);
        town_close(&t);
    }
}
