/* batch_memory_test.c - The largest batch of tiny operations that is taken stays within the memory budget.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the bytes that the caller's allocator has given out at any moment, and the database's own count,
 * which has the mapped memory, too, each at most what loam.h allows above the budget; and every operation of
 * the batch shows, before and after another open.
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "arena/random.h"
#include "tests/engine/db_support.h"
#include "tests/support/meter.h"

#define MIB       ((uint64_t)1 << 20)
#define ALLOWANCE (16 * MIB)

TestSuite(batch_memory);

/* ---- batches ----------------------------------------------------------------------------------- */

/* What the operations of a batch are like. */
struct shape {
    uint64_t budget;
    size_t key, value; /* bytes; no value: deletes */
};

static loam_slice key_of(uint64_t number, size_t size, uint8_t *to)
{
    memset(to, 'k', size);
    for (size_t i = 0; i < size && i < 4; i++) {
        to[size - 1 - i] = (uint8_t)(number >> 8 * i);
    }
    return loam_bytes(to, size);
}

static void add(loam_batch *b, const struct shape *s, uint64_t number)
{
    static const uint8_t zeros[64];
    uint8_t key[64];
    loam_slice k = key_of(number, s->key, key);
    GOES(s->value != 0 ? loam_batch_put(b, NULL, k, loam_bytes(zeros, s->value))
                       : loam_batch_delete(b, NULL, k));
}

/* Writes the largest batch that is taken, to within a sixteenth. */
static void write_largest(loam_db *db, loam_batch *b, const struct shape *s)
{
    for (uint64_t i = 0; loam_batch_mark(b) + 64 < s->budget / 2; i++) {
        add(b, s, i);
    }
    for (;;) {
        int rc = loam_write(db, b, NULL);
        if (rc == LOAM_OK) {
            return;
        }
        FAILS(rc, LOAM_E_TOOBIG);
        uint64_t n = loam_batch_count(b) / 16 * 15;
        loam_batch_clear(b);
        for (uint64_t i = 0; i < n; i++) {
            add(b, s, i);
        }
    }
}

/* Returns the database's own count. */
static uint64_t check_peak(loam_db *db, const struct meter *m, const struct shape *s)
{
    loam_stats t = {.struct_size = sizeof t};
    GOES(loam_get_stats(db, NULL, &t));
    CHECK(t.memory_peak <= s->budget + ALLOWANCE);
    CHECK(m->peak <= s->budget + ALLOWANCE);
    return t.memory_peak;
}

/* More than the cache holds, so that what the batch takes comes on top of it. */
static void fill_cache(loam_db *db, uint64_t bytes)
{
    static uint8_t value[4000];
    struct random r;
    random_init(&r, 1);
    for (uint64_t i = 0; i < bytes / sizeof value; i++) {
        uint8_t key[8];
        for (size_t at = 0; at + 8 <= sizeof value; at += 8) {
            uint64_t word = random_next(&r);
            memcpy(value + at, &word, 8);
        }
        GOES(loam_put(db, NULL, key_of(i, sizeof key, key), loam_bytes(value, sizeof value), NULL));
    }
    GOES(loam_flush(db, NULL));
}

static void largest_within_budget(const struct shape *s)
{
    loam_vfs *disk = memory_disk();
    struct meter meter = {0};
    const loam_allocator allocator = meter_allocator(&meter);
    loam_options o = small_options(disk);
    o.memory_budget = s->budget;
    o.allocator = &allocator;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    fill_cache(db, s->budget);
    loam_batch *b = loam_batch_new(0);
    write_largest(db, b, s);
    check_peak(db, &meter, s);
    GOES(loam_write(db, b, NULL)); /* every operation on top of another */
    GOES(loam_flush(db, NULL));
    check_peak(db, &meter, s);
    loam_batch_free(b);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(batch_memory, deletes_of_short_keys)
{
    largest_within_budget(&(struct shape){MIB, 4, 0});
    largest_within_budget(&(struct shape){16 * MIB, 4, 0});
    largest_within_budget(&(struct shape){16 * MIB, 16, 0});
    largest_within_budget(&(struct shape){64 * MIB, 4, 0});
}

Test(batch_memory, puts_of_short_values)
{
    largest_within_budget(&(struct shape){16 * MIB, 8, 1});
    largest_within_budget(&(struct shape){64 * MIB, 8, 8});
    largest_within_budget(&(struct shape){64 * MIB, 16, 31});
}

/* ---- many writers ------------------------------------------------------------------------------- */

enum { WRITERS = 4, BATCHES = 16 };

struct crowd {
    loam_db *db;
    pthread_barrier_t start;
    uint64_t count; /* operations of each batch */
    unsigned writers;
};

static void *write_with_others(void *arg)
{
    struct crowd *c = arg;
    const struct shape s = {64 * MIB, 8, 1};
    loam_batch *b = loam_batch_new(0);
    for (uint64_t i = 0; i < c->count; i++) {
        add(b, &s, i);
    }
    for (unsigned i = 0; i < BATCHES / c->writers; i++) {
        pthread_barrier_wait(&c->start);
        GOES(loam_write(c->db, b, NULL));
    }
    loam_batch_free(b);
    return NULL;
}

/* The most memory that was in use while so many writers wrote the same number of batches together. */
static uint64_t peak_of(const struct shape *s, uint64_t count, unsigned writers)
{
    loam_vfs *disk = memory_disk();
    struct meter meter = {0};
    const loam_allocator allocator = meter_allocator(&meter);
    loam_options o = small_options(disk);
    o.memory_budget = s->budget;
    o.allocator = &allocator;
    struct crowd c = {.count = count, .writers = writers};
    GOES(loam_open("/db", &o, &c.db));
    fill_cache(c.db, s->budget);
    pthread_barrier_init(&c.start, NULL, writers);
    pthread_t thread[WRITERS];
    for (unsigned i = 0; i < writers; i++) {
        CHECK_EQ(pthread_create(&thread[i], NULL, write_with_others, &c), 0);
    }
    for (unsigned i = 0; i < writers; i++) {
        CHECK_EQ(pthread_join(thread[i], NULL), 0);
    }
    pthread_barrier_destroy(&c.start);
    uint64_t peak = check_peak(c.db, &meter, s);
    GOES(loam_close(c.db));
    loam_vfs_free(disk);
    return peak;
}

/* All of them find an empty memtable at once: two batches in memory would show beside the peak of one. */
Test(batch_memory, of_many_writers_one_is_let_in_at_a_time)
{
    const struct shape s = {64 * MIB, 8, 1};
    uint64_t cost = 60 + 2 * (s.key + s.value), count = (s.budget / 4 + 4 * MIB) / cost / 16 * 15;
    uint64_t alone = peak_of(&s, count, 1), together = peak_of(&s, count, WRITERS);
    CHECK(together < alone + count * cost / 2);
}

/* ---- what is taken ----------------------------------------------------------------------------- */

static loam_db *open_with(const loam_vfs *disk, uint64_t budget)
{
    loam_options o = small_options(disk);
    o.memory_budget = budget;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    return db;
}

/* 60 bytes for each operation and twice its key and value. */
static uint64_t small_most(uint64_t budget, const struct shape *s)
{
    return (budget / 4 + 4 * MIB) / (60 + 2 * (s->key + s->value));
}

Test(batch_memory, the_limit_is_the_one_that_is_told)
{
    loam_vfs *disk = memory_disk();
    const struct shape s = {MIB, 8, 39};
    loam_db *db = open_with(disk, s.budget);
    loam_batch *b = loam_batch_new(0);
    uint64_t most = small_most(s.budget, &s);
    for (uint64_t i = 0; loam_batch_mark(b) + 100 < s.budget / 2; i++) {
        add(b, &s, i);
    }
    CHECK(loam_batch_count(b) < most); /* its bytes are what counts */
    GOES(loam_write(db, b, NULL));
    GOES(loam_close(db));
    const struct shape tiny = {MIB, 4, 0};
    db = open_with(disk, s.budget);
    loam_batch_clear(b);
    most = small_most(s.budget, &tiny);
    for (uint64_t i = 0; i < most; i++) {
        add(b, &tiny, i);
    }
    size_t mark = loam_batch_mark(b);
    GOES(loam_write(db, b, NULL));
    add(b, &tiny, most);
    FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
    CHECK(strstr(loam_last_error()->message, "small operations") != NULL);
    GOES(loam_batch_rewind(b, mark)); /* counts what is left */
    GOES(loam_write(db, b, NULL));
    loam_batch_free(b);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* As many as half of the budget has. */
Test(batch_memory, entries_of_eighty_bytes_are_bounded_by_their_bytes_alone)
{
    loam_vfs *disk = memory_disk();
    const struct shape s = {64 * MIB, 16, 64};
    loam_db *db = open_with(disk, s.budget);
    loam_batch *b = loam_batch_new(0);
    for (uint64_t i = 0; loam_batch_mark(b) + 100 < s.budget / 2; i++) {
        add(b, &s, i);
    }
    GOES(loam_write(db, b, NULL));
    loam_stats t = {.struct_size = sizeof t};
    GOES(loam_get_stats(db, NULL, &t));
    CHECK(t.memory_peak <= s.budget + 4 * loam_batch_mark(b) + ALLOWANCE);
    loam_batch_free(b);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* A log may hold batches that are no longer taken: of a larger budget, or of a version without the limit. */
Test(batch_memory, recovery_takes_any_batch)
{
    loam_vfs *disk = memory_disk();
    const struct shape s = {16 * MIB, 4, 1};
    loam_db *db = open_with(disk, s.budget);
    loam_batch *b = loam_batch_new(0);
    uint64_t n = small_most(s.budget, &s);
    for (uint64_t i = 0; i < n; i++) {
        add(b, &s, i);
    }
    GOES(loam_write(db, b, NULL));
    GOES(loam_close(db));
    db = open_with(disk, MIB);
    FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
    for (uint64_t i = 0; i < n; i += 1 + i / 10) {
        uint8_t key[4];
        GOES(loam_get(db, NULL, key_of(i, sizeof key, key), NULL, 0, NULL, NULL));
    }
    loam_batch_free(b);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
