/* bench_item.c - One item of --benchmarks: a name, how often, and its run on one store.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_item.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void bench_item_parse(const char *text, struct bench_item *item)
{
    size_t n = strcspn(text, "[");
    *item = (struct bench_item){.repeats = 1};
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
        settle->write_amp = bench_written_per_byte(before, &after, fill->put_bytes);
    }
}

static void run_measured(struct bench_context *c, struct bench_store *s,
                         const struct bench_workload *w, const char *name, bool keep,
                         struct bench_row *row)
{
    struct bench_stats merged;
    struct bench_counters before = {0, true};
    bench_store_counters(s, &before);
    bench_run(c, s, w, name, row, &merged);
    if (keep) {
        bench_report_row(&c->report, row, &merged);
        if (c->flags->ycsb_report && strncmp(name, "ycsb", 4) == 0) {
            bench_report_ycsb(row);
        }
        if (c->flags->wait_idle && row->put_bytes > 0 && !w->no_session) {
            settle_row(c, s, name);
            add_settled_amp(&c->report, s, &before);
        }
    }
    bench_stats_destroy(&merged);
}

static int skip(struct bench_context *c, const struct bench_store *s, const char *name,
                const char *why)
{
    bench_report_skip(&c->report, s->engine->name, name, why);
    return BENCH_UNSUPPORTED;
}

int bench_item_run(struct bench_context *c, struct bench_store *s, const struct bench_workload *w,
                   const char *name, bool keep, struct bench_row *row)
{
    memset(row, 0, sizeof(*row));
    if (w->run == NULL && w->admin == NULL) {
        return skip(c, s, name, "not built");
    }
    if (w->offered != NULL && !w->offered(s->engine)) {
        return skip(c, s, name, "the engine has none");
    }
    if (w->fresh && c->flags->use_existing_db) {
        return skip(c, s, name, "--use_existing_db is true");
    }
    if ((w->fresh ? bench_store_fresh(s) : bench_store_open(s)) != BENCH_OK) {
        bench_die(s, "open");
    }
    if (w->admin == NULL) {
        run_measured(c, s, w, name, keep, row);
        return BENCH_OK;
    }
    int rc = w->admin(c, s);
    if (rc < 0) {
        bench_die(s, name);
    }
    return rc == BENCH_UNSUPPORTED ? skip(c, s, name, "the engine has none") : rc;
}
