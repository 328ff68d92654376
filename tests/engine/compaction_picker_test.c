/* compaction_picker_test.c - Jobs keep levels disjoint and old below new; loading, overwriting and idling come to rest.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A simulated database: tables are key ranges with sizes, merging makes tables that divide the
 * range evenly. Oracle: version_apply() refuses overlaps; here every job's inputs are checked to be
 * complete, and amounts written are added up.
 */
#include <criterion/criterion.h>

#include "arena/coding.h"
#include "arena/random.h"
#include "engine/compaction_picker.h"
#include "tests/engine/version_support.h"
#include "tests/support/check.h"

#define KIB       ((uint64_t)1 << 10)
#define KEY_SPACE ((uint64_t)1 << 40)

struct sim {
    struct version_fix fix;
    struct version *v;
    struct compaction_picker picker;
    struct random random;
    uint64_t number, seq, flushed, rewritten, moves;
};

static void sim_start(struct sim *s, uint64_t memtable)
{
    struct compaction_tunables t;
    memset(s, 0, sizeof *s);
    random_init(&s->random, 42);
    version_fix_start(&s->fix, NULL);
    s->v = version_empty(&s->fix.build);
    compaction_tunables_init(&t, memtable);
    compaction_picker_init(&s->picker, alloc_global(), &t, s->fix.build.order);
}

static void sim_stop(struct sim *s)
{
    compaction_picker_destroy(&s->picker);
    version_unref(s->v);
    version_fix_stop(&s->fix);
}

static void sim_apply(struct sim *s, struct version_edit *e)
{
    struct version *next;
    int rc = version_apply(&s->fix.build, s->v, e, &next);
    if (rc != LOAM_OK) {
        CHECK_FAIL_("apply: %s", loam_last_error()->message);
    }
    version_unref(s->v);
    s->v = next;
    version_edit_free(e);
    version_fix_reap(&s->fix);
}

static void sim_add(struct sim *s, struct version_edit *e, uint8_t level, uint64_t lo, uint64_t hi,
                    uint64_t size, uint64_t entries, uint64_t deletes)
{
    uint8_t a[8], b[8];
    put_big64(a, lo);
    put_big64(b, hi);
    version_fix_add(e, (struct table_meta){.number = ++s->number,
                                           .size = size,
                                           .entries = entries,
                                           .deletes = deletes,
                                           .min_seq = s->seq,
                                           .max_seq = ++s->seq,
                                           .level = level,
                                           .smallest = loam_bytes(a, 8),
                                           .largest = loam_bytes(b, 8)});
}

static void flush(struct sim *s, uint64_t lo, uint64_t hi, uint64_t size, uint64_t deletes)
{
    struct version_edit e;
    version_edit_init(&e, alloc_global());
    sim_add(s, &e, 0, lo, hi, size, size / 100, deletes);
    s->flushed += size;
    sim_apply(s, &e);
}

static uint64_t number_of(loam_slice key)
{
    return get_big64(key.data);
}

/* The inputs hold everything that overlaps them in both levels, and nothing overlaps in between. */
static void check_job(const struct sim *s, const struct compaction *c)
{
    const struct ks_version *k = version_ks(s->v, c->ks);
    for (int n = c->level; n <= c->output_level; n++) {
        for (uint32_t i = 0; i < k->level[n].count; i++) {
            const struct table *t = k->level[n].tables[i];
            bool in = false;
            for (int side = 0; side < 2; side++) {
                for (uint32_t j = 0; j < c->input_count[side]; j++) {
                    in = in || c->inputs[side][j] == t;
                }
            }
            CHECK(!in || t->compacting);
            bool merges_into_deeper = c->output_level > c->level;
            for (uint32_t j = 0; !in && j < c->input_count[0] && merges_into_deeper; j++) {
                const struct table_meta *m = &c->inputs[0][j]->meta;
                CHECK(!table_overlaps(t, NULL, m->smallest, m->largest) ||
                      (n == c->level && (n != 0 || t->meta.max_seq > m->max_seq)));
            }
            if (n == c->output_level && merges_into_deeper && !in && !c->is_move) {
                CHECK(!table_overlaps(t, NULL, c->range.lo, c->range.hi));
            }
        }
    }
    for (uint32_t i = 0; c->bottommost && c->output_level == 0 && i < k->level[0].count; i++) {
        const struct table *t = k->level[0].tables[i]; /* an older one may hold what deletes hide */
        CHECK(t->compacting || t->meta.max_seq > c->inputs[0][0]->meta.max_seq);
    }
    for (int n = c->output_level + 1; c->bottommost && n < LEVEL_COUNT; n++) {
        for (uint32_t i = 0; i < k->level[n].count; i++) {
            CHECK(!table_overlaps(k->level[n].tables[i], NULL, c->range.lo, c->range.hi));
        }
    }
}

static void run(struct sim *s, struct compaction *c)
{
    struct version_edit e;
    version_edit_init(&e, alloc_global());
    check_job(s, c);
    if (c->is_move) {
        CHECK_EQ(compaction_move_edit(c, &e), LOAM_OK);
        s->moves++;
    } else {
        CHECK_EQ(compaction_remove_inputs(c, &e), LOAM_OK);
        uint64_t lo = number_of(c->range.lo), hi = number_of(c->range.hi);
        uint64_t entries = 0, deletes = 0, bytes = c->input_bytes;
        for (int side = 0; side < 2; side++) {
            for (uint32_t i = 0; i < c->input_count[side]; i++) {
                entries += c->inputs[side][i]->meta.entries;
                deletes += c->inputs[side][i]->meta.deletes;
            }
        }
        if (c->bottommost) { /* each delete takes an entry with it */
            bytes -= bytes * deletes / entries;
            entries -= deletes;
            deletes = 0;
        }
        uint64_t parts = c->target_file_bytes == UINT64_MAX ? 1 : bytes / c->target_file_bytes + 1;
        for (uint64_t i = 0; i < parts && entries / parts != 0; i++) {
            uint64_t from = lo + (hi - lo) / parts * i + (i != 0);
            uint64_t to = i + 1 == parts ? hi : lo + (hi - lo) / parts * (i + 1);
            sim_add(s, &e, (uint8_t)c->output_level, from, to, bytes / parts + 1, entries / parts,
                    deletes / parts);
        }
        s->rewritten += bytes;
    }
    compaction_free(&s->picker, c);
    sim_apply(s, &e);
}

static uint32_t settle(struct sim *s, bool idle)
{
    struct compaction *c;
    uint32_t jobs = 0;
    int rc;
    while ((rc = idle ? compaction_idle_pick(&s->picker, s->v, s->seq, &c)
                      : compaction_pick(&s->picker, s->v, s->seq, &c)) == LOAM_OK) {
        run(s, c);
        CHECK(++jobs < 10000);
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    return jobs;
}

Test(compaction_picker, merges_level_0_late_and_rewrites_little)
{
    struct sim s;
    sim_start(&s, 64 * KIB * KIB);
    for (int i = 0; i < 11; i++) { /* 580 MB of random keys: nothing is rewritten yet */
        flush(&s, (uint64_t)i, KEY_SPACE - (uint64_t)i, 52 * KIB * KIB, 0);
        settle(&s, false);
    }
    CHECK_EQ(s.rewritten, 0);
    for (int i = 0; i < 200; i++) {
        flush(&s, random_below(&s.random, 1000), KEY_SPACE, 52 * KIB * KIB, 0);
        settle(&s, false);
        CHECK_EQ(compaction_debt_bytes(s.v, &s.picker.tunables), 0);
    }
    fprintf(stderr, "11 GB of random keys: %.2f bytes rewritten a byte\n",
            (double)s.rewritten / (double)s.flushed);
    CHECK(s.rewritten < 9 * s.flushed);
    CHECK(settle(&s, true) < 1000);
    sim_stop(&s);
}

/* Tables that stand in a level from the start. */
struct standing {
    uint8_t level;
    uint64_t lo, hi, kib;
};

static void sim_start_with(struct sim *s, const struct standing *t, size_t n)
{
    struct version_edit e;
    sim_start(s, 256 * KIB);
    version_edit_init(&e, alloc_global());
    for (size_t i = 0; i < n; i++) {
        sim_add(s, &e, t[i].level, t[i].lo, t[i].hi, t[i].kib * KIB, t[i].kib * 10, 0);
    }
    sim_apply(s, &e);
}

/* The newest tables are merged among themselves; older ones of level 0 still hold what their deletes hide,
 * though nothing deeper does. */
Test(compaction_picker, keeps_deletes_in_level_0_over_older_tables_there)
{
    struct sim s;
    struct compaction *c;
    static const struct standing deep[] = {
        {4, 0, 1000, 6000}, {5, 0, 1000, 60000}, {6, 0, 1000, 640000}};
    sim_start_with(&s, deep, 3);
    for (int i = 0; i < 12; i++) {
        bool old = i < 8;
        flush(&s, old ? 0 : 2000, 2100, (old ? 50 : 5) * KIB, old ? 0 : 10);
    }
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK_EQ(c->output_level, 0);
    CHECK_EQ(c->input_count[0], 4);
    CHECK_EQ(number_of(c->range.lo), 2000);
    CHECK(!c->bottommost);
    run(&s, c);
    sim_stop(&s);
}

/* A merge of all of level 0 down needs space for all of it. */
Test(compaction_picker, merges_the_part_of_level_0_that_there_is_space_for)
{
    struct sim s;
    struct compaction *c;
    static const struct standing deep[] = {{6, 0, 1000, 6000}};
    sim_start_with(&s, deep, 1);
    for (int i = 0; i < 12; i++) {
        flush(&s, 0, 1000, 250 * KIB, 0);
    }
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK_EQ(c->output_level, 6);
    CHECK(!s.picker.cramped);
    compaction_free(&s.picker, c);
    s.picker.room = 8999 * KIB; /* a KiB too little */
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK(s.picker.cramped);
    CHECK_EQ(c->output_level, 6);
    CHECK_EQ(c->input_count[0], 6); /* the older half goes down */
    CHECK_EQ(c->inputs[0][5], version_ks(s.v, 0)->level[0].tables[11]);
    compaction_free(&s.picker, c);
    s.picker.room = 6700 * KIB; /* two would fit, and rewrite twelve times what they hold */
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_NOTFOUND);
    sim_stop(&s);
}

/* Tables in level 0 over a level 6 that there is no space to merge them into. */
static void start_cramped(struct sim *s, const uint64_t *kib, int n)
{
    static const struct standing deep[] = {{6, 0, 1000, 15000}};
    sim_start_with(s, deep, 1);
    for (int i = 0; i < n; i++) {
        flush(s, 0, 1000, kib[i] * KIB, 0);
    }
    s->picker.tunables.base_level_bytes = 1600 * KIB; /* level 0 is due */
    s->picker.tunables.target_file_bytes = 256 * KIB;
    s->picker.room = 3000 * KIB;
}

Test(compaction_picker, merges_small_neighbours_in_level_0)
{
    struct sim s;
    struct compaction *c;
    static const uint64_t kib[] = {400, 50, 420, 60, 50, 70, 60, 410, 40, 50};
    start_cramped(&s, kib, 10);
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK_EQ(c->output_level, 0);
    CHECK_EQ(c->input_count[0], 4);
    CHECK_EQ(c->input_bytes, 240 * KIB);
    run(&s, c);
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_NOTFOUND); /* more than two files of 256 */
    sim_stop(&s);
}

/* It would be rewritten each time there are some small ones beside it. */
Test(compaction_picker, merges_no_table_of_level_0_as_large_as_all_its_neighbours)
{
    struct sim s;
    struct compaction *c;
    static const uint64_t kib[] = {400, 20, 20, 20, 400, 400, 400};
    start_cramped(&s, kib, 7);
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_NOTFOUND);
    sim_stop(&s);
}

Test(compaction_picker, leaves_tables_of_deeper_levels_that_there_is_no_space_to_merge)
{
    struct sim s;
    struct compaction *c;
    static const struct standing deep[] = {{5, 0, 1000, 90000}, {6, 0, 1000, 90000}};
    sim_start_with(&s, deep, 2);
    s.picker.room = 179999 * KIB;
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_NOTFOUND);
    CHECK(s.picker.cramped);
    s.picker.room = 180000 * KIB;
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    run(&s, c);
    sim_stop(&s);
}

/* A rewrite that always fails would stand before all others for ever. */
Test(compaction_picker, rewrites_tables_of_the_last_level_that_there_is_space_for)
{
    struct sim s;
    struct version_edit e;
    struct compaction *c;
    sim_start(&s, 256 * KIB);
    version_edit_init(&e, alloc_global());
    sim_add(&s, &e, 6, 0, 1000, 200 * KIB, 2000, 500);
    sim_add(&s, &e, 6, 2000, 3000, 100 * KIB, 1000, 200);
    sim_apply(&s, &e);
    s.picker.room = 150 * KIB;
    CHECK_EQ(compaction_idle_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK_EQ(number_of(c->range.lo), 2000);
    CHECK(s.picker.cramped);
    run(&s, c);
    CHECK_EQ(compaction_idle_pick(&s.picker, s.v, s.seq, &c), LOAM_NOTFOUND);
    const struct compaction_range all = {.upto = s.seq};
    CHECK_EQ(compaction_pick_range(&s.picker, s.v, &all, 6, s.seq, &c), LOAM_OK); /* asked for */
    run(&s, c);
    sim_stop(&s);
}

#define MERGE_BYTES (2180 * KIB) /* of the test's tables */

static int rest_pick(struct sim *s, uint64_t seeks, uint64_t room, struct compaction **c)
{
    const struct level *l = &version_ks(s->v, 0)->level[0];
    for (uint32_t i = 0; i < l->count; i++) {
        atom_add(&l->tables[i]->seeks, seeks, relaxed);
    }
    s->picker.room = room;
    return compaction_rest_pick(&s->picker, s->v, s->seq, c);
}

/* However little of all data it is: what it hides is much of that table. */
Test(compaction_picker, trims_a_deep_table_below_one_that_hides_a_part_of_it)
{
    enum { TABLES = 100 };
    const uint64_t step = KEY_SPACE / TABLES;
    struct sim s;
    struct version_edit e;
    struct compaction *c;
    sim_start(&s, 64 * KIB);
    version_edit_init(&e, alloc_global());
    for (uint64_t i = 0; i < TABLES; i++) {
        sim_add(&s, &e, 6, i * step, (i + 1) * step - 1, 1024 * KIB, 10000, 0);
    }
    sim_add(&s, &e, 5, 7 * step, 8 * step - 1, 256 * KIB, 2500, 0);
    sim_apply(&s, &e);
    CHECK_EQ(compaction_pick_trim(&s.picker, s.v, s.seq, true, &c), LOAM_OK);
    CHECK_EQ(c->input_count[1], 1);
    CHECK_EQ(number_of(c->inputs[1][0]->meta.smallest), 7 * step);
    compaction_free(&s.picker, c);
    sim_stop(&s);
}

Test(compaction_picker, merges_level_0_when_seeks_have_read_as_much_there)
{
    struct sim s;
    struct compaction *c;
    static const struct standing deep[] = {{6, 0, 1000, 2000}, {6, 2000, 3000, 2000}};
    sim_start_with(&s, deep, 2);
    for (int i = 0; i < 2; i++) {
        flush(&s, 0, 1000, 90 * KIB, 0);
    }
    CHECK_EQ(settle(&s, true), 0);
    CHECK_EQ(rest_pick(&s, 0, MERGE_BYTES, &c), LOAM_NOTFOUND);
    CHECK_EQ(rest_pick(&s, 272, MERGE_BYTES, &c), LOAM_NOTFOUND); /* 2 * 272 * 4 KiB */
    CHECK_EQ(rest_pick(&s, 1, MERGE_BYTES - 1, &c), LOAM_NOTFOUND); /* does not fit */
    CHECK_EQ(rest_pick(&s, 0, MERGE_BYTES, &c), LOAM_OK);
    CHECK_EQ(c->input_count[0], 2);
    CHECK_EQ(c->input_count[1], 1); /* the other table has nothing to do with it */
    struct compaction *again;
    CHECK_EQ(rest_pick(&s, 1000, UINT64_MAX, &again), LOAM_NOTFOUND); /* it is being done */
    compaction_spend_seeks(c);
    compaction_free(&s.picker, c);
    CHECK_EQ(rest_pick(&s, 272, MERGE_BYTES, &c), LOAM_NOTFOUND); /* it failed: once more */
    CHECK_EQ(rest_pick(&s, 1, MERGE_BYTES, &c), LOAM_OK);
    run(&s, c);
    CHECK_EQ(version_ks(s.v, 0)->level[0].count, 0);
    CHECK_EQ(rest_pick(&s, 1000, MERGE_BYTES, &c), LOAM_NOTFOUND);
    sim_stop(&s);
}

/* A tenth of what lies below is as much as any level gathers before it is merged. */
Test(compaction_picker, merges_level_0_at_rest_when_it_holds_a_part_of_what_is_below)
{
    struct sim s;
    struct compaction *c;
    static const struct standing deep[] = {{6, 0, 1000, 2000}};
    sim_start_with(&s, deep, 1);
    flush(&s, 0, 1000, 199 * KIB, 0);
    CHECK_EQ(rest_pick(&s, 0, UINT64_MAX, &c), LOAM_NOTFOUND);
    flush(&s, 0, 1000, 1 * KIB, 0);
    CHECK_EQ(settle(&s, true), 0); /* somebody may write: not yet */
    CHECK_EQ(rest_pick(&s, 0, 2199 * KIB, &c), LOAM_NOTFOUND);
    CHECK_EQ(rest_pick(&s, 0, 2200 * KIB, &c), LOAM_OK);
    CHECK_EQ(c->input_count[0], 2);
    run(&s, c);
    CHECK_EQ(rest_pick(&s, 0, UINT64_MAX, &c), LOAM_NOTFOUND);
    sim_stop(&s);
}

Test(compaction_picker, rewrites_nothing_when_loading_in_order)
{
    struct sim s;
    sim_start(&s, 256 * KIB);
    for (uint64_t i = 0; i < 500; i++) {
        flush(&s, i * 1000, i * 1000 + 999, 256 * KIB, 0);
        settle(&s, false);
    }
    settle(&s, true);
    CHECK_EQ(s.rewritten, 0);
    CHECK(s.moves > 0);
    CHECK(version_ks(s.v, 0)->level[LEVEL_COUNT - 1].count > 400);
    sim_stop(&s);
}

Test(compaction_picker, an_idle_database_comes_to_the_space_target)
{
    struct sim s;
    for (int round = 0; round < 6; round++) {
        sim_start(&s, 256 * KIB);
        for (int i = 0; i < 40 * round + 7; i++) {
            uint64_t a = random_below(&s.random, KEY_SPACE), b = random_below(&s.random, KEY_SPACE);
            uint64_t size = 10 * KIB + random_below(&s.random, 250 * KIB);
            flush(&s, a < b ? a : b, a < b ? b : a, size, size / 100 * (i % 3 == 0));
            settle(&s, false);
        }
        settle(&s, true);
        uint64_t upper = 0, deletes = 0;
        const struct ks_version *k = version_ks(s.v, 0);
        for (int n = 0; k != NULL && n < LEVEL_COUNT - 1; n++) {
            upper += k->level[n].bytes;
            deletes += k->level[n].deletes;
        }
        CHECK(k == NULL || upper * 4 <= k->level[LEVEL_COUNT - 1].bytes);
        CHECK(k == NULL || deletes * 4 <= k->level[LEVEL_COUNT - 1].entries);
        CHECK_EQ(settle(&s, true), 0);
        sim_stop(&s);
    }
}

Test(compaction_picker, small_flushes_do_not_rewrite_a_large_level)
{
    struct sim s;
    sim_start(&s, 64 * KIB);
    for (int i = 0; i < 60; i++) {
        flush(&s, 0, KEY_SPACE, 64 * KIB, 0);
        settle(&s, false);
    }
    settle(&s, true);
    uint64_t large = version_bytes(s.v);
    s.rewritten = s.flushed = 0;
    for (int i = 0; i < 200; i++) {
        flush(&s, 0, KEY_SPACE, 400, 0);
        settle(&s, false);
        CHECK(version_ks(s.v, 0)->level[0].count < s.picker.tunables.l0_trigger_files);
    }
    CHECK(s.rewritten < large);
    sim_stop(&s);
}

Test(compaction_picker, runs_disjoint_jobs_side_by_side_and_no_others)
{
    struct sim s;
    struct compaction *jobs[8], *c;
    sim_start(&s, 256 * KIB);
    for (int i = 0; i < 300; i++) {
        uint64_t at = random_below(&s.random, KEY_SPACE);
        flush(&s, at, at + KEY_SPACE / 10, 256 * KIB, 0);
        uint32_t n = 0;
        while (n < 8 && compaction_pick(&s.picker, s.v, s.seq, &c) == LOAM_OK) {
            for (uint32_t j = 0; j < n; j++) {
                bool levels =
                    c->level <= jobs[j]->output_level && jobs[j]->level <= c->output_level;
                bool keys = bytes_compare(c->range.lo, jobs[j]->range.hi) <= 0 &&
                            bytes_compare(jobs[j]->range.lo, c->range.hi) <= 0;
                CHECK(!levels || !keys);
            }
            jobs[n++] = c;
        }
        while (n > 0) { /* any order of ending is fine */
            uint32_t j = (uint32_t)random_below(&s.random, n);
            struct compaction *job = jobs[j];
            jobs[j] = jobs[--n];
            run(&s, job);
        }
    }
    sim_stop(&s);
}

Test(compaction_picker, by_hand_everything_in_the_range_goes_to_the_bottom)
{
    struct sim s;
    struct compaction *c;
    sim_start(&s, 256 * KIB);
    for (int i = 0; i < 30; i++) {
        uint64_t at = random_below(&s.random, KEY_SPACE);
        flush(&s, at, at + KEY_SPACE / 50, 100 * KIB, 100);
        settle(&s, false);
    }
    const struct compaction_range all = {.upto = s.seq};
    for (int level = 0; level < LEVEL_COUNT; level++) {
        int rc;
        while ((rc = compaction_pick_range(&s.picker, s.v, &all, level, s.seq, &c)) == LOAM_OK) {
            run(&s, c);
        }
        CHECK_EQ(rc, LOAM_NOTFOUND);
    }
    const struct ks_version *k = version_ks(s.v, 0);
    for (int level = 0; level < LEVEL_COUNT - 1; level++) {
        CHECK_EQ(k->level[level].count, 0);
    }
    CHECK_EQ(k->level[LEVEL_COUNT - 1].deletes, 0);
    sim_stop(&s);
}

/* Else merging by hand would come to no end while flushes go on. */
Test(compaction_picker, by_hand_what_is_flushed_after_the_call_stays_in_level_0)
{
    struct sim s;
    struct compaction *c;
    sim_start(&s, 256 * KIB);
    for (int i = 0; i < 3; i++) {
        flush(&s, 0, KEY_SPACE / 50, 100 * KIB, 100);
    }
    const struct compaction_range all = {.upto = s.seq};
    for (int level = 0; level < LEVEL_COUNT; level++) {
        int rc, jobs = 0;
        while (jobs < 10 &&
               (rc = compaction_pick_range(&s.picker, s.v, &all, level, s.seq, &c)) == LOAM_OK) {
            run(&s, c);
            flush(&s, 0, KEY_SPACE / 50, 100 * KIB, 100);
            jobs++;
        }
        CHECK(jobs < 10);
        CHECK_EQ(rc, LOAM_NOTFOUND);
    }
    const struct ks_version *k = version_ks(s.v, 0);
    CHECK(k->level[0].count != 0);
    CHECK(k->level[LEVEL_COUNT - 1].count != 0);
    sim_stop(&s);
}

Test(compaction_picker, splits_a_job_into_parts_that_cover_it)
{
    struct sim s;
    struct compaction *c;
    struct key_range parts[8];
    sim_start(&s, 256 * KIB);
    for (int i = 0; i < 12; i++) {
        flush(&s, (uint64_t)i * 1000, 40000 + (uint64_t)i * 1000, 256 * KIB, 0);
    }
    CHECK_EQ(compaction_pick(&s.picker, s.v, s.seq, &c), LOAM_OK);
    CHECK_EQ(c->input_count[0], 12);
    uint8_t hint_bytes[40][8];
    loam_slice hints[40];
    for (uint64_t i = 0; i < 40; i++) {
        put_big64(hint_bytes[i], (39 - i) * 1300);
        hints[i] = loam_bytes(hint_bytes[i], 8);
    }
    CHECK_EQ(compaction_split(c, 1, NULL, 0, parts), 1);
    uint32_t n = compaction_split(c, 4, hints, 40, parts);
    CHECK_EQ(n, 4);
    CHECK(parts[0].lo.data == NULL && parts[n - 1].hi.data == NULL);
    for (uint32_t i = 0; i + 1 < n; i++) {
        CHECK(bytes_compare(parts[i].hi, parts[i + 1].lo) == 0);
        CHECK(i == 0 || bytes_compare(parts[i].lo, parts[i].hi) < 0);
        uint64_t cut = number_of(parts[i].hi);
        CHECK(cut > 6000 * (i + 1) && cut < 20000 * (i + 1));
    }
    compaction_free(&s.picker, c);
    sim_stop(&s);
}

Test(compaction_picker, debt_grows_without_jumps)
{
    struct sim s;
    sim_start(&s, 64 * KIB);
    uint64_t last = 0;
    for (int i = 0; i < 400; i++) {
        flush(&s, 0, KEY_SPACE, 8 * KIB, 0);
        uint64_t debt = compaction_debt_bytes(s.v, &s.picker.tunables);
        CHECK(debt >= last && debt - last <= 16 * KIB);
        last = debt;
    }
    CHECK(last > 0);
    settle(&s, false);
    CHECK_EQ(compaction_debt_bytes(s.v, &s.picker.tunables), 0);
    sim_stop(&s);
}
