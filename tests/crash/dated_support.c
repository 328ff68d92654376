/* dated_support.c - Notes promises with their moments and judges crashes by them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/dated_support.h"

#include <stdlib.h>

#include "tests/crash/crash_support.h"
#include "tests/crash/state_support.h"
#include "tests/crash/tap_support.h"
#include "tests/support/check.h"

#define FILES_EVERY 256u /* of a wait of 50 ms */

struct dated_totals dated_totals;

/* ---- promises ---------------------------------------------------------------------------------- */

/* The mark comes last: what a promise covers was recorded before it, and what is begun comes after. */
static void note(void *ctx)
{
    struct dated *d = ctx;
    struct dated_event e = {.killed = oracle_promise_low(d->oracle, true),
                            .cut = oracle_promise_low(d->oracle, false)};
    oracle_promise_high(d->oracle, &e.killed);
    oracle_promise_high(d->oracle, &e.cut);
    if (d->count == d->cap) {
        d->cap = d->cap != 0 ? d->cap * 2 : 256;
        d->events = realloc(d->events, d->cap * sizeof *d->events);
        CHECK(d->events != NULL);
    }
    e.at = loam_recording_mark(d->rec);
    d->events[d->count++] = e;
}

void dated_begin(struct dated *d, loam_vfs *disk, struct oracle_writer *w)
{
    *d = (struct dated){.oracle = w->o};
    CHECK_EQ(loam_vfs_record(disk, &d->rec), LOAM_OK);
    w->rec = d->rec;
    w->before = w->after = note;
    w->hook_ctx = d;
    note(d);
}

void dated_end(struct dated *d)
{
    loam_recording_free(d->rec);
    free(d->events);
    *d = (struct dated){0};
}

struct oracle_promise dated_promise(const struct dated *d, uint64_t at, bool killed)
{
    size_t lo = 0, hi = d->count; /* the first event with event.at > at lies in [lo, hi] */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (d->events[mid].at <= at) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    CHECK(lo != 0);
    const struct dated_event *e = &d->events[lo - 1];
    struct oracle_promise p = killed ? e->killed : e->cut;
    p.at = at + 1;
    return p;
}

/* ---- crashes ----------------------------------------------------------------------------------- */

struct crasher {
    const struct dated *d;
    uint64_t hash[LOAM_CUT_SUBSET + 1]; /* of the last state of each variant, with its promise */
    const char *what;
};

static uint64_t state_hash(const loam_vfs *disk, const struct oracle_promise *p)
{
    const uint64_t words[] = {loam_vfs_hash(disk), p->opened,      p->low,
                              p->high,             p->control_low, p->control_high};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        h ^= words[i];
        h = splitmix64(&h);
    }
    return h;
}

static void try_state(struct crasher *c, const loam_crash *crash)
{
    const struct dated *d = c->d;
    struct oracle_promise p = dated_promise(d, crash->at, crash->variant == LOAM_CUT_ALL);
    loam_vfs *disk;
    crash_must(loam_recording_crash(d->rec, crash, &disk), "making a crash state");
    uint64_t h = state_hash(disk, &p);
    if (h != c->hash[crash->variant]) {
        c->hash[crash->variant] = h;
        oracle_context("%s; crash at change %llu, variant %u, %s names, crash seed %llu",
                       c->what, (unsigned long long)crash->at, crash->variant,
                       crash->names == LOAM_NAMES_ORDERED ? "ordered" : "posix",
                       (unsigned long long)crash->seed);
        tap_dump_on_failure(disk);
        state_check(d->oracle, &p, disk, splitmix64(&h), FILES_EVERY);
        tap_dump_on_failure(NULL);
        dated_totals.states++;
    }
    loam_vfs_free(disk);
}

void dated_crash(struct dated *d, uint64_t from, uint64_t to, unsigned tries, uint64_t seed,
                 const char *what)
{
    struct crasher c = {.d = d, .what = what};
    uint64_t mixed = seed;
    loam_crash crash = {.struct_size = sizeof crash, .names = seed % 2};
    for (crash.at = from; crash.at <= to; crash.at++) {
        crash.variant = LOAM_CUT_SYNCED;
        try_state(&c, &crash);
        for (unsigned i = 0; i < tries; i++) {
            crash.seed = splitmix64(&mixed);
            crash.variant = (uint32_t)(splitmix64(&mixed) % LOAM_CUT_SUBSET);
            try_state(&c, &crash);
        }
        dated_totals.moments++;
    }
}
