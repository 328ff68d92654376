/* overwrite_test.c - A disk filled by overwriting what is there makes room by itself, again and again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: how often each key was overwritten. Nobody deletes, compacts or reopens: merges must find what
 * nobody can read any more, however little space they have left to work in.
 */
#include <criterion/criterion.h>
#include <stdio.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/sync.h"
#include "tests/crash/crash_support.h"
#include "tests/crash/oracle_support.h"
#include "tests/support/check.h"

#define RUN_SECONDS 240 /* longer: it hangs */
#define VALUE_BYTES 3000u
#define BUDGET      ((uint64_t)16 << 20)
#define KEYS_MAX    (unsigned)(BUDGET / VALUE_BYTES)

struct overwriter {
    loam_db *db;
    uint64_t random; /* state */
    unsigned keys;
    uint32_t writes[KEYS_MAX]; /* of each key */
    uint64_t refused;
};

static loam_slice key_of(unsigned i)
{
    static char key[16];
    snprintf(key, sizeof key, "key%08u", i);
    return loam_bytes(key, 11);
}

/* Random bytes: they do not compress. */
static loam_slice value_of(unsigned i, uint32_t writes)
{
    static uint64_t value[VALUE_BYTES / 8];
    uint64_t s = ((uint64_t)i << 32) + writes;
    for (unsigned k = 0; k < VALUE_BYTES / 8; k++) {
        value[k] = splitmix64(&s);
    }
    return loam_bytes(value, sizeof value);
}

/* False: it was not let in, `times` times in a row. */
static bool try_key(struct overwriter *w, unsigned i, uint64_t times)
{
    loam_slice value = value_of(i, w->writes[i] + 1);
    for (uint64_t n = 0; n < times; n++) {
        int rc = loam_put(w->db, NULL, key_of(i), value, NULL);
        if (rc != LOAM_E_NOSPACE) {
            crash_must(rc, "put");
            w->writes[i]++;
            return true;
        }
        w->refused++;
        thread_sleep_micros(2000);
    }
    return false;
}

/* Until it is let in. */
static void write_key(struct overwriter *w, unsigned i)
{
    (void)try_key(w, i, UINT64_MAX);
}

static unsigned any_key(struct overwriter *w)
{
    return (unsigned)(splitmix64(&w->random) % w->keys);
}

static void check_all(struct overwriter *w)
{
    for (unsigned i = 0; i < w->keys; i++) {
        loam_pin pin = LOAM_PIN_INIT;
        crash_must(loam_get_pin(w->db, NULL, key_of(i), &pin, NULL), "get");
        loam_slice want = value_of(i, w->writes[i]);
        CHECK_BYTES(pin.value.data, pin.value.size, want.data, want.size);
        loam_unpin(&pin);
    }
}

static uint64_t table_bytes(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    crash_must(loam_get_stats(db, NULL, &s), "stats");
    return s.disk_bytes;
}

/* Until little is left in the tables that nobody can read. Versions that were read go a moment later, and
 * what was full is tried again. */
static void wait_until_trimmed(loam_db *db, uint64_t live)
{
    while (table_bytes(db) > live / 3 * 4) {
        int rc = loam_wait_idle(db, 0);
        CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
        thread_sleep_micros(2000);
    }
}

static void start(struct overwriter *w, loam_vfs **disk, loam_options *o, uint64_t live)
{
    oracle_context("%llu live bytes under a budget of %llu", (unsigned long long)live,
                   (unsigned long long)BUDGET);
    crash_alarm(RUN_SECONDS);
    CHECK_EQ(loam_vfs_memory(disk), LOAM_OK);
    *o = crash_options(*disk);
    o->disk_budget = BUDGET;
    *w = (struct overwriter){.keys = (unsigned)(live / VALUE_BYTES), .random = 1};
    crash_must(loam_open("/db", o, &w->db), "open");
    for (unsigned i = 0; i < w->keys; i++) {
        write_key(w, i);
    }
}

/* Eight times the budget in overwrites of `live` bytes, as fast as they go. */
static void overwrite(uint64_t live)
{
    static struct overwriter w;
    loam_vfs *disk;
    loam_options o;
    start(&w, &disk, &o, live);
    for (uint64_t written = 0; written < 8 * BUDGET; written += VALUE_BYTES) {
        write_key(&w, any_key(&w));
    }
    check_all(&w);
    wait_until_trimmed(w.db, live);
    fprintf(stderr, "overwrite, %u keys of %u bytes: refused %llu times\n", w.keys, VALUE_BYTES,
            (unsigned long long)w.refused);
    int rc = loam_close(w.db);
    CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
    crash_must(loam_open("/db", &o, &w.db), "open again");
    check_all(&w);
    crash_must(loam_close(w.db), "close");
    loam_vfs_free(disk);
    crash_alarm(0);
}

Test(overwrite, of_a_third_of_the_budget_goes_on_for_ever)
{
    overwrite(BUDGET / 3);
}

Test(overwrite, of_half_of_the_budget_goes_on_for_ever)
{
    overwrite(BUDGET / 2);
}

/* What fills the disk is what the snapshot alone can read: merges have kept it, trims had to leave it. */
Test(overwrite, of_what_a_snapshot_reads_goes_on_when_it_is_released)
{
    static struct overwriter w;
    loam_vfs *disk;
    loam_options o;
    loam_snap *s;
    start(&w, &disk, &o, BUDGET / 5 * 3);
    crash_must(loam_snap_take(w.db, &s), "snapshot");
    while (try_key(&w, any_key(&w), 300)) {
    }
    loam_snap_release(s);
    crash_alarm(LOAM_ASAN ? RUN_SECONDS : RUN_SECONDS / 4);
    for (uint64_t written = 0; written < 2 * BUDGET; written += VALUE_BYTES) {
        write_key(&w, any_key(&w));
    }
    check_all(&w);
    int rc = loam_close(w.db);
    CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
    loam_vfs_free(disk);
    crash_alarm(0);
}
