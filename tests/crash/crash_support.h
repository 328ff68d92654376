/* crash_support.h - Short words that all crash tests share: options, checked calls, an alarm against hanging.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_CRASH_CRASH_SUPPORT_H_
#define LOAM_TESTS_CRASH_CRASH_SUPPORT_H_

#include "engine/loam.h"

/* The smallest database: one worker, and no sync that was not asked for. */
loam_options crash_options(const loam_vfs *vfs);
/* Fails the test with the thread's last error when rc is one. */
void crash_must(int rc, const char *what);
/* Fails the test unless called again within so many seconds; 0: no more. */
void crash_alarm(unsigned seconds);
/* Handles and maps of a memory disk that nobody closed. */
uint64_t crash_open_files(const loam_vfs *disk);

#endif
