/* wal_stress.c - Writers, syncers, the keeper, preparations, switches and releases at once: no record lost, moved or mixed.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each record says who wrote it, its number, and the generation the writer was told. A flusher
 * reads each sealed segment when everything in it is published, checks it, and releases it, so that
 * files are recycled under the writers. Oracle: positions join without a gap over all segments;
 * each writer's numbers come complete and in order; each record lies in the segment of its
 * generation; and what wal_sync promised is below wal_durable.
 */
#include <stdlib.h>
#include <unistd.h>

#include "arena/random.h"
#include "tests/support/memory_disk.h"
#include "tests/support/stress.h"
#include "tests/wal/wal_support.h"

#define WRITERS     8u
#define SYNCERS     2u
#define CREW        (WRITERS + SYNCERS + 3u)
#define GENERATIONS (1u << 16)

struct shared {
    struct wal w;
    const loam_vfs *vfs;
    const char *dir;
    uint64_t per_writer;
    struct mutex engine; /* serialises switches */
    _Alignas(CACHE_LINE) _Atomic uint64_t published;
    _Alignas(CACHE_LINE) _Atomic uint32_t writers_left;
    _Atomic uint64_t boundary[GENERATIONS]; /* 0: not known yet */
    uint64_t expected; /* position the next record read must have; flusher only */
    uint64_t seen[WRITERS];
};

static struct shared sh;

static void switch_from(uint32_t generation, uint64_t size)
{
    mutex_lock(&sh.engine);
    if (wal_generation(&sh.w) == generation) {
        uint64_t boundary;
        uint32_t next;
        int rc = wal_switch(&sh.w, size, &boundary, &next);
        if (rc == LOAM_OK) {
            CHECK_EQ(next, generation + 1);
            CHECK(next < GENERATIONS);
            atom_store(&sh.boundary[next], boundary, release);
        } else {
            CHECK_EQ(rc, LOAM_E_BUSY); /* the flusher is behind */
        }
    }
    mutex_unlock(&sh.engine);
}

static void publish(const struct wal_slot *s)
{
    while (atom_load(&sh.published, acquire) != s->position) {
        thread_yield();
    }
    atom_store(&sh.published, s->end, release);
}

/* generation: GENERATIONS where it is not known yet. */
static void fill_record(uint8_t *p, uint64_t size, const struct crew_member *m, uint64_t i,
                        uint64_t generation)
{
    log_fill(p, size, i);
    put_fixed64(p + 8, m->index);
    put_fixed64(p + 16, generation);
}

static void write_record(struct crew_member *m, struct random *r, uint64_t i)
{
    uint64_t kind = random_below(r, 1000);
    uint64_t size = 24 + random_below(r, kind < 4 ? 150000 : kind < 30 ? 9000 : 300);
    struct wal_slot s;
    uint8_t *copied = kind % 2 == 0 ? malloc(size) : NULL;
    if (copied != NULL) {
        fill_record(copied, size, m, i, GENERATIONS);
    }
    for (;;) {
        uint32_t generation = wal_generation(&sh.w);
        int rc = copied != NULL ? wal_begin_copy(&sh.w, loam_bytes(copied, size), &s)
                                : wal_begin(&sh.w, size, &s);
        if (rc == LOAM_OK) {
            break;
        }
        CHECK_EQ(rc, WAL_FULL);
        switch_from(generation, size);
        thread_yield();
    }
    uint64_t before = atom_load(&sh.boundary[s.generation], acquire);
    CHECK(before == 0 || s.position >= before);
    uint64_t after = atom_load(&sh.boundary[s.generation + 1], acquire);
    CHECK(after == 0 || s.end <= after);
    if (copied == NULL) {
        fill_record(s.payload, size, m, i, s.generation);
    }
    CHECK_EQ(wal_end(&sh.w, &s, wal_durable(&sh.w)), LOAM_OK);
    publish(&s);
    free(copied);
    if (kind > 985) {
        CHECK_EQ(wal_sync(&sh.w, s.end), LOAM_OK);
        CHECK(wal_durable(&sh.w) >= s.end);
    } else if (kind > 960) {
        switch_from(s.generation, 0);
    }
}

static void be_writer(struct crew_member *m)
{
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0; i < sh.per_writer; i++) {
        write_record(m, &r, i);
    }
    atom_sub(&sh.writers_left, 1, acq_rel);
    wal_wake_keeper(&sh.w);
}

static bool writing(void)
{
    return atom_load(&sh.writers_left, acquire) != 0;
}

static void be_syncer(void)
{
    while (writing()) {
        uint64_t upto = atom_load(&sh.published, acquire);
        CHECK_EQ(wal_sync(&sh.w, upto), LOAM_OK);
        CHECK(wal_durable(&sh.w) >= upto);
        CHECK(wal_durable(&sh.w) <= wal_position(&sh.w));
        thread_sleep_micros(200);
    }
}

static void be_keeper(void)
{
    while (writing()) {
        uint32_t ticket = wal_work_ticket(&sh.w);
        bool more;
        CHECK_EQ(wal_keep(&sh.w, atom_load(&sh.published, acquire), &more), LOAM_OK);
        if (!more) {
            wal_wait_work(&sh.w, ticket, 2000);
        }
    }
}

static void be_preparer(void)
{
    while (writing()) {
        if (wal_prepare_due(&sh.w)) {
            CHECK_EQ(wal_prepare(&sh.w), LOAM_OK);
        }
        thread_sleep_micros(100);
    }
}

static void read_segment(uint64_t number, uint64_t generation, uint64_t sealed_end)
{
    struct wal_reader r;
    struct wal_record record;
    CHECK_EQ(wal_reader_open(&r, sh.vfs, sh.dir, alloc_global(), number, LOG_DB), LOAM_OK);
    int rc;
    while ((rc = wal_read_next(&r, &record)) == LOAM_OK) {
        const uint8_t *p = record.payload.data;
        uint64_t i = get_fixed64(p), writer = get_fixed64(p + 8);
        CHECK_EQ(record.position, sh.expected);
        sh.expected = record.end;
        CHECK(writer < WRITERS);
        CHECK_EQ(i, sh.seen[writer]);
        sh.seen[writer]++;
        uint64_t told = get_fixed64(p + 16);
        CHECK(told == generation || told == GENERATIONS);
        for (uint64_t k = 24; k < record.payload.size; k++) {
            CHECK(p[k] == (uint8_t)(i * 131 + k * 7 + 1));
        }
    }
    CHECK_EQ(rc, LOAM_NOTFOUND);
    CHECK_EQ(wal_reader_check(&r, sealed_end), LOAM_OK);
    wal_reader_close(&r);
}

/* Flushes sealed segments while writing goes on. Returns the first generation not flushed. */
static uint32_t be_flusher(void)
{
    uint32_t g = 1;
    while (writing()) {
        uint64_t end = atom_load(&sh.boundary[g + 1], acquire);
        if (end == 0 || atom_load(&sh.published, acquire) < end) {
            thread_sleep_micros(100);
            continue;
        }
        read_segment(wal_segment_number(&sh.w, g), g, 0);
        CHECK_EQ(sh.expected, end);
        g++;
        wal_release(&sh.w, g);
        CHECK(wal_durable(&sh.w) >= end);
    }
    return g;
}

static uint32_t first_live;

static void crew(struct crew_member *m)
{
    if (m->index < WRITERS) {
        be_writer(m);
    } else if (m->index < WRITERS + SYNCERS) {
        be_syncer();
    } else if (m->index == WRITERS + SYNCERS) {
        be_keeper();
    } else if (m->index == WRITERS + SYNCERS + 1) {
        be_preparer();
    } else {
        first_live = be_flusher();
    }
}

static void run(const loam_vfs *vfs, const char *dir, uint64_t seed, uint64_t per_writer)
{
    memset(&sh, 0, sizeof sh);
    sh.vfs = vfs;
    sh.dir = dir;
    sh.per_writer = per_writer * stress_scale;
    mutex_init(&sh.engine, RANK_DB);
    struct wal_options o = log_options(vfs, dir);
    o.segment_bytes = 4 * o.window_bytes;
    CHECK_EQ(wal_open(&sh.w, &o), LOAM_OK);
    sh.expected = o.start_position;
    atom_store(&sh.published, o.start_position, relaxed);
    atom_store(&sh.writers_left, WRITERS, relaxed);
    crew_run(CREW, crew, NULL, seed);

    uint32_t last = wal_generation(&sh.w);
    uint64_t numbers[WAL_SLOTS], number, end;
    for (uint32_t g = first_live; g <= last; g++) {
        numbers[g - first_live] = wal_segment_number(&sh.w, g);
    }
    uint64_t position = wal_position(&sh.w);
    CHECK_EQ(wal_close(&sh.w, &number, &end), LOAM_OK);
    for (uint32_t g = first_live; g <= last; g++) {
        read_segment(numbers[g - first_live], g, numbers[g - first_live] == number ? end : 0);
    }
    CHECK_EQ(sh.expected, position);
    for (unsigned i = 0; i < WRITERS; i++) {
        CHECK_EQ(sh.seen[i], sh.per_writer);
    }
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_LOG), 0);
    mutex_destroy(&sh.engine);
    log_remove_all(vfs, dir, numbers[last - first_live]);
}

STRESS(wal, mapped_log_on_the_memory_disk)
{
    loam_vfs *vfs = memory_disk();
    run(vfs, "/", seed, 1200);
    loam_vfs_free(vfs);
}

STRESS(wal, buffered_log_on_the_memory_disk)
{
    loam_vfs *vfs = memory_disk();
    loam_vfs unmapped = *vfs;
    unmapped.map = NULL;
    run(&unmapped, "/", seed, 600);
    loam_vfs_free(vfs);
}

STRESS(wal, mapped_log_on_the_operating_system)
{
    char dir[] = "/tmp/loam-wal-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    run(loam_vfs_os(), dir, seed, 1500);
    CHECK_EQ(rmdir(dir), 0);
}

/* ---- a sync that fails -------------------------------------------------------------------------
 */

static struct {
    const loam_vfs *real;
    _Atomic uint32_t good;     /* calls that still succeed */
    _Atomic uint32_t failures; /* calls that failed */
    _Atomic uint32_t refused;  /* threads that saw the error */
} failing;

static int failing_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    if (atom_load(&failing.good, acquire) == 0) {
        atom_add(&failing.failures, 1, acq_rel);
        return -5; /* EIO */
    }
    atom_sub(&failing.good, 1, acq_rel);
    return failing.real->sync(ctx, f, data_only);
}

static void sync_until_refused(struct crew_member *m)
{
    struct random r;
    random_init(&r, m->seed);
    for (uint64_t i = 0;; i++) {
        struct wal_slot s;
        uint32_t generation = wal_generation(&sh.w);
        int rc = wal_begin(&sh.w, 40, &s);
        if (rc == WAL_FULL) {
            switch_from(generation, 40);
            continue;
        }
        CHECK_EQ(rc, LOAM_OK);
        log_fill(s.payload, 40, i);
        CHECK_EQ(wal_end(&sh.w, &s, wal_durable(&sh.w)), LOAM_OK);
        publish(&s);
        rc = wal_sync(&sh.w, s.end);
        if (rc != LOAM_OK) {
            CHECK_EQ(rc, LOAM_E_IO);
            CHECK((loam_last_error()->flags & LOAM_ERR_STICKY) != 0);
            CHECK(wal_durable(&sh.w) < s.end);
            break;
        }
        CHECK(wal_durable(&sh.w) >= s.end);
    }
    atom_add(&failing.refused, 1, acq_rel);
}

STRESS(wal, a_failed_sync_is_made_once_and_reaches_every_waiter)
{
    for (unsigned round = 0; round < 30; round++) {
        loam_vfs *vfs = memory_disk();
        loam_vfs v = *vfs;
        v.sync = failing_sync;
        failing.real = vfs;
        atom_store(&failing.good, 5 + round, relaxed);
        atom_store(&failing.failures, 0, relaxed);
        atom_store(&failing.refused, 0, relaxed);
        memset(&sh, 0, sizeof sh);
        mutex_init(&sh.engine, RANK_DB);
        struct wal_options o = log_options(&v, "/");
        CHECK_EQ(wal_open(&sh.w, &o), LOAM_OK);
        atom_store(&sh.published, o.start_position, relaxed);
        crew_run(WRITERS, sync_until_refused, NULL, seed + round);
        CHECK_EQ(atom_load(&failing.failures, relaxed), 1);
        CHECK_EQ(atom_load(&failing.refused, relaxed), WRITERS);
        wal_abandon(&sh.w);
        mutex_destroy(&sh.engine);
        loam_vfs_free(vfs);
    }
}
