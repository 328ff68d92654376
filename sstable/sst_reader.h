/* sst_reader.h - An open table: point lookup, properties, verification.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Opening reads the head and the tail of the file. Index and filter are then brought into memory as a
 * whole (MEM_TABLE: the table is resident) if they take no more than the caller allows; else only the
 * top is there, and filter pages and partitions come as data blocks do: from the block cache or by read
 * from the file, never from a map. Each such piece is checked when it is loaded - checksum, place,
 * structure, order - so that searching it afterwards needs no checks.
 *
 *   get, resident:      filter -> index ------------------------------> data block
 *   get, not resident:  filter page -> top (in memory) -> partition --> data block
 *
 * Threads: an open reader is immutable; everything but sst_close() may be called by any thread.
 */
#ifndef LOAM_SSTABLE_SST_READER_H_
#define LOAM_SSTABLE_SST_READER_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/buf.h"
#include "arena/entry.h"
#include "arena/epoch.h"
#include "arena/large.h"
#include "arena/vfs.h"
#include "sstable/block_cache.h"
#include "sstable/filter.h"
#include "sstable/index.h"
#include "sstable/sst_builder.h"
#include "sstable/sst_format.h"

#define SST_LARGE_BLOCK 65536u /* the largest target of a block */
#define SST_LARGE_MORE  4096u  /* blocks may be larger than their target by their shared prefix */

struct sst_open_options {
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache; /* NULL: blocks are read each time */
    struct large_pool *large;  /* for large blocks; NULL: no limits. Must outlive the reader */
    const char *path;
    uint64_t file_number, db_id; /* what the file must say of itself */
    const loam_comparator *cmp; /* NULL: byte order. Its name must match. Must outlive the reader */
    uint64_t size;              /* bytes the manifest says; 0: not known */
    bool paranoid;              /* read and verify all partitions and filter pages at once, and cached
                                   pieces at each use, too */
    bool inspect;               /* for tools: believe the file's own identity and take any
                                   comparator; walking works, lookups by key only in byte order */
    bool order_later;           /* cmp is not known yet: sst_set_comparator() before any lookup */
    struct sst_warm *warm;      /* NULL, or what the builder left; taken over whatever happens */
    uint64_t resident_bytes;    /* index and filter become resident if they take no more; 0: never */
    bool whole; /* they must become resident, whatever they take; damage anywhere in them fails the
                   opening, which else is met by who needs the part */
};

/* What a table says of itself. Keys are lent while the reader lives. */
struct sst_props {
    uint64_t file_number, db_id;
    uint32_t ks;
    uint32_t level;       /* that it was built for */
    uint32_t block_bytes; /* target it was built with */
    uint32_t max_key;     /* bytes of the longest key */
    uint64_t max_block;   /* bytes of the largest uncompressed block */
    uint64_t blocks;      /* data blocks */
    uint64_t entries, deletes, raw_bytes, min_seq, max_seq;
    uint64_t filter_keys; /* distinct user keys in the filter */
    /* Bytes in the file. */
    uint64_t file_size, data_size, index_size, top_size, filter_size, props_size;
    uint32_t partitions, filter_pages;
    loam_slice comparator; /* name; empty: byte order */
    loam_slice smallest, largest;
};

/* What outlives the reader until an epoch has passed: a reclaimer may be changing an address. */
struct sst_cached {
    struct cached_blocks blocks;
    struct epoch_node node;
    struct alloc *alloc;
};

/* A part of the file that is read, checked and cached by itself. */
struct sst_piece {
    enum sst_type type; /* SST_DATA, SST_INDEX or SST_FILTER */
    uint32_t number;    /* in the cache: data blocks, then filter pages, then partitions */
    uint64_t offset;
    uint32_t size; /* as stored */
};

/* Constant after open. For sst_cursor.c and sst_verify.c; others use the functions. */
struct sst_reader {
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache;
    struct large_pool *large; /* may be NULL */
    const loam_comparator *cmp;
    loam_file *file;
    uint64_t file_seed;
    bool paranoid;
    bool resident;             /* index and filter are */
    struct index top;          /* over partitions */
    uint32_t *part_first;      /* number of each partition's first block, and of all */
    struct filter_shape shape; /* of the stored filter; no lines: none */
    struct index index;        /* over data blocks; if resident */
    struct filter filter;      /* probes 0: none, or not resident */
    uint64_t want;             /* about how many bytes more make it resident; UINT64_MAX: they do not */
    struct sst_cached *cached; /* NULL without a cache */
    struct sst_footer footer;
    struct sst_props props;
    uint8_t *filter_memory; /* the lines */
    size_t filter_memory_size;
    uint8_t *props_memory; /* stored properties block; the slices in props point into it */
    size_t props_memory_size;
};

/* Buffers for blocks that are not in the cache: one per thread or caller. Grows to the largest
 * block met but for large ones, which have a buffer of their own until the next read or
 * sst_get_scratch_rest(). */
struct sst_get_scratch {
    struct alloc *alloc;
    uint8_t *io; /* as stored */
    size_t io_cap;
    uint8_t *raw; /* uncompressed */
    size_t raw_cap;
    struct large large; /* LARGE_PASSING */
    struct sst_unpacker unpacker;
    bool no_fill; /* blocks read from the file are not offered to the cache */
    bool verify;  /* blocks found in the cache are checked again */
    bool ruled_out; /* by a page of the filter: see sst_ruled_out() */
    uint64_t cache_hits, cache_misses; /* blocks, pages and partitions, for the caller to add up */
};

void sst_get_scratch_init(struct sst_get_scratch *s, struct alloc *a);
void sst_get_scratch_free(struct sst_get_scratch *s);
/* What was read last is not needed any more. Due before waiting for anything. */
static inline void sst_get_scratch_rest(struct sst_get_scratch *s)
{
    if (__builtin_expect(s->large.data != NULL, 0)) {
        large_give(&s->large);
    }
}

/* Returns LOAM_OK, E_NOMEM, E_NOENT, an I/O error, E_CORRUPT, or E_FORMAT (not a table, a newer
 * format, another comparator). Owns: *r is the caller's. */
int sst_open(const struct sst_open_options *o, struct sst_reader **r);
/* The comparator of a reader that was opened with order_later; its name must match (LOAM_E_FORMAT).
 * NULL: byte order. REQUIRES: nobody else uses the reader yet. */
int sst_set_comparator(struct sst_reader *r, const loam_comparator *cmp);
/* Quiescent: no section and no cursor can reach it. Its cached blocks become stale. NULL is
 * allowed. */
void sst_close(struct sst_reader *r);

/* The newest version of key with seq <= snapshot, without asking a resident filter; a delete is found
 * as ENTRY_DELETE. e->key is the caller's own key; e->value is lent until the epoch section ends or s
 * is used again.
 * key_hash is hash_key(key). REQUIRES: inside an epoch section.
 * Returns LOAM_OK, LOAM_NOTFOUND, an I/O error, E_CORRUPT, E_FORMAT, or E_NOMEM. */
int sst_get(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
            struct sst_get_scratch *s, struct entry *e);
/* Brings what the next two look at first on its way at once, not one after the other. REQUIRES: as
 * sst_get(). */
void sst_expect(const struct sst_reader *r, loam_slice key, uint64_t key_hash);
/* False: the table has no version of a key with this hash. True when the filter is not resident. */
static inline bool sst_may_contain(const struct sst_reader *r, uint64_t key_hash)
{
    return r->filter.probes == 0 || filter_may_contain(&r->filter, key_hash);
}

/* After sst_get() returned LOAM_NOTFOUND: it was the filter that said so. */
static inline bool sst_ruled_out(const struct sst_reader *r, const struct sst_get_scratch *s)
{
    return !r->resident && s->ruled_out;
}

static inline const struct sst_props *sst_props(const struct sst_reader *r)
{
    return &r->props;
}
uint64_t sst_memory(const struct sst_reader *r); /* bytes it takes, without what is cached */
/* About how many bytes more would make it resident: 0 when it is, UINT64_MAX when it cannot be. */
static inline uint64_t sst_want(const struct sst_reader *r)
{
    return r->want;
}
/* About how many bytes of the file lie before key; to a partition when not resident. */
uint64_t sst_offset_of(const struct sst_reader *r, loam_slice key);
/* A key near the share num/den of the table (0 <= num < den), for splitting work: the last key of
 * some block or one that sorts as if it were. Appends to out. */
void sst_split_key(const struct sst_reader *r, uint64_t num, uint64_t den, struct buf *out);

/* A damaged place of a table. */
struct sst_damage {
    int rc; /* loam_last_error() describes it */
    uint64_t offset, bytes;
    uint64_t entries;       /* at most so many are at risk */
    loam_slice first, last; /* within these keys, both inclusive; lent for the call */
};
struct sst_verify_options {
    int (*damage)(void *arg, const struct sst_damage *d); /* NULL is allowed. Non-zero stops */
    int (*pace)(void *arg, uint64_t bytes); /* after so many bytes read; < 0 ends with that error */
    void *arg;
    size_t filter_bytes; /* of the filter that are in memory at once; 0: 4 MiB. The blocks are read once for
                            each such part */
};
/* Reads the whole file from disk: all checksums, structure, order within and across blocks, index
 * bounds, filter, properties. *checksum (may be NULL) becomes the whole-file checksum, to compare
 * with the manifest's. Returns LOAM_OK, the code of the damage at which damage() stopped it, or the first
 * damage's; o may be NULL. */
int sst_verify(struct sst_reader *r, const struct sst_verify_options *o, uint64_t *checksum);

/* ---- steps of loading a piece, for the cursor and the verifier ---- */

static inline struct sst_place sst_place_of(const struct sst_reader *r, const struct sst_piece *p)
{
    return (struct sst_place){r->props.file_number, r->file_seed, p->offset};
}
/* REQUIRES: resident. */
static inline struct sst_piece sst_block_piece(const struct sst_reader *r, uint32_t block)
{
    return (struct sst_piece){SST_DATA, block, r->index.offsets[block],
                              index_size(&r->index, block)};
}
struct sst_piece sst_page_piece(const struct sst_reader *r, uint32_t page);
struct sst_piece sst_part_piece(const struct sst_reader *r, uint32_t part);

/* Checks an uncompressed piece that came from disk. LOAM_OK, E_CORRUPT or E_FORMAT. */
int sst_check_piece(const struct sst_reader *r, const struct sst_piece *p, const void *data,
                    size_t size);
/* The same of a piece as stored, which must not be compressed; its payload begins where it does. */
int sst_check_stored(const struct sst_reader *r, const struct sst_piece *p, const void *stored);
/* For a piece found in the cache, when paranoid or asked to verify: LOAM_OK or E_CORRUPT. */
int sst_check_cached(const struct sst_reader *r, uint32_t number, const void *data, size_t size,
                     bool verify);
/* Whether a block of so many bytes, stored or not, is larger than the table's blocks should be: then it holds one
 * entry, as a rule. */
static inline bool sst_is_large(const struct sst_reader *r, size_t size)
{
    size_t block = r->props.block_bytes < SST_LARGE_BLOCK ? r->props.block_bytes : SST_LARGE_BLOCK;
    return size > LARGE_FROM && size > block + SST_LARGE_MORE;
}
/* Reads, verifies and unpacks a block whose stored size is large into one buffer, l, with 16 readable bytes
 * behind it. way and errors as large_take(). */
int sst_read_large(const struct sst_reader *r, const struct sst_piece *p, struct sst_unpacker *u,
                   struct large *l, enum large_way way, enum mem_owner owner, const uint8_t **data,
                   size_t *size);
/* Reads, verifies and unpacks a piece into s; *data is lent until s is used again, with 16 readable
 * bytes behind it. */
int sst_read_piece(const struct sst_reader *r, const struct sst_piece *p, struct sst_get_scratch *s,
                   const uint8_t **data, size_t *size);
/* Copies a piece into the cache if there is room at once. REQUIRES: inside an epoch section. */
void sst_offer_piece(const struct sst_reader *r, const struct sst_piece *p, const void *data,
                     size_t size);
/* A piece that the cache does not have, through s and offered to it. REQUIRES: inside a section. */
int sst_miss_piece(const struct sst_reader *r, const struct sst_piece *p, struct sst_get_scratch *s,
                   const uint8_t **data);
/* The piece as cached; LOAM_NOTFOUND: it is not. REQUIRES: inside a section; a cache. */
static inline int sst_peek_piece(const struct sst_reader *r, uint32_t number,
                                 struct sst_get_scratch *s, const uint8_t **data)
{
    size_t size;
    const void *p = block_cache_peek(r->cache, &r->cached->blocks, number, true, &size);
    if (p == NULL) {
        return LOAM_NOTFOUND;
    }
    s->cache_hits++;
    *data = (const uint8_t *)p;
    return sst_check_cached(r, number, p, size, s->verify);
}

#endif
