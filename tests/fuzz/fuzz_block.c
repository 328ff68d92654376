/* fuzz_block.c - Checks a data block of any bytes; one that passes is searched and walked freely.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: two bytes for the longest key allowed, then the block.
 */
#include "arena/hash.h"
#include "sstable/block.h"
#include "tests/fuzz/fuzz_support.h"

static void search(const uint8_t *data, const struct entry *e, uint32_t index,
                   const struct block *b)
{
    struct entry got;
    uint64_t hash = hash_key(e->key.data, e->key.size);
    int rc = block_get(data, NULL, e->key, hash, tag_seq(e->tag), &got);
    /* The fingerprint may be wrong, which only the whole table's verification looks at. */
    if (rc == LOAM_OK) {
        CHECK(tag_seq(got.tag) <= tag_seq(e->tag));
        fuzz_touch(got.value);
    }
    CHECK(block_seek(b, NULL, e->key, e->tag) <= index);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint32_t key_max = (uint32_t)fuzz_take(&in, 2);
    const char *what = NULL;
    fuzz_begin();
    uint8_t *block = fuzz_copy(in.p, in.left, 16);
    if (block_check(block, in.left, NULL, key_max, &what) == LOAM_OK) {
        uint8_t *key = calloc(1, (size_t)key_max + 32);
        struct block_cursor c;
        CHECK(key != NULL);
        block_cursor_init(&c, block, key);
        for (bool ok = block_cursor_move(&c, 0); ok; ok = block_cursor_next(&c)) {
            CHECK(c.entry.key.size <= key_max);
            fuzz_touch(c.entry.key);
            fuzz_touch(c.entry.value);
            struct entry e = c.entry;
            search(block, &e, c.index, &c.block);
        }
        free(key);
    } else {
        CHECK(what != NULL);
    }
    free(block);
    fuzz_end(size);
    return 0;
}
