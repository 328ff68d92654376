/* commit.c - The done ring and the visible watermark.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/commit.h"

#include <assert.h>

#include "arena/sync.h"

#include "arena/poison.h"

#if defined(LOAM_MC)
#define SPINS  1u
#define YIELDS 1u
#else
#define SPINS  64u /* a predecessor that is running finishes within this */
#define YIELDS 4u  /* one that was descheduled gets the processor */
#endif

void commit_init(struct commit *c, uint64_t start)
{
    atomic_init(&c->visible, start);
    atomic_init(&c->sleepers, 0);
    atomic_init(&c->tick, 0);
    for (uint32_t i = 0; i < COMMIT_RING_WORDS; i++) {
        atomic_init(&c->done[i], 0);
    }
}

static _Atomic uint64_t *done_word(struct commit *c, uint64_t position)
{
    return &c->done[position / 8 % COMMIT_RING_WORDS];
}

static void wake_sleepers(struct commit *c)
{
    /* seq_cst: pairs with the add before a sleeper's last look at visible. */
    if (atom_load(&c->sleepers, seq_cst) != 0) {
        atom_add(&c->tick, 1, release);
        word_wake_all(&c->tick);
    }
}

/* Moves visible over every marked record. */
static void advance(struct commit *c)
{
    bool moved = false;
    uint64_t v = atom_load(&c->visible, seq_cst); /* seq_cst: see the header */
    for (;;) {
        uint64_t end = atom_load(done_word(c, v), seq_cst);
        if (end <= v) {
            break;
        }
        /* On failure v is the newer value: another thread is advancing; go on from there. */
        if (atom_cas(&c->visible, &v, end, seq_cst, seq_cst)) {
            v = end;
            moved = true;
        }
    }
    if (moved) {
        wake_sleepers(c);
    }
}

void commit_wait(struct commit *c, uint64_t position)
{
    for (unsigned i = 0; i < SPINS; i++) {
        if (commit_visible(c) >= position) {
            return;
        }
        spin_pause();
    }
    for (unsigned i = 0; i < YIELDS; i++) {
        if (commit_visible(c) >= position) {
            return;
        }
        thread_yield();
    }
    atom_add(&c->sleepers, 1, seq_cst); /* seq_cst: before the look below; pairs with the waker */
    for (;;) {
        uint32_t tick = atom_load(&c->tick, acquire);
        if (atom_load(&c->visible, seq_cst) >= position) {
            break;
        }
        word_wait(&c->tick, tick, UINT64_MAX);
    }
    atom_sub(&c->sleepers, 1, relaxed); /* relaxed: a late waker wakes nobody */
}

void commit_publish(struct commit *c, uint64_t begin, uint64_t end)
{
    assert(begin % 8 == 0 && end % 8 == 0 && begin < end);
    if (begin - commit_visible(c) >= (uint64_t)COMMIT_RING_WORDS * 8) {
        /* Its word may still belong to the lap before. */
        commit_wait(c, begin - ((uint64_t)COMMIT_RING_WORDS * 8 - 8));
    }
    atom_store(done_word(c, begin), end, seq_cst); /* seq_cst: see the header */
    advance(c);
    commit_wait(c, end);
}
