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
static int begin_closed(const char *call, const char *dir, const loam_options *opts,
                        struct options *o, struct alloc *alloc)
{
    if (dir == NULL || dir[0] == '\0') {
        return FAIL(LOAM_E_INVAL, "%s: dir is NULL or empty", call);
    }
    int rc = options_resolve(opts, o);
    if (rc == LOAM_OK) {
        alloc_init(alloc, o->user.allocator, UINT64_MAX);
    }
    return rc;
}

int loam_check(const char *dir, const loam_options *opts, loam_damage_fn fn, void *ctx)
{
    struct options o;
    struct alloc alloc;
    int rc = begin_closed("loam_check", dir, opts, &o, &alloc);
    return rc < 0 ? rc : check_directory(o.user.vfs, dir, &alloc, o.default_ks.comparator, fn, ctx);
}

int loam_repair(const char *dir, const loam_options *opts, loam_damage_fn fn, void *ctx)
{
    struct options o;
    struct alloc alloc;
    int rc = begin_closed("loam_repair", dir, opts, &o, &alloc);
    return rc < 0 ? rc
                  : repair_directory(o.user.vfs, dir, &alloc, o.default_ks.comparator, fn, ctx);
}
