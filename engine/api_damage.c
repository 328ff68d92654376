/* api_damage.c - Public calls that look for damage.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"
#include "engine/call.h"
#include "engine/check.h"
#include "engine/loam.h"

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

int loam_check(const char *dir, const loam_options *opts, loam_damage_fn fn, void *ctx)
{
    if (dir == NULL || dir[0] == '\0') {
        return FAIL(LOAM_E_INVAL, "loam_check: dir is NULL or empty");
    }
    struct options o;
    int rc = options_resolve(opts, &o);
    if (rc < 0) {
        return rc;
    }
    struct alloc alloc;
    alloc_init(&alloc, o.user.allocator, UINT64_MAX);
    return check_directory(o.user.vfs, dir, &alloc, o.default_ks.comparator, fn, ctx);
}
