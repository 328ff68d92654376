/* fuzz_coding.c - The bounded reader, driven by its own input.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each byte picks a call on what follows. Nothing is read past the end; a varint that is accepted is
 * written in no more bytes and reads the same.
 */
#include "arena/coding.h"
#include "tests/fuzz/fuzz_support.h"

static void varint(struct reader *r)
{
    const uint8_t *from = r->p;
    uint64_t v = read_varint64(r);
    if (!r->bad) {
        uint8_t out[VARINT64_MAX_BYTES];
        size_t n = (size_t)(put_varint64(out, v) - out);
        CHECK_EQ(n, varint64_size(v));
        CHECK(n <= (size_t)(r->p - from));
        struct reader again = reader_of(out, n);
        CHECK(read_varint64(&again) == v && !again.bad && reader_left(&again) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin();
    struct reader r = reader_of(data, size);
    while (reader_left(&r) != 0 && !r.bad) {
        size_t before = reader_left(&r);
        switch (read_u8(&r) % 6) {
        case 0:
            varint(&r);
            break;
        case 1:
            CHECK(read_varint32(&r) <= UINT32_MAX);
            break;
        case 2:
            fuzz_touch(read_slice(&r));
            break;
        case 3:
            (void)read_fixed32(&r);
            break;
        case 4:
            (void)read_fixed64(&r);
            break;
        default: {
            size_t n = read_u8(&r);
            const uint8_t *p = read_bytes(&r, n);
            CHECK(p != NULL || r.bad);
            fuzz_touch(loam_bytes(p, p != NULL ? n : 0));
        }
        }
        CHECK(reader_left(&r) < before);
    }
    if (r.bad) {
        CHECK(read_u8(&r) == 0 && read_fixed64(&r) == 0 && read_slice(&r).size == 0);
    }
    fuzz_end(size);
    return 0;
}
