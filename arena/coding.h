/* coding.h - Little-endian fixed and variable-length integers, bounds-checked on reading.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_CODING_H_
#define LOAM_ARENA_CODING_H_

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "arena/types.h"

#define VARINT32_MAX_BYTES 5
#define VARINT64_MAX_BYTES 10

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CODING_LE16(x) (x)
#define CODING_LE32(x) (x)
#define CODING_LE64(x) (x)
#define CODING_BE64(x) __builtin_bswap64(x)
#else
#define CODING_LE16(x) __builtin_bswap16(x)
#define CODING_LE32(x) __builtin_bswap32(x)
#define CODING_LE64(x) __builtin_bswap64(x)
#define CODING_BE64(x) (x)
#endif

static inline void put_fixed16(void *p, uint16_t v)
{
    v = CODING_LE16(v);
    memcpy(p, &v, sizeof v);
}
static inline void put_fixed32(void *p, uint32_t v)
{
    v = CODING_LE32(v);
    memcpy(p, &v, sizeof v);
}
static inline void put_fixed64(void *p, uint64_t v)
{
    v = CODING_LE64(v);
    memcpy(p, &v, sizeof v);
}
static inline uint16_t get_fixed16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return CODING_LE16(v);
}
static inline uint32_t get_fixed32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return CODING_LE32(v);
}
static inline uint64_t get_fixed64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return CODING_LE64(v);
}
/* Big-endian, so that numbers compare as byte strings do. */
static inline uint64_t get_big64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return CODING_BE64(v);
}
static inline void put_big64(void *p, uint64_t v)
{
    v = CODING_BE64(v);
    memcpy(p, &v, sizeof v);
}

/* The first 8 bytes of a key as a number that sorts as the bytes do; short keys are zero-padded. */
static inline uint64_t key_prefix64(const void *data, size_t size)
{
    if (size >= 8) {
        return get_big64(data);
    }
    uint8_t b[8] = {0};
    if (size != 0) {
        memcpy(b, data, size);
    }
    return get_big64(b);
}

/* Writes v at p (VARINT64_MAX_BYTES must fit); returns the byte after it. */
static inline uint8_t *put_varint64(uint8_t *p, uint64_t v)
{
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}
static inline uint8_t *put_varint32(uint8_t *p, uint32_t v)
{
    return put_varint64(p, v);
}
static inline unsigned varint64_size(uint64_t v)
{
    unsigned n = 1;
    while (v >= 0x80) {
        v >>= 7;
        n++;
    }
    return n;
}

/* A reader over bytes from disk: every get checks the bounds and latches `bad` instead of reading
 * past the end; after that all gets return zeros. */
struct reader {
    const uint8_t *p;
    const uint8_t *end;
    bool bad;
};

static inline struct reader reader_of(const void *data, size_t size)
{
    const uint8_t *p = data != NULL ? (const uint8_t *)data : (const uint8_t *)"";
    struct reader r = {p, p + (data != NULL ? size : 0), false};
    return r;
}
static inline size_t reader_left(const struct reader *r)
{
    return (size_t)(r->end - r->p);
}
static inline uint64_t read_varint64(struct reader *r)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (r->p == r->end) {
            break;
        }
        uint64_t b = *r->p++;
        if (shift == 63 && b > 1) {
            break; /* beyond 64 bits */
        }
        v |= (b & 0x7f) << shift;
        if (b < 0x80) {
            return v;
        }
    }
    r->bad = true;
    r->p = r->end;
    return 0;
}
static inline uint32_t read_varint32(struct reader *r)
{
    uint64_t v = read_varint64(r);
    if (v > UINT32_MAX) {
        r->bad = true;
        r->p = r->end;
        return 0;
    }
    return (uint32_t)v;
}
/* NULL, with bad set, when fewer than n bytes are left. */
static inline const uint8_t *read_bytes(struct reader *r, size_t n)
{
    if (n > reader_left(r)) {
        r->bad = true;
        r->p = r->end;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}
static inline uint8_t read_u8(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 1);
    return p != NULL ? *p : 0;
}
static inline uint32_t read_fixed32(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 4);
    return p != NULL ? get_fixed32(p) : 0;
}
static inline uint64_t read_fixed64(struct reader *r)
{
    const uint8_t *p = read_bytes(r, 8);
    return p != NULL ? get_fixed64(p) : 0;
}
/* A varint length and that many bytes. */
static inline loam_slice read_slice(struct reader *r)
{
    uint64_t n = read_varint64(r);
    if (n > reader_left(r)) {
        r->bad = true;
        r->p = r->end;
        return loam_bytes("", 0);
    }
    return loam_bytes(read_bytes(r, (size_t)n), (size_t)n);
}

#endif
