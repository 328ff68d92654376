/* clock_test.c - A wall clock that jumps is nobody's concern: only the monotonic clock is asked.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The program is linked with --wrap=clock_gettime: calls of the library come here, where every other
 * clock is ten years ahead or behind, by turns; and where the monotonic one can be stopped, so that what
 * happens within some time happens so on any machine, or never.
 */
#include <criterion/criterion.h>
#include <time.h>

#include "arena/atomic.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

#define TEN_YEARS 315360000

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

static _Atomic unsigned monotonic, others;
static _Atomic int64_t stopped_ns; /* what the monotonic clock shows; 0: it goes */

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = __real_clock_gettime(clock, t);
    if (clock == CLOCK_MONOTONIC) {
        atomic_fetch_add(&monotonic, 1);
        int64_t stopped = atomic_load(&stopped_ns);
        if (stopped != 0) {
            *t = (struct timespec){stopped / 1000000000, stopped % 1000000000};
        }
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

/* ---- a full disk ------------------------------------------------------------------------------- */

#define SERVICE_US 100000u /* from space to service, as loam_resume() says */
#define TRIES_MAX  3000   /* of a millisecond or more each: it never comes back */

static int put_number(loam_db *db, unsigned i)
{
    char key[16];
    uint64_t value[128], s = i;
    snprintf(key, sizeof key, "%u", i);
    for (unsigned k = 0; k < 128; k++) {
        value[k] = splitmix64(&s);
    }
    return loam_put(db, NULL, text(key), loam_bytes(value, sizeof value), NULL);
}

/* Puts until so many were refused: a flush may end between. */
static void be_refused(loam_db *db, unsigned *next, unsigned times)
{
    while (times != 0) {
        int rc = put_number(db, *next);
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
        if (rc == LOAM_OK) {
            (*next)++;
        } else {
            times--;
            thread_sleep_micros(1000);
        }
    }
}

/* Time stands still from the first refusal on. It goes on once, so that what waits longest after an
 * error has been tried again in vain, and every wait that there is begins anew. */
static void fill_disk(loam_db *db)
{
    unsigned next = 0;
    be_refused(db, &next, 1);
    atomic_store(&stopped_ns, (int64_t)clock_nanos());
    be_refused(db, &next, 50);
    atomic_fetch_add(&stopped_ns, (int64_t)SERVICE_US * 1000);
    be_refused(db, &next, 50);
}

/* Whatever waits for another try when space appears does so for less than SERVICE_US: the clock is put
 * forward by that, once, and goes no further. A small reserve leaves a flush waiting, a large one only
 * itself. Without merges, which would make room before. */
static void come_back_in_time(bool mapped, uint64_t reserve)
{
    loam_vfs *disk = memory_disk(), *fault;
    loam_fault_plan plan = {.struct_size = sizeof plan, .no_map = !mapped, .space = 3u << 20};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    loam_options o = small_options(fault);
    o.disk_reserve = reserve;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    GOES(loam_pause(db, 1));
    fill_disk(db);
    CHECK_EQ(loam_health(db, NULL), LOAM_REFUSING_WRITES);
    plan.space = 0;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    atomic_fetch_add(&stopped_ns, (int64_t)SERVICE_US * 1000);
    int tries = 0;
    while (put_number(db, 0) != LOAM_OK || loam_health(db, NULL) != LOAM_HEALTHY) {
        CHECK(tries++ < TRIES_MAX);
        thread_sleep_micros(1000);
    }
    atomic_store(&stopped_ns, 0);
    GOES(loam_close(db));
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

Test(clock, shows_less_than_100_ms_between_space_and_service)
{
    for (int i = 0; i < 4; i++) {
        come_back_in_time(i % 2 != 0, i < 2 ? 64 << 10 : 1 << 20);
    }
}
