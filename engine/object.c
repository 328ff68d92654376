/* object.c - One slab for each kind of object behind a handle or a pointer that readers follow.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/object.h"

#include <assert.h>
#include <string.h>

#include "arena/slab.h"
#include "arena/status.h"
#include "engine/db_iter.h"
#include "engine/handles.h"

#include "arena/poison.h"

#define SEGMENT_BYTES ((size_t)16 << 10) /* most processes hold a handful of each kind */
#define CACHE_ITEMS   8 /* so a thread keeps no more than 16 free ones from others */

static struct slab slabs[OBJECT_KIND_COUNT];
static size_t started; /* slabs that are initialised; guarded by the registry's lock */

static const struct {
    size_t size, align;
    enum mem_owner owner;
} kinds[OBJECT_KIND_COUNT] = {
    [OBJECT_ITER] = {sizeof(struct db_iter), _Alignof(struct db_iter), MEM_ITER},
    [OBJECT_SOURCE] = {sizeof(struct source), _Alignof(struct source), MEM_ITER},
    [OBJECT_SNAP] = {sizeof(struct snap), _Alignof(struct snap), MEM_HANDLE},
    [OBJECT_KS] = {sizeof(struct ks_handle), _Alignof(struct ks_handle), MEM_HANDLE},
    [OBJECT_BATCH] = {sizeof(struct batch_handle), _Alignof(struct batch_handle), MEM_BATCH},
    [OBJECT_VIEW] = {sizeof(struct view), _Alignof(struct view), MEM_VERSION},
};

void *object_take(struct alloc *a, enum object_kind k)
{
    void *p = slab_take(&slabs[k]);
    if (p != NULL) {
        alloc_charge(a, kinds[k].owner, kinds[k].size);
        memset(p, 0, kinds[k].size);
    }
    return p;
}

void object_give(struct alloc *a, enum object_kind k, void *p)
{
    if (p == NULL) {
        return;
    }
    alloc_uncharge(a, kinds[k].owner, kinds[k].size);
    int rc = slab_give(&slabs[k], p);
    assert(rc == LOAM_OK);
    (void)rc;
}

void object_stats(enum object_kind k, struct slab_stats *out)
{
    slab_stats(&slabs[k], out);
}

void objects_fork_prepare(void)
{
    for (size_t k = 0; k < started; k++) {
        slab_fork_prepare(&slabs[k]);
    }
}

void objects_fork_done(void)
{
    for (size_t k = started; k-- > 0;) {
        slab_fork_done(&slabs[k]);
    }
}

bool objects_init(void)
{
    for (; started < OBJECT_KIND_COUNT; started++) {
        const struct slab_options o = {.object_size = kinds[started].size,
                                       .object_align = kinds[started].align,
                                       .segment_bytes = SEGMENT_BYTES,
                                       .cache_items = CACHE_ITEMS,
                                       .owner = MEM_HANDLE};
        if (slab_init(&slabs[started], alloc_global(), &o) != LOAM_OK) {
            return false;
        }
    }
    return true;
}
