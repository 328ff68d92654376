/* model_run_support.c - Episodes: the shape of a database, the stream of operations, its end.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An episode is one database: a shape drawn from the seed (disk, durability, budget, keyspaces),
 * then a stream of operations, clean reopens and crashes among them. The stream is a function of
 * the seed; only what background threads do in between differs from run to run.
 */
#include <time.h>
#include <unistd.h>

#include "arena/epoch.h"
#include "tests/model/model_state.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"

static void step(struct run *r)
{
    if (r->falls_sick && !r->armed && run_one_in(r, r->sick ? 60 : 400)) {
        run_sickness(r);
        return;
    }
    uint64_t d = run_below(r, 10000);
    if (d < 20) {
        run_delete_stretch(r);
    } else if (d < 3000) {
        run_put(r);
    } else if (d < 3700) {
        run_delete(r);
    } else if (d < 4500) {
        run_batch(r);
    } else if (d < 6000) {
        run_get(r);
    } else if (d < 6300) {
        run_get_pin(r);
    } else if (d < 6450) {
        run_get_many(r);
    } else if (d < 9450) {
        run_iter(r);
    } else if (d < 9600) {
        run_scan(r);
    } else if (d < 9800) {
        run_snapshot(r);
    } else if (d < 9860) {
        run_sync(r);
    } else if (d < 9900) {
        run_numbers(r);
    } else if (d < 9940) {
        run_flush(r);
    } else if (d < 9952) {
        run_compact(r);
    } else if (d < 9965) {
        run_keyspace(r);
    } else if (d < 9972) {
        run_pause(r);
    } else if (d < 9980) {
        if (!r->armed && !r->sick) {
            run_reopen(r);
        }
    } else if (d < 9990 && r->fault != NULL && !r->o->no_crash) {
        if (run_one_in(r, 2) && !r->armed && !r->sick) {
            r->armed = true; /* the disk dies a little later, in the middle of something */
            run_set_plan(r, 1 + run_below(r, 200));
        } else {
            r->dead = true;
        }
    }
}

static void draw_shape(struct run *r)
{
    r->disk_kind = r->o->disk;
    if (r->disk_kind == MODEL_DISK_ANY) {
        uint64_t d = run_below(r, 8);
        r->disk_kind = d < 4 ? MODEL_DISK_MAPPED : d < 7 ? MODEL_DISK_UNMAPPED : MODEL_DISK_OS;
    }
    static const uint64_t budgets[] = {1, 1, 1, 2, 4};
    static const uint32_t intervals[] = {1, 50, 1000, UINT32_MAX};
    static const uint32_t durabilities[] = {LOAM_DUR_MEMORY, LOAM_DUR_PROCESS, LOAM_DUR_PROCESS,
                                            LOAM_DUR_POWER};
    r->default_ks = run_ks_options(r, MODEL_BYTES);
    r->options = (loam_options){
        .struct_size = sizeof r->options,
        .flags = run_one_in(r, 4) ? LOAM_OPEN_PARANOID : 0,
        .durability = r->o->durability != 0 ? r->o->durability : durabilities[run_below(r, 4)],
        .sync_interval_ms = intervals[run_below(r, 4)],
        .threads = 1 + (uint32_t)run_below(r, 2),
        .memory_budget = budgets[run_below(r, 5)] << 20,
        .max_open_files = run_one_in(r, 2) ? 16 : 0,
        .default_ks = &r->default_ks,
    };
    r->value_max = (uint32_t)(r->options.memory_budget / 4);
    r->value_max = r->value_max < VALUE_CAP ? r->value_max : VALUE_CAP;
    r->hot = 4 + (uint32_t)run_below(r, 60);
    r->orders = !r->o->byte_order && run_one_in(r, 2);
    r->falls_sick = r->disk_kind != MODEL_DISK_OS && !r->o->no_crash && run_one_in(r, 2);
    if (r->falls_sick) {
        r->options.sync_interval_ms = UINT32_MAX;
    }
}

static void make_disk(struct run *r)
{
    if (r->disk_kind != MODEL_DISK_OS) {
        r->disk = memory_disk();
        run_wrap_disk(r);
        snprintf(r->dir, sizeof r->dir, "/db");
        return;
    }
    const char *tmp = getenv("TMPDIR");
    char base[200];
    snprintf(base, sizeof base, "%s/loam-model-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(base) != NULL);
    snprintf(r->dir, sizeof r->dir, "%s", base);
}

/* Removes the database; nothing of it may be left. */
static void remove_db(struct run *r)
{
    r->what = "destroy";
    run_fine(r, loam_destroy(r->dir, &r->options));
    loam_options o = r->options;
    o.flags = LOAM_OPEN_MUST_EXIST;
    loam_db *db;
    int rc = loam_open(r->dir, &o, &db);
    if (rc != LOAM_E_NOENT) {
        MISMATCH(r, "open of a destroyed database returned %d", rc);
    }
    if (r->disk_kind == MODEL_DISK_OS && access(r->dir, F_OK) == 0) {
        MISMATCH(r, "destroy left the directory");
    }
}

void model_run_episode(const struct model_run_options *o, struct model_run_counts *counts)
{
    struct run *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->o = o;
    r->counts = counts;
    r->what = "open";
    random_init(&r->rng, o->seed);
    r->buffer = malloc(VALUE_CAP);
    CHECK(r->buffer != NULL);
    draw_shape(r);
    model_init(&r->m, random_next(&r->rng), KEYS);
    model_commit(&r->m, 0); /* commit 1 is the empty database */
    CHECK_EQ(model_ks_add(&r->m, "default", MODEL_BYTES), 0);
    make_disk(r);
    if (o->verbose) {
        fprintf(stderr, "episode %" PRIu64 ": disk %d, durability %u, budget %" PRIu64 " MiB\n",
                o->seed, (int)r->disk_kind, r->options.durability, r->options.memory_budget >> 20);
    }
    run_fine(r, run_open_db(r));
    r->durable = r->m.now;
    for (r->op = 0; r->op < o->ops; r->op++) {
        step(r);
        if (r->dead) {
            run_crash(r);
        } else if (run_one_in(r, 4000) && !r->armed && !r->sick) {
            run_check_all(r);
        }
        counts->ops++;
    }
    if (r->armed) {
        run_crash(r);
    } else if (r->sick) {
        run_get_well(r);
    }
    run_reopen(r);
    run_fine(r, run_close_db(r));
    remove_db(r);
    loam_batch_free(r->batch);
    loam_vfs_free(r->fault);
    loam_vfs_free(r->disk);
    model_free(&r->m);
    free(r->buffer);
    free(r);
    epoch_synchronize(); /* what closed handles retired is gone before leaks are counted */
    counts->episodes++;
}

static uint64_t seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec;
}

void model_run_many(const struct model_run_options *o, uint64_t seconds,
                    struct model_run_counts *counts)
{
    struct random seeds;
    random_init(&seeds, o->seed);
    uint64_t start = seconds_now();
    uint64_t left = o->ops;
    while (seconds != 0 ? seconds_now() - start < seconds : left != 0) {
        struct model_run_options one = *o;
        one.seed = random_next(&seeds) >> 16;
        one.ops = 2000 + random_below(&seeds, 12000);
        if (seconds == 0) {
            one.ops = one.ops < left ? one.ops : left;
            left -= one.ops;
        }
        model_run_episode(&one, counts);
    }
}

uint64_t model_run_seed(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return seed_or(((uint64_t)t.tv_sec << 20 ^ (uint64_t)t.tv_nsec) & UINT32_MAX);
}
