/* db.h - The database object: every part and which lock guards it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Locks in the order they are taken (ranks in arena/sync.h):
 *   control_mu  one control operation at a time: keyspaces, compact, resume, close
 *   versions    (inside the version set) one edit at a time
 *   seal_mu     switching memtable and log segment
 *   mu          background state below; never held over I/O
 */
#ifndef LOAM_ENGINE_DB_H_
#define LOAM_ENGINE_DB_H_

#include "arena/buf.h"
#include "arena/chunk_pool.h"
#include "arena/large.h"
#include "arena/sync.h"
#include "arena/thread_slot.h"
#include "engine/commit.h"
#include "engine/compaction_picker.h"
#include "engine/db_vfs.h"
#include "engine/dead_ranges.h"
#include "engine/dead_scout.h"
#include "engine/disk_reserve.h"
#include "engine/errand.h"
#include "engine/iter_pool.h"
#include "engine/log_preparer.h"
#include "engine/log_syncer.h"
#include "engine/memory_share.h"
#include "engine/obsolete_files.h"
#include "engine/options.h"
#include "engine/registry.h"
#include "engine/rest.h"
#include "engine/snapshot.h"
#include "engine/stats.h"
#include "engine/table_cache.h"
#include "engine/version_set.h"
#include "engine/view.h"
#include "engine/workers.h"
#include "engine/write_controller.h"
#include "memtable/memtable_list.h"
#include "sstable/block_cache.h"
#include "wal/wal_writer.h"

#define DB_SCRATCH_SLOTS 256u /* threads with a read buffer of their own */

struct db {
    /* constant after open */
    struct alloc alloc;
    struct options options;
    struct db_vfs files;
    const loam_vfs *vfs; /* of `files` */
    char *dir;
    size_t dir_size;
    bool have_chunks, have_cache, have_tables, have_versions; /* parts that are initialised */
    uint64_t handle;     /* in registry.dbs */
    uint32_t fork_count; /* thread_slot_fork_count() at open */
    bool readonly;
    bool paranoid;
    bool logging; /* false under LOAM_DUR_MEMORY */
    bool log_open; /* wal is initialised */
    uint64_t replayed_number; /* last log segment found at open, and the position behind its last */
    uint64_t replayed_end;    /* record; 0: there was none */
    struct buf replayed;      /* the flusher's: numbers (uint64_t) of the segments found at open */
    loam_file *lock;

    _Atomic uint64_t refs; /* public handles and pins that need `alloc`; the last one frees the shell */

    /* write path */
    struct wal wal;
    struct commit commit;
    struct chunk_pool chunks;
    struct write_controller control;
    _Atomic uint64_t memtable_limit; /* bytes at which a memtable is sealed; see memory_share.h */
    struct mutex seal_mu;
    struct memtable *spare; /* guarded by seal_mu: the next memtable, zeroed ahead of need */

    /* state; the list is guarded by mu (writers read slots freely), the view is atomic */
    struct memtable_list memtables;
    struct version_set versions;
    struct block_cache cache;
    struct table_cache tables;
    struct obsolete_files obsolete;
    struct disk_reserve reserve;
    struct snapshots snapshots; /* lives as long as the shell: released while closing, too */
    _Atomic(struct view *) view;
    struct stats stats;
    struct large_pool large; /* large values that are lent or pass through; lives as long as the shell */
    struct iter_pool iters;
    struct dead_ranges dead; /* what iterators have learned about stretches of deletes */
    struct dead_scout scout;
    struct log_syncer syncer;
    struct log_preparer preparer;
    struct errand remover; /* file_remover.h */
    struct memory_share share;
    struct sst_get_scratch *scratch; /* by thread slot; each used by its thread only */

    /* background; guarded by mu */
    struct mutex mu;
    struct workers workers; /* flush and merge */
    struct cond idle_cv;  /* a job ended, a memtable was dropped, an error came or went */
    uint64_t views;       /* published so far */
    _Atomic bool stopping; /* no new work; running merges end early; iterators are closed.
                              Set under mu, before the handle goes */
    uint32_t paused;      /* loam_pause: no new merges */
    bool flushing;
    uint32_t compacting;  /* merges running, manual ones included */
    uint32_t manual;      /* manual compactions waiting or running: automatic ones stand back */
    struct compaction_picker picker;
    struct compaction_job *job; /* a merge that other workers may help with */
    uint64_t retry_at;    /* after an error: no flush before this time (micros) */
    uint64_t merge_at;    /* likewise no merge; each failure in a row waits longer */
    uint64_t merge_wait;  /* micros the last one waited; 0: it went */
    uint64_t restore_at;  /* no try to set the disk reserve aside again before this time */
    uint64_t failed_flushes; /* since open, with nothing to come back by itself */
    uint64_t debt;        /* bytes of merging due, as of the last look */
    uint64_t idle_since;  /* micros; when idle merges may begin */
    struct rest rest;     /* since when nobody has written */
    bool large_comes;     /* a batch of more than a memtable looks for memory: others wait for it */
    uint32_t idle_waiters; /* threads that wait for rest: what waits for quiet times is due now */
    pthread_t keeper;
    bool keeper_running;
    _Atomic bool keeper_stop;
    loam_error error;     /* why writes are refused; code 0: they are not */
    loam_error seal_error; /* why the log could not go on in another segment; code 0: it can */
    loam_error prepare_error; /* why, time and again, its next segment cannot be made ready; code 0: it can */
    bool resuming;        /* the log is being renewed: what it failed with before is no news */
    uint64_t drain_bytes_per_s; /* recent flush speed */

    struct mutex control_mu;
};

/* ---- db.c -------------------------------------------------------------------------------------- */

/* Publishes the memtables and the current version through `fresh`, which it takes over. */
void db_publish_view_locked(struct db *db, struct view *fresh);
void db_publish_view(struct db *db, struct view *fresh); /* takes mu */
/* Makes an edit durable and shows the result. Errors as version_set_apply(). */
int db_apply_edit(struct db *db, struct version_edit *edit);
/* Makes the names in the directory durable: before an edit tells of new files, and before a file goes. */
int db_sync_names(struct db *db);
/* Seals the memtable of `generation` and makes the next one active; the log gets room for a record of
 * payload_hint bytes. LOAM_OK also when another thread has done it; LOAM_STOPPED: no room for another
 * memtable before a flush. REQUIRES: not inside an epoch section. */
int db_seal(struct db *db, uint32_t generation, uint64_t payload_hint);
/* The segment that the log is to go on in is there: loam_health() has no more to tell of it. */
void db_log_goes_on(struct db *db);
/* The next segment cannot be made ready, because of the thread's error of the moment. */
void db_log_may_end(struct db *db, int rc);
/* A fresh memtable by the database's limits. */
int db_new_memtable(struct db *db, struct memtable **m);
/* The disk is full for something that frees space: gives it the reserve. True: try again. From then
 * on only deletes are let in. */
bool db_spend_reserve(struct db *db, int rc);
/* Refuses writes from now on because of the thread's error of the moment. */
void db_refuse_writes(struct db *db, int rc);
void db_refuse_writes_locked(struct db *db, int rc); /* REQUIRES: mu held */
/* As db_refuse_writes(), because wal_sync() has failed: unless a resume is renewing the log, or has done
 * so meanwhile. */
void db_log_failed(struct db *db, int rc);
static inline uint64_t db_memtable_limit(const struct db *db)
{
    return atom_load(&db->memtable_limit, relaxed); /* relaxed: a threshold that moves slowly */
}
/* A line to the user's logger, when its level asks for it. */
void db_log(struct db *db, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The comparator of a keyspace; NULL: byte order. */
const loam_comparator *db_comparator(void *db, uint32_t ks);
/* A read buffer for this thread, or `spare` (empty) when it has none of its own. */
struct sst_get_scratch *db_scratch(struct db *db, struct sst_get_scratch *spare);

static inline void db_ref(struct db *db)
{
    atom_add(&db->refs, 1, relaxed); /* relaxed: the caller holds one or pins the handle */
}
void db_unref(struct db *db);

/* Takes a handle's number out of the list. The handle refers to the shell; its database may be open,
 * closing - then merges may still walk the list - or closed. A child process leaves the list alone. */
static inline void db_let_go(struct db *shell, struct held_seq *held)
{
    if (shell->fork_count == thread_slot_fork_count()) {
        snapshot_drop(held);
    }
}

static inline const struct view *db_view(struct db *db)
{
    /* acquire: pairs with the release of db_publish_view_locked(). */
    return atom_load(&db->view, acquire);
}

#endif
