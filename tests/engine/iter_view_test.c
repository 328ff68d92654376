/* iter_view_test.c - Walks under which the view changes in the middle of a move.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A move compares the view's number first and builds new sources later. Between the two it may have to
 * enlarge the iterator's key, which calls the allocator of the options: there another thread flushes
 * and is waited for, so that the change always falls into the same place. Oracle: a snapshot shows what
 * it showed before.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/engine/db_support.h"

enum { SHORT_KEYS = 8, LONG_KEY = 3000, BLOCK = 4096 }; /* a block holds one long key, not two */

TestSuite(iter_view);

/* An allocator that has another thread change the view at one request of a size. */
struct changer {
    loam_db *db;
    size_t at;       /* the request's smallest size; 0: not armed */
    int changes;     /* how often it happened */
    loam_snap *gone; /* released before the change; NULL: none */
    bool drops;      /* the keyspace "dropped" instead of the change */
};

static void *change_view(void *arg)
{
    struct changer *c = arg;
    c->changes++;
    if (c->drops) {
        GOES(loam_ks_drop(c->db, "dropped"));
        return NULL;
    }
    loam_snap_release(c->gone);
    put_text(c->db, NULL, "other", "value");
    GOES(loam_flush(c->db, NULL));
    return NULL;
}

static void *changing_alloc(void *ctx, size_t align, size_t size)
{
    struct changer *c = ctx;
    if (c->at != 0 && size >= c->at) {
        c->at = 0; /* the other thread's own requests change nothing */
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, change_view, c), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
    }
    void *p = NULL;
    return posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) == 0 ? p : NULL;
}

static void changing_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    free(p);
}

/* A block that ends with the newer of two versions of a long key, the older one in the next block; short
 * keys before it, so that a walk moves along the block without copying keys. */
static loam_snap *two_versions(loam_db *db, loam_slice long_key)
{
    loam_snap *snap;
    for (int i = 0; i < SHORT_KEYS; i++) {
        char key[16];
        snprintf(key, sizeof key, "a%d", i);
        put_text(db, NULL, key, "short");
    }
    GOES(loam_put(db, NULL, long_key, text("old"), NULL));
    put_text(db, NULL, "z", "last");
    GOES(loam_snap_take(db, &snap));
    GOES(loam_put(db, NULL, long_key, text("new"), NULL));
    GOES(loam_flush(db, NULL));
    return snap;
}

/* A database whose allocator changes the view. */
static loam_db *open_changing(struct changer *c, const loam_vfs *disk)
{
    const loam_allocator allocator = {.struct_size = sizeof allocator,
                                      .alloc = changing_alloc,
                                      .free = changing_free,
                                      .ctx = c};
    const loam_ks_options blocks = {.struct_size = sizeof blocks, .block_bytes = BLOCK};
    loam_options o = small_options(disk);
    o.allocator = &allocator;
    o.default_ks = &blocks;
    GOES(loam_open("/db", &o, &c->db));
    GOES(loam_pause(c->db, 1)); /* nothing but the test changes the view */
    return c->db;
}

Test(iter_view, a_key_whose_newer_version_ends_the_block_is_shown_when_the_view_changes_there)
{
    static char bytes[LONG_KEY];
    memset(bytes, 'b', sizeof bytes);
    const loam_slice long_key = loam_bytes(bytes, sizeof bytes);
    struct changer changer = {0};
    loam_vfs *disk = memory_disk();
    (void)open_changing(&changer, disk);
    loam_snap *snap = two_versions(changer.db, long_key);

    const loam_iter_opts walk = {.struct_size = sizeof walk, .snap = snap};
    loam_iter *it;
    GOES(loam_iter_open(changer.db, NULL, &walk, &it));
    GOES(loam_iter_first(it));
    for (int i = 1; i < SHORT_KEYS; i++) {
        GOES(loam_iter_next(it));
    }
    changer.at = LONG_KEY;
    GOES(loam_iter_next(it));
    CHECK_EQ(changer.changes, 1); /* in the middle of that move */
    loam_slice key = loam_iter_key(it), value = loam_iter_value(it);
    CHECK_BYTES(key.data, key.size, long_key.data, long_key.size);
    CHECK_BYTES(value.data, value.size, "old", 3);
    GOES(loam_iter_next(it));
    CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, "z", 1);
    CHECK_EQ(loam_iter_next(it), LOAM_NOTFOUND);

    loam_iter_close(it);
    loam_snap_release(snap);
    GOES(loam_close(changer.db));
    loam_vfs_free(disk);
}

/* The number of a snapshot that goes while an iterator is opened on it is nobody's: what it sees may be
 * gone, too. */
Test(iter_view, an_iterator_gets_no_snapshot_that_is_released_meanwhile)
{
    static char bytes[LONG_KEY];
    memset(bytes, 'a', sizeof bytes);
    struct changer changer = {0};
    loam_vfs *disk = memory_disk();
    loam_db *db = open_changing(&changer, disk);
    put_text(db, NULL, "other", "old");
    GOES(loam_snap_take(db, &changer.gone));

    loam_iter_opts o = {.struct_size = sizeof o, .lower = loam_bytes(bytes, sizeof bytes)};
    o.snap = changer.gone;
    loam_iter *it;
    changer.at = LONG_KEY; /* the copy of the bound */
    FAILS(loam_iter_open(db, NULL, &o, &it), LOAM_E_CLOSED);
    CHECK_EQ(changer.changes, 1);
    CHECK(it == NULL);

    changer.gone = NULL;
    o.snap = NULL;
    GOES(loam_iter_open(db, NULL, &o, &it)); /* and in memory that was given back whole */
    GOES(loam_iter_first(it));
    CHECK_BYTES(loam_iter_value(it).data, loam_iter_value(it).size, "value", 5);
    loam_iter_close(it);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

static int backwards(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return -memcmp(a.data, b.data, a.size < b.size ? a.size : b.size);
}

/* It may still show what was there, or say that the keyspace is gone; but not in the order of another. */
Test(iter_view, a_keyspace_that_is_dropped_during_a_seek_keeps_its_order)
{
    static const loam_comparator order = {
        .struct_size = sizeof order, .name = "backwards", .compare = backwards};
    const loam_ks_options how = {.struct_size = sizeof how, .comparator = &order};
    struct changer changer = {.drops = true};
    loam_vfs *disk = memory_disk();
    loam_db *db = open_changing(&changer, disk);
    loam_ks *ks;
    loam_iter *it;
    GOES(loam_ks_open(db, "dropped", &how, &ks));
    for (const char *k = "1\0" "2\0" "3\0" "4\0" "5\0"; *k != '\0'; k += 2) {
        put_text(db, ks, k, "value");
    }
    GOES(loam_iter_open(db, ks, NULL, &it));
    changer.at = 1; /* the list of its sources */
    int rc = loam_iter_seek(it, text("3"));
    CHECK_EQ(changer.changes, 1);
    if (rc == LOAM_OK) {
        CHECK_BYTES(loam_iter_key(it).data, loam_iter_key(it).size, "3", 1);
    } else {
        CHECK_EQ(rc, LOAM_E_NOENT);
    }
    FAILS(loam_iter_next(it), LOAM_E_NOENT);
    loam_iter_close(it);
    loam_ks_release(ks);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}
