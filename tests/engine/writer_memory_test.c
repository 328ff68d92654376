/* writer_memory_test.c - While others are slow, writers take no more memory than is theirs.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "arena/epoch.h"
#include "arena/sync.h"
#include "engine/db.h"
#include "tests/engine/db_support.h"
#include "tests/engine/log_support.h"

enum { VALUE = 20000 }; /* at most */

TestSuite(writer_memory, .timeout = 120);

struct writer {
    loam_vfs *disk;
    loam_db *db;
    struct db *in;
    unsigned puts;
};

static void writer_open(struct writer *w, uint64_t budget)
{
    w->puts = 0;
    w->disk = memory_disk();
    loam_options o = small_options(w->disk);
    o.memory_budget = budget;
    GOES(loam_open("/db", &o, &w->db));
    grow_log(w->db);
    w->in = db_behind(w->db);
}

static void writer_close(struct writer *w)
{
    GOES(loam_close(w->db));
    loam_vfs_free(w->disk);
}

static void writer_put_of(struct writer *w, size_t value_size)
{
    static char value[VALUE];
    char key[24];
    int size = snprintf(key, sizeof key, "key%012u", w->puts++);
    GOES(loam_put(w->db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, value_size), NULL));
}

static void writer_put(struct writer *w)
{
    writer_put_of(w, VALUE);
}

/* Another thread that stands in the way until it is told to go. */
struct other {
    struct db *in;
    pthread_t thread;
    _Atomic bool inside, go;
};

static void other_start(struct other *o, struct db *in, void *(*run)(void *))
{
    o->in = in;
    atom_store(&o->inside, false, relaxed);
    atom_store(&o->go, false, relaxed);
    CHECK_EQ(thread_start(&o->thread, run, o), 0);
    while (!atom_load(&o->inside, acquire)) {
        thread_sleep_micros(100);
    }
}

static void other_stay(struct other *o)
{
    atom_store(&o->inside, true, release);
    while (!atom_load(&o->go, acquire)) {
        thread_sleep_micros(1000);
    }
}

static void other_end(struct other *o)
{
    atom_store(&o->go, true, release);
    thread_join(o->thread);
}

/* ---- the log ------------------------------------------------------------------------------------ */

static void *hold_keeper(void *arg)
{
    struct other *o = arg;
    mutex_lock(&o->in->mu);
    other_stay(o);
    mutex_unlock(&o->in->mu);
    return NULL;
}

/* The keeper, who unmaps windows behind the tail, is busy elsewhere. */
Test(writer_memory, windows_far_behind_the_tail_are_unmapped_by_writers)
{
    struct writer w;
    struct other o;
    writer_open(&w, (uint64_t)64 << 20);
    const struct limits *l = &w.in->options.limits;
    writer_put(&w);
    other_start(&o, w.in, hold_keeper);
    thread_sleep_micros(300000); /* it looks at what that mutex guards ten times a second */
    uint64_t most = 0, first = wal_position(&w.in->wal);
    while (wal_position(&w.in->wal) - first < l->memtable_bytes / 8 * 7) {
        writer_put_of(&w, WAL_WRITE_MIN / 2); /* longer records need no window */
        uint64_t mapped = alloc_used_by(&w.in->alloc, MEM_LOG);
        most = mapped > most ? mapped : most;
    }
    other_end(&o);
    CHECK(most <= l->segment_bytes / 2 + 2 * l->window_bytes);
    writer_close(&w);
}

/* ---- memtables ---------------------------------------------------------------------------------- */

static void *stay_in_a_section(void *arg)
{
    epoch_enter();
    other_stay(arg);
    epoch_exit();
    return NULL;
}

#define BUSY_TRIES 200u /* a millisecond each: pacing lets a write of this size in sooner */

static bool one_is_leaving(struct db *in)
{
    mutex_lock(&in->mu);
    bool leaving = in->memtables.leaving != 0;
    mutex_unlock(&in->mu);
    return leaving;
}

/* Writes until nothing more is let in, with a memtable on its way out. */
static void write_until_busy(struct writer *w)
{
    const loam_write_opts now = {.struct_size = sizeof now, .flags = LOAM_W_NOWAIT};
    static char value[VALUE];
    for (unsigned busy = 0; busy < BUSY_TRIES;) {
        char key[24];
        int size = snprintf(key, sizeof key, "key%012u", w->puts);
        int rc = loam_put(w->db, NULL, loam_bytes(key, (size_t)size), loam_bytes(value, VALUE), &now);
        if (rc == LOAM_OK) {
            w->puts++;
            busy = 0;
        } else {
            CHECK_EQ(rc, LOAM_E_BUSY);
            busy += one_is_leaving(w->in);
            thread_sleep_micros(1000);
        }
    }
}

/* A reader in the midst of its work keeps what it may be looking at: flushed memtables stay in memory as long, and
 * are part of what writers may fill. */
Test(writer_memory, what_readers_hold_of_flushed_memtables_is_counted)
{
    struct writer w;
    struct other o;
    writer_open(&w, (uint64_t)4 << 20);
    const struct limits *l = &w.in->options.limits;
    other_start(&o, w.in, stay_in_a_section);
    write_until_busy(&w);
    CHECK_EQ(memtable_list_in_memory(&w.in->memtables), l->memtables_max);
    CHECK(memory_share_memtables(w.in) <= l->memtable_bytes / 2 * (2 * l->memtables_max + 1));
    other_end(&o);
    writer_put(&w); /* there is room again */
    writer_close(&w);
}
