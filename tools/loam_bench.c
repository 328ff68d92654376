/* loam_bench.c - The benchmark program: runs the named benchmarks on each engine in turn.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_bars.h"
#include "tools/bench_baseline.h"
#include "tools/bench_growth.h"
#include "tools/bench_item.h"
#include "tools/bench_suite.h"
#include "tools/bench_table.h"

enum { ENGINES_MAX = 8 };

struct program {
    struct bench_context context;
    struct bench_store *stores[ENGINES_MAX];
    size_t engines;
    int status; /* of the process */
};

/* ---- engines --------------------------------------------------------------------------------- */

static void default_dir(char *out, size_t cap)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, cap, "%s/loam-bench", tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp");
}

static size_t count_items(const char *list)
{
    size_t n = 1;
    for (; *list != '\0'; list++) {
        n += *list == ',';
    }
    return n;
}

static int add_store(struct program *p, const char *name, const char *dir, bool shared)
{
    bool known;
    const struct bench_engine *e = bench_engine_find(name, &known);
    if (!known) {
        fprintf(stderr, "loam-bench: unknown engine '%s'\n", name);
        return 2;
    }
    if (e == NULL) {
        printf("%-12s : skipped (not built)\n", name);
        return 0;
    }
    struct bench_store *s = calloc(1, sizeof(*s));
    if (s == NULL || p->engines == ENGINES_MAX ||
        bench_store_init(s, e, p->context.flags, dir, shared) != 0) {
        fprintf(stderr, "loam-bench: cannot set up engine '%s'\n", name);
        free(s);
        return 1;
    }
    p->stores[p->engines++] = s;
    return 0;
}

static int add_stores(struct program *p, const struct bench_flags *f)
{
    char fallback[BENCH_PATH_MAX], *list = strdup(f->engine), *rest = NULL;
    bool shared = count_items(f->engine) > 1;
    default_dir(fallback, sizeof(fallback));
    const char *dir = f->db[0] != '\0' ? f->db : fallback;
    if (list == NULL || (shared && bench_make_dirs(dir) != 0)) {
        fprintf(stderr, "loam-bench: %s: %s\n", dir, strerror(errno));
        free(list);
        return 1;
    }
    int rc = 0;
    for (char *name = strtok_r(list, ",", &rest); name != NULL && rc == 0;
         name = strtok_r(NULL, ",", &rest)) {
        rc = add_store(p, name, dir, shared);
    }
    free(list);
    if (rc == 0 && p->engines == 0) {
        fprintf(stderr, "loam-bench: no engine to measure\n");
        rc = 1;
    }
    p->context.report.show_engine = p->engines > 1;
    return rc;
}

/* ---- one engine ------------------------------------------------------------------------------ */

static void run_item(struct program *p, const struct bench_item *item)
{
    const struct bench_workload *w = bench_workload_find(item->name);
    if (w == NULL) {
        fprintf(stderr, "unknown benchmark '%s'\n", item->name);
        p->status = 1;
        return;
    }
    if (item->warm_ups > 0) {
        printf("Warming up benchmark by running %u times\n", item->warm_ups);
    }
    if (item->repeats > 1) {
        printf("Running benchmark for %u times\n", item->repeats);
    }
    for (unsigned i = 0; i < item->warm_ups + item->repeats; i++) {
        struct bench_row row;
        p->context.round++;
        bench_item_run(&p->context, p->stores[0], w, item->name, i >= item->warm_ups, &row);
    }
    if (item->repeats > 1) {
        bench_report_repeats(&p->context.report, p->stores[0]->engine->name, item->name,
                             item->repeats);
    }
}

static void run_alone(struct program *p)
{
    const struct bench_flags *f = p->context.flags;
    char *list = strdup(f->benchmarks), *rest = NULL;
    for (char *text = list != NULL ? strtok_r(list, ",", &rest) : NULL; text != NULL;
         text = strtok_r(NULL, ",", &rest)) {
        struct bench_item item;
        bench_item_parse(text, &item);
        run_item(p, &item);
    }
    free(list);
    if (f->json[0] != '\0' && bench_report_write_json(&p->context.report, f->json) != 0) {
        p->status = 1;
    }
    if (f->csv[0] != '\0' && bench_report_write_csv(&p->context.report, f->csv) != 0) {
        p->status = 1;
    }
}

/* ---- several engines or rounds --------------------------------------------------------------- */

/* The file a flag names, or the one a suite is saved to without being told; "": none. */
static const char *output_path(const struct bench_flags *f, const char *given, const char *ending,
                               char *room, size_t cap)
{
    if (given[0] != '\0' || f->suite[0] == '\0') {
        return given;
    }
    snprintf(room, cap, "loam-bench-%s.%s", f->suite, ending);
    return room;
}

static int write_table(struct program *p, struct bench_table *t, const struct bench_suite *suite,
                       const struct bench_samples *samples)
{
    const struct bench_flags *f = p->context.flags;
    char room[2][96];
    const char *json = output_path(f, f->json, "json", room[0], sizeof(room[0]));
    const char *csv = output_path(f, f->csv, "csv", room[1], sizeof(room[1]));
    int rc = f->baseline[0] != '\0' ? bench_baseline_read(t, f->baseline) : 0;
    bench_table_print(t, f, samples, stdout);
    bench_growth_print(t, suite, stdout);
    bench_bars_print(t, f, stdout);
    if (rc == 0 && f->baseline[0] != '\0') {
        bench_baseline_print(t, stdout);
    }
    if (json[0] != '\0') {
        rc |= bench_table_write_json(t, suite, samples, f, p->stores, p->engines, json);
    }
    if (csv[0] != '\0') {
        rc |= bench_table_write_csv(t, csv);
    }
    return rc;
}

static void run_compared(struct program *p)
{
    const struct bench_flags *f = p->context.flags;
    const struct bench_suite *suite = bench_suite_find(f->suite);
    struct bench_suite_list list = {.rows = NULL};
    struct bench_samples samples;
    struct bench_table table;
    if (suite == NULL) {
        int rc = bench_suite_from_list(&list, f->benchmarks);
        suite = &list.suite;
        if (rc != 0) {
            p->status = 1;
        }
        if (rc < 0) {
            fprintf(stderr, "loam-bench: out of memory\n");
            return;
        }
    }
    /* A suite leaves nothing behind; whoever chose the benchmarks may want the databases. */
    bool keep = f->suite[0] == '\0';
    int rc = bench_compare(&p->context, p->stores, p->engines, suite, keep, &samples);
    if (rc == 0) {
        rc = bench_table_init(&table, suite, &samples, p->stores, p->engines);
    }
    if (rc == 0) {
        rc = write_table(p, &table, suite, &samples);
        bench_table_destroy(&table);
    }
    if (rc != 0 || samples.failed > 0) {
        p->status = 1;
    }
    bench_samples_free(&samples);
    bench_suite_list_free(&list);
}

/* ---- the program ----------------------------------------------------------------------------- */

static int context_init(struct bench_context *c, const struct bench_flags *f, char **argv)
{
    c->flags = f;
    c->argv = argv;
    bool leveldb = strcmp(f->key_format, "leveldb") == 0;
    c->keys = (struct key_format){leveldb ? KEY_LEVELDB : KEY_ROCKSDB,
                                  leveldb ? (size_t)f->key_prefix : 0, (size_t)f->key_size};
    c->key_bytes = c->keys.prefix + c->keys.size;
    if (key_format_limit(&c->keys) < (uint64_t)f->num) {
        fprintf(stderr, "loam-bench: --key_size is too small for --num different keys\n");
        return 2;
    }
    bool uniform = strcmp(f->value_size_distribution_type, "uniform") == 0;
    size_t largest = (size_t)(uniform ? f->value_size_max : f->value_size);
    largest = largest < 100000 ? 100000 : largest; /* fill100K */
    if (bench_pool_init(&c->pool, f->compression_ratio, largest, 301) != 0) {
        fprintf(stderr, "loam-bench: out of memory\n");
        return 1;
    }
    bench_report_init(&c->report, f, false);
    c->timed = f->histogram || f->ycsb_report || f->json[0] != '\0' || f->csv[0] != '\0';
    c->by_second = f->seconds_csv[0] != '\0';
    if (c->by_second && bench_seconds_create(f->seconds_csv) != 0) {
        fprintf(stderr, "loam-bench: %s: %s\n", f->seconds_csv, strerror(errno));
        return 1;
    }
    if (f->report_interval_seconds > 0) {
        FILE *out = fopen(f->report_file, "w");
        if (out == NULL) {
            fprintf(stderr, "loam-bench: %s: %s\n", f->report_file, strerror(errno));
            return 1;
        }
        fprintf(out, "secs_elapsed,interval_qps\n");
        fclose(out);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bench_flags flags;
    struct program p;
    memset(&p, 0, sizeof(p));
    int rc = bench_flags_parse(&flags, argc, argv);
    if (rc != 0) {
        return rc;
    }
    if (flags.help) {
        bench_flags_help(stdout);
        return 0;
    }
    if (flags.version) {
        printf("%s\n", loam_build_info());
        return 0;
    }
    rc = context_init(&p.context, &flags, argv);
    if (rc == 0) {
        rc = add_stores(&p, &flags);
    }
    if (rc == 0) {
        bench_report_header(&flags, p.context.key_bytes);
        bool compared = p.engines > 1 || flags.rounds > 1 || flags.suite[0] != '\0';
        compared ? run_compared(&p) : run_alone(&p);
        rc = p.status;
    }
    for (size_t e = 0; e < p.engines; e++) {
        if (bench_store_close(p.stores[e]) != BENCH_OK) {
            fprintf(stderr, "close error: %s: %s\n", p.stores[e]->engine->name,
                    bench_engine_error());
            rc = 1;
        }
        free(p.stores[e]);
    }
    bench_report_destroy(&p.context.report);
    bench_pool_destroy(&p.context.pool);
    return rc;
}
