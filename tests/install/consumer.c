/* consumer.c - What a user's program needs: open, put, get, close.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <loam/loam.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    loam_vfs *vfs = NULL;
    loam_db *db = NULL;
    loam_options options;
    char value[16];
    size_t size = 0;
    (void)argc, (void)argv;
    if (loam_version() >> 16 != LOAM_VERSION_MAJOR || loam_vfs_memory(&vfs) != LOAM_OK) {
        return 1;
    }
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.vfs = vfs;
    if (loam_open("/db", &options, &db) != LOAM_OK ||
        loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), NULL) != LOAM_OK ||
        loam_get(db, NULL, LOAM_LIT("key"), value, sizeof value, &size, NULL) != LOAM_OK ||
        size != 5 || memcmp(value, "value", 5) != 0 || loam_close(db) != LOAM_OK) {
        fprintf(stderr, "%s\n", loam_last_error()->message);
        return 1;
    }
    loam_vfs_free(vfs);
    return 0;
}
