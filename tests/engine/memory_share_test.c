/* memory_share_test.c - Indexes that need more than their share get it from the memtables.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/epoch.h"
#include "arena/random.h"
#include "engine/db.h"
#include "engine/handles.h"
#include "tests/engine/db_support.h"

enum { BUDGET = 4 << 20, ENTRIES = 200000, VALUE = 100, GETS = 3000, ALLOWANCE = 4 << 20 };

TestSuite(memory_share);

static void get_some(loam_db *db, struct random *r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char key[24];
        int size = snprintf(key, sizeof key, "key%012u", (unsigned)random_below(r, ENTRIES));
        GOES(loam_get(db, NULL, loam_bytes(key, (size_t)size), NULL, 0, NULL, NULL));
    }
}

static uint64_t table_opens(loam_db *handle)
{
    epoch_enter();
    struct db *db = slotmap_get(&registry_get()->dbs, HANDLE_OF(handle));
    uint64_t n = atom_load(&db->tables.opens, relaxed);
    epoch_exit();
    return n;
}

/* The allowance also catches merges that keep the buffers of every table they have written.
 * Without room for all of them tables were closed and opened, index and filter read anew, on nearly
 * every get. */
Test(memory_share, tables_stay_open_beyond_the_share_of_indexes)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.memory_budget = BUDGET;
    o.default_ks = &plain;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    char key[24], value[VALUE];
    memset(value, 'v', sizeof value);
    for (uint64_t n = 0, i = 0; n < ENTRIES; n++, i = (i + 7919) % ENTRIES) {
        int size = snprintf(key, sizeof key, "key%012u", (unsigned)i);
        GOES(loam_put(db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), NULL));
    }
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, UINT64_MAX));
    struct random r;
    random_init(&r, 1);
    get_some(db, &r, GETS);
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    struct options resolved;
    GOES(options_resolve(&o, &resolved));
    CHECK(s.index_bytes > resolved.limits.table_bytes); /* or the test shows nothing */
    uint64_t before = table_opens(db);
    get_some(db, &r, GETS);
    CHECK(table_opens(db) - before <= s.files);
    CHECK(s.memory_peak <= BUDGET + ALLOWANCE);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
