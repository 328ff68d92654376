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
 *  2. Level 0 is ordered newest first: by max_seq, then by number, both falling. The tables of
 *     levels 1 and deeper are ordered by their smallest key and disjoint: no key is in two of them.
 *  3. A table number appears once in a version.
 *  4. Counts of references: a version counts its holders (atomic); a ks_version counts versions, a
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
#include "arena/entry.h"
#include "arena/sync.h"
#include "engine/version_edit.h"

struct sst_reader;

/* One table file that some version names. */
struct table {
    /* constant */
    struct table_meta meta; /* meta.level is where the table was first added; where it stands in a
                               version is the array it is in */
    struct alloc *alloc;
    size_t bytes; /* of this allocation, the keys included */
    /* atomic; table_cache.h */
    _Atomic(struct sst_reader *) reader; /* NULL: not open */
    _Atomic uint32_t pins;               /* holders of the open reader */
    _Atomic uint8_t used;                /* since the clock's hand last came by */
    /* guarded by the table cache's mutex */
    uint32_t cache_index; /* place in the clock + 1; 0 = not in it */
    uint64_t cache_bytes; /* memory of the open reader */
    /* guarded by the version set's mutex */
    uint32_t refs;
    struct table *next; /* in a list of unreferenced tables */
    /* guarded by the database's mutex (RANK_DB) */
    bool compacting;
};

/* refs is 0. NULL: no memory. */
struct table *table_create(struct alloc *a, const struct table_meta *m);
void table_free(struct table *t); /* REQUIRES: no reader, no reference. NULL is allowed */

static inline bool table_dense_deletes(const struct table *t)
{
    return t->meta.deletes > t->meta.entries / 2;
}

struct level {
    struct table **tables;
    uint64_t *prefixes; /* of each largest key: the 8 bytes after the shared ones, big-endian */
    uint32_t count;
    uint32_t shared; /* bytes that all smallest and largest keys begin with */
    uint64_t bytes, entries, deletes; /* sums over the tables */
};

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

/* Level 1 and deeper: index of the first table whose largest key is >= key; count when none. */
uint32_t level_find(const struct level *l, const loam_comparator *cmp, loam_slice key);

/* Level 1 and deeper: the tables that overlap [lo, hi], both inclusive, are [*first, *end). A slice
 * with data NULL leaves that side open. True when there are any. REQUIRES: lo <= hi. */
bool level_overlaps(const struct level *l, const loam_comparator *cmp, loam_slice lo, loam_slice hi,
                    uint32_t *first, uint32_t *end);

/* As level_overlaps, for one table. */
bool table_overlaps(const struct table *t, const loam_comparator *cmp, loam_slice lo,
                    loam_slice hi);

static inline bool table_covers(const struct table *t, const loam_comparator *cmp, loam_slice key)
{
    return key_compare(cmp, key, t->meta.smallest) >= 0 &&
           key_compare(cmp, key, t->meta.largest) <= 0;
}

/* The table with this number in one level, or NULL. Linear. */
struct table *version_table(const struct version *v, uint32_t ks, int level, uint64_t number);
uint64_t version_bytes(const struct version *v);       /* of all tables */
uint64_t version_table_count(const struct version *v);

/* ---- references ------------------------------------------------------------------------------ */

void version_graveyard_init(struct version_graveyard *g);
void version_graveyard_destroy(struct version_graveyard *g);

void version_ref(struct version *v); /* REQUIRES: the caller holds a reference */
/* False when the version is dying. REQUIRES: inside an epoch section. */
bool version_try_ref(struct version *v);
void version_unref(struct version *v); /* any thread, inside sections too; never frees. NULL is fine */

/* Takes the versions out of the graveyard that no section can reach; a list by dead_next. */
struct version *version_graveyard_take(struct version_graveyard *g);

/* ---- building: the caller holds the version set's mutex -------------------------------------- */

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

/* Releases the parts and frees v. Tables that nothing names any more are put before *dead. */
void version_free(struct version *v, struct table **dead);

#endif
