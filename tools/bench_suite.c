/* bench_suite.c - Finds a suite by its name, and gives its rows their flags.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_suite.h"

#include <stdlib.h>
#include <string.h>

const struct bench_suite *bench_suite_find(const char *name)
{
    for (size_t i = 0; i < bench_suites_count; i++) {
        if (strcmp(bench_suites[i].name, name) == 0) {
            return &bench_suites[i];
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
    for (size_t i = 0; i < bench_suites_count; i++) {
        fprintf(out, "  %-11s %s\n", bench_suites[i].name, bench_suites[i].help);
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
        out->reads = out->writes = out->deletes = scaled(total / (double)out->threads, divide);
    }
}
