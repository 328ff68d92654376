/* wal_writer.h - The write side of the log: reserve a place, copy, seal, switch segments, sync.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   tail word = position:56 | generation:8
 *
 *   generation g-1             g (the tail's)                    g+1 (prepared)
 *   +------------------+      +---------------------------+     +------------+
 *   | sealed records   |      | records |   free          |     | header     |
 *   +------------------+      +---------------------------+     +------------+
 *   base(g-1)     = boundary = base(g)  ^ position              window 0 mapped
 *                                  [ window k ][ window k+1 ][ window k+2 ]
 *
 * One CAS on the tail word gives a writer its place in the log, its sequence number and the
 * generation (memtable) it belongs to. A segment file belongs to one generation. Only windows of a
 * segment are mapped, apart from each other in memory. A record inside one window is filled in
 * place; one that crosses into the next window is copied piece by piece by wal_end, from a buffer where it
 * lies together. A large one is written to the file by wal_end: wal_append.c.
 *
 *   the next segment:  NONE -> PREPARING [wal_prepare, wal_switch] -> READY [the same]
 *                      READY -> NONE     [wal_switch: the tail enters it, or it is too small]
 *                      PREPARING -> NONE [it failed; whoever needs it tries again]
 *
 * Invariants
 *  1. position only grows, and at one position there are fewer than 256 switches: a tail word never
 *     comes back, so a CAS that succeeds proves that the slot read before it was the tail's.
 *  2. base, limit and shift of a generation's slot are set before the tail carries that generation
 *     and keep their values until the slot is released; every record of it is applied by then.
 *  3. A window is mapped before a record that is not written is reserved in it, and stays until the record
 *     is applied: a writer whose CAS succeeds may store to the window it saw.
 *  4. A segment's header and name are durable before the tail enters it. One segment is prepared at
 *     a time, and the current one stays current meanwhile.
 *  5. durable <= the end of the last record that was complete when a sync began; it never falls.
 *  6. A file is never synced again after a failed sync, and nothing is appended behind a failed
 *     write in the same file.
 *
 * Ordering guarantees
 *  - wal_begin() that returns generation g happens after everything the caller of the wal_switch()
 *    to g did before it.
 *  - positions of generation g are below the boundary that wal_switch() to g+1 returned, those of
 *    g+1 are not.
 *  - wal_sync(upto) returning LOAM_OK: the records below upto survive a power cut.
 *
 * Progress guarantees
 *  - Mapped: wal_begin() is lock-free while windows are ready (a lost CAS means another writer or a
 *    switch won); a missing window, a record that crosses windows or a large one at work takes the mutex of
 *    the windows. wal_end() and wal_void() are wait-free and make no system call.
 *  - Buffered, and large records: wal_begin() takes a mutex that wal_end() or wal_void() gives back; between
 *    them the thread must call nothing else of the log.
 *  - wal_sync() blocks on the disk; all others but wal_position() and wal_durable() may.
 */
#ifndef LOAM_WAL_WAL_WRITER_H_
#define LOAM_WAL_WAL_WRITER_H_

#include "arena/sync.h"
#include "arena/vfs.h"
#include "wal/wal_segment.h"

/* Answers, not errors. */
#define WAL_FULL   100 /* wal_begin: the record does not fit here; call wal_switch and try again */
#define WAL_UNUSED 101 /* wal_void: the position was not consumed; there is nothing to publish */

#define WAL_SLOTS 16    /* generations that may be alive at once, the prepared one included */
#define WAL_IDLE_MAX 2  /* recycled files kept for reuse */
#define WAL_WRITE_MIN 4096u /* bytes from which on a record of a mapped log is written: wal_append.c */

struct wal_options {
    const loam_vfs *vfs;
    const char *dir; /* copied */
    struct alloc *alloc;
    uint64_t db_id;
    uint64_t segment_bytes; /* for records; rounded up to a multiple of window_bytes */
    /* Of the first segment, and of one that wal_shrink() makes; the next has up to four times as many as the one
     * before it. 0: segment_bytes. */
    uint64_t first_bytes;
    uint32_t window_bytes;  /* a power of two >= 64 KiB; a 64th of the segment when that is more */
    bool no_files;          /* positions and generations only; slots have payload NULL */
    uint64_t start_position; /* rounded up to a multiple of 8 */
    uint64_t first_number;   /* of segment files; above all in the directory */
    uint32_t first_generation; /* of the first segment; 0 = 1 */
};

enum wal_mode { WAL_MAPPED, WAL_BUFFERED, WAL_NO_FILES };

struct wal {
    /* constant after init */
    enum wal_mode mode;
    struct wal_place place; /* where segment files live */
    uint64_t segment_bytes, first_bytes;
    uint32_t window_bytes;

    _Alignas(CACHE_LINE) _Atomic uint64_t tail;
    _Alignas(CACHE_LINE) _Atomic uint64_t durable; /* only ever raised */
    _Alignas(CACHE_LINE) _Atomic uint32_t work;    /* changes when wal_keep has something to do */

    /* `mu` orders what changes the set of segments: prepare, switch, release. Files are made, synced,
     * closed and removed without it. */
    struct mutex mu;
    struct cond prepared_cv; /* preparing has ended */
    bool preparing;        /* somebody makes the file of current + 1 */
    bool next_ready;       /* slot of current + 1 is prepared */
    uint32_t still;        /* switches in a row without a record between them */
    uint64_t next_number;
    _Atomic uint32_t release_below; /* generation; written under mu: older ones go as soon as no sync runs */
    _Atomic uint32_t oldest;  /* generation; written under mu and sync leadership */
    _Atomic uint32_t current; /* generation; written under mu, behind the tail */
    struct wal_idle_file {
        loam_file *file;
        uint64_t number;
        bool settled; /* see struct wal_segment_plan */
    } idle[WAL_IDLE_MAX];
    unsigned idle_count;

    /* Mapped: guards which windows are shown; held over map calls of writers that cannot go on
     * without. Held from wal_begin to wal_end of a record that is written, as the tail is. Taken after mu. */
    struct mutex tail_mu;
    struct cond mapped_cv; /* a segment's mappers have ended */

    /* Bytes; written by wal_keep. A writer wakes the keeper when less than this is mapped ahead of it:
     * a call of the system for each window would be the slowest thing that most writers ever do. */
    _Atomic uint64_t low_mark;
    _Atomic uint64_t written; /* bytes of records that were written; changes under tail_mu */
    /* wal_keep's thread only */
    uint64_t lap_at, lap_stored;   /* when the lap began in which storing is measured, and what there was */
    uint64_t lap_bytes;            /* stored in the lap before */
    uint64_t kept_stored, kept_written; /* bytes of records stored and written when it last looked */

    /* Room for one record that is not filled in place, taken and given back by swapping it with
     * NULL; records that find it absent or too small use memory of their own. */
    _Atomic(uint8_t *) stage;

    /* Guards the fields below; released while the leader syncs. Taken after mu. */
    struct mutex sync_mu;
    struct cond sync_cv;
    bool leading;       /* somebody owns the files' sync state: a leader, a release, a clear */
    uint64_t sync_goal; /* the highest position asked for */
    uint32_t sync_from; /* first generation with unsynced records; owned by the leader */
    /* Hints for the next leader, right again after each sync */
    uint32_t sync_waiting; /* callers that no sync has served */
    uint32_t sync_party;   /* that there were when the last sync ended, those it served included */
    uint32_t sync_lonely;  /* syncs to come before anybody is waited for again */
    uint64_t sync_micros;  /* that the last one took */
    _Atomic uint32_t poisoned;
    loam_error poison;

    struct wal_segment slots[WAL_SLOTS]; /* by generation % WAL_SLOTS */
};

/* A reserved place. Between wal_begin and wal_end the caller fills payload[0 .. size). */
struct wal_slot {
    uint64_t position;   /* the sequence number of the first operation */
    uint64_t end;        /* position behind the record */
    uint8_t *payload;    /* contiguous, writable; NULL without files */
    const uint8_t *source; /* of wal_begin_copy: what wal_end copies or writes; else NULL */
    uint64_t salt;
    uint32_t size;       /* bytes of payload */
    uint32_t generation;
    bool staged;         /* payload is in a buffer, to be copied by wal_end */
    bool written;        /* by wal_end; the tail is held until then: wal_append.c */
    bool given;          /* the log moved past the record */
    bool at_edge;        /* mapped: it begins, or ends behind, a window; whose publisher calls wal_relieve() */
};

/* Creates the first segment; its header and name are durable on return.
 * Removes what an interrupted preparation left in the directory. */
int wal_open(struct wal *w, const struct wal_options *o);

/* Reserves a record. Nothing is consumed unless it returns LOAM_OK.
 * Returns:  LOAM_OK; WAL_FULL: no room in this segment, or it must not be appended to any more;
 *           LOAM_E_TOOBIG: over WAL_PAYLOAD_MAX; else what mapping or memory said.
 * Threads:  any; each LOAM_OK is followed by wal_end or wal_void on the same thread, soon: what
 *           comes after the record in the log waits for it. */
int wal_begin(struct wal *w, uint64_t payload_size, struct wal_slot *s);
/* The same for a payload that there is already: nothing is to be filled in. It stays as it is until wal_end or
 * wal_void. A long record is held nowhere but in the log. */
int wal_begin_copy(struct wal *w, loam_slice payload, struct wal_slot *s);

/* Seals the record. `durable`: what the caller knows to be durable, usually wal_durable().
 * Stored through a window, and without files, it cannot fail. Written (s->written), the record comes
 * before the tail moves: on an error the position was not consumed, and nothing of the record can come
 * back after a crash unless the error carries LOAM_ERR_UNKNOWN. */
int wal_end(struct wal *w, struct wal_slot *s, uint64_t durable);

/* Instead of wal_end, or after it and before the record is published: replay will skip it.
 * Returns:  LOAM_OK: the position is consumed and must be published like any other;
 *           WAL_UNUSED: written, instead of wal_end: the position was given back;
 *           an error: written, after wal_end: the record stands. */
int wal_void(struct wal *w, struct wal_slot *s);

/* Makes the next segment the tail's; prepares one when none is ready, large enough for a record of
 * payload_size_hint bytes. *boundary is the first position of the new generation. Waits for a sync that
 * keeps generations which were released.
 * Threads:  one at a time, by the caller's lock.
 * Returns:  LOAM_OK; LOAM_E_BUSY: WAL_SLOTS generations are not released, or 254 switches in a row saw no
 *           record; else why no segment could be prepared; then the old one stays. */
int wal_switch(struct wal *w, uint64_t payload_size_hint, uint64_t *boundary,
               uint32_t *new_generation);

/* Returns when everything below `upto` is durable. Callers share one system call.
 * REQUIRES: every record below upto has been ended or voided.
 * Returns:  LOAM_OK, or the error that poisoned the log, with LOAM_ERR_STICKY, from then on. */
int wal_sync(struct wal *w, uint64_t upto);

/* Whether a sync has failed and wal_clear_poison() not followed yet. Any thread. */
static inline bool wal_poisoned(const struct wal *w)
{
    /* acquire: pairs with the release in poison(). */
    return atom_load(&w->poisoned, acquire) != 0;
}

/* Ends the refusal of wal_sync after a failure. REQUIRES: the caller has switched since and made
 * all data of older generations durable elsewhere. LOAM_E_INVAL: the current segment is the failed
 * one. */
int wal_clear_poison(struct wal *w);

/* In the tail word, in a bit that no position has: a record is being written at the tail, or its write has
 * failed, and nothing is reserved there without tail_mu. */
#define WAL_TAIL_HELD 0x100u
static inline uint64_t wal_tail_position(uint64_t tail)
{
    return tail >> 8 & ~(uint64_t)(WAL_TAIL_HELD >> 8);
}

/* Position behind the last reserved record. Any thread, wait-free. */
static inline uint64_t wal_position(const struct wal *w)
{
    /* acquire: pairs with the CAS in wal_begin and wal_switch; what was read here happened. */
    return wal_tail_position(atom_load(&w->tail, acquire));
}
/* wal_position(), and a fence: whoever moves the log beyond the position returned sees, behind its
 * wal_begin() (wal_end() where records are written), what this thread did before the call. */
static inline uint64_t wal_fence(struct wal *w)
{
    /* acq_rel: every change of the tail is a read-modify-write, so later ones synchronize with this. */
    return wal_tail_position(atom_add(&w->tail, 0, acq_rel));
}
/* Everything below is durable. Any thread, wait-free. */
static inline uint64_t wal_durable(const struct wal *w)
{
    /* acquire: pairs with the release of the sync leader. */
    return atom_load(&w->durable, acquire);
}
/* Everything below `position` is durable, here or elsewhere. Any thread. */
void wal_raise_durable(struct wal *w, uint64_t position);
/* The tail's generation. Wait-free; may be one switch old when it arrives. */
static inline uint32_t wal_generation(const struct wal *w)
{
    /* acquire: pairs with the release in wal_switch. */
    return atom_load(&w->current, acquire);
}

/* Background work that takes no longer than moments: maps windows ahead of the tail, the more the
 * faster it moves; unmaps those whose records are all below `applied`; releases what had to wait for a
 * sync. *more: call again soon. An error is the first one met; the rest was done as far as possible,
 * and the next call tries again.
 * Threads:  one at a time with itself; beside everything else but open, close and abandon. */
int wal_keep(struct wal *w, uint64_t applied, bool *more);
/* For whoever has published a record at the edge of a window: unmaps as wal_keep() does when far more is mapped
 * than the tail asks for. On a busy machine the keeper may come late, and writers map what they need, however
 * much lies behind them. Never waits. Threads: any. */
void wal_relieve(struct wal *w, uint64_t applied);
/* Whether wal_prepare() has something to do: the current segment has a record, and there is no next. */
bool wal_prepare_due(struct wal *w);
/* Prepares the next segment if that is due: waits for the disk, and no writer waits for it that has room.
 * Threads:  any; beside everything else but open, close and abandon. */
int wal_prepare(struct wal *w);
/* Whether wal_shrink() has something to do: the current segment is larger than the first one was, has no record,
 * and there is no next. Any thread. */
bool wal_shrink_due(struct wal *w);
/* Prepares a next segment as small as the first one, for a log at rest, which wal_switch() is to enter. Waits
 * for the disk. Returns whether there is one. Threads: as wal_prepare(). */
bool wal_shrink(struct wal *w);
/* Ticket first, then wal_keep, then wait: work that comes up in between ends the wait at once. */
uint32_t wal_work_ticket(const struct wal *w);
void wal_wait_work(struct wal *w, uint32_t ticket, uint64_t micros);
void wal_wake_keeper(struct wal *w);

/* Segments of generations below this one are not needed any more. What they held counts as durable at
 * once; they are recycled or removed at once too, or by wal_keep when the sync that runs has ended.
 * REQUIRES: below_generation <= the current one, all records below it are applied and durable
 * elsewhere, and the manifest says so: recovery will not read them. */
void wal_release(struct wal *w, uint32_t below_generation);
/* Takes over an old segment file of this directory, found at open and not needed any more, for
 * recycling; removes it when there is no use for it.
 * REQUIRES: recovery will never read that number again: a crash may leave it with another header.
 * */
void wal_adopt(struct wal *w, uint64_t number);

/* Removes the files kept for recycling, for a full disk or a long rest. Returns how many. Any thread. */
unsigned wal_shed(struct wal *w);
/* Bytes of the files kept for recycling. Any thread. */
uint64_t wal_idle_bytes(struct wal *w);

/* Bytes of the files of live generations, the next one included. Any thread. */
uint64_t wal_live_bytes(struct wal *w);

/* File number of a live generation; 0 when it is not alive. */
uint64_t wal_segment_number(struct wal *w, uint32_t generation);

/* Syncs, then frees everything. *end_number, *end_position: the last segment and the position
 * behind its last record, for the manifest. On an error they are untouched, and everything is freed
 * too. REQUIRES: no other call is running and every record has ended. */
int wal_close(struct wal *w, uint64_t *end_number, uint64_t *end_position);
/* Frees everything without syncing; files stay as they are. */
void wal_abandon(struct wal *w);

/* ---- for wal_*.c ----------------------------------------------------------------------------- */

static inline struct wal_segment *wal_slot_of(struct wal *w, uint32_t generation)
{
    return &w->slots[generation % WAL_SLOTS];
}
#define WAL_PAGE        4096u
#define WAL_STAGE_BYTES 65536u /* of the largest record in the buffer that is kept */
#define WAL_STAGE_ROOM  (WAL_STAGE_BYTES + WAL_PAGE) /* of that buffer: zeros may follow the record */

/* The full generation of a tail word read just before. */
static inline struct wal_segment *wal_slot_of_tail(struct wal *w, uint64_t tail)
{
    return &w->slots[tail % WAL_SLOTS];
}
static inline bool wal_fits(uint64_t position, uint64_t limit, uint64_t size)
{
    return limit >= position && limit - position >= size;
}
/* The last word of a record holds the zeros behind its payload, or payload, which comes later. */
static inline void wal_clear_padding(uint8_t *payload, uint64_t size)
{
    if (size > WAL_RECORD_HEADER) {
        put_fixed64(payload + size - WAL_RECORD_HEADER - 8, 0);
    }
}
/* Writes the record's header; its payload and padding are in place behind it, unless it is a void one. */
void wal_seal(uint8_t *record, const struct wal_slot *s, enum wal_record_type type,
              uint32_t durable_distance);
/* The parts of wal_begin, wal_end and wal_void for a record that is written; same contracts. */
int wal_append_begin(struct wal *w, uint64_t size, struct wal_slot *s);
int wal_append_end(struct wal *w, struct wal_slot *s, uint32_t durable_distance);
int wal_append_void(struct wal *w, struct wal_slot *s);
/* The part of wal_begin that maps windows or stages; same contract. */
int wal_windows_reserve(struct wal *w, uint64_t size, struct wal_slot *s);
/* Copies n bytes to a reserved place, across windows. */
void wal_windows_store(struct wal *w, uint64_t position, uint32_t generation, const uint8_t *data,
                       uint64_t n);
/* Maps the windows from the tail to `bytes` behind it. */
int wal_windows_ahead(struct wal *w, uint64_t bytes);
/* Unmaps what lies below `applied`. REQUIRES: mu. */
void wal_windows_behind(struct wal *w, uint64_t applied);
/* Unmaps everything of one segment; its records are applied. */
void wal_windows_drop(struct wal *w, struct wal_segment *seg);
/* From here on windows of the segment may be mapped. */
void wal_windows_allow(struct wal *w, struct wal_segment *seg);
/* Maps the first window of a generation, if it is alive. ahead: its pages are touched, too, which takes a multiple
 * of the time. 0 or -errno. */
int wal_windows_first(struct wal *w, uint32_t generation, bool ahead);
/* A buffer for a record of `size` bytes, header included; NULL: no memory, the error is set. */
uint8_t *wal_stage_take(struct wal *w, uint64_t size);
void wal_stage_give(struct wal *w, uint8_t *stage, uint64_t size);

/* What a segment of at least `capacity` bytes has, in windows that the slot's table can hold. */
void wal_shape(const struct wal *w, uint64_t capacity, struct wal_segment_plan *plan);
/* Prepares the slot of generation current + 1. REQUIRES: mu, which is released meanwhile; it is not
 * ready, and nobody prepares it. */
int wal_prepare_locked(struct wal *w, uint64_t capacity);
/* Whether the current segment has a record. REQUIRES: mu. */
bool wal_is_used_locked(struct wal *w);
/* Bytes of the next segment unless a record asks for more. REQUIRES: mu. */
uint64_t wal_next_bytes_locked(struct wal *w);
/* Does what wal_release left for later, unless a sync runs still. */
void wal_release_rest(struct wal *w);
/* Likewise, when the sync has ended. */
void wal_release_wait(struct wal *w);
static inline bool wal_release_due(const struct wal *w)
{
    /* acquire: pairs with wal_release(); oldest moves later than that, and staleness costs one look. */
    return atom_load(&w->release_below, acquire) > atom_load(&w->oldest, relaxed);
}

/* Waits for the running sync to end and keeps others out until wal_sync_unlock. */
void wal_sync_lock(struct wal *w);
bool wal_sync_try_lock(struct wal *w); /* false: a sync runs */
void wal_sync_unlock(struct wal *w);
/* Everything below `position` is durable elsewhere. REQUIRES: sync leadership. */
void wal_sync_pass(struct wal *w, uint64_t position, uint32_t generation);
/* Syncs one segment; on a failure, never again. REQUIRES: sync leadership. */
int wal_sync_segment(struct wal *w, struct wal_segment *seg);

#endif
