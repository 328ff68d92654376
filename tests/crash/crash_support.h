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
/* Fails the test unless every file in the directory is one that the database names. Merges may be
 * running, so it is given some time. */
void crash_directory(const loam_vfs *vfs, const char *dir, loam_db *db);
/* Handles and maps of a memory disk that nobody closed. */
uint64_t crash_open_files(const loam_vfs *disk);

#endif
