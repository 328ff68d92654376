/* db_vfs.h - The vfs a database works through: the caller's, asked again where a refusal can be cured.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   -EINTR             the call is made again, here and nowhere above; the hundredth in a row stands
 *   -EMFILE, -ENFILE   descriptors are given back, and the call is made again
 *
 * With a disk_budget what would exceed it is refused with -EDQUOT, as a full disk refuses with -ENOSPC.
 *
 * A path names a file of this database only as long as the directory is where it was: it may be renamed, and
 * another one, a backup above all, put in its place. So before a file is opened, made, renamed or removed, and
 * before names are listed or synced, the path of the lock must still name the file that is held, in the directory where
 * it was taken: else -ESTALE, also when nothing has that name. What is open already is not concerned.
 *
 * What can be given back are the descriptors of tables. A table's file is only ever read, and its name
 * stands for the same bytes as long as anybody has it open; so behind an open table there need not be
 * an open file of the caller's vfs at every moment:
 *
 *              no thread reads it, and descriptors are short
 *   OPEN(n readers) ------------------------------------------> SHUT     [shut_some]
 *   SHUT ---------------------------------------------------> OPEN(1)   [lend: the next read]
 *
 * So readers, cursors and epochs above need not know: not even a scan over a hundred tables needs a
 * hundred descriptors, and at most max_open_files of them are used for tables anyway.
 *
 * Ordering guarantees
 *  - `users` goes from 0 to SHUT by CAS (acquire) under mu, so the file is closed after the last reader
 *    gave it back (release), and nobody takes it up afterwards.
 * Progress guarantees
 *  - Lending an open file is lock-free: a lost CAS means that another reader came or went.
 */
#ifndef LOAM_ENGINE_DB_VFS_H_
#define LOAM_ENGINE_DB_VFS_H_

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/disk_account.h"

struct db_vfs_options {
    const loam_vfs *inner; /* the caller's */
    struct alloc *alloc;
    uint32_t max_open_files; /* tables open at once; 0: a table stays open once it is */
    uint64_t disk_budget;    /* bytes; 0: none */
};

struct db_vfs {
    /* constant after init */
    loam_vfs vfs; /* what is used; its files are wrappers of the caller's */
    const loam_vfs *inner;
    struct alloc *alloc;
    const char *dir; /* must outlive it; may be set later, before the first open */
    struct loam_file *lock; /* held; NULL: none, or its names are not known. Set while one thread uses this */
    uint32_t max_open_files;
    struct disk_account account;
    /* guarded by mu */
    struct mutex mu;        /* RANK_LEAF */
    struct loam_file *hand; /* of a clock over all tables; NULL: none */
    uint32_t tables, open_tables;
    _Atomic uint64_t shut; /* descriptors given back: a statistic */
};

void db_vfs_init(struct db_vfs *v, const struct db_vfs_options *o, const char *dir);
/* Counts the files that are there; without a budget it does nothing. Nothing is refused before
 * disk_account_enforce(). 0 or -errno. REQUIRES: nothing was opened yet but the lock. */
int db_vfs_count(struct db_vfs *v);
/* REQUIRES: every file is closed. */
void db_vfs_destroy(struct db_vfs *v);

#endif
