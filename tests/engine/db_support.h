/* db_support.h - Short words for tests that open databases.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_DB_SUPPORT_H_
#define LOAM_TESTS_ENGINE_DB_SUPPORT_H_

#include "engine/loam.h"

#include "tests/support/check.h"
#include "tests/support/memory_disk.h"

/* The code of a failing call, which must also be the thread's last error. */
#define FAILS(call, expected)                                                                      \
    do {                                                                                           \
        CHECK_EQ((call), (expected));                                                              \
        CHECK_EQ(loam_last_error()->code, (expected));                                               \
        CHECK(loam_last_error()->message[0] != '\0');                                              \
    } while (0)
#define GOES(call) CHECK_EQ((call), LOAM_OK)

static inline loam_options small_options(const loam_vfs *vfs)
{
    return (loam_options){.struct_size = sizeof(loam_options),
                          .memory_budget = (uint64_t)1 << 20,
                          .threads = 1,
                          .vfs = vfs};
}

static inline loam_db *open_small(const loam_vfs *vfs, const char *dir)
{
    loam_options o = small_options(vfs);
    loam_db *db;
    GOES(loam_open(dir, &o, &db));
    return db;
}

/* One whose log is synced a millisecond after a write, without being asked. */
static inline loam_db *open_syncing(const loam_vfs *vfs, const char *dir)
{
    loam_options o = small_options(vfs);
    loam_db *db;
    o.sync_interval_ms = 1;
    GOES(loam_open(dir, &o, &db));
    return db;
}

static inline loam_slice text(const char *s)
{
    return loam_bytes(s, strlen(s));
}

static inline void put_text(loam_db *db, loam_ks *ks, const char *key, const char *value)
{
    GOES(loam_put(db, ks, text(key), text(value), NULL));
}

/* The value must be there and be this. */
static inline void expect_text(loam_db *db, loam_ks *ks, const char *key, const char *value)
{
    char buf[4096];
    size_t n;
    GOES(loam_get(db, ks, text(key), buf, sizeof buf, &n, NULL));
    CHECK_BYTES(buf, n, value, strlen(value));
}

static inline void expect_none(loam_db *db, loam_ks *ks, const char *key)
{
    CHECK_EQ(loam_get(db, ks, text(key), NULL, 0, NULL, NULL), LOAM_NOTFOUND);
}

/* Keyspaces "space0", "space1" and so on. */
static inline void open_spaces(loam_db *db, loam_ks **ks, int count)
{
    for (int i = 0; i < count; i++) {
        char name[24];
        snprintf(name, sizeof name, "space%d", i);
        GOES(loam_ks_open(db, name, NULL, &ks[i]));
    }
}

/* And the database. */
static inline void close_spaces(loam_db *db, loam_ks **ks, int count)
{
    for (int i = 0; i < count; i++) {
        loam_ks_release(ks[i]);
    }
    GOES(loam_close(db));
}

#endif
