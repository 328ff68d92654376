/* cache_scenarios.c - Blocks filled by readers, staged by builders, moved by the reclaimer, dropped.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A block's words hold its table and number; whoever is lent a block checks all of them.
 */
#include "sstable/block_cache.h"

#include <string.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "tests/explore/explore.h"

enum { UNIT = 1024, BLOCKS = 96, TABLES = 2 };

static struct {
    struct block_cache cache;
    struct cached_blocks table[TABLES];
    _Atomic uint64_t *addr[TABLES];
    struct epoch_node retire;
    struct block_stage stage[2];
    uint32_t written[2][BLOCKS];
    size_t block; /* bytes of each */
    bool admitted[2];
    uint32_t hot; /* a block of table 0 */
    bool failing; /* every write of stage 0 */
} w;

static void fill(void *data, uint64_t name)
{
    uint64_t *p = data;
    for (unsigned i = 0; i < w.block / sizeof *p; i++) {
        p[i] = name;
    }
}

static void expect_filled(const void *data, size_t size, uint64_t name)
{
    const uint64_t *p = data;
    EXPECT_EQ(size, w.block);
    for (unsigned i = 0; i < w.block / sizeof *p; i++) {
        EXPECT_EQ(p[i], name);
    }
}

/* 0x100 * table + block */
static bool peek(unsigned table, uint32_t block)
{
    size_t size;
    epoch_enter();
    const struct cached_blocks *t = slotmap_get(&w.cache.tables, w.table[table].handle);
    const void *p = t != NULL ? block_cache_peek(&w.cache, t, block, true, &size) : NULL;
    if (p != NULL) {
        expect_filled(p, size, 0x100 * table + block);
    }
    epoch_exit();
    return p != NULL;
}

/* As a reader that missed and has read the block from its file. */
static void miss(unsigned table, uint32_t block)
{
    if (peek(table, block)) {
        return;
    }
    epoch_enter();
    struct cached_blocks *t = slotmap_get(&w.cache.tables, w.table[table].handle);
    uint64_t addr;
    void *p = t != NULL ? block_cache_fill_begin(&w.cache, w.block, &addr) : NULL;
    if (p != NULL) {
        fill(p, 0x100 * table + block);
        block_cache_fill_end(&w.cache, t, block, addr, true, false);
    }
    epoch_exit();
}

static void setup_bytes(size_t bytes)
{
    w.block = UNIT;
    EXPECT_EQ(block_cache_init(&w.cache, alloc_global(), bytes, 0), LOAM_OK);
    for (unsigned i = 0; i < TABLES; i++) {
        w.addr[i] = explore_memory(BLOCKS * sizeof *w.addr[i]);
        w.table[i] = (struct cached_blocks){.count = BLOCKS, .addr = w.addr[i]};
        w.table[i].handle = slotmap_insert(&w.cache.tables, &w.table[i]);
        EXPECT(w.table[i].handle != 0);
    }
}

static void setup(void)
{
    setup_bytes(16384);
}

/* The ring is as full as it gets: eviction has begun and earned a copy, there is room for one, and a block
 * that it will come to soon is hot. Smaller rings evict only when nothing is free. */
static void fill_ring(void)
{
    uint32_t b = 0;
    uint64_t earned = 4;
    while (ring_distance_(&w.cache.ring, w.cache.ring.evict, w.cache.first) < earned) {
        miss(0, b++);
    }
    while (!ring_reclaim(&w.cache.ring, 6 * w.block)) {
    }
    while (!peek(0, w.hot)) {
        w.hot++;
    }
    EXPECT(w.hot > 0);
}

static void setup_full(void)
{
    setup_bytes(81920);
    fill_ring();
}

static uint64_t relocated(void)
{
    struct cache_metrics m;
    block_cache_metrics(&w.cache, &m);
    return m.relocated;
}

static void fill_body(unsigned thread)
{
    if (thread < 2) {
        miss(0, 0);
        miss(0, thread);
    } else {
        (void)peek(0, 0);
        (void)peek(0, 1);
    }
}

/* Of two that fill one block at once, one enters it. */
static void fill_check(void)
{
    struct cache_metrics m;
    block_cache_metrics(&w.cache, &m);
    EXPECT_EQ(m.fills, 2);
    EXPECT(peek(0, 0) && peek(0, 1));
}

SCENARIO(cache_fill, .says = "two readers miss the same block, a third looks", .threads = 3,
         .flags = LOCK_FREE, .setup = setup, .body = fill_body, .check = fill_check, .bound = -1)

static void move_body(unsigned thread)
{
    if (thread == 0) {
        for (uint32_t b = 0; b < 8; b++) {
            miss(1, b);
        }
    } else {
        (void)peek(0, w.hot);
        (void)peek(0, w.hot);
    }
}

/* A block that got its second chance is found at its new place. */
static void move_check(void)
{
    EXPECT(relocated() != 0 && peek(0, w.hot));
}

SCENARIO(cache_move, .says = "a hot block is moved while it is read", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_full, .body = move_body, .check = move_check,
         .bound = 2)

/* ---- tables without an array: the directory --------------------------------------------------- */

/* Blocks of two units: all that fit the ring have room in the directory, which is one bucket here. */
static void setup_paged_bytes(size_t bytes)
{
    setup_bytes(bytes);
    w.block = (size_t)2 * UNIT;
    for (unsigned i = 0; i < TABLES; i++) {
        w.table[i].addr = NULL;
    }
}

static void setup_paged(void)
{
    setup_paged_bytes(16384);
    EXPECT_EQ(w.cache.directory_slots, 8);
}

static void setup_paged_full(void)
{
    setup_paged_bytes(81920);
    fill_ring();
}

static unsigned found(unsigned table, uint32_t blocks)
{
    unsigned n = 0;
    for (uint32_t b = 0; b < blocks; b++) {
        n += peek(table, b);
    }
    return n;
}

static void paged_fill_body(unsigned thread)
{
    if (thread < 2) {
        miss(0, thread);
        miss(0, 2 + thread);
    } else {
        (void)peek(0, 0);
        (void)peek(0, 3);
    }
}

/* What counts as entered is found: no two have taken one slot. */
static void paged_fill_check(void)
{
    struct cache_metrics m;
    block_cache_metrics(&w.cache, &m);
    EXPECT_EQ(found(0, 4), m.fills);
    EXPECT_EQ(m.fills + m.fills_lost, 4);
}

SCENARIO(cache_paged_fill, .says = "two enter blocks into one bucket, a third looks", .threads = 3,
         .flags = LOCK_FREE, .setup = setup_paged, .body = paged_fill_body,
         .check = paged_fill_check, .bound = 2)

/* Both may be kept, if neither has seen the other's. */
static void paged_same_body(unsigned thread)
{
    (void)thread;
    miss(0, 0);
}

static void paged_same_check(void)
{
    EXPECT(peek(0, 0));
}

SCENARIO(cache_paged_same, .says = "two readers miss the same block of the directory", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_paged, .body = paged_same_body,
         .check = paged_same_check, .bound = -1)

SCENARIO(cache_paged_move, .says = "a hot block of the directory moves while it is read",
         .threads = 2, .flags = LOCK_FREE, .setup = setup_paged_full, .body = move_body,
         .check = move_check, .bound = 2)

/* The second miss of a block enters it, whoever else misses it. */
static void setup_marks(void)
{
    setup_paged_full();
    for (uint32_t b = 0; b < 3; b++) {
        miss(1, b);
    }
}

static void marks_body(unsigned thread)
{
    bool first = block_cache_admits(&w.cache, &w.table[0], 20, w.block);
    bool second = block_cache_admits(&w.cache, &w.table[0], 20, w.block);
    EXPECT(second);
    w.admitted[thread] = first;
}

static void marks_check(void)
{
    EXPECT(!w.admitted[0] || !w.admitted[1]);
}

SCENARIO(cache_marks, .says = "two miss a block that the full cache does not know", .threads = 2,
         .flags = LOCK_FREE, .setup = setup_marks, .body = marks_body, .check = marks_check,
         .bound = -1)

/* ---- builders -------------------------------------------------------------------------------- */

static int write_block(void *arg, uint32_t block, const void *data, size_t size)
{
    unsigned stage = *(unsigned *)arg;
    expect_filled(data, size, 0x100 * stage + block);
    EXPECT_EQ(w.written[stage][block], 0);
    if (w.failing && stage == 0) {
        return LOAM_E_IO;
    }
    w.written[stage][block] = 1; /* a race, if two write it */
    return LOAM_OK;
}

static int stage_one(struct block_stage *s, unsigned stage, uint32_t block)
{
    uint64_t addr;
    void *p = block_stage_begin(s, w.block, &addr);
    if (p == NULL) {
        return s->rc;
    }
    fill(p, 0x100 * stage + block);
    return block_stage_end(s, addr, block, w.block);
}

static void stage_body(unsigned thread)
{
    static unsigned names[2] = {0, 1};
    if (thread == 2) {
        miss(0, 0);
        return;
    }
    struct block_stage *s = &w.stage[thread];
    EXPECT_EQ(block_stage_init(s, &w.cache, write_block, &names[thread]), LOAM_OK);
    int rc = LOAM_OK;
    for (uint32_t b = 0; rc == LOAM_OK && b < 2; b++) {
        rc = stage_one(s, thread, b);
        rc = rc == LOAM_OK ? block_stage_evict_some(s) : rc;
    }
    rc = rc == LOAM_OK ? block_stage_drain(s) : rc;
    if (w.failing && thread == 0) {
        EXPECT_EQ(rc, LOAM_E_IO);
    } else {
        EXPECT_EQ(rc, LOAM_OK);
        EXPECT(w.written[thread][0] == 1 && w.written[thread][1] == 1);
    }
    block_stage_abandon(s);
}

static void stage_check(void)
{
    EXPECT(w.cache.stages == NULL);
    struct cache_metrics m;
    block_cache_metrics(&w.cache, &m);
    EXPECT_EQ(m.dirty_bytes, 0);
}

static void setup_failing(void)
{
    setup();
    w.failing = true;
}

SCENARIO(cache_stage, .says = "two builders stage, write each other's blocks and drain",
         .threads = 3, .setup = setup, .body = stage_body, .check = stage_check, .bound = 1)
SCENARIO(cache_stage_fails, .says = "the same, and the writes of one fail", .threads = 2,
         .setup = setup_failing, .body = stage_body, .check = stage_check, .bound = 2)

static void free_addresses(void *arg, void *ptr)
{
    (void)arg;
    explore_free(ptr, BLOCKS * sizeof(uint64_t));
}

static void free_table(void *arg, void *ptr)
{
    (void)arg;
    explore_free(ptr, sizeof(struct cached_blocks));
}

/* A table goes, and what the cache knows it by once no section can see it. A builder's blocks push its hot
 * block on meanwhile; a builder is in no section but the cache's own. */
static void drop_body(unsigned thread)
{
    static unsigned name = 1;
    if (thread == 1) {
        EXPECT_EQ(slotmap_erase(&w.cache.tables, w.table[0].handle), LOAM_OK);
        if (w.table[0].addr != NULL) {
            epoch_retire_node(&w.retire, free_addresses, NULL, (void *)(uintptr_t)w.addr[0]);
        } else {
            epoch_retire_node(&w.retire, free_table, NULL, &w.table[0]);
        }
        epoch_poll();
        epoch_poll();
        return;
    }
    struct block_stage *s = &w.stage[1];
    EXPECT_EQ(block_stage_init(s, &w.cache, write_block, &name), LOAM_OK);
    for (uint32_t b = 0; b < 6; b++) {
        EXPECT_EQ(stage_one(s, 1, b), LOAM_OK);
    }
    EXPECT_EQ(block_stage_drain(s), LOAM_OK);
    block_stage_abandon(s);
}

SCENARIO(cache_drop, .says = "a table is dropped while a builder moves its hot block", .threads = 2,
         .setup = setup_full, .body = drop_body, .bound = 2)
SCENARIO(cache_paged_drop, .says = "the same with a table of the directory", .threads = 2,
         .setup = setup_paged_full, .body = drop_body, .bound = 2)

/* A builder's table without an array: its blocks are entered where they still are, beside a reader whose
 * fills push them out. */
static void adopt_body(unsigned thread)
{
    static unsigned name = 0;
    if (thread == 1) {
        for (uint32_t b = 0; b < 5; b++) {
            miss(1, b);
        }
        return;
    }
    struct block_stage *s = &w.stage[0];
    EXPECT_EQ(block_stage_init(s, &w.cache, write_block, &name), LOAM_OK);
    uint64_t addr[2];
    for (uint32_t b = 0; b < 2; b++) {
        void *p = block_stage_begin(s, w.block, &addr[b]);
        EXPECT(p != NULL);
        fill(p, b);
        EXPECT_EQ(block_stage_end(s, addr[b], b, w.block), LOAM_OK);
    }
    EXPECT_EQ(block_stage_drain(s), LOAM_OK);
    w.table[0].handle = s->handle;
    EXPECT_EQ(slotmap_commit(&w.cache.tables, s->handle, &w.table[0]), LOAM_OK);
    epoch_enter();
    for (uint32_t b = 0; b < 2; b++) {
        block_cache_adopt(&w.cache, &w.table[0], b, addr[b]);
    }
    epoch_exit();
    (void)peek(0, 0);
    (void)peek(0, 1);
}

SCENARIO(cache_paged_adopt, .says = "a builder's blocks are entered while a reader fills the ring",
         .threads = 2, .setup = setup_paged, .body = adopt_body, .bound = 2)
