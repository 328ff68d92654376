/* sst_output.h - The file of a table in the making: packed blocks, appended in the order they come.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Threads: blocks are written by any number of background threads at once. Each compresses in a
 * packer of its own and then, under `mutex`, gives its block a place and copies it into the buffer.
 * The mutex is also held while a full buffer is written, so that the file grows in one sequence. The
 * other functions are the builder's thread's.
 */
#ifndef LOAM_SSTABLE_SST_OUTPUT_H_
#define LOAM_SSTABLE_SST_OUTPUT_H_

#include "arena/atomic.h"
#include "arena/hash.h"
#include "arena/large.h"
#include "arena/sync.h"
#include "sstable/sst_format.h"

struct packer_node;
struct sst_build_options;

struct sst_output {
    /* constant after open */
    const loam_vfs *vfs;
    struct alloc *alloc;
    struct large_pool *large; /* may be NULL */
    uint64_t file_number, db_id, file_seed;
    enum sst_codec codec;
    loam_file *file; /* NULL once closed */

    /* guarded by mutex */
    struct mutex mutex;
    struct packer_node *packers;
    int rc; /* first failure to write: nothing is appended behind it */
    loam_error error;
    uint8_t *buffer;
    size_t buffered;
    uint64_t offset;            /* where buffer[0] goes in the file */
    uint64_t begun;             /* up to here writing to the disk has begun */
    uint64_t *offsets;          /* per block */
    uint32_t *sizes;            /* per block */
    uint32_t place_cap;         /* of both arrays */
    struct checksum_stream sum; /* of all bytes of the file, up to offset */

    /* atomic; written under mutex */
    _Atomic uint64_t written_raw, written_stored; /* bytes of data blocks */
};

/* Creates the file, with its header. Returns LOAM_OK, E_INVAL or E_UNSUPPORTED (the compression),
 * E_NOMEM, E_EXISTS, or an I/O error. Whatever it returns, sst_output_free() is due. */
int sst_output_open(struct sst_output *o, const struct sst_build_options *options);

/* Room for the place of block `number`, which is the last number so far plus one. */
int sst_output_reserve(struct sst_output *o, uint32_t number);

/* Bytes: larger blocks are packed by turns, so that buffers for them do not add up over threads. */
#define SST_TURN ((size_t)96 << 10)

/* Compresses, seals and appends a data block; a block_write_fn with the output as its argument. Any
 * thread. REQUIRES: a place is reserved. */
int sst_output_block(void *output, uint32_t number, const void *data, size_t size);
/* The same of a caller whose turn among large blocks it is already. */
int sst_output_block_in_turn(void *output, uint32_t number, const void *data, size_t size);

/* Appends another part, sealed but not compressed; *h becomes its place. */
int sst_output_part(struct sst_output *o, enum sst_type type, const void *data, size_t size,
                    struct sst_handle *h);

uint64_t sst_output_end(struct sst_output *o); /* offset behind all that was appended */

/* Completes the footer, whose parts are set, and appends it; syncs and closes the file. *checksum is
 * of all its bytes. */
int sst_output_finish(struct sst_output *o, struct sst_footer *f, uint64_t *checksum);

/* Frees the buffers, which a finished file needs no more. */
void sst_output_trim(struct sst_output *o);
/* An unfinished file is closed; the caller removes it. */
void sst_output_free(struct sst_output *o);

#endif
