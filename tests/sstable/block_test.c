/* block_test.c - Data blocks: layout and search against a sorted array, and damage to any byte.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the model's array. Blocks live in allocations of exact size plus the 16 bytes a cursor
 * may read, so that a sanitizer sees each access outside.
 */
#include "sstable/block.h"

#include <criterion/criterion.h>

#include "sstable/block_builder.h"
#include "tests/sstable/model.h"

#define SEED 77u

struct built {
    uint8_t *data;
    size_t size;
    struct model m; /* its entries: a run of the whole model's */
};

static void build(struct built *b, const struct model *m, size_t from, size_t n)
{
    struct block_builder bb;
    struct block_shape s;
    block_builder_init(&bb, alloc_global(), m->cmp == NULL);
    for (size_t i = from; i < from + n; i++) {
        loam_slice k = m->e[i].key;
        CHECK_EQ(block_builder_add(&bb, &m->e[i], fingerprint_of(hash_key(k.data, k.size))),
                 LOAM_OK);
    }
    block_builder_shape(&bb, &s);
    s.size += n % 3 * 17; /* a longer tail */
    b->size = s.size;
    b->data = malloc(s.size + 16);
    block_emit(bb.inputs, bb.count, &s, SEED, 3, b->data);
    memset(b->data + s.size, 0, 16);
    b->m = (struct model){.e = m->e + from, .n = n, .cmp = m->cmp};
    block_builder_free(&bb);
}

static void check_walk(const struct built *b, uint8_t *key)
{
    struct block_cursor c;
    block_cursor_init(&c, b->data, key);
    CHECK(!block_cursor_valid(&c));
    bool ok = block_cursor_move(&c, 0);
    for (size_t i = 0; i < b->m.n; i++, ok = block_cursor_next(&c)) {
        CHECK(ok);
        CHECK_ENTRY(&c.entry, &b->m.e[i]);
    }
    CHECK(!ok && !block_cursor_valid(&c));
    ok = block_cursor_move(&c, (uint32_t)b->m.n - 1);
    for (size_t i = b->m.n; i-- != 0; ok = block_cursor_prev(&c)) {
        CHECK(ok);
        CHECK_ENTRY(&c.entry, &b->m.e[i]);
    }
    CHECK(!ok && !block_cursor_valid(&c));
}

static void check_probe(const struct built *b, struct random *r, uint8_t *room)
{
    struct block opened;
    struct entry e;
    block_init(&opened, b->data);
    loam_slice k = model_probe(&b->m, r, room);
    uint64_t tag = random_below(r, 3) == 0 ? UINT64_MAX : b->m.e[random_below(r, b->m.n)].tag;
    CHECK_EQ(block_seek(&opened, b->m.cmp, k, tag), model_seek(&b->m, k, tag));
    const struct entry *want = model_get(&b->m, k, tag_seq(tag));
    int rc = block_get(b->data, b->m.cmp, k, hash_key(k.data, k.size), tag_seq(tag), &e);
    if (want != NULL) {
        CHECK_EQ(rc, LOAM_OK);
        CHECK_EQ(e.tag, want->tag);
        CHECK_BYTES(e.value.data, e.value.size, want->value.data, want->value.size);
    } else {
        /* MORE exactly when the block ends in versions of this key. */
        bool last = key_compare(b->m.cmp, b->m.e[b->m.n - 1].key, k) == 0;
        CHECK_EQ(rc, last ? BLOCK_GET_MORE : LOAM_NOTFOUND);
    }
}

static void run_shape(enum model_shape shape, const loam_comparator *cmp, struct random *r)
{
    static uint8_t key[65535 + 32], room[70000];
    struct model m;
    model_generate(&m, r, shape, shape == SHAPE_LONG ? 30 : 300, cmp);
    for (int round = 0; round < 40; round++) {
        struct built b;
        const char *what = NULL;
        size_t from = random_below(r, m.n);
        size_t n = 1 + random_below(r, random_below(r, 2) != 0 ? 40 : 300);
        build(&b, &m, from, n < m.n - from ? n : m.n - from);
        CHECK_EQ(block_check(b.data, b.size, cmp, 65535, &what), LOAM_OK);
        CHECK(block_sum_matches(b.data, b.size, SEED, 3));
        CHECK(!block_sum_matches(b.data, b.size, SEED, 4));
        CHECK(!block_sum_matches(b.data, b.size, SEED + 1, 3));
        check_walk(&b, key);
        for (int i = 0; i < 200; i++) {
            check_probe(&b, r, room);
        }
        free(b.data);
    }
    model_free(&m);
}

Test(block, gives_back_every_shape_of_entries)
{
    struct random r;
    random_init(&r, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        run_shape((enum model_shape)shape, NULL, &r);
    }
}

Test(block, follows_a_comparator)
{
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    struct random r;
    random_init(&r, model_seed());
    run_shape(SHAPE_SHORT, &reverse, &r);
    run_shape(SHAPE_PREFIXED, &reverse, &r);
}

Test(block, finds_keys_that_only_a_comparator_calls_equal)
{
    loam_comparator caseless = {sizeof caseless, "caseless", model_caseless, NULL, NULL};
    struct model m = {.cmp = &caseless};
    model_add(&m, LOAM_LIT("Key"), entry_tag(9, ENTRY_PUT), LOAM_LIT("new"));
    model_add(&m, LOAM_LIT("kEY"), entry_tag(5, ENTRY_PUT), LOAM_LIT("old"));
    struct built b;
    struct entry e;
    build(&b, &m, 0, 2);
    loam_slice k = LOAM_LIT("KEY");
    CHECK_EQ(block_get(b.data, &caseless, k, hash_key(k.data, k.size), 8, &e), LOAM_OK);
    CHECK_BYTES(e.value.data, e.value.size, "old", 3);
    free(b.data);
    model_free(&m);
}

Test(block, portable_fingerprint_match_equals_the_vector_one)
{
    struct random r;
    random_init(&r, model_seed());
    for (int i = 0; i < 100000; i++) {
        uint8_t bytes[16];
        for (int k = 0; k < 16; k++) {
            bytes[k] = (uint8_t)random_below(&r, i % 2 != 0 ? 256 : 3);
        }
        uint8_t fp = (uint8_t)random_below(&r, i % 2 != 0 ? 256 : 3);
        CHECK_EQ(fingerprint_match16(bytes, fp), fingerprint_match16_portable(bytes, fp));
    }
}

/* Everything a reader may do with a block that passed the check. */
static void use(const uint8_t *data, const struct model *m, uint8_t *key)
{
    struct block_cursor c;
    struct entry e;
    block_cursor_init(&c, data, key);
    for (bool ok = block_cursor_move(&c, 0); ok; ok = block_cursor_next(&c)) {
        checksum64(c.entry.key.data, c.entry.key.size, 0);
        checksum64(c.entry.value.data, c.entry.value.size, 0);
    }
    for (size_t i = 0; i < m->n; i++) {
        loam_slice k = m->e[i].key;
        block_get(data, NULL, k, hash_key(k.data, k.size), SEQ_MAX, &e);
        block_seek(&c.block, NULL, k, m->e[i].tag);
    }
}

Test(block, refuses_or_survives_damage_to_any_byte)
{
    static uint8_t key[65535 + 32];
    struct random r;
    random_init(&r, model_seed());
    for (int shape = 0; shape < SHAPE_COUNT; shape++) {
        struct model m;
        struct built b;
        if (shape == SHAPE_LONG) {
            continue;
        }
        model_generate(&m, &r, (enum model_shape)shape, 12, NULL);
        build(&b, &m, 0, m.n);
        size_t limit = b.size < 1200 ? b.size : 1200;
        for (size_t at = 0; at < limit; at++) {
            for (unsigned k = 0; k < 8; k++) {
                static const uint8_t flips[] = {1, 2, 4, 0x10, 0x40, 0x80, 0xff, 0x7f};
                const char *what = NULL;
                b.data[at] ^= flips[k];
                CHECK(!block_sum_matches(b.data, b.size, SEED, 3));
                if (block_check(b.data, b.size, NULL, 65535, &what) == LOAM_OK) {
                    use(b.data, &b.m, key);
                } else {
                    CHECK(what != NULL);
                }
                b.data[at] ^= flips[k];
            }
        }
        for (size_t size = 0; size < limit; size++) {
            const char *what = NULL;
            uint8_t *cut = malloc(size + 1);
            memcpy(cut, b.data, size);
            CHECK(size == b.size || block_check(cut, size, NULL, 65535, &what) != LOAM_OK);
            free(cut);
        }
        free(b.data);
        model_free(&m);
    }
}

Test(block, refuses_unknown_kinds_as_a_format_and_long_keys_as_damage)
{
    struct model m = {0};
    struct built b;
    const char *what = NULL;
    model_add(&m, LOAM_LIT("abc"), entry_tag(9, ENTRY_MERGE), LOAM_LIT("x"));
    build(&b, &m, 0, 1);
    CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), LOAM_E_FORMAT);
    free(b.data);
    m.e[0].tag = entry_tag(9, ENTRY_PUT);
    build(&b, &m, 0, 1);
    CHECK_EQ(block_check(b.data, b.size, NULL, 3, &what), LOAM_OK);
    CHECK_EQ(block_check(b.data, b.size, NULL, 2, &what), LOAM_E_CORRUPT);
    free(b.data);
    model_free(&m);
}

/* A key that shares much with others, of a length around those that are told apart in other ways. */
static loam_slice near_key(struct random *r, uint8_t to[300])
{
    static const size_t sizes[] = {0, 1, 2, 6, 7, 8, 9, 10, 126, 127, 128, 129, 200};
    size_t n = sizes[random_below(r, sizeof sizes / sizeof *sizes)];
    memset(to, random_below(r, 3) == 0 ? 0xff : 0, n);
    for (unsigned k = 0; k < 2 && n != 0; k++) {
        to[random_below(r, n < 12 ? n : 12)] = (uint8_t)random_below(r, 3);
    }
    return loam_bytes(to, n);
}

Test(block, takes_three_entries_exactly_when_they_ascend)
{
    struct random r;
    random_init(&r, model_seed());
    unsigned taken = 0, refused = 0;
    for (unsigned i = 0; i < 20000; i++) {
        struct model m = {0};
        struct built b;
        const char *what = NULL;
        uint8_t keys[3][300];
        bool ascend = true;
        for (unsigned k = 0; k < 3; k++) {
            loam_slice key = near_key(&r, keys[k]);
            enum entry_kind kind = random_below(&r, 4) != 0 ? ENTRY_PUT : ENTRY_DELETE;
            loam_slice value = kind == ENTRY_PUT ? LOAM_LIT("v") : loam_bytes(NULL, 0);
            model_add(&m, key, entry_tag(1 + random_below(&r, 3), kind), value);
            if (k != 0) {
                int c = bytes_compare(m.e[k - 1].key, m.e[k].key);
                ascend = ascend && (c < 0 || (c == 0 && m.e[k - 1].tag > m.e[k].tag));
            }
        }
        build(&b, &m, 0, 3);
        CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), ascend ? LOAM_OK : LOAM_E_CORRUPT);
        taken += ascend;
        refused += !ascend;
        free(b.data);
        model_free(&m);
    }
    CHECK(taken > 1000 && refused > 1000);
}

Test(block, seeks_near_an_entry_as_from_the_start)
{
    struct random r;
    random_init(&r, model_seed());
    for (unsigned round = 0; round < 300; round++) {
        struct model m;
        struct built b;
        struct block block;
        uint8_t bytes[300];
        static const enum model_shape shapes[] = {SHAPE_DECIMAL, SHAPE_SHORT, SHAPE_PREFIXED,
                                                  SHAPE_EDGES, SHAPE_VERSIONS};
        model_generate(&m, &r, shapes[round % 5], 1 + (size_t)random_below(&r, 60), NULL);
        build(&b, &m, 0, m.n);
        block_init(&block, b.data);
        for (unsigned i = 0; i < 60; i++) {
            loam_slice key = random_below(&r, 4) != 0 ? m.e[random_below(&r, m.n)].key
                                                      : near_key(&r, bytes);
            uint32_t from = (uint32_t)random_below(&r, m.n + 1);
            uint32_t want = block_seek(&block, NULL, key, UINT64_MAX);
            CHECK_EQ(block_seek_near(&block, from, key), want > from ? want : from);
        }
        free(b.data);
        model_free(&m);
    }
}

Test(block, may_end_in_more_zeros_and_in_nothing_else)
{
    struct random r;
    struct model m;
    struct built b;
    random_init(&r, model_seed());
    model_generate(&m, &r, SHAPE_DECIMAL, 14, NULL);
    build(&b, &m, 0, m.n);
    size_t tail = BLOCK_TAIL_SIZE + m.n % 3 * 17;
    CHECK(tail > 2 * BLOCK_TAIL_SIZE);
    for (size_t i = 1; i <= tail; i++) {
        const char *what = NULL;
        CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), LOAM_OK);
        b.data[b.size - i] = 1;
        CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), LOAM_E_CORRUPT);
        CHECK(what != NULL);
        b.data[b.size - i] = 0;
    }
    free(b.data);
    model_free(&m);
}

Test(block, refuses_entries_out_of_order)
{
    struct model m = {0};
    struct built b;
    const char *what = NULL;
    model_add(&m, LOAM_LIT("b"), entry_tag(1, ENTRY_PUT), LOAM_LIT("x"));
    model_add(&m, LOAM_LIT("a"), entry_tag(2, ENTRY_PUT), LOAM_LIT("x"));
    model_add(&m, LOAM_LIT("a"), entry_tag(2, ENTRY_PUT), LOAM_LIT("x"));
    build(&b, &m, 0, 2);
    CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), LOAM_E_CORRUPT);
    free(b.data);
    build(&b, &m, 1, 2);
    CHECK_EQ(block_check(b.data, b.size, NULL, 65535, &what), LOAM_E_CORRUPT);
    free(b.data);
    model_free(&m);
}
