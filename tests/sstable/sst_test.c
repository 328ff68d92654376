/* sst_test.c - Whole tables: what was added comes back by get and cursor, or an error says why not.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the model's sorted array. Damage: every byte changed, every length cut, every call
 * failed, every allocation failed; each time the answer is right or an error, never another value,
 * a missing key or a crash.
 */
#include "sstable/sst_reader.h"

#include <criterion/criterion.h>

#include "arena/coding.h"
#include "sstable/sst_cursor.h"
#include "tests/sstable/model.h"

#define PATH   "/t.sst"
#define DB_ID  0x1122334455667788u
#define NUMBER 42u

/* ---- a world: disk, memory, cache ---- */

struct world {
    loam_vfs *disk;
    const loam_vfs *vfs; /* the disk, or what wraps it */
    struct alloc alloc;
    struct block_cache cache;
    bool cached;
    struct sst_build_options build;
    struct sst_info info;
    uint8_t smallest[16], largest[16];
};

/* Gives memory until a count runs out. */
struct limited {
    uint64_t left;
    bool once;
};

static void *limited_alloc(void *ctx, size_t align, size_t size)
{
    struct limited *l = ctx;
    if (l->left == 0) {
        if (l->once) {
            l->left = UINT64_MAX;
        }
        return NULL;
    }
    l->left -= l->left != UINT64_MAX;
    return aligned_alloc(align < 16 ? 16 : align,
                         (size + (align < 16 ? 16 : align) - 1) & ~((align < 16 ? 16 : align) - 1));
}

static void limited_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx, (void)align, (void)size;
    free(p);
}

static void world_init(struct world *w, size_t cache_bytes, struct limited *limit)
{
    memset(w, 0, sizeof *w);
    loam_allocator hooks = {sizeof hooks, limited_alloc, limited_free, limit};
    CHECK_EQ(loam_vfs_memory(&w->disk), LOAM_OK);
    w->vfs = w->disk;
    alloc_init(&w->alloc, limit != NULL ? &hooks : NULL, UINT64_MAX);
    w->cached = cache_bytes != 0;
    if (w->cached) {
        CHECK_EQ(block_cache_init(&w->cache, &w->alloc, cache_bytes), LOAM_OK);
    }
    w->build = (struct sst_build_options){
        .vfs = w->vfs,
        .alloc = &w->alloc,
        .cache = w->cached ? &w->cache : NULL,
        .path = PATH,
        .file_number = NUMBER,
        .db_id = DB_ID,
        .ks = 7,
        .block_bytes = 512,
        .filter_bits = 10,
        .compression = 2,
        .level = 3,
    };
}

static void world_end(struct world *w)
{
    epoch_synchronize();
    if (w->cached) {
        block_cache_destroy(&w->cache);
    }
    CHECK_EQ(alloc_used(&w->alloc), 0);
    loam_vfs_free(w->disk);
}

/* Builds the model's table; warm may be NULL. */
static int build(struct world *w, const struct model *m, struct sst_warm *warm)
{
    struct sst_builder *b = NULL;
    w->disk->remove(w->disk->ctx, PATH);
    int rc = sst_builder_open(&b, &w->build);
    for (size_t i = 0; i < m->n && rc == LOAM_OK; i++) {
        loam_slice k = m->e[i].key;
        rc = sst_builder_add(b, &m->e[i], i % 2 != 0 ? hash_key(k.data, k.size) : 0);
    }
    if (rc == LOAM_OK) {
        rc = sst_builder_finish(b, &w->info);
    }
    if (rc == LOAM_OK) {
        CHECK_BYTES(w->info.smallest.data, w->info.smallest.size, m->e[0].key.data,
                    m->e[0].key.size);
        CHECK_BYTES(w->info.largest.data, w->info.largest.size, m->e[m->n - 1].key.data,
                    m->e[m->n - 1].key.size);
        if (warm != NULL) {
            sst_builder_take_warm(b, warm);
        }
    }
    sst_builder_free(b);
    return rc;
}

static struct sst_open_options open_options(struct world *w)
{
    return (struct sst_open_options){
        .vfs = w->vfs,
        .alloc = &w->alloc,
        .cache = w->cached ? &w->cache : NULL,
        .path = PATH,
        .file_number = NUMBER,
        .db_id = DB_ID,
        .cmp = w->build.cmp,
        .size = w->info.size,
    };
}

/* ---- checks against the model ---- */

static void check_gets(struct sst_reader *r, const struct model *m, struct random *rnd, int probes)
{
    static uint8_t room[70000];
    struct sst_get_scratch s;
    sst_get_scratch_init(&s, r->alloc);
    for (int i = 0; i < probes; i++) {
        struct entry e;
        loam_slice k = model_probe(m, rnd, room);
        uint64_t snapshot = tag_seq(m->e[random_below(rnd, m->n)].tag);
        snapshot = random_below(rnd, 3) == 0 ? SEQ_MAX : snapshot - random_below(rnd, 2);
        const struct entry *want = model_get(m, k, snapshot);
        epoch_enter();
        int rc = sst_get(r, k, hash_key(k.data, k.size), snapshot, &s, &e);
        CHECK_EQ(rc, want != NULL ? LOAM_OK : LOAM_NOTFOUND);
        if (want != NULL) {
            CHECK_EQ(e.tag, want->tag);
            CHECK_BYTES(e.value.data, e.value.size, want->value.data, want->value.size);
        }
        epoch_exit();
    }
    sst_get_scratch_free(&s);
}

static void check_at(const struct sst_cursor *c, const struct model *m, size_t i)
{
    struct entry e;
    CHECK_EQ(sst_cursor_rc(c), LOAM_OK);
    CHECK_EQ(sst_cursor_valid(c), i < m->n);
    if (i < m->n) {
        sst_cursor_entry(c, &e);
        CHECK_ENTRY(&e, &m->e[i]);
    }
}

static void check_walks(struct sst_reader *r, const struct model *m, uint32_t flags)
{
    struct sst_cursor c;
    CHECK_EQ(sst_cursor_init(&c, r, r->alloc, flags, 0), LOAM_OK);
    CHECK(!sst_cursor_valid(&c));
    sst_cursor_first(&c);
    for (size_t i = 0; i < m->n; i++, sst_cursor_next(&c)) {
        check_at(&c, m, i);
    }
    check_at(&c, m, m->n);
    sst_cursor_last(&c);
    for (size_t i = m->n; i-- != 0; sst_cursor_prev(&c)) {
        check_at(&c, m, i);
    }
    check_at(&c, m, m->n);
    sst_cursor_first(&c);
    for (size_t i = 0; i < m->n;) {
        check_at(&c, m, i);
        size_t next = i + 1;
        while (next < m->n && key_compare(m->cmp, m->e[i].key, m->e[next].key) == 0) {
            next++;
        }
        sst_cursor_next_key(&c);
        i = next;
    }
    check_at(&c, m, m->n);
    sst_cursor_free(&c);
}

static void check_seeks(struct sst_reader *r, const struct model *m, struct random *rnd, int probes)
{
    static uint8_t room[70000];
    struct sst_cursor c;
    CHECK_EQ(sst_cursor_init(&c, r, r->alloc, 0, 0), LOAM_OK);
    for (int k = 0; k < probes; k++) {
        loam_slice key = model_probe(m, rnd, room);
        uint64_t tag = random_below(rnd, 2) != 0 ? UINT64_MAX : m->e[random_below(rnd, m->n)].tag;
        size_t i = model_seek(m, key, tag);
        if (random_below(rnd, 2) != 0) {
            sst_cursor_seek_before(&c, key, tag);
            i = i == 0 ? m->n : i - 1;
        } else {
            sst_cursor_seek(&c, key, tag);
        }
        for (int step = 0; step < 8 && i < m->n; step++) {
            check_at(&c, m, i);
            bool forward = random_below(rnd, 2) != 0;
            if (forward) {
                sst_cursor_next(&c);
                i++;
            } else {
                sst_cursor_prev(&c);
                i = i == 0 ? m->n : i - 1;
            }
        }
        check_at(&c, m, i);
    }
    sst_cursor_free(&c);
}

static void check_info(const struct world *w, const struct sst_reader *r, const struct model *m)
{
    const struct sst_props *p = sst_props(r);
    uint64_t deletes = 0, raw = 0, min_seq = UINT64_MAX, max_seq = 0;
    for (size_t i = 0; i < m->n; i++) {
        uint64_t seq = tag_seq(m->e[i].tag);
        deletes += tag_kind(m->e[i].tag) == ENTRY_DELETE;
        raw += m->e[i].key.size + m->e[i].value.size;
        min_seq = seq < min_seq ? seq : min_seq;
        max_seq = seq > max_seq ? seq : max_seq;
    }
    CHECK_EQ(w->info.entries, m->n);
    CHECK_EQ(w->info.deletes, deletes);
    CHECK_EQ(w->info.raw_bytes, raw);
    CHECK_EQ(w->info.min_seq, min_seq);
    CHECK_EQ(w->info.max_seq, max_seq);
    CHECK_EQ(p->entries, m->n);
    CHECK_EQ(p->blocks, w->info.blocks);
    CHECK_EQ(p->ks, 7);
    CHECK_EQ(p->level, 3);
    CHECK_EQ(p->file_size, w->info.size);
    CHECK_BYTES(p->largest.data, p->largest.size, m->e[m->n - 1].key.data, m->e[m->n - 1].key.size);
    CHECK_EQ(p->data_size + p->index_size + p->filter_size + p->props_size + SST_HEADER_SIZE +
                 SST_FOOTER_SIZE,
             w->info.size);
}

static void check_table(struct world *w, const struct model *m, struct random *rnd, bool paranoid,
                        struct sst_warm *warm)
{
    struct sst_reader *r = NULL;
    struct sst_open_options o = open_options(w);
    uint64_t checksum = 0;
    o.paranoid = paranoid;
    o.warm = warm;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    check_info(w, r, m);
    CHECK_EQ(sst_verify(r, NULL, NULL, &checksum), LOAM_OK);
    CHECK_EQ(checksum, w->info.checksum);
    check_gets(r, m, rnd, 400);
    check_walks(r, m, 0);
    check_walks(r, m, SST_CURSOR_BACKGROUND);
    check_seeks(r, m, rnd, 100);
    sst_close(r);
}

static void round_trip(enum model_shape shape, size_t n, uint32_t compression, size_t cache_bytes,
                       const loam_comparator *cmp, struct random *rnd)
{
    struct world w;
    struct model m;
    struct sst_warm warm = {0};
    world_init(&w, cache_bytes, NULL);
    w.build.compression = compression;
    w.build.cmp = cmp;
    model_generate(&m, rnd, shape, n, cmp);
    CHECK_EQ(build(&w, &m, &warm), LOAM_OK);
    CHECK((warm.handle != 0) == w.cached);
    check_table(&w, &m, rnd, random_below(rnd, 2) != 0, &warm);
    CHECK_EQ(warm.handle, 0);
    check_table(&w, &m, rnd, false, NULL);
    model_free(&m);
    world_end(&w);
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
    struct world w;
    struct model m = {.cmp = &caseless};
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct entry e;
    world_init(&w, 0, NULL);
    w.build.cmp = &caseless;
    model_add(&m, LOAM_LIT("Key"), entry_tag(9, ENTRY_PUT), LOAM_LIT("value"));
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    epoch_enter();
    CHECK_EQ(sst_get(r, LOAM_LIT("KEY"), hash_key("KEY", 3), SEQ_MAX, &s, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "value", 5);
    epoch_exit();
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    world_end(&w);
}

Test(sst, refuses_another_comparator_but_lets_tools_look)
{
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_reader *r = NULL;
    random_init(&rnd, model_seed());
    world_init(&w, 0, NULL);
    w.build.cmp = &reverse;
    model_generate(&m, &rnd, SHAPE_DECIMAL, 200, &reverse);
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    o.cmp = NULL;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_FORMAT);
    CHECK(r == NULL);
    o.inspect = true;
    o.db_id = 1;
    o.file_number = 2;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    CHECK_EQ(sst_props(r)->file_number, NUMBER);
    CHECK_EQ(sst_verify(r, NULL, NULL, NULL), LOAM_OK);
    check_walks(r, &(struct model){.e = m.e, .n = m.n, .cmp = &reverse}, 0);
    sst_close(r);
    model_free(&m);
    world_end(&w);
}

/* ---- the builder's refusals ---- */

static int add_two(struct world *w, loam_slice a, uint64_t at, loam_slice b, uint64_t bt)
{
    struct sst_builder *builder = NULL;
    struct entry e = {a, at, loam_bytes("", 0)};
    w->disk->remove(w->disk->ctx, PATH);
    CHECK_EQ(sst_builder_open(&builder, &w->build), LOAM_OK);
    int rc = sst_builder_add(builder, &e, 0);
    e = (struct entry){b, bt, loam_bytes("", 0)};
    rc = rc == LOAM_OK ? sst_builder_add(builder, &e, 0) : rc;
    if (rc != LOAM_OK) {
        struct sst_info info;
        CHECK_EQ(sst_builder_add(builder, &e, 0), rc); /* it sticks */
        CHECK_EQ(loam_last_error()->code, rc);
        CHECK_EQ(sst_builder_finish(builder, &info), rc);
    }
    sst_builder_free(builder);
    return rc;
}

Test(sst, builder_refuses_disorder_and_what_it_cannot_hold)
{
    static uint8_t big[65536];
    struct world w;
    struct sst_builder *b = NULL;
    struct sst_info info;
    uint64_t put = entry_tag(5, ENTRY_PUT);
    world_init(&w, 64 << 10, NULL);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, LOAM_LIT("b"), put), LOAM_OK);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, LOAM_LIT("a"), entry_tag(4, ENTRY_PUT)), LOAM_OK);
    CHECK_EQ(add_two(&w, LOAM_LIT("b"), put, LOAM_LIT("a"), put), LOAM_E_INTERNAL);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, LOAM_LIT("a"), put), LOAM_E_INTERNAL);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, LOAM_LIT("a"), entry_tag(6, ENTRY_PUT)),
             LOAM_E_INTERNAL);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, LOAM_LIT("b"), entry_tag(6, ENTRY_MERGE)),
             LOAM_E_FORMAT);
    CHECK_EQ(add_two(&w, LOAM_LIT("a"), put, loam_bytes(big, sizeof big), put), LOAM_E_TOOBIG);
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_E_EXISTS);
    w.disk->remove(w.disk->ctx, PATH);
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
    CHECK_EQ(sst_builder_finish(b, &info), LOAM_E_INVAL);
    sst_builder_free(b);
    w.build.compression = 9;
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_E_INVAL);
    world_end(&w);
}

Test(sst, abandoned_tables_leave_nothing_behind)
{
    struct random rnd;
    struct world w;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 2000, NULL);
    world_init(&w, 128 << 10, NULL);
    for (size_t n = 0; n < m.n; n += 333) {
        struct sst_builder *b = NULL;
        w.disk->remove(w.disk->ctx, PATH);
        CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(sst_builder_add(b, &m.e[i], 0), LOAM_OK);
        }
        sst_builder_free(b);
    }
    struct sst_warm warm;
    CHECK_EQ(build(&w, &m, &warm), LOAM_OK);
    sst_warm_drop(&warm);
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK); /* finished, blocks not taken */
    model_free(&m);
    world_end(&w);
}

Test(sst, estimates_the_size_of_the_file)
{
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_builder *b = NULL;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 5000, NULL);
    world_init(&w, 0, NULL);
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
    for (size_t i = 0; i < m.n; i++) {
        CHECK_EQ(sst_builder_add(b, &m.e[i], 0), LOAM_OK);
    }
    double estimate = (double)sst_builder_bytes(b);
    CHECK_EQ(sst_builder_finish(b, &w.info), LOAM_OK);
    CHECK(estimate > 0.97 * (double)w.info.size && estimate < 1.03 * (double)w.info.size);
    sst_builder_free(b);
    model_free(&m);
    world_end(&w);
}

Test(sst, divides_itself_into_parts)
{
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct buf k;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 5000, NULL);
    world_init(&w, 0, NULL);
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    buf_init(&k, &w.alloc, MEM_MISC);
    for (uint64_t i = 1; i < 4; i++) {
        buf_clear(&k);
        sst_split_key(r, i, 4, &k);
        double rank = (double)model_seek(&m, buf_slice(&k), UINT64_MAX) / (double)m.n;
        double offset = (double)sst_offset_of(r, buf_slice(&k)) / (double)w.info.size;
        CHECK(rank > (double)i / 4 - 0.02 && rank < (double)i / 4 + 0.02);
        CHECK(offset > (double)i / 4 - 0.05 && offset < (double)i / 4 + 0.05);
    }
    buf_free(&k);
    sst_close(r);
    model_free(&m);
    world_end(&w);
}

/* ---- damage ---- */

static uint8_t *read_file(struct world *w, size_t size)
{
    loam_file *f = NULL;
    uint8_t *p = malloc(size);
    CHECK_EQ(w->disk->open(w->disk->ctx, PATH, LOAM_VFS_READ, &f), 0);
    CHECK_EQ(w->disk->read(w->disk->ctx, f, p, size, 0), (int64_t)size);
    w->disk->close(w->disk->ctx, f);
    return p;
}

static void write_file(struct world *w, const uint8_t *p, size_t size)
{
    loam_file *f = NULL;
    uint32_t flags = LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE;
    CHECK_EQ(w->disk->open(w->disk->ctx, PATH, flags, &f), 0);
    CHECK_EQ(w->disk->write(w->disk->ctx, f, p, size, 0), (int64_t)size);
    w->disk->close(w->disk->ctx, f);
}

/* Reads all of the model by get and by cursor: each answer is right or an error. Returns the
 * errors, the failure to open included. */
static int right_or_error(struct world *w, const struct model *m)
{
    struct sst_reader *r = NULL;
    struct sst_open_options o = open_options(w);
    struct sst_get_scratch s;
    struct sst_cursor c;
    struct entry e;
    int errors = 0;
    o.size = 0;
    if (sst_open(&o, &r) != LOAM_OK) {
        CHECK(loam_last_error()->code < 0);
        return 1;
    }
    sst_get_scratch_init(&s, &w->alloc);
    for (size_t i = 0; i < m->n; i++) {
        loam_slice k = m->e[i].key;
        epoch_enter();
        int rc = sst_get(r, k, hash_key(k.data, k.size), tag_seq(m->e[i].tag), &s, &e);
        CHECK(rc == LOAM_OK || rc < 0);
        if (rc == LOAM_OK) {
            CHECK_EQ(e.tag, m->e[i].tag);
            CHECK_BYTES(e.value.data, e.value.size, m->e[i].value.data, m->e[i].value.size);
        }
        errors += rc < 0;
        epoch_exit();
    }
    sst_get_scratch_free(&s);
    if (sst_cursor_init(&c, r, &w->alloc, 0, 0) == LOAM_OK) {
        size_t n = 0;
        for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c), n++) {
            sst_cursor_entry(&c, &e);
            CHECK(n < m->n);
            CHECK_ENTRY(&e, &m->e[n]);
        }
        CHECK(n == m->n || sst_cursor_rc(&c) < 0);
        errors += n != m->n;
    } else {
        errors++;
    }
    sst_cursor_free(&c);
    errors += sst_verify(r, NULL, NULL, NULL) != LOAM_OK;
    sst_close(r);
    return errors;
}

static void small_table(struct world *w, struct model *m, struct random *rnd, uint32_t compression)
{
    model_generate(m, rnd, SHAPE_PREFIXED, 24, NULL);
    w->build.compression = compression;
    CHECK_EQ(build(w, m, NULL), LOAM_OK);
    CHECK(w->info.blocks > 1);
    CHECK_EQ(right_or_error(w, m), 0);
}

Test(sst, every_changed_byte_is_an_error)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (uint32_t compression = 1; compression <= 2; compression++) {
        struct world w;
        struct model m;
        world_init(&w, 0, NULL);
        small_table(&w, &m, &rnd, compression);
        size_t size = w.info.size;
        uint8_t *good = read_file(&w, size);
        for (size_t at = 0; at < size; at++) {
            static const uint8_t flips[] = {1, 0x80, 0xff};
            for (size_t k = 0; k < sizeof flips; k++) {
                good[at] ^= flips[k];
                write_file(&w, good, size);
                CHECK(right_or_error(&w, &m) != 0);
                good[at] ^= flips[k];
            }
        }
        free(good);
        model_free(&m);
        world_end(&w);
    }
}

Test(sst, every_other_length_is_an_error)
{
    struct random rnd;
    struct world w;
    struct model m;
    random_init(&rnd, model_seed());
    world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 2);
    size_t size = w.info.size;
    uint8_t *good = read_file(&w, size);
    uint8_t *longer = calloc(1, size + 300);
    memcpy(longer, good, size);
    for (size_t n = 1; n < size + 300; n++) {
        if (n != size) {
            write_file(&w, longer, n);
            CHECK(right_or_error(&w, &m) != 0);
        }
    }
    for (size_t at = 0; at < size; at += 64) { /* lost sectors */
        memset(longer + at, 0, size - at < 64 ? size - at : 64);
        write_file(&w, longer, size);
        CHECK(right_or_error(&w, &m) != 0);
        memcpy(longer, good, size);
    }
    free(good);
    free(longer);
    model_free(&m);
    world_end(&w);
}

Test(sst, random_damage_with_mended_checksums_is_survived)
{
    struct random rnd;
    struct world w;
    struct model m;
    random_init(&rnd, model_seed());
    world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 1);
    size_t size = w.info.size;
    uint8_t *good = read_file(&w, size);
    struct sst_reader *r = NULL;
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    struct sst_handle parts[64];
    enum sst_type types[64];
    size_t n = 0;
    for (uint32_t i = 0; i < r->index.count && n < 60; i++, n++) {
        parts[n] = (struct sst_handle){r->index.offsets[i], r->index.sizes[i]};
        types[n] = SST_DATA;
    }
    parts[n] = r->footer.index, types[n++] = SST_INDEX;
    parts[n] = r->footer.props, types[n++] = SST_PROPS;
    parts[n] = r->footer.filter, types[n++] = SST_FILTER;
    sst_close(r);
    for (int round = 0; round < 4000; round++) {
        uint8_t *bad = malloc(size);
        memcpy(bad, good, size);
        size_t k = random_below(&rnd, n);
        uint8_t *part = bad + parts[k].offset;
        size_t payload = parts[k].size - SST_TRAILER_SIZE;
        for (uint64_t hits = 1 + random_below(&rnd, 3); hits != 0; hits--) {
            static const uint8_t values[] = {0, 1, 0x7f, 0x80, 0xff};
            size_t at = random_below(&rnd, random_below(&rnd, 2) != 0 ? payload : 48 % payload + 1);
            part[at] = random_below(&rnd, 2) != 0 ? (uint8_t)random_next(&rnd)
                                                  : values[random_below(&rnd, 5)];
        }
        struct sst_packer packer = {.alloc = &w.alloc};
        struct sst_packed packed;
        uint64_t seed = sst_file_seed(DB_ID, NUMBER);
        sst_pack(&packer, SST_CODEC_NONE, types[k], seed, part, payload, &packed);
        sst_trailer_finish(&packed, parts[k].offset);
        memcpy(part + payload, packed.trailer, SST_TRAILER_SIZE);
        write_file(&w, bad, size);
        struct sst_get_scratch s;
        struct sst_cursor c;
        struct entry e;
        if (sst_open(&o, &r) == LOAM_OK) {
            sst_get_scratch_init(&s, &w.alloc);
            for (size_t i = 0; i < m.n; i++) {
                loam_slice key = m.e[i].key;
                epoch_enter();
                sst_get(r, key, hash_key(key.data, key.size), SEQ_MAX, &s, &e);
                epoch_exit();
            }
            CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 0), LOAM_OK);
            size_t walked = 0;
            for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c)) {
                CHECK(++walked < 100000);
            }
            for (size_t i = 0; i < m.n; i++) {
                sst_cursor_seek(&c, m.e[i].key, UINT64_MAX);
            }
            sst_verify(r, NULL, NULL, NULL);
            sst_cursor_free(&c);
            sst_get_scratch_free(&s);
            sst_close(r);
        }
        CHECK(alloc_peak(&w.alloc) < 8 << 20);
        free(bad);
    }
    free(good);
    model_free(&m);
    world_end(&w);
}

Test(sst, a_block_at_anothers_place_or_of_another_file_is_an_error)
{
    struct world w;
    struct model m = {0};
    struct sst_reader *r = NULL;
    world_init(&w, 0, NULL);
    w.build.compression = 1;
    for (int i = 0; i < 40; i++) {
        char key[16];
        static char value[100];
        snprintf(key, sizeof key, "%08d", i);
        model_add(&m, loam_bytes(key, 8), entry_tag(7, ENTRY_PUT), loam_bytes(value, 100));
    }
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    uint32_t twin = 2;
    while (r->index.sizes[twin] != r->index.sizes[1]) {
        CHECK(++twin < r->index.count);
    }
    uint64_t a = r->index.offsets[1], b = r->index.offsets[twin];
    size_t n = r->index.sizes[1];
    sst_close(r);
    uint8_t *good = read_file(&w, w.info.size);
    uint8_t *bad = malloc(w.info.size);
    memcpy(bad, good, w.info.size);
    memcpy(bad + a, good + b, n);
    memcpy(bad + b, good + a, n);
    write_file(&w, bad, w.info.size);
    CHECK(right_or_error(&w, &m) > 2);
    /* The same table under another number: one of its blocks in the first one. */
    w.build.file_number = NUMBER + 1;
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    uint8_t *other = read_file(&w, w.info.size);
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT); /* the whole file is another's */
    memcpy(bad, good, w.info.size);
    memcpy(bad + a, other + a, n);
    write_file(&w, bad, w.info.size);
    CHECK(right_or_error(&w, &m) > 0);
    write_file(&w, good, w.info.size);
    CHECK_EQ(right_or_error(&w, &m), 0);
    o.size = w.info.size + 1;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    o.size = 0;
    o.db_id++;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    free(good);
    free(bad);
    free(other);
    model_free(&m);
    world_end(&w);
}

Test(sst, errors_name_file_and_offset_and_a_cursor_recovers)
{
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_cursor c;
    random_init(&rnd, model_seed());
    world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 2);
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    uint8_t *p = read_file(&w, w.info.size);
    p[r->index.offsets[1] + 3] ^= 4;
    write_file(&w, p, w.info.size);
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 0), LOAM_OK);
    CHECK(sst_cursor_first(&c));
    while (sst_cursor_next(&c)) {
    }
    CHECK_EQ(sst_cursor_rc(&c), LOAM_E_CORRUPT);
    CHECK_EQ(loam_last_error()->file_id, NUMBER);
    CHECK_EQ(loam_last_error()->offset, r->index.offsets[1]);
    CHECK(!sst_cursor_valid(&c));
    CHECK(sst_cursor_first(&c));
    CHECK_EQ(sst_cursor_rc(&c), LOAM_OK);
    sst_cursor_free(&c);
    sst_close(r);
    free(p);
    model_free(&m);
    world_end(&w);
}

/* ---- paranoia ---- */

Test(sst, paranoid_readers_notice_a_changed_cached_block)
{
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_warm warm;
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct entry e;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 40, NULL);
    world_init(&w, 1 << 20, NULL);
    CHECK_EQ(build(&w, &m, &warm), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    o.warm = &warm;
    o.paranoid = true;
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    epoch_enter();
    size_t size = 0;
    const void *p = block_cache_peek(&w.cache, &r->cached->blocks, 0, false, &size);
    CHECK(p != NULL);
    loam_slice k = m.e[0].key;
    CHECK_EQ(sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, &s, &e), LOAM_OK);
    CHECK_EQ(s.cache_hits, 1);
    ((uint8_t *)(uintptr_t)p)[size - 20] ^= 1;
    CHECK_EQ(sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, &s, &e), LOAM_E_CORRUPT);
    epoch_exit();
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    world_end(&w);
}

/* ---- failing calls and allocations ---- */

Test(sst, every_failing_call_is_an_error)
{
    struct random rnd;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_VALUES, 30, NULL);
    for (uint32_t short_writes = 0; short_writes < 2; short_writes++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            struct world w;
            loam_vfs *faulty = NULL;
            loam_fault_plan plan = {.struct_size = sizeof plan,
                                    .seed = n,
                                    .fail_at = n,
                                    .fail_errno = 28, /* ENOSPC */
                                    .short_writes = short_writes};
            world_init(&w, n % 2 != 0 ? 64 << 10 : 0, NULL);
            CHECK_EQ(loam_vfs_fault(w.disk, &plan, &faulty), LOAM_OK);
            w.vfs = w.build.vfs = faulty;
            int rc = build(&w, &m, NULL);
            int errors = rc == LOAM_OK ? right_or_error(&w, &m) : 1;
            fired = loam_vfs_calls(faulty) >= n;
            CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
            CHECK(fired || errors == 0);
            loam_vfs_free(faulty);
            world_end(&w);
        }
    }
    model_free(&m);
}

Test(sst, every_failing_allocation_is_an_error_or_does_without)
{
    struct random rnd;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_VALUES, 30, NULL);
    for (int once = 0; once < 2; once++) {
        for (uint64_t n = 0;; n++) {
            struct world w;
            struct limited limit = {UINT64_MAX, once != 0};
            world_init(&w, n % 2 != 0 ? 64 << 10 : 0, &limit);
            limit.left = n;
            int rc = build(&w, &m, NULL);
            CHECK(rc == LOAM_OK || rc == LOAM_E_NOMEM);
            int errors = rc == LOAM_OK ? right_or_error(&w, &m) : 1;
            bool fired = once != 0 ? limit.left > (uint64_t)1 << 62 : limit.left == 0;
            limit.left = UINT64_MAX;
            world_end(&w);
            CHECK(fired || errors == 0);
            if (!fired) {
                break;
            }
        }
    }
    model_free(&m);
}

Test(sst, gets_and_steps_allocate_nothing_once_warm)
{
    struct random rnd;
    struct world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct sst_cursor c;
    struct entry e;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 2000, NULL);
    world_init(&w, 64 << 10, NULL);
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    sst_get_scratch_init(&s, &w.alloc);
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 4096), LOAM_OK);
    uint64_t before = 0;
    for (int round = 0; round < 2; round++) {
        before = alloc_calls();
        for (size_t i = 0; i < m.n; i++) {
            loam_slice k = m.e[i].key;
            epoch_enter();
            CHECK_EQ(sst_get(r, k, hash_key(k.data, k.size), SEQ_MAX, &s, &e), LOAM_OK);
            epoch_exit();
        }
        for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c)) {
        }
    }
    CHECK_EQ(alloc_calls(), before);
    CHECK(s.cache_misses != 0 && s.cache_hits != 0);
    sst_cursor_free(&c);
    sst_get_scratch_free(&s);
    sst_close(r);
    model_free(&m);
    world_end(&w);
}

/* ---- golden files: version 1, read and written for ever ---- */

static const uint8_t golden_plain[] = {
#include "tests/golden/sst_v1_plain.inc"
};
static const uint8_t golden_lz4[] = {
#include "tests/golden/sst_v1_lz4.inc"
};

static void golden_model(struct model *m)
{
    static const char *const words[] = {"", "loam/a", "loam/ab", "loam/abc", "loam/b", "marl"};
    static char long_value[700];
    *m = (struct model){0};
    memset(long_value, 'L', sizeof long_value);
    for (uint64_t i = 0; i < 6; i++) {
        loam_slice k = loam_bytes(words[i], strlen(words[i]));
        model_add(m, k, entry_tag(100 + i, ENTRY_PUT), loam_bytes(long_value, i * i * 9));
        model_add(m, k, entry_tag(50 - i, i % 2 != 0 ? ENTRY_DELETE : ENTRY_PUT),
                  loam_bytes(long_value, i % 2 != 0 ? 0 : i));
    }
    model_add(m, LOAM_LIT("silt"), entry_tag(1, ENTRY_PUT), loam_bytes(long_value, 700));
}

static void check_golden(const uint8_t *want, size_t size, uint32_t compression, bool written)
{
    struct random rnd;
    struct world w;
    struct model m;
    random_init(&rnd, 1);
    world_init(&w, 0, NULL);
    golden_model(&m);
    w.build.compression = compression;
    CHECK_EQ(build(&w, &m, NULL), LOAM_OK);
    uint8_t *p = read_file(&w, w.info.size);
    if (getenv("LOAM_GOLDEN") != NULL) { /* prints what a changed format would have to be */
        printf("compression %u\n", compression);
        for (uint64_t i = 0; i < w.info.size; i++) {
            printf("0x%02x,%s", p[i], i % 16 == 15 ? "\n" : " ");
        }
        printf("\n");
        want = p;
        size = w.info.size;
    } else if (written) {
        CHECK_BYTES(p, w.info.size, want, size);
    }
    write_file(&w, want, size);
    w.info.size = size;
    w.info.checksum = checksum64(want, size, 0);
    free(p);
    check_table(&w, &m, &rnd, true, NULL);
    model_free(&m);
    world_end(&w);
}

Test(sst, writes_and_reads_the_golden_bytes)
{
    check_golden(golden_plain, sizeof golden_plain, 1, true);
    /* Another LZ4 may compress otherwise; it must read what this one wrote. */
    check_golden(golden_lz4, sizeof golden_lz4, 2, false);
}
