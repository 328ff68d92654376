/* version_build.h - Makes a version from another one that an edit changes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What the edit does not touch is shared with the version it is applied to. The caller holds the
 * version set's mutex.
 */
#ifndef LOAM_ENGINE_VERSION_BUILD_H_
#define LOAM_ENGINE_VERSION_BUILD_H_

#include "engine/version.h"

struct version_build {
    struct alloc *alloc;
    struct version_graveyard *graveyard;
    struct version_order order;
    uint64_t file_id; /* the manifest's number, for errors */
};

/* A version with one reference and no tables. NULL: no memory. */
struct version *version_empty(const struct version_build *b);

/* base with the edit's tables and drops applied; number is base's plus one. Fails with LOAM_E_CORRUPT
 * when the edit does not fit base (a removed table is missing, an added one is there already or
 * overlaps its neighbours), LOAM_E_NOMEM. On error nothing has changed. */
int version_apply(const struct version_build *b, const struct version *base,
                  const struct version_edit *e, struct version **out);

/* A version of exactly these tables, standing at meta.level; sorts the array. Takes the tables over
 * on success only. Fails as version_apply(). */
int version_of_tables(const struct version_build *b, struct table **tables, size_t count,
                      struct version **out);

/* base with one keyspace put in the order that b->order gives; for a comparator that became known
 * after recovery. */
int version_reorder(const struct version_build *b, const struct version *base, uint32_t ks,
                    struct version **out);

#endif
