/* vfs_memory.c - The vfs contract kept by a disk in memory.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Paths start at the root with or without '/'; "." and ".." work. One mutex guards the whole disk.
 */
#include "arena/vfs.h"

#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/status.h"
#include "arena/vfs_disk.h"

#include "arena/poison.h"

#define SPACE_UNLIMITED ((uint64_t)1 << 40) /* what space() tells of a disk without a limit */

struct loam_file {
    struct disk *disk;
    struct disk_node *node;
    uint32_t flags;
    bool is_lock;
    uint64_t locked_in; /* id of the directory */
};

struct memory_vfs {
    struct disk_vfs base;
    struct disk *disk;
};

/* ---- paths ----------------------------------------------------------------------------------- */

/* What a path leads to. */
struct place {
    struct disk_node *dir;  /* where `leaf` is, or would be; NULL for the root and for ".." */
    struct disk_node *node; /* NULL: no such name */
    bool slash;             /* there is one behind `leaf`: only a directory can be meant */
    char leaf[DISK_NAME_MAX + 1];
};

static void step_up(struct disk *d, struct place *at)
{
    at->node = at->node->parent != NULL ? at->node->parent : d->root;
    at->dir = NULL;
    at->leaf[0] = '\0';
}

/* 0, also when only the last name is missing; -ENOENT, -ENOTDIR, -ENAMETOOLONG. A file with a '/' behind its
 * name is none. */
static int find(struct disk *d, const char *path, struct place *at)
{
    *at = (struct place){.node = d->root};
    for (;;) {
        size_t slashes = strspn(path, "/");
        path += slashes;
        size_t n = strcspn(path, "/");
        at->slash = slashes != 0;
        if (at->node != NULL && !at->node->is_dir && (at->slash || n != 0)) {
            return -ENOTDIR;
        }
        if (n == 0) {
            return 0;
        }
        if (at->node == NULL) {
            return -ENOENT;
        }
        if (n > DISK_NAME_MAX) {
            return -ENAMETOOLONG;
        }
        if (n == 2 && memcmp(path, "..", 2) == 0) {
            step_up(d, at);
        } else if (n != 1 || path[0] != '.') {
            memcpy(at->leaf, path, n);
            at->leaf[n] = '\0';
            at->dir = at->node;
            at->node = disk_lookup_locked(&at->dir->names, at->leaf);
        }
        path += n;
    }
}

/* Makes a new file or directory at a place whose name is missing. */
static int make(struct disk *d, struct place *at, bool is_dir)
{
    if (at->slash && !is_dir) {
        return -EISDIR;
    }
    struct disk_node *n = disk_node_new_locked(d, is_dir);
    if (n == NULL) {
        return -ENOMEM;
    }
    int rc = disk_rename_locked(d, NULL, NULL, at->dir, at->leaf, n);
    if (rc == 0) {
        at->node = n;
    }
    disk_node_unref_locked(d, n); /* the name keeps it */
    return rc;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int handle_new(struct disk *d, struct disk_node *node, uint32_t flags, loam_file **f)
{
    struct loam_file *file = alloc_zero(alloc_global(), MEM_VFS, sizeof *file);
    if (file == NULL) {
        return -ENOMEM;
    }
    file->disk = d;
    file->node = node;
    file->flags = flags;
    disk_node_ref_locked(node);
    disk_node_enter_locked(node);
    *f = file;
    return 0;
}

static int open_locked(struct disk *d, const char *path, uint32_t flags, loam_file **f)
{
    struct place at;
    int rc = find(d, path, &at);
    if (rc != 0) {
        return rc;
    }
    if ((flags & LOAM_VFS_TRUNCATE) && !(flags & LOAM_VFS_WRITE)) {
        return -EINVAL;
    }
    if (at.node != NULL) {
        if (flags & LOAM_VFS_NEW) {
            return -EEXIST;
        }
        if (at.node->is_dir) {
            return -EISDIR;
        }
    } else {
        if (!(flags & (LOAM_VFS_CREATE | LOAM_VFS_NEW))) {
            return -ENOENT;
        }
        rc = make(d, &at, false);
        if (rc != 0) {
            return rc;
        }
    }
    if (flags & LOAM_VFS_TRUNCATE) {
        rc = disk_truncate_locked(d, at.node, 0);
        if (rc != 0) {
            return rc;
        }
    }
    return handle_new(d, at.node, flags, f);
}

static int mem_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    int rc = open_locked(d, path, flags, f);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_close(void *ctx, loam_file *f)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    if (f->is_lock) {
        f->node->locked = false;
    }
    disk_node_leave_locked(d, f->node);
    disk_node_unref_locked(d, f->node);
    mutex_unlock(&d->mutex);
    alloc_put(alloc_global(), MEM_VFS, f, sizeof *f);
    return 0;
}

static int64_t mem_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    struct disk *d = ctx;
    if (!(f->flags & LOAM_VFS_READ)) {
        return -EBADF;
    }
    mutex_lock(&d->mutex);
    int64_t got = disk_read_locked(f->node, buf, n, off);
    mutex_unlock(&d->mutex);
    return got;
}

static int64_t mem_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    struct disk *d = ctx;
    if (!(f->flags & LOAM_VFS_WRITE)) {
        return -EBADF;
    }
    mutex_lock(&d->mutex);
    int64_t put = disk_write_locked(d, f->node, buf, n, off);
    mutex_unlock(&d->mutex);
    return put;
}

static int64_t mem_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    struct disk *d = ctx;
    int64_t put = mem_write(ctx, f, buf, n, off);
    if (put <= 0) {
        return put;
    }
    mutex_lock(&d->mutex);
    int rc = disk_sync_range_locked(d, f->node, off, (uint64_t)put);
    mutex_unlock(&d->mutex);
    return rc != 0 ? rc : put;
}

static int mem_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    (void)data_only; /* the size is needed to read the data back, and there is nothing else */
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    int rc = disk_sync_locked(d, f->node);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_truncate(void *ctx, loam_file *f, uint64_t size)
{
    struct disk *d = ctx;
    if (!(f->flags & LOAM_VFS_WRITE)) {
        return -EBADF;
    }
    mutex_lock(&d->mutex);
    int rc = disk_truncate_locked(d, f->node, size);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    struct disk *d = ctx;
    if (!(f->flags & LOAM_VFS_WRITE)) {
        return -EBADF;
    }
    mutex_lock(&d->mutex);
    int rc = disk_reserve_locked(d, f->node, off, len);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_size(void *ctx, loam_file *f, uint64_t *size)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    *size = f->node->now.size;
    mutex_unlock(&d->mutex);
    return 0;
}

static int mem_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    struct disk *d = ctx;
    if ((f->flags & (LOAM_VFS_READ | LOAM_VFS_WRITE)) != (LOAM_VFS_READ | LOAM_VFS_WRITE)) {
        return -EACCES;
    }
    mutex_lock(&d->mutex);
    int rc = disk_map_locked(d, f->node, off, len, p);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_unmap(void *ctx, void *p, size_t len)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    int rc = disk_unmap_locked(d, p, len);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    (void)ctx, (void)f, (void)off, (void)len;
    return advice >= LOAM_ADVISE_SEQUENTIAL && advice <= LOAM_ADVISE_WRITEBACK ? 0 : -EINVAL;
}

/* ---- names ----------------------------------------------------------------------------------- */

static int mem_sync_dir(void *ctx, const char *dir)
{
    struct disk *d = ctx;
    struct place at;
    mutex_lock(&d->mutex);
    int rc = find(d, dir, &at);
    if (rc == 0 && at.node == NULL) {
        rc = -ENOENT;
    } else if (rc == 0 && !at.node->is_dir) {
        rc = -ENOTDIR;
    } else if (rc == 0) {
        rc = disk_sync_dir_locked(d, at.node);
    }
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_mkdir(void *ctx, const char *dir)
{
    struct disk *d = ctx;
    struct place at;
    mutex_lock(&d->mutex);
    int rc = find(d, dir, &at);
    if (rc == 0) {
        rc = at.node != NULL ? -EEXIST : make(d, &at, true);
    }
    mutex_unlock(&d->mutex);
    return rc;
}

static bool is_inside(const struct disk_node *n, const struct disk_node *dir)
{
    for (; n != NULL; n = n->parent) {
        if (n == dir) {
            return true;
        }
    }
    return false;
}

static int rename_locked(struct disk *d, const char *from, const char *to)
{
    struct place a, b;
    int rc = find(d, from, &a);
    rc = rc == 0 ? find(d, to, &b) : rc;
    if (rc != 0) {
        return rc;
    }
    if (a.node == NULL) {
        return -ENOENT;
    }
    if (a.dir == NULL || b.dir == NULL) {
        return -EBUSY;
    }
    if (a.node->is_dir && is_inside(b.dir, a.node)) {
        return -EINVAL;
    }
    if (!a.node->is_dir && b.slash) {
        return -ENOTDIR;
    }
    if (b.node == a.node) {
        return 0; /* two names of one file stay two, as POSIX has it */
    }
    if (b.node != NULL) {
        if (b.node->is_dir != a.node->is_dir) {
            return b.node->is_dir ? -EISDIR : -ENOTDIR;
        }
        if (b.node->names.count != 0) {
            return -ENOTEMPTY;
        }
    }
    return disk_rename_locked(d, a.dir, a.leaf, b.dir, b.leaf, a.node);
}

static int mem_rename(void *ctx, const char *from, const char *to)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    int rc = rename_locked(d, from, to);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_link(void *ctx, const char *from, const char *to)
{
    struct disk *d = ctx;
    struct place a, b;
    mutex_lock(&d->mutex);
    int rc = find(d, from, &a);
    rc = rc == 0 ? find(d, to, &b) : rc;
    if (rc == 0 && a.node == NULL) {
        rc = -ENOENT;
    } else if (rc == 0 && a.node->is_dir) {
        rc = -EPERM;
    } else if (rc == 0 && b.node != NULL) {
        rc = -EEXIST;
    } else if (rc == 0 && b.slash) {
        rc = -ENOENT;
    } else if (rc == 0) {
        rc = disk_rename_locked(d, NULL, NULL, b.dir, b.leaf, a.node);
    }
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_remove(void *ctx, const char *path)
{
    struct disk *d = ctx;
    struct place at;
    mutex_lock(&d->mutex);
    int rc = find(d, path, &at);
    if (rc == 0 && at.node == NULL) {
        rc = -ENOENT;
    } else if (rc == 0 && at.dir == NULL) {
        rc = -EBUSY;
    } else if (rc == 0 && at.node->names.count != 0) {
        rc = -ENOTEMPTY;
    } else if (rc == 0) {
        rc = disk_rename_locked(d, at.dir, at.leaf, NULL, NULL, at.node);
    }
    mutex_unlock(&d->mutex);
    return rc;
}

/* The names one after the other, each with its NUL; NULL and *size 0 for none. 0 or -ENOMEM. */
static int names_flatten(const struct disk_names *t, char **flat, size_t *size)
{
    *flat = NULL;
    *size = 0;
    for (size_t i = 0; i < t->count; i++) {
        *size += strlen(t->at[i].text) + 1;
    }
    if (*size == 0) {
        return 0;
    }
    char *at = *flat = alloc_get(alloc_global(), MEM_VFS, *size);
    if (at == NULL) {
        return -ENOMEM;
    }
    for (size_t i = 0; i < t->count; i++) {
        size_t n = strlen(t->at[i].text) + 1;
        memcpy(at, t->at[i].text, n);
        at += n;
    }
    return 0;
}

static int mem_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    struct disk *d = ctx;
    struct place at;
    char *flat = NULL;
    size_t size = 0;
    mutex_lock(&d->mutex);
    int rc = find(d, dir, &at);
    if (rc == 0 && at.node == NULL) {
        rc = -ENOENT;
    } else if (rc == 0 && !at.node->is_dir) {
        rc = -ENOTDIR;
    } else if (rc == 0) {
        rc = names_flatten(&at.node->names, &flat, &size);
    }
    mutex_unlock(&d->mutex);
    if (rc != 0 || flat == NULL) {
        return rc;
    }
    /* Outside the mutex: fn may use the disk. */
    for (const char *name = flat; name < flat + size; name += strlen(name) + 1) {
        if (fn(arg, loam_bytes(name, strlen(name))) != 0) {
            break;
        }
    }
    alloc_put(alloc_global(), MEM_VFS, flat, size);
    return 0;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int lock_locked(struct disk *d, const char *path, loam_file **f)
{
    struct place at;
    int rc = find(d, path, &at);
    if (rc == 0 && at.node == NULL) {
        rc = make(d, &at, false);
    }
    if (rc != 0) {
        return rc;
    }
    if (at.node->is_dir) {
        return -EISDIR;
    }
    if (at.node->locked) {
        return -EAGAIN;
    }
    rc = handle_new(d, at.node, 0, f);
    if (rc == 0) {
        (*f)->is_lock = true;
        (*f)->locked_in = at.dir->id;
        at.node->locked = true;
    }
    return rc;
}

static int mem_lock(void *ctx, const char *path, loam_file **f)
{
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    int rc = lock_locked(d, path, f);
    mutex_unlock(&d->mutex);
    return rc;
}

static int mem_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    (void)dir;
    struct disk *d = ctx;
    mutex_lock(&d->mutex);
    uint64_t total = d->space != UINT64_MAX ? d->space : SPACE_UNLIMITED;
    *total_bytes = total;
    *free_bytes = total > d->used ? total - d->used : 0;
    mutex_unlock(&d->mutex);
    return 0;
}

static int mem_is_named(void *ctx, loam_file *f, const char *path)
{
    struct disk *d = ctx;
    struct place at;
    mutex_lock(&d->mutex);
    int rc = find(d, path, &at);
    if (rc == 0) {
        bool same = at.node == f->node && (!f->is_lock || at.dir->id == f->locked_in);
        rc = same ? 0 : at.node == NULL ? -ENOENT : -ESTALE;
    }
    mutex_unlock(&d->mutex);
    return rc;
}

static uint64_t mem_now_us(void *ctx)
{
    (void)ctx;
    return clock_micros();
}

static int mem_random(void *ctx, void *buf, size_t n)
{
    (void)ctx;
    return loam_vfs_os()->random(loam_vfs_os()->ctx, buf, n);
}

static void memory_destroy(struct disk_vfs *v)
{
    struct memory_vfs *m = (struct memory_vfs *)v;
    disk_free(m->disk);
    alloc_put(alloc_global(), MEM_VFS, m, sizeof *m);
}

int disk_vfs_new(struct disk *d, loam_vfs **vfs)
{
    struct memory_vfs *m = alloc_zero(alloc_global(), MEM_VFS, sizeof *m);
    if (m == NULL) {
        return -ENOMEM;
    }
    m->disk = d;
    m->base.destroy = memory_destroy;
    m->base.vfs = (loam_vfs){
        .struct_size = sizeof(loam_vfs),
        .name = "memory",
        .ctx = d,
        .open = mem_open,
        .close = mem_close,
        .read = mem_read,
        .write = mem_write,
        .sync = mem_sync,
        .truncate = mem_truncate,
        .reserve = mem_reserve,
        .size = mem_size,
        .map = mem_map,
        .unmap = mem_unmap,
        .advise = mem_advise,
        .sync_dir = mem_sync_dir,
        .mkdir = mem_mkdir,
        .rename = mem_rename,
        .link = mem_link,
        .remove = mem_remove,
        .list = mem_list,
        .lock = mem_lock,
        .space = mem_space,
        .now_us = mem_now_us,
        .random = mem_random,
        .write_durable = mem_write_durable,
        .is_named = mem_is_named,
    };
    *vfs = &m->base.vfs;
    return 0;
}

struct disk *disk_of_vfs(const loam_vfs *vfs)
{
    return vfs != NULL && vfs->open == mem_open ? vfs->ctx : NULL;
}

struct disk_node *disk_node_of_file(loam_file *f)
{
    return f->node;
}

LOAM_API int loam_vfs_memory(loam_vfs **vfs)
{
    if (vfs == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_vfs_memory: vfs is NULL");
    }
    struct disk *d;
    int rc = disk_create(&d);
    if (rc == 0) {
        rc = disk_vfs_new(d, vfs);
        if (rc != 0) {
            disk_free(d);
        }
    }
    return rc == 0 ? LOAM_OK : FAIL_IO(rc, 0, 0, "cannot make a memory disk");
}

LOAM_API void loam_vfs_free(loam_vfs *vfs)
{
    if (vfs != NULL && vfs != loam_vfs_os()) {
        struct disk_vfs *v = (struct disk_vfs *)vfs;
        v->destroy(v);
    }
}
