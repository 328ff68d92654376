/* db_iter.h - The newest visible entry of each key, both ways, at a fixed sequence number.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The iterator holds a sequence number and nothing else: no memtable, version or file. Inside each
 * call it looks whether the view is still the one its sources were built for; when it is not, it
 * builds them anew and seeks to the key it stands on, which gives the same state under the same
 * number. What it lends is its own memory: table cursors keep private copies of their blocks, and what
 * comes from a memtable is copied. Of large values it has one in memory (sst_cursor.h): between calls the
 * one it lends, counted as held, so that a move is refused with LOAM_E_BUDGET when there is no room for it.
 *
 * Walking forward the merge stands on the present entry. Once a table has been the top source twice in
 * a row, the part of its block that lies before every other source is a run: it is walked without
 * comparing keys, and its keys and values are lent from the block. During a run the merge stands on
 * the run's first entry; the cursor of its top source has moved on. Walking backward the versions of
 * a key come oldest first, so the merge stands before the present key and the entry is a copy.
 */
#ifndef LOAM_ENGINE_DB_ITER_H_
#define LOAM_ENGINE_DB_ITER_H_

#include "engine/db.h"
#include "engine/merge_iter.h"

/* What is lent of the present entry. It lies in the slot of the iterator's handle, so that asking for
 * it needs neither a section nor the iterator. */
struct iter_face {
    loam_slice key, value;
    uint64_t tag;
    bool on_entry;
};
_Static_assert(sizeof(struct iter_face) <= SLOTMAP_ROOM, "the face fits beside the payload");

struct db_iter {
    _Alignas(CACHE_LINE) _Atomic uint64_t handle; /* of this iterator; 0 while it is kept for reuse */
    struct iter_face *face;  /* valid while the handle is this iterator's */
    uint64_t next_handle;    /* of its slot, reserved, while it is kept for reuse; 0: it has none */
    struct db_iter *next_idle;
    struct epoch_node retire;
    /* constant after open */
    struct db *shell;   /* referenced: its allocator outlives the database */
    uint64_t db_handle;
    uint32_t ks;
    struct keyspace *space; /* referenced, also while kept for reuse; used only while the database is open */
    const loam_comparator *cmp;
    bool keys_only;
    uint32_t readahead;
    struct buf lower, upper; /* bounds */
    bool has_lower, has_upper;
    /* the state it shows */
    struct held_seq held;
    uint64_t seq;
    /* position */
    uint32_t nexts; /* not yet added to the statistics */
    _Atomic uint32_t busy; /* 1 while a thread is inside: two are a misuse */
    bool forward;
    uint64_t view_number; /* of the sources; 0: none built */
    uint32_t source_count, source_cap;
    struct source **sources; /* source_cap of them, buffers kept */
    struct source **heap;
    struct merge_iter merge;
    struct buf key, value; /* copies, where a source's bytes cannot be lent */
    struct sst_seat seat;  /* of the one large value it has in memory */
    struct buf mark;       /* where a stretch of deleted keys began; see dead_walk.h */
    /* A run: entries of the top source's block that come before all of the other sources */
    struct block_cursor *run; /* NULL: none */
    uint32_t run_end;         /* index of the first entry behind it */
    const struct source *top; /* the top source of the last move */
    uint32_t passed;     /* deleted keys, by the last move that met some */
    bool learned;        /* that move has proven a stretch */
    uint32_t gained;     /* a scout's moves after which more was known than before */
    uint32_t dead_limit; /* of a scout's: deleted keys that one move passes at most; 0: of a caller's */
};

struct db_iter_options {
    loam_slice lower, upper;
    bool has_lower, has_upper;
    bool keys_only;
    uint32_t readahead;
    const struct held_seq *snap; /* whose state to show; NULL: the newest */
};

/* REQUIRES: inside a call's section, which lends space. E_NOENT: the keyspace was dropped; E_CLOSED: the
 * snapshot was released meanwhile; E_NOMEM. */
int db_iter_open(struct db *db, struct keyspace *space, const struct db_iter_options *o,
                 struct db_iter **it);
/* The handle is erased and the iterator is the caller's. db: its open database, which keeps the
 * iterator with its buffers for the next open; NULL: the database was closed. */
void db_iter_close(struct db *db, struct db_iter *it);

/* All inside a call's section. LOAM_OK on an entry, LOAM_NOTFOUND, or an error. */
int db_iter_first(struct db *db, struct db_iter *it);
int db_iter_last(struct db *db, struct db_iter *it);
int db_iter_seek(struct db *db, struct db_iter *it, loam_slice key);
int db_iter_seek_le(struct db *db, struct db_iter *it, loam_slice key);
int db_iter_next(struct db *db, struct db_iter *it);
int db_iter_prev(struct db *db, struct db_iter *it);
int db_iter_refresh(struct db *db, struct db_iter *it, const struct held_seq *snap); /* as above */

/* What a scout has done. */
struct db_scouted {
    uint32_t passed; /* deleted keys */
    bool learned;    /* a stretch of them was proven */
    uint64_t read;   /* bytes of blocks that were not in the cache */
};
/* Passes the deleted keys from `key` on (forward) or down from it, in the newest state, which nobody holds:
 * it is good inside the caller's section. True when there were more than `limit` of them, or more than so
 * many times as many bytes as a short entry has to be read for them. it: from iter_pool_make(), used for
 * nothing else. An error counts as an end. */
bool db_iter_scout(struct db *db, struct db_iter *it, struct keyspace *space, loam_slice key,
                   bool forward, uint32_t limit, struct db_scouted *found);

#endif
