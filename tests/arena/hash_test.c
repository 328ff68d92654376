/* hash_test.c - Checksums in pieces equal those in one piece, and leave the processor as they found it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/hash.h"

#include <criterion/criterion.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

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

/* Short pieces and long ones go different ways. */
Test(hash, pieces_of_mixed_sizes_equal_the_whole)
{
    static const size_t pieces[] = {7, 500, 240, 241, 1, 3000, 1024, 64, 0, 255};
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (unsigned char)(i * 137 >> 2);
    }
    for (size_t size = 0; size < 12000; size += size < 3000 ? 1 : 97) {
        for (size_t first = 0; first < sizeof pieces / sizeof *pieces; first++) {
            struct checksum_stream s;
            checksum_begin(&s, size);
            size_t turn = first;
            for (size_t at = 0; at < size; turn++) {
                size_t piece = pieces[turn % (sizeof pieces / sizeof *pieces)];
                piece = size - at < piece ? size - at : piece;
                checksum_add(&s, data + at, piece);
                at += piece;
            }
            CHECK_EQ(checksum_end(&s), checksum64(data, size, size));
        }
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

#if defined(__x86_64__)
#define UPPER_HALVES 0x44u /* of the state components: the upper halves of 16 registers, of 256 and of 512 bits */

/* Whether the processor tells which state components are in use. */
static bool tells_use(void)
{
    unsigned a = 0, b, c = 0, d;
    bool saves = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_OSXSAVE) != 0;
    return saves && __get_cpuid_count(13, 1, &a, &b, &c, &d) != 0 && (a & 4u) != 0;
}

static unsigned in_use(void)
{
    unsigned a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(1));
    return a;
}

/* Where they stay in use, all code of the thread that does not know them runs at half its speed. */
Test(hash, no_upper_half_of_a_vector_register_stays_in_use)
{
    if (!tells_use()) {
        cr_skip_test("the processor does not tell");
    }
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vzeroupper");
    }
    for (size_t size = 1; size < sizeof data; size = size * 2 + 1) {
        struct checksum_stream s;
        (void)checksum64(data, size, 7);
        CHECK_EQ(in_use() & UPPER_HALVES, 0);
        checksum_begin(&s, 7);
        checksum_add(&s, data, size);
        CHECK_EQ(in_use() & UPPER_HALVES, 0);
        (void)checksum_end(&s);
        CHECK_EQ(in_use() & UPPER_HALVES, 0);
    }
}
#endif
