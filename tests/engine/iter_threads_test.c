/* iter_threads_test.c - An iterator goes from thread to thread, and refuses two at once.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a comparator that waits holds a thread inside for as long as the test wants.
 */
#include <criterion/criterion.h>

#include <pthread.h>

#include "arena/atomic.h"
#include "arena/entry.h"
#include "arena/sync.h"
#include "tests/engine/db_support.h"

TestSuite(iter_threads);

static _Atomic bool hold, held;

static int waiting_compare(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    while (atom_load(&hold, acquire)) {
        atom_store(&held, true, release);
        thread_yield();
    }
    return bytes_compare(a, b);
}

static const loam_comparator waiting = {
    .struct_size = sizeof(loam_comparator), .name = "waiting", .compare = waiting_compare};

struct world {
    loam_vfs *disk;
    loam_db *db;
    loam_iter *it;
};

static void begin(struct world *w)
{
    loam_ks_options order = {.struct_size = sizeof order, .comparator = &waiting};
    w->disk = memory_disk();
    loam_options o = small_options(w->disk);
    o.default_ks = &order;
    GOES(loam_open("/db", &o, &w->db));
    put_text(w->db, NULL, "a", "1");
    put_text(w->db, NULL, "b", "2");
    GOES(loam_iter_open(w->db, NULL, NULL, &w->it));
}

static void end(struct world *w)
{
    loam_iter_close(w->it);
    GOES(loam_close(w->db));
    loam_vfs_free(w->disk);
}

static void *seek_b(void *arg)
{
    struct world *w = arg;
    GOES(loam_iter_seek(w->it, text("b")));
    return NULL;
}

static void on_another_thread(void *(*fn)(void *), struct world *w)
{
    pthread_t t;
    CHECK_EQ(pthread_create(&t, NULL, fn, w), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* One thread is inside; the other is refused, and afterwards not. */
static void refuses_the_second(struct world *w)
{
    pthread_t t;
    atom_store(&held, false, relaxed);
    atom_store(&hold, true, release);
    CHECK_EQ(pthread_create(&t, NULL, seek_b, w), 0);
    while (!atom_load(&held, acquire)) {
        thread_yield();
    }
    FAILS(loam_iter_next(w->it), LOAM_E_MISUSE);
    FAILS(loam_iter_seek(w->it, text("a")), LOAM_E_MISUSE);
    atom_store(&hold, false, release);
    CHECK_EQ(pthread_join(t, NULL), 0);
    CHECK_BYTES(loam_iter_key(w->it).data, loam_iter_key(w->it).size, "b", 1);
    GOES(loam_iter_seek(w->it, text("a")));
    GOES(loam_iter_next(w->it));
}

Test(iter_threads, a_second_thread_is_refused_whoever_used_it_before)
{
    struct world w;
    begin(&w);
    refuses_the_second(&w); /* the first call of all is that of the other thread */
    for (int i = 0; i < 10; i++) {
        refuses_the_second(&w); /* this one was the last to use it */
    }
    end(&w);
}

Test(iter_threads, none_is_refused_that_comes_after_the_other)
{
    struct world w;
    begin(&w);
    for (int i = 0; i < 20; i++) {
        on_another_thread(seek_b, &w);
        CHECK_EQ(loam_iter_next(w.it), LOAM_NOTFOUND);
        GOES(loam_iter_first(w.it));
        GOES(loam_iter_next(w.it));
    }
    end(&w);
}
