/* sst_golden_test.c - The present format is read and written for ever; version 1 is told of.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "tests/sstable/sst_support.h"

static const uint8_t golden_plain[] = {
#include "tests/golden/sst_v2_plain.inc"
};
static const uint8_t golden_lz4[] = {
#include "tests/golden/sst_v2_lz4.inc"
};

static const uint8_t version_1[] = {
#include "tests/golden/sst_v1_plain.inc"
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
    struct sst_world w;
    struct model m;
    random_init(&rnd, 1);
    sst_world_init(&w, 0, NULL);
    golden_model(&m);
    w.build.compression = compression;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    uint8_t *p = sst_world_read_file(&w, w.info.size);
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
    sst_world_write_file(&w, want, size);
    w.info.size = size;
    w.info.checksum = checksum64(want, size, 0);
    free(p);
    sst_check_table(&w, &m, &rnd, true, NULL);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_golden, writes_and_reads_the_golden_bytes)
{
    check_golden(golden_plain, sizeof golden_plain, 1, true);
    /* Another LZ4 may compress otherwise; it must read what this one wrote. */
    check_golden(golden_lz4, sizeof golden_lz4, 2, false);
}

/* Stored as they are, blocks of pages begin with a page, but for the first ones. Too long to be listed: its sum. */
Test(sst_golden, blocks_end_with_a_page_of_the_file)
{
    struct random rnd;
    struct sst_world w;
    struct model m = {0};
    struct sst_reader *r = NULL;
    random_init(&rnd, 1);
    sst_world_init(&w, 0, NULL);
    for (uint64_t i = 0; i < 1000; i++) {
        char key[20], value[101];
        snprintf(key, sizeof key, "key%08u", (unsigned)i);
        snprintf(value, sizeof value, "%0100u", (unsigned)i);
        model_add(&m, loam_bytes(key, 11), entry_tag(i, ENTRY_PUT), loam_bytes(value, 100));
    }
    w.build.compression = 1;
    w.build.block_bytes = 4096;
    w.resident_bytes = UINT64_MAX; /* the places of blocks are in r->index */
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    uint8_t *p = sst_world_read_file(&w, w.info.size);
    CHECK_EQ(checksum64(p, w.info.size, 0), 0x8ce6618450a0980cu);
    CHECK_EQ(p[w.info.size - SST_FOOTER_SIZE + 120], SST_FEATURE_STRETCHED);
    free(p);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    uint32_t begin = 0;
    for (uint32_t i = 0; i < r->index.count; i++) {
        begin += r->index.offsets[i] % 4096 == 0;
        CHECK(index_size(&r->index, i) <= 4096);
    }
    CHECK(begin + 3 >= r->index.count && begin > 20);
    sst_close(r);
    sst_check_table(&w, &m, &rnd, true, NULL);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_golden, tells_of_version_1)
{
    struct sst_world w;
    struct sst_reader *r = NULL;
    sst_world_init(&w, 0, NULL);
    sst_world_write_file(&w, version_1, sizeof version_1);
    struct sst_open_options o = sst_world_open_options(&w);
    o.size = 0;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_FORMAT);
    CHECK(strstr(loam_last_error()->message, "format version 1; this build knows 2") != NULL);
    o.inspect = true;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_FORMAT);
    sst_world_end(&w);
}
