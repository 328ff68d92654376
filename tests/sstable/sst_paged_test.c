/* sst_paged_test.c - Tables that are not resident: what they cost, and how far damage reaches.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the model's sorted array; sst_test.c and sst_damage_test.c ask every table both ways, too.
 */
#include "sstable/sst_paged.h"

#include <criterion/criterion.h>

#include "arena/coding.h"
#include "sstable/partition.h"
#include "tests/sstable/sst_support.h"

enum { ENTRIES = 20000 };

/* A table of many partitions and pages in a world without a cache, unless cache_bytes says so. */
static struct sst_reader *open_large(struct sst_world *w, struct model *m, size_t cache_bytes,
                                     enum model_shape shape, uint64_t resident_bytes)
{
    struct random rnd;
    struct sst_reader *r = NULL;
    random_init(&rnd, model_seed());
    model_generate(m, &rnd, shape, ENTRIES, NULL);
    sst_world_init(w, cache_bytes, NULL);
    CHECK_EQ(sst_world_build(w, m, NULL), LOAM_OK);
    w->resident_bytes = resident_bytes;
    struct sst_open_options o = sst_world_open_options(w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    return r;
}

static void end(struct sst_world *w, struct model *m, struct sst_reader *r)
{
    sst_close(r);
    model_free(m);
    sst_world_end(w);
}

static int get(struct sst_reader *r, loam_slice k, struct sst_get_scratch *s)
{
    struct entry e;
    epoch_enter();
    int rc = sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, s, &e);
    epoch_exit();
    return rc;
}

Test(sst_paged, many_partitions_give_back_everything)
{
    static const enum model_shape shapes[] = {SHAPE_DECIMAL, SHAPE_PREFIXED, SHAPE_VERSIONS};
    struct random rnd;
    random_init(&rnd, model_seed());
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct sst_world w;
        struct model m;
        struct sst_warm warm = {0};
        struct sst_reader *r = open_large(&w, &m, 256 << 10, shapes[i], 0);
        CHECK(r->props.partitions > 3 && r->props.partitions < r->props.blocks / 8);
        sst_close(r);
        CHECK_EQ(sst_world_build(&w, &m, &warm), LOAM_OK);
        sst_check_table(&w, &m, &rnd, i == 0, &warm);
        end(&w, &m, NULL);
    }
}

Test(sst_paged, a_get_reads_a_page_a_partition_and_a_block_at_most)
{
    struct sst_world w;
    struct model m;
    struct sst_get_scratch s;
    struct sst_reader *r = open_large(&w, &m, 0, SHAPE_DECIMAL, 0);
    CHECK(r->props.filter_pages > 3);
    sst_get_scratch_init(&s, &w.alloc);
    for (size_t i = 0; i < m.n; i += 7) {
        uint64_t before = s.cache_misses;
        CHECK_EQ(get(r, m.e[i].key, &s), LOAM_OK);
        CHECK_EQ(s.cache_misses - before, 3);
        CHECK(!sst_ruled_out(r, &s));
    }
    uint64_t before = s.cache_misses, ruled_out = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        char key[24];
        int n = snprintf(key, sizeof key, "%015u?", i * 7919);
        CHECK_EQ(get(r, loam_bytes(key, (size_t)n), &s), LOAM_NOTFOUND);
        ruled_out += sst_ruled_out(r, &s);
    }
    CHECK(ruled_out > 950);
    CHECK(s.cache_misses - before <= ruled_out + 3 * (1000 - ruled_out));
    sst_get_scratch_free(&s);
    end(&w, &m, r);
}

/* Pages and partitions are cached, so a second look at the same keys reads data blocks at most. */
Test(sst_paged, pages_and_partitions_stay_in_the_cache)
{
    struct sst_world w;
    struct model m;
    struct sst_get_scratch s;
    struct sst_reader *r = open_large(&w, &m, 16 << 20, SHAPE_DECIMAL, 0);
    sst_get_scratch_init(&s, &w.alloc);
    for (size_t i = 0; i < m.n; i++) {
        CHECK_EQ(get(r, m.e[i].key, &s), LOAM_OK);
    }
    uint64_t before = s.cache_misses;
    CHECK(before <= r->props.blocks + r->props.partitions + r->props.filter_pages);
    for (size_t i = 0; i < m.n; i++) {
        CHECK_EQ(get(r, m.e[i].key, &s), LOAM_OK);
    }
    /* A full bucket of the directory may have given up an address. */
    CHECK(s.cache_misses - before < r->props.blocks / 20);
    sst_get_scratch_free(&s);
    end(&w, &m, r);
}

static bool is_cached(struct sst_reader *r, const struct sst_piece *p)
{
    size_t size;
    epoch_enter();
    bool found = block_cache_peek(r->cache, &r->cached->blocks, p->number, false, &size) != NULL;
    epoch_exit();
    return found;
}

/* A full cache has nothing of a table just opened; a key is asked for twice. */
Test(sst_paged, a_full_cache_takes_parts_at_once_and_blocks_missed_before)
{
    enum { ROUNDS = 200 };
    struct sst_world w;
    struct model m;
    struct sst_get_scratch s;
    struct sst_part h;
    struct sst_reader *r = open_large(&w, &m, 1 << 20, SHAPE_DECIMAL, 0);
    int pages = 0, parts = 0, blocks[2] = {0, 0};
    sst_get_scratch_init(&s, &w.alloc);
    sst_part_init(&h, &w.alloc, MEM_MISC);
    for (size_t i = 0; i < m.n; i++) {
        CHECK_EQ(get(r, m.e[i].key, &s), LOAM_OK);
    }
    CHECK(atom_load(&w.cache.ring.evict, relaxed) != w.cache.first);
    for (size_t round = 0; round < ROUNDS; round++) {
        loam_slice k = m.e[round * m.n / ROUNDS].key;
        struct sst_open_options o = sst_world_open_options(&w);
        struct sst_piece at;
        uint32_t block;
        sst_close(r);
        CHECK_EQ(sst_open(&o, &r), LOAM_OK);
        CHECK_EQ(sst_find_block(r, &h, k, SST_PART_FILE, &block), LOAM_OK);
        CHECK_EQ(sst_place_block(r, &h, block, SST_PART_FILE, &at), LOAM_OK);
        uint64_t line = filter_line_of(hash_key(k.data, k.size), r->shape.lines);
        const struct sst_piece page = sst_page_piece(r, (uint32_t)(line / FILTER_PAGE_LINES));
        const struct sst_piece part = sst_part_piece(r, sst_part_of(r, block));
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(get(r, k, &s), LOAM_OK);
            pages += i == 0 && is_cached(r, &page);
            parts += i == 0 && is_cached(r, &part);
            blocks[i] += is_cached(r, &at);
        }
    }
    /* A full bucket may give up an address; one mark in eight is not left where another stands. */
    CHECK(pages > ROUNDS * 9 / 10 && parts > ROUNDS * 9 / 10);
    CHECK(blocks[0] < ROUNDS / 10 && blocks[1] > ROUNDS * 2 / 3);
    sst_part_free(&h);
    sst_get_scratch_free(&s);
    end(&w, &m, r);
}

Test(sst_paged, opening_reads_head_and_tail_and_keeps_little)
{
    struct sst_world w;
    struct model m;
    struct sst_reader *r = open_large(&w, &m, 0, SHAPE_DECIMAL, 0);
    loam_vfs *counting = NULL;
    loam_fault_plan plan = {.struct_size = sizeof plan};
    sst_close(r);
    CHECK_EQ(loam_vfs_fault(w.disk, &plan, &counting), LOAM_OK);
    w.vfs = counting;
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK(loam_vfs_calls(counting) <= 4); /* open, size, two reads */
    CHECK(sst_memory(r) < 4096);
    CHECK(sst_want(r) > 32 * r->props.blocks + r->props.filter_size);
    sst_close(r);
    loam_vfs_free(counting);
    end(&w, &m, NULL);
}

Test(sst_paged, residence_takes_no_more_than_allowed)
{
    struct sst_world w;
    struct model m;
    struct sst_reader *r = open_large(&w, &m, 64 << 10, SHAPE_DECIMAL, 0);
    uint64_t want = sst_want(r), bare = sst_memory(r);
    struct sst_open_options o = sst_world_open_options(&w);
    sst_close(r);
    CHECK(want != 0 && want != UINT64_MAX);
    o.resident_bytes = want - 1;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK(!r->resident && sst_want(r) == want);
    sst_close(r);
    o.resident_bytes = want;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK(r->resident && sst_want(r) == 0);
    CHECK(sst_memory(r) - bare <= want);
    end(&w, &m, r);
    /* Keys whose long prefixes partitions strip take more than the estimate. */
    r = open_large(&w, &m, 64 << 10, SHAPE_LONG, 0);
    o = sst_world_open_options(&w);
    o.resident_bytes = sst_want(r);
    bare = sst_memory(r);
    sst_close(r);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK(r->resident ? sst_memory(r) - bare <= o.resident_bytes : sst_want(r) == UINT64_MAX);
    end(&w, &m, r);
}

/* ---- damage ---- */

static void flip(struct sst_world *w, uint64_t offset)
{
    uint8_t *p = sst_world_read_file(w, w->info.size);
    p[offset] ^= 0x10;
    sst_world_write_file(w, p, w->info.size);
    free(p);
}

struct seen {
    int damages;
    uint64_t offset;
    struct buf first, last;
};

static int note(void *arg, const struct sst_damage *d)
{
    struct seen *s = arg;
    s->damages++;
    s->offset = d->offset;
    buf_set(&s->first, d->first.data, d->first.size);
    buf_set(&s->last, d->last.data, d->last.size);
    return 0;
}

/* What cannot be opened whole is used as far as it goes. */
static void check_wholes(struct sst_world *w)
{
    struct sst_reader *r = NULL;
    struct sst_open_options o = sst_world_open_options(w);
    o.resident_bytes = UINT64_MAX;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK(!r->resident && sst_want(r) == UINT64_MAX);
    sst_close(r);
    r = NULL;
    o.resident_bytes = 0;
    o.paranoid = true;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    o.paranoid = false;
    o.whole = true;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    CHECK(r == NULL);
}

Test(sst_paged, damage_to_a_partition_is_met_by_its_keys_only)
{
    struct sst_world w;
    struct model m;
    struct sst_get_scratch s;
    struct seen seen = {0};
    struct sst_reader *r = open_large(&w, &m, 0, SHAPE_DECIMAL, 0);
    const struct sst_piece at = sst_part_piece(r, 2);
    flip(&w, at.offset + at.size / 2);
    check_wholes(&w);
    sst_get_scratch_init(&s, &w.alloc);
    buf_init(&seen.first, &w.alloc, MEM_MISC);
    buf_init(&seen.last, &w.alloc, MEM_MISC);
    const struct sst_verify_options o = {.damage = note, .arg = &seen};
    CHECK_EQ(sst_verify(r, &o, NULL), LOAM_E_CORRUPT);
    CHECK_EQ(seen.damages, 1);
    CHECK_EQ(seen.offset, at.offset);
    size_t bad = 0;
    for (size_t i = 0; i < m.n; i++) {
        loam_slice k = m.e[i].key;
        bool in = index_find(&r->top, k) == 2;
        CHECK_EQ(get(r, k, &s), in ? LOAM_E_CORRUPT : LOAM_OK);
        bool told = bytes_compare(k, buf_slice(&seen.first)) >= 0 &&
                    bytes_compare(k, buf_slice(&seen.last)) <= 0;
        CHECK(!in || told);
        bad += told;
    }
    CHECK(bad > 0 && bad < m.n / 2);
    buf_free(&seen.first);
    buf_free(&seen.last);
    sst_get_scratch_free(&s);
    end(&w, &m, r);
}

Test(sst_paged, damage_to_a_filter_page_is_met_by_its_keys_only)
{
    struct sst_world w;
    struct model m;
    struct sst_get_scratch s;
    struct sst_reader *r = open_large(&w, &m, 0, SHAPE_DECIMAL, 0);
    const struct sst_piece at = sst_page_piece(r, 1);
    flip(&w, at.offset + at.size / 2);
    check_wholes(&w);
    CHECK_EQ(sst_verify(r, NULL, NULL), LOAM_E_CORRUPT);
    sst_get_scratch_init(&s, &w.alloc);
    for (size_t i = 0; i < m.n; i++) {
        loam_slice k = m.e[i].key;
        uint64_t line = filter_line_of(hash_key(k.data, k.size), r->shape.lines);
        CHECK_EQ(get(r, k, &s), line / FILTER_PAGE_LINES == 1 ? LOAM_E_CORRUPT : LOAM_OK);
    }
    sst_get_scratch_free(&s);
    end(&w, &m, r);
}

/* ---- blocks of deletes ---- */

/* Every third run of 500 keys is deleted. */
static void build_dead(struct sst_world *w, struct model *m)
{
    *m = (struct model){0};
    for (uint32_t i = 0; i < ENTRIES; i++) {
        char key[16];
        static char value[100];
        bool dead = i / 500 % 3 == 1 || i > ENTRIES / 4;
        snprintf(key, sizeof key, "%08u", i);
        model_add(m, loam_bytes(key, 8), entry_tag(7 + i, dead ? ENTRY_DELETE : ENTRY_PUT),
                  loam_bytes(value, dead ? 0 : 100));
    }
    sst_world_init(w, 0, NULL);
    CHECK_EQ(sst_world_build(w, m, NULL), LOAM_OK);
}

Test(sst_paged, blocks_and_partitions_of_nothing_but_deletes_are_marked)
{
    struct sst_world w;
    struct model m;
    struct sst_part h;
    build_dead(&w, &m);
    struct sst_open_options o = sst_world_open_options(&w);
    for (int resident = 0; resident < 2; resident++) {
        struct sst_reader *r = NULL;
        o.resident_bytes = resident != 0 ? UINT64_MAX : 0;
        CHECK_EQ(sst_open(&o, &r), LOAM_OK);
        sst_part_init(&h, &w.alloc, MEM_MISC);
        uint32_t marked = 0;
        size_t i = 0;
        for (uint32_t block = 0; block < r->props.blocks; block++) {
            struct sst_piece p;
            struct sst_get_scratch s;
            struct block b;
            const uint8_t *data;
            size_t size;
            sst_get_scratch_init(&s, &w.alloc);
            CHECK_EQ(sst_place_block(r, &h, block, SST_PART_FILE, &p), LOAM_OK);
            CHECK_EQ(sst_read_piece(r, &p, &s, &data, &size), LOAM_OK);
            block_init(&b, data);
            bool dead = true;
            for (uint32_t k = 0; k < b.count; k++, i++) {
                dead = dead && tag_kind(m.e[i].tag) == ENTRY_DELETE;
            }
            CHECK_EQ(sst_block_dead(r, &h, block), dead);
            marked += dead;
            sst_get_scratch_free(&s);
        }
        CHECK_EQ(i, m.n);
        CHECK(marked > 10 && marked < r->props.blocks);
        CHECK(index_dead(&r->top, r->props.partitions - 1) && !index_dead(&r->top, 0));
        sst_part_free(&h);
        CHECK_EQ(sst_verify(r, NULL, NULL), LOAM_OK);
        sst_close(r);
    }
    model_free(&m);
    sst_world_end(&w);
}

static bool is_marked(struct sst_reader *r, struct sst_part *h, uint32_t block)
{
    struct sst_piece p;
    CHECK_EQ(sst_place_block(r, h, block, SST_PART_FILE, &p), LOAM_OK);
    return sst_block_dead(r, h, block);
}

/* One key for each stretch of marked blocks, in its first one or, where a partition is all that is known,
 * within it. */
static void find_stretches(struct sst_world *w, struct sst_reader *r)
{
    struct sst_part h, look;
    struct buf key;
    sst_part_init(&h, &w->alloc, MEM_MISC);
    sst_part_init(&look, &w->alloc, MEM_MISC);
    buf_init(&key, &w->alloc, MEM_MISC);
    uint32_t at = 0, found = 0, of_key, count = (uint32_t)r->props.blocks;
    for (uint32_t block = 0; block < count;) {
        if (!is_marked(r, &look, block)) {
            block++;
            continue;
        }
        key.size = 0;
        CHECK_EQ(sst_next_dead(r, &h, SST_PART_FILE, &at, &key), LOAM_OK);
        CHECK_EQ(sst_find_block(r, &look, buf_slice(&key), SST_PART_FILE, &of_key), LOAM_OK);
        CHECK(r->resident ? of_key == block : of_key >= block && of_key < at);
        while (block < count && is_marked(r, &look, block)) {
            block++;
        }
        CHECK_EQ(at, block);
        found++;
    }
    key.size = 0;
    CHECK_EQ(sst_next_dead(r, &h, SST_PART_FILE, &at, &key), LOAM_NOTFOUND);
    CHECK(at == count && found > 2 && key.size == 0);
    buf_free(&key);
    sst_part_free(&look);
    sst_part_free(&h);
}

Test(sst_paged, stretches_of_deletes_are_found_one_by_one)
{
    struct sst_world w;
    struct model m;
    build_dead(&w, &m);
    struct sst_open_options o = sst_world_open_options(&w);
    for (int resident = 0; resident < 2; resident++) {
        struct sst_reader *r = NULL;
        o.resident_bytes = resident != 0 ? UINT64_MAX : 0;
        CHECK_EQ(sst_open(&o, &r), LOAM_OK);
        find_stretches(&w, r);
        sst_close(r);
    }
    model_free(&m);
    sst_world_end(&w);
}

/* Changes a byte of a piece of the file and makes all its checksums right again. */
static void forge(struct sst_world *w, const struct sst_piece *at, size_t byte)
{
    uint8_t *file = sst_world_read_file(w, w->info.size);
    uint8_t *p = file + at->offset;
    size_t size = at->size - SST_TRAILER_SIZE;
    uint64_t seed = sst_file_seed(SST_DB_ID, SST_NUMBER);
    struct sst_packer packer = {.alloc = &w->alloc};
    struct sst_packed packed;
    p[byte] ^= 1;
    put_fixed64(p, block_sum(p, size, seed, at->number));
    sst_pack(&packer, SST_CODEC_NONE, at->type, seed, p, size, &packed);
    sst_trailer_finish(&packed, at->offset);
    memcpy(p + size, packed.trailer, SST_TRAILER_SIZE);
    sst_world_write_file(w, file, w->info.size);
    free(file);
}

Test(sst_paged, verification_finds_a_wrong_mark)
{
    struct sst_world w;
    struct model m;
    struct sst_part h;
    struct block_item item;
    struct sst_reader *r = NULL;
    build_dead(&w, &m);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_part_init(&h, &w.alloc, MEM_MISC);
    CHECK_EQ(sst_part_hold(r, &h, 0, SST_PART_FILE), LOAM_OK);
    block_item(&h.at, 5, &item);
    const struct sst_piece part = sst_part_piece(r, 0);
    size_t byte = (size_t)(item.rest + item.rest_size - h.copy);
    forge(&w, &part, byte);
    CHECK_EQ(sst_verify(r, NULL, NULL), LOAM_E_CORRUPT);
    forge(&w, &part, byte);
    CHECK_EQ(sst_verify(r, NULL, NULL), LOAM_OK);
    sst_part_free(&h);
    end(&w, &m, r);
}

/* What a verification holds while it reads, at most. */
struct held {
    struct seen seen;
    struct sst_world *w;
    uint64_t most;
};

static int note_held(void *arg, uint64_t bytes)
{
    struct held *h = arg;
    (void)bytes;
    uint64_t now = alloc_used_by(&h->w->alloc, MEM_ITER);
    h->most = now > h->most ? now : h->most;
    return LOAM_OK;
}

static int note_missed(void *arg, const struct sst_damage *d)
{
    return note(&((struct held *)arg)->seen, d);
}

/* The filter's pages one by one, or all at once. */
static int verify_by_pages(struct sst_world *w, struct sst_reader *r, bool one, struct held *h)
{
    *h = (struct held){.w = w};
    buf_init(&h->seen.first, &w->alloc, MEM_MISC);
    buf_init(&h->seen.last, &w->alloc, MEM_MISC);
    const struct sst_verify_options o = {.damage = note_missed,
                                         .pace = note_held,
                                         .arg = h,
                                         .filter_bytes =
                                             one ? FILTER_PAGE_BYTES + SST_TRAILER_SIZE : 0};
    int rc = sst_verify(r, &o, NULL);
    buf_free(&h->seen.first);
    buf_free(&h->seen.last);
    return rc;
}

Test(sst_paged, verification_holds_a_part_of_the_filter_and_finds_what_any_part_misses)
{
    struct sst_world w;
    struct model m;
    struct held whole, part;
    struct sst_reader *r = open_large(&w, &m, 0, SHAPE_DECIMAL, 0);
    CHECK_EQ(verify_by_pages(&w, r, false, &whole), LOAM_OK);
    CHECK_EQ(verify_by_pages(&w, r, true, &part), LOAM_OK);
    CHECK(r->props.filter_pages > 3 &&
          whole.most - part.most > (r->props.filter_pages - 2) * (uint64_t)FILTER_PAGE_BYTES);
    struct sst_part h;
    struct sst_piece block;
    sst_part_init(&h, &w.alloc, MEM_MISC);
    CHECK_EQ(sst_place_block(r, &h, 0, SST_PART_FILE, &block), LOAM_OK);
    sst_part_free(&h);
    for (uint32_t i = 0; i < r->props.filter_pages; i++) {
        const struct sst_piece page = sst_page_piece(r, i);
        uint8_t *file = sst_world_read_file(&w, w.info.size);
        size_t byte = FILTER_HEAD;
        while ((file[page.offset + byte] & 1) == 0) {
            byte++;
        }
        free(file);
        forge(&w, &page, byte); /* takes away a bit that some key has set */
        for (int one = 0; one < 2; one++) {
            CHECK_EQ(verify_by_pages(&w, r, one != 0, &part), LOAM_E_CORRUPT);
            CHECK(part.seen.damages > 0 && part.seen.offset < r->footer.filter.offset);
        }
        forge(&w, &page, byte);
    }
    flip(&w, block.offset + block.size / 2);
    CHECK_EQ(verify_by_pages(&w, r, true, &part), LOAM_E_CORRUPT);
    CHECK_EQ(part.seen.damages, 1); /* although it is read once for each page */
    CHECK_EQ(part.seen.offset, block.offset);
    end(&w, &m, r);
}
