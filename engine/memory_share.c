/* memory_share.c - Lends what memtables and indexes leave unused to the block cache, and takes it back.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/memory_share.h"

#include "engine/call.h"
#include "engine/db.h"

#include "arena/poison.h"

#define LEND_AFTER_US 500000u /* memtables have taken nothing for so long */
#define STEP_US       1000u   /* between two steps of taking back */
#define LENT_US       10000u  /* between looks while something is lent that no log tells the keeper of */
#define WANT_STEPS    1000u
#define KEPT_PART     8u      /* of the memtables' share stays theirs: an eighth */
#define WORTH_PART    16u     /* of the cache: what is less is not worth lending */
#define ALLOCATORS_PART 64u   /* of all memory */
#define OTHERS_MORE   ((uint64_t)4 << 20) /* what is there in any case, and counts beside the budget */

/* Lets memtables make room for indexes that need more than their share. Returns the memtables'. */
static uint64_t share_memtables(struct db *db, uint64_t indexes)
{
    const struct limits *l = &db->options.limits;
    uint64_t each = indexes > l->table_bytes ? (indexes - l->table_bytes) / l->memtables_max : 0;
    uint64_t most = l->memtable_bytes / 2;
    uint64_t limit = l->memtable_bytes - (each < most ? each : most);
    atom_store(&db->memtable_limit, limit, relaxed); /* relaxed: as in db_memtable_limit() */
    return limit * l->memtables_max;
}

static uint64_t left_of(uint64_t share, uint64_t used)
{
    return share > used ? share - used : 0;
}

uint64_t memory_share_memtables(struct db *db)
{
    uint64_t kept = chunk_pool_stats(&db->chunks).idle * db->options.limits.chunk_bytes;
    return left_of(alloc_used_by(&db->alloc, MEM_MEMTABLE), kept);
}

/* Chunks kept for the next memtables are of the memtables' share, too; they have in_use bytes of it. */
static void trim_chunks(struct db *db, uint64_t bytes, uint64_t in_use)
{
    db->share.chunks = left_of(bytes, in_use) / db->options.limits.chunk_bytes;
    chunk_pool_trim(&db->chunks, (size_t)db->share.chunks);
}

/* Whether memtables have taken no memory for a while. */
static bool at_rest(struct memory_share *s, uint64_t in_use)
{
    uint64_t now = clock_micros();
    if (in_use != s->memtables) {
        s->memtables = in_use;
        s->since = now;
    }
    return now - s->since >= LEND_AFTER_US;
}

static void set_lent(struct memory_share *s, uint64_t bytes)
{
    atom_store(&s->lent, bytes, release); /* pairs with the load in memory_share_want() */
}

/* Down to `keep` bytes, which counts when it is begun. */
static void take_back(struct db *db, uint64_t keep)
{
    struct memory_share *s = &db->share;
    s->taking = !block_cache_take_back(&db->cache, (size_t)keep);
    if (!s->taking) {
        set_lent(s, block_cache_lent(&db->cache));
        s->all_wanted = s->all_wanted && atom_load(&s->lent, relaxed) != 0; /* relaxed: the keeper's own */
        s->since = clock_micros(); /* whoever asked for it is still to use it */
    }
}

/* What the log, merges, iterators and all else have beyond what is set aside for them; and what an allocator
 * keeps of what was freed. */
static uint64_t beyond_share(struct db *db, uint64_t indexes)
{
    uint64_t shared = alloc_used_by(&db->alloc, MEM_MEMTABLE) + alloc_used_by(&db->alloc, MEM_RING);
    uint64_t all = alloc_used(&db->alloc), others = left_of(all, shared + indexes);
    return left_of(others, db->options.limits.other_bytes + OTHERS_MORE) + all / ALLOCATORS_PART;
}

/* Indexes may grow into what is not lent, and no further: many tables are opened between two looks. */
static void hold_tables(struct db *db, uint64_t indexes, uint64_t unused)
{
    uint64_t lent = atom_load(&db->share.lent, relaxed); /* relaxed: the keeper's own */
    table_cache_hold(&db->tables, lent != 0 ? indexes + left_of(unused, lent) : UINT64_MAX);
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint64_t memory_share_keep(struct db *db)
{
    const struct limits *l = &db->options.limits;
    struct memory_share *s = &db->share;
    uint64_t indexes = table_cache_bytes(&db->tables);
    uint64_t memtables = share_memtables(db, indexes);
    uint64_t in_use = memory_share_memtables(db);
    uint64_t kept = memtables / KEPT_PART;
    uint64_t unused = left_of(left_of(memtables, in_use) + left_of(l->table_bytes, indexes),
                              beyond_share(db, indexes));
    uint64_t lent = atom_load(&s->lent, relaxed);       /* relaxed: the keeper's own */
    bool wanted = atom_swap(&s->wanted, false, relaxed); /* relaxed: a wish */
    s->all_wanted = lent != 0 && (s->all_wanted || wanted);
    uint64_t more = left_of(unused, kept), room = table_cache_held_back(&db->tables);
    more = more < l->lent_bytes_most ? more : l->lent_bytes_most;
    bool rests = at_rest(s, in_use);
    if (s->taking || s->all_wanted || (lent != 0 && unused < lent + max(room, kept / 8 * 7))) {
        /* A part more than must be: writers who are slow would else take a little again and again. */
        uint64_t keep = left_of(unused, max(room, kept) + l->ring_bytes / WORTH_PART);
        take_back(db, s->all_wanted ? 0 : keep);
    } else if (rests && more >= lent + l->ring_bytes / WORTH_PART &&
               !block_cache_roomy(&db->cache)) {
        trim_chunks(db, kept + in_use, in_use); /* first: it is theirs what is lent */
        set_lent(s, more);
        block_cache_lend(&db->cache, (size_t)more);
        s->reaching = true;
    }
    s->reaching = s->reaching && rests && !s->taking && !block_cache_reach_lent(&db->cache);
    lent = atom_load(&s->lent, relaxed); /* relaxed: as above */
    hold_tables(db, indexes, unused);
    trim_chunks(db, lent != 0 ? kept + in_use : memtables, in_use);
    return s->taking || s->all_wanted || s->reaching ? STEP_US : lent != 0 && !db->logging ? LENT_US : UINT64_MAX;
}

int memory_share_want(struct call *c, uint64_t bytes, uint64_t deadline)
{
    struct memory_share *s = &c->db->share;
    uint64_t kept = c->db->options.limits.memtable_bytes / KEPT_PART; /* of one memtable: soon enough */
    /* acquire: pairs with set_lent(); what it says to be back is. */
    if (bytes < kept || atom_load(&s->lent, acquire) == 0) {
        return LOAM_OK;
    }
    atom_store(&s->wanted, true, relaxed); /* relaxed: a wish; the keeper is woken */
    wal_wake_keeper(&c->db->wal);
    if (deadline == 0) {
        return LOAM_OK;
    }
    if (!call_wait_begin(c)) {
        return LOAM_E_CLOSED;
    }
    /* acquire: as above. */
    for (unsigned i = 0; i < WANT_STEPS && atom_load(&s->lent, acquire) != 0; i++) {
        if (clock_micros() + STEP_US > deadline) {
            break;
        }
        thread_sleep_micros(STEP_US);
    }
    call_wait_end(c);
    return LOAM_OK;
}

void memory_share_make_room(struct db *db)
{
    const struct limits *l = &db->options.limits;
    uint64_t least = l->memtable_bytes * l->memtables_max / KEPT_PART / 2; /* of kept, which is not lent */
    for (unsigned i = 0; i < WANT_STEPS; i++) {
        /* relaxed: seen in time */
        if (table_cache_held_room(&db->tables) >= least || atom_load(&db->stopping, relaxed)) {
            break;
        }
        wal_wake_keeper(&db->wal);
        thread_sleep_micros(STEP_US);
    }
}
