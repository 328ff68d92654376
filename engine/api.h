/* api.h - What the public calls share: checks of arguments and the copy of an error for the caller.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_API_H_
#define LOAM_ENGINE_API_H_

#include "arena/status.h"
#include "arena/types.h"

/* Where the caller wants a copy of the error, by the options of one call: NULL, nowhere, also when they do not
 * reach so far. */
#define api_err(opts) ((opts) != NULL && (opts)->struct_size >= sizeof *(opts) ? (opts)->err : NULL)

/* Returns rc; an error is copied to *out unless out is NULL. */
static inline int api_give_error(loam_error *out, int rc)
{
    if (rc < 0 && out != NULL) {
        *out = *loam_last_error();
    }
    return rc;
}

/* LOAM_OK, or E_INVAL naming `what`. */
static inline int api_check_slice(loam_slice s, const char *what)
{
    return s.data == NULL && s.size != 0 ? FAIL(LOAM_E_INVAL, "%s.data is NULL", what) : LOAM_OK;
}

#endif
