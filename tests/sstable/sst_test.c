/* sst_test.c - Whole tables give back what was added, by get and by cursor.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the model's sorted array.
 */
#include <criterion/criterion.h>

#include "sstable/sst_cursor.h"
#include "tests/sstable/sst_support.h"

static void round_trip(enum model_shape shape, size_t n, uint32_t compression, size_t cache_bytes,
                       const loam_comparator *cmp, struct random *rnd)
{
    struct sst_world w;
    struct model m;
    struct sst_warm warm = {0};
    sst_world_init(&w, cache_bytes, NULL);
    w.build.compression = compression;
    w.build.cmp = cmp;
    model_generate(&m, rnd, shape, n, cmp);
    CHECK_EQ(sst_world_build(&w, &m, &warm), LOAM_OK);
    CHECK((warm.handle != 0) == w.cached);
    sst_check_table(&w, &m, rnd, random_below(rnd, 2) != 0, &warm);
    CHECK_EQ(warm.handle, 0);
    sst_check_table(&w, &m, rnd, false, NULL);
    model_free(&m);
    sst_world_end(&w);
}

static size_t size_for(enum model_shape shape)
{
    return shape == SHAPE_LONG ? 40 : shape == SHAPE_VALUES ? 60 : 1200;
}

Test(sst, gives_back_every_shape_without_a_cache)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        for (uint32_t compression = 1; compression <= 2; compression++) {
            round_trip((enum model_shape)shape, size_for((enum model_shape)shape), compression, 0,
                       NULL, &rnd);
        }
    }
}

Test(sst, gives_back_every_shape_through_small_and_large_caches)
{
    static const size_t caches[] = {32 << 10, 4 << 20};
    struct random rnd;
    random_init(&rnd, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        for (size_t k = 0; k < 2; k++) {
            round_trip((enum model_shape)shape, size_for((enum model_shape)shape), 2, caches[k],
                       NULL, &rnd);
        }
    }
}

/* The file that the model makes; owned by the caller. */
static uint8_t *file_of(struct sst_world *w, const struct model *m, bool lent)
{
    w->build.lent = lent;
    CHECK_EQ(sst_world_build(w, m, NULL), LOAM_OK);
    return sst_world_read_file(w, w->info.size);
}

Test(sst, of_lent_entries_is_the_same_byte_for_byte)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        struct sst_world w;
        struct model m;
        sst_world_init(&w, shape % 2 != 0 ? 64 << 10 : 0, NULL);
        model_generate(&m, &rnd, (enum model_shape)shape, size_for((enum model_shape)shape), NULL);
        uint8_t *copied = file_of(&w, &m, false);
        size_t size = w.info.size;
        uint8_t *lent = file_of(&w, &m, true);
        CHECK_BYTES(copied, size, lent, w.info.size);
        sst_check_table(&w, &m, &rnd, true, NULL);
        free(copied);
        free(lent);
        model_free(&m);
        sst_world_end(&w);
    }
}

Test(sst, holds_tables_of_one_entry)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        for (int i = 0; i < 5; i++) {
            round_trip((enum model_shape)shape, 1, 2, i % 2 != 0 ? 64 << 10 : 0, NULL, &rnd);
        }
    }
}

Test(sst, follows_a_comparator)
{
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    struct random rnd;
    random_init(&rnd, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        round_trip((enum model_shape)shape, size_for((enum model_shape)shape), 2, 64 << 10,
                   &reverse, &rnd);
    }
}

Test(sst, finds_keys_that_only_a_comparator_calls_equal)
{
    loam_comparator caseless = {sizeof caseless, "caseless", model_caseless, NULL, NULL};
    struct sst_world w;
    struct model m = {.cmp = &caseless};
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct entry e;
    sst_world_init(&w, 0, NULL);
    w.build.cmp = &caseless;
    model_add(&m, LOAM_LIT("Key"), entry_tag(9, ENTRY_PUT), LOAM_LIT("value"));
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    epoch_enter();
    CHECK_EQ(sst_get(r, LOAM_LIT("KEY"), hash_key("KEY", 3), SEQ_MAX, &s, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "value", 5);
    epoch_exit();
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    sst_world_end(&w);
}

/* Whoever looks without the comparator cannot know which keys are the same. */
static int all_differ(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx, (void)a, (void)b;
    return -1;
}

Test(sst, refuses_another_comparator_but_lets_tools_look)
{
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    loam_comparator unknown = {sizeof unknown, "unknown", all_differ, NULL, NULL};
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    random_init(&rnd, model_seed());
    sst_world_init(&w, 0, NULL);
    w.build.cmp = &reverse;
    model_generate(&m, &rnd, SHAPE_DECIMAL, 200, &reverse);
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    o.cmp = NULL;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_FORMAT);
    CHECK(r == NULL);
    o.inspect = true;
    o.db_id = 1;
    o.file_number = 2;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK_EQ(sst_props(r)->file_number, SST_NUMBER);
    CHECK_EQ(sst_verify(r, NULL, NULL), LOAM_OK);
    sst_check_walks(r, &(struct model){.e = m.e, .n = m.n, .cmp = &unknown}, 0);
    sst_close(r);
    model_free(&m);
    sst_world_end(&w);
}

static void check_division(uint64_t resident_bytes, double precision)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct buf k;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 50000, NULL);
    sst_world_init(&w, 0, NULL);
    w.resident_bytes = resident_bytes;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    buf_init(&k, &w.alloc, MEM_MISC);
    for (uint64_t i = 1; i < 4; i++) {
        buf_clear(&k);
        sst_split_key(r, i, 4, &k);
        double rank = (double)model_seek(&m, buf_slice(&k), UINT64_MAX) / (double)m.n;
        double offset = (double)sst_offset_of(r, buf_slice(&k)) / (double)w.info.size;
        double share = (double)i / 4;
        CHECK(rank > share - precision && rank < share + precision);
        CHECK(offset > share - 0.04 - precision && offset < share + 0.04 + precision);
    }
    buf_free(&k);
    sst_close(r);
    model_free(&m);
    sst_world_end(&w);
}

static uint64_t block_bytes(struct sst_cursor *c, uint32_t block)
{
    struct sst_piece p;
    CHECK_EQ(sst_place_block(c->r, &c->part, block, SST_PART_FILE, &p), LOAM_OK);
    return p.size;
}

/* Reads of the file for a seek to entry i and a walk into the n-th block after its own. */
static uint64_t reads_for(struct sst_cursor *c, loam_vfs *fault, const struct model *m, size_t i,
                          uint32_t n)
{
    uint64_t before = loam_vfs_calls_of(fault, LOAM_CALL_READ);
    bool ok = sst_cursor_seek(c, m->e[i].key, m->e[i].tag);
    for (uint32_t first = c->block; ok && c->block < first + n; i++) {
        CHECK_EQ(c->at.entry.tag, m->e[i].tag);
        ok = sst_cursor_next(c);
    }
    CHECK(ok && c->at.entry.tag == m->e[i].tag);
    return loam_vfs_calls_of(fault, LOAM_CALL_READ) - before;
}

/* extra: reads of the index for the first seek. */
static void check_walk_reads(uint64_t resident_bytes, uint64_t extra)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_cursor c;
    loam_vfs *fault;
    const loam_fault_plan healthy = {.struct_size = sizeof healthy};
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 2000, NULL);
    sst_world_init(&w, 0, NULL);
    CHECK_EQ(loam_vfs_fault(w.disk, &healthy, &fault), LOAM_OK);
    w.vfs = fault;
    w.build.block_bytes = 1024;
    w.resident_bytes = resident_bytes;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 0), LOAM_OK);
    CHECK(c.count > 20);
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 2, 0), 1 + extra);
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 4, 2), 2); /* the first of its kind */
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 3, 2), 1);
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 5, 1), 1);
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 6, 0), 1);
    CHECK_EQ(c.window_size, block_bytes(&c, c.block) + block_bytes(&c, c.block + 1));
    CHECK_EQ(reads_for(&c, fault, &m, m.n / 7, 0), 1); /* the last one stayed in its block */
    CHECK_EQ(c.window_size, block_bytes(&c, c.block));
    sst_cursor_free(&c);
    sst_close(r);
    model_free(&m);
    w.vfs = w.disk;
    loam_vfs_free(fault);
    sst_world_end(&w);
}

Test(sst, a_seek_reads_what_the_walk_after_the_last_one_wanted)
{
    check_walk_reads(UINT64_MAX, 0);
    check_walk_reads(0, 1); /* all is in one partition */
}

Test(sst, divides_itself_into_parts)
{
    check_division(UINT64_MAX, 0.02);
    check_division(0, 0.1); /* to a partition */
}

static void check_allocates_nothing(uint64_t resident_bytes)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct sst_cursor c;
    struct entry e;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 2000, NULL);
    sst_world_init(&w, 64 << 10, NULL);
    w.resident_bytes = resident_bytes;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 4096), LOAM_OK);
    /* Buffers grow to what the largest read needs, which depends a little on what is cached. */
    uint64_t before = 0, grown = UINT64_MAX;
    for (int round = 0; round < 12 && grown != 0; round++) {
        before = alloc_calls();
        for (size_t i = 0; i < m.n; i++) {
            loam_slice k = m.e[i].key;
            epoch_enter();
            CHECK_EQ(sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, &s, &e), LOAM_OK);
            epoch_exit();
        }
        for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c)) {
        }
        grown = alloc_calls() - before;
    }
    CHECK_EQ(grown, 0);
    CHECK(s.cache_misses != 0 && s.cache_hits != 0);
    sst_cursor_free(&c);
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst, gets_and_steps_allocate_nothing_once_warm)
{
    check_allocates_nothing(UINT64_MAX);
    check_allocates_nothing(0);
}

/* Gets a key of block b; true when the block was cached. */
static bool get_hits(struct sst_reader *r, const struct model *m, const size_t *key_of, uint32_t b,
                     struct sst_get_scratch *s)
{
    struct entry e;
    loam_slice k = m->e[key_of[b]].key;
    uint64_t before = s->cache_hits;
    epoch_enter();
    sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, s, &e); /* deleted keys are in blocks too */
    epoch_exit();
    return s->cache_hits != before;
}

Test(sst, blocks_got_again_and_again_outlive_those_got_once)
{
    enum { BLOCKS_MAX = 4096, CACHE_BLOCKS = 64, HOT = CACHE_BLOCKS / 4 };
    static size_t key_of[BLOCKS_MAX];
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 8000, NULL);
    sst_world_init(&w, CACHE_BLOCKS << 10, NULL); /* a block takes a unit of 1 KiB */
    w.resident_bytes = UINT64_MAX;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    for (size_t i = m.n; i > 0; i--) {
        key_of[index_find(&r->index, m.e[i - 1].key)] = i - 1;
    }
    uint32_t blocks = r->index.count, hits = 0;
    CHECK(blocks > 4 * CACHE_BLOCKS && blocks <= BLOCKS_MAX);
    /* A hot block's turn comes every HOT gets of others: within one time round the cache. */
    const uint32_t turns = 50 * HOT;
    for (uint32_t i = 0; i < 2 * turns; i++) {
        bool hit = get_hits(r, &m, key_of, i % HOT, &s);
        hits += i >= turns && hit;
        get_hits(r, &m, key_of, HOT + i % (blocks - HOT), &s);
    }
    CHECK(hits >= turns - turns / 50);
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    sst_world_end(&w);
}
