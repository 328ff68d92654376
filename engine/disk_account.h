/* disk_account.h - Counts the bytes of a database's files against disk_budget.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The size of each file counts in units of 4 KiB, and so does space set aside for it: before the file
 * grows. It is given back when the file is removed and closed, so what the files take never exceeds the
 * budget. A file is known by its name in the directory of the database; renaming keeps it.
 * Threads: any, but for init and destroy.
 */
#ifndef LOAM_ENGINE_DISK_ACCOUNT_H_
#define LOAM_ENGINE_DISK_ACCOUNT_H_

#include "arena/alloc.h"
#include "arena/sync.h"

#define DISK_ACCOUNT_CHAINS 256u
#define DISK_NAME_CAP       36u /* bytes of a name with its NUL; no file of a database has a longer one */

/* A file of the database: one in the directory, or one removed that is still open. */
struct disk_file {
    struct disk_file *next; /* in its chain */
    uint64_t size;  /* in whole units */
    uint32_t users; /* open so many times */
    bool removed;   /* in no chain; counted as long as it is open */
    char name[DISK_NAME_CAP];
};

struct disk_account {
    struct alloc *alloc; /* constant, like budget */
    uint64_t budget;     /* 0: nothing is counted */
    struct mutex mu;     /* RANK_LEAF; guards what follows */
    uint64_t used;
    bool enforced; /* false: counts and refuses nothing */
    struct disk_file **chains;
};

void disk_account_init(struct disk_account *a, struct alloc *alloc, uint64_t budget);
void disk_account_destroy(struct disk_account *a);
/* From now on what exceeds the budget is refused. */
void disk_account_enforce(struct disk_account *a);

/* Paths lead to files of the database; only their last component counts.
 * The file of this name, entered with size 0 when it is not known, until put; one that has size 0 then is
 * forgotten. NULL: no memory. */
struct disk_file *disk_account_get(struct disk_account *a, const char *path);
void disk_account_put(struct disk_account *a, struct disk_file *f);
/* Counts the file as at least `size` bytes long. False: over the budget, and nothing changed. */
bool disk_account_grow(struct disk_account *a, struct disk_file *f, uint64_t size);
/* The file has this size now. */
void disk_account_settle(struct disk_account *a, struct disk_file *f, uint64_t size);
/* The name is gone; it need not have been known. */
void disk_account_remove(struct disk_account *a, const char *path);
/* What had the new name is gone, and what had the old one has it. */
void disk_account_rename(struct disk_account *a, const char *from, const char *to);
/* Bytes that may still be added; 0 when there are too many already. */
uint64_t disk_account_left(struct disk_account *a);

#endif
