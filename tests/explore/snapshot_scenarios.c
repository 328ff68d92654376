/* snapshot_scenarios.c - Numbers held by several threads while a merge asks which are.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A merge drops what no number keeps and what is not newer than the last of them. So each number that is held
 * when it has asked must be among those it was told, or not below the last one.
 */
#include "arena/thread_slot.h"
#include "engine/snapshot.h"
#include "tests/explore/explore.h"

enum { HOLDERS = 2, START = 8 };

static struct {
    struct commit commit;
    struct snapshots all;
    struct held_seq held[2 * HOLDERS];
    bool is_held[2 * HOLDERS];
    uint64_t *seqs;
    size_t count, cap;
    uint64_t oldest;
} s;

static void setup(void)
{
    commit_init(&s.commit, START);
    snapshots_init(&s.all);
}

/* Numbers are given in the order of the threads, so that each has its own list. */
static void prepare(unsigned thread)
{
    (void)thread;
    EXPECT(thread_slot_self() != THREAD_SLOT_NONE);
}

static void ask(void)
{
    s.seqs = snapshot_numbers(&s.all, &s.commit, alloc_global(), &s.count, &s.cap);
    EXPECT(s.seqs != NULL);
}

static bool told(uint64_t seq)
{
    for (size_t i = 0; i < s.count; i++) {
        if (s.seqs[i] == seq) {
            return true;
        }
    }
    return seq > s.seqs[s.count - 1];
}

static void check(void)
{
    for (size_t i = 1; i < s.count; i++) {
        EXPECT(s.seqs[i - 1] < s.seqs[i]);
    }
    uint64_t held = 0;
    for (int i = 0; i < 2 * HOLDERS; i++) {
        held += s.is_held[i];
        EXPECT(!s.is_held[i] || s.seqs == NULL || told(s.held[i].seq));
        EXPECT(!s.is_held[i] || s.oldest <= s.held[i].seq);
    }
    EXPECT_EQ(snapshot_count(&s.all), held);
}

/* Each holder makes its own record visible and holds what is visible then. */
static void hold_body(unsigned thread)
{
    if (thread == HOLDERS) {
        ask();
        return;
    }
    commit_publish(&s.commit, START + 8 * thread, START + 8 * (thread + 1));
    snapshot_hold_latest(&s.all, &s.commit, &s.held[thread]);
    s.is_held[thread] = true;
}

SCENARIO(snapshot_numbers, .says = "two hold new numbers while a merge asks", .threads = HOLDERS + 1,
         .setup = setup, .prepare = prepare, .body = hold_body, .check = check, .bound = 3)

/* The same for the oldest number. */
static void oldest_body(unsigned thread)
{
    if (thread == HOLDERS) {
        s.oldest = snapshot_oldest(&s.all, &s.commit);
    } else {
        hold_body(thread);
    }
}

SCENARIO(snapshot_oldest, .says = "two hold new numbers while the oldest is asked for",
         .threads = HOLDERS + 1, .setup = setup, .prepare = prepare, .body = oldest_body,
         .check = check, .bound = 3)

/* An old number goes from hand to hand: taken over by another holder, moved, and let go by the first. */
static void hand_setup(void)
{
    setup();
    snapshot_hold_latest(&s.all, &s.commit, &s.held[0]);
    s.is_held[0] = true;
    commit_publish(&s.commit, START, START + 16);
}

static void hand_body(unsigned thread)
{
    if (thread == 0) {
        ask();
    } else if (thread == 1) {
        struct held_seq taken;
        if (snapshot_hold_same(&s.held[0], &taken)) {
            EXPECT_EQ(taken.seq, START - 1);
            snapshot_move(&taken, &s.held[1]);
            s.is_held[1] = true;
        }
    } else {
        snapshot_drop(&s.held[0]);
        s.is_held[0] = false;
    }
}

SCENARIO(snapshot_hand, .says = "an old number changes hands while a merge asks", .threads = 3,
         .setup = hand_setup, .prepare = prepare, .body = hand_body, .check = check, .bound = -1,
         .budget = 40000)
