/* clock_test.c - A wall clock that jumps is nobody's concern: only the monotonic clock is asked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program is linked with --wrap=clock_gettime: calls of the library come here, where every other
 * clock is ten years ahead or behind, by turns.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "arena/atomic.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

#define TEN_YEARS 315360000

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

static _Atomic unsigned monotonic, others;

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = __real_clock_gettime(clock, t);
    if (clock == CLOCK_MONOTONIC) {
        atomic_fetch_add(&monotonic, 1);
    } else {
        t->tv_sec += atomic_fetch_add(&others, 1) % 2 == 0 ? TEN_YEARS : -TEN_YEARS;
    }
    return rc;
}

TestSuite(clock);

Test(clock, deadlines_waits_and_background_work_ask_the_monotonic_one)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_syncing(disk, "/db");
    loam_write_opts w = {.struct_size = sizeof w, .deadline_us = 10000000};
    for (unsigned i = 0; i < 4000; i++) {
        char key[16], value[400] = {0};
        snprintf(key, sizeof key, "%u", i);
        int rc = loam_put(db, NULL, text(key), loam_bytes(value, sizeof value), &w);
        CHECK(rc == LOAM_OK);
    }
    uint64_t start = clock_micros();
    CHECK_EQ(loam_wait_durable(db, UINT64_MAX >> 8, 20000), LOAM_STOPPED);
    uint64_t waited = clock_micros() - start;
    CHECK(waited >= 20000 && waited < 60000000); /* neither at once nor for ten years */
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 60000000));
    GOES(loam_wait_idle(db, 60000000));
    GOES(loam_close(db));
    CHECK_EQ(others, 0);
    CHECK(monotonic > 100);
    loam_vfs_free(disk);
}
