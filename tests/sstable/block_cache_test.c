/* block_cache_test.c - Staged blocks are written once and stay warm; fills, errors, limits.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a block's bytes are made from its table and number, so a peek that returns anything else
 * fails. Threads are block_cache_stress.c's business.
 */
#include <criterion/criterion.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "sstable/block_cache.h"
#include "tests/support/check.h"

enum { BLOCKS = 400 };

/* A table under construction: what its write function saw. */
struct table {
    struct block_stage stage;
    uint64_t addr[BLOCKS];
    unsigned written[BLOCKS];
    unsigned writes, fail_at; /* fail_at: 0 never, else the n-th write */
    struct cached_blocks cached;
    _Atomic uint64_t slots[BLOCKS];
    unsigned char mark;
};

static void block_make(void *p, size_t size, unsigned char mark, uint32_t block)
{
    memset(p, mark ^ (unsigned char)(block * 3), size);
}

static void block_check(const void *p, size_t size, unsigned char mark, uint32_t block)
{
    for (size_t i = 0; i < size; i++) {
        CHECK_EQ(((const unsigned char *)p)[i], mark ^ (unsigned char)(block * 3));
    }
}

static int table_write(void *arg, uint32_t block, const void *data, size_t size)
{
    struct table *t = arg;
    block_check(data, size, t->mark, block);
    if (++t->writes == t->fail_at) {
        return FAIL(LOAM_E_NOSPACE, "made to fail");
    }
    t->written[block]++;
    return LOAM_OK;
}

static void table_begin(struct table *t, struct block_cache *c, unsigned char mark)
{
    memset(t, 0, sizeof *t);
    t->mark = mark;
    CHECK_EQ(block_stage_init(&t->stage, c, table_write, t), LOAM_OK);
}

static int table_add(struct table *t, uint32_t block, size_t size)
{
    uint64_t addr = 0;
    void *p = block_stage_begin(&t->stage, 2 * size, &addr);
    if (p == NULL) {
        return loam_last_error()->code;
    }
    block_make(p, size, t->mark, block);
    t->addr[block] = addr;
    int rc = block_stage_end(&t->stage, addr, block, size);
    return rc != LOAM_OK ? rc : block_stage_evict_some(&t->stage);
}

static void table_open(struct table *t, struct block_cache *c, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        t->slots[i] = t->addr[i];
    }
    t->cached = (struct cached_blocks){t->stage.handle, count, t->slots};
    CHECK_EQ(slotmap_commit(&c->tables, t->stage.handle, &t->cached), LOAM_OK);
}

static bool warm(struct block_cache *c, struct table *t, uint32_t block, size_t size)
{
    size_t got = 0;
    epoch_enter();
    const void *p = block_cache_peek(c, &t->cached, block, true, &got);
    if (p != NULL) {
        CHECK_EQ(got, size);
        block_check(p, size, t->mark, block);
    }
    epoch_exit();
    return p != NULL;
}

static bool fill(struct block_cache *c, struct table *t, uint32_t block, size_t size, bool hot)
{
    uint64_t addr = 0;
    epoch_enter();
    void *p = block_cache_fill_begin(c, size, &addr);
    if (p != NULL) {
        block_make(p, size, t->mark, block);
        block_cache_fill_end(c, &t->cached, block, addr, true, hot);
    }
    epoch_exit();
    return p != NULL;
}

static struct block_cache cache;
static struct table tables[3];

static void start(size_t bytes)
{
    CHECK_EQ(block_cache_init(&cache, alloc_global(), bytes, 0), LOAM_OK);
}

static void stop(void)
{
    block_cache_destroy(&cache);
}

Test(block_cache, a_flushed_table_is_born_warm)
{
    start(1 << 20);
    struct table *t = &tables[0];
    table_begin(t, &cache, 1);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(table_add(t, i, 4000 + i), LOAM_OK);
    }
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_OK);
    CHECK(!t->stage.listed && cache.stages == NULL);
    table_open(t, &cache, 100);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(t->written[i], 1);
        CHECK(warm(&cache, t, i, 4000 + i));
    }
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, a_table_larger_than_the_cache_is_written_in_full)
{
    start(64 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 2);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        CHECK_EQ(table_add(t, i, 1 + (i * 97) % 6000), LOAM_OK);
    }
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_OK);
    table_open(t, &cache, BLOCKS);
    unsigned found = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        CHECK_EQ(t->written[i], 1);
        found += warm(&cache, t, i, 1 + (i * 97) % 6000);
    }
    CHECK(found >= 5 && found < BLOCKS);
    CHECK(warm(&cache, t, BLOCKS - 1, 1 + ((BLOCKS - 1) * 97) % 6000));
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, a_read_block_is_found_again_and_a_second_filler_loses)
{
    start(256 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 3);
    table_open(t, &cache, 10);
    CHECK(!warm(&cache, t, 4, 4096));
    CHECK(fill(&cache, t, 4, 4096, false));
    CHECK(warm(&cache, t, 4, 4096));
    uint64_t winner = t->slots[4];
    CHECK(fill(&cache, t, 4, 4096, false));
    CHECK_EQ(t->slots[4], winner);
    uint64_t addr = 0;
    epoch_enter();
    CHECK(block_cache_fill_begin(&cache, 4096, &addr) != NULL);
    block_cache_fill_end(&cache, &t->cached, 5, addr, false, false);
    epoch_exit();
    CHECK(!warm(&cache, t, 5, 4096));
    struct cache_metrics m;
    block_cache_metrics(&cache, &m);
    CHECK(m.fills == 1 && m.fills_lost == 1 && m.fills_refused == 0);
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

/* A block that is read now and then and one that is not, among others that come. */
static void give_second_chances(struct table *t)
{
    for (uint32_t i = 0; i < 8; i++) {
        CHECK(fill(&cache, t, i, 1000, false));
    }
    CHECK(fill(&cache, t, 300, 1000, false) && fill(&cache, t, 301, 1000, false));
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 8; i < 150; i++) {
            CHECK(warm(&cache, t, 300, 1000));
            CHECK(fill(&cache, t, i, 1000, false));
        }
    }
    CHECK(!warm(&cache, t, 301, 1000));
}

Test(block_cache, a_touched_block_gets_a_second_chance_and_an_untouched_one_does_not)
{
    start(128 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 4);
    table_open(t, &cache, BLOCKS);
    give_second_chances(t);
    struct cache_metrics m;
    block_cache_metrics(&cache, &m);
    CHECK(m.relocated >= 2 * 1024);
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, blocks_of_an_erased_table_are_not_kept)
{
    start(128 << 10);
    struct table *t = &tables[0], *u = &tables[1];
    table_begin(t, &cache, 5);
    table_open(t, &cache, 100);
    table_begin(u, &cache, 6);
    table_open(u, &cache, BLOCKS);
    for (uint32_t i = 0; i < 60; i++) {
        CHECK(fill(&cache, t, i, 1000, true));
    }
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        CHECK(fill(&cache, u, i, 1000, false));
    }
    struct cache_metrics m;
    block_cache_metrics(&cache, &m);
    CHECK_EQ(m.relocated, 0);
    CHECK_EQ(slotmap_erase(&cache.tables, u->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, two_stages_interleave_and_each_gets_its_own_blocks)
{
    start(64 << 10);
    struct table *t = &tables[0], *u = &tables[1];
    table_begin(t, &cache, 7);
    table_begin(u, &cache, 8);
    uint64_t open = 0;
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(table_add(t, i, 3000), LOAM_OK);
        if (i == 50) {
            CHECK(block_stage_begin(&u->stage, 100, &open) != NULL); /* t goes on beside it */
        }
        if (i == 52) {
            block_make(ring_data(&cache.ring, open), 100, 8, i);
            CHECK_EQ(block_stage_end(&u->stage, open, i, 100), LOAM_OK);
        }
        if (i < 50) {
            CHECK_EQ(table_add(u, i, 2000), LOAM_OK);
        }
    }
    CHECK_EQ(block_stage_drain(&u->stage), LOAM_OK);
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_OK);
    CHECK(t->writes == 100 && u->writes == 51);
    block_stage_abandon(&t->stage); /* drained, but its table is not to be */
    table_open(u, &cache, 100);
    CHECK_EQ(slotmap_erase(&cache.tables, u->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, c3_a_failed_write_is_latched_and_the_rest_is_dropped_unwritten)
{
    start(64 << 10);
    struct table *t = &tables[0], *u = &tables[1];
    table_begin(t, &cache, 9);
    table_begin(u, &cache, 10);
    t->fail_at = 3;
    int rc = LOAM_OK;
    uint32_t n = 0;
    for (; n < 100 && rc == LOAM_OK; n++) {
        rc = table_add(t, n, 3000);
        CHECK_EQ(table_add(u, n, 500), LOAM_OK); /* another's error is not its own */
    }
    CHECK_EQ(rc, LOAM_E_NOSPACE);
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOSPACE);
    CHECK_EQ(table_add(t, 0, 100), LOAM_E_NOSPACE);
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_E_NOSPACE);
    CHECK_EQ(t->writes, 3);
    block_stage_abandon(&t->stage);
    CHECK_EQ(block_stage_drain(&u->stage), LOAM_OK);
    CHECK_EQ(u->writes, n);
    block_stage_abandon(&u->stage);
    CHECK_EQ(ring_dirty_bytes(&cache.ring), 0);
    stop();
}

Test(block_cache, abandoned_blocks_are_never_written_and_leave_room)
{
    start(64 << 10);
    struct table *t = &tables[0], *u = &tables[1];
    table_begin(t, &cache, 11);
    table_begin(u, &cache, 12);
    uint64_t addr = 0;
    for (uint32_t i = 0; i < 40; i++) {
        void *p = block_stage_begin(&t->stage, 1000, &addr);
        CHECK(p != NULL);
        block_make(p, 1000, 11, i);
        CHECK_EQ(block_stage_end(&t->stage, addr, i, 1000), LOAM_OK);
    }
    CHECK(block_stage_begin(&t->stage, 1000, &addr) != NULL); /* and one is open */
    CHECK_EQ(t->writes, 0);
    block_stage_abandon(&t->stage);
    CHECK_EQ(ring_dirty_bytes(&cache.ring), 0);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(table_add(u, i, 2000), LOAM_OK);
    }
    CHECK_EQ(block_stage_drain(&u->stage), LOAM_OK);
    CHECK(t->writes == 0 && u->writes == 100);
    block_stage_abandon(&u->stage);
    stop();
}

/* ---- the directory ---- */

/* As table_open(), but without an array of addresses. */
static void table_open_unlisted(struct table *t, struct block_cache *c, uint32_t count)
{
    t->cached = (struct cached_blocks){t->stage.handle, count, NULL};
    CHECK_EQ(slotmap_commit(&c->tables, t->stage.handle, &t->cached), LOAM_OK);
    for (uint32_t i = 0; i < count; i++) {
        if (t->addr[i] != 0) {
            block_cache_adopt(c, &t->cached, i, t->addr[i]);
        }
    }
}

Test(block_cache, a_table_without_an_array_finds_its_blocks_too)
{
    start(4 << 20);
    struct table *t = &tables[0];
    table_begin(t, &cache, 1);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK_EQ(table_add(t, i, 4000 + i), LOAM_OK);
    }
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_OK);
    table_open_unlisted(t, &cache, 200);
    uint32_t found = 0;
    for (uint32_t i = 100; i < 200; i++) {
        CHECK(!warm(&cache, t, i, 4000));
        CHECK(fill(&cache, t, i, 4000, false));
        CHECK(fill(&cache, t, i, 4000, false)); /* loses */
    }
    for (uint32_t i = 0; i < 200; i++) {
        found += warm(&cache, t, i, i < 100 ? 4000 + i : 4000);
    }
    CHECK_EQ(found, 200);
    struct cache_metrics m;
    block_cache_metrics(&cache, &m);
    CHECK(m.fills == 100 && m.fills_lost == 100);
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

/* Blocks of one unit fill the directory, so buckets overflow. */
Test(block_cache, tables_in_one_directory_get_their_own_blocks_or_none)
{
    start(1 << 20);
    for (unsigned k = 0; k < 3; k++) {
        table_begin(&tables[k], &cache, (unsigned char)(20 + k));
        table_open_unlisted(&tables[k], &cache, BLOCKS);
    }
    uint32_t found = 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        for (unsigned k = 0; k < 3; k++) {
            CHECK(fill(&cache, &tables[k], i, 900, false));
        }
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        for (unsigned k = 0; k < 3; k++) {
            found += warm(&cache, &tables[k], i, 900); /* checks whose bytes they are */
        }
    }
    CHECK(found > BLOCKS);
    CHECK_EQ(slotmap_erase(&cache.tables, tables[0].cached.handle), LOAM_OK);
    table_begin(&tables[0], &cache, 30); /* the same place under a new name */
    table_open_unlisted(&tables[0], &cache, BLOCKS);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        CHECK(!warm(&cache, &tables[0], i, 900));
    }
    for (unsigned k = 0; k < 3; k++) {
        CHECK_EQ(slotmap_erase(&cache.tables, tables[k].cached.handle), LOAM_OK);
    }
    stop();
}

Test(block_cache, a_touched_block_without_an_array_gets_a_second_chance)
{
    start(128 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 4);
    table_open_unlisted(t, &cache, BLOCKS);
    give_second_chances(t);
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, misuse_and_limits_are_codes)
{
    start(64 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 13);
    uint64_t a = 0, b = 0;
    CHECK(block_stage_begin(&t->stage, block_stage_max(&cache) + 1, &a) == NULL);
    CHECK_EQ(loam_last_error()->code, LOAM_E_TOOBIG);
    CHECK(block_stage_begin(&t->stage, block_stage_max(&cache), &a) != NULL);
    CHECK(block_stage_begin(&t->stage, 10, &b) == NULL); /* C2: it would wait for itself */
    CHECK_EQ(loam_last_error()->code, LOAM_E_MISUSE);
    CHECK_EQ(block_stage_end(&t->stage, a + 1, 0, 10), LOAM_E_MISUSE);
    block_make(ring_data(&cache.ring, a), 10, 13, 0);
    CHECK_EQ(block_stage_end(&t->stage, a, 0, 10), LOAM_OK);
    CHECK_EQ(block_stage_end(&t->stage, a, 0, 10), LOAM_E_MISUSE);
    block_stage_abandon(&t->stage);
    epoch_enter();
    CHECK(block_cache_fill_begin(&cache, block_stage_max(&cache) + 1, &a) == NULL);
    CHECK(block_cache_fill_begin(&cache, 0, &a) == NULL);
    epoch_exit();
    stop();
    struct block_cache small;
    CHECK_EQ(block_cache_init(&small, alloc_global(), 16383, 0), LOAM_E_INVAL);
}

/* Each of its allocations is the first to fail once. */
Test(block_cache, without_memory_nothing_is_left_behind)
{
    static struct block_cache c;
    static struct alloc little;
    unsigned failed = 0;
    for (uint64_t limit = 0;; limit += 2048) {
        alloc_init(&little, NULL, limit);
        int rc = block_cache_init(&c, &little, 256 << 10, 0);
        if (rc == LOAM_OK) {
            block_cache_destroy(&c);
            CHECK_EQ(alloc_used(&little), 0);
            break;
        }
        failed++;
        CHECK_EQ(rc, LOAM_E_NOMEM);
        CHECK_EQ(alloc_used(&little), 0);
        block_cache_destroy(&c); /* of one that did not come to be: nothing */
    }
    CHECK(failed > 100);
}

Test(block_cache, lent_memory_is_filled_with_whatever_comes_and_goes_back)
{
    static struct alloc a;
    alloc_init(&a, NULL, UINT64_MAX);
    static struct block_cache c;
    CHECK_EQ(block_cache_init(&c, &a, 256 << 10, (4 * 256 << 10) + 1), LOAM_E_INVAL);
    CHECK_EQ(block_cache_init(&c, &a, 256 << 10, 256 << 10), LOAM_OK);
    CHECK(alloc_used_by(&a, MEM_RING) <= (256 << 10) + 3 * 4096);
    struct table *t = &tables[0];
    table_begin(t, &c, 14);
    table_open(t, &c, BLOCKS);
    uint32_t i = 0;
    while (block_cache_admits(&c, &t->cached, i, 4096)) {
        i += fill(&c, t, i, 4000, false); /* refused now and then: not enough epochs have passed */
    }
    block_cache_lend(&c, 256 << 10);
    uint32_t own = i;
    while (block_cache_admits(&c, &t->cached, i, 4096)) {
        i += fill(&c, t, i, 4000, false); /* refused now and then: not enough epochs have passed */
    }
    struct cache_metrics m;
    block_cache_metrics(&c, &m);
    CHECK(i > own * 3 / 2 && m.capacity_bytes > 400 << 10 && m.bytes_used > m.capacity_bytes / 4 * 3);
    for (unsigned step = 0; !block_cache_take_back(&c, 0); step++) {
        CHECK(step < 100);
        epoch_poll();
    }
    block_cache_metrics(&c, &m);
    CHECK(m.capacity_bytes < 256 << 10 && m.bytes_used <= m.capacity_bytes);
    CHECK(alloc_used_by(&a, MEM_RING) <= (256 << 10) + 3 * 4096);
    CHECK_EQ(slotmap_erase(&c.tables, t->cached.handle), LOAM_OK);
    epoch_synchronize();
    block_cache_destroy(&c);
}

Test(block_cache, memory_is_within_what_was_asked)
{
    static struct alloc a;
    alloc_init(&a, NULL, UINT64_MAX);
    struct block_cache c;
    CHECK_EQ(block_cache_init(&c, &a, 8 << 20, 0), LOAM_OK);
    CHECK(alloc_used_by(&a, MEM_RING) <= (8 << 20) + 2 * 4096);
    CHECK(c.ring.bytes > (7 << 20));
    block_cache_destroy(&c);
    CHECK_EQ(alloc_used(&a), 0);
}

Test(block_cache, a_full_one_admits_what_was_missed_not_long_ago)
{
    start(256 << 10);
    struct table *t = &tables[0], *u = &tables[1];
    table_begin(t, &cache, 14);
    table_open(t, &cache, BLOCKS);
    for (uint32_t i = 0; i < 64; i++) { /* free room: whatever comes */
        CHECK(block_cache_admits(&cache, &t->cached, i, 4096));
    }
    for (uint32_t i = 0; i < BLOCKS && atom_load(&cache.ring.evict, relaxed) == cache.first; i++) {
        (void)fill(&cache, t, i, 4000, false);
    }
    CHECK(atom_load(&cache.ring.evict, relaxed) != cache.first);
    table_begin(u, &cache, 15);
    table_open(u, &cache, BLOCKS);
    uint32_t b = 0;
    for (size_t size = 500; size < 64 << 10; size *= 3, b += 10) {
        CHECK(!block_cache_admits(&cache, &t->cached, b, size));
        /* By lot an older mark stays now and then. */
        unsigned tries = 0;
        while (!block_cache_admits(&cache, &t->cached, b, size)) {
            CHECK(++tries < 30);
        }
        CHECK(!block_cache_admits(&cache, &u->cached, b, size)); /* another table's */
        /* More other misses than such blocks fit. */
        for (uint32_t i = 0; i < 2000; i++) {
            (void)block_cache_admits(&cache, &u->cached, 1000 + i, size);
        }
        CHECK(!block_cache_admits(&cache, &t->cached, b, size));
        CHECK(!block_cache_admits(&cache, &t->cached, b + 1, size));
    }
    CHECK_EQ(slotmap_erase(&cache.tables, t->cached.handle), LOAM_OK);
    CHECK_EQ(slotmap_erase(&cache.tables, u->cached.handle), LOAM_OK);
    stop();
}

Test(block_cache, a_miss_in_a_section_when_all_is_dirty_is_refused_at_once)
{
    start(32 << 10);
    struct table *t = &tables[0];
    table_begin(t, &cache, 14);
    uint64_t addr = 0;
    while (ring_reclaim(&cache.ring, 2000)) {
        void *p = block_stage_begin(&t->stage, 2000, &addr);
        block_make(p, 2000, 14, 0);
        CHECK_EQ(block_stage_end(&t->stage, addr, 0, 2000), LOAM_OK);
    }
    struct table *u = &tables[1];
    table_begin(u, &cache, 15);
    table_open(u, &cache, 4);
    CHECK(!fill(&cache, u, 1, 2000, false));
    CHECK_EQ(block_stage_drain(&t->stage), LOAM_OK);
    CHECK(!fill(&cache, u, 1, 2000, false)); /* evicts for those who come after its section */
    CHECK(fill(&cache, u, 1, 2000, false));
    block_stage_abandon(&t->stage);
    CHECK_EQ(slotmap_erase(&cache.tables, u->cached.handle), LOAM_OK);
    stop();
}
