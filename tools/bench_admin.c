/* bench_admin.c - Benchmarks of opening, recovering and keeping house, and the printers of numbers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_usage.h"
#include "tools/bench_workloads.h"

static int open_timed(struct bench_thread *t)
{
    int rc = bench_store_open(t->store);
    bench_stats_done(&t->stats, OP_OTHER, 1);
    return rc;
}

void bench_open_close(struct bench_thread *t)
{
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        uint64_t since = bench_now_ns();
        bench_ok(t, bench_store_close(t->store), "close");
        bench_stats_leave_out(&t->stats, since);
        bench_ok(t, open_timed(t), "open");
    }
}

void bench_open_new(struct bench_thread *t)
{
    const struct timespec second = {1, 0};
    struct bench_stats *s = &t->stats;
    uint64_t rss = 0;
    unsigned threads = 0;
    bench_thread_limit(t, t->job->reads);
    while (bench_more(t)) {
        uint64_t since = bench_now_ns();
        bench_ok(t, bench_store_close(t->store), "close");
        bench_ok(t, t->engine->destroy(t->store->dir), "destroy");
        rss = bench_rss_now();
        threads = bench_threads_now();
        bench_stats_leave_out(&t->stats, since);
        bench_ok(t, open_timed(t), "open");
    }
    bench_stats_stop(s);
    s->open_rss = bench_rss_now() > rss ? bench_rss_now() - rss : 0;
    s->open_threads = bench_threads_now() - threads;
    nanosleep(&second, NULL); /* threads that go when there is nothing to do go now */
    s->idle_threads = bench_threads_now() - threads;
}

void bench_open_message(const struct bench_stats *s, char *out, size_t cap)
{
    snprintf(out, cap, "(%.2f MiB more, %u threads, after a second %u)",
             (double)s->open_rss / 1048576, s->open_threads, s->idle_threads);
}

void bench_flush(struct bench_thread *t)
{
    bench_ok(t, t->engine->flush(t->store->db), "flush");
    bench_stats_done(&t->stats, OP_OTHER, 1);
}

void bench_compact(struct bench_thread *t)
{
    bench_ok(t, t->engine->compact(t->store->db), "compact");
    bench_stats_done(&t->stats, OP_OTHER, 1);
}

void bench_wait_idle(struct bench_thread *t)
{
    bench_ok(t, bench_store_settle(t->store), "wait");
    bench_stats_done(&t->stats, OP_OTHER, 1);
}

/* Reads everything through a handle that verifies each checksum. */
void bench_verify(struct bench_thread *t)
{
    struct bench_open how = bench_store_how(t->store);
    how.paranoid = true;
    bench_ok(t, bench_store_close(t->store), "close");
    bench_ok(t, t->engine->open(&how, &t->store->db), "open");
    bench_ok(t, t->engine->session_open(t->store->db, &t->session), "session");
    t->job->reads = UINT64_MAX;
    bench_stats_restart(&t->stats);
    bench_read_forward(t);
    bench_stats_stop(&t->stats);
    t->engine->session_close(t->session);
    t->session = NULL;
    bench_ok(t, bench_store_close(t->store), "close");
    bench_ok(t, bench_store_open(t->store), "open");
}

/* ---- recover: a writer is killed, then the time to open is taken ----------------------------- */

/* Starts this program again to fill the directory and be killed. 0, or -1 with a text. */
static int run_killed_writer(struct bench_context *c, const struct bench_store *s)
{
    char db[BENCH_PATH_MAX + 8], engine[64];
    snprintf(db, sizeof(db), "--db=%s", s->dir);
    snprintf(engine, sizeof(engine), "--engine=%s", s->engine->name);
    char *const extra[] = {"--benchmarks=crashwrite_",
                           engine,
                           db,
                           "--nouse_existing_db",
                           "--noreadonly",
                           "--progress=none",
                           "--json=",
                           "--csv=",
                           "--suite=",
                           "--rounds=1",
                           "--seconds_csv="};
    size_t n = 0, more = sizeof(extra) / sizeof(extra[0]);
    while (c->argv[n] != NULL) {
        n++;
    }
    char **argv = calloc(n + more + 1, sizeof(*argv));
    if (argv == NULL) {
        return bench_engine_fail("out of memory");
    }
    memcpy(argv, c->argv, n * sizeof(*argv));
    memcpy(argv + n, extra, sizeof(extra));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    int status = 0;
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    free(argv);
    if (child < 0 || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        return bench_engine_fail("the writer did not live to be killed (status %d)", status);
    }
    return BENCH_OK;
}

/* Counts which of the killed writer's keys are there. */
static void count_survivors(struct bench_thread *t)
{
    struct permutation p;
    uint64_t n = t->job->writes < t->job->num ? t->job->writes : t->job->num;
    permutation_init(&p, t->job->num, bench_fill_seed(t->job->context));
    for (uint64_t i = 0; i < n; i++) {
        bench_get(t, bench_key(t, permutation_at(&p, i)), OP_READ);
    }
}

/* Opens the store; the row is that of the open alone. */
static int timed_recovery(struct bench_store *s, struct bench_row *row)
{
    struct bench_stats once;
    *row = (struct bench_row){.name = "recover",
                              .engine = s->engine->name,
                              .threads = 1,
                              .background_ops = -1,
                              .write_amp = -1,
                              .settle_seconds = -1};
    bench_rss_reset();
    bench_usage_now(&row->before);
    bench_stats_init(&once, 0, false);
    bench_stats_start(&once, 0, 0);
    int rc = bench_store_open(s);
    bench_stats_stop(&once);
    once.done = 1;
    bench_row_from_stats(row, &once);
    row->own_cpu_seconds = once.cpu_seconds;
    row->peak_rss = bench_rss_peak();
    bench_row_add_usage(row);
    return rc;
}

int bench_recover(struct bench_context *c, struct bench_store *s)
{
    static const struct bench_workload survivors = {
        .name = "recover", .run = count_survivors, .role = ROLE_READ, .alone = true};
    int rc = bench_store_close(s);
    rc = rc == BENCH_OK ? run_killed_writer(c, s) : rc;
    if (rc != BENCH_OK) {
        return rc;
    }
    struct bench_row row, read;
    rc = timed_recovery(s, &row);
    if (rc != BENCH_OK) {
        return rc;
    }
    struct bench_stats reads;
    bench_run(c, s, &survivors, row.name, &read, &reads);
    row.bytes = read.bytes;
    row.tried = read.tried;
    row.found = read.found;
    memcpy(row.message, read.message, sizeof(row.message));
    bench_stats_destroy(&reads);
    bench_report_row(&c->report, &row, NULL);
    if (row.found < row.tried && !c->flags->disable_wal) {
        return bench_engine_fail("acknowledged writes are gone after the kill");
    }
    return BENCH_OK;
}

/* ---- memtable: everything stays in memory ---------------------------------------------------- */

static void memtable_insert(struct bench_thread *t)
{
    struct permutation p;
    uint64_t num = t->job->num, from = num * t->index / t->job->threads;
    uint64_t to = num * (t->index + 1) / t->job->threads;
    permutation_init(&p, num, bench_fill_seed(t->job->context));
    bench_thread_limit(t, to - from);
    for (uint64_t i = from; bench_more(t); i++) {
        bench_put(t, bench_key(t, permutation_at(&p, i)), OP_WRITE);
    }
}

int bench_memtable(struct bench_context *c, struct bench_store *s)
{
    static const struct bench_workload parts[] = {
        {.name = "memtable.insert", .run = memtable_insert, .role = ROLE_WRITE},
        {.name = "memtable.get", .run = bench_read_random, .role = ROLE_READ},
        {.name = "memtable.iterate", .run = bench_read_forward, .role = ROLE_READ},
    };
    /* Nobody knows from outside what share of a budget a memtable gets; a sixteenth it is. */
    uint64_t entry = c->key_bytes + (uint64_t)c->flags->value_size + 64;
    uint64_t budget = entry * (uint64_t)c->flags->num * 16, least = UINT64_C(1) << 30;
    struct bench_flags flags = *c->flags;
    struct bench_store store;
    char parent[BENCH_PATH_MAX];
    flags.disable_wal = true;
    flags.sync = flags.readonly = false;
    flags.memory_budget = (int64_t)(budget < least ? least : budget);
    if (snprintf(parent, sizeof(parent), "%s-memtable", s->dir) >= (int)sizeof(parent) ||
        bench_store_init(&store, s->engine, &flags, parent, false) != 0) {
        return bench_engine_fail("the path is too long");
    }
    int rc = bench_store_fresh(&store);
    for (size_t i = 0; rc == BENCH_OK && i < sizeof(parts) / sizeof(parts[0]); i++) {
        struct bench_row row;
        struct bench_stats merged;
        bench_run(c, &store, &parts[i], parts[i].name, &row, &merged);
        row.write_amp = -1;
        bench_report_row(&c->report, &row, &merged);
        bench_stats_destroy(&merged);
    }
    int closed = bench_store_close(&store);
    store.engine->destroy(store.dir);
    return rc != BENCH_OK ? rc : closed;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static int print_with(struct bench_store *s, int (*print)(void *db, FILE *out))
{
    if (print == NULL) {
        return BENCH_UNSUPPORTED;
    }
    int rc = print(s->db, stdout);
    fflush(stdout);
    return rc;
}

int bench_print_stats(struct bench_context *c, struct bench_store *s)
{
    (void)c;
    return print_with(s, s->engine->print_stats);
}

int bench_print_levels(struct bench_context *c, struct bench_store *s)
{
    (void)c;
    return print_with(s, s->engine->print_levels);
}

int bench_print_memory(struct bench_context *c, struct bench_store *s)
{
    (void)c;
    return print_with(s, s->engine->print_memory);
}
