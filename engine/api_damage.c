/* api_damage.c - Public calls that look for damage and repair it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"
#include "engine/call.h"
#include "engine/check.h"
#include "engine/loam.h"
#include "engine/repair.h"

#include "arena/poison.h"

int loam_verify(loam_db *handle, loam_damage_fn fn, void *ctx)
{
    struct call c;
    int rc = call_begin_waiting(&c, handle);
    if (rc < 0) {
        return rc;
    }
    rc = check_open(c.db, fn, ctx);
    call_end(&c);
    return rc;
}

/* What a call on a closed directory needs of its options. */
struct closed {
    struct options options;
    struct alloc alloc;
    struct db_vfs files;
};

static int begin_closed(const char *call, const char *dir, const loam_options *opts,
                        struct closed *c)
{
    if (dir == NULL || dir[0] == '\0') {
        return FAIL(LOAM_E_INVAL, "%s: dir is NULL or empty", call);
    }
    int rc = options_resolve(opts, &c->options);
    if (rc == LOAM_OK) {
        alloc_init(&c->alloc, c->options.user.allocator, UINT64_MAX);
        const struct db_vfs_options files = {.inner = c->options.user.vfs, .alloc = &c->alloc};
        db_vfs_init(&c->files, &files, dir);
    }
    return rc;
}

int loam_check(const char *dir, const loam_options *opts, loam_damage_fn fn, void *ctx)
{
    struct closed c;
    int rc = begin_closed("loam_check", dir, opts, &c);
    if (rc == LOAM_OK) {
        const loam_comparator *cmp = c.options.default_ks.comparator;
        rc = check_directory(&c.files.vfs, dir, &c.alloc, cmp, fn, ctx);
        db_vfs_destroy(&c.files);
    }
    return rc;
}

int loam_repair(const char *dir, const loam_options *opts, loam_damage_fn fn, void *ctx)
{
    struct closed c;
    int rc = begin_closed("loam_repair", dir, opts, &c);
    if (rc == LOAM_OK) {
        const loam_comparator *cmp = c.options.default_ks.comparator;
        rc = repair_directory(&c.files.vfs, dir, &c.alloc, cmp, fn, ctx);
        db_vfs_destroy(&c.files);
    }
    return rc;
}
