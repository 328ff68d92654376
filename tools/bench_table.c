/* bench_table.c - The table of a comparison: medians of all rounds, and ratios round by round.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- printing -------------------------------------------------------------------------------- */

static void print_engines(const struct bench_table *t, FILE *out)
{
    const struct bench_engine *seen[16];
    size_t n = 0;
    for (size_t i = 0; i < t->count && n < 16; i++) {
        const struct bench_engine *e = t->entries[i].engine;
        bool again = false;
        for (size_t j = 0; j < n; j++) {
            again |= seen[j] == e;
        }
        if (!again) {
            seen[n++] = e;
            fprintf(out, "%-8s%s %s: %s\n", e->name, e->unsafe ? "!" : " ", e->version(), e->note);
        }
    }
}

static void print_group(const struct bench_suite_group *g, const struct bench_flags *base,
                        unsigned rounds, FILE *out)
{
    const struct bench_suite_row none = {.benchmark = ""};
    struct bench_flags f;
    bench_suite_row_flags(g, &none, base, &f);
    fprintf(out,
            "\n%s%s%" PRId64 " keys of %" PRId64 " bytes, values of %" PRId64
            ", memtable %.1f MiB, cache %.1f MiB, compression %s; %u round%s\n",
            g->name, g->name[0] != '\0' ? ": " : "", f.num, f.key_size, f.value_size,
            (double)f.write_buffer_size / 1048576, (double)f.cache_size / 1048576,
            f.compression_type, rounds, rounds == 1 ? "" : "s");
    fprintf(out, "%-18s %-8s %10s %7s %9s %9s %9s %10s %6s %8s %7s %8s  %s\n", "row", "engine",
            "kops/s", "spread", "p50 us", "p99 us", "p99.9 us", "longest ms", "B/B", "disk MiB",
            "RSS MiB", "CPU us", "first / this [95 %]");
}

static void print_latency(const struct bench_entry *e, FILE *out)
{
    if (e->timed) {
        fprintf(out, " %9.2f %9.2f %9.2f %10.2f", e->p50_ns * 1e-3, e->p99_ns * 1e-3,
                e->p999_ns * 1e-3, e->longest_ns * 1e-6);
    } else {
        fprintf(out, " %9s %9s %9s %10s", "-", "-", "-", "-");
    }
}

static void print_ratio(const struct bench_entry *e, bool first, FILE *out)
{
    if (e->than != NULL) {
        fprintf(out, "  %.2fx", e->ratio.mid);
        if (e->ratio.bounded) {
            fprintf(out, " [%.2f, %.2f]", e->ratio.lo, e->ratio.hi);
        }
        if (first) {
            fprintf(out, " of %s%s", e->than->name, e->than->unsafe ? "!" : "");
        }
    }
}

static void print_entry(const struct bench_entry *e, bool first, FILE *out)
{
    char name[16], ratio[16] = "-";
    snprintf(name, sizeof(name), "%s%s", e->engine->name, e->engine->unsafe ? "!" : "");
    if (e->amp >= 0) {
        snprintf(ratio, sizeof(ratio), "%.2f", e->amp);
    }
    fprintf(out, "%-18s %-8s %10.1f %6.1f%%", first ? e->label : "", name, e->speed * 1e-3,
            e->spread * 100);
    print_latency(e, out);
    fprintf(out, " %6s %8.1f %7.0f %8.2f", ratio, e->disk_bytes / 1048576, e->peak_rss / 1048576,
            e->cpu_micros);
    print_ratio(e, first, out);
    if (e->background >= 0) {
        fprintf(out, "  beside %.1f kops/s of writes", e->background * 1e-3);
    }
    if (e->worst_second >= 0) {
        fprintf(out, "  worst second %.2f of the median", e->worst_second);
    }
    if (e->units > 0) {
        fprintf(out, "  %.3f units of CPU", e->units);
    }
    if (e->units > 0 && e->baseline > 0) {
        fprintf(out, ", %.2f of the baseline", e->units / e->baseline);
    }
    if (e->cached_share > 0) {
        fprintf(out, "  hits %.4f, LRU %.4f; %.1f %% cached", e->hit_ratio, e->lru_ratio,
                e->cached_share * 100);
    }
    fputc('\n', out);
}

void bench_table_print(const struct bench_table *t, const struct bench_flags *base,
                       const struct bench_samples *samples, FILE *out)
{
    fputc('\n', out);
    print_engines(t, out);
    bool unsafe = false;
    for (size_t i = 0; i < t->count; i++) {
        const struct bench_entry *e = &t->entries[i], *last = i > 0 ? e - 1 : NULL;
        if (last == NULL || last->group != e->group) {
            print_group(e->group, base, samples->rounds, out);
        }
        bool first = last == NULL || last->group != e->group || last->label != e->label;
        print_entry(e, first, out);
        unsafe |= e->engine->unsafe;
    }
    fprintf(out,
            "\nMedians of all rounds; longest operation and RSS are the worst of them. B/B: bytes "
            "written to files\nper user byte, by the kernel's count, and CPU per operation: both "
            "with the background work that the\nrow caused. First / this: how many times faster "
            "the first engine is, by pairs of one round; on its own\nline, than the fastest "
            "other.%s\n",
            unsafe ? " !: a power cut may damage all of the file." : "");
    fflush(out);
}
