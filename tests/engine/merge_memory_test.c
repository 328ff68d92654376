/* merge_memory_test.c - A merge of many tables takes no more memory than one of few.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include "engine/db.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

enum { TABLES = 24, ENTRIES = 400, VALUE = 1000, TAKEN_MAX = 3 << 20 };

TestSuite(merge_memory, .timeout = 60);

static struct alloc *alloc_of(loam_db *handle)
{
    return &db_behind(handle)->alloc;
}

/* A level 0 that has fallen behind, each of its tables larger than what is read of it at once. */
Test(merge_memory, many_inputs_share_what_is_read_at_once)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    loam_ks_options plain = {.struct_size = sizeof plain, .compression = LOAM_COMPRESS_NONE};
    o.default_ks = &plain;
    o.memory_budget = (uint64_t)64 << 20;
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    GOES(loam_pause(db, 1));
    static uint8_t value[VALUE];
    for (uint32_t i = 0; i < TABLES * ENTRIES; i++) {
        uint64_t key = i * UINT64_C(0x9e3779b97f4a7c15);
        GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, VALUE), NULL));
        if (i % ENTRIES == ENTRIES - 1) {
            GOES(loam_flush(db, NULL));
        }
    }
    GOES(loam_close(db)); /* or all were in the cache */
    GOES(loam_open("/db", &o, &db));
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    struct alloc *a = alloc_of(db);
    CHECK(alloc_peak(a) - alloc_used(a) <= TAKEN_MAX);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
