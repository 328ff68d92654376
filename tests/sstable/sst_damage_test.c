/* sst_damage_test.c - A damaged table, disk or memory gives a right answer or an error.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Damage: every byte changed, every length cut, every call failed, every allocation failed; each
 * time the answer is right or an error, never another value, a missing key or a crash.
 */
#include <criterion/criterion.h>

#include "arena/coding.h"
#include "sstable/sst_cursor.h"
#include "tests/sstable/sst_support.h"

static void small_table(struct sst_world *w, struct model *m, struct random *rnd,
                        uint32_t compression)
{
    model_generate(m, rnd, SHAPE_PREFIXED, 24, NULL);
    w->build.compression = compression;
    CHECK_EQ(sst_world_build(w, m, NULL), LOAM_OK);
    CHECK(w->info.blocks > 1);
    CHECK_EQ(sst_world_right_or_error(w, m), 0);
}

Test(sst_damage, every_changed_byte_is_an_error)
{
    struct random rnd;
    random_init(&rnd, model_seed());
    for (uint32_t compression = 1; compression <= 2; compression++) {
        struct sst_world w;
        struct model m;
        sst_world_init(&w, 0, NULL);
        small_table(&w, &m, &rnd, compression);
        size_t size = w.info.size;
        uint8_t *good = sst_world_read_file(&w, size);
        for (size_t at = 0; at < size; at++) {
            static const uint8_t flips[] = {1, 0x80, 0xff};
            for (size_t k = 0; k < sizeof flips; k++) {
                good[at] ^= flips[k];
                sst_world_write_file(&w, good, size);
                CHECK(sst_world_right_or_error(&w, &m) != 0);
                good[at] ^= flips[k];
            }
        }
        free(good);
        model_free(&m);
        sst_world_end(&w);
    }
}

Test(sst_damage, every_other_length_is_an_error)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    random_init(&rnd, model_seed());
    sst_world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 2);
    size_t size = w.info.size;
    uint8_t *good = sst_world_read_file(&w, size);
    uint8_t *longer = calloc(1, size + 300);
    memcpy(longer, good, size);
    for (size_t n = 1; n < size + 300; n++) {
        if (n != size) {
            sst_world_write_file(&w, longer, n);
            CHECK(sst_world_right_or_error(&w, &m) != 0);
        }
    }
    for (size_t at = 0; at < size; at += 64) { /* lost sectors */
        memset(longer + at, 0, size - at < 64 ? size - at : 64);
        sst_world_write_file(&w, longer, size);
        CHECK(sst_world_right_or_error(&w, &m) != 0);
        memcpy(longer, good, size);
    }
    free(good);
    free(longer);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_damage, random_damage_with_mended_checksums_is_survived)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    random_init(&rnd, model_seed());
    sst_world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 1);
    size_t size = w.info.size;
    uint8_t *good = sst_world_read_file(&w, size);
    struct sst_reader *r = NULL;
    w.resident_bytes = UINT64_MAX;
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    struct sst_handle parts[64];
    enum sst_type types[64];
    size_t n = 0;
    for (uint32_t i = 0; i < r->index.count && n < 50; i++, n++) {
        parts[n] = (struct sst_handle){r->index.offsets[i], index_size(&r->index, i)};
        types[n] = SST_DATA;
    }
    for (uint32_t i = 0; i < r->props.partitions && n < 60; i++, n++) {
        parts[n] = (struct sst_handle){r->top.offsets[i], index_size(&r->top, i)};
        types[n] = SST_INDEX;
    }
    parts[n] = r->footer.top, types[n++] = SST_TOP;
    parts[n] = r->footer.props, types[n++] = SST_PROPS;
    parts[n] = r->footer.filter, types[n++] = SST_FILTER; /* one page */
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
        uint64_t seed = sst_file_seed(SST_DB_ID, SST_NUMBER);
        sst_pack(&packer, SST_CODEC_NONE, types[k], seed, part, payload, &packed);
        sst_trailer_finish(&packed, parts[k].offset);
        memcpy(part + payload, packed.trailer, SST_TRAILER_SIZE);
        sst_world_write_file(&w, bad, size);
        struct sst_get_scratch s;
        struct sst_cursor c;
        struct entry e;
        o.resident_bytes = round % 2 != 0 ? UINT64_MAX : 0;
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
            sst_verify(r, NULL, NULL);
            sst_cursor_free(&c);
            sst_get_scratch_free(&s);
            sst_close(r);
        }
        CHECK(alloc_peak(&w.alloc) < 8 << 20);
        free(bad);
    }
    free(good);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_damage, a_block_at_anothers_place_or_of_another_file_is_an_error)
{
    struct sst_world w;
    struct model m = {0};
    struct sst_reader *r = NULL;
    sst_world_init(&w, 0, NULL);
    w.resident_bytes = UINT64_MAX;
    w.build.compression = 1;
    for (int i = 0; i < 40; i++) {
        char key[16];
        static char value[100];
        snprintf(key, sizeof key, "%08d", i);
        model_add(&m, loam_bytes(key, 8), entry_tag(7, ENTRY_PUT), loam_bytes(value, 100));
    }
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    uint32_t twin = 2;
    while (index_size(&r->index, twin) != index_size(&r->index, 1)) {
        CHECK(++twin < r->index.count);
    }
    uint64_t a = r->index.offsets[1], b = r->index.offsets[twin];
    size_t n = index_size(&r->index, 1);
    sst_close(r);
    uint8_t *good = sst_world_read_file(&w, w.info.size);
    uint8_t *bad = malloc(w.info.size);
    memcpy(bad, good, w.info.size);
    memcpy(bad + a, good + b, n);
    memcpy(bad + b, good + a, n);
    sst_world_write_file(&w, bad, w.info.size);
    CHECK(sst_world_right_or_error(&w, &m) > 2);
    /* The same table under another number: one of its blocks in the first one. */
    w.build.file_number = SST_NUMBER + 1;
    CHECK_EQ(sst_world_build(&w, &m, NULL), LOAM_OK);
    uint8_t *other = sst_world_read_file(&w, w.info.size);
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT); /* the whole file is another's */
    memcpy(bad, good, w.info.size);
    memcpy(bad + a, other + a, n);
    sst_world_write_file(&w, bad, w.info.size);
    CHECK(sst_world_right_or_error(&w, &m) > 0);
    sst_world_write_file(&w, good, w.info.size);
    CHECK_EQ(sst_world_right_or_error(&w, &m), 0);
    o.size = w.info.size + 1;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    o.size = 0;
    o.db_id++;
    CHECK_EQ(sst_open(&o, &r), LOAM_E_CORRUPT);
    free(good);
    free(bad);
    free(other);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_damage, errors_name_file_and_offset_and_a_cursor_recovers)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_reader *r = NULL;
    struct sst_cursor c;
    random_init(&rnd, model_seed());
    sst_world_init(&w, 0, NULL);
    small_table(&w, &m, &rnd, 2);
    w.resident_bytes = UINT64_MAX;
    struct sst_open_options o = sst_world_open_options(&w);
    CHECK_EQ(sst_open(&o, &r), LOAM_OK);
    uint8_t *p = sst_world_read_file(&w, w.info.size);
    p[r->index.offsets[1] + 3] ^= 4;
    sst_world_write_file(&w, p, w.info.size);
    CHECK_EQ(sst_cursor_init(&c, r, &w.alloc, 0, 0), LOAM_OK);
    CHECK(sst_cursor_first(&c));
    while (sst_cursor_next(&c)) {
    }
    CHECK_EQ(sst_cursor_rc(&c), LOAM_E_CORRUPT);
    CHECK_EQ(loam_last_error()->file_id, SST_NUMBER);
    CHECK_EQ(loam_last_error()->offset, r->index.offsets[1]);
    CHECK(!sst_cursor_valid(&c));
    CHECK(sst_cursor_first(&c));
    CHECK_EQ(sst_cursor_rc(&c), LOAM_OK);
    sst_cursor_free(&c);
    sst_close(r);
    free(p);
    model_free(&m);
    sst_world_end(&w);
}

Test(sst_damage, paranoid_readers_notice_a_changed_cached_block)
{
    struct random rnd;
    struct sst_world w;
    struct model m;
    struct sst_warm warm;
    struct sst_reader *r = NULL;
    struct sst_get_scratch s;
    struct entry e;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_DECIMAL, 40, NULL);
    sst_world_init(&w, 1 << 20, NULL);
    CHECK_EQ(sst_world_build(&w, &m, &warm), LOAM_OK);
    struct sst_open_options o = sst_world_open_options(&w);
    o.warm = &warm;
    o.resident_bytes = UINT64_MAX;
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
    sst_world_end(&w);
}

/* ---- failing calls and allocations ---- */

Test(sst_damage, every_failing_call_is_an_error)
{
    struct random rnd;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_VALUES, 30, NULL);
    for (uint32_t short_writes = 0; short_writes < 2; short_writes++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            struct sst_world w;
            loam_vfs *faulty = NULL;
            loam_fault_plan plan = {.struct_size = sizeof plan,
                                    .seed = n,
                                    .fail_at = n,
                                    .fail_errno = 28, /* ENOSPC */
                                    .short_writes = short_writes};
            sst_world_init(&w, n % 2 != 0 ? 64 << 10 : 0, NULL);
            CHECK_EQ(loam_vfs_fault(w.disk, &plan, &faulty), LOAM_OK);
            w.vfs = w.build.vfs = faulty;
            int rc = sst_world_build(&w, &m, NULL);
            int errors = rc == LOAM_OK ? sst_world_right_or_error(&w, &m) : 1;
            fired = loam_vfs_calls(faulty) >= n;
            CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
            CHECK(fired || errors == 0);
            loam_vfs_free(faulty);
            sst_world_end(&w);
        }
    }
    model_free(&m);
}

Test(sst_damage, every_failing_allocation_is_an_error_or_does_without)
{
    struct random rnd;
    struct model m;
    random_init(&rnd, model_seed());
    model_generate(&m, &rnd, SHAPE_VALUES, 30, NULL);
    for (int once = 0; once < 2; once++) {
        for (uint64_t n = 0;; n++) {
            struct sst_world w;
            struct sst_limit limit = {UINT64_MAX, once != 0};
            sst_world_init(&w, n % 2 != 0 ? 64 << 10 : 0, &limit);
            limit.left = n;
            int rc = sst_world_build(&w, &m, NULL);
            CHECK(rc == LOAM_OK || rc == LOAM_E_NOMEM);
            int errors = rc == LOAM_OK ? sst_world_right_or_error(&w, &m) : 1;
            bool fired = once != 0 ? limit.left > (uint64_t)1 << 62 : limit.left == 0;
            limit.left = UINT64_MAX;
            sst_world_end(&w);
            CHECK(fired || errors == 0);
            if (!fired) {
                break;
            }
        }
    }
    model_free(&m);
}
