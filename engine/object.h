/* object.h - What handles, iterators and views are made of: one slab for each kind of object.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Objects of a fixed size that callers make and drop all the time: taking one touches the calling
 * thread's magazine and no allocator. The slabs serve the whole process, as the tables of handles do,
 * since a handle may be dropped after its database was closed; each object is charged to the
 * allocator of the database it belongs to, so the figures of a database are its own.
 */
#ifndef LOAM_ENGINE_OBJECT_H_
#define LOAM_ENGINE_OBJECT_H_

#include "arena/alloc.h"

enum object_kind {
    OBJECT_ITER,   /* struct db_iter */
    OBJECT_SOURCE, /* struct source, of an iterator */
    OBJECT_SNAP,   /* struct snap */
    OBJECT_KS,     /* struct ks_handle */
    OBJECT_BATCH,  /* struct batch_handle */
    OBJECT_VIEW,   /* struct view */
    OBJECT_KIND_COUNT
};

/* Zeroed, charged to a. NULL: no memory; the thread's error says so. Any thread. */
void *object_take(struct alloc *a, enum object_kind k);
/* a as at take; NULL is allowed for p. Any thread. */
void object_give(struct alloc *a, enum object_kind k, void *p);

/* For the registry, under its lock. Makes the slabs, going on where an earlier call found no memory,
 * which it says by false. */
bool objects_init(void);
/* Around a fork: a child must not find a slab in the midst of another thread's change. */
void objects_fork_prepare(void);
void objects_fork_done(void);

struct slab_stats;
/* For tests. */
void object_stats(enum object_kind k, struct slab_stats *out);

#endif
