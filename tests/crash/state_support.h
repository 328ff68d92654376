/* state_support.h - Opens the disk that a crash left, judges it and finds that the database goes on from there.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_CRASH_STATE_SUPPORT_H_
#define LOAM_TESTS_CRASH_STATE_SUPPORT_H_

#include "tests/crash/oracle_support.h"

#define STATE_DIR "/db"

/* Opens and reads everything; the commit found. The database is left open. */
uint32_t state_open(const struct oracle *o, const struct oracle_promise *p, const loam_vfs *vfs,
                    loam_db **db, struct oracle_seen *seen);
/* What was shown by an open becomes all that is allowed. */
struct oracle_promise state_exactly(const struct oracle_promise *p, uint32_t commit,
                                    const struct oracle_seen *seen);
/* All of that and a close; by the seed, one time in three also that one more put works and is there with
 * everything else after another open, and one in `files_every` that every file is a known one: what is to be
 * removed is waited for. */
void state_check(const struct oracle *o, const struct oracle_promise *p, const loam_vfs *vfs,
                 uint64_t seed, unsigned files_every);

#endif
