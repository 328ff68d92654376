/* log_syncer.h - Syncs the log every now and then, on a thread that lasts as long as the sync.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A sync takes as long as the disk needs for all that was written since the last one. The keeper
 * cannot wait for that: writers need windows ahead of the tail every few milliseconds, and those
 * behind it are memory. A database at rest has no such thread.
 */
#ifndef LOAM_ENGINE_LOG_SYNCER_H_
#define LOAM_ENGINE_LOG_SYNCER_H_

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct db;

struct log_syncer {
    /* the keeper's, and after it log_syncer_stop()'s */
    uint64_t last; /* micros: when the last sync began */
    pthread_t thread;
    bool started; /* and not joined yet */

    _Atomic bool running;
};

void log_syncer_init(struct log_syncer *s);
/* Begins a sync when one is due and none runs. REQUIRES: called by one thread, the keeper. */
void log_syncer_poll(struct db *db);
/* Waits for the last one. REQUIRES: the keeper has ended. */
void log_syncer_stop(struct log_syncer *s);

#endif
