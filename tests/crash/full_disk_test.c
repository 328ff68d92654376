/* full_disk_test.c - A full disk refuses writes, keeps what it has, and serves again by itself.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena/sync.h"
#include "tests/crash/io_run_support.h"
#include "tests/support/disk_files.h"
#include "tests/support/memory_disk.h"
#include "tests/support/skip.h"

#define RUN_SECONDS 240 /* longer: it hangs. Real files wait for others who sync */

/* Writes until the disk is full; the code of the first write that was refused. */
static int fill(struct oracle_writer *w)
{
    for (int i = 0; i < 900; i++) {
        int rc = oracle_put(w, (unsigned)i % ORACLE_KEYS, i % 16 == 0);
        if (rc < 0) {
            return rc;
        }
        if (i % 8 == 7) {
            oracle_flush(w);
            oracle_write(w, 1, true);
        }
    }
    return LOAM_OK;
}

static uint64_t longest_wait; /* micros from space to service */

/* Whether the disk became full. */
static bool fill_and_free(bool mapped, uint64_t space)
{
    static struct io_shortage s;
    oracle_context("a disk of %llu bytes, %s map", (unsigned long long)space,
                   mapped ? "with" : "no");
    io_shortage_begin(&s, mapped, 10);
    loam_fault_plan plan = s.plan;
    plan.space = space;
    io_shortage_set(&s, &plan);
    int rc = fill(&s.w);
    if (rc < 0 && rc != LOAM_E_NOSPACE) {
        oracle_fail("a full disk gives %d: %s", rc, loam_last_error()->message);
    }
    io_read_live(&s.w);
    struct oracle_seen seen;
    struct oracle_promise p = oracle_promise_low(&s.o, true);
    oracle_promise_high(&s.o, &p);
    crash_must(oracle_read(&s.o, &p, s.w.db, &seen), "reading with a full disk");
    uint64_t took = io_shortage_end(&s);
    longest_wait = took > longest_wait ? took : longest_wait;
    return rc < 0;
}

Test(full_disk, refuses_writes_and_serves_again_by_itself)
{
    unsigned full = 0;
    for (uint64_t space = 400000; space < 1600000; space += 150000) {
        full += fill_and_free(true, space);
        full += fill_and_free(false, space);
    }
    fprintf(
        stderr,
        "full_disk: the disk became full in %u of 16 runs, served again after at most %llu us\n",
        full, (unsigned long long)longest_wait);
    CHECK(full >= 6);
}

/* ---- deletes make room ------------------------------------------------------------------------- */

#define VALUE_BYTES 3000u
#define KEYS_MAX    20000u

/* A small file system: how to fill the rest of it, and how to give that back. */
struct small_disk {
    const char *name;
    const loam_vfs *vfs;
    const char *dir;
    uint64_t bytes;  /* about how many it has, or the budget lets be used */
    uint64_t budget; /* options.disk_budget; 0: the file system's size is what limits */
};

static loam_options options_on(const struct small_disk *d)
{
    loam_options options = crash_options(d->vfs);
    options.disk_budget = d->budget;
    return options;
}

static int must_be_short(const struct small_disk *d, int rc)
{
    const loam_error *e = loam_last_error();
    if (rc != LOAM_E_NOSPACE || (e->sys_errno != 0 && (e->sys_errno == EDQUOT) != (d->budget != 0))) {
        oracle_fail("%s: a full disk gives %d, errno %d: %s", d->name, rc, e->sys_errno, e->message);
    }
    return rc;
}

static loam_slice key_of(uint32_t i)
{
    static _Thread_local char key[16];
    snprintf(key, sizeof key, "key%08u", i);
    return loam_bytes(key, 11);
}

/* Random bytes: they do not compress. */
static loam_slice value_of(uint32_t i)
{
    static _Thread_local uint64_t value[VALUE_BYTES / 8];
    uint64_t s = i;
    for (uint32_t k = 0; k < VALUE_BYTES / 8; k++) {
        value[k] = splitmix64(&s);
    }
    return loam_bytes(value, sizeof value);
}

static int put_key(loam_db *db, uint32_t i)
{
    return loam_put(db, NULL, key_of(i), value_of(i), NULL);
}

static void expect_keys(const struct small_disk *d, loam_db *db, uint32_t n, uint32_t keep)
{
    for (uint32_t i = 0; i < n; i++) {
        loam_pin pin = LOAM_PIN_INIT;
        int rc = loam_get_pin(db, NULL, key_of(i), &pin, NULL);
        if (i % keep == 0) {
            loam_slice want = value_of(i);
            if (rc != LOAM_OK) {
                oracle_fail("%s: key %u of %u gives %d", d->name, i, n, rc);
            }
            CHECK_BYTES(pin.value.data, pin.value.size, want.data, want.size);
        } else if (rc != LOAM_NOTFOUND) {
            oracle_fail("%s: deleted key %u gives %d", d->name, i, rc);
        }
        loam_unpin(&pin);
    }
}

/* Tries until it goes; a full disk may need a flush first. */
#define UNTIL_DONE(call_, what_)                                                                   \
    do {                                                                                           \
        int rc_;                                                                                   \
        for (int try_ = 0; (rc_ = (call_)) == LOAM_E_NOSPACE && try_ < 1000; try_++) {             \
            thread_sleep_micros(5000);                                                             \
        }                                                                                          \
        crash_must(rc_, what_);                                                                    \
    } while (0)

/* Puts until they are refused for good, and not until a merge ends; the number of keys. */
static uint32_t fill_up(const struct small_disk *d, loam_db *db)
{
    uint32_t n = 0;
    for (int full = 0; full < 30 && n < KEYS_MAX;) {
        int rc = put_key(db, n);
        if (rc == LOAM_OK) {
            n++;
            full = 0;
        } else {
            must_be_short(d, rc);
            full++;
            thread_sleep_micros(5000);
        }
    }
    CHECK(n < KEYS_MAX);
    if ((uint64_t)n * VALUE_BYTES < d->bytes / 2) { /* the reserve and the log take less than that */
        oracle_fail("%s: puts are refused after %u keys of %u bytes", d->name, n, VALUE_BYTES);
    }
    return n;
}

static void make_room(const struct small_disk *d)
{
    loam_options options = options_on(d);
    loam_db *db;
    oracle_context("%s", d->name);
    crash_alarm(RUN_SECONDS);
    crash_must(loam_open(d->dir, &options, &db), "open");
    uint32_t n = fill_up(d, db);
    expect_keys(d, db, n, 1);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 8 != 0) { /* the reserve has space for many times as many: none is refused, ever */
            crash_must(loam_delete(db, NULL, key_of(i), NULL), "delete");
        }
    }
    expect_keys(d, db, n, 8);
    const loam_slice all = {NULL, 0};
    UNTIL_DONE(loam_compact(db, NULL, all, all, 0), "compact");
    for (uint32_t i = n; i < n + n / 4; i++) { /* without a resume or a reopen */
        UNTIL_DONE(put_key(db, i), "put");
    }
    expect_keys(d, db, n, 8);
    crash_must(loam_close(db), "close");
    crash_must(loam_open(d->dir, &options, &db), "open again");
    expect_keys(d, db, n, 8);
    crash_must(loam_close(db), "close");
    crash_alarm(0);
    fprintf(stderr, "full_disk, %s: full at %u keys of %u bytes\n", d->name, n, VALUE_BYTES);
}

Test(full_disk, has_a_reserve_for_deletes_and_for_what_frees_space)
{
    for (int mapped = 0; mapped < 2; mapped++) {
        loam_vfs *disk = memory_disk(), *fault;
        const loam_fault_plan plan = {
            .struct_size = sizeof plan, .no_map = !mapped, .space = 6u << 20};
        CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
        make_room(&(struct small_disk){mapped ? "memory disk, mapped log" : "memory disk", fault,
                                       IO_DIR, plan.space, 0});
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
}

/* ---- disk_budget ------------------------------------------------------------------------------- */

struct sum {
    const loam_vfs *vfs;
    const char *dir;
    uint64_t bytes;
    char names[512][40];
    unsigned count;
};

static int note_name(void *ctx, loam_slice name)
{
    struct sum *s = ctx;
    CHECK(s->count < 512 && name.size < 40);
    snprintf(s->names[s->count++], 40, "%.*s", (int)name.size, (const char *)name.data);
    return 0;
}

/* All files of a closed database. */
static uint64_t bytes_in(const loam_vfs *vfs, const char *dir)
{
    struct sum s = {.vfs = vfs, .dir = dir};
    CHECK(vfs->list(vfs->ctx, dir, note_name, &s) >= 0);
    for (unsigned i = 0; i < s.count; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", dir, s.names[i]);
        s.bytes += disk_file_size(vfs, path);
    }
    return s.bytes;
}

/* The disk has just as much space as the budget: whoever is refused was refused by the budget. */
Test(full_disk, is_what_a_disk_budget_makes)
{
    for (int mapped = 0; mapped < 2; mapped++) {
        loam_vfs *disk = memory_disk(), *fault;
        const loam_fault_plan plan = {
            .struct_size = sizeof plan, .no_map = !mapped, .space = 6u << 20};
        CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
        make_room(&(struct small_disk){mapped ? "disk_budget, mapped log" : "disk_budget", fault,
                                       IO_DIR, plan.space, plan.space});
        CHECK(bytes_in(disk, IO_DIR) <= 6u << 20);
        loam_vfs_free(fault);
        loam_vfs_free(disk);
    }
}

Test(full_disk, of_a_disk_budget_on_real_files)
{
    char dir[] = "/tmp/loam-budget-XXXXXX", db_dir[sizeof dir + 8];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(db_dir, sizeof db_dir, "%s/db", dir);
    make_room(&(struct small_disk){"disk_budget, real files", loam_vfs_os(), db_dir, 8u << 20,
                                   8u << 20});
    CHECK(bytes_in(loam_vfs_os(), db_dir) <= 8u << 20);
    CHECK_EQ(loam_destroy(db_dir, NULL), LOAM_OK);
    CHECK_EQ(rmdir(dir), 0);
}

static void put_range(loam_db *db, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        crash_must(put_key(db, i), "put");
    }
}

/* What is there already counts; and what is there can be read and deleted. */
Test(full_disk, is_what_a_budget_below_the_data_makes)
{
    loam_vfs *disk = memory_disk();
    const struct small_disk d = {"disk_budget below the data", disk, IO_DIR, 4u << 20, 4u << 20};
    loam_options roomy = crash_options(disk), tight = options_on(&d);
    loam_db *db;
    oracle_context("%s", d.name);
    crash_alarm(RUN_SECONDS);
    crash_must(loam_open(IO_DIR, &roomy, &db), "open");
    put_range(db, 0, 2000); /* 6 MB */
    crash_must(loam_close(db), "close");
    uint64_t before = bytes_in(disk, IO_DIR);
    CHECK(before > 5u << 20);
    crash_must(loam_open(IO_DIR, &tight, &db), "open with a small budget");
    expect_keys(&d, db, 2000, 1);
    crash_must(loam_delete(db, NULL, key_of(2000), NULL), "delete"); /* there is a log */
    uint32_t n = 2000;
    int rc;
    while ((rc = put_key(db, n)) == LOAM_OK && n < 3000) { /* until the log is full */
        n++;
    }
    must_be_short(&d, rc);
    expect_keys(&d, db, n, 1);
    rc = loam_close(db);
    CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
    crash_must(loam_open(IO_DIR, &roomy, &db), "open without a budget");
    expect_keys(&d, db, n, 1);
    put_range(db, n, n + 100);
    crash_must(loam_flush(db, NULL), "flush");
    expect_keys(&d, db, n + 100, 1);
    crash_must(loam_close(db), "close");
    loam_vfs_free(disk);
    crash_alarm(0);
}

/* Opens with a budget that is spent, and with a log that left a memtable about as full as it may be: the
 * delete has no segment to go on in, but the one made by the open has room. */
static void delete_behind_a_log(const loam_vfs *disk, uint32_t *n, uint32_t logged)
{
    const struct small_disk d = {"a full memtable", disk, IO_DIR, 4u << 20, 4u << 20};
    loam_options roomy = crash_options(disk), tight = options_on(&d);
    loam_db *db;
    oracle_context("%s: %u keys in the log", d.name, logged);
    crash_must(loam_open(IO_DIR, &roomy, &db), "open");
    crash_must(loam_flush(db, NULL), "flush");
    put_range(db, *n, *n + logged);
    *n += logged;
    crash_must(loam_close(db), "close");
    crash_must(loam_open(IO_DIR, &tight, &db), "open with a small budget");
    for (uint32_t i = 0; i < *n; i += 8) { /* the tables' indexes come in: the memtables' limit falls */
        CHECK(loam_get(db, NULL, key_of(i), NULL, 0, NULL, NULL) >= LOAM_OK);
    }
    thread_sleep_micros(50000);
    crash_must(loam_delete(db, NULL, key_of(*n), NULL), "delete");
    int rc = loam_close(db);
    CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
}

Test(full_disk, lets_deletes_go_over_the_limit_of_a_memtable)
{
    loam_vfs *disk = memory_disk();
    loam_options roomy = crash_options(disk);
    loam_db *db;
    uint32_t n = 2000;
    crash_alarm(RUN_SECONDS);
    crash_must(loam_open(IO_DIR, &roomy, &db), "open");
    put_range(db, 0, n);
    crash_must(loam_close(db), "close");
    for (uint32_t logged = 28; logged <= 40; logged++) {
        delete_behind_a_log(disk, &n, logged);
    }
    loam_vfs_free(disk);
    crash_alarm(0);
}

/* ---- disk_reserve ------------------------------------------------------------------------------ */

static uint64_t reserve_of(loam_db *db)
{
    loam_stats s = {.struct_size = sizeof s};
    crash_must(loam_get_stats(db, NULL, &s), "stats");
    return s.disk_reserve;
}

static uint64_t reserve_file(const loam_vfs *disk)
{
    loam_file *f;
    uint64_t size = 0;
    if (disk->open(disk->ctx, IO_DIR "/RESERVE", LOAM_VFS_READ, &f) == 0) {
        CHECK_EQ(disk->size(disk->ctx, f, &size), 0);
        CHECK_EQ(disk->close(disk->ctx, f), 0);
    }
    return size;
}

static void open_with_reserve(const loam_vfs *vfs, uint64_t reserve, loam_db **db)
{
    loam_options o = crash_options(vfs);
    o.disk_reserve = reserve;
    crash_must(loam_open(IO_DIR, &o, db), "open");
}

/* Grown, shrunk, and what is without a wish; an open does not eat at what an earlier one left. */
Test(full_disk, has_the_reserve_that_was_asked_for)
{
    loam_vfs *disk;
    loam_db *db;
    oracle_context("disk_reserve");
    disk = memory_disk();
    const uint64_t wanted[] = {1 << 20, 100000, 3 << 20, 64 << 10};
    for (unsigned i = 0; i < 4; i++) {
        uint64_t whole = (wanted[i] + 4095) / 4096 * 4096;
        open_with_reserve(disk, wanted[i], &db);
        CHECK_EQ(reserve_of(db), whole);
        CHECK_EQ(reserve_file(disk), whole);
        crash_must(loam_close(db), "close");
        CHECK_EQ(reserve_file(disk), whole); /* for an open on a full disk */
    }
    open_with_reserve(disk, 0, &db);
    uint64_t automatic = reserve_of(db);
    CHECK(automatic >= 64 << 10 && automatic == reserve_file(disk));
    crash_must(loam_close(db), "close");
    loam_vfs_free(disk);
}

Test(full_disk, does_not_wear_the_reserve_down_by_opens)
{
    loam_vfs *disk, *fault;
    loam_db *db;
    oracle_context("reserve of a small disk");
    disk = memory_disk();
    const loam_fault_plan plan = {.struct_size = sizeof plan, .space = 4u << 20};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    open_with_reserve(fault, 0, &db);
    uint64_t first = reserve_of(db);
    CHECK(first != 0);
    crash_must(loam_close(db), "close");
    for (int i = 0; i < 20; i++) {
        open_with_reserve(fault, 0, &db);
        CHECK(reserve_of(db) >= first / 2);
        crash_must(loam_close(db), "close");
    }
    loam_vfs_free(fault);
    loam_vfs_free(disk);
}

#define DELETED_KEY_MAX 1000u

/* How many deletes of keys that are not there, which free nothing, a full disk lets in; at most `enough`.
 * The keys are random bytes: they do not compress. */
static uint32_t deletes_let_in(loam_db *db, size_t key_bytes, uint32_t enough)
{
    uint64_t key[DELETED_KEY_MAX / 8], s = key_bytes;
    for (uint32_t n = 0; n < enough; n++) {
        for (size_t i = 0; i < DELETED_KEY_MAX / 8; i++) {
            key[i] = splitmix64(&s);
        }
        int rc = loam_delete(db, NULL, loam_bytes(key, key_bytes), NULL);
        if (rc < 0) {
            CHECK_EQ(rc, LOAM_E_NOSPACE);
            return n;
        }
    }
    return enough;
}

static void count_deletes(uint64_t reserve, size_t key_bytes, bool mapped)
{
    const uint64_t space = 8u << 20;
    loam_vfs *disk, *fault;
    loam_db *db;
    oracle_context("a reserve of %llu bytes, deletes of keys of %zu bytes, %s map",
                   (unsigned long long)reserve, key_bytes, mapped ? "with" : "no");
    crash_alarm(RUN_SECONDS);
    disk = memory_disk();
    const loam_fault_plan plan = {.struct_size = sizeof plan, .no_map = !mapped, .space = space};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    open_with_reserve(fault, reserve, &db);
    fill_up(&(struct small_disk){"disk_reserve", fault, IO_DIR, space - reserve, 0}, db);
    uint32_t promised = (uint32_t)(reserve / 2 / (key_bytes + 32)); /* as the header says */
    uint32_t n = deletes_let_in(db, key_bytes, promised);
    if (n < promised) {
        oracle_fail("%u deletes of %u were let in: %s", n, promised, loam_last_error()->message);
    }
    int rc = loam_close(db);
    CHECK(rc == LOAM_OK || rc == LOAM_E_NOSPACE);
    loam_vfs_free(fault);
    loam_vfs_free(disk);
    crash_alarm(0);
}

/* From twice the memory budget on, as the header says. */
Test(full_disk, lets_in_as_many_deletes_as_the_reserve_promises)
{
    const uint64_t reserves[] = {2 << 20, 3 << 20};
    const size_t keys[] = {16, 100, DELETED_KEY_MAX};
    for (unsigned i = 0; i < 6; i++) {
        count_deletes(reserves[i / 3], keys[i % 3], i % 2 != 0);
    }
}

/* Deletes go on, puts come back by themselves once there is as much. */
Test(full_disk, is_one_that_has_less_than_the_reserve)
{
    loam_vfs *disk, *fault;
    loam_db *db;
    const struct small_disk d = {"disk_reserve beyond the disk", NULL, IO_DIR, 4u << 20, 0};
    oracle_context("%s", d.name);
    crash_alarm(RUN_SECONDS);
    disk = memory_disk();
    loam_fault_plan plan = {.struct_size = sizeof plan, .space = 4u << 20};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    open_with_reserve(fault, 0, &db);
    put_range(db, 0, 16);
    crash_must(loam_close(db), "close");
    open_with_reserve(fault, 16u << 20, &db);
    CHECK_EQ(reserve_of(db), 0);
    CHECK_EQ(reserve_file(disk), 0); /* and nothing was taken in the attempt */
    must_be_short(&d, put_key(db, 16));
    crash_must(loam_delete(db, NULL, key_of(1), NULL), "delete");
    expect_keys(&d, db, 1, 1);
    plan.space = 0;
    CHECK_EQ(loam_vfs_set_plan(fault, &plan), LOAM_OK);
    UNTIL_DONE(put_key(db, 16), "put");
    CHECK_EQ(reserve_of(db), 16u << 20);
    crash_must(loam_close(db), "close");
    loam_vfs_free(fault);
    loam_vfs_free(disk);
    crash_alarm(0);
}

/* ---- real file systems ------------------------------------------------------------------------- */

/* Mounts a small file system; false where that is not allowed. */
static bool mount_small(const char *how, const char *where)
{
    char command[512];
    snprintf(command, sizeof command, how, where, where, where, where);
    return mkdir(where, 0700) == 0 && system(command) == 0;
}

static void on_a_real_file_system(const char *name, uint64_t bytes, const char *how)
{
    char where[64], dir[80], command[256];
    /* In memory where that can be: what others write does not hold its syncs up there. */
    snprintf(where, sizeof where, "%s/loam-full-disk-%d",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
    snprintf(dir, sizeof dir, "%s/db", where);
    bool mounted = mount_small(how, where);
    if (mounted) {
        make_room(&(struct small_disk){name, loam_vfs_os(), dir, bytes, 0});
        snprintf(command, sizeof command, "umount %s", where);
        CHECK_EQ(system(command), 0);
    }
    snprintf(command, sizeof command, "rm -f %s.img && rmdir %s", where, where);
    (void)!system(command);
    if (!mounted) {
        SKIP_TEST("full_disk: no %s can be mounted here", name);
    }
}

#define EXT4(options_)                                                                             \
    "truncate -s 16M %s.img && mkfs.ext4 -q " options_ " %s.img && mount -o loop %s.img %s 2>/dev/null"

Test(full_disk, of_tmpfs_is_a_normal_state)
{
    on_a_real_file_system("tmpfs", 8u << 20, "mount -t tmpfs -o size=8m tmpfs %s 2>/dev/null");
}

Test(full_disk, of_ext4_is_a_normal_state)
{
    on_a_real_file_system("ext4", 14u << 20, EXT4(""));
}

Test(full_disk, of_ext4_without_a_journal_is_a_normal_state)
{
    on_a_real_file_system("ext4 without a journal", 15u << 20, EXT4("-O ^has_journal"));
}
