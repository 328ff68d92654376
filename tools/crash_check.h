/* crash_check.h - Opens what a crash left and holds it against the model.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_CRASH_CHECK_H_
#define LOAM_TOOLS_CRASH_CHECK_H_

#include "tools/crash_model.h"

/* Opens the database (which must exist when the promise says so), reads all keyspaces by scans both
 * ways and by gets, and judges. The database stays open for the caller to close; NULL on a failure,
 * with a reason in `why`. */
loam_db *crash_open_and_judge(const struct model *m, const struct model_promise *p,
                              const loam_vfs *vfs, struct model_seen *seen, char why[MODEL_WHY]);

/* All of that, then: no file in the directory is unknown, one more put works and is there after
 * another open, with everything else as it was. */
bool crash_check(const struct model *m, const struct model_promise *p, const loam_vfs *vfs,
                 uint64_t seed, char why[MODEL_WHY]);

#endif
