/* fuzz_support.h - What fuzz targets share: input in pieces, files, fresh checksums, and what an input may cost.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A target is one function, LLVMFuzzerTestOneInput(). With clang and LOAM_FUZZ it is linked with
 * libFuzzer; always also with replay_main.c, which feeds it the corpus and random changes of it.
 *
 * Cost: an input of up to 1 KiB may hold at most 64 MiB at once and take a second of processor time.
 * fuzz_end() aborts beyond that, and when memory of fuzz_alloc() was not given back.
 *
 * Re-sealing: a random change would stop at the first checksum, so a bit of the input asks for all
 * checksums to be made right before the bytes are read. What is then read is hostile, not damaged.
 */
#ifndef LOAM_TESTS_FUZZ_FUZZ_SUPPORT_H_
#define LOAM_TESTS_FUZZ_FUZZ_SUPPORT_H_

#include <stdbool.h>

#include "arena/alloc.h"
#include "arena/vfs.h"
#include "tests/support/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- input ----------------------------------------------------------------------------------- */

struct fuzz_input {
    const uint8_t *p;
    size_t left;
};

/* Zeros behind the end. */
uint64_t fuzz_take(struct fuzz_input *in, unsigned bytes);
/* Up to n bytes; NULL is never returned. */
const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t n, size_t *got);

/* ---- cost ------------------------------------------------------------------------------------ */

void fuzz_begin(void);
void fuzz_end(size_t input_size);
struct alloc *fuzz_alloc(void);             /* fresh at fuzz_begin() */
const loam_allocator *fuzz_allocator(void); /* its hooks, for options */

/* ---- files ----------------------------------------------------------------------------------- */

#define FUZZ_DIR "/db"
#define FUZZ_ID  0x1122334455667788u /* of the database that the seeds come from */

loam_vfs *fuzz_disk(void); /* a memory disk with FUZZ_DIR */
void fuzz_put(const loam_vfs *disk, const char *name, const void *data, size_t size);
/* A log segment without the zeros of its header page and behind its records: 48 bytes, checksum,
 * records. A header that tells of up to zeros_max bytes gets a file of that size. */
#define FUZZ_LOG_HEAD 56u
void fuzz_put_log(const loam_vfs *disk, const char *name, const uint8_t *packed, size_t size,
                  bool seal, uint64_t zeros_max);

/* Each makes the checksums right, as far as the bytes let themselves be parsed. */
void fuzz_seal_current(uint8_t *p, size_t size);
void fuzz_seal_manifest(uint8_t *p, size_t size);
void fuzz_seal_log(uint8_t *p, size_t size);
void fuzz_seal_table(uint8_t *p, size_t size);
void fuzz_seal_block(uint8_t *p, size_t size, uint64_t seed, uint32_t number);

/* A copy to change, with `slack` readable zeros behind it. free() it. */
uint8_t *fuzz_copy(const uint8_t *p, size_t size, size_t slack);
/* Reads every byte, so that sanitizers see it. */
void fuzz_touch(loam_slice s);

#endif
