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
#define LOAM_VFS_TRUNCATE 0x10u /* cut an existing file to 0 bytes */

/* Advice; a vfs may ignore any of it. */
enum { LOAM_ADVISE_SEQUENTIAL = 1, LOAM_ADVISE_RANDOM = 2, LOAM_ADVISE_WILLNEED = 3,
       LOAM_ADVISE_DONTNEED = 4 };

/* The operating system, replaceable. Every call returns >= 0, or -errno. Paths use '/'. A vfs must
 * outlive every database opened on it. All calls may come from any thread at once; calls on one
 * file too, except close. */
struct loam_vfs {
    size_t struct_size;
    const char *name;
    void *ctx;
    /* Opens a regular file; -ELOOP, -EISDIR or -EINVAL for a link, directory or device. Created
     * files are readable by their owner alone. */
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
     * store in it can fault for lack of space. off and len are multiples of 4096 inside the size. */
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
};

/* The operating system's files. Static; never freed. */
LOAM_API const loam_vfs *loam_vfs_os(void);

/* A disk in memory, empty at first; one root directory "/", all other directories by mkdir.
 * Files vanish with it. Free with loam_vfs_free() after the last database on it is closed. */
LOAM_API LOAM_MUST int loam_vfs_memory(loam_vfs **vfs);

typedef struct loam_fault_plan {
    size_t struct_size;
    uint64_t seed;         /* of every random choice */
    uint64_t fail_at;      /* the n-th call fails (1-based); 0 = none */
    int32_t fail_errno;    /* EIO, ENOSPC, EINTR, ...; 0 = EIO */
    uint32_t fail_repeat;  /* how many calls in a row; 0 = 1; UINT32_MAX = for ever */
    uint32_t short_writes; /* 1 = a failing write first stores a random part */
    uint32_t no_map;       /* 1 = the vfs offers no map: the log takes its buffered path */
    uint64_t crash_at;     /* the n-th call and all later ones fail with EIO; 0 = never */
    uint64_t space;        /* bytes all files may hold before ENOSPC; 0 = unlimited */
} loam_fault_plan;

/* Wraps a memory disk: counts every call that can fail (all but now_us, unmap and advise), injects
 * the plan's faults, and can produce what a disk may hold after a power cut. `disk` must come from
 * loam_vfs_memory() and outlive the wrapper. */
LOAM_API LOAM_MUST int loam_vfs_fault(loam_vfs *disk, const loam_fault_plan *plan, loam_vfs **vfs);
/* Calls counted so far. */
LOAM_API uint64_t loam_vfs_calls(const loam_vfs *fault_vfs);
/* Replaces the plan; the call counter goes on. Any thread. */
LOAM_API LOAM_MUST int loam_vfs_set_plan(loam_vfs *fault_vfs, const loam_fault_plan *plan);
/* A new memory disk holding what may be left if power is cut now. Variants: 0 everything written
 * (the process was killed), 1 only what was synced, 2 all names but only synced data, 3 only synced
 * names but all data, 4 sizes without data (zeros), 5 and more: a random choice of unsynced 4 KiB
 * blocks, 512-byte sectors (kept, dropped, torn or garbage) and names, seeded by plan.seed and the
 * variant. The names of a directory are durable after sync_dir, and of a file only then. */
LOAM_API LOAM_MUST int loam_vfs_power_cut(loam_vfs *fault_vfs, uint64_t variant, loam_vfs **after);
/* Frees a vfs made by the functions above; NULL is allowed. */
LOAM_API void loam_vfs_free(loam_vfs *vfs);

#ifdef __cplusplus
}
#endif
#endif
