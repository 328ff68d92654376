/* partition_test.c - Partitions and the top say what the builder was told, or are refused.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sstable/partition.h"

#include <criterion/criterion.h>

#include "sstable/index_builder.h"
#include "tests/sstable/model.h"

#define SEED  99u
#define FIRST 7u /* number of the first partition */

/* The parts of an index as written one behind the other. */
struct made {
    struct model m; /* its keys are the separators */
    uint64_t *offsets;
    uint32_t *sizes;
    struct buf file; /* partitions, then the top, each with 16 bytes behind it */
    struct sst_handle index, top;
    uint64_t data_end;
    bool regular; /* keys of one length and prefix */
    int fail_at;  /* number of the call of put that fails; 0: none */
};

static bool is_dead(size_t i)
{
    return i % 7 == 0 || i > 600;
}

static int put(void *arg, enum sst_type type, const void *data, size_t size, struct sst_handle *h)
{
    static const uint8_t trailer[SST_TRAILER_SIZE];
    struct made *x = arg;
    CHECK(type == SST_INDEX || type == SST_TOP);
    if (x->fail_at != 0 && --x->fail_at == 0) {
        return LOAM_E_IO;
    }
    *h = (struct sst_handle){x->file.size, size + SST_TRAILER_SIZE};
    buf_append(&x->file, data, size);
    buf_append(&x->file, trailer, sizeof trailer);
    return LOAM_OK;
}

static int emit(struct made *x)
{
    struct index_builder b;
    index_builder_init(&b, alloc_global());
    for (size_t i = 0; i < x->m.n; i++) {
        index_builder_add(&b, x->m.e[i].key, is_dead(i));
    }
    const struct index_emit how = {.put = put,
                                   .arg = x,
                                   .offsets = x->offsets,
                                   .sizes = x->sizes,
                                   .file_seed = SEED,
                                   .first_number = FIRST,
                                   .strip = x->m.cmp == NULL};
    int rc = index_builder_emit(&b, &how, &x->index, &x->top);
    index_builder_free(&b);
    return rc;
}

/* Of the separators that x has. Blocks stand in the file in pairs that are swapped. */
static void make_of(struct made *x, struct random *r)
{
    size_t n = x->m.n;
    x->offsets = calloc(n, sizeof *x->offsets);
    x->sizes = calloc(n, sizeof *x->sizes);
    x->data_end = SST_HEADER_SIZE;
    for (size_t i = 0; i < n; i++) {
        x->sizes[i] = (uint32_t)(100 + random_below(r, 90000));
    }
    for (size_t i = 0; i < n; i++) {
        size_t j = i % 2 == 0 ? (i + 1 < n ? i + 1 : i) : i - 1;
        x->offsets[j] = x->data_end;
        x->data_end += x->sizes[j];
    }
    buf_init(&x->file, alloc_global(), MEM_MISC);
    CHECK_EQ(emit(x), LOAM_OK);
}

static void make(struct made *x, struct random *r, enum model_shape shape, size_t n,
                 const loam_comparator *cmp)
{
    *x = (struct made){.regular = shape == SHAPE_DECIMAL && cmp == NULL};
    model_generate(&x->m, r, shape, n, cmp);
    make_of(x, r);
}

static void drop(struct made *x)
{
    buf_free(&x->file);
    free(x->offsets);
    free(x->sizes);
    model_free(&x->m);
}

static struct partition_bounds bounds_of_part(const struct made *x, uint32_t count)
{
    return (struct partition_bounds){.cmp = x->m.cmp,
                                     .key_max = SST_KEY_MAX,
                                     .count = count,
                                     .begin = SST_HEADER_SIZE,
                                     .end = x->data_end};
}

static struct partition_bounds bounds_of_top(const struct made *x)
{
    return (struct partition_bounds){.cmp = x->m.cmp,
                                     .key_max = SST_KEY_MAX,
                                     .begin = x->index.offset,
                                     .end = x->index.offset + x->index.size,
                                     .blocks = (uint32_t)x->m.n};
}

static void check_part(const struct made *x, const uint8_t *data, size_t size, uint32_t number,
                       size_t first, size_t end, bool dead)
{
    static uint8_t key[SST_KEY_MAX + 16];
    const struct partition_bounds bounds = bounds_of_part(x, (uint32_t)(end - first));
    const char *what = NULL;
    struct block_cursor c;
    bool all = true;
    CHECK_EQ(partition_check(data, size, &bounds, &what), LOAM_OK);
    CHECK(block_sum_matches(data, size, SEED, number));
    block_cursor_init(&c, data, key);
    CHECK_EQ(c.block.count, end - first);
    for (size_t i = first; i < end; i++) {
        struct partition_value v;
        loam_slice k = x->m.e[i].key;
        CHECK(block_cursor_move(&c, (uint32_t)(i - first)));
        CHECK_BYTES(c.entry.key.data, c.entry.key.size, k.data, k.size);
        partition_value(&c.block, (uint32_t)(i - first), &v);
        CHECK_EQ(v.size, x->sizes[i]);
        CHECK_EQ(v.number, x->offsets[i]);
        CHECK_EQ(v.dead, is_dead(i));
        all = all && is_dead(i);
        /* The first of equal separators is found. */
        size_t want = model_seek(&x->m, k, UINT64_MAX);
        CHECK_EQ(block_seek(&c.block, x->m.cmp, k, UINT64_MAX), want < first ? 0 : want - first);
    }
    CHECK_EQ(dead, all);
}

static void check_all(const struct made *x)
{
    static uint8_t key[SST_KEY_MAX + 16];
    const struct partition_bounds bounds = bounds_of_top(x);
    const uint8_t *top = x->file.data + x->top.offset;
    const char *what = NULL;
    struct block_cursor c;
    uint64_t at = 0;
    CHECK_EQ(top_check(top, x->top.size - SST_TRAILER_SIZE, &bounds, &what), LOAM_OK);
    CHECK(block_sum_matches(top, x->top.size - SST_TRAILER_SIZE, SEED, PARTITION_TOP));
    block_cursor_init(&c, top, key);
    for (uint32_t i = 0; i < c.block.count; i++) {
        struct partition_value v, next = {.number = x->m.n};
        block_cursor_move(&c, i);
        partition_value(&c.block, i, &v);
        if (i + 1 < c.block.count) {
            partition_value(&c.block, i + 1, &next);
        }
        loam_slice last = x->m.e[next.number - 1].key;
        CHECK_BYTES(c.entry.key.data, c.entry.key.size, last.data, last.size);
        /* More when keys lose the prefix they shared with the first. */
        CHECK(v.size <= 8 * PARTITION_BYTES + SST_KEY_MAX + 1024 || next.number - v.number == 1);
        CHECK(x->regular ? v.size <= PARTITION_BYTES + SST_TRAILER_SIZE : true);
        check_part(x, x->file.data + at, v.size - SST_TRAILER_SIZE, FIRST + i, v.number,
                   next.number, v.dead);
        at += v.size;
    }
}

Test(partition, says_what_the_builder_was_told)
{
    static const size_t counts[] = {1, 2, 31, 32, 33, 300, 5000};
    loam_comparator reverse = {sizeof reverse, "reverse", model_reverse, NULL, NULL};
    struct random r;
    random_init(&r, model_seed());
    for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
        for (int shape = 0; shape < SHAPE_VALUES; shape++) {
            for (int ordered = 0; ordered < 2; ordered++) {
                struct made m;
                if (shape == SHAPE_LONG && counts[k] > 33) {
                    continue;
                }
                make(&m, &r, (enum model_shape)shape, counts[k], ordered != 0 ? &reverse : NULL);
                check_all(&m);
                drop(&m);
            }
        }
    }
}

/* Keys of `size` bytes, of which the last `own` tell them apart. */
static uint64_t size_of_long(size_t size, size_t own)
{
    static char key[SST_KEY_MAX];
    struct random r;
    struct made m = {.regular = false};
    random_init(&r, model_seed());
    memset(key, 'k', sizeof key);
    for (uint32_t i = 0; i < 500; i++) {
        for (size_t k = own; k > 0; k--) {
            key[size - k] = (char)(k > 4 ? random_next(&r) : i >> 8 * (k - 1));
        }
        for (uint32_t k = 0; own > 4 && k < 4; k++) {
            key[size - own + k] = (char)(i >> 8 * (3 - k));
        }
        model_add(&m.m, loam_bytes(key, size), entry_tag(7 + i, ENTRY_PUT), loam_bytes("", 0));
    }
    make_of(&m, &r);
    check_all(&m);
    uint64_t bytes = m.index.size;
    drop(&m);
    return bytes;
}

/* What they share is stored once for many, and what they do not share bounds a partition as ever. */
Test(partition, long_keys_share_their_prefix)
{
    CHECK(size_of_long(5000, 4) < 500 * 5000 / 20);
    CHECK(size_of_long(SST_KEY_MAX, 4) < 500u * SST_KEY_MAX / 20);
    CHECK(size_of_long(300, 4) < 500 * 300 / 5);
    CHECK(size_of_long(5000, 5000) < 500 * 5200);
    CHECK(size_of_long(5000, 2000) < 500 * 5200);
}

Test(partition, a_failure_to_write_is_the_result)
{
    struct random r;
    struct made m;
    random_init(&r, model_seed());
    make(&m, &r, SHAPE_DECIMAL, 2000, NULL);
    int rc = LOAM_E_IO;
    for (int n = 1; rc != LOAM_OK; n++) {
        buf_clear(&m.file);
        m.fail_at = n;
        rc = emit(&m);
        CHECK(rc == LOAM_OK || rc == LOAM_E_IO);
        CHECK((rc == LOAM_OK) == (m.fail_at != 0));
    }
    drop(&m);
}

/* What passes the check may be decoded, and stays inside its bounds. */
static void try_part(const struct made *m, const uint8_t *data, size_t size, bool top)
{
    const char *what = NULL;
    struct partition_bounds bounds = top ? bounds_of_top(m) : bounds_of_part(m, (uint32_t)m->m.n);
    int rc =
        top ? top_check(data, size, &bounds, &what) : partition_check(data, size, &bounds, &what);
    if (rc != LOAM_OK) {
        CHECK(what != NULL && (rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT));
        return;
    }
    struct block b;
    block_init(&b, data);
    for (uint32_t i = 0; i < b.count; i++) {
        struct partition_value v;
        partition_value(&b, i, &v);
        CHECK(v.size >= SST_TRAILER_SIZE);
        CHECK(top ? v.number < bounds.blocks
                  : v.number >= bounds.begin && v.size <= bounds.end - v.number);
    }
}

Test(partition, refuses_or_survives_damage_to_any_byte)
{
    struct random r;
    random_init(&r, model_seed());
    for (int shape = 0; shape < SHAPE_LONG; shape++) {
        struct made m;
        make(&m, &r, (enum model_shape)shape, 40, NULL);
        for (int top = 0; top < 2; top++) {
            struct sst_handle h = top != 0 ? m.top : m.index;
            size_t n = h.size - SST_TRAILER_SIZE;
            for (size_t at = 0; at < n; at++) {
                for (int k = 0; k < 4; k++) {
                    uint8_t *copy = malloc(n);
                    memcpy(copy, m.file.data + h.offset, n);
                    copy[at] = (uint8_t)(k == 0   ? copy[at] ^ 0x80
                                         : k == 1 ? 0xff
                                                  : random_next(&r));
                    try_part(&m, copy, n, top != 0);
                    free(copy);
                }
            }
        }
        drop(&m);
    }
}

Test(partition, refuses_what_contradicts_the_table)
{
    struct random r;
    struct made m;
    const char *what = NULL;
    random_init(&r, model_seed());
    make(&m, &r, SHAPE_DECIMAL, 40, NULL);
    size_t part = m.index.size - SST_TRAILER_SIZE, top = m.top.size - SST_TRAILER_SIZE;
    struct partition_bounds b = bounds_of_part(&m, 40);
    CHECK_EQ(partition_check(m.file.data, part, &b, &what), LOAM_OK);
    b.count = 39;
    CHECK_EQ(partition_check(m.file.data, part, &b, &what), LOAM_E_CORRUPT);
    b.count = 40;
    b.end--;
    CHECK_EQ(partition_check(m.file.data, part, &b, &what), LOAM_E_CORRUPT);
    b.end++;
    b.begin++;
    CHECK_EQ(partition_check(m.file.data, part, &b, &what), LOAM_E_CORRUPT);
    b = bounds_of_top(&m);
    CHECK_EQ(top_check(m.file.data + m.top.offset, top, &b, &what), LOAM_OK);
    b.end++;
    CHECK_EQ(top_check(m.file.data + m.top.offset, top, &b, &what), LOAM_E_CORRUPT);
    b.end -= 2;
    CHECK_EQ(top_check(m.file.data + m.top.offset, top, &b, &what), LOAM_E_CORRUPT);
    drop(&m);
}

Test(partition, an_unknown_flag_is_a_newer_format)
{
    struct random r;
    struct made m;
    struct block b;
    struct block_item item;
    const char *what = NULL;
    random_init(&r, model_seed());
    make(&m, &r, SHAPE_DECIMAL, 40, NULL);
    struct partition_bounds bounds = bounds_of_part(&m, 40);
    block_init(&b, m.file.data);
    block_item(&b, 3, &item);
    m.file.data[item.rest + item.rest_size - m.file.data] |= 2;
    CHECK_EQ(partition_check(m.file.data, m.index.size - SST_TRAILER_SIZE, &bounds, &what),
             LOAM_E_FORMAT);
    drop(&m);
}
