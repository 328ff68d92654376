/* memtable.h - One write buffer: versions of keys of every keyspace, in memory, in order.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A skip list ordered by keyspace id, then by the keyspace's comparator; before it a filter over the
 * key hashes, which answers for absent keys, and an index from hashes to nodes, which spares gets and
 * overwrites the search; all in two arenas: nodes with their short keys, and values. Nothing is
 * removed before the whole is destroyed; a delete is a version of kind ENTRY_DELETE, also of a key
 * not held here. In keyspaces with a comparator keys of different bytes may be equal, so there the
 * hash is not used and every access searches the list.
 *
 * Ordering guarantees
 *   What memtable_add() added is found by everything its return happens before. A reader that runs
 *   beside additions sees each version entirely or not at all; which sequence numbers it may see is
 *   the caller's business (get takes a snapshot, cursors show all).
 * Progress guarantees
 *   get and the cursors are wait-free but for the length of the list; add is lock-free after
 *   memtable_reserve(), and alone as arena_alloc() is.
 */
#ifndef LOAM_MEMTABLE_MEMTABLE_H_
#define LOAM_MEMTABLE_MEMTABLE_H_

#include <stdbool.h>
#include <stdint.h>

#include "arena/chunk_pool.h"
#include "arena/entry.h"
#include "memtable/skiplist.h"

#define MEMTABLE_MAX_KEY 65535u                  /* bytes */
#define MEMTABLE_MAX_VALUE ((uint64_t)1 << 30)   /* bytes */

struct memtable;

struct memtable_options {
    struct alloc *alloc;
    struct chunk_pool *pool;
    size_t bytes;      /* expected size: sizes filter and index (1/34 of it) and the leases */
    size_t hard_limit; /* bytes of memory, in chunks; 0 = none. To hold anything: the filter and
                          index, a chunk of nodes (they share it if they fit), a chunk of values */
    /* Of a keyspace; NULL, or a NULL result, is byte order. The result must stay valid and the same
     * while the memtable lives. */
    const loam_comparator *(*comparator)(void *ctx, uint32_t ks);
    void *comparator_ctx;
    uint64_t id; /* the caller's name for it; threads' caches use a process-wide name of their own */
};

/* Zeroes filter and index, so it is best called ahead of need by a background thread. LOAM_OK or E_NOMEM,
 * E_BUDGET. */
int memtable_create(const struct memtable_options *o, struct memtable **m);
/* NULL is allowed. REQUIRES: no thread uses it; what get and cursors lent ends. */
void memtable_destroy(struct memtable *m);
uint64_t memtable_id(const struct memtable *m);

/* The memory that a list of operations takes; begins with zeros, and operations are added one by one. */
struct memtable_need {
    struct skiplist_need of;
};
static inline void memtable_need_add(struct memtable_need *need, uint32_t ks, size_t key_size,
                                     uint64_t value_size)
{
    skiplist_need_add(&need->of, ks, key_size, value_size);
}
/* Room for an operation list before its log record is final: after LOAM_OK, this thread's next entries,
 * those of the need, cannot fail. LOAM_E_BUDGET or E_NOMEM. */
int memtable_reserve(struct memtable *m, const struct memtable_need *need);
/* Bytes of memory that this takes, to within a tenth: many small entries take far more than they hold. */
static inline uint64_t memtable_cost(const struct memtable_need *need)
{
    return skiplist_cost(&need->of);
}

/* Counts bytes that are about to be added as if they were there. False: beside what is there and what others
 * expect there is no room for them below `limit`; an untouched memtable of which nobody expects anything has
 * room for any. After true, one memtable_came() with the same bytes, when they are there or given up. */
bool memtable_expect(struct memtable *m, uint64_t bytes, uint64_t limit);
void memtable_came(struct memtable *m, uint64_t bytes);

/* Copies key and value; the newest tag of a key is its current version. Any thread.
 * key_hash: hash_key() of the key. tag: entry_tag(); not used with this key before.
 * LOAM_OK; E_TOOBIG; E_CLOSED after memtable_freeze(); E_BUDGET or E_NOMEM without a reservation: then nothing was
 * added. */
int memtable_add(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash, uint64_t tag,
                 loam_slice value);
/* Fetches what memtable_add() and memtable_get() of the key look at first. */
void memtable_prefetch(const struct memtable *m, uint64_t key_hash);
/* add for a key that has no value here: none, or a delete as its newest version. Else LOAM_E_EXISTS (no
 * error is recorded): nothing was added and *in_way is the newest version. Of callers that race for one
 * key one adds and the others are told of it. */
int memtable_add_new(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash,
                     uint64_t tag, loam_slice value, struct entry *in_way);

/* One addition of a batch. */
struct memtable_op {
    uint32_t ks;
    loam_slice key;
    uint64_t key_hash;
    uint64_t tag;
    loam_slice value;
};
/* All or nothing: LOAM_OK, or as memtable_add() with nothing added. Readers see the additions one by
 * one; that they appear together is the sequence numbers' business. */
int memtable_add_batch(struct memtable *m, const struct memtable_op *ops, size_t n);

#define MEMTABLE_STAGES 8 /* a power of two: those to come, and the one that is added */

_Static_assert((MEMTABLE_STAGES & (MEMTABLE_STAGES - 1)) == 0 && MEMTABLE_STAGES > SKIPLIST_AHEAD_STEPS,
               "places are numbered round, and each addition gets all of its steps");

/* Additions by one thread in a row, which are made in the order in which they come, each while those behind it are
 * searched for step by step: their cache misses overlap. Lives in the caller's memory. */
struct memtable_pipeline {
    struct memtable *m;
    uint64_t taken, added;
    uint32_t ks; /* of the last one taken, with its order */
    const loam_comparator *order;
    struct memtable_stage {
        struct memtable_op op;
        const loam_comparator *order;
        enum { STAGE_NEW, STAGE_SEARCHED, STAGE_NOT_SEARCHED } search;
        struct skiplist_ahead ahead;
    } stages[MEMTABLE_STAGES];
};
void memtable_pipeline_begin(struct memtable_pipeline *p, struct memtable *m);
/* An addition that memtable_reserve() has set aside; key and value are lent until the end. */
void memtable_pipeline_add(struct memtable_pipeline *p, const struct memtable_op *op);
/* After it all are added. Between begin and end the thread adds nothing else to the memtable. */
void memtable_pipeline_end(struct memtable_pipeline *p);

/* Ends additions: from here on they get LOAM_E_CLOSED. REQUIRES: those of other threads have returned, so
 * that what is read from now on never changes. */
void memtable_freeze(struct memtable *m);
bool memtable_frozen(const struct memtable *m);

/* The newest version with a sequence number <= snapshot. LOAM_OK: *e is filled, lent while the
 * memtable lives; a delete is found as kind ENTRY_DELETE. LOAM_NOTFOUND. Any thread. */
int memtable_get(struct memtable *m, uint32_t ks, loam_slice key, uint64_t key_hash,
                 uint64_t snapshot, struct entry *e);

/* get for n keys of one keyspace at one snapshot: codes[i] and entries[i] as of memtable_get(). The keys'
 * cache misses overlap, so many cost less than one by one. */
void memtable_get_many(struct memtable *m, uint32_t ks, const loam_slice *keys,
                       const uint64_t *key_hashes, size_t n, uint64_t snapshot,
                       struct entry *entries, int *codes);

/* Data held: keys, values, overhead per entry, without filter and index. Cheap; too high by at most a lease
 * per writing thread. What sealing goes by. */
uint64_t memtable_bytes(const struct memtable *m);
/* Memory taken from pool and system, all included. What the budget goes by. */
uint64_t memtable_reserved(const struct memtable *m);
/* Entries added; exact once additions are over. O(threads that wrote). */
uint64_t memtable_count(const struct memtable *m);
bool memtable_empty(const struct memtable *m);
/* Empty, and nobody has memory in it for what is still to be added. */
bool memtable_untouched(const struct memtable *m);

#define MEMTABLE_PRESSURE_PERCENT 90 /* of the hard limit taken: time to make the next one active */
struct memtable_stats {
    uint64_t entries;      /* versions */
    uint64_t bytes;        /* memtable_bytes() */
    uint64_t reserved;     /* memtable_reserved() */
    uint64_t limit;        /* hard; UINT64_MAX = none */
    uint64_t idle;         /* bytes reserved, holding nothing yet */
    uint32_t entry_bytes;  /* mean: key, value and overhead */
    uint32_t percent_used; /* of what is reserved */
    bool under_pressure;
    bool frozen;
};
/* Any thread; exact once additions are over. O(threads that wrote). */
void memtable_stats(const struct memtable *m, struct memtable_stats *out);
bool memtable_under_pressure(const struct memtable *m); /* O(1) */
/* The smallest keyspace id >= ks that has entries: LOAM_OK, or LOAM_NOTFOUND. */
int memtable_next_ks(struct memtable *m, uint32_t ks, uint32_t *found);

/* Over every version of one keyspace: keys ascending, versions of a key newest first. Lives in the
 * caller's memory, allocates nothing, needs no end. One thread at a time; sees additions made while
 * it stands. Entries are lent while the memtable lives. */
struct memtable_cursor {
    struct skiplist_cursor at;
};
void memtable_cursor_init(struct memtable_cursor *c, struct memtable *m, uint32_t ks);
/* The same with the order that the keyspace's entries stand in, for whom knows it: it is not asked for again. */
void memtable_cursor_init_in(struct memtable_cursor *c, struct memtable *m, uint32_t ks,
                             const loam_comparator *cmp);

/* These return whether the cursor stands on an entry now. Off the end, next, prev and next_key stay
 * off; first, last and seek position anew. */
static inline bool memtable_cursor_first(struct memtable_cursor *c)
{
    return skiplist_cursor_first(&c->at);
}
/* The oldest version of the last key. */
static inline bool memtable_cursor_last(struct memtable_cursor *c)
{
    return skiplist_cursor_last(&c->at);
}
/* The first entry >= (key, tag) in the order of the cursor; tag UINT64_MAX = the newest version. */
static inline bool memtable_cursor_seek(struct memtable_cursor *c, loam_slice key, uint64_t tag)
{
    return skiplist_cursor_seek(&c->at, key, tag);
}
/* The last entry before that place, whatever is added behind it meanwhile; tag 0: behind all versions. */
static inline bool memtable_cursor_seek_before(struct memtable_cursor *c, loam_slice key,
                                               uint64_t tag)
{
    return skiplist_cursor_seek_before(&c->at, key, tag);
}
static inline bool memtable_cursor_next(struct memtable_cursor *c)
{
    return skiplist_cursor_next(&c->at);
}
static inline bool memtable_cursor_prev(struct memtable_cursor *c)
{
    return skiplist_cursor_prev(&c->at);
}
/* The newest version of the next key. */
static inline bool memtable_cursor_next_key(struct memtable_cursor *c)
{
    return skiplist_cursor_next_key(&c->at);
}
static inline bool memtable_cursor_valid(const struct memtable_cursor *c)
{
    return skiplist_cursor_valid(&c->at);
}
/* REQUIRES: valid. */
static inline void memtable_cursor_entry(const struct memtable_cursor *c, struct entry *e)
{
    skiplist_cursor_entry(&c->at, e);
}

#endif
