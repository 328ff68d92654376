/* damage.h - Hands what checking and repairing find to the caller, and remembers the worst of it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A finding is told right after the error that describes it was born, so that loam_last_error() is
 * that error while the caller's function runs.
 */
#ifndef LOAM_ENGINE_DAMAGE_H_
#define LOAM_ENGINE_DAMAGE_H_

#include <stdbool.h>

#include "engine/filename.h"
#include "engine/loam.h"

struct damage_sink {
    loam_damage_fn fn; /* NULL: findings are only counted */
    void *ctx;
    uint64_t found;
    bool missing;     /* a file that must be there is not */
    bool lost;        /* something that was told of is not recovered */
    bool stopped;     /* fn had enough */
    loam_error worst; /* the first finding's error; one of LOAM_E_CORRUPT goes before others */
};

/* One finding; slices with data NULL leave that side open. */
struct damage {
    enum file_kind kind;
    uint64_t number;
    int code; /* LOAM_E_NOENT: the file is missing. 0: that of loam_last_error() */
    bool recovered;
    uint64_t offset, bytes, keys;
    loam_slice ks, first, last;
};
#define DAMAGE_KEYS_UNKNOWN UINT64_MAX

/* REQUIRES: loam_last_error() describes it. */
void damage_tell(struct damage_sink *s, const struct damage *d);
/* Whether an error speaks of the file rather than of this process: then it is a finding. */
static inline bool damage_is(int rc)
{
    return rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT || rc == LOAM_E_IO || rc == LOAM_E_NOENT;
}
/* LOAM_OK, LOAM_STOPPED, or the worst finding's error, which becomes the thread's. */
int damage_result(const struct damage_sink *s);

#endif
