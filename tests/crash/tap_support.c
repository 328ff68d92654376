/* tap_support.c - Counts the calls of a vfs and takes pictures between them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/tap_support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/check.h"

static void take_pictures(struct tap *t, uint64_t index)
{
    for (unsigned i = 0; i < t->variant_count; i++) {
        if (t->count == t->cap) {
            t->cap = t->cap != 0 ? t->cap * 2 : 256;
            t->images = realloc(t->images, t->cap * sizeof *t->images);
            CHECK(t->images != NULL);
        }
        struct tap_image *im = &t->images[t->count++];
        im->index = index;
        im->variant = t->variants[i];
        im->after_cut = t->fixed ? t->after_cut : oracle_promise_low(t->oracle, false);
        im->promise = im->variant != 0 ? im->after_cut
                      : t->fixed       ? t->promise
                                       : oracle_promise_low(t->oracle, true);
        CHECK_EQ(loam_vfs_power_cut(t->fault, im->variant, &im->disk), LOAM_OK);
        if (!t->fixed) {
            oracle_promise_high(t->oracle, &im->promise);
            oracle_promise_high(t->oracle, &im->after_cut);
        }
    }
}

/* The first fault has fired: the second is on its way. Before, notes how far the disk is. */
static void next_plan(struct tap *t)
{
    if (t->rec != NULL && loam_vfs_faults(t->fault) == 0) {
        t->quiet = loam_recording_mark(t->rec);
    }
    if (t->second == NULL || loam_vfs_faults(t->fault) == 0) {
        return;
    }
    loam_fault_plan p = *t->second;
    t->second = NULL;
    p.fail_at += loam_vfs_calls_of(t->fault, p.fail_calls != 0 ? p.fail_calls : LOAM_CALL_ALL);
    CHECK_EQ(loam_vfs_set_plan(t->fault, &p), LOAM_OK);
}

void tap_cut(void *ctx)
{
    struct tap *t = ctx;
    mutex_lock(&t->mu);
    next_plan(t);
    uint64_t index = t->calls++;
    if (t->stride != 0 && index % t->stride == t->phase) {
        take_pictures(t, index);
    }
    mutex_unlock(&t->mu);
}

#define FAULT(ctx) (((struct tap *)(ctx))->fault)
#define PASS(ctx, call_, ...)                                                                      \
    do {                                                                                           \
        tap_cut(ctx);                                                                              \
        return FAULT(ctx)->call_(FAULT(ctx)->ctx, __VA_ARGS__);                                    \
    } while (0)

static int tap_open(void *ctx, const char *path, uint32_t flags, loam_file **f)
{
    PASS(ctx, open, path, flags, f);
}

/* Where the file stands in the list of those whose sync failed; NULL: nowhere. */
static loam_file **failed_place(struct tap *t, const loam_file *f)
{
    for (unsigned i = 0; i < TAP_FAILED; i++) {
        if (t->failed[i] == f) {
            return &t->failed[i];
        }
    }
    return NULL;
}

static int tap_close(void *ctx, loam_file *f)
{
    struct tap *t = ctx;
    tap_cut(ctx);
    mutex_lock(&t->mu);
    loam_file **place = failed_place(t, f);
    if (place != NULL) {
        *place = NULL;
    }
    mutex_unlock(&t->mu);
    return FAULT(ctx)->close(FAULT(ctx)->ctx, f);
}

static int64_t tap_write(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    PASS(ctx, write, f, buf, n, off);
}

/* Before a call that makes bytes of the file durable. */
static void before_sync(struct tap *t, loam_file *f)
{
    mutex_lock(&t->mu);
    bool again = failed_place(t, f) != NULL;
    mutex_unlock(&t->mu);
    if (again) {
        oracle_fail("a file whose sync failed is synced again");
    }
}

/* rc: of such a call. */
static void after_sync(struct tap *t, loam_file *f, int64_t rc)
{
    if (rc < 0 && rc != -EINTR) {
        mutex_lock(&t->mu);
        loam_file **place = failed_place(t, NULL);
        CHECK(place != NULL);
        *place = f;
        mutex_unlock(&t->mu);
    }
}

static int tap_sync(void *ctx, loam_file *f, uint32_t data_only)
{
    tap_cut(ctx);
    before_sync(ctx, f);
    int rc = FAULT(ctx)->sync(FAULT(ctx)->ctx, f, data_only);
    after_sync(ctx, f, rc);
    return rc;
}

static int64_t tap_write_durable(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off)
{
    tap_cut(ctx);
    before_sync(ctx, f);
    int64_t rc = FAULT(ctx)->write_durable(FAULT(ctx)->ctx, f, buf, n, off);
    after_sync(ctx, f, rc);
    return rc;
}

static int tap_truncate(void *ctx, loam_file *f, uint64_t size)
{
    PASS(ctx, truncate, f, size);
}

static int tap_reserve(void *ctx, loam_file *f, uint64_t off, uint64_t len)
{
    PASS(ctx, reserve, f, off, len);
}

static int tap_sync_dir(void *ctx, const char *dir)
{
    PASS(ctx, sync_dir, dir);
}

static int tap_mkdir(void *ctx, const char *dir)
{
    PASS(ctx, mkdir, dir);
}

static int tap_rename(void *ctx, const char *from, const char *to)
{
    PASS(ctx, rename, from, to);
}

static int tap_link(void *ctx, const char *from, const char *to)
{
    PASS(ctx, link, from, to);
}

static int tap_remove(void *ctx, const char *path)
{
    PASS(ctx, remove, path);
}

static int tap_lock(void *ctx, const char *path, loam_file **f)
{
    PASS(ctx, lock, path, f);
}

/* What changes nothing on the disk needs no picture before it. */
static void pass(struct tap *t)
{
    mutex_lock(&t->mu);
    next_plan(t);
    mutex_unlock(&t->mu);
}

static int64_t tap_read(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off)
{
    pass(ctx);
    return FAULT(ctx)->read(FAULT(ctx)->ctx, f, buf, n, off);
}

static int tap_size(void *ctx, loam_file *f, uint64_t *size)
{
    pass(ctx);
    return FAULT(ctx)->size(FAULT(ctx)->ctx, f, size);
}

static int tap_map(void *ctx, loam_file *f, uint64_t off, size_t len, void **p)
{
    pass(ctx);
    return FAULT(ctx)->map(FAULT(ctx)->ctx, f, off, len, p);
}

static int tap_unmap(void *ctx, void *p, size_t len)
{
    return FAULT(ctx)->unmap(FAULT(ctx)->ctx, p, len);
}

/* An error of WRITEBACK says what one of a sync does, but for those that refuse the advice. */
static int tap_advise(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice)
{
    pass(ctx);
    if (advice != LOAM_ADVISE_WRITEBACK) {
        return FAULT(ctx)->advise(FAULT(ctx)->ctx, f, off, len, advice);
    }
    before_sync(ctx, f);
    int rc = FAULT(ctx)->advise(FAULT(ctx)->ctx, f, off, len, advice);
    if (rc != -EINVAL && rc != -ENOSYS && rc != -EOPNOTSUPP) {
        after_sync(ctx, f, rc);
    }
    return rc;
}

static int tap_list(void *ctx, const char *dir, loam_name_fn fn, void *arg)
{
    pass(ctx);
    return FAULT(ctx)->list(FAULT(ctx)->ctx, dir, fn, arg);
}

static int tap_space(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes)
{
    pass(ctx);
    return FAULT(ctx)->space(FAULT(ctx)->ctx, dir, free_bytes, total_bytes);
}

static int tap_is_named(void *ctx, loam_file *f, const char *path)
{
    PASS(ctx, is_named, f, path);
}

static uint64_t tap_now_us(void *ctx)
{
    return FAULT(ctx)->now_us(FAULT(ctx)->ctx);
}

static int tap_random(void *ctx, void *buf, size_t n)
{
    pass(ctx);
    return FAULT(ctx)->random(FAULT(ctx)->ctx, buf, n);
}

void tap_create(struct tap *t, loam_vfs *disk, const loam_fault_plan *plan, const struct oracle *o)
{
    *t = (struct tap){.disk = disk, .oracle = o};
    CHECK_EQ(loam_vfs_fault(disk, plan, &t->fault), LOAM_OK);
    t->vfs = (loam_vfs){
        .struct_size = sizeof t->vfs,
        .name = "tap",
        .ctx = t,
        .open = tap_open,
        .close = tap_close,
        .read = tap_read,
        .write = tap_write,
        .sync = tap_sync,
        .truncate = tap_truncate,
        .reserve = tap_reserve,
        .size = tap_size,
        .map = t->fault->map != NULL ? tap_map : NULL,
        .unmap = tap_unmap,
        .advise = tap_advise,
        .sync_dir = tap_sync_dir,
        .mkdir = tap_mkdir,
        .rename = tap_rename,
        .link = tap_link,
        .remove = tap_remove,
        .list = tap_list,
        .lock = tap_lock,
        .space = tap_space,
        .now_us = tap_now_us,
        .random = tap_random,
        .write_durable = tap_write_durable,
        .is_named = tap_is_named,
    };
    mutex_init(&t->mu, RANK_VFS - 1);
}

void tap_destroy(struct tap *t)
{
    for (size_t i = 0; i < t->count; i++) {
        loam_vfs_free(t->images[i].disk);
    }
    free(t->images);
    loam_vfs_free(t->fault);
    loam_vfs_free(t->disk);
    mutex_destroy(&t->mu);
}

/* ---- a look at a failure ----------------------------------------------------------------------- */

static const loam_vfs *suspect;

static int dump_file(void *ctx, loam_slice name)
{
    char from[128], to[512];
    uint8_t page[4096];
    loam_file *f;
    snprintf(from, sizeof from, "/db/%.*s", (int)name.size, (const char *)name.data);
    snprintf(to, sizeof to, "%s/%.*s", (const char *)ctx, (int)name.size, (const char *)name.data);
    FILE *out = fopen(to, "wb");
    if (out == NULL || suspect->open(suspect->ctx, from, LOAM_VFS_READ, &f) < 0) {
        fprintf(stderr, "cannot copy %s\n", from);
        return 0;
    }
    int64_t n;
    for (uint64_t at = 0; (n = suspect->read(suspect->ctx, f, page, sizeof page, at)) > 0;) {
        fwrite(page, 1, (size_t)n, out);
        at += (uint64_t)n;
    }
    suspect->close(suspect->ctx, f);
    fclose(out);
    return 0;
}

static void dump(void)
{
    char *dir = getenv("LOAM_DUMP");
    if (dir != NULL && suspect != NULL) {
        suspect->list(suspect->ctx, "/db", dump_file, dir);
    }
}

void tap_dump_on_failure(const loam_vfs *disk)
{
    suspect = disk;
    oracle_on_fail = dump;
}
