/* ring_scenarios.c - Producers, evictors, readers and pins on a ring of two to eight units.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An entry is written out exactly once, however often the write fails before. Units are used again
 * as soon as they may be, so each pass over the physical end reuses memory that others have just
 * read.
 *
 * What each pair of orders is for (take it away, and the scenario named turns red; see
 * mutations.py)
 *   publish (release) / scan, read, pin (acquire)      bytes of the entry: ring_writers, ring_read
 *   word of an entry entered (release) / walkers       its size: ring_writers
 *   evict, stamp, sections' ends / head / reserve      reuse after the last reader: ring_read
 *   state change and look at waiters, both seq_cst     a wake-up: ring_sleep
 */
#include "arena/ring.h"

#include "arena/status.h"
#include "arena/sync.h"
#include "tests/explore/explore.h"
#include "tests/explore/ring_world.h"

static void setup_ring(unsigned units, unsigned second_chance, ring_relocate_fn *relocate)
{
    const struct ring_options o = {.alloc = alloc_global(),
                                   .unit = UNIT,
                                   .bytes = (size_t)units * UNIT,
                                   .second_chance_percent = second_chance,
                                   .relocate = relocate};
    EXPECT_EQ(ring_init(&w.ring, &o), LOAM_OK);
}

static void setup_two(void)
{
    setup_ring(2, 0, NULL);
}

static void setup_four(void)
{
    setup_ring(4, 0, NULL);
}

static void setup_eight(void)
{
    setup_ring(8, 0, NULL);
}

/* False: no room now. */
static bool produce(uint64_t cookie, size_t size)
{
    uint64_t addr;
    int rc = ring_reserve(&w.ring, RING_DIRTY, size, OWNER, cookie, &addr);
    if (rc != LOAM_OK) {
        EXPECT_EQ(rc, LOAM_STOPPED);
        return false;
    }
    fill(ring_data(&w.ring, addr), size, cookie);
    ring_publish(&w.ring, addr);
    atom_store(&w.addr[cookie], addr, relaxed); /* the entry's own word orders */
    atom_add(&w.produced, 1, relaxed);
    return true;
}

static void produce_waiting(uint64_t cookie, size_t size)
{
    while (!produce(cookie, size)) {
        EXPECT_EQ(ring_wait_space(&w.ring, size, UINT64_MAX), LOAM_OK);
    }
}

static int write_out(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    (void)arg;
    EXPECT_EQ(c->owner, OWNER);
    expect_filled(c->data, c->size, c->cookie);
    uint32_t left = atom_load(&w.fails_left, relaxed);
    if (left != 0 && atom_cas(&w.fails_left, &left, left - 1, relaxed, relaxed)) {
        return LOAM_E_IO;
    }
    EXPECT_EQ(w.written[c->cookie], 0);
    w.written[c->cookie]++; /* a race, if two have it */
    atom_add(&w.written_count, 1, relaxed);
    *outcome = c->cookie % 2 == 0 ? RING_KEEP : RING_GONE;
    return LOAM_OK;
}

static void evict_until(uint32_t count)
{
    while (atom_load(&w.written_count, relaxed) < count) {
        int rc = ring_evict_one(&w.ring, write_out, NULL, NULL);
        if (rc != LOAM_OK && rc != LOAM_E_IO) {
            EXPECT(rc == LOAM_NOTFOUND || rc == LOAM_STOPPED);
            thread_yield();
        }
    }
}

/* ---- producers and evictors -------------------------------------------------------------- */

static void writers_body(unsigned thread)
{
    if (thread < 2) {
        produce_waiting(thread, UNIT);
    } else {
        evict_until(2);
    }
}

static void two_written(void)
{
    EXPECT(w.written[0] == 1 && w.written[1] == 1);
    ring_check();
}

SCENARIO(ring_writers, .says = "two producers, one evictor", .threads = 3, .setup = setup_four,
         .body = writers_body, .check = two_written, .bound = 2)

static void setup_two_dirty(void)
{
    setup_four();
    EXPECT(produce(0, UNIT) && produce(1, UNIT));
    atom_store(&w.fails_left, 1, relaxed);
}

static void evictors_body(unsigned thread)
{
    (void)thread;
    evict_until(2);
}

SCENARIO(ring_evictors, .says = "two evictors, one failing write", .threads = 2,
         .setup = setup_two_dirty, .body = evictors_body, .check = two_written, .bound = 3)

static void all_body(unsigned thread)
{
    if (thread < 2) {
        produce_waiting(thread * 2, UNIT);
        produce_waiting(thread * 2 + 1, UNIT);
    } else {
        evict_until(4);
    }
}

static void four_written(void)
{
    for (unsigned i = 0; i < 4; i++) {
        EXPECT_EQ(w.written[i], 1);
    }
    ring_check();
}

static void setup_all(void)
{
    setup_two();
    atom_store(&w.fails_left, 2, relaxed);
}

SCENARIO(ring_all, .says = "two producers, two evictors, failing writes, two units", .threads = 4,
         .setup = setup_all, .body = all_body, .check = four_written, .bound = 1)

/* ---- readers against reuse --------------------------------------------------------------- */

static void setup_read(void)
{
    setup_two();
    EXPECT(produce(0, UNIT));
    EXPECT_EQ(ring_evict_one(&w.ring, write_out, NULL, NULL), LOAM_OK);
}

static void read_body(unsigned thread)
{
    if (thread == 0) {
        for (uint64_t c = 2; c < 6; c += 2) { /* over the end and into what the reader reads */
            if (produce(c, UNIT)) {
                (void)ring_evict_one(&w.ring, write_out, NULL, NULL);
            }
        }
        (void)produce(6, UNIT);
        (void)ring_evict_one(&w.ring, write_out, NULL, NULL);
    } else {
        read_entry(0);
        read_entry(2);
    }
}

SCENARIO(ring_read, .says = "a reader while units are used again", .threads = 2, .flags = LOCK_FREE,
         .setup = setup_read, .body = read_body, .check = ring_check, .bound = -1)

static void pin_body(unsigned thread)
{
    if (thread == 0) {
        read_body(0);
        return;
    }
    size_t size;
    const void *p = ring_pin(&w.ring, atom_load(&w.addr[0], relaxed), &size);
    if (p != NULL) {
        expect_filled(p, size, 0);
        ring_unpin(&w.ring, atom_load(&w.addr[0], relaxed));
    }
}

SCENARIO(ring_pin, .says = "pins while units are used again", .threads = 3, .flags = LOCK_FREE,
         .setup = setup_read, .body = pin_body, .check = ring_check, .bound = -1, .budget = 20000)

/* Readers fill, the block of one takes the place of the other's. */
static void fill_body(unsigned thread)
{
    fill_once(2 * thread, false);
    fill_once(2 * thread + 1, true);
    fill_once(2 * thread, true);
    read_entry(2 * (1 - thread) + 1);
}

SCENARIO(ring_fill, .says = "fills, discards, holes used again", .threads = 2, .flags = LOCK_FREE,
         .setup = setup_four, .body = fill_body, .check = ring_check, .bound = 3)

static void fill_two_body(unsigned thread)
{
    fill_once(2 * thread, thread == 2);
    fill_once(2 * thread + 1, true);
    read_entry(1);
}

SCENARIO(ring_fill_three, .says = "three readers fill two units", .threads = 3, .flags = LOCK_FREE,
         .setup = setup_two, .body = fill_two_body, .check = ring_check, .bound = 2)

/* ---- shrink ------------------------------------------------------------------------------ */

static void shrink_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t addr;
        EXPECT_EQ(ring_reserve(&w.ring, RING_DIRTY, 2 * UNIT, OWNER, 0, &addr), LOAM_OK);
        fill(ring_data(&w.ring, addr), 2 * UNIT, 55); /* also what is given back */
        fill(ring_data(&w.ring, addr), UNIT, 0);
        ring_shrink(&w.ring, addr, UNIT);
        ring_publish(&w.ring, addr);
        atom_store(&w.addr[0], addr, relaxed);
    } else if (thread == 1) {
        produce_waiting(1, UNIT);
    } else {
        evict_until(2);
    }
}

SCENARIO(ring_shrink, .says = "a reservation shrinks while others reserve and walk", .threads = 3,
         .setup = setup_eight, .body = shrink_body, .check = two_written, .bound = 2)

/* What a shrink gives back is taken whole by an entry, and behind that stands another one where the shrunk
 * one ended before. Who walks by the old size steps over the first of them. */
static void shrink_drop_prepare(unsigned thread)
{
    if (thread == 0) {
        uint64_t addr;
        EXPECT_EQ(ring_reserve(&w.ring, RING_DIRTY, 2 * UNIT, OWNER + 1, 0, &addr), LOAM_OK);
        atom_store(&w.addr[0], addr, relaxed);
    }
}

static void shrink_drop_body(unsigned thread)
{
    if (thread == 0) {
        uint64_t addr = atom_load(&w.addr[0], relaxed);
        ring_shrink(&w.ring, addr, UNIT);
        ring_discard(&w.ring, addr);
        return;
    }
    for (uint64_t owner = OWNER; owner <= OWNER + 1; owner++) {
        uint64_t addr;
        EXPECT_EQ(ring_reserve(&w.ring, RING_DIRTY, UNIT, owner, 1, &addr), LOAM_OK);
        ring_publish(&w.ring, addr);
    }
    EXPECT_EQ(ring_drop_owner(&w.ring, OWNER), 1);
}

static void shrink_drop_check(void)
{
    struct ring_claim c;
    EXPECT_EQ(ring_claim_next(&w.ring, &c), LOAM_OK);
    EXPECT_EQ(c.owner, OWNER + 1);
    ring_complete(&w.ring, c.addr, RING_GONE);
    ring_check();
}

SCENARIO(ring_shrink_drop, .says = "a drop walks while a reservation shrinks before it", .threads = 2,
         .setup = setup_eight, .prepare = shrink_drop_prepare, .body = shrink_drop_body,
         .check = shrink_drop_check, .bound = 2)

/* A long entry does not fit before the end: what pads the end is longer than the entry that began
 * there a lap ago. */
static void setup_pads(void)
{
    setup_ring(16, 0, NULL);
    for (unsigned i = 0; i < 30; i++) {
        while (!produce(0, UNIT)) {
            EXPECT_EQ(ring_wait_space(&w.ring, UNIT, UINT64_MAX), LOAM_OK);
        }
        EXPECT_EQ(ring_evict_one(&w.ring, write_out, NULL, NULL), LOAM_OK);
        w.written[0] = 0;
    }
    EXPECT_EQ(ring_index_(w.ring.tail), 14);
}

static void pads_body(unsigned thread)
{
    if (thread == 0) {
        if (produce(2, 4 * UNIT)) {
            (void)ring_evict_one(&w.ring, write_out, NULL, NULL);
        }
    } else {
        (void)ring_reclaim(&w.ring, 15 * UNIT);
        (void)ring_reclaim(&w.ring, 15 * UNIT);
    }
}

static void pads_check(void)
{
    while (ring_evict_one(&w.ring, write_out, NULL, NULL) == LOAM_OK) {
    }
    ring_check();
}

SCENARIO(ring_pads, .says = "a pad at the physical end, while another reclaims", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_pads, .body = pads_body, .check = pads_check,
         .bound = 3)

/* ---- second chance ----------------------------------------------------------------------- */

/* A ring full of clean entries, of which the oldest but few is hot: eviction has earned copies by
 * the time it gets there. */
static void setup_second_chance(void)
{
    setup_ring(64, 75, relocate);
    for (unsigned i = 0; i < 62; i++) {
        uint64_t cookie = i == 4 ? 0 : 1;
        EXPECT(produce(cookie, UNIT));
        EXPECT_EQ(ring_evict_one(&w.ring, write_out, NULL, NULL), LOAM_OK);
        w.written[cookie] = 0;
    }
    read_entry(0);
}

static void second_chance_body(unsigned thread)
{
    if (thread == 0) {
        for (uint64_t c = 2; c < ENTRIES; c++) {
            if (produce(c, UNIT)) {
                (void)ring_evict_one(&w.ring, write_out, NULL, NULL);
            }
        }
    } else if (thread == 1) {
        read_entry(0);
        read_entry(0);
    } else {
        atom_store(&w.addr[0], 0, relaxed); /* its owner forgets it */
    }
}

SCENARIO(ring_second_chance, .says = "hot entries move to the tail while they are read",
         .threads = 3, .flags = LOCK_FREE, .setup = setup_second_chance, .body = second_chance_body,
         .check = ring_check, .bound = 2)

/* ---- waiting ----------------------------------------------------------------------------- */

static void setup_full(void)
{
    setup_two();
    EXPECT(produce(0, UNIT) && produce(1, UNIT));
}

static void sleep_body(unsigned thread)
{
    if (thread == 0) {
        produce_waiting(2, UNIT);
    } else {
        evict_until(3);
    }
}

static void three_written(void)
{
    EXPECT(w.written[0] == 1 && w.written[1] == 1 && w.written[2] == 1);
    ring_check();
}

SCENARIO(ring_wait_space, .says = "a producer waits for room", .threads = 2, .setup = setup_full,
         .body = sleep_body, .check = three_written, .bound = 2)

static void claim_wait_body(unsigned thread)
{
    if (thread == 0) {
        EXPECT(produce(0, UNIT) || true);
    } else {
        struct ring_claim c;
        EXPECT_EQ(ring_claim_wait(&w.ring, &c, 100000), LOAM_OK);
        expect_filled(c.data, c.size, 0);
        ring_complete(&w.ring, c.addr, RING_KEEP);
    }
}

static void setup_in_order(void)
{
    setup_ring(4, 0, NULL);
    w.ring.in_order = true;
}

SCENARIO(ring_sleep, .says = "an evictor sleeps until an entry is published", .threads = 2,
         .flags = NO_LAPSE, .setup = setup_in_order, .body = claim_wait_body, .check = ring_check,
         .bound = -1)

static void setup_two_published(void)
{
    setup_two();
    EXPECT(produce(0, UNIT) && produce(1, UNIT));
}

/* The walk of a drop over entries whose units are used again, by another owner. */
static void drop_reuse_body(unsigned thread)
{
    if (thread == 0) {
        (void)ring_drop_owner(&w.ring, OWNER);
    } else {
        for (uint64_t i = 0; i < 3; i++) {
            struct ring_claim c;
            uint64_t addr;
            if (ring_claim_next(&w.ring, &c) == LOAM_OK) {
                ring_complete(&w.ring, c.addr, RING_GONE);
            }
            if (ring_reserve(&w.ring, RING_DIRTY, UNIT, OWNER + 1, 3, &addr) == LOAM_OK) {
                ring_publish(&w.ring, addr);
            }
        }
    }
}

static void drop_reuse_check(void)
{
    struct ring_claim c;
    while (ring_claim_next(&w.ring, &c) == LOAM_OK) {
        EXPECT_EQ(c.owner, OWNER + 1);
        ring_complete(&w.ring, c.addr, RING_GONE);
    }
    ring_check();
}

static void drop_body(unsigned thread)
{
    if (thread == 0) {
        w.written[7] = (unsigned)ring_drop_owner(&w.ring, OWNER);
    } else if (thread == 1) {
        struct ring_claim c;
        for (int i = 0; i < 2; i++) {
            if (ring_claim_next(&w.ring, &c) == LOAM_OK && c.owner == OWNER) {
                expect_filled(c.data, c.size, c.cookie);
                w.written[c.cookie]++;
                ring_complete(&w.ring, c.addr, RING_KEEP);
            }
        }
    } else {
        uint64_t addr;
        EXPECT_EQ(ring_reserve(&w.ring, RING_DIRTY, UNIT, OWNER + 1, 3, &addr), LOAM_OK);
        ring_discard(&w.ring, addr);
    }
}

static void drop_check(void)
{
    EXPECT_EQ(w.written[0] + w.written[1] + w.written[7], 2); /* each written or dropped */
    ring_check();
}

static void setup_drop(void)
{
    setup_four();
    EXPECT(produce(0, UNIT) && produce(1, UNIT));
}

SCENARIO(ring_drop, .says = "an owner's entries are dropped while another writes them",
         .threads = 3, .setup = setup_drop, .body = drop_body, .check = drop_check, .bound = 2)
SCENARIO(ring_drop_reuse, .says = "a drop walks where units are used again", .threads = 2,
         .setup = setup_two_published, .body = drop_reuse_body, .check = drop_reuse_check,
         .bound = 2)
