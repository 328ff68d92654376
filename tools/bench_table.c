/* bench_table.c - The table of a comparison: medians of all rounds, and ratios round by round.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_table.h"

#include <stdlib.h>
#include <string.h>

#include "tools/bench_bars.h"

/* ---- from samples to entries ----------------------------------------------------------------- */

/* The runs of one row on one engine. */
struct runs {
    const struct bench_sample **run;
    size_t count;
};

static void select_runs(const struct bench_samples *s, uint32_t group, uint32_t line,
                        uint32_t engine, struct runs *out)
{
    out->count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const struct bench_sample *one = &s->all[i];
        if (one->group == group && one->line == line && one->engine == engine) {
            out->run[out->count++] = one;
        }
    }
}

typedef double number_fn(const struct bench_row *row);

static double p50(const struct bench_row *row)
{
    return row->all.p50;
}

static double p99(const struct bench_row *row)
{
    return row->all.p99;
}

static double p999(const struct bench_row *row)
{
    return row->all.p999;
}

static double longest(const struct bench_row *row)
{
    return row->all.max;
}

static double disk(const struct bench_row *row)
{
    return (double)row->disk_bytes;
}

static double rss(const struct bench_row *row)
{
    return (double)row->peak_rss;
}

static double amp(const struct bench_row *row)
{
    return row->kernel_amp;
}

static double background(const struct bench_row *row)
{
    return row->background_ops;
}

static double background_ns(const struct bench_row *row)
{
    return bench_row_background_ns(row);
}

static double settle_seconds(const struct bench_row *row)
{
    return row->settle_seconds;
}

static double space(const struct bench_row *row)
{
    return row->live_bytes > 0 ? (double)row->disk_bytes / (double)row->live_bytes : -1;
}

static double hit_ratio(const struct bench_row *row)
{
    return row->hit_ratio;
}

static double lru_ratio(const struct bench_row *row)
{
    return row->lru_ratio;
}

static double cached_share(const struct bench_row *row)
{
    return row->cached_share;
}

/* Values of all runs, sorted, into `room`. */
static double median_of(const struct runs *r, number_fn *number, double *room)
{
    for (size_t i = 0; i < r->count; i++) {
        room[i] = number(&r->run[i]->row);
    }
    return bench_median(room, r->count);
}

static double worst_of(const struct runs *r, number_fn *number)
{
    double worst = 0;
    for (size_t i = 0; i < r->count; i++) {
        double value = number(&r->run[i]->row);
        worst = value > worst ? value : worst;
    }
    return worst;
}

/* A row of less than this many seconds has no second that stands for its stalls. */
enum { SECONDS_MIN = 10 };

static double worst_second(const struct runs *r)
{
    double worst = -1;
    for (size_t i = 0; i < r->count; i++) {
        const struct bench_seconds_summary *s = &r->run[i]->row.seconds_seen;
        if (s->count >= SECONDS_MIN && s->median > 0) {
            double share = s->worst / s->median;
            worst = worst < 0 || share < worst ? share : worst;
        }
    }
    return worst;
}

static void fill_entry(struct bench_entry *e, const struct runs *r, double *room)
{
    e->runs = r->count;
    e->speed = median_of(r, bench_row_speed, room);
    e->spread = bench_spread(room, r->count);
    e->timed = r->run[0]->row.timed;
    e->note = r->run[r->count - 1]->row.note;
    e->p50_ns = median_of(r, p50, room);
    e->p99_ns = median_of(r, p99, room);
    e->p999_ns = median_of(r, p999, room);
    e->longest_ns = worst_of(r, longest);
    e->amp = median_of(r, amp, room);
    e->disk_bytes = median_of(r, disk, room);
    e->peak_rss = worst_of(r, rss);
    e->cpu_micros = median_of(r, bench_row_cpu_micros, room);
    e->worst_second = worst_second(r);
    e->units = median_of(r, bench_row_units, room);
    e->hit_ratio = median_of(r, hit_ratio, room);
    e->lru_ratio = median_of(r, lru_ratio, room);
    e->cached_share = median_of(r, cached_share, room);
    e->background = median_of(r, background, room);
    e->background_ns = median_of(r, background_ns, room);
    e->settle_seconds = median_of(r, settle_seconds, room);
    e->space = median_of(r, space, room);
}

/* Pairs runs of one round and repeat. */
static struct bench_ratio ratio_of(const struct runs *mine, const struct runs *other, double *room)
{
    double *a = room, *b = room + mine->count;
    size_t n = 0;
    for (size_t i = 0; i < mine->count; i++) {
        for (size_t j = 0; j < other->count; j++) {
            const struct bench_sample *x = mine->run[i], *y = other->run[j];
            if (x->round == y->round && x->repeat == y->repeat) {
                a[n] = bench_row_speed(&x->row);
                b[n++] = bench_row_speed(&y->row);
                break;
            }
        }
    }
    return bench_ratio_of(a, b, n);
}

/* The first engine's ratio is the one to the fastest of the others. */
static void point_at_best(struct bench_entry *entries, size_t n)
{
    struct bench_entry *best = NULL;
    for (size_t i = 1; i < n; i++) {
        if (best == NULL || entries[i].speed > best->speed) {
            best = &entries[i];
        }
    }
    if (best != NULL && best->than != NULL) {
        entries[0].ratio = best->ratio;
        entries[0].than = best->engine;
    }
}

struct builder {
    struct bench_table *table;
    const struct bench_samples *samples;
    struct bench_store *const *stores;
    size_t engines;
    struct runs first, other;
    double *room; /* two numbers a sample */
};

static void add_line(struct builder *b, const struct bench_suite_group *group, uint32_t g,
                     uint32_t line)
{
    struct bench_entry *entries = b->table->entries + b->table->count;
    const struct bench_suite_row *row = &group->rows[line];
    size_t n = 0;
    select_runs(b->samples, g, line, 0, &b->first);
    for (uint32_t e = 0; e < b->engines; e++) {
        select_runs(b->samples, g, line, e, &b->other);
        if (b->other.count == 0) {
            continue;
        }
        struct bench_entry *entry = &entries[n++];
        entry->group = group;
        entry->label = row->label != NULL ? row->label : row->benchmark;
        entry->engine = b->stores[e]->engine;
        fill_entry(entry, &b->other, b->room);
        if (e > 0) {
            entry->ratio = ratio_of(&b->first, &b->other, b->room);
            entry->than = entry->ratio.mid > 0 ? entry->engine : NULL;
            bench_bars_set(entry);
        }
    }
    if (b->first.count > 0) {
        point_at_best(entries, n);
    }
    b->table->count += n;
}

int bench_table_init(struct bench_table *t, const struct bench_suite *suite,
                     const struct bench_samples *samples, struct bench_store *const *stores,
                     size_t n)
{
    size_t lines = 0, most = samples->count + 1;
    for (size_t g = 0; g < suite->count; g++) {
        lines += suite->groups[g].count;
    }
    struct builder b = {.table = t, .samples = samples, .stores = stores, .engines = n};
    t->count = 0;
    t->entries = calloc(lines * n + 1, sizeof(*t->entries));
    b.first.run = calloc(most, sizeof(*b.first.run));
    b.other.run = calloc(most, sizeof(*b.other.run));
    b.room = calloc(2 * most, sizeof(*b.room));
    bool ready = t->entries != NULL && b.first.run != NULL && b.other.run != NULL && b.room != NULL;
    for (uint32_t g = 0; ready && g < suite->count; g++) {
        for (uint32_t line = 0; line < suite->groups[g].count; line++) {
            add_line(&b, &suite->groups[g], g, line);
        }
    }
    free(b.first.run);
    free(b.other.run);
    free(b.room);
    return ready ? 0 : -1;
}

void bench_table_destroy(struct bench_table *t)
{
    free(t->entries);
    t->entries = NULL;
    t->count = 0;
}
