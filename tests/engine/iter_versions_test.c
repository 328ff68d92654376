/* iter_versions_test.c - Moves over a key with many versions: what is shown, and that they are not passed one by one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What a move costs is counted in calls of the keyspace's comparator, which takes small and capital letters for the
 * same. Oracle of what is shown: an array of what each key held when a snapshot was taken.
 */
#include <criterion/criterion.h>

#include <ctype.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/random.h"
#include "tests/engine/db_support.h"

enum {
    MANY = 100000,  /* versions in a memtable */
    SOME = 4000,    /* in tables, where each needs a snapshot */
    STRETCH = 400,  /* keys that are deleted, on each side */
    CHEAP = 300,    /* calls of a move that has searched memory */
    CHEAPER = SOME / 4 /* and of one that has searched tables: some for each block of the key */
};

TestSuite(iter_versions);

static atomic_uint_fast64_t calls;

static int fold(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    const unsigned char *p = a.data, *q = b.data;
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    for (size_t i = 0; i < a.size && i < b.size; i++) {
        int c = tolower(p[i]) - tolower(q[i]);
        if (c != 0) {
            return c;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

static const loam_comparator folded = {
    .struct_size = sizeof folded, .name = "versions.folded", .compare = fold};

/* ---- what a move costs ------------------------------------------------------------------------- */

struct crowd {
    loam_vfs *disk;
    loam_db *db;
    loam_ks *ks;
    loam_snap **pins; /* of each version in a table */
    uint32_t pin_count;
};

static void crowd_open(struct crowd *c)
{
    *c = (struct crowd){.disk = memory_disk(), .pins = calloc(SOME, sizeof *c->pins)};
    loam_options o = small_options(c->disk);
    const loam_ks_options k = {.struct_size = sizeof k, .comparator = &folded};
    o.memory_budget = (uint64_t)128 << 20; /* nothing is flushed but by hand */
    GOES(loam_open("/db", &o, &c->db));
    GOES(loam_pause(c->db, 1));
    GOES(loam_ks_open(c->db, "crowd", &k, &c->ks));
    put_text(c->db, c->ks, "k", "before");
    put_text(c->db, c->ks, "q", "behind");
}

static void crowd_close(struct crowd *c)
{
    for (uint32_t i = 0; i < c->pin_count; i++) {
        loam_snap_release(c->pins[i]);
    }
    free(c->pins);
    loam_ks_release(c->ks);
    GOES(loam_close(c->db));
    loam_vfs_free(c->disk);
}

/* Versions of "m": values, or deletes. kept: each is held by a snapshot. */
static void crowd_in(struct crowd *c, uint32_t versions, bool deletes, bool kept)
{
    for (uint32_t i = 0; i < versions; i++) {
        loam_slice key = text(i % 2 == 0 ? "m" : "M");
        if (deletes) {
            GOES(loam_delete(c->db, c->ks, key, NULL));
        } else {
            GOES(loam_put(c->db, c->ks, key, text("crowd"), NULL));
        }
        if (kept) {
            GOES(loam_snap_take(c->db, &c->pins[c->pin_count++]));
        }
    }
}

static loam_snap *crowd_snap(struct crowd *c)
{
    loam_snap *s;
    GOES(loam_snap_take(c->db, &s));
    return s;
}

static void expect_at(loam_iter *it, const char *key, const char *value)
{
    loam_slice k = loam_iter_key(it), v = loam_iter_value(it);
    CHECK_EQ(fold(NULL, k, text(key)), 0);
    CHECK_BYTES(v.data, v.size, value, strlen(value));
}

/* One move to an entry, and at most so many calls. */
static void moves(loam_iter *it, int (*move)(loam_iter *), uint64_t most, const char *key, const char *value)
{
    uint64_t before = atomic_load(&calls);
    GOES(move(it));
    uint64_t cost = atomic_load(&calls) - before;
    if (cost > most) {
        CHECK_FAIL_("a move to %s took %" PRIu64 " calls, expected at most %" PRIu64, key, cost, most);
    }
    expect_at(it, key, value);
}

/* Over "m" both ways, between bounds that every entry passed is compared with. value NULL: it is not to be seen. */
static void walks(struct crowd *c, const loam_snap *snap, uint64_t most, const char *value)
{
    const loam_iter_opts o = {.struct_size = sizeof o, .snap = snap, .lower = text("K"), .upper = text("R")};
    loam_iter *it;
    GOES(loam_iter_open(c->db, c->ks, &o, &it));
    GOES(loam_iter_seek(it, text("k")));
    if (value != NULL) {
        moves(it, loam_iter_next, most, "m", value);
    }
    moves(it, loam_iter_next, most, "q", "behind");
    if (value != NULL) {
        moves(it, loam_iter_prev, most, "m", value);
    }
    moves(it, loam_iter_prev, most, "k", "before");
    CHECK_EQ(loam_iter_prev(it), LOAM_NOTFOUND);
    loam_iter_close(it);
}

Test(iter_versions, in_a_memtable_are_not_passed_one_by_one)
{
    struct crowd c;
    crowd_open(&c);
    loam_snap *none = crowd_snap(&c);
    crowd_in(&c, MANY / 2, false, false);
    put_text(c.db, c.ks, "m", "seen");
    loam_snap *mid = crowd_snap(&c);
    crowd_in(&c, MANY / 2, false, false);
    put_text(c.db, c.ks, "M", "newest");
    walks(&c, none, CHEAP, NULL);
    walks(&c, mid, CHEAP, "seen");
    walks(&c, NULL, CHEAP, "newest");
    loam_snap_release(none);
    loam_snap_release(mid);
    crowd_close(&c);
}

Test(iter_versions, of_a_deleted_key_are_not_passed_one_by_one)
{
    struct crowd c;
    crowd_open(&c);
    crowd_in(&c, MANY / 2, false, false);
    GOES(loam_delete(c.db, c.ks, text("m"), NULL));
    loam_snap *dead = crowd_snap(&c);
    walks(&c, NULL, CHEAP, NULL); /* nothing is newer */
    crowd_in(&c, MANY / 2, true, false);
    put_text(c.db, c.ks, "m", "again");
    walks(&c, dead, CHEAP, NULL);
    walks(&c, NULL, CHEAP, "again");
    loam_snap_release(dead);
    crowd_close(&c);
}

Test(iter_versions, in_tables_are_not_passed_one_by_one)
{
    struct crowd c;
    crowd_open(&c);
    loam_snap *none = crowd_snap(&c);
    crowd_in(&c, SOME / 4, false, true);
    GOES(loam_flush(c.db, NULL));
    crowd_in(&c, SOME / 4, false, true);
    put_text(c.db, c.ks, "m", "seen");
    loam_snap *mid = crowd_snap(&c);
    crowd_in(&c, SOME / 4, true, true);
    GOES(loam_flush(c.db, NULL));
    loam_snap *dead = crowd_snap(&c);
    crowd_in(&c, SOME / 4, false, true); /* in the memtable */
    put_text(c.db, c.ks, "M", "newest");
    walks(&c, none, CHEAPER, NULL);
    walks(&c, mid, CHEAPER, "seen");
    walks(&c, dead, CHEAPER, NULL);
    walks(&c, NULL, CHEAPER, "newest");
    loam_snap_release(none);
    loam_snap_release(mid);
    loam_snap_release(dead);
    crowd_close(&c);
}

/* A stretch of deleted keys with "m" in it, which has more versions than are passed one by one: deletes, and then a
 * value that `dead` does not see. All in tables. */
static loam_snap *stretch_in(struct crowd *c)
{
    char key[8];
    for (int dies = 0; dies < 2; dies++) {
        for (int i = 0; i < 2 * STRETCH; i++) {
            loam_slice k = loam_bytes(key, (size_t)snprintf(key, sizeof key, "%c%04d", i % 2 == 0 ? 'l' : 'n', i / 2));
            if (dies) {
                GOES(loam_delete(c->db, c->ks, k, NULL));
            } else {
                GOES(loam_put(c->db, c->ks, k, text("dies"), NULL));
            }
        }
        crowd_in(c, 40, dies, true);
        if (!dies) {
            GOES(loam_flush(c->db, NULL)); /* what deletes are kept for */
        }
    }
    loam_snap *dead = crowd_snap(c);
    put_text(c->db, c->ks, "m", "again");
    GOES(loam_flush(c->db, NULL));
    return dead;
}

static void newer_value_stays_seen(bool forward)
{
    struct crowd c;
    loam_iter *it;
    crowd_open(&c);
    loam_snap *dead = stretch_in(&c);
    const loam_iter_opts then = {.struct_size = sizeof then, .snap = dead};
    GOES(loam_iter_open(c.db, c.ks, &then, &it));
    GOES(forward ? loam_iter_seek(it, text("l")) : loam_iter_seek_le(it, text("o")));
    expect_at(it, forward ? "q" : "k", forward ? "behind" : "before");
    loam_iter_close(it);
    GOES(loam_iter_open(c.db, c.ks, NULL, &it));
    GOES(loam_iter_seek(it, text("l")));
    expect_at(it, "m", "again");
    GOES(loam_iter_seek_le(it, text("o")));
    expect_at(it, "m", "again");
    loam_iter_close(it);
    loam_snap_release(dead);
    crowd_close(&c);
}

Test(iter_versions, too_new_for_a_walk_over_deletes_are_not_taken_for_dead)
{
    newer_value_stays_seen(false);
    newer_value_stays_seen(true);
}

/* ---- what is shown ----------------------------------------------------------------------------- */

enum { KEYS = 7, WRITES = 1600, WALKS = 300, STEPS = 30, LARGE = 17000 };

struct history {
    loam_vfs *disk;
    loam_db *db;
    loam_ks *ks;
    bool folds;
    struct random r;
    loam_snap *snap[WRITES];
    uint16_t held[WRITES][KEYS]; /* by the number of the write; 0: nothing */
    uint8_t large[LARGE], other[LARGE];
};

/* Some spelling of key i; KEYS: one behind all. */
static loam_slice spelled(struct history *h, uint32_t i, char to[8])
{
    size_t n = (size_t)snprintf(to, 8, "key%u", i);
    for (size_t k = 0; h->folds && k < 3; k++) {
        to[k] = (char)(random_below(&h->r, 2) == 0 ? toupper(to[k]) : to[k]);
    }
    return loam_bytes(to, n);
}

static loam_slice value_of(uint8_t *to, uint16_t number)
{
    size_t n = number % 16 == 0 ? LARGE : 2 + number % 5;
    memset(to, number, n);
    to[0] = (uint8_t)(number >> 8);
    return loam_bytes(to, n);
}

/* Each write has a snapshot, so that all versions stay. Every eighth is a delete, and now and then a key is written
 * many times in a row. */
static void write_all(struct history *h, bool in_tables)
{
    char key[8];
    uint32_t k = 0, row = 0;
    for (uint16_t i = 0; i < WRITES; i++) {
        if (row == 0) {
            k = (uint32_t)random_below(&h->r, KEYS);
            row = random_below(&h->r, 4) == 0 ? (uint32_t)random_below(&h->r, 60) + 1 : 1;
        }
        row--;
        bool delete = i % 8 == 7;
        if (i != 0) {
            memcpy(h->held[i], h->held[i - 1], sizeof h->held[i]);
        }
        h->held[i][k] = delete ? 0 : i + 1;
        loam_slice name = spelled(h, k, key);
        if (delete) {
            GOES(loam_delete(h->db, h->ks, name, NULL));
        } else {
            GOES(loam_put(h->db, h->ks, name, value_of(h->large, i + 1), NULL));
        }
        GOES(loam_snap_take(h->db, &h->snap[i]));
        if (in_tables && i % 500 == 499) {
            GOES(loam_flush(h->db, NULL));
        }
    }
}

/* Key `at` from [lo, hi) on, upwards or downwards, that holds something; KEYS: there is none. */
static uint32_t model_find(const uint16_t *held, int at, bool up, uint32_t lo, uint32_t hi)
{
    for (; at >= (int)lo && at < (int)hi; at += up ? 1 : -1) {
        if (held[at] != 0) {
            return (uint32_t)at;
        }
    }
    return KEYS;
}

static void check_shown(struct history *h, loam_iter *it, uint32_t write, uint32_t at, bool keys_only)
{
    char key[8];
    loam_slice k = loam_iter_key(it), v = loam_iter_value(it);
    CHECK_EQ(fold(NULL, k, spelled(h, at, key)), 0);
    loam_slice e = keys_only ? loam_bytes("", 0) : value_of(h->other, h->held[write][at]);
    CHECK_BYTES(v.data, v.size, e.data, e.size);
}

/* A move of one of six kinds; *at is where it leads, from where it was. */
static int step(struct history *h, loam_iter *it, const uint16_t *held, uint32_t lo, uint32_t hi, uint32_t *at)
{
    char key[8];
    int to = (int)(random_below(&h->r, hi - lo) + lo);
    uint32_t kind = (uint32_t)random_below(&h->r, 16);
    switch (kind) {
    case 0: *at = model_find(held, (int)lo, true, lo, hi); return loam_iter_first(it);
    case 1: *at = model_find(held, (int)hi - 1, false, lo, hi); return loam_iter_last(it);
    case 2: *at = model_find(held, to, true, lo, hi); return loam_iter_seek(it, spelled(h, (uint32_t)to, key));
    case 3: *at = model_find(held, to, false, lo, hi); return loam_iter_seek_le(it, spelled(h, (uint32_t)to, key));
    default: break;
    }
    bool up = kind < 8;
    if (*at != KEYS) {
        *at = model_find(held, (int)*at + (up ? 1 : -1), up, lo, hi);
    }
    return up ? loam_iter_next(it) : loam_iter_prev(it);
}

static void walk(struct history *h)
{
    char lower[8], upper[8];
    uint32_t write = (uint32_t)random_below(&h->r, WRITES);
    bool bounds = random_below(&h->r, 2) == 0, keys_only = random_below(&h->r, 4) == 0;
    uint32_t lo = bounds ? (uint32_t)random_below(&h->r, KEYS) : 0;
    uint32_t hi = bounds ? lo + 1 + (uint32_t)random_below(&h->r, KEYS - lo) : KEYS, at = KEYS;
    loam_iter_opts o = {.struct_size = sizeof o,
                        .snap = h->snap[write],
                        .flags = keys_only ? LOAM_ITER_KEYS : 0};
    if (bounds) {
        o.lower = spelled(h, lo, lower);
        o.upper = spelled(h, hi, upper);
    }
    loam_iter *it;
    GOES(loam_iter_open(h->db, h->ks, &o, &it));
    for (int i = 0; i < STEPS; i++) {
        CHECK_EQ(step(h, it, h->held[write], lo, hi, &at), at == KEYS ? LOAM_NOTFOUND : LOAM_OK);
        if (at != KEYS) {
            check_shown(h, it, write, at, keys_only);
        }
    }
    loam_iter_close(it);
}

static void shows_all(bool folds, bool in_tables)
{
    struct history *h = calloc(1, sizeof *h);
    h->disk = memory_disk();
    h->folds = folds;
    random_init(&h->r, 20261201 + 2 * folds + in_tables);
    loam_options o = small_options(h->disk);
    const loam_ks_options k = {.struct_size = sizeof k, .comparator = folds ? &folded : NULL};
    o.memory_budget = (uint64_t)64 << 20;
    GOES(loam_open("/db", &o, &h->db));
    GOES(loam_pause(h->db, 1));
    GOES(loam_ks_open(h->db, "history", &k, &h->ks));
    write_all(h, in_tables);
    for (uint32_t n = 0; n < WALKS; n++) {
        walk(h);
    }
    for (uint32_t i = 0; i < WRITES; i++) {
        loam_snap_release(h->snap[i]);
    }
    loam_ks_release(h->ks);
    GOES(loam_close(h->db));
    loam_vfs_free(h->disk);
    free(h);
}

Test(iter_versions, of_each_moment_are_shown_from_a_memtable)
{
    shows_all(false, false);
    shows_all(true, false);
}

Test(iter_versions, of_each_moment_are_shown_from_tables)
{
    shows_all(false, true);
    shows_all(true, true);
}

/* ---- a sick disk ------------------------------------------------------------------------------- */

enum { OLD = 40, NEW = 40, PER_TABLE = 10 };

/* Large versions of "m", all held, in tables of some each. */
static void large_in(struct crowd *c, uint32_t versions, uint8_t *room)
{
    for (uint32_t i = 1; i <= versions; i++) {
        memset(room, (int)i, LARGE);
        GOES(loam_put(c->db, c->ks, text("m"), loam_bytes(room, LARGE), NULL));
        GOES(loam_snap_take(c->db, &c->pins[c->pin_count++]));
        if (i % PER_TABLE == 0) {
            GOES(loam_flush(c->db, NULL));
        }
    }
}

/* What fails, and beside what. */
struct sickness {
    uint64_t at;    /* the read of the move, from 1 */
    bool ever;      /* and all that follow */
    bool keys_only; /* in a walk without values */
    bool newer;     /* there are newer versions in tables and in a memtable, which is well */
};

/* Tables with versions that `snap` sees, not in the cache, and what else there is to be. last: the value that is
 * seen. */
static void sick_open(struct crowd *c, const struct sickness *s, loam_vfs **front, loam_snap **snap, uint8_t *last)
{
    const loam_fault_plan well = {.struct_size = sizeof well};
    static uint8_t room[LARGE];
    crowd_open(c);
    large_in(c, OLD, last);
    for (; c->pin_count != 0; c->pin_count--) {
        loam_snap_release(c->pins[c->pin_count - 1]);
    }
    loam_ks_release(c->ks);
    GOES(loam_close(c->db));
    GOES(loam_vfs_fault(c->disk, &well, front));
    loam_options o = small_options(*front);
    const loam_ks_options k = {.struct_size = sizeof k, .comparator = &folded};
    o.memory_budget = (uint64_t)2 << 20; /* the cache does not hold them all */
    GOES(loam_open("/db", &o, &c->db));
    GOES(loam_pause(c->db, 1));
    GOES(loam_ks_open(c->db, "crowd", &k, &c->ks));
    *snap = crowd_snap(c);
    if (s->newer) {
        large_in(c, NEW, room);
        crowd_in(c, NEW, false, false);
        put_text(c->db, c->ks, "l", "newer");
    }
}

/* False: the move makes fewer reads. */
static bool sick_move(int (*place)(loam_iter *, loam_slice), const char *from, int (*move)(loam_iter *),
                      const struct sickness *s)
{
    static uint8_t last[LARGE];
    struct crowd c;
    loam_vfs *front;
    loam_snap *snap;
    loam_iter *it;
    sick_open(&c, s, &front, &snap, last);
    const loam_iter_opts o = {
        .struct_size = sizeof o, .snap = snap, .flags = s->keys_only ? LOAM_ITER_KEYS : 0};
    const loam_fault_plan well = {.struct_size = sizeof well};
    GOES(loam_iter_open(c.db, c.ks, &o, &it));
    GOES(place(it, text(from)));
    const loam_fault_plan sick = {.struct_size = sizeof sick,
                                  .fail_at = loam_vfs_calls_of(front, LOAM_CALL_READ) + s->at,
                                  .fail_calls = LOAM_CALL_READ,
                                  .fail_repeat = s->ever ? UINT32_MAX : 1};
    GOES(loam_vfs_set_plan(front, &sick));
    int rc = move(it);
    bool fired = loam_vfs_faults(front) != 0;
    GOES(loam_vfs_set_plan(front, &well));
    if (rc < 0) {
        CHECK(fired);
        CHECK_EQ(rc, LOAM_E_IO);
        CHECK_EQ(move(it), LOAM_NOTFOUND); /* it is on no entry */
        GOES(place(it, text(from)));
        rc = move(it);
    }
    CHECK_EQ(rc, LOAM_OK);
    loam_slice key = loam_iter_key(it), value = loam_iter_value(it);
    CHECK_EQ(fold(NULL, key, text("m")), 0);
    CHECK_BYTES(value.data, value.size, last, s->keys_only ? 0 : LARGE);
    loam_iter_close(it);
    loam_snap_release(snap);
    crowd_close(&c);
    loam_vfs_free(front);
    return fired;
}

static void each_read_fails(int (*place)(loam_iter *, loam_slice), const char *from, int (*move)(loam_iter *))
{
    uint64_t reads = 0;
    for (unsigned how = 0; how < 8; how++) {
        struct sickness s = {.at = 1, .ever = how & 1, .keys_only = how & 2, .newer = how & 4};
        while (sick_move(place, from, move, &s)) {
            s.at++;
            reads++;
        }
    }
    CHECK(reads != 0);
}

Test(iter_versions, of_tables_that_cannot_be_read_are_an_error_backward)
{
    each_read_fails(loam_iter_seek_le, "q", loam_iter_prev);
}

Test(iter_versions, of_tables_that_cannot_be_read_are_an_error_forward)
{
    each_read_fails(loam_iter_seek, "k", loam_iter_next);
}
