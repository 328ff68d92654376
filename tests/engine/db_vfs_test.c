/* db_vfs_test.c - How often a call of the caller's vfs is made that is interrupted.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: whatever layer asks, the vfs sees one call at most a hundred times in a row, as vfs.h says.
 * Oracle: a vfs before a memory disk that interrupts all calls of one kind and counts, thread by
 * thread, how often the same one comes in a row.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>

#include "arena/atomic.h"
#include "arena/hash.h"
#include "engine/db_vfs.h"
#include "tests/engine/db_support.h"

#define TRIES 100u

/* The disk below, and which calls are interrupted. */
static const loam_vfs *disk;
static _Atomic uint32_t interrupted; /* LOAM_CALL_* */
static _Atomic uint32_t longest;
static pthread_t test;

/* The call that this thread made last, and how often in a row. */
static _Thread_local struct {
    uint32_t kind, times;
    const void *what;
    uint64_t where;
} last;

/* Whether this call is interrupted; it is counted then. */
static bool interrupts(uint32_t kind, const void *what, uint64_t where)
{
    if ((atom_load(&interrupted, relaxed) & kind) == 0) {
        last.kind = 0;
        return false;
    }
    bool same = last.kind == kind && last.what == what && last.where == where;
    last.times = same ? last.times + 1 : 1;
    last.kind = kind;
    last.what = what;
    last.where = where;
    uint32_t most = atom_load(&longest, relaxed);
    while (last.times > most && !atom_cas(&longest, &most, last.times, relaxed, relaxed)) {
    }
    return true;
}

#define MAY_INTERRUPT(kind_, what_, where_, call_, ...)                                            \
    (interrupts(LOAM_CALL_##kind_, what_, where_) ? -EINTR : disk->call_(disk->ctx, __VA_ARGS__))

static int a_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    (void)ctx;
    return MAY_INTERRUPT(OPEN, NULL, hash_key(path, strlen(path)), open, path, flags, f);
}

static int64_t a_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    return MAY_INTERRUPT(READ, f, off, read, f, buf, n, off);
}

static int64_t a_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    return MAY_INTERRUPT(WRITE, f, off, write, f, buf, n, off);
}

static int64_t a_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    (void)ctx;
    return MAY_INTERRUPT(WRITE_DURABLE, f, off, write_durable, f, buf, n, off);
}

static int a_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    (void)ctx;
    return MAY_INTERRUPT(SYNC, f, data_only, sync, f, data_only);
}

static int a_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    (void)ctx;
    return MAY_INTERRUPT(RESERVE, f, off, reserve, f, off, len);
}

static int a_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    (void)ctx;
    if (!pthread_equal(pthread_self(), test)) {
        last.kind = 0; /* the keeper asks anew in each of its rounds, and for nothing else in between */
    }
    return MAY_INTERRUPT(MAP, f, off, map, f, off, len, p);
}

static int a_sync_dir(void *ctx, const char *dir)
{
    (void)ctx;
    return MAY_INTERRUPT(SYNC_DIR, NULL, hash_key(dir, strlen(dir)), sync_dir, dir);
}

static int a_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return MAY_INTERRUPT(RENAME, NULL, hash_key(from, strlen(from)), rename, from, to);
}

static int a_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    return MAY_INTERRUPT(RANDOM, buf, n, random, buf, n);
}

static void use(const char *dir, const loam_vfs *vfs, uint32_t kind_while_open)
{
    loam_options o = small_options(vfs);
    loam_db *db;
    if (loam_open(dir, &o, &db) != LOAM_OK) {
        return; /* it is interrupted */
    }
    atom_store(&interrupted, kind_while_open, relaxed);
    const loam_write_opts durable = {.struct_size = sizeof durable, .flags = LOAM_W_DURABLE};
    for (int i = 0; i < 4; i++) { /* segments of the log are used again */
        last.kind = 0;
        (void)!loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), &durable);
        (void)!loam_flush(db, NULL);
    }
    (void)!loam_get(db, NULL, LOAM_LIT("key"), NULL, 0, NULL, NULL);
    (void)!loam_close(db);
    /* These two read CURRENT more than once on purpose. */
    if (kind_while_open != LOAM_CALL_OPEN) {
        (void)!loam_check(dir, &o, NULL, NULL);
        (void)!loam_repair(dir, &o, NULL, NULL);
    }
}

Test(db_vfs, an_interrupted_call_is_made_a_hundred_times_and_no_more)
{
    static const struct {
        uint32_t kind;
        const char *name;
    } kinds[] = {{LOAM_CALL_OPEN, "open"},     {LOAM_CALL_READ, "read"},
                 {LOAM_CALL_WRITE, "write"},   {LOAM_CALL_WRITE_DURABLE, "write_durable"},
                 {LOAM_CALL_SYNC, "sync"},     {LOAM_CALL_RESERVE, "reserve"},
                 {LOAM_CALL_MAP, "map"},       {LOAM_CALL_SYNC_DIR, "sync_dir"},
                 {LOAM_CALL_RENAME, "rename"}, {LOAM_CALL_RANDOM, "random"}};
    test = pthread_self();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        loam_vfs *memory = memory_disk();
        disk = memory;
        loam_vfs vfs = *memory;
        vfs.open = a_open;
        vfs.read = a_read;
        vfs.write = a_write;
        vfs.write_durable = a_write_durable;
        vfs.sync = a_sync;
        vfs.reserve = a_reserve;
        vfs.map = a_map;
        vfs.sync_dir = a_sync_dir;
        vfs.rename = a_rename;
        vfs.random = a_random;
        atom_store(&longest, 0, relaxed);
        atom_store(&interrupted, 0, relaxed);
        use("/db", &vfs, kinds[i].kind); /* open, and then interrupted */
        atom_store(&interrupted, kinds[i].kind, relaxed);
        use("/db", &vfs, kinds[i].kind);  /* from the start, of an old one */
        use("/new", &vfs, kinds[i].kind); /* and of a new one */
        fprintf(stderr, "%s: %u times\n", kinds[i].name, atom_load(&longest, relaxed));
        CHECK_EQ(atom_load(&longest, relaxed), TRIES);
        loam_vfs_free(memory);
    }
}

static int every_other_size(void *ctx, loam_file *f, uint64_t *size)
{
    static unsigned turn;
    (void)ctx;
    return turn++ % 2 == 0 ? -EINTR : disk->size(disk->ctx, f, size);
}

/* What a file weighs in the budget is asked for again, too. */
Test(db_vfs, a_file_counts_though_the_question_for_its_size_is_interrupted)
{
    enum { BUDGET = 1 << 20, BYTES = 40960 };
    const char *path = "/db/000000000001.sst";
    loam_vfs *memory = memory_disk();
    disk = memory;
    loam_vfs vfs = *memory;
    vfs.size = every_other_size;
    loam_file *f;
    CHECK_EQ(vfs.mkdir(vfs.ctx, "/db"), 0);
    CHECK_EQ(vfs.open(vfs.ctx, path, LOAM_VFS_WRITE | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(vfs.truncate(vfs.ctx, f, BYTES), 0);
    CHECK_EQ(vfs.close(vfs.ctx, f), 0);
    struct db_vfs v;
    const struct db_vfs_options o = {
        .inner = &vfs, .alloc = alloc_global(), .disk_budget = BUDGET};
    db_vfs_init(&v, &o, "/db");
    CHECK_EQ(db_vfs_count(&v), 0);
    CHECK_EQ(disk_account_left(&v.account), BUDGET - BYTES);
    CHECK_EQ(v.vfs.open(v.vfs.ctx, path, LOAM_VFS_WRITE, &f), 0);
    CHECK_EQ(v.vfs.truncate(v.vfs.ctx, f, BYTES / 2), 0);
    CHECK_EQ(disk_account_left(&v.account), BUDGET - BYTES / 2);
    CHECK_EQ(v.vfs.close(v.vfs.ctx, f), 0);
    db_vfs_destroy(&v);
    loam_vfs_free(memory);
}
