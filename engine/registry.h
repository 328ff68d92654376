/* registry.h - The process's tables of public handles.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A public pointer (loam_db* and so on) is a slotmap handle in a pointer's clothes; it is looked up,
 * never dereferenced. A lookup is valid inside the epoch section it was made in. A call that may
 * wait pins the handle, leaves the section, waits, and enters again (see call.h).
 */
#ifndef LOAM_ENGINE_REGISTRY_H_
#define LOAM_ENGINE_REGISTRY_H_

#include "arena/slotmap.h"

/* Kinds of slotmap handles in the process; a handle of one kind is foreign to every other map. */
enum handle_kind {
    HANDLE_DB = 1,
    HANDLE_TABLE = 2, /* the block cache's */
    HANDLE_KS = 3,
    HANDLE_SNAP = 4,
    HANDLE_ITER = 5,
    HANDLE_BATCH = 6,
    HANDLE_MEMTABLE = 7
};

struct registry {
    struct slotmap dbs;     /* struct db */
    struct slotmap spaces;  /* struct ks_handle */
    struct slotmap snaps;   /* struct snap */
    struct slotmap iters;   /* struct db_iter */
    struct slotmap batches; /* struct batch */
    struct slotmap memtables; /* struct memtable; the name of each write buffer */
};

extern struct registry registry_;
extern _Atomic bool registry_ready_;
struct registry *registry_start_(void);

/* The one instance, made at first use and kept for the life of the process. NULL: no memory. */
static inline struct registry *registry_get(void)
{
    /* acquire: pairs with the release at its start; the maps are initialised. */
    return __builtin_expect(atom_load(&registry_ready_, acquire), 1) ? &registry_
                                                                     : registry_start_();
}

_Static_assert(sizeof(void *) == sizeof(uint64_t), "handles travel in 64-bit pointers");
#define HANDLE_OF(p) ((uint64_t)(uintptr_t)(p))
#define HANDLE_AS(type, h) ((type *)(uintptr_t)(h))

/* After a handle was released: frees what released handles held, at once when their database is
 * closed, otherwise now and then. A database open for writing has threads that do so; where there is
 * none, these calls are all that happens.
 * REQUIRES: no lock held. Does nothing inside a section. */
void registry_released(bool closed);

#endif
