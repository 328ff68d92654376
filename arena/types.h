/* types.h - The public words every floor speaks: slices, result codes, errors, comparators, allocators.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Part of the public header: engine/loam.h includes it, and the installed loam.h contains its text.
 */
#ifndef LOAM_ARENA_TYPES_H_
#define LOAM_ARENA_TYPES_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(LOAM_STATIC)
#define LOAM_API
#else
#define LOAM_API __attribute__((visibility("default")))
#endif
#define LOAM_MUST __attribute__((warn_unused_result))

/* ---- bytes --------------------------------------------------------------------------------- */

/* A run of bytes that somebody else owns. `data` may be NULL when `size` is 0. */
typedef struct loam_slice {
    const void *data;
    size_t size; /* bytes */
} loam_slice;

static inline loam_slice loam_bytes(const void *data, size_t size)
{
    loam_slice s;
    s.data = data;
    s.size = size;
    return s;
}
/* The slice of a string literal, without its final NUL. */
#define LOAM_LIT(literal) loam_bytes("" literal "", sizeof(literal) - 1)

/* ---- results ------------------------------------------------------------------------------- */

/* X(name, number, text). 0: done. > 0: an answer that is not an error. < 0: an error.
 * So `if (rc < 0)` is the only error test a caller writes. */
#define LOAM_STATUS_MAP(X)                                                                         \
    X(OK, 0, "done")                                                                               \
    X(NOTFOUND, 1, "no such key, or the iterator ran off its range")                               \
    X(TRUNCATED, 2, "the buffer is too small; it holds a prefix and *len the full size")           \
    X(CONFLICT, 3, "an expectation did not hold; nothing was written")                             \
    X(STOPPED, 4, "ended early by a callback, a limit or a timeout")                               \
    X(E_INVAL, -1, "bad argument or option")                                                       \
    X(E_NOMEM, -2, "the allocator failed")                                                         \
    X(E_BUDGET, -3, "the memory budget cannot hold this")                                          \
    X(E_IO, -4, "a system call failed")                                                            \
    X(E_NOSPACE, -5, "the disk is full")                                                           \
    X(E_CORRUPT, -6, "a checksum or structure on disk is wrong")                                   \
    X(E_LOCKED, -7, "the database is open elsewhere")                                              \
    X(E_BUSY, -8, "not admitted in time; nothing was written")                                     \
    X(E_READONLY, -9, "opened read-only, or writes are refused after an error")                    \
    X(E_TOOBIG, -10, "a key, value or batch is over its limit")                                    \
    X(E_EXISTS, -11, "it exists already")                                                          \
    X(E_NOENT, -12, "no such database, keyspace, file or name")                                    \
    X(E_FORMAT, -13, "not a loam file, a newer format, or another comparator")                     \
    X(E_CLOSED, -14, "the handle or its database is closed")                                       \
    X(E_CANCELED, -15, "canceled")                                                                 \
    X(E_UNSUPPORTED, -16, "not supported")                                                         \
    X(E_MISUSE, -17, "used after fork, by two threads at once, or from a callback")                \
    X(E_INTERNAL, -18, "a bug in loam")

#define LOAM_STATUS_ENUM_(name, number, text) LOAM_##name = (number),
enum loam_status { LOAM_STATUS_MAP(LOAM_STATUS_ENUM_) };
#undef LOAM_STATUS_ENUM_

#define LOAM_ERR_RETRY 0x1u   /* the same call may succeed later with no action by the caller */
#define LOAM_ERR_UNKNOWN 0x2u /* outcome unknown: the write may or may not survive a crash */
#define LOAM_ERR_STICKY 0x4u  /* writes stay refused until loam_resume() or a reopen */

/* What went wrong last: 256 bytes without pointers, so it may be copied, sent and logged. */
typedef struct loam_error {
    int32_t code;      /* LOAM_* */
    int32_t sys_errno; /* 0 when no system call failed */
    uint32_t flags;    /* LOAM_ERR_* */
    uint32_t line;     /* in loam's own source, for bug reports */
    uint64_t file_id;  /* number of the database file involved; 0 = none */
    uint64_t offset;   /* byte offset in that file */
    char message[224]; /* NUL terminated, one line; keys appear only as lengths */
} loam_error;

/* The calling thread's most recent error; valid until its next failing loam call. Never NULL. */
LOAM_API const loam_error *loam_last_error(void);
/* Static text for a code, never NULL. Any thread. */
LOAM_API const char *loam_strerror(int rc);

/* ---- user code the engine calls -------------------------------------------------------------- */

/* A total order over keys. The name is stored and must match at every open. Callbacks must be
 * thread safe, must not call loam on the same database and must not unwind. The struct and its
 * name must outlive the database. */
typedef struct loam_comparator {
    size_t struct_size;
    const char *name; /* 1 to 255 bytes */
    /* < 0, 0, > 0. Keys that compare equal are one key. */
    int (*compare)(void *ctx, loam_slice a, loam_slice b);
    /* Optional. Writes a short key k with a <= k < b into out (cap bytes) and returns its size;
     * 0 = keep a. Keeps index blocks small under a custom order. */
    size_t (*separator)(void *ctx, loam_slice a, loam_slice b, void *out, size_t cap);
    void *ctx;
} loam_comparator;

/* Where loam takes small memory from; default malloc. `align` is a power of two; free gets the
 * same align and size as alloc did. Both must be thread safe. alloc returns NULL when out. */
typedef struct loam_allocator {
    size_t struct_size;
    void *(*alloc)(void *ctx, size_t align, size_t size);
    void (*free)(void *ctx, void *p, size_t align, size_t size);
    void *ctx;
} loam_allocator;

#ifdef __cplusplus
}
#endif
#endif
