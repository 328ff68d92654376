/* api_handles_test.c - Handles after close and fork, and what a database leaves behind.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <dirent.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/epoch.h"
#include "tests/engine/db_support.h"

/* What released handles leave to the epoch is freed before leaks are counted. */
TestSuite(api_handles, .fini = epoch_synchronize);

struct handles {
    loam_db *db;
    loam_ks *ks;
    loam_iter *it;
    loam_snap *snap;
    loam_pin pin;
    loam_batch *batch;
};

static struct handles take_all(const loam_vfs *vfs)
{
    struct handles h = {.db = open_small(vfs, "/db"), .pin = LOAM_PIN_INIT};
    GOES(loam_ks_open(h.db, "space", NULL, &h.ks));
    put_text(h.db, h.ks, "a", "1");
    put_text(h.db, h.ks, "b", "2");
    GOES(loam_iter_open(h.db, h.ks, NULL, &h.it));
    GOES(loam_iter_first(h.it));
    GOES(loam_snap_take(h.db, &h.snap));
    GOES(loam_get_pin(h.db, h.ks, text("a"), &h.pin, NULL));
    h.batch = loam_batch_new(0);
    GOES(loam_batch_put(h.batch, h.ks, text("c"), text("3")));
    return h;
}

static void release_all(struct handles *h)
{
    loam_iter_close(h->it);
    loam_snap_release(h->snap);
    loam_ks_release(h->ks);
    loam_unpin(&h->pin);
    loam_batch_free(h->batch);
}

/* Every call on the handles gives this code. */
static void all_give(struct handles *h, int expected)
{
    loam_ks *ks;
    loam_iter *it;
    loam_snap *snap;
    loam_stats stats = {.struct_size = sizeof stats};
    uint64_t number;
    FAILS(loam_put(h->db, NULL, text("k"), text("v"), NULL), expected);
    FAILS(loam_put(h->db, h->ks, text("k"), text("v"), NULL), expected);
    FAILS(loam_delete(h->db, NULL, text("k"), NULL), expected);
    FAILS(loam_write(h->db, h->batch, NULL), expected);
    FAILS(loam_batch_put(h->batch, h->ks, text("k"), text("v")), expected);
    FAILS(loam_get(h->db, h->ks, text("a"), NULL, 0, NULL, NULL), expected);
    FAILS(loam_get_pin(h->db, NULL, text("a"), &(loam_pin)LOAM_PIN_INIT, NULL), expected);
    FAILS(loam_ks_open(h->db, "other", NULL, &ks), expected);
    FAILS(loam_ks_drop(h->db, "space"), expected);
    FAILS(loam_ks_rename(h->db, "space", "x"), expected);
    FAILS(loam_iter_open(h->db, NULL, NULL, &it), expected);
    FAILS(loam_iter_first(h->it), expected);
    FAILS(loam_iter_last(h->it), expected);
    FAILS(loam_iter_seek(h->it, text("a")), expected);
    FAILS(loam_iter_seek_le(h->it, text("a")), expected);
    FAILS(loam_iter_next(h->it), expected);
    FAILS(loam_iter_prev(h->it), expected);
    FAILS(loam_iter_refresh(h->it, NULL), expected);
    FAILS(loam_snap_take(h->db, &snap), expected);
    FAILS(loam_flush(h->db, NULL), expected);
    FAILS(loam_compact(h->db, NULL, text(""), text(""), 0), expected);
    FAILS(loam_sync(h->db), expected);
    FAILS(loam_wait_durable(h->db, 1, 0), expected);
    FAILS(loam_wait_idle(h->db, 0), expected);
    FAILS(loam_pause(h->db, 1), expected);
    FAILS(loam_health(h->db, NULL), expected);
    FAILS(loam_resume(h->db), expected);
    FAILS(loam_get_stats(h->db, NULL, &stats), expected);
    FAILS(loam_property(h->db, NULL, "puts", &number), expected);
    FAILS(loam_close(h->db), expected);
    CHECK_EQ(loam_durable_seq(h->db), 0);
    CHECK_EQ(loam_snap_seq(h->snap), 0);
    CHECK_EQ(strcmp(loam_path(h->db), ""), 0);
}

Test(api_handles, after_close_every_call_says_closed_and_every_release_is_allowed)
{
    loam_vfs *disk = memory_disk();
    struct handles h = take_all(disk);
    GOES(loam_close(h.db));
    all_give(&h, LOAM_E_CLOSED);
    CHECK_BYTES(h.pin.value.data, h.pin.value.size, "1", 1); /* a pin outlives its database */
    release_all(&h);
    release_all(&h); /* and twice does no harm */
    loam_vfs_free(disk);
}

Test(api_handles, handles_go_in_any_order)
{
    loam_vfs *disk = memory_disk();
    for (unsigned order = 0; order < 32; order++) {
        struct handles h = take_all(disk);
        for (unsigned pass = 0; pass < 2; pass++) { /* before the database, then after it */
            if ((order >> 0 & 1) == pass) {
                loam_iter_close(h.it);
            }
            if ((order >> 1 & 1) == pass) {
                loam_snap_release(h.snap);
            }
            if ((order >> 2 & 1) == pass) {
                loam_ks_release(h.ks);
            }
            if ((order >> 3 & 1) == pass) {
                loam_unpin(&h.pin);
            }
            if ((order >> 4 & 1) == pass) {
                loam_batch_free(h.batch);
            }
            if (pass == 0) {
                GOES(loam_close(h.db));
            }
        }
        FAILS(loam_close(h.db), LOAM_E_CLOSED);
    }
    loam_vfs_free(disk);
}

Test(api_handles, a_handle_of_an_earlier_database_does_not_fit_a_later_one)
{
    loam_vfs *disk = memory_disk();
    struct handles h = take_all(disk);
    GOES(loam_close(h.db));
    for (int i = 0; i < 50; i++) {
        loam_db *db = open_small(disk, "/db");
        FAILS(loam_put(h.db, NULL, text("k"), text("v"), NULL), LOAM_E_CLOSED);
        FAILS(loam_iter_first(h.it), LOAM_E_CLOSED);
        CHECK(loam_put(db, h.ks, text("k"), text("v"), NULL) < 0);
        GOES(loam_close(db));
    }
    release_all(&h);
    loam_vfs_free(disk);
}

Test(api_handles, a_child_process_cannot_use_its_parents_database)
{
    loam_vfs *disk = memory_disk();
    struct handles h = take_all(disk);
    pid_t child = fork();
    if (child == 0) {
        all_give(&h, LOAM_E_MISUSE);
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    expect_text(h.db, h.ks, "a", "1"); /* the parent goes on */
    put_text(h.db, h.ks, "d", "4");
    GOES(loam_iter_next(h.it));
    GOES(loam_close(h.db));
    release_all(&h);
    loam_vfs_free(disk);
}

/* The sanitizer's allocator is not made whole in a child whose parent has other threads. */
Test(api_handles, a_child_process_may_open_a_database_of_its_own, .disabled = LOAM_ASAN)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    put_text(db, NULL, "k", "v");
    pid_t child = fork();
    if (child == 0) {
        loam_vfs *own = memory_disk();
        loam_db *theirs = open_small(own, "/db");
        put_text(theirs, NULL, "k", "v");
        GOES(loam_flush(theirs, NULL));
        expect_text(theirs, NULL, "k", "v");
        GOES(loam_close(theirs));
        _exit(0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(api_handles, dropping_a_keyspace_makes_its_handles_say_so)
{
    loam_vfs *disk = memory_disk();
    struct handles h = take_all(disk);
    loam_ks *second;
    GOES(loam_ks_open(h.db, "space", NULL, &second));
    GOES(loam_ks_drop(h.db, "space"));
    FAILS(loam_get(h.db, h.ks, text("a"), NULL, 0, NULL, NULL), LOAM_E_NOENT);
    FAILS(loam_put(h.db, second, text("a"), text("1"), NULL), LOAM_E_NOENT);
    FAILS(loam_batch_put(h.batch, second, text("a"), text("1")), LOAM_E_NOENT);
    loam_iter *it;
    FAILS(loam_iter_open(h.db, h.ks, NULL, &it), LOAM_E_NOENT);
    int rc = loam_iter_first(h.it); /* whatever it says, it must not fall over */
    rc = rc == LOAM_OK ? loam_iter_next(h.it) : rc;
    CHECK(rc == LOAM_OK || rc == LOAM_NOTFOUND || rc == LOAM_E_NOENT);
    loam_ks_release(second);
    GOES(loam_ks_open(h.db, "space", NULL, &second)); /* the name is free again, and empty */
    expect_none(h.db, second, "a");
    FAILS(loam_get(h.db, h.ks, text("a"), NULL, 0, NULL, NULL), LOAM_E_NOENT);
    loam_ks_release(second);
    release_all(&h);
    GOES(loam_close(h.db));
    loam_vfs_free(disk);
}

/* ---- what is left behind -----------------------------------------------------------------------
 */

static unsigned count_entries(const char *path)
{
    unsigned n = 0;
    DIR *d = opendir(path);
    CHECK(d != NULL);
    while (readdir(d) != NULL) {
        n++;
    }
    closedir(d);
    return n;
}

static void work_a_little(loam_db *db)
{
    static uint8_t value[3000];
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t key = i % 97;
        GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, sizeof value),
                      NULL));
    }
    GOES(loam_flush(db, NULL));
    uint32_t key = 5;
    GOES(loam_get(db, NULL, loam_bytes(&key, sizeof key), NULL, 0, NULL, NULL));
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    int rc;
    for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    loam_iter_close(it);
    GOES(loam_compact(db, NULL, loam_bytes(NULL, 0), loam_bytes(NULL, 0), 0));
}

Test(api_handles, close_leaves_no_thread_and_no_descriptor_behind)
{
    char dir[256];
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/loam-left-XXXXXX", tmp != NULL ? tmp : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
    unsigned threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");
    for (int i = 0; i < 5; i++) {
        loam_options o = small_options(NULL);
        o.threads = 3;
        loam_db *db, *second;
        GOES(loam_open(dir, &o, &db));
        FAILS(loam_open(dir, &o, &second), LOAM_E_LOCKED);
        work_a_little(db);
        CHECK(count_entries("/proc/self/task") > threads);
        GOES(loam_close(db));
        CHECK_EQ(count_entries("/proc/self/task"), threads);
        CHECK_EQ(count_entries("/proc/self/fd"), fds);
    }
    GOES(loam_destroy(dir, NULL));
    CHECK(access(dir, F_OK) != 0);
}

/* An allocator that counts. */
static _Atomic int64_t live_bytes, live_blocks;
static _Atomic uint64_t calls;

static void *counting_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    void *p = NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0) {
        return NULL;
    }
    live_bytes += (int64_t)size;
    live_blocks++;
    calls++;
    return p;
}

static void counting_free(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx, (void)align;
    live_bytes -= (int64_t)size;
    live_blocks--;
    free(p);
}

static const loam_allocator counting = {
    .struct_size = sizeof counting, .alloc = counting_alloc, .free = counting_free};

/* A process without a database that is open for writing has no thread to free what was released. */
Test(api_handles, released_handles_do_not_pile_up_without_background_threads)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    put_text(db, NULL, "k", "v");
    GOES(loam_close(db));
    loam_options o = small_options(disk);
    o.flags = LOAM_OPEN_READONLY;
    GOES(loam_open("/db", &o, &db));
    uint64_t peak = 0;
    for (unsigned i = 0; i < 20000; i++) {
        loam_snap *snap;
        loam_iter *it;
        loam_ks *ks;
        loam_batch *b = loam_batch_new(0);
        CHECK(b != NULL);
        GOES(loam_snap_take(db, &snap));
        GOES(loam_iter_open(db, NULL, NULL, &it));
        GOES(loam_ks_open(db, "default", NULL, &ks));
        loam_ks_release(ks);
        loam_iter_close(it);
        loam_snap_release(snap);
        loam_batch_free(b);
        uint64_t used = alloc_used(alloc_global());
        if (i == 1000) {
            peak = 2 * used;
        }
        CHECK(i <= 1000 || used <= peak);
    }
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(api_handles, all_memory_comes_back_to_the_allocator)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.allocator = &counting;
    loam_db *db;
    for (int i = 0; i < 3; i++) {
        GOES(loam_open("/db", &o, &db));
        CHECK(live_bytes > 0);
        work_a_little(db);
        loam_iter *it;
        loam_pin pin = LOAM_PIN_INIT;
        uint32_t key = 5;
        GOES(loam_iter_open(db, NULL, NULL, &it));
        GOES(loam_iter_first(it));
        GOES(loam_get_pin(db, NULL, loam_bytes(&key, sizeof key), &pin, NULL));
        if (i == 1) { /* released after the close */
            GOES(loam_close(db));
            loam_iter_close(it);
            loam_unpin(&pin);
        } else {
            loam_iter_close(it);
            loam_unpin(&pin);
            GOES(loam_close(db));
        }
        epoch_synchronize();
        CHECK_EQ(live_bytes, 0);
        CHECK_EQ(live_blocks, 0);
    }
    o.flags = LOAM_OPEN_READONLY;
    GOES(loam_open("/db", &o, &db));
    GOES(loam_close(db));
    o.flags = LOAM_OPEN_NEW; /* a failed open gives everything back too */
    FAILS(loam_open("/db", &o, &db), LOAM_E_EXISTS);
    epoch_synchronize();
    CHECK_EQ(live_bytes, 0);
    loam_vfs_free(disk);
}

Test(api_handles, steady_puts_gets_and_steps_allocate_nothing)
{
    loam_vfs *disk = memory_disk();
    loam_options o = small_options(disk);
    o.memory_budget = 64u << 20; /* no flush while it counts */
    loam_db *db;
    GOES(loam_open("/db", &o, &db));
    uint8_t value[100] = {1}, buf[200];
    for (uint32_t i = 0; i < 20000; i++) { /* some in tables */
        GOES(loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), NULL));
    }
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, 0));
    loam_iter *it;
    GOES(loam_iter_open(db, NULL, NULL, &it));
    uint64_t before = 0;
    for (int round = 0; round < 2; round++) { /* the first warms up */
        before = alloc_calls();
        for (uint32_t i = 0; i < 2000; i++) {
            uint32_t key = i * 7;
            size_t n;
            GOES(loam_put(db, NULL, loam_bytes(&key, sizeof key), loam_bytes(value, sizeof value),
                          NULL));
            GOES(loam_get(db, NULL, loam_bytes(&key, sizeof key), buf, sizeof buf, &n, NULL));
            key++;
            CHECK_EQ(loam_get(db, NULL, loam_bytes(&key, sizeof key), buf, sizeof buf, &n, NULL),
                     LOAM_OK);
        }
        GOES(loam_iter_first(it));
        for (uint32_t i = 1; i < 20000; i++) {
            GOES(loam_iter_next(it));
        }
        GOES(loam_iter_last(it));
        for (uint32_t i = 1; i < 20000; i++) {
            GOES(loam_iter_prev(it));
        }
    }
    CHECK_EQ(alloc_calls(), before);
    loam_iter_close(it);
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

Test(api_handles, freed_batches_do_not_pile_up_where_no_database_is_open)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < 20000; i++) {
        loam_batch *b = loam_batch_new(0);
        GOES(loam_batch_put(b, NULL, LOAM_LIT("key"), LOAM_LIT("value")));
        loam_batch_free(b);
        uint64_t now = alloc_used_by(alloc_global(), MEM_BATCH);
        most = now > most ? now : most;
    }
    CHECK(most < (1 << 20));
}
