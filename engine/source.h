/* source.h - A sorted source of entries, as merge_iter consumes it: a memtable, or a run of tables.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Order: keys ascending, versions of one key newest first. A source keeps its present entry in
 * `entry`, so that merging compares without calling. Entries are lent until the source moves.
 *
 * A foreground source borrows memtables and versions from the view it was built for: it is used only
 * inside an epoch section in which that view is still the present one. Its table readers may have
 * been closed and reopened since the last call (the table cache is free to), so it takes them anew
 * when it leaves a block. A background source holds references instead and needs no section.
 */
#ifndef LOAM_ENGINE_SOURCE_H_
#define LOAM_ENGINE_SOURCE_H_

#include "engine/table_cache.h"
#include "engine/version.h"
#include "memtable/memtable.h"
#include "sstable/sst_cursor.h"

struct source {
    struct entry entry; /* when valid */
    bool valid;
    uint32_t rank;    /* among those it is merged with; a smaller one is newer */
    bool is_memtable; /* the entry's bytes live only as long as the view */
    int rc;           /* first error; a source with one is not valid */
    /* ---- a memtable ---- */
    struct memtable_cursor mem;
    /* ---- a run of tables: one of level 0, or all of a deeper level ---- */
    struct table_cache *tables;
    struct table *const *run; /* ascending and disjoint */
    uint32_t run_count;
    uint32_t run_at; /* the table the cursor is in */
    const loam_comparator *cmp;
    struct sst_cursor cursor;
    bool cursor_ready; /* cursor is initialised, and bound to run[run_at] */
    bool aimed;        /* the cursor is, in the table that may hold the key */
    bool background;
    uint32_t readahead;
    struct alloc *alloc;
    struct sst_seat *seat; /* for its large values */
};

/* Prepares a zeroed or finished source; a source's buffers are kept from use to use. cmp: the order of the
 * keyspace, which the memtable could not tell any more when it is dropped meanwhile. */
void source_memtable(struct source *s, struct memtable *m, uint32_t ks, const loam_comparator *cmp);
/* background: keeps each table's reader pinned while the cursor is in it. seat: shared with the sources it is
 * merged with; outlives the source's buffers. */
void source_tables(struct source *s, struct table_cache *tc, struct table *const *run,
                   uint32_t count, const loam_comparator *cmp, struct alloc *a, uint32_t readahead,
                   bool background, struct sst_seat *seat);
/* Unpins; keeps buffers. */
void source_finish(struct source *s);
/* Frees buffers too; safe on a zeroed source. */
void source_free(struct source *s);

/* Bytes of the source with its buffers. */
static inline uint64_t source_memory(const struct source *s)
{
    return sizeof *s + sst_cursor_memory(&s->cursor);
}

void source_first(struct source *s);
void source_last(struct source *s);
/* A seek in two steps, to be done for all sources one after the other, so that they wait for memory at
 * once: the first finds out what has to be read for the key and begins to fetch it, the second, with the
 * same key, moves to the first entry >= (key, tag). Not valid in between. */
void source_aim(struct source *s, loam_slice key);
void source_land(struct source *s, loam_slice key, uint64_t tag);
void source_seek_before(struct source *s, loam_slice key, uint64_t tag); /* last < */
/* Makes sure that the entry's value is in memory: a large one of a table may not be, see sst_cursor.h.
 * LOAM_OK, or an error as of sst_cursor_show(). REQUIRES: valid. */
int source_show_(struct source *s);
static inline int source_show(struct source *s)
{
    return s->is_memtable || __builtin_expect(sst_cursor_shown(&s->cursor), 1) ? LOAM_OK
                                                                               : source_show_(s);
}
/* REQUIRES: valid. */
void source_next(struct source *s);
void source_prev(struct source *s);

#endif
