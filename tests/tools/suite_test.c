/* suite_test.c - Rows of suites get the sizes their table says, and the table of results adds up.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_suite.h"

#include <criterion/criterion.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_bars.h"
#include "tools/bench_growth.h"
#include "tools/bench_table.h"

static struct bench_flags parsed(char *a, char *b)
{
    struct bench_flags f;
    char *argv[] = {"loam-bench", a, b, NULL};
    optind = 1; /* getopt begins anew */
    cr_assert_eq(bench_flags_parse(&f, 3, argv), 0);
    return f; /* its texts are literals */
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static const struct bench_suite_row some_rows[] = {
    {"fillrandom", "fillrandom t2", .threads = 2, .percent = 100},
    {"fillsync", .ops = 3000},
    {"readwhilewriting", .seconds = 4, .writers = 2},
    {"deleteseq", .percent = 50},
};
static const struct bench_suite_group some_group = {"G", .num = 10000, .cache_size = 1 << 20,
                                                    .rows = some_rows, .count = 4};

Test(suite, operations_are_shared_by_the_threads)
{
    struct bench_flags base = parsed("--num=77", "--threads=1"), f;
    bench_suite_row_flags(&some_group, &some_rows[0], &base, &f);
    cr_assert_eq(f.num, 10000);
    cr_assert_eq(f.threads, 2);
    cr_assert_eq(f.writes, 5000);
    cr_assert_eq(f.reads, 5000);
    cr_assert_eq(f.cache_size, 1 << 20);
}

Test(suite, counts_that_the_runner_divides_are_multiplied_before)
{
    struct bench_flags base = parsed("--num=77", "--threads=1"), f;
    bench_suite_row_flags(&some_group, &some_rows[1], &base, &f);
    cr_assert_eq(f.writes / (int64_t)bench_workload_find("fillsync")->divide, 3000);
}

Test(suite, deletes_are_counted_as_the_row_says)
{
    struct bench_flags base = parsed("--deletes=7", "--threads=1"), f;
    bench_suite_row_flags(&some_group, &some_rows[3], &base, &f);
    cr_assert_eq(f.deletes, 5000);
}

Test(suite, scale_makes_keys_operations_time_and_memory_smaller)
{
    struct bench_flags base = parsed("--scale=0.1", "--threads=1"), f;
    bench_suite_row_flags(&some_group, &some_rows[0], &base, &f);
    cr_assert_eq(f.num, 1000);
    cr_assert_eq(f.writes, 500);
    cr_assert_eq(f.cache_size, (1 << 20) / 10);
    bench_suite_row_flags(&some_group, &some_rows[2], &base, &f);
    cr_assert(fabs(f.duration - 0.4) < 1e-9);
    cr_assert_eq(f.writers, 2);
}

Test(suite, what_the_command_line_says_wins)
{
    struct bench_flags base = parsed("--cache_size=5", "--duration=9"), f;
    bench_suite_row_flags(&some_group, &some_rows[2], &base, &f);
    cr_assert_eq(f.cache_size, 5);
    cr_assert(fabs(f.duration - 9) < 1e-9);
    base = parsed("--suite=quick", "--rounds=7");
    cr_assert_eq(base.rounds, 7);
    cr_assert_str_eq(base.compression_type, "none");
    base = parsed("--rounds=8", "--suite=peers"); /* in either order */
    cr_assert_eq(base.rounds, 8);
    cr_assert_eq(base.max_background_jobs, 2);
}

Test(suite, every_suite_names_benchmarks_that_exist)
{
    static const char *const names[] = {"quick", "peers",  "stability", "cache",
                                        "guard", "growth", "threads",   "empty"};
    cr_assert_eq(bench_suites_count, sizeof(names) / sizeof(names[0]));
    for (size_t i = 0; i < bench_suites_count; i++) {
        cr_assert_not_null(bench_suite_find(names[i]), "%s", names[i]);
    }
    for (size_t i = 0; i < bench_suites_count; i++) {
        const struct bench_suite *s = &bench_suites[i];
        for (size_t g = 0; g < s->count; g++) {
            for (size_t r = 0; r < s->groups[g].count; r++) {
                const char *name = s->groups[g].rows[r].benchmark;
                const char *label = s->groups[g].rows[r].label;
                cr_assert_not_null(bench_workload_find(name), "%s", name);
                /* It is a field of the CSV files as it stands. */
                cr_assert(label == NULL || strpbrk(label, ",\"\n") == NULL, "%s", label);
            }
        }
    }
    cr_assert_null(bench_suite_find("nosuch"));
}

Test(suite, a_list_becomes_one_group)
{
    struct bench_suite_list l;
    cr_assert_eq(bench_suite_from_list(&l, "fillseq,readrandom[X3-W2],readseq"), 0);
    cr_assert_eq(l.group.count, 3);
    cr_assert_str_eq(l.rows[1].benchmark, "readrandom");
    cr_assert_eq(l.rows[1].repeats, 3);
    cr_assert_eq(l.rows[1].warm_ups, 2);
    bench_suite_list_free(&l);
    cr_assert_eq(bench_suite_from_list(&l, "fillseq,nosuch,readseq"), 1);
    cr_assert_eq(l.group.count, 2);
    bench_suite_list_free(&l);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct bench_engine one = {.name = "one"}, two = {.name = "two"},
                                 six = {.name = "six"};

static struct bench_sample sample(uint32_t engine, uint32_t round, double speed)
{
    struct bench_sample s = {.line = 1, .engine = engine, .round = round};
    s.row.ops = 1000;
    s.row.seconds = 1000 / speed;
    s.row.timed = true;
    s.row.all.p99 = 10 * speed;
    s.row.all.max = 100 * speed;
    s.row.kernel_amp = round == 0 ? -1 : 2;
    s.row.peak_rss = 1000 + round;
    s.row.background_ops = -1;
    s.row.seconds_seen = (struct bench_seconds_summary){10, 100 - 10 * round, 100};
    return s;
}

Test(suite, the_table_has_medians_worsts_and_the_best_peer)
{
    struct bench_sample all[] = {sample(1, 0, 50),  sample(0, 0, 100), sample(2, 0, 200),
                                 sample(0, 1, 120), sample(1, 1, 60),  sample(2, 1, 240),
                                 sample(2, 2, 280), sample(1, 2, 70),  sample(0, 2, 140)};
    struct bench_samples samples = {.all = all, .count = 9, .rounds = 3};
    struct bench_store stores[] = {{.engine = &one}, {.engine = &two}, {.engine = &six}};
    struct bench_store *const list[] = {&stores[0], &stores[1], &stores[2]};
    const struct bench_suite s = {"s", .groups = &some_group, .count = 1};
    struct bench_table t;
    cr_assert_eq(bench_table_init(&t, &s, &samples, list, 3), 0);
    cr_assert_eq(t.count, 3);
    const struct bench_entry *e = t.entries;
    cr_assert_str_eq(e[0].label, "fillsync");
    cr_assert_eq(e[0].runs, 3);
    cr_assert(fabs(e[0].speed - 120) < 1e-6);
    cr_assert(fabs(e[0].spread - 40.0 / 120) < 1e-6);
    cr_assert(fabs(e[0].p99_ns - 1200) < 1e-6);
    cr_assert(fabs(e[0].longest_ns - 14000) < 1e-6);
    cr_assert(fabs(e[0].amp - 2) < 1e-6);
    cr_assert(fabs(e[0].peak_rss - 1002) < 1e-6);
    cr_assert(fabs(e[0].worst_second - 0.8) < 1e-6);
    cr_assert_eq(e[0].than, &six);
    cr_assert(fabs(e[0].ratio.mid - 0.5) < 1e-6);
    cr_assert_eq(e[1].than, &two);
    cr_assert(fabs(e[1].ratio.mid - 2) < 1e-6);
    cr_assert(e[1].ratio.bounded);
    bench_table_destroy(&t);
}

Test(suite, an_engine_whose_process_died_is_missing_from_the_table_and_pairs)
{
    struct bench_sample all[] = {sample(0, 0, 100), sample(0, 1, 100), sample(2, 1, 50)};
    struct bench_samples samples = {.all = all, .count = 3, .rounds = 2};
    struct bench_store stores[] = {{.engine = &one}, {.engine = &two}, {.engine = &six}};
    struct bench_store *const list[] = {&stores[0], &stores[1], &stores[2]};
    const struct bench_suite s = {"s", .groups = &some_group, .count = 1};
    struct bench_table t;
    cr_assert_eq(bench_table_init(&t, &s, &samples, list, 3), 0);
    cr_assert_eq(t.count, 2);
    cr_assert_eq(t.entries[1].engine, &six);
    cr_assert_eq(t.entries[1].runs, 1);
    cr_assert(fabs(t.entries[1].ratio.mid - 2) < 1e-6);
    cr_assert(!t.entries[1].ratio.bounded);
    bench_table_destroy(&t);
}

/* ---- bars ------------------------------------------------------------------------------------ */

static const struct bench_engine loam_named = {.name = "loam"}, leveldb_named = {.name = "leveldb"},
                                 lmdb_named = {.name = "lmdb"}, rocksdb_named = {.name = "rocksdb"};

static struct bench_entry entry_of(const struct bench_engine *e, const char *group,
                                   const char *label)
{
    static struct bench_suite_group groups[2] = {{.name = "M", .num = 1000}, {.name = "S"}};
    struct bench_entry out = {.group = strcmp(group, "M") == 0 ? &groups[0] : &groups[1],
                              .label = label,
                              .engine = e,
                              .note = "",
                              .amp = -1,
                              .space = -1,
                              .background = -1};
    bench_bars_set(&out);
    return out;
}

Test(bars, are_what_was_set_for_loam_by_what_was_measured_of_the_peer)
{
    cr_assert(fabs(entry_of(&leveldb_named, "M", "fillrandom").bar - 950.0 / 309) < 1e-9);
    cr_assert(fabs(entry_of(&lmdb_named, "S", "readrandom").bar - 1400.0 / 1385) < 1e-9);
    cr_assert(fabs(entry_of(&lmdb_named, "M", "readwhilewriting").background_bar - 450.0 / 112) <
              1e-9);
    cr_assert(entry_of(&lmdb_named, "S", "fillrandom").bar <= 0, "no such row in the table");
    cr_assert(entry_of(&rocksdb_named, "M", "fillrandom").bar <= 0, "nothing is claimed from it");
    cr_assert(entry_of(&loam_named, "M", "fillrandom").bar <= 0);
}

Test(bars, every_row_with_a_bar_is_in_the_suite_and_the_other_way_round)
{
    const struct bench_suite *s = bench_suite_find("peers");
    size_t rows = 0, barred = 0;
    for (size_t g = 0; g < s->count; g++) {
        for (size_t r = 0; r < s->groups[g].count; r++) {
            const struct bench_suite_row *row = &s->groups[g].rows[r];
            struct bench_entry e = {.group = &s->groups[g],
                                    .label = row->label != NULL ? row->label : row->benchmark,
                                    .engine = &lmdb_named};
            bench_bars_set(&e);
            rows++;
            barred += e.bar > 0;
            cr_assert(e.bar > 0 || strcmp(e.label, "filluniquerandom") == 0, "%s", e.label);
        }
    }
    cr_assert_eq(barred, rows - 1, "readers of regime S have to be given keys, which is no bar");
    cr_assert_eq(barred, bench_bars_count());
}

/* What the printed bars say. */
static char *printed(struct bench_entry *entries, size_t n)
{
    struct bench_table t = {entries, n};
    struct bench_flags f = parsed("--suite=peers", "--threads=1");
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bench_bars_print(&t, &f, out);
    fclose(out);
    return text;
}

Test(bars, say_which_are_met)
{
    struct bench_entry e[3] = {entry_of(&loam_named, "M", "readwhilewriting"),
                               entry_of(&leveldb_named, "M", "readwhilewriting"),
                               entry_of(&lmdb_named, "M", "readwhilewriting")};
    e[0].background = 100;
    for (int i = 1; i < 3; i++) {
        e[i].than = e[i].engine;
        e[i].ratio.mid = 1;
        e[i].background = 30;
    }
    cr_assert(!bench_bar_met(&e[1], &e[0]), "too few reads");
    cr_assert(!bench_bar_met(&e[2], &e[0]), "enough reads, and too few writes");
    e[2].background = 20;
    cr_assert(bench_bar_met(&e[2], &e[0]));
    char *text = printed(e, 3);
    cr_assert_not_null(strstr(text, "3 of 4 bars met"), "%s", text);
    free(text);
}

/* Most rows have nobody who writes beside. */
Test(bars, without_a_writer_the_ratio_alone_decides)
{
    struct bench_entry mine = entry_of(&loam_named, "M", "readrandom");
    struct bench_entry peer = entry_of(&leveldb_named, "M", "readrandom");
    cr_assert_eq(mine.background, -1);
    peer.ratio.mid = 1.01 * peer.bar;
    cr_assert(bench_bar_met(&peer, &mine));
    peer.ratio.mid = 0.99 * peer.bar;
    cr_assert(!bench_bar_met(&peer, &mine));
}

Test(bars, limits_stand_for_themselves)
{
    struct bench_entry e[2] = {entry_of(&loam_named, "M", "fillrandom"),
                               entry_of(&leveldb_named, "M", "fillrandom")};
    e[0].amp = 2.8;
    e[0].timed = true;
    e[0].longest_ns = 3e6;
    e[0].p999_ns = 21e3;
    e[0].peak_rss = (400.0 + 1) * 1048576; /* the budget is 384 MiB */
    char *text = printed(e, 2);
    cr_assert_not_null(strstr(text, "1 of 4 bars met"), "%s", text);
    free(text);
}

Test(bars, say_nothing_of_rows_without_any)
{
    struct bench_entry e[1] = {entry_of(&loam_named, "S", "fillrandom")};
    char *text = printed(e, 1);
    cr_assert_str_eq(text, "");
    free(text);
}

/* ---- rows as JSON ---------------------------------------------------------------------------- */

Test(rows, tell_how_long_they_took_and_what_was_seen_second_by_second)
{
    const struct bench_row row = {.name = "r",
                                  .engine = "one",
                                  .ops = 10,
                                  .seconds = 2.5,
                                  .background_ops = -1,
                                  .seconds_seen = {2, 3, 4}};
    json_t *o = bench_row_json(&row), *by_second = json_object_get(o, "by_second");
    cr_assert(fabs(json_number_value(json_object_get(o, "seconds")) - 2.5) < 1e-9);
    cr_assert_eq(json_integer_value(json_object_get(by_second, "count")), 2);
    cr_assert(fabs(json_number_value(json_object_get(by_second, "worst_ops")) - 3) < 1e-9);
    json_decref(o);
}

/* ---- growth ---------------------------------------------------------------------------------- */

Test(growth, sizes_stand_side_by_side_with_the_last_by_the_first)
{
    static const struct bench_suite_group groups[] = {{.name = "small"}, {.name = "large"}};
    struct bench_suite s = {"s", .groups = groups, .count = 2, .across_groups = true};
    struct bench_entry e[2] = {
        {.group = &groups[0], .label = "r", .engine = &one, .speed = 1e6, .amp = -1, .space = -1},
        {.group = &groups[1], .label = "r", .engine = &one, .speed = 4e5, .amp = 3, .space = -1}};
    struct bench_table t = {e, 2};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bench_growth_print(&t, &s, out);
    fflush(out);
    cr_assert_not_null(strstr(text, "      1.000      2.500   2.50x"), "%s", text);
    cr_assert_not_null(strstr(text, "B/B                      -       3.00\n"), "%s", text);
    cr_assert_null(strstr(text, "disk / live"));
    long before = ftell(out);
    s.across_groups = false;
    bench_growth_print(&t, &s, out);
    fclose(out);
    cr_assert_eq((long)size, before);
    free(text);
}
