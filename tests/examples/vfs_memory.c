/* vfs_memory.c - A database on a disk in memory, as arena/vfs.h shows it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <loam/loam.h>

int main(void)
{
    /* ---- vfs.h shows what follows ---- */
    loam_vfs *disk;
    if (loam_vfs_memory(&disk) < 0) return 1;
    loam_options options = { .struct_size = sizeof options, .vfs = disk };
    loam_db *db;
    if (loam_open("/db", &options, &db) < 0) return 1;
    if (loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), NULL) < 0) return 1;
    if (loam_close(db) < 0) return 1;
    size_t size = 0;
    if (loam_open("/db", &options, &db) < 0) return 1; /* the files are there as before */
    if (loam_get(db, NULL, LOAM_LIT("key"), NULL, 0, &size, NULL) != LOAM_OK) return 1;
    if (loam_close(db) < 0) return 1;
    loam_vfs_free(disk);
    /* ---- as far as here ---- */
    return size != 5;
}
