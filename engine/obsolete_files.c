/* obsolete_files.c - Deletes files that nothing names any more.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/obsolete_files.h"

#include <errno.h>

#include "arena/status.h"

#include "arena/poison.h"

void obsolete_files_init(struct obsolete_files *o, const loam_vfs *vfs, const char *dir,
                         struct alloc *a)
{
    *o = (struct obsolete_files){.vfs = vfs, .dir = dir, .alloc = a};
    mutex_init(&o->mu, RANK_LEAF);
}

void obsolete_files_destroy(struct obsolete_files *o)
{
    alloc_put(o->alloc, MEM_VERSION, o->queue, o->cap * sizeof *o->queue);
    mutex_destroy(&o->mu);
}

void obsolete_files_add(struct obsolete_files *o, enum file_kind kind, uint64_t number)
{
    mutex_lock(&o->mu);
    if (o->count == o->cap && o->cap < UINT32_MAX / 2) {
        uint32_t cap = o->cap != 0 ? o->cap * 2 : 16;
        void *p = alloc_resize(o->alloc, MEM_VERSION, o->queue, o->cap * sizeof *o->queue,
                               cap * sizeof *o->queue);
        if (p != NULL) {
            o->queue = p;
            o->cap = cap;
        }
    }
    if (o->count < o->cap) { /* else the scan of the next open finds it */
        o->queue[o->count++] = (struct obsolete_file){.number = number, .kind = kind};
    }
    mutex_unlock(&o->mu);
}

uint32_t obsolete_files_pending(struct obsolete_files *o)
{
    mutex_lock(&o->mu);
    uint32_t n = o->count;
    mutex_unlock(&o->mu);
    return n;
}

/* Takes out entry i; the last one gets its place. */
static bool take(struct obsolete_files *o, uint32_t i, struct obsolete_file *f)
{
    mutex_lock(&o->mu);
    bool any = i < o->count;
    if (any) {
        *f = o->queue[i];
        o->queue[i] = o->queue[--o->count];
    }
    mutex_unlock(&o->mu);
    return any;
}

static bool remove_file(struct obsolete_files *o, const struct obsolete_file *f)
{
    char path[FILENAME_CAP];
    if (filename_make(o->dir, f->kind, f->number, path) != LOAM_OK) {
        return false;
    }
    int rc = o->vfs->remove(o->vfs->ctx, path);
    return rc >= 0 || rc == -ENOENT;
}

uint32_t obsolete_files_purge(struct obsolete_files *o)
{
    uint32_t removed = 0;
    struct obsolete_file f;
    /* From the end down, so that failures, which go to the end, are not tried twice. */
    for (uint32_t i = obsolete_files_pending(o); i-- > 0;) {
        if (!take(o, i, &f)) {
            continue;
        }
        if (remove_file(o, &f)) {
            removed++;
            atom_add(&o->removed, 1, relaxed); /* relaxed: a statistic */
        } else {
            obsolete_files_add(o, f.kind, f.number);
            atom_add(&o->failed, 1, relaxed); /* relaxed: a statistic */
        }
    }
    return removed;
}

struct scan {
    struct obsolete_files *o;
    obsolete_live_fn live;
    void *ctx;
};

static int scan_name(void *arg, loam_slice name)
{
    struct scan *s = arg;
    enum file_kind kind;
    uint64_t number;
    if (!filename_parse(name, &kind, &number)) {
        return 0;
    }
    switch (kind) {
    case FILE_CURRENT:
    case FILE_LOCK:
    case FILE_RESERVE:
        return 0;
    case FILE_LOG:
    case FILE_TABLE:
    case FILE_MANIFEST:
    case FILE_TEMP:
        break;
    }
    if (!s->live(s->ctx, kind, number)) {
        obsolete_files_add(s->o, kind, number);
    }
    return 0;
}

int obsolete_files_scan(struct obsolete_files *o, obsolete_live_fn live, void *ctx)
{
    obsolete_files_purge(o); /* first, so that no file is found that waits for its removal already */
    struct scan s = {.o = o, .live = live, .ctx = ctx};
    int rc = o->vfs->list(o->vfs->ctx, o->dir, scan_name, &s);
    if (rc < 0) {
        return FAIL_IO(rc, 0, 0, "cannot list the database directory");
    }
    obsolete_files_purge(o);
    return LOAM_OK;
}
