/* vfs_fault_test.c - Faults come when planned, and a power cut leaves only what it may.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle of the cuts: each fixed variant spelled out, and for random variants that durable
 * bytes and names are always there, that other bytes come from what was written (or are garbage
 * only where a write was pending), and that a rename loses neither name.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/vfs_disk.h"
#include "tests/arena/vfs_contract.h"
#include "tests/support/seed.h"

static loam_vfs *disk, *vfs;
static struct contract c;

static loam_fault_plan plan_of_seed(uint64_t seed)
{
    return (loam_fault_plan){.struct_size = sizeof(loam_fault_plan), .seed = seed};
}

static void set_plan(loam_fault_plan p)
{
    CHECK_EQ(loam_vfs_set_plan(vfs, &p), LOAM_OK);
}

static void setup(void)
{
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK_EQ(VFS(disk, mkdir, "/db"), 0);
    loam_fault_plan p = plan_of_seed(7);
    CHECK_EQ(loam_vfs_fault(disk, &p, &vfs), LOAM_OK);
    c = (struct contract){.vfs = vfs, .dir = "/db"};
}

static void teardown(void)
{
    loam_vfs_free(vfs);
    loam_vfs_free(disk);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VFS), 0);
}

TestSuite(vfs_fault, .init = setup, .fini = teardown);

/* ---- faults ---------------------------------------------------------------------------------- */

Test(vfs_fault, without_a_plan_keeps_the_contract)
{
    contract_open_flags(&c);
    contract_read_write(&c);
    contract_list(&c);
    contract_is_named(&c);
    contract_lock(&c);
    contract_map(&c);
    contract_rest(&c);
    VFS(vfs, remove, "/db/a");
    VFS(vfs, remove, "/db/d");
    contract_names(&c);
}

Test(vfs_fault, counts_calls_that_can_fail)
{
    loam_file *f;
    uint64_t size, n = loam_vfs_calls(vfs);
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, size, f, &size), 0);
    CHECK_EQ(VFS(vfs, advise, f, 0, 0, LOAM_ADVISE_RANDOM), 0);
    vfs->now_us(vfs->ctx);
    CHECK_EQ(VFS(vfs, close, f), 0);
    CHECK_EQ(loam_vfs_calls(vfs) - n, 4);
}

Test(vfs_fault, fails_the_nth_call_and_no_other)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_at = loam_vfs_calls(vfs) + 2;
    p.fail_repeat = 2;
    p.fail_errno = ENOSPC;
    set_plan(p);
    CHECK_EQ(VFS(vfs, write, f, "a", 1, 0), 1);
    CHECK_EQ(VFS(vfs, write, f, "b", 1, 1), -ENOSPC);
    CHECK_EQ(VFS(vfs, sync, f, 0), -ENOSPC);
    CHECK_EQ(VFS(vfs, write, f, "c", 1, 1), 1);
    CHECK_EQ(VFS(vfs, close, f), 0);
    expect_file(&c, "f", "ac");
    p.fail_at = loam_vfs_calls(vfs) + 1;
    p.fail_repeat = UINT32_MAX;
    p.fail_errno = 0;
    set_plan(p);
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(VFS(vfs, rename, "/db/f", "/db/g"), -EIO);
        CHECK_EQ(VFS(vfs, mkdir, "/db/x"), -EIO);
    }
    set_plan(plan_of_seed(1));
    expect_file(&c, "f", "ac");
}

Test(vfs_fault, a_short_write_stores_a_part)
{
    loam_file *f;
    char bytes[1000];
    memset(bytes, 'w', sizeof bytes);
    uint64_t size, seen = 0;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    for (uint64_t seed = 0; seed < 20; seed++) {
        loam_fault_plan p = plan_of_seed(seed);
        p.short_writes = 1;
        p.fail_at = loam_vfs_calls(vfs) + 1;
        set_plan(p);
        CHECK_EQ(VFS(vfs, write, f, bytes, sizeof bytes, 0), -EIO);
        CHECK_EQ(VFS(vfs, size, f, &size), 0);
        CHECK(size < sizeof bytes);
        seen += size > 0;
        CHECK_EQ(VFS(vfs, truncate, f, 0), 0);
    }
    CHECK(seen > 10);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, counts_and_fails_one_kind_of_call)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_calls = LOAM_CALL_SYNC | LOAM_CALL_SYNC_DIR;
    p.fail_at = 2;
    p.fail_errno = ENOSPC;
    set_plan(p);
    CHECK_EQ(VFS(vfs, write, f, "a", 1, 0), 1);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    CHECK_EQ(VFS(vfs, write, f, "b", 1, 1), 1);
    CHECK_EQ(loam_vfs_faults(vfs), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), -ENOSPC);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(loam_vfs_faults(vfs), 1);
    CHECK_EQ(loam_vfs_calls_of(vfs, LOAM_CALL_WRITE), 2);
    CHECK_EQ(loam_vfs_calls_of(vfs, LOAM_CALL_SYNC | LOAM_CALL_SYNC_DIR), 3);
    CHECK_EQ(loam_vfs_calls_of(vfs, LOAM_CALL_ALL), loam_vfs_calls(vfs));
    CHECK_EQ(VFS(vfs, close, f), 0);
}

/* Writes 8 bytes over zeros under a plan that fails it; the size of what was stored. */
static uint64_t landed(uint32_t how, uint32_t part, int64_t want)
{
    loam_file *f;
    uint64_t size;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, &f), 0);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_calls = LOAM_CALL_WRITE;
    p.fail_how = how;
    p.short_writes = part;
    p.fail_at = loam_vfs_calls_of(vfs, LOAM_CALL_WRITE) + 1;
    set_plan(p);
    CHECK_EQ(VFS(vfs, write, f, "12345678", 8, 0), want);
    CHECK_EQ(VFS(vfs, size, f, &size), 0);
    CHECK_EQ(VFS(vfs, close, f), 0);
    return size;
}

Test(vfs_fault, lands_as_many_bytes_as_planned)
{
    CHECK_EQ(landed(LOAM_FAULT_ERROR, LOAM_LANDS_NOTHING, -EIO), 0);
    CHECK_EQ(landed(LOAM_FAULT_ERROR, LOAM_LANDS_ONE, -EIO), 1);
    CHECK_EQ(landed(LOAM_FAULT_ERROR, LOAM_LANDS_HALF, -EIO), 4);
    CHECK_EQ(landed(LOAM_FAULT_ERROR, LOAM_LANDS_ALL_BUT_ONE, -EIO), 7);
    CHECK_EQ(landed(LOAM_FAULT_ERROR, LOAM_LANDS_ALL, -EIO), 8);
    CHECK_EQ(landed(LOAM_FAULT_SHORT, LOAM_LANDS_HALF, 4), 4);
    CHECK_EQ(landed(LOAM_FAULT_SHORT, LOAM_LANDS_NOTHING, 1), 1);
    CHECK_EQ(landed(LOAM_FAULT_LIE, LOAM_LANDS_NOTHING, 8), 0);
}

static void expect_durable(const char *want)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(vfs, 1, &after), LOAM_OK);
    struct contract after_c = {.vfs = after, .dir = "/db"};
    expect_file(&after_c, "f", want);
    loam_vfs_free(after);
}

Test(vfs_fault, a_lying_sync_makes_nothing_durable)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, "a", 1, 0), 1);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_calls = LOAM_CALL_SYNC;
    p.fail_at = 1;
    p.fail_how = LOAM_FAULT_LIE;
    set_plan(p);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    expect_durable("");
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    expect_durable("a");
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, what_a_failed_sync_dropped_is_durable_only_when_written_again)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, "old.", 4, 0), 4);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, "new!", 4, 0), 4);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_calls = LOAM_CALL_SYNC;
    p.fail_at = loam_vfs_calls_of(vfs, LOAM_CALL_SYNC) + 1;
    p.drop_dirty = 1;
    set_plan(p);
    CHECK_EQ(VFS(vfs, sync, f, 0), -EIO);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0); /* says that all is well: the lie of the page cache */
    expect_file(&c, "f", "new!");
    for (uint64_t variant = 1; variant < 40; variant++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(vfs, variant, &after), LOAM_OK);
        struct contract after_c = {.vfs = after, .dir = "/db"};
        expect_file(&after_c, "f", "old.");
        loam_vfs_free(after);
    }
    CHECK_EQ(VFS(vfs, write, f, "!", 1, 3), 1);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    expect_durable("new!");
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, after_the_crash_nothing_works_but_memory_is_given_back)
{
    loam_file *f, *g;
    void *p;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, truncate, f, 4096), 0);
    CHECK_EQ(VFS(vfs, map, f, 0, 4096, &p), 0);
    loam_fault_plan plan = plan_of_seed(1);
    plan.crash_at = loam_vfs_calls(vfs) + 1;
    set_plan(plan);
    CHECK_EQ(VFS(vfs, open, "/db/g", RW | LOAM_VFS_NEW, &g), -EIO);
    CHECK_EQ(VFS(vfs, write, f, "x", 1, 0), -EIO);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), -EIO);
    CHECK_EQ(VFS(vfs, unmap, p, 4096), 0);
    CHECK_EQ(VFS(vfs, close, f), -EIO); /* teardown finds no leak */
}

Test(vfs_fault, space_ends_and_comes_back)
{
    loam_file *f;
    static char bytes[20000];
    memset(bytes, 's', sizeof bytes);
    loam_fault_plan p = plan_of_seed(1);
    p.space = 3 * 4096;
    set_plan(p);
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, bytes, sizeof bytes, 0), 3 * 4096);
    CHECK_EQ(VFS(vfs, write, f, bytes, 1, 3 * 4096), -ENOSPC);
    CHECK_EQ(VFS(vfs, write, f, "o", 1, 5), 1); /* in place */
    CHECK_EQ(VFS(vfs, reserve, f, 3 * 4096, 1), -ENOSPC);
    uint64_t free_bytes, total;
    CHECK_EQ(VFS(vfs, space, "/db", &free_bytes, &total), 0);
    CHECK_EQ(free_bytes, 0);
    CHECK_EQ(total, 3 * 4096);
    CHECK_EQ(VFS(vfs, truncate, f, 4096), 0);
    CHECK_EQ(VFS(vfs, reserve, f, 4096, 8192), 0);
    CHECK_EQ(VFS(vfs, write, f, bytes, 8192, 4096), 8192); /* what was set aside is there */
    CHECK_EQ(VFS(vfs, write, f, bytes, 1, 3 * 4096), -ENOSPC);
    /* An open file keeps its space without a name. */
    CHECK_EQ(VFS(vfs, remove, "/db/f"), 0);
    CHECK_EQ(VFS(vfs, space, "/db", &free_bytes, &total), 0);
    CHECK_EQ(free_bytes, 0);
    CHECK_EQ(VFS(vfs, close, f), 0);
    CHECK_EQ(VFS(vfs, space, "/db", &free_bytes, &total), 0);
    CHECK_EQ(free_bytes, 3 * 4096);
}

Test(vfs_fault, offers_no_map_when_told)
{
    loam_vfs *other;
    loam_fault_plan p = plan_of_seed(1);
    p.no_map = 1;
    CHECK_EQ(loam_vfs_fault(disk, &p, &other), LOAM_OK);
    CHECK(other->map == NULL);
    loam_vfs_free(other);
    loam_file *f;
    void *m;
    set_plan(p);
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, truncate, f, 4096), 0);
    CHECK_EQ(VFS(vfs, map, f, 0, 4096, &m), -EOPNOTSUPP);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, refuses_what_is_no_memory_disk)
{
    loam_vfs *v;
    loam_fault_plan p = plan_of_seed(1);
    CHECK_EQ(loam_vfs_fault((loam_vfs *)(uintptr_t)loam_vfs_os(), &p, &v), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_memory(NULL), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_power_cut(disk, 0, &v), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_set_plan(disk, &p), LOAM_E_INVAL);
    p.struct_size = 0;
    CHECK_EQ(loam_vfs_set_plan(vfs, &p), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_calls(disk), 0);
}

/* ---- power cuts ------------------------------------------------------------------------------ */

static loam_vfs *cut(uint64_t variant)
{
    loam_vfs *after;
    CHECK_EQ(loam_vfs_power_cut(vfs, variant, &after), LOAM_OK);
    return after;
}

/* The text of a file on a cut disk; NULL when it is absent. */
static const char *text_of(const loam_vfs *v, const char *path)
{
    static char buf[512];
    loam_file *f;
    if (VFS(v, open, path, LOAM_VFS_READ, &f) != 0) {
        return NULL;
    }
    int64_t n = VFS(v, read, f, buf, sizeof buf - 1, 0);
    CHECK(n >= 0);
    buf[n] = '\0';
    CHECK_EQ(VFS(v, close, f), 0);
    return buf;
}

static void expect_cut(uint64_t variant, const char *path, const char *text)
{
    loam_vfs *after = cut(variant);
    const char *found = text_of(after, path);
    if ((found == NULL) != (text == NULL) || (text != NULL && strcmp(found, text) != 0)) {
        CHECK_FAIL_("variant %" PRIu64 ": %s is %s, expected %s", variant, path,
                    found != NULL ? found : "absent", text != NULL ? text : "absent");
    }
    loam_vfs_free(after);
}

Test(vfs_fault, what_is_there_at_first_is_durable)
{
    loam_vfs *d, *v, *after;
    loam_fault_plan p = plan_of_seed(1);
    CHECK_EQ(loam_vfs_memory(&d), LOAM_OK);
    struct contract plain = {.vfs = d, .dir = ""};
    put_file(&plain, "f", "kept");
    CHECK_EQ(loam_vfs_fault(d, &p, &v), LOAM_OK);
    CHECK_EQ(loam_vfs_power_cut(v, 1, &after), LOAM_OK);
    cr_assert_str_eq(text_of(after, "/f"), "kept");
    loam_vfs_free(after);
    loam_vfs_free(v);
    loam_vfs_free(d);
}

Test(vfs_fault, fixed_variants_follow_data_and_names)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, "old", 3, 0), 3);
    CHECK_EQ(VFS(vfs, sync, f, 1), 0);
    expect_cut(0, "/db/f", "old");
    expect_cut(1, "/db/f", NULL); /* no sync_dir: no name */
    expect_cut(2, "/db/f", "old");
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    expect_cut(1, "/db/f", "old");
    CHECK_EQ(VFS(vfs, write, f, "newer", 5, 0), 5);
    CHECK_EQ(VFS(vfs, rename, "/db/f", "/db/g"), 0);
    expect_cut(0, "/db/g", "newer");
    expect_cut(0, "/db/f", NULL);
    expect_cut(1, "/db/f", "old");
    expect_cut(1, "/db/g", NULL);
    expect_cut(2, "/db/g", "old");
    expect_cut(3, "/db/f", "newer");
    expect_cut(3, "/db/g", NULL);
    loam_vfs *after = cut(4);
    char buf[8];
    loam_file *g;
    CHECK_EQ(VFS(after, open, "/db/g", LOAM_VFS_READ, &g), 0);
    CHECK_EQ(VFS(after, read, g, buf, sizeof buf, 0), 5);
    CHECK_BYTES(buf, 5, "old\0\0", 5);
    CHECK_EQ(VFS(after, close, g), 0);
    loam_vfs_free(after);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

/* The first bytes of the two pages of /db/f after a cut that drops what is not durable. */
static void expect_pages(char first, char second)
{
    char a, b;
    loam_file *f;
    loam_vfs *after = cut(1);
    CHECK_EQ(VFS(after, open, "/db/f", LOAM_VFS_READ, &f), 0);
    CHECK_EQ(VFS(after, read, f, &a, 1, 0), 1);
    CHECK_EQ(VFS(after, read, f, &b, 1, DISK_PAGE), 1);
    CHECK_EQ(VFS(after, close, f), 0);
    loam_vfs_free(after);
    CHECK_EQ(a, first);
    CHECK_EQ(b, second);
}

Test(vfs_fault, a_durable_write_says_nothing_of_other_pages)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, "a", 1, 0), 1);
    CHECK_EQ(VFS(vfs, write, f, "b", 1, DISK_PAGE), 1);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, "d", 1, DISK_PAGE), 1);
    CHECK_EQ(VFS(vfs, write_durable, f, "c", 1, 0), 1);
    expect_pages('c', 'b');
    loam_fault_plan p = plan_of_seed(1);
    p.fail_calls = LOAM_CALL_WRITE_DURABLE;
    p.fail_at = 2; /* one was above */
    p.fail_errno = EIO;
    p.short_writes = LOAM_LANDS_ALL;
    set_plan(p);
    CHECK_EQ(VFS(vfs, write_durable, f, "e", 1, 0), -EIO);
    expect_pages('c', 'b');
    CHECK_EQ(VFS(vfs, write_durable, f, "f", 1, DISK_PAGE), 1);
    expect_pages('c', 'f');
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, removal_is_durable_with_the_directory)
{
    put_file(&c, "f", "x");
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, remove, "/db/f"), 0);
    expect_cut(0, "/db/f", NULL);
    expect_cut(1, "/db/f", ""); /* never synced */
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    expect_cut(1, "/db/f", NULL);
}

Test(vfs_fault, a_new_directory_needs_its_parent_synced)
{
    CHECK_EQ(VFS(vfs, mkdir, "/db/d"), 0);
    put_file(&c, "d/f", "x");
    CHECK_EQ(VFS(vfs, sync_dir, "/db/d"), 0);
    expect_cut(1, "/db/d/f", NULL);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    expect_cut(1, "/db/d/f", "");
    /* A move between directories is durable in both or in neither. */
    CHECK_EQ(VFS(vfs, rename, "/db/d/f", "/db/f"), 0);
    expect_cut(1, "/db/d/f", "");
    CHECK_EQ(VFS(vfs, sync_dir, "/db/d"), 0);
    expect_cut(1, "/db/d/f", NULL);
    expect_cut(1, "/db/f", "");
}

Test(vfs_fault, ordered_names_are_durable_with_any_file)
{
    disk_set_names_model(disk_of_vfs(disk), LOAM_NAMES_ORDERED);
    loam_file *f;
    put_file(&c, "g", "x");
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, sync, f, 1), 0);
    CHECK_EQ(VFS(vfs, close, f), 0);
    expect_cut(1, "/db/f", "");
    expect_cut(1, "/db/g", "");
}

Test(vfs_fault, mapped_stores_are_pending_until_synced)
{
    loam_file *f;
    void *p;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, reserve, f, 0, 8192), 0);
    CHECK_EQ(VFS(vfs, map, f, 4096, 4096, &p), 0);
    CHECK_EQ(VFS(vfs, sync, f, 0), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    memcpy(p, "stored", 6);
    loam_vfs *all = cut(0), *durable = cut(1);
    char buf[6];
    loam_file *g;
    CHECK_EQ(VFS(all, open, "/db/f", LOAM_VFS_READ, &g), 0);
    CHECK_EQ(VFS(all, read, g, buf, 6, 4096), 6);
    CHECK_BYTES(buf, 6, "stored", 6);
    CHECK_EQ(VFS(all, close, g), 0);
    CHECK_EQ(VFS(durable, open, "/db/f", LOAM_VFS_READ, &g), 0);
    CHECK_EQ(VFS(durable, read, g, buf, 6, 4096), 6);
    CHECK_BYTES(buf, 6, "\0\0\0\0\0\0", 6);
    CHECK_EQ(VFS(durable, close, g), 0);
    loam_vfs_free(all);
    loam_vfs_free(durable);
    CHECK_EQ(VFS(vfs, sync, f, 1), 0);
    CHECK_EQ(VFS(vfs, unmap, p, 4096), 0);
    CHECK_EQ(VFS(vfs, write, f, "unsynced", 8, 4096), 8);
    durable = cut(1);
    CHECK_EQ(VFS(durable, open, "/db/f", LOAM_VFS_READ, &g), 0);
    CHECK_EQ(VFS(durable, read, g, buf, 6, 4096), 6);
    CHECK_BYTES(buf, 6, "stored", 6);
    CHECK_EQ(VFS(durable, close, g), 0);
    loam_vfs_free(durable);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, a_failed_sync_makes_nothing_durable)
{
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, "x", 1, 0), 1);
    loam_fault_plan p = plan_of_seed(1);
    p.fail_at = loam_vfs_calls(vfs) + 1;
    set_plan(p);
    CHECK_EQ(VFS(vfs, sync, f, 1), -EIO);
    expect_cut(1, "/db/f", "");
    CHECK_EQ(VFS(vfs, sync, f, 1), 0);
    expect_cut(1, "/db/f", "x");
    CHECK_EQ(VFS(vfs, close, f), 0);
}

#define CUT_BYTES 20000u

/* Synced bytes are 'd', pending ones 'p' in [2500, 15000); the file grew from 10000 bytes. */
static void check_random_cut(uint64_t variant, unsigned *torn, unsigned *whole)
{
    static uint8_t bytes[CUT_BYTES];
    loam_vfs *after = cut(variant);
    loam_file *f;
    CHECK_EQ(VFS(after, open, "/db/f", LOAM_VFS_READ, &f), 0);
    int64_t n = VFS(after, read, f, bytes, sizeof bytes, 0);
    CHECK(n >= 10000 && n <= 15000);
    uint64_t pending = 0;
    for (int64_t i = 0; i < n; i++) {
        CHECK(i >= 2500 || bytes[i] == 'd');
        pending += bytes[i] == 'p';
    }
    *whole += pending == 12500;
    *torn += pending != 0 && pending != 12500;
    CHECK_EQ(VFS(after, close, f), 0);
    /* A rename replaces or leaves; neither file is lost. */
    const char *b = text_of(after, "/db/b");
    CHECK(b != NULL && (strcmp(b, "A") == 0 || strcmp(b, "B") == 0));
    if (strcmp(b, "B") == 0) {
        cr_assert_str_eq(text_of(after, "/db/a"), "A");
    }
    loam_vfs_free(after);
}

Test(vfs_fault, random_cuts_keep_what_is_durable)
{
    set_plan(plan_of_seed(seed_of_run()));
    static uint8_t d[10000], p[12500];
    memset(d, 'd', sizeof d);
    memset(p, 'p', sizeof p);
    loam_file *f;
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(VFS(vfs, open, i == 0 ? "/db/a" : "/db/b", RW | LOAM_VFS_NEW, &f), 0);
        CHECK_EQ(VFS(vfs, write, f, i == 0 ? "A" : "B", 1, 0), 1);
        CHECK_EQ(VFS(vfs, sync, f, 0), 0);
        CHECK_EQ(VFS(vfs, close, f), 0);
    }
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, d, sizeof d, 0), sizeof d);
    CHECK_EQ(VFS(vfs, sync, f, 1), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, p, sizeof p, 2500), sizeof p);
    CHECK_EQ(VFS(vfs, rename, "/db/a", "/db/b"), 0);
    CHECK_EQ(VFS(vfs, mkdir, "/db/new"), 0);
    unsigned torn = 0, whole = 0;
    for (uint64_t variant = 5; variant < 1005; variant++) {
        check_random_cut(variant, &torn, &whole);
    }
    CHECK(torn > 100 && whole > 10);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_fault, a_cut_repeats_with_its_seed_and_can_be_cut_again)
{
    loam_file *f;
    static uint8_t p[9000], one[9000], two[9000];
    memset(p, 'p', sizeof p);
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, sync_dir, "/db"), 0);
    CHECK_EQ(VFS(vfs, write, f, p, sizeof p, 0), sizeof p);
    CHECK_EQ(VFS(vfs, close, f), 0);
    for (uint64_t variant = 5; variant < 50; variant++) {
        int64_t n[2];
        for (int i = 0; i < 2; i++) {
            loam_vfs *first = cut(variant), *again, *after;
            loam_fault_plan plan = plan_of_seed(3);
            CHECK_EQ(loam_vfs_fault(first, &plan, &again), LOAM_OK);
            CHECK_EQ(loam_vfs_power_cut(again, 1, &after), LOAM_OK);
            CHECK_EQ(VFS(after, open, "/db/f", LOAM_VFS_READ, &f), 0);
            n[i] = VFS(after, read, f, i == 0 ? one : two, sizeof one, 0);
            CHECK_EQ(VFS(after, close, f), 0);
            loam_vfs_free(after);
            loam_vfs_free(again);
            loam_vfs_free(first);
        }
        CHECK_BYTES(one, (size_t)n[0], two, (size_t)n[1]);
    }
}
