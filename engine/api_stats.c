/* api_stats.c - Public calls for numbers: statistics, histograms, properties.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena/status.h"
#include "engine/call.h"
#include "engine/flush.h"
#include "engine/loam.h"

#include "arena/poison.h"

/* Sums over the tables of one keyspace, or of all. */
struct table_sums {
    uint64_t files, bytes, entries, deletes;
    uint64_t level_files[LEVEL_COUNT], level_bytes[LEVEL_COUNT];
    uint64_t deepest; /* bytes of the last level that holds anything */
    uint64_t levels;  /* in use */
};

static void sum_ks(const struct ks_version *k, struct table_sums *s)
{
    for (int n = 0; n < LEVEL_COUNT; n++) {
        const struct level *l = &k->level[n];
        s->files += l->count;
        s->bytes += l->bytes;
        s->entries += l->entries;
        s->deletes += l->deletes;
        s->level_files[n] += l->count;
        s->level_bytes[n] += l->bytes;
        if (l->count != 0) {
            s->deepest = l->bytes;
            s->levels = s->levels > (uint64_t)n + 1 ? s->levels : (uint64_t)n + 1;
        }
    }
}

static void sum_tables(const struct version *v, bool one, uint32_t ks, struct table_sums *s)
{
    memset(s, 0, sizeof *s);
    for (uint32_t i = 0; i < v->ks_count; i++) {
        if (!one || v->ks[i]->ks == ks) {
            uint64_t deepest = s->deepest;
            sum_ks(v->ks[i], s);
            s->deepest = deepest + s->deepest;
        }
    }
}

static void fill_counters(struct db *db, loam_stats *o)
{
    const struct stats *s = &db->stats;
    o->puts = stats_sum(s, STAT_PUTS);
    o->deletes = stats_sum(s, STAT_DELETES);
    o->gets = stats_sum(s, STAT_GETS);
    o->seeks = stats_sum(s, STAT_SEEKS);
    o->nexts = stats_sum(s, STAT_NEXTS);
    o->bytes_put = stats_sum(s, STAT_BYTES_PUT);
    o->bytes_got = stats_sum(s, STAT_BYTES_GOT);
    o->cache_hits = stats_sum(s, STAT_CACHE_HITS);
    o->cache_misses = stats_sum(s, STAT_CACHE_MISSES);
    o->filter_useful = stats_sum(s, STAT_FILTER_USEFUL);
    o->filter_false = stats_sum(s, STAT_FILTER_FALSE);
    o->tombstones_skipped = stats_sum(s, STAT_TOMBSTONES_SKIPPED);
    o->flushes = stats_sum(s, STAT_FLUSHES);
    o->compactions = stats_sum(s, STAT_COMPACTIONS);
    o->table_moves = stats_sum(s, STAT_TABLE_MOVES);
    o->bytes_logged = stats_sum(s, STAT_BYTES_LOGGED);
    o->bytes_flushed = stats_sum(s, STAT_BYTES_FLUSHED);
    o->bytes_compacted_in = stats_sum(s, STAT_BYTES_COMPACTED_IN);
    o->bytes_compacted_out = stats_sum(s, STAT_BYTES_COMPACTED_OUT);
    o->syncs = stats_sum(s, STAT_SYNCS);
    o->group_commits = stats_sum(s, STAT_GROUP_COMMITS);
    o->throttled_writes = stats_sum(s, STAT_THROTTLED_WRITES);
    o->throttled_us = stats_sum(s, STAT_THROTTLED_US);
    o->busy_writes = stats_sum(s, STAT_BUSY_WRITES);
    o->errors = stats_sum(s, STAT_ERRORS);
    o->resumes = stats_sum(s, STAT_RESUMES);
}

static void fill_state(struct db *db, bool one, uint32_t ks, loam_stats *o)
{
    struct table_sums sums;
    const struct view *v = db_view(db);
    sum_tables(v->version, one, ks, &sums);
    o->files = sums.files;
    o->disk_bytes = sums.bytes;
    o->live_bytes = sums.deepest < sums.bytes ? sums.deepest : sums.bytes;
    o->keys_estimate = sums.entries - (2 * sums.deletes < sums.entries ? 2 * sums.deletes
                                                                      : sums.entries);
    o->memory_budget = db->options.limits.budget;
    o->memory_used = alloc_used(&db->alloc);
    o->memory_peak = alloc_peak(&db->alloc);
    for (uint32_t i = 0; i < v->mem_count; i++) {
        o->memtable_bytes += memtable_bytes(v->mems[i]);
        o->keys_estimate += one ? 0 : memtable_count(v->mems[i]);
    }
    struct cache_metrics cache;
    block_cache_metrics(&db->cache, &cache);
    o->cache_bytes = cache.bytes_used;
    o->pinned_bytes = alloc_used_by(&db->alloc, MEM_ITER);
    o->index_bytes = one ? table_cache_bytes_of(&db->tables, ks) : table_cache_bytes(&db->tables);
    o->iterators = iter_pool_open(&db->iters);
    uint64_t held = snapshot_count(&db->snapshots); /* an iterator holds a number, too */
    o->snapshots = held > o->iterators ? held - o->iterators : 0;
    o->last_seq = commit_visible(&db->commit) - 1;
    if (db->readonly) {
        o->durable_seq = o->last_seq;
        return;
    }
    o->durable_seq = wal_durable(&db->wal) - 1;
    o->disk_reserve = disk_reserve_bytes(&db->reserve);
    o->wal_bytes = wal_live_bytes(&db->wal);
    mutex_lock(&db->mu);
    o->debt_bytes = db->debt;
    mutex_unlock(&db->mu);
}

static int stats_of(struct call *c, loam_ks *ks, loam_stats *o)
{
    struct keyspace *space;
    int rc = call_keyspace(c, ks, &space);
    if (rc < 0) {
        return rc;
    }
    memset(o, 0, sizeof *o);
    o->struct_size = sizeof *o;
    fill_counters(c->db, o);
    fill_state(c->db, ks != NULL, space->id, o);
    return LOAM_OK;
}

int loam_get_stats(loam_db *handle, loam_ks *ks, loam_stats *out)
{
    if (out == NULL || out->struct_size < sizeof(size_t) + sizeof(uint64_t) ||
        out->struct_size > 65536) {
        return FAIL(LOAM_E_INVAL, "loam_get_stats: out is NULL, or stats.struct_size is not set");
    }
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    loam_stats all;
    rc = stats_of(&c, ks, &all);
    if (rc == LOAM_OK) {
        size_t size = out->struct_size;
        memset(out, 0, size);
        memcpy(out, &all, size < sizeof all ? size : sizeof all);
        out->struct_size = size;
    }
    call_end(&c);
    return rc;
}

int loam_get_hist(loam_db *handle, int which, loam_hist *out)
{
    if (out == NULL || which < 0 || which >= LOAM_HIST_COUNT) {
        return FAIL(LOAM_E_INVAL, "loam_get_hist: out is NULL, or there is no histogram %d", which);
    }
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc == LOAM_OK) {
        stats_hist_get(&c.db->stats, which, out);
        call_end(&c);
    }
    return rc;
}

/* ---- by name ----------------------------------------------------------------------------------- */

struct named {
    const char *name;
    size_t offset;
};

#define NAMED(field) {#field, offsetof(loam_stats, field)},
static const struct named fields[] = {LOAM_STATS_MAP(NAMED)};
#undef NAMED
#define FIELD_COUNT (sizeof fields / sizeof *fields)

static uint64_t field_value(const loam_stats *s, size_t i)
{
    uint64_t v;
    memcpy(&v, (const char *)s + fields[i].offset, sizeof v);
    return v;
}

/* "level.N.files" and "level.N.bytes". */
static bool level_property(const struct table_sums *s, const char *name, uint64_t *value)
{
    if (strncmp(name, "level.", 6) != 0 || name[6] < '0' || name[6] >= '0' + LEVEL_COUNT) {
        return false;
    }
    int n = name[6] - '0';
    if (strcmp(name + 7, ".files") == 0) {
        *value = s->level_files[n];
        return true;
    }
    if (strcmp(name + 7, ".bytes") == 0) {
        *value = s->level_bytes[n];
        return true;
    }
    return false;
}

static bool state_property(struct db *db, const char *name, uint64_t *value)
{
    bool known = true;
    mutex_lock(&db->mu);
    uint32_t mems = memtable_list_count(&db->memtables);
    if (strcmp(name, "memtables") == 0) {
        *value = mems;
    } else if (strcmp(name, "sealed_memtables") == 0) {
        *value = mems != 0 ? mems - 1 : 0;
    } else if (strcmp(name, "pending_flushes") == 0) {
        *value = flush_due_locked(db);
    } else if (strcmp(name, "running_compactions") == 0) {
        *value = db->compacting;
    } else {
        known = false;
    }
    mutex_unlock(&db->mu);
    return known;
}

int loam_property(loam_db *handle, loam_ks *ks, const char *name, uint64_t *value)
{
    if (name == NULL || value == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_property: name or value is NULL");
    }
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    loam_stats all;
    rc = stats_of(&c, ks, &all);
    struct keyspace *space;
    if (rc == LOAM_OK) {
        rc = call_keyspace(&c, ks, &space);
    }
    if (rc == LOAM_OK) {
        struct table_sums sums;
        sum_tables(db_view(c.db)->version, ks != NULL, space->id, &sums);
        size_t i = 0;
        while (i < FIELD_COUNT && strcmp(fields[i].name, name) != 0) {
            i++;
        }
        if (i < FIELD_COUNT) {
            *value = field_value(&all, i);
        } else if (strcmp(name, "levels") == 0) {
            *value = sums.levels;
        } else if (!level_property(&sums, name, value) && !state_property(c.db, name, value)) {
            rc = FAIL(LOAM_E_NOENT, "there is no property \"%.64s\"", name);
        }
    }
    call_end(&c);
    return rc;
}

/* ---- as text ----------------------------------------------------------------------------------- */

/* snprintf that goes on counting beyond the end. */
struct text {
    char *buf;
    size_t cap, size;
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t left = t->size < t->cap ? t->cap - t->size : 0;
    int n = vsnprintf(left != 0 ? t->buf + t->size : NULL, left, fmt, ap);
    va_end(ap);
    t->size += n > 0 ? (size_t)n : 0;
}

static const char *const hist_names[LOAM_HIST_COUNT] = {"put",  "write", "get",    "seek",
                                                        "sync", "flush", "compact"};

static void put_text(struct text *t, struct db *db, const loam_stats *s, const struct table_sums *l)
{
    put(t, "level     files          bytes\n");
    for (int n = 0; n < LEVEL_COUNT; n++) {
        put(t, "%5d %9llu %14llu\n", n, (unsigned long long)l->level_files[n],
            (unsigned long long)l->level_bytes[n]);
    }
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        put(t, "%-22s %llu\n", fields[i].name, (unsigned long long)field_value(s, i));
    }
    for (int i = 0; i < LOAM_HIST_COUNT; i++) {
        loam_hist h;
        stats_hist_get(&db->stats, i, &h);
        if (h.count != 0) {
            put(t, "%-8s n %llu  p50 %llu  p99 %llu  p99.9 %llu  max %llu ns\n", hist_names[i],
                (unsigned long long)h.count, (unsigned long long)h.p50_ns,
                (unsigned long long)h.p99_ns, (unsigned long long)h.p999_ns,
                (unsigned long long)h.max_ns);
        }
    }
}

static void put_json(struct text *t, struct db *db, const loam_stats *s, const struct table_sums *l)
{
    put(t, "{");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        put(t, "\"%s\":%llu,", fields[i].name, (unsigned long long)field_value(s, i));
    }
    put(t, "\"levels\":[");
    for (int n = 0; n < LEVEL_COUNT; n++) {
        put(t, "%s{\"files\":%llu,\"bytes\":%llu}", n != 0 ? "," : "",
            (unsigned long long)l->level_files[n], (unsigned long long)l->level_bytes[n]);
    }
    put(t, "],\"latency_ns\":{");
    for (int i = 0; i < LOAM_HIST_COUNT; i++) {
        loam_hist h;
        stats_hist_get(&db->stats, i, &h);
        put(t, "%s\"%s\":{\"count\":%llu,\"p50\":%llu,\"p99\":%llu,\"p999\":%llu,\"max\":%llu}",
            i != 0 ? "," : "", hist_names[i], (unsigned long long)h.count,
            (unsigned long long)h.p50_ns, (unsigned long long)h.p99_ns,
            (unsigned long long)h.p999_ns, (unsigned long long)h.max_ns);
    }
    put(t, "}}");
}

int loam_format_stats(loam_db *handle, int format, char *buf, size_t cap, size_t *need)
{
    if ((format != LOAM_TEXT && format != LOAM_JSON) || (buf == NULL && cap != 0)) {
        return FAIL(LOAM_E_INVAL, "loam_format_stats: format is %d, or buf is NULL", format);
    }
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    loam_stats s;
    rc = stats_of(&c, NULL, &s);
    struct text t = {buf, cap, 0};
    if (rc == LOAM_OK) {
        struct table_sums sums;
        sum_tables(db_view(c.db)->version, false, 0, &sums);
        (format == LOAM_TEXT ? put_text : put_json)(&t, c.db, &s, &sums);
        if (need != NULL) {
            *need = t.size;
        }
        rc = t.size >= cap ? LOAM_TRUNCATED : LOAM_OK;
    }
    call_end(&c);
    return rc;
}
