/* copy_test.c - A copy has every byte, and touches none beside them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <string.h>

#include "arena/copy.h"
#include "tests/support/check.h"

#define MOST (3 * COPY_SHORT_MAX)

TestSuite(copy);

Test(copy, every_size_and_offset)
{
    static uint8_t from[MOST + 64], to[MOST + 64], want[MOST + 64];
    for (size_t i = 0; i < sizeof from; i++) {
        from[i] = (uint8_t)(i * 167 >> 3);
    }
    for (size_t n = 0; n <= MOST; n += n < 600 ? 1 : 37) {
        for (size_t at = 0; at < 17; at += 3) {
            memset(to, 0xee, sizeof to);
            memset(want, 0xee, sizeof want);
            copy_bytes(to + at, from + 16 - at, n);
            for (size_t i = 0; i < n; i++) {
                want[at + i] = from[16 - at + i];
            }
            CHECK_BYTES(to, sizeof to, want, sizeof want);
        }
    }
    copy_bytes(NULL, NULL, 0);
}
