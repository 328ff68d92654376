/* registry.c - Makes the process's handle tables at first use.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/registry.h"

#include <pthread.h>

#include "engine/handles.h"
#include "engine/object.h"

#include "arena/poison.h"

struct registry registry_;
_Atomic bool registry_ready_;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct mutex start_mu; /* guards `started`; held while tables are made */
static size_t started;        /* tables that are initialised */

#define POLL_EVERY 64u /* releases of a thread: a poll costs as much as several of them */
static _Thread_local unsigned releases;

static struct slotmap *const all_maps[] = {&registry_.dbs,   &registry_.spaces,  &registry_.snaps,
                                           &registry_.iters, &registry_.batches, &registry_.memtables};

/* A child may open databases of its own: it must not find a table in the midst of a change. */
static void fork_prepare(void)
{
    mutex_lock_unranked(&start_mu);
    for (size_t i = 0; i < started; i++) {
        slotmap_fork_prepare(all_maps[i]);
    }
    objects_fork_prepare();
}

static void fork_done(void)
{
    objects_fork_done();
    for (size_t i = started; i-- > 0;) {
        slotmap_fork_done(all_maps[i]);
    }
    mutex_unlock(&start_mu);
}

static void make_mutex(void)
{
    mutex_init(&start_mu, RANK_REGISTRY);
    pthread_atfork(fork_prepare, fork_done, fork_done);
}

/* Goes on where an earlier call found no memory. */
static bool start_locked(void)
{
    const struct {
        struct slotmap *map;
        enum handle_kind kind;
        void (*finaliser)(void *arg, void *payload);
        bool padded;
    } maps[] = {
        {&registry_.dbs, HANDLE_DB, NULL, false}, /* loam_close() takes the payload itself */
        {&registry_.spaces, HANDLE_KS, ks_handle_free, false},
        {&registry_.snaps, HANDLE_SNAP, snap_handle_free, false},
        {&registry_.iters, HANDLE_ITER, NULL, true}, /* kept for reuse, see db_iter.h */
        {&registry_.batches, HANDLE_BATCH, batch_handle_free, false},
        {&registry_.memtables, HANDLE_MEMTABLE, NULL, false},
    };
    for (; started < sizeof maps / sizeof *maps; started++) {
        int rc = (maps[started].padded ? slotmap_init_padded : slotmap_init)(
            maps[started].map, alloc_global(), maps[started].kind);
        if (rc < 0) {
            return false;
        }
        if (maps[started].finaliser != NULL) {
            slotmap_set_finaliser(maps[started].map, maps[started].finaliser, NULL);
        }
    }
    if (!objects_init()) {
        return false;
    }
    atom_store(&registry_ready_, true, release); /* pairs with registry_get() */
    return true;
}

struct registry *registry_start_(void)
{
    pthread_once(&once, make_mutex);
    mutex_lock(&start_mu);
    bool ready = start_locked();
    mutex_unlock(&start_mu);
    return ready ? &registry_ : NULL;
}

void registry_released(bool closed)
{
    if (!epoch_inside() && (closed || ++releases % POLL_EVERY == 0)) {
        epoch_poll();
    }
}
