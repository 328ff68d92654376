/* version_filter.h - Decides which versions of a key a merge must keep.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The held sequence numbers cut time into stripes; of the versions of one key that fall into one
 * stripe only the newest can ever be read. A tombstone that is the oldest thing kept of its key, in
 * the oldest stripe, with nothing below it in deeper levels, hides nothing and goes too.
 *
 *   seq ----------------------------------------------------------->
 *        v1   v2 | v3 | v4   v5  |        ( | = a held number )
 *             ^keep ^keep    ^keep
 */
#ifndef LOAM_ENGINE_VERSION_FILTER_H_
#define LOAM_ENGINE_VERSION_FILTER_H_

#include <stdbool.h>

#include "arena/buf.h"
#include "arena/entry.h"

struct version_filter {
    const uint64_t *held; /* ascending; the last one is the newest visible state at the start */
    size_t held_count;
    const loam_comparator *cmp;
    bool bottom; /* no deeper level has keys of this range */
    bool lent;   /* keys stay where they are as long as the filter: they are not copied */
    /* state */
    struct buf copy;
    loam_slice key; /* of the last entry seen; unless lent, the copy */
    bool has_key;
    size_t stripe;       /* of the last entry kept or hidden by it */
    uint64_t dropped;    /* versions */
    uint64_t tombstones_dropped;
};

void version_filter_init(struct version_filter *f, struct alloc *a, const uint64_t *held,
                         size_t count, const loam_comparator *cmp, bool bottom);
void version_filter_free(struct version_filter *f);

enum version_verdict { VERSION_KEEP, VERSION_DROP, VERSION_OOM };
/* Entries come in merge order. *same_key tells whether e has the key of the entry before it. */
enum version_verdict version_filter_next(struct version_filter *f, const struct entry *e,
                                         bool *same_key);

#endif
