/* vfs_posix_mapped_test.c - The operating system's vfs that maps what it reads keeps the same contract.
 * SPDX-License-Identifier: Apache-2.0
 *
 * That it makes no calls for small reads, and goes without a map, is seen in vfs_posix_calls_test.c.
 */
#include <criterion/criterion.h>

#include "arena/vfs_map.h"
#include "tests/arena/vfs_posix_home.h"

static void setup_mapped(void)
{
    setup();
    c.vfs = loam_vfs_os_mapped();
}

TestSuite(vfs_posix_mapped, .init = setup_mapped, .fini = teardown);

Test(vfs_posix_mapped, opens_by_its_flags)
{
    contract_open_flags(&c);
}

Test(vfs_posix_mapped, moves_bytes)
{
    contract_read_write(&c);
}

Test(vfs_posix_mapped, keeps_names)
{
    contract_names(&c);
}

Test(vfs_posix_mapped, lists_a_directory)
{
    contract_list(&c);
}

Test(vfs_posix_mapped, locks_once)
{
    contract_is_named(&c);
    contract_lock(&c);
}

Test(vfs_posix_mapped, maps_shared_memory)
{
    contract_map(&c);
}

Test(vfs_posix_mapped, tells_space_time_and_chance)
{
    contract_rest(&c);
}

enum { SIZE = 3 * VFS_VIEW_READ_MAX + 100 };

static char bytes[2 * SIZE];

/* The first SIZE of them. */
static loam_file *written(void)
{
    loam_file *f;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(i * 2654435761u >> 13);
    }
    CHECK_EQ(VFS(c.vfs, open, at(&c, 0, "f"), RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(c.vfs, write, f, bytes, SIZE, 0), SIZE);
    return f;
}

static loam_file *opened(void)
{
    loam_file *f;
    CHECK_EQ(VFS(c.vfs, open, at(&c, 0, "f"), LOAM_VFS_READ, &f), 0);
    return f;
}

/* Reads of any size at any place, those that cross the end or lie behind it included. */
static void expect_bytes(loam_file *f, size_t size)
{
    static const size_t sizes[] = {0, 1, 4096, VFS_VIEW_READ_MAX, VFS_VIEW_READ_MAX + 1, SIZE, sizeof bytes};
    static char back[sizeof bytes];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t off = 0; off < size + 3000; off += 997) {
            size_t left = off < size ? size - off : 0;
            size_t want = sizes[i] < left ? sizes[i] : left;
            CHECK_EQ(VFS(c.vfs, read, f, back, sizes[i], off), (int64_t)want);
            CHECK(want == 0 || memcmp(back, bytes + off, want) == 0);
        }
    }
    CHECK_EQ(VFS(c.vfs, read, f, back, 1, (uint64_t)1 << 62), 0);
    CHECK_EQ(VFS(c.vfs, read, f, back, 1, UINT64_MAX), -EINVAL);
}

Test(vfs_posix_mapped, reads_the_same_bytes)
{
    CHECK_EQ(VFS(c.vfs, close, written()), 0);
    loam_file *f = opened();
    expect_bytes(f, SIZE);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

/* What comes through another handle is seen: in the part that is mapped, and behind it. */
Test(vfs_posix_mapped, reads_what_is_written_meanwhile)
{
    loam_file *w = written(), *f = opened();
    memset(bytes + 5000, 'n', 100);
    CHECK_EQ(VFS(c.vfs, write, w, bytes, sizeof bytes, 0), sizeof bytes);
    expect_bytes(f, sizeof bytes);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    CHECK_EQ(VFS(c.vfs, close, w), 0);
}
