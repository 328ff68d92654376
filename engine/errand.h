/* errand.h - A piece of background work on a thread that lasts as long as the work.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For what waits for the disk and is due now and then: the keeper, who sees that it is due, cannot wait,
 * and a database at rest has no thread for it.
 */
#ifndef LOAM_ENGINE_ERRAND_H_
#define LOAM_ENGINE_ERRAND_H_

#include <pthread.h>
#include <stdbool.h>

struct db;

struct errand {
    /* constant after init */
    const char *name; /* of the thread; static */
    void (*run)(struct db *db);
    struct db *db;

    /* the keeper's, and after it errand_finish()'s */
    pthread_t thread;
    bool started; /* and not joined yet */

    _Atomic bool running;
};

void errand_init(struct errand *e, struct db *db, const char *name, void (*run)(struct db *db));
/* Whether it is still under way. Threads: the keeper alone, like errand_begin(). */
bool errand_running(const struct errand *e);
/* Begins it; without memory for a thread it is done before this returns. REQUIRES: it is not running. */
void errand_begin(struct errand *e);
/* Waits for the last one. REQUIRES: the keeper has ended. */
void errand_finish(struct errand *e);

#endif
