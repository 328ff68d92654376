/* api_contract_test.c - What loam.h says in passing: of errors among others, old handles, odd moments.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the comments of loam.h.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/epoch.h"
#include "tests/engine/db_support.h"

static loam_vfs *disk;
static loam_db *db;

static void set_up(void)
{
    disk = memory_disk();
    db = open_small(disk, "/db");
}

static void tear_down(void)
{
    GOES(loam_close(db));
    loam_vfs_free(disk);
    epoch_synchronize(); /* what released handles left is freed before leaks are counted */
}

TestSuite(api_contract, .init = set_up, .fini = tear_down);

/* ---- reads -------------------------------------------------------------------------------------- */

/* Values of which three are all that pins may hold under a budget of 1 MiB. */
enum { HELD = 3, HELD_BYTES = 250 << 10 };

static void hold_all(loam_pin pins[HELD])
{
    static uint8_t value[HELD_BYTES];
    GOES(loam_put(db, NULL, text("large"), loam_bytes(value, sizeof value), NULL));
    for (int i = 0; i < HELD; i++) {
        pins[i] = (loam_pin)LOAM_PIN_INIT;
        GOES(loam_get_pin(db, NULL, text("large"), &pins[i], NULL));
    }
}

static void let_go(loam_pin pins[HELD])
{
    for (int i = 0; i < HELD; i++) {
        loam_unpin(&pins[i]);
    }
}

Test(api_contract, the_worst_error_of_many_gets_is_the_last_error)
{
    loam_pin held[HELD];
    hold_all(held);
    const loam_slice keys[] = {text("none"), text("large"), loam_bytes(NULL, 1), text("none")};
    loam_pin pins[] = {LOAM_PIN_INIT, LOAM_PIN_INIT, LOAM_PIN_INIT, LOAM_PIN_INIT};
    int rcs[4];
    loam_error e = {0};
    const loam_read_opts r = {.struct_size = sizeof r, .err = &e};
    FAILS(loam_get_many(db, NULL, keys, 4, pins, rcs, &r), LOAM_E_BUDGET);
    CHECK_EQ(e.code, LOAM_E_BUDGET);
    CHECK_EQ(rcs[1], LOAM_E_BUDGET);
    CHECK_EQ(rcs[2], LOAM_E_INVAL);
    CHECK_EQ(rcs[3], LOAM_NOTFOUND);
    let_go(held);
}

Test(api_contract, a_pin_that_is_refused_tells_no_sequence_number)
{
    loam_pin held[HELD], pin = LOAM_PIN_INIT;
    hold_all(held);
    uint64_t seq = 77;
    const loam_read_opts r = {.struct_size = sizeof r, .seq = &seq};
    FAILS(loam_get_pin(db, NULL, text("large"), &pin, &r), LOAM_E_BUDGET);
    CHECK_EQ(seq, 77);
    let_go(held);
    GOES(loam_get_pin(db, NULL, text("large"), &pin, &r));
    CHECK(seq != 77);
    loam_unpin(&pin);
}

/* ---- options of an older layout ----------------------------------------------------------------- */

/* No such caller is served, but nothing beyond its struct is believed either. */
Test(api_contract, an_error_is_not_written_where_the_struct_does_not_reach)
{
    loam_error e = {0};
    const loam_write_opts w = {.struct_size = offsetof(loam_write_opts, err), .err = &e};
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w), LOAM_E_INVAL);
    FAILS(loam_delete(db, NULL, text("k"), &w), LOAM_E_INVAL);
    FAILS(loam_write(db, NULL, &w), LOAM_E_INVAL);
    const loam_read_opts r = {.struct_size = offsetof(loam_read_opts, err), .err = &e};
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r), LOAM_E_INVAL);
    FAILS(loam_get_pin(db, NULL, text("k"), NULL, &r), LOAM_E_INVAL);
    FAILS(loam_get_many(db, NULL, NULL, 0, NULL, NULL, &r), LOAM_E_INVAL);
    const loam_iter_opts i = {.struct_size = offsetof(loam_iter_opts, err), .err = &e};
    loam_iter *it;
    FAILS(loam_iter_open(db, NULL, &i, &it), LOAM_E_INVAL);
    CHECK_EQ(e.code, LOAM_OK);
}

/* ---- batches ------------------------------------------------------------------------------------ */

Test(api_contract, rewinding_forgets_the_database_of_what_it_drops)
{
    loam_db *other = open_small(disk, "/other");
    loam_ks *theirs, *ours;
    GOES(loam_ks_open(other, "s", NULL, &theirs));
    GOES(loam_ks_open(db, "s", NULL, &ours));
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, NULL, text("a"), text("1"))); /* of whichever database it is written to */
    size_t mark = loam_batch_mark(b);
    GOES(loam_batch_put(b, theirs, text("b"), text("2")));
    FAILS(loam_write(db, b, NULL), LOAM_E_INVAL);
    size_t named = loam_batch_mark(b);
    GOES(loam_batch_put(b, NULL, text("c"), text("3")));
    GOES(loam_batch_rewind(b, named));
    FAILS(loam_write(db, b, NULL), LOAM_E_INVAL); /* its keyspace is still there */
    GOES(loam_batch_rewind(b, mark));
    GOES(loam_write(db, b, NULL));
    expect_text(db, NULL, "a", "1");
    GOES(loam_batch_put(b, ours, text("b"), text("2")));
    GOES(loam_write(db, b, NULL));
    expect_text(db, ours, "b", "2");
    FAILS(loam_write(other, b, NULL), LOAM_E_INVAL);
    loam_batch_free(b);
    loam_ks_release(theirs);
    loam_ks_release(ours);
    GOES(loam_close(other));
}

/* ---- old handles -------------------------------------------------------------------------------- */

/* Calls on the database `with` that are given handles of another one. */
static void stale_give(loam_db *with, loam_ks *ks, loam_snap *snap, loam_batch *b, int expected)
{
    loam_iter *it;
    loam_stats s = {.struct_size = sizeof s};
    const loam_read_opts r = {.struct_size = sizeof r, .snap = snap};
    const loam_iter_opts i = {.struct_size = sizeof i, .snap = snap};
    FAILS(loam_put(with, ks, text("k"), text("v"), NULL), expected);
    FAILS(loam_get(with, ks, text("k"), NULL, 0, NULL, NULL), expected);
    FAILS(loam_iter_open(with, ks, NULL, &it), expected);
    FAILS(loam_flush(with, ks), expected);
    FAILS(loam_get_stats(with, ks, &s), expected);
    FAILS(loam_get(with, NULL, text("k"), NULL, 0, NULL, &r), expected);
    FAILS(loam_iter_open(with, NULL, &i, &it), expected);
    FAILS(loam_write(with, b, NULL), expected);
    GOES(loam_iter_open(with, NULL, NULL, &it));
    FAILS(loam_iter_refresh(it, snap), expected);
    loam_iter_close(it);
}

Test(api_contract, handles_of_a_closed_database_say_so_to_another_one)
{
    loam_db *first = open_small(disk, "/other");
    loam_ks *ks;
    loam_snap *snap;
    GOES(loam_ks_open(first, "s", NULL, &ks));
    GOES(loam_snap_take(first, &snap));
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, ks, text("k"), text("v")));
    stale_give(db, ks, snap, b, LOAM_E_INVAL); /* while it is open they are merely another's */
    GOES(loam_close(first));
    stale_give(db, ks, snap, b, LOAM_E_CLOSED);
    loam_db *again = open_small(disk, "/other");
    stale_give(again, ks, snap, b, LOAM_E_CLOSED);
    GOES(loam_close(again));
    loam_batch_free(b);
    loam_snap_release(snap);
    loam_ks_release(ks);
}

/* The sanitizer's allocator is not made whole in a child whose parent has other threads. */
Test(api_contract, handles_of_a_parent_are_misused_with_a_childs_own_database, .disabled = LOAM_ASAN)
{
    loam_ks *ks;
    loam_snap *snap;
    GOES(loam_ks_open(db, "s", NULL, &ks));
    GOES(loam_snap_take(db, &snap));
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, ks, text("k"), text("v")));
    pid_t child = fork();
    if (child == 0) {
        loam_db *own = open_small(memory_disk(), "/db");
        stale_give(own, ks, snap, b, LOAM_E_MISUSE);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    loam_batch_free(b);
    loam_snap_release(snap);
    loam_ks_release(ks);
}

/* ---- iterators ---------------------------------------------------------------------------------- */

static void expect_no_entry(loam_iter *it)
{
    CHECK_EQ(loam_iter_key(it).size, 0);
    CHECK(loam_iter_key(it).data == NULL);
    CHECK(loam_iter_value(it).data == NULL);
    CHECK_EQ(loam_iter_seq(it), 0);
}

Test(api_contract, a_seek_to_a_bad_key_leaves_the_iterator_on_no_entry)
{
    static uint8_t big[LOAM_MAX_KEY + 1];
    put_text(db, NULL, "a", "1");
    put_text(db, NULL, "b", "2");
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    for (int i = 0; i < 4; i++) {
        GOES(loam_iter_first(it));
        loam_slice bad = i % 2 == 0 ? loam_bytes(NULL, 1) : loam_bytes(big, sizeof big);
        FAILS(i < 2 ? loam_iter_seek(it, bad) : loam_iter_seek_le(it, bad),
              i % 2 == 0 ? LOAM_E_INVAL : LOAM_E_TOOBIG);
        expect_no_entry(it);
        CHECK_EQ(loam_iter_next(it), LOAM_NOTFOUND);
    }
    loam_iter_close(it);
}

/* What is lent stays, though the database was closed, until the iterator is to move. */
Test(api_contract, a_move_after_close_leaves_the_iterator_on_no_entry)
{
    loam_db *other = open_small(disk, "/other");
    put_text(other, NULL, "a", "1");
    put_text(other, NULL, "b", "2");
    put_text(other, NULL, "c", "3");
    GOES(loam_flush(other, NULL));
    loam_iter *it[2];
    for (int i = 0; i < 2; i++) {
        GOES(loam_iter_open(other, NULL, NULL, &it[i]));
        GOES(loam_iter_first(it[i]));
        GOES(loam_iter_next(it[i]));
        GOES(loam_iter_next(it[i]));
    }
    GOES(loam_close(other));
    for (int i = 0; i < 2; i++) {
        CHECK_BYTES(loam_iter_key(it[i]).data, loam_iter_key(it[i]).size, "c", 1);
        CHECK_BYTES(loam_iter_value(it[i]).data, loam_iter_value(it[i]).size, "3", 1);
        FAILS(i == 0 ? loam_iter_prev(it[i]) : loam_iter_seek(it[i], text("a")), LOAM_E_CLOSED);
        expect_no_entry(it[i]);
        loam_iter_close(it[i]);
    }
}

struct walker {
    loam_iter *it;
    _Atomic bool stop;
};

static void *walk(void *arg)
{
    struct walker *w = arg;
    while (!atomic_load(&w->stop)) {
        CHECK_EQ(loam_iter_first(w->it), LOAM_OK);
    }
    return NULL;
}

/* The parent's thread may be in a call on it at the fork, and never comes out of it in the child. */
Test(api_contract, a_child_may_close_an_iterator_that_its_parent_moves, .disabled = LOAM_ASAN, .timeout = 60)
{
    put_text(db, NULL, "a", "1");
    struct walker w = {.stop = false};
    GOES(loam_iter_open(db, NULL, NULL, &w.it));
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, walk, &w), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(5);
            loam_iter_close(w.it);
            _exit(0);
        }
        int status;
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        usleep(100);
    }
    atomic_store(&w.stop, true);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    loam_iter_close(w.it);
}

/* ---- durability --------------------------------------------------------------------------------- */

/* Of a flush that has returned, not of some moment after it. */
Test(api_contract, what_a_flush_made_durable_counts_as_durable)
{
    loam_options o = small_options(disk);
    for (o.durability = LOAM_DUR_MEMORY; o.durability <= LOAM_DUR_PROCESS; o.durability++) {
        loam_db *d;
        GOES(loam_open("/other", &o, &d));
        for (int i = 0; i < 200; i++) {
            uint64_t seq = 0;
            const loam_write_opts w = {.struct_size = sizeof w, .seq = &seq};
            GOES(loam_put(d, NULL, text("k"), text("v"), &w));
            GOES(loam_flush(d, NULL));
            GOES(loam_wait_durable(d, seq, 0));
            CHECK(loam_durable_seq(d) >= seq);
        }
        GOES(loam_close(d));
    }
}

/* ---- full disks, numbers ------------------------------------------------------------------------ */

Test(api_contract, writes_that_wait_for_the_reserve_may_be_tried_again)
{
    loam_vfs *small = memory_disk(), *full;
    loam_fault_plan plan = {.struct_size = sizeof plan, .space = 3u << 20};
    CHECK_EQ(loam_vfs_fault(small, &plan, &full), LOAM_OK);
    loam_options o = small_options(full);
    o.disk_reserve = 8u << 20; /* more than there is: kept as it is, and waited for */
    loam_db *d;
    GOES(loam_open("/db", &o, &d));
    FAILS(loam_put(d, NULL, text("k"), text("v"), NULL), LOAM_E_NOSPACE);
    CHECK_EQ(loam_last_error()->flags, LOAM_ERR_RETRY);
    GOES(loam_delete(d, NULL, text("k"), NULL));
    FAILS(loam_resume(d), LOAM_E_NOSPACE);
    CHECK_EQ(loam_last_error()->flags, LOAM_ERR_RETRY);
    loam_error why;
    CHECK_EQ(loam_health(d, &why), LOAM_REFUSING_WRITES);
    CHECK_EQ(why.flags, LOAM_ERR_RETRY);
    GOES(loam_close(d));
    loam_vfs_free(full);
    loam_vfs_free(small);
}

Test(api_contract, health_tells_nothing_of_an_error_that_is_over)
{
    loam_vfs *inner = memory_disk(), *faulty;
    loam_fault_plan plan = {.struct_size = sizeof plan};
    CHECK_EQ(loam_vfs_fault(inner, &plan, &faulty), LOAM_OK);
    loam_db *d = open_small(faulty, "/db");
    plan.fail_calls = LOAM_CALL_OPEN; /* so that the log cannot go on in another file */
    plan.fail_at = 1;
    plan.fail_repeat = UINT32_MAX;
    CHECK_EQ(loam_vfs_set_plan(faulty, &plan), LOAM_OK);
    static const uint8_t value[4096];
    unsigned n = 0;
    while (loam_put(d, NULL, text("k"), loam_bytes(value, sizeof value), NULL) == LOAM_OK) {
        CHECK(n++ < 10000);
    }
    loam_error why = {0};
    CHECK_EQ(loam_health(d, &why), LOAM_REFUSING_WRITES);
    CHECK(why.code < 0 && why.message[0] != '\0');
    CHECK_EQ(loam_vfs_set_plan(faulty, NULL), LOAM_OK);
    (void)!loam_resume(d);
    put_text(d, NULL, "k", "v");
    const loam_error none = {0};
    CHECK_EQ(loam_health(d, &why), LOAM_HEALTHY);
    CHECK_BYTES(&why, sizeof why, &none, sizeof none);
    GOES(loam_close(d));
    loam_vfs_free(faulty);
    loam_vfs_free(inner);
}

Test(api_contract, the_index_bytes_of_keyspaces_are_those_of_their_tables)
{
    loam_ks *ks, *empty;
    GOES(loam_ks_open(db, "s", NULL, &ks));
    GOES(loam_ks_open(db, "empty", NULL, &empty));
    put_text(db, ks, "key", "value");
    char key[16];
    for (int i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "key%06d", i);
        put_text(db, NULL, key, "a value of some bytes");
    }
    GOES(loam_flush(db, NULL));
    loam_stats all = {.struct_size = sizeof all}, none = all;
    uint64_t ours, rest;
    GOES(loam_get_stats(db, NULL, &all));
    GOES(loam_get_stats(db, empty, &none));
    GOES(loam_property(db, ks, "index_bytes", &ours));
    loam_ks *def;
    GOES(loam_ks_open(db, "default", NULL, &def));
    GOES(loam_property(db, def, "index_bytes", &rest));
    CHECK_EQ(none.index_bytes, 0);
    CHECK(ours != 0 && ours < rest);
    CHECK_EQ(ours + rest, all.index_bytes);
    loam_ks_release(def);
    loam_ks_release(empty);
    loam_ks_release(ks);
}
