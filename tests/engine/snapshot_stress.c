/* snapshot_stress.c - Threads hold and let go of numbers while others ask which are held.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a holder shows each number from after the hold until before it lets go. What was shown before an
 * answer and still is behind it was held all the while: it is among the numbers told, or above the last.
 */
#include <stdlib.h>

#include "arena/random.h"
#include "engine/snapshot.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

enum { THREADS = 4, HOLDERS = 3, EACH = 400 };

struct shown {
    _Atomic uint64_t turn; /* odd: held */
    _Atomic uint64_t seq;
};

static struct world {
    struct commit *commit;
    struct snapshots all;
    struct shown shown[HOLDERS][EACH];
    _Atomic uint64_t written;
    _Atomic unsigned holding; /* threads */
} w;

static void take(struct world *s, struct held_seq *h, struct shown *show, struct random *r,
                 const struct held_seq *other)
{
    if (other != NULL && random_below(r, 4) == 0) {
        CHECK(snapshot_hold_same(other, h));
    } else {
        snapshot_hold_latest(&s->all, s->commit, h);
    }
    atom_store(&show->seq, h->seq, relaxed);
    atom_add(&show->turn, 1, release);
}

static void let_go(struct held_seq *h, struct shown *show, struct random *r)
{
    struct held_seq moved;
    atom_add(&show->turn, 1, acq_rel);
    if (random_below(r, 2) == 0) {
        snapshot_move(h, &moved);
        h = &moved;
    }
    snapshot_drop(h);
}

static void write_one(struct world *s)
{
    uint64_t at = atom_add(&s->written, 8, relaxed);
    commit_publish(s->commit, at, at + 8);
}

/* Waves of holds, so that there are many more than when an answer began, or none. */
static void hold(struct world *s, struct crew_member *m)
{
    struct random r;
    random_init(&r, m->seed);
    struct held_seq *held = calloc(EACH, sizeof *held);
    CHECK(held != NULL);
    for (uint64_t round = 0; round < 300 * stress_scale; round++) {
        size_t n = random_below(&r, EACH) + 1;
        for (size_t i = 0; i < n; i++) {
            take(s, &held[i], &s->shown[m->index][i], &r, i != 0 ? &held[random_below(&r, i)] : NULL);
            if (random_below(&r, 4) == 0) {
                write_one(s);
            }
        }
        for (size_t i = 0; i < n; i++) {
            let_go(&held[i], &s->shown[m->index][i], &r);
        }
    }
    free(held);
    atom_sub(&s->holding, 1, release);
}

static bool told(const uint64_t *seqs, size_t n, uint64_t seq)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (seqs[mid] < seq) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo == n || seqs[lo] == seq;
}

static void ask(struct world *s)
{
    static uint64_t turn[HOLDERS][EACH];
    for (int t = 0; t < HOLDERS; t++) {
        for (int i = 0; i < EACH; i++) {
            turn[t][i] = atom_load(&s->shown[t][i].turn, acquire);
        }
    }
    uint64_t before = commit_visible(s->commit) - 1;
    size_t n, cap;
    uint64_t oldest = snapshot_oldest(&s->all, s->commit);
    uint64_t *seqs = snapshot_numbers(&s->all, s->commit, alloc_global(), &n, &cap);
    CHECK(seqs != NULL && n != 0 && n <= cap);
    CHECK(seqs[n - 1] >= before);
    for (size_t i = 1; i < n; i++) {
        CHECK(seqs[i - 1] < seqs[i]);
    }
    for (int t = 0; t < HOLDERS; t++) {
        for (int i = 0; i < EACH; i++) {
            uint64_t seq = atom_load(&s->shown[t][i].seq, acquire);
            if (turn[t][i] % 2 == 1 && atom_load(&s->shown[t][i].turn, relaxed) == turn[t][i]) {
                CHECK(told(seqs, n, seq));
                CHECK(oldest <= seq);
            }
        }
    }
    alloc_put(alloc_global(), MEM_BUILD, seqs, cap * sizeof *seqs);
}

static void work(struct crew_member *m)
{
    struct world *s = m->shared;
    if (m->index < HOLDERS) {
        hold(s, m);
        return;
    }
    do {
        ask(s);
    } while (atom_load(&s->holding, acquire) != 0); /* pairs with the end of hold() */
}

STRESS(snapshot, no_number_is_missing_that_was_held_while_a_merge_asked)
{
    w.commit = aligned_alloc(CACHE_LINE, sizeof *w.commit);
    CHECK(w.commit != NULL);
    commit_init(w.commit, 8);
    snapshots_init(&w.all);
    w.written = 8;
    w.holding = HOLDERS;
    memset(w.shown, 0, sizeof w.shown);
    crew_run(THREADS, work, &w, seed);
    CHECK_EQ(snapshot_count(&w.all), 0);
    CHECK_EQ(snapshot_oldest(&w.all, w.commit), commit_visible(w.commit) - 1);
    snapshots_destroy(&w.all);
    free(w.commit);
}
