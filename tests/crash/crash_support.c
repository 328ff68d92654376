/* crash_support.c - Options, checked calls, an alarm against hanging.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/crash_support.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "arena/vfs_disk.h"
#include "engine/filename.h"
#include "tests/crash/oracle_support.h"
#include "tests/support/check.h"

#define LOGS_MAX 6u /* in use, prepared, recycled */

loam_options crash_options(const loam_vfs *vfs)
{
    return (loam_options){
        .struct_size = sizeof(loam_options),
        .memory_budget = 1 << 20,
        .sync_interval_ms = UINT32_MAX,
        .threads = 1,
        .vfs = vfs,
    };
}

void crash_must(int rc, const char *what)
{
    if (rc < 0) {
        const loam_error *e = loam_last_error();
        oracle_fail("%s gives %d, file %llu, offset %llu, source line %u: %s", what, rc,
                    (unsigned long long)e->file_id, (unsigned long long)e->offset, e->line,
                    e->message);
    }
}

static void hangs(int sig)
{
    (void)sig;
    oracle_fail("it hangs");
}

void crash_alarm(unsigned seconds)
{
    signal(SIGALRM, hangs);
    alarm(seconds);
}

/* A node counts its names, handles and maps together. */
uint64_t crash_open_files(const loam_vfs *vfs)
{
    struct disk *d = disk_of_vfs(vfs);
    uint64_t users = 0, names = 0;
    mutex_lock(&d->mutex);
    for (const struct disk_node *n = d->nodes; n != NULL; n = n->next) {
        users += n != d->root ? n->live : 0;
        names += n->is_dir ? n->names.count : 0;
    }
    mutex_unlock(&d->mutex);
    return users - names;
}

/* ---- what is in the directory ------------------------------------------------------------------ */

struct names {
    uint64_t tables, manifests, logs, others;
    bool current;
    char other[64]; /* one of them */
};

static int count_name(void *ctx, loam_slice name)
{
    struct names *n = ctx;
    enum file_kind kind;
    uint64_t number;
    if (!filename_parse(name, &kind, &number) || kind == FILE_TEMP) {
        n->others++;
        snprintf(n->other, sizeof n->other, "%.*s", (int)name.size, (const char *)name.data);
        return 0;
    }
    n->tables += kind == FILE_TABLE;
    n->manifests += kind == FILE_MANIFEST;
    n->logs += kind == FILE_LOG;
    n->current = n->current || kind == FILE_CURRENT;
    return 0;
}

void crash_directory(const loam_vfs *vfs, const char *dir, loam_db *db)
{
    struct names n;
    uint64_t files = 0;
    for (int i = 0; i < 1000; i++) {
        CHECK(loam_wait_idle(db, 0) == LOAM_OK);
        CHECK_EQ(loam_property(db, NULL, "files", &files), LOAM_OK);
        n = (struct names){0};
        CHECK(vfs->list(vfs->ctx, dir, count_name, &n) >= 0);
        if (n.others == 0 && n.current && n.manifests == 1 && n.tables == files &&
            n.logs <= LOGS_MAX) {
            return;
        }
        thread_sleep_micros(1000);
    }
    oracle_fail(
        "%llu tables of which %llu are live, %llu manifests, %llu logs, %llu unknown files %s",
        (unsigned long long)n.tables, (unsigned long long)files, (unsigned long long)n.manifests,
        (unsigned long long)n.logs, (unsigned long long)n.others, n.other);
}
