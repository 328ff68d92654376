/* sst_cursor.h - Walks one table both ways, every version, with a private copy of one block.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A large block (sst_is_large) holds one entry; the cursor remembers its key and needs the block for its value
 * alone. Cursors that are merged share a seat: of all their large blocks one is in memory, the one read
 * last as a rule. An entry whose block is not has no value (its size is known) until sst_cursor_show(),
 * which takes the seat from whoever has it. So merging tables of large values costs one value, not one a
 * table, and reading some blocks twice where tables take turns. A cursor without a seat keeps its block.
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

/* Room for one large value, shared by cursors. Ready when zeroed but for `way` and `keys_only`. */
struct sst_seat {
    enum large_way way; /* LARGE_HELD, or LARGE_WORK in the background */
    bool keys_only;     /* nobody asks for values */
    struct sst_cursor *holder; /* whose block is in memory; NULL: none */
    struct large copy;         /* a value that belongs to no cursor (any more) */
};

struct sst_cursor {
    struct block_cursor at; /* position in the present block */
    struct sst_reader *r;
    uint32_t flags;
    int rc; /* LOAM_OK, or the first error: the cursor is then not valid until it is placed anew */
    bool single;        /* the present block is large: at.entry is its entry, wherever the cursor stands */
    bool showing;       /* it is read for its value: not without keeping it */
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
    struct sst_seat *seat;             /* NULL: none. Set after init */
    struct large large;                /* the present block when it is large, while it is in memory */
    uint64_t read_bytes;               /* of blocks missed, as stored */
};

/* readahead: bytes read at most in one go when the walk is sequential; 0: 64 KiB, in the background
 * 256 KiB. The cursor starts out not valid. Returns LOAM_OK or E_NOMEM. */
int sst_cursor_init(struct sst_cursor *c, struct sst_reader *r, struct alloc *a, uint32_t flags,
                    uint32_t readahead);
/* Points the cursor at another table, keeping its buffers; not valid then. readahead: as above. LOAM_OK or
 * E_NOMEM. */
int sst_cursor_rebind(struct sst_cursor *c, struct sst_reader *r, uint32_t readahead);
/* Safe on a zeroed struct. */
void sst_cursor_free(struct sst_cursor *c);
/* Whether the value of the present entry is in memory. */
static inline bool sst_cursor_shown(const struct sst_cursor *c)
{
    return !c->single || c->large.data != NULL;
}
/* Brings the value of the present entry back into memory. LOAM_OK; LOAM_E_BUDGET (recorded): all there is is
 * lent; or an error of reading. After an error the cursor is not valid. REQUIRES: valid. */
int sst_cursor_show(struct sst_cursor *c);
/* Whoever holds the seat lets go of its block. */
void sst_seat_drop(struct sst_seat *s);
/* The seat without a large value at all. */
void sst_seat_clear(struct sst_seat *s);
/* The present value of c stays where it is, as the seat's own. REQUIRES: c has the seat. */
void sst_seat_keep(struct sst_seat *s, struct sst_cursor *c);

/* Bytes of its buffers, without a large block. */
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
    entry_copy(e, &c->at.entry);
}
static inline int sst_cursor_rc(const struct sst_cursor *c)
{
    return c->rc;
}

#endif
