/* repair_support.h - A database with known contents, its files, and what may be there after a repair.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The database holds for every key its latest value, which names keyspace, key and version. Oracle after
 * a repair: the database opens and the check finds nothing; no key has a value that was never its own;
 * if nothing was told as lost every key has its latest value; what is not the latest lies in a range
 * that was told. After a kill what only the log holds may be missing: its damage may be a torn end.
 */
#ifndef LOAM_TESTS_CRASH_REPAIR_SUPPORT_H_
#define LOAM_TESTS_CRASH_REPAIR_SUPPORT_H_

#include <stdbool.h>

#include "engine/filename.h"
#include "tests/engine/db_support.h"

#define DIR    "/db"
#define KEYS   60u
#define SPACES 2u /* keyspaces: "default", "second" */
#define FILES  400u

extern uint32_t repair_latest[SPACES][KEYS];       /* versions; 0: deleted or never there */
extern uint32_t repair_read_version[SPACES][KEYS]; /* what repair_read_back() found */

struct repair_file {
    char name[48];
    uint8_t *bytes; /* Owns */
    size_t size;
};

struct repair_files {
    struct repair_file f[FILES];
    unsigned count;
    const loam_vfs *vfs;
};

/* Where something was told to be lost; "": open. */
struct repair_range {
    char ks[16], first[24], last[24]; /* "" : open */
};

struct repair_told {
    unsigned findings, lost;
    struct repair_range range[200];
    unsigned stop_at;
};

loam_options repair_options_on(const loam_vfs *vfs);
loam_slice repair_key_of(unsigned i);

/* The files of a new database, closed or killed; LOCK is left out. */
void repair_reference(struct repair_files *fs, uint64_t seed, bool closed);
void repair_take(const loam_vfs *vfs, struct repair_files *fs);
void repair_free_files(struct repair_files *fs);
loam_vfs *repair_disk_of(const struct repair_files *fs); /* files without bytes are left out */
bool repair_same_files(const loam_vfs *vfs, const struct repair_files *fs);
struct repair_file *repair_file_of(struct repair_files *fs, enum file_kind kind, unsigned which);
struct repair_file *repair_full_log(struct repair_files *fs); /* the first with records; NULL: none has */
size_t repair_record_at(const struct repair_file *log, unsigned i); /* where its i-th record begins */

int repair_note(void *told, const loam_damage *d);
/* Repairs, checks, repairs again to no effect; findings are added to t. */
void repair_now(const loam_vfs *vfs, struct repair_told *t);
void repair_read_back(const loam_vfs *vfs); /* everything, and writes something */
void repair_judge(const struct repair_told *t);
/* All of that on a disk with these files. */
struct repair_told repair_try_repair(const struct repair_files *fs);

#endif
