/* disk_files.h - Whole files of a disk, bytes of them changed, and which of a kind there are.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Each call must succeed.
 */
#ifndef LOAM_TESTS_SUPPORT_DISK_FILES_H_
#define LOAM_TESTS_SUPPORT_DISK_FILES_H_

#include "arena/vfs.h"
#include "engine/filename.h"

/* Malloc'd, exactly as long as the file is; the caller frees it. */
uint8_t *disk_file_read(const loam_vfs *disk, const char *path, size_t *size);
/* These bytes and no others, synced. */
void disk_file_write(const loam_vfs *disk, const char *path, const void *bytes, size_t size);
uint64_t disk_file_size(const loam_vfs *disk, const char *path);
/* Changes bits of the byte at that offset. */
void disk_file_flip(const loam_vfs *disk, const char *path, uint64_t at, uint8_t bits);

/* How many files of a kind a database's directory holds. */
unsigned disk_files(const loam_vfs *disk, const char *dir, enum file_kind kind);

struct file_on_disk {
    char path[64];
    uint64_t number;
};
/* One of them, as they are listed: 0 is the first. */
struct file_on_disk disk_file_of(const loam_vfs *disk, const char *dir, enum file_kind kind, unsigned which);

#endif
