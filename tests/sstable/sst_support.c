/* sst_support.c - A table on a disk in memory, checked against the model it was built from.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/sstable/sst_support.h"

#include "sstable/sst_cursor.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"

static void *limited_alloc(void *ctx, size_t align, size_t size)
{
    struct sst_limit *l = ctx;
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

void sst_world_init(struct sst_world *w, size_t cache_bytes, struct sst_limit *limit)
{
    memset(w, 0, sizeof *w);
    loam_allocator hooks = {sizeof hooks, limited_alloc, limited_free, limit};
    w->disk = memory_disk();
    w->vfs = w->disk;
    alloc_init(&w->alloc, limit != NULL ? &hooks : NULL, UINT64_MAX);
    w->cached = cache_bytes != 0;
    w->limited = limit != NULL;
    if (w->cached) {
        CHECK_EQ(block_cache_init(&w->cache, &w->alloc, cache_bytes, 0), LOAM_OK);
    }
    w->build = (struct sst_build_options){
        .vfs = w->vfs,
        .alloc = &w->alloc,
        .cache = w->cached ? &w->cache : NULL,
        .path = SST_PATH,
        .file_number = SST_NUMBER,
        .db_id = SST_DB_ID,
        .ks = 7,
        .block_bytes = 512,
        .filter_bits = 10,
        .compression = 2,
        .level = 3,
    };
}

void sst_world_end(struct sst_world *w)
{
    epoch_synchronize();
    if (w->cached) {
        block_cache_destroy(&w->cache);
    }
    CHECK_EQ(alloc_used(&w->alloc), 0);
    loam_vfs_free(w->disk);
}

int sst_world_build(struct sst_world *w, const struct model *m, struct sst_warm *warm)
{
    struct sst_builder *b = NULL;
    w->disk->remove(w->disk->ctx, SST_PATH);
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

struct sst_open_options sst_world_open_options(struct sst_world *w)
{
    return (struct sst_open_options){
        .vfs = w->vfs,
        .alloc = &w->alloc,
        .cache = w->cached ? &w->cache : NULL,
        .path = SST_PATH,
        .file_number = SST_NUMBER,
        .db_id = SST_DB_ID,
        .cmp = w->build.cmp,
        .size = w->info.size,
        .resident_bytes = w->resident_bytes,
    };
}

uint8_t *sst_world_read_file(struct sst_world *w, size_t size)
{
    size_t found;
    uint8_t *p = disk_file_read(w->disk, SST_PATH, &found);
    CHECK_EQ(found, size);
    return p;
}

void sst_world_write_file(struct sst_world *w, const uint8_t *p, size_t size)
{
    disk_file_write(w->disk, SST_PATH, p, size);
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

void sst_check_walks(struct sst_reader *r, const struct model *m, uint32_t flags)
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

static void check_info(const struct sst_world *w, const struct sst_reader *r, const struct model *m)
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
    CHECK_EQ(p->data_size + p->index_size + p->top_size + p->filter_size + p->props_size +
                 SST_HEADER_SIZE + SST_FOOTER_SIZE,
             w->info.size);
}

static void check_opened(struct sst_world *w, const struct sst_open_options *o,
                         const struct model *m, struct random *rnd)
{
    struct sst_reader *r = NULL;
    uint64_t checksum = 0;
    CHECK_EQ(sst_open(o, &r), LOAM_OK);
    CHECK_EQ(r->resident, o->resident_bytes != 0);
    CHECK_EQ(sst_want(r) == 0, r->resident);
    check_info(w, r, m);
    CHECK_EQ(sst_verify(r, NULL, &checksum), LOAM_OK);
    CHECK_EQ(checksum, w->info.checksum);
    check_gets(r, m, rnd, 400);
    sst_check_walks(r, m, 0);
    sst_check_walks(r, m, SST_CURSOR_BACKGROUND);
    check_seeks(r, m, rnd, 100);
    sst_close(r);
}

void sst_check_table(struct sst_world *w, const struct model *m, struct random *rnd, bool paranoid,
                     struct sst_warm *warm)
{
    struct sst_open_options o = sst_world_open_options(w);
    bool resident_first = random_below(rnd, 2) != 0; /* the builder's blocks go to the first one */
    o.paranoid = paranoid;
    o.warm = warm;
    o.resident_bytes = resident_first ? UINT64_MAX : 0;
    check_opened(w, &o, m, rnd);
    o.resident_bytes = resident_first ? 0 : UINT64_MAX;
    check_opened(w, &o, m, rnd);
}

static int right_or_error(struct sst_world *w, const struct model *m, uint64_t resident_bytes)
{
    struct sst_reader *r = NULL;
    struct sst_open_options o = sst_world_open_options(w);
    struct sst_get_scratch s;
    struct sst_cursor c;
    struct entry e;
    int errors = 0;
    o.size = 0;
    o.resident_bytes = resident_bytes;
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
    errors += sst_verify(r, NULL, NULL) != LOAM_OK;
    sst_close(r);
    return errors;
}

int sst_world_right_or_error(struct sst_world *w, const struct model *m)
{
    int errors = right_or_error(w, m, 0);
    int resident = right_or_error(w, m, UINT64_MAX);
    /* Damage is met either way; what fails only now and then, by one. */
    CHECK((errors != 0) == (resident != 0) || w->vfs != w->disk || w->limited);
    return errors + resident;
}
