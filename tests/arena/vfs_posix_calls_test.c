/* vfs_posix_calls_test.c - What the system's calls answer reaches the caller of the vfs as its contract says.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The linker leads the calls of the C library here: they count, fail and move less than was asked for, as
 * disks and kernels do that are not at hand. Each test runs in a process and a temporary directory of its own.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "arena/vfs_full.h"
#include "tests/arena/vfs_posix_home.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define ALWAYS 0u

TestSuite(vfs_posix_calls, .init = setup, .fini = teardown);

/* ---- the calls ----------------------------------------------------------------------------------- */

struct call {
    int error;       /* what it fails with; 0: it does not */
    unsigned passes; /* calls before that */
    unsigned times;  /* calls that fail; or ALWAYS */
    size_t most;     /* bytes that one moves; 0: as many as it can */
    unsigned made;
};

static struct call data_sync, whole_sync, durable_write, plain_write, plain_read, set_size,
    set_aside, mapping, populating, other_advice, opening, next_name;
static int durable_flags; /* of the last durable write */
static mode_t synced;     /* st_mode of the descriptor last synced */
static char at_sync[8];   /* what its file began with */
static void *advised;     /* the memory last populated */

static void fail_with(struct call *k, int error, unsigned passes, unsigned times)
{
    *k = (struct call){.error = error, .passes = passes, .times = times};
}

static bool fails(struct call *k)
{
    unsigned n = k->made++;
    if (k->error == 0 || n < k->passes || (k->times != ALWAYS && n - k->passes >= k->times)) {
        return false;
    }
    errno = k->error;
    return true;
}

static size_t part(const struct call *k, size_t n)
{
    return k->most != 0 && k->most < n ? k->most : n;
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
ssize_t __real_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off);
ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off);
ssize_t __real_pwritev2(int fd, const struct iovec *parts, int count, off_t off, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t off, int flags);
int __real_ftruncate(int fd, off_t size);
int __wrap_ftruncate(int fd, off_t size);
int __real_fallocate(int fd, int mode, off_t off, off_t n);
int __wrap_fallocate(int fd, int mode, off_t off, off_t n);
void *__real_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off);
int __real_madvise(void *p, size_t n, int advice);
int __wrap_madvise(void *p, size_t n, int advice);
DIR *__real_opendir(const char *path);
DIR *__wrap_opendir(const char *path);
struct dirent *__real_readdir(DIR *d);
struct dirent *__wrap_readdir(DIR *d);

static int sync_by(int fd, struct call *k, int (*real)(int fd))
{
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    synced = st.st_mode;
    memset(at_sync, 0, sizeof at_sync);
    if (S_ISREG(synced)) {
        CHECK(__real_pread(fd, at_sync, sizeof at_sync, 0) >= 0);
    }
    return fails(k) ? -1 : real(fd);
}

int __wrap_fsync(int fd)
{
    return sync_by(fd, &whole_sync, __real_fsync);
}

int __wrap_fdatasync(int fd)
{
    return sync_by(fd, &data_sync, __real_fdatasync);
}

ssize_t __wrap_pread(int fd, void *buf, size_t n, off_t off)
{
    return fails(&plain_read) ? -1 : __real_pread(fd, buf, part(&plain_read, n), off);
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t off)
{
    return fails(&plain_write) ? -1 : __real_pwrite(fd, buf, part(&plain_write, n), off);
}

/* Works where the system does not know the flags, too. */
ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t off, int flags)
{
    CHECK_EQ(count, 1);
    durable_flags = flags;
    if (fails(&durable_write)) {
        return -1;
    }
    const struct iovec first = {parts->iov_base, part(&durable_write, parts->iov_len)};
    ssize_t put = __real_pwritev2(fd, &first, 1, off, flags);
    return put < 0 && errno == EOPNOTSUPP ? __real_pwrite(fd, first.iov_base, first.iov_len, off)
                                          : put;
}

int __wrap_ftruncate(int fd, off_t size)
{
    return fails(&set_size) ? -1 : __real_ftruncate(fd, size);
}

int __wrap_fallocate(int fd, int mode, off_t off, off_t n)
{
    return fails(&set_aside) ? -1 : __real_fallocate(fd, mode, off, n);
}

void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
    return fd >= 0 && fails(&mapping) ? MAP_FAILED : __real_mmap(at, n, prot, flags, fd, off);
}

int __wrap_madvise(void *p, size_t n, int advice)
{
    bool populates = advice == MADV_POPULATE_WRITE;
    advised = populates ? p : advised;
    return fails(populates ? &populating : &other_advice) ? -1 : __real_madvise(p, n, advice);
}

DIR *__wrap_opendir(const char *path)
{
    return fails(&opening) ? NULL : __real_opendir(path);
}

struct dirent *__wrap_readdir(DIR *d)
{
    return fails(&next_name) ? NULL : __real_readdir(d);
}

static loam_file *new_file(const char *name, const char *text)
{
    loam_file *f;
    put_file(&c, name, text);
    CHECK_EQ(VFS(c.vfs, open, at(&c, 0, name), RW, &f), 0);
    return f;
}

/* The number that the next descriptor gets: the same as before when none has leaked. */
static int next_descriptor(void)
{
    int fd = open("/dev/null", O_RDONLY);
    close(fd);
    return fd;
}

/* ---- syncs and durable writes -------------------------------------------------------------------- */

Test(vfs_posix_calls, syncs_reach_the_system_and_their_errors_the_caller)
{
    loam_file *f = new_file("f", "x");
    CHECK_EQ(VFS(c.vfs, sync, f, 1), 0);
    CHECK_EQ(data_sync.made, 1);
    CHECK_EQ(whole_sync.made, 0);
    CHECK_EQ(VFS(c.vfs, sync, f, 0), 0);
    CHECK_EQ(whole_sync.made, 1);
    CHECK(S_ISREG(synced));
    CHECK_EQ(VFS(c.vfs, sync_dir, dir), 0);
    CHECK_EQ(whole_sync.made, 2);
    CHECK(S_ISDIR(synced));
    fail_with(&data_sync, EIO, 0, ALWAYS);
    fail_with(&whole_sync, EIO, 0, ALWAYS);
    CHECK_EQ(VFS(c.vfs, sync, f, 1), -EIO);
    CHECK_EQ(VFS(c.vfs, sync, f, 0), -EIO);
    CHECK_EQ(VFS(c.vfs, sync_dir, dir), -EIO);
    CHECK_EQ(data_sync.made, 1); /* it is final */
    CHECK_EQ(whole_sync.made, 2);
    fail_with(&data_sync, EINTR, 0, 2);
    fail_with(&whole_sync, EINTR, 0, 2);
    CHECK_EQ(VFS(c.vfs, sync, f, 1), 0);
    CHECK_EQ(data_sync.made, 3);
    CHECK_EQ(VFS(c.vfs, sync_dir, dir), 0);
    CHECK_EQ(whole_sync.made, 3);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

Test(vfs_posix_calls, a_durable_write_says_so_and_needs_no_sync)
{
    loam_file *f = new_file("f", "abcdef");
    CHECK_EQ(durable_write.made, 0);
    CHECK_EQ(VFS(c.vfs, write_durable, f, "123", 3, 1), 3);
    CHECK_EQ(durable_write.made, 1);
    CHECK_EQ(durable_flags, RWF_DSYNC);
    CHECK_EQ(data_sync.made + whole_sync.made, 0);
    fail_with(&durable_write, EINTR, 0, 2);
    CHECK_EQ(VFS(c.vfs, write_durable, f, "4", 1, 4), 1);
    CHECK_EQ(durable_write.made, 3);
    CHECK_EQ(durable_flags, RWF_DSYNC);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    expect_file(&c, "f", "a1234f");
}

/* Where the system writes less than was asked for, the rest is durable, too. */
Test(vfs_posix_calls, the_rest_of_a_short_durable_write_is_durable)
{
    loam_file *f = new_file("f", "");
    durable_write = (struct call){.most = 2};
    CHECK_EQ(VFS(c.vfs, write_durable, f, "abcde", 5, 0), 2);
    durable_write = (struct call){.most = 2};
    CHECK_EQ(vfs_write_durable_full(c.vfs, f, "12345", 5, 0), 0);
    CHECK_EQ(durable_write.made, 3);
    CHECK_EQ(durable_flags, RWF_DSYNC);
    CHECK_EQ(data_sync.made + whole_sync.made, 0);
    expect_file(&c, "f", "12345");

    fail_with(&durable_write, EOPNOTSUPP, 0, ALWAYS);
    plain_write = (struct call){.most = 2};
    CHECK_EQ(vfs_write_durable_full(c.vfs, f, "abcde", 5, 0), 0);
    CHECK_EQ(data_sync.made, 3);
    CHECK_BYTES(at_sync, 5, "abcde", 5);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

static const int not_known[] = {EOPNOTSUPP, ENOSYS, EINVAL};

Test(vfs_posix_calls, a_system_without_durable_writes_gets_a_write_and_a_sync)
{
    for (unsigned i = 0; i < sizeof not_known / sizeof not_known[0]; i++) {
        loam_file *f = new_file("f", "");
        fail_with(&durable_write, not_known[i], 0, ALWAYS);
        data_sync = plain_write = (struct call){.made = 0};
        CHECK_EQ(VFS(c.vfs, write_durable, f, "abc", 3, 0), 3);
        CHECK_EQ(plain_write.made, 1);
        CHECK_EQ(data_sync.made, 1);
        CHECK_EQ(whole_sync.made, 0);
        CHECK_BYTES(at_sync, 4, "abc", 4); /* after the bytes */
        CHECK_EQ(VFS(c.vfs, close, f), 0);
        expect_file(&c, "f", "abc");
    }
}

Test(vfs_posix_calls, errors_of_that_write_and_that_sync_reach_the_caller)
{
    for (unsigned i = 0; i < sizeof not_known / sizeof not_known[0]; i++) {
        loam_file *f = new_file("f", "");
        fail_with(&durable_write, not_known[i], 0, ALWAYS);
        fail_with(&data_sync, EIO, 0, 1);
        CHECK_EQ(VFS(c.vfs, write_durable, f, "abc", 3, 0), -EIO);
        CHECK_EQ(data_sync.made, 1);
        fail_with(&data_sync, EINTR, 0, 1);
        CHECK_EQ(VFS(c.vfs, write_durable, f, "abc", 3, 0), 3);
        CHECK_EQ(data_sync.made, 2);
        fail_with(&plain_write, ENOSPC, 0, 1);
        CHECK_EQ(VFS(c.vfs, write_durable, f, "abc", 3, 0), -ENOSPC);
        CHECK_EQ(VFS(c.vfs, close, f), 0);
    }
}

Test(vfs_posix_calls, other_errors_of_a_durable_write_are_final)
{
    static const int errors[] = {EIO, ENOSPC, EDQUOT, EAGAIN};
    loam_file *f = new_file("f", "");
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fail_with(&durable_write, errors[i], 0, ALWAYS);
        data_sync = plain_write = (struct call){.made = 0};
        CHECK_EQ(VFS(c.vfs, write_durable, f, "abc", 3, 0), -errors[i]);
        CHECK_EQ(durable_write.made, 1);
        CHECK_EQ(plain_write.made + data_sync.made + whole_sync.made, 0);
    }
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

/* ---- bytes and sizes ------------------------------------------------------------------------------ */

Test(vfs_posix_calls, a_read_goes_on_until_it_is_whole_or_at_the_end)
{
    char buf[8];
    loam_file *f = new_file("f", "abcdef");
    plain_read = (struct call){.error = EINTR, .passes = 1, .times = 2, .most = 2};
    CHECK_EQ(VFS(c.vfs, read, f, buf, 5, 1), 5);
    CHECK_BYTES(buf, 5, "bcdef", 5);
    CHECK_EQ(plain_read.made, 5);
    plain_read = (struct call){.most = 4};
    CHECK_EQ(VFS(c.vfs, read, f, buf, sizeof buf, 0), 6);
    CHECK_BYTES(buf, 6, "abcdef", 6);
    /* An error behind a part is an error: fewer bytes would say that the file ends there. */
    plain_read = (struct call){.error = EIO, .passes = 1, .most = 2};
    CHECK_EQ(VFS(c.vfs, read, f, buf, 5, 0), -EIO);
    CHECK_EQ(plain_read.made, 2);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

Test(vfs_posix_calls, a_write_tells_what_it_moved_or_its_error)
{
    loam_file *f = new_file("f", "");
    plain_write = (struct call){.error = EINTR, .times = 2, .most = 2};
    CHECK_EQ(VFS(c.vfs, write, f, "abcd", 4, 0), 2);
    CHECK_EQ(plain_write.made, 3);
    fail_with(&plain_write, ENOSPC, 0, 1);
    CHECK_EQ(VFS(c.vfs, write, f, "abcd", 4, 0), -ENOSPC);
    CHECK_EQ(plain_write.made, 1);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    expect_file(&c, "f", "ab");
}

Test(vfs_posix_calls, a_size_that_cannot_be_set_is_an_error)
{
    static const int errors[] = {EIO, ENOSPC, EFBIG, EPERM};
    loam_file *f = new_file("f", "abc");
    fail_with(&set_size, EINTR, 0, 2);
    CHECK_EQ(VFS(c.vfs, truncate, f, 2), 0);
    CHECK_EQ(set_size.made, 3);
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fail_with(&set_size, errors[i], 0, 1);
        CHECK_EQ(VFS(c.vfs, truncate, f, 0), -errors[i]);
        CHECK_EQ(set_size.made, 1);
    }
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    int before = next_descriptor();
    fail_with(&set_size, EIO, 0, 1);
    CHECK_EQ(open_result(&c, "f", RW | LOAM_VFS_TRUNCATE), -EIO);
    CHECK_EQ(next_descriptor(), before);
    expect_file(&c, "f", "ab");
    fail_with(&set_size, EINTR, 0, 2);
    CHECK_EQ(open_result(&c, "f", RW | LOAM_VFS_TRUNCATE), 0);
    expect_file(&c, "f", "");
}

Test(vfs_posix_calls, space_that_cannot_be_set_aside_is_told_from_a_system_that_never_can)
{
    static const int errors[][2] = {{ENOSYS, EOPNOTSUPP}, {EOPNOTSUPP, EOPNOTSUPP},
                                    {ENOSPC, ENOSPC},     {EDQUOT, EDQUOT},
                                    {EIO, EIO},           {EFBIG, EFBIG}};
    loam_file *f = new_file("f", "abc");
    uint64_t size;
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fail_with(&set_aside, errors[i][0], 0, 1);
        CHECK_EQ(VFS(c.vfs, reserve, f, 0, 4096), -errors[i][1]);
        CHECK_EQ(set_aside.made, 1);
        CHECK_EQ(VFS(c.vfs, size, f, &size), 0);
        CHECK_EQ(size, 3);
    }
    fail_with(&set_aside, EINTR, 0, 2);
    int rc = VFS(c.vfs, reserve, f, 0, 4096);
    CHECK(rc == 0 || rc == -EOPNOTSUPP);
    CHECK_EQ(set_aside.made, 3);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

/* ---- maps and names ------------------------------------------------------------------------------- */

static bool is_mapped(void *p)
{
    unsigned char in_core;
    return mincore(p, 4096, &in_core) == 0;
}

Test(vfs_posix_calls, a_map_whose_pages_are_not_all_there_is_none)
{
    static const int errors[][2] = {{EFAULT, EIO},
                                    {EINVAL, EOPNOTSUPP},
                                    {ENOMEM, ENOMEM},
                                    {ENOSPC, ENOSPC},
                                    {EHWPOISON, EHWPOISON}};
    loam_file *f = new_file("f", "");
    void *p = NULL;
    CHECK_EQ(VFS(c.vfs, truncate, f, 8192), 0);
    for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        fail_with(&populating, errors[i][0], 0, 1);
        CHECK_EQ(VFS(c.vfs, map, f, 4096, 4096, &p), -errors[i][1]);
        CHECK_EQ(populating.made, 1);
        CHECK(advised != NULL && !is_mapped(advised));
    }
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

Test(vfs_posix_calls, populating_a_map_is_made_again_and_other_advice_is_a_wish)
{
    static const int passing[] = {EINTR, EAGAIN};
    loam_file *f = new_file("f", "");
    void *p;
    CHECK_EQ(VFS(c.vfs, truncate, f, 4096), 0);
    for (unsigned i = 0; i < 2; i++) {
        fail_with(&populating, passing[i], 0, 2);
        fail_with(&other_advice, EINVAL, 0, ALWAYS);
        int rc = VFS(c.vfs, map, f, 0, 4096, &p);
        CHECK_EQ(populating.made, 3);
        CHECK(rc == 0 || rc == -EOPNOTSUPP);
        if (rc == 0) {
            CHECK_EQ(VFS(c.vfs, unmap, p, 4096), 0);
        }
    }
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

static int note_name_and_spoil_errno(void *ctx, loam_slice name)
{
    int rc = list_name(ctx, name);
    errno = EIO;
    return rc;
}

Test(vfs_posix_calls, a_directory_that_cannot_be_read_to_its_end_is_an_error)
{
    put_file(&c, "a", "");
    put_file(&c, "b", "");
    int before = next_descriptor();
    for (unsigned passes = 0; passes < 5; passes++) { /* . and .. and two names, and the end */
        struct listing l = {0};
        fail_with(&next_name, EIO, passes, ALWAYS);
        CHECK_EQ(VFS(c.vfs, list, dir, list_name, &l), -EIO);
        CHECK_EQ(next_name.made, passes + 1);
        CHECK(l.calls <= passes);
        CHECK_EQ(next_descriptor(), before);
    }
    for (unsigned passes = 0; passes < 5; passes++) {
        struct listing l = {0};
        fail_with(&opening, EINTR, 0, 2);
        fail_with(&next_name, EINTR, passes, 2);
        CHECK_EQ(VFS(c.vfs, list, dir, note_name_and_spoil_errno, &l), 0);
        CHECK(l.a && l.b && l.calls == 2);
    }
    struct listing l = {0};
    fail_with(&opening, EMFILE, 0, ALWAYS);
    CHECK_EQ(VFS(c.vfs, list, dir, list_name, &l), -EMFILE);
    CHECK_EQ(l.calls, 0);
}

/* ---- reads that are none ------------------------------------------------------------------------- */

static unsigned reads_of(const loam_vfs *vfs, uint32_t flags, size_t n, uint64_t off)
{
    static char buf[20000];
    loam_file *f;
    CHECK_EQ(VFS(vfs, open, at(&c, 0, "read"), flags, &f), 0);
    plain_read.made = 0;
    CHECK(VFS(vfs, read, f, buf, n, off) >= 0);
    unsigned made = plain_read.made;
    CHECK_EQ(VFS(vfs, close, f), 0);
    return made;
}

/* Of files opened for reading alone, and only what is inside the file and small. */
Test(vfs_posix_calls, small_reads_of_mapped_files_are_no_calls)
{
    static const char zeros[20000];
    const loam_vfs *mapped = loam_vfs_os_mapped();
    loam_file *f;
    CHECK_EQ(VFS(c.vfs, open, at(&c, 0, "read"), RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(c.vfs, write, f, zeros, sizeof zeros, 0), sizeof zeros);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    CHECK_EQ(reads_of(mapped, LOAM_VFS_READ, 4096, 0), 0);
    CHECK_EQ(reads_of(mapped, LOAM_VFS_READ, 8192, sizeof zeros - 8192), 0);
    CHECK(reads_of(mapped, LOAM_VFS_READ, 8193, 0) != 0);
    CHECK(reads_of(mapped, LOAM_VFS_READ, 4096, sizeof zeros - 4095) != 0);
    CHECK(reads_of(mapped, RW, 4096, 0) != 0);
    CHECK(reads_of(c.vfs, LOAM_VFS_READ, 4096, 0) != 0);
    fail_with(&mapping, ENOMEM, 0, ALWAYS);
    CHECK(reads_of(mapped, LOAM_VFS_READ, 4096, 0) != 0);
    CHECK(mapping.made != 0);
}
