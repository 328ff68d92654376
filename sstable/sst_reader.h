/* sst_reader.h - An open table: point lookup, properties, verification.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Index and filter are resident (MEM_TABLE); data blocks come from the block cache or by read from
 * the file, never from a map. Every block is checked when it is loaded - checksum, place,
 * structure, order - so that searching it afterwards needs no checks.
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
#include "arena/vfs.h"
#include "sstable/block_cache.h"
#include "sstable/filter.h"
#include "sstable/index.h"
#include "sstable/sst_builder.h"
#include "sstable/sst_format.h"

struct sst_open_options {
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache; /* NULL: blocks are read each time */
    const char *path;
    uint64_t file_number, db_id; /* what the file must say of itself */
    const loam_comparator *cmp; /* NULL: byte order. Its name must match. Must outlive the reader */
    uint64_t size;              /* bytes the manifest says; 0: not known */
    bool paranoid;              /* verify cached blocks at each use, too */
    bool inspect;               /* for tools: believe the file's own identity and take any
                                   comparator; walking works, lookups by key only in byte order */
    bool order_later;           /* cmp is not known yet: sst_set_comparator() before any lookup */
    struct sst_warm *warm;      /* NULL, or what the builder left; taken over whatever happens */
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
    uint64_t file_size, data_size, index_size, filter_size, props_size; /* bytes in the file */
    loam_slice comparator; /* name; empty: byte order */
    loam_slice smallest, largest;
};

/* What outlives the reader until an epoch has passed: a reclaimer may be changing an address. */
struct sst_cached {
    struct cached_blocks blocks;
    struct epoch_node node;
    struct alloc *alloc;
};

/* Constant after open. For sst_cursor.c and sst_verify.c; others use the functions. */
struct sst_reader {
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct block_cache *cache;
    const loam_comparator *cmp;
    loam_file *file;
    uint64_t file_seed;
    bool paranoid;
    struct index index;
    struct filter filter;      /* probes 0: none */
    struct sst_cached *cached; /* NULL without a cache */
    struct sst_footer footer;
    struct sst_props props;
    uint8_t *filter_memory; /* stored filter block */
    size_t filter_memory_size;
    uint8_t *props_memory; /* stored properties block; the slices in props point into it */
    size_t props_memory_size;
};

/* Buffers for blocks that are not in the cache: one per thread or caller. Grows to the largest
 * block met (an outsized one is given back at the next miss). */
struct sst_get_scratch {
    struct alloc *alloc;
    uint8_t *io; /* as stored */
    size_t io_cap;
    uint8_t *raw; /* uncompressed */
    size_t raw_cap;
    struct sst_unpacker unpacker;
    bool no_fill; /* blocks read from the file are not offered to the cache */
    bool verify;  /* blocks found in the cache are checked again */
    uint64_t cache_hits, cache_misses; /* blocks, for the caller to add up */
};

void sst_get_scratch_init(struct sst_get_scratch *s, struct alloc *a);
void sst_get_scratch_free(struct sst_get_scratch *s);

/* Returns LOAM_OK, E_NOMEM, E_NOENT, an I/O error, E_CORRUPT, or E_FORMAT (not a table, a newer
 * format, another comparator). Owns: *r is the caller's. */
int sst_open(const struct sst_open_options *o, struct sst_reader **r);
/* The comparator of a reader that was opened with order_later; its name must match (LOAM_E_FORMAT).
 * NULL: byte order. REQUIRES: nobody else uses the reader yet. */
int sst_set_comparator(struct sst_reader *r, const loam_comparator *cmp);
/* Quiescent: no section and no cursor can reach it. Its cached blocks become stale. NULL is
 * allowed. */
void sst_close(struct sst_reader *r);

/* The newest version of key with seq <= snapshot, without asking the filter; a delete is found as ENTRY_DELETE. e->key is the
 * caller's own key; e->value is lent until the epoch section ends or s is used again.
 * key_hash is hash_key(key). REQUIRES: inside an epoch section.
 * Returns LOAM_OK, LOAM_NOTFOUND, an I/O error, E_CORRUPT, E_FORMAT, or E_NOMEM. */
int sst_get(struct sst_reader *r, loam_slice key, uint64_t key_hash, uint64_t snapshot,
            struct sst_get_scratch *s, struct entry *e);
/* False: the table has no version of a key with this hash. */
static inline bool sst_may_contain(const struct sst_reader *r, uint64_t key_hash)
{
    return r->filter.probes == 0 || filter_may_contain(&r->filter, key_hash);
}

static inline const struct sst_props *sst_props(const struct sst_reader *r)
{
    return &r->props;
}
uint64_t sst_memory(const struct sst_reader *r); /* resident bytes, without blocks */
/* About how many bytes of the file lie before key. */
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
};
/* Reads the whole file from disk: all checksums, structure, order within and across blocks, index
 * bounds, filter, properties. *checksum (may be NULL) becomes the whole-file checksum, to compare
 * with the manifest's. Returns LOAM_OK, or the first damage's code; o may be NULL. */
int sst_verify(struct sst_reader *r, const struct sst_verify_options *o, uint64_t *checksum);

/* ---- steps of loading a block, for the cursor and the verifier ---- */

static inline struct sst_place sst_place_of(const struct sst_reader *r, uint32_t block)
{
    return (struct sst_place){r->props.file_number, r->file_seed, r->index.offsets[block]};
}
/* Checks an uncompressed block that came from disk. LOAM_OK, E_CORRUPT or E_FORMAT. */
int sst_check_block(const struct sst_reader *r, uint32_t block, const void *data, size_t size);
/* For a block found in the cache, when paranoid or asked to verify: LOAM_OK or E_CORRUPT. */
int sst_check_cached(const struct sst_reader *r, uint32_t block, const void *data, size_t size,
                     bool verify);
/* Reads, verifies and unpacks a block into s; *data is lent until s is used again, with 16 readable
 * bytes behind it. */
int sst_read_block(const struct sst_reader *r, uint32_t block, struct sst_get_scratch *s,
                   const uint8_t **data, size_t *size);
/* Copies a block into the cache if there is room at once. REQUIRES: inside an epoch section. */
void sst_offer_block(const struct sst_reader *r, uint32_t block, const void *data, size_t size);

#endif
