/* bench_engine_rocksdb.c - RocksDB's C API behind the benchmark's table of functions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Everything that has no flag here stays at RocksDB's default: leveled compaction, blocks verified
 * as they are read from the file, indexes and filters outside of the block cache. Gets are pinned,
 * so nothing is copied that does not have to be.
 */
#ifdef HAVE_ROCKSDB

#include <inttypes.h>
#include <rocksdb/c.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/bench_engine.h"

enum { MEMTABLES = 2, GET_MANY_MAX = 1024 };

struct rocks_db {
    rocksdb_t *db;
    rocksdb_column_family_handle_t *family; /* the default one */
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write, *write_sync;
    bool durable, no_log;
};

struct rocks_many {
    const char *keys[GET_MANY_MAX];
    size_t sizes[GET_MANY_MAX];
    rocksdb_pinnableslice_t *values[GET_MANY_MAX];
    char *errs[GET_MANY_MAX];
};

struct rocks_session {
    struct bench_session head;
    struct rocks_db *db;
    rocksdb_writebatch_t *batch;
    rocksdb_pinnableslice_t *value; /* of the last get */
    struct rocks_many *many;        /* made at first use */
};

/* Takes over an error text of RocksDB. */
static int from_error(char *err)
{
    if (err == NULL) {
        return BENCH_OK;
    }
    int rc = bench_engine_fail("%s", err);
    rocksdb_free(err);
    return rc;
}

static const char *rocks_version(void)
{
    return ROCKSDB_VERSION; /* of the headers; the C interface does not say it at run time */
}

/* ---- opening --------------------------------------------------------------------------------- */

static void set_table_options(rocksdb_options_t *options, const struct bench_open *how)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_cache_t *cache = rocksdb_cache_create_lru((size_t)how->cache_size);
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_cache_destroy(cache); /* the options hold it too */
    rocksdb_block_based_options_set_block_size(table, how->block_size);
    if (how->bloom_bits != 0) {
        rocksdb_block_based_options_set_filter_policy(
            table, rocksdb_filterpolicy_create_bloom_full((double)how->bloom_bits));
    }
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
}

static void set_options(struct rocks_db *d, const struct bench_open *how)
{
    d->options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(d->options, !how->must_exist);
    rocksdb_options_set_write_buffer_size(d->options, (size_t)how->write_buffer_size);
    rocksdb_options_set_max_write_buffer_number(d->options, MEMTABLES);
    rocksdb_options_set_compression(d->options, how->compress ? rocksdb_lz4_compression
                                                              : rocksdb_no_compression);
    rocksdb_options_set_allow_mmap_reads(d->options, how->mmap_read);
    if (how->max_open_files != 0) {
        rocksdb_options_set_max_open_files(d->options, (int)how->max_open_files);
    }
    if (how->threads != 0) {
        rocksdb_options_set_max_background_jobs(d->options, (int)how->threads);
    }
    set_table_options(d->options, how);
    d->read = rocksdb_readoptions_create();
    d->write = rocksdb_writeoptions_create();
    d->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(d->write, how->no_log);
    rocksdb_writeoptions_set_sync(d->write_sync, 1);
    d->durable = how->durable;
    d->no_log = how->no_log;
}

static int rocks_close(void *db)
{
    struct rocks_db *d = db;
    if (d->db != NULL) {
        rocksdb_column_family_handle_destroy(d->family);
        rocksdb_close(d->db);
    }
    rocksdb_writeoptions_destroy(d->write_sync);
    rocksdb_writeoptions_destroy(d->write);
    rocksdb_readoptions_destroy(d->read);
    rocksdb_options_destroy(d->options);
    free(d);
    return BENCH_OK;
}

static int rocks_open(const struct bench_open *how, void **db)
{
    static const char *const names[] = {"default"};
    struct rocks_db *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return bench_engine_fail("out of memory");
    }
    set_options(d, how);
    const rocksdb_options_t *options[] = {d->options};
    char *err = NULL;
    d->db = how->readonly ? rocksdb_open_for_read_only_column_families(
                                d->options, how->dir, 1, names, options, &d->family, 0, &err)
                          : rocksdb_open_column_families(d->options, how->dir, 1, names, options,
                                                         &d->family, &err);
    if (err != NULL) {
        d->db = NULL;
        rocks_close(d);
        return from_error(err);
    }
    *db = d;
    return BENCH_OK;
}

static int rocks_destroy(const char *dir)
{
    char *err = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_destroy_db(options, dir, &err);
    rocksdb_options_destroy(options);
    return from_error(err);
}

static int rocks_session_open(void *db, struct bench_session **out)
{
    struct rocks_session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return bench_engine_fail("out of memory");
    }
    s->db = db;
    s->batch = rocksdb_writebatch_create();
    *out = &s->head;
    return BENCH_OK;
}

static void rocks_session_close(struct bench_session *head)
{
    struct rocks_session *s = (struct rocks_session *)head;
    rocksdb_writebatch_destroy(s->batch);
    if (s->value != NULL) {
        rocksdb_pinnableslice_destroy(s->value);
    }
    free(s->many);
    free(s);
}

/* ---- reading and writing --------------------------------------------------------------------- */

static const rocksdb_writeoptions_t *write_options(const struct rocks_session *s)
{
    return s->head.sync || s->db->durable ? s->db->write_sync : s->db->write;
}

static int rocks_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    struct rocks_session *s = (struct rocks_session *)head;
    char *err = NULL;
    rocksdb_put(s->db->db, write_options(s), key.data, key.size, value.data, value.size, &err);
    return from_error(err);
}

static int rocks_erase(struct bench_session *head, loam_slice key)
{
    struct rocks_session *s = (struct rocks_session *)head;
    char *err = NULL;
    rocksdb_delete(s->db->db, write_options(s), key.data, key.size, &err);
    return from_error(err);
}

static int rocks_get(struct bench_session *head, loam_slice key, loam_slice *value)
{
    struct rocks_session *s = (struct rocks_session *)head;
    char *err = NULL;
    if (s->value != NULL) {
        rocksdb_pinnableslice_destroy(s->value);
    }
    s->value = rocksdb_get_pinned(s->db->db, s->db->read, key.data, key.size, &err);
    if (err != NULL || s->value == NULL) {
        return err != NULL ? from_error(err) : BENCH_NOTFOUND;
    }
    value->data = rocksdb_pinnableslice_value(s->value, &value->size);
    return BENCH_OK;
}

static int take_many(struct rocks_many *m, size_t n, size_t *found, uint64_t *bytes)
{
    int rc = BENCH_OK;
    for (size_t i = 0; i < n; i++) {
        if (m->errs[i] != NULL) {
            rc = from_error(m->errs[i]);
        } else if (m->values[i] != NULL) {
            size_t size;
            rocksdb_pinnableslice_value(m->values[i], &size);
            rocksdb_pinnableslice_destroy(m->values[i]);
            (*found)++;
            *bytes += size;
        }
    }
    return rc;
}

static int rocks_get_many(struct bench_session *head, const loam_slice *keys, size_t n,
                          size_t *found, uint64_t *bytes)
{
    struct rocks_session *s = (struct rocks_session *)head;
    if (s->many == NULL && (s->many = malloc(sizeof(*s->many))) == NULL) {
        return bench_engine_fail("out of memory");
    }
    struct rocks_many *m = s->many;
    int rc = BENCH_OK;
    for (size_t at = 0; at < n && rc == BENCH_OK; at += GET_MANY_MAX) {
        size_t part = n - at < GET_MANY_MAX ? n - at : GET_MANY_MAX;
        for (size_t i = 0; i < part; i++) {
            m->keys[i] = keys[at + i].data;
            m->sizes[i] = keys[at + i].size;
        }
        rocksdb_batched_multi_get_cf(s->db->db, s->db->read, s->db->family, part, m->keys, m->sizes,
                                     m->values, m->errs, false);
        rc = take_many(m, part, found, bytes);
    }
    return rc;
}

static int rocks_batch_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    rocksdb_writebatch_put(((struct rocks_session *)head)->batch, key.data, key.size, value.data,
                           value.size);
    return BENCH_OK;
}

static int rocks_batch_erase(struct bench_session *head, loam_slice key)
{
    rocksdb_writebatch_delete(((struct rocks_session *)head)->batch, key.data, key.size);
    return BENCH_OK;
}

static int rocks_batch_commit(struct bench_session *head)
{
    struct rocks_session *s = (struct rocks_session *)head;
    char *err = NULL;
    rocksdb_write(s->db->db, write_options(s), s->batch, &err);
    rocksdb_writebatch_clear(s->batch);
    return from_error(err);
}

/* ---- iterators ------------------------------------------------------------------------------- */

static int rocks_iter_open(struct bench_session *head, void **it)
{
    struct rocks_session *s = (struct rocks_session *)head;
    *it = rocksdb_create_iterator(s->db->db, s->db->read);
    return BENCH_OK;
}

static void rocks_iter_close(void *it)
{
    rocksdb_iter_destroy(it);
}

static int where(void *it)
{
    if (rocksdb_iter_valid(it)) {
        return BENCH_OK;
    }
    char *err = NULL;
    rocksdb_iter_get_error(it, &err);
    return err != NULL ? from_error(err) : BENCH_NOTFOUND;
}

static int rocks_iter_first(void *it)
{
    rocksdb_iter_seek_to_first(it);
    return where(it);
}

static int rocks_iter_last(void *it)
{
    rocksdb_iter_seek_to_last(it);
    return where(it);
}

static int rocks_iter_seek(void *it, loam_slice key)
{
    rocksdb_iter_seek(it, key.data, key.size);
    return where(it);
}

static int rocks_iter_next(void *it)
{
    rocksdb_iter_next(it);
    return where(it);
}

static int rocks_iter_prev(void *it)
{
    rocksdb_iter_prev(it);
    return where(it);
}

static void rocks_iter_entry(void *it, loam_slice *key, loam_slice *value)
{
    key->data = rocksdb_iter_key(it, &key->size);
    value->data = rocksdb_iter_value(it, &value->size);
}

/* ---- keeping house --------------------------------------------------------------------------- */

static int rocks_flush(void *db)
{
    char *err = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flush(((struct rocks_db *)db)->db, options, &err);
    rocksdb_flushoptions_destroy(options);
    return from_error(err);
}

static int rocks_compact(void *db)
{
    rocksdb_compact_range(((struct rocks_db *)db)->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

static bool is_busy(const struct rocks_db *d)
{
    static const char *const names[] = {
        "rocksdb.num-running-flushes", "rocksdb.mem-table-flush-pending",
        "rocksdb.num-running-compactions", "rocksdb.compaction-pending"};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        uint64_t value = 0;
        rocksdb_property_int(d->db, names[i], &value);
        sum += value;
    }
    return sum > 0;
}

/* Between a flush and the compaction that it causes nothing is pending for a moment, so it must
 * look idle for a fifth of a second. */
static int rocks_wait_idle(void *db)
{
    const struct timespec pause = {0, 10000000};
    for (int idle = 0; idle < 20;) {
        idle = is_busy(db) ? 0 : idle + 1;
        nanosleep(&pause, NULL);
    }
    return BENCH_OK;
}

static int print_property(void *db, const char *name, FILE *out)
{
    char *text = rocksdb_property_value(((struct rocks_db *)db)->db, name);
    fprintf(out, "%s\n", text != NULL ? text : "");
    rocksdb_free(text);
    return BENCH_OK;
}

static int rocks_print_stats(void *db, FILE *out)
{
    return print_property(db, "rocksdb.stats", out);
}

static int rocks_print_levels(void *db, FILE *out)
{
    return print_property(db, "rocksdb.levelstats", out);
}

static int rocks_print_memory(void *db, FILE *out)
{
    static const struct {
        const char *name, *property;
    } rows[] = {{"memtables", "rocksdb.cur-size-all-mem-tables"},
                {"block cache", "rocksdb.block-cache-usage"},
                {"pinned", "rocksdb.block-cache-pinned-usage"},
                {"indexes", "rocksdb.estimate-table-readers-mem"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t bytes = 0;
        rocksdb_property_int(((struct rocks_db *)db)->db, rows[i].property, &bytes);
        fprintf(out, "%-12s %12.1f MB\n", rows[i].name, (double)bytes / 1048576);
    }
    return BENCH_OK;
}

/* "rocksdb.cfstats" says it in hundredths of a GiB: good for a run of gigabytes, and only then. */
static int rocks_counters(void *db, struct bench_counters *c)
{
    static const char before[] = "Cumulative compaction: ";
    char *text = rocksdb_property_value(((struct rocks_db *)db)->db, "rocksdb.cfstats");
    const char *at = text != NULL ? strstr(text, before) : NULL;
    double gib = at != NULL ? strtod(at + sizeof(before) - 1, NULL) : 0; /* flushes are in it */
    rocksdb_free(text);
    c->bytes_written = (uint64_t)(gib * 1073741824);
    c->log_included = ((struct rocks_db *)db)->no_log; /* there is none to add */
    return at != NULL ? BENCH_OK : bench_engine_fail("RocksDB does not say what it wrote");
}

const struct bench_engine bench_engine_rocksdb = {
    .name = "rocksdb",
    .note = "two memtables, batched multi-get; all else at its defaults",
    .version = rocks_version,
    .has_checksums = true,
    .open = rocks_open,
    .close = rocks_close,
    .destroy = rocks_destroy,
    .session_open = rocks_session_open,
    .session_close = rocks_session_close,
    .put = rocks_put,
    .erase = rocks_erase,
    .get = rocks_get,
    .get_many = rocks_get_many,
    .batch_put = rocks_batch_put,
    .batch_erase = rocks_batch_erase,
    .batch_commit = rocks_batch_commit,
    .iter_open = rocks_iter_open,
    .iter_close = rocks_iter_close,
    .iter_first = rocks_iter_first,
    .iter_last = rocks_iter_last,
    .iter_seek = rocks_iter_seek,
    .iter_next = rocks_iter_next,
    .iter_prev = rocks_iter_prev,
    .iter_entry = rocks_iter_entry,
    .flush = rocks_flush,
    .compact = rocks_compact,
    .wait_idle = rocks_wait_idle,
    .print_stats = rocks_print_stats,
    .print_levels = rocks_print_levels,
    .print_memory = rocks_print_memory,
    .counters = rocks_counters,
};

#else

typedef int bench_engine_rocksdb_is_not_built;

#endif
