/* sst_support.h - A table on a disk in memory, checked against the model it was built from.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_SSTABLE_SST_SUPPORT_H_
#define LOAM_TESTS_SSTABLE_SST_SUPPORT_H_

#include "sstable/sst_reader.h"
#include "tests/sstable/model.h"

#define SST_PATH   "/t.sst"
#define SST_DB_ID  0x1122334455667788u
#define SST_NUMBER 42u

struct sst_world {
    loam_vfs *disk;
    const loam_vfs *vfs; /* the disk, or what wraps it */
    struct alloc alloc;
    struct block_cache cache;
    bool cached, limited;
    struct sst_build_options build;
    struct sst_info info;
    uint8_t smallest[16], largest[16];
    uint64_t resident_bytes; /* for sst_world_open_options() */
};

/* Gives memory until a count runs out. */
struct sst_limit {
    uint64_t left;
    bool once;
};

/* cache_bytes 0: no cache. limit NULL: as much memory as there is. */
void sst_world_init(struct sst_world *w, size_t cache_bytes, struct sst_limit *limit);
void sst_world_end(struct sst_world *w); /* checks that all memory came back */

/* Builds the model's table; warm may be NULL. */
int sst_world_build(struct sst_world *w, const struct model *m, struct sst_warm *warm);
struct sst_open_options sst_world_open_options(struct sst_world *w);

uint8_t *sst_world_read_file(struct sst_world *w, size_t size); /* owned by the caller: free() */
void sst_world_write_file(struct sst_world *w, const uint8_t *p, size_t size);

/* Whole walks of both directions and by key give what the model holds. */
void sst_check_walks(struct sst_reader *r, const struct model *m, uint32_t flags);
/* Opens the table, not resident and resident, and asks it for everything; warm may be NULL. */
void sst_check_table(struct sst_world *w, const struct model *m, struct random *rnd, bool paranoid,
                     struct sst_warm *warm);

/* Reads all of the model by get and by cursor, not resident and resident: each answer is right or an
 * error. Returns the errors, the failure to open included. */
int sst_world_right_or_error(struct sst_world *w, const struct model *m);

#endif
