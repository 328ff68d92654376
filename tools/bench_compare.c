/* bench_compare.c - Runs a suite on several engines, interleaved, each in a process of its own.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_compare.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench_calibrate.h"

/* ---- the child: one group on one engine ------------------------------------------------------ */

struct child {
    struct bench_context *context;
    struct bench_store *store;
    const struct bench_suite_group *group;
    const struct bench_flags *base;
    bool calibrate;
    double calibration_ns;      /* before the next row */
    struct bench_sample sample; /* its numbers are set; the row is filled for each line */
    int pipe;
};

static void send_sample(struct child *k)
{
    const char *at = (const char *)&k->sample;
    for (size_t left = sizeof(k->sample); left > 0;) {
        ssize_t n = write(k->pipe, at, left);
        if (n < 0 && errno != EINTR) {
            _exit(1); /* the parent is gone */
        }
        at += n > 0 ? n : 0;
        left -= n > 0 ? (size_t)n : 0;
    }
}

/* What the row left behind is paid for by the row. */
static void settle(struct child *k)
{
    struct bench_row *row = &k->sample.row;
    if (row->put_bytes > 0 || row->background_ops >= 0) {
        uint64_t begun = bench_now_ns();
        if (bench_store_settle(k->store) != BENCH_OK) {
            bench_die(k->store, "wait");
        }
        row->settle_seconds = (double)(bench_now_ns() - begun) * 1e-9;
        bench_row_add_usage(row);
        row->peak_rss = bench_rss_peak(); /* since the row began */
    }
    row->disk_bytes = bench_disk_bytes(k->store->dir);
}

/* Settled, measured and sent. */
static void finish_row(struct child *k)
{
    struct bench_row *row = &k->sample.row;
    settle(k);
    if (k->calibrate) {
        double after = bench_calibrate();
        row->calibration_ns = (k->calibration_ns + after) / 2;
        k->calibration_ns = after;
    }
    send_sample(k);
}

static void run_line(struct child *k, const struct bench_suite_row *line, uint32_t number)
{
    const struct bench_workload *w = bench_workload_find(line->benchmark);
    const char *label = line->label != NULL ? line->label : line->benchmark;
    struct bench_flags flags;
    bench_suite_row_flags(k->group, line, k->base, &flags);
    k->context->flags = k->store->flags = &flags;
    k->context->timed = !line->untimed;
    k->context->by_second = true;
    unsigned repeats = line->repeats == 0 ? 1 : line->repeats;
    for (unsigned i = 0; i < line->warm_ups + repeats; i++) {
        bool keep = i >= line->warm_ups;
        k->context->round++;
        if (bench_item_run(k->context, k->store, w, label, keep, &k->sample.row) != BENCH_OK) {
            break;
        }
        if (keep && k->sample.row.ops > 0) {
            k->sample.line = number;
            k->sample.repeat = i - line->warm_ups;
            finish_row(k);
        }
    }
    k->context->flags = k->store->flags = k->base;
}

static _Noreturn void child_main(struct child *k, bool keep)
{
    k->calibration_ns = k->calibrate ? bench_calibrate() : 0;
    for (uint32_t i = 0; i < k->group->count; i++) {
        run_line(k, &k->group->rows[i], i);
    }
    if (bench_store_close(k->store) != BENCH_OK ||
        (!keep && k->store->engine->destroy(k->store->dir) != BENCH_OK)) {
        bench_die(k->store, "close");
    }
    fflush(stdout);
    /* Not exit(): what is registered there is the parent's. */
    _exit(0);
}

/* ---- the parent ------------------------------------------------------------------------------ */

static bool add_sample(struct bench_samples *s, const struct bench_sample *one)
{
    if (s->count == s->cap) {
        size_t cap = s->cap == 0 ? 256 : 2 * s->cap;
        struct bench_sample *all = realloc(s->all, cap * sizeof(*all));
        if (all == NULL) {
            return false;
        }
        s->all = all;
        s->cap = cap;
    }
    s->all[s->count++] = *one;
    return true;
}

/* Reads samples to the end of the pipe. An unfinished one at the end is dropped: its child died. */
static bool receive(int fd, struct bench_samples *s)
{
    struct bench_sample one;
    size_t got = 0;
    for (;;) {
        ssize_t n = read(fd, (char *)&one + got, sizeof(one) - got);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return n == 0;
        }
        got += n > 0 ? (size_t)n : 0;
        if (got == sizeof(one)) {
            got = 0;
            if (!add_sample(s, &one)) {
                return false;
            }
        }
    }
}

static void report_end(const struct child *k, int status)
{
    const char *how = WIFSIGNALED(status) ? "signal" : "exit status";
    int number = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
    printf("%-8s group '%s' ended with %s %d; its later rows are missing\n", k->store->engine->name,
           k->group->name, how, number);
    fflush(stdout);
}

/* Forks the child and takes what it sends. -1: no process or no memory. */
static int run_group(struct child *k, bool keep, struct bench_samples *out)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0) {
        return -1;
    }
    /* What one engine left to the disk must not be paid by the next. */
    sync();
    fflush(stdout);
    fflush(stderr);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        k->pipe = ends[1];
        child_main(k, keep);
    }
    close(ends[1]);
    bool all = pid > 0 && receive(ends[0], out);
    close(ends[0]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (pid > 0 && status != 0) {
        out->failed++;
        report_end(k, status);
    }
    return all ? 0 : -1;
}

static int run_round(struct bench_context *c, struct bench_store **stores, size_t n,
                     const struct bench_suite *suite, bool keep, uint32_t round,
                     struct bench_samples *out)
{
    for (uint32_t g = 0; g < suite->count; g++) {
        printf("---- round %u, group '%s'\n", round + 1, suite->groups[g].name);
        for (size_t i = 0; i < n; i++) {
            /* Another one begins each round: whoever is first finds the machine rested. */
            uint32_t e = (uint32_t)((i + round) % n);
            struct child k = {.context = c,
                              .store = stores[e],
                              .group = &suite->groups[g],
                              .base = c->flags,
                              .calibrate = suite->calibrate};
            k.sample.group = g;
            k.sample.engine = e;
            k.sample.round = round;
            /* The same random numbers for all engines, others in each round. */
            c->round = 1000 * (uint64_t)(round + 1) + 100 * (uint64_t)g;
            if (run_group(&k, keep, out) != 0) {
                fprintf(stderr, "loam-bench: %s: %s\n", stores[e]->engine->name, strerror(errno));
                return -1;
            }
        }
    }
    return 0;
}

int bench_compare(struct bench_context *c, struct bench_store **stores, size_t n,
                  const struct bench_suite *suite, bool keep, struct bench_samples *out)
{
    uint64_t limit = (uint64_t)(c->flags->time_limit * 60e9);
    uint64_t start = bench_now_ns(), longest = 0;
    memset(out, 0, sizeof(*out));
    for (uint32_t round = 0; round < (uint32_t)c->flags->rounds; round++) {
        uint64_t begun = bench_now_ns();
        if (limit != 0 && round > 0 && begun - start + longest > limit) {
            printf("---- no time for round %u of %u\n", round + 1, (unsigned)c->flags->rounds);
            break;
        }
        if (run_round(c, stores, n, suite, keep, round, out) != 0) {
            return -1;
        }
        uint64_t took = bench_now_ns() - begun;
        longest = took > longest ? took : longest;
        out->rounds++;
    }
    return 0;
}

void bench_samples_free(struct bench_samples *s)
{
    free(s->all);
    s->all = NULL;
    s->count = s->cap = 0;
}
