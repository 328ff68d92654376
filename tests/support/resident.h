/* resident.h - How much memory the process has at the moment, as the system counts it.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SUPPORT_RESIDENT_H_
#define LOAM_TESTS_SUPPORT_RESIDENT_H_

#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/check.h"

static inline uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f != NULL);
    unsigned long long total, resident;
    CHECK_EQ(fscanf(f, "%llu %llu", &total, &resident), 2);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

#endif
