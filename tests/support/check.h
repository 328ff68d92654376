/* check.h - Checks for tests that run with and without a test framework: print where and why, then abort.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_CHECK_H_
#define LOAM_TESTS_SUPPORT_CHECK_H_

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_FAIL_(...)                                                                           \
    do {                                                                                           \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                            \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        fflush(stderr);                                                                            \
        abort();                                                                                   \
    } while (0)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            CHECK_FAIL_("CHECK(%s) failed", #cond);                                                \
        }                                                                                          \
    } while (0)

/* Integers of any type up to 64 bits. */
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        int64_t check_a_ = (int64_t)(a), check_b_ = (int64_t)(b);                                  \
        if (check_a_ != check_b_) {                                                                \
            CHECK_FAIL_("%s is %" PRId64 ", expected %s = %" PRId64, #a, check_a_, #b, check_b_);  \
        }                                                                                          \
    } while (0)

/* Two byte runs. */
#define CHECK_BYTES(a, an, b, bn)                                                                  \
    do {                                                                                           \
        size_t check_an_ = (an), check_bn_ = (bn);                                                 \
        if (check_an_ != check_bn_ || (check_an_ != 0 && memcmp((a), (b), check_an_) != 0)) {      \
            CHECK_FAIL_("%s (%zu bytes) differs from %s (%zu bytes)", #a, check_an_, #b,           \
                        check_bn_);                                                                \
        }                                                                                          \
    } while (0)

#endif
