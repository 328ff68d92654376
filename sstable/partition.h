/* partition.h - What the entries of an index partition and of the top say; layout in sst_format.h.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Both are laid out as data blocks: block_seek() finds the place of a key in one as it stands in the
 * cache. What comes from disk goes through partition_check() or top_check() once and is trusted then.
 */
#ifndef LOAM_SSTABLE_PARTITION_H_
#define LOAM_SSTABLE_PARTITION_H_

#include <stdbool.h>

#include "sstable/block.h"
#include "sstable/sst_format.h"

#define PARTITION_BYTES     4096u /* target */
#define PARTITION_VALUE_MAX (1u + VARINT32_MAX_BYTES + VARINT64_MAX_BYTES)
#define PARTITION_TOP       UINT32_MAX /* number of the top, for its checksum */

/* The value of an entry. */
struct partition_value {
    uint32_t size;   /* stored bytes of the block or partition, trailer included */
    bool dead;       /* every entry in it is a delete */
    uint64_t number; /* a block's offset; of a partition, how many blocks come before it */
};

/* Bytes written at out, which has room for PARTITION_VALUE_MAX. */
size_t partition_value_encode(const struct partition_value *v, uint8_t *out);
/* REQUIRES: the block was checked; i is inside it. */
void partition_value(const struct block *b, uint32_t i, struct partition_value *v);

/* What is known of a partition before it is read. */
struct partition_bounds {
    const loam_comparator *cmp; /* NULL: byte order */
    uint32_t key_max;           /* bytes of a separator */
    uint32_t count;             /* entries; of the top: not known, 0 */
    uint64_t begin, end; /* where blocks may lie in the file; of the top: partitions, which fill
                                   this */
    uint32_t blocks;     /* of the top: data blocks of the table */
};

/* Each returns LOAM_OK, E_CORRUPT or E_FORMAT with the reason in *what; records no error. */
int partition_check(const void *data, size_t size, const struct partition_bounds *p,
                    const char **what);
int top_check(const void *data, size_t size, const struct partition_bounds *p, const char **what);

#endif
