/* object_test.c - Objects behind handles: from slabs, charged to their database, whole after a fork.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: counts of the allocator and of the slabs. Two threads keep the slabs changing while the
 * process forks; each child must be able to use them, which an alarm watches. Their memory comes without
 * a lock there: the address sanitizer's malloc is not made whole in a child.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/epoch.h"
#include "arena/slab.h"
#include "engine/object.h"
#include "engine/registry.h"
#include "tests/engine/db_support.h"

TestSuite(object, .fini = epoch_synchronize);

static uint64_t live(enum object_kind k)
{
    struct slab_stats s;
    object_stats(k, &s);
    return s.live;
}

Test(object, snapshots_and_iterators_come_and_go_without_an_allocation)
{
    loam_vfs *disk = memory_disk();
    loam_db *db = open_small(disk, "/db");
    put_text(db, NULL, "a", "1");
    GOES(loam_flush(db, NULL));
    GOES(loam_wait_idle(db, 0));
    put_text(db, NULL, "b", "2");
    uint64_t calls = 0;
    for (int round = 0; round < 3000; round++) {
        if (round == 1000) { /* before, queues and buffers reach their sizes */
            calls = alloc_calls();
        }
        loam_snap *s[4];
        loam_iter *it[4];
        for (int i = 0; i < 4; i++) {
            GOES(loam_snap_take(db, &s[i]));
            GOES(loam_iter_open(db, NULL, NULL, &it[i]));
            GOES(loam_iter_first(it[i]));
        }
        CHECK(live(OBJECT_SNAP) >= 4);
        CHECK(live(OBJECT_ITER) >= 4);
        CHECK(live(OBJECT_SOURCE) >= 8);
        for (int i = 0; i < 4; i++) {
            loam_snap_release(s[i]);
            loam_iter_close(it[i]);
        }
        epoch_poll();
    }
    CHECK_EQ(alloc_calls(), calls);
    GOES(loam_close(db));
    epoch_synchronize();
    CHECK_EQ(live(OBJECT_SNAP), 0);
    CHECK_EQ(live(OBJECT_ITER), 0);
    CHECK_EQ(live(OBJECT_SOURCE), 0);
    CHECK_EQ(live(OBJECT_VIEW), 0);
    loam_vfs_free(disk);
}

static _Alignas(64) unsigned char memory[32 << 20];
static _Atomic size_t memory_used;

static void *memory_get(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    CHECK(align <= 64);
    size_t start = atomic_fetch_add(&memory_used, (size + 63) & ~(size_t)63);
    CHECK(start + size <= sizeof memory);
    return memory + start;
}

static void memory_put(void *ctx, void *p, size_t align, size_t size)
{
    (void)ctx, (void)p, (void)align, (void)size;
}

static atomic_bool stop;

static void *take_and_give(void *arg)
{
    (void)arg;
    void *held[400]; /* more than magazines and depot hold, so that the lock is taken often */
    while (!atomic_load(&stop)) {
        for (int i = 0; i < 400; i++) {
            held[i] = object_take(alloc_global(), OBJECT_SNAP);
            CHECK(held[i] != NULL);
        }
        for (int i = 0; i < 400; i++) {
            object_give(alloc_global(), OBJECT_SNAP, held[i]);
        }
    }
    return NULL;
}

static void use_in_child(void)
{
    alarm(20); /* a lock that nobody will give back ends the child by a signal */
    void *held[300];
    for (int i = 0; i < 300; i++) {
        held[i] = object_take(alloc_global(), OBJECT_SNAP);
        CHECK(held[i] != NULL);
    }
    for (int i = 0; i < 300; i++) {
        object_give(alloc_global(), OBJECT_SNAP, held[i]);
    }
    _exit(0);
}

Test(object, a_child_finds_whole_slabs_whatever_other_threads_did)
{
    alloc_global()->hooks = (loam_allocator){sizeof(loam_allocator), memory_get, memory_put, NULL};
    CHECK(registry_get() != NULL);
    pthread_t t[2];
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&t[i], NULL, take_and_give, NULL), 0);
    }
    for (int i = 0; i < 1500; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            use_in_child();
        }
        int status;
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_join(t[i], NULL), 0);
    }
}
