/* vfs_posix_test.c - The operating system's vfs keeps the contract and is not led astray by links.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each test runs in a fresh temporary directory; the oracle is vfs_contract.h and the system's own
 * calls.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arena/vfs_full.h"
#include "tests/arena/vfs_posix_home.h"

TestSuite(vfs_posix, .init = setup, .fini = teardown);

Test(vfs_posix, opens_by_its_flags)
{
    contract_open_flags(&c);
}

Test(vfs_posix, moves_bytes)
{
    contract_read_write(&c);
}

Test(vfs_posix, keeps_names)
{
    contract_names(&c);
}

Test(vfs_posix, takes_a_name_with_a_slash_for_a_directory)
{
    contract_slashes(&c);
}

Test(vfs_posix, lists_a_directory)
{
    contract_list(&c);
}

Test(vfs_posix, locks_once)
{
    contract_is_named(&c);
    contract_lock(&c);
}

Test(vfs_posix, maps_shared_memory)
{
    contract_map(&c);
}

Test(vfs_posix, tells_space_time_and_chance)
{
    contract_rest(&c);
}

Test(vfs_posix, creates_for_the_owner_alone)
{
    umask(0);
    put_file(&c, "f", "x");
    CHECK_EQ(VFS(c.vfs, mkdir, at(&c, 0, "d")), 0);
    struct stat st;
    CHECK_EQ(stat(at(&c, 0, "f"), &st), 0);
    CHECK_EQ(st.st_mode & 0777, 0600);
    CHECK_EQ(stat(at(&c, 0, "d"), &st), 0);
    CHECK_EQ(st.st_mode & 0777, 0700);
}

Test(vfs_posix, refuses_links_pipes_and_devices)
{
    put_file(&c, "canary", "untouched");
    CHECK_EQ(symlink("canary", at(&c, 0, "link")), 0);
    CHECK_EQ(symlink("nowhere", at(&c, 0, "dangling")), 0);
    CHECK_EQ(mkfifo(at(&c, 0, "pipe"), 0600), 0);
    CHECK_EQ(open_result(&c, "link", RW | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE), -ELOOP);
    CHECK_EQ(open_result(&c, "dangling", RW | LOAM_VFS_CREATE), -ELOOP);
    CHECK_EQ(open_result(&c, "pipe", LOAM_VFS_READ), -EINVAL);
    CHECK_EQ(open_result(&c, "pipe", LOAM_VFS_WRITE), -EINVAL);
    CHECK_EQ(open_result(&c, "pipe", RW), -EINVAL);
    loam_file *f;
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "link"), &f), -ELOOP);
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "pipe"), &f), -EINVAL);
    CHECK_EQ(VFS(c.vfs, open, "/dev/null", RW, &f), -EINVAL);
    expect_file(&c, "canary", "untouched");
    CHECK_EQ(open_result(&c, "dangling", LOAM_VFS_READ), -ELOOP);
}

Test(vfs_posix, writes_to_no_file_with_other_names)
{
    put_file(&c, "canary", "untouched");
    CHECK_EQ(link(at(&c, 0, "canary"), at(&c, 1, "linked")), 0);
    CHECK_EQ(open_result(&c, "linked", LOAM_VFS_READ), 0);
    CHECK_EQ(open_result(&c, "linked", LOAM_VFS_WRITE), -EMLINK);
    CHECK_EQ(open_result(&c, "linked", RW | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE), -EMLINK);
    expect_file(&c, "canary", "untouched");
    loam_file *f;
    CHECK_EQ(vfs_open_own(c.vfs, at(&c, 0, "linked"), RW | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, &f), 0);
    CHECK_EQ(VFS(c.vfs, write, f, "own", 3, 0), 3);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    expect_file(&c, "canary", "untouched");
    expect_file(&c, "linked", "own");
}

/* As somebody does who forks workers and closes the database: the lock is not theirs to keep. */
Test(vfs_posix, unlocks_by_its_close_though_a_child_forked_before_lives_on)
{
    loam_file *f;
    int end[2];
    char byte;
    CHECK_EQ(pipe(end), 0);
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), 0);
    pid_t child = fork();
    if (child == 0) {
        close(end[1]);
        _exit(read(end[0], &byte, 1) != 0); /* until the parent closes its end */
    }
    CHECK_EQ(VFS(c.vfs, close, f), 0);
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), 0);
    close(end[1]);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

/* A child that closes what it inherited takes nothing from its parent. */
Test(vfs_posix, stays_locked_when_a_child_forked_since_closes_it)
{
    loam_file *f, *g;
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), 0);
    pid_t child = fork();
    if (child == 0) {
        VFS(c.vfs, close, f);
        _exit(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &g) != -EAGAIN);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

Test(vfs_posix, locks_out_other_processes_until_death)
{
    int ready[2];
    CHECK_EQ(pipe(ready), 0);
    pid_t child = fork();
    loam_file *f;
    if (child == 0) {
        int rc = VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f);
        CHECK_EQ(write(ready[1], &rc, sizeof rc), sizeof rc);
        pause();
        _exit(0);
    }
    int rc = -1;
    CHECK_EQ(read(ready[0], &rc, sizeof rc), sizeof rc);
    CHECK_EQ(rc, 0);
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), -EAGAIN);
    kill(child, SIGKILL);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), 0);
    CHECK_EQ(VFS(c.vfs, close, f), 0);
}

Test(vfs_posix, leaks_no_descriptor)
{
    int before = open("/dev/null", O_RDONLY);
    close(before);
    for (int i = 0; i < 50; i++) {
        put_file(&c, "f", "x");
        CHECK_EQ(VFS(c.vfs, sync_dir, dir), 0);
        open_result(&c, "f", RW | LOAM_VFS_NEW);
        open_result(&c, "..", RW);
        struct listing l = {0};
        CHECK_EQ(VFS(c.vfs, list, dir, list_name, &l), 0);
        loam_file *f, *g;
        CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &f), 0);
        CHECK_EQ(VFS(c.vfs, lock, at(&c, 0, "LOCK"), &g), -EAGAIN);
        CHECK_EQ(VFS(c.vfs, close, f), 0);
    }
    int after = open("/dev/null", O_RDONLY);
    close(after);
    CHECK_EQ(before, after);
}

/* Where a program was started with its standard error closed, whatever it writes there would go into the
 * file that got the number. */
Test(vfs_posix, no_file_takes_the_number_of_a_standard_stream)
{
    put_file(&c, "f", "");
    const char *path = at(&c, 0, "f");
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const loam_vfs *os = loam_vfs_os();
        loam_file *f;
        close(0), close(1), close(2);
        int rc = VFS(os, open, path, RW, &f);
        rc = rc == 0 && write(0, "text", 4) + write(1, "text", 4) + write(2, "text", 4) == -3 ? 0 : 1;
        rc = rc == 0 ? VFS(os, close, f) : rc;
        rc = rc == 0 ? VFS(os, lock, path, &f) : rc;
        rc = rc == 0 && write(0, "text", 4) + write(1, "text", 4) + write(2, "text", 4) == -3 ? 0 : 1;
        rc = rc == 0 ? VFS(os, close, f) : rc;
        _exit(rc != 0);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    expect_file(&c, "f", "");
}
