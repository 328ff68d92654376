/* bench_engine.h - What a store must offer to be measured: one table of functions per engine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Results: BENCH_OK, BENCH_NOTFOUND, BENCH_UNSUPPORTED, or BENCH_ERROR with a text in
 * bench_engine_error() of the calling thread. A session is one thread's view of an open database;
 * everything that needs memory or state per thread (read buffers, transactions, batches) is in it.
 */
#ifndef LOAM_TOOLS_BENCH_ENGINE_H_
#define LOAM_TOOLS_BENCH_ENGINE_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/loam.h"

enum { BENCH_OK = 0, BENCH_NOTFOUND = 1, BENCH_UNSUPPORTED = 2, BENCH_ERROR = -1 };

/* How to open; sizes in bytes. */
struct bench_open {
    const char *dir;
    bool readonly;
    bool must_exist;
    bool no_log;   /* writes survive nothing until flushed */
    bool durable;  /* every write survives loss of power */
    bool compress;
    bool mmap_read; /* tables, where the engine leaves the choice */
    bool paranoid; /* verify every checksum on every read */
    uint32_t bloom_bits; /* 0 = no filters */
    uint32_t block_size;
    uint32_t max_open_files; /* 0 = the engine's default */
    uint32_t threads;        /* background; 0 = the engine's default */
    uint64_t memory_budget;
    uint64_t disk_budget; /* 0 = none */
    uint64_t disk_reserve; /* 0 = the engine's default */
    uint64_t write_buffer_size;
    uint64_t cache_size;
};

/* The head of every engine's own session struct. */
struct bench_session {
    bool sync; /* the next writes survive loss of power */
};

/* Counted since open. */
struct bench_counters {
    uint64_t bytes_written; /* by flush, compaction and, if log_included, the log */
    bool log_included;      /* false: the log costs what the user wrote, once more */
};

/* Bytes written between the two for each byte the user put, of put_bytes > 0. */
double bench_written_per_byte(const struct bench_counters *before, const struct bench_counters *after,
                              uint64_t put_bytes);

/* Of the block cache: gets by whether their block was in it, since open. */
struct bench_cache_counters {
    uint64_t hits, misses;
    uint64_t bytes;       /* held at the moment */
    uint64_t table_bytes; /* of all tables on disk */
};

struct bench_engine {
    const char *name;
    const char *note; /* what a reader of its figures must know of its settings */
    const char *(*version)(void);
    bool unsafe; /* as it is opened here, a power cut may damage all of it */
    bool has_checksums; /* a scan of a database opened `paranoid` proves something */

    int (*open)(const struct bench_open *how, void **db);
    int (*close)(void *db);
    int (*destroy)(const char *dir); /* of a closed database; fine when there is none */

    int (*session_open)(void *db, struct bench_session **s);
    void (*session_close)(struct bench_session *s);

    int (*put)(struct bench_session *s, loam_slice key, loam_slice value);
    int (*erase)(struct bench_session *s, loam_slice key);
    /* *value is lent until the session's next call. */
    int (*get)(struct bench_session *s, loam_slice key, loam_slice *value);
    /* n gets at once: *found keys and *bytes of values. NULL: the caller gets one by one. */
    int (*get_many)(struct bench_session *s, const loam_slice *keys, size_t n, size_t *found,
                    uint64_t *bytes);
    /* The session's batch: filled, then committed as one write, which empties it. */
    int (*batch_put)(struct bench_session *s, loam_slice key, loam_slice value);
    int (*batch_erase)(struct bench_session *s, loam_slice key);
    int (*batch_commit)(struct bench_session *s);

    /* Moves give BENCH_OK on an entry, BENCH_NOTFOUND off the end. At most one a session. */
    int (*iter_open)(struct bench_session *s, void **it);
    void (*iter_close)(void *it);
    int (*iter_first)(void *it);
    int (*iter_last)(void *it);
    int (*iter_seek)(void *it, loam_slice key);
    int (*iter_next)(void *it);
    int (*iter_prev)(void *it);
    void (*iter_entry)(void *it, loam_slice *key, loam_slice *value); /* lent until it moves */

    /* Each may be NULL: not offered. */
    int (*flush)(void *db);
    int (*compact)(void *db);
    int (*wait_idle)(void *db);
    int (*print_stats)(void *db, FILE *out);
    int (*print_levels)(void *db, FILE *out);
    int (*print_memory)(void *db, FILE *out);
    int (*counters)(void *db, struct bench_counters *c);
    int (*cache_counters)(void *db, struct bench_cache_counters *c);
};

extern const struct bench_engine bench_engine_loam;
#ifdef HAVE_LEVELDB
extern const struct bench_engine bench_engine_leveldb;
#endif
#ifdef HAVE_ROCKSDB
extern const struct bench_engine bench_engine_rocksdb;
#endif
#ifdef HAVE_LMDB
extern const struct bench_engine bench_engine_lmdb;
#endif

/* NULL: no such engine, or *known and not built in. */
const struct bench_engine *bench_engine_find(const char *name, bool *known);

/* Keeps a text for the calling thread; returns BENCH_ERROR. */
int bench_engine_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *bench_engine_error(void);

#endif
