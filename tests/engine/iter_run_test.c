/* iter_run_test.c - Long walks through tables, where whole stretches of a block come from one source.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: for each round of writes an array of what every key held then. A snapshot of that round must
 * show the same through any walk: with or without bounds, turning round, over one table or several.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/random.h"
#include "tests/engine/db_support.h"
#include "tests/support/seed.h"

enum { KEYS = 3000, ROUNDS = 6, WALKS = 40 };

TestSuite(iter_run);

struct history {
    loam_db *db;
    loam_vfs *disk;
    loam_snap *snap[ROUNDS];
    uint32_t held[ROUNDS][KEYS]; /* 0: nothing */
    struct random r;
};

static loam_slice key_of(uint32_t i, char *to)
{
    return loam_bytes(to, (size_t)snprintf(to, 32, "%s%07u", i % 3 == 0 ? "a" : "ab", i));
}

static int by_key(const void *a, const void *b)
{
    char x[32], y[32];
    loam_slice k = key_of(*(const uint32_t *)a, x), m = key_of(*(const uint32_t *)b, y);
    int c = memcmp(k.data, m.data, k.size < m.size ? k.size : m.size);
    return c != 0 ? c : (k.size > m.size) - (k.size < m.size);
}

/* Each round changes a part of the keys: stretches that are deleted, single ones overwritten. */
static void write_round(struct history *h, uint32_t round)
{
    uint32_t *held = h->held[round];
    if (round != 0) {
        memcpy(held, h->held[round - 1], sizeof h->held[0]);
    }
    uint32_t from = (uint32_t)random_below(&h->r, KEYS), stretch = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t k = (from + i) % KEYS;
        char key[32], value[32];
        stretch = stretch != 0 ? stretch - 1 : random_below(&h->r, 200) == 0 ? 100 : 0;
        if (stretch != 0) {
            GOES(loam_delete(h->db, NULL, key_of(k, key), NULL));
            held[k] = 0;
        } else if (round == 0 || random_below(&h->r, 4) == 0) {
            held[k] = 1 + round * KEYS + k;
            int n = snprintf(value, sizeof value, "%u", held[k]);
            GOES(loam_put(h->db, NULL, key_of(k, key), loam_bytes(value, (size_t)n), NULL));
        }
    }
    GOES(loam_snap_take(h->db, &h->snap[round]));
}

static void expect(const struct history *h, uint32_t round, loam_iter *it, uint32_t k)
{
    char key[32], value[32];
    loam_slice ek = key_of(k, key), ik = loam_iter_key(it), iv = loam_iter_value(it);
    int n = snprintf(value, sizeof value, "%u", h->held[round][k]);
    CHECK_BYTES(ik.data, ik.size, ek.data, ek.size);
    CHECK_BYTES(iv.data, iv.size, value, (size_t)n);
}

/* Walks from a random key over a random range, now and then turning round for some steps. */
static void walk(struct history *h, uint32_t round, const uint32_t *order)
{
    uint32_t lo = (uint32_t)random_below(&h->r, KEYS), hi = (uint32_t)random_below(&h->r, KEYS + 1);
    char lower[32], upper[32];
    loam_iter_opts o = {.struct_size = sizeof o, .snap = h->snap[round]};
    o.lower = key_of(order[lo], lower);
    if (hi < KEYS) {
        o.upper = key_of(order[hi], upper);
    }
    loam_iter *it;
    GOES(loam_iter_open(h->db, NULL, &o, &it));
    int rc = loam_iter_first(it);
    for (uint32_t i = lo; i < hi; i++) {
        if (h->held[round][order[i]] == 0) {
            continue;
        }
        CHECK_EQ(rc, LOAM_OK);
        expect(h, round, it, order[i]);
        if (random_below(&h->r, 100) == 0) {
            int back = loam_iter_prev(it);
            rc = back == LOAM_OK ? loam_iter_next(it) : loam_iter_first(it);
            CHECK_EQ(rc, LOAM_OK);
            expect(h, round, it, order[i]);
        }
        rc = loam_iter_next(it);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    loam_iter_close(it);
}

static void run(const struct history *from, bool merged)
{
    struct history *h = malloc(sizeof *h);
    *h = *from;
    h->disk = memory_disk();
    loam_options o = small_options(h->disk);
    o.memory_budget = (uint64_t)8 << 20;
    GOES(loam_open("/db", &o, &h->db));
    GOES(loam_pause(h->db, 1));
    uint32_t *order = malloc(KEYS * sizeof *order);
    for (uint32_t i = 0; i < KEYS; i++) {
        order[i] = i;
    }
    qsort(order, KEYS, sizeof *order, by_key);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        write_round(h, round);
        if (!merged && round + 1 < ROUNDS) {
            GOES(loam_flush(h->db, NULL)); /* a table a round, the last round in memory */
        }
    }
    if (merged) { /* one table with every version: blocks end inside keys */
        GOES(loam_flush(h->db, NULL));
    }
    for (uint32_t n = 0; n < WALKS; n++) {
        walk(h, n % ROUNDS, order);
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        loam_snap_release(h->snap[round]);
    }
    GOES(loam_close(h->db));
    loam_vfs_free(h->disk);
    free(order);
    free(h);
}

static struct history seeded(void)
{
    static struct history h;
    random_init(&h.r, seed_or(20));
    return h;
}

Test(iter_run, one_table_with_every_version_shows_each_snapshot)
{
    struct history h = seeded();
    run(&h, true);
}

Test(iter_run, tables_of_rounds_show_each_snapshot)
{
    struct history h = seeded();
    run(&h, false);
}
