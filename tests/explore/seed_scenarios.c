/* seed_scenarios.c - Models of lock-free structures with known defects, which must be found.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A checker that finds nothing proves nothing. Each of these follows the steps of a published
 * design:
 *
 *   seed_livelock (S1)  a slot map's list of blocks with room keeps a full block for ever, after
 *                       one insert met one erase; the inserts that follow go round and round
 *   seed_leak (S2)      the same pair loses a block that has room
 *   seed_inversion (F15) a skip list links a node at an upper level, after a lost race, without
 *                       comparing keys again
 *   seed_stack_aba      a stack pops by compare-and-swap of its top alone
 *   seed_publish        a pointer is published relaxed
 *   seed_dekker         two threads store and then look, without sequential consistency
 *   seed_sleep          a thread looks and then sleeps, with the wake-up in between
 */
#include <string.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/explore/explore.h"

/* ---- the slot map: one block of two slots, A occupied, B free ---------------------------- */

enum { FREE, RESERVED, OCCUPIED };
enum { A = 1, B = 2, BLOCK = 1, TRIES = 50 };

static struct {
    _Atomic uint32_t nonsaturated; /* first block with room; 0: none */
    struct {
        _Atomic uint32_t next_nonsaturated;
        _Atomic uint32_t next_free; /* first free slot */
        _Atomic uint32_t state[3];
        _Atomic uint32_t next[3];
    } block[2];
} map;

static void map_setup(void)
{
    map.nonsaturated = BLOCK;
    map.block[BLOCK].next_free = B;
    map.block[BLOCK].state[A] = OCCUPIED;
}

/* False: gave up, having gone round too often. */
static bool map_insert(void)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t b = atom_load(&map.nonsaturated, seq_cst);
        if (b == 0) {
            return true; /* would allocate a block: all is well */
        }
        uint32_t s = atom_load(&map.block[b].next_free, seq_cst);
        uint32_t expected = FREE;
        if (s == 0 || !atom_cas(&map.block[b].state[s], &expected, RESERVED, seq_cst, seq_cst)) {
            continue;
        }
        uint32_t top = s, next = atom_load(&map.block[b].next[s], seq_cst);
        if (!atom_cas(&map.block[b].next_free, &top, next, seq_cst, seq_cst)) {
            atom_store(&map.block[b].state[s], FREE, seq_cst);
            continue;
        }
        if (next == 0) {
            uint32_t head = b;
            uint32_t after = atom_load(&map.block[b].next_nonsaturated, seq_cst);
            (void)atom_cas(&map.nonsaturated, &head, after, seq_cst, seq_cst);
        }
        atom_store(&map.block[b].state[s], OCCUPIED, seq_cst);
        return true;
    }
    return false;
}

static void map_erase(uint32_t s)
{
    uint32_t b = BLOCK;
    atom_store(&map.block[b].state[s], RESERVED, seq_cst);
    uint32_t top = atom_load(&map.block[b].next_free, seq_cst);
    while (!atom_cas(&map.block[b].next_free, &top, s, seq_cst, seq_cst)) {
    }
    if (top == 0) { /* the block was full: it has room again */
        uint32_t after = atom_swap(&map.nonsaturated, b, seq_cst);
        atom_store(&map.block[b].next_nonsaturated, after, seq_cst);
    }
    atom_store(&map.block[b].next[s], top, seq_cst);
    atom_store(&map.block[b].state[s], FREE, seq_cst);
}

static void map_body(unsigned thread)
{
    if (thread == 0) {
        (void)map_insert();
    } else {
        map_erase(A);
    }
}

static void livelock_check(void)
{
    EXPECT(map_insert());
    EXPECT(map_insert()); /* live-lock */
}

static void leak_check(void)
{
    EXPECT(map.nonsaturated != 0 || map.block[BLOCK].next_free == 0); /* leak */
}

SCENARIO(seed_livelock, .says = "S1: insert meets erase, later inserts spin", .threads = 2,
         .flags = BROKEN, .setup = map_setup, .body = map_body, .check = livelock_check,
         .bound = -1)
SCENARIO(seed_leak, .says = "S2: insert meets erase, a block with room is lost", .threads = 2,
         .flags = BROKEN, .setup = map_setup, .body = map_body, .check = leak_check, .bound = -1)

/* ---- the skip list ----------------------------------------------------------------------- */

enum { NODES = 3, LEVELS = 2 };

static struct {
    _Atomic uint32_t next[LEVELS][NODES + 1]; /* node 0 is the head; keys are the numbers */
} list;

static void no_setup(void)
{
}

static uint32_t list_before(unsigned level, uint32_t key, uint32_t *after)
{
    uint32_t at = 0;
    for (;;) {
        *after = atom_load(&list.next[level][at], acquire);
        if (*after == 0 || *after > key) {
            return at;
        }
        at = *after;
    }
}

static void list_body(unsigned thread)
{
    uint32_t key = thread + 1, pred[LEVELS], after[LEVELS];
    for (unsigned i = 0; i < LEVELS; i++) {
        pred[i] = list_before(i, key, &after[i]);
    }
    do {
        pred[0] = list_before(0, key, &after[0]);
        atom_store(&list.next[0][key], after[0], relaxed);
    } while (!atom_cas(&list.next[0][pred[0]], &after[0], key, release, relaxed));
    do { /* the defect: links before whatever follows now */
        atom_store(&list.next[1][key], after[1], relaxed);
    } while (!atom_cas(&list.next[1][pred[1]], &after[1], key, release, relaxed));
}

static void list_check(void)
{
    for (unsigned i = 0; i < LEVELS; i++) {
        for (uint32_t at = list.next[i][0]; at != 0 && list.next[i][at] != 0;
             at = list.next[i][at]) {
            EXPECT(list.next[i][at] > at); /* order */
        }
    }
}

SCENARIO(seed_inversion, .says = "F15: an upper level out of order", .threads = 2, .flags = BROKEN,
         .setup = no_setup, .body = list_body, .check = list_check, .bound = 2)

/* ---- the stack --------------------------------------------------------------------------- */

static struct {
    _Atomic uint32_t top;
    _Atomic uint32_t next[4];
    _Atomic uint32_t owners[4];
} stack;

static void stack_setup(void)
{
    stack.top = 1;
    stack.next[1] = 2;
    stack.next[2] = 3;
}

static uint32_t stack_pop(void)
{
    uint32_t top = atom_load(&stack.top, acquire);
    while (top != 0) {
        uint32_t next = atom_load(&stack.next[top], relaxed);
        if (atom_cas(&stack.top, &top, next, acq_rel, acquire)) {
            EXPECT_EQ(atom_add(&stack.owners[top], 1, relaxed), 0);
            return top;
        }
    }
    return 0;
}

static void stack_push(uint32_t n)
{
    atom_sub(&stack.owners[n], 1, relaxed);
    uint32_t top = atom_load(&stack.top, relaxed);
    do {
        atom_store(&stack.next[n], top, relaxed);
    } while (!atom_cas(&stack.top, &top, n, release, relaxed));
}

static void stack_body(unsigned thread)
{
    uint32_t first = stack_pop();
    if (thread == 1) {
        (void)stack_pop();
        stack_push(first);
    }
    (void)stack_pop();
}

SCENARIO(seed_stack_aba, .says = "a stack without generations", .threads = 2, .flags = BROKEN,
         .setup = stack_setup, .body = stack_body, .bound = 2)

/* ---- orders ------------------------------------------------------------------------------ */

static struct {
    _Atomic(uint64_t *) published;
    uint64_t value;
    _Atomic uint32_t flag[2];
    uint32_t saw[2];
    _Atomic uint32_t word;
} orders;

static void publish_body(unsigned thread)
{
    if (thread == 0) {
        orders.value = 7;
        atom_store(&orders.published, &orders.value, relaxed);
    } else {
        uint64_t *p = atom_load(&orders.published, acquire);
        EXPECT(p == NULL || *p == 7);
    }
}

static void dekker_body(unsigned thread)
{
    atom_store(&orders.flag[thread], 1, release);
    orders.saw[thread] = atom_load(&orders.flag[1 - thread], acquire);
}

static void dekker_check(void)
{
    EXPECT(orders.saw[0] != 0 || orders.saw[1] != 0);
}

static void dekker_sc_body(unsigned thread)
{
    atom_store(&orders.flag[thread], 1, seq_cst);
    orders.saw[thread] = atom_load(&orders.flag[1 - thread], seq_cst);
}

static void sleep_body(unsigned thread)
{
    if (thread == 0) {
        atom_store(&orders.flag[0], 1, release);
        word_wake_all(
            &orders.word); /* the word itself does not change: too early, it wakes nobody */
    } else if (atom_load(&orders.flag[0], acquire) == 0) {
        word_wait(&orders.word, 0, UINT64_MAX);
    }
}

SCENARIO(seed_publish, .says = "a relaxed publication", .threads = 2, .flags = BROKEN,
         .setup = no_setup, .body = publish_body, .bound = -1)
SCENARIO(seed_dekker, .says = "store, then look: release and acquire are not enough", .threads = 2,
         .flags = BROKEN, .setup = no_setup, .body = dekker_body, .check = dekker_check,
         .bound = -1)
SCENARIO(orders_dekker, .says = "store, then look: sequentially consistent", .threads = 2,
         .setup = no_setup, .body = dekker_sc_body, .check = dekker_check, .bound = -1)
SCENARIO(seed_sleep, .says = "a lost wake-up", .threads = 2, .flags = BROKEN, .setup = no_setup,
         .body = sleep_body, .bound = -1)
