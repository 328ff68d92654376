/* micro_db.c - Rows of loam-micro for a whole database with memory for a small part of it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Random reads, updates, and scans of 32 entries, by Zipf 0.9 or all keys alike, with a memory budget
 * of 3, 10 or 30 percent of the data (1 MiB at least): num entries of 16 + 100 bytes, put in before in
 * random order, and at rest. A fifth as many operations are timed. The files lie under TMPDIR.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/loam.h"
#include "tools/bench_keygen.h"
#include "tools/micro.h"

enum { KEY = 16, VALUE = 100, SCAN = 32, SHARE = 5 };

static loam_db *db;
static char value[VALUE];
static const struct key_format format = {.kind = KEY_LEVELDB, .size = KEY};

static void must(int rc, const char *what)
{
    if (rc < 0) {
        micro_die("%s: %s", what, loam_last_error()->message);
    }
}

static void put(uint64_t number)
{
    char key[KEY];
    size_t size = key_format_write(&format, number, key);
    must(loam_put(db, NULL, loam_bytes(key, size), loam_bytes(value, VALUE), NULL), "put");
}

static void get(uint64_t number)
{
    char key[KEY], buf[VALUE];
    size_t size = key_format_write(&format, number, key), len;
    int rc = loam_get(db, NULL, loam_bytes(key, size), buf, sizeof buf, &len, NULL);
    must(rc, "get");
    if (rc != LOAM_OK) {
        micro_die("get: key %llu is not there", (unsigned long long)number);
    }
    micro_use(buf);
}

static void scan(uint64_t number)
{
    char key[KEY];
    size_t size = key_format_write(&format, number, key);
    loam_iter *it;
    must(loam_iter_open(db, NULL, NULL, &it), "iterator");
    int rc = loam_iter_seek(it, loam_bytes(key, size));
    for (int i = 0; i < SCAN && rc == LOAM_OK; i++) {
        micro_use(loam_iter_value(it).data);
        rc = loam_iter_next(it);
    }
    must(rc, "scan");
    loam_iter_close(it);
}

/* Operations on keys of the row's distribution. */
static void repeat(struct micro_run *r, unsigned index, void (*one)(uint64_t number))
{
    const enum keygen_kind *kind = r->shared;
    struct keygen keys;
    struct bench_rng random;
    bench_rng_init(&random, r->seed + index);
    keygen_init(&keys, *kind, r->num, 0.9);
    for (uint64_t n = micro_share(r, index) / SHARE; n != 0; n--) {
        one(keygen_next(&keys, &random, r->num));
    }
}

static void read_keys(struct micro_run *r, unsigned index)
{
    repeat(r, index, get);
}

static void update_keys(struct micro_run *r, unsigned index)
{
    repeat(r, index, put);
}

static void scan_keys(struct micro_run *r, unsigned index)
{
    repeat(r, index, scan);
}

/* The database, filled and at rest; `percent` of its bytes as its budget. */
static void fill(const char *dir, uint64_t n, uint64_t percent, uint64_t seed)
{
    const uint64_t least = (uint64_t)1 << 20; /* that a database can work with */
    uint64_t budget = n * (KEY + VALUE) / 100 * percent;
    const loam_options o = {.struct_size = sizeof o,
                            .memory_budget = budget > least ? budget : least};
    must(loam_open(dir, &o, &db), "open");
    struct permutation order;
    permutation_init(&order, n, seed);
    for (uint64_t i = 0; i < n; i++) {
        put(permutation_at(&order, i));
    }
    must(loam_wait_idle(db, 0), "wait");
}

static void run(struct micro_run *r, enum keygen_kind kind)
{
    const char *tmp = getenv("TMPDIR");
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/loam-micro-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL) {
        micro_die("no directory %s", dir);
    }
    fill(dir, r->num, r->row->size, r->seed);
    r->shared = &kind;
    r->done = r->num / SHARE;
    micro_threads(r, r->row->body);
    must(loam_close(db), "close");
    must(loam_destroy(dir, NULL), "destroy");
}

static void run_zipf(struct micro_run *r)
{
    run(r, KEYGEN_ZIPF);
}

static void run_uniform(struct micro_run *r)
{
    run(r, KEYGEN_UNIFORM);
}

#define MILLION 1000000
const struct micro_row micro_db_rows[] = {
    {"db_read_zipf_3", "Zipf 0.9, budget of 3 % of 1 M entries", 0, MILLION, 1, run_zipf, read_keys,
     3},
    {"db_read_zipf_10", "10 %", 0, MILLION, 1, run_zipf, read_keys, 10},
    {"db_read_zipf_30", "30 %", 0, MILLION, 1, run_zipf, read_keys, 30},
    {"db_read_uniform_3", "all keys alike, 3 %", 0, MILLION, 1, run_uniform, read_keys, 3},
    {"db_read_uniform_10", "10 %", 0, MILLION, 1, run_uniform, read_keys, 10},
    {"db_read_uniform_30", "30 %", 0, MILLION, 1, run_uniform, read_keys, 30},
    {"db_update_zipf_3", "Zipf 0.9, 3 %", 0, MILLION, 1, run_zipf, update_keys, 3},
    {"db_update_zipf_10", "10 %", 0, MILLION, 1, run_zipf, update_keys, 10},
    {"db_update_zipf_30", "30 %", 0, MILLION, 1, run_zipf, update_keys, 30},
    {"db_update_uniform_30", "all keys alike, 30 %", 0, MILLION, 1, run_uniform, update_keys, 30},
    {"db_scan32_zipf_3", "scans of 32, Zipf 0.9, 3 %", 0, MILLION, 1, run_zipf, scan_keys, 3},
    {"db_scan32_zipf_10", "10 %", 0, MILLION, 1, run_zipf, scan_keys, 10},
    {"db_scan32_zipf_30", "30 %", 0, MILLION, 1, run_zipf, scan_keys, 30},
    {"db_scan32_uniform_30", "all keys alike, 30 %", 0, MILLION, 1, run_uniform, scan_keys, 30},
    {NULL, NULL, 0, 0, 0, NULL, NULL, 0}};
