/* memory_stress.c - A database with many readers and writers stays within its memory budget.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the database's own count of its memory and, outside of sanitizers, the resident size of
 * the process, each at most a fixed allowance above the budget; and what held snapshots and
 * iterators show is still what it was.
 */
#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"
#include "tests/support/resident.h"

#define BUDGET      ((uint64_t)8 << 20)
#define ALLOWANCE   ((uint64_t)16 << 20)
#define HANDLES     200u
#define MEMBERS     8u
#define MEMORY_KEYS 20000u

struct hoard {
    loam_db *db;
    uint64_t steps;
    loam_iter *it[HANDLES]; /* each used by one member */
    loam_snap *snap[HANDLES];
    uint64_t key[HANDLES], value[HANDLES]; /* what the snapshot had: 0 = nothing */
    _Atomic uint64_t resident_peak;        /* bytes */
    struct watchdog dog;
};

static void look_at_resident(struct hoard *x)
{
    uint64_t now = resident_bytes();
    uint64_t peak = atomic_load_explicit(&x->resident_peak, memory_order_relaxed);
    while (now > peak &&
           !atomic_compare_exchange_weak_explicit(&x->resident_peak, &peak, now,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void put_random(struct hoard *x, struct random *r)
{
    struct load_key k = load_key_of(random_below(r, MEMORY_KEYS));
    uint8_t bytes[LOAD_VALUE_MAX];
    size_t n = load_value_make(random_next(r) | 1, bytes);
    GOES(loam_put(x->db, NULL, load_key_slice(&k), loam_bytes(bytes, n), NULL));
}

static uint64_t value_under(struct hoard *x, uint64_t key, const loam_snap *snap)
{
    struct load_key k = load_key_of(key);
    uint8_t bytes[LOAD_VALUE_MAX];
    size_t n = 0;
    loam_read_opts o = {.struct_size = sizeof o, .snap = snap};
    int rc = loam_get(x->db, NULL, load_key_slice(&k), bytes, sizeof bytes, &n, &o);
    CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND);
    return rc == LOAM_OK ? load_value_id(loam_bytes(bytes, n)) : 0;
}

/* A new snapshot and an iterator on it, standing on some entry. */
static void renew(struct hoard *x, unsigned i, struct random *r)
{
    loam_snap_release(x->snap[i]);
    GOES(loam_snap_take(x->db, &x->snap[i]));
    x->key[i] = random_below(r, MEMORY_KEYS);
    x->value[i] = value_under(x, x->key[i], x->snap[i]);
    if (x->it[i] == NULL) {
        loam_iter_opts o = {.struct_size = sizeof o, .snap = x->snap[i]};
        GOES(loam_iter_open(x->db, NULL, &o, &x->it[i]));
    } else {
        GOES(loam_iter_refresh(x->it[i], x->snap[i]));
    }
    struct load_key k = load_key_of(x->key[i]);
    int rc = loam_iter_seek(x->it[i], load_key_slice(&k));
    CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND);
}

static void revisit(struct hoard *x, unsigned i, struct random *r)
{
    CHECK_EQ(value_under(x, x->key[i], x->snap[i]), x->value[i]);
    struct load_key k = load_key_of(x->key[i]);
    int rc = loam_iter_seek(x->it[i], load_key_slice(&k));
    bool there = rc == LOAM_OK && load_key_number(loam_iter_key(x->it[i])) == x->key[i];
    CHECK_EQ(there ? load_value_id(loam_iter_value(x->it[i])) : 0, x->value[i]);
    for (uint64_t n = random_below(r, 200); n > 0 && rc == LOAM_OK; n--) {
        rc = loam_iter_next(x->it[i]);
    }
    CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND);
}

static void hoard_member(struct crew_member *m)
{
    struct hoard *x = m->shared;
    struct random r;
    random_init(&r, m->seed);
    for (unsigned i = m->index; i < HANDLES; i += MEMBERS) {
        renew(x, i, &r);
    }
    for (uint64_t n = 0; n < x->steps; n++) {
        for (unsigned i = 0; i < 20; i++) {
            put_random(x, &r);
        }
        unsigned mine = (unsigned)random_below(&r, HANDLES / MEMBERS) * MEMBERS + m->index;
        if (random_below(&r, 20) == 0) {
            renew(x, mine, &r);
        } else {
            revisit(x, mine, &r);
        }
        if (n % 8 == 0) {
            look_at_resident(x);
        }
        watchdog_beat(&x->dog, m->index);
    }
    watchdog_rest(&x->dog, m->index);
}

STRESS(engine, memory_stays_within_the_budget)
{
    struct load_disk disk;
    load_disk_init(&disk, false);
    struct hoard *x = aligned_alloc(64, sizeof *x);
    CHECK(x != NULL);
    memset(x, 0, sizeof *x);
    x->steps = 60 * stress_scale;
    uint64_t before = resident_bytes();
    loam_options o = small_options(NULL);
    o.memory_budget = BUDGET;
    x->db = load_open(&disk, &o);
    watchdog_start(&x->dog, "memory");
    crew_run(MEMBERS, hoard_member, x, seed);
    watchdog_stop(&x->dog);
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(x->db, NULL, &s));
    CHECK_EQ(s.iterators, HANDLES);
    uint64_t resident = x->resident_peak > before ? x->resident_peak - before : 0;
    printf("    memory: budget %" PRIu64 " KiB, counted peak %" PRIu64
           " KiB, resident growth %" PRIu64 " KiB, %" PRIu64 " flushes, %" PRIu64
           " merges, %" PRIu64 " MiB written\n",
           s.memory_budget >> 10, s.memory_peak >> 10, resident >> 10, s.flushes, s.compactions,
           s.bytes_put >> 20);
    uint64_t l0 = 0;
    GOES(loam_property(x->db, NULL, "level.0.files", &l0));
    printf("    of it pinned %" PRIu64 " KiB, memtables %" PRIu64 " KiB, cache %" PRIu64
           " KiB, indexes %" PRIu64 " KiB; %" PRIu64 " files in level 0, debt %" PRIu64 " KiB\n",
           s.pinned_bytes >> 10, s.memtable_bytes >> 10, s.cache_bytes >> 10, s.index_bytes >> 10,
           l0, s.debt_bytes >> 10);
    fflush(stdout);
    CHECK(s.memory_peak <= BUDGET + ALLOWANCE);
    CHECK(LOAM_ASAN || LOAM_TSAN || resident <= BUDGET + ALLOWANCE);
    for (unsigned i = 0; i < HANDLES; i++) {
        loam_iter_close(x->it[i]);
        loam_snap_release(x->snap[i]);
    }
    GOES(loam_close(x->db));
    free(x);
    load_disk_free(&disk);
}
