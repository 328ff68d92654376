/* disk_files.c - Whole files of a disk, bytes of them changed, and which of a kind there are.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/disk_files.h"

#include <limits.h>

#include "arena/vfs_full.h"
#include "tests/support/check.h"

static loam_file *open_file(const loam_vfs *disk, const char *path, uint32_t flags)
{
    loam_file *f;
    CHECK_EQ(disk->open(disk->ctx, path, flags, &f), 0);
    return f;
}

static uint64_t size_of(const loam_vfs *disk, loam_file *f)
{
    uint64_t size;
    CHECK_EQ(disk->size(disk->ctx, f, &size), 0);
    return size;
}

uint8_t *disk_file_read(const loam_vfs *disk, const char *path, size_t *size)
{
    loam_file *f = open_file(disk, path, LOAM_VFS_READ);
    *size = size_of(disk, f);
    uint8_t *bytes = malloc(*size != 0 ? *size : 1);
    CHECK(bytes != NULL);
    CHECK_EQ(vfs_read_full(disk, f, bytes, *size, 0), *size);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
    return bytes;
}

void disk_file_write(const loam_vfs *disk, const char *path, const void *bytes, size_t size)
{
    loam_file *f = open_file(disk, path, LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE);
    CHECK_EQ(vfs_write_full(disk, f, bytes, size, 0), 0);
    CHECK_EQ(disk->sync(disk->ctx, f, 0), 0);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
}

uint64_t disk_file_size(const loam_vfs *disk, const char *path)
{
    loam_file *f = open_file(disk, path, LOAM_VFS_READ);
    uint64_t size = size_of(disk, f);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
    return size;
}

void disk_file_flip(const loam_vfs *disk, const char *path, uint64_t at, uint8_t bits)
{
    loam_file *f = open_file(disk, path, LOAM_VFS_READ | LOAM_VFS_WRITE);
    uint8_t byte;
    CHECK_EQ(disk->read(disk->ctx, f, &byte, 1, at), 1);
    byte ^= bits;
    CHECK_EQ(disk->write(disk->ctx, f, &byte, 1, at), 1);
    CHECK_EQ(disk->close(disk->ctx, f), 0);
}

struct listing {
    const char *dir;
    enum file_kind kind;
    unsigned count, which;
    struct file_on_disk found;
};

static int list_file(void *ctx, loam_slice name)
{
    struct listing *l = ctx;
    struct file_on_disk *f = &l->found;
    enum file_kind kind;
    uint64_t number;
    if (filename_parse(name, &kind, &number) && kind == l->kind && l->count++ == l->which) {
        f->number = number;
        int n = snprintf(f->path, sizeof f->path, "%s/%.*s", l->dir, (int)name.size, (const char *)name.data);
        CHECK(n < (int)sizeof f->path);
    }
    return 0;
}

unsigned disk_files(const loam_vfs *disk, const char *dir, enum file_kind kind)
{
    struct listing l = {.dir = dir, .kind = kind, .which = UINT_MAX};
    CHECK_EQ(disk->list(disk->ctx, dir, list_file, &l), 0);
    return l.count;
}

struct file_on_disk disk_file_of(const loam_vfs *disk, const char *dir, enum file_kind kind, unsigned which)
{
    struct listing l = {.dir = dir, .kind = kind, .which = which};
    CHECK_EQ(disk->list(disk->ctx, dir, list_file, &l), 0);
    CHECK(l.count > which);
    return l.found;
}
