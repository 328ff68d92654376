/* tombstone_crash_test.c - The first seeks among a hundred thousand deletes after a kill or a power cut.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: the open itself finds out what is dead, wherever the deletes are, so that the first seek of all, forward
 * or backward, passes a few of them.
 * Oracle: the keys that live are known; steps are counted by the statistic of deletes passed, never by time.
 */
#include <criterion/criterion.h>

#include <stdio.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/tombstone_support.h"

TestSuite(tombstone_crash);

enum {
    SPACES = 3,
    GRAVES = 35000, /* deletes of a keyspace */
    MARGIN = 100,   /* live keys before them, and behind */
    ALL = GRAVES + 2 * MARGIN,
    STEP = 7919, /* deletes come in no order; prime to GRAVES */
    BATCH = 500,
    PASSERS_BY = 2 /* live keys for each delete in the same table, of AMONG_PUTS */
};

/* Where the deletes are when the process ends. */
enum where { IN_LOG, FLUSHED, HALF_FLUSHED, AMONG_PUTS, WHERES };

struct yard {
    loam_vfs *disk, *front;
    loam_db *db;
    loam_ks *ks[SPACES];
};

/* The key at place n in the keyspace's order. */
static loam_slice key_at(uint32_t space, uint32_t n, char to[16])
{
    return town_key(space == SPACES - 1 ? 9999999 - n : n, to);
}

static void yard_open(struct yard *y, uint32_t flags)
{
    loam_options o = small_options(y->front);
    o.memory_budget = (uint64_t)1 << 30; /* nothing is flushed but by hand */
    o.flags = flags;
    GOES(loam_open("/db", &o, &y->db));
    if (flags == 0) {
        GOES(loam_pause(y->db, 1));
    }
    memset(y->ks, 0, sizeof y->ks);
}

static void open_space(struct yard *y, uint32_t s)
{
    static const char *const names[SPACES] = {"a", "b", "backwards"};
    loam_ks_options k = {.struct_size = sizeof k,
                         .comparator = s == SPACES - 1 ? &town_backwards : NULL};
    CHECK(loam_ks_open(y->db, names[s], &k, &y->ks[s]) >= 0);
}

static void yard_close(struct yard *y)
{
    for (uint32_t s = 0; s < SPACES; s++) {
        loam_ks_release(y->ks[s]);
    }
    GOES(loam_close(y->db));
    loam_vfs_free(y->front);
    loam_vfs_free(y->disk);
}

static void yard_start(struct yard *y, loam_vfs *disk)
{
    const loam_fault_plan none = {.struct_size = sizeof none};
    y->disk = disk;
    GOES(loam_vfs_fault(disk, &none, &y->front));
}

static void crash(struct yard *y, uint32_t cut)
{
    loam_vfs *after;
    GOES(loam_vfs_power_cut(y->front, cut, &after));
    yard_close(y);
    yard_start(y, after);
}

/* Writes the keys from `first` to `end` of a cycle through them, each keyspace's in turn. */
static void write_all(struct yard *y, uint32_t first, uint32_t end, uint32_t base, bool put)
{
    loam_batch *b = loam_batch_new(0);
    char key[16];
    for (uint32_t i = first; i < end; i++) {
        for (uint32_t s = 0; s < SPACES; s++) {
            uint32_t n = put ? base + i : base + (uint32_t)((uint64_t)i * STEP % GRAVES);
            loam_slice k = key_at(s, n, key);
            GOES(put ? loam_batch_put(b, y->ks[s], k, LOAM_LIT("value"))
                     : loam_batch_delete(b, y->ks[s], k));
        }
        if ((i + 1) % BATCH == 0 || i + 1 == end) {
            GOES(loam_write(y->db, b, NULL));
            loam_batch_clear(b);
        }
    }
    loam_batch_free(b);
}

static void fill(struct yard *y, enum where where)
{
    for (uint32_t s = 0; s < SPACES; s++) {
        open_space(y, s);
    }
    write_all(y, 0, ALL, 0, true);
    if (where != IN_LOG) {
        GOES(loam_flush(y->db, NULL));
    }
    if (where == AMONG_PUTS) {
        write_all(y, 0, PASSERS_BY * GRAVES, ALL, true);
    }
    write_all(y, 0, GRAVES / 2, MARGIN, false);
    if (where == HALF_FLUSHED) {
        GOES(loam_flush(y->db, NULL));
    }
    write_all(y, GRAVES / 2, GRAVES, MARGIN, false);
    if (where == FLUSHED || where == AMONG_PUTS) {
        GOES(loam_flush(y->db, NULL));
    }
}

static uint64_t passed(const struct yard *y)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(y->db, NULL, &s));
    return s.tombstones_skipped;
}

/* The first move of a new iterator: from place n to the next live key in its direction. */
static void seek(const struct yard *y, uint32_t space, uint32_t n, bool forward)
{
    char key[16];
    loam_iter *it;
    uint64_t start = passed(y);
    GOES(loam_iter_open(y->db, y->ks[space], NULL, &it));
    loam_slice k = key_at(space, n, key);
    GOES(forward ? loam_iter_seek(it, k) : loam_iter_seek_le(it, k));
    loam_slice found = loam_iter_key(it);
    k = key_at(space, forward ? MARGIN + GRAVES : MARGIN - 1, key);
    CHECK_BYTES(found.data, found.size, k.data, k.size);
    loam_iter_close(it);
    uint64_t steps = passed(y) - start;
    if (steps > FEW) {
        CHECK_FAIL_("keyspace %u, from %u %s: %llu deletes passed", space, n,
                    forward ? "on" : "back", (unsigned long long)steps);
    }
}

/* The last keyspace's comparator takes what is in memory to tables. */
static void first_seeks_are_cheap(struct yard *y, bool forward)
{
    for (uint32_t s = 0; s < SPACES; s++) {
        open_space(y, s);
        seek(y, s, MARGIN + GRAVES / 2, forward);
        seek(y, s, MARGIN + GRAVES / 3, !forward);
        seek(y, s, MARGIN, true);
        seek(y, s, MARGIN + GRAVES - 1, false);
    }
}

static void after(enum where where, bool power)
{
    struct yard y;
    yard_start(&y, memory_disk());
    yard_open(&y, 0);
    fill(&y, where);
    if (power) {
        GOES(loam_sync(y.db));
    }
    crash(&y, power ? LOAM_CUT_SYNCED : LOAM_CUT_ALL);
    yard_open(&y, 0);
    first_seeks_are_cheap(&y, !power);
    if (where != IN_LOG &&
        where != HALF_FLUSHED) { /* what is in memory could not be put in another order */
        crash(&y, LOAM_CUT_ALL);
        yard_open(&y, LOAM_OPEN_READONLY);
        first_seeks_are_cheap(&y, power);
    }
    yard_close(&y);
}

Test(tombstone_crash, the_first_seek_after_a_kill_passes_few_of_100000_deletes)
{
    for (int where = 0; where < WHERES; where++) {
        after((enum where)where, false);
    }
}

Test(tombstone_crash, the_first_seek_after_a_power_cut_passes_few_of_100000_deletes)
{
    for (int where = 0; where < WHERES; where++) {
        after((enum where)where, true);
    }
}

/* ---- what is too much for an open ------------------------------------------------------------------ */

enum { HEAVY = 3000, HEAVY_BYTES = 16384 }; /* more to read than DEAD_SURVEY_WORK allows */

static bool is_known(const struct yard *y, uint32_t n)
{
    char key[16];
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(y->db));
    bool known = dead_ranges_find(&db->dead, 1, key_at(0, n, key), UINT64_MAX) != NULL;
    epoch_exit();
    return known;
}

static void fill_heavy(struct yard *y)
{
    static uint64_t
        noise[HEAVY_BYTES]; /* every value is another part of it, and none can be packed */
    struct random r;
    char key[16];
    open_space(y, 0);
    random_init(&r, 5);
    for (uint32_t i = 0; i < HEAVY_BYTES; i++) {
        noise[i] = random_next(&r);
    }
    for (uint32_t i = 0; i < HEAVY; i++) {
        GOES(
            loam_put(y->db, y->ks[0], key_at(0, i, key), loam_bytes(noise + i, HEAVY_BYTES), NULL));
    }
    GOES(loam_flush(y->db, NULL));
    for (uint32_t i = 1; i < HEAVY - 1; i++) {
        GOES(loam_delete(y->db, y->ks[0], key_at(0, i, key), NULL));
    }
    GOES(loam_flush(y->db, NULL));
}

/* A database that is open for reading has no worker: it knows what the open has found out. */
Test(tombstone_crash, an_open_surveys_so_much_and_leaves_the_rest_to_the_worker)
{
    struct yard y;
    yard_start(&y, memory_disk());
    yard_open(&y, 0);
    fill_heavy(&y);
    crash(&y, LOAM_CUT_ALL);
    yard_open(&y, LOAM_OPEN_READONLY);
    CHECK(is_known(&y, HEAVY / 2));
    CHECK(!is_known(&y, HEAVY - 2 - WORTH));
    crash(&y, LOAM_CUT_ALL);
    yard_open(&y, 0);
    GOES(loam_wait_idle(y.db, 0));
    for (uint32_t i = 1 + WORTH; i < HEAVY - 1 - WORTH; i++) {
        CHECK(is_known(&y, i));
    }
    yard_close(&y);
}
