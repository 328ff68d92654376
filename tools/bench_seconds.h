/* bench_seconds.h - Operations of each second of a running benchmark, and its longest operation.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A thread of its own wakes up once a second and reads the counters of the others, who never wait
 * for it. The last second, which is not whole, is left out.
 */
#ifndef LOAM_TOOLS_BENCH_SECONDS_H_
#define LOAM_TOOLS_BENCH_SECONDS_H_

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_job;

struct bench_second {
    double ops;          /* a second; of all threads but the extra ones */
    uint64_t longest_ns; /* that ended in it; 0 when latencies are not kept */
};

struct bench_seconds {
    const struct bench_job *job;
    struct bench_second *all;
    size_t count, cap;
    uint64_t start_ns, last_ns, last_ops;
    bool running;
    pthread_t thread;
    pthread_mutex_t lock; /* protects stop */
    pthread_cond_t wake;
    bool stop;
};

/* wanted: false makes both do nothing. */
void bench_seconds_start(struct bench_seconds *s, const struct bench_job *job, bool wanted);
void bench_seconds_stop(struct bench_seconds *s);
void bench_seconds_free(struct bench_seconds *s);

/* The slowest whole second and the middle one, in operations. */
struct bench_seconds_summary {
    uint64_t count;
    double worst, median;
};
struct bench_seconds_summary bench_seconds_sum_up(const struct bench_second *all, size_t n);

/* Appends a line a second to a CSV file, or makes it with its head. 0, or -1 with errno. */
int bench_seconds_create(const char *path);
int bench_seconds_append(const struct bench_seconds *s, const char *path, const char *engine,
                         const char *name, uint64_t run);

#endif
