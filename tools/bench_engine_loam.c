/* bench_engine_loam.c - loam behind the benchmark's table of functions.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_engine.h"

enum { LOAM_GET_MANY_MAX = 1024 };

struct loam_session {
    struct bench_session head;
    loam_db *db;
    loam_batch *batch;
    char *buf; /* values are copied here */
    size_t cap;
    loam_pin *pins; /* LOAM_GET_MANY_MAX each, made at first use */
    int *rcs;
};

/* BENCH_* of a result of loam. */
static int from_rc(int rc)
{
    if (rc == LOAM_OK || rc == LOAM_NOTFOUND) {
        return rc;
    }
    if (rc > 0) {
        return bench_engine_fail("%s", loam_strerror(rc));
    }
    return bench_engine_fail("%s: %s", loam_strerror(rc), loam_last_error()->message);
}

static const char *loam_version_text(void)
{
    return loam_build_info();
}

static int loam_bench_open(const struct bench_open *how, void **db)
{
    loam_ks_options ks = {.struct_size = sizeof(ks),
                          .compression = how->compress ? LOAM_COMPRESS_LZ4 : LOAM_COMPRESS_NONE,
                          .filter_bits = how->bloom_bits == 0 ? UINT32_MAX : how->bloom_bits,
                          .block_bytes = how->block_size};
    loam_options o = {.struct_size = sizeof(o),
                      .threads = how->threads,
                      .memory_budget = how->memory_budget,
                      .max_open_files = how->max_open_files,
                      .disk_budget = how->disk_budget,
                      .disk_reserve = how->disk_reserve,
                      .vfs = how->mmap_read ? loam_vfs_os_mapped() : loam_vfs_os(),
                      .default_ks = &ks};
    o.flags = (how->readonly ? LOAM_OPEN_READONLY : 0u) |
              (how->must_exist ? LOAM_OPEN_MUST_EXIST : 0u) |
              (how->paranoid ? LOAM_OPEN_PARANOID : 0u);
    o.durability = how->no_log ? LOAM_DUR_MEMORY : how->durable ? LOAM_DUR_POWER : LOAM_DUR_PROCESS;
    loam_db *handle;
    int rc = loam_open(how->dir, &o, &handle);
    *db = rc == LOAM_OK ? handle : NULL;
    return from_rc(rc);
}

static int loam_bench_close(void *db)
{
    return from_rc(loam_close(db));
}

static int loam_bench_destroy(const char *dir)
{
    int rc = loam_destroy(dir, NULL);
    return rc == LOAM_E_NOENT ? BENCH_OK : from_rc(rc);
}

static int loam_session_open(void *db, struct bench_session **out)
{
    struct loam_session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return bench_engine_fail("out of memory");
    }
    s->db = db;
    s->cap = 4096;
    s->buf = malloc(s->cap);
    s->batch = loam_batch_new(0);
    if (s->buf == NULL || s->batch == NULL) {
        free(s->buf);
        loam_batch_free(s->batch);
        free(s);
        return bench_engine_fail("out of memory");
    }
    *out = &s->head;
    return BENCH_OK;
}

static void loam_session_close(struct bench_session *head)
{
    struct loam_session *s = (struct loam_session *)head;
    loam_batch_free(s->batch);
    free(s->buf);
    free(s->pins);
    free(s->rcs);
    free(s);
}

static const loam_write_opts durable = {.struct_size = sizeof(durable), .flags = LOAM_W_DURABLE};

static int loam_bench_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    struct loam_session *s = (struct loam_session *)head;
    return from_rc(loam_put(s->db, NULL, key, value, head->sync ? &durable : NULL));
}

static int loam_bench_erase(struct bench_session *head, loam_slice key)
{
    struct loam_session *s = (struct loam_session *)head;
    return from_rc(loam_delete(s->db, NULL, key, head->sync ? &durable : NULL));
}

static int loam_bench_get(struct bench_session *head, loam_slice key, loam_slice *value)
{
    struct loam_session *s = (struct loam_session *)head;
    size_t len;
    int rc;
    while ((rc = loam_get(s->db, NULL, key, s->buf, s->cap, &len, NULL)) == LOAM_TRUNCATED) {
        char *buf = realloc(s->buf, len);
        if (buf == NULL) {
            return bench_engine_fail("out of memory");
        }
        s->buf = buf;
        s->cap = len;
    }
    if (rc == LOAM_OK) {
        *value = loam_bytes(s->buf, len);
    }
    return from_rc(rc);
}

static int many_prepare(struct loam_session *s)
{
    s->pins = calloc(LOAM_GET_MANY_MAX, sizeof(*s->pins));
    s->rcs = calloc(LOAM_GET_MANY_MAX, sizeof(*s->rcs));
    return s->pins != NULL && s->rcs != NULL ? BENCH_OK : bench_engine_fail("out of memory");
}

static int loam_bench_get_many(struct bench_session *head, const loam_slice *keys, size_t n,
                               size_t *found, uint64_t *bytes)
{
    struct loam_session *s = (struct loam_session *)head;
    if (s->rcs == NULL && many_prepare(s) != BENCH_OK) {
        return BENCH_ERROR;
    }
    for (size_t at = 0; at < n; at += LOAM_GET_MANY_MAX) {
        size_t part = n - at < LOAM_GET_MANY_MAX ? n - at : LOAM_GET_MANY_MAX;
        int rc = loam_get_many(s->db, NULL, keys + at, part, s->pins, s->rcs, NULL);
        if (rc < 0) {
            return from_rc(rc);
        }
        for (size_t i = 0; i < part; i++) {
            if (s->rcs[i] == LOAM_OK) {
                (*found)++;
                *bytes += s->pins[i].value.size;
                loam_unpin(&s->pins[i]);
            }
        }
    }
    return BENCH_OK;
}

static int loam_bench_batch_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    return from_rc(loam_batch_put(((struct loam_session *)head)->batch, NULL, key, value));
}

static int loam_bench_batch_erase(struct bench_session *head, loam_slice key)
{
    return from_rc(loam_batch_delete(((struct loam_session *)head)->batch, NULL, key));
}

static int loam_bench_batch_commit(struct bench_session *head)
{
    struct loam_session *s = (struct loam_session *)head;
    int rc = loam_write(s->db, s->batch, head->sync ? &durable : NULL);
    loam_batch_clear(s->batch);
    return from_rc(rc);
}

/* ---- iterators ------------------------------------------------------------------------------- */

static int loam_bench_iter_open(struct bench_session *head, void **it)
{
    loam_iter *handle;
    int rc = loam_iter_open(((struct loam_session *)head)->db, NULL, NULL, &handle);
    *it = rc == LOAM_OK ? handle : NULL;
    return from_rc(rc);
}

static void loam_bench_iter_close(void *it)
{
    loam_iter_close(it);
}

static int loam_bench_iter_first(void *it)
{
    return from_rc(loam_iter_first(it));
}

static int loam_bench_iter_last(void *it)
{
    return from_rc(loam_iter_last(it));
}

static int loam_bench_iter_seek(void *it, loam_slice key)
{
    return from_rc(loam_iter_seek(it, key));
}

static int loam_bench_iter_next(void *it)
{
    return from_rc(loam_iter_next(it));
}

static int loam_bench_iter_prev(void *it)
{
    return from_rc(loam_iter_prev(it));
}

static void loam_bench_iter_entry(void *it, loam_slice *key, loam_slice *value)
{
    *key = loam_iter_key(it);
    *value = loam_iter_value(it);
}

/* ---- keeping house --------------------------------------------------------------------------- */

static int loam_bench_flush(void *db)
{
    return from_rc(loam_flush(db, NULL));
}

static int loam_bench_compact(void *db)
{
    return from_rc(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
}

static int loam_bench_wait_idle(void *db)
{
    return from_rc(loam_wait_idle(db, 0));
}

static int loam_bench_print_stats(void *db, FILE *out)
{
    size_t need = 0, cap = 16384;
    char *text = malloc(cap);
    int rc = text == NULL ? LOAM_E_NOMEM : loam_format_stats(db, LOAM_TEXT, text, cap, &need);
    if (rc == LOAM_TRUNCATED) {
        free(text);
        cap = need + 1;
        text = malloc(cap);
        rc = text == NULL ? LOAM_E_NOMEM : loam_format_stats(db, LOAM_TEXT, text, cap, &need);
    }
    if (rc >= 0) {
        fprintf(out, "%s\n", text);
    }
    free(text);
    return rc == LOAM_TRUNCATED ? BENCH_OK : from_rc(rc);
}

static uint64_t level_property(loam_db *db, uint64_t level, const char *what)
{
    char name[64];
    uint64_t value = 0;
    snprintf(name, sizeof(name), "level.%" PRIu64 ".%s", level, what);
    return loam_property(db, NULL, name, &value) == LOAM_OK ? value : 0;
}

static int loam_bench_print_levels(void *db, FILE *out)
{
    uint64_t levels = 0;
    int rc = loam_property(db, NULL, "levels", &levels);
    if (rc != LOAM_OK) {
        return from_rc(rc);
    }
    fprintf(out, "Level Files Size(MB)\n--------------------\n");
    for (uint64_t i = 0; i < levels; i++) {
        fprintf(out, "%3" PRIu64 " %8" PRIu64 " %8.0f\n", i, level_property(db, i, "files"),
                (double)level_property(db, i, "bytes") / 1048576);
    }
    fputc('\n', out);
    return BENCH_OK;
}

static int get_stats(loam_db *db, loam_stats *st)
{
    memset(st, 0, sizeof(*st));
    st->struct_size = sizeof(*st);
    return loam_get_stats(db, NULL, st);
}

static int loam_bench_print_memory(void *db, FILE *out)
{
    loam_stats st;
    int rc = get_stats(db, &st);
    if (rc != LOAM_OK) {
        return from_rc(rc);
    }
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"budget", st.memory_budget},    {"used", st.memory_used},
                {"peak", st.memory_peak},        {"memtables", st.memtable_bytes},
                {"block cache", st.cache_bytes}, {"pinned", st.pinned_bytes},
                {"indexes", st.index_bytes}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fprintf(out, "%-12s %12.1f MB\n", rows[i].name, (double)rows[i].bytes / 1048576);
    }
    return BENCH_OK;
}

static int loam_bench_counters(void *db, struct bench_counters *c)
{
    loam_stats st;
    int rc = get_stats(db, &st);
    if (rc == LOAM_OK) {
        c->bytes_written = st.bytes_logged + st.bytes_flushed + st.bytes_compacted_out;
        c->log_included = true;
    }
    return from_rc(rc);
}

static int loam_bench_cache_counters(void *db, struct bench_cache_counters *c)
{
    loam_stats st;
    int rc = get_stats(db, &st);
    if (rc == LOAM_OK) {
        *c = (struct bench_cache_counters){st.cache_hits, st.cache_misses, st.cache_bytes,
                                           st.live_bytes};
    }
    return from_rc(rc);
}

const struct bench_engine bench_engine_loam = {
    .name = "loam",
    .note = "one budget: two memtables and the cache; log not synced, as the peers'",
    .version = loam_version_text,
    .has_checksums = true,
    .open = loam_bench_open,
    .close = loam_bench_close,
    .destroy = loam_bench_destroy,
    .session_open = loam_session_open,
    .session_close = loam_session_close,
    .put = loam_bench_put,
    .erase = loam_bench_erase,
    .get = loam_bench_get,
    .get_many = loam_bench_get_many,
    .batch_put = loam_bench_batch_put,
    .batch_erase = loam_bench_batch_erase,
    .batch_commit = loam_bench_batch_commit,
    .iter_open = loam_bench_iter_open,
    .iter_close = loam_bench_iter_close,
    .iter_first = loam_bench_iter_first,
    .iter_last = loam_bench_iter_last,
    .iter_seek = loam_bench_iter_seek,
    .iter_next = loam_bench_iter_next,
    .iter_prev = loam_bench_iter_prev,
    .iter_entry = loam_bench_iter_entry,
    .flush = loam_bench_flush,
    .compact = loam_bench_compact,
    .wait_idle = loam_bench_wait_idle,
    .print_stats = loam_bench_print_stats,
    .print_levels = loam_bench_print_levels,
    .print_memory = loam_bench_print_memory,
    .counters = loam_bench_counters,
    .cache_counters = loam_bench_cache_counters,
};
