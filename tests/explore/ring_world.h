/* ring_world.h - The ring that the ring's scenarios share, and what their threads do with it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each entry is filled with words that hold its cookie; whoever finds an entry readable checks all
 * of them.
 */
#ifndef LOAM_TESTS_EXPLORE_RING_WORLD_H_
#define LOAM_TESTS_EXPLORE_RING_WORLD_H_

#include "arena/ring.h"

#include "arena/epoch.h"
#include "arena/status.h"
#include "tests/explore/explore.h"

enum { UNIT = 64, ENTRIES = 8, OWNER = 9 };

static struct {
    struct ring ring;
    _Atomic uint64_t addr[ENTRIES]; /* by cookie; 0: not published */
    unsigned written[ENTRIES];
    _Atomic uint32_t fails_left; /* writes that fail from now on */
    _Atomic uint32_t written_count;
    _Atomic uint32_t produced;
} w;

static inline void fill(void *data, size_t size, uint64_t cookie)
{
    uint64_t *p = data;
    for (size_t i = 0; i < size / sizeof *p; i++) {
        p[i] = cookie;
    }
}

static inline void expect_filled(const void *data, size_t size, uint64_t cookie)
{
    const uint64_t *p = data;
    for (size_t i = 0; i < size / sizeof *p; i++) {
        EXPECT_EQ(p[i], cookie);
    }
}

static inline void read_entry(uint64_t cookie)
{
    uint64_t addr = atom_load(&w.addr[cookie], relaxed);
    if (addr == 0) {
        return;
    }
    epoch_enter();
    size_t size;
    const void *p = ring_read(&w.ring, addr, true, &size);
    if (p != NULL) {
        expect_filled(p, size, cookie);
    }
    epoch_exit();
}

static inline void fill_once(uint64_t cookie, bool keep)
{
    uint64_t addr;
    if (ring_reserve(&w.ring, RING_FILL, UNIT, OWNER, cookie, &addr) != LOAM_OK) {
        return;
    }
    fill(ring_data(&w.ring, addr), UNIT, cookie);
    if (keep) {
        ring_publish_clean(&w.ring, addr, true);
        atom_store(&w.addr[cookie], addr, relaxed);
    } else {
        ring_discard(&w.ring, addr);
    }
}

static inline bool relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t old_addr,
                            uint64_t new_addr)
{
    (void)arg;
    (void)owner;
    if (new_addr == 0) {
        return atom_load(&w.addr[cookie], relaxed) == old_addr;
    }
    return atom_cas(&w.addr[cookie], &old_addr, new_addr, relaxed, relaxed);
}

static inline void ring_check(void)
{
    struct ring_metrics m;
    ring_metrics(&w.ring, &m);
    EXPECT_EQ(m.dirty_bytes, 0);
    EXPECT(m.head <= m.evict && m.evict <= m.tail);
    /* All of it can be had again. */
    for (unsigned i = 0; i < 40; i++) {
        uint64_t addr;
        if (ring_reserve(&w.ring, RING_DIRTY, UNIT, OWNER, 0, &addr) != LOAM_OK) {
            EXPECT_EQ(ring_wait_space(&w.ring, UNIT, 0), LOAM_OK);
            EXPECT_EQ(ring_reserve(&w.ring, RING_DIRTY, UNIT, OWNER, 0, &addr), LOAM_OK);
        }
        ring_discard(&w.ring, addr);
    }
}

#endif
