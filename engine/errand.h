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
#include <stdint.h>

struct db;

struct errand {
    /* constant after init */
    const char *name; /* of the thread; static */
    void (*run)(struct db *db);
    struct db *db;

    uint64_t again_at; /* micros: put off until then; the errand's while it runs, else the keeper's */

    /* the keeper's, and after it errand_finish()'s */
    pthread_t thread;
    bool started; /* and not joined yet */

    _Atomic bool running;
};

void errand_init(struct errand *e, struct db *db, const char *name, void (*run)(struct db *db));
/* Whether it is neither under way nor put off. Threads: the keeper alone, like errand_begin(). */
bool errand_may_begin(const struct errand *e);
/* From the errand itself, for one that did not do all: not before so many micros. */
void errand_put_off(struct errand *e, uint64_t micros);
/* Begins it; without memory for a thread it is done before this returns. REQUIRES: errand_may_begin(). */
void errand_begin(struct errand *e);
/* Waits for the last one. REQUIRES: the keeper has ended. */
void errand_finish(struct errand *e);

#endif
