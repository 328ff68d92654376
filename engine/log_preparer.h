/* log_preparer.h - Has the log's next segment made ready while writers fill the current one, or rest.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Making a file takes as long as the disk takes, and longer while that writes tables. The keeper cannot
 * wait for it: writers need windows.
 */
#ifndef LOAM_ENGINE_LOG_PREPARER_H_
#define LOAM_ENGINE_LOG_PREPARER_H_

#include <stdbool.h>
#include <stdint.h>

#include "engine/errand.h"

struct log_preparer {
    /* the errand's while it runs, else the keeper's */
    uint32_t failed; /* tries in a row */
    bool shrink;     /* writers rest: a small segment will do */
    struct errand errand;
};

void log_preparer_init(struct log_preparer *p, struct db *db);
/* Begins to prepare a segment when one is due. REQUIRES: called by one thread, the keeper. */
void log_preparer_poll(struct log_preparer *p);
/* Whether a segment of full size is much beside the tables: then the log begins, and rests, with a small one. For
 * others that would only mean a small memtable, and a small table, after each rest. Any thread, mu not held. */
bool log_is_much(struct db *db);
/* Lets the log go on in a small segment if the current one is larger and has no record: a database at rest keeps
 * little beside its tables. Threads: the keeper alone. */
void log_preparer_shrink(struct log_preparer *p);

#endif
