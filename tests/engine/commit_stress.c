/* commit_stress.c - Many writers publish records; readers check that nothing is visible too early.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: each writer stores its record's number in a plain word of the log before it publishes. A
 * reader that sees the watermark at v must find every word below v set: a lost ordering is a data
 * race under TSan and a zero word without it.
 */
#include <stdlib.h>

#include "arena/random.h"
#include "arena/sync.h"
#include "engine/commit.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

#define WRITERS 9u
#define READERS 2u
#define START   8u

struct shared {
    struct commit commit;
    _Atomic uint64_t tail;
    _Atomic uint32_t writing;
    uint64_t end;    /* of the log */
    uint64_t *words; /* one for each 8 bytes: end of the record that begins there; plain */
    uint32_t records;
    uint32_t max_words;
};

static void write_records(struct crew_member *m, struct shared *s)
{
    struct random r;
    random_init(&r, m->seed);
    for (uint32_t i = 0; i < s->records; i++) {
        uint64_t size = 8 * (1 + random_below(&r, s->max_words));
        uint64_t begin = atom_add(&s->tail, size, relaxed);
        if (random_below(&r, 64) == 0) {
            thread_yield(); /* everyone behind must wait */
        }
        s->words[begin / 8] = begin + size;
        commit_publish(&s->commit, begin, begin + size);
        CHECK(commit_visible(&s->commit) >= begin + size);
    }
    atom_sub(&s->writing, 1, release);
}

static void read_records(struct crew_member *m, struct shared *s)
{
    uint64_t checked = START, last = START;
    bool more = true;
    while (more) {
        more =
            atom_load(&s->writing, acquire) != 0; /* pairs with the sub; one more look after it */
        if (m->index % 2 == 0) {
            commit_wait(&s->commit, checked);
        }
        uint64_t visible = commit_visible(&s->commit);
        CHECK(visible >= last);
        last = visible;
        while (checked < visible) {
            uint64_t end = s->words[checked / 8];
            CHECK(end > checked && end <= visible);
            checked = end;
        }
        CHECK_EQ(checked, visible); /* the watermark is the end of a record */
        thread_yield();
    }
    CHECK_EQ(checked, atom_load(&s->tail, relaxed));
}

static void run(struct crew_member *m)
{
    struct shared *s = m->shared;
    if (m->index < WRITERS) {
        write_records(m, s);
    } else {
        read_records(m, s);
    }
}

static void stress(uint64_t seed, uint32_t records, uint32_t max_words)
{
    struct shared *s = aligned_alloc(CACHE_LINE, sizeof *s);
    CHECK(s != NULL);
    commit_init(&s->commit, START);
    atomic_init(&s->tail, START);
    atomic_init(&s->writing, WRITERS);
    s->records = records;
    s->max_words = max_words;
    s->words = calloc((size_t)WRITERS * records * max_words + 2, sizeof *s->words);
    CHECK(s->words != NULL);
    crew_run(WRITERS + READERS, run, s, seed);
    CHECK_EQ(commit_visible(&s->commit), atom_load(&s->tail, relaxed));
    free(s->words);
    free(s);
}

STRESS(commit, readers_see_whole_prefixes)
{
    stress(seed, (uint32_t)(4000 * stress_scale), 6);
}

/* Records so large that the ring laps while slow writers still hold old words. */
STRESS(commit, laps_of_the_ring_do_not_mix)
{
    stress(seed, (uint32_t)(400 * stress_scale), 4000);
}
