/* vfs_contract.h - What every vfs promises, checked on any of them inside a directory.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ARENA_VFS_CONTRACT_H_
#define LOAM_TESTS_ARENA_VFS_CONTRACT_H_

#include "arena/vfs.h"

#include <errno.h>
#include <string.h>

#include "tests/support/check.h"

#define VFS(v, call, ...) ((v)->call((v)->ctx, __VA_ARGS__))
#define RW                (LOAM_VFS_READ | LOAM_VFS_WRITE)

struct contract {
    const loam_vfs *vfs;
    const char *dir;
    char paths[4][256];
};

/* dir/name, in one of four buffers that take turns with `slot`. */
static inline const char *at(struct contract *c, unsigned slot, const char *name)
{
    snprintf(c->paths[slot], sizeof c->paths[slot], "%s/%s", c->dir, name);
    return c->paths[slot];
}

static inline void put_file(struct contract *c, const char *name, const char *text)
{
    loam_file *f;
    CHECK_EQ(VFS(c->vfs, open, at(c, 3, name), RW | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE, &f), 0);
    CHECK_EQ(VFS(c->vfs, write, f, text, strlen(text), 0), (int64_t)strlen(text));
    CHECK_EQ(VFS(c->vfs, close, f), 0);
}

static inline void expect_file(struct contract *c, const char *name, const char *text)
{
    char buf[256];
    loam_file *f;
    CHECK_EQ(VFS(c->vfs, open, at(c, 3, name), LOAM_VFS_READ, &f), 0);
    int64_t n = VFS(c->vfs, read, f, buf, sizeof buf, 0);
    CHECK(n >= 0);
    CHECK_BYTES(buf, (size_t)n, text, strlen(text));
    CHECK_EQ(VFS(c->vfs, close, f), 0);
}

static inline int open_result(struct contract *c, const char *name, uint32_t flags)
{
    loam_file *f;
    int rc = VFS(c->vfs, open, at(c, 3, name), flags, &f);
    if (rc == 0) {
        CHECK_EQ(VFS(c->vfs, close, f), 0);
    }
    return rc;
}

static inline void contract_open_flags(struct contract *c)
{
    CHECK_EQ(open_result(c, "a", RW), -ENOENT);
    CHECK_EQ(open_result(c, "no/such", RW | LOAM_VFS_CREATE), -ENOENT);
    CHECK_EQ(open_result(c, "a", RW | LOAM_VFS_NEW), 0);
    CHECK_EQ(open_result(c, "a", RW | LOAM_VFS_NEW), -EEXIST);
    put_file(c, "a", "one");
    CHECK_EQ(open_result(c, "a", RW | LOAM_VFS_CREATE), 0);
    expect_file(c, "a", "one");
    CHECK_EQ(open_result(c, "a", RW | LOAM_VFS_TRUNCATE), 0);
    expect_file(c, "a", "");
    put_file(c, "a", "one");
    CHECK_EQ(open_result(c, "a", LOAM_VFS_READ | LOAM_VFS_TRUNCATE), -EINVAL);
    expect_file(c, "a", "one");
    CHECK_EQ(open_result(c, "new", LOAM_VFS_READ | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE), -EINVAL);
    CHECK_EQ(open_result(c, "new", LOAM_VFS_READ), -ENOENT);
    CHECK_EQ(open_result(c, "a/b", RW), -ENOTDIR);
    CHECK_EQ(VFS(c->vfs, mkdir, at(c, 0, "d")), 0);
    CHECK_EQ(VFS(c->vfs, mkdir, at(c, 0, "d")), -EEXIST);
    CHECK_EQ(open_result(c, "d", LOAM_VFS_READ), -EISDIR);
    CHECK_EQ(open_result(c, "d", RW), -EISDIR);
}

static inline void contract_read_write(struct contract *c)
{
    loam_file *f;
    static char big[10000], back[20000];
    memset(big, 'x', sizeof big);
    CHECK_EQ(VFS(c->vfs, open, at(c, 0, "f"), RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(c->vfs, write, f, big, sizeof big, 5000), sizeof big);
    uint64_t size;
    CHECK_EQ(VFS(c->vfs, size, f, &size), 0);
    CHECK_EQ(size, 15000);
    CHECK_EQ(VFS(c->vfs, read, f, back, sizeof back, 0), 15000);
    for (size_t i = 0; i < 15000; i++) {
        CHECK_EQ(back[i], i < 5000 ? 0 : 'x');
    }
    CHECK_EQ(VFS(c->vfs, read, f, back, 10, 14995), 5);
    CHECK_EQ(VFS(c->vfs, read, f, back, 10, 15000), 0);
    CHECK_EQ(VFS(c->vfs, read, f, back, 10, 1u << 30), 0);
    /* What a cut removed does not come back. */
    CHECK_EQ(VFS(c->vfs, truncate, f, 6000), 0);
    CHECK_EQ(VFS(c->vfs, truncate, f, 7000), 0);
    CHECK_EQ(VFS(c->vfs, read, f, back, sizeof back, 0), 7000);
    CHECK_EQ(back[5999], 'x');
    CHECK_EQ(back[6000], 0);
    CHECK_EQ(back[6999], 0);
    CHECK_EQ(VFS(c->vfs, sync, f, 0), 0);
    CHECK_EQ(VFS(c->vfs, sync, f, 1), 0);
    CHECK_EQ(VFS(c->vfs, advise, f, 0, 4096, LOAM_ADVISE_WILLNEED), 0);
    CHECK_EQ(VFS(c->vfs, advise, f, 0, 4096, LOAM_ADVISE_WRITEBACK), 0);
    if (c->vfs->write_durable != NULL) {
        CHECK_EQ(VFS(c->vfs, write_durable, f, "xxx", 3, 5100), 3);
        CHECK_EQ(VFS(c->vfs, read, f, back, 10, 5097), 10);
        CHECK_BYTES(back, 10, "xxxxxxxxxx", 10);
    }
    int rc = VFS(c->vfs, reserve, f, 4096, 8192);
    CHECK(rc == 0 || rc == -EOPNOTSUPP);
    CHECK_EQ(VFS(c->vfs, size, f, &size), 0);
    CHECK_EQ(size, rc == 0 ? 12288 : 7000);
    CHECK_EQ(VFS(c->vfs, read, f, back, 10, 5995), 10);
    CHECK_BYTES(back, 10, "xxxxx\0\0\0\0\0", 10);
    CHECK_EQ(VFS(c->vfs, write, f, "y", 1, ((uint64_t)1 << 32) + 1), 1);
    CHECK_EQ(VFS(c->vfs, size, f, &size), 0);
    CHECK_EQ(size, ((int64_t)1 << 32) + 2);
    CHECK_EQ(VFS(c->vfs, write, f, "y", 1, UINT64_MAX), -EFBIG);
    CHECK_EQ(VFS(c->vfs, close, f), 0);
}

static inline void contract_names(struct contract *c)
{
    const loam_vfs *v = c->vfs;
    loam_file *f;
    char buf[16];
    put_file(c, "a", "A");
    put_file(c, "b", "B");
    CHECK_EQ(VFS(v, rename, at(c, 0, "none"), at(c, 1, "b")), -ENOENT);
    CHECK_EQ(VFS(v, open, at(c, 0, "b"), LOAM_VFS_READ, &f), 0);
    CHECK_EQ(VFS(v, rename, at(c, 0, "a"), at(c, 1, "b")), 0);
    expect_file(c, "b", "A");
    CHECK_EQ(open_result(c, "a", LOAM_VFS_READ), -ENOENT);
    /* An open file outlives its name. */
    CHECK_EQ(VFS(v, read, f, buf, sizeof buf, 0), 1);
    CHECK_EQ(buf[0], 'B');
    CHECK_EQ(VFS(v, close, f), 0);

    CHECK_EQ(VFS(v, link, at(c, 0, "b"), at(c, 1, "l")), 0);
    CHECK_EQ(VFS(v, link, at(c, 0, "b"), at(c, 1, "l")), -EEXIST);
    CHECK_EQ(VFS(v, link, at(c, 0, "none"), at(c, 1, "m")), -ENOENT);
    CHECK_EQ(VFS(v, rename, at(c, 0, "b"), at(c, 1, "l")), 0); /* one file: both names stay */
    CHECK_EQ(VFS(v, remove, at(c, 0, "b")), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "b")), -ENOENT);
    expect_file(c, "l", "A");

    CHECK_EQ(VFS(v, mkdir, at(c, 0, "d")), 0);
    put_file(c, "d/x", "X");
    CHECK(VFS(v, remove, at(c, 0, "d")) < 0);
    CHECK_EQ(VFS(v, rename, at(c, 0, "l"), at(c, 1, "d")), -EISDIR);
    CHECK_EQ(VFS(v, rename, at(c, 0, "d"), at(c, 1, "l")), -ENOTDIR);
    CHECK_EQ(VFS(v, rename, at(c, 0, "d"), at(c, 1, "d/e")), -EINVAL);
    CHECK_EQ(VFS(v, rename, at(c, 0, "d"), at(c, 1, "e")), 0);
    expect_file(c, "e/x", "X");
    expect_file(c, "e/../e/./x", "X");
    CHECK_EQ(VFS(v, rename, at(c, 0, "e/x"), at(c, 1, "x")), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "e")), 0);
    CHECK_EQ(VFS(v, sync_dir, at(c, 0, "e")), -ENOENT);
    CHECK_EQ(VFS(v, sync_dir, at(c, 0, "x")), -ENOTDIR);
    CHECK_EQ(VFS(v, sync_dir, c->dir), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "x")), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "l")), 0);
}

/* A '/' at the end says that the name is a directory's. */
static inline void contract_slashes(struct contract *c)
{
    const loam_vfs *v = c->vfs;
    loam_file *f;
    put_file(c, "file", "text");
    CHECK_EQ(VFS(v, mkdir, at(c, 0, "dir/")), 0);
    CHECK(VFS(v, mkdir, at(c, 0, "file/")) < 0);
    CHECK_EQ(VFS(v, mkdir, at(c, 0, "file/x")), -ENOTDIR);
    CHECK_EQ(open_result(c, "file/", LOAM_VFS_READ), -ENOTDIR);
    CHECK_EQ(open_result(c, "file/.", LOAM_VFS_READ), -ENOTDIR);
    CHECK_EQ(open_result(c, "file//x", RW | LOAM_VFS_CREATE), -ENOTDIR);
    CHECK_EQ(open_result(c, "dir/", RW), -EISDIR);
    CHECK_EQ(open_result(c, "new/", RW), -ENOENT);
    CHECK_EQ(open_result(c, "new/", RW | LOAM_VFS_CREATE), -EISDIR);
    CHECK(VFS(v, lock, at(c, 0, "file/"), &f) < 0); /* systems differ */
    CHECK_EQ(VFS(v, lock, at(c, 0, "new/"), &f), -EISDIR);
    CHECK_EQ(VFS(v, link, at(c, 0, "file/"), at(c, 1, "new")), -ENOTDIR);
    CHECK_EQ(VFS(v, link, at(c, 0, "file"), at(c, 1, "new/")), -ENOENT);
    CHECK_EQ(VFS(v, link, at(c, 0, "file"), at(c, 1, "file/x")), -ENOTDIR);
    CHECK_EQ(VFS(v, rename, at(c, 0, "file/"), at(c, 1, "new")), -ENOTDIR);
    CHECK_EQ(VFS(v, rename, at(c, 0, "file"), at(c, 1, "new/")), -ENOTDIR);
    CHECK_EQ(VFS(v, remove, at(c, 0, "file/")), -ENOTDIR);
    CHECK_EQ(VFS(v, sync_dir, at(c, 0, "file/")), -ENOTDIR);
    CHECK_EQ(VFS(v, rename, at(c, 0, "dir/"), at(c, 1, "new/")), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "new/")), 0);
    expect_file(c, "file", "text");
    CHECK_EQ(VFS(v, remove, at(c, 0, "file")), 0);
}

struct listing {
    unsigned calls, stop_after;
    bool a, b;
};

static inline int list_name(void *ctx, loam_slice name)
{
    struct listing *l = ctx;
    l->a |= name.size == 1 && memcmp(name.data, "a", 1) == 0;
    l->b |= name.size == 1 && memcmp(name.data, "b", 1) == 0;
    return ++l->calls == l->stop_after;
}

static inline void contract_list(struct contract *c)
{
    CHECK_EQ(VFS(c->vfs, mkdir, at(c, 0, "ls")), 0);
    struct listing l = {0};
    CHECK_EQ(VFS(c->vfs, list, at(c, 0, "ls"), list_name, &l), 0);
    CHECK_EQ(l.calls, 0);
    put_file(c, "ls/a", "");
    put_file(c, "ls/b", "");
    CHECK_EQ(VFS(c->vfs, list, at(c, 0, "ls"), list_name, &l), 0);
    CHECK(l.a && l.b && l.calls == 2);
    l = (struct listing){.stop_after = 1};
    CHECK_EQ(VFS(c->vfs, list, at(c, 0, "ls"), list_name, &l), 0);
    CHECK_EQ(l.calls, 1);
    CHECK_EQ(VFS(c->vfs, list, at(c, 0, "none"), list_name, &l), -ENOENT);
}

static inline void contract_is_named(struct contract *c)
{
    const loam_vfs *v = c->vfs;
    loam_file *f;
    put_file(c, "one", "1");
    put_file(c, "two", "2");
    CHECK_EQ(VFS(v, mkdir, at(c, 0, "names")), 0);
    CHECK_EQ(VFS(v, open, at(c, 0, "one"), RW, &f), 0);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "one")), 0);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "two")), -ESTALE);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "names")), -ESTALE);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "three")), -ENOENT);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "no/such")), -ENOENT);
    CHECK_EQ(VFS(v, rename, at(c, 0, "one"), at(c, 1, "names/uno")), 0);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "one")), -ENOENT);
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "names/uno")), 0);
    CHECK_EQ(VFS(v, remove, at(c, 0, "names/uno")), 0);
    put_file(c, "names/uno", "1"); /* the same name and bytes */
    CHECK_EQ(VFS(v, is_named, f, at(c, 0, "names/uno")), -ESTALE);
    CHECK_EQ(VFS(v, close, f), 0);
}

static inline void contract_lock(struct contract *c)
{
    loam_file *f, *g;
    CHECK_EQ(VFS(c->vfs, mkdir, at(c, 0, "copy")), 0);
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(VFS(c->vfs, lock, at(c, 0, "LOCK"), &f), 0);
        CHECK_EQ(VFS(c->vfs, lock, at(c, 1, "LOCK"), &g), -EAGAIN);
        CHECK_EQ(VFS(c->vfs, is_named, f, at(c, 0, "LOCK")), 0);
        /* Closing another handle of the file must not let the lock go. */
        CHECK_EQ(open_result(c, "LOCK", RW), 0);
        CHECK_EQ(VFS(c->vfs, lock, at(c, 1, "LOCK"), &g), -EAGAIN);
        CHECK_EQ(VFS(c->vfs, lock, at(c, 1, "LOCK2"), &g), 0);
        CHECK_EQ(VFS(c->vfs, close, g), 0);
        /* As where a directory is copied by links. */
        CHECK_EQ(VFS(c->vfs, link, at(c, 0, "LOCK"), at(c, 1, "copy/LOCK")), 0);
        CHECK_EQ(VFS(c->vfs, lock, at(c, 0, "copy/LOCK"), &g), -EAGAIN);
        CHECK_EQ(VFS(c->vfs, is_named, f, at(c, 0, "copy/LOCK")), -ESTALE);
        CHECK_EQ(VFS(c->vfs, is_named, f, at(c, 0, "LOCK")), 0);
        CHECK_EQ(VFS(c->vfs, remove, at(c, 0, "copy/LOCK")), 0);
        CHECK_EQ(VFS(c->vfs, close, f), 0);
    }
}

static inline void contract_map(struct contract *c)
{
    const loam_vfs *v = c->vfs;
    loam_file *f;
    void *p, *q;
    char back[3];
    CHECK_EQ(VFS(v, open, at(c, 0, "m"), RW | LOAM_VFS_NEW, &f), 0);
    CHECK_EQ(VFS(v, map, f, 0, 4096, &p), -EINVAL); /* beyond the end */
    CHECK_EQ(VFS(v, truncate, f, 5 * 4096), 0);
    CHECK_EQ(VFS(v, write, f, "abc", 3, 8190), 3);
    int rc = VFS(v, map, f, 4096, 2 * 4096, &p);
    if (rc == -EOPNOTSUPP) {
        CHECK_EQ(VFS(v, close, f), 0);
        return;
    }
    CHECK_EQ(rc, 0);
    CHECK_EQ(VFS(v, map, f, 1, 4096, &q), -EINVAL);
    CHECK_EQ(VFS(v, map, f, 4096, 5 * 4096, &q), -EINVAL);
    char *m = p;
    CHECK_BYTES(m + 4094, 3, "abc", 3);
    /* Both ways: stores are read, writes are seen. */
    memcpy(m + 4095, "XY", 2);
    CHECK_EQ(VFS(v, read, f, back, 3, 8190), 3);
    CHECK_BYTES(back, 3, "aXY", 3);
    CHECK_EQ(VFS(v, write, f, "123", 3, 4095), 3);
    CHECK_BYTES(m, 2, "23", 2);
    /* A second map of a part shows the same bytes; stores outlive both maps and the handle. */
    CHECK_EQ(VFS(v, map, f, 8192, 4096, &q), 0);
    memcpy((char *)q + 100, "Q", 1);
    CHECK_EQ(m[4096 + 100], 'Q');
    CHECK_EQ(VFS(v, unmap, q, 4096), 0);
    CHECK_EQ(VFS(v, sync, f, 1), 0);
    CHECK_EQ(VFS(v, close, f), 0);
    m[4096 + 101] = 'R';
    CHECK_EQ(VFS(v, unmap, p, 2 * 4096), 0);
    CHECK_EQ(VFS(v, open, at(c, 0, "m"), LOAM_VFS_READ, &f), 0);
    CHECK_EQ(VFS(v, read, f, back, 2, 8192 + 100), 2);
    CHECK_BYTES(back, 2, "QR", 2);
    CHECK_EQ(VFS(v, close, f), 0);
}

static inline void contract_rest(struct contract *c)
{
    uint64_t free_bytes = 0, total_bytes = 0;
    CHECK_EQ(VFS(c->vfs, space, c->dir, &free_bytes, &total_bytes), 0);
    CHECK(total_bytes >= free_bytes && total_bytes > 0);
    uint64_t a = c->vfs->now_us(c->vfs->ctx);
    CHECK(c->vfs->now_us(c->vfs->ctx) >= a);
    char x[300] = {0}, y[300] = {0};
    loam_file *f;
    put_file(c, "advised", "text");
    CHECK_EQ(VFS(c->vfs, open, at(c, 0, "advised"), RW, &f), 0);
    CHECK_EQ(VFS(c->vfs, advise, f, 0, 4, LOAM_ADVISE_RANDOM), 0);
    CHECK_EQ(VFS(c->vfs, advise, f, 0, 4, 0), -EINVAL);
    CHECK_EQ(VFS(c->vfs, advise, f, 0, 4, LOAM_ADVISE_WRITEBACK + 1), -EINVAL);
    CHECK_EQ(VFS(c->vfs, close, f), 0);
    CHECK_EQ(VFS(c->vfs, remove, at(c, 0, "advised")), 0);
    CHECK_EQ(VFS(c->vfs, random, x, sizeof x), 0);
    CHECK_EQ(VFS(c->vfs, random, y, sizeof y), 0);
    CHECK(memcmp(x, y, sizeof x) != 0);
    CHECK(c->vfs->struct_size >= sizeof(loam_vfs) && c->vfs->name != NULL);
}

#endif
