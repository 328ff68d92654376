/* crash_support.c - Options, checked calls, an alarm against hanging.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/crash_support.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "arena/vfs_disk.h"
#include "tests/crash/oracle_support.h"

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
