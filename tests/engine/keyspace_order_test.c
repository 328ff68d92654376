/* keyspace_order_test.c - Keyspaces with a comparator, recovered before anybody has given it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the order of the comparator, and the last value written of each key.
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "tests/engine/db_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/model.h"

static const char *const keys[] = {"Bb", "aa", "bB", "A", "cc", "b", "BB", "a", "B"};
#define KEYS (sizeof keys / sizeof *keys)

static loam_ks *open_space(loam_db *db, enum model_order order)
{
    const loam_ks_options o = {.struct_size = sizeof o, .comparator = model_comparator(order)};
    loam_ks *ks;
    GOES(loam_ks_open(db, "space", &o, &ks));
    return ks;
}

/* Walks both ways and compares with the keys given, NULL at the end. */
static void expect_walk(loam_db *db, loam_ks *ks, const char *const *expected)
{
    loam_iter *it;
    GOES(loam_iter_open(db, ks, NULL, &it));
    size_t n = 0;
    int rc;
    for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it), n++) {
        CHECK(expected[n] != NULL);
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, expected[n],
                    strlen(expected[n]));
    }
    CHECK(expected[n] == NULL);
    for (rc = loam_iter_last(it); rc == LOAM_OK; rc = loam_iter_prev(it)) {
        n--;
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, expected[n],
                    strlen(expected[n]));
    }
    CHECK_EQ(n, 0);
    loam_iter_close(it);
}

/* flush: before the order is given again, what the log brought back is flushed. */
static void reverse_order_survives(bool flush)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    loam_ks *ks = open_space(db, MODEL_REVERSE);
    for (size_t i = 0; i < KEYS; i++) {
        put_text(db, ks, keys[i], keys[i]);
        if (i == 3) {
            GOES(loam_flush(db, NULL)); /* a part was in a table already */
        }
    }
    loam_ks_release(ks);
    for (int round = 0; round < 3; round++) {
        GOES(loam_close(db));
        db = open_small(disk, "/db");
        if (flush && round == 0) {
            GOES(loam_flush(db, NULL));
        }
    }
    ks = open_space(db, MODEL_REVERSE);
    static const char *const expected[] = {"cc", "bB", "b", "aa", "a", "Bb", "BB", "B", "A", NULL};
    expect_walk(db, ks, expected);
    for (size_t i = 0; i < KEYS; i++) {
        expect_text(db, ks, keys[i], keys[i]);
    }
    put_text(db, ks, "bZ", "new");
    GOES(loam_compact(db, ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    expect_text(db, ks, "bZ", "new");
    expect_text(db, ks, "aa", "aa");
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(keyspace_order, entries_of_the_log_come_back_in_the_order_of_the_comparator)
{
    reverse_order_survives(false);
}

Test(keyspace_order, a_flush_before_the_order_is_known_does_no_harm)
{
    reverse_order_survives(true);
}

Test(keyspace_order, keys_the_order_takes_for_equal_are_one_key_again_with_the_newest_value)
{
    for (int flush = 0; flush < 2; flush++) {
        loam_vfs *disk = memory_disk();
        loam_db *db = open_small(disk, "/db");
        loam_ks *ks = open_space(db, MODEL_NOCASE);
        put_text(db, ks, "key", "1");
        put_text(db, ks, "KEY", "2");
        put_text(db, ks, "Key", "3");
        put_text(db, ks, "gone", "1");
        GOES(loam_delete(db, ks, text("GONE"), NULL)); /* hides a key of other bytes */
        loam_ks_release(ks);
        GOES(loam_close(db));
        db = open_small(disk, "/db");
        if (flush != 0) {
            GOES(loam_flush(db, NULL));
        }
        ks = open_space(db, MODEL_NOCASE);
        expect_text(db, ks, "keY", "3");
        expect_none(db, ks, "gone");
        GOES(loam_compact(db, ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
        expect_text(db, ks, "keY", "3");
        expect_none(db, ks, "Gone");
        loam_ks_release(ks);
        GOES(loam_close(db));
        loam_vfs_free(disk);
    }
}

Test(keyspace_order, a_reader_cannot_put_entries_in_order_and_says_so)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    loam_ks *ks = open_space(db, MODEL_REVERSE);
    put_text(db, ks, "a", "1");
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_options o = small_options(disk);
    o.flags = LOAM_OPEN_READONLY;
    GOES(loam_open("/db", &o, &db));
    const loam_ks_options reverse = {.struct_size = sizeof reverse,
                                     .comparator = model_comparator(MODEL_REVERSE)};
    FAILS(loam_ks_open(db, "space", &reverse, &ks), LOAM_E_READONLY);
    GOES(loam_close(db));
    db = open_small(disk, "/db");
    loam_ks_release(open_space(db, MODEL_REVERSE)); /* a writer has done it */
    GOES(loam_close(db));
    GOES(loam_open("/db", &o, &db));
    ks = open_space(db, MODEL_REVERSE);
    expect_text(db, ks, "a", "1");
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

/* Two tables in the order of the comparator; round by round other values. */
static void write_tables(loam_db *db, loam_ks *ks, const char *value)
{
    for (size_t i = 0; i < KEYS; i++) {
        put_text(db, ks, keys[i], value);
        if (i == 3) {
            GOES(loam_flush(db, NULL));
        }
    }
    GOES(loam_flush(db, NULL));
}

Test(keyspace_order, a_reader_holds_tables_whose_order_it_is_given_later)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    loam_ks *ks = open_space(db, MODEL_REVERSE);
    write_tables(db, ks, "old");
    loam_options o = small_options(disk);
    o.flags = LOAM_OPEN_READONLY;
    loam_db *reader;
    GOES(loam_open("/db", &o, &reader));
    /* The writer merges; none of the files that the reader found is left. */
    write_tables(db, ks, "new");
    GOES(loam_compact(db, ks, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
    loam_ks_release(ks);
    GOES(loam_close(db));
    CHECK_EQ(disk_files(disk, "/db", FILE_TABLE), 1);

    const loam_ks_options nocase = {.struct_size = sizeof nocase,
                                    .comparator = model_comparator(MODEL_NOCASE)};
    FAILS(loam_ks_open(reader, "space", &nocase, &ks), LOAM_E_FORMAT);
    FAILS(loam_ks_open(reader, "space", NULL, &ks), LOAM_E_FORMAT);
    ks = open_space(reader, MODEL_REVERSE);
    static const char *const expected[] = {"cc", "bB", "b", "aa", "a", "Bb", "BB", "B", "A", NULL};
    expect_walk(reader, ks, expected);
    for (size_t i = 0; i < KEYS; i++) {
        expect_text(reader, ks, keys[i], "old");
    }
    loam_ks_release(ks);
    GOES(loam_close(reader));
    loam_vfs_free(disk);
}

/* ---- a drop while somebody reads --------------------------------------------------------------- */

/* Byte order, that drops the keyspace in the midst of the next comparison. */
struct dropper {
    loam_db *db;
    bool armed;
};

static void *drop_space(void *arg)
{
    GOES(loam_ks_drop(arg, "space"));
    return NULL;
}

static int compare_and_drop(void *ctx, loam_slice a, loam_slice b)
{
    struct dropper *d = ctx;
    if (d->armed) {
        d->armed = false;
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, drop_space, d->db), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
    int c = memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
    return c != 0 ? c : (a.size > b.size) - (a.size < b.size);
}

/* A table that is opened only then has no keyspace any more: that is no fault of the table's. */
Test(keyspace_order, a_table_opened_behind_a_drop_says_that_the_keyspace_is_gone)
{
    static struct dropper dropper;
    static const loam_comparator cmp = {sizeof cmp, "dropping", compare_and_drop, NULL, &dropper};
    const loam_ks_options o = {.struct_size = sizeof o, .comparator = &cmp};
    loam_vfs *disk = memory_disk();
    loam_ks *ks;
    for (int round = 0; round < 2; round++) { /* the second time the table has not been opened yet */
        dropper.db = open_small(disk, "/db");
        GOES(loam_ks_open(dropper.db, "space", &o, &ks));
        if (round == 0) {
            put_text(dropper.db, ks, "a", "1");
            GOES(loam_flush(dropper.db, NULL));
            loam_ks_release(ks);
            GOES(loam_close(dropper.db));
        }
    }
    dropper.armed = true;
    loam_iter *it;
    GOES(loam_iter_open(dropper.db, ks, NULL, &it));
    FAILS(loam_iter_seek(it, text("a")), LOAM_E_NOENT);
    CHECK(!dropper.armed);
    loam_iter_close(it);
    put_text(dropper.db, NULL, "a", "2"); /* nothing else is the worse for it */
    loam_ks_release(ks);
    GOES(loam_close(dropper.db));
    loam_vfs_free(disk);
}
