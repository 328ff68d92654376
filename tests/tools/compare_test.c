/* compare_test.c - Engines see the same keys, take turns, and may die without taking others along.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The engines here store nothing: they fold what they are given into a sum in memory shared with
 * the child processes that bench_compare() starts.
 */
#include "tools/bench_compare.h"

#include <criterion/criterion.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 3, ENGINES = 2, KEYS = 500, LARGE = 64 << 20 };

struct shared {
    uint64_t puts[ENGINES], sum[ENGINES];
    int order[ROUNDS * ENGINES], opened;
    pid_t process[ROUNDS * ENGINES];
    bool second_dies, slow_gets, large_wait;
};
static struct shared *shared;

struct fake_session {
    struct bench_session head;
    int engine;
};

static int fake_open(int engine, void **db)
{
    static int names[ENGINES] = {0, 1};
    *db = &names[engine];
    if (shared->opened < ROUNDS * ENGINES) {
        shared->order[shared->opened] = engine;
        shared->process[shared->opened++] = getpid();
    }
    return BENCH_OK;
}

static int open_first(const struct bench_open *how, void **db)
{
    (void)how;
    return fake_open(0, db);
}

static int open_second(const struct bench_open *how, void **db)
{
    (void)how;
    return fake_open(1, db);
}

static int fake_close(void *db)
{
    (void)db;
    return BENCH_OK;
}

static int fake_destroy(const char *dir)
{
    (void)dir;
    return BENCH_OK;
}

static int fake_session_open(void *db, struct bench_session **out)
{
    struct fake_session *s = calloc(1, sizeof(*s));
    s->engine = *(int *)db;
    *out = &s->head;
    return BENCH_OK;
}

static void fake_session_close(struct bench_session *head)
{
    free(head);
}

static int fake_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    int engine = ((struct fake_session *)head)->engine;
    for (size_t i = 0; i < key.size; i++) {
        shared->sum[engine] = shared->sum[engine] * 31 + ((const unsigned char *)key.data)[i];
    }
    shared->sum[engine] = shared->sum[engine] * 31 + ((const unsigned char *)value.data)[0];
    shared->puts[engine]++;
    return BENCH_OK;
}

static int fake_get(struct bench_session *head, loam_slice key, loam_slice *value)
{
    (void)value;
    if (shared->second_dies && ((struct fake_session *)head)->engine == 1) {
        raise(SIGKILL);
    }
    for (clock_t until = clock() + CLOCKS_PER_SEC / 1000; shared->slow_gets && clock() < until;) {
    }
    return key.size > 0 ? BENCH_NOTFOUND : BENCH_ERROR;
}

static int fake_erase(struct bench_session *head, loam_slice key)
{
    (void)head;
    return key.size > 0 ? BENCH_OK : BENCH_ERROR;
}

static int fake_commit(struct bench_session *head)
{
    return head != NULL ? BENCH_OK : BENCH_ERROR;
}

static int fake_wait(void *db)
{
    (void)db;
    if (shared->large_wait) {
        void *p = mmap(NULL, LARGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        cr_assert_neq(p, MAP_FAILED);
        munmap(p, LARGE);
    }
    return BENCH_OK;
}

#define FAKE                                                                                       \
    .close = fake_close, .destroy = fake_destroy, .session_open = fake_session_open,               \
    .session_close = fake_session_close, .put = fake_put, .get = fake_get, .wait_idle = fake_wait, \
    .erase = fake_erase, .batch_erase = fake_erase, .batch_commit = fake_commit

static const struct bench_engine first = {.name = "first", .open = open_first, FAKE};
static const struct bench_engine second = {.name = "second", .open = open_second, FAKE};

/* ---- one comparison -------------------------------------------------------------------------- */

enum oddity { NO_ODDITY, SECOND_DIES, LARGE_WAIT };

static void compare(const char *benchmarks, enum oddity oddity, struct bench_samples *samples)
{
    char *argv[] = {"loam-bench", "--num=500", "--rounds=3", "--progress=none", NULL};
    static struct bench_flags flags;
    static struct bench_store stores[ENGINES];
    struct bench_store *list[] = {&stores[0], &stores[1]};
    struct bench_context c = {.flags = &flags, .keys = {KEY_LEVELDB, 0, 16}, .key_bytes = 16};
    struct bench_suite_list suite;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    shared->second_dies = oddity == SECOND_DIES;
    shared->large_wait = oddity == LARGE_WAIT;
    optind = 1;
    cr_assert_eq(bench_flags_parse(&flags, 4, argv), 0);
    bench_report_init(&c.report, &flags, true);
    cr_assert_eq(bench_pool_init(&c.pool, 0.5, 1000, 1), 0);
    cr_assert_eq(bench_store_init(&stores[0], &first, &flags, "/nonexistent", true), 0);
    cr_assert_eq(bench_store_init(&stores[1], &second, &flags, "/nonexistent", true), 0);
    cr_assert_eq(bench_suite_from_list(&suite, benchmarks), 0);
    cr_assert_eq(bench_compare(&c, list, ENGINES, &suite.suite, false, samples), 0);
    cr_assert_eq(samples->rounds, ROUNDS);
    bench_suite_list_free(&suite);
    bench_pool_destroy(&c.pool);
    bench_report_destroy(&c.report);
}

/* What `recover` starts to be killed is this program again. */
static __attribute__((constructor)) void be_the_killed_writer(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--benchmarks=crashwrite_") == 0) {
            raise(SIGKILL);
        }
    }
}

/* One benchmark on one engine, in this process: the row that it printed. */
static struct bench_row run_here(const char *benchmark, bool slow_gets)
{
    char *argv[] = {"loam-bench",    "--num=500",   "--progress=none",
                    "--disable_wal", "--deletes=0", "--duration=0.2",
                    "--batch_size=100", "--benchmark_write_rate_limit=1000000", NULL};
    struct bench_flags flags;
    struct bench_store store;
    struct bench_context c = {
        .flags = &flags, .keys = {KEY_LEVELDB, 0, 16}, .key_bytes = 16, .argv = argv};
    struct bench_row row;
    shared = calloc(1, sizeof(*shared));
    shared->slow_gets = slow_gets;
    optind = 1;
    cr_assert_eq(bench_flags_parse(&flags, sizeof(argv) / sizeof(argv[0]) - 1, argv), 0);
    bench_report_init(&c.report, &flags, false);
    cr_assert_eq(bench_pool_init(&c.pool, 0.5, 1000, 1), 0);
    cr_assert_eq(bench_store_init(&store, &first, &flags, "/nonexistent", true), 0);
    cr_assert_eq(bench_item_run(&c, &store, bench_workload_find(benchmark), benchmark, true, &row),
                 BENCH_OK);
    cr_assert_eq(bench_store_close(&store), BENCH_OK);
    cr_assert_eq(c.report.count, 1);
    row = c.report.rows[0];
    bench_pool_destroy(&c.pool);
    bench_report_destroy(&c.report);
    free(shared);
    return row;
}

static size_t count(const struct bench_samples *s, uint32_t engine, uint32_t line)
{
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        n += s->all[i].engine == engine && s->all[i].line == line;
    }
    return n;
}

Test(compare, engines_get_the_same_keys_and_values)
{
    struct bench_samples samples;
    compare("fillrandom,overwrite", NO_ODDITY, &samples);
    cr_assert_eq(samples.failed, 0);
    cr_assert_eq(shared->puts[0], 2 * ROUNDS * KEYS);
    cr_assert_eq(shared->puts[1], 2 * ROUNDS * KEYS);
    cr_assert_eq(shared->sum[0], shared->sum[1]);
    bench_samples_free(&samples);
}

Test(compare, each_engine_has_a_process_of_its_own_and_the_first_turn_goes_round)
{
    static const int order[] = {0, 1, 1, 0, 0, 1};
    struct bench_samples samples;
    compare("fillseq", NO_ODDITY, &samples);
    cr_assert_eq(shared->opened, ROUNDS * ENGINES);
    for (int i = 0; i < ROUNDS * ENGINES; i++) {
        cr_assert_eq(shared->order[i], order[i], "turn %d", i);
        cr_assert_neq(shared->process[i], getpid());
        for (int j = 0; j < i; j++) {
            cr_assert_neq(shared->process[i], shared->process[j]);
        }
    }
    for (size_t i = 0; i < samples.count; i++) {
        cr_assert_eq(samples.all[i].row.ops, KEYS);
        cr_assert_str_eq(samples.all[i].row.name, "fillseq");
        cr_assert_gt(samples.all[i].row.peak_rss, 0);
    }
    bench_samples_free(&samples);
}

Test(compare, memory_of_the_work_left_over_counts)
{
    struct bench_samples samples;
    compare("fillseq,readrandom", LARGE_WAIT, &samples);
    for (size_t i = 0; i < samples.count; i++) {
        const struct bench_row *row = &samples.all[i].row;
        if (strcmp(row->name, "fillseq") == 0) {
            cr_assert_gt(row->peak_rss, LARGE);
        } else {
            cr_assert_lt(row->peak_rss, LARGE);
        }
    }
    bench_samples_free(&samples);
}

Test(compare, repeats_are_kept_apart_and_warm_ups_dropped)
{
    struct bench_samples samples;
    compare("fillseq,readrandom[X2-W1]", NO_ODDITY, &samples);
    cr_assert_eq(count(&samples, 0, 1), 2 * ROUNDS);
    cr_assert_eq(samples.all[1].repeat, 0);
    cr_assert_eq(samples.all[2].repeat, 1);
    bench_samples_free(&samples);
}

Test(compare, an_engine_that_dies_loses_its_later_rows_and_nobody_elses)
{
    struct bench_samples samples;
    compare("fillseq,readrandom,overwrite", SECOND_DIES, &samples);
    cr_assert_eq(samples.failed, ROUNDS);
    cr_assert_eq(count(&samples, 0, 0), ROUNDS);
    cr_assert_eq(count(&samples, 0, 2), ROUNDS);
    cr_assert_eq(count(&samples, 1, 0), ROUNDS);
    cr_assert_eq(count(&samples, 1, 1), 0);
    cr_assert_eq(count(&samples, 1, 2), 0);
    bench_samples_free(&samples);
}

/* It looks again a second after the last open, at what its threads have come to. */
Test(rows, the_time_of_opens_is_not_that_of_what_is_looked_at_afterwards)
{
    struct bench_row row = run_here("opennew", false);
    cr_assert_eq(row.ops, 1);
    cr_assert_lt(row.seconds, 0.5, "%f s", row.seconds);
    cr_assert_lt(row.thread_seconds, 0.5, "%f s", row.thread_seconds);
}

/* What the open has brought back is counted by reading it. */
Test(rows, the_cost_of_a_recovery_is_not_that_of_the_look_at_what_came_back)
{
    struct bench_row row = run_here("recover", true);
    cr_assert_eq(row.tried, 500);
    cr_assert_eq(row.ops, 1);
    cr_assert_lt(row.cpu_seconds, 0.25, "%f s", row.cpu_seconds);
    cr_assert_not_null(strstr(row.message, "0 of 500"), "%s", row.message);
}

Test(rows, no_deletes_for_a_while_are_a_few)
{
    cr_assert_gt(run_here("deleterandom", false).ops, 0);
}

/* 116 bytes a write, a million a second; it writes one by one, whatever the size of others' batches. */
Test(rows, the_writer_beside_readers_keeps_to_its_rate)
{
    struct bench_row row = run_here("readwhilewriting", false);
    cr_assert_gt(row.background_ops, 1000, "%f", row.background_ops);
    cr_assert_lt(row.background_ops, 9000, "%f", row.background_ops);
}
