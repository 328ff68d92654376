/* sst_paged.h - Finds blocks of tables that are not resident, by one page and one partition at a time.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Every function here answers for resident tables, too, so that walkers need not tell them apart.
 */
#ifndef LOAM_SSTABLE_SST_PAGED_H_
#define LOAM_SSTABLE_SST_PAGED_H_

#include "sstable/block.h"
#include "sstable/sst_reader.h"

#define SST_NO_PART UINT32_MAX

/* A private copy of one index partition, for a walk. Stays good when the table's reader is replaced:
 * the file is the same. */
struct sst_part {
    struct alloc *alloc;
    enum mem_owner owner;
    uint8_t *copy;
    size_t cap;
    uint32_t number; /* SST_NO_PART: none is held */
    struct block at;
};

void sst_part_init(struct sst_part *h, struct alloc *a, enum mem_owner o);
/* Safe on a zeroed struct. */
void sst_part_free(struct sst_part *h);

/* Where partitions are taken from. */
enum sst_part_from {
    SST_PART_FILE,  /* the cache is left alone */
    SST_PART_CACHE, /* the cache when it is there; not entered else */
    SST_PART_FILL,  /* as a get does */
};

/* Holds partition `part`. LOAM_OK, an I/O error, E_CORRUPT, E_FORMAT or E_NOMEM. */
int sst_part_hold(const struct sst_reader *r, struct sst_part *h, uint32_t part,
                  enum sst_part_from from);
int sst_place_block_paged(const struct sst_reader *r, struct sst_part *h, uint32_t block,
                          enum sst_part_from from, struct sst_piece *p);
int sst_find_block_paged(const struct sst_reader *r, struct sst_part *h, loam_slice key,
                         enum sst_part_from from, uint32_t *block);
/* Place of a block, through h. REQUIRES: the block is one of the table's. */
static inline int sst_place_block(const struct sst_reader *r, struct sst_part *h, uint32_t block,
                                  enum sst_part_from from, struct sst_piece *p)
{
    if (__builtin_expect(!r->resident, 0)) {
        return sst_place_block_paged(r, h, block, from, p);
    }
    *p = sst_block_piece(r, block);
    return LOAM_OK;
}
/* *block becomes the first whose separator is >= key; their count when there is none. */
static inline int sst_find_block(const struct sst_reader *r, struct sst_part *h, loam_slice key,
                                 enum sst_part_from from, uint32_t *block)
{
    if (__builtin_expect(!r->resident, 0)) {
        return sst_find_block_paged(r, h, key, from, block);
    }
    *block = index_find(&r->index, key);
    return LOAM_OK;
}
/* As sst_place_block(), but without reading. False: h does not hold the block's partition. */
bool sst_place_held(const struct sst_reader *r, const struct sst_part *h, uint32_t block,
                    struct sst_piece *p);
/* Every entry of the block is a delete. false as well when h does not hold its partition. */
bool sst_block_dead(const struct sst_reader *r, const struct sst_part *h, uint32_t block);
/* A key at the next stretch of blocks that hold nothing but deletes: of their first one's end, in its order
 * behind *block. LOAM_OK: *block is behind the stretch, and the key is appended to out; LOAM_NOTFOUND: there is
 * none any more, and as sst_part_hold(). Partitions that are not in memory are read, but for those of deletes
 * alone. Begins with *block 0. O(blocks) for all stretches of a table. */
int sst_next_dead(const struct sst_reader *r, struct sst_part *h, enum sst_part_from from,
                  uint32_t *block, struct buf *out);
/* The partition that a block is in. */
uint32_t sst_part_of(const struct sst_reader *r, uint32_t block);

/* sst_get() of a table that is not resident. */
int sst_get_paged(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
                  struct sst_get_scratch *s, struct entry *e);

/* Filter pages [first, end) in memory. */
struct sst_pages {
    uint32_t first, end;
    uint8_t *memory; /* as many bytes as they have in the file, aligned to FILTER_LINE; then their lines */
    uint32_t probes; /* what the pages before them say; 0: not known */
};

/* Bytes that the pages have in the file. */
size_t sst_pages_size(const struct sst_reader *r, const struct sst_pages *g);
/* Brings the lines of these pages together. A page that is wrong goes to bad() and passes every key then; with
 * bad NULL it is an error. Returns LOAM_OK, an I/O error, E_CORRUPT or E_FORMAT. */
int sst_gather_pages(const struct sst_reader *r, struct sst_pages *g,
                     void (*bad)(void *arg, const struct sst_piece *page, int rc), void *arg);
/* Reads and checks every page and partition. */
int sst_check_paged(const struct sst_reader *r);

/* Whether a and b, each in two parts, are the same bytes. */
bool sst_same_key(loam_slice a, loam_slice a_rest, loam_slice b, loam_slice b_rest);

#endif
