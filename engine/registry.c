/* registry.c - Makes the process's handle tables at first use.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/registry.h"

#include <pthread.h>

#include "engine/handles.h"

#include "arena/poison.h"

struct registry registry_;
_Atomic bool registry_ready_;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void start(void)
{
    const struct {
        struct slotmap *map;
        enum handle_kind kind;
        void (*finaliser)(void *arg, void *payload);
    } maps[] = {
        {&registry_.dbs, HANDLE_DB, NULL}, /* loam_close() takes the payload itself */
        {&registry_.spaces, HANDLE_KS, ks_handle_free},
        {&registry_.snaps, HANDLE_SNAP, snap_handle_free},
        {&registry_.iters, HANDLE_ITER, NULL}, /* kept for reuse, see db_iter.h */
        {&registry_.batches, HANDLE_BATCH, batch_handle_free},
        {&registry_.memtables, HANDLE_MEMTABLE, NULL},
    };
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        if (slotmap_init(maps[i].map, alloc_global(), maps[i].kind) < 0) {
            return;
        }
        if (maps[i].finaliser != NULL) {
            slotmap_set_finaliser(maps[i].map, maps[i].finaliser, NULL);
        }
    }
    atom_store(&registry_ready_, true, release); /* pairs with registry_get() */
}

struct registry *registry_start_(void)
{
    pthread_once(&once, start);
    /* acquire: as in registry_get(). */
    return atom_load(&registry_ready_, acquire) ? &registry_ : NULL;
}
