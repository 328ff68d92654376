/* loam.h - The public interface of loam, an embedded, ordered, persistent key-value store.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Rules for every call:
 *  - 0 is done, a positive result is an answer (LOAM_NOTFOUND, LOAM_TRUNCATED, LOAM_STOPPED), a
 *    negative one an error whose details loam_last_error() gives. On error nothing was changed
 *    unless the call says otherwise, and out parameters hold NULL or are untouched.
 *  - A zero field means its default; a NULL options pointer means all defaults. Each option struct
 *    starts with struct_size = sizeof(struct), so that fields can be added later.
 *  - Keys and values are any bytes. Keys are 0 to LOAM_MAX_KEY bytes, values 0 to LOAM_MAX_VALUE
 *    bytes and at most a quarter of the memory budget.
 *  - loam never returns memory for the caller to free(). It copies into the caller's buffer, or
 *    lends bytes until a named call gives them back.
 *  - A NULL loam_ks* is the keyspace "default".
 *  - Handles are checked, not trusted: using one after its database was closed gives
 *    LOAM_E_CLOSED, releasing it then is allowed, in any order. A child process that uses a database
 *    of its parent after fork(), or a handle of one, gets LOAM_E_MISUSE; releasing is allowed there, too.
 *  - loam_db, loam_ks and loam_snap may be used by any threads at once; a loam_iter, loam_batch or
 *    loam_pin by one thread at a time.
 *  - A call is left by its return alone: no pthread_cancel() of a thread inside one (deferred, it comes at the
 *    system calls within), no longjmp() or exception out of a callback, no call from a signal handler.
 */
#ifndef LOAM_H_
#define LOAM_H_

#include <stddef.h>
#include <stdint.h>

#include "arena/types.h"
#include "arena/vfs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version --------------------------------------------------------------------------------- */

#define LOAM_VERSION_MAJOR 0
#define LOAM_VERSION_MINOR 1
#define LOAM_VERSION_PATCH 0

/* major << 16 | minor << 8 | patch of the library in use. */
LOAM_API uint32_t loam_version(void);
/* Static text: version, compiler, codecs. */
LOAM_API const char *loam_build_info(void);

/* ---- limits ---------------------------------------------------------------------------------- */

#define LOAM_MAX_KEY 65535u                 /* bytes */
#define LOAM_MAX_VALUE ((uint64_t)1 << 30)  /* bytes; and at most memory_budget / 4 */
#define LOAM_MAX_KS_NAME 255u               /* bytes */

/* ---- handles --------------------------------------------------------------------------------- */

typedef struct loam_db loam_db;
typedef struct loam_ks loam_ks;
typedef struct loam_iter loam_iter;
typedef struct loam_batch loam_batch;
typedef struct loam_snap loam_snap;

/* ---- options --------------------------------------------------------------------------------- */

#define LOAM_OPEN_MUST_EXIST 0x01u /* LOAM_E_NOENT when missing; default: create */
#define LOAM_OPEN_NEW 0x02u        /* LOAM_E_EXISTS when present */
#define LOAM_OPEN_READONLY 0x04u   /* no lock, no write, the view of the moment, beside a live writer
                                      too; opens every table. Many processes */
#define LOAM_OPEN_PARANOID 0x10u   /* verify checksums on every read, cached blocks included */

/* What an acknowledged write survives. */
enum {
    LOAM_DUR_DEFAULT = 0, /* as PROCESS */
    LOAM_DUR_MEMORY = 1,  /* nothing until a flush: no log is written */
    LOAM_DUR_PROCESS = 2, /* death of the process; power loss as of the last background sync */
    LOAM_DUR_POWER = 3    /* loss of power: the log is synced first, many writers a sync */
};
enum { LOAM_COMPRESS_DEFAULT = 0, LOAM_COMPRESS_NONE = 1, LOAM_COMPRESS_LZ4 = 2,
       LOAM_COMPRESS_ZSTD = 3 /* LOAM_E_UNSUPPORTED unless built in */ };
enum { LOAM_LOG_ERROR = 1, LOAM_LOG_WARN = 2, LOAM_LOG_INFO = 3, LOAM_LOG_DEBUG = 4 };

/* One line without a newline; from any thread. Must not call loam. */
typedef void (*loam_log_fn)(void *ctx, int level, const char *line);

typedef struct loam_ks_options {
    size_t struct_size;
    const loam_comparator *comparator; /* default: bytes as unsigned, shorter first */
    uint32_t compression;              /* LOAM_COMPRESS_*; default LZ4, per block where it helps */
    uint32_t filter_bits;              /* per key, at most 32; default 10; UINT32_MAX: no filters.
                                          More bits: fewer wasted reads, more memory */
    uint32_t block_bytes;              /* 512 to 65536; default 4096. Larger: better compression
                                          and scans, slower point reads */
    uint32_t reserved_[9];             /* zero */
} loam_ks_options;

typedef struct loam_options {
    size_t struct_size;
    uint32_t flags;            /* LOAM_OPEN_* */
    uint32_t durability;       /* LOAM_DUR_* of writes that do not say */
    uint32_t sync_interval_ms; /* background sync of the log; default 1000; UINT32_MAX: never */
    uint32_t threads;          /* background workers, at most 64; default min(cores / 2, 4), >= 1 */
    uint64_t memory_budget;    /* bytes for everything: memtables, cache, log windows, indexes,
                                  iterators; at least 1 MiB. Default 1/8 of RAM or of the cgroup's
                                  limit. With values of up to 1 MiB it is kept to within 16 MiB; larger
                                  ones may add up to a dozen times their size while they are written,
                                  merged and read, and a batch larger than a memtable (a ninth of the
                                  budget, at most 64 MiB) three times its size unless its operations
                                  are small (loam_write). What iterators and pins lend,
                                  iterators only values of over 16 KiB, has a share of its own, for all
                                  of them together: 1/64 of the budget, but at least 8.25 MiB or, if
                                  that is less, half of it; and beside it one value of more than half of
                                  that. Beyond it a pin or a move of an iterator is refused with
                                  LOAM_E_BUDGET (RETRY): give something back, then call again.
                                  Writes, gets into the caller's buffer and iterators over keys alone
                                  are never refused; gets of large values may wait for each other */
    uint32_t max_open_files;   /* tables open at once, at least 16; default half of RLIMIT_NOFILE, at
                                  most 4096. With fewer descriptors there are fewer: beside tables
                                  about 16 are needed */
    uint32_t max_write_pause_us; /* longest that pacing holds one write back while the disk makes
                                    progress; default 2000 */
    uint32_t log_level;        /* LOAM_LOG_*; default WARN */
    uint32_t reserved0_;       /* zero */
    const loam_vfs *vfs;       /* default: the operating system. Must outlive the database */
    const loam_allocator *allocator; /* default: malloc, and mappings for large parts of open tables.
                                        Copied */
    loam_log_fn log;           /* default: silence; loam never prints */
    void *log_ctx;
    const loam_ks_options *default_ks; /* for the keyspace "default" */
    uint64_t disk_budget;      /* bytes of all files of the database, each in units of 4 KiB; at least
                                  4 MiB; default: what the file system has. Beyond it writes get
                                  LOAM_E_NOSPACE and deletes go on, as on a full disk. Opening adds a
                                  log segment and a manifest even beyond it; a database that holds
                                  more already is read, and deleted from as far as that log goes.
                                  What deletes and overwrites hide is given back in steps that need
                                  little space, so data of about six tenths of the budget can be
                                  overwritten for ever; puts are refused meanwhile now and then.
                                  Cost: opening looks at the size of each file; a small budget makes
                                  memtables small */
    uint64_t disk_reserve;     /* bytes kept free for deletes and for what frees space on a full disk,
                                  in units of 4 KiB; at least 64 KiB and at most half of disk_budget.
                                  Default: an eighth of the data, at least 16 MiB, at most some log
                                  segments and memtables, and at most a sixth of what is free. A size
                                  that is given is kept as it is: where the disk has not so much free,
                                  writes but deletes get LOAM_E_NOSPACE until it has. One of twice
                                  memory_budget or more lets in deletes of keys of half as many
                                  bytes, 32 for each key included, however the disk became full;
                                  they may wait for a flush. A smaller one lets in fewer, at worst
                                  none in. Cost: the space, also while the database is closed */
    uint64_t reserved_[6];     /* zero */
} loam_options;

#define LOAM_W_DURABLE 0x1u /* this write as LOAM_DUR_POWER; LOAM_E_UNSUPPORTED under MEMORY, which has no log */
#define LOAM_W_RELAXED 0x2u /* this write as LOAM_DUR_PROCESS even when the database says POWER; MEMORY stays MEMORY */
#define LOAM_W_NOWAIT 0x4u  /* LOAM_E_BUSY at once rather than being held back */

typedef struct loam_write_opts {
    size_t struct_size;
    uint32_t flags;       /* LOAM_W_* */
    uint32_t reserved_;   /* zero */
    uint64_t deadline_us; /* longest wait for admission, in microseconds from the call; 0 = none */
    uint64_t *seq;        /* out: sequence number of this write's first operation */
    loam_error *err;      /* out, on error: a copy of loam_last_error() */
} loam_write_opts;

#define LOAM_R_NOFILL 0x1u /* do not keep what this reads in the cache */
#define LOAM_R_VERIFY 0x2u /* check block checksums even on cached blocks */

typedef struct loam_read_opts {
    size_t struct_size;
    uint32_t flags;        /* LOAM_R_* */
    uint32_t reserved_;    /* zero */
    const loam_snap *snap; /* NULL = latest */
    uint64_t *seq;         /* out: sequence number of the version found */
    loam_error *err;       /* out, on error */
} loam_read_opts;

/* ---- database -------------------------------------------------------------------------------- */

/* Opens the database in directory `dir`, creating both when missing. *db is NULL on error.
 * Cost: the manifest plus the live log; no table is opened. The log is at most half of the memory budget it
 * was written under; what of it is more than memtables may hold now is written to tables at once, or
 * kept in memory all the same if the disk has no room for them or the open is read-only.
 * Errors: E_INVAL (an option; the message names it), E_LOCKED, E_NOENT, E_EXISTS, E_FORMAT (not a
 * database, a newer format, another comparator: nothing is touched), E_CORRUPT (file and offset),
 * E_IO, E_NOSPACE, E_NOMEM. */
LOAM_API LOAM_MUST int loam_open(const char *dir, const loam_options *opts, loam_db **db);
/* Stops background work, makes everything written durable (except under LOAM_DUR_MEMORY, where it
 * flushes), closes the files. Waits for calls in progress in other threads; those that merge or wait
 * (loam_compact, loam_wait_idle, loam_wait_durable) end early with LOAM_E_CLOSED. Iterators, snapshots
 * and keyspace handles that are still out turn into LOAM_E_CLOSED ones. The handle is gone
 * whatever is returned. NULL is allowed. */
LOAM_API int loam_close(loam_db *db);
/* Removes a closed database: its own files, then the directory if that leaves it empty. After an error or a
 * crash the database is whole, or it is none any more and the call, made again, removes what is left.
 * LOAM_E_LOCKED when open; LOAM_E_NOENT when there is none, nor a LOCK that is left of one. opts: vfs only. */
LOAM_API LOAM_MUST int loam_destroy(const char *dir, const loam_options *opts);
/* The directory as given to loam_open; lent until close. "" for a closed handle. */
LOAM_API const char *loam_path(const loam_db *db);

/* ---- keyspaces ------------------------------------------------------------------------------- */

/* Opens a keyspace, creating it with `opts` when missing. All keyspaces share memtable, log and
 * cache, so a batch spans them atomically and an idle one costs under 1 KiB. A comparator must be
 * given at every open and have the stored name (LOAM_E_FORMAT otherwise). A name is 1 to
 * LOAM_MAX_KS_NAME bytes. Each handle is released once.
 * The first open of a keyspace with a comparator after loam_open() puts entries that the log brought
 * back into its order, which may flush and write tables; LOAM_E_READONLY when the database is open
 * read-only and has such entries. */
LOAM_API LOAM_MUST int loam_ks_open(loam_db *db, const char *name, const loam_ks_options *opts,
                                    loam_ks **ks);
LOAM_API void loam_ks_release(loam_ks *ks); /* NULL is allowed */
/* Removes a keyspace with all its keys, atomically; O(files). Its open handles give LOAM_E_NOENT
 * from then on. "default" cannot be dropped (LOAM_E_INVAL). */
LOAM_API LOAM_MUST int loam_ks_drop(loam_db *db, const char *name);
/* LOAM_E_NOENT, LOAM_E_EXISTS; "default" keeps its name (LOAM_E_INVAL). Open handles stay valid. */
LOAM_API LOAM_MUST int loam_ks_rename(loam_db *db, const char *from, const char *to);
/* Calls fn for each name, in no order; LOAM_STOPPED when fn ended it. fn must not call loam. */
LOAM_API LOAM_MUST int loam_ks_list(loam_db *db, loam_name_fn fn, void *ctx);

/* ---- writes ---------------------------------------------------------------------------------- */

/* A write is visible to every read that begins after it returns, and survives what the durability
 * says. Errors: E_TOOBIG, E_BUSY (NOWAIT or deadline), E_NOSPACE (RETRY), E_NOMEM, E_READONLY (opened so, or
 * loam_resume() is at work), E_IO; what loam_health() tells of is given to each write (STICKY if it needs
 * loam_resume()). On a full disk deletes go on from space set aside at open (disk_reserve says how many), and
 * what they free brings the other writes back by itself. An error without LOAM_ERR_UNKNOWN means that nothing
 * was written, now or after any crash.
 * Cost in steady state: no system call, no lock held while bytes are copied or the memtable is
 * searched, no malloc; from 4 KiB on one write to the log, which writes of other threads wait for.
 * Any thread. */
LOAM_API LOAM_MUST int loam_put(loam_db *db, loam_ks *ks, loam_slice key, loam_slice value,
                                const loam_write_opts *opts);
/* Deleting a key that does not exist is done, not an error. */
LOAM_API LOAM_MUST int loam_delete(loam_db *db, loam_ks *ks, loam_slice key,
                                   const loam_write_opts *opts);

/* A list of operations applied together. `reserve` bytes are set aside (0: none). NULL: no memory. */
LOAM_API LOAM_MUST loam_batch *loam_batch_new(size_t reserve);
LOAM_API void loam_batch_free(loam_batch *b);  /* NULL is allowed */
LOAM_API void loam_batch_clear(loam_batch *b); /* empty, and free of its error; memory is kept */
/* Each copies its bytes. An error sticks: loam_write() then returns it and writes nothing, so these
 * results may be ignored. All keyspaces of a batch belong to one database. */
LOAM_API int loam_batch_put(loam_batch *b, loam_ks *ks, loam_slice key, loam_slice value);
LOAM_API int loam_batch_delete(loam_batch *b, loam_ks *ks, loam_slice key);
/* A put whose value the caller writes into the returned memory before the next batch call. NULL:
 * error, which sticks. */
LOAM_API void *loam_batch_reserve(loam_batch *b, loam_ks *ks, loam_slice key, size_t value_size);
/* A position to go back to; rewinding drops what came after it, a sticking error included.
 * LOAM_E_INVAL for a mark beyond the end. */
LOAM_API size_t loam_batch_mark(const loam_batch *b);
LOAM_API int loam_batch_rewind(loam_batch *b, size_t mark);
LOAM_API size_t loam_batch_count(const loam_batch *b); /* operations */
/* Applies the batch: all of it or nothing, in every crash; later operations on a key win. The batch
 * is unchanged and may be written again. Errors as loam_put. E_NOENT: a keyspace of the batch was dropped after
 * the batch was filled; nothing is written, to the others neither. E_TOOBIG: it has more than half of memory_budget, or
 * of 1 GiB and 16 MiB, in keys, values and some bytes for each operation; or its keys and values are shorter than
 * 48 bytes on average and it takes more memory, 60 bytes for each operation and twice its bytes, than a
 * quarter of memory_budget, at most 256 MiB, and 4 MiB (110,000 deletes of keys of 8 bytes under a budget of
 * 16 MiB, 1.3 million under 384 MiB). */
LOAM_API LOAM_MUST int loam_write(loam_db *db, loam_batch *b, const loam_write_opts *opts);

/* Returns when everything acknowledged before the call survives power loss. One call serves all
 * waiting threads. LOAM_E_UNSUPPORTED under LOAM_DUR_MEMORY: loam_flush() does it there.
 * A read-only database leaves that to its writer: this and the next call return at once, and loam_durable_seq()
 * is the number of the last write that it sees. */
LOAM_API LOAM_MUST int loam_sync(loam_db *db);
/* Waits until sequence number seq survives power loss, without forcing a sync; LOAM_STOPPED after
 * timeout_us microseconds (UINT64_MAX: no limit). */
LOAM_API LOAM_MUST int loam_wait_durable(loam_db *db, uint64_t seq, uint64_t timeout_us);
/* All writes up to this number survive power loss. 0 for a closed handle. */
LOAM_API uint64_t loam_durable_seq(loam_db *db);

/* ---- reads ----------------------------------------------------------------------------------- */

/* Copies up to cap bytes of the value into buf; *len (may be NULL) is its full size. LOAM_TRUNCATED
 * when cap is too small; cap 0 with buf NULL asks only for existence and size and gives LOAM_OK.
 * LOAM_NOTFOUND leaves *len untouched. Lock-free when the data is in memory. Any thread. */
LOAM_API LOAM_MUST int loam_get(loam_db *db, loam_ks *ks, loam_slice key, void *buf, size_t cap,
                                size_t *len, const loam_read_opts *opts);

/* The caller's memory for a value that loam lends. */
typedef struct loam_pin {
    loam_slice value;
    uint64_t opaque_[4];
} loam_pin;
#define LOAM_PIN_INIT { { NULL, 0 }, { 0, 0, 0, 0 } }
/* As loam_get, but lends the value until loam_unpin(), which may come after the database was
 * closed. The pin must be empty (LOAM_PIN_INIT or unpinned). LOAM_E_BUDGET (RETRY): all pins and iterators
 * together lend too much already, see memory_budget; the pin stays empty. */
LOAM_API LOAM_MUST int loam_get_pin(loam_db *db, loam_ks *ks, loam_slice key, loam_pin *pin,
                                    const loam_read_opts *opts);
LOAM_API void loam_unpin(loam_pin *pin); /* fine on an empty pin */
/* n gets in one view of the database: rcs[i] is what loam_get_pin would return for keys[i].
 * Returns the worst error, or LOAM_OK. All pins must be empty. Values of more than the share of pins
 * (memory_budget) in one call: what came first is lent, the rest gets LOAM_E_BUDGET. */
LOAM_API LOAM_MUST int loam_get_many(loam_db *db, loam_ks *ks, const loam_slice *keys, size_t n,
                                     loam_pin *pins, int *rcs, const loam_read_opts *opts);

#define LOAM_ITER_KEYS 0x1u /* values are not copied; loam_iter_value() is empty */

typedef struct loam_iter_opts {
    size_t struct_size;
    uint32_t flags;        /* LOAM_ITER_* */
    uint32_t readahead;    /* bytes read at once; 0 = automatic. All tables of an iterator together have 1/32 of
                              memory_budget for it, at most 1 MiB or 1/1024 of the budget, if that is more */
    loam_slice lower;      /* inclusive; size 0 = none. Copied */
    loam_slice upper;      /* exclusive; size 0 = none. Copied */
    loam_slice prefix;     /* instead of lower and upper; size 0 = none. Byte order only. Copied */
    const loam_snap *snap; /* NULL = the state at loam_iter_open() */
    loam_error *err;       /* out, on error of loam_iter_open() */
} loam_iter_opts;

/* An iterator over one keyspace as of one moment. It starts on no entry. However long it is held,
 * it sees that moment and holds no memtable or file. Between calls it takes a kilobyte beside the entry it is on
 * once there are many, so as many as there is memory for. */
LOAM_API LOAM_MUST int loam_iter_open(loam_db *db, loam_ks *ks, const loam_iter_opts *opts,
                                      loam_iter **it);
LOAM_API void loam_iter_close(loam_iter *it); /* NULL is allowed */
/* LOAM_OK = on an entry, LOAM_NOTFOUND = off the range, < 0 = error: a loop cannot mistake an error
 * for the end. next and prev from no entry give LOAM_NOTFOUND; an error leaves the iterator on none.
 * LOAM_E_BUDGET (RETRY): the value is over 16 KiB and all iterators and pins together lend too much already, see
 * memory_budget. An iterator lends one value at a time, so eight threads that scan values of 1 MiB are not
 * refused under a budget of 16 MiB or more while nobody holds pins; one that is goes on by a seek to where it was. */
LOAM_API LOAM_MUST int loam_iter_first(loam_iter *it);
LOAM_API LOAM_MUST int loam_iter_last(loam_iter *it);
LOAM_API LOAM_MUST int loam_iter_seek(loam_iter *it, loam_slice key);    /* first entry >= key */
LOAM_API LOAM_MUST int loam_iter_seek_le(loam_iter *it, loam_slice key); /* last entry <= key */
LOAM_API LOAM_MUST int loam_iter_next(loam_iter *it);
LOAM_API LOAM_MUST int loam_iter_prev(loam_iter *it);
/* Lent until the iterator moves or is closed; empty when on no entry. */
LOAM_API loam_slice loam_iter_key(const loam_iter *it);
LOAM_API loam_slice loam_iter_value(const loam_iter *it);
LOAM_API uint64_t loam_iter_seq(const loam_iter *it); /* of the entry; 0 on none */
/* Moves the iterator to another moment (NULL: now) and leaves it on no entry; bounds stay. */
LOAM_API LOAM_MUST int loam_iter_refresh(loam_iter *it, const loam_snap *snap);

/* Non-zero stops the scan. Must not call loam on the same database. */
typedef int (*loam_scan_fn)(void *ctx, loam_slice key, loam_slice value);
/* Calls fn for up to `limit` entries (0: all) within the bounds, in order. LOAM_OK at the end of the
 * range, LOAM_STOPPED when fn or the limit ended it. */
LOAM_API LOAM_MUST int loam_scan(loam_db *db, loam_ks *ks, const loam_iter_opts *opts,
                                 uint64_t limit, loam_scan_fn fn, void *ctx);

/* A snapshot fixes what reads given it see. It costs a number, some 80 bytes: no file or memtable is held,
 * but versions it can see are not compacted away. As many as there is memory for. */
LOAM_API LOAM_MUST int loam_snap_take(loam_db *db, loam_snap **snap);
LOAM_API void loam_snap_release(loam_snap *snap);         /* NULL is allowed */
LOAM_API uint64_t loam_snap_seq(const loam_snap *snap);   /* 0 for a closed handle */

/* ---- keeping house --------------------------------------------------------------------------- */

/* Writes what is in memory to tables and returns when they are durable. ks only selects what must be
 * on disk; the memtable is shared, so all of it goes. */
LOAM_API LOAM_MUST int loam_flush(loam_db *db, loam_ks *ks);
/* Flushes, then merges every table overlapping [lo, hi) into the last level. data NULL: open ended.
 * What others write meanwhile may stay above it.
 * LOAM_STOPPED when timeout_us passed (0: no limit), which is looked at before each merge; the work done is
 * kept. */
LOAM_API LOAM_MUST int loam_compact(loam_db *db, loam_ks *ks, loam_slice lo, loam_slice hi,
                                    uint64_t timeout_us);
/* Returns when no background work is due, not even what otherwise waits for quiet times: a memtable that is
 * a quarter full, or that seeks have paid for, becomes a table, level 0 is merged into few tables, and what
 * deletes and overwrites left behind is given back to the disk. LOAM_STOPPED after timeout_us (0: no
 * limit). */
LOAM_API LOAM_MUST int loam_wait_idle(loam_db *db, uint64_t timeout_us);
/* on != 0 stops starting compactions but those of loam_compact(), and returns when none runs any more or the
 * pause was ended by another call; 0 lets them run again, whoever stopped them. Flushes go on, but for
 * those that only readers gain by (loam_wait_idle). */
LOAM_API LOAM_MUST int loam_pause(loam_db *db, int on);

enum { LOAM_HEALTHY = 0, LOAM_DEGRADED = 1, LOAM_REFUSING_WRITES = 2 };
/* One of the three; *why (may be NULL) gets the error behind it, zeros when HEALTHY. < 0 for a bad handle.
 * DEGRADED: writes go on in the present log segment, but three times in a row, or more, the next one could not be
 * made ready; it is tried for every 50 ms, and once the present one is full writes are refused. So a full disk or
 * a directory that is gone is told of ahead of time, as long as writes leave any.
 * REFUSING_WRITES: writes get the error. A flush or merge that fails and a failed sync of the log are this at once:
 * nothing piles up behind them.
 * A database whose directory is renamed or removed takes writes and reads what it has open until it needs
 * another file; then that read, and writes, get LOAM_E_IO, and this is the error told here: sys_errno ESTALE. What
 * else may have its place, a copy for one, is left as it is. The file LOCK in it tells; without it, too, nothing new is
 * opened. (A vfs without is_named() cannot tell.) */
LOAM_API int loam_health(loam_db *db, loam_error *why);
/* After the cause of an error is gone: verify, and accept writes again. What is not LOAM_ERR_STICKY, a
 * full disk or a log that gets no other file, is retried every 100 ms without this call. LOAM_OK when
 * writes are accepted; else why they are not. */
LOAM_API LOAM_MUST int loam_resume(loam_db *db);

/* ---- damage ---------------------------------------------------------------------------------- */

/* One place where the files are not what was written. All is lent for the call, during which
 * loam_last_error() says in words what is wrong. */
typedef struct loam_damage {
    size_t struct_size;
    int32_t code;           /* LOAM_E_CORRUPT, LOAM_E_FORMAT, LOAM_E_IO; LOAM_E_NOENT: no file */
    uint32_t recovered;     /* repair only: 1 = nothing of it is lost */
    const char *file;       /* its name in the directory */
    uint64_t offset, bytes; /* where; bytes 0: from there to the end, or not known */
    uint64_t keys_lost_max; /* entries at risk are at most so many; UINT64_MAX: not known */
    loam_slice ks_name;     /* data NULL: any keyspace */
    loam_slice first_key, last_key; /* the entries at risk, both inclusive; data NULL: open ended */
} loam_damage;
/* Non-zero ends the call, which then returns LOAM_STOPPED. Must not call loam on the same database. */
typedef int (*loam_damage_fn)(void *ctx, const loam_damage *d);
/* Reads every table, the manifest and the live log of an open database from its files, not from
 * memory, while it is in use: it rests as long as it works. Calls fn (NULL: none) for each finding.
 * LOAM_OK: no damage; otherwise the code of the worst finding. What ended it early is returned instead,
 * whatever it found before: LOAM_E_NOMEM; LOAM_E_CLOSED when the database is closed meanwhile. */
LOAM_API LOAM_MUST int loam_verify(loam_db *db, loam_damage_fn fn, void *ctx);
/* The same of a whole directory without opening it: takes no lock and writes nothing, so a live
 * writer is no obstacle. opts: vfs, allocator, and the comparator of default_ks; a keyspace whose
 * comparator is not known is checked in all but its order. Returns as loam_verify; LOAM_E_NOENT: no
 * database there; LOAM_E_FORMAT: not loam's or of a newer format, the rest was not looked at;
 * LOAM_E_BUSY: the log changes faster than it can be read. */
LOAM_API LOAM_MUST int loam_check(const char *dir, const loam_options *opts, loam_damage_fn fn,
                                  void *ctx);
/* Makes a database that loam_check calls sound out of all that is readable of a damaged one, and tells
 * of what is lost; a sound one is left as it is. Tables are kept block by block, the log record by
 * record, across holes: so a batch is whole or absent as ever, but what follows a lost one may be
 * there. Without a readable manifest the tables in the directory are taken as they are found; what was
 * deleted may then show again, and a keyspace whose name is lost becomes "recovered-<id>". The damaged
 * files stay beside the database as NAME.damaged. Needs room for what it writes anew. A crash leaves
 * the database damaged or repaired; repairing may be repeated.
 * opts: vfs, allocator, and the comparator of default_ks; in a keyspace whose comparator is not known
 * a damaged table is kept only as far as its index is whole.
 * LOAM_OK: sound now. LOAM_E_NOENT, LOAM_E_LOCKED, LOAM_E_FORMAT (not loam's, or newer), or an error
 * of reading or writing: nothing has changed. LOAM_STOPPED likewise: fn ended it. */
LOAM_API LOAM_MUST int loam_repair(const char *dir, const loam_options *opts, loam_damage_fn fn,
                                   void *ctx);

/* ---- numbers --------------------------------------------------------------------------------- */

/* X(name): all uint64_t. Bytes, counts since open, or microseconds (_us). */
#define LOAM_STATS_MAP(X)                                                                          \
    X(memory_budget) X(memory_used) X(memory_peak) X(memtable_bytes) X(cache_bytes)                \
    X(pinned_bytes) X(index_bytes)                                                                 \
    X(disk_bytes) X(live_bytes) X(wal_bytes) X(files) X(keys_estimate)                             \
    X(puts) X(deletes) X(gets) X(seeks) X(nexts) X(bytes_put) X(bytes_got)                         \
    X(cache_hits) X(cache_misses) X(filter_useful) X(filter_false) X(tombstones_skipped)           \
    X(flushes) X(compactions) X(table_moves) X(bytes_logged) X(bytes_flushed)                      \
    X(bytes_compacted_in) X(bytes_compacted_out) X(debt_bytes)                                     \
    X(syncs) X(group_commits) X(throttled_writes) X(throttled_us) X(busy_writes)                   \
    X(errors) X(resumes) X(snapshots) X(iterators) X(last_seq) X(durable_seq)                      \
    X(disk_reserve)

typedef struct loam_stats {
    size_t struct_size;
#define LOAM_STATS_FIELD_(name) uint64_t name;
    LOAM_STATS_MAP(LOAM_STATS_FIELD_)
#undef LOAM_STATS_FIELD_
} loam_stats;
/* Fills out (out->struct_size set by the caller). ks NULL: the whole database; otherwise files,
 * disk_bytes, live_bytes, keys_estimate and index_bytes are the keyspace's. disk_reserve is what is set
 * aside at this moment: 0 while it has been given up on a full disk. */
LOAM_API LOAM_MUST int loam_get_stats(loam_db *db, loam_ks *ks, loam_stats *out);

enum { LOAM_HIST_PUT = 0, LOAM_HIST_WRITE, LOAM_HIST_GET, LOAM_HIST_SEEK, LOAM_HIST_SYNC,
       LOAM_HIST_FLUSH, LOAM_HIST_COMPACT, LOAM_HIST_COUNT };
/* Times in nanoseconds. PUT, WRITE, GET and SEEK are sampled (one call in 64). */
typedef struct loam_hist {
    uint64_t count, sum_ns, min_ns, p50_ns, p90_ns, p99_ns, p999_ns, p9999_ns, max_ns;
} loam_hist;
LOAM_API LOAM_MUST int loam_get_hist(loam_db *db, int which, loam_hist *out);

enum { LOAM_TEXT = 0, LOAM_JSON = 1 };
/* Like snprintf: at most cap bytes with a final NUL; *need = full size without it (may be NULL).
 * LOAM_TRUNCATED when cap is too small. */
LOAM_API LOAM_MUST int loam_format_stats(loam_db *db, int format, char *buf, size_t cap,
                                         size_t *need);
/* One number by name: any field of loam_stats, "levels", "level.N.files", "level.N.bytes",
 * "memtables", "sealed_memtables", "pending_flushes", "running_compactions". LOAM_E_NOENT for
 * another name. */
LOAM_API LOAM_MUST int loam_property(loam_db *db, loam_ks *ks, const char *name, uint64_t *value);

#ifdef __cplusplus
}
#endif
#endif
