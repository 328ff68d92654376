/* wal_format.h - The bytes of a log segment file: header page, record header, file name.
 * SPDX-License-Identifier: Apache-2.0
 *
 * All integers are little-endian. A log is a row of segment files "%012llu.log", numbers rising.
 *
 * Segment file
 *      0   8  magic "loamlog\n"
 *      8   4  format version (1)
 *     12   4  flags: bit 0 = the file had its full size before its first record
 *     16   8  database id
 *     24   8  segment number, the one in the file's name
 *     32   8  salt: never 0, another one at each use of the file; random
 *     40   8  capacity: bytes for records, which start at 4096
 *     48      zeros
 *   4088   8  XXH3-64 of bytes [0, 4088), seed 0
 *   4096      records, one behind the other, each at a multiple of 8
 *
 * Record
 *      0   8  XXH3-64, seed = salt, of bytes [8, size of the record); of [8, 24) in a void record
 *      8   8  position
 *     16   4  payload length
 *     20   4  type in bits 0-3 (1 operations, 2 void; 0 is never valid, others are reserved),
 *             durable distance in bits 4-31
 *     24      payload, then zeros up to a multiple of 8
 *
 * Positions name bytes of the whole log, across all segments; they are multiples of 8 below 2^56
 * and only grow. A record's position is the sequence number of its first operation. The first
 * record of a file defines the file's base; the record with position p lies at 4096 + (p - base).
 *
 * The durable distance is (position - durable) / 8, where everything below `durable` was known to
 * be on the disk when the record was written; 2^28 - 1 means unknown. So a record that can be read
 * makes damage below its durable mark an error, while what lies beyond the marks of all records
 * may be a torn tail.
 *
 * What does not parse: preallocated zeros (type 0), and the stale records of a recycled file
 * (another salt, and a position that was passed long ago).
 *
 * A header is complete and synced before its file gets a log's name, and that name is durable
 * before the first record. So a file of this name whose header is damaged was damaged at rest.
 */
#ifndef LOAM_WAL_WAL_FORMAT_H_
#define LOAM_WAL_WAL_FORMAT_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/coding.h"
#include "arena/types.h"

#define WAL_MAGIC            0x0a676f6c6d616f6cull /* "loamlog\n" */
#define WAL_VERSION          1u
#define WAL_FLAG_FULL_SIZE   0x1u
#define WAL_HEADER_PAGE      4096u
#define WAL_RECORD_HEADER    24u
#define WAL_POSITION_MAX     ((1ull << 56) - 1)
#define WAL_PAYLOAD_MAX      ((1u << 30) + (64u << 20)) /* bytes */
#define WAL_CAPACITY_MAX     (1ull << 40)               /* bytes; larger ones are damage */
#define WAL_DURABLE_UNKNOWN  ((1u << 28) - 1)
#define WAL_FILE_NAME_MAX    32 /* bytes, with the NUL */

enum wal_record_type { WAL_TYPE_OPS = 1, WAL_TYPE_VOID = 2 };

struct wal_file_header {
    uint32_t flags;
    uint64_t db_id;
    uint64_t number;
    uint64_t salt;
    uint64_t capacity; /* bytes */
};

struct wal_record_header {
    uint64_t checksum;
    uint64_t position;
    uint32_t length; /* bytes of payload */
    uint32_t type;
    uint32_t durable_distance; /* units of 8 bytes */
};

/* "000000000007.log"; temporary: "000000000007.log.new", a file being prepared. */
void wal_file_name(char name[WAL_FILE_NAME_MAX], uint64_t number);
void wal_temporary_name(char name[WAL_FILE_NAME_MAX], uint64_t number);
/* True, with *number, for exactly the names wal_file_name() makes. */
bool wal_parse_file_name(loam_slice name, uint64_t *number);
bool wal_is_temporary_name(loam_slice name);

/* Writes the whole header page. */
void wal_file_header_encode(uint8_t page[WAL_HEADER_PAGE], const struct wal_file_header *h);
/* `number` is for the error's text and is not compared. LOAM_OK; LOAM_E_FORMAT: not a log or a
 * newer version; LOAM_E_CORRUPT: a bad checksum or impossible values. */
int wal_file_header_decode(const uint8_t page[WAL_HEADER_PAGE], uint64_t number,
                           struct wal_file_header *h);

/* Bytes a record takes in the file. length <= WAL_PAYLOAD_MAX. */
static inline uint64_t wal_record_size(uint64_t length)
{
    return (WAL_RECORD_HEADER + length + 7) & ~7ull;
}

/* Distance to store for a record at `position`, both multiples of 8. */
static inline uint32_t wal_durable_distance(uint64_t position, uint64_t durable)
{
    if (durable >= position) {
        return 0;
    }
    uint64_t units = (position - durable) >> 3;
    return units < WAL_DURABLE_UNKNOWN ? (uint32_t)units : WAL_DURABLE_UNKNOWN;
}

/* Writes bytes [8, 24) of a record. */
static inline void wal_record_header_put(uint8_t *record, uint64_t position, uint32_t length,
                                         enum wal_record_type type, uint32_t durable_distance)
{
    put_fixed64(record + 8, position);
    put_fixed32(record + 16, length);
    put_fixed32(record + 20, (uint32_t)type | durable_distance << 4);
}

static inline struct wal_record_header wal_record_header_get(const uint8_t *record)
{
    uint32_t word = get_fixed32(record + 20);
    struct wal_record_header h = {
        .checksum = get_fixed64(record),
        .position = get_fixed64(record + 8),
        .length = get_fixed32(record + 16),
        .type = word & 15u,
        .durable_distance = word >> 4,
    };
    return h;
}

/* Everything below this was durable when the record was written; 0 when it does not say. */
static inline uint64_t wal_record_durable(const struct wal_record_header *h)
{
    uint64_t back = (uint64_t)h->durable_distance << 3;
    return h->durable_distance == WAL_DURABLE_UNKNOWN || back > h->position ? 0
                                                                            : h->position - back;
}

/* Bytes behind offset 8 that the checksum covers. */
static inline uint64_t wal_record_covered(uint32_t type, uint64_t length)
{
    return type == WAL_TYPE_VOID ? WAL_RECORD_HEADER - 8 : wal_record_size(length) - 8;
}

#endif
