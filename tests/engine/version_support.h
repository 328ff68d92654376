/* version_support.h - Versions of made-up tables, without a version set.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ENGINE_VERSION_SUPPORT_H_
#define LOAM_TESTS_ENGINE_VERSION_SUPPORT_H_

#include "engine/version_build.h"

struct version_fix {
    struct version_graveyard graveyard;
    struct version_build build;
};

/* Every keyspace has this order; NULL: byte order. */
void version_fix_start(struct version_fix *f, const loam_comparator *cmp);
/* Frees the versions that nobody can reach, and the tables that only they named. */
void version_fix_reap(struct version_fix *f);
/* Waits for all readers, reaps, and checks that nothing is left. */
void version_fix_stop(struct version_fix *f);

/* Adds a table to the edit. One without a size has 10 bytes and 2 entries, one without a max_seq
 * its number for it. */
void version_fix_add(struct version_edit *e, struct table_meta m);

#endif
