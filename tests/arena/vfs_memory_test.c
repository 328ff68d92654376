/* vfs_memory_test.c - The memory disk keeps the contract of the operating system's vfs.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle is vfs_contract.h, which vfs_posix_test.c runs against the real thing, and a byte
 * array under random operations.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "tests/arena/vfs_contract.h"
#include "tests/support/seed.h"

static loam_vfs *vfs;
static struct contract c;

static void setup(void)
{
    CHECK_EQ(loam_vfs_memory(&vfs), LOAM_OK);
    CHECK_EQ(VFS(vfs, mkdir, "/db"), 0);
    c = (struct contract){.vfs = vfs, .dir = "/db"};
}

static void teardown(void)
{
    loam_vfs_free(vfs);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VFS), 0);
}

TestSuite(vfs_memory, .init = setup, .fini = teardown);

Test(vfs_memory, opens_by_its_flags)
{
    contract_open_flags(&c);
}

Test(vfs_memory, moves_bytes)
{
    contract_read_write(&c);
}

Test(vfs_memory, keeps_names)
{
    contract_names(&c);
}

Test(vfs_memory, takes_a_name_with_a_slash_for_a_directory)
{
    contract_slashes(&c);
}

Test(vfs_memory, lists_a_directory)
{
    contract_list(&c);
}

Test(vfs_memory, locks_once)
{
    contract_is_named(&c);
    contract_lock(&c);
}

Test(vfs_memory, maps_shared_memory)
{
    contract_map(&c);
}

Test(vfs_memory, tells_space_time_and_chance)
{
    contract_rest(&c);
}

Test(vfs_memory, paths_need_no_leading_slash)
{
    put_file(&c, "f", "x");
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "db/f", LOAM_VFS_READ, &f), 0);
    CHECK_EQ(VFS(vfs, close, f), 0);
    CHECK_EQ(VFS(vfs, remove, "/"), -EBUSY);
    char name[300];
    memset(name, 'n', sizeof name);
    name[299] = '\0';
    CHECK_EQ(VFS(vfs, open, name, RW | LOAM_VFS_CREATE, &f), -ENAMETOOLONG);
}

Test(vfs_memory, handles_allow_what_they_were_opened_for)
{
    put_file(&c, "f", "x");
    loam_file *f;
    char b;
    void *p;
    CHECK_EQ(VFS(vfs, open, "/db/f", LOAM_VFS_READ, &f), 0);
    CHECK_EQ(VFS(vfs, write, f, "y", 1, 0), -EBADF);
    CHECK_EQ(VFS(vfs, truncate, f, 0), -EBADF);
    CHECK_EQ(VFS(vfs, map, f, 0, 4096, &p), -EACCES);
    CHECK_EQ(VFS(vfs, close, f), 0);
    CHECK_EQ(VFS(vfs, open, "/db/f", LOAM_VFS_WRITE, &f), 0);
    CHECK_EQ(VFS(vfs, read, f, &b, 1, 0), -EBADF);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

Test(vfs_memory, a_truncated_map_reads_zeros)
{
    loam_file *f;
    void *p;
    char b;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(vfs, truncate, f, 8192), 0);
    CHECK_EQ(VFS(vfs, map, f, 0, 8192, &p), 0);
    memset(p, 'm', 8192);
    CHECK_EQ(VFS(vfs, truncate, f, 100), 0);
    CHECK_EQ(VFS(vfs, truncate, f, 8192), 0);
    CHECK_EQ(((char *)p)[99], 'm');
    CHECK_EQ(((char *)p)[100], 0);
    CHECK_EQ(VFS(vfs, unmap, p, 8192), 0);
    CHECK_EQ(VFS(vfs, unmap, p, 8192), -EINVAL);
    CHECK_EQ(VFS(vfs, read, f, &b, 1, 8191), 1);
    CHECK_EQ(b, 0);
    CHECK_EQ(VFS(vfs, close, f), 0);
}

/* Random writes, cuts, reserves and maps of one file against a plain array. */
#define MODEL_BYTES 40960u

static void model_step(loam_file *f, uint8_t *model, uint64_t *size, struct random *r)
{
    uint8_t bytes[6000];
    uint64_t off = random_below(r, MODEL_BYTES), n = random_below(r, sizeof bytes);
    n = n < MODEL_BYTES - off ? n : MODEL_BYTES - off;
    switch (random_below(r, 4)) {
    case 0:
        memset(bytes, (int)random_next(r) & 0xff, sizeof bytes);
        CHECK_EQ(VFS(vfs, write, f, bytes, n, off), n);
        memcpy(model + off, bytes, n);
        *size = n > 0 && off + n > *size ? off + n : *size;
        break;
    case 1:
        CHECK_EQ(VFS(vfs, truncate, f, off), 0);
        if (off < *size) {
            memset(model + off, 0, *size - off);
        }
        *size = off;
        break;
    case 2:
        CHECK_EQ(VFS(vfs, reserve, f, off, n), 0);
        *size = n > 0 && off + n > *size ? off + n : *size;
        break;
    default: {
        off &= ~(uint64_t)4095;
        void *p;
        if (off + 4096 > *size) {
            break;
        }
        CHECK_EQ(VFS(vfs, map, f, off, 4096, &p), 0);
        CHECK_BYTES(p, 4096, model + off, 4096);
        memset((char *)p + 7, (int)random_next(r) & 0xff, 100);
        memcpy(model + off, p, 4096);
        CHECK_EQ(VFS(vfs, unmap, p, 4096), 0);
        break;
    }
    }
}

Test(vfs_memory, agrees_with_an_array)
{
    struct random r;
    random_init(&r, seed_of_run());
    static uint8_t model[MODEL_BYTES], back[MODEL_BYTES];
    uint64_t size = 0, told;
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, "/db/f", RW | LOAM_VFS_NEW, &f), 0);
    for (int i = 0; i < 20000; i++) {
        model_step(f, model, &size, &r);
        CHECK_EQ(VFS(vfs, size, f, &told), 0);
        CHECK_EQ(told, size);
        if (i % 8 == 0) {
            CHECK_EQ(VFS(vfs, read, f, back, sizeof back, 0), size);
            CHECK_BYTES(back, size, model, size);
        }
    }
    CHECK_EQ(VFS(vfs, close, f), 0);
}
