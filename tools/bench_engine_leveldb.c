/* bench_engine_leveldb.c - LevelDB's C API behind the benchmark's table of functions.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifdef HAVE_LEVELDB

#include <leveldb/c.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_engine.h"

struct level_db {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter; /* NULL: none */
    leveldb_readoptions_t *read;
    leveldb_writeoptions_t *write, *write_sync;
    bool durable;
};

struct level_session {
    struct bench_session head;
    struct level_db *db;
    leveldb_writebatch_t *batch;
    char *value; /* of the last get; LevelDB's memory */
};

/* Takes over an error text of LevelDB. */
static int from_error(char *err)
{
    if (err == NULL) {
        return BENCH_OK;
    }
    int rc = bench_engine_fail("%s", err);
    leveldb_free(err);
    return rc;
}

static const char *level_version(void)
{
    static char text[32];
    snprintf(text, sizeof(text), "%d.%d", leveldb_major_version(), leveldb_minor_version());
    return text;
}

static void set_options(struct level_db *d, const struct bench_open *how)
{
    d->options = leveldb_options_create();
    d->cache = leveldb_cache_create_lru((size_t)how->cache_size);
    leveldb_options_set_cache(d->options, d->cache);
    leveldb_options_set_create_if_missing(d->options, !how->must_exist);
    leveldb_options_set_write_buffer_size(d->options, (size_t)how->write_buffer_size);
    leveldb_options_set_block_size(d->options, how->block_size);
    leveldb_options_set_paranoid_checks(d->options, how->paranoid);
    leveldb_options_set_compression(d->options, how->compress ? leveldb_snappy_compression
                                                              : leveldb_no_compression);
    if (how->max_open_files != 0) {
        leveldb_options_set_max_open_files(d->options, (int)how->max_open_files);
    }
    if (how->bloom_bits != 0) {
        d->filter = leveldb_filterpolicy_create_bloom((int)how->bloom_bits);
        leveldb_options_set_filter_policy(d->options, d->filter);
    }
    d->read = leveldb_readoptions_create();
    leveldb_readoptions_set_verify_checksums(d->read, how->paranoid);
    d->write = leveldb_writeoptions_create();
    d->write_sync = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(d->write_sync, 1);
    d->durable = how->durable;
}

static int level_close(void *db)
{
    struct level_db *d = db;
    if (d->db != NULL) {
        leveldb_close(d->db);
    }
    leveldb_writeoptions_destroy(d->write_sync);
    leveldb_writeoptions_destroy(d->write);
    leveldb_readoptions_destroy(d->read);
    leveldb_options_destroy(d->options);
    leveldb_cache_destroy(d->cache);
    if (d->filter != NULL) {
        leveldb_filterpolicy_destroy(d->filter);
    }
    free(d);
    return BENCH_OK;
}

static int level_open(const struct bench_open *how, void **db)
{
    struct level_db *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return bench_engine_fail("out of memory");
    }
    set_options(d, how);
    char *err = NULL;
    d->db = leveldb_open(d->options, how->dir, &err);
    if (err != NULL) {
        level_close(d);
        return from_error(err);
    }
    *db = d;
    return BENCH_OK;
}

static int level_destroy(const char *dir)
{
    char *err = NULL;
    leveldb_options_t *options = leveldb_options_create();
    leveldb_destroy_db(options, dir, &err);
    leveldb_options_destroy(options);
    return from_error(err);
}

static int level_session_open(void *db, struct bench_session **out)
{
    struct level_session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return bench_engine_fail("out of memory");
    }
    s->db = db;
    s->batch = leveldb_writebatch_create();
    *out = &s->head;
    return BENCH_OK;
}

static void level_session_close(struct bench_session *head)
{
    struct level_session *s = (struct level_session *)head;
    leveldb_writebatch_destroy(s->batch);
    leveldb_free(s->value);
    free(s);
}

static const leveldb_writeoptions_t *write_options(const struct level_session *s)
{
    return s->head.sync || s->db->durable ? s->db->write_sync : s->db->write;
}

static int level_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    struct level_session *s = (struct level_session *)head;
    char *err = NULL;
    leveldb_put(s->db->db, write_options(s), key.data, key.size, value.data, value.size, &err);
    return from_error(err);
}

static int level_erase(struct bench_session *head, loam_slice key)
{
    struct level_session *s = (struct level_session *)head;
    char *err = NULL;
    leveldb_delete(s->db->db, write_options(s), key.data, key.size, &err);
    return from_error(err);
}

static int level_get(struct bench_session *head, loam_slice key, loam_slice *value)
{
    struct level_session *s = (struct level_session *)head;
    char *err = NULL;
    leveldb_free(s->value);
    size_t size = 0;
    s->value = leveldb_get(s->db->db, s->db->read, key.data, key.size, &size, &err);
    if (err != NULL) {
        return from_error(err);
    }
    *value = loam_bytes(s->value, size);
    return s->value != NULL ? BENCH_OK : BENCH_NOTFOUND;
}

static int level_batch_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    leveldb_writebatch_put(((struct level_session *)head)->batch, key.data, key.size, value.data,
                           value.size);
    return BENCH_OK;
}

static int level_batch_erase(struct bench_session *head, loam_slice key)
{
    leveldb_writebatch_delete(((struct level_session *)head)->batch, key.data, key.size);
    return BENCH_OK;
}

static int level_batch_commit(struct bench_session *head)
{
    struct level_session *s = (struct level_session *)head;
    char *err = NULL;
    leveldb_write(s->db->db, write_options(s), s->batch, &err);
    leveldb_writebatch_clear(s->batch);
    return from_error(err);
}

/* ---- iterators ------------------------------------------------------------------------------- */

static int level_iter_open(struct bench_session *head, void **it)
{
    struct level_session *s = (struct level_session *)head;
    *it = leveldb_create_iterator(s->db->db, s->db->read);
    return BENCH_OK;
}

static void level_iter_close(void *it)
{
    leveldb_iter_destroy(it);
}

static int where(void *it)
{
    if (leveldb_iter_valid(it)) {
        return BENCH_OK;
    }
    char *err = NULL;
    leveldb_iter_get_error(it, &err);
    return err != NULL ? from_error(err) : BENCH_NOTFOUND;
}

static int level_iter_first(void *it)
{
    leveldb_iter_seek_to_first(it);
    return where(it);
}

static int level_iter_last(void *it)
{
    leveldb_iter_seek_to_last(it);
    return where(it);
}

static int level_iter_seek(void *it, loam_slice key)
{
    leveldb_iter_seek(it, key.data, key.size);
    return where(it);
}

static int level_iter_next(void *it)
{
    leveldb_iter_next(it);
    return where(it);
}

static int level_iter_prev(void *it)
{
    leveldb_iter_prev(it);
    return where(it);
}

static void level_iter_entry(void *it, loam_slice *key, loam_slice *value)
{
    key->data = leveldb_iter_key(it, &key->size);
    value->data = leveldb_iter_value(it, &value->size);
}

/* ---- keeping house --------------------------------------------------------------------------- */

static int level_compact(void *db)
{
    leveldb_compact_range(((struct level_db *)db)->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

static int level_print_stats(void *db, FILE *out)
{
    char *text = leveldb_property_value(((struct level_db *)db)->db, "leveldb.stats");
    fprintf(out, "%s\n", text != NULL ? text : "");
    leveldb_free(text);
    return BENCH_OK;
}

/* Adds up the column Write(MB) of the property "leveldb.stats". */
static int level_counters(void *db, struct bench_counters *c)
{
    char *text = leveldb_property_value(((struct level_db *)db)->db, "leveldb.stats");
    double total = 0;
    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        double level, files, size, seconds, read, written;
        if (sscanf(line, "%lf %lf %lf %lf %lf %lf", &level, &files, &size, &seconds, &read,
                   &written) == 6) {
            total += written;
        }
    }
    leveldb_free(text);
    c->bytes_written = (uint64_t)(total * 1048576);
    c->log_included = false;
    return BENCH_OK;
}

const struct bench_engine bench_engine_leveldb = {
    .name = "leveldb",
    .note = "two memtables, one background thread, as it always has",
    .version = level_version,
    .has_checksums = true,
    .open = level_open,
    .close = level_close,
    .destroy = level_destroy,
    .session_open = level_session_open,
    .session_close = level_session_close,
    .put = level_put,
    .erase = level_erase,
    .get = level_get,
    .batch_put = level_batch_put,
    .batch_erase = level_batch_erase,
    .batch_commit = level_batch_commit,
    .iter_open = level_iter_open,
    .iter_close = level_iter_close,
    .iter_first = level_iter_first,
    .iter_last = level_iter_last,
    .iter_seek = level_iter_seek,
    .iter_next = level_iter_next,
    .iter_prev = level_iter_prev,
    .iter_entry = level_iter_entry,
    .compact = level_compact,
    .print_stats = level_print_stats,
    .print_levels = level_print_stats,
    .counters = level_counters,
};

#else

typedef int bench_engine_leveldb_is_not_built;

#endif
