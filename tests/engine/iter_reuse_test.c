/* iter_reuse_test.c - Iterators opened and closed over and over: their slots, their keyspaces, who has them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <pthread.h>

#include "engine/db_iter.h"
#include "tests/engine/db_inside.h"
#include "tests/engine/db_support.h"

static loam_vfs *disk;
static loam_db *db;

static void set_up(void)
{
    disk = memory_disk();
    loam_options o = small_options(disk);
    GOES(loam_open("/db", &o, &db));
    GOES(loam_put(db, NULL, text("a"), text("1"), NULL));
}

static void tear_down(void)
{
    if (db != NULL) {
        GOES(loam_close(db));
    }
    loam_vfs_free(disk);
}

TestSuite(iter_reuse, .init = set_up, .fini = tear_down);

static loam_iter *opened(loam_ks *ks)
{
    loam_iter *it;
    GOES(loam_iter_open(db, ks, NULL, &it));
    return it;
}

static void expect_first(loam_iter *it, const char *key)
{
    GOES(loam_iter_first(it));
    loam_slice k = loam_iter_key(it), e = text(key);
    CHECK_BYTES(k.data, k.size, e.data, e.size);
}

static uint64_t open_now(void)
{
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    return s.iterators;
}

static struct slotmap_census census(void)
{
    struct slotmap_census c;
    slotmap_census(&registry_get()->iters, &c);
    CHECK_EQ(c.occupancy_errors, 0);
    return c;
}

Test(iter_reuse, a_thread_opens_the_iterator_it_closed_under_its_slots_next_handle)
{
    loam_iter *it = opened(NULL);
    uint64_t first = HANDLE_OF(it);
    for (uint64_t i = 1; i < 2000; i++) {
        loam_iter *old = it;
        loam_iter_close(it);
        FAILS(loam_iter_first(old), LOAM_E_CLOSED);
        CHECK(loam_iter_key(old).data == NULL);
        loam_iter_close(old); /* once more: of no effect on who comes next */
        it = opened(NULL);
        CHECK_EQ(HANDLE_OF(it), first + i);
        FAILS(loam_iter_first(old), LOAM_E_CLOSED);
        loam_iter_close(old);
        expect_first(it, "a");
    }
    CHECK_EQ(open_now(), 1);
    loam_iter_close(it);
    CHECK_EQ(open_now(), 0);
}

static void *close_all(void *arg)
{
    loam_iter **it = arg;
    for (; *it != NULL; it++) {
        loam_iter_close(*it);
    }
    loam_iter *own = opened(NULL); /* of those it has closed */
    expect_first(own, "a");
    loam_iter_close(own);
    return NULL;
}

Test(iter_reuse, iterators_are_counted_whoever_closes_them)
{
    for (int round = 0; round < 20; round++) {
        loam_iter *it[41] = {NULL};
        for (int i = 0; i < 40; i++) {
            it[i] = opened(NULL);
            expect_first(it[i], "a");
        }
        CHECK_EQ(open_now(), 40);
        pthread_t t;
        CHECK_EQ(pthread_create(&t, NULL, close_all, it), 0);
        CHECK_EQ(pthread_join(t, NULL), 0);
        CHECK_EQ(open_now(), 0);
    }
    epoch_synchronize();
    CHECK(census().reserved <= ITER_SHELVES * 32);
}

Test(iter_reuse, slots_whose_generations_are_used_up_are_replaced)
{
    slotmap_set_first_generation(&registry_get()->iters, UINT32_MAX - 1);
    for (int i = 0; i < 3000; i++) {
        loam_iter *it = opened(NULL);
        expect_first(it, "a");
        loam_iter_close(it);
        FAILS(loam_iter_first(it), LOAM_E_CLOSED);
    }
    CHECK(slotmap_retired(&registry_get()->iters) > 500);
    CHECK_EQ(open_now(), 0);
}

Test(iter_reuse, slots_are_given_back_with_the_database)
{
    loam_iter *late = opened(NULL);
    for (int i = 0; i < 10; i++) {
        loam_iter *it[3] = {opened(NULL), opened(NULL), opened(NULL)};
        for (int k = 0; k < 3; k++) {
            loam_iter_close(it[k]);
        }
    }
    CHECK_EQ(census().reserved, 3);
    CHECK_EQ(census().live, 1);
    GOES(loam_close(db));
    db = NULL;
    CHECK_EQ(census().reserved, 0);
    loam_iter_close(late); /* of a closed database: kept for nobody */
    epoch_synchronize();
    CHECK_EQ(census().reserved, 0);
    CHECK_EQ(census().live, 0);
}

/* ---- keyspaces ---- */

static const struct keyspace *dead_keyspaces(void)
{
    struct keyspace_table *t = &db_behind(db)->versions.keyspaces;
    for (int i = 0; i < 3; i++) {
        epoch_synchronize();
        keyspace_table_reap(t);
    }
    return t->dead;
}

Test(iter_reuse, iterators_change_from_keyspace_to_keyspace)
{
    loam_ks *ks;
    GOES(loam_ks_open(db, "other", NULL, &ks));
    GOES(loam_put(db, ks, text("b"), text("2"), NULL));
    for (int i = 0; i < 50; i++) {
        loam_iter *it = opened(i % 3 == 0 ? ks : NULL);
        expect_first(it, i % 3 == 0 ? "b" : "a");
        CHECK_EQ(loam_iter_next(it), LOAM_NOTFOUND);
        loam_iter_close(it);
    }
    loam_ks_release(ks);
}

Test(iter_reuse, a_dropped_keyspace_goes_with_the_last_iterator_on_it)
{
    loam_ks *ks;
    GOES(loam_ks_open(db, "other", NULL, &ks));
    loam_iter *it = opened(ks);
    loam_ks_release(ks);
    GOES(loam_ks_drop(db, "other"));
    CHECK(dead_keyspaces() != NULL); /* the iterator's */
    loam_iter_close(it);
    CHECK(dead_keyspaces() == NULL);
}

Test(iter_reuse, a_closed_iterator_leaves_its_keyspace_for_another)
{
    loam_ks *ks;
    GOES(loam_ks_open(db, "other", NULL, &ks));
    loam_iter_close(opened(ks));
    loam_ks_release(ks);
    GOES(loam_ks_drop(db, "other"));
    loam_iter *it = opened(NULL);
    expect_first(it, "a");
    CHECK(dead_keyspaces() == NULL);
    loam_iter_close(it);
    GOES(loam_ks_open(db, "other", NULL, &ks)); /* a new one, in the memory of the old one perhaps */
    it = opened(ks);
    CHECK_EQ(loam_iter_first(it), LOAM_NOTFOUND);
    loam_iter_close(it);
    loam_ks_release(ks);
}

/* More than are kept: those beyond are freed, with all they refer to. */
Test(iter_reuse, iterators_that_are_not_kept_let_go_of_slot_and_keyspace)
{
    enum { MANY = 100 };
    loam_ks *ks;
    static loam_iter *it[MANY];
    GOES(loam_ks_open(db, "other", NULL, &ks));
    for (int i = 0; i < MANY; i++) {
        it[i] = opened(ks);
    }
    for (int i = 0; i < MANY; i++) {
        loam_iter_close(it[i]);
    }
    epoch_synchronize();
    CHECK(census().reserved < MANY);
    loam_ks_release(ks);
    GOES(loam_ks_drop(db, "other"));
    for (int i = 0; i < MANY; i++) { /* on another keyspace, all that were kept */
        it[i] = opened(NULL);
    }
    CHECK(dead_keyspaces() == NULL);
    for (int i = 0; i < MANY; i++) {
        loam_iter_close(it[i]);
    }
}
