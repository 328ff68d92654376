/* block_builder.h - Gathers entries in private memory and lays them out as one data block.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The shared prefix, the array widths and so the exact size are known only at the end: entries are
 * kept as they come, or where they are, and block_emit() writes the block in one pass, straight to its place.
 * Nothing is allocated per entry; the memory grows to the largest block and stays.
 */
#ifndef LOAM_SSTABLE_BLOCK_BUILDER_H_
#define LOAM_SSTABLE_BLOCK_BUILDER_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/entry.h"

/* An entry to be laid out. */
struct block_input {
    const uint8_t *key;
    const uint8_t *value;
    uint32_t key_size, value_size;
    uint64_t tag;
    uint8_t fingerprint;
};

struct block_builder {
    struct alloc *alloc;
    bool strip; /* keys are in byte order: their shared prefix is stored once */
    bool lent;  /* what is added stays where it is until the builder is cleared: it is not copied */
    uint32_t count, cap;
    struct block_input *inputs; /* unless lent they point into bytes */
    uint8_t *bytes;
    size_t bytes_size, bytes_cap;
    uint32_t prefix; /* bytes all keys share, 0 without strip */
    uint32_t key_max; /* bytes of the longest key */
    uint64_t seq_min, seq_max;
};

/* It copies; who lends sets `lent` next. */
void block_builder_init(struct block_builder *b, struct alloc *a, bool strip);
void block_builder_free(struct block_builder *b);
/* Forgets the entries, keeps the memory. */
void block_builder_clear(struct block_builder *b);
/* Copies the entry, unless it is lent; order is the caller's duty. LOAM_OK or E_NOMEM. */
int block_builder_add(struct block_builder *b, const struct entry *e, uint8_t fingerprint);
/* Whether the block would have at most so many bytes with this entry: never when it would not, and else too, but
 * where keys on both sides of 128 bytes make it uncertain. The first entry always fits. */
bool block_builder_fits(const struct block_builder *b, const struct entry *e, size_t limit);
/* About how many bytes the block would have; O(1), right but for a few bytes an entry. */
static inline size_t block_builder_estimate(const struct block_builder *b)
{
    return 40 + b->prefix + b->bytes_size + (size_t)b->count * 8 - (size_t)b->count * b->prefix;
}
/* Bytes that the keys would share with this one among them; 0 without strip. O(bytes). REQUIRES: count > 0. */
uint32_t block_builder_shared(const struct block_builder *b, loam_slice key);
/* REQUIRES: count > 0. */
static inline const struct block_input *block_builder_last(const struct block_builder *b)
{
    return &b->inputs[b->count - 1];
}

/* The exact shape of the block that n >= 1 inputs make. */
struct block_shape {
    uint64_t size; /* bytes of the block; may be over SST_BLOCK_SIZE_MAX */
    uint64_t seq_base;
    uint32_t prefix;
    uint8_t offset_width, tag_width;
};

void block_builder_shape(const struct block_builder *b, struct block_shape *s);
/* Of a single entry, which need not be copied into a builder. */
void block_shape_single(const struct block_input *in, bool strip, struct block_shape *s);
/* Writes s->size bytes at out. number and file_seed enter the block's checksum. */
void block_emit(const struct block_input *in, uint32_t n, const struct block_shape *s,
                uint64_t file_seed, uint32_t number, void *out);

#endif
