/* vfs.h - The public contract for files, directories, clock and randomness, and its three keepers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Part of the public header: engine/loam.h includes it, and the installed loam.h contains its text.
 */
#ifndef LOAM_ARENA_VFS_H_
#define LOAM_ARENA_VFS_H_

#include "arena/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct loam_file loam_file; /* defined by each vfs for itself */
typedef struct loam_vfs loam_vfs;

/* Called once a name; a non-zero return stops the walk. */
typedef int (*loam_name_fn)(void *ctx, loam_slice name);

/* Flags of open. Neither CREATE nor NEW: the file must exist. */
#define LOAM_VFS_READ 0x1u
#define LOAM_VFS_WRITE 0x2u
#define LOAM_VFS_CREATE 0x4u   /* create when missing */
#define LOAM_VFS_NEW 0x8u      /* create; -EEXIST when present */
#define LOAM_VFS_TRUNCATE 0x10u /* cut an existing file to 0 bytes; -EINVAL without WRITE */

/* Advice; a vfs may ignore any of it, and says -EINVAL to one it does not know. WRITEBACK: a sync is to come
 * and finds less to do if writing begins now; nothing is waited for, and another error than -EINVAL,
 * -ENOSYS and -EOPNOTSUPP says that the file has lost what was written to it. */
enum { LOAM_ADVISE_SEQUENTIAL = 1, LOAM_ADVISE_RANDOM = 2, LOAM_ADVISE_WILLNEED = 3,
       LOAM_ADVISE_DONTNEED = 4, LOAM_ADVISE_WRITEBACK = 5 };

/* The operating system, replaceable. Every call returns >= 0, or -errno. Paths use '/'. A vfs must
 * outlive every database opened on it. All calls may come from any thread at once; calls on one
 * file too, except close.
 * -EINTR: a signal came before the call had done anything, but for a part of a write; above all no
 * error of the disk was seen and forgotten. The call is then made again with the same arguments, at
 * most 100 times in a row. Not so close, after which the file is closed whatever it returns. loam_vfs_os()
 * never returns it. Whatever else a sync returns is final: it is never tried again. */
struct loam_vfs {
    size_t struct_size;
    const char *name;
    void *ctx;
    /* Opens a regular file; -ELOOP, -EISDIR or -EINVAL for a link, directory or device. Created
     * files are readable by their owner alone. loam_vfs_os() opens no file for writing that has other
     * names (hard links): -EMLINK, after which that name is removed, and another file made. */
    int (*open)(void *ctx, const char *path, uint32_t flags, loam_file **f);
    int (*close)(void *ctx, loam_file *f);
    /* Bytes moved: reading, fewer than n only at the end of the file; writing, it may be fewer than
     * n and the caller goes on with the rest. */
    int64_t (*read)(void *ctx, loam_file *f, void *buf, size_t n, uint64_t off);
    int64_t (*write)(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off);
    /* Everything written or stored through a map before the call survives a power cut after it.
     * data_only: metadata not needed to read the data back may be left out. */
    int (*sync)(void *ctx, loam_file *f, uint32_t data_only);
    int (*truncate)(void *ctx, loam_file *f, uint64_t size);
    /* Sets aside disk space for [off, off+len) and extends the size over it; reads as zeros.
     * -EOPNOTSUPP: cannot, and nothing changed. */
    int (*reserve)(void *ctx, loam_file *f, uint64_t off, uint64_t len);
    int (*size)(void *ctx, loam_file *f, uint64_t *size);
    /* NULL, or maps [off, off+len) shared and writable with every page present, so that no later
     * store in it can fault for lack of space. off and len are multiples of 4096 inside the size. What
     * is written is seen through the map, and what is stored through it is read. */
    int (*map)(void *ctx, loam_file *f, uint64_t off, size_t len, void **p);
    int (*unmap)(void *ctx, void *p, size_t len);
    int (*advise)(void *ctx, loam_file *f, uint64_t off, uint64_t len, uint32_t advice);
    int (*sync_dir)(void *ctx, const char *dir); /* names made and removed in dir survive power loss */
    int (*mkdir)(void *ctx, const char *dir);    /* -EEXIST when present */
    int (*rename)(void *ctx, const char *from, const char *to); /* replaces `to`, atomically */
    int (*link)(void *ctx, const char *from, const char *to);
    int (*remove)(void *ctx, const char *path); /* a file, or an empty directory */
    int (*list)(void *ctx, const char *dir, loam_name_fn fn, void *arg); /* names without . and .. */
    /* Takes the exclusive lock that the file `path` stands for, creating it; -EAGAIN when held by
     * anyone, this process included. Released by close. */
    int (*lock)(void *ctx, const char *path, loam_file **f);
    int (*space)(void *ctx, const char *dir, uint64_t *free_bytes, uint64_t *total_bytes);
    uint64_t (*now_us)(void *ctx); /* monotonic */
    int (*random)(void *ctx, void *buf, size_t n);
    /* NULL, or beyond struct_size: there is none. Else as write, and the bytes it moved survive a power cut
     * after it, in a file whose size and space do so already; nothing is said of the file's other bytes. */
    int64_t (*write_durable)(void *ctx, loam_file *f, const void *buf, size_t n, uint64_t off);
    /* NULL, or beyond struct_size: nobody can tell. Else 0 when `path` is a name of the very file f; -ENOENT:
     * nothing has that name; -ESTALE: something else has; or why it is not known. f may be a lock: then -ESTALE, too,
     * in any directory but the one that it was taken in, whatever links there are. */
    int (*is_named)(void *ctx, loam_file *f, const char *path);
};

/* The operating system's files, none of them under the number of a standard stream, though that be closed.
 * Static; never freed. */
LOAM_API const loam_vfs *loam_vfs_os(void);

/* The same, but files opened for reading alone are mapped, and reads of up to 8 KiB copy from there without a system
 * call: gets and seeks whose blocks are not in loam's cache but in the page cache take less time. The price: pages that
 * were read count as the process's memory beyond options.memory_budget until the kernel wants them back (any time, at
 * no cost), and what loam_vfs_os() reports as LOAM_E_IO or LOAM_E_CORRUPT, a disk that cannot read a page or a file that
 * somebody has cut short while it was open, ends the process by SIGBUS. A file that cannot be mapped is read as by
 * loam_vfs_os(), and so are all where pointers have 32 bits. Static; never freed. */
LOAM_API const loam_vfs *loam_vfs_os_mapped(void);

/* A disk in memory, empty at first; one root directory "/", all other directories by mkdir.
 * Files vanish with it. Free with loam_vfs_free() after the last database on it is closed.
 * From tests/examples/vfs_memory.c of the source:
 *
 *     loam_vfs *disk;
 *     if (loam_vfs_memory(&disk) < 0) return 1;
 *     loam_options options = { .struct_size = sizeof options, .vfs = disk };
 *     loam_db *db;
 *     if (loam_open("/db", &options, &db) < 0) return 1;
 *     if (loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), NULL) < 0) return 1;
 *     if (loam_close(db) < 0) return 1;
 *     size_t size = 0;
 *     if (loam_open("/db", &options, &db) < 0) return 1;  ... the files are there as before
 *     if (loam_get(db, NULL, LOAM_LIT("key"), NULL, 0, &size, NULL) != LOAM_OK) return 1;
 *     if (loam_close(db) < 0) return 1;
 *     loam_vfs_free(disk);
 */
LOAM_API LOAM_MUST int loam_vfs_memory(loam_vfs **vfs);

/* ---- faults ----------------------------------------------------------------------------------
 *
 * A fault vfs stands before a memory disk, counts every call that can fail (all but now_us and
 * unmap) and fails those of a plan. Every failure of a program's storage can be tried in turn.
 * From tests/examples/vfs_fault.c of the source:
 *
 *     for (uint64_t n = 1, fired = 1; fired != 0; n++) {
 *         loam_vfs *disk, *faulty;
 *         loam_fault_plan plan = { .struct_size = sizeof plan, .fail_at = n,
 *                                  .fail_calls = LOAM_CALL_WRITE | LOAM_CALL_SYNC,
 *                                  .fail_errno = ENOSPC, .short_writes = LOAM_LANDS_HALF };
 *         if (loam_vfs_memory(&disk) < 0 || loam_vfs_fault(disk, &plan, &faulty) < 0) return 1;
 *         run_my_program(faulty);  ... which opens loam with options.vfs = faulty
 *         fired = loam_vfs_faults(faulty);  ... 0: the program makes fewer than n such calls
 *         loam_vfs_free(faulty);
 *         check_what_is_left(disk);  ... which opens loam with options.vfs = disk
 *         loam_vfs_free(disk);
 *     }
 */

/* Kinds of calls. */
#define LOAM_CALL_OPEN 0x1u
#define LOAM_CALL_CLOSE 0x2u
#define LOAM_CALL_READ 0x4u
#define LOAM_CALL_WRITE 0x8u
#define LOAM_CALL_SYNC 0x10u
#define LOAM_CALL_TRUNCATE 0x20u
#define LOAM_CALL_RESERVE 0x40u
#define LOAM_CALL_SIZE 0x80u
#define LOAM_CALL_MAP 0x100u
#define LOAM_CALL_SYNC_DIR 0x200u
#define LOAM_CALL_MKDIR 0x400u
#define LOAM_CALL_RENAME 0x800u
#define LOAM_CALL_LINK 0x1000u
#define LOAM_CALL_REMOVE 0x2000u
#define LOAM_CALL_LIST 0x4000u
#define LOAM_CALL_LOCK 0x8000u
#define LOAM_CALL_SPACE 0x10000u
#define LOAM_CALL_RANDOM 0x20000u
#define LOAM_CALL_WRITE_DURABLE 0x40000u /* neither a WRITE nor a SYNC */
#define LOAM_CALL_ADVISE 0x80000u
#define LOAM_CALL_IS_NAMED 0x100000u
#define LOAM_CALL_ALL 0x1fffffu

/* What of a failing write of n bytes, durable or not, is stored. */
enum { LOAM_LANDS_NOTHING = 0, LOAM_LANDS_RANDOM = 1 /* 0 to n - 1 */, LOAM_LANDS_ONE = 2,
       LOAM_LANDS_HALF = 3, LOAM_LANDS_ALL_BUT_ONE = 4, LOAM_LANDS_ALL = 5 };

/* What a planned fault does. */
enum {
    LOAM_FAULT_ERROR = 0, /* the call fails and does nothing, but for a write's landed bytes */
    LOAM_FAULT_SHORT = 1, /* a write, durable or not, does its work on what lands, at least a byte, and
                             says so: no error. Other calls pass */
    LOAM_FAULT_LIE = 2    /* write, write_durable, sync and sync_dir do nothing (a write: what lands is
                             stored, and is not durable) and report success. Other calls pass */
};

/* Which names a sync of a file makes durable. */
enum {
    LOAM_NAMES_POSIX = 0,  /* none: only sync_dir does */
    LOAM_NAMES_ORDERED = 1 /* all changes made before it, as a journal committed in order does (ext4) */
};

typedef struct loam_fault_plan {
    size_t struct_size;
    uint64_t seed;         /* of every random choice */
    uint64_t fail_at;      /* the n-th call fails (1-based); 0 = none */
    int32_t fail_errno;    /* EIO, ENOSPC, EINTR, ...; 0 = EIO */
    uint32_t fail_repeat;  /* how many calls in a row; 0 = 1; UINT32_MAX = for ever */
    uint32_t short_writes; /* LOAM_LANDS_*: what a failing write stores first */
    uint32_t no_map;       /* 1 = the vfs offers no map: the log takes its buffered path */
    uint64_t crash_at;     /* the n-th call and all later ones fail with EIO; 0 = never */
    uint64_t space;        /* bytes all files may hold before ENOSPC; 0 = unlimited */
    uint32_t fail_calls;   /* LOAM_CALL_* that fail_at and fail_repeat count; 0 = all */
    uint32_t fail_how;     /* LOAM_FAULT_* */
    uint32_t drop_dirty;   /* 1 = after a failed sync, durable write or WRITEBACK reads still see what was
                              written to the file, but it never becomes durable unless it is written
                              again, as Linux has it */
    uint32_t names;        /* LOAM_NAMES_* */
} loam_fault_plan;

/* Wraps a memory disk. `disk` must come from loam_vfs_memory() and outlive the wrapper. */
LOAM_API LOAM_MUST int loam_vfs_fault(loam_vfs *disk, const loam_fault_plan *plan, loam_vfs **vfs);
/* Calls counted so far: all, or those of some kinds (LOAM_CALL_*). */
LOAM_API uint64_t loam_vfs_calls(const loam_vfs *fault_vfs);
LOAM_API uint64_t loam_vfs_calls_of(const loam_vfs *fault_vfs, uint32_t kinds);
/* Faults that fail_at has caused so far. */
LOAM_API uint64_t loam_vfs_faults(const loam_vfs *fault_vfs);
/* Replaces the plan; the call counters go on. Any thread. */
LOAM_API LOAM_MUST int loam_vfs_set_plan(loam_vfs *fault_vfs, const loam_fault_plan *plan);
/* A new memory disk holding what may be left if power is cut now. Variants: 0 to 4 as LOAM_CUT_*
 * below, 5 and more: for each file a way of its own, and any names, seeded by plan.seed and the
 * variant. */
LOAM_API LOAM_MUST int loam_vfs_power_cut(loam_vfs *fault_vfs, uint64_t variant, loam_vfs **after);

/* ---- crashes -----------------------------------------------------------------------------------
 *
 * A recording remembers every change of a memory disk in order, and makes from it the disk as a
 * crash at any moment may have left it: as often as wanted, without running the program again.
 * From tests/examples/vfs_record.c of the source:
 *
 *     loam_vfs *disk, *after;
 *     loam_recording *rec;
 *     if (loam_vfs_memory(&disk) < 0 || loam_vfs_record(disk, &rec) < 0) return 1;
 *     loam_options options = options_on(disk);  ... .vfs = disk
 *     if (loam_open("/db", &options, &db) < 0) return 1;
 *     if (loam_put(db, NULL, LOAM_LIT("key"), LOAM_LIT("value"), &durable) < 0) return 1;
 *     uint64_t acked = loam_recording_mark(rec);  ... promised from here on
 *     if (loam_close(db) < 0) return 1;
 *     for (uint64_t at = 0; at <= loam_recording_length(rec); at++) {
 *         for (uint32_t variant = LOAM_CUT_ALL; variant <= LOAM_CUT_STALE; variant++) {
 *             loam_crash crash = { .struct_size = sizeof crash, .at = at, .variant = variant };
 *             if (loam_recording_crash(rec, &crash, &after) < 0) return 1;
 *             expect(after, at >= acked);  ... the key must be there; else it may be
 *             loam_vfs_free(after);
 *         }
 *     }
 *     loam_recording_free(rec);
 *     loam_vfs_free(disk);
 *
 * Stores through a map count as pending blocks, like writes. What a disk keeps apart from pending
 * blocks and names is exactly what was synced: a torn or garbled block leaves the bytes of it that
 * were durable and were not written again.
 */

/* What a crash leaves. Names, by LOAM_NAMES_*: of the random ones, with ORDERED the oldest so many
 * changes since they were last durable, with POSIX any of them too. */
enum {
    LOAM_CUT_ALL = 0,     /* everything: the process was killed, the machine went on; what was not
                             synced is pending as before, for a power cut that comes later */
    LOAM_CUT_SYNCED = 1,  /* only what was synced */
    LOAM_CUT_NAMES = 2,   /* all names, synced data */
    LOAM_CUT_DATA = 3,    /* synced names, all data */
    LOAM_CUT_SIZES = 4,   /* all names and sizes, synced data, zeros where there is none */
    LOAM_CUT_BLOCKS = 5,  /* random: 4 KiB blocks, arrived or not */
    LOAM_CUT_SECTORS = 6, /* random: 512-byte sectors arrived, dropped, torn left or right, garbage */
    LOAM_CUT_PREFIX = 7,  /* random: a file up to a byte, and a part of the write under way */
    LOAM_CUT_STALE = 8,   /* random: new blocks hold what other files, removed ones too, had there */
    LOAM_CUT_SUBSET = 9   /* bit i of `seed`: whether pending item i arrived */
};

typedef struct loam_recording loam_recording;

typedef struct loam_crash {
    size_t struct_size;
    uint64_t at;      /* changes made before it; the next one is under way */
    uint32_t variant; /* LOAM_CUT_* */
    uint32_t names;   /* LOAM_NAMES_* */
    uint64_t seed;
} loam_crash;

/* Begins to record a memory disk; what it holds now counts as durable, unless a LOAM_CUT_ALL made it
 * with pending changes. A disk has one recording. */
LOAM_API LOAM_MUST int loam_vfs_record(loam_vfs *disk, loam_recording **rec);
/* Before or after its disk is freed; NULL is allowed. */
LOAM_API void loam_recording_free(loam_recording *rec);
/* The number of changes so far, stores through maps included. Any thread; while the disk lives. */
LOAM_API uint64_t loam_recording_mark(loam_recording *rec);
LOAM_API uint64_t loam_recording_length(const loam_recording *rec);

/* For the following two nothing may use the disk meanwhile, and one thread at a time may call them;
 * going forward in `at` is fast, going back begins anew.
 * A new memory disk as the crash left it. LOAM_E_INVAL: no such moment, variant or names. */
LOAM_API LOAM_MUST int loam_recording_crash(loam_recording *rec, const loam_crash *crash,
                                            loam_vfs **after);
/* How many blocks, sizes and names are pending: 1 << *items values of `seed` give every state that
 * LOAM_CUT_SUBSET can leave. At most 64 items are told apart. */
LOAM_API LOAM_MUST int loam_recording_pending(loam_recording *rec, uint64_t at, uint32_t names,
                                              uint32_t *items);
/* A hash of all names, sizes and bytes of a memory disk, for telling states apart; 0 for another
 * vfs. */
LOAM_API uint64_t loam_vfs_hash(const loam_vfs *memory_disk);
/* Frees a vfs made by the functions above; NULL is allowed. */
LOAM_API void loam_vfs_free(loam_vfs *vfs);

#ifdef __cplusplus
}
#endif
#endif
