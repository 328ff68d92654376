/* suite_test.c - Rows of suites get the sizes their table says, and the table of results adds up.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_suite.h"

#include <criterion/criterion.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
};
static const struct bench_suite_group some_group = {"G", .num = 10000, .cache_size = 1 << 20,
                                                    .rows = some_rows, .count = 3};

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
    static const char *const names[] = {"quick", "peers", "stability", "cache", "guard"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct bench_suite *s = bench_suite_find(names[i]);
        cr_assert_not_null(s, "%s", names[i]);
        for (size_t g = 0; g < s->count; g++) {
            for (size_t r = 0; r < s->groups[g].count; r++) {
                const char *name = s->groups[g].rows[r].benchmark;
                cr_assert_not_null(bench_workload_find(name), "%s", name);
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
