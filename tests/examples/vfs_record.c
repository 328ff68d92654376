/* vfs_record.c - Crashes at every moment of a program, as arena/vfs.h shows it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <loam/loam.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static loam_options options_on(const loam_vfs *vfs)
{
    return (loam_options){ .struct_size = sizeof(loam_options),
                           .memory_budget = 1 << 20,
                           .vfs = vfs };
}

static void expect(const loam_vfs *vfs, bool there)
{
    const loam_options options = options_on(vfs);
    loam_db *db;
    if (loam_open("/db", &options, &db) < 0) {
        fprintf(stderr, "%s\n", loam_last_error()->message);
        exit(1);
    }
    int rc = loam_get(db, NULL, LOAM_LIT("key"), NULL, 0, NULL, NULL);
    if (rc != LOAM_OK && (there || rc != LOAM_NOTFOUND)) {
        fprintf(stderr, "the key is not there\n");
        exit(1);
    }
    (void)loam_close(db);
}

int main(void)
{
    const loam_write_opts durable = { .struct_size = sizeof durable, .flags = LOAM_W_DURABLE };
    loam_db *db;
    /* ---- vfs.h shows what follows ---- */
    loam_vfs *disk, *after;
    loam_recording *rec;
    if (loam_vfs_memory(&disk) < 0 || loam_vfs_record(disk, &rec) < 0) return 1;
    loam_options options = options_on(disk); /* .vfs = disk */
    if (loam_open("/db", &options, &db) < 0) return 1;
    if (loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), &durable) < 0) return 1;
    uint64_t acked = loam_recording_mark(rec); /* promised from here on */
    if (loam_close(db) < 0) return 1;
    for (uint64_t at = 0; at <= loam_recording_length(rec); at++) {
        for (uint32_t variant = LOAM_CUT_ALL; variant <= LOAM_CUT_STALE; variant++) {
            loam_crash crash = { .struct_size = sizeof crash, .at = at, .variant = variant };
            if (loam_recording_crash(rec, &crash, &after) < 0) return 1;
            expect(after, at >= acked); /* the key must be there; else it may be */
            loam_vfs_free(after);
        }
    }
    loam_recording_free(rec);
    loam_vfs_free(disk);
    /* ---- as far as here ---- */
    return 0;
}
