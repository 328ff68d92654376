/* vfs_record_test.c - A recording gives back each moment of a disk, and crashes leave what they may.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle is the disk itself: hashes of it, and of power cuts made while it ran, are taken as it
 * goes and must come out of the recording afterwards, in any order.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "tests/arena/vfs_contract.h"
#include "tests/support/seed.h"

#define STEPS 400u
#define FILES 5u

static loam_vfs *disk;
static loam_recording *rec;

static void setup(void)
{
    CHECK_EQ(loam_vfs_memory(&disk), LOAM_OK);
    CHECK_EQ(VFS(disk, mkdir, "/db"), 0);
}

static void teardown(void)
{
    loam_recording_free(rec);
    loam_vfs_free(disk);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VFS), 0);
}

TestSuite(vfs_record, .init = setup, .fini = teardown);

static void record(void)
{
    CHECK_EQ(loam_vfs_record(disk, &rec), LOAM_OK);
}

static loam_vfs *crash(uint64_t at, uint32_t variant, uint32_t names, uint64_t seed)
{
    const loam_crash c = {
        .struct_size = sizeof c, .at = at, .variant = variant, .names = names, .seed = seed};
    loam_vfs *after;
    CHECK_EQ(loam_recording_crash(rec, &c, &after), LOAM_OK);
    return after;
}

static uint64_t crash_hash(uint64_t at, uint32_t variant, uint32_t names, uint64_t seed)
{
    loam_vfs *after = crash(at, variant, names, seed);
    uint64_t h = loam_vfs_hash(after);
    loam_vfs_free(after);
    return h;
}

/* ---- replay against the disk that was ---------------------------------------------------------- */

static const char *path_of(unsigned i)
{
    static const char *const paths[FILES] = {"/db/a", "/db/b", "/db/c", "/db/d/e", "/f"};
    return paths[i];
}

/* A random call, with two files mapped and stored to now and then. */
static void random_step(const loam_vfs *v, struct random *r, loam_file *mapped, uint8_t *memory)
{
    static uint8_t bytes[9000];
    loam_file *f;
    const char *path = path_of((unsigned)random_below(r, FILES));
    for (size_t i = 0; i < sizeof bytes; i += 8) {
        uint64_t word = random_next(r);
        memcpy(bytes + i, &word, 8);
    }
    switch (random_below(r, 10)) {
    case 0:
        (void)VFS(v, rename, path, path_of((unsigned)random_below(r, FILES)));
        return;
    case 1:
        (void)VFS(v, remove, path);
        return;
    case 2:
        CHECK_EQ(VFS(v, sync_dir, random_below(r, 2) == 0 ? "/db" : "/"), 0);
        return;
    case 3:
        memcpy(memory + random_below(r, 8192 - 200), bytes, 1 + random_below(r, 199));
        return;
    case 4:
        CHECK_EQ(VFS(v, sync, mapped, 1), 0);
        return;
    default:
        break;
    }
    if (VFS(v, open, path, RW | LOAM_VFS_CREATE, &f) != 0) {
        return;
    }
    uint64_t off = random_below(r, 12000), n = 1 + random_below(r, sizeof bytes - 1);
    switch (random_below(r, 5)) {
    case 0:
        CHECK_EQ(VFS(v, truncate, f, off), 0);
        break;
    case 1:
        CHECK_EQ(VFS(v, sync, f, 0), 0);
        break;
    case 2:
        CHECK_EQ(VFS(v, reserve, f, off, n), 0);
        break;
    default:
        CHECK_EQ(VFS(v, write, f, bytes, (size_t)n, off), (int64_t)n);
        break;
    }
    CHECK_EQ(VFS(v, close, f), 0);
}

struct moment {
    uint64_t at, hash[LOAM_CUT_SIZES + 1];
};

static void replay_against_cuts(uint32_t names, uint64_t seed)
{
    static struct moment moments[STEPS];
    struct random r;
    random_init(&r, seed);
    CHECK_EQ(VFS(disk, mkdir, "/db/d"), 0);
    loam_vfs *fault;
    const loam_fault_plan plan = {.struct_size = sizeof plan, .seed = seed, .names = names};
    CHECK_EQ(loam_vfs_fault(disk, &plan, &fault), LOAM_OK);
    record();
    loam_file *mapped;
    void *memory;
    CHECK_EQ(VFS(fault, open, "/db/mapped", RW | LOAM_VFS_NEW, &mapped), 0);
    CHECK_EQ(VFS(fault, truncate, mapped, 8192), 0);
    CHECK_EQ(VFS(fault, map, mapped, 0, 8192, &memory), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        random_step(fault, &r, mapped, memory);
        moments[i].at = loam_recording_mark(rec);
        for (uint32_t v = 0; v <= LOAM_CUT_SIZES; v++) {
            loam_vfs *cut;
            CHECK_EQ(loam_vfs_power_cut(fault, v, &cut), LOAM_OK);
            moments[i].hash[v] = loam_vfs_hash(cut);
            loam_vfs_free(cut);
        }
        CHECK_EQ(loam_vfs_hash(disk), moments[i].hash[LOAM_CUT_ALL]);
    }
    CHECK_EQ(VFS(fault, unmap, memory, 8192), 0);
    CHECK_EQ(VFS(fault, close, mapped), 0);
    for (unsigned i = 0; i < STEPS; i++) {
        const struct moment *m = &moments[i % 50 == 49 ? random_below(&r, STEPS) : i];
        for (uint32_t v = 0; v <= LOAM_CUT_SIZES; v++) {
            CHECK_EQ(crash_hash(m->at, v, names, 1), m->hash[v]);
        }
    }
    loam_vfs_free(fault);
}

Test(vfs_record, every_moment_can_be_had_again_with_posix_names)
{
    replay_against_cuts(LOAM_NAMES_POSIX, seed_of_run());
}

Test(vfs_record, every_moment_can_be_had_again_with_ordered_names)
{
    replay_against_cuts(LOAM_NAMES_ORDERED, seed_of_run());
}

/* ---- crashes one by one ------------------------------------------------------------------------ */

static loam_file *new_file(const char *path, const char *text)
{
    loam_file *f;
    CHECK_EQ(VFS(disk, open, path, RW | LOAM_VFS_CREATE, &f), 0);
    CHECK_EQ(VFS(disk, write, f, text, strlen(text), 0), (int64_t)strlen(text));
    return f;
}

static bool holds(loam_vfs *v, const char *path, uint64_t off, const char *text)
{
    char buf[64] = {0};
    loam_file *f;
    size_t n = strlen(text);
    bool same = false;
    if (VFS(v, open, path, LOAM_VFS_READ, &f) == 0) {
        same = VFS(v, read, f, buf, n, off) == (int64_t)n && memcmp(buf, text, n) == 0;
        CHECK_EQ(VFS(v, close, f), 0);
    }
    return same;
}

Test(vfs_record, a_synced_file_has_its_name_only_where_names_are_ordered)
{
    record();
    loam_file *f = new_file("/db/f", "text");
    CHECK_EQ(VFS(disk, sync, f, 0), 0);
    CHECK_EQ(VFS(disk, close, f), 0);
    uint64_t end = loam_recording_length(rec);
    loam_vfs *posix = crash(end, LOAM_CUT_SYNCED, LOAM_NAMES_POSIX, 0);
    loam_vfs *ordered = crash(end, LOAM_CUT_SYNCED, LOAM_NAMES_ORDERED, 0);
    CHECK(!holds(posix, "/db/f", 0, "text"));
    CHECK(holds(ordered, "/db/f", 0, "text"));
    loam_vfs_free(posix);
    loam_vfs_free(ordered);
}

Test(vfs_record, subsets_are_all_there_is_between_nothing_and_everything)
{
    loam_file *f = new_file("/db/f", "old");
    CHECK_EQ(VFS(disk, truncate, f, 3 * 4096), 0);
    record();
    CHECK_EQ(VFS(disk, write, f, "new", 3, 0), 3);
    CHECK_EQ(VFS(disk, write, f, "new", 3, 4096), 3);
    CHECK_EQ(VFS(disk, write, f, "new", 3, 4 * 4096), 3); /* a block and the size */
    CHECK_EQ(VFS(disk, close, f), 0);
    CHECK_EQ(VFS(disk, rename, "/db/f", "/db/g"), 0);
    uint64_t end = loam_recording_length(rec), all = loam_vfs_hash(disk), hashes[64];
    uint32_t items, distinct = 0, nothing = 0, everything = 0;
    CHECK_EQ(loam_recording_pending(rec, end, LOAM_NAMES_POSIX, &items), LOAM_OK);
    CHECK_EQ(items, 5); /* a name, three blocks, a size */
    uint64_t synced = crash_hash(end, LOAM_CUT_SYNCED, LOAM_NAMES_POSIX, 0);
    for (uint64_t bits = 0; bits < 32; bits++) {
        uint64_t h = crash_hash(end, LOAM_CUT_SUBSET, LOAM_NAMES_POSIX, bits);
        uint32_t i = 0;
        while (i < distinct && hashes[i] != h) {
            i++;
        }
        hashes[i] = h;
        distinct += i == distinct;
        nothing += h == synced;
        everything += h == all;
    }
    CHECK_EQ(distinct, 24); /* the last block takes the size with it */
    CHECK_EQ(nothing, 1);
    CHECK_EQ(everything, 2);
    CHECK_EQ(loam_recording_pending(rec, 0, LOAM_NAMES_POSIX, &items), LOAM_OK);
    CHECK_EQ(items, 0);
}

Test(vfs_record, the_write_under_way_is_torn)
{
    record();
    loam_file *f = new_file("/db/f", "12345678");
    uint64_t before = 0;
    unsigned torn = 0, absent = 0;
    CHECK_EQ(VFS(disk, close, f), 0);
    CHECK_EQ(loam_recording_length(rec), 2); /* a name, a write */
    before = 1;
    for (uint64_t seed = 0; seed < 64; seed++) {
        loam_vfs *after = crash(before, LOAM_CUT_PREFIX, LOAM_NAMES_POSIX, seed);
        CHECK(!holds(after, "/db/f", 0, "12345678"));
        torn += holds(after, "/db/f", 0, "1234");
        absent += !holds(after, "/db/f", 0, "1");
        loam_vfs_free(after);
    }
    CHECK(torn > 0);
    CHECK(absent > 0);
}

Test(vfs_record, new_blocks_may_show_what_a_removed_file_held)
{
    loam_file *f = new_file("/db/old", "secret of the old file");
    CHECK_EQ(VFS(disk, close, f), 0);
    record();
    CHECK_EQ(VFS(disk, remove, "/db/old"), 0);
    CHECK_EQ(VFS(disk, sync_dir, "/db"), 0);
    f = new_file("/db/new", "contents of the new file");
    CHECK_EQ(VFS(disk, close, f), 0);
    unsigned stale = 0;
    uint64_t end = loam_recording_length(rec);
    for (uint64_t seed = 0; seed < 200; seed++) {
        loam_vfs *after = crash(end, LOAM_CUT_STALE, LOAM_NAMES_POSIX, seed);
        stale += holds(after, "/db/new", 0, "secret of the old");
        loam_vfs_free(after);
    }
    CHECK(stale > 0);
}

Test(vfs_record, stores_through_a_map_are_changes)
{
    loam_file *f = new_file("/db/f", "");
    void *memory;
    CHECK_EQ(VFS(disk, truncate, f, 4096), 0);
    CHECK_EQ(VFS(disk, map, f, 0, 4096, &memory), 0);
    record();
    CHECK_EQ(loam_recording_mark(rec), 0);
    memcpy((char *)memory + 100, "stored", 6);
    CHECK_EQ(loam_recording_mark(rec), 1);
    CHECK_EQ(loam_recording_mark(rec), 1);
    CHECK_EQ(VFS(disk, sync, f, 1), 0);
    loam_vfs *killed = crash(1, LOAM_CUT_ALL, LOAM_NAMES_POSIX, 0);
    loam_vfs *unsynced = crash(1, LOAM_CUT_SYNCED, LOAM_NAMES_POSIX, 0);
    loam_vfs *synced = crash(2, LOAM_CUT_SYNCED, LOAM_NAMES_POSIX, 0);
    CHECK(holds(killed, "/db/f", 100, "stored"));
    CHECK(!holds(unsynced, "/db/f", 100, "stored"));
    CHECK(holds(synced, "/db/f", 100, "stored"));
    loam_vfs_free(killed);
    loam_vfs_free(unsynced);
    loam_vfs_free(synced);
    CHECK_EQ(VFS(disk, unmap, memory, 4096), 0);
    CHECK_EQ(VFS(disk, close, f), 0);
}

/* What a crash left is a disk like any other: its own crashes can be recorded. After a kill what was
 * pending is pending still, and power may go now. */
Test(vfs_record, the_disk_after_a_kill_can_lose_what_was_never_synced)
{
    record();
    loam_file *f = new_file("/db/durable", "first");
    CHECK_EQ(VFS(disk, sync, f, 0), 0);
    CHECK_EQ(VFS(disk, close, f), 0);
    CHECK_EQ(VFS(disk, sync_dir, "/db"), 0);
    f = new_file("/db/pending", "first");
    CHECK_EQ(VFS(disk, close, f), 0);
    uint64_t end = loam_recording_length(rec);
    loam_vfs *after = crash(end, LOAM_CUT_ALL, LOAM_NAMES_POSIX, 0), *again;
    loam_recording *second;
    CHECK(holds(after, "/db/durable", 0, "first"));
    CHECK(holds(after, "/db/pending", 0, "first"));
    CHECK_EQ(loam_vfs_record(after, &second), LOAM_OK);
    CHECK_EQ(VFS(after, open, "/db/durable", RW, &f), 0);
    CHECK_EQ(VFS(after, write, f, "SECOND", 6, 0), 6);
    CHECK_EQ(VFS(after, close, f), 0);
    const loam_crash c = {.struct_size = sizeof c, .at = 1, .variant = LOAM_CUT_SYNCED};
    CHECK_EQ(loam_recording_crash(second, &c, &again), LOAM_OK);
    CHECK(holds(again, "/db/durable", 0, "first"));
    CHECK(!holds(again, "/db/pending", 0, "first"));
    loam_vfs_free(again);
    loam_vfs_free(after); /* before its recording */
    CHECK_EQ(loam_recording_crash(second, &c, &again), LOAM_OK);
    loam_vfs_free(again);
    loam_recording_free(second);
}

/* After a loss of power there is no cache: what is there is durable. */
Test(vfs_record, the_disk_after_a_power_cut_is_durable)
{
    record();
    loam_file *f = new_file("/db/f", "first");
    CHECK_EQ(VFS(disk, close, f), 0);
    loam_recording *second;
    loam_vfs *again;
    const loam_crash all = {
        .struct_size = sizeof all, .at = 2, .variant = LOAM_CUT_SUBSET, .seed = UINT64_MAX};
    loam_vfs *after;
    CHECK_EQ(loam_recording_crash(rec, &all, &after), LOAM_OK);
    CHECK_EQ(loam_vfs_record(after, &second), LOAM_OK);
    const loam_crash c = {.struct_size = sizeof c, .variant = LOAM_CUT_SYNCED};
    CHECK_EQ(loam_recording_crash(second, &c, &again), LOAM_OK);
    CHECK(holds(again, "/db/f", 0, "first"));
    loam_vfs_free(again);
    loam_recording_free(second);
    loam_vfs_free(after);
}

Test(vfs_record, refuses_what_it_cannot_do)
{
    loam_recording *other;
    loam_vfs *after;
    uint32_t items;
    record();
    CHECK_EQ(loam_vfs_record(disk, &other), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_record((loam_vfs *)(uintptr_t)loam_vfs_os(), &other), LOAM_E_INVAL);
    loam_crash c = {.struct_size = sizeof c, .at = 1};
    CHECK_EQ(loam_recording_crash(rec, &c, &after), LOAM_E_INVAL);
    c = (loam_crash){.struct_size = sizeof c, .variant = LOAM_CUT_SUBSET + 1};
    CHECK_EQ(loam_recording_crash(rec, &c, &after), LOAM_E_INVAL);
    c = (loam_crash){.struct_size = sizeof c, .names = LOAM_NAMES_ORDERED + 1};
    CHECK_EQ(loam_recording_crash(rec, &c, &after), LOAM_E_INVAL);
    CHECK_EQ(loam_recording_pending(rec, 1, LOAM_NAMES_POSIX, &items), LOAM_E_INVAL);
    CHECK_EQ(loam_vfs_hash(loam_vfs_os()), 0);
    CHECK_EQ(loam_recording_length(NULL), 0);
}
