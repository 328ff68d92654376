/* table_cache.h - Keeps the readers of tables open, as many as files and memory allow.
 * SPDX-License-Identifier: Apache-2.0
 *
 *            open, adopt                    hand finds it unused, unpinned
 *   closed ---------------> in the clock ----------------------------------> closing --> closed
 *   table->reader NULL      table->reader set     (reader NULL, kept until its epoch has passed)
 *
 * A table is opened resident - index and filter in memory as a whole - if there is room for that, and
 * else not; then it takes about a kilobyte and its pages and partitions share the block cache. Nothing
 * is closed to make room for residence; but when tables are dropped, some that would fit are
 * closed, to be opened resident by who needs them next.
 *
 * Ordering guarantees
 *  1. A reader is published by a release store to table->reader and found by an acquire load.
 *  2. A reader taken out is closed only after every epoch section open at that moment has ended, so
 *     what table_cache_get() returned stays valid until its section ends.
 *  3. `pins` is raised by CAS unless it is PIN_CLOSING; the clock takes a reader out only after it
 *     changed pins from 0 to PIN_CLOSING. So a pinned table keeps its reader, once it has one.
 * Progress guarantees
 *  get on an open table is wait-free: one load. pin is lock-free but for the few instructions between
 *  PIN_CLOSING and its end. Opening blocks other opens of the same stripe only.
 */
#ifndef LOAM_ENGINE_TABLE_CACHE_H_
#define LOAM_ENGINE_TABLE_CACHE_H_

#include "arena/alloc.h"
#include "arena/atomic.h"
#include "arena/sync.h"
#include "arena/vfs.h"
#include "engine/version.h"

struct block_cache;
struct sst_reader;

#define TABLE_CACHE_STRIPES 16u
#define TABLE_PIN_CLOSING UINT32_MAX

struct table_cache_options {
    const loam_vfs *vfs;
    const char *dir; /* must outlive the cache */
    struct alloc *alloc;
    struct block_cache *blocks; /* NULL: blocks are not cached */
    struct large_pool *large;   /* for large blocks; NULL: no limits */
    uint32_t max_open_files;    /* at least 1 */
    uint64_t max_bytes;         /* of open tables: resident indexes and filters above all;
                                   UINT64_MAX: no limit */
    bool paranoid;              /* check blocks at every use */
    bool order_later;           /* open tables whose order is not known yet, too; it is given to them
                                   by sst_set_comparator() */
    struct version_order order; /* finds comparators. May be set later, before the first open */
};

struct closing_reader {
    struct sst_reader *reader;
    uint64_t stamp;
};

struct table_cache {
    /* constant after init */
    struct table_cache_options options;
    uint64_t db_id; /* set by the version set before the first open */
    struct mutex stripes[TABLE_CACHE_STRIPES]; /* RANK_TABLE: opening a table of this stripe */
    /* guarded by mu */
    struct mutex mu; /* RANK_STRUCT; nothing is opened or closed under it */
    struct table **clock;
    uint32_t count, cap, hand;
    struct closing_reader *closing;
    uint32_t closing_count, closing_cap;
    uint64_t bytes; /* of the readers in the clock */
    uint64_t hold;  /* no table becomes resident beyond so many of them; UINT64_MAX: none */
    uint64_t held_back; /* bytes that the largest one would have taken which met that */
    /* atomic: statistics */
    _Atomic uint64_t opens, evictions;
};

int table_cache_init(struct table_cache *tc, const struct table_cache_options *o);
/* REQUIRES: every table was dropped; no epoch section is open in this thread. */
void table_cache_destroy(struct table_cache *tc);

int table_cache_open_(struct table_cache *tc, struct table *t, struct sst_reader **out);

/* The table's reader, lent until the caller's epoch section ends. Opens it when needed: LOAM_OK, or
 * an error of sst_open(), which is not remembered.
 * REQUIRES: inside an epoch section; t is named by a version that the caller may use. */
static inline int table_cache_get(struct table_cache *tc, struct table *t, struct sst_reader **out)
{
    /* acquire: pairs with the release in install_locked(); makes the reader's contents visible. */
    struct sst_reader *r = atom_load(&t->reader, acquire);
    if (__builtin_expect(r == NULL, 0)) {
        return table_cache_open_(tc, t, out);
    }
    /* relaxed: a hint for the clock. Stored only when it changes, to leave the line shared. */
    if (atom_load(&t->used, relaxed) == 0) {
        atom_store(&t->used, 1, relaxed);
    }
    *out = r;
    return LOAM_OK;
}

/* As get, but the reader stays until table_cache_unpin(), outside of sections too, even if the table
 * becomes obsolete meanwhile. REQUIRES at the call: t is referenced, or this is inside a section that
 * found t in the current version. Returns as get. */
int table_cache_pin(struct table_cache *tc, struct table *t, struct sst_reader **out);
void table_cache_unpin(struct table_cache *tc, struct table *t);

/* Gives the cache the reader of a table that was just built. Owns: r passes to the cache. When there
 * is no memory to keep it, it is closed, and a later get opens it again. */
void table_cache_adopt(struct table_cache *tc, struct table *t, struct sst_reader *r);

/* Bytes that are left for a table to be resident. */
uint64_t table_cache_room(struct table_cache *tc);

/* Closes the reader of a table that no section and no version can reach. False: it is pinned; try
 * again later. */
bool table_cache_drop(struct table_cache *tc, struct table *t);

/* Closes readers whose epoch has passed. For background threads; not inside an epoch section. */
void table_cache_poll(struct table_cache *tc);
/* Changes the share of memory; closes what is over it. */
void table_cache_set_max_bytes(struct table_cache *tc, uint64_t max_bytes);
/* Until the next call no table becomes resident beyond so many bytes in all; none that is is closed.
 * UINT64_MAX: as many as max_bytes says. */
void table_cache_hold(struct table_cache *tc, uint64_t bytes);
/* Bytes that the largest table would take which that kept from being resident since this was last asked; 0: none. */
uint64_t table_cache_held_back(struct table_cache *tc);
uint64_t table_cache_held_room(struct table_cache *tc); /* bytes left below it; UINT64_MAX: no such limit */
uint64_t table_cache_bytes(struct table_cache *tc);
uint64_t table_cache_bytes_of(struct table_cache *tc, uint32_t ks); /* of one keyspace; O(open tables) */
uint32_t table_cache_open_count(struct table_cache *tc);

#endif
