/* write_scenarios.c - The order of commits; puts against a memtable switch, a flush, readers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The write path is composed here of the engine's own parts, in the order of engine/write.c,
 * engine/db.c and engine/flush.c: a place in the log (positions only, no files), the memtable of
 * its generation, the commit ring; a switch pushes the next memtable, shows it in a view and moves
 * the tail; a flush waits until the boundary is visible, and takes the sealed memtable out of the
 * view.
 */
#include <string.h>

#include "arena/epoch.h"
#include "arena/hash.h"
#include "arena/slotmap.h"
#include "arena/status.h"
#include "arena/sync.h"
#include "engine/commit.h"
#include "memtable/memtable_list.h"
#include "tests/explore/explore.h"
#include "wal/wal_writer.h"

/* ---- commit ------------------------------------------------------------------------------ */

enum { RECORDS = 6 };

static struct {
    struct commit commit;
    uint64_t applied[RECORDS]; /* of the record at 8 * i */
} c;

static void commit_setup(void)
{
    commit_init(&c.commit, 0);
}

static void publish(uint64_t first, uint64_t count)
{
    for (uint64_t i = first; i < first + count; i++) {
        c.applied[i] = 1;
    }
    commit_publish(&c.commit, 8 * first, 8 * (first + count));
    EXPECT(commit_visible(&c.commit) >= 8 * (first + count));
}

/* Everything below the watermark is there; and it only rises. */
static void look(void)
{
    uint64_t v = commit_visible(&c.commit);
    for (uint64_t i = 0; 8 * i < v; i++) {
        EXPECT_EQ(c.applied[i], 1);
    }
    EXPECT(commit_visible(&c.commit) >= v);
}

static void commit_body(unsigned thread)
{
    if (thread < 3) {
        publish(thread == 0 ? 0 : thread == 1 ? 1 : 3, thread == 1 ? 2 : 1);
    } else {
        look();
    }
}

static void commit_check(void)
{
    EXPECT_EQ(c.commit.visible, 32);
    EXPECT_EQ(c.commit.sleepers, 0);
}

SCENARIO(commit_three, .says = "three records, published in any order", .threads = 3,
         .flags = NO_LAPSE, .setup = commit_setup, .body = commit_body, .check = commit_check,
         .bound = 2)
SCENARIO(commit_reader, .says = "the same with a reader", .threads = 4, .flags = NO_LAPSE,
         .setup = commit_setup, .body = commit_body, .check = commit_check, .bound = 1)

static void commit_laps_body(unsigned thread)
{
    publish(thread, 1);
    publish(thread + 2, 1);
    publish(thread + 4, 1);
}

static void commit_laps_check(void)
{
    EXPECT_EQ(c.commit.visible, 8 * RECORDS);
}

SCENARIO(commit_laps, .says = "records that lap the ring of two words", .threads = 2,
         .flags = NO_LAPSE, .setup = commit_setup, .body = commit_laps_body,
         .check = commit_laps_check, .bound = 3)

/* ---- puts, switches, flushes, reads ------------------------------------------------------ */

enum { CHUNK = 16384, KEYS = 4, KIND = 5 };

struct view {
    uint32_t mem_count;
    struct memtable *mems[4]; /* newest first */
    uint64_t flushed[KEYS];   /* what tables hold: the sequence number of each key */
    struct epoch_node retire;
};

static struct {
    struct chunk_pool pool;
    struct slotmap handles;
    struct memtable_list memtables;
    struct wal wal;
    struct commit commit;
    struct mutex seal_mu, mu;
    struct memtable *spare;
    _Atomic(struct view *) view;
    struct view *fresh[3];
    unsigned views;
    _Atomic uint64_t acked[KEYS]; /* sequence number of the last acknowledged put */
    uint64_t boundary;
} d;

static struct memtable *new_memtable(uint64_t id)
{
    struct memtable *m;
    const struct memtable_options o = {
        .alloc = alloc_global(), .pool = &d.pool, .bytes = 4096, .id = id};
    EXPECT_EQ(memtable_create(&o, &m), LOAM_OK);
    return m;
}

static void free_view(void *arg, void *ptr)
{
    (void)arg;
    explore_free(ptr, sizeof(struct view));
}

/* Under mu, as db_publish_view_locked(). */
static void publish_view(const uint64_t flushed[KEYS])
{
    struct view *v = d.fresh[d.views++];
    for (uint32_t g = d.memtables.end; g-- > d.memtables.oldest;) {
        v->mems[v->mem_count++] = memtable_list_find(&d.memtables, g);
    }
    struct view *old = atom_load(&d.view, relaxed);
    if (flushed != NULL) {
        memcpy(v->flushed, flushed, sizeof v->flushed);
    } else if (old != NULL) {
        memcpy(v->flushed, old->flushed, sizeof v->flushed);
    }
    atom_store(&d.view, v, release);
    if (old != NULL) {
        epoch_retire_node(&old->retire, free_view, NULL, old);
    }
}

static void db_setup(void)
{
    EXPECT_EQ(chunk_pool_init(&d.pool, alloc_global(), CHUNK, 4), LOAM_OK);
    EXPECT_EQ(slotmap_init(&d.handles, alloc_global(), KIND), LOAM_OK);
    const struct wal_options o = {.dir = "",
                                  .alloc = alloc_global(),
                                  .segment_bytes = 1 << 20,
                                  .window_bytes = 1 << 16,
                                  .no_files = true,
                                  .start_position = 8,
                                  .first_number = 1,
                                  .first_generation = 1};
    EXPECT_EQ(wal_open(&d.wal, &o), LOAM_OK);
    memtable_list_init(&d.memtables, &d.handles, wal_generation(&d.wal));
    commit_init(&d.commit, wal_position(&d.wal));
    mutex_init(&d.seal_mu, RANK_SEAL);
    mutex_init(&d.mu, RANK_DB);
    for (unsigned i = 0; i < 3; i++) {
        d.fresh[i] = explore_memory(sizeof(struct view));
    }
    EXPECT_EQ(memtable_list_push(&d.memtables, new_memtable(1), 0), LOAM_OK);
    publish_view(NULL);
    d.spare = new_memtable(2);
}

static int reserve_some(struct memtable *m, unsigned n)
{
    struct memtable_need need = {0};
    for (unsigned i = 0; i < n; i++) {
        memtable_need_add(&need, 0, 16, 16);
    }
    return memtable_reserve(m, &need);
}

/* The writer's records in both memtables. */
static void db_prepare(unsigned thread)
{
    (void)thread;
    EXPECT_EQ(reserve_some(d.spare, 2), LOAM_OK);
    EXPECT_EQ(reserve_some(memtable_list_find(&d.memtables, 1), 2), LOAM_OK);
}

static loam_slice key_of(unsigned key, char *buf)
{
    *buf = (char)('a' + key);
    return loam_bytes(buf, 1);
}

static uint64_t search(struct memtable *m, unsigned key, uint64_t snapshot)
{
    char buf;
    loam_slice k = key_of(key, &buf);
    struct entry e;
    int rc = memtable_get(m, 0, k, hash_key(k.data, k.size), snapshot, &e);
    return rc == LOAM_OK ? tag_seq(e.tag) : 0;
}

static void put(unsigned key)
{
    char buf;
    loam_slice k = key_of(key, &buf);
    struct wal_slot s;
    epoch_enter();
    EXPECT_EQ(wal_begin(&d.wal, 16, &s), LOAM_OK);
    struct memtable *m = memtable_list_find(&d.memtables, s.generation);
    EXPECT(m != NULL);
    EXPECT_EQ(reserve_some(m, 1), LOAM_OK);
    EXPECT_EQ(wal_end(&d.wal, &s, 0), LOAM_OK);
    EXPECT_EQ(memtable_add(m, 0, k, hash_key(k.data, k.size), entry_tag(s.position, ENTRY_PUT),
                           loam_bytes("v", 1)),
              LOAM_OK);
    commit_publish(&d.commit, s.position, s.end);
    epoch_exit();
    uint64_t last = atom_load(&d.acked[key], relaxed);
    while (last < s.position && !atom_cas(&d.acked[key], &last, s.position, release, relaxed)) {
    }
}

static void get(unsigned key)
{
    uint64_t acked = atom_load(&d.acked[key], acquire);
    epoch_enter();
    const struct view *v = atom_load(&d.view, acquire); /* the view first, the number after it */
    uint64_t snapshot = commit_visible(&d.commit) - 1;
    uint64_t found = 0;
    for (uint32_t i = 0; found == 0 && i < v->mem_count; i++) {
        found = search(v->mems[i], key, snapshot);
    }
    found = found != 0 ? found : v->flushed[key];
    epoch_exit();
    EXPECT(found >= acked); /* after a put returns, every later get sees it */
}

static void seal(void)
{
    mutex_lock(&d.seal_mu);
    uint32_t generation = wal_generation(&d.wal), next;
    mutex_lock(&d.mu);
    EXPECT_EQ(memtable_list_push(&d.memtables, d.spare, 0), LOAM_OK);
    publish_view(NULL);
    mutex_unlock(&d.mu);
    EXPECT_EQ(wal_switch(&d.wal, 16, &d.boundary, &next), LOAM_OK);
    mutex_lock(&d.mu);
    memtable_list_seal(&d.memtables, generation, d.boundary);
    mutex_unlock(&d.mu);
    mutex_unlock(&d.seal_mu);
}

/* Generation 1 goes to tables. */
static void flush(void)
{
    commit_wait(&d.commit, d.boundary);
    struct memtable *m = memtable_list_find(&d.memtables, 1);
    uint64_t flushed[KEYS];
    for (unsigned k = 0; k < KEYS; k++) {
        flushed[k] = search(m, k, SEQ_MAX);
        EXPECT(flushed[k] < d.boundary);
    }
    struct memtable_slot gone[MEMTABLE_SLOTS];
    mutex_lock(&d.mu);
    uint32_t n = memtable_list_take_below(&d.memtables, 2, gone);
    publish_view(flushed);
    mutex_unlock(&d.mu);
    EXPECT_EQ(n, 1);
    memtable_list_release(&d.memtables, &gone[0]);
    mutex_lock(&d.mu);
    memtable_list_left(&d.memtables);
    mutex_unlock(&d.mu);
    wal_release(&d.wal, 2);
}

/* Each acknowledged put is in exactly one place, on its side of the boundary. */
static void db_check(void)
{
    const struct view *v = atom_load(&d.view, relaxed);
    EXPECT_EQ(commit_visible(&d.commit), wal_position(&d.wal));
    for (unsigned k = 0; k < KEYS; k++) {
        uint64_t seq = atom_load(&d.acked[k], relaxed), found = 0;
        for (uint32_t i = 0; i < v->mem_count; i++) {
            uint64_t in = search(v->mems[i], k, SEQ_MAX);
            bool newest = v->mems[i] == memtable_list_find(&d.memtables, 2);
            EXPECT(in == 0 || d.boundary == 0 || newest == (in >= d.boundary));
            found = found > in ? found : in;
        }
        found = found > v->flushed[k] ? found : v->flushed[k];
        EXPECT_EQ(found, seq);
    }
}

static void puts_body(unsigned thread)
{
    if (thread < 2) {
        put(0);
        put(1);
    } else {
        get(0);
        get(1);
    }
}

SCENARIO(write_puts, .says = "puts of two threads to the same keys, and gets", .threads = 3,
         .setup = db_setup, .prepare = db_prepare, .body = puts_body, .check = db_check, .bound = 1)

static void seal_body(unsigned thread)
{
    if (thread == 0) {
        put(0);
        put(1);
    } else if (thread == 1) {
        seal();
        put(0);
    } else {
        get(0);
        get(0);
    }
}

SCENARIO(write_seal, .says = "puts and gets over a memtable switch", .threads = 3,
         .setup = db_setup, .prepare = db_prepare, .body = seal_body, .check = db_check, .bound = 2)

static void flush_body(unsigned thread)
{
    if (thread == 0) {
        put(0);
        put(0);
    } else if (thread == 1) {
        seal();
        flush();
    } else {
        get(0);
        get(0);
    }
}

SCENARIO(write_flush, .says = "puts and gets over a switch and a flush", .threads = 3,
         .setup = db_setup, .prepare = db_prepare, .body = flush_body, .check = db_check,
         .bound = 2)
