/* status.h - Where errors are born: one call records code, place and message for the thread.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ARENA_STATUS_H_
#define LOAM_ARENA_STATUS_H_

#include <stdbool.h>

#include "arena/types.h"

/* Everything about a failure beside its text. */
struct fail_info {
    int code;         /* LOAM_E_* */
    int sys_errno;    /* positive, or 0 */
    uint32_t flags;   /* LOAM_ERR_* */
    uint64_t file_id; /* 0 = none */
    uint64_t offset;
};

/* Fills the calling thread's loam_error and returns info.code. A breakpoint here sees every error.
 * `file` is __FILE__; it appears in the message's tail in debug builds only. */
int status_fail(struct fail_info info, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* rc = FAIL(LOAM_E_INVAL, "options.threads is %u, at most 64", n); */
#define FAIL(code_, ...)                                                                           \
    status_fail((struct fail_info){.code = (code_)}, __FILE__, __LINE__, __VA_ARGS__)
/* Damage in file number `id` at `off`. */
#define FAIL_CORRUPT(id_, off_, ...)                                                               \
    status_fail((struct fail_info){.code = LOAM_E_CORRUPT, .file_id = (id_), .offset = (off_)},    \
                __FILE__, __LINE__, __VA_ARGS__)
/* Any other code about file number `id` at `off`. */
#define FAIL_AT(code_, id_, off_, ...)                                                             \
    status_fail((struct fail_info){.code = (code_), .file_id = (id_), .offset = (off_)}, __FILE__, \
                __LINE__, __VA_ARGS__)
/* A vfs call returned `neg` (-errno): maps it to a code (ENOSPC and EDQUOT: E_NOSPACE with RETRY;
 * EMFILE and ENFILE: E_IO with RETRY; ENOMEM: E_NOMEM; ENOENT: E_NOENT; EEXIST: E_EXISTS; else E_IO). */
#define FAIL_IO(neg_, id_, off_, ...)                                                              \
    status_fail((struct fail_info){.code = status_from_errno(neg_),                                \
                                   .sys_errno = -(int)(neg_),                                      \
                                   .flags = status_flags_from_errno(neg_),                         \
                                   .file_id = (id_),                                               \
                                   .offset = (off_)},                                              \
                __FILE__, __LINE__, __VA_ARGS__)

int status_from_errno(int64_t neg_errno);
uint32_t status_flags_from_errno(int64_t neg_errno);
/* Whether what the error is about comes back without anybody's doing: space, memory, descriptors. */
bool status_passes(const loam_error *e);

/* Makes a stored error (of a background thread, say) the calling thread's; returns its code. */
int status_raise(const loam_error *e);
/* Adds flags to the thread's error of the moment; returns rc. */
int status_add_flags(int rc, uint32_t flags);

#endif
