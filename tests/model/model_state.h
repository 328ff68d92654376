/* model_state.h - The state of one episode of the model test, and the operations on it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every operation draws its arguments, calls the database and the oracle, and compares.
 */
#ifndef LOAM_TESTS_MODEL_MODEL_STATE_H_
#define LOAM_TESTS_MODEL_MODEL_STATE_H_

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "arena/random.h"
#include "engine/loam.h"
#include "tests/model/model_run.h"
#include "tests/support/check.h"
#include "tests/support/model.h"

#define ITERS       6u
#define SNAPS       6u
#define KEYS        700u
#define TRACE       48u
#define VALUE_CAP   (256u * 1024)
#define BATCH_CAP   100u
#define BATCH_BYTES (180u * 1024)

struct walker {
    loam_iter *it; /* NULL: free */
    uint32_t ks;
    uint64_t commit;
    uint32_t lo, hi; /* rows it may show */
    bool keys_only;
    int64_t at; /* row it stands on; MODEL_NONE: none */
};

struct holder {
    loam_snap *snap;
    uint64_t commit;
};

struct batch_op {
    uint32_t ks, key;
    bool put;
    uint64_t value_id;
    uint32_t size;
};

struct run {
    const struct model_run_options *o;
    struct model_run_counts *counts;
    struct random rng;
    struct model m;
    uint64_t op;      /* number of the present one */
    const char *what; /* name of the present one */
    uint64_t next_value;
    uint32_t next_name;
    /* shape */
    enum model_disk disk_kind;
    loam_options options;
    loam_ks_options default_ks;
    uint32_t value_max;
    uint32_t hot; /* keys drawn half of the time */
    bool orders;  /* keyspaces with comparators too */
    /* disk */
    loam_vfs *disk, *fault; /* NULL on the system's disk */
    uint64_t disk_seed;
    char dir[256];
    /* handles */
    loam_db *db;
    loam_ks *ks[MODEL_KS_MAX]; /* [0]: a handle of "default", or NULL */
    struct walker walkers[ITERS];
    struct holder holders[SNAPS];
    loam_batch *batch;
    bool paused;
    /* crash rules */
    bool armed;       /* the disk will fail, or has failed */
    bool dead;        /* an answer said so */
    uint64_t durable; /* commit */
    bool maybe;       /* one more commit than now may have survived */
    bool sick;        /* syncs fail; see model_sick_support.c */
    bool falls_sick;  /* the disk of this episode may */
    /* trace */
    struct trace {
        uint64_t op;
        const char *what;
        uint32_t ks, key;
        uint64_t commit;
    } trace[TRACE];
    uint64_t traced;
    uint8_t *buffer; /* VALUE_CAP bytes */
};

/* ---- model_check_support.c ------------------------------------------------------------------- */

void run_note(struct run *r, const char *what, uint32_t ks, uint32_t key);
void run_print_trace(const struct run *r);
void run_print_row(const struct run *r, uint32_t ks, uint32_t row);
void run_print_levels(const struct run *r);
bool run_fine(struct run *r, int rc);
uint64_t run_below(struct run *r, uint64_t n);
bool run_one_in(struct run *r, uint64_t n);
uint32_t run_pick_key(struct run *r);
uint32_t run_pick_ks(struct run *r);
uint32_t run_pick_size(struct run *r);
uint32_t run_row_of(const struct run *r, uint32_t ks, uint32_t key);
const loam_snap *run_pick_snap(struct run *r, uint64_t *commit);
void run_check_entry(struct run *r, uint32_t ks, uint32_t row, uint64_t commit, loam_slice value,
                     bool with_value, uint64_t seq);
void run_check_absent(struct run *r, uint32_t ks, uint32_t row, uint64_t commit);
bool run_key_of_row(const struct run *r, uint32_t ks, uint32_t row, loam_slice key);
bool run_check_position(struct run *r, struct walker *w, int rc, uint32_t expected);
void run_check_all(struct run *r);

/* ---- model_write_support.c ------------------------------------------------------------------- */

void run_put(struct run *r);
void run_delete(struct run *r);
void run_batch(struct run *r);
void run_delete_stretch(struct run *r);

/* ---- model_read_support.c -------------------------------------------------------------------- */

void run_get(struct run *r);
void run_get_pin(struct run *r);
void run_get_many(struct run *r);
void run_close_walker(struct walker *w);
void run_iter(struct run *r);
void run_scan(struct run *r);

/* ---- model_house_support.c ------------------------------------------------------------------- */

void run_snapshot(struct run *r);
loam_ks_options run_ks_options(struct run *r, enum model_order order);
void run_open_ks(struct run *r, uint32_t ks);
void run_keyspace(struct run *r);
void run_flush(struct run *r);
void run_compact(struct run *r);
void run_pause(struct run *r);
void run_sync(struct run *r);
void run_numbers(struct run *r);

/* ---- model_crash_support.c ------------------------------------------------------------------- */

int run_open_db(struct run *r);
int run_close_db(struct run *r);
void run_reopen(struct run *r);
void run_set_plan(struct run *r, uint64_t crash_in);
void run_wrap_disk(struct run *r);
void run_crash(struct run *r);

/* ---- model_sick_support.c --------------------------------------------------------------------- */

/* As run_fine(), for calls that a sick disk may fail. */
bool run_may_fail(struct run *r, int rc);
/* Falls sick, or does something about it. */
void run_sickness(struct run *r);
/* Mends the disk and resumes. */
void run_get_well(struct run *r);
/* The outcome of the pending write is unknown: commits or gives up as readers see it. */
void run_settle_doubt(struct run *r);

#define MISMATCH(r, ...)                                                                           \
    do {                                                                                           \
        fprintf(stderr, "MODEL: seed %" PRIu64 ", op %" PRIu64 " (%s): ", (r)->o->seed, (r)->op,   \
                (r)->what);                                                                        \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fprintf(stderr,                                                                            \
                "\n  disk %d, durability %u, budget %" PRIu64 ", commits %" PRIu64                 \
                ", durable %" PRIu64 ", last error: %s\n",                                         \
                (int)(r)->disk_kind, (r)->options.durability, (r)->options.memory_budget,          \
                (r)->m.now, (r)->durable, loam_last_error()->message);                             \
        run_print_trace(r);                                                                        \
        run_print_levels(r);                                                                       \
        fprintf(stderr,                                                                            \
                "  replay: loam-model --episode=%" PRIu64 " --ops=%" PRIu64                        \
                " --disk=%d --durability=%u%s%s\n",                                                \
                (r)->o->seed, (r)->o->ops, (int)(r)->o->disk, (r)->o->durability,                  \
                (r)->o->no_crash ? " --no-crash" : "", (r)->o->byte_order ? " --byte-order" : ""); \
        fflush(stderr);                                                                            \
        abort();                                                                                   \
    } while (0)

#endif
