/* loam_bench.c - The benchmark program: runs the named benchmarks on each engine in turn.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_run.h"

enum { ENGINES_MAX = 8 };

struct program {
    struct bench_context context;
    struct bench_store *stores[ENGINES_MAX];
    const char *names[ENGINES_MAX]; /* of the engines */
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
    p->names[p->engines] = e->name;
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

/* ---- benchmarks ------------------------------------------------------------------------------ */

/* One item of --benchmarks: name[X5-W1] runs 5 times after 1 warm-up. */
struct item {
    char name[64];
    unsigned repeats, warm_ups;
};

static void parse_item(const char *text, struct item *item)
{
    size_t n = strcspn(text, "[");
    *item = (struct item){.repeats = 1};
    snprintf(item->name, sizeof(item->name), "%.*s", (int)n, text);
    while (text[n] != '\0' && text[n] != ']') {
        n++;
        if (text[n] == 'X') {
            item->repeats = (unsigned)strtoul(text + n + 1, NULL, 10);
        } else if (text[n] == 'W') {
            item->warm_ups = (unsigned)strtoul(text + n + 1, NULL, 10);
        }
        n += strcspn(text + n, "-]");
    }
    item->repeats = item->repeats == 0 ? 1 : item->repeats;
}

static void settle_row(struct bench_context *c, struct bench_store *s, const char *name)
{
    struct bench_row row;
    struct bench_stats merged;
    char settle[64];
    snprintf(settle, sizeof(settle), "%.50s.settle", name);
    bench_run(c, s, bench_workload_find("waitforcompaction"), settle, &row, &merged);
    bench_report_row(&c->report, &row, NULL);
    bench_stats_destroy(&merged);
}

/* With the work left over counted in: what the fill cost in the end. */
static void add_settled_amp(struct bench_report *r, struct bench_store *s,
                            const struct bench_counters *before)
{
    struct bench_counters after;
    struct bench_row *fill = &r->rows[r->count - 2], *settle = &r->rows[r->count - 1];
    if (r->count >= 2 && fill->write_amp >= 0 && fill->put_bytes > 0 &&
        bench_store_counters(s, &after)) {
        double log_too = after.log_included ? 0 : 1;
        double bytes = (double)(after.bytes_written - before->bytes_written);
        settle->write_amp = bytes / (double)fill->put_bytes + log_too;
    }
}

static void run_measured(struct program *p, struct bench_store *s, const struct bench_workload *w,
                         const char *name, bool keep)
{
    struct bench_context *c = &p->context;
    struct bench_row row;
    struct bench_stats merged;
    struct bench_counters before = {0, true};
    bench_store_counters(s, &before);
    bench_run(c, s, w, name, &row, &merged);
    if (keep) {
        bench_report_row(&c->report, &row, &merged);
        if (c->flags->ycsb_report && strncmp(name, "ycsb", 4) == 0) {
            bench_report_ycsb(&row);
        }
        if (c->flags->wait_idle && row.put_bytes > 0 && !w->no_session) {
            settle_row(c, s, name);
            add_settled_amp(&c->report, s, &before);
        }
    }
    bench_stats_destroy(&merged);
}

/* True when the benchmark was run; otherwise the reason is printed. */
static bool run_once(struct program *p, struct bench_store *s, const struct bench_workload *w,
                     const char *name, bool keep)
{
    struct bench_context *c = &p->context;
    const char *engine = s->engine->name;
    if (w->run == NULL && w->admin == NULL) {
        bench_report_skip(&c->report, engine, name, "not built");
        return false;
    }
    if (w->offered != NULL && !w->offered(s->engine)) {
        bench_report_skip(&c->report, engine, name, "the engine has none");
        return false;
    }
    if (w->fresh && c->flags->use_existing_db) {
        bench_report_skip(&c->report, engine, name, "--use_existing_db is true");
        return false;
    }
    bool ready = w->fresh ? bench_store_fresh(s) == BENCH_OK : bench_store_open(s) == BENCH_OK;
    if (!ready) {
        bench_die(s, "open");
    }
    if (w->admin == NULL) {
        run_measured(p, s, w, name, keep);
        return true;
    }
    int rc = w->admin(c, s);
    if (rc == BENCH_UNSUPPORTED) {
        bench_report_skip(&c->report, engine, name, "the engine has none");
    } else if (rc < 0) {
        bench_die(s, name);
    }
    return rc == BENCH_OK;
}

static void run_item(struct program *p, const struct item *item)
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
        p->context.round++;
        for (size_t e = 0; e < p->engines; e++) {
            bool ran = run_once(p, p->stores[e], w, item->name, i >= item->warm_ups);
            if (ran && p->engines > 1) {
                /* What one engine still does in the background must not be paid by the next. */
                bench_store_settle(p->stores[e]);
            }
        }
    }
    for (size_t e = 0; item->repeats > 1 && e < p->engines; e++) {
        bench_report_repeats(&p->context.report, p->names[e], item->name, item->repeats);
    }
}

static void run_all(struct program *p)
{
    char *list = strdup(p->context.flags->benchmarks), *rest = NULL;
    for (char *text = list != NULL ? strtok_r(list, ",", &rest) : NULL; text != NULL;
         text = strtok_r(NULL, ",", &rest)) {
        struct item item;
        parse_item(text, &item);
        run_item(p, &item);
    }
    free(list);
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

static void write_files(struct program *p)
{
    const struct bench_flags *f = p->context.flags;
    if (p->engines > 1) {
        bench_report_ratios(&p->context.report, p->names, p->engines);
    }
    if (f->json[0] != '\0' && bench_report_write_json(&p->context.report, f->json) != 0) {
        p->status = 1;
    }
    if (f->csv[0] != '\0' && bench_report_write_csv(&p->context.report, f->csv) != 0) {
        p->status = 1;
    }
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
        bench_report_header(&flags, p.context.key_bytes);
        rc = add_stores(&p, &flags);
    }
    if (rc == 0) {
        run_all(&p);
        write_files(&p);
        rc = p.status;
    }
    for (size_t e = 0; e < p.engines; e++) {
        if (bench_store_close(p.stores[e]) != BENCH_OK) {
            fprintf(stderr, "close error: %s: %s\n", p.names[e], bench_engine_error());
            rc = 1;
        }
        free(p.stores[e]);
    }
    bench_report_destroy(&p.context.report);
    bench_pool_destroy(&p.context.pool);
    return rc;
}
