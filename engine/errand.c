/* errand.c - Starts threads for single pieces of work, and collects them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/errand.h"

#include <assert.h>

#include "arena/atomic.h"
#include "arena/sync.h"

#include "arena/poison.h"

void errand_init(struct errand *e, struct db *db, const char *name, void (*run)(struct db *db))
{
    e->name = name;
    e->run = run;
    e->db = db;
    e->again_at = 0;
    e->started = false;
    atomic_init(&e->running, false);
}

bool errand_may_begin(const struct errand *e)
{
    /* acquire: pairs with the release in errand_main(); what is left of it is its return. */
    return !atom_load(&e->running, acquire) &&
           (e->again_at == 0 || clock_micros() >= e->again_at);
}

void errand_put_off(struct errand *e, uint64_t micros)
{
    e->again_at = clock_micros() + micros;
}

static void *errand_main(void *arg)
{
    struct errand *e = arg;
    thread_name(e->name);
    e->run(e->db);
    atom_store(&e->running, false, release); /* pairs with errand_may_begin() */
    return NULL;
}

void errand_begin(struct errand *e)
{
    assert(errand_may_begin(e));
    errand_finish(e);
    e->again_at = 0;
    atom_store(&e->running, true, relaxed); /* relaxed: the start of the thread orders it */
    e->started = thread_start(&e->thread, errand_main, e) == 0;
    if (!e->started) { /* late is better than never */
        atom_store(&e->running, false, relaxed);
        e->run(e->db);
    }
}

void errand_finish(struct errand *e)
{
    if (e->started) {
        thread_join(e->thread);
        e->started = false;
    }
}
