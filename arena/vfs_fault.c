/* vfs_fault.c - A vfs before a memory disk that counts calls, injects faults and cuts the power.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A call that the plan fails does not reach the disk, but for two: of a failing write a part may
 * land, and a failing close still gives its file back, as Linux does. A failed sync leaves pending
 * what was pending, so that a later sync may still make it durable, unless the plan says drop_dirty:
 * then it is lost, as on a Linux disk. An engine must be right on both. What a durable write or an advice
 * of WRITEBACK fails to bring to the disk is treated alike.
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

#define CALL_KINDS 21u /* bits of LOAM_CALL_ALL */
#define WRITES     (LOAM_CALL_WRITE | LOAM_CALL_WRITE_DURABLE)
_Static_assert(LOAM_CALL_ALL == (1u << CALL_KINDS) - 1, "a counter for each kind of call");

struct fault_vfs {
    struct disk_vfs base;
    const loam_vfs *inner;
    struct disk *disk;
    struct mutex mutex; /* protects what follows; never held while the disk is called */
    loam_fault_plan plan;
    uint64_t calls;
    uint64_t calls_of[CALL_KINDS]; /* by the bit number of LOAM_CALL_* */
    uint64_t faults;
    struct random random;
};

/* What the plan does to one call. */
struct verdict {
    int error;   /* -errno, or 0 */
    bool faulty; /* the fault of the plan, also when it is no error */
    bool lie;    /* report success for nothing */
    size_t part; /* a faulty write: how many bytes land */
};

static uint64_t calls_of_locked(const struct fault_vfs *v, uint32_t kinds)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < CALL_KINDS; k++) {
        sum += (kinds >> k & 1) != 0 ? v->calls_of[k] : 0;
    }
    return sum;
}

/* How many of the n bytes of a failing write land. */
static size_t landing(struct fault_vfs *v, size_t n)
{
    if (n == 0) {
        return 0;
    }
    switch (v->plan.short_writes) {
    case LOAM_LANDS_RANDOM:
        return (size_t)random_below(&v->random, n);
    case LOAM_LANDS_ONE:
        return 1;
    case LOAM_LANDS_HALF:
        return n / 2;
    case LOAM_LANDS_ALL_BUT_ONE:
        return n - 1;
    case LOAM_LANDS_ALL:
        return n;
    default:
        return 0;
    }
}

/* Whether the kind of call can do what the plan wants of it. */
static bool can_fault(uint32_t how, uint32_t kind)
{
    switch (how) {
    case LOAM_FAULT_SHORT:
        return (kind & WRITES) != 0;
    case LOAM_FAULT_LIE:
        return (kind & (WRITES | LOAM_CALL_SYNC | LOAM_CALL_SYNC_DIR)) != 0;
    default:
        return true;
    }
}

static void plan_fault(struct fault_vfs *v, uint32_t kind, size_t n, struct verdict *out)
{
    const loam_fault_plan *p = &v->plan;
    out->faulty = true;
    v->faults++;
    out->part = (kind & WRITES) != 0 ? landing(v, n) : 0;
    if (p->fail_how == LOAM_FAULT_ERROR) {
        out->error = p->fail_errno != 0 ? -p->fail_errno : -EIO;
    } else if (p->fail_how == LOAM_FAULT_SHORT && out->part == 0) {
        out->part = n != 0;
    }
    out->lie = p->fail_how == LOAM_FAULT_LIE;
}

/* Counts a call and decides over it. n: bytes to be written. */
static struct verdict judge(void *ctx, uint32_t kind, size_t n)
{
    struct fault_vfs *v = ctx;
    struct verdict out = {0};
    mutex_lock(&v->mutex);
    uint64_t call = ++v->calls;
    v->calls_of[__builtin_ctz(kind)]++;
    const loam_fault_plan *p = &v->plan;
    uint32_t kinds = p->fail_calls != 0 ? p->fail_calls : LOAM_CALL_ALL;
    uint64_t nth = calls_of_locked(v, kinds);
    uint32_t repeat = p->fail_repeat != 0 ? p->fail_repeat : 1;
    if (p->crash_at != 0 && call >= p->crash_at) {
        out.error = -EIO; /* and nothing of it lands: the power is gone */
    } else if (p->fail_at != 0 && (kinds & kind) != 0 && nth >= p->fail_at &&
               (repeat == UINT32_MAX || nth - p->fail_at < repeat) &&
               can_fault(p->fail_how, kind)) {
        plan_fault(v, kind, n, &out);
    }
    mutex_unlock(&v->mutex);
    return out;
}

static int enter(void *ctx, uint32_t kind)
{
    return judge(ctx, kind, 0).error;
}

/* ---- the calls ------------------------------------------------------------------------------- */

#define INNER(ctx) (((struct fault_vfs *)(ctx))->inner)
/* Through to the disk unless the plan fails the call. */
#define PASS(ctx, kind_, call_, ...)                                                               \
    do {                                                                                           \
        int rc_ = enter(ctx, kind_);                                                               \
        return rc_ != 0 ? rc_ : INNER(ctx)->call_(INNER(ctx)->ctx, __VA_ARGS__);                   \
    } while (0)

static int fault_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    PASS(ctx, LOAM_CALL_OPEN, open, path, flags, f);
}

static int fault_close(void *ctx, loam_file *f)
{
    int rc = enter(ctx, LOAM_CALL_CLOSE);
    int closed = INNER(ctx)->close(INNER(ctx)->ctx, f);
    return rc != 0 ? rc : closed;
}

static int64_t fault_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    int rc = enter(ctx, LOAM_CALL_READ);
    return rc != 0 ? rc : INNER(ctx)->read(INNER(ctx)->ctx, f, buf, n, off);
}

static int64_t fault_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    struct verdict v = judge(ctx, LOAM_CALL_WRITE, n);
    const loam_vfs *inner = INNER(ctx);
    if (!v.faulty) {
        return v.error != 0 ? v.error : inner->write(inner->ctx, f, buf, n, off);
    }
    int64_t landed = v.part > 0 ? inner->write(inner->ctx, f, buf, v.part, off) : 0;
    if (v.error != 0) {
        return v.error; /* as the plan says, whether the part found room or not */
    }
    return v.lie ? (int64_t)n : landed;
}

/* A call that should have made a file's bytes durable ends with `error`; 0: none. Not so what a signal
 * interrupted: it has seen no error of the disk. 0, or the disk's own error. */
static int drop_dirty(struct fault_vfs *v, loam_file *f, int error)
{
    mutex_lock(&v->mutex);
    bool drops = v->plan.drop_dirty != 0;
    mutex_unlock(&v->mutex);
    if (!drops || error == 0 || error == -EINTR) {
        return 0;
    }
    mutex_lock(&v->disk->mutex);
    int rc = disk_drop_dirty_locked(v->disk, disk_node_of_file(f));
    mutex_unlock(&v->disk->mutex);
    return rc;
}

static int fault_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    struct fault_vfs *v = ctx;
    struct verdict verdict = judge(ctx, LOAM_CALL_SYNC, 0);
    if (!verdict.faulty) {
        return verdict.error != 0 ? verdict.error : v->inner->sync(v->inner->ctx, f, data_only);
    }
    int rc = drop_dirty(v, f, verdict.error);
    return rc != 0 ? rc : verdict.error;
}

static int64_t fault_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    struct verdict v = judge(ctx, LOAM_CALL_WRITE_DURABLE, n);
    const loam_vfs *inner = INNER(ctx);
    if (!v.faulty) {
        return v.error != 0 ? v.error : inner->write_durable(inner->ctx, f, buf, n, off);
    }
    if (v.error == 0 && !v.lie) {
        return inner->write_durable(inner->ctx, f, buf, v.part, off);
    }
    if (v.part > 0) {
        (void)inner->write(inner->ctx, f, buf, v.part, off); /* the verdict stands, room or not */
    }
    int rc = drop_dirty(ctx, f, v.error);
    return rc != 0 ? rc : v.error != 0 ? v.error : (int64_t)n;
}

static int fault_truncate(void *ctx, loam_file *f, uint64_t size)
{
    PASS(ctx, LOAM_CALL_TRUNCATE, truncate, f, size);
}

static int fault_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    PASS(ctx, LOAM_CALL_RESERVE, reserve, f, off, len);
}

static int fault_size(void *ctx, loam_file *f, uint64_t *size)
{
    PASS(ctx, LOAM_CALL_SIZE, size, f, size);
}

static int fault_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    struct fault_vfs *v = ctx;
    int rc = enter(ctx, LOAM_CALL_MAP);
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
    int rc = enter(ctx, LOAM_CALL_ADVISE);
    if (rc == 0) {
        return INNER(ctx)->advise(INNER(ctx)->ctx, f, off, len, advice);
    }
    bool lost = advice == LOAM_ADVISE_WRITEBACK && rc != -EINVAL && rc != -ENOSYS &&
                rc != -EOPNOTSUPP;
    int dropped = lost ? drop_dirty(ctx, f, rc) : 0;
    return dropped != 0 ? dropped : rc;
}

static int fault_sync_dir(void *ctx, const char *dir)
{
    struct verdict v = judge(ctx, LOAM_CALL_SYNC_DIR, 0);
    return v.error != 0 || v.lie ? v.error : INNER(ctx)->sync_dir(INNER(ctx)->ctx, dir);
}

static int fault_mkdir(void *ctx, const char *dir)
{
    PASS(ctx, LOAM_CALL_MKDIR, mkdir, dir);
}

static int fault_rename(void *ctx, const char *from, const char *to)
{
    PASS(ctx, LOAM_CALL_RENAME, rename, from, to);
}

static int fault_link(void *ctx, const char *from, const char *to)
{
    PASS(ctx, LOAM_CALL_LINK, link, from, to);
}

static int fault_remove(void *ctx, const char *path)
{
    PASS(ctx, LOAM_CALL_REMOVE, remove, path);
}

static int fault_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    PASS(ctx, LOAM_CALL_LIST, list, dir, fn, arg);
}

static int fault_lock(void *ctx, const char *path, loam_file **f)
{
    PASS(ctx, LOAM_CALL_LOCK, lock, path, f);
}

static int fault_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    PASS(ctx, LOAM_CALL_SPACE, space, dir, free_bytes, total_bytes);
}

static int fault_is_named(void *ctx, loam_file *f, const char *path)
{
    PASS(ctx, LOAM_CALL_IS_NAMED, is_named, f, path);
}

static uint64_t fault_now_us(void *ctx)
{
    return INNER(ctx)->now_us(INNER(ctx)->ctx);
}

/* From the plan's seed, so that a run can be repeated: salts and identities included. */
static int fault_random(void *ctx, void *buf, size_t n)
{
    struct fault_vfs *v = ctx;
    int rc = enter(ctx, LOAM_CALL_RANDOM);
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
    if ((to->fail_calls & ~LOAM_CALL_ALL) != 0 || to->fail_how > LOAM_FAULT_LIE ||
        to->short_writes > LOAM_LANDS_ALL || to->names > LOAM_NAMES_ORDERED) {
        return FAIL(LOAM_E_INVAL, "fault plan: unknown fail_calls, fail_how, short_writes or names");
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
    .write_durable = fault_write_durable,
    .is_named = fault_is_named,
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
    disk_set_names_model(d, p.names);
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

LOAM_API uint64_t loam_vfs_calls_of(const loam_vfs *fault_vfs, uint32_t kinds)
{
    struct fault_vfs *v = fault_of_vfs(fault_vfs);
    if (v == NULL) {
        return 0;
    }
    mutex_lock(&v->mutex);
    uint64_t calls = calls_of_locked(v, kinds);
    mutex_unlock(&v->mutex);
    return calls;
}

LOAM_API uint64_t loam_vfs_faults(const loam_vfs *fault_vfs)
{
    struct fault_vfs *v = fault_of_vfs(fault_vfs);
    if (v == NULL) {
        return 0;
    }
    mutex_lock(&v->mutex);
    uint64_t faults = v->faults;
    mutex_unlock(&v->mutex);
    return faults;
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
    disk_set_names_model(v->disk, p.names);
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
    const struct disk_cut_spec spec = {
        .seed = seed ^ (variant * 0x9e3779b97f4a7c15u),
        .variant = variant <= LOAM_CUT_SIZES ? variant : CUT_MIXED,
    };
    int rc = disk_cut(v->disk, &spec, &d);
    if (rc == 0) {
        rc = disk_vfs_new(d, after);
        if (rc != 0) {
            disk_free(d);
        }
    }
    return rc == 0 ? LOAM_OK : FAIL_IO(rc, 0, 0, "cannot make the disk after a power cut");
}
