/* history_support.h - Calls on few keys whose histories are recorded, and the lives of the database they are made on.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A world is one database on one disk, the threads' logs and what the judge said so far:
 *
 *     world_begin -> world_open -> calls -> world_close                    -> world_open -> ... -> world_end
 *                                        -> world_cut_off -> world_reboot  -> world_open
 *
 * world_cut_off() may come while the calls are made; everything between it and world_reboot() happens to a
 * process that is lost. tests/support/history.h says how lives are judged.
 */
#ifndef LOAM_TESTS_ENGINE_HISTORY_SUPPORT_H_
#define LOAM_TESTS_ENGINE_HISTORY_SUPPORT_H_

#include "arena/random.h"
#include "arena/sync.h"
#include "tests/engine/load_support.h"

#define KEYS_MAX 16u

struct world {
    /* set by the test before world_begin() */
    bool split; /* odd keys live in space[1], even ones in space[0] */
    uint32_t keys;
    uint64_t steps; /* of each thread, in each life */
    uint32_t durability, sync_interval_ms;
    uint32_t odds; /* one write in so many is durable; 0: 16 */
    /* the rest is kept here */
    loam_db *db;
    loam_ks *space[2];
    struct load_disk disk;
    struct history history;
    struct history_summary sum;
    struct history_end end; /* of the life before */
    bool lived;
    uint64_t jobs; /* of the janitors */
    struct watchdog dog;
    uint64_t *next_id; /* by thread; goes on over reopening */
    _Atomic bool stop; /* members end at their next step */
};

/* ---- lives: one thread, nobody else calls but where it is said ---- */

void world_begin(struct world *w, unsigned threads, bool memory);
/* Also judges the life before this one, and what it left. */
void world_open(struct world *w);
void world_close(struct world *w);
/* Takes the image that the next life begins with; any calls may be in progress. variant: as of
 * loam_vfs_power_cut(), LOAM_CUT_ALL for a kill. */
void world_cut_off(struct world *w, uint64_t variant);
void world_reboot(struct world *w);
/* Judges the last life, prints a line and counts the operations in stress_ops; the database is closed or
 * rebooted. */
void world_end(struct world *w, const char *what);

static inline bool world_stopped(const struct world *w)
{
    return atomic_load_explicit(&w->stop, memory_order_relaxed); /* relaxed: it orders nothing */
}

/* ---- recorded calls: by the thread of that number ---- */

void world_write(struct world *w, unsigned thread, uint32_t key, bool put, uint32_t flags);
void world_get(struct world *w, unsigned thread, uint32_t key);
/* One id for some of the keys, or for all; now and then a batch of deletes. */
void world_batch(struct world *w, unsigned thread, struct random *r, loam_batch *b, uint32_t flags);
/* Without a snapshot one call sees one state; only calls on one keyspace do. */
void world_cut(struct world *w, unsigned thread, struct random *r);
/* Two readings of one snapshot, with writes, flushes and merges of others between them. */
void world_cut_snapshot(struct world *w, unsigned thread, struct random *r);
/* A sync, a flush, or a look at what is durable. */
void world_promise(struct world *w, unsigned thread, struct random *r);
/* LOAM_W_*: one write in w->odds is durable. */
uint32_t world_flags(const struct world *w, struct random *r);
/* All of these; a crew_fn on a world. */
void world_mixed_member(struct crew_member *m);

/* ---- not recorded ---- */

/* The id of the value, 0: none. */
uint64_t world_read(struct world *w, uint32_t key, const loam_snap *snap, uint64_t *seq);
/* Reads every key, in one of five ways. */
void world_read_all(struct world *w, const loam_snap *snap, unsigned way, uint64_t *seen);
/* The whole range through an open iterator; keys must come in order. */
void world_walk(loam_iter *it, bool backward, uint64_t *seen);

#endif
