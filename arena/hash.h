/* hash.h - XXH3 under two names: the hash of keys and the checksum of everything on disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_HASH_H_
#define LOAM_ARENA_HASH_H_

#include <stddef.h>
#include <stdint.h>

/* For filters and shards. A key's hash is computed once and serves every filter it meets. The
 * values are part of the table format (filters are stored). */
uint64_t hash_key(const void *data, size_t size);
/* Of `data` in one piece; the seed ties it to the place it belongs to (file, offset, salt). */
uint64_t checksum64(const void *data, size_t size, uint64_t seed);

/* A checksum over pieces; equal to checksum64 of their concatenation. The state lives on the
 * caller's stack. */
struct checksum_stream {
    _Alignas(64) unsigned char opaque_[640];
};
void checksum_begin(struct checksum_stream *s, uint64_t seed);
void checksum_add(struct checksum_stream *s, const void *data, size_t size);
uint64_t checksum_end(struct checksum_stream *s);

#endif
