/* sst_builder.h - Turns ascending entries into a finished, synced table file.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Entries gather in private memory; a full block is laid out straight into a ring reservation and
 * handed over to be evicted. Whoever evicts it calls back into the builder, which compresses,
 * checksums and appends. So blocks may stand in the file in another order than in the key space;
 * the index knows where each one is.
 *
 *   sst_builder_add -> block_builder -> block_stage_begin/end -> (ring) -> write_block -> file
 *
 * Threads: one thread calls the functions below; the block writer runs on any background thread.
 */
#ifndef LOAM_SSTABLE_SST_BUILDER_H_
#define LOAM_SSTABLE_SST_BUILDER_H_

#include "arena/alloc.h"
#include "arena/entry.h"
#include "arena/vfs.h"
#include "sstable/block_cache.h"

struct sst_builder;

struct sst_build_options {
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache; /* NULL: blocks are written at once and not kept */
    struct large_pool *large;  /* packing large blocks takes turns in it; NULL: it does not */
    const char *path;          /* must not exist yet; copied */
    uint64_t file_number;
    uint64_t db_id;
    uint32_t ks;
    const loam_comparator *cmp; /* NULL: byte order. Must outlive the builder */
    uint32_t block_bytes;       /* target of an uncompressed block; 0: 4096 */
    uint32_t filter_bits;       /* per key, at most 32; 0 or UINT32_MAX: no filter */
    uint32_t compression; /* LOAM_COMPRESS_* by number: 0 default (LZ4), 1 none, 2 LZ4, 3 zstd */
    int level;            /* recorded only */
    bool lent; /* what is added stays where it is until the table is finished: it is not copied */
};

/* What the manifest needs to know of a finished table. */
struct sst_info {
    uint64_t size;    /* of the file, bytes */
    uint64_t entries; /* versions, deletes included */
    uint64_t deletes;
    uint64_t older;     /* versions behind a newer one of their key */
    uint64_t raw_bytes; /* keys and values as added */
    uint64_t checksum;  /* XXH3-64, seed 0, of all bytes of the file */
    uint64_t min_seq, max_seq;
    uint64_t blocks;              /* data blocks */
    loam_slice smallest, largest; /* user keys; lent until sst_builder_free() */
};

/* The blocks of a finished table that may still be in the ring, and its reserved table handle.
 * Owns both; sst_open() takes it over (whatever it returns), or sst_warm_drop() releases it. */
struct sst_warm {
    uint64_t handle;        /* 0: nothing here */
    _Atomic uint64_t *addr; /* ring address per block, 0 = none */
    uint32_t count;
    struct alloc *alloc;
    struct block_cache *cache;
};

/* Creates the file. Owns: *b is the caller's, to be freed. Returns LOAM_OK, E_INVAL, E_UNSUPPORTED
 * (a compression that is not built in), E_NOMEM, E_EXISTS, or an I/O error. */
int sst_builder_open(struct sst_builder **b, const struct sst_build_options *o);
/* Appends one version; keys ascend, tags of one key descend. Copies the bytes unless they are lent.
 * key_hash is hash_key(key), or 0 to have it computed. After an error every further call returns it.
 * Returns LOAM_OK, E_INTERNAL (out of order), E_TOOBIG, E_NOMEM, or what writing a block met. */
int sst_builder_add(struct sst_builder *b, const struct entry *e, uint64_t key_hash);
/* Size of the file if it were finished now; an estimate that counts unwritten blocks as not
 * compressed better than the written ones. */
uint64_t sst_builder_bytes(const struct sst_builder *b);
/* Writes what is left and syncs the file; its directory entry is the caller's business. A table
 * without entries is LOAM_E_INVAL. */
int sst_builder_finish(struct sst_builder *b, struct sst_info *info);
/* After finish: hands over the blocks in the ring, for sst_open(). warm->handle is 0 when the table
 * was built without a cache. */
void sst_builder_take_warm(struct sst_builder *b, struct sst_warm *warm);
void sst_warm_drop(struct sst_warm *warm);
/* Before finish: abandons the table; staged blocks are dropped and the caller removes the file.
 * NULL is allowed. */
void sst_builder_free(struct sst_builder *b);

#endif
