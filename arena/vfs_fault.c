/* vfs_fault.c - A vfs before a memory disk that counts calls, injects faults and cuts the power.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A call that the plan fails does not reach the disk, but for two: a failing write may store a part
 * first (short_writes), and a failing close still gives its file back, as Linux does. So a failed
 * sync drops nothing: what was pending stays pending, and a later sync of the file may still make
 * it durable. An engine must not build on that: real disks may have dropped it.
 *
 * Files and maps are the disk's own; only calls pass through here.
 */
#include "arena/vfs.h"

#include <errno.h>
#include <string.h>

#include "arena/alloc.h"
#include "arena/random.h"
#include "arena/status.h"
#include "arena/vfs_disk.h"

#include "arena/poison.h"

struct fault_vfs {
    struct disk_vfs base;
    const loam_vfs *inner;
    struct disk *disk;
    struct mutex mutex; /* protects what follows; never held while the disk is called */
    loam_fault_plan plan;
    uint64_t calls;
    struct random random;
};

/* Counts a call: 0 = let it through, else the -errno it fails with. For a failing write *part is
 * how many of its n bytes get through first. */
static int64_t enter_write(struct fault_vfs *v, size_t n, size_t *part)
{
    int64_t rc = 0;
    mutex_lock(&v->mutex);
    uint64_t call = ++v->calls;
    const loam_fault_plan *p = &v->plan;
    uint32_t repeat = p->fail_repeat != 0 ? p->fail_repeat : 1;
    if (p->crash_at != 0 && call >= p->crash_at) {
        rc = -EIO; /* and nothing of it lands: the power is gone */
    } else if (p->fail_at != 0 && call >= p->fail_at &&
               (repeat == UINT32_MAX || call - p->fail_at < repeat)) {
        rc = p->fail_errno != 0 ? -p->fail_errno : -EIO;
        if (part != NULL && p->short_writes != 0 && n > 0) {
            *part = (size_t)random_below(&v->random, n);
        }
    }
    mutex_unlock(&v->mutex);
    return rc;
}

static int enter(void *ctx)
{
    return (int)enter_write(ctx, 0, NULL);
}

/* ---- the calls ------------------------------------------------------------------------------- */

#define INNER(ctx) (((struct fault_vfs *)(ctx))->inner)
/* Through to the disk unless the plan fails the call. */
#define PASS(ctx, call_, ...)                                                                      \
    do {                                                                                           \
        int rc_ = enter(ctx);                                                                      \
        return rc_ != 0 ? rc_ : INNER(ctx)->call_(INNER(ctx)->ctx, __VA_ARGS__);                   \
    } while (0)

static int fault_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    PASS(ctx, open, path, flags, f);
}

static int fault_close(void *ctx, loam_file *f)
{
    int rc = enter(ctx);
    int closed = INNER(ctx)->close(INNER(ctx)->ctx, f);
    return rc != 0 ? rc : closed;
}

static int64_t fault_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    int rc = enter(ctx);
    return rc != 0 ? rc : INNER(ctx)->read(INNER(ctx)->ctx, f, buf, n, off);
}

static int64_t fault_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    size_t part = 0;
    int64_t rc = enter_write(ctx, n, &part);
    if (rc == 0) {
        return INNER(ctx)->write(INNER(ctx)->ctx, f, buf, n, off);
    }
    if (part > 0) {
        /* Whether the part found room or not, the call fails as the plan says. */
        (void)INNER(ctx)->write(INNER(ctx)->ctx, f, buf, part, off);
    }
    return rc;
}

static int fault_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    PASS(ctx, sync, f, data_only);
}

static int fault_truncate(void *ctx, loam_file *f, uint64_t size)
{
    PASS(ctx, truncate, f, size);
}

static int fault_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    PASS(ctx, reserve, f, off, len);
}

static int fault_size(void *ctx, loam_file *f, uint64_t *size)
{
    PASS(ctx, size, f, size);
}

static int fault_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    struct fault_vfs *v = ctx;
    int rc = enter(ctx);
    mutex_lock(&v->mutex);
    bool refused = v->plan.no_map != 0; /* by a plan set after the vfs was made */
    mutex_unlock(&v->mutex);
    if (rc == 0 && refused) {
        rc = -EOPNOTSUPP;
    }
    return rc != 0 ? rc : INNER(ctx)->map(INNER(ctx)->ctx, f, off, len, p);
}

static int fault_unmap(void *ctx, void *p, size_t len)
{
    return INNER(ctx)->unmap(INNER(ctx)->ctx, p, len);
}

static int fault_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    return INNER(ctx)->advise(INNER(ctx)->ctx, f, off, len, advice);
}

static int fault_sync_dir(void *ctx, const char *dir)
{
    PASS(ctx, sync_dir, dir);
}

static int fault_mkdir(void *ctx, const char *dir)
{
    PASS(ctx, mkdir, dir);
}

static int fault_rename(void *ctx, const char *from, const char *to)
{
    PASS(ctx, rename, from, to);
}

static int fault_link(void *ctx, const char *from, const char *to)
{
    PASS(ctx, link, from, to);
}

static int fault_remove(void *ctx, const char *path)
{
    PASS(ctx, remove, path);
}

static int fault_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    PASS(ctx, list, dir, fn, arg);
}

static int fault_lock(void *ctx, const char *path, loam_file **f)
{
    PASS(ctx, lock, path, f);
}

static int fault_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    PASS(ctx, space, dir, free_bytes, total_bytes);
}

static uint64_t fault_now_us(void *ctx)
{
    return INNER(ctx)->now_us(INNER(ctx)->ctx);
}

/* From the plan's seed, so that a run can be repeated: salts and identities included. */
static int fault_random(void *ctx, void *buf, size_t n)
{
    struct fault_vfs *v = ctx;
    int rc = enter(ctx);
    if (rc != 0) {
        return rc;
    }
    mutex_lock(&v->mutex);
    for (size_t done = 0; done < n;) {
        uint64_t word = random_next(&v->random);
        size_t take = n - done < sizeof word ? n - done : sizeof word;
        memcpy((char *)buf + done, &word, take);
        done += take;
    }
    mutex_unlock(&v->mutex);
    return 0;
}

/* ---- making, planning, cutting --------------------------------------------------------------- */

static void fault_destroy(struct disk_vfs *base)
{
    struct fault_vfs *v = (struct fault_vfs *)base;
    mutex_destroy(&v->mutex);
    alloc_put(alloc_global(), MEM_VFS, v, sizeof *v);
}

static struct fault_vfs *fault_of_vfs(const loam_vfs *vfs)
{
    return vfs != NULL && vfs->open == fault_open ? vfs->ctx : NULL;
}

/* A plan of an older, shorter struct has zeros for what it does not know. */
static int plan_copy(const loam_fault_plan *from, loam_fault_plan *to)
{
    *to = (loam_fault_plan){.struct_size = sizeof *to};
    if (from == NULL) {
        return LOAM_OK;
    }
    if (from->struct_size < sizeof from->struct_size) {
        return FAIL(LOAM_E_INVAL, "fault plan: struct_size is %zu", from->struct_size);
    }
    memcpy(to, from, from->struct_size < sizeof *to ? from->struct_size : sizeof *to);
    if (to->fail_errno < 0) {
        return FAIL(LOAM_E_INVAL, "fault plan: fail_errno is %d, not positive", to->fail_errno);
    }
    return LOAM_OK;
}

static const loam_vfs fault_calls = {
    .struct_size = sizeof(loam_vfs),
    .name = "fault",
    .open = fault_open,
    .close = fault_close,
    .read = fault_read,
    .write = fault_write,
    .sync = fault_sync,
    .truncate = fault_truncate,
    .reserve = fault_reserve,
    .size = fault_size,
    .map = fault_map,
    .unmap = fault_unmap,
    .advise = fault_advise,
    .sync_dir = fault_sync_dir,
    .mkdir = fault_mkdir,
    .rename = fault_rename,
    .link = fault_link,
    .remove = fault_remove,
    .list = fault_list,
    .lock = fault_lock,
    .space = fault_space,
    .now_us = fault_now_us,
    .random = fault_random,
};

LOAM_API int loam_vfs_fault(loam_vfs *disk, const loam_fault_plan *plan, loam_vfs **vfs)
{
    struct disk *d = disk_of_vfs(disk);
    if (d == NULL || vfs == NULL) {
        return FAIL(LOAM_E_INVAL, "a fault vfs wants a memory disk and an out pointer");
    }
    loam_fault_plan p;
    int rc = plan_copy(plan, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    struct fault_vfs *v = alloc_zero(alloc_global(), MEM_VFS, sizeof *v);
    if (v == NULL || disk_record(d) != 0) {
        alloc_put(alloc_global(), MEM_VFS, v, sizeof *v);
        return FAIL(LOAM_E_NOMEM, "no memory for a fault vfs");
    }
    v->base.vfs = fault_calls;
    v->base.vfs.ctx = v;
    if (p.no_map != 0) {
        v->base.vfs.map = NULL;
    }
    v->base.destroy = fault_destroy;
    v->inner = disk;
    v->disk = d;
    v->plan = p;
    mutex_init(&v->mutex, RANK_VFS);
    random_init(&v->random, p.seed);
    disk_set_space(d, p.space);
    *vfs = &v->base.vfs;
    return LOAM_OK;
}

LOAM_API uint64_t loam_vfs_calls(const loam_vfs *fault_vfs)
{
    struct fault_vfs *v = fault_of_vfs(fault_vfs);
    if (v == NULL) {
        return 0;
    }
    mutex_lock(&v->mutex);
    uint64_t calls = v->calls;
    mutex_unlock(&v->mutex);
    return calls;
}

LOAM_API int loam_vfs_set_plan(loam_vfs *fault_vfs, const loam_fault_plan *plan)
{
    struct fault_vfs *v = fault_of_vfs(fault_vfs);
    if (v == NULL) {
        return FAIL(LOAM_E_INVAL, "not a fault vfs");
    }
    loam_fault_plan p;
    int rc = plan_copy(plan, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    mutex_lock(&v->mutex);
    if (p.seed != v->plan.seed) {
        random_init(&v->random, p.seed);
    }
    v->plan = p;
    mutex_unlock(&v->mutex);
    disk_set_space(v->disk, p.space);
    return LOAM_OK;
}

LOAM_API int loam_vfs_power_cut(loam_vfs *fault_vfs, uint64_t variant, loam_vfs **after)
{
    struct fault_vfs *v = fault_of_vfs(fault_vfs);
    if (v == NULL || after == NULL) {
        return FAIL(LOAM_E_INVAL, "a power cut wants a fault vfs and an out pointer");
    }
    mutex_lock(&v->mutex);
    uint64_t seed = v->plan.seed;
    mutex_unlock(&v->mutex);
    struct disk *d;
    int rc = disk_cut(v->disk, seed, variant, &d);
    if (rc == 0) {
        rc = disk_vfs_new(d, after);
        if (rc != 0) {
            disk_free(d);
        }
    }
    return rc == 0 ? LOAM_OK : FAIL_IO(rc, 0, 0, "cannot make the disk after a power cut");
}
