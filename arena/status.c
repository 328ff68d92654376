/* status.c - The thread's last error, the names of codes, the mapping from errno.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "arena/poison.h"

_Static_assert(sizeof(loam_error) == 256, "loam_error is part of the ABI");

static _Thread_local loam_error last_error;

const loam_error *loam_last_error(void)
{
    return &last_error;
}

const char *loam_strerror(int rc)
{
    switch (rc) {
#define STATUS_TEXT(name, number, text)                                                            \
    case number:                                                                                   \
        return text;
        LOAM_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    default:
        return "unknown result code";
    }
}

int status_fail(struct fail_info info, const char *file, int line, const char *fmt, ...)
{
    (void)file;
    loam_error *e = &last_error;
    e->code = info.code;
    e->sys_errno = info.sys_errno;
    e->flags = info.flags;
    e->line = (uint32_t)line;
    e->file_id = info.file_id;
    e->offset = info.offset;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    size_t at = n < 0 ? 0 : (size_t)n;
    if (info.sys_errno != 0 && at + 3 < sizeof e->message) {
        char text[96];
        /* The GNU form returns the text, which need not be in the buffer. */
        const char *s = strerror_r(info.sys_errno, text, sizeof text);
        snprintf(e->message + at, sizeof e->message - at, ": %s", s);
    }
    return info.code;
}

int status_from_errno(int64_t neg_errno)
{
    switch (-neg_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return LOAM_E_NOSPACE;
    case ENOMEM:
        return LOAM_E_NOMEM;
    case ENOENT:
    case ENOTDIR:
        return LOAM_E_NOENT;
    case EEXIST:
        return LOAM_E_EXISTS;
    default:
        return LOAM_E_IO;
    }
}

static bool no_descriptors(int64_t error)
{
    return error == EMFILE || error == ENFILE;
}

uint32_t status_flags_from_errno(int64_t neg_errno)
{
    return status_from_errno(neg_errno) == LOAM_E_NOSPACE || no_descriptors(-neg_errno)
               ? LOAM_ERR_RETRY
               : 0u;
}

bool status_passes(const loam_error *e)
{
    return e->code == LOAM_E_NOSPACE || e->code == LOAM_E_NOMEM || e->code == LOAM_E_BUDGET ||
           (e->code == LOAM_E_IO && no_descriptors(e->sys_errno));
}

int status_raise(const loam_error *e)
{
    if (e != &last_error) {
        last_error = *e;
    }
    return e->code;
}

int status_add_flags(int rc, uint32_t flags)
{
    if (last_error.code == rc) {
        last_error.flags |= flags;
    }
    return rc;
}
