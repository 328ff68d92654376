/* power_cut_test.c - After a power cut at any call of the vfs a database opens as a prefix of its commits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A small workload runs on a memory disk; before calls, and after each step of the workload, the
 * disk is copied as a cut would leave it, in every variant. One run takes pictures at each STRIDE-th
 * index and the runs of a test go through all phases, so that every index is met; threads of the
 * database make the order of calls vary. Each picture is opened, compared with the oracle, written
 * to and opened again; and the recovery itself is cut in the same way, to a depth of 3.
 *
 * LOAM_SEED repeats a run, LOAM_SCALE multiplies the seeds of the random variants.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/alloc.h"
#include "tests/crash/crash_support.h"
#include "tests/crash/state_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/check.h"
#include "tests/support/memory_disk.h"
#include "tests/support/seed.h"

#define STRIDE 24u
#if LOAM_ASAN /* five times slower: a sixth of the calls, others with each seed */
#define PHASE_STEP 6u
#else
#define PHASE_STEP 1u
#endif
#define NESTED_EVERY  160u /* one picture in so many has its recovery cut */
#define NESTED_STRIDE 3u   /* of the calls of such a recovery */
#define DEPTH_MAX     3u
#define VARIANTS_MAX  256u

static struct {
    uint64_t states, nested, calls, images_of_creation;
} totals;

/* ---- one picture ------------------------------------------------------------------------------- */

static void check_images(const struct oracle *o, struct tap *t, uint64_t seed, unsigned depth);

/* Opens the picture through a tap, and checks the pictures of that. */
static void check_nested(const struct oracle *o, struct tap_image *im, uint64_t seed,
                         unsigned depth)
{
    static const uint64_t process[] = {0, 1, 3};
    uint64_t variants[] = {process[im->index % 3], 5 + seed % 1000, 2, 4, 6 + seed % 1777};
    struct tap t;
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed, .no_map = im->index & 1};
    tap_create(&t, im->disk, &plan, o);
    im->disk = NULL;
    t.variants = variants;
    t.variant_count = depth > 2 ? 2 : sizeof variants / sizeof variants[0];
    t.phase = seed % NESTED_STRIDE;
    t.fixed = true;
    t.promise = im->promise;
    t.after_cut = im->after_cut;
    t.stride = NESTED_STRIDE;
    loam_db *db;
    struct oracle_seen seen;
    uint32_t commit = state_open(o, &im->promise, &t.vfs, &db, &seen);
    mutex_lock(&t.mu);
    /* It has been shown: it stays. */
    t.promise = t.after_cut = state_exactly(&im->promise, commit, &seen);
    mutex_unlock(&t.mu);
    tap_cut(&t);
    crash_must(loam_close(db), "close");
    tap_cut(&t);
    t.stride = 0;
    check_images(o, &t, seed, depth);
    tap_destroy(&t);
}

static void check_images(const struct oracle *o, struct tap *t, uint64_t seed, unsigned depth)
{
    char outer[256];
    snprintf(outer, sizeof outer, "%s", depth > 1 ? "in a recovery of " : "");
    for (size_t i = 0; i < t->count; i++) {
        struct tap_image *im = &t->images[i];
        uint64_t mixed = seed * 31 + im->index * 2654435761u + i;
        oracle_context("seed %llu, depth %u, %s map, index %llu, variant %llu, commits %u to %u, "
                       "keyspace states %u to %u",
                       (unsigned long long)seed, depth, t->fault->map != NULL ? "with" : "no",
                       (unsigned long long)im->index, (unsigned long long)im->variant,
                       im->promise.low, im->promise.high, im->promise.control_low,
                       im->promise.control_high);
        tap_dump_on_failure(im->disk);
        totals.states++;
        totals.nested += depth > 1;
        totals.images_of_creation += !im->promise.opened;
        if (depth < DEPTH_MAX && splitmix64(&mixed) % NESTED_EVERY == 0) {
            check_nested(o, im, seed + i, depth + 1);
        } else {
            state_check(o, &im->promise, im->disk, splitmix64(&mixed), 16);
        }
        tap_dump_on_failure(NULL);
        loam_vfs_free(im->disk);
        im->disk = NULL;
    }
    t->count = 0;
}

/* ---- the workload ------------------------------------------------------------------------------ */

/* durability: of each session. */
static void workload(struct oracle_writer *w, const loam_vfs *vfs, const uint32_t durability[3])
{
    loam_options options = crash_options(vfs);
    options.durability = durability[0];
    oracle_open(w, STATE_DIR, &options);
    oracle_write(w, 4, false);
    oracle_ks_create(w, "one");
    oracle_write(w, 12, false);
    oracle_ks_create(w, "two");
    oracle_write(w, 8, true);
    oracle_flush(w);
    oracle_write(w, 8, false);
    oracle_sync(w);
    oracle_write(w, 5, false);
    oracle_close(w);

    options.durability = durability[1];
    oracle_open(w, STATE_DIR, &options);
    oracle_write(w, 6, true);
    oracle_ks_drop(w, "one");
    oracle_write(w, 4, false);
    oracle_flush(w);
    oracle_ks_create(w, "one");
    oracle_write(w, 6, false);
    oracle_ks_rename(w, "two", "three");
    oracle_write(w, 20, true);
    oracle_compact(w);
    oracle_batch_long(w, false);
    oracle_write(w, 6, false);
    oracle_close(w);

    options.durability = durability[2];
    oracle_open(w, STATE_DIR, &options);
    for (unsigned i = 0; i < 3; i++) {
        oracle_write(w, 10, true);
        crash_must(loam_pause(w->db, i == 1), "pause");
        oracle_flush(w);
    }
    oracle_write(w, 3, false);
    crash_must(loam_wait_idle(w->db, 0), "wait");
    oracle_close(w);
}

struct shape {
    const char *name;
    bool mapped;
    uint32_t durability[3]; /* of each session */
    unsigned step;          /* one phase in so many, others with each seed */
};

/* One run: pictures at index % STRIDE == phase. Returns the calls it counted. */
static uint64_t run(const struct shape *shape, uint64_t seed, uint64_t phase,
                    const uint64_t *variants, unsigned n)
{
    static struct oracle o;
    oracle_init(&o);
    struct tap t;
    loam_vfs *disk = memory_disk();
    loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed, .no_map = !shape->mapped};
    tap_create(&t, disk, &plan, &o);
    t.variants = variants;
    t.variant_count = n;
    t.stride = STRIDE;
    t.phase = phase;
    struct oracle_writer w = {.o = &o, .strict = true, .after = tap_cut, .hook_ctx = &t};
    random_init(&w.random, seed);
    oracle_context("seed %llu, the workload, phase %llu, %s", (unsigned long long)seed,
                   (unsigned long long)phase, shape->name);
    workload(&w, &t.vfs, shape->durability);
    uint64_t calls = t.calls;
    t.stride = 0;
    check_images(&o, &t, seed, 1);
    tap_destroy(&t);
    return calls;
}

static unsigned scale(void)
{
    const char *s = getenv("LOAM_SCALE");
    int n = s != NULL ? atoi(s) : 1;
    return n < 1 ? 1 : n > 16 ? 16 : (unsigned)n;
}

static void cut_everywhere(const struct shape *shape)
{
    uint64_t seed = seed_of_run();
    uint64_t variants[VARIANTS_MAX];
    unsigned n = 0;
    for (; n < 5; n++) {
        variants[n] = n;
    }
    for (unsigned i = 0; i < 5 * scale(); i++) {
        variants[n++] = 5 + i;
    }
    unsigned step = PHASE_STEP * shape->step;
    for (uint64_t phase = seed % step; phase < STRIDE; phase += step) {
        for (unsigned i = 5; i < n; i++) {
            variants[i] += 1000;
        }
        uint64_t calls = run(shape, seed, phase, variants, n);
        totals.calls = calls > totals.calls ? calls : totals.calls;
        if (getenv("LOAM_VERBOSE") != NULL) {
            fprintf(stderr, "phase %llu: %llu states\n", (unsigned long long)phase,
                    (unsigned long long)totals.states);
        }
    }
    fprintf(stderr,
            "power_cut, %s: %llu states (%llu of them in recoveries, %llu in creations), "
            "workload of %llu steps\n",
            shape->name, (unsigned long long)totals.states,
            (unsigned long long)totals.nested, (unsigned long long)totals.images_of_creation,
            (unsigned long long)totals.calls);
}

Test(power_cut, at_any_call_leaves_a_prefix_with_a_mapped_log)
{
    cut_everywhere(&(struct shape){.name = "mapped log", .mapped = true, .step = 1});
}

Test(power_cut, at_any_call_leaves_a_prefix_with_a_buffered_log)
{
    cut_everywhere(&(struct shape){.name = "buffered log", .step = 1});
}

/* What a flush or a close held is there, of the session between whatever its log held. */
Test(power_cut, at_any_call_leaves_a_prefix_that_was_flushed_without_a_log)
{
    cut_everywhere(&(struct shape){
        .name = "no log",
        .mapped = true,
        .durability = {LOAM_DUR_MEMORY, LOAM_DUR_DEFAULT, LOAM_DUR_MEMORY},
        .step = 4});
}
