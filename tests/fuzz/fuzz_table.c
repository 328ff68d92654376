/* fuzz_table.c - Opens, verifies, walks and searches a table file of any bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: a byte of flags (1 seal, 2 as a stranger's file, 4 paranoid, 8 resident if it can be, 16
 * wholly resident), then the file. A table that verifies must walk the same both ways and give every version it holds when asked for it.
 */
#include "arena/hash.h"
#include "sstable/sst_cursor.h"
#include "tests/fuzz/fuzz_support.h"

static uint64_t walk(struct sst_reader *r, bool sound)
{
    struct sst_cursor c;
    struct sst_get_scratch s;
    uint64_t forward = 0, backward = 0;
    sst_get_scratch_init(&s, fuzz_alloc());
    CHECK_EQ(sst_cursor_init(&c, r, fuzz_alloc(), 0, 0), LOAM_OK);
    for (bool ok = sst_cursor_first(&c); ok; ok = sst_cursor_next(&c), forward++) {
        struct entry e, got;
        sst_cursor_entry(&c, &e);
        fuzz_touch(e.key);
        fuzz_touch(e.value);
        epoch_enter();
        uint64_t hash = hash_key(e.key.data, e.key.size);
        int rc = sst_get(r, e.key, hash, tag_seq(e.tag), &s, &got);
        if (sound && r->cmp == NULL) {
            CHECK_EQ(rc, LOAM_OK);
            CHECK_EQ(got.tag, e.tag);
            CHECK_BYTES(got.value.data, got.value.size, e.value.data, e.value.size);
            CHECK(sst_may_contain(r, hash));
        }
        epoch_exit();
        (void)sst_offset_of(r, e.key);
    }
    int rc = sst_cursor_valid(&c) ? LOAM_OK : c.rc;
    for (bool ok = sst_cursor_last(&c); ok; ok = sst_cursor_prev(&c)) {
        backward++;
    }
    if (sound) {
        CHECK_EQ(rc, LOAM_OK);
        CHECK_EQ(backward, forward);
        CHECK_EQ(forward, sst_props(r)->entries);
    }
    if (sst_cursor_seek(&c, LOAM_LIT("key"), UINT64_MAX)) {
        (void)sst_cursor_next_key(&c);
    }
    (void)sst_cursor_seek_before(&c, LOAM_LIT("key1"), 0);
    sst_cursor_free(&c);
    sst_get_scratch_free(&s);
    return forward;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned flags = (unsigned)fuzz_take(&in, 1);
    uint8_t *bytes = fuzz_copy(in.p, in.left, 0);
    if ((flags & 1) != 0) {
        fuzz_seal_table(bytes, in.left);
    }
    fuzz_begin();
    loam_vfs *disk = fuzz_disk();
    fuzz_put(disk, "000000000005.sst", bytes, in.left);
    const struct sst_open_options o = {.vfs = disk,
                                       .alloc = fuzz_alloc(),
                                       .path = FUZZ_DIR "/000000000005.sst",
                                       .file_number = 5,
                                       .db_id = FUZZ_ID,
                                       .paranoid = (flags & 4) != 0,
                                       .inspect = (flags & 2) != 0,
                                       .resident_bytes = (flags & 8) != 0 ? 1 << 20 : 0,
                                       .whole = (flags & 16) != 0};
    struct sst_reader *r;
    if (sst_open(&o, &r) == LOAM_OK) {
        struct buf split;
        buf_init(&split, fuzz_alloc(), MEM_BUILD);
        uint64_t checksum;
        bool sound = sst_verify(r, NULL, &checksum) == LOAM_OK;
        walk(r, sound);
        sst_split_key(r, 1, 2, &split);
        (void)sst_memory(r);
        buf_free(&split);
        sst_close(r);
    }
    loam_vfs_free(disk);
    free(bytes);
    fuzz_end(size);
    return 0;
}
