/* seed.h - The seed of a random test, which it tells: LOAM_SEED where that is set.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_SEED_H_
#define LOAM_TESTS_SUPPORT_SEED_H_

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t seed_or(uint64_t otherwise)
{
    const char *given = getenv("LOAM_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : otherwise;
    fprintf(stderr, "LOAM_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* Another one each time. */
static inline uint64_t seed_of_run(void)
{
    return seed_or((uint64_t)time(NULL));
}

#endif
