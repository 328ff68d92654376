/* lending_test.c - Large values in iterators and pins: shown rightly, one at a time, counted, and given back.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the value of a key follows from its number and version; a limit that nothing has leaked into lets in
 * as many values the second time as the first. Values beyond 16 KiB are large.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "engine/db.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

#define MIB ((uint64_t)1 << 20)

TestSuite(lending);

static loam_slice key_of(unsigned i, char to[16])
{
    return loam_bytes(to, (size_t)snprintf(to, 16, "key%06u", i));
}

/* Small, of a block's size, and large ones; every third compresses, to about a half. */
static size_t size_of(unsigned i, unsigned version)
{
    static const size_t sizes[] = {40000, 100, 17000, 9000, 25000, 0, 120000, 3000};
    return sizes[(i * 5 + version * 3) % (sizeof sizes / sizeof *sizes)];
}

static loam_slice value_of(unsigned i, unsigned version, uint8_t *to)
{
    struct random r;
    size_t n = size_of(i, version);
    random_init(&r, (uint64_t)i << 32 | version);
    for (size_t at = 0; at < n; at++) {
        to[at] = (uint8_t)(i % 3 == 0 && at / 100 % 2 == 0 ? i + version : random_next(&r));
    }
    return loam_bytes(to, n);
}

#define VALUE_MAX 120000u
#define KEYS      240u
#define VERSIONS  3u

static uint8_t room[VALUE_MAX];

static void check_at(loam_iter *it, unsigned i, unsigned version)
{
    char key[16];
    loam_slice k = loam_iter_key(it), v = loam_iter_value(it);
    loam_slice ek = key_of(i, key), ev = value_of(i, version, room);
    CHECK_BYTES(k.data, k.size, ek.data, ek.size);
    CHECK_BYTES(v.data, v.size, ev.data, ev.size);
}

static void put_version(loam_db *db, unsigned version, unsigned from, unsigned step)
{
    char key[16];
    for (unsigned i = from; i < KEYS; i += step) {
        GOES(loam_put(db, NULL, key_of(i, key), value_of(i, version, room), NULL));
    }
}

static int reversed(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    size_t n = a.size < b.size ? a.size : b.size;
    int c = memcmp(b.data, a.data, n);
    return c != 0 ? c : a.size < b.size ? 1 : a.size > b.size ? -1 : 0;
}

struct shelf {
    loam_vfs *disk;
    loam_db *db;
    loam_snap *snap; /* shows version 1 throughout */
    bool backward;   /* keys are in falling order */
};

/* Three versions in memtables, tables of level 0 that take turns, and deeper ones. */
static void fill(struct shelf *s, uint64_t budget, const loam_comparator *cmp)
{
    s->disk = memory_disk();
    s->backward = cmp != NULL;
    loam_options o = small_options(s->disk);
    loam_ks_options ks = {.struct_size = sizeof ks, .comparator = cmp};
    o.memory_budget = budget;
    o.default_ks = &ks;
    GOES(loam_open("/db", &o, &s->db));
    put_version(s->db, 0, 0, 1);
    put_version(s->db, 1, 0, 1);
    GOES(loam_snap_take(s->db, &s->snap));
    GOES(loam_pause(s->db, 1));
    for (unsigned from = 0; from < 4; from++) {
        put_version(s->db, 2, from, 4);
        if (from < 3) {
            GOES(loam_flush(s->db, NULL));
        }
    }
}

static void empty(struct shelf *s)
{
    loam_snap_release(s->snap);
    GOES(loam_close(s->db));
    loam_vfs_free(s->disk);
}

/* Bytes that iterators and pins lend of large values. */
static uint64_t held(loam_db *handle)
{
    return large_held(&db_behind(handle)->large);
}

static uint64_t pinned(loam_db *db)
{
    loam_stats st = {.struct_size = sizeof st};
    GOES(loam_get_stats(db, NULL, &st));
    return st.pinned_bytes;
}

static unsigned number_at(const struct shelf *s, unsigned n)
{
    return s->backward ? KEYS - 1 - n : n;
}

/* Moves at random, both ways, and looks at each place. */
static void wander(struct shelf *s, const loam_snap *snap, unsigned version)
{
    struct random r;
    random_init(&r, 5);
    loam_iter *it;
    loam_iter_opts o = {.struct_size = sizeof o, .snap = snap};
    GOES(loam_iter_open(s->db, NULL, &o, &it));
    unsigned at = 0;
    GOES(loam_iter_first(it));
    for (unsigned n = 0; n < 1500; n++) {
        char key[16];
        check_at(it, number_at(s, at), version);
        uint64_t way = random_below(&r, 20);
        if (way < 10 && at + 1 < KEYS) {
            at++;
            GOES(loam_iter_next(it));
        } else if (way < 17 && at > 0) {
            at--;
            GOES(loam_iter_prev(it));
        } else {
            at = (unsigned)random_below(&r, KEYS);
            GOES(way % 2 != 0 ? loam_iter_seek(it, key_of(number_at(s, at), key))
                              : loam_iter_seek_le(it, key_of(number_at(s, at), key)));
        }
    }
    loam_iter_close(it);
}

static void wander_all(const loam_comparator *cmp)
{
    struct shelf s;
    fill(&s, MIB, cmp);
    wander(&s, NULL, 2);
    wander(&s, s.snap, 1);
    GOES(loam_pause(s.db, 0));
    GOES(loam_compact(s.db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    wander(&s, NULL, 2);
    wander(&s, s.snap, 1);
    empty(&s);
}

Test(lending, shows_large_and_small_values_both_ways)
{
    wander_all(NULL);
}

Test(lending, shows_them_in_an_order_of_the_callers)
{
    static const loam_comparator cmp = {sizeof cmp, "reversed", reversed, NULL, NULL};
    wander_all(&cmp);
}

/* However many tables there are, an iterator that stands on an entry holds that one's value. */
static void one_at_a_time(bool forward)
{
    struct shelf s;
    loam_iter *it;
    fill(&s, 8 * MIB, NULL); /* enough that iterators keep their sources */
    uint64_t before = pinned(s.db);
    GOES(loam_iter_open(s.db, NULL, NULL, &it));
    int rc = forward ? loam_iter_first(it) : loam_iter_last(it);
    for (unsigned i = 0; rc == LOAM_OK; i++) {
        size_t value = loam_iter_value(it).size;
        size_t large = value > LARGE_FROM ? value + value / 128 + 8192 : 0;
        CHECK(held(s.db) <= large && (large == 0 || held(s.db) >= value));
        CHECK(pinned(s.db) <= before + large + (uint64_t)400 * 1024); /* blocks and windows of its sources */
        rc = forward ? loam_iter_next(it) : loam_iter_prev(it);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(loam_iter_value(it).size, 0);
    CHECK_EQ(held(s.db), 0);
    loam_iter_close(it);
    empty(&s);
}

Test(lending, holds_one_value_forward)
{
    one_at_a_time(true);
}

Test(lending, holds_one_value_backward)
{
    one_at_a_time(false);
}

Test(lending, reads_keys_alone_without_holding_a_value)
{
    struct shelf s;
    fill(&s, 8 * MIB, NULL); /* enough that iterators keep their sources */
    uint64_t before = pinned(s.db);
    loam_iter *it;
    loam_iter_opts o = {.struct_size = sizeof o, .flags = LOAM_ITER_KEYS};
    GOES(loam_iter_open(s.db, NULL, &o, &it));
    unsigned n = 0;
    for (int rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
        CHECK_EQ(loam_iter_value(it).size, 0);
        CHECK_EQ(held(s.db), 0);
        CHECK(pinned(s.db) <= before + (uint64_t)400 * 1024);
        n++;
    }
    CHECK_EQ(n, KEYS);
    loam_iter_close(it);
    empty(&s);
}

/* ---- limits ------------------------------------------------------------------------------------ */

enum { MANY = 40, BIG = 1 << 20 };

static void expect_refusal(int rc)
{
    CHECK_EQ(rc, LOAM_E_BUDGET);
    CHECK_EQ(loam_last_error()->code, LOAM_E_BUDGET);
    CHECK_EQ(loam_last_error()->flags, LOAM_ERR_RETRY);
}

static unsigned pin_all(loam_db *db, loam_pin pin[MANY])
{
    unsigned n = 0;
    for (unsigned i = 0; i < MANY; i++) {
        char key[16];
        int rc = loam_get_pin(db, NULL, key_of(i, key), &pin[i], NULL);
        if (rc != LOAM_OK) {
            expect_refusal(rc);
            CHECK_EQ(pin[i].value.size, 0);
        } else {
            CHECK_EQ(pin[i].value.size, BIG);
            n++;
        }
    }
    return n;
}

static void unpin_all(loam_pin pin[MANY])
{
    for (unsigned i = 0; i < MANY; i++) {
        loam_unpin(&pin[i]);
    }
}

static unsigned stand_all(loam_db *db, loam_iter *it[MANY], bool forward)
{
    unsigned n = 0;
    for (unsigned i = 0; i < MANY; i++) {
        char key[16];
        GOES(loam_iter_open(db, NULL, NULL, &it[i]));
        int rc = forward ? loam_iter_seek(it[i], key_of(i, key)) : loam_iter_seek_le(it[i], key_of(i, key));
        if (rc != LOAM_OK) {
            expect_refusal(rc);
            CHECK_EQ(loam_iter_key(it[i]).size, 0);
        } else {
            CHECK_EQ(loam_iter_value(it[i]).size, BIG);
            n++;
        }
    }
    return n;
}

static void close_all(loam_iter *it[MANY])
{
    for (unsigned i = 0; i < MANY; i++) {
        loam_iter_close(it[i]);
    }
}

static loam_db *open_big(const loam_vfs *disk, uint64_t budget)
{
    loam_options o = small_options(disk);
    o.memory_budget = budget;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    return db;
}

Test(lending, is_limited_for_pins_and_iterators_together_and_leaks_nothing)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_big(disk, 16 * MIB);
    uint8_t *value = calloc(1, BIG);
    for (unsigned i = 0; i < MANY; i++) {
        char key[16];
        value[0] = (uint8_t)i;
        GOES(loam_put(db, NULL, key_of(i, key), loam_bytes(value, BIG), NULL));
    }
    loam_pin pin[MANY] = {LOAM_PIN_INIT};
    loam_iter *it[MANY];
    unsigned first = pin_all(db, pin);
    CHECK_EQ(first, 8);
    for (unsigned round = 0; round < 3; round++) {
        CHECK_EQ(stand_all(db, it, round % 2 == 0), 0);
        /* What is given back is there for others at once. */
        loam_unpin(&pin[0]);
        loam_unpin(&pin[1]);
        char key[16];
        GOES(loam_iter_seek(it[MANY - 1], key_of(3, key)));
        unpin_all(pin);
        close_all(it);
        unsigned standing = stand_all(db, it, round % 2 == 0);
        CHECK_EQ(standing, 8);
        CHECK_EQ(pin_all(db, pin), 0);
        close_all(it);
        unpin_all(pin);
        CHECK_EQ(held(db), 0);
        CHECK_EQ(pin_all(db, pin), first);
    }
    GOES(loam_close(db)); /* pins stay */
    CHECK_EQ(((const uint8_t *)pin[3].value.data)[0], 3);
    unpin_all(pin);
    free(value);
    loam_vfs_free(disk);
}

Test(lending, lets_one_reader_have_any_value_and_the_small_ones_beside_it)
{
    loam_vfs *disk = memory_disk();
    const uint64_t budget = 64 * MIB, size = budget / 4;
    loam_db *db = open_big(disk, budget);
    uint8_t *value = calloc(1, size);
    GOES(loam_put(db, NULL, text("a"), loam_bytes(value, size), NULL));
    GOES(loam_put(db, NULL, text("b"), loam_bytes(value, size), NULL));
    GOES(loam_put(db, NULL, text("c"), loam_bytes(value, 100000), NULL));
    for (unsigned flushed = 0; flushed < 2; flushed++) {
        loam_pin pin = LOAM_PIN_INIT, small = LOAM_PIN_INIT;
        loam_iter *it;
        GOES(loam_iter_open(db, NULL, NULL, &it));
        GOES(loam_get_pin(db, NULL, text("a"), &pin, NULL));
        expect_refusal(loam_iter_first(it));
        GOES(loam_get_pin(db, NULL, text("c"), &small, NULL));
        GOES(loam_iter_seek(it, text("c")));
        size_t n;
        CHECK_EQ(loam_get(db, NULL, text("b"), value, 1, &n, NULL), LOAM_TRUNCATED); /* never refused */
        CHECK_EQ(n, size);
        loam_unpin(&pin);
        GOES(loam_iter_first(it));
        GOES(loam_iter_next(it));
        CHECK_EQ(loam_iter_value(it).size, size);
        expect_refusal(loam_get_pin(db, NULL, text("a"), &pin, NULL));
        loam_iter_close(it);
        GOES(loam_get_pin(db, NULL, text("a"), &pin, NULL));
        loam_unpin(&pin);
        loam_unpin(&small);
        GOES(loam_flush(db, NULL));
    }
    GOES(loam_close(db));
    free(value);
    loam_vfs_free(disk);
}
