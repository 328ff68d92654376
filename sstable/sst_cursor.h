/* sst_cursor.h - Walks one table both ways, every version, with a private copy of one block.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Order: keys ascending, versions of a key newest first. No epoch is held between calls; whoever
 * uses the cursor keeps the reader open. Entries are lent until the cursor moves. Buffers are
 * charged to MEM_ITER, in the background to MEM_BUILD, and reused from block to block, and from table
 * to table by rebind.
 *
 * Threads: one at a time.
 */
#ifndef LOAM_SSTABLE_SST_CURSOR_H_
#define LOAM_SSTABLE_SST_CURSOR_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/entry.h"
#include "sstable/block.h"
#include "sstable/sst_paged.h"
#include "sstable/sst_reader.h"

/* For compaction: reads far ahead from the start and leaves the cache as it is. */
#define SST_CURSOR_BACKGROUND 0x1u

struct sst_cursor {
    struct block_cursor at; /* position in the present block */
    struct sst_reader *r;
    uint32_t flags;
    int rc; /* LOAM_OK, or the first error: the cursor is then not valid until it is placed anew */
    uint32_t block;     /* number of the present block; UINT32_MAX: none loaded */
    uint32_t count;     /* data blocks of the table */
    uint32_t aim;       /* the block aimed at; UINT32_MAX: to be found when landing */
    uint32_t read_next; /* bytes the next read from the file asks for */
    uint32_t walked;    /* blocks the walk has come on since it was placed */
    uint32_t read_max;
    /* A run of file bytes around the present block. */
    uint8_t *window;
    size_t window_cap, window_size;
    uint64_t window_offset;
    /* The present block when it is not used in place in the window. */
    uint8_t *copy;
    size_t copy_cap;
    struct sst_part part; /* of the index, when the table is not resident */
    uint8_t *key;         /* two halves: the present entry's key, and room for another */
    size_t key_cap;
    struct alloc *alloc;
    struct sst_unpacker unpacker;
    uint64_t cache_hits, cache_misses; /* blocks */
};

/* readahead: bytes read at most in one go when the walk is sequential; 0: 64 KiB, in the background
 * 256 KiB. The cursor starts out not valid. Returns LOAM_OK or E_NOMEM. */
int sst_cursor_init(struct sst_cursor *c, struct sst_reader *r, struct alloc *a, uint32_t flags,
                    uint32_t readahead);
/* Points the cursor at another table, keeping its buffers; not valid then. LOAM_OK or E_NOMEM. */
int sst_cursor_rebind(struct sst_cursor *c, struct sst_reader *r);
/* Safe on a zeroed struct. */
void sst_cursor_free(struct sst_cursor *c);
/* Bytes of its buffers. */
static inline uint64_t sst_cursor_memory(const struct sst_cursor *c)
{
    return c->window_cap + c->copy_cap + c->part.cap + c->key_cap + c->unpacker.zstd_size;
}

/* Each returns whether the cursor is valid afterwards; when false, sst_cursor_rc() tells the end of
 * the table (LOAM_OK) from an error. */
bool sst_cursor_first(struct sst_cursor *c);
bool sst_cursor_last(struct sst_cursor *c); /* the oldest version of the last key */
/* The first entry >= (key, tag); UINT64_MAX is the newest version. */
bool sst_cursor_seek(struct sst_cursor *c, loam_slice key, uint64_t tag);
/* The same in two steps with one key; others' may come between. The first begins to fetch what the second
 * will read, where that is in memory already. */
void sst_cursor_aim(struct sst_cursor *c, loam_slice key);
bool sst_cursor_land(struct sst_cursor *c, loam_slice key, uint64_t tag);
/* The last entry < (key, tag). */
bool sst_cursor_seek_before(struct sst_cursor *c, loam_slice key, uint64_t tag);
bool sst_cursor_next_block(struct sst_cursor *c); /* the first entry of the next block */
bool sst_cursor_prev_block(struct sst_cursor *c); /* the last entry of the previous block */
/* The newest version of the next key. */
bool sst_cursor_next_key(struct sst_cursor *c);

static inline bool sst_cursor_valid(const struct sst_cursor *c)
{
    return block_cursor_valid(&c->at);
}
/* REQUIRES: valid. */
static inline bool sst_cursor_next(struct sst_cursor *c)
{
    return block_cursor_next(&c->at) || sst_cursor_next_block(c);
}
/* REQUIRES: valid. */
static inline bool sst_cursor_prev(struct sst_cursor *c)
{
    return block_cursor_prev(&c->at) || sst_cursor_prev_block(c);
}
/* REQUIRES: valid. */
static inline void sst_cursor_entry(const struct sst_cursor *c, struct entry *e)
{
    *e = c->at.entry;
}
static inline int sst_cursor_rc(const struct sst_cursor *c)
{
    return c->rc;
}

#endif
