/* hash_test.c - Checksums in pieces equal those in one piece, whatever the memory held before.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/hash.h"

#include <criterion/criterion.h>
#include <string.h>

#include "tests/support/check.h"

static unsigned char data[100000];

static uint64_t in_pieces(struct checksum_stream *s, size_t piece, uint64_t seed)
{
    checksum_begin(s, seed);
    for (size_t at = 0; at < sizeof data; at += piece) {
        checksum_add(s, data + at, sizeof data - at < piece ? sizeof data - at : piece);
    }
    return checksum_end(s);
}

Test(hash, checksum_in_pieces_equals_the_whole)
{
    struct checksum_stream s;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 131 >> 3);
    }
    for (size_t piece = 1; piece < 5000; piece = piece * 3 + 1) {
        CHECK_EQ(in_pieces(&s, piece, 77), checksum64(data, sizeof data, 77));
    }
}

Test(hash, a_stream_starts_afresh_in_memory_that_looks_like_an_old_one)
{
    struct checksum_stream s;
    uint64_t whole = checksum64(data, sizeof data, 1234567);
    CHECK_EQ(in_pieces(&s, 1000, 1234567), whole);
    /* The place of the old stream, its seed intact and its secret overwritten. */
    memset(&s, 0xa5, 256);
    CHECK_EQ(in_pieces(&s, 1000, 1234567), whole);
    for (size_t half = 0; half < sizeof s; half += 8) {
        CHECK_EQ(in_pieces(&s, 4096, 1234567), whole);
        memset((unsigned char *)&s + half, 0x5a, 8);
        CHECK_EQ(in_pieces(&s, 4096, 1234567), whole);
    }
}
