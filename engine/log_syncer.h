/* log_syncer.h - Syncs the log every now and then.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A sync takes as long as the disk needs for all that was written since the last one. The keeper
 * cannot wait for that: writers need windows ahead of the tail every few milliseconds, and those
 * behind it are memory.
 */
#ifndef LOAM_ENGINE_LOG_SYNCER_H_
#define LOAM_ENGINE_LOG_SYNCER_H_

#include <stdint.h>

#include "engine/errand.h"

struct log_syncer {
    uint64_t last; /* micros: when the last sync began; the keeper's */
    struct errand errand;
};

void log_syncer_init(struct log_syncer *s, struct db *db);
/* Begins a sync when one is due and none runs. REQUIRES: called by one thread, the keeper. */
void log_syncer_poll(struct db *db);

#endif
