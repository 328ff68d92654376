/* bench_run.h - Runs one benchmark on one store: threads that start together, merged into one row.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_BENCH_RUN_H_
#define LOAM_TOOLS_BENCH_RUN_H_

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/bench_keygen.h"
#include "tools/bench_report.h"
#include "tools/bench_stats.h"
#include "tools/bench_store.h"
#include "tools/bench_values.h"

struct bench_thread;

/* What all benchmarks of a run share. */
struct bench_context {
    const struct bench_flags *flags;
    struct bench_pool pool;
    struct key_format keys;
    size_t key_bytes;
    struct bench_report report;
    bool timed;     /* keep the latency of every operation */
    bool by_second; /* watch the speed second by second */
    uint64_t round; /* counts benchmarks: each has its own random numbers, alike on all engines */
    char **argv;    /* of the program, for benchmarks that start it again */
};

enum bench_role { ROLE_READ, ROLE_WRITE, ROLE_MIXED };

/* What extra threads, the first indexes, do meanwhile; their work is not in the row. */
enum bench_extra { EXTRA_NONE, EXTRA_WRITER, EXTRA_SCANNER };

/* A benchmark as the table of names has it. */
struct bench_workload {
    const char *name;
    /* The body of each thread; NULL when `admin` does it all. Neither: known but not built. */
    void (*run)(struct bench_thread *t);
    /* Runs in the main thread, prints for itself. BENCH_OK, BENCH_UNSUPPORTED or BENCH_ERROR. */
    int (*admin)(struct bench_context *c, struct bench_store *s);
    enum bench_role role;
    bool fresh; /* needs an empty database */
    enum bench_extra extra;
    bool alone;      /* one thread whatever --threads says */
    bool no_session; /* the body opens what it needs */
    bool timed_stop; /* --duration replaces the count */
    bool sync;
    bool reads_all; /* one thread reads each entry there is */
    bool noted;     /* its message belongs into the table of a comparison too */
    /* Whether the engine has what it takes; NULL: every engine. */
    bool (*offered)(const struct bench_engine *e);
    uint32_t divide;     /* the count by this; 0 = 1 */
    uint32_t batch;      /* operations of a write, unless --batch_size; 0 = --batch_size */
    uint32_t value_size; /* 0 = --value_size */
    /* Text after the rate; NULL: `(x of y found)` when there were lookups. */
    void (*message)(const struct bench_stats *s, char *out, size_t cap);
};

/* A benchmark on its way. */
struct bench_job {
    struct bench_context *context;
    struct bench_store *store;
    const struct bench_workload *workload;
    uint64_t num;                    /* keys 0 .. num-1 */
    uint64_t reads, writes, deletes; /* of each thread */
    uint64_t batch;
    size_t value_min, value_max;
    unsigned threads; /* without the extra ones */
    unsigned extras;
    uint64_t expected; /* operations of all threads; 0 = until the time is up */
    uint64_t duration_ns;
    /* Foreground threads still running; the extra threads end at 0.
     * relaxed: nothing else is learnt from it */
    _Atomic unsigned active;
    _Atomic bool stop; /* an extra thread ends everybody; relaxed likewise */
    struct bench_thread *all;
    unsigned all_count;
};

struct bench_thread {
    struct bench_job *job;
    struct bench_store *store;
    const struct bench_engine *engine;
    unsigned index;
    struct bench_session *session;
    struct bench_rng rng;
    struct bench_values values;
    char *key;                 /* room for one key */
    uint64_t turn, turns;      /* operations begun, and how many there may be */
    uint64_t deadline_ns;      /* 0 = by count */
    uint64_t pace_ns, next_ns; /* time between operations; 0 = as fast as it goes */
    bool catch_up;             /* latency counts from the intended start */
    struct bench_stats stats;
};

/* What the threads of a running job have done so far, and the longest operation (ns) since it was
 * last taken; without the extra ones. */
uint64_t bench_job_live_ops(const struct bench_job *job);
uint64_t bench_job_take_longest(const struct bench_job *job);

/* Prints one line for a failed call of the engine and ends the process. */
_Noreturn void bench_die(const struct bench_store *s, const char *what);

/* Runs the workload and fills the row; *merged gets all counts and is to be destroyed. */
void bench_run(struct bench_context *c, struct bench_store *s, const struct bench_workload *w,
               const char *name, struct bench_row *row, struct bench_stats *merged);

/* ---- for the bodies -------------------------------------------------------------------------- */

/* Sets how many operations the thread may begin; --duration may turn it into a time. */
void bench_thread_limit(struct bench_thread *t, uint64_t turns);
bool bench_thread_more_slow(struct bench_thread *t);

/* True: begin another operation. Waits when the pace is limited. */
static inline bool bench_more(struct bench_thread *t)
{
    if (t->pace_ns == 0 && t->deadline_ns == 0 && t->job->workload->extra == EXTRA_NONE) {
        return t->turn++ < t->turns;
    }
    return bench_thread_more_slow(t);
}

static inline loam_slice bench_key(struct bench_thread *t, uint64_t k)
{
    return loam_bytes(t->key, key_format_write(&t->job->context->keys, k, t->key));
}

static inline loam_slice bench_random_key(struct bench_thread *t)
{
    return bench_key(t, bench_rng_below(&t->rng, t->job->num));
}

/* Ends the process when rc is an error. Returns whether it is BENCH_OK. */
static inline bool bench_ok(struct bench_thread *t, int rc, const char *what)
{
    if (rc < 0) {
        bench_die(t->store, what);
    }
    return rc == BENCH_OK;
}

bool bench_thread_is_extra(const struct bench_thread *t);

/* One put or get with its counts. */
void bench_put(struct bench_thread *t, loam_slice key, enum bench_op op);
bool bench_get(struct bench_thread *t, loam_slice key, enum bench_op op);

/* The table of names; NULL: unknown. */
const struct bench_workload *bench_workload_find(const char *name);

#endif
