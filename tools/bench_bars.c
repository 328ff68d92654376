/* bench_bars.c - What loam is to reach on the rows of --suite=peers, and which of it was reached.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_bars.h"

#include <string.h>

#include "tools/bench_table.h"

/* Thousands of operations a second, all on one machine: a 2-core x86-64 with ext4, release builds
 * of LevelDB HEAD and LMDB 0.9.24 (NOSYNC, WRITEMAP, MAPASYNC), regimes as in the suite. Batches there
 * had random keys: LMDB was as fast without them, and is seven times as fast with keys in order. */
struct bar {
    const char *group, *row;
    double leveldb, lmdb; /* measured */
    double loam;          /* set */
};

static const struct bar bars[] = {
    {"M", "fillseq", 788, 1364, 2400},       {"M", "fillrandom", 309, 591, 950},
    {"M", "fillrandom t2", 269, 535, 1200},  {"M", "fillrandom b100", 488, 598, 1500},
    {"M", "overwrite", 276, 524, 850},       {"M", "readrandom", 210, 974, 700},
    {"M", "readrandom t2", 242, 1099, 1300}, {"M", "readmissing", 489, 982, 2600},
    {"M", "readseq", 11486, 25976, 24000},   {"M", "seekrandom", 130, 331, 300},
    {"M", "readwhilewriting", 59, 621, 300}, {"M", "ycsba", 208, 463, 600},
    {"M", "ycsbb", 227, 991, 800},           {"M", "ycsbc", 274, 1255, 1000},
    {"M", "ycsbd", 647, 1401, 1400},         {"M", "ycsbe", 62, 412, 250},
    {"M", "ycsbf", 238, 440, 550},           {"S", "fillsync", 5.2, 4, 10},
    {"S", "fillsync t4", 11.1, 4.4, 26},     {"S", "readrandom", 426, 1385, 1400},
    {"S", "readhot", 1117, 3235, 3300},      {"S", "readmissing", 560, 1371, 4000},
    {"S", "readseq", 7797, 24154, 24000},    {"S", "seekrandom", 123, 478, 480},
    {"1K", "fillrandom", 172, 346, 450},     {"1K", "readrandom", 236, 955, 700},
    {"1K", "seekrandom", 58, 152, 150},
};
/* Of the writer beside the readers. */
static const struct bar writer_bars[] = {{"M", "readwhilewriting", 151, 112, 450}};

/* As they stand: most that the row may show. */
struct limit {
    const char *group, *row, *what, *unit;
    double most;
    double (*value)(const struct bench_entry *e);
};

static double amp(const struct bench_entry *e)
{
    return e->amp;
}

static double longest_ms(const struct bench_entry *e)
{
    return e->timed ? e->longest_ns * 1e-6 : -1;
}

static double p999_us(const struct bench_entry *e)
{
    return e->timed ? e->p999_ns * 1e-3 : -1;
}

static double space(const struct bench_entry *e)
{
    return e->space;
}

static const struct limit limits[] = {
    {"M", "fillrandom", "written per user byte", "", 2.7, amp},
    {"M", "fillrandom", "longest put", " ms", 4, longest_ms},
    {"M", "fillrandom", "p99.9 of put", " us", 20, p999_us},
    {"M", "readseq", "disk, idle, per byte of live data", "", 1.25, space},
    {"S", "readseq", "disk, idle, per byte of live data", "", 1.25, space},
};
static const char *const bounded_groups[] = {"M"}; /* those whose memory has a limit */
enum { RSS_ALLOWANCE = 16 << 20 };                 /* above the budget */

static const struct bar *find(const struct bar *all, size_t n, const struct bench_entry *e)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(all[i].group, e->group->name) == 0 && strcmp(all[i].row, e->label) == 0) {
            return &all[i];
        }
    }
    return NULL;
}

/* The bar over this entry's engine; 0: none. */
static double times(const struct bar *b, const struct bench_entry *e)
{
    if (b != NULL && strcmp(e->engine->name, "leveldb") == 0) {
        return b->loam / b->leveldb;
    }
    return b != NULL && strcmp(e->engine->name, "lmdb") == 0 ? b->loam / b->lmdb : 0;
}

void bench_bars_set(struct bench_entry *e)
{
    e->bar = times(find(bars, bench_bars_count(), e), e);
    e->background_bar = times(find(writer_bars, 1, e), e);
}

size_t bench_bars_count(void)
{
    return sizeof(bars) / sizeof(bars[0]);
}

bool bench_bar_met(const struct bench_entry *peer, const struct bench_entry *mine)
{
    bool writers = peer->background_bar <= 0 ||
                   mine->background >= peer->background_bar * peer->background;
    return peer->ratio.mid >= peer->bar && writers;
}

/* ---- what was reached ------------------------------------------------------------------------ */

static bool is_loam(const struct bench_entry *e)
{
    return strcmp(e->engine->name, "loam") == 0;
}

struct tally {
    size_t met, all;
};

static const char *verdict(struct tally *t, bool met)
{
    t->all++;
    t->met += met;
    return met ? "met" : "MISSED";
}

/* loam's own entry comes first of its row's. */
static void print_ratios(const struct bench_entry *mine, const struct bench_entry *end,
                         struct tally *tally, FILE *out)
{
    for (const struct bench_entry *e = mine + 1;
         e < end && e->group == mine->group && e->label == mine->label; e++) {
        if (e->bar > 0 && e->than != NULL) {
            fprintf(out, "%-5s %-18s %-34s %8.2f x, bar %6.2f x  %s\n", e->group->name, e->label,
                    e->engine->name, e->ratio.mid, e->bar, verdict(tally, e->ratio.mid >= e->bar));
        }
        if (e->background_bar > 0 && e->than != NULL && e->background > 0) {
            double reached = mine->background / e->background;
            fprintf(out, "%-5s %-18s %-34s %8.2f x, bar %6.2f x  %s\n", e->group->name, e->label,
                    strcmp(e->engine->name, "lmdb") == 0 ? "lmdb, writer" : "leveldb, writer",
                    reached, e->background_bar, verdict(tally, reached >= e->background_bar));
        }
    }
}

static void print_limits(const struct bench_entry *e, struct tally *tally, FILE *out)
{
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        const struct limit *l = &limits[i];
        double value = l->value(e);
        if (strcmp(l->group, e->group->name) == 0 && strcmp(l->row, e->label) == 0 && value >= 0) {
            fprintf(out, "%-5s %-18s %-34s %8.2f%s, at most %.2f%s  %s\n", e->group->name, e->label,
                    l->what, value, l->unit, l->most, l->unit, verdict(tally, value <= l->most));
        }
    }
}

/* The most memory of all rows of a group. */
static void print_memory(const struct bench_table *t, const char *group, double budget,
                         struct tally *tally, FILE *out)
{
    double most = 0, limit = (budget + RSS_ALLOWANCE) / 1048576;
    const char *row = "";
    for (size_t i = 0; i < t->count; i++) {
        const struct bench_entry *e = &t->entries[i];
        if (is_loam(e) && strcmp(e->group->name, group) == 0 && e->peak_rss > most) {
            most = e->peak_rss;
            row = e->label;
        }
    }
    if (most > 0) {
        fprintf(out, "%-5s %-18s %-34s %8.0f MiB, at most %.0f MiB  %s\n", group, row,
                "peak RSS of all rows", most / 1048576, limit,
                verdict(tally, most / 1048576 <= limit));
    }
}

static double budget_of(const struct bench_table *t, const char *group,
                        const struct bench_flags *base)
{
    const struct bench_suite_row none = {.benchmark = ""};
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->entries[i].group->name, group) == 0) {
            struct bench_flags f;
            bench_suite_row_flags(t->entries[i].group, &none, base, &f);
            return f.memory_budget != 0 ? (double)f.memory_budget
                                        : 2 * (double)f.write_buffer_size + (double)f.cache_size;
        }
    }
    return 0;
}

static bool any_bar(const struct bench_table *t)
{
    bool any = false;
    for (size_t i = 0; i < t->count; i++) {
        any |= t->entries[i].bar > 0;
    }
    return any;
}

void bench_bars_print(const struct bench_table *t, const struct bench_flags *base, FILE *out)
{
    struct tally tally = {0, 0};
    if (!any_bar(t)) {
        return;
    }
    fprintf(out,
            "\nBars of loam: its speed as a multiple of a peer's in this run, and limits as they "
            "stand%s\n",
            base->scale < 1 ? "; they are meant for the full size" : "");
    for (size_t i = 0; i < t->count; i++) {
        if (is_loam(&t->entries[i])) {
            print_ratios(&t->entries[i], t->entries + t->count, &tally, out);
            print_limits(&t->entries[i], &tally, out);
        }
    }
    for (size_t i = 0; i < sizeof(bounded_groups) / sizeof(bounded_groups[0]); i++) {
        double budget = budget_of(t, bounded_groups[i], base);
        print_memory(t, bounded_groups[i], budget, &tally, out);
    }
    fprintf(out, "%zu of %zu bars met\n", tally.met, tally.all);
    fflush(out);
}
