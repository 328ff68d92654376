/* bench_growth.c - The same row in groups that differ in size, side by side: how its cost grows.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_growth.h"

#include <string.h>

enum { GROUPS_MAX = 8 };

/* One row on one engine in all groups; NULL: it has none there. */
struct line {
    const struct bench_entry *in[GROUPS_MAX];
    size_t groups;
};

typedef double number_fn(const struct bench_entry *e);

/* What the caller waits for. An open is one of few, and closing before it is not part of it. */
static double wait_micros(const struct bench_entry *e)
{
    if (strcmp(e->label, "open") == 0) {
        return e->p50_ns * 1e-3;
    }
    return e->speed > 0 ? 1e6 / e->speed : -1;
}

static double cpu_micros(const struct bench_entry *e)
{
    return e->cpu_micros;
}

static double amp(const struct bench_entry *e)
{
    return e->amp;
}

static double rss(const struct bench_entry *e)
{
    return e->peak_rss / 1048576;
}

static double space(const struct bench_entry *e)
{
    return e->space;
}

static const struct {
    const char *title;
    number_fn *number;
    int digits;
} columns[] = {
    {"us for one", wait_micros, 3},
    {"CPU us for one", cpu_micros, 3},
    {"B/B", amp, 2},
    {"disk / live", space, 2},
    {"RSS MiB", rss, 0},
};
enum { COLUMNS = sizeof(columns) / sizeof(columns[0]) };

static void find_line(const struct bench_table *t, const struct bench_suite *suite,
                      const struct bench_entry *like, struct line *out)
{
    memset(out, 0, sizeof(*out));
    out->groups = suite->count < GROUPS_MAX ? suite->count : GROUPS_MAX;
    for (size_t i = 0; i < t->count; i++) {
        const struct bench_entry *e = &t->entries[i];
        size_t group = (size_t)(e->group - suite->groups);
        if (group < out->groups && e->engine == like->engine &&
            strcmp(e->label, like->label) == 0) {
            out->in[group] = e;
        }
    }
}

/* The numbers of all groups, and what the last is of the first; nothing when nobody knows them. */
static void print_column(const struct line *l, size_t column, FILE *out)
{
    double first = -1, last = -1;
    for (size_t g = 0; g < l->groups; g++) {
        double value = l->in[g] != NULL ? columns[column].number(l->in[g]) : -1;
        first = g == 0 ? value : first;
        last = value;
        if (value >= 0) {
            fprintf(out, " %10.*f", columns[column].digits, value);
        } else {
            fprintf(out, " %10s", "-");
        }
    }
    if (first > 0 && last >= 0) {
        fprintf(out, " %6.2fx", last / first);
    }
    fputc('\n', out);
}

static bool known(const struct line *l, size_t column)
{
    bool any = false;
    for (size_t g = 0; g < l->groups; g++) {
        any |= l->in[g] != NULL && columns[column].number(l->in[g]) >= 0;
    }
    return any;
}

void bench_growth_print(const struct bench_table *t, const struct bench_suite *suite, FILE *out)
{
    if (!suite->across_groups || t->count == 0) {
        return;
    }
    fprintf(out, "\n%-18s %-8s %-15s", "by size", "engine", "");
    for (size_t g = 0; g < suite->count && g < GROUPS_MAX; g++) {
        fprintf(out, " %10s", suite->groups[g].name);
    }
    fputs("  growth\n", out);
    for (size_t column = 0; column < COLUMNS; column++) {
        for (size_t i = 0; i < t->count && t->entries[i].group == t->entries[0].group; i++) {
            struct line l;
            find_line(t, suite, &t->entries[i], &l);
            if (known(&l, column)) {
                fprintf(out, "%-18s %-8s %-15s", t->entries[i].label, t->entries[i].engine->name,
                        columns[column].title);
                print_column(&l, column, out);
            }
        }
    }
    fflush(out);
}
