/* crash_run.c - Goes through the moments and variants of a recording, and of recoveries of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/crash_run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/crash_case.h"
#include "tools/crash_check.h"
#include "tools/crash_workload.h"

/* Rounds differ by their numbers, not by chance, so that what is added here leaves the others as they were.
 * Most are short: a state of a database of some KiB is checked in a third of the time, and a round of few
 * large ones would take the time of twenty. */
#define UNLOGGED_EVERY 4u /* of one in so many every other session keeps no log */
#define WHOLE_EVERY    7u /* one in so many is of many steps, among all other kinds in turn */
#define NAMES_EVERY    5u /* of one in so many most steps change names */
#define LARGE_EVERY    8u /* of one in so many the last session has a larger budget, and of another one
                             some batches are longer than a memtable */
#define MIX 0x9e3779b97f4a7c15u

struct crash_run {
    const struct crash_plan *plan;
    struct crash_totals *totals;
    struct crash_position *position;
    uint64_t *seen; /* hashes of states, open addressing; 0 is free */
    size_t seen_count, seen_cap;
    uint64_t round;
};

/* A recording, and what it promised when: by the model, or before and after it was first shown.
 * Before, what a killed process had left unsynced may go with a power cut. */
struct source {
    loam_recording *rec;
    const struct model *model;
    const struct crash_workload *work; /* NULL: a recovery */
    unsigned depth;
    uint64_t shown, put; /* depth > 1: when it was open, when one more put was acknowledged */
    struct model_promise before_killed, before_cut, after;
    const char *path; /* how one gets to this recording */
};

/* ---- distinct states --------------------------------------------------------------------------- */

static void seen_put(uint64_t *at, size_t cap, uint64_t h)
{
    size_t i = (size_t)(h * MIX >> 20) & (cap - 1);
    while (at[i] != 0) {
        i = (i + 1) & (cap - 1);
    }
    at[i] = h;
}

/* False: it was there. */
static bool seen_add(struct crash_run *r, uint64_t h)
{
    h += h == 0;
    if (r->seen_count * 3 >= r->seen_cap * 2) {
        size_t cap = r->seen_cap != 0 ? r->seen_cap * 2 : 1u << 14;
        uint64_t *at = calloc(cap, sizeof *at);
        if (at == NULL) {
            fputs("loam-crash: no memory for the states seen\n", stderr);
            exit(4);
        }
        for (size_t i = 0; i < r->seen_cap; i++) {
            if (r->seen[i] != 0) {
                seen_put(at, cap, r->seen[i]);
            }
        }
        free(r->seen);
        r->seen = at;
        r->seen_cap = cap;
    }
    size_t i = (size_t)(h * MIX >> 20) & (r->seen_cap - 1);
    for (; r->seen[i] != 0; i = (i + 1) & (r->seen_cap - 1)) {
        if (r->seen[i] == h) {
            return false;
        }
    }
    r->seen[i] = h;
    r->seen_count++;
    return true;
}

static uint64_t state_hash(const loam_vfs *state, const struct model_promise *p)
{
    uint64_t h = loam_vfs_hash(state);
    const uint64_t words[] = {p->opened,      p->low,          p->high,
                              p->control_low, p->control_high, p->extra};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        h = (h ^ words[i]) * MIX;
        h ^= h >> 29;
    }
    return h;
}

/* ---- failures ---------------------------------------------------------------------------------- */

static void count_failure(struct crash_totals *t, const char *why)
{
    if (strncmp(why, "lost:", 5) == 0) {
        atomic_fetch_add(&t->lost, 1);
    } else if (strncmp(why, "wrong:", 6) == 0 || strncmp(why, "no prefix", 9) == 0) {
        atomic_fetch_add(&t->wrong, 1);
    } else if (strncmp(why, "unopenable:", 11) == 0) {
        atomic_fetch_add(&t->unopenable, 1);
    } else {
        atomic_fetch_add(&t->other, 1);
    }
}

static void describe(const struct crash_run *r, const struct source *s, const loam_crash *c,
                     char *text, size_t cap)
{
    snprintf(text, cap,
             "seed %" PRIu64 ", round %" PRIu64 "%s, change %" PRIu64
             ", variant %u, %s names, case seed %" PRIu64,
             r->plan->seed, r->round, s->path, c->at, c->variant,
             c->names == LOAM_NAMES_ORDERED ? "ordered" : "posix", c->seed);
}

static void failed(struct crash_run *r, const struct source *s, const loam_crash *c,
                   const struct model_promise *p, const char *why)
{
    char how[512], dir[4096];
    count_failure(r->totals, why);
    describe(r, s, c, how, sizeof how);
    snprintf(dir, sizeof dir,
             "%s/round-%" PRIu64 "-depth-%u-change-%" PRIu64 "-variant-%u-%u-%" PRIx64,
             r->plan->save, r->round, s->depth, c->at, c->variant, c->names, c->seed);
    loam_vfs *state;
    bool saved = false;
    if (loam_recording_crash(s->rec, c, &state) >= 0) {
        saved = crash_case_save(dir, state, s->model, p, how, why);
        loam_vfs_free(state);
    }
    fprintf(stderr, "\nFAILED %s\n  %s\n", how, why);
    if (saved) {
        fprintf(stderr, "  again: loam-crash --replay=%s\n", dir);
    }
    if (crash_failures(r->totals) >= r->plan->failures) {
        atomic_store(&r->totals->stop, true);
    }
}

/* ---- one state --------------------------------------------------------------------------------- */

static void visit(struct crash_run *r, const struct source *s);

static struct model_promise promise_of(const struct source *s, uint64_t at, bool killed)
{
    if (s->depth > 1) {
        struct model_promise p = at >= s->shown ? s->after
                                 : killed       ? s->before_killed
                                                : s->before_cut;
        p.extra = p.extra || at >= s->put;
        return p;
    }
    return model_promise(s->model, at, killed);
}

/* The recovery to be recorded: an open, one durable put, now and then a flush, a close. */
static bool run_recovery(struct source *s, const loam_vfs *vfs, bool flush, char why[MODEL_WHY])
{
    struct model_seen seen;
    loam_db *db = crash_open_and_judge(s->model, &s->before_killed, vfs, &seen, why);
    if (db == NULL) {
        return false;
    }
    const loam_write_opts opts = {.struct_size = sizeof opts, .flags = LOAM_W_DURABLE};
    s->shown = loam_recording_mark(s->rec);
    s->after = (struct model_promise){true,         seen.commit,  seen.commit,
                                      seen.control, seen.control, s->before_killed.extra};
    int rc = loam_put(db, NULL, model_key(MODEL_KEYS), LOAM_LIT("more"), &opts);
    s->put = loam_recording_mark(s->rec);
    rc = rc >= 0 && flush ? loam_flush(db, NULL) : rc;
    if (rc < 0) {
        snprintf(why, MODEL_WHY, "a put or flush: %s", loam_last_error()->message);
    }
    int closed = loam_close(db);
    if (rc >= 0 && closed < 0) {
        snprintf(why, MODEL_WHY, "a close: %s", loam_last_error()->message);
    }
    return rc >= 0 && closed >= 0;
}

/* Recovers the state on a recorded disk, and goes through the crashes of that. */
static void crash_recovery(struct crash_run *r, const struct source *outer, const loam_crash *c,
                           const struct model_promise *p)
{
    char path[384], why[MODEL_WHY];
    snprintf(path, sizeof path,
             "%s, change %" PRIu64 ", variant %u, case seed %" PRIu64 ", in its recovery",
             outer->path, c->at, c->variant, c->seed);
    struct source s = {
        .model = outer->model,
        .depth = outer->depth + 1,
        .before_killed = *p,
        .before_cut = promise_of(outer, c->at, false),
        .path = path,
    };
    loam_vfs *disk, *fault;
    if (loam_recording_crash(outer->rec, c, &disk) < 0) {
        return;
    }
    const loam_fault_plan plan = {
        .struct_size = sizeof plan, .seed = c->seed, .no_map = c->at % 4 == 0};
    if (loam_vfs_record(disk, &s.rec) >= 0 && loam_vfs_fault(disk, &plan, &fault) >= 0) {
        bool fine = run_recovery(&s, fault, c->at % 3 == 0, why);
        loam_vfs_free(fault);
        if (fine) {
            visit(r, &s);
        } else {
            failed(r, outer, c, p, why);
        }
    }
    loam_recording_free(s.rec);
    loam_vfs_free(disk);
}

/* Whether the disk is one of a crash while a manifest that had grown long was replaced. */
static bool is_rolling(const struct source *s, uint64_t at, const loam_vfs *state)
{
    char newest[32];
    for (unsigned i = 0; s->work != NULL && i < s->work->roll_count; i++) {
        if (at > s->work->rolls[i].from && at <= s->work->rolls[i].to) {
            return crash_manifests(state, newest) > 1;
        }
    }
    return false;
}

static void try_state(struct crash_run *r, const struct source *s, const loam_crash *c)
{
    struct crash_totals *t = r->totals;
    struct model_promise p = promise_of(s, c->at, c->variant == LOAM_CUT_ALL);
    loam_vfs *state;
    char why[MODEL_WHY];
    if (loam_recording_crash(s->rec, c, &state) < 0) {
        fprintf(stderr, "loam-crash: %s\n", loam_last_error()->message);
        exit(4);
    }
    atomic_fetch_add(&t->tried, 1);
    uint64_t h = state_hash(state, &p);
    if (!seen_add(r, h)) {
        loam_vfs_free(state);
        return;
    }
    atomic_store(&r->position->at, c->at);
    atomic_store(&r->position->seed, c->seed);
    atomic_store(&r->position->variant, c->variant);
    atomic_store(&r->position->names, c->names);
    atomic_store(&r->position->depth, s->depth);
    atomic_fetch_add(&t->rolling, is_rolling(s, c->at, state));
    bool fine = crash_check(s->model, &p, state, h, why);
    loam_vfs_free(state);
    uint64_t distinct = atomic_fetch_add(&t->distinct, 1) + 1;
    atomic_fetch_add(&t->nested, s->depth > 1);
    if (!fine) {
        failed(r, s, c, &p, why);
    } else if (r->plan->nested_every != 0 && s->depth < CRASH_DEPTH_MAX &&
               h / 7 % ((uint64_t)r->plan->nested_every) == 0) {
        crash_recovery(r, s, c, &p);
    }
    if (r->plan->states != 0 && distinct >= r->plan->states) {
        atomic_store(&t->stop, true);
    }
}

/* ---- all states of a recording ----------------------------------------------------------------- */

/* In recoveries of recoveries a part of the variants, another at each moment. */
static bool left_out(const struct source *s, uint64_t at, uint32_t variant)
{
    return s->depth > 1 && (at + variant) % s->depth != 0;
}

static void visit_moment(struct crash_run *r, const struct source *s, uint64_t at, uint32_t names)
{
    const atomic_bool *stop = &r->totals->stop;
    loam_crash c = {.struct_size = sizeof c, .at = at, .names = names};
    uint32_t items;
    if (loam_recording_pending(s->rec, at, names, &items) < 0) {
        fprintf(stderr, "loam-crash: %s\n", loam_last_error()->message);
        exit(4);
    }
    bool same = false; /* with nothing pending all power cuts leave one disk, which was tried */
    for (c.variant = LOAM_CUT_ALL; c.variant <= LOAM_CUT_SIZES; c.variant++) {
        if (!left_out(s, at, c.variant) && !same && !*stop) {
            try_state(r, s, &c);
            same = items == 0 && c.variant != LOAM_CUT_ALL;
        }
    }
    bool all = s->depth == 1 && items <= CRASH_EXHAUSTIVE_MAX &&
               (items <= CRASH_MANY_ITEMS || r->plan->exhaustive || (at + r->round) % 16 == 0);
    c.variant = LOAM_CUT_SUBSET;
    for (c.seed = 0; all && items != 0 && c.seed < 1ull << items && !*stop; c.seed++) {
        try_state(r, s, &c);
    }
    atomic_fetch_add(all ? &r->totals->exhaustive : &r->totals->sampled, s->depth == 1);
    uint64_t random = r->plan->seed ^ (r->round * MIX) ^ (at << 8) ^ names;
    uint32_t last = all ? LOAM_CUT_STALE : LOAM_CUT_SUBSET;
    for (c.variant = LOAM_CUT_BLOCKS; c.variant <= last; c.variant++) {
        for (uint32_t i = 0; i < r->plan->tries && !*stop; i++) {
            c.seed = model_random(&random);
            if (items != 0 && !left_out(s, at, c.variant)) {
                try_state(r, s, &c);
            }
        }
    }
}

static void visit(struct crash_run *r, const struct source *s)
{
    uint64_t length = loam_recording_length(s->rec);
    for (uint32_t names = LOAM_NAMES_POSIX; names <= LOAM_NAMES_ORDERED; names++) {
        if (s->depth > 1 && (r->round + s->depth + s->shown) % 2 != names) {
            continue; /* a recovery is crashed under one of the models */
        }
        for (uint64_t at = 0; at <= length && !r->totals->stop; at++) {
            visit_moment(r, s, at, names);
        }
    }
}

static bool record(struct crash_run *r, struct crash_workload *w, loam_vfs *disk)
{
    loam_vfs *fault;
    const loam_fault_plan plan = {
        .struct_size = sizeof plan,
        .seed = w->seed,
        .no_map = r->round % 4 == 3,
        .fail_at = r->plan->lie != 0,
        .fail_calls = r->plan->lie,
        .fail_repeat = UINT32_MAX,
        .fail_how = LOAM_FAULT_LIE,
        /* What is only said to be durable is stored; of what is only said to be written, nothing. */
        .short_writes =
            (r->plan->lie & LOAM_CALL_WRITE) != 0 ? LOAM_LANDS_NOTHING : LOAM_LANDS_ALL,
    };
    if (loam_vfs_record(disk, &w->rec) < 0 || loam_vfs_fault(disk, &plan, &fault) < 0) {
        return false;
    }
    w->vfs = fault;
    bool fine = crash_workload_run(w);
    loam_vfs_free(fault);
    return fine;
}

/* One of each LARGE_EVERY, another one each time: the `first` and the `kinds` - 1 behind it by turns, so that
 * they meet a mapped log, sessions without a log and a buffered log. */
static bool has_turn(uint64_t round, unsigned first, unsigned kinds)
{
    return round % LARGE_EVERY == first + round / LARGE_EVERY % kinds;
}

void crash_run_round(struct crash_run *r, uint64_t round)
{
    struct model model;
    model_init(&model);
    uint64_t mixed = r->plan->seed * MIX + round;
    struct crash_workload w = {.model = &model,
                               .seed = model_random(&mixed),
                               .unlogged_some = round % UNLOGGED_EVERY == UNLOGGED_EVERY / 2,
                               .larger_last = has_turn(round, 1, 4),
                               .many_names = round % NAMES_EVERY == 3,
                               .whole = round % WHOLE_EVERY == 1,
                               .long_batches = has_turn(round, 5, 3)};
    loam_vfs *disk;
    r->round = round;
    atomic_store(&r->position->round, round);
    atomic_store(&r->position->depth, 0);
    if (loam_vfs_memory(&disk) < 0) {
        fputs("loam-crash: no memory for a disk\n", stderr);
        exit(4);
    }
    if (record(r, &w, disk)) {
        struct source s = {.rec = w.rec, .model = &model, .work = &w, .depth = 1, .path = ""};
        atomic_fetch_add(&r->totals->changes, loam_recording_length(w.rec));
        atomic_fetch_add(&r->totals->rolls, w.roll_count);
        visit(r, &s);
        atomic_fetch_add(&r->totals->finished, !r->totals->stop);
    } else {
        atomic_fetch_add(&r->totals->other, 1);
        fprintf(stderr,
                "\nFAILED seed %" PRIu64 ", round %" PRIu64 ", in the workload itself\n  %s\n",
                r->plan->seed, round, w.why);
    }
    loam_recording_free(w.rec);
    loam_vfs_free(disk);
    model_free(&model);
}

struct crash_run *crash_run_new(const struct crash_plan *plan, struct crash_totals *totals,
                                struct crash_position *position)
{
    struct crash_run *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->plan = plan;
        r->totals = totals;
        r->position = position;
    }
    return r;
}

void crash_run_free(struct crash_run *r)
{
    if (r != NULL) {
        free(r->seen);
        free(r);
    }
}

int crash_replay(const char *dir)
{
    struct model m;
    struct model_promise p;
    loam_vfs *state;
    char why[MODEL_WHY];
    if (!crash_case_load(dir, &state, &m, &p)) {
        return 4;
    }
    bool fine = crash_check(&m, &p, state, 0, why);
    printf("%s: %s\n", dir, fine ? "right" : why);
    loam_vfs_free(state);
    model_free(&m);
    return fine ? 0 : 3;
}
