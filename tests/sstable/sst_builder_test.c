/* sst_builder_test.c - The builder refuses what a table cannot hold, and leaves nothing behind.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>

#include "tests/sstable/sst_support.h"

static int add_two(struct sst_world *w, loam_slice a, uint64_t at, loam_slice b, uint64_t bt)
{
    struct sst_builder *builder = NULL;
    struct entry e = {a, at, loam_bytes("", 0)};
    w->disk->remove(w->disk->ctx, SST_PATH);
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

Test(sst_builder, builder_refuses_disorder_and_what_it_cannot_hold)
{
    static uint8_t big[65536];
    struct sst_world w;
    struct sst_builder *b = NULL;
    struct sst_info info;
    uint64_t put = entry_tag(5, ENTRY_PUT);
    sst_world_init(&w, 64 << 10, NULL);
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
    w.disk->remove(w.disk->ctx, SST_PATH);
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
    CHECK_EQ(sst_builder_finish(b, &info), LOAM_E_INVAL);
    sst_builder_free(b);
    w.build.compression = 9;
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_E_INVAL);
    sst_world_end(&w);
}

Test(sst_builder, abandoned_tables_leave_nothing_behind)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 2000, NULL);
    sst_world_init(&w, 128 << 10, NULL);
    for (size_t n = 0; n < m.n; n += 333) {
        struct sst_builder *b = NULL;
        w.disk->remove(w.disk->ctx, SST_PATH);
        CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
        for (size_t i = 0; i < n; i++) {
            CHECK_EQ(sst_builder_add(b, &m.e[i], 0), LOAM_OK);
        }
        sst_builder_free(b);
    }
    struct sst_warm warm;
    CHECK_EQ(sst_world_build(&w, &m, &warm), LOAM_OK);
    sst_warm_drop(&warm);
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK); /* finished, blocks not taken */
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_builder, estimates_the_size_of_the_file)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_builder *b = NULL;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 5000, NULL);
    sst_world_init(&w, 0, NULL);
    CHECK_EQ(sst_builder_open(&b, &w.build), LOAM_OK);
    for (size_t i = 0; i < m.n; i++) {
        CHECK_EQ(sst_builder_add(b, &m.e[i], 0), LOAM_OK);
    }
    double estimate = (double)sst_builder_bytes(b);
    CHECK_EQ(sst_builder_finish(b, &w.info), LOAM_OK);
    CHECK(estimate > 0.97 * (double)w.info.size && estimate < 1.03 * (double)w.info.size);
    sst_builder_free(b);
    model_free(&m);
    sst_world_end(&w);
}

static int advice_answer;
static uint64_t advised_end;
static bool advised_in_order;

static int note_advice(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    (void)ctx, (void)f;
    advised_in_order = advised_in_order && advice == LOAM_ADVISE_WRITEBACK && off == advised_end;
    advised_end = off + len;
    return advice_answer;
}

/* A table of 4 MiB on a disk that answers this to advice. */
static int build_advised(struct sst_world *w, int answer)
{
    static uint8_t value[8192];
    loam_vfs vfs = *w->disk;
    struct sst_builder *b = NULL;
    vfs.advise = note_advice;
    w->build.vfs = &vfs;
    w->build.compression = 1; /* none */
    advice_answer = answer;
    advised_end = 0;
    advised_in_order = true;
    w->disk->remove(w->disk->ctx, SST_PATH);
    CHECK_EQ(sst_builder_open(&b, &w->build), LOAM_OK);
    int rc = LOAM_OK;
    for (unsigned i = 0; i < 512 && rc == LOAM_OK; i++) {
        uint8_t key[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        struct entry e = {loam_bytes(key, 2), entry_tag(5, ENTRY_PUT),
                          loam_bytes(value, sizeof value)};
        rc = sst_builder_add(b, &e, 0);
    }
    rc = rc == LOAM_OK ? sst_builder_finish(b, &w->info) : rc;
    sst_builder_free(b);
    return rc;
}

Test(sst_builder, the_disk_begins_to_write_before_the_sync)
{
    struct sst_world w;
    sst_world_init(&w, 0, NULL);
    CHECK_EQ(build_advised(&w, 0), LOAM_OK);
    CHECK(advised_in_order && advised_end > 3 << 20 && advised_end <= w.info.size);
    CHECK_EQ(build_advised(&w, -EINVAL), LOAM_OK); /* a vfs that knows no such advice */
    CHECK_EQ(build_advised(&w, -EIO), LOAM_E_IO);  /* bytes are lost: no sync may forget it */
    CHECK_EQ(build_advised(&w, -ENOSPC), LOAM_E_NOSPACE);
    sst_world_end(&w);
}
