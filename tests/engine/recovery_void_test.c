/* recovery_void_test.c - A log goes on behind a record that was given up, wherever a replay seals.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(recovery_void);

#define VALUE_BYTES 4000u /* such records are stored, larger ones are written and never void */

static _Atomic bool refusing;

static void *give(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    return atomic_load(&refusing) ? NULL : aligned_alloc(align, (size + align - 1) & ~(align - 1));
}

static void take(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    free(p);
}

static int put_record(loam_db *db, unsigned i)
{
    static const uint8_t value[VALUE_BYTES];
    char key[16];
    int n = snprintf(key, sizeof key, "%08u", i);
    return loam_put(db, NULL, loam_bytes(key, (size_t)n), loam_bytes(value, sizeof value), NULL);
}

static void expect_records(loam_db *db, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char key[16];
        int size = snprintf(key, sizeof key, "%08u", i);
        CHECK(loam_get(db, NULL, loam_bytes(key, (size_t)size), NULL, 0, NULL, NULL) != LOAM_NOTFOUND);
    }
}

/* Records until one finds no memory, and is void; returns how many are not. */
static unsigned write_log(const char *dir)
{
    const loam_allocator allocator = {sizeof allocator, give, take, NULL};
    loam_options o = small_options(NULL);
    o.memory_budget = (uint64_t)4 << 20;
    o.allocator = &allocator;
    loam_db *db;
    GOES(loam_open(dir, &o, &db));
    unsigned n = 0;
    for (; n < 50; n++) {
        GOES(put_record(db, n));
    }
    atomic_store(&refusing, true);
    while (put_record(db, n) == LOAM_OK) {
        n++;
    }
    CHECK_EQ(loam_last_error()->code, LOAM_E_NOMEM);
    atomic_store(&refusing, false);
    GOES(loam_close(db));
    return n;
}

/* One of these budgets makes a memtable that is full with the last of them. Only a mapped log has void ones. */
Test(recovery_void, is_no_hole_in_the_log)
{
    char dir[] = "/tmp/loam-void-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    for (uint64_t budget = (uint64_t)1 << 20; budget <= (uint64_t)5 << 18; budget += VALUE_BYTES * 4) {
        unsigned n = write_log(dir);
        loam_options o = small_options(NULL);
        o.memory_budget = budget;
        loam_db *db;
        GOES(loam_open(dir, &o, &db));
        thread_sleep_micros(20000); /* a memtable that is sealed becomes a table meanwhile */
        GOES(put_record(db, n));
        GOES(loam_close(db));
        GOES(loam_open(dir, &o, &db));
        expect_records(db, n + 1);
        GOES(loam_close(db));
        GOES(loam_destroy(dir, NULL));
    }
}
