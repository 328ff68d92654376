/* block_cache_stress.c - Builders, readers and table deaths at once on a tiny ring.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a block's bytes are made from its table's number and its own; each block of a finished
 * table was written exactly once, none of an abandoned one after its abandon returned; readers see
 * the right bytes or miss. The rings hold as little as 16 units, so every begin meets a full ring.
 */
#include <stdlib.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "arena/status.h"
#include "sstable/block_cache.h"
#include "tests/support/check.h"
#include "tests/support/stress.h"

enum { BLOCKS = 64, OPEN_TABLES = 4 };

struct table {
    struct cached_blocks cached;
    _Atomic uint64_t slots[BLOCKS];
    uint64_t number;
    struct epoch_node node;
};

struct shared {
    struct block_cache cache;
    struct table *_Atomic open[OPEN_TABLES];
    _Atomic uint64_t next_number, hits, misses, refused;
    _Atomic uint32_t building;
    unsigned builders;
    uint64_t tables_each;
};

struct builder {
    struct block_stage stage;
    uint64_t number;
    _Atomic unsigned written[BLOCKS];
    _Atomic unsigned writes, fail_at;
    _Atomic bool dead;
};

static size_t block_size(uint64_t number, uint32_t block)
{
    return 1 + (size_t)((number * 131 + block * 977) % 4000);
}

static unsigned char block_byte(uint64_t number, uint32_t block)
{
    return (unsigned char)(number * 7 + block * 3);
}

static void block_check(const void *p, size_t size, uint64_t number, uint32_t block)
{
    unsigned char want[4096];
    CHECK_EQ(size, block_size(number, block));
    memset(want, block_byte(number, block), size);
    CHECK_BYTES(p, size, want, size); /* by memcmp: cheap under TSan too */
}

static int write_block(void *arg, uint32_t block, const void *data, size_t size)
{
    struct builder *b = arg;
    CHECK(!atom_load(&b->dead, relaxed));
    block_check(data, size, b->number, block);
    if (block % 7 == 0) {
        thread_yield();
    }
    unsigned n = atom_add(&b->writes, 1, relaxed) + 1;
    if (n == atom_load(&b->fail_at, relaxed)) {
        return FAIL(LOAM_E_IO, "made to fail");
    }
    atom_add(&b->written[block], 1, relaxed);
    return LOAM_OK;
}

static void table_free(void *arg, void *ptr)
{
    (void)arg;
    free(ptr);
}

static void table_close(struct shared *s, struct table *t)
{
    if (t != NULL) {
        CHECK_EQ(slotmap_erase(&s->cache.tables, t->cached.handle), LOAM_OK);
        epoch_retire_node(&t->node, table_free, NULL, t);
    }
}

/* One table from first block to open, or to abandon. */
static void build(struct shared *s, struct random *r)
{
    struct builder *b = calloc(1, sizeof *b);
    struct table *t = calloc(1, sizeof *t);
    CHECK(b != NULL && t != NULL);
    b->number = t->number = atom_add(&s->next_number, 1, relaxed);
    uint64_t fate = random_below(r, 4); /* 0: abandoned, 1: fails, else finished */
    uint32_t stop_at = fate == 0 ? (uint32_t)random_below(r, BLOCKS) : BLOCKS;
    b->fail_at = fate == 1 ? 1 + (unsigned)random_below(r, BLOCKS) : 0;
    CHECK_EQ(block_stage_init(&b->stage, &s->cache, write_block, b), LOAM_OK);
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < stop_at && rc == LOAM_OK; i++) {
        uint64_t addr = 0;
        size_t size = block_size(b->number, i);
        void *p = block_stage_begin(&b->stage, block_stage_max(&s->cache), &addr);
        if (p == NULL) {
            rc = loam_last_error()->code;
            break;
        }
        memset(p, block_byte(b->number, i), size);
        t->slots[i] = addr;
        rc = block_stage_end(&b->stage, addr, i, size);
        rc = rc == LOAM_OK ? block_stage_evict_some(&b->stage) : rc;
    }
    CHECK_EQ(rc, fate == 1 && rc != LOAM_OK ? LOAM_E_IO : LOAM_OK);
    if (fate >= 1) {
        rc = block_stage_drain(&b->stage);
        CHECK_EQ(rc, fate == 1 ? LOAM_E_IO : LOAM_OK);
    }
    if (fate < 2) {
        block_stage_abandon(&b->stage);
        atom_store(&b->dead, true, relaxed);
        free(t);
    } else {
        for (uint32_t i = 0; i < BLOCKS; i++) {
            CHECK_EQ(b->written[i], 1);
        }
        bool directory = t->number % 2 != 0; /* the table has no array */
        t->cached = (struct cached_blocks){b->stage.handle, BLOCKS, directory ? NULL : t->slots};
        CHECK_EQ(slotmap_commit(&s->cache.tables, b->stage.handle, &t->cached), LOAM_OK);
        for (uint32_t i = 0; i < BLOCKS && directory; i++) {
            block_cache_adopt(&s->cache, &t->cached, i, t->slots[i]);
        }
        /* acq_rel: hands the new table to readers and takes the old one over. */
        table_close(s, atom_swap(&s->open[t->number % OPEN_TABLES], t, acq_rel));
    }
    free(b); /* no write function can run any more: ASan watches */
}

static void read_some(struct shared *s, struct random *r)
{
    unsigned char private[4096];
    epoch_enter();
    for (unsigned k = 0; k < 3; k++) {
        /* acquire: pairs with the swap in build(). */
        struct table *t = atom_load(&s->open[random_below(r, OPEN_TABLES)], acquire);
        if (t == NULL) {
            continue;
        }
        uint32_t block = (uint32_t)random_below(r, random_below(r, 2) == 0 ? 4 : BLOCKS);
        size_t size = 0;
        const void *p = block_cache_peek(&s->cache, &t->cached, block, true, &size);
        if (p != NULL) {
            block_check(p, size, t->number, block);
            if (k == 0 && random_below(r, 16) == 0) {
                thread_yield();
                block_check(p, size, t->number, block); /* lent until the section ends */
            }
            atom_add(&s->hits, 1, relaxed);
            continue;
        }
        atom_add(&s->misses, 1, relaxed);
        size = block_size(t->number, block);
        memset(private, block_byte(t->number, block), size);
        uint64_t addr = 0;
        void *room = block_cache_fill_begin(&s->cache, size, &addr);
        if (room == NULL) {
            atom_add(&s->refused, 1, relaxed);
            continue;
        }
        memcpy(room, private, size);
        block_cache_fill_end(&s->cache, &t->cached, block, addr, random_below(r, 8) != 0,
                             random_below(r, 2) == 0);
    }
    epoch_exit();
}

static void member(struct crew_member *m)
{
    struct shared *s = m->shared;
    struct random r;
    random_init(&r, m->seed);
    if (m->index < s->builders) {
        for (uint64_t i = 0; i < s->tables_each; i++) {
            build(s, &r);
            (void)epoch_poll();
        }
        atom_sub(&s->building, 1, release); /* pairs with the acquire below */
        return;
    }
    while (atom_load(&s->building, acquire) != 0) { /* pairs with the release above */
        read_some(s, &r);
        struct cache_metrics metrics;
        block_cache_metrics(&s->cache, &metrics);
        CHECK(metrics.bytes_used <= metrics.capacity_bytes);
    }
}

static void run(uint64_t seed, size_t bytes, unsigned builders, unsigned readers, uint64_t tables)
{
    struct shared *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    CHECK_EQ(block_cache_init(&s->cache, alloc_global(), bytes, 0), LOAM_OK);
    s->builders = builders;
    s->building = builders;
    s->tables_each = tables * stress_scale;
    crew_run(builders + readers, member, s, seed);
    for (unsigned i = 0; i < OPEN_TABLES; i++) {
        table_close(s, s->open[i]);
    }
    CHECK_EQ(ring_dirty_bytes(&s->cache.ring), 0);
    CHECK_EQ(ring_wait_space(&s->cache.ring, block_stage_max(&s->cache), 1000000), LOAM_OK);
    epoch_synchronize();
    block_cache_destroy(&s->cache);
    free(s);
}

/* With the marks of what was missed, two bytes a unit, and the directory, eight. */
#define SIXTEEN_UNITS (16 * (1024 + sizeof(struct ring_desc) + 2 + 8))

STRESS(block_cache, two_builders_and_two_readers_on_sixteen_units)
{
    run(seed, SIXTEEN_UNITS, 2, 2, 6);
}

STRESS(block_cache, four_builders_without_readers_on_sixteen_units)
{
    run(seed, SIXTEEN_UNITS, 4, 0, 6);
}

STRESS(block_cache, two_builders_and_three_readers_on_a_ring_that_holds_some_tables)
{
    run(seed, 600 << 10, 2, 3, 12);
}
