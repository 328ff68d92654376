/* iter_pool_test.c - Many iterators over much data stay within their share and lose neither place nor value.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: entry i has a key and a value computed from i, so whatever an iterator shows is known.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/epoch.h"
#include "tests/engine/db_support.h"

enum { BUDGET = 4 << 20, ITERS = 200, ENTRIES = 60000, VALUE = 200, ROUNDS = 12 };

TestSuite(iter_pool);

static loam_slice key_of(uint64_t i, char *to)
{
    return loam_bytes(to, (size_t)snprintf(to, 24, "key%012llu", (unsigned long long)i));
}

static loam_slice value_of(uint64_t i, char *to)
{
    memset(to, (int)('a' + i % 26), VALUE);
    int n = snprintf(to, VALUE, "%llu", (unsigned long long)i);
    to[n] = 'x';
    return loam_bytes(to, VALUE);
}

static void check_at(loam_iter *it, uint64_t i)
{
    char key[24], value[VALUE];
    loam_slice k = loam_iter_key(it), v = loam_iter_value(it);
    loam_slice ek = key_of(i, key), ev = value_of(i, value);
    CHECK_BYTES(k.data, k.size, ek.data, ek.size);
    CHECK_BYTES(v.data, v.size, ev.data, ev.size);
}

/* Entries spread over memtables and several levels: written in an order that strides the range. */
static loam_db *fill(const loam_vfs *disk)
{
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.memory_budget = BUDGET;
    o.default_ks = &plain;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    char key[24], value[VALUE];
    for (uint64_t n = 0, i = 0; n < ENTRIES; n++, i = (i + 7919) % ENTRIES) {
        GOES(loam_put(db, NULL, key_of(i, key), value_of(i, value), NULL));
    }
    return db;
}

static uint64_t pinned(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    return s.pinned_bytes;
}

/* All iterators walk in turn, each from its own place; the bytes they keep between calls do not grow
 * with their number times the sources they have. Read ahead wide, so that windows are large. */
static void walk_all(bool forward)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = fill(disk);
    static loam_iter *it[ITERS];
    static uint64_t at[ITERS];
    uint64_t before = pinned(db), most = 0;
    for (unsigned i = 0; i < ITERS; i++) {
        loam_iter_opts o = {.struct_size = sizeof o, .readahead = 32 << 10};
        GOES(loam_iter_open(db, NULL, &o, &it[i]));
        char key[24];
        at[i] = (uint64_t)i * (ENTRIES / ITERS) + 100;
        GOES(loam_iter_seek(it[i], key_of(at[i], key)));
        check_at(it[i], at[i]);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < ITERS; i++) {
            for (unsigned n = 0; n < 1 + round; n++) {
                check_at(it[i], at[i]); /* what was lent by the last call is still there */
                GOES(forward ? loam_iter_next(it[i]) : loam_iter_prev(it[i]));
                at[i] += forward ? 1 : (uint64_t)-1;
            }
            check_at(it[i], at[i]);
        }
        uint64_t now = pinned(db);
        most = now > most ? now : most;
    }
    for (unsigned i = 0; i < ITERS; i++) { /* and turning round */
        GOES(forward ? loam_iter_prev(it[i]) : loam_iter_next(it[i]));
        check_at(it[i], at[i] + (forward ? (uint64_t)-1 : 1));
    }
    /* Twice the limit, a sixteenth of the budget; the lending blocks with room for alignment, and
     * the iterators themselves. */
    uint64_t lent = ITERS * ((uint64_t)40 << 10);
    CHECK(most - before <= 2 * (BUDGET / 16) + lent);
    for (unsigned i = 0; i < ITERS; i++) {
        loam_iter_close(it[i]);
    }
    epoch_synchronize(); /* what was not kept for reuse is freed */
    CHECK(pinned(db) <= before + 2 * (BUDGET / 16));
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(iter_pool, walks_forward_within_their_share)
{
    walk_all(true);
}

Test(iter_pool, walks_backward_within_their_share)
{
    walk_all(false);
}

/* ---- options of one iterator do not outlive it ---- */

enum { TABLE_ENTRIES = 40000, WIDE = 512 << 10 };

/* A disk that notes the longest read. */
static struct {
    const loam_vfs *inner;
    size_t longest;
} reads;

static int64_t noting_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    reads.longest = n > reads.longest ? n : reads.longest;
    return reads.inner->read(ctx, f, buf, n, off);
}

/* The longest read of a walk over the whole table. */
static size_t longest_of_walk(loam_db *db, uint32_t readahead)
{
    const loam_iter_opts o = {.struct_size = sizeof o, .readahead = readahead};
    loam_iter *it;
    uint64_t n = 0;
    reads.longest = 0;
    GOES(loam_iter_open(db, NULL, &o, &it));
    int rc;
    for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
        n++;
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(n, TABLE_ENTRIES);
    loam_iter_close(it);
    return reads.longest;
}

Test(iter_pool, an_iterator_reads_ahead_as_it_was_told_whoever_had_its_memory_before)
{
    loam_vfs *disk = memory_disk(), noting = *disk;
    noting.read = noting_read;
    reads.inner = disk;
    loam_options o = small_options(&noting);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.memory_budget = 16 << 20; /* enough for an iterator with a wide window to be kept */
    o.default_ks = &plain;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    char key[24], value[VALUE];
    for (uint64_t i = 0; i < TABLE_ENTRIES; i++) {
        GOES(loam_put(db, NULL, key_of(i, key), value_of(i, value), NULL));
    }
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_close(db)); /* and the cache with it */
    GOES(loam_open("/db", &o, &db));
    CHECK(longest_of_walk(db, 0) < WIDE / 4);
    CHECK(longest_of_walk(db, WIDE) >= WIDE / 2);
    CHECK(longest_of_walk(db, 0) < WIDE / 4);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

enum { NEWER = 16000, NEWER_VALUE = 4000, SLACK = 16 << 20 };

/* One move passes over all that was written since the iterator was opened, in dozens of tables that go on side
 * by side: whatever it holds of them it holds at once. */
Test(iter_pool, an_iterator_that_is_told_to_read_far_ahead_keeps_to_the_budget)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.memory_budget = 16 << 20;
    o.max_write_pause_us = 1;
    o.default_ks = &plain;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    GOES(loam_pause(db, 1));
    const loam_iter_opts far = {.struct_size = sizeof far, .readahead = UINT32_MAX};
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, &far, &it));
    static char value[NEWER_VALUE];
    char key[24];
    for (uint64_t n = 0, i = 0; n < NEWER; n++, i = (i + 7919) % NEWER) {
        GOES(loam_put(db, NULL, key_of(i, key), loam_bytes(value, sizeof value), NULL));
    }
    GOES(loam_flush(db, NULL));
    CHECK_EQ(loam_iter_first(it), LOAM_NOTFOUND);
    loam_iter_close(it);
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.memory_peak <= o.memory_budget + SLACK);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
