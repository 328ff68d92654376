/* sst_format.h - The bytes of a table file: layout, codecs, checksums, header, footer, properties.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All numbers are little-endian; "varint" is LEB128 of up to 64 bits. Every byte is under a checksum, and the parts tile the file without gap or overlap.
 *
 *   file    := header  data block*  filter page*  partition+  top  properties  range deletes  footer
 *
 * A reader needs footer, properties and top to begin: a small part, whatever the table's size.
 * Filter pages and partitions are read, checked and cached one at a time, as data blocks are, or all
 * at once to be resident. For one key at most one page, one partition and one data block are read.
 * Per 4096 bytes of data they take about 62 bytes of the file (10 filter bits, entries of 116 bytes),
 * the top 0.1.
 *
 * Header, 48 bytes at offset 0. Its layout never changes, so that any later version can be told.
 *    0  8  magic "LOAMSST\n"
 *    8  4  format version (2)
 *   12  4  zero
 *   16  8  id of the database
 *   24  8  number of the file
 *   32  4  id of the keyspace
 *   36  4  zero
 *   40  8  XXH3-64 of bytes 0..39, seed 0
 *
 * Footer, the last 144 bytes.
 *    0  8  XXH3-64 of bytes 8..143 with the file seed, xor mix(offset of the footer)
 *    8 16  filter pages:  offset, size of all (0: none)
 *   24 16  partitions:    offset, size of all
 *   40 16  top:           offset, size
 *   56 16  properties:    offset, size
 *   72 16  range deletes: offset, size (0: none; another size needs a feature bit, none yet)
 *   88  8  end of the data blocks
 *   96  8  size of the file
 *  104  8  id of the database
 *  112  8  number of the file
 *  120  4  features a reader must know: 1 = data blocks may end in more zeros than 8 (another bit:
 *          LOAM_E_FORMAT)
 *  124  4  features a reader may ignore (0)
 *  128  4  size of the footer (144)
 *  132  4  format version (2)
 *  136  8  magic "LOAMEND\n"
 *
 * A stored block (data, filter page, partition, top, properties) is its payload and a trailer of 16
 * bytes; the handles ("offset, size") count the trailer in.
 *    0  1  codec: 0 stored as is, 1 LZ4 block, 2 zstd frame
 *    1  1  type: 1 data, 2 filter page, 3 partition, 4 properties, 5 top; all but data: codec 0
 *    2  2  zero
 *    4  4  size of the block uncompressed; with a codec at most 255 times the payload's
 *    8  8  checksum := XXH3-64(payload, seed mix(file seed xor trailer bytes 0..7)) xor mix(offset)
 *   file seed := mix(mix(id of the database) + number of the file); mix is splitmix64's finaliser.
 *   So a block read from another place, another file or another database does not verify, and the
 *   expensive part of the sum needs no offset: it is done before the place is known.
 *
 * Data block, uncompressed; the index says which keys it may hold. n >= 1 entries, keys ascending,
 * versions of one key adjacent, newest first. The versions of one key may go on in the next block.
 *    0  8  XXH3-64 of the bytes from 8 on, seed mix(file seed + number of the block); the number is
 *          the block's rank in key order. Guards the block while it is in memory.
 *    8  4  size of the block
 *   12  4  n
 *   16  8  base: smallest sequence number in the block
 *   24  2  length of the prefix that all keys share; 0 under a comparator
 *   26  1  width of an offset: 2, or 4 where entries may end beyond 64 KiB
 *   27  1  width of a tag: 0 to 8
 *   28  4  zero
 *   32     fingerprints: n bytes, zero-padded to a multiple of 16; bits 24..31 of hash_key(key)
 *          offsets: n + 1 numbers, where each entry begins in the block and where the last ends
 *          the shared prefix
 *          entries: varint length of the key's rest; tag = (sequence - base) << 3 | kind, in
 *          "width" bytes; the key's rest; the value, up to the next entry
 *          8 bytes of zero, so that a tag can be loaded as 8 bytes; more of them where that lets the
 *          block end with a page of the file
 *   Kinds 0 delete (without value), 1 put; others are LOAM_E_FORMAT.
 *
 * Index. One separator per block: it is >= every key of its block, and < the first key of the next
 * block unless one key's versions span the two - then it is that key. Partitions hold them in runs:
 * laid out as a data block (about 4096 bytes, at least one entry), an entry per data block, so that a
 * reader searches a partition as it is.
 *   key    the separator
 *   tag    sequence: blocks of the partition behind this one, so that equal separators ascend; kind 1;
 *          fingerprint 0
 *   value  1 flags: 1 = every entry of the block is a delete (another bit: LOAM_E_FORMAT)
 *          varint size of the data block, below 2^31; varint its offset
 *   Its number, for the checksum in memory: data blocks + filter pages + rank of the partition.
 *
 * Top. Laid out in the same way, an entry per partition.
 *   key    the last separator of the partition
 *   tag    sequence: partitions behind this one; kind 1; fingerprint 0
 *   value  1 flags: 1 = every entry of the partition's blocks is a delete
 *          varint size of the partition as stored; varint data blocks before the partition
 *   Partitions follow each other without gap in the file. Its number is 2^32 - 1.
 *
 * Filter: blocked Bloom, over the hash_key of each distinct user key; none under a comparator,
 * where keys that differ in bytes may be equal. See filter.h for the probe. Its lines of 64 bytes are
 * cut into pages of 63 (the last one may have fewer), each led by a head of 64 bytes:
 *    0  8  XXH3-64 of the page from 8 on, as of a data block; its number is data blocks + its rank
 *    8  4  kind (1)
 *   12  4  probes per key
 *   16  8  number of lines of the filter
 *   24  8  number of keys of the filter
 *   32  4  rank of the page
 *   36 28  zero
 *
 * Properties: varint id, varint length, bytes; ids ascend; unknown ones are skipped. The numbers in
 * them are varints. The ids are enum sst_prop below.
 */
#ifndef LOAM_SSTABLE_SST_FORMAT_H_
#define LOAM_SSTABLE_SST_FORMAT_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/buf.h"
#include "arena/vfs.h"

#define SST_VERSION        2u
#define SST_HEADER_SIZE    48u
#define SST_FOOTER_SIZE    144u
#define SST_TRAILER_SIZE   16u
#define SST_FEATURE_STRETCHED 1u /* data blocks may end in more than 8 zeros */
#define SST_KEY_MAX        65535u /* bytes; LOAM_MAX_KEY */
#define SST_RATIO_MAX      255u   /* uncompressed bytes per compressed one that a reader believes */
#define SST_PIECE_MAX      0x7fffffffu           /* bytes of a block, page or partition as stored */
#define SST_BLOCK_SIZE_MAX ((size_t)0x7fffffe0u) /* bytes, uncompressed */

enum sst_codec { SST_CODEC_NONE = 0, SST_CODEC_LZ4 = 1, SST_CODEC_ZSTD = 2 };
enum sst_type {
    SST_DATA = 1,
    SST_FILTER = 2, /* a page */
    SST_INDEX = 3,  /* a partition */
    SST_PROPS = 4,
    SST_TOP = 5,
    SST_TYPE_MAX = SST_TOP
};
enum sst_prop {
    SST_PROP_LEVEL = 1,
    SST_PROP_COMPARATOR = 2, /* name; empty: byte order */
    SST_PROP_BLOCK_BYTES = 3,
    SST_PROP_BLOCKS = 4,
    SST_PROP_ENTRIES = 5,
    SST_PROP_DELETES = 6,
    SST_PROP_RAW_BYTES = 7,
    SST_PROP_MIN_SEQ = 8,
    SST_PROP_MAX_SEQ = 9,
    SST_PROP_MAX_KEY = 10,   /* bytes of the longest key */
    SST_PROP_MAX_BLOCK = 11, /* bytes of the largest data block, uncompressed */
    SST_PROP_FILTER_KEYS = 12,
    SST_PROP_SMALLEST = 13,
    SST_PROP_LARGEST = 14,
    SST_PROP_COUNT = 15
};

/* Where stored bytes are, trailer included. */
struct sst_handle {
    uint64_t offset;
    uint64_t size;
};

struct sst_header {
    uint64_t db_id, file_number;
    uint32_t ks;
};

struct sst_footer {
    struct sst_handle filter, index, top, props, range_deletes;
    uint64_t data_end, file_size;
    uint64_t db_id, file_number;
    uint32_t features; /* that a reader must know: SST_FEATURE_* */
};

/* The numbers of the properties block, by enum sst_prop, and its byte strings (lent). */
struct sst_prop_values {
    uint64_t number[SST_PROP_COUNT];
    loam_slice comparator, smallest, largest;
};

/* splitmix64's finaliser: every bit of x reaches every bit of the result, and it is a bijection. */
static inline uint64_t sst_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t sst_file_seed(uint64_t db_id, uint64_t file_number)
{
    return sst_mix(sst_mix(db_id) + file_number);
}

void sst_header_encode(const struct sst_header *h, uint8_t out[SST_HEADER_SIZE]);
/* Returns LOAM_OK, E_FORMAT (no table, or a newer one), or E_CORRUPT. `file` is for the message. */
int sst_header_decode(const uint8_t in[SST_HEADER_SIZE], uint64_t file, struct sst_header *h);

void sst_footer_encode(const struct sst_footer *f, uint8_t out[SST_FOOTER_SIZE]);
/* Checks identity, checksum, features, and that the parts tile the file. `h` is the file's header.
 * Returns LOAM_OK, E_CORRUPT or E_FORMAT. */
int sst_footer_decode(const uint8_t in[SST_FOOTER_SIZE], const struct sst_header *h,
                      uint64_t file_size, struct sst_footer *f);

void sst_props_encode(const struct sst_prop_values *v, struct buf *out);
/* Slices point into `data`. Returns LOAM_OK or E_CORRUPT. */
int sst_props_decode(loam_slice data, uint64_t file, uint64_t offset, struct sst_prop_values *v);

/* ---- packing blocks ---- */

/* Compression state, for one block at a time. Ready for use when zeroed with alloc set. */
struct sst_packer {
    struct alloc *alloc;
    void *lz4;
    void *zstd; /* memory of a static context */
    size_t zstd_size;
    uint8_t *out;
    size_t out_cap;
};

/* A block ready to be appended: payload, then the trailer that sst_trailer_finish() completes. */
struct sst_packed {
    const uint8_t *payload; /* the input itself, or the packer's buffer */
    size_t size;            /* of the payload */
    uint8_t trailer[SST_TRAILER_SIZE];
};

/* Compresses when that saves an eighth or more; without memory for it the block is stored as it is.
 * REQUIRES: size <= SST_BLOCK_SIZE_MAX. */
void sst_pack(struct sst_packer *p, enum sst_codec codec, enum sst_type type, uint64_t file_seed,
              const void *data, size_t size, struct sst_packed *out);
/* Ties the block to its place. */
void sst_trailer_finish(struct sst_packed *b, uint64_t offset);
/* Frees the buffers, or only outsized ones. */
void sst_packer_free(struct sst_packer *p);
void sst_packer_trim(struct sst_packer *p);
/* Whether this build can write the codec. */
bool sst_codec_known(enum sst_codec codec);

/* ---- unpacking blocks ---- */

/* Where a stored block came from, for seeds and messages. */
struct sst_place {
    uint64_t file; /* number */
    uint64_t file_seed;
    uint64_t offset;
};

/* A verified stored block. */
struct sst_stored {
    const uint8_t *payload;
    size_t size;     /* of the payload */
    size_t raw_size; /* uncompressed; at most what the caller allowed */
    enum sst_codec codec;
};

/* Decompression state; ready when zeroed with alloc set. Only zstd needs memory. */
struct sst_unpacker {
    struct alloc *alloc;
    void *zstd;
    size_t zstd_size;
};

/* Verifies checksum, type and sizes of a block as read, before anything is allocated for it.
 * Returns LOAM_OK, E_CORRUPT, or E_FORMAT (an unknown codec). */
int sst_stored_check(struct sst_place at, enum sst_type type, const void *data, size_t size,
                     uint64_t raw_max, struct sst_stored *s);
/* Writes raw_size bytes at `out`. Returns LOAM_OK, E_CORRUPT, E_NOMEM or E_UNSUPPORTED. */
int sst_unpack(struct sst_unpacker *u, struct sst_place at, const struct sst_stored *s, void *out);
void sst_unpacker_free(struct sst_unpacker *u);

/* Reads exactly n bytes. Returns LOAM_OK, an I/O error, or E_CORRUPT when the file ends before. */
int sst_read_full(const loam_vfs *vfs, loam_file *f, uint64_t file, void *buf, size_t n,
                  uint64_t offset);

/* Makes *p hold at least `need` bytes; contents are lost. An outsized buffer (over 1 MiB and four
 * times the need) is given back first. Returns LOAM_OK or E_NOMEM. */
int sst_fit(struct alloc *a, enum mem_owner o, uint8_t **p, size_t *cap, size_t need);

#endif
