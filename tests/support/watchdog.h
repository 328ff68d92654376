/* watchdog.h - Fails a test in which a thread makes no progress although it could.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Time on the wall says little on a loaded machine, so a thread is stuck when, since its last step,
 *   - it has used one second of processor time itself (it runs in circles), or
 *   - it has slept without a single wake-up while the rest of the process used five seconds of it, or
 *     for as long on the wall, and nobody else runs or wants to (it waits for what will not come).
 * A thread that wants to run and is not let counts for nothing.
 */
#ifndef LOAM_TESTS_SUPPORT_WATCHDOG_H_
#define LOAM_TESTS_SUPPORT_WATCHDOG_H_

#include "arena/atomic.h"
#include "tests/support/stress.h"

/* Runs fn on n threads as crew_run() does, under a watchdog. name: printed when a thread is stuck,
 * before the process is aborted. */
void crew_run_watched(const char *name, unsigned n, crew_fn *fn, void *shared, uint64_t seed);
/* The calling thread of such a crew has done something. Other threads: nothing. */
void watchdog_step(void);
/* A thread that the caller starts is watched under the caller's place until the caller goes on: for
 * threads that are born and die. */
void watchdog_lend(void (*fn)(void *arg), void *arg);

#endif
