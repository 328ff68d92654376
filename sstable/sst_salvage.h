/* sst_salvage.h - Reads what can be read of a damaged table file, block by block.
 * SPDX-License-Identifier: Apache-2.0
 *
 * With an index the blocks are known, and each one that verifies is used. Without - header, footer,
 * index, properties or filter are damaged anywhere - the file is searched for blocks: a trailer says
 * what it ends, and its checksum, which knows the file and the place, proves it. Blocks found so are
 * put in order by their first keys, which takes an order: under a comparator that is not given
 * nothing is found.
 */
#ifndef LOAM_SSTABLE_SST_SALVAGE_H_
#define LOAM_SSTABLE_SST_SALVAGE_H_

#include "sstable/sst_reader.h"

struct sst_salvage_options {
    const loam_vfs *vfs;
    struct alloc *alloc;
    const char *path;
    uint64_t file_number, db_id; /* what it must be */
    const loam_comparator *cmp;  /* NULL: byte order */
    bool ordered;                /* cmp is the order; else only the index knows one */
    /* Entries come in order; lent for the call. < 0 ends with that error. */
    int (*entry)(void *arg, const struct entry *e);
    /* A place that cannot be read; loam_last_error() describes it. */
    void (*damage)(void *arg, const struct sst_damage *d);
    void *arg;
};

struct sst_salvaged {
    bool opened; /* the file's own description could be read: the rest of this is filled in */
    uint32_t ks, level;
    uint64_t entries; /* that it should have */
};

/* LOAM_OK: everything readable was given out, be it nothing. E_NOENT, E_NOMEM, or the callback's
 * error otherwise. */
int sst_salvage(const struct sst_salvage_options *o, struct sst_salvaged *out);

#endif
