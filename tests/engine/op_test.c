/* op_test.c - Operations encode and decode alike, and no bytes whatever lead out of bounds.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <sys/mman.h>

#include "arena/random.h"
#include "engine/op.h"
#include "tests/support/check.h"

static size_t encode(uint8_t *to, const struct op *o)
{
    size_t n = op_put_head(to, o->kind, o->ks, o->key.size, o->value.size);
    if (o->key.size != 0) {
        memcpy(to + n, o->key.data, o->key.size);
    }
    n += o->key.size;
    if (o->value.size != 0) {
        memcpy(to + n, o->value.data, o->value.size);
    }
    return n + o->value.size;
}

Test(op, what_goes_in_comes_out)
{
    static uint8_t buf[1 << 20], bytes[OP_KEY_MAX];
    memset(bytes, 'x', sizeof bytes);
    static const size_t sizes[] = {0, 1, 127, 128, 16383, 16384, OP_KEY_MAX};
    static const uint32_t spaces[] = {0, 127, 128, UINT32_MAX};
    for (size_t k = 0; k < 7; k++) {
        for (size_t v = 0; v < 7; v++) {
            for (size_t s = 0; s < 4; s++) {
                const struct op put = {ENTRY_PUT, spaces[s], loam_bytes(bytes, sizes[k]),
                                       loam_bytes(bytes, sizes[v])};
                const struct op del = {
                    ENTRY_DELETE, spaces[s], loam_bytes(bytes, sizes[k]), {NULL, 0}};
                size_t n = encode(buf, &put);
                n += encode(buf + n, &del);
                struct reader r = reader_of(buf, n);
                struct op o;
                CHECK_EQ(op_read(&r, &o), LOAM_OK);
                CHECK(o.kind == ENTRY_PUT && o.ks == spaces[s]);
                CHECK_BYTES(o.key.data, o.key.size, bytes, sizes[k]);
                CHECK_BYTES(o.value.data, o.value.size, bytes, sizes[v]);
                CHECK_EQ(op_read(&r, &o), LOAM_OK);
                CHECK(o.kind == ENTRY_DELETE && o.ks == spaces[s] && o.value.size == 0);
                CHECK_EQ(op_read(&r, &o), LOAM_NOTFOUND);
            }
        }
    }
}

Test(op, every_cut_is_corrupt)
{
    uint8_t buf[64];
    const struct op put = {ENTRY_PUT, 300, LOAM_LIT("key"), LOAM_LIT("value")};
    size_t n = encode(buf, &put);
    struct op o;
    for (size_t cut = 1; cut < n; cut++) {
        uint8_t *exact = malloc(cut); /* the sanitizer sees a read behind it */
        memcpy(exact, buf, cut);
        struct reader r = reader_of(exact, cut);
        CHECK_EQ(op_read(&r, &o), LOAM_E_CORRUPT);
        free(exact);
    }
}

Test(op, values_over_their_limit_are_corrupt)
{
    size_t n = OP_VALUE_MAX + 64; /* of which the first page is touched */
    uint8_t *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(p != MAP_FAILED);
    for (uint64_t over = 0; over < 2; over++) {
        size_t head = op_put_head(p, ENTRY_PUT, 0, 1, OP_VALUE_MAX + over);
        struct reader r = reader_of(p, head + 1 + OP_VALUE_MAX + over);
        struct op o;
        CHECK_EQ(op_read(&r, &o), over != 0 ? LOAM_E_CORRUPT : LOAM_OK);
    }
    munmap(p, n);
}

Test(op, kinds_of_the_future_and_of_nobody_are_told_apart)
{
    struct op o;
    for (unsigned kind = 2; kind < 256; kind++) {
        uint8_t buf[] = {(uint8_t)kind, 0, 1, 'k'};
        struct reader r = reader_of(buf, sizeof buf);
        CHECK_EQ(op_read(&r, &o), kind <= ENTRY_BLOB ? LOAM_E_FORMAT : LOAM_E_CORRUPT);
    }
}

Test(op, hostile_bytes_stay_in_bounds)
{
    struct random rng;
    random_init(&rng, 3);
    for (int round = 0; round < 200000; round++) {
        size_t n = random_below(&rng, 40);
        uint8_t *bytes = malloc(n != 0 ? n : 1);
        for (size_t i = 0; i < n; i++) {
            bytes[i] =
                (uint8_t)(random_below(&rng, 3) == 0 ? random_next(&rng) : random_below(&rng, 4));
        }
        struct reader r = reader_of(bytes, n);
        struct op o;
        while (op_read(&r, &o) == LOAM_OK) {
            const uint8_t *end = bytes + n;
            CHECK((const uint8_t *)o.key.data + o.key.size <= end);
            CHECK(o.value.size == 0 || (const uint8_t *)o.value.data + o.value.size <= end);
        }
        free(bytes);
    }
}
