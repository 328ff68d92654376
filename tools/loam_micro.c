/* loam_micro.c - Times the memory structures alone, and mixes over all of them, a line a workload.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A line reads as loam-bench's do: microseconds per operation of one thread, operations per second of all;
 * then the processor time of one operation, which a loaded machine disturbs least, the bar it is held
 * against, if the row has one, and what else there is to say. Times are of the loop alone: threads, keys
 * and orders are made before.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/micro.h"

static const struct micro_row *const groups[] = {micro_arena_rows,    micro_slotmap_rows,
                                                 micro_slab_rows,     micro_ring_rows,
                                                 micro_memtable_rows, micro_db_rows};
#define GROUPS (sizeof groups / sizeof *groups)

struct times {
    double wall, cpu; /* seconds */
};
static _Thread_local struct times started, counted;

void micro_die(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("loam-micro: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void micro_start(void)
{
    started = (struct times){seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_THREAD_CPUTIME_ID)};
}

void micro_stop(void)
{
    counted.wall += seconds_of(CLOCK_MONOTONIC) - started.wall;
    counted.cpu += seconds_of(CLOCK_THREAD_CPUTIME_ID) - started.cpu;
}

struct worker {
    pthread_t thread;
    struct micro_run *run;
    micro_body *fn;
    pthread_barrier_t *barrier;
    unsigned index;
    struct times spent;
};

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    pthread_barrier_wait(w->barrier);
    counted = (struct times){0, 0};
    micro_start();
    w->fn(w->run, w->index);
    if (counted.wall == 0) {
        micro_stop(); /* nothing was left out */
    }
    w->spent = counted;
    return NULL;
}

void micro_threads(struct micro_run *r, micro_body *fn)
{
    struct worker *all = calloc(r->threads, sizeof *all);
    pthread_barrier_t barrier;
    if (all == NULL || pthread_barrier_init(&barrier, NULL, r->threads) != 0) {
        micro_die("no memory for %u threads", r->threads);
    }
    for (unsigned i = 0; i < r->threads; i++) {
        all[i] = (struct worker){.run = r, .fn = fn, .barrier = &barrier, .index = i};
        if (pthread_create(&all[i].thread, NULL, worker_main, &all[i]) != 0) {
            micro_die("no thread %u", i);
        }
    }
    for (unsigned i = 0; i < r->threads; i++) {
        pthread_join(all[i].thread, NULL);
        r->seconds = all[i].spent.wall > r->seconds ? all[i].spent.wall : r->seconds;
        r->cpu_seconds += all[i].spent.cpu;
    }
    pthread_barrier_destroy(&barrier);
    free(all);
}

static void run_row(const struct micro_row *row, uint64_t num, unsigned threads)
{
    struct micro_run r = {.row = row,
                          .num = num != 0 ? num : row->num,
                          .threads = threads != 0 && row->threads != 1 ? threads : row->threads,
                          .seed = 301};
    row->run(&r);
    if (r.done == 0) {
        r.done = r.num;
    }
    double micros = r.seconds * 1e6 * r.threads / (double)r.done;
    printf("%-30s : %11.5f micros/op %10.0f ops/sec %.3f seconds %" PRIu64 " operations;",
           row->name, micros, (double)r.done / r.seconds, r.seconds, r.done);
    if (r.threads > 1) {
        printf(" %u threads;", r.threads);
    }
    if (r.cpu_seconds != 0) {
        printf(" cpu %.1f ns;", r.cpu_seconds * 1e9 / (double)r.done);
    }
    if (row->bar_nanos != 0) {
        printf(" bar %.0f ns;", row->bar_nanos);
    }
    printf("%s%s\n", r.note[0] != '\0' ? " " : "", r.note);
    fflush(stdout);
}

/* Whether a name is in a list of names and prefixes (ending in *), divided by commas. */
static bool chosen(const char *list, const char *name)
{
    for (const char *at = list; *at != '\0';) {
        size_t n = strcspn(at, ",");
        if (n != 0 && at[n - 1] == '*' ? strncmp(at, name, n - 1) == 0
                                       : strlen(name) == n && strncmp(at, name, n) == 0) {
            return true;
        }
        at += n + (at[n] == ',');
    }
    return false;
}

static const char help[] =
    "usage: loam-micro [--benchmarks=NAME,PREFIX*,...] [--num=N] [--threads=N] [--list]\n"
    "Times arena, slotmap, slab, ring and memtable alone, and a database with little memory.\n"
    "  --benchmarks  which rows, in the order of --list (default: all)\n"
    "  --num         operations or entries of each row, instead of its own number\n"
    "  --threads     threads of the rows for several (default 4)\n"
    "  --list        names the rows\n";

static void list_rows(void)
{
    for (size_t g = 0; g < GROUPS; g++) {
        for (const struct micro_row *row = groups[g]; row->name != NULL; row++) {
            printf("%-30s %s\n", row->name, row->what);
        }
    }
}

int main(int argc, char **argv)
{
    const char *names = "*";
    uint64_t num = 0;
    unsigned threads = 0, ran = 0;
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--benchmarks=", 13) == 0) {
            names = argv[i] + 13;
        } else if (strncmp(argv[i], "--num=", 6) == 0) {
            num = strtoull(argv[i] + 6, NULL, 10);
        } else if (strncmp(argv[i], "--threads=", 10) == 0) {
            threads = (unsigned)strtoul(argv[i] + 10, NULL, 10);
        } else if (strcmp(argv[i], "--list") == 0) {
            list_rows();
            return 0;
        } else {
            bool asked = strcmp(argv[i], "--help") == 0;
            fputs(help, asked ? stdout : stderr);
            return asked ? 0 : 2;
        }
    }
    for (size_t g = 0; g < GROUPS; g++) {
        for (const struct micro_row *row = groups[g]; row->name != NULL; row++) {
            if (chosen(names, row->name)) {
                run_row(row, num, threads);
                ran++;
            }
        }
    }
    if (ran == 0) {
        micro_die("no row has a name like %s; see --list", names);
    }
    return 0;
}
