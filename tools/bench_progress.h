/* bench_progress.h - Shows how far a running benchmark is, from a thread that only reads counters.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_PROGRESS_H_
#define LOAM_TOOLS_BENCH_PROGRESS_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct bench_job;

enum progress_kind { PROGRESS_NONE, PROGRESS_LINE, PROGRESS_BAR, PROGRESS_JSON };

struct bench_progress {
    const struct bench_job *job;
    const char *name;
    enum progress_kind kind;
    uint64_t report_ns; /* of --report_interval_seconds; 0 = none */
    uint64_t start_ns, last_ns, last_ops, next_report_ns, report_ops;
    unsigned tenths; /* lines printed */
    bool running;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
};

/* Does nothing, and starts no thread, when nothing is to be shown. */
void bench_progress_start(struct bench_progress *p, const struct bench_job *job, const char *name);
void bench_progress_stop(struct bench_progress *p);

#endif
