/* sst_salvage_test.c - A table whose description is lost gives back all blocks but the damaged ones.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the entries the table was built from, of which each damaged place costs a block, or two when it is in
 * what ends one.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/coding.h"
#include "sstable/sst_salvage.h"
#include "tests/sstable/sst_support.h"

enum { ENTRIES = 30000, BLOCK_ENTRIES_MAX = 40, PLACES = 100 };

/* Whether what comes is the model's, and how much of it. */
struct taken {
    const struct model *m;
    size_t at, count;
};

static int take(void *arg, const struct entry *e)
{
    struct taken *t = arg;
    while (t->at < t->m->n && (t->m->e[t->at].tag != e->tag ||
                               bytes_compare(t->m->e[t->at].key, e->key) != 0)) {
        t->at++;
    }
    CHECK(t->at < t->m->n); /* in order, and no other */
    const struct entry *x = &t->m->e[t->at++];
    CHECK_BYTES(e->value.data, e->value.size, x->value.data, x->value.size);
    t->count++;
    return LOAM_OK;
}

static void lose_place(void *arg, const struct sst_damage *d)
{
    (void)arg, (void)d;
}

static size_t salvaged(struct sst_world *w, const struct model *m)
{
    struct taken t = {.m = m};
    const struct sst_salvage_options o = {.vfs = w->vfs,
                                          .alloc = &w->alloc,
                                          .path = SST_PATH,
                                          .file_number = SST_NUMBER,
                                          .db_id = SST_DB_ID,
                                          .ordered = true,
                                          .entry = take,
                                          .damage = lose_place,
                                          .arg = &t};
    struct sst_salvaged got;
    CHECK_EQ(sst_salvage(&o, &got), LOAM_OK);
    CHECK(!got.opened);
    return t.count;
}

Test(sst_salvage, finds_the_blocks_behind_a_damaged_one_without_an_index)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (uint32_t compression = 1; compression <= 2; compression++) {
        struct sst_world w;
        struct model m;
        sst_world_init(&w, 0, NULL);
        model_generate(&m, &rnd, SHAPE_DECIMAL, ENTRIES, NULL);
        w.build.compression = compression;
        CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
        size_t size = w.info.size;
        uint8_t *bytes = sst_world_read_file(&w, size);
        bytes[size - 1] ^= 1; /* its footer */
        sst_world_write_file(&w, bytes, size);
        CHECK_EQ(salvaged(&w, &m), m.n);
        for (size_t i = 0; i < PLACES; i++) {
            bytes[size / (PLACES + 1) * (i + 1)] ^= 0x40;
            if (i != 0 && i != PLACES - 1) {
                continue;
            }
            sst_world_write_file(&w, bytes, size);
            CHECK(salvaged(&w, &m) >= m.n - (i + 1) * 2 * BLOCK_ENTRIES_MAX);
        }
        free(bytes);
        model_free(&m);
        sst_world_end(&w);
    }
}

/* Moves the n stored bytes of a block, whose checksum knows its place. */
static void place(const uint8_t *from, size_t old, size_t n, uint8_t *file, size_t at)
{
    memcpy(file + at, from, n);
    put_fixed64(file + at + n - 8, get_fixed64(from + n - 8) ^ sst_mix(old) ^ sst_mix(at));
}

/* As threads leave blocks behind that write them at once. */
Test(sst_salvage, puts_blocks_of_one_key_in_the_order_of_its_versions)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    struct sst_world w;
    struct model m;
    sst_world_init(&w, 0, NULL);
    model_generate(&m, &rnd, SHAPE_VERSIONS, ENTRIES, NULL);
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    size_t size = w.info.size;
    uint8_t *good = sst_world_read_file(&w, size), *bytes = malloc(size);
    CHECK(bytes != NULL);
    memcpy(bytes, good, size);
    struct sst_reader *r = NULL;
    w.resident_bytes = UINT64_MAX;
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    for (uint32_t i = 0; i + 1 < r->index.count; i += 2) {
        size_t at = r->index.offsets[i], n = index_size(&r->index, i);
        size_t second = index_size(&r->index, i + 1);
        place(good + at + n, at + n, second, bytes, at);
        place(good + at, at, n, bytes, at + second);
    }
    sst_close(r);
    bytes[size - 1] ^= 1; /* its footer */
    sst_world_write_file(&w, bytes, size);
    CHECK_EQ(salvaged(&w, &m), m.n);
    free(good);
    free(bytes);
    model_free(&m);
    sst_world_end(&w);
}
