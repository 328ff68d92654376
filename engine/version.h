/* version.h - An immutable set of tables per keyspace and level, shared in parts between versions.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   version --> ks_version (one a keyspace that has tables, sorted by id) --> level 0..6 --> table
 *
 * An edit makes a new version that copies the array of keyspaces, the keyspaces it touches and the
 * levels it touches in them; everything else is shared by reference count.
 *
 * Invariants
 *  1. Nothing reachable from a published version changes, but the fields of struct table that say
 *     so.
 *  2. A table number appears once in a version.
 *  3. Counts of references: a version counts its holders (atomic); a ks_version counts versions, a
 *     level's array counts ks_versions, a table counts arrays (these three: guarded by the version
 *     set's mutex).
 *
 * Life: `current` holds one reference, compactions and flushes take their own. Readers take none:
 * they stay inside an epoch section. The last version_unref() stamps the version and puts it in the
 * graveyard; once the stamp has passed, no section can reach it, its parts are released, and a table
 * that no array names any more is obsolete.
 */
#ifndef LOAM_ENGINE_VERSION_H_
#define LOAM_ENGINE_VERSION_H_

#include "arena/atomic.h"
#include "arena/sync.h"
#include "engine/level.h"

struct ks_version {
    uint32_t ks;
    uint32_t refs; /* guarded by the version set's mutex */
    struct level level[LEVEL_COUNT];
};

struct version_graveyard {
    struct mutex mu; /* RANK_LEAF; guards first */
    struct version *first;
};

struct version {
    uint64_t number;
    struct version_graveyard *graveyard;
    struct alloc *alloc;
    _Atomic uint32_t refs;
    uint64_t stamp;            /* set once, when refs becomes 0 */
    struct version *dead_next; /* guarded by the graveyard's mutex */
    uint32_t ks_count;
    struct ks_version *ks[]; /* ascending ids */
};

/* How a keyspace orders its keys. find() sets *cmp (NULL: byte order) and returns true, or returns
 * false while the comparator of the keyspace has not been given, or there is no such keyspace. */
struct version_order {
    bool (*find)(void *ctx, uint32_t ks, const loam_comparator **cmp);
    void *ctx;
};

/* ---- reading: any thread that holds a reference or is inside an epoch section ---------------- */

/* NULL when the keyspace has no tables. */
const struct ks_version *version_ks(const struct version *v, uint32_t ks);

/* The table with this number in one level, or NULL. Linear. */
struct table *version_table(const struct version *v, uint32_t ks, int level, uint64_t number);
uint64_t version_ks_bytes(const struct ks_version *k); /* of all its tables */
uint64_t version_bytes(const struct version *v); /* of all tables */
uint64_t version_ks_table_count(const struct ks_version *k);
uint64_t version_table_count(const struct version *v);

/* ---- references ------------------------------------------------------------------------------ */

void version_graveyard_init(struct version_graveyard *g);
void version_graveyard_destroy(struct version_graveyard *g);

void version_ref(struct version *v); /* REQUIRES: the caller holds a reference */
/* False when the version is dying. REQUIRES: inside an epoch section. */
bool version_try_ref(struct version *v);
void version_unref(
    struct version *v); /* any thread, inside sections too; never frees. NULL is fine */

/* Takes the versions out of the graveyard that no section can reach; a list by dead_next. */
struct version *version_graveyard_take(struct version_graveyard *g);

/* ---- parts: the caller holds the version set's mutex ----------------------------------------- */

/* A version with one reference; its ks_count keyspaces are for the caller to fill in. NULL: no memory. */
struct version *version_create(struct alloc *a, struct version_graveyard *g, uint64_t number,
                               uint32_t ks_count);
void ks_version_release(struct alloc *a, struct ks_version *k, struct table **dead);

/* Releases the parts and frees v. Tables that nothing names any more are put before *dead. */
void version_free(struct version *v, struct table **dead);

#endif
