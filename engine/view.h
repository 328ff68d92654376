/* view.h - What a read searches: the memtables newest first, then one version of the tables.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A view is immutable and found through one pointer; a reader keeps it by staying inside an epoch
 * section. Whoever loads the view first and the visible sequence number after it has every version up
 * to that number in the view: what tables of the view hold was visible before it was published.
 */
#ifndef LOAM_ENGINE_VIEW_H_
#define LOAM_ENGINE_VIEW_H_

#include "arena/epoch.h"
#include "engine/version.h"
#include "memtable/memtable_list.h"

struct view {
    uint64_t number; /* rises; tells an iterator that the world has changed */
    struct version *version; /* one reference */
    uint32_t mem_count;
    struct memtable *mems[MEMTABLE_SLOTS]; /* newest first */
    struct alloc *alloc;
    struct epoch_node retire;
};

/* Memory for a view, ahead of the change it will show, so that publishing cannot fail. NULL: no
 * memory. */
struct view *view_alloc(struct alloc *a);
/* Takes a reference to version. */
void view_fill(struct view *v, uint64_t number, struct memtable_list *l, struct version *version);
/* One that was never filled; NULL is allowed. */
void view_discard(struct view *v);
/* Frees a filled one once no section can hold it. NULL is allowed. */
void view_retire(struct view *v);

#endif
