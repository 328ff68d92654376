/* vfs_fault.c - Every failure of a program's storage in turn, as arena/vfs.h shows it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <loam/loam.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static bool acknowledged; /* the write of the run */

static int open_on(const loam_vfs *vfs, loam_db **db)
{
    const loam_options options = { .struct_size = sizeof options,
                                   .memory_budget = 1 << 20,
                                   .vfs = vfs };
    return loam_open("/db", &options, db);
}

static void run_my_program(const loam_vfs *vfs)
{
    const loam_write_opts durable = { .struct_size = sizeof durable, .flags = LOAM_W_DURABLE };
    loam_db *db;
    acknowledged = false;
    if (open_on(vfs, &db) == LOAM_OK) {
        acknowledged = loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), &durable) == LOAM_OK;
        (void)loam_close(db);
    }
}

static void check_what_is_left(const loam_vfs *vfs)
{
    loam_db *db;
    if (open_on(vfs, &db) < 0) {
        fprintf(stderr, "%s\n", loam_last_error()->message);
        exit(1);
    }
    int rc = loam_get(db, NULL, LOAM_LIT("key"), NULL, 0, NULL, NULL);
    if (rc != LOAM_OK && (acknowledged || rc != LOAM_NOTFOUND)) {
        fprintf(stderr, "the key is not there\n");
        exit(1);
    }
    (void)loam_close(db);
}

int main(void)
{
    /* ---- vfs.h shows what follows ---- */
    for (uint64_t n = 1, fired = 1; fired != 0; n++) {
        loam_vfs *disk, *faulty;
        loam_fault_plan plan = { .struct_size = sizeof plan, .fail_at = n,
                                 .fail_calls = LOAM_CALL_WRITE | LOAM_CALL_SYNC,
                                 .fail_errno = ENOSPC, .short_writes = LOAM_LANDS_HALF };
        if (loam_vfs_memory(&disk) < 0 || loam_vfs_fault(disk, &plan, &faulty) < 0) return 1;
        run_my_program(faulty); /* which opens loam with options.vfs = faulty */
        fired = loam_vfs_faults(faulty); /* 0: the program makes fewer than n such calls */
        loam_vfs_free(faulty);
        check_what_is_left(disk); /* which opens loam with options.vfs = disk */
        loam_vfs_free(disk);
    }
    /* ---- as far as here ---- */
    return 0;
}
