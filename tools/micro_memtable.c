/* micro_memtable.c - Rows of loam-micro for the write buffer: small ones warm, large ones cold.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/chunk_pool.h"
#include "arena/hash.h"
#include "arena/random.h"
#include "memtable/memtable.h"
#include "tools/bench_keygen.h"
#include "tools/micro.h"

enum { KEY = 16, VALUE = 100 };

static struct chunk_pool pool;
static struct memtable *table;
static char *keys; /* KEY bytes each */
static uint64_t key_count;
static size_t key_size, value_size;
static char value[VALUE];

static void table_start(uint64_t entries)
{
    const struct memtable_options o = {
        .alloc = alloc_global(), .pool = &pool, .bytes = entries * 150 + (1 << 20)};
    size_t chunks = o.bytes / ((size_t)2 << 20) * 2 + 8;
    if (chunk_pool_init(&pool, alloc_global(), (size_t)2 << 20, chunks) < 0 ||
        chunk_pool_prefill(&pool, chunks) < 0 || memtable_create(&o, &table) < 0) {
        micro_die("no memory for a memtable");
    }
}

static void table_stop(void)
{
    memtable_destroy(table);
    chunk_pool_destroy(&pool);
    free(keys);
    keys = NULL;
}

/* shuffled: a random order of all numbers. */
static void keys_make(uint64_t n, uint64_t seed, bool shuffled, const char *format)
{
    struct random r;
    random_init(&r, seed);
    uint64_t *number = calloc(n, sizeof *number);
    keys = calloc(n + 1, KEY);
    if (number == NULL || keys == NULL) {
        micro_die("no memory for %llu keys", (unsigned long long)n);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t k = shuffled ? random_below(&r, i + 1) : i;
        number[i] = number[k];
        number[k] = i;
    }
    for (uint64_t i = 0; i < n; i++) {
        char text[32];
        int size = snprintf(text, sizeof text, format, (unsigned long long)number[i]);
        key_size = size < KEY ? (size_t)size : KEY;
        memcpy(keys + i * KEY, text, key_size);
    }
    key_count = n;
    free(number);
}

static void add(uint64_t i, uint64_t seq)
{
    const char *k = keys + i * KEY;
    if (memtable_add(table, 0, loam_bytes(k, key_size), hash_key(k, key_size),
                     entry_tag(seq, ENTRY_PUT), loam_bytes(value, value_size)) < 0) {
        micro_die("a memtable without a limit is full");
    }
}

static void add_range(struct micro_run *r, unsigned index)
{
    for (uint64_t i = index; i < r->num; i += r->threads) {
        add(i, i + 1);
    }
}

static void add_all(struct micro_run *r)
{
    struct micro_run setup = {.num = r->num, .threads = 1};
    micro_threads(&setup, add_range);
}

static void begin(struct micro_run *r, bool shuffled, const char *format, size_t bytes)
{
    value_size = bytes;
    keys_make(r->num, r->seed, shuffled, format);
    table_start(r->num);
}

#define LONG "%016llu"

static void run_insert(struct micro_run *r)
{
    begin(r, true, LONG, VALUE);
    micro_threads(r, add_range);
    struct memtable_stats s;
    memtable_stats(table, &s);
    snprintf(r->note, sizeof r->note, "%u bytes/entry, %.0f with filter and index", s.entry_bytes,
             (double)(s.reserved - s.idle) / (double)s.entries);
    table_stop();
}

static void run_insert_seq(struct micro_run *r)
{
    begin(r, false, LONG, VALUE);
    micro_threads(r, add_range);
    table_stop();
}

/* Small ones, 12-byte keys and values: many tables of `size` entries in turn, of num in all. */
static void run_small(struct micro_run *r, bool shuffled)
{
    uint64_t n = r->row->size, rounds = r->num / n + (r->num < n);
    struct micro_run one = {.num = n, .threads = 1, .seed = r->seed};
    for (uint64_t i = 0; i < rounds; i++) {
        begin(&one, shuffled, "key_%08llu", 12);
        one.seconds = one.cpu_seconds = 0;
        micro_threads(&one, add_range);
        r->seconds += one.seconds;
        r->cpu_seconds += one.cpu_seconds;
        table_stop();
    }
    r->done = rounds * n;
}

static void run_small_seq(struct micro_run *r)
{
    run_small(r, false);
}

static void run_small_shuffled(struct micro_run *r)
{
    run_small(r, true);
}

/* Each thread its own ascending keys, 10,000 a thread. */
static void own_keys(struct micro_run *r, unsigned index)
{
    uint64_t share = r->num / r->threads;
    for (uint64_t i = 0; i < share; i++) {
        char k[KEY];
        int size = snprintf(k, sizeof k, "t%u_%08llu", index, (unsigned long long)i);
        memtable_add(table, 0, loam_bytes(k, (size_t)size), hash_key(k, (size_t)size),
                     entry_tag(index * share + i + 1, ENTRY_PUT), loam_bytes(value, 12));
    }
}

static void run_own_keys(struct micro_run *r)
{
    r->num = r->threads * (uint64_t)10000;
    begin(r, false, LONG, 12);
    micro_threads(r, own_keys);
    table_stop();
}

/* ---- reading ------------------------------------------------------------------------------------ */

static uint64_t reads;

static void get_all(struct micro_run *r, unsigned index)
{
    struct random random;
    struct entry e;
    random_init(&random, r->seed + index);
    for (uint64_t n = reads / r->threads; n != 0; n--) {
        const char *k = keys + random_below(&random, key_count) * KEY;
        if (memtable_get(table, 0, loam_bytes(k, key_size), hash_key(k, key_size), SEQ_MAX, &e) !=
            LOAM_OK) {
            micro_die("a key is not there");
        }
        micro_use(e.value.data);
    }
}

static void get_fixed(struct micro_run *r, unsigned index)
{
    struct entry e;
    (void)index;
    const char *k = keys + key_count / 2 * KEY;
    for (uint64_t n = reads / r->threads; n != 0; n--) {
        memtable_get(table, 0, loam_bytes(k, key_size), hash_key(k, key_size), SEQ_MAX, &e);
        micro_use(e.value.data);
    }
}

static void get_many(struct micro_run *r, unsigned index)
{
    enum { MANY = 16 };
    struct random random;
    random_init(&random, r->seed + index);
    for (uint64_t n = reads / MANY; n != 0; n--) {
        loam_slice slices[MANY];
        uint64_t hashes[MANY];
        struct entry entries[MANY];
        int codes[MANY];
        for (int i = 0; i < MANY; i++) {
            const char *k = keys + random_below(&random, key_count) * KEY;
            slices[i] = loam_bytes(k, key_size);
            hashes[i] = hash_key(k, key_size);
        }
        memtable_get_many(table, 0, slices, hashes, MANY, SEQ_MAX, entries, codes);
        micro_use(entries);
    }
}

static void get_missing(struct micro_run *r, unsigned index)
{
    struct random random;
    struct entry e;
    random_init(&random, r->seed + index);
    for (uint64_t n = reads; n != 0; n--) {
        char k[KEY + 1];
        memcpy(k, keys + random_below(&random, key_count) * KEY, KEY);
        k[KEY - 1] = 'x';
        micro_use(memtable_get(table, 0, loam_bytes(k, KEY), hash_key(k, KEY), SEQ_MAX, &e) == 0
                      ? e.value.data
                      : k);
    }
}

static void seek_all(struct micro_run *r, unsigned index)
{
    struct random random;
    struct memtable_cursor c;
    random_init(&random, r->seed + index);
    memtable_cursor_init(&c, table, 0);
    for (uint64_t n = reads; n != 0; n--) {
        const char *k = keys + random_below(&random, key_count) * KEY;
        memtable_cursor_seek(&c, loam_bytes(k, key_size), UINT64_MAX);
        micro_use(c.at.node);
    }
}

static void iterate(struct micro_run *r, unsigned index)
{
    (void)index;
    uint64_t seen = 0;
    struct memtable_cursor c;
    memtable_cursor_init(&c, table, 0);
    while (seen < r->num) {
        for (bool on = memtable_cursor_first(&c); on; on = memtable_cursor_next(&c)) {
            struct entry e;
            memtable_cursor_entry(&c, &e);
            micro_use(e.value.data);
            seen++;
        }
    }
    r->done = seen;
}

static void iterate_back(struct micro_run *r, unsigned index)
{
    (void)index;
    uint64_t seen = 0;
    struct memtable_cursor c;
    memtable_cursor_init(&c, table, 0);
    for (bool on = memtable_cursor_last(&c); on && seen < reads; on = memtable_cursor_prev(&c)) {
        micro_use(c.at.node);
        seen++;
    }
    r->done = seen;
}

/* num entries are put in first, one thread, not timed; then `size` are read. */
static void run_read(struct micro_run *r)
{
    begin(r, true, LONG, VALUE);
    add_all(r);
    memtable_freeze(table);
    reads = r->row->size;
    r->done = reads;
    micro_threads(r, r->row->body);
    table_stop();
}

/* Overwrites of num keys by Zipf 0.99: chains grow, towers do not. */
static void overwrite(struct micro_run *r, unsigned index)
{
    struct bench_rng random;
    struct zipf zipf;
    bench_rng_init(&random, r->seed + index);
    zipf_init(&zipf, key_count, 0.99);
    uint64_t share = micro_share(r, index);
    for (uint64_t n = 0; n < share; n++) {
        add(zipf_next(&zipf, &random), r->num + 1 + n * r->threads + index);
    }
}

static void run_overwrite(struct micro_run *r)
{
    begin(r, true, LONG, VALUE);
    add_all(r);
    micro_threads(r, overwrite);
    table_stop();
}

const struct micro_row micro_memtable_rows[] = {
    {"memtable_insert", "1 M random 16-byte keys, 100-byte values", 700, 1000000, 1, run_insert,
     NULL, 0},
    {"memtable_insert_t2", "the same by two threads (bar of both: 2.8 M/s)", 714, 1000000, 2,
     run_insert, NULL, 0},
    {"memtable_insert_10m", "10 M", 0, 10000000, 1, run_insert, NULL, 0},
    {"memtable_insert_seq", "ascending", 0, 1000000, 1, run_insert_seq, NULL, 0},
    {"memtable_seq_1k", "key_%08d, 1,000 a table, ascending", 0, 1000000, 1, run_small_seq, NULL,
     1000},
    {"memtable_shuffled_1k", "the same, shuffled", 0, 1000000, 1, run_small_shuffled, NULL, 1000},
    {"memtable_seq_10k", "10,000 a table, ascending", 0, 1000000, 1, run_small_seq, NULL, 10000},
    {"memtable_shuffled_10k", "the same, shuffled", 0, 1000000, 1, run_small_shuffled, NULL, 10000},
    {"memtable_own_keys_mt", "t%d_%08d, 10,000 a thread", 0, 0, 4, run_own_keys, NULL, 0},
    {"memtable_overwrite", "Zipf 0.99 over 1 M", 0, 1000000, 1, run_overwrite, NULL, 0},
    {"memtable_get", "random, of 1 M", 700, 1000000, 1, run_read, get_all, 1000000},
    {"memtable_get_mt", "the same, several threads", 0, 1000000, 4, run_read, get_all, 1000000},
    {"memtable_get_10m", "random, of 10 M", 0, 10000000, 1, run_read, get_all, 1000000},
    {"memtable_get_fixed", "one key, of 10,000", 0, 10000, 1, run_read, get_fixed, 10000000},
    {"memtable_get_many", "sixteen at a time, of 1 M", 0, 1000000, 1, run_read, get_many, 1000000},
    {"memtable_get_missing", "absent keys, of 1 M", 0, 1000000, 1, run_read, get_missing, 5000000},
    {"memtable_seek", "random, of 1 M", 0, 1000000, 1, run_read, seek_all, 500000},
    {"memtable_seek_10m", "random, of 10 M", 0, 10000000, 1, run_read, seek_all, 500000},
    {"memtable_iterate", "1 M entries", 50, 1000000, 1, run_read, iterate, 1000000},
    {"memtable_iterate_back", "500,000 of 1 M", 0, 1000000, 1, run_read, iterate_back, 500000},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
