/* obsolete_files.h - Deletes files that nothing names any more, now or later; failing is never an error.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A file enters the queue when the last version that named it is gone, or at open, when the manifest
 * does not name it. A failed unlink stays queued and is tried again at the next purge; a file that is
 * forgotten for want of memory is found by the scan of the next open.
 */
#ifndef LOAM_ENGINE_OBSOLETE_FILES_H_
#define LOAM_ENGINE_OBSOLETE_FILES_H_

#include "arena/alloc.h"
#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/filename.h"

struct obsolete_file {
    uint64_t number;
    enum file_kind kind;
};

struct obsolete_files {
    /* constant after init */
    const loam_vfs *vfs;
    const char *dir; /* the owner's */
    struct alloc *alloc;
    /* guarded by mu */
    struct mutex mu; /* RANK_LEAF; not held while files are removed */
    struct obsolete_file *queue;
    uint32_t count, cap;
    /* atomic */
    _Atomic uint64_t removed, failed; /* unlinks since open */
};

void obsolete_files_init(struct obsolete_files *o, const loam_vfs *vfs, const char *dir,
                         struct alloc *a);
void obsolete_files_destroy(struct obsolete_files *o); /* forgets the queue */

/* Any thread; does not touch the disk. */
void obsolete_files_add(struct obsolete_files *o, enum file_kind kind, uint64_t number);
/* Tries to remove everything queued. Any thread that may do I/O. Returns how many files are gone. */
uint32_t obsolete_files_purge(struct obsolete_files *o);
uint32_t obsolete_files_pending(struct obsolete_files *o);

/* Whether something still needs the file. Asked only for logs, tables, manifests and temporary
 * files. */
typedef bool (*obsolete_live_fn)(void *ctx, enum file_kind kind, uint64_t number);
/* Lists the directory, queues what is ours and not live, purges. Unknown names are left alone.
 * LOAM_OK, or an error of listing. */
int obsolete_files_scan(struct obsolete_files *o, obsolete_live_fn live, void *ctx);

#endif
