/* tombstone_test.c - Seeks among deleted keys: what they show, and how many they look at.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: once a stretch of deletes has been walked over, every move into, out of or across it looks at no
 * more than a few of them, forward and backward, wherever puts and deletes are stored, and whatever is
 * put into the stretch is seen by whoever may see it, and by nobody else.
 * Oracle: the keys that live are known; steps are counted by the statistic of deletes passed, never by time.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/epoch.h"
#include "arena/sync.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/db_support.h"

enum {
    KEYS = 3000,
    FIRST = 10, /* [FIRST, LAST) are deleted */
    LAST = KEYS - 10,
    DEAD = LAST - FIRST,
    FEW = 8,   /* deletes a move may pass where all is known */
    TRIES = 10 /* walks until a range is known: one, and one more when a view changes meanwhile */
};

/* Where puts and deletes are when the seeks begin. */
enum layout { IN_MEMORY, PUTS_FLUSHED, BOTH_FLUSHED, PUTS_AT_BOTTOM, DELETES_SPREAD, LAYOUTS };

#define NONE UINT32_MAX

TestSuite(tombstone);

struct town {
    loam_vfs *disk;
    loam_db *db;
    loam_ks *ks;
    loam_snap *before; /* of all keys */
    bool reversed;
};

static loam_slice key_of(uint32_t i, char to[16])
{
    return loam_bytes(to, (size_t)snprintf(to, 16, "key%07u", i));
}

static void put(struct town *t, uint32_t i)
{
    char key[16];
    GOES(loam_put(t->db, t->ks, key_of(i, key), text("value"), NULL));
}

static void delete (struct town *t, uint32_t i)
{
    char key[16];
    GOES(loam_delete(t->db, t->ks, key_of(i, key), NULL));
}

static int reverse(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(b.data, a.data, n);
    return c != 0 ? c : (b.size > a.size) - (b.size < a.size);
}

static const loam_comparator backwards = {
    .struct_size = sizeof backwards, .name = "tombstone.reverse", .compare = reverse};

static void open_town(struct town *t, bool reversed)
{
    *t = (struct town){.disk = memory_disk(), .reversed = reversed};
    loam_options o = small_options(t->disk);
    o.memory_budget = (uint64_t)64 << 20; /* nothing is flushed but by hand */
    GOES(loam_open("/db", &o, &t->db));
    GOES(loam_pause(t->db, 1));
    loam_ks_options k = {.struct_size = sizeof k, .comparator = reversed ? &backwards : NULL};
    if (loam_ks_open(t->db, "town", &k, &t->ks) < 0) {
        CHECK_FAIL_("%s", loam_last_error()->message);
    }
}

static void fill(struct town *t, enum layout layout)
{
    for (uint32_t i = 0; i < KEYS; i++) {
        put(t, i);
    }
    GOES(loam_snap_take(t->db, &t->before));
    if (layout == PUTS_AT_BOTTOM) {
        GOES(loam_pause(t->db, 0));
        GOES(loam_compact(t->db, t->ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        GOES(loam_pause(t->db, 1));
    } else if (layout != IN_MEMORY) {
        GOES(loam_flush(t->db, NULL));
    }
    for (uint32_t i = 0; i < DEAD; i++) {
        delete (t, FIRST + (uint32_t)((uint64_t)i * 1009 % DEAD));
        if (layout == DELETES_SPREAD && i % (DEAD / 4) == DEAD / 8) {
            GOES(loam_flush(t->db, NULL));
        }
    }
    if (layout == BOTH_FLUSHED || layout == PUTS_AT_BOTTOM) {
        GOES(loam_flush(t->db, NULL));
    }
}

static void close_town(struct town *t)
{
    loam_snap_release(t->before);
    loam_ks_release(t->ks);
    GOES(loam_close(t->db));
    loam_vfs_free(t->disk);
}

static uint64_t passed(const struct town *t)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(t->db, NULL, &s));
    return s.tombstones_skipped;
}

static loam_iter *iter(const struct town *t, const loam_snap *snap)
{
    loam_iter *it;
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    GOES(loam_iter_open(t->db, t->ks, &o, &it));
    return it;
}

/* The iterator stands on this key; NONE: on none. */
static void stands_on(loam_iter *it, int rc, uint32_t i)
{
    if (i == NONE) {
        CHECK_EQ(rc, LOAM_NOTFOUND);
        return;
    }
    char key[16];
    loam_slice expected = key_of(i, key), found;
    CHECK_EQ(rc, LOAM_OK);
    found = loam_iter_key(it);
    CHECK_BYTES(found.data, found.size, expected.data, expected.size);
}

/* Keys in the order of the keyspace: the n-th is i, or KEYS - 1 - i. */
static uint32_t place(const struct town *t, uint32_t n)
{
    return t->reversed ? KEYS - 1 - n : n;
}

static void seek(const struct town *t, loam_iter *it, uint32_t from, bool forward,
                 uint32_t expected)
{
    char key[16];
    loam_slice k = key_of(place(t, from), key);
    stands_on(it, forward ? loam_iter_seek(it, k) : loam_iter_seek_le(it, k),
              expected == NONE ? NONE : place(t, expected));
}

/* Seeks until the stretch around `from` is known, and no longer. */
static void learn(const struct town *t, uint32_t from, bool forward, uint32_t expected)
{
    for (int n = 0; n < TRIES; n++) {
        loam_iter *it = iter(t, NULL);
        uint64_t start = passed(t);
        seek(t, it, from, forward, expected);
        loam_iter_close(it);
        if (passed(t) - start <= FEW) {
            return;
        }
    }
    CHECK_FAIL_("%d walks, and still not known", TRIES);
}

/* One move that must pass few deletes. */
#define CHEAP(t, move)                                                                             \
    do {                                                                                           \
        uint64_t start_ = passed(t);                                                               \
        move;                                                                                      \
        uint64_t n_ = passed(t) - start_;                                                          \
        if (n_ > FEW) {                                                                            \
            CHECK_FAIL_("%s passed %llu deletes", #move, (unsigned long long)n_);                  \
        }                                                                                          \
    } while (0)

/* Every kind of move over the stretch, all of it known. */
static void moves_are_cheap(const struct town *t)
{
    loam_iter *it = iter(t, NULL);
    static const uint32_t from[] = {FIRST, FIRST + 1, FIRST + DEAD / 3, LAST - 100, LAST - 1};
    for (size_t i = 0; i < sizeof from / sizeof *from; i++) {
        CHEAP(t, seek(t, it, from[i], true, LAST));
        CHEAP(t, seek(t, it, from[i], false, FIRST - 1));
    }
    seek(t, it, FIRST - 1, true, FIRST - 1);
    CHEAP(t, stands_on(it, loam_iter_next(it), place(t, LAST)));
    CHEAP(t, stands_on(it, loam_iter_prev(it), place(t, FIRST - 1)));
    CHEAP(t, stands_on(it, loam_iter_next(it), place(t, LAST)));
    loam_iter_close(it);
}

/* Whoever may still see the keys sees them. */
static void old_snapshot_sees_all(const struct town *t)
{
    loam_iter *old = iter(t, t->before);
    uint64_t start = passed(t);
    int rc = loam_iter_first(old);
    for (uint32_t n = 0; n < KEYS; n++, rc = loam_iter_next(old)) {
        stands_on(old, rc, place(t, n));
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    rc = loam_iter_last(old);
    for (uint32_t n = KEYS; n-- > 0; rc = loam_iter_prev(old)) {
        stands_on(old, rc, place(t, n));
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(passed(t), start);
    loam_iter_close(old);
}

static void known_after_one_walk(bool reversed, bool forward)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct town t;
        open_town(&t, reversed);
        fill(&t, (enum layout)layout);
        learn(&t, forward ? FIRST : LAST - 1, forward, forward ? LAST : FIRST - 1);
        moves_are_cheap(&t);
        old_snapshot_sees_all(&t);
        close_town(&t);
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
    open_town(&t, reversed);
    fill(&t, layout);
    learn(&t, FIRST, true, LAST);
    static const uint32_t where[] = {FIRST, FIRST + 1, FIRST + DEAD / 2, LAST - 2, LAST - 1};
    for (size_t i = 0; i < sizeof where / sizeof *where; i++) {
        uint32_t n = where[i];
        loam_iter *earlier = iter(&t, NULL);
        put(&t, place(&t, n));
        if (i % 2 == 1) {
            GOES(loam_flush(t.db, NULL));
        }
        loam_iter *it = iter(&t, NULL);
        CHEAP(&t, seek(&t, it, FIRST, true, n));
        CHEAP(&t, seek(&t, it, LAST - 1, false, n));
        CHEAP(&t, seek(&t, it, n, true, n));
        CHEAP(&t, stands_on(it, loam_iter_next(it), place(&t, LAST)));
        CHEAP(&t, stands_on(it, loam_iter_prev(it), place(&t, n)));
        CHEAP(&t, stands_on(it, loam_iter_prev(it), place(&t, FIRST - 1)));
        /* One that was opened before does not see it, and jumps over both halves. */
        uint64_t start = passed(&t);
        seek(&t, earlier, FIRST, true, LAST);
        seek(&t, earlier, LAST - 1, false, FIRST - 1);
        CHECK(passed(&t) - start <= 6 * FEW);
        loam_iter_close(earlier);
        delete (&t, place(&t, n));
        seek(&t, it, FIRST, true, n); /* the iterator's state is the older one */
        CHECK_EQ(loam_iter_refresh(it, NULL), LOAM_OK);
        start = passed(&t);
        seek(&t, it, FIRST, true, LAST);
        seek(&t, it, LAST - 1, false, FIRST - 1);
        CHECK(passed(&t) - start <= 6 * FEW);
        loam_iter_close(it);
    }
    old_snapshot_sees_all(&t);
    close_town(&t);
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
    open_town(&t, false);
    fill(&t, BOTH_FLUSHED);
    loam_iter *behind = iter(&t, NULL);
    uint32_t n = FIRST + DEAD / 2;
    put(&t, n);
    if (flushed) {
        GOES(loam_flush(t.db, NULL));
    }
    seek(&t, behind, forward ? FIRST : LAST - 1, forward, forward ? LAST : FIRST - 1);
    loam_iter_close(behind);
    loam_iter *it = iter(&t, NULL);
    seek(&t, it, FIRST, true, n);
    seek(&t, it, LAST - 1, false, n);
    loam_iter_close(it);
    close_town(&t);
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
    open_town(&t, false);
    fill(&t, BOTH_FLUSHED);
    loam_iter *behind = iter(&t, NULL);
    seek(&t, behind, 0, true, 0);
    put(&t, FIRST + DEAD / 2);
    seek(&t, behind, FIRST, true, LAST);
    loam_iter_close(behind);
    loam_iter *it = iter(&t, NULL);
    seek(&t, it, FIRST, true, FIRST + DEAD / 2);
    seek(&t, it, LAST - 1, false, FIRST + DEAD / 2);
    loam_iter_close(it);
    close_town(&t);
}

/* For the snapshot the first half is deleted, for those who learn all of it. */
Test(tombstone, what_newer_readers_learned_hides_nothing_of_an_older_snapshot)
{
    for (int flushed = 0; flushed < 2; flushed++) {
        struct town t;
        open_town(&t, false);
        for (uint32_t i = 0; i < KEYS; i++) {
            put(&t, i);
        }
        for (uint32_t i = FIRST; i < LAST; i++) {
            if (i == FIRST + DEAD / 2) {
                GOES(loam_snap_take(t.db, &t.before));
            }
            delete (&t, i);
        }
        if (flushed != 0) {
            GOES(loam_flush(t.db, NULL));
        }
        learn(&t, FIRST, true, LAST);
        loam_iter *old = iter(&t, t.before);
        seek(&t, old, FIRST, true, FIRST + DEAD / 2);
        seek(&t, old, FIRST + DEAD / 2 - 1, false, FIRST - 1);
        seek(&t, old, FIRST + DEAD / 2 - 1, true, FIRST + DEAD / 2);
        seek(&t, old, LAST - 1, false, LAST - 1);
        loam_iter_close(old);
        moves_are_cheap(&t);
        close_town(&t);
    }
}

/* ... and is of use to newer readers when what was written meanwhile is elsewhere. */
Test(tombstone, a_walk_at_an_older_number_is_of_use_to_newer_ones)
{
    for (int n = 0; n < TRIES; n++) { /* a view that changes in the midst of a proof spoils it */
        struct town t;
        open_town(&t, false);
        fill(&t, n % 2 == 0 ? BOTH_FLUSHED : IN_MEMORY);
        loam_iter *behind = iter(&t, NULL);
        put(&t, FIRST - 1);
        put(&t, LAST);
        delete (&t, FIRST + DEAD / 2);
        seek(&t, behind, FIRST, true, LAST);
        loam_iter_close(behind);
        loam_iter *it = iter(&t, NULL);
        uint64_t start = passed(&t);
        seek(&t, it, FIRST, true, LAST);
        bool known = passed(&t) - start <= 4 * FEW; /* two stretches: the delete parts them */
        loam_iter_close(it);
        close_town(&t);
        if (known) {
            return;
        }
    }
    CHECK_FAIL_("%d walks, and nothing was learned", TRIES);
}

Test(tombstone, a_stretch_of_one_keyspace_hides_nothing_of_another)
{
    struct town t;
    open_town(&t, false);
    fill(&t, IN_MEMORY);
    learn(&t, FIRST, true, LAST);
    struct town other = t;
    loam_ks_options k = {.struct_size = sizeof k};
    GOES(loam_ks_open(t.db, "other", &k, &other.ks));
    for (uint32_t i = 0; i < KEYS; i += 7) {
        put(&other, i);
    }
    for (uint32_t i = 0; i < KEYS; i += 14) {
        delete (&other, i);
    }
    loam_iter *it = iter(&other, NULL);
    int rc = loam_iter_first(it);
    for (uint32_t i = 7; i < KEYS; i += 14, rc = loam_iter_next(it)) {
        stands_on(it, rc, i);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    loam_iter_close(it);
    moves_are_cheap(&t); /* and the puts there have not cut it here */
    loam_ks_release(other.ks);
    close_town(&t);
}

/* A queue: keys are put at the end and deleted at the front, and the front is looked for each time. */
Test(tombstone, the_front_of_a_queue_is_found_in_a_bounded_number_of_steps)
{
    struct town t;
    open_town(&t, false);
    GOES(loam_snap_take(t.db, &t.before));
    enum { LENGTH = 5, OPS = 20000, WORTH = 64 };
    uint64_t most = 0, slow = 0;
    for (uint32_t i = 0; i < OPS; i++) {
        put(&t, i);
        if (i < LENGTH) {
            continue;
        }
        delete (&t, i - LENGTH);
        uint64_t start = passed(&t);
        loam_iter *it = iter(&t, NULL);
        stands_on(it, loam_iter_first(it), i - LENGTH + 1);
        loam_iter_close(it);
        uint64_t n = passed(&t) - start;
        most = n > most ? n : most;
        slow += n > 2 * WORTH;
    }
    if (slow > TRIES) { /* a walk is in vain when the view changes in the midst of it, no more */
        CHECK_FAIL_("%llu looks at the front passed up to %llu deletes", (unsigned long long)slow,
                    (unsigned long long)most);
    }
    close_town(&t);
}

/* Bounds end a walk early; what was learned reaches beyond them and is right there, too. */
Test(tombstone, bounds_inside_a_known_stretch_are_kept)
{
    struct town t;
    open_town(&t, false);
    fill(&t, BOTH_FLUSHED);
    learn(&t, FIRST, true, LAST);
    char a[16], b[16];
    loam_iter_opts o = {
        .struct_size = sizeof o, .lower = key_of(FIRST + 100, a), .upper = key_of(LAST - 100, b)};
    loam_iter *it;
    GOES(loam_iter_open(t.db, t.ks, &o, &it));
    CHEAP(&t, CHECK_EQ(loam_iter_first(it), LOAM_NOTFOUND));
    CHEAP(&t, CHECK_EQ(loam_iter_last(it), LOAM_NOTFOUND));
    put(&t, FIRST + 200);
    CHECK_EQ(loam_iter_refresh(it, NULL), LOAM_OK);
    CHEAP(&t, stands_on(it, loam_iter_first(it), FIRST + 200));
    CHEAP(&t, stands_on(it, loam_iter_last(it), FIRST + 200));
    loam_iter_close(it);
    close_town(&t);
}

static uint64_t disk_bytes(const struct town *t)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(t->db, t->ks, &s));
    return s.disk_bytes;
}

/* Whether a range holds the whole stretch. */
static bool stretch_is_known(const struct town *t, uint32_t ks)
{
    char key[16];
    bool known = true;
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(t->db));
    for (uint32_t i = FIRST; i < LAST && known; i++) {
        known = dead_ranges_find(&db->dead, ks, key_of(i, key), UINT64_MAX) != NULL;
    }
    epoch_exit();
    return known;
}

/* Deletes leave hints; a worker walks from there before any reader comes. The runner ends a test that waits
 * for ever. */
Test(tombstone, the_first_seek_finds_the_stretch_known)
{
    for (int layout = 0; layout < LAYOUTS; layout++) {
        struct town t;
        open_town(&t, layout % 2 == 1);
        fill(&t, (enum layout)layout);
        for (uint32_t deletes = DEAD; !stretch_is_known(&t, 1);) {
            do { /* the last one leaves a hint; one that is lost is followed by another */
                delete (&t, FIRST + deletes % DEAD);
            } while (++deletes % DEAD_SCOUT_EVERY != 0);
            for (int n = 0; n < 1000 && !stretch_is_known(&t, 1); n++) {
                thread_sleep_micros(1000);
            }
        }
        CHECK_EQ(passed(&t), 0);
        moves_are_cheap(&t);
        old_snapshot_sees_all(&t);
        close_town(&t);
    }
}

/* Nothing of it is stored: the log's replay leaves hints, and tables full of deletes are surveyed. */
Test(tombstone, the_first_seek_after_an_open_finds_the_stretch_known)
{
    static const enum layout layouts[] = {IN_MEMORY, BOTH_FLUSHED, PUTS_AT_BOTTOM, DELETES_SPREAD};
    for (int i = 0; i < 4; i++) {
        struct town t;
        open_town(&t, false);
        fill(&t, layouts[i]);
        loam_snap_release(t.before);
        loam_ks_release(t.ks);
        GOES(loam_close(t.db));
        loam_options o = small_options(t.disk);
        o.memory_budget = (uint64_t)64 << 20;
        GOES(loam_open("/db", &o, &t.db));
        GOES(loam_pause(t.db, 1));
        GOES(loam_wait_idle(t.db, 0));
        GOES(loam_ks_open(t.db, "town", NULL, &t.ks));
        moves_are_cheap(&t);
        GOES(loam_snap_take(t.db, &t.before));
        close_town(&t);
    }
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
        open_town(&t, false);
        fill(&t, (enum layout)layout);
        GOES(loam_flush(t.db, NULL));
        uint64_t full = disk_bytes(&t);
        GOES(loam_pause(t.db, 0));
        GOES(loam_wait_idle(t.db, 0));
        old_snapshot_sees_all(&t); /* as long as somebody may look, all stays */
        loam_snap_release(t.before);
        t.before = NULL;
        wait_for_bytes(&t, full / 10);
        loam_iter *it = iter(&t, NULL);
        uint64_t start = passed(&t);
        seek(&t, it, FIRST, true, LAST);
        seek(&t, it, LAST - 1, false, FIRST - 1);
        CHECK_EQ(passed(&t), start); /* there is not one delete left */
        loam_iter_close(it);
        for (uint32_t i = 0; i < KEYS; i++) {
            delete (&t, i);
        }
        GOES(loam_flush(t.db, NULL));
        wait_for_bytes(&t, 0);
        close_town(&t);
    }
}
