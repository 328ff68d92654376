/* db_vfs.c - Passes calls on to the caller's vfs: again when interrupted, over few descriptors, within the budget.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/db_vfs.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "arena/buf.h"
#include "arena/vfs_full.h"
#include "engine/filename.h"

#include "arena/poison.h"

#define INTERRUPTIONS_MAX 100u /* in a row, of one call */
#define REFUSALS_MAX      20u  /* for lack of descriptors, of one call */
#define REFUSAL_WAIT_US   500u /* a read that holds a descriptor takes about this long */
#define SHUT_AT_ONCE      16u
#define SHUT              UINT32_MAX

struct loam_file {
    struct loam_file *inner; /* the caller's vfs's; of a table: NULL while it is shut */
    bool is_table;
    struct disk_file *counted; /* what it weighs; NULL: it does not count */
    /* of a table */
    uint64_t number;
    _Atomic uint32_t users; /* threads that have `inner` now, or SHUT */
    _Atomic uint32_t used;  /* since the hand last passed */
    struct loam_file *next, *prev; /* in the clock; guarded by mu */
};

#define OF(ctx) ((struct db_vfs *)(ctx))

/* ---- refusals ---------------------------------------------------------------------------------- */

/* Takes up to `want` tables that nobody reads out of the caller's vfs; those not read of late first.
 * Returns how many. */
static uint32_t shut_some(struct db_vfs *v, uint32_t want)
{
    struct loam_file *gone[SHUT_AT_ONCE];
    uint32_t n = 0;
    mutex_lock(&v->mu);
    for (uint64_t steps = 2 * (uint64_t)v->tables; steps > 0 && n < want && n < SHUT_AT_ONCE;
         steps--) {
        struct loam_file *f = v->hand;
        v->hand = f->next;
        uint32_t none = 0;
        /* relaxed: a hint. acquire: pairs with the release in give_back(). */
        if (atom_swap(&f->used, 0, relaxed) == 0 &&
            atom_cas(&f->users, &none, SHUT, acquire, relaxed)) {
            gone[n++] = f->inner;
            f->inner = NULL;
            v->open_tables--;
        }
    }
    mutex_unlock(&v->mu);
    for (uint32_t i = 0; i < n; i++) {
        (void)v->inner->close(v->inner->ctx, gone[i]); /* only read */
    }
    atom_add(&v->shut, n, relaxed); /* relaxed: a statistic */
    return n;
}

/* Lets go of a quarter of the tables. False: there is none to let go of. */
static bool give_descriptors_back(struct db_vfs *v)
{
    if (v->max_open_files == 0) {
        return false;
    }
    mutex_lock(&v->mu);
    uint32_t open = v->open_tables;
    mutex_unlock(&v->mu);
    if (open != 0 && shut_some(v, open / 4 + 1) == 0) {
        thread_sleep_micros(REFUSAL_WAIT_US); /* all are being read */
    }
    return open != 0;
}

/* What one call was refused for so far. */
struct refusals {
    uint32_t interruptions, descriptors;
};

/* Whether the call that gave rc is to be made again. takes: it takes a descriptor; of any other call
 * the result stands - above all that of a sync, which is never made twice. */
static bool again(struct db_vfs *v, int64_t rc, bool takes, struct refusals *r)
{
    if (__builtin_expect(rc >= 0, 1)) {
        return false;
    }
    if (rc == -EINTR) { /* which says that nothing was done */
        return ++r->interruptions < INTERRUPTIONS_MAX;
    }
    return takes && (rc == -EMFILE || rc == -ENFILE) && ++r->descriptors < REFUSALS_MAX &&
           give_descriptors_back(v);
}

/* rc = the result of v->inner->call(...), made as often as it takes. */
#define CALL_(v_, rc_, takes_, call_, ...)                                                         \
    do {                                                                                           \
        struct refusals refusals_ = {0};                                                           \
        do {                                                                                       \
            (rc_) = (v_)->inner->call_((v_)->inner->ctx, __VA_ARGS__);                             \
        } while (again((v_), (rc_), (takes_), &refusals_));                                        \
    } while (0)
#define CALL(v_, rc_, call_, ...)  CALL_(v_, rc_, false, call_, __VA_ARGS__)
#define TAKES(v_, rc_, call_, ...) CALL_(v_, rc_, true, call_, __VA_ARGS__)
#define PASS(ctx_, call_, ...)                                                                     \
    do {                                                                                           \
        int rc_;                                                                                   \
        CALL(OF(ctx_), rc_, call_, __VA_ARGS__);                                                   \
        return rc_;                                                                                \
    } while (0)

/* ---- the directory ----------------------------------------------------------------------------- */

/* 0 when paths in the directory are those of this database's files, as far as can be told. Never that something is
 * missing: to whoever asked for a file it would say that the file is. */
static int at_home(struct db_vfs *v)
{
    char path[FILENAME_CAP];
    if (v->lock == NULL) {
        return 0;
    }
    if (filename_make(v->dir, FILE_LOCK, 0, path) < 0) {
        return -ENAMETOOLONG;
    }
    int rc;
    CALL(v, rc, is_named, v->lock->inner, path);
    return rc == -ENOENT || rc == -ENOTDIR ? -ESTALE : rc;
}

/* ---- tables that are open and shut ------------------------------------------------------------- */

static int open_table(struct db_vfs *v, uint64_t number, struct loam_file **inner)
{
    char path[FILENAME_CAP];
    if (filename_make(v->dir, FILE_TABLE, number, path) < 0) {
        return -ENAMETOOLONG;
    }
    mutex_lock(&v->mu);
    uint32_t open = v->open_tables;
    mutex_unlock(&v->mu);
    if (open >= v->max_open_files) {
        (void)shut_some(v, open - v->max_open_files + 1);
    }
    int rc = at_home(v);
    if (rc == 0) {
        TAKES(v, rc, open, path, LOAM_VFS_READ, inner);
    }
    return rc;
}

/* Opens the file of a table that was found shut. Several threads may; one of the files is kept. */
static int reopen(struct db_vfs *v, struct loam_file *f)
{
    struct loam_file *inner;
    int rc = open_table(v, f->number, &inner);
    if (rc < 0) {
        return rc;
    }
    mutex_lock(&v->mu);
    if (f->inner == NULL) {
        f->inner = inner;
        inner = NULL;
        v->open_tables++;
        /* release: pairs with the acquire in lend(); makes `inner` visible. */
        atom_store(&f->users, 0, release);
    }
    mutex_unlock(&v->mu);
    if (inner != NULL) {
        (void)v->inner->close(v->inner->ctx, inner);
    }
    return 0;
}

/* The caller's vfs's file behind f, until give_back(). 0, or why it cannot be opened again. */
static int lend(struct db_vfs *v, struct loam_file *f, struct loam_file **inner)
{
    if (f->is_table) {
        uint32_t n = atom_load(&f->users, relaxed); /* relaxed: the CAS decides */
        /* acquire: pairs with the release in reopen(). */
        while (n == SHUT || !atom_cas(&f->users, &n, n + 1, acquire, relaxed)) {
            if (n == SHUT) {
                int rc = reopen(v, f);
                if (rc < 0) {
                    return rc;
                }
                n = atom_load(&f->users, relaxed);
            }
        }
        /* relaxed: a hint. Stored only when it changes, to leave the line shared. */
        if (atom_load(&f->used, relaxed) == 0) {
            atom_store(&f->used, 1, relaxed);
        }
    }
    *inner = f->inner;
    return 0;
}

static void give_back(struct loam_file *f)
{
    if (f->is_table) {
        atom_sub(&f->users, 1, release); /* pairs with the acquire in shut_some() */
    }
}

static void clock_add(struct db_vfs *v, struct loam_file *f)
{
    mutex_lock(&v->mu);
    f->next = v->hand != NULL ? v->hand : f;
    f->prev = v->hand != NULL ? v->hand->prev : f;
    f->next->prev = f;
    f->prev->next = f;
    v->hand = v->hand != NULL ? v->hand : f;
    v->tables++;
    v->open_tables++;
    mutex_unlock(&v->mu);
}

/* Returns the file that is left to close; NULL: it is shut. */
static struct loam_file *clock_remove(struct db_vfs *v, struct loam_file *f)
{
    mutex_lock(&v->mu);
    struct loam_file *inner = f->inner;
    v->hand = v->hand == f ? f->next : v->hand;
    v->hand = v->hand == f ? NULL : v->hand;
    f->next->prev = f->prev;
    f->prev->next = f->next;
    v->tables--;
    v->open_tables -= inner != NULL;
    mutex_unlock(&v->mu);
    return inner;
}

/* ---- files ------------------------------------------------------------------------------------- */

/* Whether the path names a table of the database, and which. */
static bool names_table(const char *path, uint64_t *number)
{
    const char *base = strrchr(path, '/');
    base = base != NULL ? base + 1 : path;
    enum file_kind kind;
    return filename_parse(loam_bytes(base, strlen(base)), &kind, number) && kind == FILE_TABLE;
}

static bool has_budget(const struct db_vfs *v)
{
    return v->account.budget != 0;
}

/* The file's size is what it is: after a change that may have been made in part. */
static void settle(struct db_vfs *v, struct loam_file *f)
{
    if (f->counted == NULL) {
        return;
    }
    uint64_t size;
    int rc;
    CALL(v, rc, size, f->inner, &size);
    if (rc >= 0) {
        disk_account_settle(&v->account, f->counted, size);
    }
}

/* Whether the file may grow over [off, off + n). */
static bool may_grow(struct db_vfs *v, struct loam_file *f, uint64_t off, uint64_t n)
{
    return f->counted == NULL || n > UINT64_MAX - off || /* which the caller's vfs refuses */
           disk_account_grow(&v->account, f->counted, off + n);
}

static struct loam_file *wrap(struct db_vfs *v)
{
    return alloc_zero(v->alloc, MEM_VFS, sizeof(struct loam_file));
}

static void unwrap(struct db_vfs *v, struct loam_file *f)
{
    alloc_put(v->alloc, MEM_VFS, f, sizeof *f);
}

static int open_file(struct db_vfs *v, struct loam_file *f, const char *path, uint32_t flags)
{
    int rc = 0;
    if (has_budget(v)) {
        f->counted = disk_account_get(&v->account, path);
        if (f->counted == NULL) {
            return -ENOMEM;
        }
    }
    f->is_table =
        flags == LOAM_VFS_READ && v->max_open_files != 0 && names_table(path, &f->number);
    if (f->is_table) {
        rc = open_table(v, f->number, &f->inner);
    } else {
        rc = at_home(v);
        if (rc == 0) {
            TAKES(v, rc, open, path, flags, &f->inner);
        }
    }
    if (rc < 0) {
        if (f->counted != NULL) {
            disk_account_put(&v->account, f->counted);
        }
        return rc;
    }
    if (f->is_table) {
        clock_add(v, f);
    } else if ((flags & LOAM_VFS_WRITE) != 0) {
        settle(v, f);
    }
    return rc;
}

static int db_open(void *ctx, const char *path, uint32_t flags, loam_file **out)
{
    struct db_vfs *v = OF(ctx);
    struct loam_file *f = wrap(v);
    if (f == NULL) {
        return -ENOMEM;
    }
    int rc = open_file(v, f, path, flags);
    if (rc < 0) {
        unwrap(v, f);
        return rc;
    }
    *out = f;
    return rc;
}

static int db_close(void *ctx, loam_file *f)
{
    struct db_vfs *v = OF(ctx);
    assert(!f->is_table || atom_load(&f->users, relaxed) == 0 ||
           atom_load(&f->users, relaxed) == SHUT);
    struct loam_file *inner = f->is_table ? clock_remove(v, f) : f->inner;
    if (f == v->lock) {
        v->lock = NULL;
    }
    int rc = inner != NULL ? v->inner->close(v->inner->ctx, inner) : 0;
    if (f->counted != NULL) {
        disk_account_put(&v->account, f->counted); /* only now is its space free */
    }
    unwrap(v, f);
    return rc == -EINTR ? 0 : rc; /* it is closed all the same */
}

static int64_t db_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    struct loam_file *inner;
    int64_t rc = lend(OF(ctx), f, &inner);
    if (rc == 0) {
        CALL(OF(ctx), rc, read, inner, buf, n, off);
        give_back(f);
    }
    return rc;
}

static int64_t write_within(struct db_vfs *v, loam_file *f, const void *buf, size_t n,
                            uint64_t off, bool durably)
{
    if (!may_grow(v, f, off, n)) {
        return -EDQUOT;
    }
    int64_t rc;
    if (durably) {
        CALL(v, rc, write_durable, f->inner, buf, n, off);
    } else {
        CALL(v, rc, write, f->inner, buf, n, off);
    }
    if (rc != (int64_t)n) {
        settle(v, f);
    }
    return rc;
}

static int64_t db_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    return write_within(OF(ctx), f, buf, n, off, false);
}

static int64_t db_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    return write_within(OF(ctx), f, buf, n, off, true);
}

static int db_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    PASS(ctx, sync, f->inner, data_only);
}

static int db_truncate(void *ctx, loam_file *f, uint64_t size)
{
    struct db_vfs *v = OF(ctx);
    if (!may_grow(v, f, 0, size)) {
        return -EDQUOT;
    }
    int rc;
    CALL(v, rc, truncate, f->inner, size);
    settle(v, f);
    return rc;
}

static int db_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    struct db_vfs *v = OF(ctx);
    if (!may_grow(v, f, off, len)) {
        return -EDQUOT;
    }
    int rc;
    CALL(v, rc, reserve, f->inner, off, len);
    if (rc < 0) {
        settle(v, f);
    }
    return rc;
}

static int db_size(void *ctx, loam_file *f, uint64_t *size)
{
    struct loam_file *inner;
    int rc = lend(OF(ctx), f, &inner);
    if (rc == 0) {
        CALL(OF(ctx), rc, size, inner, size);
        give_back(f);
    }
    return rc;
}

static int db_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    PASS(ctx, map, f->inner, off, len, p);
}

static int db_unmap(void *ctx, void *p, size_t len)
{
    PASS(ctx, unmap, p, len);
}

static int db_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    struct loam_file *inner;
    int rc = lend(OF(ctx), f, &inner);
    if (rc == 0) {
        CALL(OF(ctx), rc, advise, inner, off, len, advice);
        give_back(f);
    }
    return rc;
}

/* ---- names ------------------------------------------------------------------------------------- */

static int db_sync_dir(void *ctx, const char *dir)
{
    int rc = at_home(OF(ctx));
    if (rc == 0) {
        TAKES(OF(ctx), rc, sync_dir, dir);
    }
    return rc;
}

static int db_mkdir(void *ctx, const char *dir)
{
    PASS(ctx, mkdir, dir);
}

static int db_rename(void *ctx, const char *from, const char *to)
{
    struct db_vfs *v = OF(ctx);
    int rc = at_home(v);
    if (rc == 0) {
        CALL(v, rc, rename, from, to);
    }
    if (rc >= 0 && has_budget(v)) {
        disk_account_rename(&v->account, from, to);
    }
    return rc;
}

static int db_link(void *ctx, const char *from, const char *to)
{
    int rc = at_home(OF(ctx));
    if (rc == 0) {
        CALL(OF(ctx), rc, link, from, to);
    }
    return rc;
}

static int db_remove(void *ctx, const char *path)
{
    struct db_vfs *v = OF(ctx);
    int rc = at_home(v);
    if (rc == 0) {
        CALL(v, rc, remove, path);
    }
    if (rc >= 0 && has_budget(v)) {
        disk_account_remove(&v->account, path);
    }
    return rc;
}

static int db_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    int rc = at_home(OF(ctx));
    if (rc == 0) {
        TAKES(OF(ctx), rc, list, dir, fn, arg);
    }
    return rc;
}

static int db_lock(void *ctx, const char *path, loam_file **out)
{
    struct db_vfs *v = OF(ctx);
    struct loam_file *f = wrap(v);
    if (f == NULL) {
        return -ENOMEM;
    }
    int rc;
    TAKES(v, rc, lock, path, &f->inner);
    if (rc < 0) {
        unwrap(v, f);
        return rc;
    }
    if (vfs_knows_names(v->inner)) {
        v->lock = f;
    }
    *out = f;
    return rc;
}

static int db_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    struct db_vfs *v = OF(ctx);
    int rc;
    CALL(v, rc, space, dir, free_bytes, total_bytes);
    if (rc >= 0 && has_budget(v)) {
        uint64_t left = disk_account_left(&v->account), whole = v->account.budget;
        *free_bytes = *free_bytes < left ? *free_bytes : left;
        *total_bytes = *total_bytes < whole ? *total_bytes : whole;
    }
    return rc;
}

static uint64_t db_now_us(void *ctx)
{
    return OF(ctx)->inner->now_us(OF(ctx)->inner->ctx);
}

static int db_random(void *ctx, void *buf, size_t n)
{
    PASS(ctx, random, buf, n);
}

/* ---- life -------------------------------------------------------------------------------------- */

static const loam_vfs db_calls = {
    .struct_size = sizeof(loam_vfs),
    .open = db_open,
    .close = db_close,
    .read = db_read,
    .write = db_write,
    .sync = db_sync,
    .truncate = db_truncate,
    .reserve = db_reserve,
    .size = db_size,
    .map = db_map,
    .unmap = db_unmap,
    .advise = db_advise,
    .sync_dir = db_sync_dir,
    .mkdir = db_mkdir,
    .rename = db_rename,
    .link = db_link,
    .remove = db_remove,
    .list = db_list,
    .lock = db_lock,
    .space = db_space,
    .now_us = db_now_us,
    .random = db_random,
    .write_durable = db_write_durable,
};

void db_vfs_init(struct db_vfs *v, const struct db_vfs_options *o, const char *dir)
{
    *v = (struct db_vfs){.vfs = db_calls,
                         .inner = o->inner,
                         .alloc = o->alloc,
                         .dir = dir,
                         .max_open_files = o->max_open_files};
    v->vfs.name = o->inner->name;
    v->vfs.ctx = v;
    if (o->inner->map == NULL) {
        v->vfs.map = NULL;
    }
    if (!vfs_writes_durably(o->inner)) {
        v->vfs.write_durable = NULL;
    }
    disk_account_init(&v->account, o->alloc, o->disk_budget);
    mutex_init(&v->mu, RANK_LEAF);
}

void db_vfs_destroy(struct db_vfs *v)
{
    assert(v->tables == 0);
    disk_account_destroy(&v->account);
    mutex_destroy(&v->mu);
}

/* ---- what is there at open --------------------------------------------------------------------- */

struct found_file {
    enum file_kind kind;
    uint64_t number;
};

static int note_name(void *arg, loam_slice name)
{
    struct buf *found = arg;
    struct found_file f = {0};
    if (filename_parse(name, &f.kind, &f.number)) {
        buf_append(found, &f, sizeof f);
    }
    return 0;
}

/* A file that cannot be opened is not counted: whoever needs it will say so. */
static int count_file(struct db_vfs *v, const struct found_file *at)
{
    char path[FILENAME_CAP];
    struct loam_file *inner;
    uint64_t size;
    int rc;
    if (filename_make(v->dir, at->kind, at->number, path) < 0) {
        return -ENAMETOOLONG;
    }
    TAKES(v, rc, open, path, LOAM_VFS_READ, &inner);
    if (rc < 0) {
        return 0;
    }
    CALL(v, rc, size, inner, &size);
    struct disk_file *f = disk_account_get(&v->account, path);
    if (f != NULL && rc >= 0) {
        disk_account_settle(&v->account, f, size);
    }
    (void)v->inner->close(v->inner->ctx, inner);
    if (f == NULL) {
        return -ENOMEM;
    }
    disk_account_put(&v->account, f);
    return 0;
}

int db_vfs_count(struct db_vfs *v)
{
    if (!has_budget(v)) {
        return 0;
    }
    struct buf found;
    buf_init(&found, v->alloc, MEM_VFS);
    int rc;
    TAKES(v, rc, list, v->dir, note_name, &found);
    rc = found.oom ? -ENOMEM : rc;
    for (size_t at = 0; at < found.size && rc >= 0; at += sizeof(struct found_file)) {
        struct found_file f;
        memcpy(&f, found.data + at, sizeof f);
        rc = count_file(v, &f);
    }
    buf_free(&found);
    return rc;
}
