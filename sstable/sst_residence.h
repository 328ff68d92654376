/* sst_residence.h - Whether index and filter of a table are in memory as a whole.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_SSTABLE_SST_RESIDENCE_H_
#define LOAM_SSTABLE_SST_RESIDENCE_H_

#include "sstable/block.h"
#include "sstable/sst_reader.h"

/* Makes the table resident as the options want it, and reads what a paranoid reader has to have seen.
 * REQUIRES: the top is there. Returns LOAM_OK, also when the table is not resident but may be used as
 * it is; an error of the file, or E_NOMEM. */
int sst_settle(struct sst_reader *r, const struct sst_open_options *o);
void sst_leave_residence(struct sst_reader *r);

/* Gives out the entries of the top, or of partitions one behind the other, as one index. */
struct sst_walk {
    const struct sst_reader *r;
    const uint8_t *image; /* the top, or the stored partitions */
    uint8_t *key;         /* assembled */
    uint32_t part;        /* where `at` is */
    uint64_t offset;      /* of the top's present partition */
    struct block_cursor at;
};

/* Builds x from `count` entries that next() gives out, one after the other, to take `max` bytes at
 * most. As index_open(). */
int sst_build_index(struct index *x, struct sst_walk *w, uint32_t count, uint64_t max,
                    void (*next)(void *arg, uint32_t i, struct index_item *item));

#endif
