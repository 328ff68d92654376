/* bench_suite.c - What --suite names: groups of benchmarks with their sizes, run round by round.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_suite.h"

#include <stdlib.h>
#include <string.h>

#define MIB       INT64_C(1048576)
#define ALL       "loam,leveldb,rocksdb,lmdb"
#define ROWS(r)   .rows = r, .count = sizeof(r) / sizeof(r[0])
#define GROUPS(g) .groups = g, .count = sizeof(g) / sizeof(g[0])

/* clang-format off */

/* ---- quick: everything once, small enough to be rerun while working -------------------------- */

static const struct bench_suite_row quick_rows[] = {
    {"fillseq", .percent = 100},
    {"fillrandom", .percent = 100},
    {"overwrite", .percent = 100},
    {"readrandom", .percent = 50},
    {"readmissing", .percent = 50},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 4},
    {"readwhilewriting", .seconds = 1.5},
    {"ycsba", .percent = 20},
};
/* Memtables and cache are as small beside the data as in a database of gigabytes. */
static const struct bench_suite_group quick_groups[] = {
    {"Q", .num = 500000, .write_buffer_size = 16 * MIB, .cache_size = 32 * MIB, ROWS(quick_rows)},
};

/* ---- peers: more data than cache, all cached, larger values ---------------------------------- */

static const struct bench_suite_row more_rows[] = {
    {"fillseq", .percent = 100},
    {"fillbatch", .percent = 100, .batch = 100},
    {"fillrandom", "fillrandom t2", .threads = 2, .percent = 100},
    {"fillrandom", .percent = 100},
    {"overwrite", .percent = 100},
    {"readrandom", .percent = 20},
    {"readrandom", "readrandom t2", .threads = 2, .percent = 30},
    {"readmissing", .percent = 20},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 2},
    {"readwhilewriting", .seconds = 6},
    {"ycsba", .percent = 10},
    {"ycsbb", .percent = 10},
    {"ycsbc", .percent = 10},
    {"ycsbd", .percent = 10},
    {"ycsbe", .percent = 1},
    {"ycsbf", .percent = 10},
};
static const struct bench_suite_row small_rows[] = {
    {"fillsync", .ops = 3000},
    {"fillsync", "fillsync t4", .threads = 4, .ops = 8000},
    {"filluniquerandom", .percent = 100},
    {"readrandom", .percent = 100, .warm_ups = 1},
    {"readhot", .percent = 100},
    {"readmissing", .percent = 100},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 10},
};
static const struct bench_suite_row kib_rows[] = {
    {"fillrandom", .percent = 100},
    {"readrandom", .percent = 30},
    {"seekrandom", .percent = 3},
};
static const struct bench_suite_group peers_groups[] = {
    {"M", .num = 5000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(more_rows)},
    {"S", .num = 1000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB, ROWS(small_rows)},
    {"1K", .num = 1000000, .value_size = 1024, .write_buffer_size = 64 * MIB,
     .cache_size = 256 * MIB, ROWS(kib_rows)},
};

/* ---- stability: ten minutes of overwrite, readers beside two writers ------------------------- */

static const struct bench_suite_row stability_rows[] = {
    {"fillrandom", .percent = 100},
    {"overwrite", .seconds = 600},
    {"readwhilewriting", "read, 2 writers", .seconds = 60, .writers = 2},
};
static const struct bench_suite_group stability_groups[] = {
    {"M", .num = 5000000, .write_buffer_size = 64 * MIB, .cache_size = 256 * MIB,
     ROWS(stability_rows)},
};

/* ---- guard: loam alone, in units of a calibrated loop ---------------------------------------- */

static const struct bench_suite_row guard_rows[] = {
    {"fillseq", .percent = 100, .untimed = true},
    {"fillbatch", .percent = 100, .batch = 100, .untimed = true},
    {"fillrandom", .percent = 100, .untimed = true},
    {"overwrite", .percent = 100, .untimed = true},
    {"readrandom", .percent = 100, .warm_ups = 1, .untimed = true},
    {"readhot", .percent = 100, .untimed = true},
    {"readmissing", .percent = 100, .untimed = true},
    {"readseq", .percent = 100, .untimed = true},
    {"seekrandom", .percent = 10, .untimed = true},
    {"ycsba", .percent = 50, .untimed = true},
    {"ycsbe", .percent = 5, .untimed = true},
    {"deleterandom", .percent = 50, .untimed = true},
};
static const struct bench_suite_group guard_groups[] = {
    {"G", .num = 400000, .write_buffer_size = 16 * MIB, .cache_size = 128 * MIB, ROWS(guard_rows)},
};

/* ---- cache: shares of hits ------------------------------------------------------------------- */

static const struct bench_suite_row cache_rows[] = {
    {"filluniquerandom", .percent = 100, .untimed = true},
    {"compact", .untimed = true},
    {"cachezipf", .percent = 400, .untimed = true},
    {"cacheuniform", .percent = 400, .untimed = true},
    {"cachescan", .percent = 400, .untimed = true},
    {"cacheshift", .percent = 400, .untimed = true},
};
/* Values large enough for the indexes and filters of all tables to fit their share of so small a
 * budget: a table that is closed to make room loses its cached blocks. */
static const struct bench_suite_group cache_groups[] = {
    {"15 %", .num = 200000, .value_size = 400, .write_buffer_size = 4 * MIB,
     .cache_size = 17 * MIB, ROWS(cache_rows)},
    {"30 %", .num = 200000, .value_size = 400, .write_buffer_size = 8 * MIB,
     .cache_size = 36 * MIB, ROWS(cache_rows)},
};

/* clang-format on */

/* clang-format off */
static const struct bench_suite suites[] = {
    {"quick", "reads and writes of 500 k keys through small memtables, in three minutes", ALL,
     .rounds = 3, .minutes = 2.6, GROUPS(quick_groups)},
    {"peers", "M: 5 M keys, cache of half of them; S: 1 M keys, all cached; 1K: values of 1 KiB; "
     "in half an hour", ALL,
     .rounds = 5, .minutes = 28, GROUPS(peers_groups)},
    {"stability", "ten minutes of overwrite at full speed, then reads beside two writers; each "
     "second to a CSV", ALL,
     .rounds = 1, GROUPS(stability_groups),
     .seconds_csv = "loam-bench-stability-seconds.csv"},
    {"cache", "loam's share of cache hits beside an LRU cache of as many bytes", "loam",
     .rounds = 1, GROUPS(cache_groups)},
    {"guard", "loam in units of a calibrated loop, to hold against an earlier run: --baseline",
     "loam", .rounds = 5, GROUPS(guard_groups), .calibrate = true},
};
/* clang-format on */

const struct bench_suite *bench_suite_find(const char *name)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        if (strcmp(suites[i].name, name) == 0) {
            return &suites[i];
        }
    }
    return NULL;
}

void bench_suite_defaults(const struct bench_suite *s, struct bench_flags *f)
{
    f->engine = s->engines;
    f->rounds = s->rounds;
    f->time_limit = s->minutes;
    f->compression_type = "none";
    f->max_background_jobs = 2;
    f->seek_nexts = 50;
    f->seconds_csv = s->seconds_csv != NULL ? s->seconds_csv : "";
}

void bench_suites_help(FILE *out)
{
    for (size_t i = 0; i < sizeof(suites) / sizeof(suites[0]); i++) {
        fprintf(out, "  %-11s %s\n", suites[i].name, suites[i].help);
    }
}

/* ---- a suite from a list of names ------------------------------------------------------------ */

int bench_suite_from_list(struct bench_suite_list *l, const char *benchmarks)
{
    memset(l, 0, sizeof(*l));
    size_t n = 1, count = 0;
    int rc = 0;
    for (const char *at = benchmarks; *at != '\0'; at++) {
        n += *at == ',';
    }
    char *list = strdup(benchmarks), *rest = NULL;
    l->rows = calloc(n, sizeof(*l->rows));
    l->items = calloc(n, sizeof(*l->items));
    if (list == NULL || l->rows == NULL || l->items == NULL) {
        free(list);
        bench_suite_list_free(l);
        return -1;
    }
    for (char *text = strtok_r(list, ",", &rest); text != NULL; text = strtok_r(NULL, ",", &rest)) {
        struct bench_item *item = &l->items[count];
        bench_item_parse(text, item);
        if (bench_workload_find(item->name) == NULL) {
            fprintf(stderr, "unknown benchmark '%s'\n", item->name);
            rc = 1;
            continue;
        }
        l->rows[count++] = (struct bench_suite_row){
            .benchmark = item->name, .repeats = item->repeats, .warm_ups = item->warm_ups};
    }
    free(list);
    l->group = (struct bench_suite_group){.name = "", .rows = l->rows, .count = count};
    l->suite = (struct bench_suite){.name = "", .groups = &l->group, .count = 1};
    return rc;
}

void bench_suite_list_free(struct bench_suite_list *l)
{
    free(l->rows);
    free(l->items);
    l->rows = NULL;
    l->items = NULL;
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static int64_t scaled(double value, double scale)
{
    double n = value * scale;
    return n < 1 ? 1 : (int64_t)n;
}

static void set_group(const struct bench_suite_group *g, struct bench_flags *f)
{
    f->num = g->num != 0 ? scaled((double)g->num, f->scale) : f->num;
    f->value_size = g->value_size != 0 ? g->value_size : f->value_size;
    if (g->cache_size != 0 && !f->cache_given) {
        f->cache_size = scaled((double)g->cache_size, f->scale);
    }
    if (g->write_buffer_size != 0 && !f->write_buffer_given) {
        f->write_buffer_size = scaled((double)g->write_buffer_size, f->scale);
    }
}

void bench_suite_row_flags(const struct bench_suite_group *g, const struct bench_suite_row *r,
                           const struct bench_flags *base, struct bench_flags *out)
{
    const struct bench_workload *w = bench_workload_find(r->benchmark);
    *out = *base;
    set_group(g, out);
    out->threads = r->threads != 0 ? r->threads : out->threads;
    out->writers = r->writers != 0 ? r->writers : out->writers;
    out->batch_size = r->batch != 0 ? r->batch : out->batch_size;
    if (r->seconds > 0 && base->duration <= 0) {
        out->duration = r->seconds * out->scale;
    } else if (r->seconds <= 0 && (r->ops != 0 || r->percent != 0)) {
        double total =
            r->ops != 0 ? (double)r->ops * out->scale : (double)out->num * (double)r->percent / 100;
        /* The runner divides the counts of some benchmarks; here they are meant as they stand. */
        double divide = w != NULL && w->divide > 1 ? (double)w->divide : 1;
        out->duration = 0;
        out->reads = out->writes = scaled(total / (double)out->threads, divide);
    }
}
