/* view.c - Makes and retires views.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/view.h"

#include "engine/object.h"

#include "arena/poison.h"

struct view *view_alloc(struct alloc *a)
{
    struct view *v = object_take(a, OBJECT_VIEW);
    if (v != NULL) {
        v->alloc = a;
    }
    return v;
}

void view_discard(struct view *v)
{
    if (v != NULL) {
        object_give(v->alloc, OBJECT_VIEW, v);
    }
}

void view_fill(struct view *v, uint64_t number, struct memtable_list *l, struct version *version)
{
    v->number = number;
    v->version = version;
    version_ref(version);
    for (uint32_t g = l->end; g-- > l->oldest;) {
        v->mems[v->mem_count++] = memtable_list_find(l, g);
    }
}

static void view_free(void *arg, void *ptr)
{
    (void)arg;
    struct view *v = ptr;
    version_unref(v->version);
    view_discard(v);
}

void view_retire(struct view *v)
{
    if (v != NULL) {
        epoch_retire_node(&v->retire, view_free, NULL, v);
    }
}
