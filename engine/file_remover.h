/* file_remover.h - Has files removed that nothing names any more, while the keeper goes on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Removing a file of 64 MiB can take a second when the disk is busy. Neither the keeper, who keeps memory
 * within its bounds, nor the flusher, whom writers wait for, can wait for that. A merge removes its inputs
 * itself: on a full disk the next one needs their space.
 */
#ifndef LOAM_ENGINE_FILE_REMOVER_H_
#define LOAM_ENGINE_FILE_REMOVER_H_

#include "engine/errand.h"

void file_remover_init(struct errand *e, struct db *db);
/* Begins to remove what is queued. REQUIRES: called by one thread, the keeper. */
void file_remover_poll(struct errand *e);

#endif
