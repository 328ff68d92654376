/* memory_share_test.c - Indexes get room from memtables, the cache from both, and gives it back.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "engine/db.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

enum { BUDGET = 4 << 20, ENTRIES = 200000, VALUE = 100, GETS = 3000, ALLOWANCE = 4 << 20 };

TestSuite(memory_share);

static void get_some_of(loam_db *db, struct random *r, unsigned n, uint64_t entries)
{
    for (unsigned i = 0; i < n; i++) {
        char key[24];
        int size = snprintf(key, sizeof key, "key%012u", (unsigned)random_below(r, entries));
        GOES(loam_get(db, NULL, loam_bytes(key, (size_t)size), NULL, 0, NULL, NULL));
    }
}

static void get_some(loam_db *db, struct random *r, unsigned n)
{
    get_some_of(db, r, n, ENTRIES);
}

static uint64_t table_opens(loam_db *handle)
{
    return atom_load(&db_behind(handle)->tables.opens, relaxed);
}

/* The allowance also catches merges that keep the buffers of every table they have written.
 * Without room for all of them tables were closed and opened, index and filter read anew, on nearly
 * every get. */
Test(memory_share, tables_stay_open_beyond_the_share_of_indexes)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.memory_budget = BUDGET;
    o.default_ks = &plain;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    char key[24], value[VALUE];
    memset(value, 'v', sizeof value);
    for (uint64_t n = 0, i = 0; n < ENTRIES; n++, i = (i + 7919) % ENTRIES) {
        int size = snprintf(key, sizeof key, "key%012u", (unsigned)i);
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), NULL));
    }
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, UINT64_MAX));
    struct random r;
    random_init(&r, 1);
    get_some(db, &r, GETS);
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    struct options resolved;
    GOES(options_resolve(&o, &resolved));
    CHECK(s.index_bytes > resolved.limits.table_bytes); /* or the test shows nothing */
    uint64_t before = table_opens(db);
    get_some(db, &r, GETS);
    CHECK(table_opens(db) - before <= s.files);
    CHECK(s.memory_peak <= BUDGET + ALLOWANCE);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- tables that are not resident -------------------------------------------------------------- */

static uint32_t resident_tables(struct db *db)
{
    uint32_t n = 0;
    mutex_lock(&db->tables.mu);
    for (uint32_t i = 0; i < db->tables.count; i++) {
        n += db->tables.clock[i]->cache_want == 0;
    }
    mutex_unlock(&db->tables.mu);
    return n;
}

/* All in one level: nothing is left to do in the background, which would hold tables. */
static loam_db *fill_small(loam_vfs *disk, uint64_t budget, uint64_t entries)
{
    loam_options o = small_options(disk);
    loam_db *db;
    o.memory_budget = budget;
    GOES(loam_open("/db", &o, &db));
    char key[24], value[VALUE];
    memset(value, 'v', sizeof value);
    for (uint64_t i = 0; i < entries; i++) {
        int size = snprintf(key, sizeof key, "key%012u", (unsigned)(i * 7919 % entries));
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), NULL));
    }
    GOES(loam_flush(db, NULL));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    GOES(loam_wait_idle(db, UINT64_MAX));
    return db;
}

static loam_db *fill_quiet(loam_vfs *disk)
{
    return fill_small(disk, BUDGET, ENTRIES);
}

/* With room for the readers and hardly more than that, no get closes or opens a table. */
Test(memory_share, tables_whose_indexes_do_not_fit_stay_open)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = fill_quiet(disk);
    struct db *in = db_behind(db);
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.files > 4);
    table_cache_set_max_bytes(&in->tables, s.files * 4096);
    struct random r;
    random_init(&r, 1);
    get_some(db, &r, GETS);
    uint64_t before = table_opens(db);
    get_some(db, &r, GETS);
    CHECK_EQ(table_opens(db), before);
    CHECK(resident_tables(in) < s.files / 2);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(memory_share, tables_become_resident_once_there_is_room)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = fill_quiet(disk);
    struct db *in = db_behind(db);
    loam_stats s = {.struct_size = sizeof s};
    struct random r;
    random_init(&r, 1);
    GOES(loam_get_stats(db, NULL, &s));
    table_cache_set_max_bytes(&in->tables, 1);
    get_some(db, &r, GETS);
    CHECK_EQ(resident_tables(in), 0);
    table_cache_set_max_bytes(&in->tables, UINT64_MAX);
    for (unsigned i = 0; resident_tables(in) != s.files; i++) {
        CHECK(i < 1000); /* of what is lent to the cache a part comes back first */
        get_some(db, &r, GETS);
    }
    CHECK_EQ(table_cache_open_count(&in->tables), s.files);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* ---- what the cache is lent --------------------------------------------------------------------- */

static loam_vfs *disk;
static loam_db *db;
static struct db *in;
static struct random r;

static void begin(void)
{
    disk = memory_disk();
    db = fill_quiet(disk);
    in = db_behind(db);
    random_init(&r, 1);
}

static void end(void)
{
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Reads until something is lent to the cache. */
static void read_until_lent(void)
{
    while (atom_load(&in->share.lent, acquire) == 0) {
        get_some(db, &r, 100);
    }
}

/* Writes until nothing is lent any more. */
static void write_until_back(void)
{
    char key[24], value[VALUE];
    memset(value, 'w', sizeof value);
    for (unsigned i = 0; atom_load(&in->share.lent, acquire) != 0; i++) {
        int size = snprintf(key, sizeof key, "key%012u", i);
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), NULL));
    }
}

static void wait_until_back(void)
{
    for (unsigned i = 0; atom_load(&in->share.lent, acquire) != 0; i++) {
        CHECK(i < 20000);
        thread_sleep_micros(1000);
    }
}

/* Until something has been lent for a while, no more and no less. */
static void wait_until_settled(void)
{
    uint64_t lent = 0;
    for (unsigned same = 0; same < 700; same++) {
        uint64_t now = atom_load(&in->share.lent, acquire);
        same = now == lent && now != 0 ? same : 0;
        lent = now;
        get_some(db, &r, 1);
        thread_sleep_micros(1000);
    }
}

static uint64_t used_at_most_the_budget(void)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.memory_used <= BUDGET + ALLOWANCE / 4);
    return s.cache_bytes;
}

Test(memory_share, a_cache_has_what_writers_leave_until_they_come)
{
    begin();
    const struct limits *l = &in->options.limits;
    for (unsigned round = 0; round < 2; round++) {
        read_until_lent();
        while (used_at_most_the_budget() < l->ring_bytes) {
            get_some(db, &r, 1000);
        }
        write_until_back();
        CHECK(used_at_most_the_budget() <= l->ring_bytes);
    }
    end();
}

/* Slow ones take a little at a time, and of the cache no more than that goes. */
Test(memory_share, writers_who_take_little_leave_the_rest_to_the_cache)
{
    begin();
    char key[24], value[VALUE];
    memset(value, 'w', sizeof value);
    bool part = false;
    for (unsigned n = 0; !part; n++) {
        CHECK(n < 100);
        read_until_lent();
        uint64_t most = atom_load(&in->share.lent, acquire), lent = most;
        for (unsigned i = 0; lent == most && i < ENTRIES; i++) {
            int size = snprintf(key, sizeof key, "key%012u", i);
            GOES(loam_put(db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), NULL));
            lent = atom_load(&in->share.lent, acquire);
        }
        part = lent != 0 && lent < most;
    }
    while (atom_load(&in->share.lent, acquire) != 0) { /* and all of it in the end */
        write_until_back();
    }
    end();
}

/* Nobody reads or writes: the cache turns by itself until what it was lent comes next. */
Test(memory_share, what_is_lent_is_the_next_to_be_filled)
{
    begin();
    read_until_lent();
    for (unsigned i = 0; ring_spare_bytes(&in->cache.ring) < atom_load(&in->share.lent, acquire) / 2; i++) {
        CHECK(i < 5000);
        thread_sleep_micros(1000);
    }
    CHECK(used_at_most_the_budget() != 0);
    get_some(db, &r, GETS);
    end();
}

/* Chunks that memtables have left are theirs until they are lent: not for a moment are they the cache's, too. */
Test(memory_share, what_is_lent_is_not_kept_for_memtables_at_the_same_time)
{
    begin();
    const struct limits *l = &in->options.limits;
    size_t all = l->memtables_max * l->memtable_bytes / l->chunk_bytes;
    do { /* again when it has been lent meanwhile */
        write_until_back();
        GOES(loam_wait_idle(db, 0)); /* or a flush has memory in hand */
        atom_store(&in->alloc.peak, 0, relaxed);
        size_t out = chunk_pool_stats(&in->chunks).out;
        GOES(chunk_pool_prefill(&in->chunks, all > out ? all - out : 0));
    } while (atom_load(&in->share.lent, acquire) != 0);
    read_until_lent();
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.memory_peak <= BUDGET + ALLOWANCE / 16);
    end();
}

/* Of a small budget few chunks are kept beside what is lent: fewer than are made ready for writers who have begun
 * a memtable. What was made ready went at once, and was made again, as fast as a core could. */
Test(memory_share, what_is_made_ready_for_writers_beside_what_is_lent_stays)
{
    enum { SMALL = 1 << 20, FEW = 40000 };
    disk = memory_disk();
    db = fill_small(disk, SMALL, FEW);
    in = db_behind(db);
    random_init(&r, 1);
    size_t size = (size_t)in->options.limits.memtable_bytes / 8; /* worth it, and no flush at rest */
    char *value = calloc(1, size);
    uint64_t taken = UINT64_MAX;
    for (unsigned i = 0; taken != 0; i++) { /* again when it has begun or ended meanwhile */
        CHECK(i < 20);
        GOES(loam_put(db, NULL, LOAM_LIT("begun"), loam_bytes(value, i == 0 ? size : 1), NULL));
        while (atom_load(&in->share.lent, acquire) == 0) {
            get_some_of(db, &r, 100, FEW);
        }
        thread_sleep_micros(50000);
        atom_store(&in->alloc.peak, 0, relaxed);
        thread_sleep_micros(200000);
        taken = atom_load(&in->alloc.peak, relaxed);
    }
    CHECK(atom_load(&in->share.lent, acquire) != 0);
    free(value);
    end();
}

/* One write that needs more than is kept for writers asks for it first. */
Test(memory_share, a_large_write_gets_its_memory_back)
{
    begin();
    read_until_lent();
    size_t size = (size_t)in->options.limits.memtable_bytes / 2;
    char *value = calloc(1, size);
    GOES(loam_put(db, NULL, loam_bytes("large", 5), loam_bytes(value, size), NULL));
    while (atom_load(&in->share.lent, acquire) != 0) {
        get_some(db, &r, 10);
    }
    free(value);
    end();
}

static _Atomic uint32_t keeper_held;

static void *hold_keeper(void *arg)
{
    struct db *in = arg;
    mutex_lock(&in->mu);
    while (atom_load(&keeper_held, acquire) != 0) {
        thread_sleep_micros(1000);
    }
    mutex_unlock(&in->mu);
    return NULL;
}

/* The keeper, who would give it back, is busy elsewhere: a write with a deadline waits no longer than that. */
Test(memory_share, a_large_write_waits_for_memory_until_its_deadline)
{
    begin();
    pthread_t t;
    size_t size = (size_t)in->options.limits.memtable_bytes / 2;
    char *value = calloc(1, size);
    read_until_lent();
    atom_store(&keeper_held, 1, release);
    CHECK_EQ(thread_start(&t, hold_keeper, in), 0);
    thread_sleep_micros(300000); /* it looks at what that mutex guards ten times a second */
    CHECK(atom_load(&in->share.lent, acquire) != 0);
    const loam_write_opts soon = {.struct_size = sizeof soon, .deadline_us = 20000};
    uint64_t start = clock_micros();
    GOES(loam_put(db, NULL, loam_bytes("large", 5), loam_bytes(value, size), &soon));
    uint64_t took = clock_micros() - start;
    atom_store(&keeper_held, 0, release);
    thread_join(t);
    CHECK(took < 500000);
    free(value);
    end();
}

/* Values that get memory of their own beside the chunks are writers' memory, too. */
Test(memory_share, a_cache_makes_room_for_large_values_in_memtables)
{
    begin();
    const struct limits *l = &in->options.limits;
    wait_until_settled();
    uint64_t most = atom_load(&in->share.lent, acquire);
    size_t size = l->memtable_bytes / 20; /* less than is kept for writers, more than a chunk */
    CHECK(size > l->chunk_bytes);
    char *value = calloc(1, size);
    GOES(loam_pause(db, 1)); /* at rest the memtable would become a table, which needs memory as well */
    for (unsigned i = 0; i < 16; i++) { /* of one memtable */
        char key[24];
        int n = snprintf(key, sizeof key, "large%06u", i);
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)n), loam_bytes(value, size), NULL));
    }
    /* Half of it at least: the log of so much alone asks for a little. */
    for (unsigned i = 0; atom_load(&in->share.lent, acquire) + 8 * size > most; i++) {
        CHECK(i < 20000); /* the log has woken the keeper some times */
        thread_sleep_micros(1000);
    }
    free(value);
    end();
}

static void become_resident(void)
{
    for (unsigned i = 0; resident_tables(in) != table_cache_open_count(&in->tables); i++) {
        CHECK(i < 100000);
        get_some(db, &r, 100);
    }
}

/* Many tables are opened between two looks of the keeper's: their indexes have what is not lent until then,
 * and the rest once it is back. */
Test(memory_share, indexes_do_not_come_on_top_of_what_is_lent)
{
    begin();
    bool held = false;
    for (unsigned i = 0; !held; i++) { /* again when the keeper has looked meanwhile */
        CHECK(i < 100);
        table_cache_set_max_bytes(&in->tables, 1); /* closes all but one */
        read_until_lent();
        table_cache_set_max_bytes(&in->tables, UINT64_MAX);
        table_cache_hold(&in->tables, table_cache_bytes(&in->tables) + 1);
        held = table_cache_room(&in->tables) == 1;
        get_some(db, &r, 10);
        held = held && table_cache_held_room(&in->tables) <= 1 && resident_tables(in) <= 1;
    }
    become_resident();
    CHECK(used_at_most_the_budget() != 0);
    wait_until_settled(); /* one that is larger than what is kept for writers is given its room */
    mutex_lock(&in->tables.mu);
    in->tables.held_back = BUDGET;
    mutex_unlock(&in->tables.mu);
    wait_until_back();
    end();
}

/* A merge that has made many tables opens them in a row. */
Test(memory_share, a_merge_waits_for_the_memory_of_its_indexes)
{
    begin();
    wait_until_settled();
    const struct limits *l = &in->options.limits;
    uint64_t least = l->memtable_bytes * l->memtables_max / 16, lent = atom_load(&in->share.lent, acquire);
    CHECK(table_cache_held_room(&in->tables) < lent); /* what is lent is not the indexes' */
    table_cache_hold(&in->tables, table_cache_bytes(&in->tables)); /* until the keeper's next look */
    memory_share_make_room(in);
    CHECK(table_cache_held_room(&in->tables) >= least);
    CHECK_EQ(atom_load(&in->share.lent, acquire), lent); /* there was room that was not lent */
    alloc_charge(&in->alloc, MEM_TABLE, l->table_bytes); /* as if there were none */
    in->tables.bytes += l->table_bytes;
    table_cache_hold(&in->tables, table_cache_bytes(&in->tables));
    memory_share_make_room(in);
    CHECK(table_cache_held_room(&in->tables) >= least);
    CHECK(atom_load(&in->share.lent, acquire) < lent);
    in->tables.bytes -= l->table_bytes;
    alloc_uncharge(&in->alloc, MEM_TABLE, l->table_bytes);
    end();
}

/* The log, merges and iterators have a share, too; what they take beyond it is not the cache's. */
Test(memory_share, a_cache_makes_room_for_merges_and_the_log)
{
    begin();
    read_until_lent();
    alloc_charge(&in->alloc, MEM_BUILD, 2 * ALLOWANCE);
    wait_until_back();
    alloc_uncharge(&in->alloc, MEM_BUILD, 2 * ALLOWANCE);
    read_until_lent();
    end();
}

/* ---- batches of many small operations ----------------------------------------------------------- */

#define LARGE_OPS 60000u /* about as many as are taken */

/* What they take is many times what they hold: one batch is let in at a time. */
static void write_large_batches(bool puts, uint32_t flags)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    loam_batch *b = loam_batch_new(0);
    CHECK(b != NULL);
    for (uint32_t i = 0; i < LARGE_OPS; i++) {
        GOES(puts ? loam_batch_put(b, NULL, loam_bytes(&i, 3), LOAM_LIT(""))
                  : loam_batch_delete(b, NULL, loam_bytes(&i, 1)));
    }
    const loam_write_opts w = {.struct_size = sizeof w, .flags = flags};
    for (unsigned n = 0; n < 8;) {
        int rc = loam_write(db, b, &w);
        CHECK(rc == LOAM_OK || (rc == LOAM_E_BUSY && (flags & LOAM_W_NOWAIT) != 0));
        n += rc == LOAM_OK;
        put_text(db, NULL, "small", "one"); /* never in the way */
    }
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.memory_peak <= ((uint64_t)1 << 20) + ((uint64_t)6 << 20));
    loam_batch_free(b);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(memory_share, large_batches_do_not_come_on_top_of_each_other)
{
    write_large_batches(true, 0);
    write_large_batches(false, 0);
    write_large_batches(false, LOAM_W_NOWAIT);
}
