/* filename.h - The names of a database's files: numbers with a fixed shape, and four fixed names.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   000000000012.log   log segment          CURRENT   which manifest is in force
 *   000000000013.sst   table                LOCK      held while the database is open
 *   MANIFEST-000000000001                   RESERVE   disk space for when there is none
 *   000000000014.tmp   a file being written, then renamed
 *
 * Numbers only ever come from the database itself, so no name read from disk can lead elsewhere. A
 * name with any other shape is not ours and is never touched.
 */
#ifndef LOAM_ENGINE_FILENAME_H_
#define LOAM_ENGINE_FILENAME_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/types.h"

enum file_kind { FILE_LOG, FILE_TABLE, FILE_MANIFEST, FILE_CURRENT, FILE_LOCK, FILE_TEMP,
                 FILE_RESERVE };

#define FILENAME_BASE_CAP 32 /* bytes of the longest name without its directory, NUL included */
#define FILENAME_CAP 4096    /* bytes of the longest path, NUL included */
/* So large a number was not made by counting, and no new name will ever meet it. Half of what an edit
 * can tell (version_edit.c): behind a smaller one there is room for all that will ever be counted. */
#define FILENAME_COUNTED (UINT64_MAX / 4)

/* The bytes filename_make() needs for files in dir, its NUL included. */
size_t filename_size(const char *dir);

/* Writes "dir/name" and a NUL. buf has filename_size(dir) bytes; FILENAME_CAP always do. `number` is
 * ignored for CURRENT, LOCK and RESERVE. Returns LOAM_OK, or LOAM_E_INVAL for a directory name with which a
 * path would exceed FILENAME_CAP. */
int filename_make(const char *dir, enum file_kind kind, uint64_t number, char *buf);

/* The name alone. */
void filename_base(enum file_kind kind, uint64_t number, char buf[FILENAME_BASE_CAP]);

/* True when `name` is exactly what filename_base() gives for (*kind, *number); the number of CURRENT,
 * LOCK and RESERVE is 0. Otherwise false and nothing is set. */
bool filename_parse(loam_slice name, enum file_kind *kind, uint64_t *number);

#endif
